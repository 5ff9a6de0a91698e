//! The management canister: who may call what, and where the work is done.
//!
//! What is not served answers with a reject that names the method.

mod admission;
mod code;
mod cycles;
mod info;
mod lifecycle;
mod snapshots;
mod subnets;
mod transfer;

use candid::{CandidType, Principal, utils::ArgumentDecoder};
use ic_management_canister_types::CanisterIdRecord;
use pocket_ic::ErrorCode;

use super::{Network, Reject, call::Request};
use crate::bounded;

/// How a management call ended.
enum Done {
    /// Answered, with these cycles kept of those that were attached.
    Reply { bytes: Vec<u8>, cycles_kept: u128 },
    /// Answered later, by whoever finishes the work.
    Later,
}

type Managed = Result<Done, Reject>;

/// What a method without result answers.
pub(super) fn empty_reply() -> Vec<u8> {
    candid::encode_args(()).expect("nothing can always be encoded")
}

fn reply<T: CandidType>(value: &T) -> Managed {
    Ok(Done::Reply {
        bytes: encode(value),
        cycles_kept: 0,
    })
}

fn nothing() -> Managed {
    Ok(Done::Reply {
        bytes: empty_reply(),
        cycles_kept: 0,
    })
}

fn encode<T: CandidType>(value: &T) -> Vec<u8> {
    candid::encode_one(value).expect("the type has a Candid form")
}

fn decode<'a, T: ArgumentDecoder<'a>>(method: &str, arg: &'a [u8]) -> Result<T, Reject> {
    bounded::decode(arg).map_err(|error| Reject::payload(method, error))
}

impl Network {
    /// Executes a call to the management canister, or to one that the network plays.
    pub(super) fn manage(&mut self, request: Request) {
        let (origin, cycles) = (request.origin, request.cycles);
        let subnet = request.subnet.unwrap_or_else(|| self.default_subnet().id);
        self.count_execution(&subnet);
        let done = if self.plays(&request.callee) {
            self.play(&request)
        } else {
            self.dispatch(&request)
        };
        match done {
            Ok(Done::Reply { bytes, cycles_kept }) => {
                self.answer(origin, Some(subnet), Ok(bytes), cycles - cycles_kept, 0);
            }
            Ok(Done::Later) => {}
            Err(reject) => self.answer(origin, Some(subnet), Err(reject), cycles, 0),
        }
    }

    fn dispatch(&mut self, request: &Request) -> Managed {
        let Request {
            caller,
            method,
            arg,
            ..
        } = request;
        let of_canister =
            || decode::<(CanisterIdRecord,)>(method, arg).map(|(record,)| record.canister_id);
        match method.as_str() {
            "create_canister" => self.create(request, decode(method, arg)?),
            "provisional_create_canister_with_cycles" => {
                self.provisional_create(request, decode(method, arg)?)
            }
            "provisional_top_up_canister" => self.provisional_top_up(decode(method, arg)?),
            "update_settings" => self.update_settings(request, decode(method, arg)?),
            "start_canister" => self.start(caller, of_canister()?),
            "stop_canister" => self.stop(request, of_canister()?),
            "delete_canister" => self.delete(caller, of_canister()?),
            "deposit_cycles" => self.deposit(request, of_canister()?),
            "install_code" => self.install_code(request, decode(method, arg)?),
            "install_chunked_code" => self.install_chunked_code(request, decode(method, arg)?),
            "uninstall_code" => self.uninstall_code(request, decode(method, arg)?),
            "upload_chunk" => self.upload_chunk(caller, decode(method, arg)?),
            "stored_chunks" => self.stored_chunks(caller, of_canister()?),
            "clear_chunk_store" => self.clear_chunk_store(caller, of_canister()?),
            "canister_status" => self.canister_status(caller, of_canister()?),
            "canister_info" => self.canister_info(decode(method, arg)?),
            "canister_metrics" => self.canister_metrics(caller, of_canister()?),
            "canister_metadata" => self.canister_metadata(request, decode(method, arg)?),
            "fetch_canister_logs" | "list_canisters" => Err(only_queries(method)),
            "take_canister_snapshot" => self.take_snapshot(request, decode(method, arg)?),
            "load_canister_snapshot" => self.load_snapshot(request, decode(method, arg)?),
            "list_canister_snapshots" => self.list_snapshots(caller, of_canister()?),
            "delete_canister_snapshot" => self.delete_snapshot(request, decode(method, arg)?),
            "read_canister_snapshot_metadata" => {
                self.read_snapshot_metadata(caller, decode(method, arg)?)
            }
            "read_canister_snapshot_data" => self.read_snapshot_data(caller, decode(method, arg)?),
            "upload_canister_snapshot_metadata" => {
                self.upload_snapshot_metadata(caller, decode(method, arg)?)
            }
            "upload_canister_snapshot_data" => {
                self.upload_snapshot_data(caller, decode(method, arg)?)
            }
            "raw_rand" => self.raw_rand(),
            "subnet_info" => self.subnet_info(decode(method, arg)?),
            "subnet_metrics" => self.subnet_metrics(decode(method, arg)?),
            "node_metrics_history" => self.node_metrics_history(decode(method, arg)?),
            other => Err(unserved(other)),
        }
    }

    /// A query of the management canister, on that subnet.
    pub(super) fn manage_query(
        &mut self,
        subnet: &Principal,
        sender: Principal,
        method: &str,
        arg: &[u8],
    ) -> Result<Vec<u8>, Reject> {
        let done = match method {
            "fetch_canister_logs" => self.fetch_logs(&sender, decode(method, arg)?),
            "canister_status" => {
                let (record,): (CanisterIdRecord,) = decode(method, arg)?;
                self.canister_status(&sender, record.canister_id)
            }
            "canister_metrics" => {
                let (record,): (CanisterIdRecord,) = decode(method, arg)?;
                self.canister_metrics(&sender, record.canister_id)
            }
            "list_canisters" => self.list_canisters(&sender, subnet),
            other => Err(unserved(other)),
        };
        match done? {
            Done::Reply { bytes, .. } => Ok(bytes),
            Done::Later => Err(unserved(method)),
        }
    }

    /// The same from a composite query: it reaches canisters of its own subnet only.
    pub(super) fn manage_query_on(
        &mut self,
        subnet: &Principal,
        sender: Principal,
        method: &str,
        arg: &[u8],
    ) -> Result<Vec<u8>, Reject> {
        if method != "list_canisters" {
            let (of,): (CanisterIdRecord,) = decode(method, arg)?;
            if self.subnet_of(&of.canister_id).as_ref() != Some(subnet) {
                return Err(Reject::not_found(&of.canister_id));
            }
        }
        self.manage_query(subnet, sender, method, arg)
    }
}

/// Some methods are for queries only.
fn only_queries(method: &str) -> Reject {
    Reject::new(
        ErrorCode::CanisterRejectedMessage,
        format!("{method} API is only accessible in non-replicated mode"),
    )
}

fn unserved(method: &str) -> Reject {
    Reject::new(
        ErrorCode::CanisterMethodNotFound,
        format!("Management canister has no method '{method}'"),
    )
}

//! The management canister: who may call what, and where the work is done.
//!
//! What is not served answers with a reject that names the method.

mod code;
mod info;
mod lifecycle;
mod snapshots;
mod transfer;

use candid::{CandidType, Principal, utils::ArgumentDecoder};
use ic_management_canister_types::CanisterIdRecord;
use pocket_ic::ErrorCode;

use super::{
    Network, Reject,
    call::{Origin, Request},
    canister::Canister,
};

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
    candid::decode_args(arg).map_err(|error| Reject::payload(method, error))
}

impl Network {
    /// Executes a call to the management canister.
    pub(super) fn manage(&mut self, request: Request) {
        let (origin, cycles) = (request.origin, request.cycles);
        let subnet = request.subnet.unwrap_or_else(|| self.default_subnet().id);
        self.count_execution(&subnet);
        match self.dispatch(&request) {
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
            "canister_info" => self.canister_info(request, decode(method, arg)?),
            "canister_metrics" => self.canister_metrics(caller, of_canister()?),
            "canister_metadata" => self.canister_metadata(request, decode(method, arg)?),
            "fetch_canister_logs" => Err(only_queries(method)),
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
            "raw_rand" => self.raw_rand(request),
            other => Err(unserved(other)),
        }
    }

    /// A query of the management canister.
    pub(super) fn manage_query(
        &mut self,
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
        let (of,): (CanisterIdRecord,) = decode(method, arg)?;
        if self.subnet_of(&of.canister_id).as_ref() != Some(subnet) {
            return Err(Reject::not_found(&of.canister_id));
        }
        self.manage_query(sender, method, arg)
    }

    fn existing(&mut self, id: &Principal) -> Result<&mut Canister, Reject> {
        self.canisters
            .get_mut(id)
            .ok_or_else(|| Reject::not_found(id))
    }

    /// The canister, if the caller controls it.
    fn controlled(&mut self, id: &Principal, caller: &Principal) -> Result<&mut Canister, Reject> {
        let canister = self.existing(id)?;
        if canister.controllers.contains(caller) {
            Ok(canister)
        } else {
            Err(Reject::not_controller(id, caller))
        }
    }

    /// The canister, if the caller controls it or is it.
    fn controlled_or_self(
        &mut self,
        id: &Principal,
        caller: &Principal,
    ) -> Result<&mut Canister, Reject> {
        if id == caller {
            self.existing(id)
        } else {
            self.controlled(id, caller)
        }
    }
}

/// Some methods are for canisters only.
fn only_canisters(request: &Request) -> Result<(), Reject> {
    match request.origin {
        Origin::Call(_) => Ok(()),
        Origin::Ingress(_) => Err(Reject::new(
            ErrorCode::CanisterRejectedMessage,
            format!("{} can only be called by canisters", request.method),
        )),
    }
}

/// Some are for queries only.
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

//! Who may manage a canister, and what the management canister takes from outside (interface specification,
//! "API Request submission"): what it does not is refused at once, before it is a message.

use candid::{CandidType, Principal};
use pocket_ic::ErrorCode;
use serde::Deserialize;

use super::unserved;
use crate::{
    bounded::decode_part,
    network::{Network, Reject, canister::Canister},
};

/// Who may call a method from outside.
enum Audience {
    Everybody,
    Controllers,
    /// Or admins of the canister's subnet.
    Administrators,
    /// Those to whom the canister shows its status.
    StatusViewers,
    /// Those to whom the canister shows its snapshots.
    SnapshotViewers,
    /// Admins of the subnet that is meant.
    SubnetAdmins,
    /// Canisters may, and perhaps queries.
    Nobody,
}

/// None for a method that there is not.
fn audience(method: &str) -> Option<Audience> {
    Some(match method {
        "provisional_create_canister_with_cycles" | "provisional_top_up_canister" => {
            Audience::Everybody
        }
        "update_settings"
        | "install_code"
        | "install_chunked_code"
        | "upload_chunk"
        | "stored_chunks"
        | "clear_chunk_store"
        | "take_canister_snapshot"
        | "load_canister_snapshot"
        | "delete_canister_snapshot"
        | "upload_canister_snapshot_metadata"
        | "upload_canister_snapshot_data" => Audience::Controllers,
        "start_canister" | "stop_canister" | "uninstall_code" | "delete_canister"
        | "canister_metrics" => Audience::Administrators,
        "canister_status" => Audience::StatusViewers,
        "list_canister_snapshots"
        | "read_canister_snapshot_metadata"
        | "read_canister_snapshot_data" => Audience::SnapshotViewers,
        "create_canister" => Audience::SubnetAdmins,
        "deposit_cycles"
        | "raw_rand"
        | "canister_info"
        | "canister_metadata"
        | "subnet_info"
        | "subnet_metrics"
        | "node_metrics_history"
        | "fetch_canister_logs"
        | "list_canisters" => Audience::Nobody,
        _ => return None,
    })
}

/// The canister that an argument is about.
#[derive(CandidType, Deserialize)]
struct About {
    canister_id: Option<Principal>,
    target_canister: Option<Principal>,
}

impl Network {
    /// Whether a message from outside may be taken.
    pub(in crate::network) fn admit(
        &self,
        sender: &Principal,
        method: &str,
        arg: &[u8],
        effective: Option<&Principal>,
    ) -> Result<(), Reject> {
        let audience = audience(method).ok_or_else(|| unserved(method))?;
        match audience {
            Audience::Everybody => return Ok(()),
            Audience::SubnetAdmins if self.route(effective).admins.contains(sender) => {
                return Ok(());
            }
            Audience::SubnetAdmins | Audience::Nobody => {
                return Err(Reject::new(
                    ErrorCode::CanisterRejectedMessage,
                    format!("ic00 method {method} can not be called via ingress messages"),
                ));
            }
            _ => {}
        }
        let about: About = decode_part(arg).map_err(|error| Reject::payload(method, error))?;
        let about = about.canister_id.or(about.target_canister);
        let id = about.ok_or_else(|| Reject::payload(method, "it names no canister"))?;
        let canister = self.canisters.get(&id);
        let canister = canister.ok_or_else(|| Reject::not_found(&id))?;
        let settings = &canister.settings;
        let allowed = match audience {
            Audience::StatusViewers => {
                canister.shows(&settings.status_visibility, sender) || self.is_admin(sender, &id)
            }
            Audience::SnapshotViewers => canister.shows(&settings.snapshot_visibility, sender),
            Audience::Administrators => {
                canister.controllers.contains(sender) || self.is_admin(sender, &id)
            }
            _ => canister.controllers.contains(sender),
        };
        match audience {
            _ if allowed => Ok(()),
            Audience::StatusViewers => Err(Reject::no_status(&id, sender)),
            _ => Err(Reject::not_controller(&id, sender)),
        }
    }

    /// Whether somebody is an admin of a canister's subnet.
    pub(super) fn is_admin(&self, who: &Principal, canister: &Principal) -> bool {
        let subnet = self.subnet_of(canister);
        let mut subnets = self.subnets.iter();
        subnets.any(|other| Some(other.id) == subnet && other.admins.contains(who))
    }

    pub(super) fn existing(&mut self, id: &Principal) -> Result<&mut Canister, Reject> {
        self.canisters
            .get_mut(id)
            .ok_or_else(|| Reject::not_found(id))
    }

    /// The canister, if the caller controls it.
    pub(super) fn controlled(
        &mut self,
        id: &Principal,
        caller: &Principal,
    ) -> Result<&mut Canister, Reject> {
        let canister = self.existing(id)?;
        if canister.controllers.contains(caller) {
            Ok(canister)
        } else {
            Err(Reject::not_controller(id, caller))
        }
    }

    /// The canister, if the caller controls it or is an admin of its subnet.
    pub(super) fn administered(
        &mut self,
        id: &Principal,
        caller: &Principal,
    ) -> Result<&mut Canister, Reject> {
        if self.is_admin(caller, id) {
            self.existing(id)
        } else {
            self.controlled(id, caller)
        }
    }

    /// The canister, if the caller controls it or is it.
    pub(super) fn controlled_or_self(
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

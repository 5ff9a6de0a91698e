//! Messages and queries from outside.

use candid::Principal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    MessageId, Network, Reject,
    call::{Origin, Request},
    canister::Status as CanisterStatus,
    execute::{Circumstances, INSPECT_INSTRUCTIONS, with_machine},
    history::{Entry, Status},
    money::Use,
};
use crate::machine::{self, SenderInfo};

/// Rounds in which a message is expected to be answered.
const ROUNDS_MAX: usize = 100;

/// An update call or a query from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    pub sender: Principal,
    pub sender_info: Option<SenderInfo>,
    /// The management canister takes messages too.
    pub canister: Principal,
    pub method: String,
    #[serde(with = "serde_bytes")]
    pub arg: Vec<u8>,
    /// For management calls: the canister or subnet meant, which the argument need not name.
    pub effective: Option<Principal>,
}

/// The message is not answered after a good many rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StillRunning {
    pub rounds: usize,
}

impl Network {
    /// Takes a message, if its canister does. It is executed in the next round.
    pub fn submit(&mut self, ingress: Ingress) -> Result<MessageId, Reject> {
        let Ingress {
            sender,
            canister,
            method,
            ..
        } = &ingress;
        // The number alone makes it unique, so the argument, which may be large, is not hashed.
        let number = self.new_id();
        let mut hash = Sha256::new();
        for part in [
            &number.to_be_bytes()[..],
            sender.as_slice(),
            canister.as_slice(),
            method.as_bytes(),
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let id: MessageId = hash.finalize().into();
        self.take(id, None, ingress)?;
        Ok(id)
    }

    /// The same for a message that brings its id and the last moment, in nanoseconds since 1970, at which
    /// it may be sent. One that is known already is not taken again, whatever became of it.
    pub fn submit_as(
        &mut self,
        id: MessageId,
        expiry_ns: u64,
        ingress: Ingress,
    ) -> Result<(), Reject> {
        if self.history.get(&id).is_some() {
            return Ok(());
        }
        self.take(id, Some(expiry_ns), ingress)
    }

    fn take(
        &mut self,
        id: MessageId,
        expiry_ns: Option<u64>,
        ingress: Ingress,
    ) -> Result<(), Reject> {
        let addressed = if ingress.canister == Principal::management_canister() {
            let Ingress {
                sender,
                method,
                arg,
                effective,
                ..
            } = &ingress;
            self.admit(sender, method, arg, effective.as_ref())?;
            *effective
        } else if self.plays(&ingress.canister) {
            Some(ingress.canister)
        } else {
            self.inspect(&ingress)?;
            Some(ingress.canister)
        };
        let Ingress {
            sender,
            sender_info,
            canister,
            method,
            arg,
            effective,
        } = ingress;
        let bytes = (method.len() + arg.len()) as u64;
        self.history.check_room(bytes)?;
        self.charge_ingress(canister, &method, addressed, bytes)?;
        let subnet = self.route(addressed.as_ref()).id;
        self.history
            .receive(id, sender, canister, subnet, expiry_ns, bytes);
        self.enqueue(Request {
            origin: Origin::Ingress(id),
            caller: sender,
            sender_info,
            callee: canister,
            method,
            arg,
            cycles: 0,
            deadline_ns: 0,
            subnet: effective,
            parent: 0,
        });
        Ok(())
    }

    /// The canister that a message is for pays for it: method name and argument. Of messages to the
    /// management canister the provisional ones are free, and settings can always be changed, so that a
    /// canister which froze itself can be thawed.
    fn charge_ingress(
        &mut self,
        callee: Principal,
        method: &str,
        payer: Option<Principal>,
        bytes: u64,
    ) -> Result<(), Reject> {
        let managed = callee == Principal::management_canister();
        if managed && (method.starts_with("provisional_") || method == "update_settings") {
            return Ok(());
        }
        let Some(id) = payer else { return Ok(()) };
        let fees = self.fees_of(&id);
        let price = fees.ingress(bytes);
        if let Some(canister) = self.canisters.get_mut(&id) {
            canister.pay(&id, price, &fees)?;
            self.consume(&id, Use::Ingress, price);
        }
        Ok(())
    }

    /// What is known of a message.
    pub fn message(&self, id: &MessageId) -> Option<&Entry> {
        self.history.get(id)
    }

    /// None for an unknown message, `Some(None)` for one that is not answered yet.
    pub fn ingress_status(&self, id: &MessageId) -> Option<Option<&Result<Vec<u8>, Reject>>> {
        match &self.history.get(id)?.status {
            Status::Answered(result) => Some(Some(result)),
            Status::Received | Status::Processing => Some(None),
            Status::Done => None,
        }
    }

    /// Runs rounds until the message is answered. An unknown message is never answered.
    pub fn await_ingress(
        &mut self,
        id: &MessageId,
    ) -> Result<Result<Vec<u8>, Reject>, StillRunning> {
        for _ in 0..ROUNDS_MAX {
            if let Some(Some(result)) = self.ingress_status(id) {
                return Ok(result.clone());
            }
            self.tick();
        }
        match self.ingress_status(id) {
            Some(Some(result)) => Ok(result.clone()),
            _ => Err(StillRunning { rounds: ROUNDS_MAX }),
        }
    }

    fn inspect(&mut self, ingress: &Ingress) -> Result<(), Reject> {
        let (id, method) = (ingress.canister, &ingress.method);
        let time_ns = self.time_ns;
        let fees = self.fees_of(&id);
        let canister = self
            .canisters
            .get_mut(&id)
            .ok_or_else(|| Reject::not_found(&id))?;
        match canister.status {
            CanisterStatus::Running => {}
            CanisterStatus::Stopping(_) => return Err(Reject::stopping(&id)),
            CanisterStatus::Stopped => return Err(Reject::stopped(&id)),
        }
        if canister.machine.is_none() {
            return Err(Reject::no_module(&id));
        }
        let known = [
            "canister_update",
            "canister_query",
            "canister_composite_query",
        ]
        .iter()
        .any(|kind| canister.exports(&format!("{kind} {method}")));
        if !known {
            return Err(Reject::no_method(&id, "update", method));
        }
        if !canister.exports("canister_inspect_message") {
            return Ok(());
        }
        let circumstances = Circumstances {
            sender_info: ingress.sender_info.as_ref(),
            ..Circumstances::new(
                id,
                ingress.sender,
                time_ns,
                INSPECT_INSTRUCTIONS,
                &self.root_key,
                &fees,
            )
        };
        let entry = machine::Entry::Inspect {
            method: method.clone(),
            arg: ingress.arg.clone(),
        };
        let outcome = with_machine(canister, circumstances, |machine, view| {
            machine.run(entry, view)
        })
        .ok_or_else(|| Reject::no_module(&id))?;
        match outcome.result {
            Ok(()) if outcome.accepted => Ok(()),
            Ok(()) => Err(Reject::refused(&id)),
            Err(trap) => Err(Reject::trapped(&id, &trap)),
        }
    }
}

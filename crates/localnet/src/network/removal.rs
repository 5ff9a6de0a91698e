//! Code, canisters and subnets go; whoever waits for them is answered.

use candid::Principal;
use ic_management_canister_types::ChangeDetails;
use pocket_ic::ErrorCode;

use super::{
    Network, Reject,
    call::Request,
    canister::{Status, Waiting},
    execute::{Circumstances, INSTALL_INSTRUCTIONS, with_machine},
    money::Use,
};
use crate::machine::Upgrade;

/// Candid's form of no arguments.
const NO_ARGUMENTS: &[u8] = b"DIDL\0\0";

impl Network {
    /// Takes a canister's code and memories. `by` asked for it, with the version that it says it has; nobody,
    /// where its cycles ran out: then its history goes too.
    pub(super) fn uninstall(&mut self, id: Principal, by: Option<(&Request, Option<u64>)>) {
        let time_ns = self.time_ns;
        let Some(canister) = self.canisters.get_mut(&id) else {
            return;
        };
        canister.machine = None;
        canister.wasm_bytes = 0;
        canister.certified_data.clear();
        canister.chunks.clear();
        canister.clear_log();
        canister.version += 1;
        match by {
            Some((by, version)) => {
                canister.record(time_ns, by, version, ChangeDetails::CodeUninstall);
            }
            None => canister.history.clear(),
        }
        self.set_timer(&id, 0);
        self.note_code(&id);
        self.note_memory(&id);
        let reject = Reject::new(
            ErrorCode::CanisterRejectedMessage,
            "Canister has been uninstalled.",
        );
        self.reject_contexts(&id, &reject);
    }

    fn reject_contexts(&mut self, id: &Principal, reject: &Reject) {
        let canister = self.canisters.get(id);
        let open = canister.map(|canister| canister.contexts.clone());
        for number in open.into_iter().flatten() {
            self.reject_context(number, reject.clone(), 0);
            self.close_context(number);
        }
    }

    /// Takes a canister with everything in it; what it has left is burned.
    pub(super) fn remove_canister(&mut self, id: &Principal) {
        let reject = Reject::not_found(id);
        self.reject_contexts(id, &reject);
        let Some(canister) = self.canisters.remove(id) else {
            return;
        };
        self.forget_canister(id, canister.timer_ns);
        let subnet = Some(canister.subnet);
        self.lose(subnet, canister.balance);
        for delivery in canister.responses {
            let call = delivery.call;
            let paid = call.callback_prepaid + call.response_prepaid;
            self.lose(subnet, delivery.cycles_refunded + paid);
        }
        for request in canister.requests {
            self.answer(
                request.origin,
                subnet,
                Err(reject.clone()),
                request.cycles,
                0,
            );
        }
        if let Status::Stopping(waiting) = canister.status {
            self.answer_stops(waiting, subnet, &Err(reject));
        }
    }

    /// A subnet is lost, with all its canisters, their cycles and what was on its way to them; whoever
    /// waits for one of them hears that it is not found. False where there is no such subnet, or it is
    /// the last.
    pub fn delete_subnet(&mut self, subnet: &Principal) -> bool {
        let alive = self.subnets.iter().filter(|subnet| !subnet.deleted).count();
        let found = self.subnets.iter_mut().find(|other| other.id == *subnet);
        let Some(lost) = found.filter(|subnet| !subnet.deleted && alive > 1) else {
            return false;
        };
        lost.deleted = true;
        let ids: Vec<_> = self
            .canisters
            .iter()
            .filter(|(_, canister)| canister.subnet == *subnet)
            .map(|(id, _)| *id)
            .collect();
        for id in &ids {
            self.remove_canister(id);
        }
        // Calls of theirs that are out will be answered to nobody: give them up.
        let given_up: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, call)| ids.contains(&call.caller))
            .map(|(number, _)| *number)
            .collect();
        for number in given_up {
            self.give_up_call(number);
        }
        true
    }

    /// A controller's `stop_canister` from nowhere.
    pub(super) fn stop_by_fault(&mut self, id: &Principal) {
        if let Some(canister) = self.canisters.get_mut(id)
            && matches!(canister.status, Status::Running)
        {
            canister.status = Status::Stopping(Vec::<Waiting>::new());
            self.stopping.insert(*id);
        }
    }

    /// An upgrade to the same code from nowhere, free of charge. One that traps changes nothing.
    pub(super) fn upgrade_by_fault(&mut self, id: &Principal) {
        let fees = self.fees_of(id);
        let management = Principal::management_canister();
        let circumstances = Circumstances::new(
            *id,
            management,
            self.time_ns,
            INSTALL_INSTRUCTIONS,
            &self.root_key,
            &fees,
        );
        let Some(canister) = self.canisters.get_mut(id) else {
            return;
        };
        let outcome = with_machine(canister, circumstances, |machine, view| {
            let module = machine.module().clone();
            machine.upgrade(&module, NO_ARGUMENTS.to_vec(), view, Upgrade::default())
        });
        let Some(outcome) = outcome else { return };
        canister.log(outcome.logs);
        if outcome.result.is_ok() {
            if let Some(data) = outcome.certified_data {
                canister.certified_data = data;
            }
            canister.version += 1;
            let burned = outcome.cycles_burned;
            canister.balance = canister.balance.saturating_sub(burned);
            self.certified.touch(id);
            self.note_memory(id);
            self.consume(id, Use::Burned, burned);
            self.set_timer(id, outcome.timer_ns.unwrap_or(0));
        }
    }
}

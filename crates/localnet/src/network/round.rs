//! One round: what crossed subnets arrives, timers fire, answers are taken before requests. Only canisters
//! that have something to do are looked at.

use std::sync::Arc;

use candid::Principal;

use super::{
    Network, Reject,
    account::Kind,
    call::Request,
    canister::{LowMemory, Status, Waiting},
    execute::UPDATE_INSTRUCTIONS,
    fault::{Event, Fault, Site},
};
use crate::machine::Entry;

/// What a subnet executes in a round; a message that was begun is finished. As on the Internet Computer,
/// like the price of a message itself.
const ROUND_INSTRUCTIONS: i64 = 7_000_000_000;
const MESSAGE_INSTRUCTIONS: i64 = 2_000_000;
/// Calls to the management canister in one round.
const MANAGEMENT_MAX: usize = 1_000;
/// Who waits so long for a canister to stop hears that it has not.
const STOP_WAIT_NS: u64 = 300_000_000_000;

impl Network {
    /// Runs one round: everything that can be executed is, within a budget. It is later than the last
    /// one by a nanosecond at least.
    pub fn tick(&mut self) {
        self.time_ns = self.time_ns.max(self.round_ns + 1);
        self.round_ns = self.time_ns;
        self.round += 1;
        self.note_day();
        self.strike_round();
        self.history.forget(self.time_ns);
        self.charge_rent();
        self.expire();
        self.arrive();
        let mut left = vec![ROUND_INSTRUCTIONS; self.subnets.len()];
        self.run_tasks(&mut left);
        self.run_messages(&mut left);
        self.settle_stops();
    }

    fn run_messages(&mut self, left: &mut [i64]) {
        let mut management_left = MANAGEMENT_MAX;
        loop {
            let mut worked = self.run_management(&mut management_left);
            let busy = self.active.union(&self.low_memory);
            for id in self.in_turn(busy.copied().collect()) {
                let Some(subnet) = self.running(&id).filter(|subnet| left[*subnet] > 0) else {
                    continue;
                };
                self.spent = 0;
                worked |= self.step(&id);
                left[subnet] -= MESSAGE_INSTRUCTIONS.saturating_add_unsigned(self.spent);
            }
            if !worked {
                return;
            }
        }
    }

    /// Sorted ids, starting with another one each round.
    fn in_turn(&self, mut ids: Vec<Principal>) -> Vec<Principal> {
        if !ids.is_empty() {
            let first = (self.round % ids.len() as u64) as usize;
            ids.rotate_left(first);
        }
        ids
    }

    /// The place of a canister's subnet, if it runs in this round.
    fn running(&self, id: &Principal) -> Option<usize> {
        let subnet = self.canisters.get(id)?.subnet;
        let place = self.subnets.iter().position(|other| other.id == subnet)?;
        (self.subnets[place].halted_until <= self.round).then_some(place)
    }

    fn run_management(&mut self, left: &mut usize) -> bool {
        let mut worked = false;
        let waiting = std::mem::take(&mut self.management);
        let mut later = vec![];
        for request in waiting {
            if *left == 0 || self.is_halted(&request) {
                later.push(request);
            } else {
                *left -= 1;
                worked = true;
                self.manage(request);
            }
        }
        // What came in the meantime comes after.
        for request in later.into_iter().rev() {
            self.management.push_front(request);
        }
        worked
    }

    fn is_halted(&self, request: &Request) -> bool {
        let subnet = self.route(request.subnet.as_ref());
        subnet.halted_until > self.round
    }

    /// Timers that are due and heartbeats.
    fn run_tasks(&mut self, left: &mut [i64]) {
        let due: Vec<_> = self.due_timers().collect();
        let mut ids = self.heartbeats.clone();
        ids.extend(due);
        for id in self.in_turn(ids.into_iter().collect()) {
            let Some(subnet) = self.running(&id).filter(|subnet| left[*subnet] > 0) else {
                continue;
            };
            self.spent = 0;
            self.run_hook(&id);
            let canister = &self.canisters[&id];
            if !matches!(canister.status, Status::Running) {
                continue;
            }
            let due = canister.timer_ns != 0 && canister.timer_ns <= self.time_ns;
            if due {
                // A timer fires once; who wants more sets it again.
                let fires = canister.exports("canister_global_timer");
                self.set_timer(&id, 0);
                if fires {
                    self.run_task(&id, Entry::Timer, Kind::Timer);
                }
            }
            if self.heartbeats.contains(&id) {
                self.run_task(&id, Entry::Heartbeat, Kind::Heartbeat);
            }
            left[subnet] -= MESSAGE_INSTRUCTIONS.saturating_add_unsigned(self.spent);
        }
    }

    fn due_timers(&self) -> impl Iterator<Item = Principal> + '_ {
        let due = (self.time_ns, Principal::from_slice(&[0xff; 29]));
        self.timers.range(..=due).map(|(_, id)| *id)
    }

    /// Whether `canister_on_low_wasm_memory` of a canister would be run if it were its turn.
    pub(super) fn may_run_hook(&self, id: &Principal) -> bool {
        let fees = self.fees_of(id);
        self.canisters.get(id).is_some_and(|canister| {
            canister.low_memory == LowMemory::Ready
                && matches!(canister.status, Status::Running)
                && canister.machine.is_some()
                && canister.can_pay(fees.execution(UPDATE_INSTRUCTIONS), &fees)
        })
    }

    /// `canister_on_low_wasm_memory`, if it is to run; whether it was. A canister that is frozen or stopped
    /// runs it when it is so no more, if there is still less memory than there should be.
    fn run_hook(&mut self, id: &Principal) -> bool {
        if !self.low_memory.contains(id) || !self.may_run_hook(id) {
            return false;
        }
        self.low_memory.remove(id);
        if let Some(canister) = self.canisters.get_mut(id) {
            canister.low_memory = LowMemory::Executed;
            if canister.exports("canister_on_low_wasm_memory") {
                self.run_task(id, Entry::LowWasmMemory, Kind::LowWasmMemory);
            }
        }
        true
    }

    /// What is to run on low memory, else one answer, else one request. Whether there was any.
    fn step(&mut self, id: &Principal) -> bool {
        if self.run_hook(id) {
            return true;
        }
        let Some(canister) = self.canisters.get_mut(id) else {
            self.active.remove(id);
            return false;
        };
        let (answer, request) = match canister.responses.pop_front() {
            Some(answer) => (Some(answer), None),
            None => (None, canister.requests.pop_front()),
        };
        if !canister.has_messages() {
            self.active.remove(id);
        }
        match (answer, request) {
            (Some(answer), _) => self.run_callback(answer),
            (None, Some(request)) => self.run_request(request),
            (None, None) => return false,
        }
        true
    }

    /// A stopping canister is stopped once it waits for nothing.
    fn settle_stops(&mut self) {
        let now = self.time_ns;
        let ids: Vec<_> = self.stopping.iter().copied().collect();
        for id in ids {
            let Some(canister) = self.canisters.get_mut(&id) else {
                self.stopping.remove(&id);
                continue;
            };
            let subnet = Some(canister.subnet);
            let Status::Stopping(waiting) = &mut canister.status else {
                self.stopping.remove(&id);
                continue;
            };
            if canister.contexts.is_empty() {
                let waiting = std::mem::take(waiting);
                canister.status = Status::Stopped;
                canister.version += 1;
                self.stopping.remove(&id);
                self.answer_stops(waiting, subnet, &Ok(super::mgmt::empty_reply()));
            } else {
                let patient = |wait: &Waiting| now - wait.since_ns < STOP_WAIT_NS;
                let (patient, waited): (Vec<_>, Vec<_>) =
                    std::mem::take(waiting).into_iter().partition(patient);
                *waiting = patient;
                let reject = Reject::new(
                    pocket_ic::ErrorCode::StopCanisterRequestTimeout,
                    "Stop canister request timed out",
                );
                self.answer_stops(waited, subnet, &Err(reject));
            }
        }
    }

    pub(super) fn answer_stops(
        &mut self,
        waiting: Vec<Waiting>,
        subnet: Option<Principal>,
        result: &Result<Vec<u8>, Reject>,
    ) {
        for wait in waiting {
            self.answer(wait.origin, subnet, result.clone(), wait.cycles, 0);
        }
    }

    /// Those who wait for a canister to stop hear that it will not.
    pub(super) fn cancel_stops(&mut self, waiting: Vec<Waiting>, subnet: Option<Principal>) {
        let reject = Reject::new(
            pocket_ic::ErrorCode::CanisterStoppingCancelled,
            "the canister was started before it had stopped",
        );
        self.answer_stops(waiting, subnet, &Err(reject));
    }

    fn strike_round(&mut self) {
        let fault = self.decide(Event {
            site: Site::Round,
            canister: None,
            method: "",
            bounded: false,
        });
        match fault {
            Some(Fault::HaltSubnet { subnet, rounds }) => {
                let until = self.round + rounds;
                if let Some(subnet) = self.subnets.get_mut(subnet) {
                    subnet.halted_until = until;
                }
            }
            Some(Fault::Restart) => {
                let saved = self.save();
                *self = Self::load_with(Arc::clone(&self.compiler), saved)
                    .expect("what was just saved can be loaded");
            }
            _ => {}
        }
    }
}

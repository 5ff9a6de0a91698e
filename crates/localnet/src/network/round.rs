//! One round: what crossed subnets arrives, timers fire, answers are taken before requests.

use candid::Principal;

use super::{Network, Reject, Stream, call::Origin, canister::Status};
use crate::machine::Response;

/// Messages executed in one round; the rest waits for the next.
const MESSAGES_PER_ROUND: usize = 1_000;

impl Network {
    /// Runs one round: a nanosecond passes, everything that can be executed is, within a budget.
    pub fn tick(&mut self) {
        self.time_ns += 1;
        self.round += 1;
        self.history.forget(self.time_ns);
        self.take_streams();
        let order = self.order();
        for id in &order {
            self.run_tasks(id);
        }
        let mut budget = MESSAGES_PER_ROUND;
        loop {
            let before = budget;
            while let Some(request) = self.management.pop_front() {
                self.manage(request);
                budget = budget.saturating_sub(1);
            }
            // Canisters that were made in this round are served in it, after the others.
            for id in order.iter().copied().chain(self.newer_than(&order)) {
                if budget == 0 {
                    break;
                }
                budget -= self.step(&id) as usize;
            }
            if budget == before || budget == 0 {
                break;
            }
        }
        self.expire();
        self.settle_stops();
    }

    /// Canisters in the order of their ids, starting with another one each round.
    fn order(&self) -> Vec<Principal> {
        let mut ids: Vec<_> = self.canisters.keys().copied().collect();
        if !ids.is_empty() {
            let first = (self.round % ids.len() as u64) as usize;
            ids.rotate_left(first);
        }
        ids
    }

    fn newer_than(&self, order: &[Principal]) -> Vec<Principal> {
        if self.canisters.len() == order.len() {
            return vec![];
        }
        self.canisters
            .keys()
            .filter(|id| !order.contains(id))
            .copied()
            .collect()
    }

    fn take_streams(&mut self) {
        while self
            .streams
            .front()
            .is_some_and(|(round, _)| *round <= self.round)
        {
            let Some((_, stream)) = self.streams.pop_front() else {
                break;
            };
            match stream {
                Stream::Request(request) => self.enqueue(request),
                Stream::Delivery { to, delivery } => {
                    if let Some(canister) = self.canisters.get_mut(&to) {
                        canister.responses.push_back(delivery);
                    }
                }
            }
        }
    }

    fn run_tasks(&mut self, id: &Principal) {
        let now = self.time_ns;
        let Some(canister) = self.canisters.get_mut(id) else {
            return;
        };
        if !matches!(canister.status, Status::Running) {
            return;
        }
        let heartbeat = canister.exports("canister_heartbeat");
        let due = canister.timer_ns != 0 && canister.timer_ns <= now;
        if due {
            // A timer fires once; who wants more sets it again.
            canister.timer_ns = 0;
        }
        if due && self.canisters[id].exports("canister_global_timer") {
            self.run_task(id, crate::machine::Entry::Timer);
        }
        if heartbeat {
            self.run_task(id, crate::machine::Entry::Heartbeat);
        }
    }

    /// One answer, else one request. Whether there was any.
    fn step(&mut self, id: &Principal) -> bool {
        let Some(canister) = self.canisters.get_mut(id) else {
            return false;
        };
        if let Some(delivery) = canister.responses.pop_front() {
            self.run_callback(delivery);
            true
        } else if let Some(request) = canister.requests.pop_front() {
            self.run_request(request);
            true
        } else {
            false
        }
    }

    /// Calls whose deadline has passed are answered with a reject of unknown outcome.
    fn expire(&mut self) {
        let now = self.time_ns;
        let late: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, call)| call.deadline_ns != 0 && call.deadline_ns <= now)
            .map(|(id, call)| (*id, call.caller))
            .collect();
        for (call, caller) in late {
            let Some(canister) = self.canisters.get_mut(&caller) else {
                continue;
            };
            // An answer that is here already is taken.
            if canister
                .responses
                .iter()
                .any(|delivery| delivery.call == call)
            {
                continue;
            }
            let response: Response = Reject::deadline().into();
            canister.responses.push_back(super::call::Delivery {
                call,
                response,
                cycles_refunded: 0,
            });
        }
        for canister in self.canisters.values_mut() {
            // Requests that nobody waits for any more are not begun.
            canister
                .requests
                .retain(|request| request.deadline_ns == 0 || request.deadline_ns > now);
        }
    }

    /// A stopping canister is stopped once it waits for nothing.
    fn settle_stops(&mut self) {
        let idle: Vec<_> = self
            .canisters
            .iter()
            .filter(|(id, canister)| {
                matches!(canister.status, Status::Stopping(_))
                    && !self
                        .contexts
                        .values()
                        .any(|context| context.canister == **id)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            let Some(canister) = self.canisters.get_mut(&id) else {
                continue;
            };
            let subnet = canister.subnet;
            let Status::Stopping(waiting) =
                std::mem::replace(&mut canister.status, Status::Stopped)
            else {
                continue;
            };
            canister.version += 1;
            for origin in waiting {
                self.answer(origin, subnet, Ok(super::mgmt::empty_reply()), 0);
            }
        }
    }

    /// Those who wait for a canister to stop hear that it will not.
    pub(super) fn cancel_stops(&mut self, waiting: Vec<Origin>, subnet: Principal) {
        for origin in waiting {
            let reject = Reject::new(
                pocket_ic::ErrorCode::CanisterStoppingCancelled,
                "the canister was started before it had stopped",
            );
            self.answer(origin, subnet, Err(reject), 0);
        }
    }
}

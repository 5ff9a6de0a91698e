//! Which canisters have something to do, so that nobody has to look at all of them.

use candid::Principal;

use super::{
    Network,
    canister::{Context, LowMemory, Status},
};

impl Network {
    /// Whether anything is left to do without a new message or a later time.
    pub fn has_work(&self) -> bool {
        let due = |(time_ns, id): &(u64, Principal)| {
            let canister = self.canisters.get(id);
            *time_ns <= self.time_ns
                && canister.is_some_and(|canister| matches!(canister.status, Status::Running))
        };
        !self.management.is_empty()
            || !self.streams.is_empty()
            || !self.active.is_empty()
            || !self.heartbeats.is_empty()
            || self.low_memory.iter().any(|id| self.may_run_hook(id))
            || self
                .timers
                .iter()
                .take_while(|(time_ns, _)| *time_ns <= self.time_ns)
                .any(due)
    }

    /// Sets a canister's global timer; 0 means none.
    pub(super) fn set_timer(&mut self, id: &Principal, time_ns: u64) {
        let Some(canister) = self.canisters.get_mut(id) else {
            return;
        };
        self.timers.remove(&(canister.timer_ns, *id));
        canister.timer_ns = time_ns;
        if time_ns != 0 {
            self.timers.insert((time_ns, *id));
        }
    }

    /// A canister has other code than before.
    pub(super) fn note_code(&mut self, id: &Principal) {
        self.certified.touch(id);
        let beats = |canister: &super::Canister| canister.exports("canister_heartbeat");
        if self.canisters.get(id).is_some_and(beats) {
            self.heartbeats.insert(*id);
        } else {
            self.heartbeats.remove(id);
        }
    }

    /// A canister's heap, or a setting of it, may have changed.
    pub(super) fn note_memory(&mut self, id: &Principal) {
        let Some(canister) = self.canisters.get_mut(id) else {
            return;
        };
        canister.look_at_memory();
        if canister.low_memory == LowMemory::Ready {
            self.low_memory.insert(*id);
        } else {
            self.low_memory.remove(id);
        }
    }

    /// A canister is gone.
    pub(super) fn forget_canister(&mut self, id: &Principal, timer_ns: u64) {
        self.timers.remove(&(timer_ns, *id));
        self.heartbeats.remove(id);
        self.active.remove(id);
        self.stopping.remove(id);
        self.low_memory.remove(id);
        self.certified.touch(id);
    }

    pub(super) fn open_context(&mut self, context: Context) -> u64 {
        let number = self.new_id();
        if let Some(canister) = self.canisters.get_mut(&context.canister) {
            canister.contexts.insert(number);
        }
        self.contexts.insert(number, context);
        number
    }

    pub(super) fn close_context(&mut self, number: u64) {
        let Some(context) = self.contexts.remove(&number) else {
            return;
        };
        let canister = self.canisters.get_mut(&context.canister);
        let subnet = canister.map(|canister| {
            canister.contexts.remove(&number);
            canister.subnet
        });
        self.lose(subnet, context.cycles_available);
    }

    /// Makes all of it anew, after loading.
    pub(super) fn index_all(&mut self) {
        let ids: Vec<_> = self.canisters.keys().copied().collect();
        for id in ids {
            self.note_code(&id);
            if self.canisters[&id].low_memory == LowMemory::Ready {
                self.low_memory.insert(id);
            }
            let canister = &self.canisters[&id];
            if canister.timer_ns != 0 {
                self.timers.insert((canister.timer_ns, id));
            }
            if canister.has_messages() {
                self.active.insert(id);
            }
            if matches!(canister.status, Status::Stopping(_)) {
                self.stopping.insert(id);
            }
        }
        self.deadlines = self
            .calls
            .iter()
            .filter(|(_, call)| call.deadline_ns != 0)
            .map(|(number, call)| (call.deadline_ns, *number))
            .collect();
    }

    pub(super) fn stopping_cycles(&self) -> u128 {
        let waiting = self.stopping.iter().filter_map(|id| self.canisters.get(id));
        waiting
            .map(|canister| match &canister.status {
                Status::Stopping(waiting) => waiting.iter().map(|wait| wait.cycles).sum(),
                _ => 0,
            })
            .sum()
    }
}

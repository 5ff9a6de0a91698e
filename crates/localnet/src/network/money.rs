//! Cycles: what canisters have, what they must keep, and what storage takes over time.
//!
//! No cycle is lost: whatever leaves a canister is with another, on its way, or burned; the sum of it is
//! what was minted ([`Network::money`]).
//!
//! Reserved cycles: the Internet Computer sets cycles aside for new memory only on subnets that hold more
//! than 750 GiB. A subnet here never does, so nothing is ever reserved.

use candid::Principal;
use serde::{Deserialize, Serialize};

use super::{Network, Reject, call::Stream, canister::Canister};
use crate::{fees::Fees, machine::STABLE_PAGE_BYTES};

/// Storage is charged so often, as on the Internet Computer.
const CHARGE_EVERY_NS: u64 = 10_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Where all cycles are. `minted = burned + balances + in_flight` holds between any two inputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// Came from nowhere: provisional creation, top-up, `add_cycles`.
    pub minted: u128,
    /// Paid for something, burned, or lost with a late answer or a deleted canister.
    pub burned: u128,
    pub balances: u128,
    /// Attached to calls, or paid ahead for answers that have not come.
    pub in_flight: u128,
}

impl Canister {
    /// Everything that storage is paid for.
    pub fn memory_bytes(&self) -> u64 {
        self.bytes_with(self.machine.as_ref().map_or(0, |machine| {
            machine.heap_bytes() + machine.stable().size_pages() * STABLE_PAGE_BYTES
        }))
    }

    /// The same with so many bytes of heap and stable memory.
    fn bytes_with(&self, machine_bytes: u64) -> u64 {
        let chunks: usize = self.chunks.values().map(Vec::len).sum();
        machine_bytes + self.wasm_bytes + chunks as u64 + self.snapshot_bytes()
    }

    /// What storage takes: the memory used, or the memory set aside if that is more.
    fn paid_bytes(&self) -> u64 {
        self.memory_bytes().max(self.allocated())
    }

    fn allocated(&self) -> u64 {
        u64::try_from(self.settings.memory_allocation).unwrap_or(u64::MAX)
    }

    fn compute_percent(&self) -> u64 {
        u64::try_from(self.settings.compute_allocation).unwrap_or(u64::MAX)
    }

    pub fn idle_per_day(&self, fees: &Fees) -> u128 {
        fees.idle_per_day(self.paid_bytes(), self.compute_percent())
    }

    /// What is kept for storage and may not be spent otherwise.
    pub fn frozen(&self, fees: &Fees) -> u128 {
        self.frozen_of(self.idle_per_day(fees), fees)
    }

    /// The same with so many bytes of heap and stable memory.
    pub fn frozen_with(&self, machine_bytes: u64, fees: &Fees) -> u128 {
        let bytes = self.bytes_with(machine_bytes).max(self.allocated());
        self.frozen_of(fees.idle_per_day(bytes, self.compute_percent()), fees)
    }

    fn frozen_of(&self, idle_per_day: u128, fees: &Fees) -> u128 {
        let threshold = u64::try_from(self.settings.freezing_threshold).unwrap_or(u64::MAX);
        fees.freezing_limit(idle_per_day, threshold, 0)
    }

    /// Takes cycles that must be liquid.
    pub fn pay(&mut self, id: &Principal, amount: u128, fees: &Fees) -> Result<(), Reject> {
        let frozen = self.frozen(fees);
        let needed = amount.saturating_add(frozen);
        // Nothing can always be paid: on a free subnet, nobody is out of cycles.
        if amount > 0 && needed > self.balance {
            return Err(Reject::out_of_cycles(id, needed - self.balance));
        }
        self.balance -= amount;
        Ok(())
    }

    /// Storage and compute since the last charge, in whole seconds. Err where the balance is not enough.
    fn pay_rent(&mut self, fees: &Fees, now_ns: u64) -> Result<u128, ()> {
        let seconds = now_ns.saturating_sub(self.charged_ns) / SECOND_NS;
        self.charged_ns += seconds * SECOND_NS;
        let day = u128::from(crate::fees::SECONDS_PER_DAY);
        let of_days = |rate: u128| rate.saturating_mul(u128::from(seconds)) / day;
        let storage = of_days(fees.idle_per_day(self.paid_bytes(), 0));
        let compute = of_days(fees.idle_per_day(0, self.compute_percent()));
        let rent = storage.saturating_add(compute);
        if rent > self.balance {
            return Err(());
        }
        self.balance -= rent;
        Ok(rent)
    }
}

impl Network {
    /// The prices on a subnet; nothing is free of charge by being nowhere.
    pub fn fees(&self, subnet: &Principal) -> Fees {
        let mut subnets = self.subnets.iter();
        subnets
            .find(|other| other.id == *subnet)
            .map_or_else(Fees::default, |subnet| subnet.fees)
    }

    /// The prices that a canister pays.
    pub(super) fn fees_of(&self, canister: &Principal) -> Fees {
        let subnet = self.subnet_of(canister);
        subnet.map_or_else(Fees::default, |subnet| self.fees(&subnet))
    }

    pub(super) fn mint(&mut self, amount: u128) {
        self.minted = self.minted.saturating_add(amount);
    }

    pub(super) fn burn(&mut self, amount: u128) {
        self.burned = self.burned.saturating_add(amount);
    }

    /// Where all cycles are. Looks at every canister and every message.
    pub fn money(&self) -> Money {
        let queued = |canister: &Canister| -> u128 {
            let requests = canister.requests.iter().map(|request| request.cycles);
            let answers = canister.responses.iter().map(|delivery| {
                delivery.cycles_refunded
                    + delivery.call.callback_prepaid
                    + delivery.call.response_prepaid
            });
            requests.sum::<u128>() + answers.sum::<u128>()
        };
        let streams = self.streams.values().flatten();
        let in_flight = self.canisters.values().map(queued).sum::<u128>()
            + self
                .management
                .iter()
                .map(|request| request.cycles)
                .sum::<u128>()
            + self.stopping_cycles()
            + streams
                .map(|stream| match stream {
                    Stream::Request(request) => request.cycles,
                    Stream::Answer(answer) => answer.cycles_refunded,
                })
                .sum::<u128>()
            + self
                .contexts
                .values()
                .map(|context| context.cycles_available)
                .sum::<u128>()
            + self
                .calls
                .values()
                .map(|call| call.callback_prepaid + call.response_prepaid)
                .sum::<u128>();
        Money {
            minted: self.minted,
            burned: self.burned,
            balances: self
                .canisters
                .values()
                .map(|canister| canister.balance)
                .sum(),
            in_flight,
        }
    }

    /// Charges storage and compute, every ten seconds of the network's time and then once for all that
    /// time. A canister that cannot pay loses its code and what it has left.
    pub(super) fn charge_rent(&mut self) {
        if self.time_ns.saturating_sub(self.rent_ns) < CHARGE_EVERY_NS {
            return;
        }
        self.rent_ns = self.time_ns;
        let mut burned = 0;
        let mut broke = vec![];
        for (id, canister) in &mut self.canisters {
            let mut subnets = self.subnets.iter();
            let Some(subnet) = subnets.find(|subnet| subnet.id == canister.subnet) else {
                continue;
            };
            match canister.pay_rent(&subnet.fees, self.time_ns) {
                Ok(rent) => burned += rent,
                Err(()) => broke.push(*id),
            }
        }
        for id in broke {
            if let Some(canister) = self.canisters.get_mut(&id) {
                burned += std::mem::take(&mut canister.balance);
                canister.settings.compute_allocation = 0;
                canister.settings.memory_allocation = 0;
                canister.snapshots.clear();
            }
            self.uninstall(id, None);
        }
        self.burn(burned);
    }
}

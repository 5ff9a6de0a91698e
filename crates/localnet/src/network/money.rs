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
use crate::{
    fees::Fees,
    machine::{Keep, STABLE_PAGE_BYTES},
};

/// Storage is charged so often, as on the Internet Computer.
const CHARGE_EVERY_NS: u64 = 10_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// What a chunk of code is paid for as.
pub const CHUNK_BYTES: u64 = 1 << 20;

/// What cycles are gone for, as `canister_metrics` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Memory,
    ComputeAllocation,
    Ingress,
    Instructions,
    Transmission,
    /// Taken with the code of a canister that could not pay its storage.
    Uninstall,
    Creation,
    /// By the canister's own `cycles_burn128`.
    Burned,
}

/// What a canister's cycles were consumed for, since it was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumed {
    pub memory: u128,
    pub compute_allocation: u128,
    pub ingress: u128,
    pub instructions: u128,
    pub transmission: u128,
    pub uninstall: u128,
    pub creation: u128,
    pub burned: u128,
}

impl Consumed {
    fn add(&mut self, what: Use, amount: u128) {
        let total = match what {
            Use::Memory => &mut self.memory,
            Use::ComputeAllocation => &mut self.compute_allocation,
            Use::Ingress => &mut self.ingress,
            Use::Instructions => &mut self.instructions,
            Use::Transmission => &mut self.transmission,
            Use::Uninstall => &mut self.uninstall,
            Use::Creation => &mut self.creation,
            Use::Burned => &mut self.burned,
        };
        *total = total.saturating_add(amount);
    }
}

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
    /// Heap and stable memory.
    pub fn machine_bytes(&self) -> u64 {
        self.machine.as_ref().map_or(0, |machine| {
            machine.heap_bytes() + machine.stable().size_pages() * STABLE_PAGE_BYTES
        })
    }

    fn other_bytes(&self) -> u64 {
        self.wasm_bytes + self.chunk_bytes() + self.snapshot_bytes()
    }

    /// A stored chunk takes as much as the largest, as on the Internet Computer.
    pub fn chunk_bytes(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK_BYTES
    }

    /// What it must keep of its cycles.
    pub fn keep(&self) -> Keep {
        Keep {
            other_bytes: self.other_bytes(),
            allocated_bytes: self.settings.memory_allocation,
            compute_percent: self.settings.compute_percent,
            threshold_s: self.settings.freezing_threshold_s,
        }
    }

    pub fn idle_per_day(&self, fees: &Fees) -> u128 {
        let bytes = self.keep().paid_bytes(self.machine_bytes());
        fees.idle_per_day(bytes, self.settings.compute_percent)
    }

    /// Cycles that may not be spent.
    pub fn frozen(&self, fees: &Fees) -> u128 {
        self.keep().cycles(self.machine_bytes(), fees)
    }

    /// Whether so many bytes more, and so many cycles less, leave it what it must keep then.
    pub fn afford(&self, bytes: u64, price: u128, fees: &Fees) -> Result<(), Reject> {
        let memory = self.machine_bytes().saturating_add(bytes);
        let needed = self.keep().cycles(memory, fees).saturating_add(price);
        match needed.checked_sub(self.balance) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(Reject::growth(bytes, missing)),
        }
    }

    /// Whether so many cycles can be taken and enough is kept. Nothing can always be paid: on a free
    /// subnet, nobody is out of cycles.
    pub fn can_pay(&self, amount: u128, fees: &Fees) -> bool {
        amount == 0 || amount.saturating_add(self.frozen(fees)) <= self.balance
    }

    /// Takes cycles that must be liquid.
    pub fn pay(&mut self, id: &Principal, amount: u128, fees: &Fees) -> Result<(), Reject> {
        if !self.can_pay(amount, fees) {
            let needed = amount.saturating_add(self.frozen(fees));
            return Err(Reject::out_of_cycles(id, needed - self.balance));
        }
        self.balance -= amount;
        Ok(())
    }

    /// Storage and compute since the last charge, in whole seconds; what was paid for each. Err where the
    /// balance is not enough.
    fn pay_rent(&mut self, fees: &Fees, now_ns: u64) -> Result<(u128, u128), ()> {
        let seconds = now_ns.saturating_sub(self.charged_ns) / SECOND_NS;
        self.charged_ns += seconds * SECOND_NS;
        let day = u128::from(crate::fees::SECONDS_PER_DAY);
        let of_days = |rate: u128| rate.saturating_mul(u128::from(seconds)) / day;
        let bytes = self.keep().paid_bytes(self.machine_bytes());
        let storage = of_days(fees.idle_per_day(bytes, 0));
        let compute = of_days(fees.idle_per_day(0, self.settings.compute_percent));
        let rent = storage.saturating_add(compute);
        if rent > self.balance {
            return Err(());
        }
        self.balance -= rent;
        Ok((storage, compute))
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

    /// As many of these cycles as can be made while all there ever were can be counted: so no sum of cycles
    /// is ever too large.
    pub(super) fn mintable(&self, asked: u128) -> u128 {
        asked.min(u128::MAX - self.minted)
    }

    /// These cycles, which are [`Network::mintable`], come from nowhere.
    pub(super) fn mint(&mut self, amount: u128) {
        self.minted += amount;
    }

    /// A canister's cycles are consumed: for something that it gets, on its subnet.
    pub(super) fn consume(&mut self, id: &Principal, what: Use, amount: u128) {
        let subnet = self.canisters.get_mut(id).map(|canister| {
            canister.consumed.add(what, amount);
            canister.subnet
        });
        // What a canister that is gone still pays is its subnet's.
        let subnet = subnet.unwrap_or_else(|| self.route(Some(id)).id);
        self.lose(Some(subnet), amount);
    }

    /// Cycles are gone for nothing, on that subnet: with a late answer, with a deleted canister. Where no
    /// subnet is known, on the default one: every cycle that is burned is so on one subnet.
    pub(super) fn lose(&mut self, subnet: Option<Principal>, amount: u128) {
        if amount == 0 {
            return;
        }
        let subnet = self.route(subnet.as_ref()).id;
        self.burned = self.burned.saturating_add(amount);
        let place = self.subnets.iter_mut().find(|other| other.id == subnet);
        if let Some(subnet) = place {
            subnet.consumed = subnet.consumed.saturating_add(amount);
        }
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
        let mut broke = vec![];
        for (id, canister) in &mut self.canisters {
            let mut subnets = self.subnets.iter_mut();
            let Some(subnet) = subnets.find(|subnet| subnet.id == canister.subnet) else {
                continue;
            };
            match canister.pay_rent(&subnet.fees, self.time_ns) {
                Ok((storage, compute)) => {
                    canister.consumed.add(Use::Memory, storage);
                    canister.consumed.add(Use::ComputeAllocation, compute);
                    self.burned += storage + compute;
                    subnet.consumed += storage + compute;
                }
                Err(()) => broke.push(*id),
            }
        }
        for id in broke {
            if let Some(canister) = self.canisters.get_mut(&id) {
                let left = std::mem::take(&mut canister.balance);
                canister.settings.compute_percent = 0;
                canister.settings.memory_allocation = 0;
                canister.snapshots.clear();
                self.consume(&id, Use::Uninstall, left);
            }
            self.uninstall(id, None);
        }
    }
}

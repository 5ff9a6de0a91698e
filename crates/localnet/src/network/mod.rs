//! Canisters on subnets: calls between them, time, and the management canister. Deterministic: the same
//! seed and the same calls give the same state.
//!
//! | module | what |
//! | --- | --- |
//! | `subnet` | subnets, their ids and the canister ids they hand out |
//! | `canister`, `call` | what is kept of a canister, a call context, a message |
//! | `round` | one round: timers, answers, requests, deadlines |
//! | `execute` | one message, from the checks before to the calls after |
//! | `ingress`, `history` | messages and queries from outside, and what became of them |
//! | `view`, `certified` | what others may look at; the state as it is certified |
//! | `mgmt` | the management canister |

mod call;
mod canister;
mod certified;
mod execute;
mod history;
mod ingress;
mod mgmt;
mod reject;
mod round;
mod subnet;
mod view;

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
};

use candid::Principal;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sha2::{Digest, Sha256};

pub use history::{Entry, Status as MessageStatus};
pub use ingress::{Ingress, StillRunning};
pub use reject::Reject;
pub use subnet::{Subnet, SubnetKind};

use crate::{
    cert::SubnetKeys,
    machine::{Compiler, StableMemory},
};
use call::{Origin, Request};
use canister::{Canister, Context, Outstanding};
use certified::Certified;
use history::History;

/// Names an ingress message.
pub type MessageId = [u8; 32];

/// The first moment of a network: 2021-05-06, as PocketIC has it.
pub const TIME_START_NS: u64 = 1_620_328_630_000_000_001;

/// What a network is made of.
#[derive(Debug, Clone)]
pub struct Config {
    pub subnets: Vec<SubnetKind>,
    /// Decides `raw_rand` and all keys.
    pub seed: u64,
    pub time_ns: u64,
    /// A folder in which machine code is kept between processes.
    pub compile_cache: Option<PathBuf>,
}

/// The new time lies before the network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeGoesBack {
    pub now_ns: u64,
}

/// A network of subnets.
pub struct Network {
    compiler: Compiler,
    subnets: Vec<Subnet>,
    canisters: BTreeMap<Principal, Canister>,
    time_ns: u64,
    round: u64,
    rng: ChaCha20Rng,
    contexts: BTreeMap<u64, Context>,
    calls: BTreeMap<u64, Outstanding>,
    /// Numbers for contexts and calls.
    next_id: u64,
    management: VecDeque<Request>,
    /// Messages between subnets, by the round in which they arrive.
    streams: VecDeque<(u64, Stream)>,
    history: History,
    certified: Certified,
    root_key: Arc<[u8]>,
}

/// Something that goes from subnet to subnet.
enum Stream {
    Request(Request),
    Delivery {
        to: Principal,
        delivery: call::Delivery,
    },
}

impl Network {
    /// # Panics
    /// Without any subnet.
    pub fn new(config: Config) -> Self {
        assert!(
            !config.subnets.is_empty(),
            "a network has at least one subnet"
        );
        let keys: Arc<[SubnetKeys]> = (0..config.subnets.len() as u64)
            .map(|index| SubnetKeys::new(config.seed, index))
            .collect();
        Self {
            compiler: Compiler::new(config.compile_cache.as_deref()),
            subnets: (0..)
                .zip(config.subnets)
                .zip(keys.iter())
                .map(|((index, kind), keys)| Subnet::new(index, kind, keys))
                .collect(),
            canisters: BTreeMap::new(),
            time_ns: config.time_ns,
            round: 0,
            rng: ChaCha20Rng::seed_from_u64(config.seed),
            contexts: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_id: 0,
            management: VecDeque::new(),
            streams: VecDeque::new(),
            history: History::default(),
            root_key: keys[0].public.as_slice().into(),
            certified: Certified::new(keys),
        }
    }

    pub fn subnets(&self) -> &[Subnet] {
        &self.subnets
    }

    /// Where canisters go if nobody says otherwise: the first application subnet, else the first system
    /// subnet, else the first.
    pub fn default_subnet(&self) -> &Subnet {
        let first = |kind| self.subnets.iter().find(|subnet| subnet.kind == kind);
        first(SubnetKind::Application)
            .or_else(|| first(SubnetKind::System))
            .unwrap_or(&self.subnets[0])
    }

    pub fn time_ns(&self) -> u64 {
        self.time_ns
    }

    pub fn set_time(&mut self, time_ns: u64) -> Result<(), TimeGoesBack> {
        if time_ns < self.time_ns {
            return Err(TimeGoesBack {
                now_ns: self.time_ns,
            });
        }
        self.time_ns = time_ns;
        Ok(())
    }

    /// The subnet of a canister that exists.
    pub fn subnet_of(&self, canister: &Principal) -> Option<Principal> {
        self.canisters.get(canister).map(|canister| canister.subnet)
    }

    pub fn controllers(&self, canister: &Principal) -> Option<Vec<Principal>> {
        self.canisters
            .get(canister)
            .map(|canister| canister.controllers.iter().copied().collect())
    }

    pub fn cycles(&self, canister: &Principal) -> Option<u128> {
        self.canisters
            .get(canister)
            .map(|canister| canister.balance)
    }

    /// Adds cycles from nowhere; the new balance.
    pub fn add_cycles(&mut self, canister: &Principal, cycles: u128) -> Option<u128> {
        let canister = self.canisters.get_mut(canister)?;
        canister.balance = canister.balance.saturating_add(cycles);
        Some(canister.balance)
    }

    /// Stable memory, whole; none where there is no such canister or no code in it.
    pub fn stable_memory(&self, canister: &Principal) -> Option<Vec<u8>> {
        Some(
            self.canisters
                .get(canister)?
                .machine
                .as_ref()?
                .stable()
                .to_bytes(),
        )
    }

    /// Replaces stable memory; false where there is no such canister or no code in it.
    pub fn set_stable_memory(&mut self, canister: &Principal, bytes: &[u8]) -> bool {
        let machine = self
            .canisters
            .get_mut(canister)
            .and_then(|canister| canister.machine.as_mut());
        machine
            .map(|machine| machine.set_stable(StableMemory::from_bytes(bytes)))
            .is_some()
    }

    /// Whether anything is left to do without a new message or a later time.
    pub fn has_work(&self) -> bool {
        !self.management.is_empty()
            || !self.streams.is_empty()
            || self.canisters.values().any(|canister| {
                !canister.requests.is_empty()
                    || !canister.responses.is_empty()
                    || (canister.timer_ns != 0 && canister.timer_ns <= self.time_ns)
                    || canister.exports("canister_heartbeat")
            })
    }

    /// SHA-256 of everything that canisters can tell apart.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.time_ns.to_le_bytes());
        for (id, canister) in &self.canisters {
            hash.update(id.as_slice());
            hash.update(canister.balance.to_le_bytes());
            hash.update(canister.version.to_le_bytes());
            hash.update(canister.timer_ns.to_le_bytes());
            hash.update(&canister.certified_data);
            hash.update([canister.status_code() as u8, canister.requests.len() as u8]);
            if let Some(machine) = &canister.machine {
                hash.update(machine.digest());
            }
        }
        hash.finalize().into()
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Sends an answer to whoever waits for it. Ingress gets it at once, a caller on the same subnet in
    /// the same round, one elsewhere in the next.
    fn answer(
        &mut self,
        origin: Origin,
        from_subnet: Principal,
        result: Result<Vec<u8>, Reject>,
        refund: u128,
    ) {
        match origin {
            Origin::Ingress(id) => {
                self.history.answer(id, result, self.time_ns);
            }
            Origin::Call(call) => {
                // The caller of a bounded wait may have given up; then nobody gets answer or cycles.
                let Some(outstanding) = self.calls.get(&call) else {
                    return;
                };
                let response = match result {
                    Ok(bytes) => crate::machine::Response::Reply(bytes),
                    Err(reject) => reject.into(),
                };
                let delivery = call::Delivery {
                    call,
                    response,
                    cycles_refunded: refund,
                };
                let to = outstanding.caller;
                match self.canisters.get_mut(&to) {
                    Some(caller) if caller.subnet == from_subnet => {
                        caller.responses.push_back(delivery)
                    }
                    Some(_) => self
                        .streams
                        .push_back((self.round + 1, Stream::Delivery { to, delivery })),
                    None => {}
                }
            }
        }
    }
}

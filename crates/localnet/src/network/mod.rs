//! Canisters on subnets: calls between them, time, and the management canister. Deterministic: the same
//! seed and the same calls give the same state.
//!
//! | module | what |
//! | --- | --- |
//! | `subnet` | subnets, their ids and the canister ids they hand out |
//! | `canister`, `snapshot`, `call` | what is kept of a canister, a call context, a message |
//! | `input` | everything that changes a network from outside |
//! | `ingress`, `history` | messages from outside, and what became of them |
//! | `round`, `index` | one round; which canisters have something to do |
//! | `execute`, `conclude`, `send` | one execution, what follows from it, and messages on their ways |
//! | `query` | queries, composite ones too |
//! | `money`, `account` | who pays; what each execution used |
//! | `fault` | what goes wrong on purpose |
//! | `save` | the whole network as bytes, and its digest |
//! | `removal` | code, canisters and subnets go |
//! | `view`, `certified` | what others may look at; the state as it is certified |
//! | `settings` | what controllers set, within bounds |
//! | `mgmt` | the management canister |

mod account;
mod call;
mod canister;
mod certified;
mod conclude;
mod execute;
mod fault;
mod history;
mod index;
mod ingress;
mod input;
mod mgmt;
mod money;
mod query;
mod reject;
mod removal;
mod round;
mod save;
mod send;
mod settings;
mod snapshot;
mod subnet;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    sync::Arc,
};

use candid::Principal;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

pub use account::{ACCOUNTS_MAX, Account, Kind as AccountKind, Page as AccountPage};
pub use fault::{Decision, Fault, Plan, PlanError, Rule, Seeded, Site};
pub use history::{Entry, Status as MessageStatus};
pub use ingress::{Ingress, StillRunning};
pub use input::{Input, Output};
pub use money::Money;
pub use reject::Reject;
pub use save::{LoadError, Saved};
pub use subnet::{Subnet, SubnetKind, fees_of};

use crate::{
    cert::SubnetKeys,
    fees::Fees,
    machine::{Compiler, Copied, StableMemory},
};
use account::Accounts;
use call::{Outstanding, Request, Stream};
use canister::{Canister, Context};
use certified::Certified;
use fault::Faults;
use history::History;

/// Names an ingress message.
pub type MessageId = [u8; 32];

/// The first moment of a network: 2021-05-06, as PocketIC has it.
pub const TIME_START_NS: u64 = 1_620_328_630_000_000_001;

/// What a network is made of.
#[derive(Debug, Clone)]
pub struct Config {
    pub subnets: Vec<SubnetKind>,
    /// The prices of each subnet, in their order; those that are missing here have their kind's.
    pub fees: Vec<Fees>,
    /// The admins of each subnet, in their order; those that are missing here have none.
    pub admins: Vec<BTreeSet<Principal>>,
    /// Whether the network plays the cycles minting canister and the cycles ledger.
    pub plays_cycles: bool,
    /// Rounds that a message takes from one subnet to another; 0 is as on one.
    pub latency_rounds: u64,
    /// Decides `raw_rand` and all keys.
    pub seed: u64,
    pub time_ns: u64,
    /// A folder in which machine code is kept between processes.
    pub compile_cache: Option<PathBuf>,
}

impl Default for Config {
    /// One application subnet at the first moment, and messages that cross subnets in one round.
    fn default() -> Self {
        Self {
            subnets: vec![SubnetKind::Application],
            fees: vec![],
            admins: vec![],
            plays_cycles: false,
            latency_rounds: 1,
            seed: 0,
            time_ns: TIME_START_NS,
            compile_cache: None,
        }
    }
}

/// The new time lies before the network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeGoesBack {
    pub now_ns: u64,
}

/// A network of subnets.
pub struct Network {
    compiler: Arc<Compiler>,
    seed: u64,
    latency_rounds: u64,
    subnets: Vec<Subnet>,
    canisters: BTreeMap<Principal, Canister>,
    /// Modules as they were given, by their SHA-256; those that somebody uses and some that nobody does.
    modules: BTreeMap<[u8; 32], Vec<u8>>,
    time_ns: u64,
    round: u64,
    /// The time of the last round.
    round_ns: u64,
    /// On each of the latest days: the time of its first round, and how many there had been by then.
    days: VecDeque<(u64, u64)>,
    plays_cycles: bool,
    /// When storage was charged last.
    rent_ns: u64,
    rng: ChaCha20Rng,
    contexts: BTreeMap<u64, Context>,
    calls: BTreeMap<u64, Outstanding>,
    /// Numbers for contexts and calls.
    next_id: u64,
    management: VecDeque<Request>,
    /// Messages on their way, by the round in which they arrive.
    streams: BTreeMap<u64, VecDeque<Stream>>,
    /// Until which round messages between two canisters are held up, in this direction.
    delayed: BTreeMap<(Principal, Principal), u64>,
    minted: u128,
    burned: u128,
    history: History,
    faults: Faults,
    accounts: Accounts,

    /// Canisters with messages.
    active: BTreeSet<Principal>,
    timers: BTreeSet<(u64, Principal)>,
    heartbeats: BTreeSet<Principal>,
    stopping: BTreeSet<Principal>,
    /// Canisters whose `canister_on_low_wasm_memory` is to run.
    low_memory: BTreeSet<Principal>,
    /// Of calls that wait with a bound.
    deadlines: BTreeSet<(u64, u64)>,
    /// Instructions of the message that runs.
    spent: u64,
    certified: Certified,
    root_key: Arc<[u8]>,
}

impl Network {
    /// # Panics
    /// Without any subnet.
    pub fn new(config: Config) -> Self {
        let compiler = Compiler::new(config.compile_cache.as_deref());
        Self::with_compiler(config, Arc::new(compiler))
    }

    /// As [`Network::new`], with modules that may be compiled already.
    ///
    /// # Panics
    /// Without any subnet.
    pub fn with_compiler(config: Config, compiler: Arc<Compiler>) -> Self {
        assert!(
            !config.subnets.is_empty(),
            "a network has at least one subnet"
        );
        let keys: Arc<[SubnetKeys]> = (0..config.subnets.len() as u64)
            .map(|index| SubnetKeys::new(config.seed, index))
            .collect();
        let mut subnets: Vec<_> = (0..)
            .zip(config.subnets)
            .zip(keys.iter())
            .map(|((index, kind), keys)| Subnet::new(index, kind, keys))
            .collect();
        for (subnet, fees) in subnets.iter_mut().zip(config.fees) {
            subnet.fees = fees;
        }
        for (subnet, admins) in subnets.iter_mut().zip(config.admins) {
            subnet.admins = admins;
        }
        Self {
            compiler,
            seed: config.seed,
            latency_rounds: config.latency_rounds,
            subnets,
            canisters: BTreeMap::new(),
            modules: BTreeMap::new(),
            time_ns: config.time_ns,
            round: 0,
            round_ns: config.time_ns,
            days: VecDeque::new(),
            plays_cycles: config.plays_cycles,
            rent_ns: config.time_ns,
            rng: ChaCha20Rng::seed_from_u64(config.seed),
            contexts: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_id: 0,
            management: VecDeque::new(),
            streams: BTreeMap::new(),
            delayed: BTreeMap::new(),
            minted: 0,
            burned: 0,
            history: History::default(),
            faults: Faults::default(),
            accounts: Accounts::default(),
            active: BTreeSet::new(),
            timers: BTreeSet::new(),
            heartbeats: BTreeSet::new(),
            stopping: BTreeSet::new(),
            low_memory: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            spent: 0,
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
        let of_kind = |subnet: &&Subnet, kind| subnet.kind == kind && !subnet.deleted;
        let first = |kind| self.subnets.iter().find(|subnet| of_kind(subnet, kind));
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
        let made = self.mintable(cycles);
        let canister = self.canisters.get_mut(canister)?;
        canister.balance += made;
        let balance = canister.balance;
        self.mint(made);
        Some(balance)
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

    /// Makes `bytes` the canister's stable memory, as [`StableMemory::copy_into`] does. Whether that changed them;
    /// none where there is no such canister or no code in it.
    pub fn copy_stable_memory(
        &mut self,
        canister: &Principal,
        copied: &mut Copied,
        bytes: &mut Vec<u8>,
    ) -> Option<bool> {
        let machine = self.canisters.get_mut(canister)?.machine.as_mut()?;
        Some(machine.copy_stable_into(copied, bytes))
    }

    /// Replaces stable memory; false where there is no such canister or no code in it.
    pub fn set_stable_memory(&mut self, canister: &Principal, memory: StableMemory) -> bool {
        let machine = self
            .canisters
            .get_mut(canister)
            .and_then(|canister| canister.machine.as_mut());
        let Some(machine) = machine else {
            return false;
        };
        machine.set_stable(memory);
        self.certified.touch(canister);
        true
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

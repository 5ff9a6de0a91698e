//! The whole network as bytes, and back. What is derived (machine code, keys, certified trees) is made
//! anew.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::Arc,
};

use candid::Principal;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{
    Config, Network, Subnet,
    account::Accounts,
    call::{Outstanding, Request, Stream},
    canister::{Canister, Context},
    fault::Faults,
    history::History,
};
use crate::machine::{Compiler, Image, Machine, ModuleError, Trap};

/// A network, saved: its state and, apart, what is large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Everything that is in neither of the others.
    #[serde(with = "serde_bytes")]
    pub state: Vec<u8>,
    /// Modules that a canister or a snapshot uses, as they were given, by their SHA-256.
    pub modules: BTreeMap<[u8; 32], Vec<u8>>,
    /// The memories of canisters with code, with the hash of their module.
    pub canisters: BTreeMap<Principal, ([u8; 32], Image)>,
}

/// Why a saved network cannot be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("the state cannot be read: {0}")]
    State(#[from] postcard::Error),
    #[error("the module {} is missing", hex::encode(.0))]
    NoModule([u8; 32]),
    #[error("a module cannot be compiled: {0}")]
    Module(#[from] ModuleError),
    #[error("canister {0} is not in the state, or its memories are not those of its module")]
    Image(Principal),
    #[error("a canister's code cannot be instantiated: {0}")]
    Trap(#[from] Trap),
}

/// The state but for modules and memories, in an order that must not change.
#[derive(Deserialize)]
struct State {
    seed: u64,
    latency_rounds: u64,
    subnets: Vec<Subnet>,
    canisters: BTreeMap<Principal, Canister>,
    time_ns: u64,
    round: u64,
    round_ns: u64,
    rent_ns: u64,
    days: VecDeque<(u64, u64)>,
    plays_cycles: bool,
    random: ([u8; 32], u128),
    contexts: BTreeMap<u64, Context>,
    calls: BTreeMap<u64, Outstanding>,
    next_id: u64,
    management: VecDeque<Request>,
    streams: BTreeMap<u64, VecDeque<Stream>>,
    delayed: BTreeMap<(Principal, Principal), u64>,
    money: (u128, u128),
    history: History,
    rest: Option<(Faults, Accounts)>,
}

impl Network {
    /// All of it. To be called between inputs, when no message is half done.
    pub fn save(&self) -> Saved {
        let canisters: BTreeMap<_, _> = self
            .machines()
            .map(|(id, machine)| (*id, (machine.module().hash(), machine.image())))
            .collect();
        let snapshots = self.canisters.values().flat_map(|it| it.snapshots.values());
        let modules = canisters
            .values()
            .map(|(hash, _)| *hash)
            .chain(snapshots.map(|snapshot| snapshot.module))
            .filter_map(|hash| Some((hash, self.modules.get(&hash)?.clone())))
            .collect();
        Saved {
            state: self.state(),
            modules,
            canisters,
        }
    }

    /// What was saved. It goes on as the one that was saved would have.
    pub fn load(saved: Saved, compile_cache: Option<&Path>) -> Result<Self, LoadError> {
        Self::load_with(Arc::new(Compiler::new(compile_cache)), saved)
    }

    /// As [`Network::load`], with modules that may be compiled already.
    pub fn load_with(compiler: Arc<Compiler>, saved: Saved) -> Result<Self, LoadError> {
        let state: State = postcard::from_bytes(&saved.state)?;
        let config = Config {
            subnets: state.subnets.iter().map(|subnet| subnet.kind).collect(),
            fees: vec![],
            admins: vec![],
            plays_cycles: state.plays_cycles,
            seed: state.seed,
            time_ns: state.time_ns,
            latency_rounds: state.latency_rounds,
            compile_cache: None,
        };
        let mut network = Self::with_compiler(config, compiler);
        network.put(state);
        for (id, (hash, image)) in saved.canisters {
            let wasm = saved.modules.get(&hash).ok_or(LoadError::NoModule(hash))?;
            let module = network.compiler.compile(wasm)?;
            let machine = Machine::from_image(&module, &image)?.ok_or(LoadError::Image(id))?;
            let canister = network.canisters.get_mut(&id).ok_or(LoadError::Image(id))?;
            canister.machine = Some(machine);
        }
        network.modules = saved.modules;
        network.index_all();
        Ok(network)
    }

    fn put(&mut self, state: State) {
        let (seed, position) = state.random;
        self.rng = ChaCha20Rng::from_seed(seed);
        self.rng.set_word_pos(position);
        self.subnets = state.subnets;
        self.canisters = state.canisters;
        (self.round, self.round_ns) = (state.round, state.round_ns);
        (self.rent_ns, self.days) = (state.rent_ns, state.days);
        (self.contexts, self.calls) = (state.contexts, state.calls);
        self.next_id = state.next_id;
        (self.management, self.streams) = (state.management, state.streams);
        self.delayed = state.delayed;
        (self.minted, self.burned) = state.money;
        self.history = state.history;
        self.history.forget_certified();
        (self.faults, self.accounts) = state.rest.unwrap_or_default();
    }

    /// SHA-256 of everything there is: canisters with their memories, messages, calls, cycles, answers,
    /// randomness. The plan of faults is no part of it, only what it did; nor are the accounts kept.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.state_bytes(false));
        for (id, canister) in &self.canisters {
            if let Some(machine) = &canister.machine {
                hash.update(id.as_slice());
                hash.update(machine.digest());
            }
        }
        hash.finalize().into()
    }

    /// Everything but modules and memories, as in [`Saved::state`].
    pub(crate) fn state(&self) -> Vec<u8> {
        self.state_bytes(true)
    }

    /// Modules as they were given, by their SHA-256.
    pub(crate) fn modules(&self) -> &BTreeMap<[u8; 32], Vec<u8>> {
        &self.modules
    }

    /// Canisters with code.
    pub(crate) fn machines(&self) -> impl Iterator<Item = (&Principal, &Machine)> {
        let canisters = self.canisters.iter();
        canisters.filter_map(|(id, canister)| Some((id, canister.machine.as_ref()?)))
    }

    fn state_bytes(&self, all: bool) -> Vec<u8> {
        let random = (self.rng.get_seed(), self.rng.get_word_pos());
        let first = (
            self.seed,
            self.latency_rounds,
            &self.subnets,
            &self.canisters,
            self.time_ns,
            self.round,
            self.round_ns,
            self.rent_ns,
            &self.days,
            self.plays_cycles,
            random,
        );
        let second = (
            &self.contexts,
            &self.calls,
            self.next_id,
            &self.management,
            &self.streams,
            &self.delayed,
            (self.minted, self.burned),
            &self.history,
            all.then_some((&self.faults, &self.accounts)),
        );
        // A pair of tuples is written as all their parts, one after the other: as `State` is read.
        postcard::to_stdvec(&(first, second)).expect("the state has a binary form")
    }
}

//! The deployed Wasm of index, buckets and chat on three subnets of the local network, in one process: clients
//! and operators who do at random what they may, faults, and what must hold all the same.
//!
//! A run follows from its seed alone: the same seed, built canisters and options give the same run, message
//! by message. `docs/reliability.md` says what is simulated, what is looked for, and what was found.
//!
//! | module | what |
//! | --- | --- |
//! | `dice` | all chance |
//! | `stage` | the network with the canisters deployed, and how they are called |
//! | `blobs` | what is uploaded |
//! | `model` | what clients were told, and so what must be there |
//! | `run` | one run: steps, faults, rests |
//! | `clients`, `operators` | what they do, and what the answers mean |
//! | `foreign` | an app of which the simulation has the keys, and a canister that calls what only canisters may |
//! | `procedures` | what an operator does in several calls: stop, upgrade, restore |
//! | `trouble` | the faults of a run |
//! | `pulse` | what holds after every step |
//! | `rest` | what holds when the faults have stopped |
//! | `probes` | what nobody may do, tried at rest |
//!
//! Canisters are looked at as they are: a copy of their stable memory is opened with their own core. So no
//! method exists for the simulation's sake.

mod blobs;
mod clients;
mod dice;
mod foreign;
mod model;
mod operators;
mod probes;
mod procedures;
mod pulse;
mod rest;
mod run;
mod stage;
mod trouble;

pub use run::{Failure, Options, Summary, run};
pub use stage::{Base, Stage, operator};

use std::fmt;

/// Something that must hold does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its number in `docs/reliability.md`.
    pub invariant: u8,
    pub what: String,
}

impl Violation {
    pub(crate) fn new(invariant: u8, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { invariant, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {} is broken: {}", self.invariant, self.what)
    }
}

/// Fails where `holds` is false.
pub(crate) fn ensure(
    holds: bool,
    invariant: u8,
    what: impl FnOnce() -> String,
) -> Result<(), Violation> {
    match holds {
        true => Ok(()),
        false => Err(Violation::new(invariant, what())),
    }
}

//! A machine in a world that a test can change.

#![allow(dead_code)] // each test file uses a part

use std::collections::{BTreeMap, BTreeSet};

use candid::Principal;
use openstorage_localnet::{
    fees::Fees,
    machine::{Compiler, Context, Entry, Keep, Machine, Module, Outcome, Response},
};

/// What a [`Context`] borrows, and the rest of it.
pub struct World {
    pub controllers: BTreeSet<Principal>,
    pub environment: BTreeMap<String, String>,
    pub outstanding: BTreeMap<Principal, usize>,
    pub fees: Fees,
    pub certificate: Option<Vec<u8>>,
    pub balance: u128,
    pub keep: Keep,
    pub cycles_available: u128,
    pub growth_bytes_max: u64,
    pub heap_bytes_max: u64,
    pub answered: bool,
    pub instructions_max: u64,
    pub instructions_before: u64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            controllers: BTreeSet::from([Principal::anonymous()]),
            environment: BTreeMap::from([("COLOUR".into(), "green".into())]),
            outstanding: BTreeMap::new(),
            fees: Fees::default(),
            certificate: Some(b"certificate".to_vec()),
            balance: 1 << 60,
            keep: Keep::default(),
            cycles_available: 100,
            growth_bytes_max: u64::MAX,
            heap_bytes_max: 0,
            answered: false,
            instructions_max: 40_000_000_000,
            instructions_before: 0,
        }
    }
}

impl World {
    pub fn context(&self) -> Context<'_> {
        Context {
            canister_id: Principal::from_slice(&[1]),
            subnet_id: Principal::from_slice(&[2]),
            caller: Principal::from_slice(&[3]),
            sender_info: None,
            controllers: &self.controllers,
            environment: &self.environment,
            root_key: b"root",
            time_ns: 5,
            timer_ns: 0,
            canister_version: 1,
            status: 1,
            balance: self.balance,
            keep: self.keep,
            fees: &self.fees,
            queues_full: false,
            growth_bytes_max: self.growth_bytes_max,
            heap_bytes_max: self.heap_bytes_max,
            cycles_available: self.cycles_available,
            deadline_ns: 0,
            answered: self.answered,
            certificate: self.certificate.as_deref(),
            calls_outstanding: &self.outstanding,
            instructions_max: self.instructions_max,
            instructions_before: self.instructions_before,
        }
    }

    pub fn install(&self, module: &Module, arg: &[u8]) -> Machine {
        let (machine, outcome) = Machine::install(module, arg.to_vec(), &self.context());
        assert_eq!(outcome.result, Ok(()));
        machine.unwrap()
    }

    pub fn update(&self, machine: &mut Machine, method: &str, arg: &[u8]) -> Outcome {
        let entry = Entry::Update {
            method: method.into(),
            arg: arg.to_vec(),
        };
        machine.run(entry, &self.context())
    }
}

pub fn compile(compiler: &Compiler, wat: &str) -> Module {
    compiler.compile(&wat::parse_str(wat).unwrap()).unwrap()
}

/// The reply of an execution that went well.
#[track_caller]
pub fn reply(outcome: &Outcome) -> &[u8] {
    assert_eq!(outcome.result, Ok(()));
    match &outcome.response {
        Some(Response::Reply(bytes)) => bytes,
        _ => panic!("no reply"),
    }
}

/// Whether everything is to be tested, not samples.
pub fn in_full() -> bool {
    std::env::var_os("OPENSTORAGE_FULL").is_some_and(|value| value == "1")
}

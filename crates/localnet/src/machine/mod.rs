//! One canister's code and memories: runs one entry point at a time, all or nothing.
//!
//! The machine knows no network: what an execution may see comes in as a [`Context`], what it wants
//! done comes out as an [`Outcome`]. A trap leaves heap, stable memory and globals as they were.

mod api;
mod cost;
mod host;
mod module;
mod run;
mod stable;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use candid::Principal;

use crate::fees::Fees;

pub use module::{Compiler, MetadataVisibility, Module, ModuleError};
pub use run::Machine;
pub use stable::{STABLE_PAGE_BYTES, StableMemory};

/// A function of the canister's table and the value to call it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closure {
    pub fun: u32,
    pub env: u32,
}

/// What comes back from a call.
#[derive(Clone, PartialEq, Eq)]
pub enum Response {
    Reply(Vec<u8>),
    Reject { code: u32, message: String },
}

/// What to run.
#[derive(Clone)]
pub enum Entry {
    /// `canister_inspect_message`, if there is one; accepted where there is none.
    Inspect {
        method: String,
        arg: Vec<u8>,
    },
    /// `canister_update METHOD`.
    Update {
        method: String,
        arg: Vec<u8>,
    },
    /// `canister_query METHOD` as part of a block: called as an update or by another canister.
    ReplicatedQuery {
        method: String,
        arg: Vec<u8>,
    },
    /// `canister_query METHOD` outside a block; state is discarded.
    Query {
        method: String,
        arg: Vec<u8>,
    },
    Heartbeat,
    Timer,
    Callback {
        closure: Closure,
        response: Response,
        cycles_refunded: u128,
    },
    Cleanup {
        closure: Closure,
    },
}

/// What an execution may see of the world around it.
pub struct Context<'a> {
    pub canister_id: Principal,
    pub subnet_id: Principal,
    /// Of the message, or of the call context that a callback belongs to.
    pub caller: Principal,
    pub controllers: &'a BTreeSet<Principal>,
    pub environment: &'a BTreeMap<String, String>,
    pub root_key: &'a [u8],
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// The global timer; 0 where it is not set.
    pub timer_ns: u64,
    pub canister_version: u64,
    /// 1 running, 2 stopping, 3 stopped.
    pub status: u32,
    /// What the canister has, less what was prepaid for this execution.
    pub balance: u128,
    /// What of the balance may be spent on calls or burnt: the rest is kept for storage (the freezing
    /// threshold).
    pub liquid_balance: u128,
    /// The prices of the canister's subnet.
    pub fees: &'a Fees,
    /// By how many bytes heap and stable memory together may still grow; to grow further fails.
    pub growth_bytes_max: u64,
    /// Attached to the call and not accepted yet.
    pub cycles_available: u128,
    /// Of a bounded-wait call, in nanoseconds; 0 where there is none.
    pub deadline_ns: u64,
    /// The call context has been answered, or cannot be (timers, heartbeats).
    pub answered: bool,
    /// For `data_certificate` in a query.
    pub certificate: Option<&'a [u8]>,
    /// Calls outstanding from this canister, by callee.
    pub calls_outstanding: &'a BTreeMap<Principal, usize>,
    pub instructions_max: u64,
    /// Executed already in this call context, for `performance_counter(1)`.
    pub instructions_before: u64,
}

/// A call that the execution made.
#[derive(Clone)]
pub struct Call {
    pub callee: Principal,
    pub method: String,
    pub arg: Vec<u8>,
    pub cycles: u128,
    pub on_reply: Closure,
    pub on_reject: Closure,
    pub on_cleanup: Option<Closure>,
    /// Of a bounded-wait call.
    pub timeout_s: Option<u32>,
}

/// Why an execution failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trap {
    /// `ic0.trap`, with its message.
    CalledTrap(String),
    /// A trap of Wasm itself: unreachable, out of bounds, stack overflow …
    Wasm(String),
    /// A System API call that the specification forbids there, or with such arguments.
    Contract(String),
    InstructionLimit {
        max: u64,
    },
    MethodNotFound {
        method: String,
    },
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CalledTrap(message) => {
                write!(f, "Canister called `ic0.trap` with message: '{message}'")
            }
            Self::Wasm(message) => write!(f, "Canister trapped: {message}"),
            Self::Contract(message) => write!(f, "Canister violated contract: {message}"),
            Self::InstructionLimit { max } => {
                write!(
                    f,
                    "Canister exceeded the limit of {max} instructions for single message execution."
                )
            }
            Self::MethodNotFound { method } => write!(f, "Canister has no method '{method}'"),
        }
    }
}

impl std::error::Error for Trap {}

impl Entry {
    /// Arg and method name, where the entry has them.
    fn message(&self) -> (&str, &[u8]) {
        match self {
            Self::Inspect { method, arg }
            | Self::Update { method, arg }
            | Self::ReplicatedQuery { method, arg }
            | Self::Query { method, arg } => (method, arg),
            _ => ("", &[]),
        }
    }
}

/// One line that the canister printed, or the message of its trap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub time_ns: u64,
    pub text: Vec<u8>,
}

/// What an execution did. After a trap only `result`, `logs` and `instructions` mean anything.
pub struct Outcome {
    pub result: Result<(), Trap>,
    /// By `msg_reply` or `msg_reject`.
    pub response: Option<Response>,
    pub calls: Vec<Call>,
    /// After accepting cycles, burning them, attaching them to calls, and prepaying those calls
    /// ([`Fees::call`] of method name and argument, for each).
    pub balance: u128,
    /// Taken from [`Context::cycles_available`].
    pub cycles_accepted: u128,
    pub certified_data: Option<Vec<u8>>,
    /// A new value of the global timer; 0 disables it.
    pub timer_ns: Option<u64>,
    /// By `accept_message`.
    pub accepted: bool,
    pub logs: Vec<LogLine>,
    pub instructions: u64,
}

//! One canister's code and memories: runs one entry point at a time, all or nothing.
//!
//! The machine knows no network: what an execution may see comes in as a [`Context`], what it wants
//! done comes out as an [`Outcome`]. A trap leaves heap, stable memory and globals as they were.

mod api;
mod cost;
mod heap;
mod host;
mod image;
mod instance;
mod module;
mod run;
mod shape;
mod stable;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use candid::Principal;
use serde::{Deserialize, Serialize};

use crate::fees::Fees;

pub use image::{Global, Image};
pub use module::{Compiler, MetadataVisibility, Module, ModuleError, WASM_BYTES_MAX};
pub use run::{Machine, Scratch, Upgrade};
pub use stable::{Copied, STABLE_PAGE_BYTES, StableMemory};

/// Pages in which memory is charged when it is written to.
pub const DIRTY_PAGE_BYTES: u64 = 4_096;

/// How heaps are undone; what can be seen from outside is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeapKind {
    /// The kernel copies pages on write. Copied where it cannot be had.
    Mapped,
    /// There is a copy of the whole heap.
    Copied,
}

/// A function of the canister's table and the value to call it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closure {
    pub fun: u32,
    pub env: u32,
}

/// What comes back from a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    Reply(#[serde(with = "serde_bytes")] Vec<u8>),
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
    /// `canister_query METHOD` as part of a block: called as an update or by another canister. State is
    /// discarded, cycles are not.
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
    /// `canister_on_low_wasm_memory`.
    LowWasmMemory,
    Callback {
        closure: Closure,
        response: Response,
        cycles_refunded: u128,
    },
    Cleanup {
        closure: Closure,
        /// Of the response whose callback trapped; 0 where that was a reply.
        reject_code: u32,
    },
    /// `canister_composite_query METHOD`; for [`Machine::run_composite`], like the next two.
    CompositeQuery {
        method: String,
        arg: Vec<u8>,
    },
    CompositeCallback {
        closure: Closure,
        response: Response,
    },
    CompositeCleanup {
        closure: Closure,
        reject_code: u32,
    },
}

/// What a canister says of a sender whose signatures it makes, such as the attributes that Internet Identity
/// certifies. It comes with the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderInfo {
    #[serde(with = "serde_bytes")]
    pub info: Vec<u8>,
    /// That canister.
    pub signer: Principal,
}

/// What a canister must keep of its cycles: what its memory and its compute allocation take for as long as
/// the freezing threshold says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Bytes that storage is paid for besides heap and stable memory: code, chunks, snapshots.
    pub other_bytes: u64,
    /// The setting `memory_allocation`: at least so much is paid for.
    pub allocated_bytes: u64,
    pub compute_percent: u64,
    pub threshold_s: u64,
}

impl Keep {
    /// What storage is paid for, with so many bytes of heap and stable memory.
    pub fn paid_bytes(&self, memory_bytes: u64) -> u64 {
        let used = self.other_bytes.saturating_add(memory_bytes);
        used.max(self.allocated_bytes)
    }

    /// In cycles, with so many bytes of heap and stable memory.
    pub fn cycles(&self, memory_bytes: u64, fees: &Fees) -> u128 {
        let idle = fees.idle_per_day(self.paid_bytes(memory_bytes), self.compute_percent);
        fees.freezing_limit(idle, self.threshold_s, 0)
    }
}

/// What an execution may see of the world around it.
pub struct Context<'a> {
    pub canister_id: Principal,
    pub subnet_id: Principal,
    /// Of the message, or of the call context that a callback belongs to.
    pub caller: Principal,
    /// Of a caller outside.
    pub sender_info: Option<&'a SenderInfo>,
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
    /// What of it cannot be spent on calls or burnt.
    pub keep: Keep,
    /// The prices of the canister's subnet.
    pub fees: &'a Fees,
    /// Every call is refused, as if the queue to its callee were full.
    pub queues_full: bool,
    /// By how many bytes heap and stable memory together may still grow; to grow further fails.
    pub growth_bytes_max: u64,
    /// The setting `wasm_memory_limit`: with a larger heap no update begins, and neither updates nor
    /// installations may grow so far. 0 where there is none.
    pub heap_bytes_max: u64,
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
    /// With so many bytes more, the canister would have to keep more cycles than it has.
    MemoryGrowth {
        bytes: u64,
        missing: u128,
    },
    /// The heap is larger than [`Context::heap_bytes_max`].
    WasmMemoryLimit {
        bytes: u64,
        max: u64,
    },
    /// More of stable memory was touched than one message may.
    StableAccessLimit {
        access: StableAccess,
        pages_max: u64,
    },
}

/// How stable memory was touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StableAccess {
    Written,
    /// Or written.
    Read,
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
            Self::MemoryGrowth { bytes, missing } => write!(
                f,
                "Canister cannot grow memory by {bytes} bytes due to insufficient cycles. At least {missing} additional cycles are required."
            ),
            Self::WasmMemoryLimit { bytes, max } => write!(
                f,
                "Canister exceeded its current Wasm memory limit of {max} bytes. The peak Wasm memory usage was {bytes} bytes."
            ),
            Self::StableAccessLimit { access, pages_max } => write!(
                f,
                "Canister exceeded memory access limits: at most {} KB of stable memory can be {} in one message",
                pages_max * DIRTY_PAGE_BYTES / 1_024,
                match access {
                    StableAccess::Written => "modified",
                    StableAccess::Read => "accessed",
                }
            ),
            Self::MethodNotFound { method } => write!(f, "Canister has no method '{method}'"),
        }
    }
}

impl std::error::Error for Trap {}

/// One line that the canister printed, or the message of its trap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub time_ns: u64,
    pub text: Vec<u8>,
}

/// What an execution used, to the instruction: the same run of the same code uses the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Everything that is charged as instructions: operators, imports with their bytes, dirty pages.
    pub instructions: u64,
    /// Pages of [`DIRTY_PAGE_BYTES`] of the heap that were written to.
    pub heap_pages_dirtied: u64,
    /// Pages of [`DIRTY_PAGE_BYTES`] of stable memory that were written to.
    pub stable_pages_dirtied: u64,
    /// Pages of [`DIRTY_PAGE_BYTES`] of stable memory that were read or written to.
    pub stable_pages_accessed: u64,
    pub stable_bytes_read: u64,
    pub stable_bytes_written: u64,
}

/// What an execution did. After a trap only `result`, `logs` and `usage` mean anything.
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
    /// By `cycles_burn128`.
    pub cycles_burned: u128,
    /// Where it was set; an upgrade keeps what it was else.
    pub certified_data: Option<Vec<u8>>,
    /// A new value of the global timer; 0 disables it.
    pub timer_ns: Option<u64>,
    /// By `accept_message`.
    pub accepted: bool,
    pub logs: Vec<LogLine>,
    pub usage: Usage,
}

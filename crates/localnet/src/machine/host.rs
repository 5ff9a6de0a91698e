//! What an execution carries: the world it may see, and what it has done so far.

use std::collections::{BTreeMap, BTreeSet};

use candid::Principal;
use wasmtime::{Error, Memory, ResourceLimiter, Result};

use super::{Call, Context, Keep, LogLine, Response, SenderInfo, StableMemory, Trap, run::within};
use crate::fees::Fees;

/// A table of functions is kept within what a host can afford.
const TABLE_ELEMENTS_MAX: usize = 1_000_000;

/// In which of its entry points a canister is running. One bit each, so that a set of them is a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(u32);

impl Kind {
    pub const START: Self = Self(1);
    /// `canister_init` and `canister_post_upgrade`.
    pub const INIT: Self = Self(1 << 1);
    pub const PRE_UPGRADE: Self = Self(1 << 2);
    pub const UPDATE: Self = Self(1 << 3);
    pub const REPLICATED_QUERY: Self = Self(1 << 4);
    pub const QUERY: Self = Self(1 << 5);
    pub const REPLY_CALLBACK: Self = Self(1 << 6);
    pub const REJECT_CALLBACK: Self = Self(1 << 7);
    pub const CLEANUP: Self = Self(1 << 8);
    pub const INSPECT: Self = Self(1 << 9);
    pub const HEARTBEAT: Self = Self(1 << 10);
    pub const TIMER: Self = Self(1 << 11);
    pub const LOW_WASM_MEMORY: Self = Self(1 << 12);
    pub const COMPOSITE_QUERY: Self = Self(1 << 13);
    pub const COMPOSITE_REPLY: Self = Self(1 << 14);
    pub const COMPOSITE_REJECT: Self = Self(1 << 15);
    pub const COMPOSITE_CLEANUP: Self = Self(1 << 16);

    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn among(self, set: Self) -> bool {
        self.0 & set.0 != 0
    }

    /// As the Internet Computer names it in its errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::START => "start",
            Self::INIT => "init",
            Self::PRE_UPGRADE => "pre upgrade",
            Self::UPDATE => "update",
            Self::REPLICATED_QUERY => "replicated query",
            Self::QUERY => "non replicated query",
            Self::REPLY_CALLBACK => "reply callback",
            Self::REJECT_CALLBACK => "reject callback",
            Self::CLEANUP => "cleanup",
            Self::INSPECT => "inspect message",
            Self::HEARTBEAT => "heartbeat",
            Self::TIMER => "global timer",
            Self::LOW_WASM_MEMORY => "on low Wasm memory",
            Self::COMPOSITE_QUERY => "composite query",
            Self::COMPOSITE_REPLY => "composite reply callback",
            Self::COMPOSITE_REJECT => "composite reject callback",
            _ => "composite cleanup",
        }
    }
}

/// The state of a store: what stays between executions, and the running one.
pub struct Host {
    pub stable: StableMemory,
    pub memory: Option<Memory>,
    pub run: Run,
}

impl Host {
    /// Nothing runs, nothing is kept.
    pub fn idle() -> Self {
        Self {
            stable: StableMemory::default(),
            memory: None,
            run: Run::idle(),
        }
    }
}

/// What 32-bit addresses reach.
const HEAP_BYTES_MAX: usize = 1 << 32;

impl ResourceLimiter for Host {
    /// The heap may grow within what the canister may use; beyond its own limit the message fails.
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        if desired > maximum.unwrap_or(HEAP_BYTES_MAX) {
            return Ok(false);
        }
        let limited = Kind::START.or(Kind::INIT).or(Kind::UPDATE);
        if self.run.kind.among(limited)
            && let Err(trap) = within(desired as u64, self.run.heap_bytes_max)
        {
            self.run.trap = Some(trap.clone());
            return Err(Error::new(trap));
        }
        self.run.grow((desired - current) as u64).map_err(|trap| {
            self.run.trap = Some(trap.clone());
            Error::new(trap)
        })
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX.min(maximum.unwrap_or(usize::MAX)))
    }
}

/// One execution.
pub struct Run {
    pub kind: Kind,
    pub canister_id: Principal,
    pub subnet_id: Principal,
    pub caller: Principal,
    pub sender_info: Option<SenderInfo>,
    pub controllers: BTreeSet<Principal>,
    pub environment: BTreeMap<String, String>,
    pub root_key: Vec<u8>,
    pub certificate: Option<Vec<u8>>,
    pub calls_outstanding: BTreeMap<Principal, usize>,
    pub time_ns: u64,
    pub canister_version: u64,
    pub status: u32,
    pub deadline_ns: u64,
    pub instructions_max: u64,
    pub instructions_before: u64,
    /// What is left of it says how much was used.
    pub fuel_at_start: u64,
    pub method: String,
    pub arg: Vec<u8>,
    pub reject: Option<(u32, String)>,
    pub cycles_refunded: u128,
    pub cycles_available: u128,
    pub answered: bool,

    pub fees: Fees,
    pub queues_full: bool,
    pub growth_bytes_max: u64,
    pub heap_bytes_max: u64,
    pub balance: u128,
    pub keep: Keep,
    /// Heap and stable memory as they are now.
    pub memory_bytes: u64,
    pub cycles_accepted: u128,
    pub cycles_burned: u128,
    pub reply: Vec<u8>,
    pub response: Option<Response>,
    /// Begun by `call_new`, not performed yet.
    pub call: Option<Call>,
    pub calls: Vec<Call>,
    pub certified_data: Option<Vec<u8>>,
    /// As it was set before this execution.
    pub timer_before_ns: u64,
    pub timer_ns: Option<u64>,
    pub accepted: bool,
    pub stable_access: Access,
    pub logs: Vec<LogLine>,
    pub trap: Option<Trap>,
}

impl Run {
    /// What may be spent now.
    pub fn liquid(&self) -> u128 {
        let kept = self.keep.cycles(self.memory_bytes, &self.fees);
        self.balance.saturating_sub(kept)
    }

    /// Heap or stable memory is to grow. False where there is no room; a trap where the canister would be
    /// frozen by it, in updates and tasks (interface specification: callbacks are let through; installations
    /// are looked at when they are done; what queries do is discarded).
    pub fn grow(&mut self, bytes: u64) -> Result<bool, Trap> {
        const LOOKED_AT: Kind = Kind::UPDATE
            .or(Kind::HEARTBEAT)
            .or(Kind::TIMER)
            .or(Kind::LOW_WASM_MEMORY);
        let Some(left) = self.growth_bytes_max.checked_sub(bytes) else {
            return Ok(false);
        };
        let grown = self.memory_bytes + bytes;
        let paid_more = self.keep.paid_bytes(grown) > self.keep.paid_bytes(self.memory_bytes);
        if paid_more && self.kind.among(LOOKED_AT) {
            self.afford(bytes, grown, self.balance)?;
        }
        (self.growth_bytes_max, self.memory_bytes) = (left, grown);
        Ok(true)
    }

    /// Whether so many cycles are enough to keep with so much memory; `bytes` of it are new.
    pub fn afford(&self, bytes: u64, memory_bytes: u64, balance: u128) -> Result<(), Trap> {
        match self
            .keep
            .cycles(memory_bytes, &self.fees)
            .checked_sub(balance)
        {
            None | Some(0) => Ok(()),
            Some(missing) => Err(Trap::MemoryGrowth { bytes, missing }),
        }
    }

    pub fn new(kind: Kind, context: &Context) -> Self {
        Self {
            kind,
            canister_id: context.canister_id,
            subnet_id: context.subnet_id,
            caller: context.caller,
            sender_info: context.sender_info.cloned(),
            controllers: context.controllers.clone(),
            environment: context.environment.clone(),
            root_key: context.root_key.to_vec(),
            certificate: context.certificate.map(<[u8]>::to_vec),
            calls_outstanding: context.calls_outstanding.clone(),
            time_ns: context.time_ns,
            canister_version: context.canister_version,
            status: context.status,
            deadline_ns: context.deadline_ns,
            instructions_max: context.instructions_max,
            instructions_before: context.instructions_before,
            fuel_at_start: context.instructions_max,
            method: String::new(),
            arg: vec![],
            reject: None,
            cycles_refunded: 0,
            cycles_available: context.cycles_available,
            answered: context.answered,
            fees: *context.fees,
            queues_full: context.queues_full,
            growth_bytes_max: context.growth_bytes_max,
            heap_bytes_max: context.heap_bytes_max,
            balance: context.balance,
            keep: context.keep,
            memory_bytes: 0,
            cycles_accepted: 0,
            cycles_burned: 0,
            reply: vec![],
            response: None,
            call: None,
            calls: vec![],
            certified_data: None,
            timer_before_ns: context.timer_ns,
            timer_ns: None,
            accepted: false,
            stable_access: Access::default(),
            logs: vec![],
            trap: None,
        }
    }

    /// Sets the global timer and returns what it was.
    pub fn set_timer(&mut self, time_ns: u64) -> u64 {
        self.timer_ns
            .replace(time_ns)
            .unwrap_or(self.timer_before_ns)
    }

    /// A response, for its callback to look at.
    pub fn receive(&mut self, response: Response) {
        match response {
            Response::Reply(reply) => self.arg = reply,
            Response::Reject { code, message } => self.reject = Some((code, message)),
        }
    }

    pub fn log(&mut self, text: Vec<u8>) {
        self.logs.push(LogLine {
            time_ns: self.time_ns,
            text,
        });
    }
}

impl Run {
    /// Between executions.
    pub fn idle() -> Self {
        let nobody = Principal::anonymous();
        Self::new(
            Kind::START,
            &Context {
                canister_id: nobody,
                subnet_id: nobody,
                caller: nobody,
                sender_info: None,
                controllers: &BTreeSet::new(),
                environment: &BTreeMap::new(),
                root_key: &[],
                time_ns: 0,
                timer_ns: 0,
                canister_version: 0,
                status: 1,
                balance: 0,
                keep: Keep::default(),
                fees: &Fees::default(),
                queues_full: false,
                growth_bytes_max: u64::MAX,
                heap_bytes_max: 0,
                cycles_available: 0,
                deadline_ns: 0,
                answered: true,
                certificate: None,
                calls_outstanding: &BTreeMap::new(),
                instructions_max: 0,
                instructions_before: 0,
            },
        )
    }
}

/// What of stable memory one execution has read and written.
#[derive(Default)]
pub struct Access {
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// Pages touched so far, in groups of 64: a bit for each.
    groups: BTreeMap<u64, u64>,
    pages: u64,
}

impl Access {
    pub fn pages(&self) -> u64 {
        self.pages
    }

    pub fn note(&mut self, pages: std::ops::Range<u64>) {
        for page in pages {
            let group = self.groups.entry(page / 64).or_default();
            let bit = 1 << (page % 64);
            if *group & bit == 0 {
                *group |= bit;
                self.pages += 1;
            }
        }
    }
}

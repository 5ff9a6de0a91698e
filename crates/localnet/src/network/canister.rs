//! One canister, as the network keeps it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use candid::Principal;
use ic_management_canister_types::{
    Change, ChangeDetails, ChangeOrigin, FromCanisterRecord, FromUserRecord,
};

use serde::{Deserialize, Serialize};

use super::{
    call::{Delivery, Origin, Request},
    money::Consumed,
    settings::Settings,
    snapshot::Snapshot,
};
use crate::machine::{LogLine, Machine, SenderInfo};

/// What a log line takes besides its text: number and time.
const LOG_LINE_BYTES: u64 = 16;
/// Changes of code and controllers kept for each canister, as on the Internet Computer.
const HISTORY_MAX: usize = 20;
/// What 32-bit addresses reach.
const HEAP_BYTES_MAX: u64 = 1 << 32;

/// Whether a canister takes messages.
#[derive(Serialize, Deserialize)]
pub enum Status {
    Running,
    /// Waits for outstanding calls; who asked is answered when none is left.
    Stopping(Vec<Waiting>),
    Stopped,
}

/// Somebody who waits for a canister to stop.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Waiting {
    pub origin: Origin,
    pub cycles: u128,
    pub since_ns: u64,
}

/// Where `canister_on_low_wasm_memory` stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LowMemory {
    /// There is as much of the heap left as the setting `wasm_memory_threshold` asks for.
    #[default]
    Enough,
    /// There is less: it runs before any other message.
    Ready,
    /// It has run. It does again when there was enough in between.
    Executed,
}

#[derive(Serialize, Deserialize)]
pub struct Canister {
    pub subnet: Principal,
    pub controllers: BTreeSet<Principal>,
    pub balance: u128,
    pub consumed: Consumed,
    /// Kept apart: see `save`.
    #[serde(skip)]
    pub machine: Option<Machine>,
    /// Bytes of the module as it was given.
    pub wasm_bytes: u64,
    pub created_ns: u64,
    /// When its code came: by an installation or with a snapshot.
    pub installed_ns: u64,
    /// Until when storage is paid.
    pub charged_ns: u64,
    pub settings: Settings,
    pub status: Status,
    pub low_memory: LowMemory,
    pub version: u64,
    /// Code and controllers changed so often; `history` holds the latest.
    pub changes: u64,
    #[serde(with = "in_candid")]
    pub history: VecDeque<Change>,
    /// 0 where it is not set.
    pub timer_ns: u64,
    pub certified_data: Vec<u8>,
    pub logs: VecDeque<(u64, LogLine)>,
    pub logs_seen: u64,
    logs_bytes: u64,
    pub chunks: BTreeMap<[u8; 32], Vec<u8>>,
    pub responses: VecDeque<Delivery>,
    pub requests: VecDeque<Request>,
    /// Calls this canister waits for, by callee.
    pub outstanding: BTreeMap<Principal, usize>,
    /// Call contexts that are open, by their numbers.
    pub contexts: BTreeSet<u64>,
    /// By their ids.
    pub snapshots: BTreeMap<Vec<u8>, Snapshot>,
    /// How many there ever were.
    pub snapshots_taken: u64,
}

/// The history's types are the management canister's, and have no binary form but Candid.
mod in_candid {
    use std::collections::VecDeque;

    use candid::{decode_one, encode_one};
    use ic_management_canister_types::Change;
    use serde::{Deserializer, Serializer, de::Error as _, ser::Error as _};

    pub fn serialize<S: Serializer>(
        history: &VecDeque<Change>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let changes: Vec<_> = history.iter().collect();
        let bytes = encode_one(changes).map_err(S::Error::custom)?;
        serde_bytes::serialize(&bytes, serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<VecDeque<Change>, D::Error> {
        let bytes: Vec<u8> = serde_bytes::deserialize(deserializer)?;
        let changes: Vec<Change> = decode_one(&bytes).map_err(D::Error::custom)?;
        Ok(changes.into())
    }
}

impl Canister {
    pub fn new(
        subnet: Principal,
        controllers: BTreeSet<Principal>,
        balance: u128,
        now_ns: u64,
    ) -> Self {
        Self {
            subnet,
            controllers,
            balance,
            consumed: Consumed::default(),
            machine: None,
            wasm_bytes: 0,
            created_ns: now_ns,
            installed_ns: 0,
            charged_ns: now_ns,
            settings: Settings::default(),
            status: Status::Running,
            low_memory: LowMemory::default(),
            version: 0,
            changes: 0,
            history: VecDeque::new(),
            timer_ns: 0,
            certified_data: vec![],
            logs: VecDeque::new(),
            logs_seen: 0,
            logs_bytes: 0,
            chunks: BTreeMap::new(),
            responses: VecDeque::new(),
            requests: VecDeque::new(),
            outstanding: BTreeMap::new(),
            contexts: BTreeSet::new(),
            snapshots: BTreeMap::new(),
            snapshots_taken: 0,
        }
    }

    /// As `canister_status` in the System API: 1 running, 2 stopping, 3 stopped.
    pub fn status_code(&self) -> u32 {
        match self.status {
            Status::Running => 1,
            Status::Stopping(_) => 2,
            Status::Stopped => 3,
        }
    }

    /// Keeps the latest lines, within the setting `log_memory_limit`.
    pub fn log(&mut self, lines: Vec<LogLine>) {
        let max = self.settings.log_memory_limit;
        for mut line in lines {
            let room = usize::try_from(max.saturating_sub(LOG_LINE_BYTES)).unwrap_or(usize::MAX);
            line.text.truncate(room);
            self.logs_bytes += LOG_LINE_BYTES + line.text.len() as u64;
            self.logs.push_back((self.logs_seen, line));
            self.logs_seen += 1;
        }
        self.bound_log();
    }

    /// Drops the oldest lines until the rest is within the setting `log_memory_limit`.
    pub fn bound_log(&mut self) {
        while self.logs_bytes > self.settings.log_memory_limit {
            let Some((_, line)) = self.logs.pop_front() else {
                return;
            };
            self.logs_bytes -= LOG_LINE_BYTES + line.text.len() as u64;
        }
    }

    /// The log goes with the code.
    pub fn clear_log(&mut self) {
        self.logs.clear();
        self.logs_bytes = 0;
    }

    /// Notes who changed code or controllers; a canister may say which version of itself did.
    pub fn record(
        &mut self,
        time_ns: u64,
        by: &Request,
        sender_version: Option<u64>,
        details: ChangeDetails,
    ) {
        let origin = match by.origin {
            Origin::Ingress(_) => ChangeOrigin::FromUser(FromUserRecord { user_id: by.caller }),
            Origin::Call(_) => ChangeOrigin::FromCanister(FromCanisterRecord {
                canister_id: by.caller,
                canister_version: sender_version,
            }),
        };
        self.changes += 1;
        self.history.push_back(Change {
            timestamp_nanos: time_ns,
            canister_version: self.version,
            origin,
            details: Some(details),
        });
        if self.history.len() > HISTORY_MAX {
            self.history.pop_front();
        }
    }

    /// Whether a heap of so many bytes leaves less than the setting `wasm_memory_threshold` asks for. Source:
    /// interface specification, "Scheduling on low wasm memory hook"; no limit is 4 GiB.
    pub fn is_low(&self, heap_bytes: u64) -> bool {
        let limit = match self.settings.wasm_memory_limit {
            0 => HEAP_BYTES_MAX,
            limit => limit,
        };
        // Both are far below 2^64.
        limit < heap_bytes + self.settings.wasm_memory_threshold
    }

    /// Looks how much of the heap is left, after anything that may have changed that.
    pub fn look_at_memory(&mut self) {
        let heap_bytes = self.machine.as_ref().map_or(0, Machine::heap_bytes);
        self.low_memory = match self.low_memory {
            _ if !self.is_low(heap_bytes) => LowMemory::Enough,
            LowMemory::Enough => LowMemory::Ready,
            same => same,
        };
    }

    /// Whether a message waits.
    pub fn has_messages(&self) -> bool {
        !self.requests.is_empty() || !self.responses.is_empty()
    }

    pub fn exports(&self, name: &str) -> bool {
        self.machine
            .as_ref()
            .is_some_and(|machine| machine.module().exports(name))
    }
}

/// A call context: a message that was begun, or a timer's or heartbeat's run, with the calls it made.
#[derive(Serialize, Deserialize)]
pub struct Context {
    pub canister: Principal,
    /// Who waits for the answer; nobody for timers and heartbeats, or once it was given.
    pub origin: Option<Origin>,
    pub caller: Principal,
    pub sender_info: Option<SenderInfo>,
    pub cycles_available: u128,
    pub deadline_ns: u64,
    pub calls_outstanding: usize,
    pub instructions: u64,
}

impl Context {
    pub fn new(canister: Principal, origin: Option<Origin>, caller: Principal) -> Self {
        Self {
            canister,
            origin,
            caller,
            sender_info: None,
            cycles_available: 0,
            deadline_ns: 0,
            calls_outstanding: 0,
            instructions: 0,
        }
    }
}

impl Canister {
    /// A call to `callee` is over.
    pub fn forget_call(&mut self, callee: &Principal) {
        if let Some(count) = self.outstanding.get_mut(callee) {
            *count -= 1;
            if *count == 0 {
                self.outstanding.remove(callee);
            }
        }
    }
}

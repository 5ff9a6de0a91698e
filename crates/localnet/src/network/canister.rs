//! One canister, as the network keeps it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use candid::Principal;
use ic_management_canister_types::{
    Change, ChangeDetails, ChangeOrigin, FromCanisterRecord, FromUserRecord,
};

use serde::{Deserialize, Serialize};

use super::{
    call::{Delivery, Origin, Request},
    snapshot::Snapshot,
};
use crate::machine::{LogLine, Machine};

/// Log lines kept for each canister; older ones are dropped.
const LOG_LINES_MAX: usize = 1_000;
/// Changes of code and controllers kept for each canister, as on the Internet Computer.
const HISTORY_MAX: usize = 20;

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

/// Settings, as the Internet Computer has them. Nothing is ever reserved, so its limit is only shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub compute_allocation: u128,
    pub memory_allocation: u128,
    pub freezing_threshold: u128,
    pub reserved_cycles_limit: u128,
    pub wasm_memory_limit: u128,
    pub wasm_memory_threshold: u128,
    /// Whether everybody may read the logs; controllers always may.
    pub logs_public: bool,
}

impl Default for Settings {
    /// The Internet Computer's defaults.
    fn default() -> Self {
        Self {
            compute_allocation: 0,
            memory_allocation: 0,
            freezing_threshold: 2_592_000,
            reserved_cycles_limit: 5_000_000_000_000,
            wasm_memory_limit: 3_221_225_472,
            wasm_memory_threshold: 0,
            logs_public: false,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub struct Canister {
    pub subnet: Principal,
    pub controllers: BTreeSet<Principal>,
    pub balance: u128,
    /// Kept apart: see `save`.
    #[serde(skip)]
    pub machine: Option<Machine>,
    /// Bytes of the module as it was given.
    pub wasm_bytes: u64,
    /// Until when storage is paid.
    pub charged_ns: u64,
    pub environment: BTreeMap<String, String>,
    pub settings: Settings,
    pub status: Status,
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
    pub chunks: BTreeMap<[u8; 32], Vec<u8>>,
    pub responses: VecDeque<Delivery>,
    pub requests: VecDeque<Request>,
    /// Calls this canister waits for, by callee.
    pub outstanding: BTreeMap<Principal, usize>,
    /// Call contexts that are open.
    pub contexts: usize,
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
            machine: None,
            wasm_bytes: 0,
            charged_ns: now_ns,
            environment: BTreeMap::new(),
            settings: Settings::default(),
            status: Status::Running,
            version: 0,
            changes: 0,
            history: VecDeque::new(),
            timer_ns: 0,
            certified_data: vec![],
            logs: VecDeque::new(),
            logs_seen: 0,
            chunks: BTreeMap::new(),
            responses: VecDeque::new(),
            requests: VecDeque::new(),
            outstanding: BTreeMap::new(),
            contexts: 0,
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

    pub fn log(&mut self, lines: Vec<LogLine>) {
        for line in lines {
            self.logs.push_back((self.logs_seen, line));
            self.logs_seen += 1;
            if self.logs.len() > LOG_LINES_MAX {
                self.logs.pop_front();
            }
        }
    }

    /// Notes who changed code or controllers.
    pub fn record(&mut self, time_ns: u64, by: &Request, details: ChangeDetails) {
        let origin = match by.origin {
            Origin::Ingress(_) => ChangeOrigin::FromUser(FromUserRecord { user_id: by.caller }),
            Origin::Call(_) => ChangeOrigin::FromCanister(FromCanisterRecord {
                canister_id: by.caller,
                canister_version: None,
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

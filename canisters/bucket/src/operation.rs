//! What the index keeps a bucket running by: the version that wrote its memory, whether it is closed, and
//! what it burns.

use std::borrow::Cow;

use candid::{CandidType, Principal, decode_one, encode_one};
use ic_stable_structures::{StableCell, Storable, storable::Bound};
use openstorage_types::{
    bucket::{SetClosedError, VERSION},
    channel::CyclesReport,
    limits::HOUR_MS,
};
use serde::{Deserialize, Serialize};

use crate::{Bucket, Now, memory::Memory};

const DAY_MS: u128 = 24 * HOUR_MS as u128;

/// First bytes of the record, before the version in 4 bytes, little-endian, and the rest in Candid: what a
/// later version may change is only read once the version is known.
const MAGIC: [u8; 8] = *b"OSBUCKET";

/// The record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Record {
    version: u32,
    state: State,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
struct State {
    /// By the index's word: nothing new is taken.
    closed: bool,
    burned_per_day: u128,
}

/// What was burned since a moment; a balance that rose was topped up.
#[derive(Debug, Clone, Copy)]
struct Window {
    since_ms: u64,
    balance: u128,
    burned: u128,
}

pub(crate) struct Operation {
    record: StableCell<Record, Memory>,
    /// Begun anew after an upgrade.
    window: Option<Window>,
    balance: u128,
    freezing_at: u128,
}

impl Operation {
    /// # Panics
    /// When a newer version wrote the memory: in `post_upgrade` that takes the upgrade back.
    pub fn open(memory: Memory) -> Self {
        let new = Record {
            version: VERSION,
            state: State::default(),
        };
        let mut record = StableCell::init(memory, new);
        let there = *record.get();
        assert!(
            there.version <= VERSION,
            "this bucket's memory was written by version {}, and this code is version {VERSION}: a \
             bucket is not downgraded",
            there.version
        );
        if there.version < VERSION {
            record.set(Record {
                version: VERSION,
                ..there
            });
        }
        Self {
            record,
            window: None,
            balance: 0,
            freezing_at: 0,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.record.get().state.closed
    }

    fn set(&mut self, state: State) {
        if self.record.get().state != state {
            self.record.set(Record {
                version: VERSION,
                state,
            });
        }
    }

    /// What the system says of the balance now. The pace is the mean of the last hour and all before.
    fn observe(&mut self, now_ms: u64, balance: u128, liquid: u128) {
        self.balance = balance;
        self.freezing_at = balance.saturating_sub(liquid);
        let window = self.window.get_or_insert(Window {
            since_ms: now_ms,
            balance,
            burned: 0,
        });
        window.burned += window.balance.saturating_sub(balance);
        window.balance = balance;
        let elapsed_ms = now_ms.saturating_sub(window.since_ms);
        if elapsed_ms < HOUR_MS {
            return;
        }
        let pace = window.burned.saturating_mul(DAY_MS) / u128::from(elapsed_ms);
        self.window = None;
        let state = self.record.get().state;
        let burned_per_day = match state.burned_per_day {
            0 => pace,
            before => (before + pace) / 2,
        };
        self.set(State {
            burned_per_day,
            ..state
        });
    }

    fn report(&self) -> CyclesReport {
        CyclesReport {
            balance: self.balance,
            freezing_at: self.freezing_at,
            burned_per_day: self.record.get().state.burned_per_day,
        }
    }
}

impl Bucket {
    /// Notes what the system says of the cycles: all of them, and those above the freezing threshold.
    pub fn observe_cycles(&mut self, now_ms: u64, balance: u128, liquid: u128) {
        self.operation.observe(now_ms, balance, liquid);
    }

    /// As last observed.
    pub fn cycles(&self) -> CyclesReport {
        self.operation.report()
    }

    /// Writes a line for `/logs`. No secret, no user and no blob goes in here.
    pub fn note(&mut self, now_ms: u64, text: &str) {
        self.lines.write(now_ms, text);
    }

    /// The index closes the bucket to new blobs, or opens it again. Open uploads go on.
    pub fn set_closed(
        &mut self,
        caller: &Principal,
        closed: bool,
        now: Now,
    ) -> Result<(), SetClosedError> {
        if *caller != self.index() {
            return Err(SetClosedError::NotAuthorized);
        }
        if self.operation.is_closed() != closed {
            let state = self.operation.record.get().state;
            self.operation.set(State { closed, ..state });
            self.report_due = true;
            let word = if closed { "closes" } else { "opens" };
            self.note(
                now.ms,
                &format!("the index {word} this bucket to new blobs"),
            );
        }
        Ok(())
    }
}

impl Storable for Record {
    const BOUND: Bound = Bound::Unbounded;

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        let state = encode_one(self.state).expect("a record has a Candid form");
        [&MAGIC[..], &self.version.to_le_bytes(), &state]
            .concat()
            .into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        let (magic, rest) = bytes
            .split_first_chunk()
            .expect("the record has its magic bytes");
        assert_eq!(*magic, MAGIC, "this memory is no bucket's");
        let (version, state) = rest.split_first_chunk().expect("the record has a version");
        let version = u32::from_le_bytes(*version);
        Self {
            version,
            // A newer version's state is not read: it is refused.
            state: if version <= VERSION {
                decode_one(state).expect("the state is written here only")
            } else {
                State::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use ic_stable_structures::DefaultMemoryImpl;

    use super::*;
    use crate::memory::{self, Memories};

    fn memory(all: &DefaultMemoryImpl) -> Memory {
        Memories::open(all.clone()).get(memory::OPERATION)
    }

    #[test]
    fn the_pace_leaves_top_ups_out_and_outlives_an_upgrade() {
        let all = DefaultMemoryImpl::default();
        let mut operation = Operation::open(memory(&all));
        operation.observe(0, 1_000_000, 900_000);
        operation.observe(HOUR_MS / 2, 999_000, 899_000);
        // Topped up by more than it burned meanwhile.
        operation.observe(HOUR_MS / 2 + 1, 5_000_000, 4_900_000);
        operation.observe(HOUR_MS, 4_999_000, 4_899_000);
        let report = operation.report();
        assert_eq!(report.balance, 4_999_000);
        assert_eq!(report.freezing_at, 100_000);
        assert_eq!(report.burned_per_day, 24 * 2_000);
        let after = Operation::open(memory(&all));
        assert_eq!(after.report().burned_per_day, 24 * 2_000);
    }

    #[test]
    #[should_panic(expected = "a bucket is not downgraded")]
    fn newer_memory_is_refused() {
        let all = DefaultMemoryImpl::default();
        let newer = Record {
            version: VERSION + 1,
            state: State::default(),
        };
        StableCell::init(memory(&all), newer);
        Operation::open(memory(&all));
    }
}

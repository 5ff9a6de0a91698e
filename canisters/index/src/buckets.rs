//! The buckets: what each reports, and where it stands in the two streams of events.
//!
//! There are at most [`BUCKETS_MAX`], and nearly every call looks at all of them: the rows stand on the
//! heap as well, read once after an upgrade.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use candid::{CandidType, Principal};
use ic_stable_structures::StableBTreeMap;
use openstorage_canister::Row;
use openstorage_types::{
    BlobId,
    channel::{BucketReport, Stamp, kind},
    index::{BucketState, Trouble},
    limits::CHUNK_BYTES,
};
use serde::{Deserialize, Serialize};

use crate::{
    memory::Memory,
    sync::Cursor,
    upkeep::{Mark, Stage, Upkeep},
};

/// More are not created: everything that walks all buckets stays small.
pub const BUCKETS_MAX: usize = 1_000;

/// One bucket.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// The code is in.
    pub installed: bool,
    /// The last that it said of itself.
    pub report: BucketReport,
    /// After the last of its events that were applied here.
    pub heard: Stamp,
    /// Up to where it has been told everything.
    pub cursor: Cursor,
    /// How often it has begun to tell its whole state.
    pub generation: u64,
    pub doubt: Doubt,
    /// What keeps it running.
    pub upkeep: Upkeep,
}

/// The index may have been restored from a snapshot: what has this bucket heard that is forgotten?
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Doubt {
    /// Nothing.
    #[default]
    None,
    /// It has to say.
    Asked,
    /// Something: it has to tell its whole state.
    Telling,
}

impl Bucket {
    /// A bucket that is being made, as empty as it will be. First it is looked at: whatever is in it
    /// decides what comes next.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            installed: false,
            report: BucketReport {
                bytes_used: 0,
                bytes_free: bytes_max,
                key: None,
                oldest_key_version: None,
                version: None,
                index_version: 0,
                cycles: None,
                set_aside: None,
                overdue_ms: None,
            },
            heard: Stamp::default(),
            cursor: Cursor::default(),
            generation: 0,
            doubt: Doubt::None,
            upkeep: Upkeep {
                stage: Some(Stage::Inspect),
                ..Upkeep::default()
            },
        }
    }

    /// Full is a bucket in which not one whole chunk has room, or that an operator says is full. `in_trouble`: something
    /// is wrong with it.
    fn state(&self, in_trouble: bool) -> BucketState {
        if !self.installed {
            return BucketState::Creating;
        }
        match (self.upkeep.mark, self.upkeep.stage) {
            (Some(Mark::Retired), _) => BucketState::Retired,
            (_, Some(_)) => BucketState::Upgrading,
            _ if in_trouble => BucketState::Unhealthy,
            (Some(Mark::Full), None) => BucketState::Full,
            (None, None) if self.report.bytes_free < CHUNK_BYTES => BucketState::Full,
            (None, None) => BucketState::Active,
        }
    }

    /// It can be called: its code is in and is not being replaced.
    pub fn is_up(&self) -> bool {
        self.installed && self.upkeep.stage.is_none()
    }

    /// Takes a newer report. A key, once known, stays when a report has none.
    pub fn take_report(&mut self, report: BucketReport) {
        self.take_version(report.version);
        self.report = BucketReport {
            key: report.key.or(self.report.key),
            oldest_key_version: report.oldest_key_version.or(self.report.oldest_key_version),
            ..report
        };
    }

    /// The version of the code that is in. One that understands more has to hear what was kept from the
    /// one before.
    pub fn take_version(&mut self, version: Option<u32>) {
        let (was, is) = (self.report.version.unwrap_or(1), version.unwrap_or(1));
        if kind::any_between(was, is) {
            self.cursor.start_over();
        }
        self.report.version = version;
    }
}

pub struct Buckets {
    stable: StableBTreeMap<Principal, Row<Bucket>, Memory>,
    rows: BTreeMap<Principal, Bucket>,
    /// Buckets with which something is wrong; on the heap as well.
    stable_troubles: StableBTreeMap<Principal, Row<Trouble>, Memory>,
    troubles: BTreeMap<Principal, Trouble>,
    /// Who was told something last: it is the others' turn. Forgotten in an upgrade.
    told_latest: Principal,
}

impl Buckets {
    pub fn init(rows: Memory, troubles: Memory) -> Self {
        let stable: StableBTreeMap<_, Row<Bucket>, _> = StableBTreeMap::init(rows);
        let stable_troubles: StableBTreeMap<_, Row<Trouble>, _> = StableBTreeMap::init(troubles);
        let troubles = stable_troubles
            .iter()
            .map(|entry| (*entry.key(), entry.value().0))
            .collect();
        let rows = stable
            .iter()
            .map(|entry| (*entry.key(), entry.value().0))
            .collect();
        Self {
            stable,
            rows,
            stable_troubles,
            troubles,
            told_latest: Principal::management_canister(),
        }
    }

    /// All of them, in the order in which they are told the news.
    pub fn in_turn(&self) -> impl Iterator<Item = (&Principal, &Bucket)> {
        let others = self.rows.range((Excluded(self.told_latest), Unbounded));
        others.chain(self.rows.range(..=self.told_latest))
    }

    pub fn begins_to_hear(&mut self, bucket: Principal) {
        self.told_latest = bucket;
    }

    pub fn get(&self, bucket: &Principal) -> Option<&Bucket> {
        self.rows.get(bucket)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Principal, &Bucket)> {
        self.rows.iter()
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What is wrong with a bucket, if something is.
    pub fn trouble(&self, bucket: &Principal) -> Option<&Trouble> {
        self.troubles.get(bucket)
    }

    pub fn set_trouble(&mut self, bucket: Principal, trouble: Option<Trouble>) {
        match trouble {
            Some(trouble) => {
                if self.troubles.get(&bucket) != Some(&trouble) {
                    self.stable_troubles.insert(bucket, Row(trouble.clone()));
                    self.troubles.insert(bucket, trouble);
                }
            }
            None => {
                if self.troubles.remove(&bucket).is_some() {
                    self.stable_troubles.remove(&bucket);
                }
            }
        }
    }

    pub fn state(&self, bucket: &Principal, row: &Bucket) -> BucketState {
        row.state(self.troubles.contains_key(bucket))
    }

    pub fn set(&mut self, bucket: Principal, row: Bucket) {
        if self.rows.get(&bucket) != Some(&row) {
            self.stable.insert(bucket, Row(row.clone()));
            self.rows.insert(bucket, row);
        }
    }

    /// Changes a row, where there is one.
    pub fn update(&mut self, bucket: &Principal, change: impl FnOnce(&mut Bucket)) {
        if let Some(mut row) = self.rows.get(bucket).cloned() {
            change(&mut row);
            self.set(*bucket, row);
        }
    }

    pub fn remove(&mut self, bucket: &Principal) -> Option<Bucket> {
        self.stable.remove(bucket);
        self.rows.remove(bucket)
    }

    /// Where a new blob goes: of the well and active buckets with room, the first in rendezvous order. Everybody
    /// who stores the same blob gets the same answer, and a further bucket takes its share of the blobs
    /// without moving any other.
    pub fn for_new(&self, blob: &BlobId, size: u64, exclude: &[Principal]) -> Option<Principal> {
        self.rows
            .iter()
            .filter(|(bucket, row)| {
                self.state(bucket, row) == BucketState::Active
                    && row.report.bytes_free >= size
                    && !exclude.contains(bucket)
            })
            .map(|(bucket, _)| *bucket)
            .max_by_key(|bucket| rank(blob, bucket))
    }
}

/// A number for each pair, as if drawn. That of a blob is part of a hash already, so mixing is enough: it is done
/// for all active buckets, and hashing a thousand of them took 6 M instructions.
fn rank(blob: &BlobId, bucket: &Principal) -> u64 {
    let (words, _) = blob.0.as_chunks::<8>();
    let of_blob = u64::from_le_bytes(words[0]);
    bucket.as_slice().chunks(8).fold(of_blob, |rank, part| {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        mixed(rank ^ u64::from_le_bytes(word))
    })
}

/// SplitMix64's mixing: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

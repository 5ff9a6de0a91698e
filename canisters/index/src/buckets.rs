//! The buckets: what each reports, and where it stands in the two streams of events.
//!
//! There are at most [`BUCKETS_MAX`], and nearly every call looks at all of them: the rows stand on the
//! heap as well, read once after an upgrade.

use std::collections::BTreeMap;

use candid::{CandidType, Principal};
use ic_stable_structures::StableBTreeMap;
use openstorage_canister::Row;
use openstorage_types::{
    BlobId,
    channel::{BucketReport, Stamp},
    index::BucketState,
    limits::CHUNK_BYTES,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{memory::Memory, sync::Cursor};

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
    /// A bucket that is being made, as empty as it will be.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            installed: false,
            report: BucketReport {
                bytes_used: 0,
                bytes_free: bytes_max,
                key: None,
                version: None,
                index_version: 0,
            },
            heard: Stamp::default(),
            cursor: Cursor::default(),
            generation: 0,
            doubt: Doubt::None,
        }
    }

    /// Full is a bucket in which not one whole chunk has room.
    pub fn state(&self) -> BucketState {
        match self {
            Self {
                installed: false, ..
            } => BucketState::Creating,
            Self { report, .. } if report.bytes_free < CHUNK_BYTES => BucketState::Full,
            _ => BucketState::Active,
        }
    }

    /// Takes a newer report. A key, once known, stays when a report has none.
    pub fn take_report(&mut self, report: Option<BucketReport>) {
        if let Some(report) = report {
            self.report = BucketReport {
                key: report.key.or(self.report.key),
                ..report
            };
        }
    }
}

pub struct Buckets {
    stable: StableBTreeMap<Principal, Row<Bucket>, Memory>,
    rows: BTreeMap<Principal, Bucket>,
}

impl Buckets {
    pub fn init(memory: Memory) -> Self {
        let stable: StableBTreeMap<_, Row<Bucket>, _> = StableBTreeMap::init(memory);
        let rows = stable
            .iter()
            .map(|entry| (*entry.key(), entry.value().0))
            .collect();
        Self { stable, rows }
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

    pub fn set(&mut self, bucket: Principal, row: Bucket) {
        if self.rows.get(&bucket) != Some(&row) {
            self.stable.insert(bucket, Row(row.clone()));
            self.rows.insert(bucket, row);
        }
    }

    /// The bucket that is being made.
    pub fn creating(&self) -> Option<Principal> {
        self.rows
            .iter()
            .find(|(_, row)| !row.installed)
            .map(|(bucket, _)| *bucket)
    }

    /// Where a new blob goes: of the active buckets with room, the first in rendezvous order. Everybody
    /// who stores the same blob gets the same answer, and a further bucket takes its share of the blobs
    /// without moving any other.
    pub fn for_new(&self, blob: &BlobId, size: u64, exclude: &[Principal]) -> Option<Principal> {
        self.rows
            .iter()
            .filter(|(bucket, row)| {
                row.state() == BucketState::Active
                    && row.report.bytes_free >= size
                    && !exclude.contains(bucket)
            })
            .map(|(bucket, _)| *bucket)
            .max_by_key(|bucket| rank(blob, bucket))
    }
}

fn rank(blob: &BlobId, bucket: &Principal) -> [u8; 32] {
    Sha256::new()
        .chain_update(blob.0)
        .chain_update(bucket.as_slice())
        .finalize()
        .into()
}

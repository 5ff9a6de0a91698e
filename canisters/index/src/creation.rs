//! How a bucket comes to be: asked for, created, installed. Every step is on record before the call that
//! takes it, so that whatever is cut short goes on where it stopped.

use candid::{CandidType, Principal};
use openstorage_canister::Row;
use openstorage_types::{
    BlobId,
    index::BucketState,
    limits::{BLOB_BYTES_MAX, BUCKET_BYTES_MAX},
};
use serde::{Deserialize, Serialize};

use crate::{
    Index,
    backoff::Backoff,
    buckets::{BUCKETS_MAX, Bucket},
};

/// Cycles of a new bucket where nothing else was said: 2 T.
pub const BUCKET_CYCLES: u128 = 2_000_000_000_000;

/// What is on record. The canister that was created stands among the buckets.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct Creation {
    /// Since when, in milliseconds since 1970, a new canister is asked for. No answer means: it is on
    /// its way, or was lost.
    asked_ms: Option<u64>,
    last_error: Option<String>,
}

/// What is to be done now for a new bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Create a canister.
    Create,
    /// Put the code into this one.
    Install(Principal),
}

/// What a new bucket gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketTerms {
    pub cycles: u128,
    /// The most bytes it takes.
    pub bytes_max: u64,
}

impl Index {
    pub fn bucket_terms(&self) -> BucketTerms {
        let config = self.config();
        BucketTerms {
            cycles: config.bucket_cycles.unwrap_or(BUCKET_CYCLES),
            bytes_max: config.bucket_bytes_max.unwrap_or(BUCKET_BYTES_MAX),
        }
    }

    /// The next step, whether or not it is time for it; none when there are buckets enough, or no code
    /// for one.
    pub(crate) fn creation_step(&self) -> Option<Step> {
        self.bucket_wasm?;
        match self.buckets.creating() {
            Some(bucket) => Some(Step::Install(bucket)),
            None => self.needs_bucket().then_some(Step::Create),
        }
    }

    /// A bucket is made before it is needed: as long as one has room for the largest blob there are
    /// enough. No further one is made before something was stored in each that there is: what reports
    /// no room although it is empty has another problem.
    fn needs_bucket(&self) -> bool {
        let room = BLOB_BYTES_MAX.min(self.bucket_terms().bytes_max / 2);
        self.buckets.len() < BUCKETS_MAX
            && self.buckets.iter().all(|(_, row)| {
                let roomy = row.state() == BucketState::Active && row.report.bytes_free >= room;
                row.report.bytes_used > 0 && !roomy
            })
    }

    /// A canister is about to be asked for.
    pub fn creation_asked(&mut self, now_ms: u64) {
        let mut creation = self.creation();
        if let Some(asked_ms) = creation.asked_ms {
            // No call is under way, or this would not be asked: that one's answer was lost.
            creation.last_error = Some(format!(
                "the answer to create_canister of {asked_ms} ms since 1970 was lost; if it made a \
                 canister, the index's controllers control it"
            ));
        }
        creation.asked_ms = Some(now_ms);
        self.set_creation(&creation);
    }

    pub fn canister_created(&mut self, bucket: Principal) {
        let row = Bucket::new(self.bucket_terms().bytes_max);
        self.buckets.set(bucket, row);
        self.set_creation(&Creation {
            asked_ms: None,
            ..self.creation()
        });
        self.creation_backoff = Backoff::default();
    }

    pub fn bucket_installed(&mut self, bucket: Principal) {
        if let Some(mut row) = self.buckets.get(&bucket).cloned() {
            row.installed = true;
            self.buckets.set(bucket, row);
        }
        self.set_creation(&Creation::default());
        self.creation_backoff = Backoff::default();
    }

    /// The step has come to nothing; it is taken again later.
    pub fn creation_failed(&mut self, error: String, now_ms: u64) {
        self.creation_backoff.fail(now_ms);
        self.set_creation(&Creation {
            asked_ms: None,
            last_error: Some(error),
        });
    }

    /// SHA-256 of the Wasm that a bucket gets.
    pub fn bucket_wasm(&self) -> Option<BlobId> {
        self.bucket_wasm
    }

    /// Why there is no new bucket, if there should be one.
    pub(crate) fn creation_error(&self) -> Option<String> {
        if self.bucket_wasm.is_none() {
            return Some(
                "this index was built without a bucket's Wasm: it can create no bucket; set \
                 OPENSTORAGE_BUCKET_WASM when building it, and upgrade"
                    .into(),
            );
        }
        self.creation().last_error
    }

    fn creation(&self) -> Creation {
        self.creation.get().0.clone()
    }

    fn set_creation(&mut self, creation: &Creation) {
        self.creation.set(Row(creation.clone()));
    }
}

//! How a bucket comes to be: asked for, created, then looked after as every bucket ([`crate::upkeep`]).
//! That a canister is asked for is on record before the call; the answer's message stores its id and does
//! nothing else. What comes of it is used only once its code and its answers are as expected.

use candid::{CandidType, Principal};
use openstorage_canister::Row;
use openstorage_types::{
    BlobId, bucket,
    index::BucketState,
    limits::{BLOB_BYTES_MAX, BUCKET_BYTES_MAX},
};
use serde::{Deserialize, Serialize};

use crate::{
    Index, Moment,
    backoff::Backoff,
    buckets::{BUCKETS_MAX, Bucket},
    calls::{Answer, Call, Failure, Outcome},
    health::GRACE_MS,
};

/// Cycles of a new bucket where nothing else was said: 2 T.
pub const BUCKET_CYCLES: u128 = 2_000_000_000_000;

/// Controllers that a canister may have besides one; set by the Internet Computer.
const OTHER_CONTROLLERS_MAX: usize = 9;

/// What is on record. The canister that was created stands among the buckets.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct Creation {
    /// Since when, in milliseconds since 1970, a new canister is asked for. No answer means: it is on
    /// its way, or was lost.
    asked_ms: Option<u64>,
    last_error: Option<String>,
}

impl Index {
    /// Cycles that a bucket is given, and refilled to.
    pub(crate) fn bucket_cycles(&self) -> u128 {
        self.config().bucket_cycles.unwrap_or(BUCKET_CYCLES)
    }

    pub(crate) fn bucket_args(&self, own: Principal) -> bucket::InitArgs {
        bucket::InitArgs {
            index: own,
            bytes_max: Some(self.bucket_bytes_max()),
            strict_cache: self.config().bucket_strict_cache,
            #[cfg(feature = "mutants")]
            mutant: self.config().mutant,
            #[cfg(feature = "mutants")]
            trap: None,
        }
    }

    fn bucket_bytes_max(&self) -> u64 {
        self.config().bucket_bytes_max.unwrap_or(BUCKET_BYTES_MAX)
    }

    /// Whether a further canister is to be created: there is code for it, none is half made, and the
    /// buckets that take new blobs have little room left.
    ///
    /// A bucket that has no room although it is empty has another problem (its subnet has no memory, say),
    /// which a further one would have as well: then none is made.
    ///
    /// Buckets in trouble count for a while: they may be back soon.
    pub(crate) fn needs_bucket(&self, now_ms: u64) -> bool {
        if self.bucket_wasm.is_none() || self.buckets.len() >= BUCKETS_MAX {
            return false;
        }
        let room = BLOB_BYTES_MAX.min(self.bucket_bytes_max() / 2);
        let target = self.config().free_bytes_target.unwrap_or(room);
        let (mut free, mut roomy) = (0_u64, false);
        for (bucket, row) in self.buckets.iter() {
            let trouble = self.buckets.trouble(bucket);
            if trouble.is_some_and(|trouble| now_ms >= trouble.since_ms + GRACE_MS) {
                continue;
            }
            let takes_blobs = row.upkeep.mark.is_none();
            match self.buckets.state(bucket, row) {
                BucketState::Creating => return false,
                BucketState::Active | BucketState::Upgrading | BucketState::Unhealthy
                    if takes_blobs =>
                {
                    free = free.saturating_add(row.report.bytes_free);
                    roomy |= row.report.bytes_free >= room;
                }
                _ => {}
            }
            if takes_blobs && row.report.bytes_used == 0 && row.report.bytes_free < room {
                return false;
            }
        }
        free < target || !roomy
    }

    /// The call that comes next for a new canister, with everything that precedes it on record.
    pub(crate) fn begin_creation(&mut self, moment: &Moment) -> Option<Call> {
        if !self.needs_bucket(moment.now_ms) {
            return None;
        }
        let Some(mut controllers) = self.governance() else {
            return Some(Call::OwnControllers);
        };
        let wanted = self.bucket_cycles();
        let spare = self.spare(moment.balance).saturating_sub(moment.creation);
        let cycles = wanted.min(spare);
        if cycles < wanted / 2 {
            let floor = self.cycles_floor();
            let (balance, fee) = (moment.balance, moment.creation);
            let text = format!(
                "a bucket needs {wanted} cycles and {fee} to be created; the index has {balance} and \
                 keeps {floor}"
            );
            self.creation_failed(text, moment);
            return None;
        }
        controllers.retain(|other| *other != moment.own);
        controllers.truncate(OTHER_CONTROLLERS_MAX);
        controllers.insert(0, moment.own);
        self.creation_asked(moment);
        Some(Call::Create {
            controllers,
            cycles,
        })
    }

    /// What came of [`Index::begin_creation`].
    pub(crate) fn end_creation(&mut self, call: &Call, outcome: Outcome, moment: &Moment) {
        if matches!(call, Call::Create { .. }) && matches!(outcome, Err(Failure::Rejected { .. })) {
            self.set_creation(&Creation {
                asked_ms: None,
                ..self.creation()
            });
        }
        match outcome {
            Ok(Answer::Created(bucket)) => self.canister_created(bucket),
            Ok(Answer::Controllers(controllers)) => self.own_controllers = Some(controllers),
            Ok(_) => {}
            Err(Failure::Rejected { text, .. }) => self.creation_failed(text, moment),
            // Still on record as asked for: the next try says that one may be lost.
            Err(Failure::Unknown(text)) => {
                self.creation_backoff.fail(moment.now_ms);
                self.note(moment.now_ms, &format!("create_canister: {text}"));
            }
        }
    }

    /// Who controls buckets besides the index; none until the index has asked who controls itself.
    pub(crate) fn governance(&self) -> Option<Vec<Principal>> {
        let named = self.config().governance.clone();
        named.or_else(|| self.own_controllers.clone())
    }

    /// A canister is about to be asked for.
    fn creation_asked(&mut self, moment: &Moment) {
        let mut creation = self.creation();
        if let Some(asked_ms) = creation.asked_ms {
            // No call is under way, or this would not be asked: that one's answer was lost.
            let text = format!(
                "the answer to create_canister of {asked_ms} ms since 1970 was lost; if it made a \
                 canister, the index's governance controls it"
            );
            self.note(moment.now_ms, &text);
            creation.last_error = Some(text);
        }
        creation.asked_ms = Some(moment.now_ms);
        self.set_creation(&creation);
    }

    /// Stores the id, and nothing else: a trap after it would lose the canister.
    fn canister_created(&mut self, bucket: Principal) {
        let row = Bucket::new(self.bucket_bytes_max());
        self.buckets.set(bucket, row);
        self.set_creation(&Creation {
            asked_ms: None,
            ..self.creation()
        });
    }

    /// A bucket that was being made is ready.
    pub(crate) fn creation_succeeded(&mut self) {
        self.set_creation(&Creation::default());
        self.creation_backoff = Backoff::default();
    }

    /// The step has come to nothing; it is taken again later.
    pub(crate) fn creation_failed(&mut self, error: String, moment: &Moment) {
        self.creation_backoff.fail(moment.now_ms);
        if self.creation().last_error.as_ref() != Some(&error) {
            self.note(moment.now_ms, &error);
        }
        self.set_creation(&Creation {
            last_error: Some(error),
            ..self.creation()
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

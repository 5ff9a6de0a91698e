//! After a snapshot of the index was restored: what do its buckets remember that it has forgotten?
//!
//! Every bucket is asked for the newest version of the index that it has seen. Who has seen one that the
//! index does not remember tells its whole state: its counters, which are taken by maximum, and its blobs,
//! which are the truth. Until all buckets that can be reached have told, nothing is granted.

use openstorage_channel::lost;
use openstorage_types::channel::BucketReport;

use crate::{
    Index,
    backoff::Backoff,
    buckets::{Bucket, Doubt},
};

/// A bucket that did not answer so often in a row cannot be reached.
const FAILURES_MAX: u32 = 3;

impl Index {
    /// Notes the canister's version, in every message. True when a snapshot may have been restored: then each bucket is
    /// asked, which is one message to each, and the same after the index was stopped or upgraded.
    pub fn observe(&mut self, version: u64) -> bool {
        let noted = self.watch.noted();
        if !self.watch.note_strictly(version) {
            return false;
        }
        self.restorations_suspected += 1;
        self.recalls = Default::default();
        self.send_backoffs.clear();
        if !self.has_doubts() {
            self.trusted.set(noted);
        }
        let buckets: Vec<_> = self.buckets.iter().map(|(bucket, _)| *bucket).collect();
        for bucket in buckets {
            if let Some(mut row) = self.buckets.get(&bucket).cloned() {
                row.cursor.doubt();
                if row.installed && row.doubt == Doubt::None {
                    row.doubt = Doubt::Asked;
                }
                self.buckets.set(bucket, row);
            }
        }
        true
    }

    /// Whether some bucket, reached or not, may remember what the index has forgotten.
    pub(crate) fn has_doubts(&self) -> bool {
        let mut buckets = self.buckets.iter();
        buckets.any(|(_, row)| row.doubt != Doubt::None)
    }

    /// Whether a bucket that can be reached has yet to say what it remembers.
    pub(crate) fn is_doubting(&self) -> bool {
        self.buckets.iter().any(|(bucket, row)| {
            let failures = self.send_backoffs.get(bucket).map_or(0, Backoff::failures);
            row.doubt != Doubt::None
                && failures < FAILURES_MAX
                && (row.is_up() || self.is_back_soon(bucket))
        })
    }

    /// Takes what a bucket says of itself.
    pub(crate) fn take_report(&self, row: &mut Bucket, report: Option<BucketReport>) {
        let Some(report) = report else { return };
        if row.doubt == Doubt::Asked {
            row.doubt = if report.index_version > *self.trusted.get() {
                row.heard = lost(row.heard);
                Doubt::Telling
            } else {
                Doubt::None
            };
        }
        row.take_report(report);
    }
}

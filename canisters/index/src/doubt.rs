//! After a snapshot of the index was restored: what do its buckets remember that it has forgotten?
//!
//! Every bucket is asked for the newest version of the index that it has seen. Who has seen one that the
//! index does not remember tells its whole state: its counters, which are taken by maximum, and its blobs,
//! which are the truth. Until all buckets that can be reached have told, nothing is granted.

use openstorage_channel::lost;
use openstorage_types::channel::{BucketReport, kind};

use crate::{
    Index,
    buckets::{Bucket, Doubt},
};

/// A bucket that did not answer so often in a row cannot be reached.
const FAILURES_MAX: u32 = 3;

impl Index {
    /// Notes the canister's version, in every message.
    pub fn note(&mut self, version: u64) {
        let noted = self.watch.noted();
        if !self.watch.note(version) {
            return;
        }
        self.restorations_suspected += 1;
        self.recalls = Default::default();
        self.send_backoffs.clear();
        let is_first = self.buckets.iter().all(|(_, row)| row.doubt == Doubt::None);
        if is_first {
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
    }

    /// Whether a bucket that can be reached has yet to say what it remembers.
    pub(crate) fn is_doubting(&self) -> bool {
        self.buckets.iter().any(|(bucket, row)| {
            row.doubt != Doubt::None
                && self
                    .send_backoffs
                    .get(bucket)
                    .is_none_or(|backoff| backoff.failures() < FAILURES_MAX)
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
        let versions = (row.report.version.unwrap_or(1), report.version.unwrap_or(1));
        if kind::any_between(versions.0, versions.1) {
            // It was sent nothing where it would have understood nothing.
            row.cursor.start_over();
        }
        row.take_report(Some(report));
    }
}

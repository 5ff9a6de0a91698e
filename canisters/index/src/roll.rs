//! The roll: every bucket gets the code that the index embeds, a few at a time, the first one alone. At the
//! first failure no further bucket is begun, until an operator calls `upgrade_buckets` or another code is
//! embedded. A bucket with newer code keeps it.

use candid::{CandidType, Principal};
use openstorage_types::{
    BlobId, bucket,
    index::{FleetError, RollStatus},
};
use serde::{Deserialize, Serialize};

use crate::{Context, Index, Moment, buckets::Bucket};

/// Buckets that are stopped at the same time.
pub const UPGRADES_MAX: usize = 3;

/// A roll that has stopped.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The module that was to be brought in. Another one begins another roll.
    module: BlobId,
    reason: String,
}

/// Where a bucket is in the roll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Done,
    Running,
    Waiting,
    Newer,
}

impl Index {
    fn place(&self, row: &Bucket) -> Place {
        if row.upkeep.stage.is_some() {
            Place::Running
        } else if row.upkeep.module == self.bucket_wasm {
            Place::Done
        } else if row.report.version.is_some_and(|it| it > bucket::VERSION) {
            Place::Newer
        } else {
            Place::Waiting
        }
    }

    /// As [`Index::may_upgrade`], for all buckets at once: those that may be begun now. One that does not run, or has lost
    /// its code, would stop the roll: it waits until it is well.
    pub(crate) fn upgrades_due(&self) -> Vec<Principal> {
        if self.bucket_wasm.is_none() || self.roll_stopped().is_some() {
            return Vec::new();
        }
        let (mut done, mut running, mut waiting) = (0, 0, Vec::new());
        for (bucket, row) in self.buckets.iter().filter(|(_, row)| row.installed) {
            match self.place(row) {
                Place::Done => done += 1,
                Place::Running => running += 1,
                Place::Waiting if waiting.len() < UPGRADES_MAX && !self.is_away(bucket) => {
                    waiting.push(*bucket);
                }
                Place::Waiting | Place::Newer => {}
            }
        }
        let at_once = if done == 0 { 1 } else { UPGRADES_MAX };
        waiting.truncate(at_once.saturating_sub(running));
        waiting
    }

    pub(crate) fn may_upgrade(&self, bucket: &Principal) -> bool {
        self.upgrades_due().contains(bucket)
    }

    fn roll_stopped(&self) -> Option<&Stopped> {
        let stopped = self.fleet.get().0.stopped.as_ref();
        stopped.filter(|stopped| Some(stopped.module) == self.bucket_wasm)
    }

    /// No further bucket is begun. The first reason stays.
    pub(crate) fn stop_roll(&mut self, bucket: Principal, text: &str, moment: &Moment) {
        let Some(module) = self.bucket_wasm.filter(|_| self.roll_stopped().is_none()) else {
            return;
        };
        let reason = format!("bucket {bucket}: {text}");
        self.note(moment.now_ms, &format!("the roll has stopped: {reason}"));
        self.set_fleet(|fleet| fleet.stopped = Some(Stopped { module, reason }));
    }

    /// Begins the roll, or takes it up again after a failure. While one runs this changes nothing.
    pub fn upgrade_buckets(&mut self, context: &Context) -> Result<RollStatus, FleetError> {
        if !self.is_admin(context) {
            return Err(FleetError::NotAuthorized);
        }
        if self.bucket_wasm.is_none() {
            return Err(FleetError::NoWasm);
        }
        if self.roll_stopped().is_some() {
            self.set_fleet(|fleet| fleet.stopped = None);
            self.note(context.now_ms, "an operator takes the roll up again");
        }
        Ok(self.roll_status())
    }

    pub(crate) fn roll_status(&self) -> RollStatus {
        let mut status = RollStatus {
            module_hash: self.bucket_wasm.unwrap_or(BlobId([0; 32])),
            version: bucket::VERSION,
            done: 0,
            running: 0,
            waiting: 0,
            newer: 0,
            stopped: self.roll_stopped().map(|stopped| stopped.reason.clone()),
        };
        for (_, row) in self.buckets.iter().filter(|(_, row)| row.installed) {
            *match self.place(row) {
                Place::Done => &mut status.done,
                Place::Running => &mut status.running,
                Place::Waiting => &mut status.waiting,
                Place::Newer => &mut status.newer,
            } += 1;
        }
        status
    }
}

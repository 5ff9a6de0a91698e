//! Whether buckets are well. One that takes nothing, or of whose own jobs one gets nothing done, is given no new blobs,
//! raises an alarm, and is looked at until it is well again.
//!
//! | seen by | after |
//! | --- | --- |
//! | sends that fail | three of them: some seconds, where there is something to tell |
//! | silence: the bucket is asked how it is | an hour |
//! | `canister_status`, at once after either, and once a day at least | minutes |
//! | what the bucket says of its jobs, twice | ten minutes, and one more |

use std::collections::{BTreeMap, BTreeSet};

use candid::Principal;
use openstorage_types::{
    index::{Trouble, TroubleCause},
    limits::HOUR_MS,
};

use crate::{Index, backoff::Backoff, calls::Look};

/// A bucket from which nothing was heard for so long is asked how it is.
const SILENCE_MS: u64 = HOUR_MS;

/// Sends in a row that fail until a bucket counts as silent.
const FAILURES_MAX: u32 = 3;

/// A job that gets nothing done for so long is stuck.
const STUCK_MS: u64 = 600_000;

/// A bucket that says so is asked once more after so long, and believed then: it may have been stopped meanwhile.
const ASK_AGAIN_MS: u64 = 60_000;

/// A bucket in trouble is looked at after so long; the longer it lasts, the later, up to the second.
const LOOK_MS_MIN: u64 = 60_000;
const LOOK_MS_MAX: u64 = 600_000;

/// Room in a bucket that has been in trouble for less counts: none is made in its place.
pub(crate) const GRACE_MS: u64 = 600_000;

/// What is remembered of buckets from which something was heard. Forgotten in an upgrade, after which all are asked.
#[derive(Default)]
pub struct Health {
    /// When each is asked, if nothing is heard from it until then. Milliseconds since 1970, as all times.
    due_ms: BTreeMap<Principal, u64>,
    /// The same, in the order of time.
    in_order: BTreeSet<(u64, Principal)>,
    /// Since when a bucket says that some job of its own is stuck.
    stuck_since_ms: BTreeMap<Principal, u64>,
}

impl Health {
    fn ask_at(&mut self, bucket: Principal, at_ms: u64) {
        if let Some(before_ms) = self.due_ms.insert(bucket, at_ms) {
            self.in_order.remove(&(before_ms, bucket));
        }
        self.in_order.insert((at_ms, bucket));
    }

    fn forget(&mut self, bucket: &Principal) {
        if let Some(due_ms) = self.due_ms.remove(bucket) {
            self.in_order.remove(&(due_ms, *bucket));
        }
        self.stuck_since_ms.remove(bucket);
    }

    /// When the next bucket is asked how it is.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.in_order.first().map(|(due_ms, _)| *due_ms)
    }
}

impl Index {
    /// Buckets from which nothing was heard for long are to be asked how they are.
    pub fn notice_silence(&mut self, now_ms: u64) {
        while let Some(&(due_ms, bucket)) = self.health.in_order.first()
            && due_ms <= now_ms
        {
            self.health.ask_at(bucket, now_ms + SILENCE_MS);
            if self.buckets.get(&bucket).is_some() {
                self.to_ask.insert(bucket);
            } else {
                self.health.forget(&bucket);
            }
        }
    }

    /// A bucket has answered, or has said something itself: what it reports stands in its row.
    pub fn heard_from(&mut self, bucket: Principal, now_ms: u64) {
        let Some(row) = self.buckets.get(&bucket) else {
            return;
        };
        let overdue_ms = row.report.overdue_ms.unwrap_or(0);
        if overdue_ms < STUCK_MS {
            self.health.stuck_since_ms.remove(&bucket);
            self.health.ask_at(bucket, now_ms + SILENCE_MS);
            self.is_well(bucket, now_ms);
            return;
        }
        let stuck = &mut self.health.stuck_since_ms;
        let since_ms = *stuck.entry(bucket).or_insert(now_ms);
        self.health.ask_at(bucket, now_ms + ASK_AGAIN_MS);
        if now_ms >= since_ms + ASK_AGAIN_MS {
            self.in_trouble(bucket, TroubleCause::Stuck { overdue_ms }, now_ms);
        }
    }

    /// A bucket did not take what it was sent, or gave no answer.
    pub fn not_heard_from(&mut self, bucket: Principal, now_ms: u64) {
        let failures = self.send_backoffs.get(&bucket).map_or(0, Backoff::failures);
        if failures >= FAILURES_MAX && self.buckets.trouble(&bucket).is_none() {
            self.in_trouble(bucket, TroubleCause::Silent, now_ms);
            // What is wrong is seen there.
            self.buckets
                .update(&bucket, |row| row.upkeep.look_ms = now_ms);
        }
    }

    /// What `canister_status` shows of a bucket that is in use.
    pub(crate) fn examine(&mut self, bucket: Principal, look: &Look, now_ms: u64) {
        if !self.buckets.get(&bucket).is_some_and(|row| row.is_up()) {
            return;
        }
        let (balance, freezing_at) = (look.balance, look.freezing_at);
        let cause = match look.module {
            None => Some(TroubleCause::Uninstalled),
            Some(_) if !look.running => Some(TroubleCause::Stopped),
            Some(_) if balance < freezing_at => Some(TroubleCause::Frozen {
                balance,
                freezing_at,
            }),
            Some(_) => None,
        };
        let known = self.buckets.trouble(&bucket).cloned();
        match (cause, &known) {
            (Some(cause), _) => self.in_trouble(bucket, cause, now_ms),
            (None, Some(trouble)) => {
                // It may be well again: it is asked at once.
                if !matches!(trouble.cause, TroubleCause::Stuck { .. }) {
                    self.in_trouble(bucket, TroubleCause::Silent, now_ms);
                }
                self.send_backoffs.remove(&bucket);
                self.to_ask.insert(bucket);
            }
            (None, None) => {}
        }
        if let Some(trouble) = self.buckets.trouble(&bucket) {
            let lasts_ms = now_ms.saturating_sub(trouble.since_ms);
            let look_ms = now_ms + lasts_ms.clamp(LOOK_MS_MIN, LOOK_MS_MAX);
            self.buckets.update(&bucket, |row| {
                row.upkeep.look_ms = row.upkeep.look_ms.min(look_ms);
            });
        }
    }

    /// A bucket does not run as it should, whatever its code.
    pub(crate) fn is_away(&self, bucket: &Principal) -> bool {
        let trouble = self.buckets.trouble(bucket);
        trouble.is_some_and(|trouble| !matches!(trouble.cause, TroubleCause::Stuck { .. }))
    }

    /// There is no such canister any more, or the index does not control it.
    pub(crate) fn is_lost(&mut self, bucket: Principal, now_ms: u64) {
        if self.buckets.get(&bucket).is_some_and(|row| row.is_up()) {
            self.in_trouble(bucket, TroubleCause::Lost, now_ms);
        }
    }

    fn in_trouble(&mut self, bucket: Principal, cause: TroubleCause, now_ms: u64) {
        let known = self.buckets.trouble(&bucket);
        let since_ms = known.map_or(now_ms, |known| known.since_ms);
        let is_other = known.is_none_or(|known| word(&known.cause) != word(&cause));
        if is_other {
            let word = word(&cause);
            let text = format!("alarm: bucket {bucket} is {word}; it is given no new blobs");
            self.note(now_ms, &text);
        }
        let trouble = Trouble { cause, since_ms };
        self.buckets.set_trouble(bucket, Some(trouble));
    }

    fn is_well(&mut self, bucket: Principal, now_ms: u64) {
        if self.buckets.trouble(&bucket).is_some() {
            self.buckets.set_trouble(bucket, None);
            self.note(now_ms, &format!("bucket {bucket} is well again"));
        }
    }

    /// Nothing is remembered of a bucket that is given up.
    pub(crate) fn forget_health(&mut self, bucket: &Principal) {
        self.health.forget(bucket);
        self.buckets.set_trouble(*bucket, None);
    }
}

/// Names a cause in metrics and lines.
pub(crate) fn word(cause: &TroubleCause) -> &'static str {
    match cause {
        TroubleCause::Silent => "silent",
        TroubleCause::Stopped => "stopped",
        TroubleCause::Uninstalled => "uninstalled",
        TroubleCause::Frozen { .. } => "frozen",
        TroubleCause::Lost => "lost",
        TroubleCause::Stuck { .. } => "stuck",
    }
}

/// Every cause.
pub(crate) const WORDS: [&str; 6] = [
    "silent",
    "stopped",
    "uninstalled",
    "frozen",
    "lost",
    "stuck",
];

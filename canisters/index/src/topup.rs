//! Buckets never run dry while the index has cycles to give.
//!
//! Each bucket is looked at (`canister_status`, which also works when it is frozen or stopped) in half the
//! time in which it could run low at its pace, at least once a day, and at once when it reports that it is
//! low, or seems to have been restored from a snapshot, which brings old code back. Low is what lasts less than [`LOW_DAYS`] above the freezing threshold; a deposit brings it back to
//! [`FULL_DAYS`]. What is deposited in a day is bounded by the budget, and never taken from the index's
//! floor.
//!
//! A deposit is on record before the call and counts against the budget from then on. One whose outcome
//! is unknown is waited out for [`UNKNOWN_MS`], then the bucket is looked at anew: its balance tells.

use candid::{CandidType, Principal};
use openstorage_types::{
    channel::{BucketReport, CyclesReport, Stamp},
    limits::HOUR_MS,
};
use serde::{Deserialize, Serialize};

use crate::{
    Index, Moment,
    buckets::Bucket,
    calls::{Answer, Call, Failure, Look, Outcome},
    upkeep::Stage,
};

/// A bucket with cycles for fewer days above its freezing threshold is low.
pub const LOW_DAYS: u128 = 7;

/// A deposit brings a bucket to so many days above its freezing threshold.
pub const FULL_DAYS: u128 = 14;

/// The index raises the alarm when it cannot keep its buckets for so many days above its floor.
pub const ALARM_DAYS: u128 = 7;

/// Where nothing else was said: 1 T.
pub const CYCLES_FLOOR: u128 = 1_000_000_000_000;

/// Where nothing else was said: 100 T, which keeps 9 TB of blobs on a subnet of 13 nodes.
pub const BUDGET_PER_DAY: u128 = 100_000_000_000_000;

/// Less is not deposited: 0.1 T.
pub const TOPUP_MIN: u128 = 100_000_000_000;

/// Deposits and looks under way at once.
pub const TOPUPS_MAX: usize = 4;

/// How long a deposit without an answer is waited out: longer than any message lives.
pub const UNKNOWN_MS: u64 = 600_000;

/// A bucket is looked at no sooner than so long after the last time, unless it says itself that it is low.
const LOOK_MS_MIN: u64 = HOUR_MS;

/// Then it is looked at no sooner than this; and what it was found to need is given no later.
const URGENT_MS: u64 = 600_000;

/// One that seems to have been restored is looked at no sooner than this after the last time.
const RESTORED_MS: u64 = 10_000;

const DAY_MS: u64 = 24 * HOUR_MS;

/// Cycles on their way to a bucket.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopUp {
    /// The bucket was found low at this time, in milliseconds since 1970.
    Wanted { at_ms: u64, cycles: u128 },
    /// They were sent; the answer is not there yet.
    Sent { at_ms: u64, cycles: u128 },
}

/// What was given away.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct Spending {
    /// Days since 1970.
    day: u64,
    /// On that day, with what is on its way.
    today: u128,
    pub total: u128,
}

impl Index {
    pub(crate) fn cycles_floor(&self) -> u128 {
        self.config().cycles_floor.unwrap_or(CYCLES_FLOOR)
    }

    /// What the index may give away.
    pub(crate) fn spare(&self, balance: u128) -> u128 {
        balance.saturating_sub(self.cycles_floor())
    }

    pub(crate) fn spending(&self) -> &Spending {
        &self.fleet.get().0.spending
    }

    fn spent_today(&self, now_ms: u64) -> u128 {
        let spending = self.spending();
        if spending.day == now_ms / DAY_MS {
            spending.today
        } else {
            0
        }
    }

    /// What is left of today's budget.
    pub(crate) fn budget_left(&self, now_ms: u64) -> u128 {
        let budget = self.config().topup_budget_per_day.unwrap_or(BUDGET_PER_DAY);
        budget.saturating_sub(self.spent_today(now_ms))
    }

    fn spend(&mut self, cycles: u128, now_ms: u64) {
        let today = self.spent_today(now_ms).saturating_add(cycles);
        self.set_fleet(|fleet| {
            fleet.spending = Spending {
                day: now_ms / DAY_MS,
                today,
                total: fleet.spending.total.saturating_add(cycles),
            };
        });
    }

    fn refund(&mut self, cycles: u128) {
        self.set_fleet(|fleet| {
            fleet.spending.today = fleet.spending.today.saturating_sub(cycles);
            fleet.spending.total = fleet.spending.total.saturating_sub(cycles);
        });
    }

    /// Says why a bucket does not get what it needs.
    fn topup_failed(&mut self, bucket: Principal, text: &str, now_ms: u64) {
        let error = format!("bucket {bucket} is not topped up: {text}");
        let old = self
            .buckets
            .get(&bucket)
            .map(|row| &row.upkeep.cycles_error);
        if old != Some(&Some(error.clone())) {
            self.note(now_ms, &error);
        }
        self.buckets
            .update(&bucket, |row| row.upkeep.cycles_error = Some(error));
    }

    /// Why some bucket does not get the cycles that it needs.
    pub(crate) fn topup_error(&self) -> Option<String> {
        self.buckets
            .iter()
            .find_map(|(_, row)| row.upkeep.cycles_error.clone())
    }

    /// Below this a bucket is low, and up to that it is filled. A small one is kept at what a new one
    /// gets.
    fn levels(&self, cycles: &CyclesReport) -> (u128, u128) {
        let days = |days: u128| {
            let lasting = cycles.burned_per_day.saturating_mul(days);
            cycles.freezing_at.saturating_add(lasting)
        };
        let new = self.bucket_cycles();
        (days(LOW_DAYS).max(new / 2), days(FULL_DAYS).max(new))
    }

    /// When a bucket is to be looked at, or gets what it lacks. Milliseconds since 1970.
    pub(crate) fn topup_due_ms(&self, row: &Bucket) -> u64 {
        match (row.upkeep.topup, row.upkeep.seen) {
            (Some(TopUp::Wanted { .. }), _) | (None, None) => 0,
            (Some(TopUp::Sent { at_ms, .. }), _) => at_ms.saturating_add(UNKNOWN_MS),
            (None, Some((at_ms, _))) => {
                let says_low = |told: CyclesReport| told.balance < self.levels(&told).0;
                let urgent = row.report.cycles.is_some_and(says_low);
                let urgent_ms = urgent.then(|| at_ms.saturating_add(URGENT_MS));
                urgent_ms.map_or(row.upkeep.look_ms, |ms| ms.min(row.upkeep.look_ms))
            }
        }
    }

    /// A bucket says where it stands in what it was told, and how it is. Where it has forgotten all of that, or its
    /// code is older, it is looked at.
    pub(crate) fn look_if_restored(row: &mut Bucket, at: Stamp, report: Option<&BucketReport>) {
        let none = Stamp::default();
        let has_forgotten = at == none && row.cursor.at != none;
        let is_older = report.is_some_and(|report| report.version < row.report.version);
        if let Some((at_ms, _)) = row.upkeep.seen
            && (has_forgotten || is_older)
        {
            let soon_ms = at_ms.saturating_add(RESTORED_MS);
            row.upkeep.look_ms = row.upkeep.look_ms.min(soon_ms);
        }
    }

    /// Half the time in which a bucket could run low.
    fn look_again_after_ms(&self, cycles: &CyclesReport) -> u64 {
        let above = cycles.balance.saturating_sub(self.levels(cycles).0);
        let lasts_ms = above.saturating_mul(DAY_MS.into()) / cycles.burned_per_day.max(1);
        u64::try_from(lasts_ms / 2)
            .unwrap_or(u64::MAX)
            .clamp(LOOK_MS_MIN, DAY_MS)
    }

    /// The call that comes next for a bucket's cycles.
    pub(crate) fn begin_topup(&mut self, bucket: Principal, moment: &Moment) -> Option<Call> {
        let now_ms = moment.now_ms;
        let row = self.buckets.get(&bucket)?;
        match row.upkeep.topup {
            Some(TopUp::Wanted { at_ms, cycles }) if now_ms < at_ms.saturating_add(URGENT_MS) => {
                let cycles = cycles
                    .min(self.spare(moment.balance))
                    .min(self.budget_left(now_ms));
                if cycles < TOPUP_MIN {
                    let reason = if self.spare(moment.balance) < TOPUP_MIN {
                        "the index has nothing to spare above its floor"
                    } else {
                        "today's budget is used up"
                    };
                    self.topup_failed(bucket, reason, now_ms);
                    self.set_topup(bucket, None);
                    return None;
                }
                self.spend(cycles, now_ms);
                let at_ms = now_ms;
                self.set_topup(bucket, Some(TopUp::Sent { at_ms, cycles }));
                Some(Call::Deposit { bucket, cycles })
            }
            Some(TopUp::Sent { at_ms, cycles }) => {
                let text = format!(
                    "whether bucket {bucket} got {cycles} cycles at {at_ms} ms since 1970 is not known"
                );
                self.note(now_ms, &text);
                self.set_topup(bucket, None);
                Some(Call::Look(bucket))
            }
            Some(TopUp::Wanted { .. }) | None => {
                self.set_topup(bucket, None);
                Some(Call::Look(bucket))
            }
        }
    }

    /// What came of [`Index::begin_topup`].
    pub(crate) fn end_topup(
        &mut self,
        bucket: Principal,
        call: &Call,
        outcome: Outcome,
        moment: &Moment,
    ) {
        let now_ms = moment.now_ms;
        match (call, outcome) {
            (Call::Look(_), Ok(Answer::Seen(look))) => {
                self.topup_backoffs.remove(&bucket);
                self.saw(bucket, &look, now_ms);
                if look.running {
                    self.ask_changed(bucket);
                }
                self.want(bucket, now_ms);
            }
            (Call::Deposit { cycles, .. }, Ok(_)) => {
                self.topup_backoffs.remove(&bucket);
                self.deposited(bucket, *cycles, now_ms);
            }
            // They are back.
            (Call::Deposit { cycles, .. }, Err(Failure::Rejected { text, .. })) => {
                self.refund(*cycles);
                let (at_ms, cycles) = (now_ms, *cycles);
                self.set_topup(bucket, Some(TopUp::Wanted { at_ms, cycles }));
                self.topup_backoffs.entry(bucket).or_default().fail(now_ms);
                self.topup_failed(bucket, &text, now_ms);
            }
            (Call::Look(_), Err(failure @ Failure::Rejected { passing: false, .. })) => {
                self.topup_backoffs.entry(bucket).or_default().fail(now_ms);
                self.topup_failed(bucket, failure.text(), now_ms);
                self.is_lost(bucket, now_ms);
            }
            (_, Err(failure)) => {
                self.topup_backoffs.entry(bucket).or_default().fail(now_ms);
                self.topup_failed(bucket, failure.text(), now_ms);
            }
            _ => {}
        }
    }

    fn set_topup(&mut self, bucket: Principal, topup: Option<TopUp>) {
        self.buckets.update(&bucket, |row| row.upkeep.topup = topup);
    }

    fn deposited(&mut self, bucket: Principal, cycles: u128, now_ms: u64) {
        self.note(now_ms, &format!("bucket {bucket} got {cycles} cycles"));
        // One that was frozen has lost its timer, and sets it again when it hears something.
        self.to_ask.insert(bucket);
        self.buckets.update(&bucket, |row| {
            let upkeep = &mut row.upkeep;
            upkeep.topup = None;
            upkeep.cycles_error = None;
            upkeep.deposited = upkeep.deposited.saturating_add(cycles);
            if let Some(told) = &mut row.report.cycles {
                told.balance = told.balance.saturating_add(cycles);
            }
            if let Some((_, seen)) = &mut upkeep.seen {
                seen.balance = seen.balance.saturating_add(cycles);
            }
        });
    }

    /// A bucket that is low is to get what it lacks.
    fn want(&mut self, bucket: Principal, at_ms: u64) {
        let seen = self.buckets.get(&bucket).and_then(|row| row.upkeep.seen);
        let Some((_, seen)) = seen else { return };
        let (low, full) = self.levels(&seen);
        if seen.balance < low {
            let cycles = full.saturating_sub(seen.balance).max(TOPUP_MIN);
            self.set_topup(bucket, Some(TopUp::Wanted { at_ms, cycles }));
        } else {
            self.buckets
                .update(&bucket, |row| row.upkeep.cycles_error = None);
        }
    }

    /// Takes what a look showed. The pace is the faster of what the system and the bucket say.
    pub(crate) fn saw(&mut self, bucket: Principal, look: &Look, now_ms: u64) {
        let reported = self.buckets.get(&bucket).and_then(|row| row.report.cycles);
        let told = reported.map_or(0, |told| told.burned_per_day);
        let seen = CyclesReport {
            balance: look.balance,
            freezing_at: look.freezing_at,
            burned_per_day: look.idle_per_day.max(told),
        };
        let look_ms = now_ms.saturating_add(self.look_again_after_ms(&seen));
        self.buckets.update(&bucket, |row| {
            row.upkeep.seen = Some((now_ms, seen));
            row.upkeep.look_ms = look_ms;
            row.upkeep.module = look.module;
            row.report.cycles = Some(CyclesReport {
                burned_per_day: told,
                ..seen
            });
        });
        self.examine(bucket, look, now_ms);
    }

    /// A bucket whose code somebody else has replaced is asked which version it is.
    fn ask_changed(&mut self, bucket: Principal) {
        let Some(row) = self.buckets.get(&bucket) else {
            return;
        };
        if row.is_up() && row.upkeep.module != row.upkeep.asked_module {
            self.buckets
                .update(&bucket, |row| row.upkeep.stage = Some(Stage::Ask));
        }
    }

    /// Cycles that all buckets burn in a day.
    pub(crate) fn burned_per_day(&self) -> u128 {
        self.buckets
            .iter()
            .filter_map(|(_, row)| row.upkeep.seen)
            .fold(0, |sum, (_, seen)| sum.saturating_add(seen.burned_per_day))
    }

    /// The index cannot keep its buckets much longer.
    pub(crate) fn is_low(&self, balance: u128) -> bool {
        let needed = self.burned_per_day().saturating_mul(ALARM_DAYS);
        self.spare(balance) <= needed.max(TOPUP_MIN)
    }
}

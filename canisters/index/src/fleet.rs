//! The fleet as a whole: what is on record of it, which of its jobs are due, and the calls of operators.

use candid::{CandidType, Principal};
use openstorage_canister::Row;
use openstorage_types::index::{BucketInfo, BucketState, FleetError, SetBucketFullArgs, VERSION};
use serde::{Deserialize, Serialize};

use crate::{
    Context, Index,
    agenda::Job,
    buckets::{BUCKETS_MAX, Bucket},
    calls::{Call, Look, Outcome},
    forget::Forgetting,
    roll::Stopped,
    topup::{Spending, TOPUPS_MAX},
    trust::is_canister,
    upkeep::Mark,
};

/// Codes of buckets put in, checked or replaced at once, beside the roll's own bound.
const UPKEEPS_MAX: usize = 8;

/// When to ask again what is still under way.
const RETRY_MS: u64 = 1_000;

/// What is on record of the fleet besides its buckets.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct Fleet {
    /// Of the code that last wrote here.
    pub version: u32,
    pub stopped: Option<Stopped>,
    pub spending: Spending,
}

/// What the fleet's jobs know of the moment.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// This canister.
    pub own: Principal,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// Cycles of the index.
    pub balance: u128,
    /// What creating a canister costs, besides what it is given.
    pub creation: u128,
}

impl Index {
    /// Takes the memory over from what wrote it.
    ///
    /// # Panics
    /// When that was newer code: in `post_upgrade` this takes the upgrade back.
    pub fn take_over(&mut self) {
        let there = self.fleet.get().0.version;
        assert!(
            there <= VERSION,
            "this index's memory was written by version {there}, and this code is version {VERSION}: an \
             index is not downgraded"
        );
        if there < VERSION {
            self.set_fleet(|fleet| fleet.version = VERSION);
        }
        self.bring_back();
        // Whom the code before was about to ask is forgotten with its heap.
        self.to_ask = self.buckets.iter().map(|(bucket, _)| *bucket).collect();
    }

    pub(crate) fn set_fleet(&mut self, change: impl FnOnce(&mut Fleet)) {
        let mut fleet = self.fleet.get().0.clone();
        change(&mut fleet);
        self.fleet.set(Row(fleet));
    }

    /// Tells operators. No secret and no user goes in here.
    pub(crate) fn note(&mut self, now_ms: u64, text: &str) {
        self.lines.write(now_ms, text);
    }

    /// A bucket cannot be called now, while its code is replaced, and nothing has gone wrong with that.
    pub(crate) fn is_back_soon(&self, bucket: &Principal) -> bool {
        let is_upgrading = |row: &Bucket| row.installed && !row.is_up();
        self.buckets.get(bucket).is_some_and(is_upgrading)
            && !self.upkeep_backoffs.contains_key(bucket)
    }

    /// The jobs of the fleet, each with the time when it is due, in milliseconds since 1970.
    pub(crate) fn fleet_jobs(&self, now_ms: u64) -> Vec<(Job, u64)> {
        let mut jobs = Vec::new();
        if self.needs_bucket(now_ms) {
            jobs.push((Job::MakeBucket, self.creation_backoff.due_ms));
        }
        let due_ms = |backoffs: &crate::Backoffs, bucket: &Principal| {
            backoffs.get(bucket).map_or(0, |backoff| backoff.due_ms)
        };
        for bucket in self.upgrades_due() {
            let due_ms = due_ms(&self.upkeep_backoffs, &bucket);
            jobs.push((Job::Upkeep(bucket), due_ms));
        }
        let (mut upkeeps, mut topups) = (0, 0);
        let mut next_topup: Option<(Job, u64)> = None;
        for (bucket, row) in self.buckets.iter() {
            // Those that wait hold up no other.
            if upkeeps < UPKEEPS_MAX && self.work_for(&row.upkeep).is_some() {
                let due_ms = due_ms(&self.upkeep_backoffs, bucket);
                upkeeps += usize::from(due_ms <= now_ms);
                jobs.push((Job::Upkeep(*bucket), due_ms));
            }
            if !row.installed {
                continue;
            }
            let at_ms = self.topup_due_ms(row);
            if at_ms > now_ms && next_topup.is_some_and(|(_, next_ms)| next_ms <= at_ms) {
                continue;
            }
            let due_ms = at_ms.max(due_ms(&self.topup_backoffs, bucket));
            if due_ms > now_ms {
                if next_topup.is_none_or(|(_, next_ms)| due_ms < next_ms) {
                    next_topup = Some((Job::TopUp(*bucket), due_ms));
                }
            } else if topups < TOPUPS_MAX {
                topups += 1;
                jobs.push((Job::TopUp(*bucket), due_ms));
            }
        }
        jobs.extend(next_topup);
        if self.is_forgetting() {
            jobs.push((Job::Forget, 0));
        }
        jobs
    }

    /// The call with which a job of the fleet goes on; none when there is nothing more to do for it now.
    pub fn begin(&mut self, job: Job, moment: &Moment) -> Option<Call> {
        match job {
            Job::MakeBucket => self.begin_creation(moment),
            Job::Upkeep(bucket) => self.begin_upkeep(bucket, moment),
            Job::TopUp(bucket) => self.begin_topup(bucket, moment),
            _ => None,
        }
    }

    /// What came of the call.
    pub fn end(&mut self, job: Job, call: &Call, outcome: Outcome, moment: &Moment) {
        match job {
            Job::MakeBucket => self.end_creation(call, outcome, moment),
            Job::Upkeep(bucket) => self.end_upkeep(bucket, call, outcome, moment),
            Job::TopUp(bucket) => self.end_topup(bucket, call, outcome, moment),
            _ => {}
        }
    }

    fn operator(&self, context: &Context) -> Result<(), FleetError> {
        if self.is_admin(context) {
            Ok(())
        } else {
            Err(FleetError::NotAuthorized)
        }
    }

    /// All buckets, in the order of their ids; at most [`BUCKETS_MAX`].
    pub fn list_buckets(&self, context: &Context) -> Result<Vec<BucketInfo>, FleetError> {
        self.operator(context)?;
        Ok(self.buckets())
    }

    pub fn bucket(&self, context: &Context, bucket: Principal) -> Result<BucketInfo, FleetError> {
        self.operator(context)?;
        let row = self.buckets.get(&bucket).ok_or(FleetError::NotFound)?;
        Ok(self.bucket_info(bucket, row))
    }

    /// Whether a canister may become a bucket of this index, as far as that can be said before it is
    /// looked at. Some when it is one already; else look at it and at the index's own controllers, then
    /// call [`Index::adopt`].
    pub fn add_bucket(
        &self,
        context: &Context,
        bucket: Principal,
    ) -> Result<Option<BucketInfo>, FleetError> {
        self.operator(context)?;
        if !is_canister(&bucket) || bucket == context.own {
            return Err(FleetError::InvalidBucket);
        }
        if let Some(row) = self.buckets.get(&bucket) {
            return Ok(Some(self.bucket_info(bucket, row)));
        }
        if self.forgets(&bucket) {
            return Err(FleetError::Retry { ms: RETRY_MS });
        }
        if self.buckets.len() >= BUCKETS_MAX {
            let max = BUCKETS_MAX as u32;
            return Err(FleetError::TooManyBuckets { max });
        }
        Ok(None)
    }

    /// Makes a canister a bucket of this index: one that is empty gets the code; one with a bucket's code
    /// is asked whose it is. In use it is only after that.
    pub fn adopt(
        &mut self,
        context: &Context,
        bucket: Principal,
        look: &Look,
        own_controllers: Vec<Principal>,
    ) -> Result<BucketInfo, FleetError> {
        // Everything may have changed since the call.
        if let Some(info) = self.add_bucket(context, bucket)? {
            return Ok(info);
        }
        self.own_controllers = Some(own_controllers);
        let allowed = self.governance().unwrap_or_default();
        let foreign: Vec<_> = look
            .controllers
            .iter()
            .filter(|it| **it != context.own && **it != bucket && !allowed.contains(it))
            .copied()
            .collect();
        if !foreign.is_empty() {
            let controllers = foreign;
            return Err(FleetError::ForeignControllers { controllers });
        }
        if let Some(module_hash) = look.module.filter(|module| !self.knows_module(module)) {
            return Err(FleetError::UnknownModule { module_hash });
        }
        let bytes_max = self.bucket_args(context.own).bytes_max.unwrap_or_default();
        let row = Bucket::new(bytes_max);
        self.buckets.set(bucket, row.clone());
        self.note(context.now_ms, &format!("bucket {bucket} was added"));
        Ok(self.bucket_info(bucket, &row))
    }

    /// Closes a bucket to new blobs, or opens it again. It goes on serving.
    pub fn set_bucket_full(
        &mut self,
        context: &Context,
        args: &SetBucketFullArgs,
    ) -> Result<BucketInfo, FleetError> {
        let mark = args.full.then_some(Mark::Full);
        self.mark(context, args.bucket, mark)
    }

    /// Closes a bucket to new blobs for good. It goes on serving.
    pub fn retire_bucket(
        &mut self,
        context: &Context,
        bucket: Principal,
    ) -> Result<BucketInfo, FleetError> {
        self.mark(context, bucket, Some(Mark::Retired))
    }

    fn mark(
        &mut self,
        context: &Context,
        bucket: Principal,
        mark: Option<Mark>,
    ) -> Result<BucketInfo, FleetError> {
        self.operator(context)?;
        let row = self.buckets.get(&bucket).ok_or(FleetError::NotFound)?;
        let old = row.upkeep.mark;
        if old == Some(Mark::Retired) && mark != old {
            return Err(FleetError::Retired);
        }
        if old != mark {
            self.buckets.update(&bucket, |row| row.upkeep.mark = mark);
            let word = match mark {
                Some(Mark::Retired) => "retired",
                Some(Mark::Full) => "full",
                None => "not full",
            };
            self.note(context.now_ms, &format!("bucket {bucket} is set {word}"));
        }
        self.bucket(context, bucket)
    }

    /// Gives a bucket up that is lost, with all that was in it: its users get their bytes back. Only one
    /// that is retired, or was never ready. Forgetting it again is no error.
    pub fn forget_bucket(
        &mut self,
        context: &Context,
        bucket: Principal,
    ) -> Result<(), FleetError> {
        self.operator(context)?;
        let Some(row) = self.buckets.get(&bucket) else {
            return if self.forgets(&bucket) {
                Ok(())
            } else {
                Err(FleetError::NotFound)
            };
        };
        if !matches!(
            self.buckets.state(&bucket, row),
            BucketState::Retired | BucketState::Creating
        ) {
            return Err(FleetError::NotRetired);
        }
        self.forgetting.insert(bucket, Row(Forgetting::default()));
        self.buckets.remove(&bucket);
        self.forget_health(&bucket);
        self.to_ask.remove(&bucket);
        for backoffs in [
            &mut self.send_backoffs,
            &mut self.upkeep_backoffs,
            &mut self.topup_backoffs,
        ] {
            backoffs.remove(&bucket);
        }
        // Nobody tells what was in it.
        self.feed.gap(context);
        self.note(context.now_ms, &format!("bucket {bucket} is given up"));
        Ok(())
    }
}

//! What each bucket's code needs: put in, checked, replaced by newer code. One machine does all of it, one
//! call at a time, and each stage is on record before its call:
//!
//! ```text
//! new:      Inspect → Install → Inspect → Ask → in use
//! upgrade:  Stop → Upgrade → Start → Inspect → Ask → in use
//! ```
//!
//! Every stage may be repeated. What a lost answer did is seen in `Inspect`: the module decides, not what
//! was answered. A bucket that was stopped is started again whatever becomes of its upgrade.

use candid::{CandidType, Principal};
use openstorage_types::{
    BlobId,
    bucket::{self, BucketStatus},
    channel::CyclesReport,
};
use serde::{Deserialize, Serialize};

use crate::{
    Index, Moment,
    calls::{Answer, Call, Failure, Look, Outcome},
    topup::TopUp,
};

/// Times that a call is made before it counts as failed, where a repetition may help.
const TRIES: u32 = 3;

/// What the index knows of a bucket besides what it reports.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct Upkeep {
    /// Where its code is on the way; none when nothing is to be done.
    pub stage: Option<Stage>,
    /// Why the new code did not get in.
    pub failure: Option<String>,
    /// SHA-256 of its module, as last seen.
    pub module: Option<BlobId>,
    /// The module that was in when the bucket last answered the health check.
    pub asked_module: Option<BlobId>,
    /// An operator's word.
    pub mark: Option<Mark>,
    /// The bucket knows that it takes nothing new.
    pub told_closed: bool,
    /// As last looked at, and when, in milliseconds since 1970.
    pub seen: Option<(u64, CyclesReport)>,
    /// When to look again, in milliseconds since 1970.
    pub look_ms: u64,
    /// Cycles that it is to get.
    pub topup: Option<TopUp>,
    /// Cycles that it has got.
    pub deposited: u128,
    /// Why it does not get the cycles that it needs.
    pub cycles_error: Option<String>,
    /// What went wrong last with its code, until it goes well.
    pub error: Option<String>,
}

/// What comes next for a bucket's code.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Look which module is in.
    Inspect,
    /// Put the code in: the canister is empty.
    Install,
    Stop,
    Upgrade,
    Start,
    /// Ask the bucket itself whether all is well.
    Ask,
}

/// What an operator says of a bucket.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Full,
    Retired,
}

/// What there is to do for a bucket's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Stage(Stage),
    /// The bucket has to hear whether it takes new blobs.
    SetClosed(bool),
}

impl Index {
    /// What there is to do for a bucket, its next upgrade aside.
    pub(crate) fn work_for(&self, upkeep: &Upkeep) -> Option<Work> {
        let closed = upkeep.mark.is_some();
        match upkeep.stage {
            Some(stage) => Some(Work::Stage(stage)),
            None if closed != upkeep.told_closed => Some(Work::SetClosed(closed)),
            None => None,
        }
    }

    /// The call that comes next for a bucket's code.
    pub(crate) fn begin_upkeep(&mut self, bucket: Principal, moment: &Moment) -> Option<Call> {
        let row = self.buckets.get(&bucket)?;
        let work = match self.work_for(&row.upkeep) {
            Some(work) => work,
            None if self.may_upgrade(&bucket) => {
                self.buckets.update(&bucket, |row| {
                    row.upkeep.stage = Some(Stage::Stop);
                    row.upkeep.failure = None;
                });
                self.note(moment.now_ms, &format!("upgrading bucket {bucket}"));
                Work::Stage(Stage::Stop)
            }
            None => return None,
        };
        let args = self.bucket_args(moment.own);
        Some(match work {
            Work::SetClosed(closed) => Call::SetClosed { bucket, closed },
            Work::Stage(Stage::Inspect) => Call::Look(bucket),
            Work::Stage(Stage::Install) => Call::Install { bucket, args },
            Work::Stage(Stage::Stop) => Call::Stop(bucket),
            Work::Stage(Stage::Upgrade) => Call::Upgrade { bucket, args },
            Work::Stage(Stage::Start) => Call::Start(bucket),
            Work::Stage(Stage::Ask) => Call::Ask(bucket),
        })
    }

    /// What came of [`Index::begin_upkeep`]. An answer that comes when another stage is on record, because
    /// the index was restored meanwhile, changes nothing.
    pub(crate) fn end_upkeep(
        &mut self,
        bucket: Principal,
        call: &Call,
        outcome: Outcome,
        moment: &Moment,
    ) {
        let Some(stage) = self.buckets.get(&bucket).map(|row| row.upkeep.stage) else {
            return;
        };
        match (call, stage, outcome) {
            (Call::SetClosed { closed, .. }, _, Ok(_)) => {
                self.buckets.update(&bucket, |row| {
                    row.upkeep.told_closed = *closed;
                    row.upkeep.error = None;
                });
                self.upkeep_goes_on(bucket, stage);
            }
            (Call::Look(_), Some(Stage::Inspect), Ok(Answer::Seen(look))) => {
                self.inspected(bucket, &look, moment);
            }
            // Whatever the answer: which module is in is looked at.
            (Call::Install { .. }, Some(Stage::Install), Ok(_)) => {
                self.upkeep_goes_on(bucket, Some(Stage::Inspect));
            }
            (Call::Install { .. }, Some(Stage::Install), Err(failure)) => {
                self.upkeep_waits(bucket, "install_code", failure.text(), moment);
                self.buckets
                    .update(&bucket, |row| row.upkeep.stage = Some(Stage::Inspect));
            }
            (Call::Stop(_), Some(Stage::Stop), Ok(_)) => {
                self.upkeep_goes_on(bucket, Some(Stage::Upgrade));
            }
            (Call::Upgrade { .. }, Some(Stage::Upgrade), Ok(_)) => {
                self.upkeep_goes_on(bucket, Some(Stage::Start));
            }
            (Call::Start(_), Some(Stage::Start), Ok(_)) => {
                self.upkeep_goes_on(bucket, Some(Stage::Inspect));
            }
            (Call::Ask(_), Some(Stage::Ask), Ok(Answer::Told(status))) => {
                self.asked(bucket, &status, moment);
            }
            (_, _, Err(failure)) => self.upkeep_failed(bucket, call, &failure, moment),
            _ => {}
        }
    }

    fn upkeep_goes_on(&mut self, bucket: Principal, stage: Option<Stage>) {
        self.buckets.update(&bucket, |row| row.upkeep.stage = stage);
        self.upkeep_backoffs.remove(&bucket);
    }

    /// The call is made again later.
    fn upkeep_waits(&mut self, bucket: Principal, what: &str, text: &str, moment: &Moment) {
        let backoff = self.upkeep_backoffs.entry(bucket).or_default();
        backoff.fail(moment.now_ms);
        let error = format!("{what} of {bucket}: {text}");
        let is_new =
            self.buckets.get(&bucket).map(|row| &row.upkeep.error) != Some(&Some(error.clone()));
        if is_new {
            self.note(moment.now_ms, &error);
        }
        self.buckets
            .update(&bucket, |row| row.upkeep.error = Some(error));
    }

    fn upkeep_failed(
        &mut self,
        bucket: Principal,
        call: &Call,
        failure: &Failure,
        moment: &Moment,
    ) {
        let what = match call {
            Call::Stop(_) => "stop_canister",
            Call::Upgrade { .. } => "install_code",
            Call::Start(_) => "start_canister",
            Call::Ask(_) => "health check",
            Call::SetClosed { .. } => "c2c_set_closed",
            _ => "canister_status",
        };
        self.upkeep_waits(bucket, what, failure.text(), moment);
        let tries = self
            .upkeep_backoffs
            .get(&bucket)
            .map_or(0, |it| it.failures());
        let once_more = match call {
            // A module that does not start is not tried a second time. To put the same one in twice
            // does no harm.
            Call::Upgrade { .. } => !matches!(failure, Failure::Rejected { passing: false, .. }),
            Call::Stop(_) | Call::Ask(_) => true,
            // Nothing else would help: a stopped bucket must run again, and be looked at.
            _ => return,
        };
        if once_more && tries < TRIES {
            return;
        }
        let installed = self.buckets.get(&bucket).is_some_and(|row| row.installed);
        match call {
            // The code is in and the bucket runs, but not as it should.
            Call::Ask(_) if installed => self.upgrade_failed(bucket, failure.text(), moment),
            Call::Ask(_) => {}
            _ => {
                self.stop_roll(bucket, failure.text(), moment);
                self.buckets.update(&bucket, |row| {
                    row.upkeep.failure = Some(failure.text().into());
                    row.upkeep.stage = Some(Stage::Start);
                });
                self.upkeep_backoffs.remove(&bucket);
            }
        }
    }

    /// What is in a bucket decides what comes next.
    fn inspected(&mut self, bucket: Principal, look: &Look, moment: &Moment) {
        self.saw(bucket, look, moment.now_ms);
        let Some(row) = self.buckets.get(&bucket) else {
            return;
        };
        let (installed, failure) = (row.installed, row.upkeep.failure.clone());
        match look.module {
            // The code is in: whatever was answered before, the upgrade went well.
            Some(module) if Some(module) == self.bucket_wasm => {
                let stage = if look.running {
                    Stage::Ask
                } else {
                    Stage::Start
                };
                self.upkeep_goes_on(bucket, Some(stage));
            }
            None if !installed => self.upkeep_goes_on(bucket, Some(Stage::Install)),
            // It was added with the code of another bucket of this index.
            Some(module) if !installed && self.knows_module(&module) => {
                self.upkeep_goes_on(bucket, Some(Stage::Ask));
            }
            _ if !installed => {
                let text = "another module is in it than a bucket's";
                self.upkeep_waits(bucket, "canister_status", text, moment);
            }
            _ if !look.running => self.upkeep_goes_on(bucket, Some(Stage::Start)),
            module => {
                let text = match (failure, module) {
                    (Some(failure), _) => failure,
                    (None, Some(module)) => format!("after the upgrade its module is {module}"),
                    (None, None) => "after the upgrade it has no module".into(),
                };
                self.upgrade_failed(bucket, &text, moment);
            }
        }
    }

    /// The health check: the bucket answers, belongs to this index, and runs the version that its module
    /// should have.
    fn asked(&mut self, bucket: Principal, status: &BucketStatus, moment: &Moment) {
        let Some(row) = self.buckets.get(&bucket) else {
            return;
        };
        let installed = row.installed;
        let is_current = row.upkeep.module == self.bucket_wasm;
        let problem = if status.index != moment.own {
            Some(format!("it belongs to another index, {}", status.index))
        } else if is_current && status.version != bucket::VERSION {
            let (is, ought) = (status.version, bucket::VERSION);
            Some(format!("it says that it is version {is}, not {ought}"))
        } else {
            None
        };
        match problem {
            None => {
                self.buckets.update(&bucket, |row| {
                    row.installed = true;
                    row.upkeep.asked_module = row.upkeep.module;
                    row.take_version(Some(status.version));
                    row.upkeep.told_closed = status.closed;
                    row.upkeep.stage = None;
                    row.upkeep.failure = None;
                    row.upkeep.error = None;
                });
                self.upkeep_backoffs.remove(&bucket);
                self.send_backoffs.remove(&bucket);
                if !installed {
                    self.creation_succeeded();
                }
                let version = status.version;
                self.note(
                    moment.now_ms,
                    &format!("bucket {bucket} is ready, version {version}"),
                );
            }
            Some(text) if installed => self.upgrade_failed(bucket, &text, moment),
            Some(text) => self.upkeep_waits(bucket, "health check", &text, moment),
        }
    }

    /// The bucket goes on as it is; the roll stops.
    fn upgrade_failed(&mut self, bucket: Principal, text: &str, moment: &Moment) {
        self.stop_roll(bucket, text, moment);
        self.buckets.update(&bucket, |row| {
            row.upkeep.stage = None;
            row.upkeep.failure = None;
            row.upkeep.error = Some(text.into());
        });
        self.upkeep_backoffs.remove(&bucket);
        self.send_backoffs.remove(&bucket);
    }

    /// Some bucket in use has this module, or new ones get it.
    pub(crate) fn knows_module(&self, module: &BlobId) -> bool {
        self.bucket_wasm == Some(*module)
            || self
                .buckets
                .iter()
                .any(|(_, row)| row.installed && row.upkeep.module == Some(*module))
    }
}

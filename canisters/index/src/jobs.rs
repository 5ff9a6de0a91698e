//! The jobs of the index, and the timer that begins them. The timer is armed for what is due next; every
//! update and every upgrade looks whether there is (a restored snapshot runs no hook).
//!
//! A job makes one call. Whatever it was cut by, its next turn finds on record where to go on.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use candid::Principal;
use data_bucket_index::{
    Index, Moment,
    agenda::{Agenda, CALLS_MAX, Job},
    aside::JobRow,
    calls::{Answer, Call as FleetCall, Failure, Look},
    sync::Sent,
    trust::Origin,
};
use ic_cdk::{
    api::{global_timer_set, time},
    call::{Call, CallFailed, CallRejected, Error, RejectCode},
    futures::{is_recovering_from_trap, spawn_migratory},
};
use openstorage_canister::{
    lanes::TRAPS_MAX,
    outstanding::{self, Outstanding},
    timer,
};
use openstorage_types::{
    channel::{self, AuditPage, AuditPageError, EventsError, EventsOk, RecallError, UserCounters},
    index::{AuditArgs, AuditError, FleetError, IssuerError},
};

use crate::{management, now_ms, read, write};

/// Canisters that are looked up at once for calls of others, issuers and operators.
const CHECKS_MAX: usize = 10;

/// How long a bucket has to give back a lease: somebody waits for it.
const RECALL_SECONDS: u32 = 10;

/// When to try again what the management canister has not answered.
const RETRY_MS: u64 = 1_000;

/// While a job runs the timer looks again after so long: an answer whose message trapped wakes nobody.
const WATCH_MS: u64 = 60_000;

/// A job without an answer for so long is taken for lost, with the snapshot in which it was under way: a
/// restored canister has the record of its calls, and no calls. Should the answer come after all, its
/// stage is over.
const LOST_MS: u64 = 3_600_000;

/// A job whose message traps is tried again after a second, then after twice as long each time, up to ten minutes.
const TRAPPED_MS_MIN: u64 = 1_000;
const TRAPPED_MS_MAX: u64 = 600_000;

/// After a timer was lost all jobs are begun in messages of their own for so long.
const CAREFUL_MS: u64 = 600_000;

/// The canister's own method that does nothing: its answer comes in a message of its own.
const NOTHING: &str = "c2c_nothing";

thread_local! {
    /// Jobs under way, and since when, in milliseconds since 1970.
    static RUNNING: RefCell<BTreeMap<Job, u64>> = const { RefCell::new(BTreeMap::new()) };
    /// Jobs whose last message has trapped. Forgotten in an upgrade.
    static TRAPPED: RefCell<BTreeMap<Job, Trapped>> = const { RefCell::new(BTreeMap::new()) };
    static CAREFUL_UNTIL_MS: Cell<u64> = const { Cell::new(0) };
}

/// What is remembered of a job whose messages trap.
#[derive(Default)]
struct Trapped {
    /// What its slice is about, noted in the message before.
    row: Option<JobRow>,
    /// On that row, one after the other.
    times: u32,
    /// When it is tried again.
    due_ms: u64,
}

/// Jobs whose last message has trapped.
pub fn trapped() -> u32 {
    TRAPPED.with_borrow(|trapped| trapped.values().filter(|it| it.times > 0).count() as u32)
}

/// A job under way, and its call. However it ends, also by a trap, it is over when this is dropped.
struct Running {
    job: Job,
    since_ms: u64,
    _call: Outstanding,
}

impl Running {
    /// None while the same job runs, or as many as may.
    fn begin(job: Job) -> Option<Self> {
        let since_ms = now_ms();
        let running = running(since_ms);
        if running.len() >= CALLS_MAX || running.contains(&job) {
            return None;
        }
        RUNNING.with_borrow_mut(|running| running.insert(job, since_ms));
        Some(Self {
            job,
            since_ms,
            _call: outstanding::begin(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(|running| {
            if running.get(&self.job) == Some(&self.since_ms) {
                running.remove(&self.job);
            }
        });
        let is_asked = matches!(
            self.job,
            Job::CheckIssuer(_) | Job::AddBucket(_) | Job::Audit(_)
        );
        if is_recovering_from_trap() && !is_asked {
            let due_ms = has_trapped(self.job);
            arm(due_ms);
        }
    }
}

/// Counts a trap of a job. When it is tried again.
fn has_trapped(job: Job) -> u64 {
    TRAPPED.with_borrow_mut(|trapped| {
        let it = trapped.entry(job).or_default();
        let wait_ms = TRAPPED_MS_MIN.saturating_mul(1 << it.times.min(20));
        it.times += 1;
        it.due_ms = now_ms() + wait_ms.min(TRAPPED_MS_MAX);
        it.due_ms
    })
}

/// The jobs whose answers may still come.
fn running(now_ms: u64) -> BTreeSet<Job> {
    RUNNING.with_borrow(|running| {
        running
            .iter()
            .filter(|(_, since_ms)| now_ms < since_ms.saturating_add(LOST_MS))
            .map(|(job, _)| *job)
            .collect()
    })
}

/// After a restored snapshot the record of calls, and the timer, are of another time: it goes off at once. Jobs that
/// may be done twice are begun anew; those of the fleet are waited for, as long as an answer may come.
pub fn forget() {
    RUNNING.with_borrow_mut(|running| {
        let is_fleets = |job: &Job| matches!(job, Job::MakeBucket | Job::Upkeep(_) | Job::TopUp(_));
        running.retain(|job, _| is_fleets(job));
    });
    timer::over();
    arm(0);
}

/// Each message must be seen ([`write`]), also one that has nothing to write.
fn observe() {
    write(|_| ());
}

fn agenda(now_ms: u64) -> Agenda {
    let mut running = running(now_ms);
    let mut again_ms = None;
    TRAPPED.with_borrow(|trapped| {
        for (job, it) in trapped.iter().filter(|(_, it)| now_ms < it.due_ms) {
            running.insert(*job);
            again_ms = again_ms.into_iter().chain([it.due_ms]).min();
        }
    });
    let mut agenda = read(|index| index.agenda(now_ms, &running));
    agenda.next_ms = agenda.next_ms.into_iter().chain(again_ms).min();
    agenda
}

/// Arms the timer for what is due next, if anything is.
pub fn wake() {
    if timer::is_next(time()) {
        return;
    }
    let now_ms = now_ms();
    if timer::is_lost(time()) {
        // Its message may have trapped, with all that was begun in it.
        CAREFUL_UNTIL_MS.set(now_ms + CAREFUL_MS);
    }
    let agenda = agenda(now_ms);
    let watch_ms = RUNNING
        .with_borrow(|running| !running.is_empty())
        .then_some(now_ms + WATCH_MS);
    let due_ms = if agenda.jobs.is_empty() {
        [agenda.next_ms, watch_ms].into_iter().flatten().min()
    } else {
        Some(now_ms)
    };
    due_ms.into_iter().for_each(arm);
}

fn arm(due_ms: u64) {
    timer::arm(due_ms, time(), global_timer_set);
}

/// What the timer's message does: it begins everything that is due. A job is a task of its own: where the message of an
/// answer traps, the others go on, and their calls still count as under way.
pub fn turn() {
    timer::over();
    observe();
    write(|index| index.notice_silence(now_ms()));
    for job in agenda(now_ms()).jobs {
        if let Some(running) = Running::begin(job) {
            spawn_migratory(async move {
                let stored_only = begin(job).await;
                drop(running);
                if stored_only {
                    arm(0);
                } else {
                    wake();
                }
            });
        }
    }
    wake();
}

/// Jobs that call nobody, and all for a while where one has trapped, work in the message of an answer: where that traps,
/// the clean-up that follows counts it, and sets the timer again. True as for [`run`].
async fn begin(job: Job) -> bool {
    let is_slice = matches!(job, Job::DeriveKeys | Job::Sweep | Job::Forget);
    let is_careful = now_ms() < CAREFUL_UNTIL_MS.get();
    let row = if is_slice {
        read(|index| index.next_row(job))
    } else {
        None
    };
    let times = TRAPPED.with_borrow_mut(|trapped| match trapped.get_mut(&job) {
        Some(it) if it.row == row => it.times,
        Some(it) => {
            it.row = row.clone();
            it.times = 0;
            0
        }
        None => 0,
    });
    let is_suspect = TRAPPED.with_borrow(|trapped| trapped.contains_key(&job));
    if (is_slice || is_careful || is_suspect) && !new_message().await {
        TRAPPED.with_borrow_mut(|trapped| {
            trapped.entry(job).or_default().due_ms = now_ms() + WATCH_MS;
        });
        return false;
    }
    if times >= TRAPS_MAX
        && let Some(row) = &row
    {
        if read(|index| index.next_row(job)).as_ref() == Some(row)
            && write(|index| index.set_aside(row.clone(), now_ms()))
        {
            TRAPPED.with_borrow_mut(|trapped| trapped.remove(&job));
        }
        return false;
    }
    let stored_only = run(job).await;
    if is_suspect {
        TRAPPED.with_borrow_mut(|trapped| trapped.remove(&job));
    }
    if let Some(row) = &row {
        write(|index| index.worked(row));
    }
    stored_only
}

/// What follows is done in a message of its own. False where there can be none now: the cycles do not reach.
async fn new_message() -> bool {
    let answer = Call::bounded_wait(ic_cdk::api::canister_self(), NOTHING).await;
    observe();
    matches!(answer, Ok(_) | Err(CallFailed::CallRejected(_)))
}

/// True when the message must do nothing more than it has done.
async fn run(job: Job) -> bool {
    match job {
        Job::DrawSecret => draw_secret().await,
        Job::DeriveKeys => write(Index::derive_slice),
        Job::Send(bucket) => send(bucket).await,
        Job::Recall(user, bucket) => recall(user, bucket).await,
        Job::Sweep => write(|index| index.sweep()),
        Job::Forget => write(|index| index.forget_slice(now_ms())),
        Job::MakeBucket | Job::Upkeep(_) | Job::TopUp(_) => return go_on(job).await,
        Job::CheckIssuer(_) | Job::AddBucket(_) | Job::Audit(_) => {}
    }
    false
}

/// What the fleet has to know of the moment.
fn moment() -> Moment {
    Moment {
        own: ic_cdk::api::canister_self(),
        now_ms: now_ms(),
        balance: ic_cdk::api::canister_liquid_cycle_balance(),
        creation: ic_cdk::api::cost_create_canister(),
    }
}

/// The next call of a job of the fleet. True when it created a canister.
async fn go_on(job: Job) -> bool {
    let Some(call) = write(|index| index.begin(job, &moment())) else {
        return false;
    };
    let outcome = management::perform(&call).await;
    let created = matches!(outcome, Ok(Answer::Created(_)));
    write(|index| index.end(job, &call, outcome, &moment()));
    created
}

async fn draw_secret() {
    let drawn = ic_cdk_management_canister::raw_rand().await;
    match drawn.ok().and_then(|bytes| bytes.try_into().ok()) {
        Some(bytes) => write(|index| index.set_secret(bytes, now_ms())),
        None => write(|index| index.secret_failed(now_ms())),
    }
}

async fn send(bucket: Principal) {
    let version = ic_cdk::api::canister_version();
    let Some(sending) = write(|index| index.next_batch(bucket, version)) else {
        return;
    };
    let answer = Call::bounded_wait(bucket, "c2c_events")
        .with_arg(&sending.args)
        .await
        .map_err(Error::from)
        .and_then(|answer| Ok(answer.candid::<Result<EventsOk, EventsError>>()?));
    write(|index| {
        let Ok(Ok(ok)) = answer else {
            index.send_failed(bucket, now_ms());
            index.not_heard_from(bucket, now_ms());
            return;
        };
        let sent = index.batch_answered(&sending, ok);
        index.heard_from(bucket, now_ms());
        match sent {
            Sent::Taken => index.send_succeeded(&bucket),
            Sent::Refused => index.send_failed(bucket, now_ms()),
        }
    });
}

async fn recall(user: Principal, bucket: Principal) {
    let version = ic_cdk::api::canister_version();
    let Some(args) = write(|index| index.recall(user, bucket, version)) else {
        return;
    };
    let answer = Call::bounded_wait(bucket, "c2c_recall")
        .change_timeout(RECALL_SECONDS)
        .with_arg(&args)
        .await
        .map_err(Error::from)
        .and_then(|answer| Ok(answer.candid::<Result<UserCounters, RecallError>>()?));
    let context = crate::context_of(bucket);
    write(|index| index.recalled(&context, (user, bucket), answer.ok()));
}

/// Takes one of the few places for looking up what another's call needs.
fn begin_check(job: Job) -> Option<Running> {
    let is_check = |job: &&Job| matches!(job, Job::CheckIssuer(_) | Job::AddBucket(_));
    let checks = running(now_ms());
    if checks.iter().filter(is_check).count() >= CHECKS_MAX {
        return None;
    }
    Running::begin(job)
}

/// Whose a canister is that wants to be an issuer, and whose it may be: the index's own controllers', and the index's.
pub async fn look_at_issuer(issuer: Principal) -> Result<(Origin, Vec<Principal>), IssuerError> {
    let retry = IssuerError::Retry { ms: RETRY_MS };
    let Some(_running) = begin_check(Job::CheckIssuer(issuer)) else {
        return Err(retry);
    };
    let origin = management::origin(issuer).await;
    observe();
    let origin = origin.map_err(|error| match error {
        Error::CallRejected(rejected) if is_final(&rejected) => IssuerError::NotAuthorized,
        _ => retry.clone(),
    })?;
    let mut ours = own_controllers().await.map_err(|_| retry)?;
    ours.push(ic_cdk::api::canister_self());
    Ok((origin, ours))
}

/// A page of a bucket's audit.
pub async fn audit(args: &AuditArgs) -> Result<AuditPage, AuditError> {
    let retry = AuditError::Retry { ms: RETRY_MS };
    let Some(_running) = Running::begin(Job::Audit(args.bucket)) else {
        return Err(retry);
    };
    let after = channel::AuditArgs {
        after: args.after.clone(),
    };
    let answer = Call::bounded_wait(args.bucket, "c2c_audit")
        .with_arg(&after)
        .await
        .map_err(Error::from)
        .and_then(|answer| Ok(answer.candid::<Result<AuditPage, AuditPageError>>()?));
    observe();
    match answer {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(_)) | Err(_) => Err(retry),
    }
}

/// What is in a canister that is to become a bucket, and the index's own controllers.
pub async fn look_at(bucket: Principal) -> Result<(Look, Vec<Principal>), FleetError> {
    let retry = FleetError::Retry { ms: RETRY_MS };
    let Some(_running) = begin_check(Job::AddBucket(bucket)) else {
        return Err(retry);
    };
    let look = management::perform(&FleetCall::Look(bucket)).await;
    observe();
    let Answer::Seen(look) = look.map_err(|failure| match failure {
        Failure::Rejected { passing: false, .. } => FleetError::NotController,
        _ => retry.clone(),
    })?
    else {
        return Err(retry);
    };
    let ours = own_controllers().await.map_err(|_| retry)?;
    Ok((look, ours))
}

/// The index's own.
async fn own_controllers() -> Result<Vec<Principal>, Error> {
    let ours = management::controllers(ic_cdk::api::canister_self()).await;
    observe();
    ours
}

/// Asking again would bring the same: there is no such canister.
fn is_final(rejected: &CallRejected) -> bool {
    matches!(
        rejected.reject_code(),
        Ok(RejectCode::DestinationInvalid | RejectCode::CanisterReject)
    )
}

//! What the bucket does by itself. One timer, armed only while there is something to do; each turn begins one job, and
//! each job does a bounded slice of its work.
//!
//! A trap undoes all that its message did, and spends the timer. So jobs work in the message of an answer, where a trap
//! is followed by a clean-up that counts it and sets the timer again: see [`lanes`](openstorage_canister::lanes). A job
//! that calls another canister begins in the timer's own message as long as nothing speaks against it, which saves a
//! message. Should that one trap, the next message of anybody sees that the timer was lost, and for a while all jobs are
//! begun with care; the index looks after a bucket from which it hears nothing for an hour.

use std::cell::RefCell;

use candid::{CandidType, Principal};
use data_bucket::{Job, Outgoing, WorkRow};
use ic_cdk::{
    api::{canister_self, global_timer_set, time},
    call::{Call, CallFailed, Error},
    futures::{is_recovering_from_trap, spawn},
};
use openstorage_canister::{
    lanes::{Ended, TRAPS_MAX},
    outstanding, timer,
};
use openstorage_types::channel::{EventsError, EventsOk};

use crate::{now, update, with};

type Lanes = openstorage_canister::lanes::Lanes<WorkRow, { Job::ALL.len() }>;

/// The canister's own method that does nothing: its answer comes in a message of its own.
const NOTHING: &str = "c2c_nothing";

thread_local! {
    /// In the order of [`Job::ALL`].
    static LANES: RefCell<Lanes> = RefCell::default();
}

fn lanes<T>(work: impl FnOnce(&mut Lanes) -> T) -> T {
    LANES.with_borrow_mut(work)
}

/// After a restored snapshot: whatever was armed or under way is over. The timer goes off at once, to find what is due.
pub fn forget() {
    LANES.take();
    timer::over();
    arm(0);
}

/// Arms the timer for the next thing to do, if there is any. Cheap; called by every update.
pub fn wake() {
    if timer::is_lost(time()) {
        lanes(|lanes| lanes.be_careful(now().ms));
    }
    let now_ms = now().ms;
    // Mostly there is something to tell, and nothing can be due before that: to look at the other jobs costs more.
    let tells = with(|bucket| bucket.due_ms(Job::Tell)).is_some();
    let due_ms = match tells && lanes(|lanes| lanes.is_free(Job::Tell.lane(), now_ms)) {
        true => Some(now_ms),
        false => next().map(|(_, due_ms)| due_ms),
    };
    due_ms.into_iter().for_each(arm);
}

fn arm(at_ms: u64) {
    timer::arm(at_ms, time(), global_timer_set);
}

/// The job that is due next, and when.
fn next() -> Option<(Job, u64)> {
    let now_ms = now().ms;
    let next =
        with(|bucket| lanes(|lanes| lanes.next(now_ms, |lane| bucket.due_ms(Job::ALL[lane]))));
    next.map(|(lane, due_ms)| (Job::ALL[lane], due_ms))
}

/// Notes how long jobs have waited, which reports tell.
pub fn observe() {
    let now_ms = now().ms;
    let tells = |lane: usize| Job::ALL[lane] == Job::Tell;
    let overdue_ms = lanes(|lanes| {
        let of = |counts: &dyn Fn(usize) -> bool| lanes.overdue_ms(now_ms, counts);
        (of(&|_| true), of(&|lane| !tells(lane)))
    });
    with(|bucket| bucket.observe_work(overdue_ms));
}

/// What the timer's message does: it begins one job. Nothing else is done in it that could trap.
pub fn turn() {
    timer::over();
    update(|_| ());
    if let Some((job, due_ms)) = next()
        && due_ms <= now().ms
    {
        spawn(run(Busy::begin(job)));
    }
    wake();
}

/// A job under way; it ends with this. Where its message traps, that is counted.
struct Busy {
    job: Job,
    ended: Ended,
}

impl Busy {
    fn begin(job: Job) -> Self {
        lanes(|lanes| lanes.begin(job as usize));
        Self {
            job,
            ended: Ended::Failed,
        }
    }

    /// What the work is about; tells how many messages have trapped on that.
    fn takes(&self, row: Option<WorkRow>) -> u32 {
        lanes(|lanes| lanes.takes(self.job as usize, row))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let (lane, now_ms) = (self.job as usize, now().ms);
        let has_trapped = is_recovering_from_trap();
        let ended = if has_trapped {
            Ended::Trapped
        } else {
            self.ended
        };
        let due_ms = lanes(|lanes| {
            lanes.end(lane, ended, now_ms);
            lanes.back_off_ms(lane)
        });
        if has_trapped {
            arm(due_ms);
        }
    }
}

async fn run(mut busy: Busy) {
    let now_ms = now().ms;
    let lane = busy.job as usize;
    let (careful, suspect, crowded) = lanes(|lanes| {
        let suspect = lanes.is_suspect(lane);
        (lanes.is_careful(now_ms), suspect, lanes.has_others(lane))
    });
    busy.ended = if careful && !new_message().await {
        Ended::Failed
    } else {
        begun(&busy, careful || suspect || crowded).await
    };
    drop(busy);
    wake();
}

async fn begun(busy: &Busy, careful: bool) -> Ended {
    let job = busy.job;
    let row = with(|bucket| bucket.next_row(job));
    let traps = busy.takes(row.clone());
    if (careful || !job.calls()) && !new_message().await {
        return Ended::Failed;
    }
    if traps > 0 && with(|bucket| bucket.next_row(job)) != row {
        // What trapped is not the next any more.
        return Ended::Failed;
    }
    if traps >= TRAPS_MAX
        && let Some(row) = &row
    {
        let is_aside = update(|bucket| bucket.set_aside(job, row, now()));
        return if is_aside { Ended::Done } else { Ended::Failed };
    }
    let is_suspect = lanes(|lanes| lanes.is_suspect(job as usize));
    let done = match job {
        Job::Draw => draw().await,
        Job::Tell => tell(busy, is_suspect).await,
        _ => {
            update(|bucket| bucket.work(job, is_suspect, now()));
            true
        }
    };
    if !done {
        return Ended::Failed;
    }
    update(|bucket| bucket.worked(job, row.as_ref()));
    Ended::Done
}

/// What follows is done in a message of its own. False where there can be none now: the cycles do not reach.
async fn new_message() -> bool {
    let _outstanding = outstanding::begin();
    let answer = Call::bounded_wait(canister_self(), NOTHING).await;
    update(|_| ());
    matches!(answer, Ok(_) | Err(CallFailed::CallRejected(_)))
}

/// Draws the key that is due. False when that failed.
async fn draw() -> bool {
    with(|bucket| bucket.trap_on_purpose(Job::Draw, None));
    let random: Option<Vec<u8>> = ask(Principal::management_canister(), "raw_rand", &()).await;
    update(|_| ());
    let Some(secret) = random.and_then(|bytes| bytes.try_into().ok()) else {
        return false;
    };
    update(|bucket| bucket.set_secret(secret, now()));
    true
}

/// Tells the index what is new. False when that failed.
async fn tell(busy: &Busy, is_suspect: bool) -> bool {
    crate::observe_cycles();
    observe();
    let version = now().version;
    let max = if is_suspect { 1 } else { usize::MAX };
    let next = update(|bucket| {
        bucket.trap_on_purpose(Job::Tell, bucket.next_row(Job::Tell).as_ref());
        Some((bucket.index(), bucket.next_batch_of(version, max)?))
    });
    let Some((index, batch)) = next else {
        return true;
    };
    let answer: Option<Result<EventsOk, EventsError>> =
        ask(index, "c2c_events", &(&batch.args,)).await;
    update(|_| ());
    let Some(Ok(mut answer)) = answer else {
        return false;
    };
    // Whether it is the telling that traps, or the answer.
    if is_suspect {
        let traps = busy.takes(Some(WorkRow::Answer));
        if !new_message().await {
            return false;
        }
        if traps >= TRAPS_MAX {
            answer.counters.clear();
            let text = "alarm: every message about what the index answers of users has trapped; it is left out";
            update(|bucket| bucket.note(now().ms, text));
        }
    }
    acknowledge(&batch, &answer);
    true
}

fn acknowledge(batch: &Outgoing, answer: &EventsOk) {
    update(|bucket| {
        bucket.trap_on_purpose(Job::Tell, Some(&WorkRow::Answer));
        bucket.acknowledged(batch, answer, now());
    });
}

async fn ask<T>(
    canister: Principal,
    method: &str,
    args: &impl candid::utils::ArgumentEncoder,
) -> Option<T>
where
    T: CandidType + serde::de::DeserializeOwned,
{
    let _outstanding = outstanding::begin();
    let reply = Call::bounded_wait(canister, method).with_args(args).await;
    let answer = reply
        .map_err(Error::from)
        .and_then(|reply| Ok(reply.candid()?));
    if let Err(error) = &answer {
        let text = format!("{method} at {canister}: {error}");
        with(|bucket| bucket.note(now().ms, &text));
    }
    answer.ok()
}

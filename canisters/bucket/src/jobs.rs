//! What the bucket does by itself. One timer, armed only while there is something to do; each turn does a
//! bounded slice of each job.

use std::{cell::Cell, time::Duration};

use candid::{CandidType, Principal};
use data_bucket::Outgoing;
use ic_cdk::{
    api::{global_timer_set, time},
    call::{Call, Error},
    futures::is_recovering_from_trap,
};
use openstorage_canister::{outstanding, timer};
use openstorage_types::channel::{EventsError, EventsOk};

use crate::{now, update, with};

/// Waits after a failure: doubled each time, at most a minute.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

thread_local! {
    /// A call of the jobs is under way; its end wakes them again.
    static CALLING: Cell<bool> = const { Cell::new(false) };
    static RETRY: Cell<Duration> = const { Cell::new(RETRY_MIN) };
    /// No call before this time: the one before has failed.
    static CALM_UNTIL: Cell<u64> = const { Cell::new(0) };
}

/// After a restored snapshot: whatever was armed or under way is over. The timer goes off at once, to find what is due.
pub fn forget() {
    CALLING.set(false);
    timer::over();
    arm(0);
}

/// Arms the timer for the next thing to do, if there is any. Cheap; called by every update.
pub fn wake() {
    if let Some(at_ms) = next_ms() {
        arm(at_ms);
    }
}

fn arm(at_ms: u64) {
    timer::arm(at_ms, time(), global_timer_set);
}

/// When there is something to do.
fn next_ms() -> Option<u64> {
    let now_ms = now().ms;
    let may_call = !CALLING.get();
    let call_ms = CALM_UNTIL.get().max(now_ms);
    with(|bucket| {
        let slices = bucket.is_verifying()
            || bucket.is_deriving()
            || bucket.is_deleting()
            || bucket.is_deleting_users();
        let slices = slices.then_some(now_ms);
        let call_for_ms = match bucket.has_news() {
            true => 0,
            false => bucket.secret_due_ms(),
        };
        let calls = may_call.then_some(call_ms.max(call_for_ms));
        let lapses = [bucket.next_expiry_ms(), bucket.next_idle_ms()];
        lapses.into_iter().chain([slices, calls]).flatten().min()
    })
}

/// What the timer's message does.
pub async fn turn() {
    timer::over();
    crate::observe_cycles();
    update(|bucket| {
        bucket.verify_slice(now());
        bucket.derive_slice();
        bucket.delete_slice(now());
        bucket.delete_user_slice(now());
        bucket.expire(now());
        bucket.give_back_idle(now());
    });
    if !CALLING.get() && CALM_UNTIL.get() <= now().ms {
        // Armed before the call: if the call never comes back in order, expiry and slices go on.
        let calling = Calling::begin();
        wake();
        let done = call().await;
        drop(calling);
        if done {
            RETRY.set(RETRY_MIN);
        } else {
            failed();
        }
    }
    wake();
}

fn failed() {
    CALM_UNTIL.set(now().ms + RETRY.get().as_millis() as u64);
    RETRY.set((RETRY.get() * 2).min(RETRY_MAX));
}

/// Draws the key that is due, else tells the index what is new. False when that failed.
async fn call() -> bool {
    if with(|bucket| bucket.secret_due_ms()) <= now().ms {
        let random: Option<Vec<u8>> = ask(Principal::management_canister(), "raw_rand", &()).await;
        update(|_| ());
        let Some(secret) = random.and_then(|bytes| bytes.try_into().ok()) else {
            return false;
        };
        update(|bucket| bucket.set_secret(secret, now()));
        return true;
    }
    let version = now().version;
    let next = update(|bucket| Some((bucket.index(), bucket.next_batch(version)?)));
    let Some((index, batch)) = next else {
        return true;
    };
    let answer: Option<Result<EventsOk, EventsError>> =
        ask(index, "c2c_events", &(&batch.args,)).await;
    update(|_| ());
    let Some(Ok(answer)) = answer else {
        return false;
    };
    acknowledge(&batch, &answer);
    true
}

fn acknowledge(batch: &Outgoing, answer: &EventsOk) {
    update(|bucket| bucket.acknowledged(batch, answer, now()));
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

/// A call of the jobs under way; ends with it. Where its answer's message traps, it has failed.
struct Calling;

impl Calling {
    fn begin() -> Self {
        CALLING.set(true);
        Self
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        CALLING.set(false);
        if is_recovering_from_trap() {
            failed();
            arm(CALM_UNTIL.get());
        }
    }
}

//! What the bucket does by itself. One timer, armed only while there is something to do; each turn does a
//! bounded slice of each job.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use candid::{CandidType, Principal};
use data_bucket::Outgoing;
use ic_cdk::call::{Call, Error};
use ic_cdk_timers::TimerId;
use openstorage_canister::outstanding;
use openstorage_types::channel::{EventsError, EventsOk};

use crate::{now, update, with};

/// Waits after a failure: doubled each time, at most a minute.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

thread_local! {
    /// The timer, and when it fires, in milliseconds since 1970; none where it is not armed.
    static ARMED: RefCell<Option<(TimerId, u64)>> = const { RefCell::new(None) };
    /// A call of the jobs is under way; its end wakes them again.
    static CALLING: Cell<bool> = const { Cell::new(false) };
    static RETRY: Cell<Duration> = const { Cell::new(RETRY_MIN) };
    /// No call before this time: the one before has failed.
    static CALM_UNTIL: Cell<u64> = const { Cell::new(0) };
}

/// After a restored snapshot: whatever was armed or under way is over. The system has forgotten the timer, which the
/// heap remembers; so it is told that one is due.
pub fn forget() {
    disarm();
    CALLING.set(false);
    ic_cdk::api::global_timer_set(ic_cdk::api::time());
}

/// Arms the timer for the next thing to do, if there is any. Cheap; called by every update.
pub fn wake() {
    let now_ms = now().ms;
    let Some(at_ms) = next_ms().map(|at_ms| at_ms.max(now_ms)) else {
        return;
    };
    let armed = ARMED.with_borrow(|armed| armed.as_ref().map(|(_, at_ms)| *at_ms));
    if armed.is_some_and(|armed| (now_ms..=at_ms).contains(&armed)) {
        return;
    }
    disarm();
    let delay = Duration::from_millis(at_ms - now_ms);
    let timer = ic_cdk_timers::set_timer(delay, turn());
    ARMED.set(Some((timer, at_ms)));
    // A timer in the past does not go off any more: its message trapped, or was refused while the canister
    // was stopping or out of cycles. The library takes the system's timer for set as long as it has not.
    if armed.is_some_and(|armed| armed < now_ms) {
        ic_cdk::api::global_timer_set(ic_cdk::api::time());
    }
}

fn disarm() {
    if let Some((timer, _)) = ARMED.take() {
        ic_cdk_timers::clear_timer(timer);
    }
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

async fn turn() {
    ARMED.set(None);
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
            CALM_UNTIL.set(now().ms + RETRY.get().as_millis() as u64);
            RETRY.set((RETRY.get() * 2).min(RETRY_MAX));
        }
    }
    wake();
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

/// A call of the jobs under way; ends with it, also after a trap.
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
    }
}

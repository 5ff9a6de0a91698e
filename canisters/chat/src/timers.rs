//! Timers for what the chat does by itself: one for each lane, armed for when its next work is due.

use std::{cell::RefCell, time::Duration};

use candid::{CandidType, Principal};
use chat::work::{BackOff, Lane, Work};
use ic_cdk::call::{Call, CallErrorExt, CallResult};
use ic_cdk_timers::TimerId;
use openstorage_canister::outstanding;
use openstorage_types::index::{BucketKey, BucketKeysArgs, BucketKeysError};
use serde::de::DeserializeOwned;

use crate::{now_ms, with};

thread_local! {
    /// In the order of `Lane`. Lost in an upgrade, like the timers themselves.
    static STATES: RefCell<[State; Lane::ALL.len()]> = RefCell::default();
}

#[derive(Default)]
struct State {
    /// Work is under way.
    busy: bool,
    /// The timer, and when it goes off, in milliseconds since 1970.
    timer: Option<(TimerId, u64)>,
    back_off: BackOff,
}

fn state<T>(lane: Lane, change: impl FnOnce(&mut State) -> T) -> T {
    STATES.with_borrow_mut(|states| change(&mut states[lane as usize]))
}

/// To be called in every message that may change something. After a restored snapshot the records of timers and
/// calls are of another time: what was under way is begun anew, and the system, which has forgotten the timer, is
/// told that it is due.
pub fn observe() {
    let version = ic_cdk::api::canister_version();
    if with(|app| app.observe(version)) {
        for State { timer, .. } in STATES.take() {
            timer
                .into_iter()
                .for_each(|(timer, _)| ic_cdk_timers::clear_timer(timer));
        }
        ic_cdk::api::global_timer_set(ic_cdk::api::time());
    }
}

/// Sets the timers that are missing or late. To be called after whatever may have made work.
pub fn arm() {
    observe();
    let now_ms = now_ms();
    for lane in Lane::ALL {
        let Some(due_ms) = with(|app| app.due_ms(lane)) else {
            continue;
        };
        let is_lost = state(lane, |state| {
            let at_ms = due_ms.max(now_ms + state.back_off.wait_ms());
            let armed = state.timer.as_ref().map(|(_, ms)| *ms);
            if state.busy || armed.is_some_and(|armed| (now_ms..=at_ms).contains(&armed)) {
                return false;
            }
            if let Some((timer, _)) = state.timer.take() {
                ic_cdk_timers::clear_timer(timer);
            }
            let delay = Duration::from_millis(at_ms - now_ms);
            state.timer = Some((ic_cdk_timers::set_timer(delay, run(lane)), at_ms));
            armed.is_some_and(|armed| armed < now_ms)
        });
        // A timer in the past does not go off any more: its message was refused while the canister was
        // stopping or out of cycles. The library takes the system's timer for set as long as it has not.
        if is_lost {
            ic_cdk::api::global_timer_set(ic_cdk::api::time());
        }
    }
}

/// Frees the lane, also when its work trapped: the next update then starts it again.
struct Busy(Lane);

impl Drop for Busy {
    fn drop(&mut self) {
        state(self.0, |state| state.busy = false);
    }
}

async fn run(lane: Lane) {
    observe();
    state(lane, |state| {
        state.timer = None;
        state.busy = true;
    });
    let busy = Busy(lane);
    let done = match with(|app| app.next_work(lane, now_ms())) {
        Some(work) => perform(work).await,
        None => true,
    };
    state(lane, |state| {
        if done {
            state.back_off.succeeded()
        } else {
            state.back_off.failed()
        }
    });
    drop(busy);
    arm();
}

/// Tells whether the work was done; if not, it is still there.
async fn perform(work: Work) -> bool {
    let index = with(|app| app.index());
    match work {
        Work::DrawSecret => match random().await {
            Ok(random) => match random.try_into() {
                Ok(secret) => {
                    with(|app| app.secret_drawn(secret, now_ms()));
                    true
                }
                Err(_) => false,
            },
            Err(_) => false,
        },
        Work::RegisterIssuer(args) => match call(index, "register_issuer", &args).await {
            Some(answer) => with(|app| app.issuer_registered(&args.key, &answer, now_ms())),
            None => false,
        },
        Work::RevokeIssuerKey(args) => match call(index, "revoke_issuer_key", &args).await {
            Some(answer) => {
                with(|app| app.issuer_key_revoked(args.version, &answer));
                true
            }
            None => false,
        },
        Work::RegisterUsers(users) => match call(index, "register_users", &users).await {
            Some(answers) => {
                let answers: Vec<_> = answers;
                with(|app| app.users_registered(&users, &answers))
            }
            None => false,
        },
        Work::AskBucketKey(bucket) => match ask_bucket_key(bucket).await {
            Some(answer) => with(|app| app.bucket_key_came(bucket, &answer, now_ms())),
            None => false,
        },
        Work::DeriveKeys => {
            with(|app| app.derive_keys());
            true
        }
        Work::RemoveSlice(chat_id) => {
            with(|app| app.remove_slice(chat_id));
            true
        }
    }
}

async fn random() -> CallResult<Vec<u8>> {
    let _outstanding = outstanding::begin();
    ic_cdk_management_canister::raw_rand().await
}

/// The public key of a bucket, from the index; none where the index could not be asked.
pub async fn ask_bucket_key(bucket: Principal) -> Option<Result<BucketKey, BucketKeysError>> {
    let index = with(|app| app.index());
    call(index, "c2c_bucket_keys", BucketKeysArgs { bucket }).await
}

/// A call whose answer may stay away: whoever calls repeats it.
async fn call<T: DeserializeOwned + CandidType>(
    canister: Principal,
    method: &str,
    args: impl CandidType,
) -> Option<T> {
    let _outstanding = outstanding::begin();
    let answer = Call::bounded_wait(canister, method).with_arg(args).await;
    match answer {
        Ok(response) => response.candid().ok(),
        Err(error) => {
            if !error.is_immediately_retryable() {
                let text = format!("{method} at {canister}: {error}");
                with(|app| app.note(now_ms(), &text));
            }
            None
        }
    }
}

//! Timers for what the chat does by itself: one for each lane that has work, none otherwise.

use std::{cell::RefCell, time::Duration};

use candid::{CandidType, Principal};
use chat::work::{BackOff, Lane, Work};
use ic_cdk::call::{Call, CallErrorExt, CallResult};
use openstorage_canister::outstanding;
use openstorage_types::{
    channel::PublicKey,
    index::{BucketKeysArgs, BucketKeysError},
};
use serde::de::DeserializeOwned;

use crate::with;

/// Work without an end for so long after its time is taken for lost: the timer does not go off where the
/// canister could not pay for it. Longer than any call of a lane lasts.
const LOST_MS: u64 = 600_000;

thread_local! {
    /// In the order of `Lane`. Lost in an upgrade, like the timers themselves.
    static STATES: RefCell<[State; Lane::ALL.len()]> = RefCell::default();
}

#[derive(Default)]
struct State {
    /// A timer is set, or its work is under way; until then, in milliseconds since 1970.
    busy_until_ms: Option<u64>,
    back_off: BackOff,
}

fn state<T>(lane: Lane, change: impl FnOnce(&mut State) -> T) -> T {
    STATES.with_borrow_mut(|states| change(&mut states[lane as usize]))
}

/// Sets the timers that are missing. To be called after whatever may have made work.
pub fn arm() {
    for lane in Lane::ALL {
        if !with(|app| app.has_work(lane)) {
            continue;
        }
        let now_ms = crate::now_ms();
        let begun = state(lane, |state| {
            let is_lost = state.busy_until_ms.is_some_and(|until| until < now_ms);
            if state.busy_until_ms.is_some() && !is_lost {
                return None;
            }
            let wait_ms = state.back_off.wait_ms();
            state.busy_until_ms = Some(now_ms + wait_ms + LOST_MS);
            Some((wait_ms, is_lost))
        });
        let Some((wait_ms, is_lost)) = begun else {
            continue;
        };
        ic_cdk_timers::set_timer(Duration::from_millis(wait_ms), run(Busy(lane)));
        if is_lost {
            // The library takes the system's timer for set as long as it has not gone off.
            ic_cdk::api::global_timer_set(ic_cdk::api::time());
        }
    }
}

/// Frees the lane, also when its work trapped, or was never begun because the canister was stopping: the
/// next update then starts it again.
struct Busy(Lane);

impl Drop for Busy {
    fn drop(&mut self) {
        state(self.0, |state| state.busy_until_ms = None);
    }
}

async fn run(busy: Busy) {
    let lane = busy.0;
    let done = match with(|app| app.next_work(lane)) {
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
                    with(|app| app.secret_drawn(secret));
                    true
                }
                Err(_) => false,
            },
            Err(_) => false,
        },
        Work::RegisterIssuer(args) => match call(index, "register_issuer", args).await {
            Some(answer) => with(|app| app.issuer_registered(&answer)),
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
            Some(answer) => with(|app| app.bucket_key_came(bucket, &answer)),
            None => false,
        },
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
pub async fn ask_bucket_key(bucket: Principal) -> Option<Result<PublicKey, BucketKeysError>> {
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
                with(|app| app.note(crate::now_ms(), &text));
            }
            None
        }
    }
}

//! What the chat does by itself: lanes of work, each with a due time of its own, and one timer for the earliest.
//!
//! A message of the timer does the work of one lane, so one that traps undoes nothing of the others. Which one it is
//! turns, and turns on when the timer is set, not when it goes off: a lane that traps each time is not the next one.

use std::cell::{Cell, RefCell};

use candid::{CandidType, Principal};
use chat::work::{BackOff, Lane, Work};
use ic_cdk::{
    api::{global_timer_set, time},
    call::{Call, CallErrorExt, CallResult},
    futures::{is_recovering_from_trap, spawn},
};
use openstorage_canister::{outstanding, timer};
use openstorage_types::index::{BucketKey, BucketKeysArgs, BucketKeysError};
use serde::de::DeserializeOwned;

use crate::{now_ms, with};

thread_local! {
    /// In the order of `Lane`. Lost in an upgrade, like the timer itself.
    static STATES: RefCell<[State; Lane::ALL.len()]> = RefCell::default();
    /// The lane for which the timer was set.
    static TURN: Cell<usize> = const { Cell::new(0) };
}

#[derive(Default)]
struct State {
    /// Work is under way.
    busy: bool,
    back_off: BackOff,
}

fn state<T>(lane: Lane, change: impl FnOnce(&mut State) -> T) -> T {
    STATES.with_borrow_mut(|states| change(&mut states[lane as usize]))
}

/// To be called in every message that may change something. After a restored snapshot what was under way is begun
/// anew, and the timer, which is of another time, goes off at once.
pub fn observe() {
    let version = ic_cdk::api::canister_version();
    if with(|app| app.observe(version)) {
        STATES.take();
        timer::over();
        timer::arm(0, time(), global_timer_set);
    }
}

/// Sets the timer for what is due next, if anything is. To be called after whatever may have made work.
pub fn arm() {
    observe();
    if let Some((lane, due_ms)) = next(TURN.get() + 1)
        && timer::arm(due_ms, time(), global_timer_set)
    {
        TURN.set(lane as usize);
    }
}

/// The lane that is due next, and when, in milliseconds since 1970. Among several that are due it is the first from
/// the `first` on.
fn next(first: usize) -> Option<(Lane, u64)> {
    let now_ms = now_ms();
    (0..Lane::ALL.len())
        .map(|n| Lane::ALL[(first + n) % Lane::ALL.len()])
        .filter_map(|lane| Some((lane, due_ms(lane)?.max(now_ms))))
        .min_by_key(|(_, due_ms)| *due_ms)
}

/// When a lane is to begin something, if it is not under way.
fn due_ms(lane: Lane) -> Option<u64> {
    let due_ms = with(|app| app.due_ms(lane))?;
    state(lane, |state| {
        (!state.busy).then(|| due_ms.max(state.back_off.due_ms()))
    })
}

/// What the timer's message does.
pub fn turn() {
    timer::over();
    observe();
    if let Some((lane, due_ms)) = next(TURN.get())
        && due_ms <= now_ms()
    {
        spawn(run(Busy::begin(lane)));
    }
    // The others wait for no answer to this one.
    arm();
}

/// Work of a lane is under way; it ends with this. Where the message of its answer traps, it has failed.
struct Busy(Lane);

impl Busy {
    fn begin(lane: Lane) -> Self {
        state(lane, |state| state.busy = true);
        Self(lane)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let due_ms = state(self.0, |state| {
            state.busy = false;
            if is_recovering_from_trap() {
                state.back_off.failed(now_ms());
            }
            state.back_off.due_ms()
        });
        if is_recovering_from_trap() {
            timer::arm(due_ms, time(), global_timer_set);
        }
    }
}

async fn run(busy: Busy) {
    let lane = busy.0;
    let done = match with(|app| app.next_work(lane, now_ms())) {
        Some(work) => perform(work).await,
        None => true,
    };
    state(lane, |state| {
        if done {
            state.back_off.succeeded()
        } else {
            state.back_off.failed(now_ms())
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
                with(|app| app.users_registered(&users, &answers, now_ms()))
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

/// Random bytes of the subnet.
pub async fn random() -> CallResult<Vec<u8>> {
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

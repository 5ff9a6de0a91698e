//! What the chat does by itself: lanes of work, each with a due time of its own, and one timer for the earliest.
//!
//! A message of the timer begins the work of one lane. Work that may trap is done in the message of an answer, where a
//! trap is followed by a clean-up that counts it and sets the timer again: see [`lanes`](openstorage_canister::lanes). A
//! lane that calls another canister begins in the timer's own message, unless a timer was lost before.

use std::cell::RefCell;

use candid::{CandidType, Principal};
use chat::work::{Lane, LaneRow, Work};
use ic_cdk::{
    api::{canister_self, global_timer_set, time},
    call::{Call, CallErrorExt, CallFailed, CallResult},
    futures::{is_recovering_from_trap, spawn},
};
use openstorage_canister::{
    lanes::{Ended, TRAPS_MAX},
    outstanding, timer,
};
use openstorage_types::index::{BucketKey, BucketKeysArgs, BucketKeysError};
use serde::de::DeserializeOwned;

use crate::{now_ms, with};

type Lanes = openstorage_canister::lanes::Lanes<LaneRow, { Lane::ALL.len() }>;

/// The canister's own method that does nothing: its answer comes in a message of its own.
const NOTHING: &str = "c2c_nothing";

thread_local! {
    /// In the order of `Lane`. Lost in an upgrade, like the timer itself.
    static LANES: RefCell<Lanes> = RefCell::default();
}

fn lanes<T>(work: impl FnOnce(&mut Lanes) -> T) -> T {
    LANES.with_borrow_mut(work)
}

/// To be called in every message that may change something. After a restored snapshot what was under way is begun
/// anew, and the timer, which is of another time, goes off at once.
pub fn observe() {
    let version = ic_cdk::api::canister_version();
    if with(|app| app.observe(version)) {
        LANES.take();
        timer::over();
        timer::arm(0, time(), global_timer_set);
    }
}

/// Sets the timer for what is due next, if anything is. To be called after whatever may have made work.
pub fn arm() {
    observe();
    if timer::is_lost(time()) {
        lanes(|lanes| lanes.be_careful(now_ms()));
    }
    if let Some((_, due_ms)) = next() {
        timer::arm(due_ms, time(), global_timer_set);
    }
}

/// The lane that is due next, and when, in milliseconds since 1970.
fn next() -> Option<(Lane, u64)> {
    let next = with(|app| {
        let due_ms = |lane: usize| app.due_ms(Lane::ALL[lane]);
        lanes(|lanes| lanes.next(now_ms(), due_ms))
    });
    next.map(|(lane, due_ms)| (Lane::ALL[lane], due_ms))
}

/// What the timer's message does.
pub fn turn() {
    timer::over();
    observe();
    if let Some((lane, due_ms)) = next()
        && due_ms <= now_ms()
    {
        spawn(run(Busy::begin(lane)));
    }
    // The others wait for no answer to this one.
    arm();
}

/// Work of a lane is under way; it ends with this. Where its message traps, that is counted.
struct Busy {
    lane: Lane,
    ended: Ended,
}

impl Busy {
    fn begin(lane: Lane) -> Self {
        lanes(|lanes| lanes.begin(lane as usize));
        Self {
            lane,
            ended: Ended::Failed,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let (lane, has_trapped) = (self.lane as usize, is_recovering_from_trap());
        let ended = if has_trapped {
            Ended::Trapped
        } else {
            self.ended
        };
        let due_ms = lanes(|lanes| {
            lanes.end(lane, ended, now_ms());
            lanes.back_off_ms(lane)
        });
        if has_trapped {
            timer::arm(due_ms, time(), global_timer_set);
        }
    }
}

async fn run(mut busy: Busy) {
    let lane = busy.lane;
    let is_slice = matches!(lane, Lane::Derivation | Lane::Removal);
    let is_careful = lanes(|lanes| {
        let others = lanes.has_others(lane as usize);
        others || lanes.is_careful(now_ms()) || lanes.is_suspect(lane as usize)
    });
    let row = with(|app| app.next_row(lane));
    let traps = lanes(|lanes| lanes.takes(lane as usize, row));
    busy.ended = match (is_slice || is_careful) && !new_message().await {
        true => Ended::Failed,
        false => begun(lane, row, traps).await,
    };
    drop(busy);
    arm();
}

async fn begun(lane: Lane, row: Option<LaneRow>, traps: u32) -> Ended {
    if traps >= TRAPS_MAX
        && let Some(row) = row
    {
        with(|app| app.set_aside(row, now_ms()));
        return Ended::Done;
    }
    let done = match with(|app| app.next_work(lane, now_ms())) {
        Some(work) => perform(work).await,
        None => true,
    };
    if done { Ended::Done } else { Ended::Failed }
}

/// What follows is done in a message of its own. False where there can be none now: the cycles do not reach.
async fn new_message() -> bool {
    let _outstanding = outstanding::begin();
    let answer = Call::bounded_wait(canister_self(), NOTHING).await;
    observe();
    matches!(answer, Ok(_) | Err(CallFailed::CallRejected(_)))
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

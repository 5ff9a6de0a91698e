//! The calls that the index makes, and the timer that begins them. The timer is armed only while there
//! is work; every update and every upgrade looks whether there is.

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use candid::{Principal, encode_one};
use data_bucket_index::{agenda::Job, creation::Step, sync::Sent};
use ic_cdk::call::{Call, CallRejected, Error, RejectCode};
use ic_cdk_management_canister::{
    CanisterInfoArgs, CanisterInfoResult, CanisterInstallMode, CanisterSettings, ChunkHash,
    ClearChunkStoreArgs, CreateCanisterArgs, InstallChunkedCodeArgs, InstallCodeArgs,
    UploadChunkArgs,
};
use ic_cdk_timers::TimerId;
use openstorage_types::{
    BlobId, bucket,
    channel::{self, AuditPage, AuditPageError, EventsError, EventsOk, RecallError, UserCounters},
    index::{AuditArgs, AuditError, IssuerError},
};

use crate::{BUCKET_WASM, now_ms, read, write};

/// The largest Wasm that is installed with one call: what a call to another subnet may carry, 2 MB, less
/// room for the rest.
const INSTALL_BYTES_MAX: usize = 1_900_000;

/// Set by the Internet Computer: bytes of one chunk in a chunk store.
const STORE_CHUNK_BYTES: usize = 1 << 20;

/// Set by the Internet Computer: controllers of one canister.
const CONTROLLERS_MAX: usize = 10;

/// Issuers whose controllers are looked up at once.
const CHECKS_MAX: usize = 10;

/// How long a bucket has to give back a lease: somebody waits for it.
const RECALL_SECONDS: u32 = 10;

/// When to try again what the management canister has not answered.
const RETRY_MS: u64 = 1_000;

thread_local! {
    static RUNNING: RefCell<BTreeSet<Job>> = const { RefCell::new(BTreeSet::new()) };
    /// The timer, and when it goes off.
    static TIMER: RefCell<Option<(TimerId, u64)>> = const { RefCell::new(None) };
}

/// A job under way. However it ends, also by a trap, it is over when this is dropped.
struct Running(Job);

impl Running {
    fn begin(job: Job) -> Option<Self> {
        RUNNING
            .with_borrow_mut(|running| running.insert(job))
            .then_some(Self(job))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(|running| running.remove(&self.0));
    }
}

pub fn any_running() -> bool {
    RUNNING.with_borrow(|running| !running.is_empty())
}

/// Arms the timer for what is due next, if anything is.
pub fn wake() {
    let now_ms = now_ms();
    let agenda = read(|index| RUNNING.with_borrow(|running| index.agenda(now_ms, running)));
    let due_ms = if agenda.jobs.is_empty() {
        agenda.next_ms
    } else {
        Some(now_ms)
    };
    let Some(due_ms) = due_ms else { return };
    TIMER.with_borrow_mut(|timer| {
        // A timer in the past is of a time before a snapshot was restored: it will not go off.
        if let Some((id, armed_ms)) = timer.take() {
            if armed_ms <= due_ms && armed_ms >= now_ms {
                *timer = Some((id, armed_ms));
                return;
            }
            ic_cdk_timers::clear_timer(id);
        }
        let delay = Duration::from_millis(due_ms - now_ms);
        *timer = Some((ic_cdk_timers::set_timer(delay, turn()), due_ms));
    });
}

/// Begins everything that is due.
async fn turn() {
    TIMER.set(None);
    let agenda = read(|index| RUNNING.with_borrow(|running| index.agenda(now_ms(), running)));
    for job in agenda.jobs {
        if let Some(running) = Running::begin(job) {
            ic_cdk::futures::spawn(async move {
                run(job).await;
                drop(running);
                wake();
            });
        }
    }
    wake();
}

async fn run(job: Job) {
    match job {
        Job::DrawSecret => draw_secret().await,
        Job::MakeBucket => make_bucket().await,
        Job::Send(bucket) => send(bucket).await,
        Job::Recall(user, bucket) => recall(user, bucket).await,
        Job::Sweep => write(|index| index.sweep()),
        Job::CheckIssuer(_) | Job::Audit(_) => {}
    }
}

async fn draw_secret() {
    let drawn = ic_cdk_management_canister::raw_rand().await;
    match drawn.ok().and_then(|bytes| bytes.try_into().ok()) {
        Some(bytes) => write(|index| index.set_secret(bytes)),
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
        let sent = match answer {
            Ok(Ok(ok)) => index.batch_answered(&sending, ok),
            Ok(Err(_)) | Err(_) => Sent::Refused,
        };
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

async fn make_bucket() {
    // What precedes each call is on record before it is made.
    let Some(step) = write(|index| index.begin_creation_step(now_ms())) else {
        return;
    };
    let outcome = match step {
        Step::Create => create().await,
        Step::Install(bucket) => install(bucket).await,
    };
    if let Err(error) = outcome {
        write(|index| index.creation_failed(error, now_ms()));
    }
}

/// Whoever controls the index controls its buckets.
async fn create() -> Result<(), String> {
    let own = ic_cdk::api::canister_self();
    let mut controllers = vec![own];
    let ours = info(own).await.map_err(|error| error.to_string())?;
    controllers.extend(ours.controllers.into_iter().filter(|other| *other != own));
    controllers.truncate(CONTROLLERS_MAX);
    let args = CreateCanisterArgs {
        settings: Some(CanisterSettings {
            controllers: Some(controllers),
            ..CanisterSettings::default()
        }),
    };
    let cycles = read(|index| index.bucket_terms()).cycles;
    let created = ic_cdk_management_canister::create_canister_with_extra_cycles(&args, cycles)
        .await
        .map_err(|error| format!("create_canister: {error}"))?;
    write(|index| index.canister_created(created.canister_id));
    Ok(())
}

/// Puts the code in, unless an answer was lost and it is in already.
async fn install(bucket: Principal) -> Result<(), String> {
    let Some(BlobId(hash)) = read(|index| index.bucket_wasm()) else {
        return Ok(());
    };
    let there = info(bucket).await.map_err(|error| error.to_string())?;
    if there.module_hash.as_deref() != Some(&hash[..]) {
        let args = bucket::InitArgs {
            index: ic_cdk::api::canister_self(),
            bytes_max: Some(read(|index| index.bucket_terms()).bytes_max),
        };
        let arg = encode_one(args).expect("our own types encode");
        if BUCKET_WASM.len() <= INSTALL_BYTES_MAX {
            install_at_once(bucket, arg).await?;
        } else {
            install_in_chunks(bucket, hash, arg).await?;
        }
    }
    write(|index| index.bucket_installed(bucket));
    Ok(())
}

async fn install_at_once(bucket: Principal, arg: Vec<u8>) -> Result<(), String> {
    let args = InstallCodeArgs {
        mode: CanisterInstallMode::Install,
        canister_id: bucket,
        wasm_module: BUCKET_WASM.to_vec(),
        arg,
    };
    ic_cdk_management_canister::install_code(&args)
        .await
        .map_err(|error| format!("install_code of {bucket}: {error}"))
}

/// Through the bucket's own chunk store, which is emptied afterwards.
async fn install_in_chunks(bucket: Principal, hash: [u8; 32], arg: Vec<u8>) -> Result<(), String> {
    let mut chunk_hashes_list: Vec<ChunkHash> = Vec::new();
    for chunk in BUCKET_WASM.chunks(STORE_CHUNK_BYTES) {
        let args = UploadChunkArgs {
            canister_id: bucket,
            chunk: chunk.to_vec(),
        };
        let stored = ic_cdk_management_canister::upload_chunk(&args).await;
        chunk_hashes_list
            .push(stored.map_err(|error| format!("upload_chunk to {bucket}: {error}"))?);
    }
    let args = InstallChunkedCodeArgs {
        mode: CanisterInstallMode::Install,
        target_canister: bucket,
        store_canister: None,
        chunk_hashes_list,
        wasm_module_hash: hash.to_vec(),
        arg,
    };
    ic_cdk_management_canister::install_chunked_code(&args)
        .await
        .map_err(|error| format!("install_chunked_code of {bucket}: {error}"))?;
    // A store that stays full costs a little and harms nothing.
    let store = ClearChunkStoreArgs {
        canister_id: bucket,
    };
    ic_cdk_management_canister::clear_chunk_store(&store)
        .await
        .unwrap_or_default();
    Ok(())
}

async fn info(canister_id: Principal) -> Result<CanisterInfoResult, Error> {
    let args = CanisterInfoArgs {
        canister_id,
        num_requested_changes: None,
    };
    let answer = Call::bounded_wait(Principal::management_canister(), "canister_info")
        .with_arg(&args)
        .await?;
    Ok(answer.candid()?)
}

/// The controllers of a canister that wants to be an issuer, and the index's own.
pub async fn controllers_of_both(
    issuer: Principal,
) -> Result<(Vec<Principal>, Vec<Principal>), IssuerError> {
    let retry = IssuerError::Retry { ms: RETRY_MS };
    let checks = RUNNING.with_borrow(|running| {
        let is_check = |job: &&Job| matches!(job, Job::CheckIssuer(_));
        running.iter().filter(is_check).count()
    });
    if checks >= CHECKS_MAX {
        return Err(retry);
    }
    let Some(_running) = Running::begin(Job::CheckIssuer(issuer)) else {
        return Err(retry);
    };
    let theirs = info(issuer).await.map_err(|error| match error {
        Error::CallRejected(rejected) if is_final(&rejected) => IssuerError::NotAuthorized,
        _ => retry.clone(),
    })?;
    let ours = info(ic_cdk::api::canister_self())
        .await
        .map_err(|_| retry)?;
    Ok((theirs.controllers, ours.controllers))
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
    match answer {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(_)) | Err(_) => Err(retry),
    }
}

/// Asking again would bring the same: there is no such canister.
fn is_final(rejected: &CallRejected) -> bool {
    matches!(
        rejected.reject_code(),
        Ok(RejectCode::DestinationInvalid | RejectCode::CanisterReject)
    )
}

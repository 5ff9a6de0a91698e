//! The calls that the core asks for, made.

use candid::{Principal, encode_one};
use data_bucket_index::{
    calls::{Answer, Call, Failure, Look, Outcome},
    trust::Origin,
};
use ic_cdk::call::{Call as CdkCall, Error, RejectCode};
use ic_cdk_management_canister::{
    CanisterInfoArgs, CanisterInfoResult, CanisterInstallMode, CanisterSettings,
    CanisterStatusArgs, CanisterStatusResult, CanisterStatusType, Change, ChangeDetails,
    ChangeOrigin, CreateCanisterArgs, DepositCyclesArgs, InstallCodeArgs, StartCanisterArgs,
    StopCanisterArgs,
};
use openstorage_types::{
    BlobId,
    bucket::{self, BucketStatus, SetClosedError},
};

use crate::BUCKET_WASM;

/// The largest Wasm that one call installs: what a call to another subnet may carry, 2 MB, less room for
/// the rest. A build with a larger one fails.
const WASM_BYTES_MAX: usize = 1_900_000;

const _: () = assert!(
    BUCKET_WASM.len() <= WASM_BYTES_MAX,
    "the bucket's Wasm does not fit one call"
);

/// A bucket on a crowded subnet reserves cycles for its storage: up to 500 T, where a canister by itself
/// stops at 5 T. They come out of its balance, which the index fills within its budget.
const RESERVED_CYCLES_LIMIT: u128 = 500_000_000_000_000;

/// Changes of a canister that the system always keeps.
const CHANGES_KEPT: u64 = 20;

/// Calls that carry cycles or change code wait for their answer however long it takes: with a deadline
/// their outcome could be unknown, and cycles lost. The others wait for a bounded time.
pub async fn perform(call: &Call) -> Outcome {
    match call {
        Call::OwnControllers => {
            let controllers = controllers(ic_cdk::api::canister_self()).await;
            Ok(Answer::Controllers(controllers.map_err(failure)?))
        }
        Call::Create {
            controllers,
            cycles,
        } => create(controllers.clone(), *cycles).await,
        Call::Look(bucket) => Ok(Answer::Seen(look(*bucket).await?)),
        Call::Install { bucket, args } => {
            install(*bucket, CanisterInstallMode::Install, args).await
        }
        Call::Upgrade { bucket, args } => {
            let mode = CanisterInstallMode::Upgrade(None);
            install(*bucket, mode, args).await
        }
        Call::Stop(canister_id) => {
            let args = StopCanisterArgs {
                canister_id: *canister_id,
            };
            done(ic_cdk_management_canister::stop_canister(&args).await)
        }
        Call::Start(canister_id) => {
            let args = StartCanisterArgs {
                canister_id: *canister_id,
            };
            done(ic_cdk_management_canister::start_canister(&args).await)
        }
        Call::Ask(bucket) => {
            let asked = CdkCall::bounded_wait(*bucket, "status").await;
            let status: BucketStatus = asked
                .map_err(Error::from)
                .and_then(|answer| Ok(answer.candid()?))
                .map_err(failure)?;
            Ok(Answer::Told(status))
        }
        Call::SetClosed { bucket, closed } => {
            let told = CdkCall::bounded_wait(*bucket, "c2c_set_closed")
                .with_arg(closed)
                .await;
            let answer: Result<(), SetClosedError> = told
                .map_err(Error::from)
                .and_then(|answer| Ok(answer.candid()?))
                .map_err(failure)?;
            answer.map_err(|error| Failure::Rejected {
                passing: false,
                text: format!("{error:?}"),
            })?;
            Ok(Answer::Done)
        }
        Call::Deposit { bucket, cycles } => {
            let args = DepositCyclesArgs {
                canister_id: *bucket,
            };
            done(ic_cdk_management_canister::deposit_cycles(&args, *cycles).await)
        }
    }
}

async fn create(controllers: Vec<Principal>, cycles: u128) -> Outcome {
    let args = CreateCanisterArgs {
        settings: Some(CanisterSettings {
            controllers: Some(controllers),
            reserved_cycles_limit: Some(RESERVED_CYCLES_LIMIT.into()),
            ..CanisterSettings::default()
        }),
    };
    let created =
        ic_cdk_management_canister::create_canister_with_extra_cycles(&args, cycles).await;
    Ok(Answer::Created(created.map_err(failure)?.canister_id))
}

async fn install(bucket: Principal, mode: CanisterInstallMode, args: &bucket::InitArgs) -> Outcome {
    let args = InstallCodeArgs {
        mode,
        canister_id: bucket,
        wasm_module: BUCKET_WASM.to_vec(),
        arg: encode_one(args).expect("our own types encode"),
    };
    done(ic_cdk_management_canister::install_code(&args).await)
}

/// What `canister_status` shows; the index has to be a controller.
pub async fn look(canister_id: Principal) -> Result<Look, Failure> {
    let args = CanisterStatusArgs { canister_id };
    let status: CanisterStatusResult = ic_cdk_management_canister::canister_status(&args)
        .await
        .map_err(failure)?;
    let idle_per_day = figure(&status.idle_cycles_burned_per_day);
    let frozen_s = figure(&status.settings.freezing_threshold);
    Ok(Look {
        running: status.status == CanisterStatusType::Running,
        module: status
            .module_hash
            .and_then(|hash| hash.try_into().ok())
            .map(BlobId),
        controllers: status.settings.controllers,
        balance: figure(&status.cycles),
        // As the Internet Computer has it: what being there costs over the threshold, in seconds.
        freezing_at: idle_per_day.saturating_mul(frozen_s) / 86_400,
        idle_per_day,
    })
}

pub async fn controllers(canister_id: Principal) -> Result<Vec<Principal>, Error> {
    Ok(info(canister_id, None).await?.controllers)
}

/// Whose a canister is: its controllers, and who put in what it runs, of the changes that the system keeps at least.
pub async fn origin(canister_id: Principal) -> Result<Origin, Error> {
    let info = info(canister_id, Some(CHANGES_KEPT)).await?;
    let puts_in = |change: &&Change| {
        use ChangeDetails::{CodeDeployment, LoadSnapshot};
        matches!(change.details, Some(CodeDeployment(_) | LoadSnapshot(_)))
    };
    let last = info.recent_changes.iter().rev().find(puts_in);
    Ok(Origin {
        controllers: info.controllers,
        deployed_by: last.map(|change| match &change.origin {
            ChangeOrigin::FromUser(user) => user.user_id,
            ChangeOrigin::FromCanister(canister) => canister.canister_id,
        }),
    })
}

/// `canister_info`, which any canister may ask for.
async fn info(canister_id: Principal, changes: Option<u64>) -> Result<CanisterInfoResult, Error> {
    let args = CanisterInfoArgs {
        canister_id,
        num_requested_changes: changes,
    };
    let answer = CdkCall::bounded_wait(Principal::management_canister(), "canister_info")
        .with_arg(&args)
        .await?;
    Ok(answer.candid()?)
}

fn figure(nat: &candid::Nat) -> u128 {
    nat.0.clone().try_into().unwrap_or(u128::MAX)
}

fn done(result: Result<(), Error>) -> Outcome {
    result.map(|()| Answer::Done).map_err(failure)
}

/// Whether a call that failed may have had its effect. A reject says that it had none, and brings the
/// cycles back, unless the system itself does not know.
fn failure(error: Error) -> Failure {
    let text = error.to_string();
    let passing = match &error {
        Error::InsufficientLiquidCycleBalance(_) | Error::CallPerformFailed(_) => true,
        Error::CandidDecodeFailed(_) => return Failure::Unknown(text),
        Error::CallRejected(rejected) => match rejected.reject_code() {
            Ok(RejectCode::SysUnknown) | Err(_) => return Failure::Unknown(text),
            Ok(code) => code == RejectCode::SysTransient,
        },
    };
    Failure::Rejected { passing, text }
}

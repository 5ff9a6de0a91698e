//! Routes that change: `/instances/{id}/update/…` and automatic progress.
//!
//! The protocol lets a server answer 202 and be polled. This one answers in the request itself, however
//! long that takes: clients wait without limit, and nothing is asked for twice.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode};
use candid::Principal;
use pocket_ic::{
    RejectResponse,
    common::rest::{
        AutoProgressConfig, RawAddCycles, RawCanisterResult, RawCycles, RawMessageId,
        RawSetStableMemory, RawTickConfigs, RawTime,
    },
};

use super::{
    call::Call,
    server::{Instance, Server},
    shapes::{ApiError, Json, Reply, canister_result, message_id, principal, reject},
};
use crate::{
    machine::StableMemory,
    network::{Ingress, Network, SubnetKind, TimeGoesBack},
};

pub async fn tick(instance: Instance, Json(config): Json<RawTickConfigs>) -> Reply<()> {
    if config.blockmakers.is_some() {
        return Err(ApiError::bad(
            "this network has no nodes, so blockmakers cannot be chosen",
        ));
    }
    instance.engine.run(|engine| engine.network.tick()).await?;
    Ok(Json(()))
}

pub async fn set_time(instance: Instance, Json(time): Json<RawTime>) -> Reply<()> {
    check_time(&time)?;
    instance
        .engine
        .run(move |engine| engine.network.set_time(time.nanos_since_epoch))
        .await?
        .map_err(|error| goes_back(time, error))?;
    Ok(Json(()))
}

/// Sets the time and runs a round, so that canisters have seen it.
pub async fn set_certified_time(instance: Instance, Json(time): Json<RawTime>) -> Reply<()> {
    check_time(&time)?;
    instance
        .engine
        .run(move |engine| {
            engine.network.set_time(time.nanos_since_epoch)?;
            engine.network.tick();
            Ok(())
        })
        .await?
        .map_err(|error| goes_back(time, error))?;
    Ok(Json(()))
}

/// A network's time ends in 2262, so that no deadline is beyond what a clock can show.
pub fn check_time(time: &RawTime) -> Result<(), ApiError> {
    let max = u64::MAX / 2;
    match time.nanos_since_epoch <= max {
        true => Ok(()),
        false => Err(ApiError::bad(format!(
            "{} ns is too late: the network's time ends at {max} ns",
            time.nanos_since_epoch
        ))),
    }
}

fn goes_back(asked: RawTime, TimeGoesBack { now_ns }: TimeGoesBack) -> ApiError {
    ApiError::bad(format!(
        "SettingTimeIntoPast: time cannot go back from {now_ns} ns to {} ns",
        asked.nanos_since_epoch
    ))
}

/// Hands a message in; it is executed in the next round.
pub async fn submit(instance: Instance, call: Call) -> Reply<Result<RawMessageId, RejectResponse>> {
    let effective_principal = call.effective_principal.clone();
    let ingress = call.ingress()?;
    let submitted = instance
        .engine
        .run(move |engine| {
            check_size(&engine.network, &ingress)?;
            Ok::<_, ApiError>(engine.network.submit(ingress))
        })
        .await??;
    Ok(Json(match submitted {
        Ok(id) => Ok(RawMessageId {
            effective_principal,
            message_id: id.to_vec(),
        }),
        Err(error) => Err(reject(error, false)),
    }))
}

/// The Internet Computer's limit on a message from outside; NNS subnets take a little more.
fn check_size(network: &Network, ingress: &Ingress) -> Result<(), ApiError> {
    let named = match ingress.canister == Principal::management_canister() {
        true => ingress.effective,
        false => Some(ingress.canister),
    };
    let max = match network.route(named.as_ref()).kind {
        SubnetKind::NNS => 7 << 19,
        _ => 2 << 20,
    };
    let said = ingress.sender_info.as_ref();
    let said = said.map_or(0, |said| said.info.len());
    let bytes = ingress.method.len() + ingress.arg.len() + said;
    if bytes <= max {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!(
            "The message is too large. Message byte size {bytes} is larger than the max allowed {max}."
        ),
    ))
}

/// Runs rounds until the message is answered.
pub async fn await_ingress(
    instance: Instance,
    Json(raw): Json<RawMessageId>,
) -> Reply<RawCanisterResult> {
    let answer = instance
        .engine
        .answer(message_id(&raw.message_id)?)
        .await??;
    Ok(Json(canister_result(answer, true)))
}

pub async fn add_cycles(instance: Instance, Json(raw): Json<RawAddCycles>) -> Reply<RawCycles> {
    let canister = principal(&raw.canister_id)?;
    let cycles = instance
        .engine
        .run(move |engine| engine.network.add_cycles(&canister, raw.amount))
        .await?
        .ok_or_else(|| ApiError::no_canister(&canister))?;
    Ok(Json(RawCycles { cycles }))
}

/// The bytes come from the blob store.
pub async fn set_stable_memory(
    State(server): State<Arc<Server>>,
    instance: Instance,
    Json(raw): Json<RawSetStableMemory>,
) -> Reply<()> {
    let canister = principal(&raw.canister_id)?;
    let blob = server.blob(&raw.blob_id.0).ok_or_else(|| {
        ApiError::bad(format!("there is no blob {}", hex::encode(&raw.blob_id.0)))
    })?;
    let image = move || blob.read(|bytes| StableMemory::from_reader(bytes, blob.len()));
    let memory = tokio::task::spawn_blocking(image)
        .await
        .map_err(ApiError::bad)?
        .map_err(ApiError::bad)?;
    let set = instance
        .engine
        .run(move |engine| engine.network.set_stable_memory(&canister, memory))
        .await?;
    if set {
        Ok(Json(()))
    } else {
        Err(ApiError::bad(format!(
            "Canister {canister} not found, or it contains no Wasm module"
        )))
    }
}

pub async fn auto_progress(
    instance: Instance,
    Json(config): Json<AutoProgressConfig>,
) -> Reply<()> {
    let delay = config.artificial_delay_ms.map(Duration::from_millis);
    instance
        .engine
        .run(move |engine| engine.start_progress(delay))
        .await?
        .map_err(ApiError::bad)?;
    Ok(Json(()))
}

pub async fn auto_progress_enabled(instance: Instance) -> Reply<bool> {
    Ok(Json(
        instance.engine.run(|engine| engine.in_progress()).await?,
    ))
}

pub async fn stop_progress(instance: Instance) -> Reply<()> {
    instance.engine.run(|engine| engine.stop_progress()).await?;
    Ok(Json(()))
}

//! Routes that look: `/instances/{id}/read/…`.

use axum::http::StatusCode;
use pocket_ic::common::rest::{
    RawCanisterHttpRequest, RawCanisterId, RawCanisterResult, RawCycles, RawIngressStatusArgs,
    RawPrincipalId, RawStableMemory, RawSubnetId, RawTime, Topology,
};

use super::{
    call::Call,
    server::Instance,
    shapes::{ApiError, Json, Reply, canister_result, message_id, principal},
};

pub async fn topology(instance: Instance) -> Json<Topology> {
    Json(instance.topology.as_ref().clone())
}

pub async fn get_time(instance: Instance) -> Reply<RawTime> {
    let nanos_since_epoch = instance
        .engine
        .run(|engine| engine.network.time_ns())
        .await?;
    Ok(Json(RawTime { nanos_since_epoch }))
}

/// No canister can ask for the web, so nothing ever waits for an answer from there.
pub async fn get_canister_http(_: Instance) -> Json<Vec<RawCanisterHttpRequest>> {
    Json(vec![])
}

pub async fn query(instance: Instance, call: Call) -> Reply<RawCanisterResult> {
    let query = call.ingress()?;
    let answer = instance
        .engine
        .run(move |engine| engine.network.query_as(query))
        .await?;
    Ok(Json(canister_result(answer, false)))
}

/// Null while the message runs. Only its sender may see the outcome, if the request names a caller.
pub async fn ingress_status(
    instance: Instance,
    Json(args): Json<RawIngressStatusArgs>,
) -> Reply<Option<RawCanisterResult>> {
    let message = message_id(&args.raw_message_id.message_id)?;
    let caller = match &args.raw_caller {
        Some(raw) => Some(principal(&raw.principal_id)?),
        None => None,
    };
    let status = instance
        .engine
        .run(move |engine| engine.status(&message, caller))
        .await?
        .map_err(|error| ApiError::new(StatusCode::FORBIDDEN, error.to_string()))?;
    Ok(Json(status.map(|answer| canister_result(answer, true))))
}

pub async fn get_controllers(
    instance: Instance,
    Json(raw): Json<RawCanisterId>,
) -> Reply<Vec<RawPrincipalId>> {
    let canister = principal(&raw.canister_id)?;
    let controllers = instance
        .engine
        .run(move |engine| engine.network.controllers(&canister))
        .await?
        .ok_or_else(|| ApiError::no_canister(&canister))?;
    Ok(Json(controllers.into_iter().map(Into::into).collect()))
}

pub async fn get_cycles(instance: Instance, Json(raw): Json<RawCanisterId>) -> Reply<RawCycles> {
    let canister = principal(&raw.canister_id)?;
    let cycles = instance
        .engine
        .run(move |engine| engine.network.cycles(&canister))
        .await?
        .ok_or_else(|| ApiError::no_canister(&canister))?;
    Ok(Json(RawCycles { cycles }))
}

pub async fn get_stable_memory(
    instance: Instance,
    Json(raw): Json<RawCanisterId>,
) -> Reply<RawStableMemory> {
    let canister = principal(&raw.canister_id)?;
    let blob = instance
        .engine
        .run(move |engine| engine.network.stable_memory(&canister))
        .await?
        .ok_or_else(|| {
            ApiError::bad(format!(
                "Canister {canister} not found, or it contains no Wasm module"
            ))
        })?;
    Ok(Json(RawStableMemory { blob }))
}

/// A subnet's public key, in DER.
pub async fn pub_key(instance: Instance, Json(raw): Json<RawSubnetId>) -> Reply<Vec<u8>> {
    let subnet = principal(&raw.subnet_id)?;
    let mut keys = instance.keys.iter();
    keys.find(|keys| keys.subnet() == subnet)
        .map(|keys| Json(keys.public.clone()))
        .ok_or_else(|| ApiError::bad(format!("Subnet {subnet} not found")))
}

/// Null unless the canister exists.
pub async fn get_subnet(
    instance: Instance,
    Json(raw): Json<RawCanisterId>,
) -> Reply<Option<RawSubnetId>> {
    let canister = principal(&raw.canister_id)?;
    let subnet = instance
        .engine
        .run(move |engine| engine.network.subnet_of(&canister))
        .await?;
    Ok(Json(subnet.map(Into::into)))
}

//! Faults on purpose, and lost subnets: `/instances/{id}/faults`, which the official client does not
//! know, and `update/delete_subnet`, which it does.

use pocket_ic::common::rest::RawSubnetId;

use super::{
    server::Instance,
    shapes::{ApiError, Json, Reply, principal},
};
use crate::network::{Decision, Plan};

/// Follows a plan from now on, instead of the one before; 400 where it cannot be followed.
pub async fn set(instance: Instance, Json(plan): Json<Plan>) -> Reply<()> {
    instance
        .engine
        .run(move |engine| engine.network.set_faults(plan))
        .await?
        .map_err(ApiError::bad)?;
    Ok(Json(()))
}

/// What struck since then.
pub async fn log(instance: Instance) -> Reply<Vec<Decision>> {
    let log = instance
        .engine
        .run(|engine| engine.network.fault_log().to_vec())
        .await?;
    Ok(Json(log))
}

pub async fn delete_subnet(instance: Instance, Json(raw): Json<RawSubnetId>) -> Reply<()> {
    let subnet = principal(&raw.subnet_id)?;
    let deleted = instance
        .engine
        .run(move |engine| engine.network.delete_subnet(&subnet))
        .await?;
    if deleted {
        Ok(Json(()))
    } else {
        Err(ApiError::bad(format!(
            "there is no subnet {subnet}, or it is the only one"
        )))
    }
}

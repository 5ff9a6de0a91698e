//! Updates.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use candid::Principal;
use ic_transport_types::{EnvelopeContent, TransportCallResponse};
use serde::Serialize;

use super::{Cbor, Effective, Envelope, Refusal, check_effective, query::reject, said, wrong_kind};
use crate::{
    envelope::Request,
    network::{Ingress, MessageId, Reject},
    rest::server::Instance,
};

/// How long a call is held for its answer; its sender polls after that.
const HELD_MAX: Duration = Duration::from_secs(10);
/// The only calls that a subnet takes without a canister.
const ON_SUBNETS: [&str; 2] = ["create_canister", "provisional_create_canister_with_cycles"];

/// Version 2: takes a call; its sender polls for the answer.
pub async fn submit(
    instance: Instance,
    Effective(effective): Effective,
    envelope: Envelope,
) -> Result<Response, Refusal> {
    let request = envelope.open(&instance).await?;
    check_call(&request, &effective)?;
    Ok(match take(&instance, request, effective).await? {
        Ok(_) => StatusCode::ACCEPTED.into_response(),
        Err(error) => Cbor(reject(error)).into_response(),
    })
}

/// Later versions: takes a call and waits for its answer.
pub async fn of_canister(
    instance: Instance,
    Effective(effective): Effective,
    envelope: Envelope,
) -> Result<Response, Refusal> {
    let request = envelope.open(&instance).await?;
    check_call(&request, &effective)?;
    answer(&instance, request, effective).await
}

/// The same for a call that names a subnet instead of a canister.
pub async fn of_subnet(
    instance: Instance,
    Effective(effective): Effective,
    envelope: Envelope,
) -> Result<Response, Refusal> {
    let request = envelope.open(&instance).await?;
    match &request.content {
        EnvelopeContent::Call {
            canister_id,
            method_name,
            ..
        } if *canister_id == Principal::management_canister()
            && ON_SUBNETS.contains(&method_name.as_str()) => {}
        EnvelopeContent::Call { .. } => {
            return Err(Refusal::bad(format!(
                "a call to a subnet is one of the management canister's {}",
                ON_SUBNETS.join(", ")
            )));
        }
        other => return Err(wrong_kind(other, "call")),
    }
    if !instance.keys.iter().any(|keys| keys.subnet() == effective) {
        return Err(Refusal::no_subnet(&effective));
    }
    answer(&instance, request, effective).await
}

fn check_call(request: &Request, effective: &Principal) -> Result<(), Refusal> {
    let EnvelopeContent::Call {
        canister_id, arg, ..
    } = &request.content
    else {
        return Err(wrong_kind(&request.content, "call"));
    };
    request.check_target(canister_id)?;
    check_effective(canister_id, arg, effective)
}

/// Hands the message in, unless that was done before: a message that comes twice is executed once.
async fn take(
    instance: &Instance,
    request: Request,
    effective: Principal,
) -> Result<Result<MessageId, Reject>, Refusal> {
    request.check_may_change()?;
    let taken = instance.engine.run(move |engine| {
        let network = &mut engine.network;
        request.check_time(network.time_ns())?;
        let id = request.id;
        let EnvelopeContent::Call {
            ingress_expiry,
            sender,
            canister_id,
            method_name,
            arg,
            sender_info,
            ..
        } = request.content
        else {
            return Err(wrong_kind(&request.content, "call"));
        };
        let ingress = Ingress {
            sender,
            sender_info: said(sender_info)?,
            canister: canister_id,
            method: method_name,
            arg,
            effective: Some(effective),
        };
        Ok(network.submit_as(id, ingress_expiry, ingress).map(|()| id))
    });
    taken.await?
}

async fn answer(
    instance: &Instance,
    request: Request,
    effective: Principal,
) -> Result<Response, Refusal> {
    let id = match take(instance, request, effective).await? {
        Ok(id) => id,
        Err(error) => {
            let refused = TransportCallResponse::NonReplicatedRejection(reject(error));
            return Ok(Cbor(refused).into_response());
        }
    };
    let answer = instance.engine.certificate(id, effective);
    Ok(match tokio::time::timeout(HELD_MAX, answer).await {
        Ok(certificate) => {
            let certificate = certificate?;
            Cbor(TransportCallResponse::Replied { certificate }).into_response()
        }
        Err(_) => (StatusCode::ACCEPTED, Cbor(Accepted { status: "accepted" })).into_response(),
    })
}

#[derive(Serialize)]
struct Accepted {
    status: &'static str,
}

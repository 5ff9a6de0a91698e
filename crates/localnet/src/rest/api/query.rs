//! Queries.

use candid::Principal;
use ic_transport_types::{
    EnvelopeContent, NodeSignature, QueryResponse, RejectCode, RejectResponse, ReplyResponse,
    RequestId,
};

use super::{Cbor, Effective, Envelope, Refusal, check_effective, said, wrong_kind};
use crate::{
    cert::SubnetKeys,
    envelope::Request,
    network::{Ingress, Reject},
    rest::{engine::Answer, server::Instance},
};

/// The only query that a subnet answers without a canister.
const ON_SUBNETS: &str = "list_canisters";

pub async fn of_canister(
    instance: Instance,
    Effective(effective): Effective,
    envelope: Envelope,
) -> Result<Cbor<QueryResponse>, Refusal> {
    let request = envelope.open(&instance).await?;
    if let EnvelopeContent::Query {
        canister_id, arg, ..
    } = &request.content
    {
        check_effective(canister_id, arg, &effective)?;
    }
    answer(&instance, request, effective).await
}

pub async fn of_subnet(
    instance: Instance,
    Effective(effective): Effective,
    envelope: Envelope,
) -> Result<Cbor<QueryResponse>, Refusal> {
    let request = envelope.open(&instance).await?;
    if let EnvelopeContent::Query {
        canister_id,
        method_name,
        ..
    } = &request.content
        && (*canister_id != Principal::management_canister() || method_name != ON_SUBNETS)
    {
        return Err(Refusal::bad(format!(
            "a query of a subnet is the management canister's {ON_SUBNETS}"
        )));
    }
    answer(&instance, request, effective).await
}

async fn answer(
    instance: &Instance,
    request: Request,
    effective: Principal,
) -> Result<Cbor<QueryResponse>, Refusal> {
    let id = RequestId::new(&request.id);
    let answered = instance.engine.run(move |engine| {
        let network = &mut engine.network;
        request.check_time(network.time_ns())?;
        if let EnvelopeContent::Query { canister_id, .. } = &request.content {
            request.check_target(canister_id)?;
        }
        let EnvelopeContent::Query {
            sender,
            canister_id,
            method_name,
            arg,
            sender_info,
            ..
        } = request.content
        else {
            return Err(wrong_kind(&request.content, "query"));
        };
        let answer = network.query_as(Ingress {
            sender,
            sender_info: said(sender_info)?,
            canister: canister_id,
            method: method_name,
            arg,
            effective: Some(effective),
        });
        let subnet = network.route(Some(&effective)).id;
        Ok((answer, subnet, network.time_ns()))
    });
    let (answer, subnet, time_ns) = answered.await??;
    let mut keys = instance.keys.iter();
    let keys = keys
        .find(|keys| keys.subnet() == subnet)
        .unwrap_or(&instance.keys[0]);
    Ok(Cbor(signed(answer, id, time_ns, keys)))
}

fn signed(answer: Answer, id: RequestId, timestamp: u64, keys: &SubnetKeys) -> QueryResponse {
    let mut response = match answer {
        Ok(arg) => QueryResponse::Replied {
            reply: ReplyResponse { arg },
            signatures: vec![],
        },
        Err(error) => QueryResponse::Rejected {
            reject: reject(error),
            signatures: vec![],
        },
    };
    let signature = NodeSignature {
        timestamp,
        signature: keys.sign_as_node(&response.signable(id, timestamp)),
        identity: keys.node(),
    };
    match &mut response {
        QueryResponse::Replied { signatures, .. } | QueryResponse::Rejected { signatures, .. } => {
            signatures.push(signature);
        }
    }
    response
}

/// A reject as agents read it. They know no code for an unknown outcome, which only calls between
/// canisters have.
pub fn reject(error: Reject) -> RejectResponse {
    RejectResponse {
        reject_code: RejectCode::try_from(error.code as u64).unwrap_or(RejectCode::SysTransient),
        error_code: Some(error.error_code_text()),
        reject_message: error.message,
    }
}

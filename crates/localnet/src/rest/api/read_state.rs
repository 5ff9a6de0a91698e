//! Reads of the certified state.

use ic_transport_types::{EnvelopeContent, ReadStateResponse};

use super::{
    Cbor, Effective, Envelope, Refusal,
    paths::{self, Scope},
    wrong_kind,
};
use crate::rest::server::Instance;

pub async fn of_canister(
    instance: Instance,
    Effective(effective): Effective,
    envelope: Envelope,
) -> Result<Cbor<ReadStateResponse>, Refusal> {
    answer(instance, Scope::Canister(effective), envelope).await
}

pub async fn of_subnet(
    instance: Instance,
    Effective(effective): Effective,
    envelope: Envelope,
) -> Result<Cbor<ReadStateResponse>, Refusal> {
    if !instance.keys.iter().any(|keys| keys.subnet() == effective) {
        return Err(Refusal::no_subnet(&effective));
    }
    answer(instance, Scope::Subnet(effective), envelope).await
}

async fn answer(
    instance: Instance,
    scope: Scope,
    envelope: Envelope,
) -> Result<Cbor<ReadStateResponse>, Refusal> {
    let request = envelope.open(&instance).await?;
    let certificate = instance.engine.run(move |engine| {
        let network = &mut engine.network;
        request.check_time(network.time_ns())?;
        let EnvelopeContent::ReadState { paths, .. } = &request.content else {
            return Err(wrong_kind(&request.content, "read_state"));
        };
        paths::check(network, &request, scope, paths)?;
        Ok(network.certificate(&scope.effective(), paths))
    });
    let certificate = certificate.await??;
    Ok(Cbor(ReadStateResponse { certificate }))
}

//! Every kind of identity makes calls and queries, and is who it says it is.

use candid::Principal;
use ic_agent::{
    Identity,
    identity::{
        AnonymousIdentity, BasicIdentity, DelegatedIdentity, Delegation, Prime256v1Identity,
        Secp256k1Identity, SignedDelegation,
    },
};

use crate::support::Bench;

fn ed25519(seed: u8) -> BasicIdentity {
    BasicIdentity::from_raw_key(&[seed; 32])
}

fn secp256k1() -> Secp256k1Identity {
    Secp256k1Identity::from_private_key(k256::SecretKey::from_slice(&[7; 32]).unwrap())
}

fn p256() -> Prime256v1Identity {
    Prime256v1Identity::from_private_key(p256::SecretKey::from_slice(&[7; 32]).unwrap())
}

async fn check(bench: &Bench, identity: impl Identity + 'static) {
    let sender = identity.sender().unwrap();
    let agent = bench.agent(identity).await;
    let queried = agent.query(&bench.canister, "caller").call().await;
    assert_eq!(queried.unwrap(), sender.as_slice());
    let updated = agent.update(&bench.canister, "caller_of_update");
    assert_eq!(updated.call_and_wait().await.unwrap(), sender.as_slice());
}

#[tokio::test]
async fn all_kinds_of_keys_call_and_query() {
    for bench in [Bench::start().await, Bench::alone().await] {
        check(&bench, AnonymousIdentity).await;
        check(&bench, ed25519(1)).await;
        check(&bench, secp256k1()).await;
        check(&bench, p256()).await;
    }
}

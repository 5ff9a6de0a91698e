//! Every kind of identity makes calls and queries, and is who it says it is.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use candid::{Principal, decode_one};
use ic_agent::{
    Identity, Signature,
    agent::EnvelopeContent,
    identity::{
        AnonymousIdentity, BasicIdentity, DelegatedIdentity, Delegation, InfoAwareIdentity,
        Prime256v1Identity, Secp256k1Identity, SignedDelegation,
    },
};
use ic_canister_sig_creation::CanisterSigPublicKey;
use ic_certification::{HashTree, fork, labeled, leaf};
use ic_transport_types::{DelegationPermissions, SenderInfo};
use openstorage_localnet::cert::{SubnetKeys, cbor};
use p256::ecdsa::signature::Signer;
use serde::Serialize;
use serde_bytes::ByteBuf;
use serde_cbor::Value;
use sha2::{Digest, Sha256};

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
    assert_eq!(decode_one::<Principal>(&queried.unwrap()).unwrap(), sender);
    let updated = agent.update(&bench.canister, "caller_of_update");
    let updated = updated.call_and_wait().await.unwrap();
    assert_eq!(decode_one::<Principal>(&updated).unwrap(), sender);
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

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_nanos().try_into().unwrap()
}

const HOUR_NS: u64 = 3_600_000_000_000;

/// One key hands over to another.
fn delegate(
    from: &dyn Identity,
    to: &dyn Identity,
    change: impl FnOnce(&mut Delegation),
) -> SignedDelegation {
    let mut delegation = Delegation {
        pubkey: to.public_key().unwrap(),
        expiration: now_ns() + HOUR_NS,
        targets: None,
        permissions: None,
    };
    change(&mut delegation);
    let signature = from.sign_delegation(&delegation).unwrap();
    SignedDelegation {
        signature: signature.signature.unwrap(),
        delegation,
    }
}

/// A chain through keys of all kinds, from `secp256k1` to `ed25519(1)`.
fn chain(change: impl FnOnce(&mut Delegation)) -> DelegatedIdentity {
    let links = vec![
        delegate(&secp256k1(), &p256(), |_| {}),
        delegate(&p256(), &ed25519(1), change),
    ];
    let key = secp256k1().public_key().unwrap();
    DelegatedIdentity::new_unchecked(key, Box::new(ed25519(1)), links)
}

async fn refuses(bench: &Bench, identity: impl Identity + 'static, why: &str) {
    let agent = bench.agent(identity).await;
    let called = agent.update(&bench.canister, "bump").call_and_wait().await;
    let text = format!("{:?}", called.expect_err(why));
    assert!(text.contains(why), "{why} is not in: {text}");
    assert_eq!(bench.count().await, 0);
}

#[tokio::test]
async fn delegations_hand_over_and_no_further_than_they_say() {
    let bench = Bench::start().await;
    check(&bench, chain(|_| {})).await;
    let here = bench.canister;
    check(&bench, chain(|link| link.targets = Some(vec![here]))).await;

    let elsewhere = Principal::from_slice(&[7; 10]);
    let other = chain(|link| link.targets = Some(vec![elsewhere]));
    refuses(&bench, other, "do not allow requests to canister").await;
    let over = chain(|link| link.expiration = now_ns() - HOUR_NS);
    refuses(&bench, over, "Invalid delegation expiry").await;
    let readers = chain(|link| link.permissions = Some(DelegationPermissions::Queries));
    refuses(&bench, readers, "queries only").await;

    // A link that its predecessor did not sign.
    let key = secp256k1().public_key().unwrap();
    let foreign = delegate(&ed25519(2), &ed25519(1), |_| {});
    let broken = DelegatedIdentity::new_unchecked(key, Box::new(ed25519(1)), vec![foreign]);
    refuses(&bench, broken, "Invalid signature: delegation 0").await;
}

#[tokio::test]
async fn a_chain_has_at_most_twenty_links() {
    let bench = Bench::start().await;
    let chain = |links: u8| {
        let links = (1..=links).map(|at| delegate(&ed25519(at), &ed25519(at + 1), |_| {}));
        let links: Vec<_> = links.collect();
        let last = ed25519(u8::try_from(links.len()).unwrap() + 1);
        let key = ed25519(1).public_key().unwrap();
        DelegatedIdentity::new_unchecked(key, Box::new(last), links)
    };
    check(&bench, chain(20)).await;
    refuses(&bench, chain(21), "there are 21 delegations").await;
}

/// A user of an identity service: the service's canister signs with this key.
fn user(service: Principal) -> CanisterSigPublicKey {
    CanisterSigPublicKey::new(service, b"a user of that service".to_vec())
}

/// The canister's signature of both messages by a user's key. As identity services do, it certifies the hash of a
/// tree of signatures.
async fn signed(bench: &Bench, messages: [&[u8]; 2]) -> Vec<u8> {
    let agent = bench.agent(AnonymousIdentity).await;
    let id = bench.canister;
    let mut hashes = messages.map(|message| Sha256::digest(message).to_vec());
    hashes.sort();
    let [first, second] = hashes.map(|hash| labeled(hash, leaf(b"")));
    let seed = Sha256::digest(user(id).seed).to_vec();
    let tree = labeled("sig", labeled(seed, fork(first, second)));
    let kept = agent.update(&id, "keep").with_arg(tree.digest());
    kept.call_and_wait().await.unwrap();
    let certificate = agent.query(&id, "certificate").call().await.unwrap();
    cbor(&CanisterSignature {
        certificate: ByteBuf::from(certificate),
        tree,
    })
}

/// From a user's key to a browser's.
fn to_browser() -> Delegation {
    Delegation {
        pubkey: ed25519(1).public_key().unwrap(),
        expiration: now_ns() + HOUR_NS,
        targets: None,
        permissions: None,
    }
}

fn in_browser(key: Vec<u8>, delegation: Delegation, signature: Vec<u8>) -> DelegatedIdentity {
    let link = SignedDelegation {
        delegation,
        signature,
    };
    DelegatedIdentity::new_unchecked(key, Box::new(ed25519(1)), vec![link])
}

#[tokio::test]
async fn canisters_sign_for_users() {
    let bench = Bench::start().await;
    let key = user(bench.canister).to_der();
    let delegation = to_browser();
    let signature = signed(&bench, [&delegation.signable(), b"another"]).await;
    let identity = |signature| in_browser(key.clone(), delegation.clone(), signature);
    check(&bench, identity(signature.clone())).await;

    let mut changed = signature.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    refuses(
        &bench,
        identity(changed.clone()),
        "Invalid signature: delegation 0",
    )
    .await;

    // The server verifies for whoever asks.
    let root = bench.pic.root_key().await.unwrap();
    let verify = async |signature, key, root| {
        let message = delegation.signable();
        bench
            .pic
            .verify_canister_signature(message, signature, key, root)
            .await
    };
    let (other_root, no_key) = (SubnetKeys::new(99, 0).public, vec![1; 40]);
    let other_key = ed25519(1).public_key().unwrap();
    verify(signature.clone(), key.clone(), root.clone())
        .await
        .unwrap();
    verify(changed, key.clone(), root.clone())
        .await
        .unwrap_err();
    verify(signature.clone(), key, other_root)
        .await
        .unwrap_err();
    verify(signature.clone(), other_key, root.clone())
        .await
        .unwrap_err();
    verify(signature, no_key, root).await.unwrap_err();
}

/// Says of itself what nobody needs to have signed.
struct Claims<I>(I, SenderInfo);

impl<I: Identity> Identity for Claims<I> {
    fn sender(&self) -> Result<Principal, String> {
        self.0.sender()
    }

    fn public_key(&self) -> Option<Vec<u8>> {
        self.0.public_key()
    }

    fn sign(&self, content: &EnvelopeContent) -> Result<Signature, String> {
        self.0.sign(content)
    }

    fn sender_info(&self) -> Option<SenderInfo> {
        Some(self.1.clone())
    }
}

#[tokio::test]
async fn canisters_say_something_of_their_users() {
    let bench = Bench::start().await;
    let here = bench.canister;
    let key = user(here).to_der();
    let info = b"email: somebody@example.org".to_vec();
    let delegation = to_browser();
    let message = [b"\x0Eic-sender-info".as_slice(), &info].concat();
    let signature = signed(&bench, [&delegation.signable(), &message]).await;
    let identity = || in_browser(key.clone(), delegation.clone(), signature.clone());
    let informed = InfoAwareIdentity::new_unchecked(identity(), info.clone(), signature.clone());
    let agent = bench.agent(informed.unwrap()).await;
    let asked = agent.query(&here, "said").call().await;
    assert_eq!(asked.unwrap(), info);
    let updated = agent.update(&here, "said_of_update").call_and_wait().await;
    assert_eq!(updated.unwrap(), info);
    let plain = bench.agent(identity()).await;
    let asked = plain.query(&here, "said").call().await;
    assert_eq!(asked.unwrap(), b"");

    let said = |signer: Principal| SenderInfo {
        info: info.clone(),
        signer: signer.as_slice().to_vec(),
        sig: signature.clone(),
    };
    let another = SenderInfo {
        info: b"email: other@example.org".to_vec(),
        ..said(here)
    };
    refuses(
        &bench,
        Claims(identity(), another),
        "Invalid sender_info: the canister signature",
    )
    .await;
    let elsewhere = Principal::from_slice(&[7; 10]);
    refuses(
        &bench,
        Claims(identity(), said(elsewhere)),
        "its signer is not the canister",
    )
    .await;
    refuses(
        &bench,
        Claims(ed25519(1), said(here)),
        "not the key of a canister",
    )
    .await;
    refuses(
        &bench,
        Claims(AnonymousIdentity, said(here)),
        "nobody sends it",
    )
    .await;
}

#[derive(Serialize)]
struct CanisterSignature {
    certificate: ByteBuf,
    tree: HashTree,
}

/// Signs as a browser does with a passkey.
#[derive(Debug)]
struct Passkey(p256::ecdsa::SigningKey);

impl Passkey {
    fn new() -> Self {
        Self(p256::ecdsa::SigningKey::from_slice(&[5; 32]).unwrap())
    }

    /// The object identifier of COSE keys, and the key in that form.
    fn der(&self) -> Vec<u8> {
        let point = self.0.verifying_key().to_encoded_point(false);
        let field = |label: i128, value| (Value::Integer(label), value);
        let cose = Value::Map(
            [
                field(1, Value::Integer(2)),
                field(3, Value::Integer(-7)),
                field(-1, Value::Integer(1)),
                field(-2, Value::Bytes(point.x().unwrap().to_vec())),
                field(-3, Value::Bytes(point.y().unwrap().to_vec())),
            ]
            .into(),
        );
        let cose = serde_cbor::to_vec(&cose).unwrap();
        let oid = [
            0x30, 0x0c, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xb8, 0x43, 0x01, 0x01,
        ];
        let bits = u8::try_from(cose.len() + 1).unwrap();
        let total = u8::try_from(oid.len() + 2 + usize::from(bits)).unwrap();
        [&[0x30, total], &oid[..], &[0x03, bits, 0x00], &cose].concat()
    }
}

#[derive(Serialize)]
struct Assertion {
    authenticator_data: ByteBuf,
    client_data_json: String,
    signature: ByteBuf,
}

impl Identity for Passkey {
    fn sender(&self) -> Result<Principal, String> {
        Ok(Principal::self_authenticating(self.der()))
    }

    fn public_key(&self) -> Option<Vec<u8>> {
        Some(self.der())
    }

    fn sign(&self, content: &EnvelopeContent) -> Result<Signature, String> {
        let challenge = URL_SAFE_NO_PAD.encode(content.to_request_id().signable());
        let client_data_json = format!(r#"{{"type":"webauthn.get","challenge":"{challenge}"}}"#);
        let authenticator_data = vec![1; 37];
        let signed = [&authenticator_data[..], &Sha256::digest(&client_data_json)].concat();
        let signature: p256::ecdsa::Signature = self.0.sign(&signed);
        let assertion = Assertion {
            authenticator_data: ByteBuf::from(authenticator_data),
            client_data_json,
            signature: ByteBuf::from(signature.to_der().as_bytes()),
        };
        Ok(Signature {
            public_key: self.public_key(),
            signature: Some(cbor(&assertion)),
            delegations: None,
        })
    }
}

#[tokio::test]
async fn passkeys_sign_too() {
    let bench = Bench::start().await;
    check(&bench, Passkey::new()).await;
}

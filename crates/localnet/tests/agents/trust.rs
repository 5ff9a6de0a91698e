//! What is not as it should be is refused: by agents, what a server says; by the server, what agents
//! say.

use std::time::{Duration, SystemTime};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, Uri},
};
use candid::Principal;
use ic_agent::{
    Agent, AgentError, Identity, Signature,
    agent::{CallResponse, EnvelopeContent, RequestStatusResponse},
    identity::{AnonymousIdentity, BasicIdentity},
};
use ic_transport_types::{Envelope, TransportCallResponse};
use openstorage_localnet::cert::SubnetKeys;

use crate::support::{Bench, agent, post};

fn somebody() -> BasicIdentity {
    BasicIdentity::from_raw_key(&[9; 32])
}

fn refused<T: std::fmt::Debug>(result: Result<T, AgentError>, why: &str) {
    let error = result.expect_err(why);
    let text = format!("{error:?}");
    assert!(text.contains(why), "{why} is not in: {text}");
}

async fn caller(agent: &Agent, canister: &Principal) -> Result<Vec<u8>, AgentError> {
    agent.query(canister, "caller").call().await
}

async fn caller_of_update(agent: &Agent, canister: &Principal) -> Result<Vec<u8>, AgentError> {
    agent
        .update(canister, "caller_of_update")
        .call_and_wait()
        .await
}

#[tokio::test]
async fn nothing_is_believed_under_another_root_key() {
    for bench in [Bench::start().await, Bench::alone().await] {
        let agent = agent(&bench.url, somebody());
        agent.set_root_key(SubnetKeys::new(99, 0).public);
        let id = &bench.canister;
        refused(caller(&agent, id).await, "CertificateVerificationFailed");
        refused(
            caller_of_update(&agent, id).await,
            "CertificateVerificationFailed",
        );
        let hash = agent.read_state_canister_module_hash(*id).await;
        refused(hash, "CertificateVerificationFailed");
    }
}

/// A server in the middle that changes one bit of every answer that names somebody.
async fn tamper(target: String) -> String {
    async fn relay(
        State(target): State<String>,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Vec<u8> {
        let url = format!("{}{}", target.trim_end_matches('/'), uri.path());
        let mut request = reqwest::Client::new().request(method, url).body(body);
        if let Some(kind) = headers.get("content-type") {
            request = request.header("content-type", kind);
        }
        let response = request.send().await.unwrap();
        let mut bytes = response.bytes().await.unwrap().to_vec();
        let named = somebody().sender().unwrap();
        let named = named.as_slice();
        if let Some(at) = bytes.windows(named.len()).position(|part| part == named) {
            bytes[at] ^= 1;
        }
        bytes
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().fallback(relay).with_state(target);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn a_changed_answer_is_not_believed() {
    let bench = Bench::start().await;
    let agent = agent(&tamper(bench.url.clone()).await, somebody());
    agent.fetch_root_key().await.unwrap();
    let id = &bench.canister;
    refused(caller(&agent, id).await, "QuerySignatureVerificationFailed");
    refused(
        caller_of_update(&agent, id).await,
        "CertificateVerificationFailed",
    );
    // What names nobody comes through unchanged.
    assert!(agent.read_state_canister_module_hash(*id).await.is_ok());
}

#[tokio::test]
async fn a_message_that_comes_again_is_answered_and_not_executed() {
    let bench = Bench::start().await;
    let agent = bench.agent(somebody()).await;
    let signed = agent.update(&bench.canister, "bump").sign().unwrap();
    let path = format!("api/v4/canister/{}/call", bench.canister);
    let mut replies = vec![];
    for _ in 0..3 {
        let (status, body) = post(&bench.url, &path, signed.signed_update.clone()).await;
        assert_eq!(status, 200);
        let response: TransportCallResponse = serde_cbor::from_slice(&body).unwrap();
        let TransportCallResponse::Replied { certificate } = response else {
            panic!("no reply: {response:?}");
        };
        let certificate: ic_certification::Certificate =
            serde_cbor::from_slice(&certificate).unwrap();
        agent.verify(&certificate, bench.canister).unwrap();
        let id = signed.request_id.as_slice();
        let reply = certificate
            .tree
            .lookup_path([b"request_status", id, b"reply"]);
        replies.push(format!("{reply:?}"));
    }
    assert_eq!(bench.count().await, 1);
    assert!(
        replies.iter().all(|reply| *reply == replies[0]),
        "{replies:?}"
    );
    let (status, _) = post(
        &bench.url,
        &path.replace("v4", "v2"),
        signed.signed_update.clone(),
    )
    .await;
    assert_eq!(status, 202);
    assert_eq!(bench.count().await, 1);
}

#[tokio::test]
async fn a_request_is_valid_for_five_minutes() {
    let bench = Bench::start().await;
    let agent = bench.agent(somebody()).await;
    let now = SystemTime::now();
    for (expiry, valid) in [
        (now - Duration::from_secs(1), false),
        (now + Duration::from_secs(200), true),
        (now + Duration::from_secs(340), false),
    ] {
        let called = agent
            .update(&bench.canister, "bump")
            .expire_at(expiry)
            .call_and_wait()
            .await;
        let queried = agent
            .query(&bench.canister, "count")
            .expire_at(expiry)
            .call()
            .await;
        assert_eq!(called.is_ok(), valid, "{called:?}");
        assert_eq!(queried.is_ok(), valid, "{queried:?}");
        if !valid {
            refused(called, "Invalid request expiry");
            refused(queried, "Invalid request expiry");
        }
    }
    assert_eq!(bench.count().await, 1);
}

/// Signs as one and claims to be another.
#[derive(Debug)]
struct Impostor {
    key: BasicIdentity,
    claims: Principal,
}

impl Identity for Impostor {
    fn sender(&self) -> Result<Principal, String> {
        Ok(self.claims)
    }

    fn public_key(&self) -> Option<Vec<u8>> {
        self.key.public_key()
    }

    fn sign(&self, content: &EnvelopeContent) -> Result<Signature, String> {
        self.key.sign(content)
    }
}

#[tokio::test]
async fn nobody_speaks_for_another() {
    let bench = Bench::start().await;
    let agent = bench
        .agent(Impostor {
            key: BasicIdentity::from_raw_key(&[1; 32]),
            claims: somebody().sender().unwrap(),
        })
        .await;
    let why = "does not belong to the public key";
    refused(caller(&agent, &bench.canister).await, why);
    refused(caller_of_update(&agent, &bench.canister).await, why);
    let hash = agent.read_state_canister_module_hash(bench.canister).await;
    refused(hash, why);
}

#[tokio::test]
async fn envelopes_are_as_they_were_signed() {
    let bench = Bench::start().await;
    let agent = bench.agent(somebody()).await;
    let signed = agent.update(&bench.canister, "bump").sign().unwrap();
    let path = format!("api/v4/canister/{}/call", bench.canister);
    let envelope: Envelope = serde_cbor::from_slice(&signed.signed_update).unwrap();

    let mut other_method = envelope.clone();
    if let EnvelopeContent::Call { method_name, .. } = other_method.content.to_mut() {
        *method_name = "keep".into();
    }
    let mut other_signature = envelope.clone();
    other_signature.sender_sig.as_mut().unwrap()[0] ^= 1;
    let mut no_signature = envelope.clone();
    no_signature.sender_sig = None;
    let anonymous = bench.anonymous().await;
    let by_nobody = anonymous.update(&bench.canister, "bump").sign().unwrap();
    let mut by_nobody: Envelope = serde_cbor::from_slice(&by_nobody.signed_update).unwrap();
    by_nobody.sender_sig = envelope.sender_sig.clone();
    for (changed, why) in [
        (other_method, "Invalid signature"),
        (other_signature, "Invalid signature"),
        (no_signature, "needs sender_pubkey and sender_sig"),
        (by_nobody, "an anonymous request has neither key nor"),
    ] {
        let (status, body) = post(&bench.url, &path, changed.encode_bytes()).await;
        assert_eq!(status, 400);
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains(why), "{body}");
    }
    for (bytes, expected) in [
        (b"no CBOR at all".to_vec(), 400),
        (vec![], 400),
        // Arrays in arrays without an end.
        (vec![0x81; 1 << 20], 400),
        (vec![0; (2 << 20) + 1], 413),
    ] {
        let (status, body) = post(&bench.url, &path, bytes).await;
        assert_eq!(status, expected, "{}", String::from_utf8_lossy(&body));
    }
    let elsewhere = path.replace(&bench.canister.to_text(), "rrkah-fqaaa-aaaaa-aaaaq-cai");
    let (status, body) = post(&bench.url, &elsewhere, signed.signed_update).await;
    assert_eq!(status, 400);
    let body = String::from_utf8(body).unwrap();
    assert!(
        body.contains("does not match effective canister id"),
        "{body}"
    );
    assert_eq!(bench.count().await, 0);
}

#[tokio::test]
async fn rejects_tell_their_code() {
    let bench = Bench::start().await;
    let agent = agent(&bench.url, AnonymousIdentity);
    agent.fetch_root_key().await.unwrap();
    let id = &bench.canister;
    for (method, why) in [
        ("no", "IC0406"),
        ("die", "IC0503"),
        ("nothing_of_that_name", "IC0536"),
    ] {
        let called = agent.update(id, method).call_and_wait().await;
        refused(called, why);
    }
    for (method, why) in [("refuse", "IC0406"), ("nothing_of_that_name", "IC0536")] {
        refused(agent.query(id, method).call().await, why);
    }
}

#[tokio::test]
async fn a_call_that_takes_long_is_polled_for() {
    let bench = Bench::start().await;
    let agent = bench.agent(somebody()).await;
    bench.pic.stop_progress().await;
    let called = agent.update(&bench.canister, "bump").call().await.unwrap();
    let CallResponse::Poll(id) = called else {
        panic!("answered without a round: {called:?}");
    };
    let (status, _) = agent.request_status_raw(&id, bench.canister).await.unwrap();
    assert_eq!(status, RequestStatusResponse::Received);
    bench.pic.auto_progress().await;
    let (reply, _) = agent.wait(&id, bench.canister).await.unwrap();
    assert_eq!(candid::decode_one::<u32>(&reply).unwrap(), 1);
}

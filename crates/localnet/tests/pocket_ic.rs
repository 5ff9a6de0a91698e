//! The official PocketIC client against this server, and a browser's requests through its gateway.

use std::time::Duration;

use candid::{CandidType, Encode, Principal, encode_one};
use openstorage_localnet::rest::{self, Config, Running};
use pocket_ic::{
    ErrorCode, IngressStatusResult, PocketIcBuilder, RejectCode, StartServerParams,
    common::rest::{BlobCompression, SubnetConfigSet},
    nonblocking::PocketIc,
    start_server,
};
use reqwest::{Client, Response, StatusCode};
use serde_bytes::ByteBuf;

/// Keeps a counter; the rest of it answers what it was built with.
const CODE: &str = r#"
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reject" (func $reject (param i32 i32)))
  (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
  (import "ic0" "time" (func $time (result i64)))
  (import "ic0" "global_timer_set" (func $timer_set (param i64) (result i64)))
  (import "ic0" "trap" (func $trap (param i32 i32)))
  (memory 4)
  (data (i32.const 8) "as asked")
  (func $answer (call $append (i32.const 0) (i32.const 4)) (call $reply))
  (func $bump (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
  (func (export "canister_init") (drop (call $grow (i64.const 1))))
  (func (export "canister_global_timer") (call $bump))
  (func (export "canister_query count") (call $answer))
  (func (export "canister_update bump") (call $bump) (call $answer))
  (func (export "canister_update later")
    (drop (call $timer_set (i64.add (call $time) (i64.const 1000000000)))) (call $answer))
  (func (export "canister_update no") (call $reject (i32.const 8) (i32.const 8)))
  (func (export "canister_update die") (call $bump) (call $trap (i32.const 8) (i32.const 8)))
  (func (export "canister_query now")
    (i64.store (i32.const 16) (call $time)) (call $append (i32.const 16) (i32.const 8)) (call $reply))
  ;; Whether the argument, copied to 131072, holds these bytes.
  (func $has (param $needle i32) (param $len i32) (result i32) (local $at i32) (local $i i32)
    (loop $next
      (if (i32.gt_u (i32.add (local.get $at) (local.get $len)) (call $arg_size)) (then (return (i32.const 0))))
      (local.set $i (i32.const 0))
      (loop $same
        (if (i32.eq (local.get $i) (local.get $len)) (then (return (i32.const 1))))
        (if (i32.eq
              (i32.load8_u (i32.add (i32.const 131072) (i32.add (local.get $at) (local.get $i))))
              (i32.load8_u (i32.add (local.get $needle) (local.get $i))))
          (then (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $same))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))
    (unreachable))
"#;

#[derive(CandidType)]
struct HttpResponse {
    status_code: u16,
    headers: Vec<(String, String)>,
    body: ByteBuf,
    upgrade: Option<bool>,
}

fn answer(status_code: u16, headers: &[(&str, &str)], body: &str) -> HttpResponse {
    HttpResponse {
        status_code,
        headers: headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        body: ByteBuf::from(body.as_bytes()),
        upgrade: None,
    }
}

fn part(range: &str, body: &str) -> HttpResponse {
    let headers = [("Content-Range", range), ("ETag", "\"1\"")];
    answer(206, &headers, body)
}

/// A canister that answers `http_request` by the first text that the request holds.
fn module(pages: &[(&str, HttpResponse)], updated: &HttpResponse) -> Vec<u8> {
    let mut data = String::new();
    let mut end = 1024;
    let mut place = |bytes: &[u8]| {
        let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        data += &format!("(data (i32.const {end}) \"{escaped}\")\n");
        end += bytes.len();
        format!(
            "(i32.const {}) (i32.const {})",
            end - bytes.len(),
            bytes.len()
        )
    };
    let mut rules = String::new();
    for (needle, page) in pages {
        let (needle, page) = (place(needle.as_bytes()), place(&encode_one(page).unwrap()));
        rules += &format!(
            "(if (call $has {needle}) (then (call $append {page}) (call $reply) (return)))\n"
        );
    }
    let updated = place(&encode_one(updated).unwrap());
    let text = format!(
        r#"(module {CODE} {data}
        (func (export "canister_query http_request")
          (call $arg_copy (i32.const 131072) (i32.const 0) (call $arg_size))
          {rules} (call $trap (i32.const 8) (i32.const 8)))
        (func (export "canister_update http_request_update")
          (call $bump) (call $append {updated}) (call $reply)))"#
    );
    wat::parse_str(text).unwrap()
}

fn pages() -> Vec<u8> {
    let upgrade = HttpResponse {
        upgrade: Some(true),
        ..answer(200, &[], "")
    };
    let pages = [
        (
            "/hello",
            answer(200, &[("Content-Type", "text/plain")], "hello"),
        ),
        ("/gone", answer(410, &[], "gone")),
        ("/update", upgrade),
        ("/lie", part("bytes 0-9/20", "four")),
        ("bytes=4-", part("bytes 4-7/10", "4567")),
        ("bytes=8-", part("bytes 8-9/10", "89")),
        ("/long", part("bytes 0-3/10", "0123")),
        ("/broken", part("bytes 0-3/12", "0123")),
    ];
    module(&pages, &answer(200, &[], "updated"))
}

async fn server() -> Running {
    rest::serve(Config {
        address: ([127, 0, 0, 1], 0).into(),
        ttl: None,
        compile_cache: None,
    })
    .await
    .unwrap()
}

fn builder(server: &Running) -> PocketIcBuilder {
    let url = format!("http://{}/", server.address());
    PocketIcBuilder::new_with_config(SubnetConfigSet::default())
        .with_server_url(url.parse().unwrap())
}

async fn network(server: &Running) -> PocketIc {
    builder(server)
        .with_application_subnet()
        .build_async()
        .await
}

/// A canister with the test's code and cycles.
async fn install(pic: &PocketIc) -> Principal {
    let canister = pic.create_canister().await;
    pic.add_cycles(canister, 1_000_000_000_000).await;
    pic.install_canister(canister, pages(), vec![], None).await;
    canister
}

async fn count(pic: &PocketIc, canister: Principal) -> u32 {
    let anonymous = Principal::anonymous();
    let bytes = pic
        .query_call(canister, anonymous, "count", vec![])
        .await
        .unwrap();
    u32::from_le_bytes(bytes.try_into().unwrap())
}

#[tokio::test]
async fn calls_change_and_queries_show() {
    let server = server().await;
    let pic = network(&server).await;
    let canister = install(&pic).await;
    let anonymous = Principal::anonymous();
    let bumped = pic.update_call(canister, anonymous, "bump", vec![]).await;
    assert_eq!(bumped, Ok(1u32.to_le_bytes().to_vec()));
    assert_eq!(count(&pic, canister).await, 1);

    assert!(pic.canister_exists(canister).await);
    assert_eq!(pic.get_controllers(canister).await, vec![anonymous]);
    let subnet = pic.topology().await.get_app_subnets()[0];
    assert_eq!(pic.get_subnet(canister).await, Some(subnet));
    assert_eq!(pic.topology().await.get_subnet(canister), Some(subnet));
    let cycles = pic.cycle_balance(canister).await;
    assert_eq!(pic.add_cycles(canister, 7).await, cycles + 7);
    let status = pic.canister_status(canister, None).await.unwrap();
    assert!(status.module_hash.is_some());
    let nowhere = Principal::from_slice(&[9; 10]);
    assert_eq!(pic.get_subnet(nowhere).await, None);
    pic.drop().await;
}

#[tokio::test]
async fn refusals_carry_the_internet_computers_codes() {
    let server = server().await;
    let pic = network(&server).await;
    let canister = install(&pic).await;
    let anonymous = Principal::anonymous();
    let refused = async |canister, method| {
        pic.update_call(canister, anonymous, method, vec![])
            .await
            .unwrap_err()
    };
    let said = refused(canister, "no").await;
    assert_eq!(said.reject_code, RejectCode::CanisterReject);
    assert_eq!(said.reject_message, "as asked");
    assert!(said.certified);
    let trapped = refused(canister, "die").await;
    assert_eq!(trapped.error_code, ErrorCode::CanisterCalledTrap);
    assert_eq!(trapped.reject_code, RejectCode::CanisterError);
    assert_eq!(count(&pic, canister).await, 0);
    let no_method = refused(canister, "nothing").await;
    assert_eq!(no_method.error_code, ErrorCode::CanisterMethodNotFound);
    assert!(!no_method.certified);
    let nobody = refused(Principal::from_slice(&[9; 10]), "bump").await;
    assert_eq!(nobody.error_code, ErrorCode::CanisterNotFound);
    assert_eq!(nobody.reject_code, RejectCode::DestinationInvalid);
    pic.drop().await;
}

#[tokio::test]
async fn a_message_is_executed_by_a_tick_and_shown_to_its_sender_only() {
    let server = server().await;
    let pic = network(&server).await;
    let canister = install(&pic).await;
    let (sender, other) = (
        Principal::from_slice(&[1; 29]),
        Principal::from_slice(&[2; 29]),
    );
    let message = pic
        .submit_call(canister, sender, "bump", vec![])
        .await
        .unwrap();
    assert_eq!(pic.ingress_status(message.clone()).await, None);
    // As long as there is nothing to tell, nobody is turned away.
    assert!(matches!(
        pic.ingress_status_as(message.clone(), other).await,
        IngressStatusResult::NotAvailable
    ));
    assert_eq!(count(&pic, canister).await, 0);
    pic.tick().await;
    let done = Ok(1u32.to_le_bytes().to_vec());
    assert_eq!(
        pic.ingress_status(message.clone()).await,
        Some(done.clone())
    );
    assert!(matches!(
        pic.ingress_status_as(message.clone(), other).await,
        IngressStatusResult::Forbidden(_)
    ));
    assert_eq!(pic.await_call(message).await, done);
    pic.drop().await;
}

#[tokio::test]
async fn time_stands_until_it_is_moved_and_timers_follow_it() {
    let server = server().await;
    let pic = network(&server).await;
    let canister = install(&pic).await;
    let anonymous = Principal::anonymous();
    pic.update_call(canister, anonymous, "later", vec![])
        .await
        .unwrap();
    pic.tick().await;
    assert_eq!(count(&pic, canister).await, 0);
    let before = pic.get_time().await;
    pic.advance_time(Duration::from_secs(2)).await;
    pic.tick().await;
    assert_eq!(count(&pic, canister).await, 1);
    assert!(pic.get_time().await >= before + Duration::from_secs(2));

    let later = pic.get_time().await + Duration::from_secs(1);
    pic.set_certified_time(later).await;
    let now = pic
        .query_call(canister, anonymous, "now", vec![])
        .await
        .unwrap();
    let now = u64::from_le_bytes(now.try_into().unwrap());
    assert!(now >= later.as_nanos_since_unix_epoch());
    pic.drop().await;
}

#[tokio::test]
async fn automatic_progress_runs_timers_by_the_wall_clock() {
    let server = server().await;
    let pic = network(&server).await;
    let canister = install(&pic).await;
    pic.auto_progress().await;
    assert!(pic.auto_progress_enabled().await);
    let anonymous = Principal::anonymous();
    pic.update_call(canister, anonymous, "later", vec![])
        .await
        .unwrap();
    while count(&pic, canister).await == 0 {}
    let message = pic
        .submit_call(canister, anonymous, "bump", vec![])
        .await
        .unwrap();
    assert!(pic.await_call_no_ticks(message).await.is_ok());
    pic.stop_progress().await;
    assert!(!pic.auto_progress_enabled().await);
    let time = pic.get_time().await;
    assert_eq!(pic.get_time().await, time);
    pic.drop().await;
}

#[tokio::test]
async fn stable_memory_goes_in_and_out() {
    let server = server().await;
    let pic = network(&server).await;
    let canister = install(&pic).await;
    for compression in [BlobCompression::NoCompression, BlobCompression::Gzip] {
        let bytes = vec![compression as u8 + 1; 65_536];
        let sent = match compression {
            BlobCompression::NoCompression => bytes.clone(),
            BlobCompression::Gzip => {
                let mut packed = vec![];
                let mut packer = flate2::read::GzEncoder::new(&bytes[..], Default::default());
                std::io::Read::read_to_end(&mut packer, &mut packed).unwrap();
                packed
            }
        };
        pic.set_stable_memory(canister, sent, compression).await;
        assert_eq!(pic.get_stable_memory(canister).await, bytes);
    }
    pic.drop().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused() {
    let server = server().await;
    let pic = network(&server).await;
    let canister = install(&pic).await;
    let bytes = |len| vec![42; len];
    let anonymous = Principal::anonymous();
    let method = "bump";
    let fits = bytes((2 << 20) - method.len());
    pic.update_call(canister, anonymous, method, fits)
        .await
        .unwrap();
    let client = Client::builder().no_proxy().build().unwrap();
    let base = format!("http://{}/instances/{}", server.address(), pic.instance_id);
    for (len, named) in [
        (2 << 20, "larger than the max allowed 2097152"),
        (70 << 20, "length limit exceeded"),
    ] {
        let call = pocket_ic::common::rest::RawCanisterCall {
            sender: anonymous.as_slice().to_vec(),
            canister_id: canister.as_slice().to_vec(),
            effective_principal: pocket_ic::common::rest::RawEffectivePrincipal::None,
            method: method.into(),
            payload: bytes(len),
            sender_info: None,
        };
        let request = client
            .post(format!("{base}/update/submit_ingress_message"))
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&call).unwrap());
        // A server that has heard enough may close the connection before everything is sent.
        let Ok(response) = request.send().await else {
            continue;
        };
        let (status, message) = refusal(response).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(message.contains(named), "{message}");
    }
    assert_eq!(count(&pic, canister).await, 1);
    pic.drop().await;
}

#[tokio::test]
async fn two_instances_know_nothing_of_each_other() {
    let server = server().await;
    let (one, other) = (network(&server).await, network(&server).await);
    assert_ne!(one.instance_id, other.instance_id);
    let (canister, same) = (install(&one).await, install(&other).await);
    assert_eq!(canister, same);
    let anonymous = Principal::anonymous();
    let bumps = (0..5).map(|_| one.update_call(canister, anonymous, "bump", vec![]));
    for bump in bumps {
        bump.await.unwrap();
    }
    assert_eq!(count(&one, canister).await, 5);
    assert_eq!(count(&other, canister).await, 0);
    one.drop().await;
    assert_eq!(count(&other, canister).await, 0);
    other.drop().await;
}

#[tokio::test]
async fn subnets_are_those_that_were_asked_for() {
    let server = server().await;
    let pic = builder(&server)
        .with_nns_subnet()
        .with_application_subnet()
        .with_application_subnet()
        .build_async()
        .await;
    let topology = pic.topology().await;
    assert_eq!(topology.subnet_configs.len(), 3);
    let subnets = topology.get_app_subnets();
    for subnet in subnets.into_iter().chain(topology.get_nns()) {
        let canister = pic.create_canister_on_subnet(None, None, subnet).await;
        assert_eq!(pic.get_subnet(canister).await, Some(subnet));
        assert_eq!(topology.get_subnet(canister), Some(subnet));
    }
    pic.drop().await;
}

/// The JSON error that a request gets.
async fn refusal(response: Response) -> (StatusCode, String) {
    let status = response.status();
    let body: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    (status, body["message"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn wrong_requests_are_answered_with_a_sentence() {
    let server = server().await;
    let pic = network(&server).await;
    let client = Client::builder().no_proxy().build().unwrap();
    let base = format!("http://{}", server.address());
    let instance = format!("{base}/instances/{}", pic.instance_id);
    let post = async |url: String, body: &str| {
        let request = client
            .post(url)
            .header("content-type", "application/json")
            .body(body.to_owned());
        refusal(request.send().await.unwrap()).await
    };
    for (url, named) in [
        (format!("{base}/nothing"), "POST /nothing"),
        (format!("{instance}/read/get_time"), "/read/get_time"),
        (format!("{instance}/api/v2/status"), "/api/v2/status"),
        (format!("{base}/instances/99/update/tick"), "instance 99"),
    ] {
        let (status, message) = post(url, "{\"blockmakers\":null}").await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{message}");
        assert!(message.contains(named), "{message}");
    }
    let (status, message) = post(format!("{instance}/update/set_time"), "{").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{message}");
    let past = "{\"nanos_since_epoch\":1}";
    let (status, message) = post(format!("{instance}/update/set_time"), past).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(message.contains("cannot go back"), "{message}");
    let no_blob = "{\"canister_id\":\"BA==\",\"blob_id\":\"BA==\"}";
    let (_, message) = post(format!("{instance}/update/set_stable_memory"), no_blob).await;
    assert_eq!(message, "there is no blob 04");
    let unknown = format!(
        "{{\"effective_principal\":\"None\",\"message_id\":\"{}=\"}}",
        "A".repeat(43)
    );
    let (_, message) = post(format!("{instance}/update/await_ingress_message"), &unknown).await;
    assert!(message.contains("there is no message 00"), "{message}");
    pic.drop().await;
}

/// A gateway's port and a client for it.
struct Browser {
    client: Client,
    port: u16,
}

impl Browser {
    async fn open(pic: &mut PocketIc) -> Self {
        Self {
            client: Client::builder().no_proxy().build().unwrap(),
            port: pic.make_live(None).await.port().unwrap(),
        }
    }

    async fn get(&self, host: &str, path: &str) -> Response {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let host = format!("{host}:{}", self.port);
        let request = self.client.get(url).header("host", host);
        request.send().await.unwrap()
    }
}

#[tokio::test]
async fn browsers_reach_canisters_by_host_and_by_query() {
    let server = server().await;
    let mut pic = network(&server).await;
    let canister = install(&pic).await;
    let browser = Browser::open(&mut pic).await;
    let raw = format!("{canister}.raw.localhost");
    for (host, path) in [
        (raw.as_str(), "/hello".to_owned()),
        ("raw.localhost", format!("/hello?canisterId={canister}")),
        ("raw.localhost", format!("/hello?a=1&canisterId={canister}")),
    ] {
        let response = browser.get(host, &path).await;
        assert_eq!(response.status(), 200, "{host}{path}");
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(response.headers()["content-length"], "5");
        assert_eq!(response.headers()["x-ic-verified"], "false");
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        assert_eq!(response.text().await.unwrap(), "hello");
    }
    // Nothing of it is certified, so elsewhere it is refused.
    let host = format!("{canister}.localhost");
    for (host, path) in [
        (host.as_str(), "/hello".to_owned()),
        ("localhost", format!("/hello?canisterId={canister}")),
        ("127.0.0.1", format!("/hello?a=1&canisterId={canister}")),
    ] {
        let response = browser.get(host, &path).await;
        assert_eq!(response.status(), 503, "{host}{path}");
        assert_eq!(response.headers()["x-ic-verified"], "false");
        let reason = response.text().await.unwrap();
        assert!(reason.contains("verification failed"), "{reason}");
    }
    assert_eq!(browser.get(&raw, "/gone").await.status(), 410);
    let updated = browser.get(&host, "/update").await;
    assert_eq!(updated.headers()["x-ic-verified"], "true");
    assert_eq!(updated.text().await.unwrap(), "updated");
    assert_eq!(count(&pic, canister).await, 1);

    let unnamed = browser.get("localhost", "/hello").await;
    assert_eq!(unnamed.status(), 400);
    let trapped = browser.get(&host, "/trap").await;
    assert_eq!(trapped.status(), 502);
    assert!(trapped.text().await.unwrap().contains("as asked"));
    pic.stop_canister(canister, None).await.unwrap();
    assert_eq!(browser.get(&host, "/hello").await.status(), 502);
    let nowhere = browser
        .get("rrkah-fqaaa-aaaaa-aaaaq-cai.localhost", "/")
        .await;
    assert_eq!(nowhere.status(), 404);
    pic.drop().await;
}

#[tokio::test]
async fn a_body_in_parts_arrives_whole_unless_a_part_was_asked_for() {
    let server = server().await;
    let mut pic = network(&server).await;
    let canister = install(&pic).await;
    let browser = Browser::open(&mut pic).await;
    let host = format!("{canister}.raw.localhost");

    let whole = browser.get(&host, "/long").await;
    assert_eq!(whole.status(), 200);
    assert_eq!(whole.headers()["content-length"], "10");
    assert_eq!(whole.headers()["etag"], "\"1\"");
    assert!(!whole.headers().contains_key("content-range"));
    assert_eq!(whole.text().await.unwrap(), "0123456789");

    let url = format!(
        "http://127.0.0.1:{}/long?canisterId={canister}",
        browser.port
    );
    let asked = browser.client.get(&url).header("host", "raw.localhost");
    let part = asked.header("range", "bytes=4-").send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 4-7/10");
    assert_eq!(part.headers()["content-length"], "4");
    assert_eq!(part.text().await.unwrap(), "4567");

    // A part that does not fit comes too late for a status, so the connection breaks off, before or
    // after the headers have left.
    for page in ["lie", "broken"] {
        let url = format!(
            "http://127.0.0.1:{}/{page}?canisterId={canister}",
            browser.port
        );
        let asked = browser.client.get(&url).header("host", "raw.localhost");
        let broken = async { asked.send().await?.bytes().await };
        assert!(broken.await.is_err(), "{page}");
    }
    pic.drop().await;
}

#[tokio::test]
async fn a_port_is_one_gateways_until_that_stops() {
    let server = server().await;
    let (mut one, other) = (network(&server).await, network(&server).await);
    let port = one.make_live(None).await.port().unwrap();
    let client = Client::builder().no_proxy().build().unwrap();
    let create = async |port: u16| {
        let url = format!("http://{}/http_gateway", server.address());
        let body = format!(
            "{{\"port\":{port},\"forward_to\":{{\"PocketIcInstance\":{}}}}}",
            other.instance_id
        );
        let request = client
            .post(url)
            .header("content-type", "application/json")
            .body(body);
        request.send().await.unwrap().text().await.unwrap()
    };
    let taken = create(port).await;
    assert!(
        taken.contains("Error") && taken.contains("cannot listen"),
        "{taken}"
    );
    one.stop_live().await;
    let created = create(port).await;
    assert!(created.contains("Created"), "{created}");
    other.drop().await;
    one.make_live(Some(port)).await;
    one.drop().await;
}

#[tokio::test]
async fn the_binary_is_a_server_to_the_official_client_and_ends_by_itself() {
    let (mut process, url) = start_server(StartServerParams {
        server_binary: Some(env!("CARGO_BIN_EXE_pocket-ic-server").into()),
        reuse: false,
        ttl: Some(Duration::from_secs(1)),
        hard_ttl: None,
    })
    .await;
    let pic = PocketIcBuilder::new_with_config(SubnetConfigSet::default())
        .with_application_subnet()
        .with_server_url(url)
        .build_async()
        .await;
    let canister = install(&pic).await;
    assert_eq!(count(&pic, canister).await, 0);
    pic.drop().await;
    assert!(process.wait().unwrap().success());
}

#[tokio::test]
async fn a_large_module_is_installed_in_chunks() {
    let server = server().await;
    let pic = network(&server).await;
    let canister = pic.create_canister().await;
    pic.add_cycles(canister, 1_000_000_000_000).await;
    let argument = vec![7; 2_000_000];
    let wasm = pages();
    pic.install_canister(
        canister,
        wasm,
        Encode!(&ByteBuf::from(argument)).unwrap(),
        None,
    )
    .await;
    assert_eq!(count(&pic, canister).await, 0);
    pic.drop().await;
}

//! 100 MB through the official client, beside what the machine needs to hash and copy them, and beside the
//! client alone.

use std::{hint::black_box, path::PathBuf, sync::Arc, time::Instant};

use axum::{Router, body::Bytes, extract::DefaultBodyLimit, routing::post};
use candid::Principal;
use pocket_ic::{
    PocketIcBuilder, RejectResponse, StartServerParams,
    common::rest::{RawCanisterResult, RawEffectivePrincipal, RawMessageId},
    nonblocking::PocketIc,
    start_server,
};
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, task::JoinSet};

use super::{RUNS, Report, best};

const BYTES: usize = 100_000_000;
const CHUNK_BYTES: usize = 1_900_000;

/// How many tasks push at once, and what that is called. A front end has several chunks under way.
const TASKS: [(usize, &str, &str); 3] = [
    (1, "one after the other", "ratio"),
    (2, "two at a time", "paired_ratio"),
    (8, "eight at a time", "by_eight_ratio"),
];

/// Writes each argument to stable memory behind the last one, and begins again where there is no room.
const KEEP: &str = r#"(module
    (import "ic0" "msg_arg_data_size" (func $size (result i32)))
    (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (memory 32)
    (global $at (mut i64) (i64.const 0))
    (func (export "canister_init") (drop (call $grow (i64.const 1526))))
    (func (export "canister_update keep") (local $len i64)
        (local.set $len (i64.extend_i32_u (call $size)))
        (if (i64.gt_u (i64.add (global.get $at) (local.get $len)) (i64.const 100000000))
            (then (global.set $at (i64.const 0))))
        (call $copy (i32.const 0) (i32.const 0) (call $size))
        (call $write (global.get $at) (i64.const 0) (local.get $len))
        (global.set $at (i64.add (global.get $at) (local.get $len)))
        (call $reply)))"#;

/// `server` is the program to measure; it runs as a process of its own.
pub fn measure(report: &mut Report, server: PathBuf) {
    let bytes: Vec<u8> = (0..BYTES).map(|at| ((at * at) >> 7) as u8).collect();
    let chunks: Vec<&[u8]> = bytes.chunks(CHUNK_BYTES).collect();
    let mut copy = vec![0u8; BYTES];
    let floor = best(1, || {
        for (chunk, to) in chunks.iter().zip(copy.chunks_mut(CHUNK_BYTES)) {
            black_box(Sha256::digest(chunk));
            to.copy_from_slice(chunk);
        }
    });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let client = runtime.block_on(to_nobody(&chunks));
    let (pushed, worked) = runtime.block_on(to_a_canister(&chunks, server));

    println!(
        "  {:46} {:>8.1} ms",
        "hashed and copied natively",
        floor * 1e3
    );
    let floor_ms = (floor * 1e3).round();
    report.insert("localnet_floor_hash_and_copy_100mb_ms".into(), floor_ms);
    let ratio = |seconds: f64| seconds / floor;
    let mut line = |what: &str, key: &str, seconds: f64| {
        println!(
            "  {what:46} {:>8.1} ms {:>8.2} x",
            seconds * 1e3,
            ratio(seconds)
        );
        report.insert(
            format!("localnet_chunks_100mb_{key}"),
            (ratio(seconds) * 100.0).round() / 100.0,
        );
    };
    line(
        "sent by the client to a server that only reads",
        "client_ratio",
        client,
    );
    for ((_, what, key), seconds) in TASKS.into_iter().zip(pushed) {
        line(&format!("into stable memory, {what}"), key, seconds);
    }
    if let Some(worked) = worked {
        line(
            "of that the server's processor time",
            "server_ratio",
            worked,
        );
    }
}

/// The client's own time: everything it does, and a server that reads bodies and looks at nothing.
async fn to_nobody(chunks: &[&[u8]]) -> f64 {
    let submitted: Result<_, RejectResponse> = Ok(RawMessageId {
        effective_principal: RawEffectivePrincipal::None,
        message_id: vec![0; 32],
    });
    let submitted = serde_json::to_string(&submitted).expect("it is plain data");
    let answered = serde_json::to_string(&RawCanisterResult::Ok(vec![])).expect("it is plain data");
    let json = [("content-type", "application/json")];
    let router = Router::new()
        .route(
            "/instances/0/update/submit_ingress_message",
            post(async move |_: Bytes| (json, submitted)),
        )
        .route(
            "/instances/0/update/await_ingress_message",
            post(async move |_: Bytes| (json, answered)),
        )
        .layer(DefaultBodyLimit::disable());
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let url = format!("http://{address}/").parse().expect("it is a URL");
    let pic = Arc::new(PocketIc::new_from_existing_instance(url, 0, None));
    let seconds = pushed(&pic, Principal::from_slice(&[1]), chunks, 1).await;
    serving.abort();
    seconds
}

/// The time that all chunks take with each of [`TASKS`], and the server's processor time for all.
async fn to_a_canister(chunks: &[&[u8]], server: PathBuf) -> ([f64; TASKS.len()], Option<f64>) {
    let params = StartServerParams {
        server_binary: Some(server),
        ..StartServerParams::default()
    };
    let (mut process, url) = start_server(params).await;
    let builder = PocketIcBuilder::new().with_server_url(url);
    let pic = builder.with_application_subnet().build_async().await;
    let canister = pic.create_canister().await;
    pic.add_cycles(canister, 1 << 60).await;
    let module = wat::parse_str(KEEP).expect("it is text");
    pic.install_canister(canister, module, vec![], None).await;
    let pic = Arc::new(pic);
    let before = processor_time(process.id());
    let mut seconds = [0.0; TASKS.len()];
    for (seconds, (tasks, ..)) in seconds.iter_mut().zip(TASKS) {
        *seconds = pushed(&pic, canister, chunks, tasks).await;
    }
    let after = processor_time(process.id());
    let worked = before.zip(after);
    let worked = worked.map(|(before, after)| (after - before) / (TASKS.len() * RUNS) as f64);
    if let Some(pic) = Arc::into_inner(pic) {
        pic.drop().await;
    }
    // It may have ended by itself.
    let _ = process.kill();
    let _ = process.wait();
    (seconds, worked)
}

/// Seconds that a process has worked, in user and in system mode; where Linux tells.
fn processor_time(process: u32) -> Option<f64> {
    /// Linux counts in hundredths of seconds for everybody.
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // What follows the program's name, which ends with the last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    let figures: Vec<f64> = rest
        .split_whitespace()
        .filter_map(|figure| figure.parse().ok())
        .collect();
    // The state is no figure; user and system time are the 14th and 15th field of the line.
    Some((figures.get(10)? + figures.get(11)?) / TICKS_PER_S)
}

/// The best time of several runs in which all chunks are pushed by so many tasks, each of which waits for the
/// answer to one chunk before it sends the next.
async fn pushed(pic: &Arc<PocketIc>, canister: Principal, chunks: &[&[u8]], tasks: usize) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        // The client takes its own copies; making them is not its work.
        let shares: Vec<Vec<Vec<u8>>> = chunks
            .chunks(chunks.len().div_ceil(tasks))
            .map(|share| share.iter().map(|chunk| chunk.to_vec()).collect())
            .collect();
        let start = Instant::now();
        shares
            .into_iter()
            .map(|share| push(Arc::clone(pic), canister, share))
            .collect::<JoinSet<_>>()
            .join_all()
            .await;
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

async fn push(pic: Arc<PocketIc>, canister: Principal, chunks: Vec<Vec<u8>>) {
    for chunk in chunks {
        pic.update_call(canister, Principal::anonymous(), "keep", chunk)
            .await
            .expect("the canister takes it");
    }
}

//! `ostore why` about URLs of a network that lives: a sentence for each way in which one does not open.

use std::{
    process::Command,
    time::{Duration, SystemTime},
};

use candid::Principal;
use integration_tests::{Setup, bytes, chat};
use openstorage_types::{BlobId, BlobReference};
use pocket_ic::PocketIcBuilder;
use serde_json::Value;

/// A token lives for a day.
const LONG_AGO: Duration = Duration::from_secs(25 * 3_600);

/// Blobs of a chat, and the gateway that serves them.
struct Live {
    setup: Setup,
    gateway: String,
    accessor: Principal,
    film: BlobReference,
    /// Of now, and of yesterday.
    token: String,
    expired: String,
}

impl Live {
    fn new() -> Self {
        // An agent believes a network that has a root key, and whose clock goes right.
        let builder = PocketIcBuilder::new().with_nns_subnet();
        let pic = builder.with_application_subnet().build();
        let now = SystemTime::now();
        pic.set_time((now - LONG_AGO).into());
        let mut setup = Setup::deploy(pic, Default::default());
        let (alice, room) = setup.user_with_chat(1);
        let film = setup.upload(alice, &bytes(2_000_001, 1), room.accessor_id);
        let message = chat::post(&setup, alice, room.chat_id, &film);
        let token = |setup: &Setup| chat::access(setup, alice, room.chat_id, message).1;
        let expired = token(&setup);
        setup.pic.set_time(SystemTime::now().into());
        setup.pic.tick();
        let token = token(&setup);
        let gateway = setup.pic.make_live(None);
        let port = gateway.port().expect("a gateway has a port");
        Self {
            gateway: format!("{}.localhost:{port}", setup.bucket),
            accessor: room.accessor_id,
            setup,
            film,
            token,
            expired,
        }
    }

    fn url(&self, blob: BlobId, token: &str) -> String {
        let Self {
            gateway, accessor, ..
        } = self;
        format!("http://{gateway}/{accessor}/{blob}?token={token}")
    }
}

/// What the program says.
fn why(args: &[&str]) -> Value {
    let program = env!("CARGO_BIN_EXE_ostore");
    let output = Command::new(program)
        .args(["why", "--json"])
        .args(args)
        .output();
    let output = output.expect("the program starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{output:?}");
    serde_json::from_str(&said).expect("one JSON object")
}

#[test]
fn each_way_in_which_a_url_does_not_open_has_its_sentence() {
    let live = Live::new();
    let film = live.film.blob_id;
    let good = live.url(film, &live.token);
    let cut = live.url(film, &live.token[..live.token.len() - 40]);
    // One character is another: it has a token's form, and nobody issued it.
    let (last, changed) = match live.token.split_at(60) {
        (head, tail) if tail.starts_with('A') => (tail, format!("{head}B")),
        (head, tail) => (tail, format!("{head}A")),
    };
    let changed = live.url(film, &format!("{changed}{}", &last[1..]));
    let expired = live.url(film, &live.expired);
    let absent = live.url(BlobId([7; 32]), &live.token);
    let seekable = good.replacen(&live.accessor.to_text(), &format!("m/{}", live.accessor), 1);
    let elsewhere = good.replacen(&live.setup.bucket.to_text(), &live.setup.chat.to_text(), 1);
    for (args, status, word) in [
        (&[good.as_str()][..], Some(200), "the URL opens"),
        (
            &[&good, "--range", "bytes=2000000-"],
            Some(206),
            "the URL opens",
        ),
        (&[&good, "--range", "bytes=1-"], Some(206), "the URL opens"),
        (&[&good, "--range", "bytes=1-2"], Some(206), "the URL opens"),
        (
            &[&good, "--range", "bytes=99999999-"],
            Some(416),
            "below the size",
        ),
        (
            &[&seekable, "--range", "bytes=1-"],
            Some(206),
            "the URL opens",
        ),
        (&[&cut], Some(401), "cut off"),
        (&[&changed], Some(401), "was not issued"),
        (&[&expired], Some(401), "lapsed"),
        (&[&absent], Some(404), "no such blob"),
    ] {
        let verdict = why(args);
        let said = format!("{} {}", verdict["because"], verdict["repair"]);
        assert_eq!(verdict["status"].as_u64(), status, "{args:?}: {said}");
        assert!(said.contains(word), "{args:?}: {said}");
    }
    // What is no bucket is named too, and that is a failure of the program.
    let output = Command::new(env!("CARGO_BIN_EXE_ostore"))
        .args(["why", &elsewhere])
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("cannot ask the bucket"), "{said}");
}

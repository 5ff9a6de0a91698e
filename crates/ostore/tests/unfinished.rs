//! `ostore uploads` on a network that lives: what a user began on another machine is listed and given up.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::SystemTime,
};

use ic_agent::{Identity as _, identity::BasicIdentity};
use integration_tests::{Setup, bucket, bytes, chunk};
use openstorage_types::bucket::{PushChunkOk, UploadState};
use pocket_ic::PocketIcBuilder;
use serde_json::{Value, json};

/// The Ed25519 key of 32 bytes of 7, in PKCS #8.
const PEM: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH
-----END PRIVATE KEY-----
";

#[test]
fn what_another_machine_left_unfinished_is_listed_and_given_up() {
    // An agent believes a network that has a root key, and whose clock goes right.
    let builder = PocketIcBuilder::new().with_nns_subnet();
    let pic = builder.with_application_subnet().build();
    pic.set_time(SystemTime::now().into());
    let mut setup = Setup::deploy(pic, Default::default());
    let user = BasicIdentity::from_raw_key(&[7; 32]).sender().unwrap();
    setup.register(user);
    let (_, room) = setup.user_with_chat(1);
    let film = bytes(5_000_000, 1);
    bucket::ensure_registered(&setup, setup.bucket, user).unwrap();
    let pushed = bucket::push_chunk(
        &setup,
        setup.bucket,
        user,
        chunk(&film, 1, room.accessor_id),
    );
    let PushChunkOk { state, .. } = pushed.unwrap();
    assert_eq!(state, UploadState::Open);
    let port = setup.pic.make_live(None).port().expect("a port");

    let dir = tempfile::tempdir().unwrap();
    let identity = dir.path().join("identity.pem");
    fs::write(&identity, PEM).unwrap();
    let uploads = |identity: &Path, words: &[&str]| -> Output {
        let program = env!("CARGO_BIN_EXE_ostore");
        let output = Command::new(program)
            .args(["uploads", "--json", "--network"])
            .arg(format!("http://localhost:{port}"))
            .args(["--index", &setup.index.to_text(), "--identity"])
            .arg(identity)
            .args(words)
            .output();
        output.expect("the program starts")
    };
    let listed = |words: &[&str]| -> Value {
        let output = uploads(&identity, words);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    };
    let blob_id = integration_tests::blob_id(&film).to_string();
    let upload = |discarded: bool| {
        json!({ "uploads": [{
            "blob_id": blob_id,
            "bucket": setup.bucket.to_text(),
            "size": 5_000_000,
            "bytes_arrived": 2_000_000,
            "bytes_reserved": 5_000_000,
            "discarded": discarded,
        }] })
    };
    assert_eq!(listed(&[]), upload(false));
    let other = "0".repeat(64);
    let unknown = uploads(&identity, &["--discard", &other]);
    assert!(!unknown.status.success());
    assert!(String::from_utf8_lossy(&unknown.stderr).contains(&other));
    assert_eq!(listed(&["--discard", &blob_id]), upload(true));
    assert_eq!(listed(&["--discard-all"]), json!({ "uploads": [] }));

    fs::write(&identity, "no key").unwrap();
    let refused = uploads(&identity, &[]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no Ed25519 or secp256k1 key"));
}

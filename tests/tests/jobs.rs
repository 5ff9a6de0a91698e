//! What canisters do by themselves goes on whatever happens to a part of it, and a bucket that does not work as it should
//! is known, and given nothing new.

use std::time::Duration;

use candid::{CandidType, Principal, encode_one};
use integration_tests::{Setup, blob_id, bucket, bytes, chat, chunk, index, operator, user, wasm};
use openstorage_tokens::SecretKey;
use openstorage_types::{
    BlobId,
    bucket::*,
    channel::{PublicKey, RotateKeyError},
    chat::{ChatInfo, DeleteChatOk},
    index::{InitArgs, *},
};
use pocket_ic::{CanisterSettings, PocketIcBuilder};

/// Where a job is to trap: the arguments of a bucket that is built for that.
#[derive(CandidType)]
struct TrapInit {
    index: Principal,
    bytes_max: Option<u64>,
    strict_cache: Option<bool>,
    mutant: Option<u32>,
    trap: Option<Trap>,
}

#[derive(CandidType, Clone)]
struct Trap {
    job: String,
    row: Option<String>,
}

/// A system whose bucket can be told to trap.
fn with_traps() -> Setup {
    let pic = PocketIcBuilder::new().with_application_subnet().build();
    Setup::deploy_index(pic, "index-mutant", InitArgs::default())
}

/// The bucket's job traps from now on; or none does any more.
fn set_trap(setup: &Setup, trap: Option<(&str, Option<String>)>) {
    let trap = trap.map(|(job, row)| Trap {
        job: job.into(),
        row,
    });
    let args = Some(TrapInit {
        index: setup.index,
        bytes_max: None,
        strict_cache: None,
        mutant: None,
        trap,
    });
    let (pic, sender) = (&setup.pic, Some(operator()));
    let args = encode_one(args).unwrap();
    pic.stop_canister(setup.bucket, sender).unwrap();
    pic.upgrade_canister(setup.bucket, wasm("bucket-mutant"), args, sender)
        .unwrap();
    pic.start_canister(setup.bucket, sender).unwrap();
}

fn set_aside(setup: &Setup) -> Vec<SetAside> {
    let answer: Result<Vec<SetAside>, SetAsideError> =
        setup.ask(setup.bucket, operator(), "set_aside", ());
    answer.expect("the operator may")
}

fn info(setup: &Setup, bucket: Principal) -> BucketInfo {
    let buckets = index::status(setup).buckets;
    let mut buckets = buckets.into_iter();
    buckets
        .find(|info| info.bucket == bucket)
        .expect("it is there")
}

fn page(setup: &Setup, canister: Principal, path: &str) -> String {
    let body = bucket::get(setup, canister, path, &[]).body;
    String::from_utf8(body.into_vec()).unwrap()
}

/// The row is set aside, told to the index and shown to operators, and an upgrade does not lose it; what the bucket does
/// besides goes on. Without the trap the row's work is done after all.
fn expect_set_aside(setup: &Setup, job: &str, row: &str, done: impl Fn(&Setup) -> bool) {
    let listed = setup.settle("the row is set aside", |setup| {
        let rows = set_aside(setup);
        (!rows.is_empty()).then_some(rows)
    });
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0].job, job);
    assert!(listed[0].row.contains(row), "{listed:?}");
    setup.settle("the index shows it", |setup| {
        (info(setup, setup.bucket).set_aside == Some(1)).then_some(())
    });
    assert_eq!(bucket::status(setup, setup.bucket).set_aside, Some(1));
    let metrics = page(setup, setup.bucket, "/metrics");
    assert!(
        metrics.contains("\nopenstorage_bucket_set_aside_rows 1\n"),
        "{metrics}"
    );
    let metrics = page(setup, setup.index, "/metrics");
    let id = setup.bucket;
    let line = format!("\nopenstorage_index_bucket_set_aside_rows{{bucket=\"{id}\"}} 1\n");
    assert!(metrics.contains(&line), "{metrics}");
    let lines = page(setup, setup.bucket, "/logs");
    assert!(
        lines.contains(&format!(
            "alarm: every message about a row of the job {job}"
        )),
        "{lines}"
    );
    let stranger: Result<Vec<SetAside>, SetAsideError> =
        setup.ask(setup.bucket, user(9), "set_aside", ());
    assert_eq!(stranger, Err(SetAsideError::NotAuthorized));
    others_go_on(setup, 500);

    // The code is as before: the row has its turn, and is set aside again.
    let trap = (job, Some(row.to_owned()));
    set_trap(setup, Some(trap));
    assert_eq!(set_aside(setup).len(), 1);
    assert_eq!(bucket::status(setup, setup.bucket).set_aside, Some(1));
    others_go_on(setup, 501);
    assert!(!done(setup));
    set_trap(setup, None);
    setup.settle("the row's work is done", |setup| done(setup).then_some(()));
    if job != "tell" {
        setup.settle("nothing is set aside", |setup| {
            (set_aside(setup).is_empty() && info(setup, setup.bucket).set_aside == Some(0))
                .then_some(())
        });
    }
}

/// Somebody uploads, the index hears of it, and a deletion is done.
fn others_go_on(setup: &Setup, n: u64) {
    let (carol, room) = setup.user_with_chat(n);
    let data = bytes(2_000 + n, n);
    setup.upload(carol, &data, room.accessor_id);
    setup.settle("the index hears of an upload", |setup| {
        (index::user(setup, carol).unwrap().bytes_used == 2_000 + n).then_some(())
    });
}

/// An upload whose chunks come in so that its hash is computed over several messages, by timer.
fn upload_to_be_verified(setup: &Setup, caller: Principal, room: &ChatInfo, seed: u64) -> BlobId {
    let data = bytes(20_000_000, seed);
    bucket::ensure_registered(setup, setup.bucket, caller).unwrap();
    for n in (0..10).rev() {
        bucket::push_chunk(
            setup,
            setup.bucket,
            caller,
            chunk(&data, n, room.accessor_id),
        )
        .unwrap();
    }
    blob_id(&data)
}

fn upload_state(setup: &Setup, caller: Principal, blob_id: BlobId) -> UploadState {
    let args = UploadArgs { blob_id };
    let status = bucket::upload_status(setup, setup.bucket, caller, args);
    status.expect("there is such an upload").state
}

#[test]
fn an_upload_whose_verification_traps_holds_up_no_other() {
    let setup = with_traps();
    let (alice, room) = setup.user_with_chat(1);
    let poison = blob_id(&bytes(20_000_000, 1));
    set_trap(&setup, Some(("verify", Some(poison.to_string()))));
    assert_eq!(upload_to_be_verified(&setup, alice, &room, 1), poison);
    let other = upload_to_be_verified(&setup, alice, &room, 2);
    setup.settle("the other is stored", |setup| {
        (upload_state(setup, alice, other) == UploadState::Stored).then_some(())
    });
    assert_eq!(upload_state(&setup, alice, poison), UploadState::Verifying);
    expect_set_aside(&setup, "verify", &poison.to_string(), |setup| {
        upload_state(setup, alice, poison) == UploadState::Stored
    });
}

#[test]
fn an_accessor_whose_deletion_traps_holds_up_no_other() {
    let setup = with_traps();
    let (alice, _) = setup.user_with_chat(1);
    let rooms: Vec<_> = (0..2)
        .map(|n| {
            let name = format!("room {n}");
            let args = openstorage_types::chat::CreateChatArgs { name };
            let room = chat::create_chat(&setup, alice, args).unwrap();
            setup.upload(alice, &bytes(2_000 + n, 10 + n), room.accessor_id);
            room
        })
        .collect();
    setup.rest();
    let poison = rooms[0].accessor_id.to_text();
    set_trap(&setup, Some(("delete_accessors", Some(poison.clone()))));
    for room in &rooms {
        let token = setup.settle("the chat has a token", |setup| {
            match chat::delete_chat(setup, alice, room.chat_id).unwrap() {
                DeleteChatOk::Delete { token, .. } => Some(token),
                DeleteChatOk::Retry { .. } => None,
            }
        });
        let chat_id = room.accessor_id;
        index::delete_chat(&setup, alice, DeleteChatArgs { chat_id, token }).unwrap();
    }
    setup.settle("the other room's blob is gone", |setup| {
        (bucket::status(setup, setup.bucket).blobs == 1).then_some(())
    });
    expect_set_aside(&setup, "delete_accessors", &poison, |setup| {
        // Those of the others are left.
        index::user(setup, alice).unwrap().bytes_used == 0
    });
}

#[test]
fn a_user_whose_deletion_traps_holds_up_no_other() {
    let setup = with_traps();
    let (_, room) = setup.user_with_chat(1);
    let users: Vec<_> = (2..4)
        .map(|n| {
            let (user, _) = setup.user_with_chat(n);
            setup.upload(user, &bytes(3_000 + n, 20 + n), room.accessor_id);
            user
        })
        .collect();
    setup.rest();
    let poison = users[0].to_text();
    set_trap(&setup, Some(("delete_users", Some(poison.clone()))));
    for user in &users {
        index::delete_user(&setup, operator(), *user).unwrap();
    }
    let blobs = |setup: &Setup| bucket::status(setup, setup.bucket).blobs;
    setup.settle("the other's blob is gone", |setup| {
        (blobs(setup) == 1).then_some(())
    });
    expect_set_aside(&setup, "delete_users", &poison, |setup| blobs(setup) == 2);
}

#[test]
fn an_upload_whose_expiry_traps_holds_up_no_other() {
    let setup = with_traps();
    let (alice, room) = setup.user_with_chat(1);
    bucket::ensure_registered(&setup, setup.bucket, alice).unwrap();
    let begun: Vec<_> = (0..2)
        .map(|seed| {
            let data = bytes(5_000_000, 30 + seed);
            let first = chunk(&data, 0, room.accessor_id);
            bucket::push_chunk(&setup, setup.bucket, alice, first).unwrap();
            // Each is due at a time of its own, the first one first.
            setup.pic.advance_time(Duration::from_secs(1));
            blob_id(&data)
        })
        .collect();
    let poison = begun[0].to_string();
    set_trap(&setup, Some(("expire", Some(poison.clone()))));
    setup.pic.advance_time(Duration::from_secs(25 * 3_600));
    let open = |setup: &Setup| bucket::status(setup, setup.bucket).open_uploads;
    setup.settle("the other is dropped", |setup| {
        (open(setup) == 1).then_some(())
    });
    expect_set_aside(&setup, "expire", &poison, |setup| open(setup) == 0);
}

#[test]
fn a_lease_whose_return_traps_holds_up_no_other() {
    let setup = with_traps();
    let (alice, room) = setup.user_with_chat(1);
    let (bob, _) = setup.user_with_chat(2);
    for (seed, user) in [alice, bob].into_iter().enumerate() {
        setup.upload(user, &bytes(2_000, 40 + seed as u64), room.accessor_id);
        // Each is due at a time of its own, the first one first.
        setup.pic.advance_time(Duration::from_secs(1));
    }
    setup.rest();
    let poison = alice.to_text();
    set_trap(&setup, Some(("give_back", Some(poison.clone()))));
    setup.pic.advance_time(Duration::from_secs(2 * 3_600));
    let leased = |setup: &Setup, user| index::user(setup, user).unwrap().bytes_leased;
    setup.settle("the other's lease is back", |setup| {
        (leased(setup, bob) == 0).then_some(())
    });
    expect_set_aside(&setup, "give_back", &poison, |setup| {
        leased(setup, alice) == 0
    });
}

#[test]
fn an_issuer_whose_key_traps_holds_up_no_other() {
    let setup = with_traps();
    // More than one message shares a new key with.
    let mut issuers: Vec<_> = (0..30_u8)
        .map(|n| {
            let issuer = user(700 + u64::from(n));
            let bytes = BlobId(SecretKey::from_bytes([n + 1; 32]).public());
            let key = PublicKey { version: 1, bytes };
            let args = RegisterIssuerArgs {
                issuer: Some(issuer),
                key,
            };
            let answer: Result<RegisterIssuerOk, IssuerError> =
                setup.call(setup.index, operator(), "register_issuer", (args,));
            answer.expect("the operator may");
            issuer
        })
        .collect();
    setup.rest();
    issuers.sort();
    // A message takes twenty, of which the chat is the first: the second message begins with this one.
    let poison = issuers[19].to_text();
    set_trap(&setup, Some(("derive", Some(poison.clone()))));
    let rotated: Result<(), RotateKeyError> =
        setup.call(setup.bucket, operator(), "rotate_key", ());
    rotated.unwrap();
    let version = |setup: &Setup| {
        let key = bucket::status(setup, setup.bucket).key;
        key.map(|key| key.version)
    };
    // It becomes the bucket's key without that issuer.
    setup.settle("the new key is told", |setup| {
        (version(setup) == Some(2)).then_some(())
    });
    let listed = set_aside(&setup);
    assert!(
        listed.len() == 1 && listed[0].row.contains(&poison),
        "{listed:?}"
    );
    setup.settle("the index shows it", |setup| {
        (info(setup, setup.bucket).set_aside == Some(1)).then_some(())
    });
    others_go_on(&setup, 500);
}

#[test]
fn an_event_whose_telling_traps_holds_up_no_other() {
    let setup = with_traps();
    let (alice, room) = setup.user_with_chat(1);
    setup.upload(alice, &bytes(2_000, 1), room.accessor_id);
    setup.rest();
    set_trap(&setup, Some(("tell", Some("event 2".into()))));
    setup.upload(alice, &bytes(2_001, 2), room.accessor_id);
    setup.upload(alice, &bytes(2_002, 3), room.accessor_id);
    // Nobody calls the bucket: the index looks after it.
    let blobs = |setup: &Setup| index::status(setup).blobs;
    let after = until(&setup, 2 * 3_600, |setup| blobs(setup) == 2);
    println!("the third upload is heard of after {after} s");
    let listed = set_aside(&setup);
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].job.as_str(), listed[0].row.as_str()),
        ("tell", "event 2")
    );
    // What the index was not told of.
    let event = listed[0].event.as_ref().expect("it is kept");
    assert_eq!(event[..32], blob_id(&bytes(2_001, 2)).0);
    setup.settle("the index shows it", |setup| {
        (info(setup, setup.bucket).set_aside == Some(1)).then_some(())
    });
    // The counters travel by themselves.
    assert_eq!(index::user(&setup, alice).unwrap().bytes_used, 6_003);
    others_go_on(&setup, 500);
}

#[test]
fn a_key_whose_drawing_traps_holds_up_nothing_else() {
    let setup = with_traps();
    let (alice, room) = setup.user_with_chat(1);
    setup.upload(alice, &bytes(2_000, 1), room.accessor_id);
    setup.rest();
    set_trap(&setup, Some(("draw", None)));
    let rotated: Result<(), RotateKeyError> =
        setup.call(setup.bucket, operator(), "rotate_key", ());
    rotated.unwrap();
    // No key is drawn, and all else goes on.
    others_go_on(&setup, 500);
    others_go_on(&setup, 501);
    let status = bucket::status(&setup, setup.bucket);
    assert_eq!(status.key.map(|key| key.version), Some(1));
    set_trap(&setup, None);
    setup.settle("the key is drawn", |setup| {
        let key = bucket::status(setup, setup.bucket).key;
        (key.map(|key| key.version) == Some(2)).then_some(())
    });
}

/// Seconds of network time until it is so: a tick each second for a minute, then each half a minute.
///
/// # Panics
/// When it is not so after `max` seconds.
fn until(setup: &Setup, max: u64, seen: impl Fn(&Setup) -> bool) -> u64 {
    let mut after = 0;
    while !seen(setup) {
        assert!(
            after < max,
            "not so after {after} s: {:?}",
            index::status(setup)
        );
        let step = if after < 60 { 1 } else { 30 };
        setup.pic.advance_time(Duration::from_secs(step));
        for _ in 0..if after < 60 { 2 } else { 8 } {
            setup.pic.tick();
        }
        after += step;
    }
    after
}

/// A system with two buckets that take blobs.
fn with_two_buckets() -> Setup {
    let bytes_max = 100_000_000;
    let setup = Setup::with(InitArgs {
        bucket_bytes_max: Some(bytes_max),
        free_bytes_target: Some(bytes_max + 1),
        ..InitArgs::default()
    });
    setup.settle("both are active", |setup| {
        (setup.active_buckets().len() == 2).then_some(())
    });
    setup
}

fn ask_for(setup: &Setup, caller: Principal, data: &[u8]) -> AllocatedBucketOk {
    let args = AllocatedBucketArgs {
        blob_id: blob_id(data),
        size: data.len() as u64,
        exclude: vec![],
    };
    index::allocated_bucket(setup, caller, args).expect("one is well")
}

fn cause(setup: &Setup, bucket: Principal) -> Option<TroubleCause> {
    info(setup, bucket).trouble.map(|trouble| trouble.cause)
}

fn set_freezing_threshold(setup: &Setup, bucket: Principal, seconds: u128) {
    let settings = CanisterSettings {
        freezing_threshold: Some(seconds.into()),
        ..Default::default()
    };
    setup
        .pic
        .update_canister_settings(bucket, Some(operator()), settings)
        .unwrap();
}

/// What makes a bucket well again.
type Mend<'a> = &'a dyn Fn(&Setup, Principal);

/// A bucket in which something is wrong is given nothing new after a bounded time, and is back by itself.
fn out_and_back(
    name: &str,
    breaks: impl Fn(&Setup, Principal),
    is_cause: impl Fn(TroubleCause) -> bool,
    mend: Option<Mend>,
) {
    for has_news in [true, false] {
        let setup = with_two_buckets();
        let (alice, room) = setup.user_with_chat(1);
        let data = bytes(5_000, 1);
        let home = setup.upload(alice, &data, room.accessor_id).bucket;
        setup.rest();
        assert_eq!(ask_for(&setup, alice, &data).bucket, home);
        breaks(&setup, home);
        if has_news {
            let args = UserArgs {
                user: user(77),
                byte_limit: 1,
            };
            index::register_user(&setup, operator(), args).unwrap();
        }
        let max = if has_news { 120 } else { 3_900 };
        let after = until(&setup, max, |setup| {
            info(setup, home).state == BucketState::Unhealthy
        });
        let told = if has_news {
            "something to tell"
        } else {
            "nothing to tell"
        };
        println!("{name}, {told}: out of allocation after {after} s");
        until(&setup, 120, |setup| {
            cause(setup, home).is_some_and(&is_cause)
        });
        // A further copy goes elsewhere, as does everything new.
        let asked = ask_for(&setup, alice, &data);
        assert!(asked.bucket != home && !asked.stored, "{asked:?}");
        for seed in 2..20 {
            assert_ne!(ask_for(&setup, alice, &bytes(10, seed)).bucket, home);
        }
        let metrics = page(&setup, setup.index, "/metrics");
        let alarm = metrics.lines().any(|line| {
            line.starts_with("openstorage_index_unhealthy_buckets{cause=") && line.ends_with(" 1")
        });
        assert!(alarm, "{metrics}");
        let lines = page(&setup, setup.index, "/logs");
        assert!(lines.contains("it is given no new blobs"), "{lines}");
        let Some(mend) = mend else { continue };
        mend(&setup, home);
        let after = until(&setup, 1_200, |setup| {
            info(setup, home).state == BucketState::Active
        });
        println!("{name}, {told}: back after {after} s");
        let asked = ask_for(&setup, alice, &data);
        assert_eq!((asked.bucket, asked.stored), (home, true));
    }
}

#[test]
fn a_bucket_that_is_stopped_is_given_nothing_new_until_it_runs() {
    let operator = Some(operator());
    out_and_back(
        "stopped",
        |setup, bucket| setup.pic.stop_canister(bucket, operator).unwrap(),
        |cause| cause == TroubleCause::Stopped,
        Some(&|setup: &Setup, bucket| setup.pic.start_canister(bucket, operator).unwrap()),
    );
}

#[test]
fn a_bucket_that_is_frozen_is_given_nothing_new_until_it_thaws() {
    out_and_back(
        "frozen",
        |setup, bucket| set_freezing_threshold(setup, bucket, 1_000_000_000_000_000),
        |cause| matches!(cause, TroubleCause::Frozen { .. }),
        Some(&|setup: &Setup, bucket| set_freezing_threshold(setup, bucket, 2_592_000)),
    );
}

#[test]
fn a_bucket_that_is_uninstalled_is_given_nothing_new() {
    out_and_back(
        "uninstalled",
        |setup, bucket| {
            setup
                .pic
                .uninstall_canister(bucket, Some(operator()))
                .unwrap()
        },
        |cause| cause == TroubleCause::Uninstalled,
        None,
    );
}

/// One of the bucket's own jobs gets nothing done, and no row of it can be set aside.
#[test]
fn a_bucket_that_is_stuck_is_given_nothing_new_until_it_goes_on() {
    let setup = with_traps();
    let (alice, room) = setup.user_with_chat(1);
    setup.upload(alice, &bytes(5_000, 1), room.accessor_id);
    setup.rest();
    set_trap(&setup, Some(("draw", None)));
    let rotated: Result<(), RotateKeyError> =
        setup.call(setup.bucket, operator(), "rotate_key", ());
    rotated.unwrap();
    let state = |setup: &Setup| info(setup, setup.bucket).state;
    let after = until(&setup, 2 * 3_600, |setup| {
        state(setup) == BucketState::Unhealthy
    });
    println!("stuck: out of allocation after {after} s");
    assert!(matches!(
        cause(&setup, setup.bucket),
        Some(TroubleCause::Stuck { .. })
    ));
    set_trap(&setup, None);
    let after = until(&setup, 2 * 3_600, |setup| {
        state(setup) == BucketState::Active
    });
    println!("stuck: back after {after} s");
}

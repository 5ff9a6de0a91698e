//! Nothing is lost when a canister is upgraded, whatever it was doing.

use std::time::Duration;

use candid::{Encode, Principal, encode_one};
use integration_tests::{Setup, blob_id, bucket, bytes, chat, chunk, index, operator, user, wasm};
use openstorage_types::{
    bucket::*,
    chat::{ChatError, InitArgs as ChatInit, RegisterOk},
    chunk_count,
    index::{BucketState, UserArgs},
    limits::{CHUNK_BYTES, charge},
};
use pocket_ic::CanisterSettings;

#[test]
fn an_upload_goes_on_after_its_bucket_was_upgraded() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    bucket::ensure_registered(&setup, setup.bucket, alice).unwrap();
    let data = bytes(7_000_000, 1);
    let push = |i| {
        bucket::push_chunk(
            &setup,
            setup.bucket,
            alice,
            chunk(&data, i, room.accessor_id),
        )
        .unwrap()
    };
    push(2);
    push(0);
    let upgrade = || setup.upgrade(setup.bucket, "bucket").unwrap();
    upgrade();
    let status = bucket::upload_status(
        &setup,
        setup.bucket,
        alice,
        UploadArgs {
            blob_id: blob_id(&data),
        },
    )
    .unwrap();
    assert_eq!(status.state, UploadState::Open);
    let missing: Vec<u32> = status
        .missing
        .iter()
        .flat_map(|range| range.start..range.end)
        .collect();
    assert_eq!(missing, [1, 3]);
    push(1);
    assert_eq!(push(3).state, UploadState::Stored);
    // The report to the index was not sent yet.
    upgrade();
    setup.settle("the index has heard of the blob", |setup| {
        (index::user(setup, alice).unwrap().bytes_used == data.len() as u64).then_some(())
    });
    let args = |chunk_index, token| ReadChunkArgs {
        blob_id: blob_id(&data),
        accessor_id: room.accessor_id,
        token,
        chunk_index,
    };
    let reference = openstorage_types::BlobReference {
        blob_id: blob_id(&data),
        bucket: setup.bucket,
        size: data.len() as u64,
        mime_type: "image/png".into(),
    };
    let message = chat::post(&setup, alice, room.chat_id, &reference);
    let (_, token) = chat::access(&setup, alice, room.chat_id, message);
    let read: Vec<u8> = (0..chunk_count(reference.size) as u32)
        .flat_map(|i| {
            bucket::read_chunk(&setup, setup.bucket, alice, args(i, token.clone()))
                .unwrap()
                .bytes
                .into_vec()
        })
        .collect();
    assert!(read == data);
}

#[test]
fn index_and_chat_keep_what_they_know() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    let data = bytes(2_000, 1);
    let reference = setup.upload(alice, &data, room.accessor_id);
    let message = chat::post(&setup, alice, room.chat_id, &reference);
    let (_, token) = chat::access(&setup, alice, room.chat_id, message);
    for (canister, name) in [(setup.index, "index"), (setup.chat, "chat")] {
        setup.upgrade(canister, name).unwrap();
    }
    setup.settle("the index has counted the blob", |setup| {
        (index::user(setup, alice).unwrap().bytes_used == 2_000).then_some(())
    });
    let status = index::status(&setup);
    assert_eq!(
        (status.users, status.blobs, status.buckets.len()),
        (1, 1, 1)
    );
    assert_eq!(status.buckets[0].bucket, setup.bucket);
    let (access, again) = chat::access(&setup, alice, room.chat_id, message);
    assert_eq!((access.reference, again), (reference, token));
    // The keys are the same: a new user of the same system goes all the way.
    let (bob, other) = setup.user_with_chat(2);
    setup.upload(bob, &bytes(10, 2), other.accessor_id);
}

/// A bucket and a chat of the same index on another subnet: calls between them and the index take rounds.
struct Far {
    bucket: Principal,
    chat: Principal,
}

impl Far {
    /// Needs a network of two subnets.
    fn add(setup: &Setup) -> Self {
        let own_subnet = setup.pic.get_subnet(setup.index).unwrap();
        let subnets = setup.pic.topology().get_app_subnets();
        let other = subnets.into_iter().find(|id| *id != own_subnet).unwrap();
        let create = || {
            let settings = CanisterSettings {
                controllers: Some(vec![operator(), setup.index]),
                ..CanisterSettings::default()
            };
            let created =
                setup
                    .pic
                    .create_canister_on_subnet(Some(operator()), Some(settings), other);
            setup.pic.add_cycles(created, 10_000_000_000_000);
            created
        };
        let (bucket, chat) = (create(), create());
        index::add_bucket(setup, operator(), bucket).unwrap();
        setup.settle("the far bucket is active", |setup| {
            let info = index::bucket(setup, operator(), bucket).unwrap();
            (info.state == BucketState::Active).then_some(())
        });
        let init = ChatInit {
            index: setup.index,
            origins: None,
        };
        let arg = encode_one(init).unwrap();
        setup
            .pic
            .install_canister(chat, wasm("chat"), arg, Some(operator()));
        Self { bucket, chat }
    }
}

/// Without stopping it: taken, or refused with the advice to do so. Whether it was taken.
fn upgrade_running(setup: &Setup, canister: Principal, name: &str) -> bool {
    let arg = encode_one(None::<()>).unwrap();
    let upgraded = setup
        .pic
        .upgrade_canister(canister, wasm(name), arg, Some(operator()));
    let Err(refused) = upgraded else { return true };
    let advice = format!("dfx canister stop {canister}");
    assert!(refused.reject_message.contains(&advice), "{refused}");
    false
}

/// Answers would reach code that did not ask. The calls here go to another subnet, so that they are under
/// way when the upgrade comes.
#[test]
fn no_canister_is_upgraded_under_its_own_calls() {
    let setup = Setup::on(2, Default::default());
    let far = Far::add(&setup);

    // The index tells the far bucket of a user, in the round after; the bucket asks who its caller is;
    // the chat registers its user with the index, in the round after.
    let row = UserArgs {
        user: operator(),
        byte_limit: 1,
    };
    let asking = [
        (
            setup.index,
            "index",
            operator(),
            "register_user",
            Encode!(&row),
            2,
        ),
        (
            far.bucket,
            "bucket",
            user(9),
            "ensure_registered",
            Encode!(),
            1,
        ),
        (far.chat, "chat", user(9), "register", Encode!(), 2),
    ];
    for (canister, name, caller, method, arg, rounds) in asking {
        let pic = &setup.pic;
        pic.submit_call(canister, caller, method, arg.unwrap())
            .unwrap();
        (0..rounds).for_each(|_| pic.tick());
        assert!(!upgrade_running(&setup, canister, name), "{name}");
        setup.upgrade(canister, name).unwrap();
    }
}

/// As somebody does who does not stop them: in each round of what follows a message, be it a timer's work, a call, an
/// answer, or nothing.
#[test]
fn canisters_that_run_are_upgraded_in_any_round_and_go_on() {
    const ROUNDS: u64 = 14;
    let setup = Setup::on(2, Default::default());
    let far = Far::add(&setup);
    let (alice, room) = setup.user_with_chat(1);
    bucket::ensure_registered(&setup, far.bucket, alice).unwrap();
    let push = |n: u64| {
        let len = if n.is_multiple_of(5) {
            CHUNK_BYTES
        } else {
            1_000
        };
        chunk(&bytes(len, n), 0, room.accessor_id)
    };
    let limited = |n: u64| UserArgs {
        user: user(1_000 + n),
        byte_limit: n,
    };
    let submit = |canister, caller, method, arg: candid::Result<Vec<u8>>| {
        let sent = setup
            .pic
            .submit_call(canister, caller, method, arg.unwrap());
        sent.unwrap()
    };

    let mut n = 0;
    for (canister, name) in [
        (setup.index, "index"),
        (far.bucket, "bucket"),
        (far.chat, "chat"),
    ] {
        let mut taken = 0;
        for round in 0..ROUNDS {
            let register = Encode!(&limited(n));
            let sent = [
                submit(far.bucket, alice, "push_chunk", Encode!(&push(n))),
                submit(far.chat, user(2_000 + n), "register", Encode!()),
                submit(setup.index, operator(), "register_user", register),
            ];
            (0..round).for_each(|_| setup.pic.tick());
            taken += u64::from(upgrade_running(&setup, canister, name));
            for id in sent {
                setup.pic.await_call(id).expect("it is answered");
            }
            quiet(&setup);
            assert_eq!(
                traps(&setup, canister),
                Vec::<String>::new(),
                "{name}, {round}"
            );
            n += 1;
        }
        assert!((1..ROUNDS).contains(&taken), "{name}: {taken}");
    }
    for n in 0..n {
        setup.settle("the blob is stored", |setup| {
            let pushed = bucket::push_chunk(setup, far.bucket, alice, push(n));
            (pushed.ok()?.state == UploadState::Stored).then_some(())
        });
        setup.settle("the chat's user is confirmed", |setup| {
            let user = user(2_000 + n);
            let me: Result<RegisterOk, ChatError> = setup.ask(far.chat, user, "me", ());
            me.unwrap().confirmed.then_some(())
        });
        let UserArgs { user, byte_limit } = limited(n);
        assert_eq!(index::user(&setup, user).unwrap().byte_limit, byte_limit);
    }
    setup.rest();
    let used: u64 = (0..n).map(|n| charge(push(n).size, 1)).sum();
    assert_eq!(index::user(&setup, alice).unwrap().bytes_used, used);
}

/// Everybody comes to rest.
fn quiet(setup: &Setup) {
    for _ in 0..12 {
        setup.pic.advance_time(Duration::from_millis(300));
        setup.pic.tick();
    }
}

/// What a canister has trapped with, but for refused upgrades.
fn traps(setup: &Setup, canister: Principal) -> Vec<String> {
    let logs = setup.pic.fetch_canister_logs(canister, operator()).unwrap();
    let lines = logs.into_iter();
    lines
        .map(|line| String::from_utf8_lossy(&line.content).into_owned())
        .filter(|line| line.contains("[TRAP]") && !line.contains("dfx canister stop"))
        .collect()
}

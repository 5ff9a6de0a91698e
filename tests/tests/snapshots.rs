//! A canister is restored from a snapshot: it notices, and agrees with the others again.

use std::time::Duration;

use candid::{Principal, encode_one};
use integration_tests::{
    SMALL_BUCKET_BYTES, Setup, blob_id, bucket, bytes, chat, chunk, index, operator, user, wasm,
};
use openstorage_types::{
    bucket::*,
    chat::{ChatError, ChatInfo, CreateChatArgs, InitArgs as ChatInit},
    index::{AllocatedBucketArgs, BucketState, InitArgs, UserArgs, UserError},
    limits::{CHAT_USER_BYTES, USER_REFRESH_MS, charge},
};

fn snapshot(setup: &Setup, canister: Principal) -> Vec<u8> {
    let (pic, sender) = (&setup.pic, Some(operator()));
    pic.stop_canister(canister, sender).unwrap();
    let snapshot = pic.take_canister_snapshot(canister, sender, None).unwrap();
    pic.start_canister(canister, sender).unwrap();
    snapshot.id
}

fn restore(setup: &Setup, canister: Principal, snapshot: Vec<u8>) {
    let (pic, sender) = (&setup.pic, Some(operator()));
    pic.stop_canister(canister, sender).unwrap();
    pic.load_canister_snapshot(canister, sender, snapshot)
        .unwrap();
    pic.start_canister(canister, sender).unwrap();
}

/// Pushes until the answer is another than to come later.
fn push(
    setup: &Setup,
    bucket: Principal,
    user: Principal,
    args: &PushChunkArgs,
) -> Result<PushChunkOk, PushChunkError> {
    for _ in 0..100 {
        match bucket::push_chunk(setup, bucket, user, args.clone()) {
            Err(PushChunkError::Retry { .. }) => {
                setup.pic.advance_time(std::time::Duration::from_secs(1));
                setup.pic.tick();
            }
            decided => return decided,
        }
    }
    panic!("never decided");
}

#[test]
fn an_index_that_forgot_its_grants_grants_nothing_twice() {
    let init = InitArgs {
        bucket_bytes_max: Some(SMALL_BUCKET_BYTES),
        ..InitArgs::default()
    };
    let setup = Setup::with(init).with_buckets(2);
    let [one, two] = setup.active_buckets()[..] else {
        panic!("two buckets");
    };
    let (alice, room) = setup.user_with_chat(1);
    let limit = 24_000_000;
    let args = UserArgs {
        user: alice,
        byte_limit: limit,
    };
    index::update_user(&setup, operator(), args).unwrap();
    setup.rest();
    let earlier = snapshot(&setup, setup.index);

    // What the index will have forgotten: a blob, an upload, and a user.
    let stored = bytes(3_000, 1);
    let first = |size: u64, seed| PushChunkArgs {
        size,
        ..chunk(&bytes(2_000_000, seed), 0, room.accessor_id)
    };
    push(&setup, one, alice, &chunk(&stored, 0, room.accessor_id)).unwrap();
    push(&setup, two, alice, &first(15_000_000, 2)).unwrap();
    let bob = user(77);
    let args = UserArgs {
        user: bob,
        byte_limit: 1_000_000,
    };
    index::register_user(&setup, operator(), args).unwrap();
    bucket::ensure_registered(&setup, one, bob).unwrap();
    push(
        &setup,
        one,
        bob,
        &chunk(&bytes(5_000, 3), 0, room.accessor_id),
    )
    .unwrap();
    setup.rest();
    restore(&setup, setup.index, earlier);

    // 15 MB are promised elsewhere, whatever the index remembers.
    let answer = push(&setup, one, alice, &first(10_000_000, 4));
    let Err(PushChunkError::AllowanceExceeded(allowance)) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(allowance.leased_elsewhere, 15_000_000);
    setup.rest();
    let info = index::user(&setup, alice).unwrap();
    assert_eq!((info.byte_limit, info.bytes_used), (limit, 3_000));
    // Who was forgotten is taken in again, with what it stores as its limit.
    let info = index::user(&setup, bob).unwrap();
    assert_eq!((info.byte_limit, info.bytes_used), (5_000, 5_000));
    let asked = AllocatedBucketArgs {
        blob_id: blob_id(&stored),
        size: 3_000,
        exclude: vec![],
    };
    assert!(
        index::allocated_bucket(&setup, alice, asked)
            .unwrap()
            .stored
    );
}

/// Two snapshots of the index, of before a user was registered: in one it was never there, in the other it was another,
/// who is deleted. The operator registers it again before buckets have said what they have: that is still the user's.
#[test]
fn a_user_registered_again_by_an_index_that_forgot_it_keeps_what_it_stored() {
    for was_another in [false, true] {
        let setup = Setup::new();
        let (_, room) = setup.user_with_chat(1);
        let bob = user(77);
        let register = |byte_limit| {
            let args = UserArgs {
                user: bob,
                byte_limit,
            };
            index::register_user(&setup, operator(), args).unwrap();
        };
        let stores = |data: &[u8]| {
            bucket::ensure_registered(&setup, setup.bucket, bob).unwrap();
            push(&setup, setup.bucket, bob, &chunk(data, 0, room.accessor_id)).unwrap();
            setup.rest();
        };
        if was_another {
            register(1_000_000);
            stores(&bytes(300, 1));
            index::delete_user(&setup, operator(), bob).unwrap();
        }
        setup.rest();
        let earlier = snapshot(&setup, setup.index);
        register(1_000_000);
        stores(&bytes(500, 2));
        restore(&setup, setup.index, earlier);
        register(2_000_000);
        setup.rest();
        let info = index::user(&setup, bob).unwrap();
        assert_eq!(
            (info.byte_limit, info.bytes_used),
            (2_000_000, charge(500, 1))
        );
        stores(&bytes(40, 3));
        assert_eq!(
            index::user(&setup, bob).unwrap().bytes_used,
            charge(500, 1) + charge(40, 1)
        );
        assert_eq!(index::status(&setup).blobs, 2);
        // A deletion takes all of it.
        index::delete_user(&setup, operator(), bob).unwrap();
        setup.rest();
        setup.settle("nothing is left", |setup| {
            (index::status(setup).blobs == 0).then_some(())
        });
    }
}

#[test]
fn a_restored_bucket_has_what_it_has_and_the_index_follows() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    let (old, new) = (bytes(3_000, 1), bytes(2_000, 2));
    setup.upload(alice, &old, room.accessor_id);
    setup.rest();
    let earlier = snapshot(&setup, setup.bucket);
    let args = RemoveBlobReferenceArgs {
        blob_id: blob_id(&old),
        accessor_id: room.accessor_id,
        owner: alice,
        token: None,
    };
    bucket::delete_blob(&setup, setup.bucket, alice, args).unwrap();
    setup.upload(alice, &new, room.accessor_id);
    setup.rest();
    assert_eq!(index::user(&setup, alice).unwrap().bytes_used, 2_000);
    restore(&setup, setup.bucket, earlier);

    // The next message wakes it.
    let more = bytes(1_100, 3);
    push(
        &setup,
        setup.bucket,
        alice,
        &chunk(&more, 0, room.accessor_id),
    )
    .unwrap();
    setup.settle("the index says what the bucket has", |setup| {
        (index::user(setup, alice).unwrap().bytes_used == 4_100).then_some(())
    });
    setup.rest();
    setup.settle("the index has swept what the bucket has no more", |setup| {
        (index::status(setup).blobs == 2).then_some(())
    });
    for (data, is_stored) in [(&old, true), (&new, false), (&more, true)] {
        let asked = AllocatedBucketArgs {
            blob_id: blob_id(data),
            size: data.len() as u64,
            exclude: vec![],
        };
        let found = index::allocated_bucket(&setup, alice, asked).unwrap();
        assert_eq!(found.stored, is_stored);
    }
}

/// A snapshot holds the code too. The index sees to it when it hears from the bucket, whoever speaks first.
#[test]
fn a_bucket_that_got_older_code_back_is_upgraded_again_soon() {
    for bucket_speaks in [true, false] {
        let setup = Setup::new();
        let (alice, room) = setup.user_with_chat(1);
        setup.rest();
        let earlier = snapshot(&setup, setup.bucket);
        let module = |setup: &Setup| {
            let status = setup
                .pic
                .canister_status(setup.bucket, Some(operator()))
                .unwrap();
            status.module_hash.expect("there is one")
        };
        let old = module(&setup);
        setup.upgrade(setup.index, "index-next").unwrap();
        let new = setup.settle("the bucket has the new code", |setup| {
            (index::status(setup).roll.done == 1).then(|| module(setup))
        });
        assert_ne!(old, new);
        restore(&setup, setup.bucket, earlier);
        assert_eq!(module(&setup), old);
        if bucket_speaks {
            let data = bytes(100, 1);
            let args = chunk(&data, 0, room.accessor_id);
            push(&setup, setup.bucket, alice, &args).unwrap();
        } else {
            let args = UserArgs {
                user: user(77),
                byte_limit: 1,
            };
            index::register_user(&setup, operator(), args).unwrap();
        }
        setup.settle("it has the new code again", |setup| {
            (module(setup) == new).then_some(())
        });
        setup.settle("it is in use", |setup| {
            let status = index::status(setup);
            (status.roll.done == 1 && status.buckets[0].state == BucketState::Active).then_some(())
        });
        setup.upload(alice, &bytes(200, 2), room.accessor_id);
        setup.rest();
    }
}

fn room_of(setup: &Setup, owner: Principal, name: &str) -> ChatInfo {
    let name = name.into();
    chat::create_chat(setup, owner, CreateChatArgs { name }).unwrap()
}

/// Files of a room that the chat has forgotten are still with the bucket, for whoever has a token for their accessor.
/// None of the chat's later rooms has it, nor its number, so that nobody reads or deletes them.
#[test]
fn no_room_of_a_chat_that_was_restored_or_made_anew_is_an_earlier_one() {
    let setup = Setup::new();
    let (alice, kept) = setup.user_with_chat(1);
    let mallory = user(2);
    setup.register(mallory);
    let earlier = snapshot(&setup, setup.chat);

    // What the chat will have forgotten: rooms with a file, and the newest message of a room that stays.
    let data = bytes(3_000, 1);
    let mut known = vec![kept.clone()];
    for n in 0..3 {
        let room = room_of(&setup, alice, "private");
        let reference = setup.upload(alice, &data, room.accessor_id);
        chat::post(&setup, alice, room.chat_id, &reference);
        known.push(room);
        let said = chat::say(&setup, alice, kept.chat_id, &format!("{n}"));
        assert!(said.is_ok());
    }
    let forgotten = chat::say(&setup, alice, kept.chat_id, "the last").unwrap();
    let strangers = |setup: &Setup, known: &[ChatInfo]| {
        let mut made = vec![];
        for n in 0..3 {
            let room = room_of(setup, mallory, "mine");
            for other in known.iter().chain(&made) {
                assert_ne!(room.accessor_id, other.accessor_id, "room {n}");
                assert_ne!(room.chat_id, other.chat_id, "room {n}");
                assert_ne!(room.invite, other.invite, "room {n}");
            }
            // The number of a forgotten room is nobody's, its invite opens nothing.
            for other in &known[1..] {
                let joined = chat::join_chat(setup, mallory, other);
                assert_eq!(joined, Err(ChatError::InvalidInvite));
            }
            // What the stranger may read is in its own room, and the file is not.
            let own = bytes(100, 50 + n);
            let reference = setup.upload(mallory, &own, room.accessor_id);
            let message = chat::post(setup, mallory, room.chat_id, &reference);
            let (_, token) = chat::access(setup, mallory, room.chat_id, message);
            let read = |data: &[u8], accessor_id| {
                let args = ReadChunkArgs {
                    blob_id: blob_id(data),
                    accessor_id,
                    token: token.clone(),
                    chunk_index: 0,
                };
                bucket::read_chunk(setup, setup.bucket, mallory, args)
            };
            setup.settle("the bucket believes the chat's key", |_| {
                read(&own, room.accessor_id).ok()
            });
            for other in known.iter().chain([&room]) {
                let read = read(&data, other.accessor_id);
                assert!(read.is_err(), "{read:?}");
            }
            made.push(room);
        }
        made
    };
    restore(&setup, setup.chat, earlier);
    let made = strangers(&setup, &known);
    // A page that still shows the forgotten message must not delete another in its place.
    let said = chat::say(&setup, alice, kept.chat_id, "after").unwrap();
    assert!(said > forgotten, "{said} after {forgotten}");
    known.extend(made);

    let init = ChatInit {
        index: setup.index,
        origins: None,
    };
    let arg = encode_one(init).unwrap();
    setup
        .pic
        .reinstall_canister(setup.chat, wasm("chat"), arg, Some(operator()))
        .unwrap();
    setup.register(mallory);
    setup.register(alice);
    strangers(&setup, &known);
}

/// The index was restored from before it knew a user, whom the chat has had confirmed long ago.
#[test]
fn a_user_whom_a_restored_index_forgot_is_told_to_it_again_when_it_comes() {
    let setup = Setup::new();
    let earlier = snapshot(&setup, setup.index);
    let alice = user(1);
    setup.register(alice);
    assert_eq!(
        index::user(&setup, alice).unwrap().byte_limit,
        CHAT_USER_BYTES
    );
    restore(&setup, setup.index, earlier);
    assert_eq!(index::user(&setup, alice), Err(UserError::NotRegistered));
    setup
        .pic
        .advance_time(Duration::from_millis(USER_REFRESH_MS));
    chat::register(&setup, alice).unwrap();
    setup.settle("the index knows the user again", |setup| {
        index::user(setup, alice).is_ok().then_some(())
    });
    assert_eq!(
        index::user(&setup, alice).unwrap().byte_limit,
        CHAT_USER_BYTES
    );
}

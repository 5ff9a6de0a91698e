//! Nothing is lost when a canister is upgraded, whatever it was doing.

use candid::{Encode, encode_one};
use integration_tests::{Setup, blob_id, bucket, bytes, chat, chunk, index, operator, wasm};
use openstorage_types::{bucket::*, chunk_count};

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
    let upgrade = || {
        let pic = &setup.pic;
        pic.stop_canister(setup.bucket, Some(operator())).unwrap();
        pic.upgrade_canister(
            setup.bucket,
            wasm("bucket"),
            Encode!(&None::<InitArgs>).unwrap(),
            Some(operator()),
        )
        .unwrap();
        pic.start_canister(setup.bucket, Some(operator())).unwrap();
    };
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
    push(3);
    assert_eq!(push(1).state, UploadState::Stored);
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
    let data = bytes(1_000, 1);
    let reference = setup.upload(alice, &data, room.accessor_id);
    let message = chat::post(&setup, alice, room.chat_id, &reference);
    let (_, token) = chat::access(&setup, alice, room.chat_id, message);
    for (canister, name) in [(setup.index, "index"), (setup.chat, "chat")] {
        setup.pic.stop_canister(canister, Some(operator())).unwrap();
        let arg = encode_one(None::<()>).unwrap();
        setup
            .pic
            .upgrade_canister(canister, wasm(name), arg, Some(operator()))
            .unwrap();
        setup
            .pic
            .start_canister(canister, Some(operator()))
            .unwrap();
    }
    setup.settle("the index has counted the blob", |setup| {
        (index::user(setup, alice).unwrap().bytes_used == 1_000).then_some(())
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

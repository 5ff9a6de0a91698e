//! The whole trip of a blob, through the deployed canisters.

use integration_tests::{Setup, blob_id, bucket, bytes, chat, chunk, index, user};
use openstorage_types::{
    BlobReference,
    bucket::*,
    chat::{ChatError, ChatInfo, DeleteChatOk, DeleteMessageOk},
    chunk_count,
    index::{AllocatedBucketArgs, DeleteChatArgs},
};

fn url(reference: &BlobReference, accessor: candid::Principal, token: &str) -> String {
    format!("/{accessor}/{}?token={token}", reference.blob_id)
}

#[test]
fn a_picture_is_stored_posted_shown_and_deleted() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    let data = bytes(300_000, 1);

    let reference = setup.upload(alice, &data, room.accessor_id);
    let message = chat::post(&setup, alice, room.chat_id, &reference);
    let (access, token) = chat::access(&setup, alice, room.chat_id, message);
    assert_eq!(
        (&access.reference, access.accessor_id),
        (&reference, room.accessor_id)
    );

    let shown = bucket::get(
        &setup,
        setup.bucket,
        &url(&reference, room.accessor_id, &token),
        &[],
    );
    assert_eq!(shown.status_code, 200);
    assert_eq!(shown.body.as_ref(), data);
    assert_eq!(shown.header("content-type"), Some("image/png"));
    assert_eq!(
        shown.header("etag"),
        Some(format!("\"{}\"", reference.blob_id).as_str())
    );

    // The index hears of it without anyone waiting.
    setup.settle("the index knows the blob", |setup| {
        (index::user(setup, alice).unwrap().bytes_used == data.len() as u64).then_some(())
    });
    let again = AllocatedBucketArgs {
        blob_id: reference.blob_id,
        size: reference.size,
        exclude: vec![],
    };
    assert!(
        index::allocated_bucket(&setup, alice, again)
            .unwrap()
            .stored
    );

    let DeleteMessageOk::Delete {
        blob_id,
        bucket,
        accessor_id,
        owner,
        token: delete,
    } = chat::delete_message(&setup, alice, room.chat_id, message).unwrap()
    else {
        panic!("the chat's last message with the blob brings a delete token");
    };
    let args = RemoveBlobReferenceArgs {
        blob_id,
        accessor_id,
        owner,
        token: Some(delete),
    };
    bucket::delete_blob(&setup, bucket, alice, args.clone()).unwrap();
    assert_ne!(
        bucket::get(
            &setup,
            setup.bucket,
            &url(&reference, room.accessor_id, &token),
            &[]
        )
        .status_code,
        200
    );
    let status = bucket::status(&setup, setup.bucket);
    assert_eq!(
        (status.blobs, status.references, status.bytes_stored),
        (0, 0, 0)
    );
    bucket::delete_blob(&setup, bucket, alice, args).expect("deleting again is no error");

    setup.settle("the allowance is back", |setup| {
        (index::user(setup, alice).unwrap().bytes_used == 0).then_some(())
    });
    let again = AllocatedBucketArgs {
        blob_id: reference.blob_id,
        size: reference.size,
        exclude: vec![],
    };
    assert!(
        !index::allocated_bucket(&setup, alice, again)
            .unwrap()
            .stored
    );
}

#[test]
fn blobs_of_every_size_come_back_whole() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    for size in [0, 1, 1_999_999, 2_000_000, 2_000_001, 5_000_000] {
        let data = bytes(size, size);
        let reference = setup.upload(alice, &data, room.accessor_id);
        let message = chat::post(&setup, alice, room.chat_id, &reference);
        let (_, token) = chat::access(&setup, alice, room.chat_id, message);
        let mut read = vec![];
        for chunk_index in 0..chunk_count(size) as u32 {
            let args = ReadChunkArgs {
                blob_id: reference.blob_id,
                accessor_id: room.accessor_id,
                token: token.clone(),
                chunk_index,
            };
            let chunk = bucket::read_chunk(&setup, setup.bucket, alice, args).unwrap();
            assert_eq!(chunk.size, size);
            read.extend_from_slice(&chunk.bytes);
        }
        assert!(read == data, "{size} bytes read back differ");
        assert_eq!(blob_id(&read), reference.blob_id);
    }
}

#[test]
fn chunks_may_arrive_in_any_order_and_twice() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    bucket::ensure_registered(&setup, setup.bucket, alice).unwrap();
    let data = bytes(9_000_001, 3);
    let mut missing = chunk_count(data.len() as u64) as u32;
    for i in [3, 3, 0, 4, 0, 2, 1] {
        let before = bucket::upload_status(
            &setup,
            setup.bucket,
            alice,
            UploadArgs {
                blob_id: blob_id(&data),
            },
        );
        let new = before.is_err()
            || before
                .unwrap()
                .missing
                .iter()
                .any(|range| (range.start..range.end).contains(&i));
        missing -= new as u32;
        let pushed = bucket::push_chunk(
            &setup,
            setup.bucket,
            alice,
            chunk(&data, i as u64, room.accessor_id),
        )
        .unwrap();
        assert_eq!(pushed.missing_count, missing);
        assert_eq!(pushed.state == UploadState::Open, missing > 0);
    }
    // Some was far from being next when it came: its hash goes on by timer.
    let info = setup.settle("the blob is stored", |setup| {
        let blob_id = blob_id(&data);
        bucket::blob_info(setup, setup.bucket, alice, UploadArgs { blob_id }).ok()
    });
    assert_eq!((info.size, info.references.len()), (data.len() as u64, 1));
}

#[test]
fn a_deleted_chat_takes_all_its_blobs_along() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    let references: Vec<_> = (0..3)
        .map(|i| setup.upload(alice, &bytes(1_000 + i, i), room.accessor_id))
        .collect();
    let messages: Vec<_> = references
        .iter()
        .map(|r| chat::post(&setup, alice, room.chat_id, r))
        .collect();
    let (_, token) = chat::access(&setup, alice, room.chat_id, messages[0]);

    let deleted =
        setup.settle(
            "the chat has a token for the index",
            |setup| match chat::delete_chat(setup, alice, room.chat_id).unwrap() {
                DeleteChatOk::Delete {
                    chat_id,
                    index,
                    token,
                } => Some((chat_id, index, token)),
                DeleteChatOk::Retry { .. } => None,
            },
        );
    assert_eq!((deleted.0, deleted.1), (room.accessor_id, setup.index));
    // Whoever else has the token cannot use it.
    let args = DeleteChatArgs {
        chat_id: deleted.0,
        token: deleted.2,
    };
    let (other, _) = setup.user_with_chat(9);
    assert!(index::delete_chat(&setup, other, args.clone()).is_err());
    index::delete_chat(&setup, alice, args.clone()).unwrap();
    index::delete_chat(&setup, alice, args).expect("deleting again is no error");

    setup.settle("the bucket is empty", |setup| {
        let status = bucket::status(setup, setup.bucket);
        (status.blobs == 0 && status.references == 0).then_some(())
    });
    let gone = bucket::get(
        &setup,
        setup.bucket,
        &url(&references[0], room.accessor_id, &token),
        &[],
    );
    assert_ne!(gone.status_code, 200);
    // Nothing comes back to a deleted accessor.
    let data = bytes(10, 7);
    let refused = bucket::push_chunk(
        &setup,
        setup.bucket,
        alice,
        chunk(&data, 0, room.accessor_id),
    );
    assert_eq!(
        refused,
        Err(PushChunkError::AccessorDeleted {
            accessor_id: room.accessor_id
        })
    );
}

#[test]
fn a_member_forwards_what_it_sees_and_pays_for_it() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    let (bob, other) = setup.user_with_chat(2);
    chat::join_chat(&setup, bob, &room).unwrap();
    let data = bytes(2_500_000, 5);
    let reference = setup.upload(alice, &data, room.accessor_id);
    let message = chat::post(&setup, alice, room.chat_id, &reference);
    let (_, token) = chat::access(&setup, bob, room.chat_id, message);
    bucket::ensure_registered(&setup, setup.bucket, bob).unwrap();

    let args = AddBlobReferenceArgs {
        blob_id: reference.blob_id,
        accessor_ids: vec![other.accessor_id],
        mime_type: "image/png".into(),
        name: None,
        from_accessor: room.accessor_id,
        token,
    };
    // Alice's own call with Bob's token is refused.
    assert_eq!(
        bucket::add_blob_reference(&setup, setup.bucket, alice, args.clone()),
        Err(AddBlobReferenceError::NotAuthorized)
    );
    let forwarded = bucket::add_blob_reference(&setup, setup.bucket, bob, args).unwrap();
    assert_eq!(forwarded, reference);
    setup.settle("both are charged", |setup| {
        let used = |who| index::user(setup, who).unwrap().bytes_used;
        (used(alice) == reference.size && used(bob) == reference.size).then_some(())
    });

    // Alice deletes hers; Bob's stays.
    let DeleteMessageOk::Delete {
        blob_id,
        accessor_id,
        owner,
        token,
        ..
    } = chat::delete_message(&setup, alice, room.chat_id, message).unwrap()
    else {
        panic!("a delete token")
    };
    let args = RemoveBlobReferenceArgs {
        blob_id,
        accessor_id,
        owner,
        token: Some(token),
    };
    bucket::delete_blob(&setup, setup.bucket, alice, args).unwrap();
    let message = chat::post(&setup, bob, other.chat_id, &forwarded);
    let (_, token) = chat::access(&setup, bob, other.chat_id, message);
    let args = ReadChunkArgs {
        blob_id: reference.blob_id,
        accessor_id: other.accessor_id,
        token,
        chunk_index: 1,
    };
    assert_eq!(
        bucket::read_chunk(&setup, setup.bucket, bob, args)
            .unwrap()
            .bytes
            .as_ref(),
        &data[2_000_000..]
    );
}

#[test]
fn a_room_is_seen_by_those_whom_its_invite_let_in_and_by_nobody_else() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    let [bob, eve] = [user(2), user(3)];
    for user in [bob, eve] {
        setup.register(user);
    }
    chat::say(&setup, alice, room.chat_id, "hello").unwrap();
    // Whoever counts through the numbers gets in nowhere, and learns nothing of what there is.
    for chat_id in 0..room.chat_id + 10 {
        for invite in ["", "0", &"0".repeat(32), &room.accessor_id.to_text()] {
            let guess = ChatInfo {
                chat_id,
                invite: invite.into(),
                ..room.clone()
            };
            let joined = chat::join_chat(&setup, eve, &guess);
            assert_eq!(joined, Err(ChatError::InvalidInvite));
        }
    }
    for user in [alice, bob, bob] {
        chat::join_chat(&setup, user, &room).unwrap();
    }
    let all = chat::members(&setup, bob, room.chat_id).unwrap();
    let mut expected = [alice, bob];
    expected.sort();
    let users: Vec<_> = all.iter().map(|member| member.user).collect();
    assert_eq!(users, expected);
    // The owner ends the invite: who is in stays, who was given it late stays outside.
    let refused = chat::replace_invite(&setup, bob, room.chat_id);
    assert_eq!(refused, Err(ChatError::NotAuthorized));
    let renewed = chat::replace_invite(&setup, alice, room.chat_id).unwrap();
    assert_eq!(chat::chats(&setup, bob), std::slice::from_ref(&renewed));
    let late = chat::join_chat(&setup, eve, &room);
    assert_eq!(late, Err(ChatError::InvalidInvite));
    for refused in [
        chat::messages(&setup, eve, room.chat_id).map(|_| ()),
        chat::members(&setup, eve, room.chat_id).map(|_| ()),
        chat::say(&setup, eve, room.chat_id, "hello").map(|_| ()),
    ] {
        assert_eq!(refused, Err(ChatError::NotMember));
    }
    chat::join_chat(&setup, eve, &renewed).unwrap();
    assert_eq!(chat::messages(&setup, eve, room.chat_id).unwrap().len(), 1);
}

//! Large blobs: chunks out of order, two writers, and upgrades in the middle.
//!
//! By default the blob has 41 MB; the full run takes 1 GB, and `OPENSTORAGE_LARGE_BYTES=10000000000` any other
//! size. No more than a chunk of it is ever in the test's memory.

use candid::{Principal, decode_one, encode_one};
use integration_tests::{Setup, blob_id, bucket, bytes, chat, chunk, index, operator, user};
use openstorage_types::{
    BlobId, BlobReference,
    bucket::{
        PushChunkArgs, PushChunkError, PushChunkOk, ReadChunkArgs, UploadArgs, UploadState,
        UploadStatus,
    },
    chunk_count, chunk_len,
    index::UserArgs,
};
use sha2::{Digest, Sha256};

const DEFAULT_BYTES: u64 = 41_000_001;
const FULL_BYTES: u64 = 1_000_000_000;

/// A byte that comes in costs 2,000 cycles; a month's storage, without which a canister freezes, some 300 more, and
/// hashing it twice 150.
const CYCLES_PER_GB: u128 = 3_000_000_000_000;

/// Rounds for the hash of a blob whose first chunk came last: a slice takes 100 MB.
const VERIFY_ROUNDS: u64 = 1_000;

fn size() -> u64 {
    if let Ok(text) = std::env::var("OPENSTORAGE_LARGE_BYTES") {
        return text
            .parse()
            .expect("OPENSTORAGE_LARGE_BYTES is a number of bytes");
    }
    match std::env::var_os("OPENSTORAGE_FULL") {
        Some(value) if value == "1" => FULL_BYTES,
        _ => DEFAULT_BYTES,
    }
}

/// A blob that is made chunk by chunk.
struct Blob {
    id: BlobId,
    size: u64,
}

impl Blob {
    fn new(size: u64) -> Self {
        let mut hash = Sha256::new();
        for index in 0..chunk_count(size) {
            hash.update(Self::bytes(size, index));
        }
        let id = BlobId(hash.finalize().into());
        Self { id, size }
    }

    fn bytes(size: u64, index: u64) -> Vec<u8> {
        let len = chunk_len(size, index).expect("there is such a chunk");
        bytes(len, 1_000 + index)
    }

    fn chunk(&self, index: u64, accessor: Principal) -> PushChunkArgs {
        PushChunkArgs {
            blob_id: self.id,
            size: self.size,
            mime_type: "video/mp4".into(),
            name: Some("film.mp4".into()),
            chunk_index: index as u32,
            bytes: Self::bytes(self.size, index).into(),
            accessor_ids: vec![accessor],
        }
    }
}

#[test]
fn a_large_blob_arrives_in_any_order_outlives_upgrades_and_reads_back() {
    let setup = Setup::new();
    // All of it comes within a minute of the network's time, and the index tops buckets up less often.
    setup.pic.add_cycles(
        setup.bucket,
        CYCLES_PER_GB * u128::from(size().div_ceil(1_000_000_000)),
    );
    let (alice, room) = setup.user_with_chat(1);
    let blob = Blob::new(size());
    let allowance = UserArgs {
        user: alice,
        byte_limit: 2 * blob.size,
    };
    index::update_user(&setup, operator(), allowance).expect("the operator may");
    bucket::ensure_registered(&setup, setup.bucket, alice).expect("the bucket learns of the user");

    // The odd chunks, backwards; then the even ones, the first of all last: nothing can be hashed before.
    let count = chunk_count(blob.size);
    let odd = (0..count).rev().filter(|index| index % 2 == 1);
    let even = (0..count).rev().filter(|index| index % 2 == 0);
    let mut left = count;
    for index in odd.chain(even) {
        if left == count * 2 / 3 || left == count / 3 {
            setup
                .upgrade(setup.bucket, "bucket")
                .expect("it can be upgraded");
        }
        let args = blob.chunk(index, room.accessor_id);
        let pushed = bucket::push_chunk(&setup, setup.bucket, alice, args);
        let pushed = pushed.expect("the chunk is taken");
        left -= 1;
        assert_eq!(u64::from(pushed.missing_count), left);
    }
    let status = |setup: &Setup| -> UploadStatus {
        let args = UploadArgs { blob_id: blob.id };
        bucket::upload_status(setup, setup.bucket, alice, args).expect("there is an upload")
    };
    // Once more while it is being hashed, where that takes more than one message.
    if status(&setup).state == UploadState::Verifying {
        setup
            .upgrade(setup.bucket, "bucket")
            .expect("it can be upgraded");
    }
    let stored = (0..VERIFY_ROUNDS).any(|_| {
        setup.pic.tick();
        status(&setup).state == UploadState::Stored
    });
    assert!(stored, "{:?}", status(&setup));

    let reference = BlobReference {
        blob_id: blob.id,
        bucket: setup.bucket,
        size: blob.size,
        mime_type: "video/mp4".into(),
    };
    let message = chat::post(&setup, alice, room.chat_id, &reference);
    let (access, token) = chat::access(&setup, alice, room.chat_id, message);
    for index in 0..count {
        let args = ReadChunkArgs {
            blob_id: blob.id,
            accessor_id: access.accessor_id,
            token: token.clone(),
            chunk_index: index as u32,
        };
        let read = bucket::read_chunk(&setup, setup.bucket, alice, args).expect("it is readable");
        assert!(
            read.bytes[..] == Blob::bytes(blob.size, index),
            "chunk {index}"
        );
    }
    setup.rest();
    let info = index::user(&setup, alice).expect("the user is known");
    assert_eq!(info.bytes_used, blob.size);
}

#[test]
fn two_users_who_race_on_one_blob_both_have_it_and_it_is_stored_once() {
    let setup = Setup::new();
    let users = [1, 2].map(|n| setup.user_with_chat(n));
    let data = bytes(9_000_000, 7);
    for (user, _) in &users {
        bucket::ensure_registered(&setup, setup.bucket, *user)
            .expect("the bucket learns of the user");
    }
    // Both send everything at once, in opposite orders, and send again what is asked for.
    let count = chunk_count(data.len() as u64);
    let mut wanted: Vec<(usize, u64)> = (0..count)
        .flat_map(|index| [(0, index), (1, count - 1 - index)])
        .collect();
    for _ in 0..10 {
        let calls: Vec<_> = wanted
            .drain(..)
            .map(|(who, index)| {
                let (user, room) = &users[who];
                let args = encode_one(chunk(&data, index, room.accessor_id)).expect("it encodes");
                let call = setup
                    .pic
                    .submit_call(setup.bucket, *user, "push_chunk", args);
                (who, index, call.expect("the message is taken"))
            })
            .collect();
        for (who, index, call) in calls {
            let reply = setup.pic.await_call(call).expect("it is answered");
            let answer: Result<PushChunkOk, PushChunkError> =
                decode_one(&reply).expect("it decodes");
            match answer {
                Ok(_) => {}
                Err(PushChunkError::ChunkNeeded { indexes }) => {
                    wanted.extend(indexes.into_iter().map(|index| (who, index.into())));
                }
                Err(PushChunkError::Retry { .. }) => wanted.push((who, index)),
                Err(error) => panic!("user {who}, chunk {index}: {error:?}"),
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            break;
        }
        setup.pic.advance_time(std::time::Duration::from_secs(1));
        setup.pic.tick();
    }
    for (user, _) in &users {
        let args = UploadArgs {
            blob_id: blob_id(&data),
        };
        let status = bucket::upload_status(&setup, setup.bucket, *user, args);
        assert_eq!(status.map(|status| status.state), Ok(UploadState::Stored));
    }
    setup.rest();
    let status = bucket::status(&setup, setup.bucket);
    assert_eq!(
        (status.blobs, status.references, status.bytes_stored),
        (1, 2, data.len() as u64)
    );
    for n in [1, 2] {
        let info = index::user(&setup, user(n)).expect("the user is known");
        assert_eq!(info.bytes_used, data.len() as u64, "user {n}");
    }
}

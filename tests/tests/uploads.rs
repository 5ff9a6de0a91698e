//! Uploads in hostile hands: what one user sends stops nobody else, takes no more room than has arrived, and gives
//! nobody what it has not got.

use std::time::Duration;

use candid::Principal;
use data_bucket::Bucket;
use ic_stable_structures::DefaultMemoryImpl;
use integration_tests::{Setup, blob_id, bucket, bytes, chunk, index, no_growth, operator, user};
use openstorage_types::{
    BlobId, ChunkRange,
    bucket::{
        GoneReason, MyUploadsArgs, OpenUpload, PushChunkArgs, PushChunkError, PushChunkOk,
        RemoveBlobReferenceArgs, UploadArgs, UploadState, UploadStatus,
    },
    chunk_count,
    index::{InitArgs, UserArgs},
    limits::{CHUNK_BYTES, GIB, POSSESSION_FAILURES_MAX, REFERENCE_BYTES_MIN},
};

/// A user that the bucket knows, with so much to store.
fn registered(setup: &Setup, n: u64, byte_limit: u64) -> Principal {
    let user = user(n);
    let args = UserArgs { user, byte_limit };
    index::register_user(setup, operator(), args).expect("the operator registers users");
    bucket::ensure_registered(setup, setup.bucket, user).expect("the bucket learns of the user");
    user
}

fn push(
    setup: &Setup,
    user: Principal,
    args: PushChunkArgs,
) -> Result<PushChunkOk, PushChunkError> {
    bucket::push_chunk(setup, setup.bucket, user, args)
}

fn status(setup: &Setup, user: Principal, blob_id: BlobId) -> UploadStatus {
    bucket::upload_status(setup, setup.bucket, user, UploadArgs { blob_id }).expect("it is known")
}

fn my_uploads(setup: &Setup, user: Principal) -> Vec<OpenUpload> {
    let args = MyUploadsArgs {
        after: None,
        limit: 1_000,
    };
    bucket::my_uploads(setup, setup.bucket, user, args)
}

/// Looks at all that is in the bucket's memory.
fn audit(setup: &Setup) {
    let memory = DefaultMemoryImpl::default();
    *memory.borrow_mut() = setup.pic.get_stable_memory(setup.bucket);
    let bucket = Bucket::open(memory, setup.bucket, None);
    if let Err(contradiction) = bucket.inventory() {
        panic!("{contradiction}");
    }
}

fn accessor() -> Principal {
    user(900)
}

/// Garbage comes under the id of a true blob, the last chunk first, until it is verified; the true blob is stored
/// meanwhile; then a chunk of the garbage is pushed again. The bucket's background work goes on, for everybody.
#[test]
fn garbage_under_a_true_blobs_id_stops_no_background_work() {
    const CHUNKS: u64 = 52;
    let setup = Setup::new();
    let mallory = registered(&setup, 1, GIB);
    let (bob, carol) = (registered(&setup, 2, GIB), registered(&setup, 3, GIB));
    let size = CHUNKS * CHUNK_BYTES;
    let data = bytes(size, 1);
    let id = blob_id(&data);
    let with = |index: u64, bytes: Vec<u8>| PushChunkArgs {
        blob_id: id,
        size,
        mime_type: "image/png".into(),
        name: None,
        chunk_index: index as u32,
        bytes: bytes.into(),
        accessor_ids: vec![accessor()],
    };
    let garbage = |index: u64| with(index, vec![9; CHUNK_BYTES as usize]);
    let good = |index: u64| {
        let start = (index * CHUNK_BYTES) as usize;
        with(index, data[start..start + CHUNK_BYTES as usize].to_vec())
    };
    for index in (1..CHUNKS).rev() {
        push(&setup, mallory, garbage(index)).unwrap();
        push(&setup, bob, good(CHUNKS - 1 - index)).unwrap();
    }
    // In one round: the garbage is whole, the true blob is stored, and a chunk of the garbage comes again.
    let calls = [
        (mallory, garbage(0)),
        (bob, good(CHUNKS - 1)),
        (mallory, garbage(7)),
    ];
    let calls = calls.map(|(user, args)| {
        let args = candid::encode_one(args).unwrap();
        let call = setup
            .pic
            .submit_call(setup.bucket, user, "push_chunk", args);
        call.expect("the message is taken")
    });
    for call in calls {
        setup.pic.await_call(call).expect("it is answered");
    }
    for _ in 0..50 {
        setup.pic.advance_time(Duration::from_secs(1));
        setup.pic.tick();
    }
    // Events are told, and others' uploads are verified.
    let other = bytes(12_000_000, 2);
    for index in (0..6).rev() {
        push(&setup, carol, chunk(&other, index, accessor())).unwrap();
    }
    setup.settle("both true blobs are stored", |setup| {
        let bob_has = status(setup, bob, id).state == UploadState::Stored;
        let carol_has = status(setup, carol, blob_id(&other)).state == UploadState::Stored;
        (bob_has && carol_has).then_some(())
    });
    setup.rest();
    assert_eq!(index::user(&setup, carol).unwrap().bytes_used, 12_000_000);
    assert!(!matches!(
        status(&setup, mallory, id).state,
        UploadState::Stored | UploadState::Verifying
    ));
    assert_eq!(bucket::status(&setup, setup.bucket).events_unsent, 0);
    audit(&setup);
}

/// The last chunks of large blobs, of a byte each, take what they are and no step of 64 MB; and they hold so little
/// room that the bucket goes on taking others, and no further bucket is made.
#[test]
fn a_byte_takes_no_room_but_its_own() {
    let setup = Setup::new();
    let memory = || {
        let status = setup.pic.canister_status(setup.bucket, Some(operator()));
        u64::try_from(status.unwrap().memory_size.0).unwrap()
    };
    registered(&setup, 99, GIB);
    let before = memory();
    for n in 0..20 {
        let user = registered(&setup, n, 11 * GIB);
        for of_user in 0..3 {
            let chunks = 5_000 + of_user;
            let mut args = chunk(&[7], 0, accessor());
            args.size = chunks * CHUNK_BYTES + 1;
            args.chunk_index = chunks as u32;
            args.blob_id.0[0] = n as u8;
            args.blob_id.0[1] = of_user as u8;
            // Together they would be more than the limit.
            if of_user == 0 {
                push(&setup, user, args).unwrap();
            } else {
                let refused = push(&setup, user, args);
                assert!(
                    matches!(refused, Err(PushChunkError::AllowanceExceeded(_))),
                    "{refused:?}"
                );
            }
        }
    }
    assert!(memory() - before < 20_000_000, "{}", memory() - before);
    let status = bucket::status(&setup, setup.bucket);
    assert_eq!(
        (status.open_uploads, status.bytes_reserved),
        (20, 20 * (CHUNK_BYTES + 1))
    );
    assert!(status.bytes_free > 199 * GIB);
    for _ in 0..20 {
        setup.pic.advance_time(Duration::from_secs(10));
        setup.pic.tick();
    }
    assert_eq!(index::status(&setup).buckets.len(), 1);
    setup.rest();
    audit(&setup);
    // Two days on, all of it has lapsed.
    setup.pic.advance_time(Duration::from_secs(60 * 3_600));
    setup.settle("nothing is open", |setup| {
        (bucket::status(setup, setup.bucket).open_uploads == 0).then_some(())
    });
    audit(&setup);
}

/// What begun uploads hold is told apart from what is stored, and any device can see and discard it.
#[test]
fn what_unfinished_uploads_hold_is_told_and_can_be_freed() {
    let setup = Setup::new();
    let alice = registered(&setup, 1, GIB);
    let begin = |size: u64, seed: u8| {
        let mut args = chunk(&bytes(CHUNK_BYTES, seed.into()), 0, accessor());
        args.size = size;
        args.blob_id = BlobId([seed; 32]);
        push(&setup, alice, args)
    };
    begin(900_000_000, 1).unwrap();
    let refused = settled(&setup, || begin(300_000_000, 2));
    let Err(PushChunkError::AllowanceExceeded(allowance)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (
            allowance.bytes_used,
            allowance.bytes_reserved,
            allowance.leased_elsewhere
        ),
        (0, 900_000_000, 0)
    );
    let open = my_uploads(&setup, alice);
    assert_eq!(open.len(), 1);
    assert_eq!(
        (open[0].size, open[0].bytes_arrived, open[0].bytes_reserved),
        (900_000_000, CHUNK_BYTES, 900_000_000)
    );
    assert_eq!(open[0].state, UploadState::Open);
    assert!(my_uploads(&setup, user(77)).is_empty());
    let blob_id = open[0].blob_id;
    bucket::abort_upload(&setup, setup.bucket, alice, UploadArgs { blob_id }).unwrap();
    settled(&setup, || begin(300_000_000, 2)).unwrap();
    audit(&setup);
}

/// Asks again while the bucket asks to wait.
fn settled(
    setup: &Setup,
    call: impl Fn() -> Result<PushChunkOk, PushChunkError>,
) -> Result<PushChunkOk, PushChunkError> {
    setup.settle("the bucket has an answer", |_| match call() {
        Err(PushChunkError::Retry { .. }) => None,
        answer => Some(answer),
    })
}

/// With six of twelve chunks nobody gets the others, under no name and however often: all twelve have to be shown, and
/// nothing is told before one was.
#[test]
fn half_of_a_blob_is_no_proof_of_the_whole() {
    let setup = Setup::new();
    let alice = registered(&setup, 1, GIB);
    let data = bytes(12 * CHUNK_BYTES, 1);
    let id = blob_id(&data);
    for index in 0..12 {
        push(&setup, alice, chunk(&data, index, accessor())).unwrap();
    }
    for n in 0..20 {
        let name = registered(&setup, 100 + n, GIB);
        let first = status(&setup, name, id);
        assert_eq!(first.missing, [ChunkRange { start: 0, end: 1 }]);
        let mut wrong = chunk(&data, 1, accessor());
        wrong.bytes[1_999_999] ^= 1;
        let attempts_left = POSSESSION_FAILURES_MAX - 1;
        let refused = push(&setup, name, wrong);
        assert_eq!(
            refused,
            Err(PushChunkError::ChunkMismatch { attempts_left })
        );
        assert!(my_uploads(&setup, name).is_empty());
        for index in [0, 2, 4, 6, 8, 10] {
            let pushed = push(&setup, name, chunk(&data, index, accessor())).unwrap();
            assert_eq!(pushed.state, UploadState::Open);
        }
        let missing = status(&setup, name, id).missing;
        let odd = [1, 3, 5, 7, 9, 11].map(|start| ChunkRange {
            start,
            end: start + 1,
        });
        assert_eq!(missing, odd);
        let read = bucket::blob_info(&setup, setup.bucket, name, UploadArgs { blob_id: id });
        assert!(read.is_err());
    }
    audit(&setup);
}

/// A blob whose chunks a user has begun to show goes, and memory does not grow: the push that finds no room leaves no
/// slot behind.
#[test]
fn a_push_without_memory_leaves_no_slot_behind() {
    let setup = Setup::new();
    let (alice, bob) = (registered(&setup, 1, GIB), registered(&setup, 2, GIB));
    let remove = |data: &[u8]| {
        let args = RemoveBlobReferenceArgs {
            blob_id: blob_id(data),
            accessor_id: accessor(),
            owner: alice,
            token: None,
        };
        bucket::delete_blob(&setup, setup.bucket, alice, args).unwrap();
    };
    let upload = |data: &[u8]| {
        for index in 0..chunk_count(data.len() as u64) {
            push(&setup, alice, chunk(data, index, accessor())).unwrap();
        }
    };
    for n in 0..40 {
        let data = bytes(3_000_000, 1);
        upload(&data);
        push(&setup, bob, chunk(&data, 0, accessor())).unwrap();
        remove(&data);
        // What the blob took is taken by others.
        upload(&bytes(1_900_000, 10 + n));
        upload(&bytes(1_100_000, 100 + n));
        no_growth(&setup, setup.bucket, "push_chunk");
        let args = candid::encode_one(chunk(&data, 0, accessor())).unwrap();
        let answer = setup.pic.update_call(setup.bucket, bob, "push_chunk", args);
        let answer = answer.map(|reply| {
            candid::decode_one::<Result<PushChunkOk, PushChunkError>>(&reply).unwrap()
        });
        if answer == Ok(Err(PushChunkError::StorageFull)) {
            // The upload is as it was, and goes on when memory grows.
            audit(&setup);
            assert_eq!(my_uploads(&setup, bob).len(), 1);
            for index in 0..2 {
                push(&setup, bob, chunk(&data, index, accessor())).unwrap();
            }
            assert_eq!(
                status(&setup, bob, blob_id(&data)).state,
                UploadState::Stored
            );
            audit(&setup);
            return;
        }
        let blob_id = blob_id(&data);
        bucket::abort_upload(&setup, setup.bucket, bob, UploadArgs { blob_id }).unwrap();
    }
    panic!("memory never had to grow");
}

/// References to the empty blob cost as much as any.
#[test]
fn references_to_the_empty_blob_are_paid_for() {
    let setup = Setup::new();
    let alice = registered(&setup, 1, 10 * REFERENCE_BYTES_MIN);
    let refer = |n: u64| {
        settled(&setup, || {
            push(&setup, alice, chunk(&[], 0, user(1_000 + n)))
        })
    };
    for n in 0..10 {
        refer(n).unwrap();
    }
    let refused = refer(10);
    assert!(
        matches!(refused, Err(PushChunkError::AllowanceExceeded(_))),
        "{refused:?}"
    );
    refer(3).unwrap();
    setup.rest();
    let used = index::user(&setup, alice).unwrap().bytes_used;
    assert_eq!(used, 10 * REFERENCE_BYTES_MIN);
    audit(&setup);
}

/// A bucket that runs full says so to the index when it refuses: the next upload is sent elsewhere, and what was in
/// stays until it is given back.
#[test]
fn an_upload_for_which_the_room_is_gone_goes_elsewhere() {
    let setup = Setup::with(InitArgs {
        bucket_bytes_max: Some(30_000_000),
        ..InitArgs::default()
    });
    let (alice, bob) = (registered(&setup, 1, GIB), registered(&setup, 2, GIB));
    let (first, second) = (bytes(28_000_000, 1), bytes(26_000_000, 2));
    push(&setup, alice, chunk(&first, 0, accessor())).unwrap();
    push(&setup, bob, chunk(&second, 0, accessor())).unwrap();
    let mut refused = None;
    for index in 1..13 {
        for (user, data) in [(alice, &first), (bob, &second)] {
            if let Err(error) = push(&setup, user, chunk(data, index, accessor())) {
                refused = refused.or(Some((user, index, error)));
            }
        }
    }
    let Some((loser, index, PushChunkError::BucketFull { bytes_arrived, .. })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(bytes_arrived, index * CHUNK_BYTES);
    let arrived = my_uploads(&setup, loser)[0].bytes_arrived;
    assert_eq!(arrived, bytes_arrived);
    audit(&setup);
    let blob_id = my_uploads(&setup, loser)[0].blob_id;
    let other = setup.settle("another bucket has room for it", |setup| {
        let args = openstorage_types::index::AllocatedBucketArgs {
            blob_id,
            size: 26_000_000,
            exclude: vec![],
        };
        let allocated = index::allocated_bucket(setup, loser, args).ok()?;
        (allocated.bucket != setup.bucket).then_some(allocated.bucket)
    });
    assert_ne!(other, setup.bucket);
    bucket::abort_upload(&setup, setup.bucket, loser, UploadArgs { blob_id }).unwrap();
    assert_eq!(
        status(&setup, loser, blob_id).state,
        UploadState::Gone(GoneReason::Aborted)
    );
    audit(&setup);
}

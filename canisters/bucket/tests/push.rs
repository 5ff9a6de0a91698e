//! Chunks: what is refused, what an upload survives, and what it leaves behind.

mod support;

use candid::Principal;
use data_bucket::Stop;
use openstorage_types::{
    BlobId, ChunkRange,
    bucket::{GoneReason, PushChunkArgs, PushChunkError, PushChunkOk, UploadError, UploadState},
    limits::{
        ACCESSORS_MAX, BLOB_BYTES_MAX, GONE_UPLOADS_MAX, MIME_TYPE_BYTES_MAX, NAME_BYTES_MAX,
        OPEN_UPLOADS_MAX, POSSESSION_FAILED_BLOBS_MAX, POSSESSION_FAILURES_MAX,
    },
};
use support::*;

const NOTHING: [u64; 5] = [0; 5];

#[test]
fn chunks_come_in_any_order_and_twice() {
    let mut world = World::new();
    let data = bytes(5_000_000, 3);
    let open = |missing_count| PushChunkOk {
        state: UploadState::Open,
        missing_count,
    };
    assert_eq!(world.push(alice(), &chunk(&data, 2)), Ok(open(2)));
    assert_eq!(world.push(alice(), &chunk(&data, 2)), Ok(open(2)));
    assert_eq!(world.figures(), [0, 0, 1, 0, 5_000_000]);
    assert_eq!(
        world.state(alice(), &data).missing,
        [ChunkRange { start: 0, end: 2 }]
    );
    assert_eq!(world.push(alice(), &chunk(&data, 0)), Ok(open(1)));
    let stored = world.push(alice(), &chunk(&data, 1)).unwrap();
    assert_eq!(stored.state, UploadState::Stored);
    assert_eq!(world.figures(), [1, 1, 0, 5_000_000, 0]);
    assert_eq!(world.charged(alice()), Some(5_000_000));
}

#[test]
fn the_empty_blob_is_a_blob() {
    let mut world = World::new();
    world.upload(alice(), &[]);
    assert_eq!(world.figures(), [1, 1, 0, 0, 0]);
}

#[test]
fn what_breaks_a_rule_is_told_the_rule_and_leaves_nothing() {
    let mut world = World::new();
    let data = bytes(3_000_000, 3);
    let mut refusal = |change: &dyn Fn(&mut PushChunkArgs)| {
        let mut args = chunk(&data, 0);
        change(&mut args);
        world.refusal(alice(), &args)
    };
    use PushChunkError::*;
    assert_eq!(
        refusal(&|args| args.size = BLOB_BYTES_MAX + 1),
        BlobTooLarge {
            max: BLOB_BYTES_MAX
        }
    );
    assert_eq!(
        refusal(&|args| args.chunk_index = 2),
        InvalidChunkIndex { count: 2 }
    );
    assert_eq!(
        refusal(&|args| args.bytes.truncate(1)),
        InvalidChunkLength {
            expected: 2_000_000
        }
    );
    let accessors = InvalidAccessors {
        max: ACCESSORS_MAX as u32,
    };
    assert_eq!(refusal(&|args| args.accessor_ids.clear()), accessors);
    let many: Vec<_> = (0..=ACCESSORS_MAX as u8).map(principal).collect();
    assert_eq!(refusal(&|args| args.accessor_ids = many.clone()), accessors);
    assert_eq!(
        refusal(&|args| args.accessor_ids.push(Principal::anonymous())),
        accessors
    );
    for mime_type in ["png", "a/b c", "a/b\r\n", ""] {
        assert_eq!(
            refusal(&|args| args.mime_type = mime_type.into()),
            InvalidMimeType {
                max: MIME_TYPE_BYTES_MAX as u32
            },
            "{mime_type:?}"
        );
    }
    for name in ["a\nb".to_string(), "x".repeat(NAME_BYTES_MAX + 1)] {
        assert_eq!(
            refusal(&|args| args.name = Some(name.clone())),
            InvalidName {
                max: NAME_BYTES_MAX as u32
            },
            "{name:?}"
        );
    }
    let anonymous = world.refusal(Principal::anonymous(), &chunk(&data, 0));
    assert_eq!(anonymous, NotAuthorized);
    assert_eq!(
        world.refusal(principal(99), &chunk(&data, 0)),
        NotRegistered
    );
    assert_eq!(world.figures(), NOTHING);
}

#[test]
fn an_upload_keeps_to_its_size_and_to_its_first_bytes() {
    let mut world = World::new();
    let data = bytes(3_000_000, 3);
    world.push(alice(), &chunk(&data, 0)).unwrap();
    let mut other = chunk(&data, 1);
    other.size += 1;
    other.bytes.push(0);
    assert_eq!(
        world.refusal(alice(), &other),
        PushChunkError::SessionMismatch { size: 3_000_000 }
    );
    let mut other = chunk(&data, 0);
    other.bytes[5] ^= 1;
    assert_eq!(
        world.refusal(alice(), &other),
        PushChunkError::ChunkConflict
    );
    let stored = world.push(alice(), &chunk(&data, 1)).unwrap();
    assert_eq!(stored.state, UploadState::Stored);
}

#[test]
fn wrong_bytes_are_dropped_and_not_charged() {
    let mut world = World::new();
    let data = bytes(3_000_000, 3);
    let claimed = BlobId([1; 32]);
    let with_claim = |i| PushChunkArgs {
        blob_id: claimed,
        ..chunk(&data, i)
    };
    world.push(alice(), &with_claim(1)).unwrap();
    assert_eq!(
        world.refusal(alice(), &with_claim(0)),
        PushChunkError::HashMismatch {
            actual: blob_id(&data)
        }
    );
    assert_eq!(world.figures(), NOTHING);
    assert_eq!(world.charged(alice()), None);
    let status = world.bucket.upload_status(&alice(), &claimed).unwrap();
    assert_eq!(
        (status.state, status.size),
        (UploadState::Gone(GoneReason::HashMismatch), 3_000_000)
    );
    // The true blob is free to come.
    world.upload(alice(), &data);
}

#[test]
fn an_upload_outlives_an_upgrade_at_every_step() {
    let mut world = World::new();
    let data = bytes(7_000_000, 3);
    for i in [3, 1, 0] {
        world.push(alice(), &chunk(&data, i)).unwrap();
        world.upgrade();
    }
    assert_eq!(
        world.state(alice(), &data).missing,
        [ChunkRange { start: 2, end: 3 }]
    );
    let stored = world.push(alice(), &chunk(&data, 2)).unwrap();
    assert_eq!(stored.state, UploadState::Stored);
    world.upgrade();
    assert_eq!(world.figures(), [1, 1, 0, 7_000_000, 0]);
}

#[test]
fn an_aborted_upload_gives_everything_back() {
    let mut world = World::new();
    let data = bytes(3_000_000, 3);
    let id = blob_id(&data);
    let unknown = world.bucket.abort_upload(&alice(), &id, world.now);
    assert_eq!(unknown, Err(UploadError::NotFound));
    world.push(alice(), &chunk(&data, 0)).unwrap();
    for _ in 0..2 {
        world.bucket.abort_upload(&alice(), &id, world.now).unwrap();
        assert_eq!(world.figures(), NOTHING);
    }
    let state = world.state(alice(), &data).state;
    assert_eq!(state, UploadState::Gone(GoneReason::Aborted));
}

#[test]
fn an_idle_upload_is_dropped_after_a_day_and_its_grave_after_another() {
    let mut world = World::new();
    let data = bytes(3_000_000, 3);
    world.push(alice(), &chunk(&data, 0)).unwrap();
    world.pass(DAY_MS - 1);
    world.bucket.expire(world.now, 100);
    assert_eq!(world.state(alice(), &data).state, UploadState::Open);
    world.pass(1);
    world.bucket.expire(world.now, 100);
    let state = world.state(alice(), &data).state;
    assert_eq!(state, UploadState::Gone(GoneReason::Expired));
    assert_eq!(world.figures(), NOTHING);
    world.pass(DAY_MS);
    world.bucket.expire(world.now, 100);
    let status = world.bucket.upload_status(&alice(), &blob_id(&data));
    assert_eq!(status, Err(UploadError::NotFound));
    assert_eq!(world.bucket.next_expiry_ms(), None);
}

#[test]
fn a_chunk_puts_expiry_off() {
    let mut world = World::new();
    let data = bytes(5_000_000, 3);
    world.push(alice(), &chunk(&data, 0)).unwrap();
    world.pass(DAY_MS - 1);
    world.push(alice(), &chunk(&data, 1)).unwrap();
    world.pass(DAY_MS - 1);
    world.bucket.expire(world.now, 100);
    assert_eq!(world.state(alice(), &data).state, UploadState::Open);
}

#[test]
fn a_large_blob_is_verified_over_several_messages() {
    let mut world = World::new();
    // The first chunk comes last, so that nothing could be hashed before; one message does 100 MB.
    let data = bytes(104_000_000, 3);
    for i in (1..52).rev() {
        world.push(alice(), &chunk(&data, i)).unwrap();
    }
    let last = world.push(alice(), &chunk(&data, 0)).unwrap();
    assert_eq!(
        last,
        PushChunkOk {
            state: UploadState::Verifying,
            missing_count: 0
        }
    );
    world.upgrade();
    assert_eq!(world.state(alice(), &data).state, UploadState::Verifying);
    assert!(world.bucket.is_verifying());
    assert!(world.bucket.verify_slice(world.now));
    assert_eq!(world.state(alice(), &data).state, UploadState::Stored);
    assert!(!world.bucket.is_verifying() && !world.bucket.verify_slice(world.now));
    assert_eq!(world.figures(), [1, 1, 0, 104_000_000, 0]);
}

#[test]
fn allowance_is_asked_for_before_anything_is_written() {
    let mut world = World::empty(None);
    world.bucket.set_secret(SECRET, world.now);
    world.lease(alice(), 100);
    let data = bytes(150, 3);
    let lease = world.shortage(alice(), &chunk(&data, 0));
    assert_eq!((lease.user, lease.incarnation), (alice(), Some(1)));
    assert_eq!((lease.wanted, lease.counters.granted), (50, 100));
    assert_eq!(world.figures(), NOTHING);

    world.lease(alice(), 150);
    // An answer that was overtaken by a later one takes nothing back.
    world.lease(alice(), 100);
    world.upload(alice(), &data);
    let lease = world.shortage(alice(), &chunk(&bytes(1, 4), 0));
    assert_eq!((lease.wanted, lease.counters.spent), (1, 150));
}

#[test]
fn open_uploads_together_stay_within_the_lease() {
    let mut world = World::empty(None);
    world.bucket.set_secret(SECRET, world.now);
    world.lease(alice(), 5_000_000);
    world
        .push(alice(), &chunk(&bytes(3_000_000, 1), 0))
        .unwrap();
    let second = chunk(&bytes(3_000_000, 2), 0);
    assert_eq!(world.shortage(alice(), &second).wanted, 1_000_000);
    let first = blob_id(&bytes(3_000_000, 1));
    world
        .bucket
        .abort_upload(&alice(), &first, world.now)
        .unwrap();
    world.push(alice(), &second).unwrap();
}

#[test]
fn a_full_bucket_says_how_much_is_free_and_finishes_what_it_began() {
    let mut world = World::empty(Some(4_000_000));
    world.bucket.set_secret(SECRET, world.now);
    world.lease(alice(), 1_000_000_000);
    let first = bytes(3_000_000, 1);
    world.push(alice(), &chunk(&first, 0)).unwrap();
    assert_eq!(
        world.refusal(alice(), &chunk(&bytes(1_000_001, 2), 0)),
        PushChunkError::BucketFull {
            bytes_free: 1_000_000
        }
    );
    world.upload(alice(), &bytes(1_000_000, 2));
    world.push(alice(), &chunk(&first, 1)).unwrap();
    assert_eq!(world.bucket.status().bytes_free, 0);
}

#[test]
fn a_user_has_so_many_uploads_open_at_once() {
    let mut world = World::new();
    let begin = |n: u32| {
        let mut args = chunk(&bytes(2_000_001, 1), 1);
        args.blob_id.0[..4].copy_from_slice(&n.to_be_bytes());
        args
    };
    for n in 0..OPEN_UPLOADS_MAX {
        world.push(alice(), &begin(n)).unwrap();
    }
    assert_eq!(
        world.refusal(alice(), &begin(OPEN_UPLOADS_MAX)),
        PushChunkError::TooManyOpenUploads {
            max: OPEN_UPLOADS_MAX
        }
    );
    world.push(bob(), &begin(OPEN_UPLOADS_MAX)).unwrap();
}

/// An upload of one user after another goes wrong. Only why the last ones are gone is remembered, and nobody has
/// to be looked at more often than there are uploads and graves.
#[test]
fn what_is_remembered_of_a_users_uploads_is_bounded() {
    let mut world = World::new();
    let wrong = |n: u64| {
        let mut args = chunk(&[], 0);
        args.blob_id = blob_id(&n.to_le_bytes());
        args
    };
    world.refusal(bob(), &wrong(0));
    let count = GONE_UPLOADS_MAX as u64 + 3;
    for n in 0..count {
        world.refusal(alice(), &wrong(n));
        world.pass(1);
    }
    // The same one again counts once.
    for _ in 0..GONE_UPLOADS_MAX {
        world.refusal(alice(), &wrong(count - 1));
    }
    let is_known = |world: &World, user, n| {
        let status = world.bucket.upload_status(&user, &wrong(n).blob_id);
        status.is_ok()
    };
    let known = (0..count).filter(|n| is_known(&world, alice(), *n));
    assert_eq!(known.collect::<Vec<_>>(), Vec::from_iter(3..count));
    assert!(is_known(&world, bob(), 0), "another's stay");
    for _ in 0..1_000 {
        world
            .push(alice(), &chunk(&bytes(2_000_001, 1), 1))
            .unwrap();
        let blob = blob_id(&bytes(2_000_001, 1));
        world
            .bucket
            .abort_upload(&alice(), &blob, world.now)
            .unwrap();
    }
    world.pass(DAY_MS);
    for _ in 0..3 {
        world.bucket.expire(world.now, 100);
    }
    assert_eq!(world.bucket.next_expiry_ms(), None);
}

#[test]
fn an_empty_blob_is_refused_too_once_the_bucket_is_closed() {
    let mut world = World::new();
    world.bucket.set_closed(&index(), true, world.now).unwrap();
    let bytes_free = 0;
    assert_eq!(
        world.refusal(alice(), &chunk(&[], 0)),
        PushChunkError::BucketFull { bytes_free }
    );
}

/// What the bucket wants to see of a stored blob before `user` gets a reference.
fn needed(world: &mut World, user: Principal, data: &[u8], count: u64) -> Vec<u32> {
    for i in 0..count {
        match world.push(user, &chunk(data, i)) {
            Err(Stop::Error(PushChunkError::ChunkNeeded { indexes })) => return indexes,
            Ok(PushChunkOk { missing_count, .. }) => {
                assert_eq!(missing_count, 3, "the first that was shown by luck");
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("every chunk is needed")
}

#[test]
fn a_question_tells_which_chunks_of_a_stored_blob_are_to_be_shown() {
    let mut world = World::new();
    let data = bytes(40_000_000, 3);
    world.upload(alice(), &data);
    let before = world.figures();
    let status = world.state(bob(), &data);
    assert_eq!((status.state, status.size), (UploadState::Open, 40_000_000));
    assert_eq!(world.figures(), before, "a question keeps nothing");
    let indexes: Vec<u64> = status.missing.iter().map(|one| one.start.into()).collect();
    assert_eq!(indexes.len(), 4);
    for (i, index) in indexes.iter().enumerate() {
        let pushed = world.push(bob(), &chunk(&data, *index)).unwrap();
        assert_eq!(pushed.missing_count as usize, 3 - i);
        if i == 0 {
            assert_eq!(world.state(bob(), &data).missing, status.missing[1..]);
        }
    }
    assert_eq!(world.state(bob(), &data).state, UploadState::Stored);
    // Whom the bucket does not know it tells nothing.
    let stranger = world.bucket.upload_status(&principal(99), &blob_id(&data));
    assert_eq!(stranger, Err(UploadError::NotFound));
}

#[test]
fn a_stored_blob_is_given_to_whoever_shows_four_chunks_of_it() {
    let mut world = World::new();
    let data = bytes(40_000_000, 3);
    world.upload(alice(), &data);
    let left = needed(&mut world, bob(), &data, 20);
    assert!((3..=4).contains(&left.len()), "{left:?}");
    world.upgrade();
    for (i, index) in left.iter().enumerate() {
        let pushed = world.push(bob(), &chunk(&data, u64::from(*index))).unwrap();
        assert_eq!(pushed.state == UploadState::Stored, i + 1 == left.len());
    }
    assert_eq!(world.figures(), [1, 2, 0, 40_000_000, 0]);
    assert_eq!(world.charged(bob()), Some(40_000_000));
    // Once it has the reference, one chunk names further accessors, and costs nothing.
    let mut more = chunk(&data, 0);
    more.accessor_ids = vec![principal(50)];
    world.push(bob(), &more).unwrap();
    assert_eq!(world.figures(), [1, 3, 0, 40_000_000, 0]);
    assert_eq!(world.charged(bob()), Some(40_000_000));
}

#[test]
fn wrong_chunks_of_a_stored_blob_are_counted() {
    let mut world = World::new();
    let data = bytes(100, 3);
    world.upload(alice(), &data);
    let mut wrong = chunk(&data, 0);
    wrong.bytes[0] ^= 1;
    for left in (0..POSSESSION_FAILURES_MAX).rev() {
        assert_eq!(
            world.refusal(bob(), &wrong),
            PushChunkError::ChunkMismatch {
                attempts_left: left
            }
        );
    }
    // Now the right bytes do not help either, until a day has passed.
    let right = chunk(&data, 0);
    assert_eq!(
        world.refusal(bob(), &right),
        PushChunkError::ChunkMismatch { attempts_left: 0 }
    );
    world.pass(DAY_MS);
    world.upload(bob(), &data);
}

/// Ten tries a day for each of any number of blobs would be as many tries as somebody likes.
#[test]
fn wrong_chunks_may_be_shown_of_so_many_blobs_in_a_day() {
    let mut world = World::new();
    let data = |n: usize| (n as u64).to_le_bytes();
    let wrong = |n: usize| {
        let mut args = chunk(&data(n), 0);
        args.bytes[0] ^= 1;
        args
    };
    let left = |world: &mut World, n: usize| {
        let refusal = world.refusal(bob(), &wrong(n));
        world
            .bucket
            .abort_upload(&bob(), &blob_id(&data(n)), world.now)
            .unwrap();
        match refusal {
            PushChunkError::ChunkMismatch { attempts_left } => attempts_left,
            other => panic!("{other:?}"),
        }
    };
    for n in 0..=POSSESSION_FAILED_BLOBS_MAX {
        world.upload(alice(), &data(n));
    }
    for n in 0..POSSESSION_FAILED_BLOBS_MAX {
        assert_eq!(left(&mut world, n), POSSESSION_FAILURES_MAX - 1);
    }
    assert_eq!(left(&mut world, POSSESSION_FAILED_BLOBS_MAX), 0);
    assert_eq!(left(&mut world, 0), POSSESSION_FAILURES_MAX - 2);
    world.pass(DAY_MS);
    for _ in 0..10 {
        world.bucket.expire(world.now, 100);
    }
    let last = left(&mut world, POSSESSION_FAILED_BLOBS_MAX);
    assert_eq!(last, POSSESSION_FAILURES_MAX - 1);
}

#[test]
fn of_two_uploads_of_one_blob_the_second_becomes_a_reference() {
    let mut world = World::new();
    let data = bytes(3_000_000, 3);
    world.push(alice(), &chunk(&data, 0)).unwrap();
    world.push(bob(), &chunk(&data, 0)).unwrap();
    world.push(alice(), &chunk(&data, 1)).unwrap();
    assert_eq!(world.figures(), [1, 1, 1, 3_000_000, 3_000_000]);
    let pushed = world.push(bob(), &chunk(&data, 1)).unwrap();
    assert_eq!(pushed.state, UploadState::Stored);
    assert_eq!(world.figures(), [1, 2, 0, 3_000_000, 0]);
}

#[test]
fn one_users_garbage_does_not_touch_anothers_upload() {
    let mut world = World::new();
    let data = bytes(3_000_000, 3);
    let mut garbage = chunk(&data, 0);
    garbage.bytes.fill(0);
    world.push(bob(), &garbage).unwrap();
    world.upload(alice(), &data);
    assert_eq!(
        world.refusal(bob(), &garbage),
        PushChunkError::ChunkMismatch {
            attempts_left: POSSESSION_FAILURES_MAX - 1
        }
    );
}

//! Chunks: what is refused, what an upload survives, and what it leaves behind.

mod support;

use candid::Principal;
use openstorage_types::{
    BlobId, ChunkRange,
    bucket::{
        GoneReason, InitArgs, MyUploadsArgs, OpenUpload, PushChunkArgs, PushChunkError,
        PushChunkOk, RemoveBlobReferenceArgs, UploadError, UploadState,
    },
    channel::{AccessorDeleted, Counters, LeaseOk, kind},
    limits::{
        ACCESSORS_MAX, BLOB_BYTES_MAX, GONE_UPLOADS_MAX, HOUR_MS, MIME_TYPE_BYTES_MAX,
        NAME_BYTES_MAX, OPEN_UPLOADS_MAX, POSSESSION_DRAWS_MAX, POSSESSION_FAILED_BLOBS_MAX,
        POSSESSION_FAILURES_MAX, charge, upload_life_ms,
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
    // A million bytes are in, and room for another chunk is held.
    assert_eq!(world.figures(), [0, 0, 1, 0, 3_000_000]);
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
    let name = "x".repeat(NAME_BYTES_MAX + 1);
    assert_eq!(
        refusal(&|args| args.name = Some(name.clone())),
        InvalidName {
            max: NAME_BYTES_MAX as u32
        }
    );
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
    let status = world
        .bucket
        .upload_status(&alice(), &claimed, world.now)
        .unwrap();
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
    // It was far from being next when its turn came: the hash goes on by timer.
    let pushed = world.push(alice(), &chunk(&data, 2)).unwrap();
    assert_eq!(pushed.state, UploadState::Verifying);
    world.upgrade();
    assert!(world.bucket.verify_slice(world.now, 100));
    assert_eq!(world.state(alice(), &data).state, UploadState::Stored);
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
    let status = world
        .bucket
        .upload_status(&alice(), &blob_id(&data), world.now);
    assert_eq!(status, Err(UploadError::NotFound));
    assert_eq!(world.bucket.next_expiry_ms(), None);
}

#[test]
fn a_new_chunk_puts_expiry_off() {
    let mut world = World::new();
    let data = bytes(5_000_000, 3);
    world.push(alice(), &chunk(&data, 0)).unwrap();
    world.pass(DAY_MS - 1);
    world.push(alice(), &chunk(&data, 1)).unwrap();
    let expires_ms = uploads(&world, alice())[0].expires_ms;
    assert_eq!(expires_ms, START_MS + upload_life_ms(4_000_000));
    world.pass(HOUR_MS / 2);
    world.bucket.expire(world.now, 100);
    assert_eq!(world.state(alice(), &data).state, UploadState::Open);
}

/// A chunk a day, or the same chunk again, does not hold an upload's room for ever.
#[test]
fn an_upload_lives_as_long_as_it_gets_on() {
    let mut world = World::new();
    let data = bytes(9_000_000, 3);
    world.push(alice(), &chunk(&data, 0)).unwrap();
    for index in [0, 1, 0, 0] {
        world.pass(DAY_MS / 2 - 1);
        world.bucket.expire(world.now, 100);
        world.push(alice(), &chunk(&data, index)).unwrap();
    }
    // Begun anew after a day and a bit, and nothing new has come since.
    let open = uploads(&world, alice());
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].bytes_arrived, 2_000_000);
    assert!(open[0].expires_ms > START_MS + DAY_MS);
    world.pass(DAY_MS);
    for _ in 0..3 {
        world.bucket.expire(world.now, 100);
        world.pass(HOUR_MS);
    }
    let state = world.state(alice(), &data).state;
    assert_eq!(state, UploadState::Gone(GoneReason::Expired));
    assert_eq!(world.figures(), NOTHING);
    world.audit();
}

/// A user's open uploads, as any of its devices sees them.
fn uploads(world: &World, user: Principal) -> Vec<OpenUpload> {
    let args = MyUploadsArgs {
        after: None,
        limit: 1_000,
    };
    world.bucket.my_uploads(&user, &args)
}

#[test]
fn open_uploads_are_listed_and_can_be_discarded() {
    let mut world = World::new();
    let sizes = [3_000_000, 5_000_000, 2_000_001];
    for size in sizes {
        world.push(alice(), &chunk(&bytes(size, 3), 1)).unwrap();
    }
    world.push(bob(), &chunk(&bytes(9_000_000, 3), 1)).unwrap();
    let open = uploads(&world, alice());
    assert!(open.is_sorted_by_key(|upload| upload.blob_id));
    let mut found: Vec<_> = open
        .iter()
        .map(|upload| (upload.size, upload.bytes_arrived, upload.bytes_reserved))
        .collect();
    found.sort_unstable();
    let expected = [
        (2_000_001, 1, 2_000_001),
        (3_000_000, 1_000_000, 3_000_000),
        (5_000_000, 2_000_000, 5_000_000),
    ];
    assert_eq!(found, expected);
    assert!(
        open.iter().all(|upload| {
            upload.touched_ms == START_MS && upload.expires_ms == START_MS + DAY_MS
        })
    );
    let page = |after, limit| {
        let args = MyUploadsArgs { after, limit };
        world.bucket.my_uploads(&alice(), &args)
    };
    assert_eq!(page(None, 2), open[..2]);
    assert_eq!(page(Some(open[1].blob_id), 2), open[2..]);
    assert!(page(None, 0).is_empty());
    world.audit();
    for upload in open {
        let discarded = world
            .bucket
            .abort_upload(&alice(), &upload.blob_id, world.now);
        assert_eq!(discarded, Ok(()));
    }
    assert!(uploads(&world, alice()).is_empty());
    assert_eq!(uploads(&world, bob()).len(), 1);
    world.audit();
}

#[test]
fn a_large_blob_is_verified_over_several_messages() {
    let mut world = World::new();
    // The first chunk comes last, so that nothing could be hashed before.
    let data = bytes(52_000_000, 3);
    let id = blob_id(&data);
    for i in (1..26).rev() {
        world.push(alice(), &chunk_of(id, &data, i)).unwrap();
    }
    let last = world.push(alice(), &chunk_of(id, &data, 0)).unwrap();
    assert_eq!(
        last,
        PushChunkOk {
            state: UploadState::Verifying,
            missing_count: 0
        }
    );
    let mut slices = 0;
    while world.bucket.is_verifying() {
        world.audit();
        world.upgrade();
        assert_eq!(world.status(alice(), id).state, UploadState::Verifying);
        assert!(world.bucket.verify_slice(world.now, 100));
        slices += 1;
    }
    // 3.2 MB with the last chunk, then 5 MB in each.
    assert_eq!(slices, 10);
    assert_eq!(world.status(alice(), id).state, UploadState::Stored);
    assert!(!world.bucket.verify_slice(world.now, 100));
    assert_eq!(world.figures(), [1, 1, 0, 52_000_000, 0]);
    world.audit();
}

/// Two large uploads whose hash goes on by timer: neither waits for the end of the other.
#[test]
fn uploads_that_are_verified_take_turns() {
    let mut world = World::new();
    let data = [bytes(20_000_000, 3), bytes(24_000_000, 3)];
    for (user, data) in [alice(), bob()].iter().zip(&data) {
        for i in (0..data.len() as u64 / 2_000_000).rev() {
            world.push(*user, &chunk(data, i)).unwrap();
        }
    }
    for _ in 0..7 {
        assert!(world.bucket.verify_slice(world.now, 100));
    }
    assert_eq!(world.state(alice(), &data[0]).state, UploadState::Stored);
    for _ in 0..2 {
        assert!(world.bucket.verify_slice(world.now, 100));
    }
    assert_eq!(world.state(bob(), &data[1]).state, UploadState::Stored);
    world.audit();
}

/// Somebody pushes garbage under the id of a true blob the other way round, until it is verified; the true blob is
/// stored meanwhile; then any chunk is pushed again. The turns of verification go on, for everybody.
#[test]
fn garbage_under_a_true_blobs_id_stops_no_verification() {
    for (again, chunks) in [(0, 52), (3, 10)] {
        let mut world = World::new();
        let data = bytes(chunks * 2_000_000, 3);
        let id = blob_id(&data);
        let garbage = |i: u64| PushChunkArgs {
            bytes: vec![9; 2_000_000].into(),
            ..chunk_of(id, &data, i)
        };
        for i in (1..chunks).rev() {
            // The fourth chunk is a right one.
            let args = if i == 3 {
                chunk_of(id, &data, i)
            } else {
                garbage(i)
            };
            world.push(alice(), &args).unwrap();
        }
        let last = world.push(alice(), &garbage(0)).unwrap();
        assert_eq!(last.state, UploadState::Verifying);
        world.upload(bob(), &data);
        // A wrong one is counted, and the upload goes on; a right one makes it an upload that shows chunks.
        let pushed = world.push(
            alice(),
            &if again == 3 {
                chunk_of(id, &data, 3)
            } else {
                garbage(0)
            },
        );
        assert_eq!(pushed.is_ok(), again == 3, "{pushed:?}");
        world.audit();
        let other = bytes(22_000_000, 5);
        for i in (0..11).rev() {
            world.push(bob(), &chunk(&other, i)).unwrap();
        }
        let mut slices = 0;
        while world.bucket.is_verifying() {
            assert!(world.bucket.verify_slice(world.now, 100));
            slices += 1;
            assert!(slices < 30);
        }
        assert_eq!(world.state(bob(), &other).state, UploadState::Stored);
        // The stored blob is there to be shown.
        assert_eq!(world.status(alice(), id).state, UploadState::Open);
        assert_eq!(uploads(&world, alice()).len(), usize::from(again == 3));
        world.audit();
    }
}

/// Many begin large uploads with a byte each: the bucket goes on taking others.
#[test]
fn what_has_not_arrived_holds_little_room() {
    const GIB: u64 = 1 << 30;
    let mut world = World::empty(Some(20 * GIB));
    world.bucket.set_secret(SECRET, world.now);
    for n in 1..=20 {
        world.lease(principal(n), 11 * GIB);
        let mut args = chunk(&[7], 0);
        args.size = 4_000 * 2_000_000 + 1;
        args.blob_id.0[0] = n;
        args.chunk_index = 4_000;
        world.push(principal(n), &args).unwrap();
    }
    let status = world.bucket.status();
    assert_eq!(status.bytes_reserved, 20 * 2_000_001);
    assert!(status.bytes_free > 19 * GIB);
    world.audit();
}

/// What is promised grows with what arrives. When the bucket has no room for a chunk, what is in stays, and goes on
/// once there is room; or is given back.
#[test]
fn a_promise_that_cannot_be_kept_loses_nothing() {
    let mut world = World::empty(Some(9_000_000));
    world.bucket.set_secret(SECRET, world.now);
    for user in [alice(), bob()] {
        world.lease(user, 1_000_000_000);
    }
    let (first, second) = (bytes(8_000_000, 3), bytes(7_000_000, 5));
    world.push(alice(), &chunk(&first, 0)).unwrap();
    // 4 MB are held: there is no room for the second.
    let full = |bytes_free, bytes_arrived| PushChunkError::BucketFull {
        bytes_free,
        bytes_arrived,
    };
    assert_eq!(world.refusal(bob(), &chunk(&second, 0)), full(5_000_000, 0));
    assert_eq!(world.bucket.status().open_uploads, 1);
    let second = bytes(5_000_000, 5);
    world.push(bob(), &chunk(&second, 0)).unwrap();
    world.push(alice(), &chunk(&first, 1)).unwrap();
    assert_eq!(world.figures(), [0, 0, 2, 0, 9_000_000]);
    world.audit();
    // It was promised 5 MB, as no more was left.
    let refused = world.refusal(alice(), &chunk(&first, 2));
    assert_eq!(refused, full(0, 4_000_000));
    assert_eq!(world.refusal(alice(), &chunk(&first, 2)), refused);
    let missing = world.state(alice(), &first).missing;
    assert_eq!(missing, [ChunkRange { start: 2, end: 4 }]);
    world.audit();
    // The other ends as it was promised, or goes.
    let id = blob_id(&second);
    world.bucket.abort_upload(&bob(), &id, world.now).unwrap();
    world.push(alice(), &chunk(&first, 2)).unwrap();
    let stored = world.push(alice(), &chunk(&first, 3)).unwrap();
    assert_eq!(stored.state, UploadState::Stored);
    assert_eq!(world.figures(), [1, 1, 0, 8_000_000, 0]);
    world.audit();
}

/// The index hears at once when there is no room for what it sent here, and when much of it has gone or come.
#[test]
fn the_index_hears_of_the_room_at_once() {
    let mut world = World::with(InitArgs {
        bytes_max: Some(100_000_000),
        ..World::init()
    });
    world.drain();
    let free = |world: &mut World| {
        let batch = world.bucket.next_batch(world.now.version)?;
        world.acknowledge(&batch);
        batch.args.report.map(|report| report.bytes_free)
    };
    // A chunk, and as much again.
    world
        .push(alice(), &chunk(&bytes(40_000_000, 3), 0))
        .unwrap();
    assert_eq!(free(&mut world), None, "4 of 100 MB are no news");
    for i in 1..7 {
        world
            .push(alice(), &chunk(&bytes(40_000_000, 3), i))
            .unwrap();
    }
    assert_eq!(free(&mut world), Some(72_000_000));
    let mut large = chunk(&bytes(2_000_000, 4), 0);
    large.size = 75_000_000;
    world.refusal(bob(), &large);
    assert_eq!(free(&mut world), None, "it knows");
    world
        .push(alice(), &chunk(&bytes(40_000_000, 3), 7))
        .unwrap();
    world.refusal(bob(), &large);
    assert_eq!(free(&mut world), Some(68_000_000));
    let blob = blob_id(&bytes(40_000_000, 3));
    world
        .bucket
        .abort_upload(&alice(), &blob, world.now)
        .unwrap();
    assert_eq!(free(&mut world), Some(100_000_000));
}

/// The index refuses at once what is larger than the whole limit: all of it is asked for, not what the lease lacks.
#[test]
fn a_file_larger_than_the_limit_is_asked_for_whole() {
    let mut world = World::new();
    let mut args = chunk(&bytes(2_000_000, 4), 0);
    args.size = LIMIT + 1;
    assert_eq!(world.shortage(alice(), &args).wanted, LIMIT + 1);
    args.size = LIMIT;
    assert_eq!(world.shortage(alice(), &args).wanted, LIMIT - 1_000_000_000);
}

/// Names as disks have them, and those that would deceive: each is stored so that it can be shown.
#[test]
fn names_and_types_are_stored_as_they_can_be_shown() {
    let mut world = World::new();
    let han = "\u{5b57}".repeat(84) + ".png";
    assert_eq!(han.len(), 256);
    let emoji = "\u{1f600}".repeat(255);
    let names = [
        (han.as_str(), Some("\u{5b57}".repeat(83) + ".png")),
        (emoji.as_str(), Some("\u{1f600}".repeat(63))),
        ("invoice\u{202e}gpj.exe", Some("invoice_gpj.exe".into())),
        ("../../etc/passwd", Some(".._.._etc_passwd".into())),
        ("a\r\nSet-Cookie: b", Some("a__Set-Cookie: b".into())),
        ("C:\\temp\\x.txt", Some("C:_temp_x.txt".into())),
        ("..", Some("_".into())),
        ("", None),
        ("plain name.tar.gz", Some("plain name.tar.gz".into())),
    ];
    for (n, (name, stored)) in names.iter().enumerate() {
        let mut args = chunk(&bytes(10, n as u8 + 1), 0);
        args.name = Some((*name).into());
        args.mime_type = "Text/HTML; charset=UTF-8".into();
        world.push(alice(), &args).unwrap();
        let info = world.bucket.blob_info(&alice(), &args.blob_id).unwrap();
        assert_eq!(info.references[0].name, *stored, "{name:?}");
        assert_eq!(info.references[0].mime_type, "text/html");
    }
}

#[test]
fn allowance_is_asked_for_before_anything_is_written() {
    let mut world = World::empty(None);
    world.bucket.set_secret(SECRET, world.now);
    world.lease(alice(), 10_000);
    let data = bytes(15_000, 3);
    let lease = world.shortage(alice(), &chunk(&data, 0));
    assert_eq!((lease.user, lease.incarnation), (alice(), Some(1)));
    assert_eq!((lease.wanted, lease.counters.granted), (5_000, 10_000));
    assert_eq!(world.figures(), NOTHING);

    world.lease(alice(), 15_000);
    // An answer that was overtaken by a later one takes nothing back.
    world.lease(alice(), 10_000);
    world.upload(alice(), &data);
    let lease = world.shortage(alice(), &chunk(&bytes(1, 4), 0));
    assert_eq!((lease.wanted, lease.counters.spent), (charge(1, 1), 15_000));
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
            bytes_free: 1_000_000,
            bytes_arrived: 0
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
        let status = world
            .bucket
            .upload_status(&user, &wrong(n).blob_id, world.now);
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
    let full = PushChunkError::BucketFull {
        bytes_free: 0,
        bytes_arrived: 0,
    };
    assert_eq!(world.refusal(alice(), &chunk(&[], 0)), full);
}

/// Indexes of chunks in ranges.
fn listed(ranges: &[ChunkRange]) -> Vec<u64> {
    let indexes = ranges.iter().flat_map(|range| range.start..range.end);
    indexes.map(u64::from).collect()
}

#[test]
fn a_stored_blob_is_given_to_whoever_shows_the_chunks_that_are_drawn() {
    let mut world = World::new();
    let data = bytes(80_000_000, 3);
    let id = blob_id(&data);
    world.upload(alice(), &data);
    let before = world.figures();
    let status = world.status(bob(), id);
    assert_eq!((status.state, status.size), (UploadState::Open, 80_000_000));
    assert_eq!(
        listed(&status.missing),
        [0],
        "first any chunk, and nothing is told"
    );
    assert_eq!(world.figures(), before, "a question keeps nothing");
    // Whom the bucket does not know it tells nothing.
    let stranger = world.bucket.upload_status(&principal(99), &id, world.now);
    assert_eq!(stranger, Err(UploadError::NotFound));

    let opened = world.push(bob(), &chunk_of(id, &data, 7)).unwrap();
    let needed = listed(&world.status(bob(), id).missing);
    assert_eq!(opened.missing_count as usize, needed.len());
    assert!((23..=24).contains(&needed.len()), "{needed:?}");
    let other = (0..40).find(|index| *index != 7 && !needed.contains(index));
    let asked = world.refusal(bob(), &chunk_of(id, &data, other.unwrap()));
    let indexes = needed.iter().map(|index| *index as u32).collect();
    assert_eq!(asked, PushChunkError::ChunkNeeded { indexes });
    world.audit();
    world.upgrade();
    for (i, index) in needed.iter().enumerate() {
        let pushed = world.push(bob(), &chunk_of(id, &data, *index)).unwrap();
        assert_eq!(pushed.state == UploadState::Stored, i + 1 == needed.len());
        world.push(bob(), &chunk_of(id, &data, *index)).unwrap();
    }
    assert_eq!(world.figures(), [1, 2, 0, 80_000_000, 0]);
    assert_eq!(world.charged(bob()), Some(80_000_000));
    // Once it has the reference, one chunk names further accessors, at the price of a reference.
    let mut more = chunk_of(id, &data, 0);
    more.accessor_ids = vec![principal(50)];
    world.push(bob(), &more).unwrap();
    assert_eq!(world.figures(), [1, 3, 0, 80_000_000, 0]);
    assert_eq!(world.charged(bob()), Some(charge(80_000_000, 2)));
    world.audit();
}

/// The chunks that are drawn are others for each user and each upload.
#[test]
fn chunks_are_drawn_anew_for_each_upload() {
    let mut world = World::new();
    let data = bytes(120_000_000, 3);
    let id = blob_id(&data);
    world.upload(alice(), &data);
    world.tell_user(principal(3));
    world.lease(principal(3), 1_000_000_000);
    let mut drawn = vec![];
    for user in [bob(), principal(3)] {
        for _ in 0..2 {
            world.push(user, &chunk_of(id, &data, 0)).unwrap();
            drawn.push(world.status(user, id).missing);
            world.bucket.abort_upload(&user, &id, world.now).unwrap();
            world.pass(1);
        }
    }
    for (n, one) in drawn.iter().enumerate() {
        assert!(drawn[..n].iter().all(|other| other != one));
    }
}

/// Half of a blob does not become the whole, under whatever names chunks are drawn: 10,000 users have half of the
/// chunks each.
#[test]
fn half_of_a_blob_is_no_proof_of_the_whole() {
    const TRIES: u64 = 10_000;
    let mut world = World::new();
    let data = bytes(80_000_010, 3);
    let id = blob_id(&data);
    world.upload(alice(), &data);
    // The short last chunk opens an upload cheaply, and is among those that they have.
    let last = chunk_of(id, &data, 40);
    let has = |index: u64| index.is_multiple_of(2);
    let (mut drawn, mut proved) = (0, 0);
    for n in 0..TRIES {
        let user = Principal::self_authenticating(n.to_le_bytes());
        let answer = LeaseOk {
            incarnation: 1,
            byte_limit: LIMIT,
            counters: Counters {
                granted: 100_000_000,
                ..Counters::default()
            },
            version: 5,
            gone: None,
        };
        world.bucket.leased(user, &answer, world.now);
        world.push(user, &last).unwrap();
        let needed = listed(&world.status(user, id).missing);
        // Whoever is not asked for a part of it is asked for all.
        drawn += u64::from(needed.len() < 40);
        proved += u64::from(needed.iter().all(|index| has(*index)));
    }
    assert_eq!((drawn, proved), (u64::from(POSSESSION_DRAWS_MAX), 0));
    // Who has it all still gets it, and the next day chunks are drawn again.
    let begun = listed(&world.status(bob(), id).missing);
    assert_eq!(begun.len(), 41);
    for index in begun {
        world.push(bob(), &chunk_of(id, &data, index)).unwrap();
    }
    assert_eq!(world.status(bob(), id).state, UploadState::Stored);
    world.pass(DAY_MS);
    world.tell_user(principal(3));
    world.lease(principal(3), 1_000_000_000);
    let first = listed(&world.status(principal(3), id).missing);
    assert_eq!(first, [0]);
}

/// Honest uploaders of one blob, however many: chunks are drawn for each, as they all show them.
#[test]
fn those_who_have_a_blob_are_asked_for_a_part_of_it_however_many_they_are() {
    let mut world = World::new();
    let data = bytes(2_000_001, 3);
    world.upload(alice(), &data);
    let chunks = [chunk(&data, 0), chunk(&data, 1)];
    for n in 0..2 * u64::from(POSSESSION_DRAWS_MAX) {
        let user = Principal::self_authenticating(n.to_le_bytes());
        world.lease(user, 3_000_000);
        assert_eq!(listed(&world.state(user, &data).missing), [0]);
        for chunk in &chunks {
            world.push(user, chunk).unwrap();
        }
        assert_eq!(world.state(user, &data).state, UploadState::Stored);
    }
    world.audit();
}

/// An upload whose chunks are shown of a stored blob goes on where that blob goes.
#[test]
fn an_upload_goes_on_when_the_stored_blob_goes() {
    let mut world = World::new();
    let data = bytes(9_000_000, 3);
    world.upload(alice(), &data);
    world.push(bob(), &chunk(&data, 1)).unwrap();
    let removal = RemoveBlobReferenceArgs {
        blob_id: blob_id(&data),
        accessor_id: chat(),
        owner: alice(),
        token: None,
    };
    let removed = world
        .bucket
        .remove_blob_reference(alice(), &removal, world.now);
    assert_eq!(removed, Ok(()));
    world.audit();
    assert_eq!(listed(&world.state(bob(), &data).missing), [0, 1, 2, 3, 4]);
    for index in 0..5 {
        world.push(bob(), &chunk(&data, index)).unwrap();
        world.audit();
    }
    assert_eq!(world.figures(), [1, 1, 0, 9_000_000, 0]);
}

/// Every error of a push leaves all as it was: what is stored, reserved and listed is the same, and nothing is left
/// over. But a wrong hash drops the upload, and a wrong chunk of a stored blob is counted.
#[test]
fn an_error_leaves_everything_as_it_was() {
    let mut world = World::new();
    let (stored, open) = (bytes(9_000_000, 3), bytes(7_000_000, 5));
    world.upload(alice(), &stored);
    world.push(bob(), &chunk(&open, 1)).unwrap();
    let refused = |world: &mut World, args: &PushChunkArgs| {
        let before = (world.figures(), uploads(world, bob()));
        let charged = world.charged(bob());
        let refusal = world.refusal(bob(), args);
        assert_eq!(
            (world.figures(), uploads(world, bob())),
            before,
            "{refusal:?}"
        );
        assert_eq!(world.charged(bob()), charged);
        world.audit();
        refusal
    };
    let mut wrong = chunk(&stored, 0);
    wrong.bytes[7] ^= 1;
    // A stored blob, nothing of which was shown.
    let mismatch = refused(&mut world, &wrong);
    assert_eq!(mismatch, PushChunkError::ChunkMismatch { attempts_left: 9 });
    // An upload of which a chunk is in.
    let mut other = chunk(&open, 1);
    other.bytes[7] ^= 1;
    assert_eq!(refused(&mut world, &other), PushChunkError::ChunkConflict);
    let mut longer = chunk(&open, 0);
    longer.size += 1;
    let size = 7_000_000;
    let mismatch = refused(&mut world, &longer);
    assert_eq!(mismatch, PushChunkError::SessionMismatch { size });
    let mut many = chunk(&open, 0);
    many.accessor_ids = (1..=ACCESSORS_MAX as u8).map(principal).collect();
    let max = ACCESSORS_MAX as u32;
    assert_eq!(
        refused(&mut world, &many),
        PushChunkError::InvalidAccessors { max }
    );
    let gone = AccessorDeleted {
        accessor_id: principal(77),
    };
    world.tell(kind::ACCESSOR_DELETED, &gone);
    let mut deleted = chunk(&open, 0);
    deleted.accessor_ids.push(principal(77));
    let accessor_id = principal(77);
    assert_eq!(
        refused(&mut world, &deleted),
        PushChunkError::AccessorDeleted { accessor_id }
    );
    // An upload that shows chunks of a stored blob.
    let large = bytes(80_000_000, 9);
    let id = blob_id(&large);
    world.upload(alice(), &large);
    world.push(bob(), &chunk_of(id, &large, 0)).unwrap();
    let needed = listed(&world.status(bob(), id).missing);
    let other = (1..40).find(|index| !needed.contains(index)).unwrap();
    let asked = refused(&mut world, &chunk_of(id, &large, other));
    assert!(
        matches!(asked, PushChunkError::ChunkNeeded { .. }),
        "{asked:?}"
    );
    let mut wrong = chunk_of(id, &large, needed[0]);
    wrong.bytes[7] ^= 1;
    let mismatch = refused(&mut world, &wrong);
    assert_eq!(mismatch, PushChunkError::ChunkMismatch { attempts_left: 9 });
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
    let left = |world: &mut World, n: usize| match world.refusal(bob(), &wrong(n)) {
        PushChunkError::ChunkMismatch { attempts_left } => attempts_left,
        other => panic!("{other:?}"),
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

//! Which bucket a blob goes to, and what buckets tell of the blobs they have.

mod support;

use std::collections::BTreeMap;

use candid::Principal;
use openstorage_types::{
    BlobId,
    channel::{Event, EventsArgs, EventsError, Reference, Stamp, kind},
    index::{AllocatedBucketArgs, AllocatedBucketError, AllocatedBucketOk},
    limits::{
        BLOB_BYTES_MAX, CHUNK_BYTES, EVENT_BATCH_BYTES_MAX, EVENTS_PER_BATCH_MAX, EXCLUDE_MAX,
    },
};
use support::*;

const LIMIT: u64 = 1_000_000_000;

fn world(buckets: u8) -> World {
    let mut world = World::new(buckets);
    world.register(alice(), LIMIT);
    world
}

fn blob(n: u32) -> BlobId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    BlobId(id)
}

fn asked(n: u32, size: u64) -> AllocatedBucketArgs {
    AllocatedBucketArgs {
        blob_id: blob(n),
        size,
        exclude: vec![],
    }
}

fn allocate(
    world: &World,
    args: &AllocatedBucketArgs,
) -> Result<AllocatedBucketOk, AllocatedBucketError> {
    world.index.allocated_bucket(&world.context(alice()), args)
}

fn bucket_of(world: &World, n: u32) -> Principal {
    allocate(world, &asked(n, 1)).expect("there is room").bucket
}

#[test]
fn a_question_that_breaks_a_rule_is_told_which() {
    let mut world = world(1);
    let refused = |world: &World, args: &AllocatedBucketArgs| allocate(world, args).unwrap_err();
    let stranger = world.context(principal(2));
    assert_eq!(
        world.index.allocated_bucket(&stranger, &asked(1, 1)),
        Err(AllocatedBucketError::NotRegistered)
    );
    assert_eq!(
        refused(&world, &asked(1, BLOB_BYTES_MAX + 1)),
        AllocatedBucketError::BlobTooLarge {
            max: BLOB_BYTES_MAX
        }
    );
    assert_eq!(
        refused(&world, &asked(1, LIMIT + 1)),
        AllocatedBucketError::AllowanceExceeded { byte_limit: LIMIT }
    );
    let mut args = asked(1, 1);
    args.exclude = vec![canister(9); EXCLUDE_MAX + 1];
    assert_eq!(
        refused(&world, &args),
        AllocatedBucketError::InvalidExclude {
            max: EXCLUDE_MAX as u32
        }
    );
    args.exclude = vec![canister(1)];
    assert_eq!(refused(&world, &args), AllocatedBucketError::NoActiveBucket);
    world.report(canister(1), BUCKET_BYTES, 5_000_000);
    assert_eq!(
        refused(&world, &asked(1, 5_000_001)),
        AllocatedBucketError::NoActiveBucket
    );
    assert_eq!(
        allocate(&world, &asked(1, 5_000_000)),
        Ok(AllocatedBucketOk {
            bucket: canister(1),
            chunk_bytes: CHUNK_BYTES,
            stored: false
        })
    );
}

#[test]
fn blobs_spread_over_buckets_and_a_further_bucket_moves_only_its_share() {
    let mut world = world(4);
    let before: Vec<_> = (0..1_000).map(|n| bucket_of(&world, n)).collect();
    let mut shares = BTreeMap::new();
    for bucket in &before {
        *shares.entry(*bucket).or_insert(0) += 1;
    }
    assert_eq!(shares.len(), 4);
    assert!(shares.values().all(|share| (200..300).contains(share)));
    world.add_bucket(5);
    world.upgrade();
    for (n, before) in (0..).zip(before) {
        let now = bucket_of(&world, n);
        assert!(now == before || now == canister(5));
    }
}

#[test]
fn a_bucket_that_is_full_or_in_the_making_gets_nothing_new() {
    let mut world = world(1);
    world.index.canister_created(canister(2));
    assert!((0..50).all(|n| bucket_of(&world, n) == canister(1)));
    world.report(canister(1), BUCKET_BYTES, CHUNK_BYTES - 1);
    assert_eq!(
        allocate(&world, &asked(1, 1)),
        Err(AllocatedBucketError::NoActiveBucket)
    );
    world.index.bucket_installed(canister(2));
    assert!((0..50).all(|n| bucket_of(&world, n) == canister(2)));
}

fn of(n: u32, with_blob: bool) -> Reference {
    Reference {
        blob_id: blob(n),
        size: 100,
        owner: alice(),
        accessor_id: chat(),
        with_blob,
    }
}

fn added(n: u32) -> Event {
    reference(kind::BLOB_REFERENCE_ADDED, &of(n, true))
}

fn removed(n: u32, blob_gone: bool) -> Event {
    reference(kind::BLOB_REFERENCE_REMOVED, &of(n, blob_gone))
}

fn stamp(seq: u64) -> Stamp {
    Stamp { seq, version: 5 }
}

fn totals(world: &World) -> (u64, u64) {
    let status = world.index.status();
    (status.blobs, status.bytes_stored)
}

#[test]
fn a_blob_that_is_stored_is_found_where_it_is() {
    let mut world = world(3);
    let first = bucket_of(&world, 1);
    let elsewhere = (1..=3).map(canister).find(|bucket| *bucket != first);
    let elsewhere = elsewhere.unwrap();
    world.hear(elsewhere, Stamp::default(), vec![added(1)], None);
    assert_eq!(
        allocate(&world, &asked(1, 100)),
        Ok(AllocatedBucketOk {
            bucket: elsewhere,
            chunk_bytes: CHUNK_BYTES,
            stored: true
        })
    );
    // Unless the caller has tried there.
    let mut args = asked(1, 100);
    args.exclude = vec![elsewhere];
    let other = allocate(&world, &args).unwrap();
    assert_eq!((other.bucket, other.stored), (first, false));
    world.hear(elsewhere, stamp(1), vec![removed(1, true)], None);
    assert_eq!(bucket_of(&world, 1), first);
}

#[test]
fn events_count_once_whatever_is_repeated_or_missing() {
    let mut world = world(2);
    let one = canister(1);
    let answer = world.hear(one, Stamp::default(), vec![added(1), added(2)], None);
    assert_eq!(answer.stamp, stamp(2));
    assert_eq!(totals(&world), (2, 200));
    world.upgrade();
    let again = world.hear(one, Stamp::default(), vec![added(1), added(2)], None);
    assert_eq!(again.stamp, stamp(2));
    assert_eq!(totals(&world), (2, 200));
    // A gap: the answer says where to go on.
    let gap = world.hear(one, stamp(5), vec![added(3)], None);
    assert_eq!(gap.stamp, stamp(2));
    // A copy in another bucket is bytes, but no blob more.
    world.hear(canister(2), Stamp::default(), vec![added(1)], None);
    assert_eq!(totals(&world), (2, 300));
    // A reference less is no blob less, until it was the last.
    world.hear(one, stamp(2), vec![removed(1, false)], None);
    assert_eq!(totals(&world), (2, 300));
    world.hear(
        one,
        stamp(3),
        vec![removed(1, true), removed(2, true)],
        None,
    );
    assert_eq!(totals(&world), (1, 100));
}

#[test]
fn an_event_that_is_not_understood_is_not_in_the_way() {
    let mut world = world(1);
    let unknown = event(999, &"from the future");
    let broken = event(kind::BLOB_REFERENCE_ADDED, &"no reference");
    let events = vec![unknown, broken, added(1)];
    let answer = world.hear(canister(1), Stamp::default(), events, None);
    assert_eq!(answer.stamp, stamp(3));
    assert_eq!(totals(&world), (1, 100));
}

#[test]
fn only_buckets_are_heard_and_not_more_than_a_batch() {
    let mut world = world(1);
    let mut args = EventsArgs {
        from_stamp: Stamp::default(),
        events: vec![added(1)],
        counters: vec![],
        report: None,
        heard: Stamp::default(),
        version: 5,
    };
    let stranger = world.context(canister(9));
    assert_eq!(
        world.index.events(&stranger, &args),
        Err(EventsError::NotAuthorized)
    );
    let bucket = world.context(canister(1));
    let too_large = Err(EventsError::BatchTooLarge {
        events_max: EVENTS_PER_BATCH_MAX as u32,
        bytes_max: EVENT_BATCH_BYTES_MAX as u64,
    });
    args.events = vec![added(1); EVENTS_PER_BATCH_MAX + 1];
    assert_eq!(world.index.events(&bucket, &args), too_large);
    args.events = vec![added(1)];
    args.events[0].bytes.resize(EVENT_BATCH_BYTES_MAX + 1, 0);
    assert_eq!(world.index.events(&bucket, &args), too_large);
    assert_eq!(totals(&world), (0, 0));
}

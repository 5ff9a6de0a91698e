//! What buckets are told: the whole state, then what changes, each bucket at its own pace.

mod support;

use candid::{Principal, decode_one};
use data_bucket_index::sync::Sent;
use openstorage_types::{
    channel::{EventsOk, Stamp, UserUpserted, kind},
    limits::EVENTS_PER_BATCH_MAX,
};
use support::*;

fn user(n: u32) -> Principal {
    Principal::self_authenticating(n.to_be_bytes())
}

fn kinds(events: &[openstorage_types::channel::Event]) -> Vec<u16> {
    events.iter().map(|event| event.kind).collect()
}

#[test]
fn a_new_bucket_is_told_everything_page_by_page() {
    let mut world = World::new(0);
    let count = 2 * EVENTS_PER_BATCH_MAX as u32 + 5;
    for n in 0..count {
        world.register(user(n), u64::from(n));
    }
    let bucket = world.add_bucket(1);
    let first = world.index.next_batch(bucket, world.version).unwrap();
    assert_eq!(first.args.events.len(), EVENTS_PER_BATCH_MAX);
    let events = world.drain(bucket);
    // The issuer first, then every user once, in the order of their principals.
    assert_eq!(events.len(), count as usize + 1);
    assert_eq!(events[0].kind, kind::ISSUER_UPSERTED);
    let mut told: Vec<Principal> = events[1..]
        .iter()
        .map(|event| decode_one::<UserUpserted>(&event.bytes).unwrap().user)
        .collect();
    assert!(told.is_sorted());
    told.dedup();
    assert_eq!(told.len(), count as usize);
    assert_eq!(world.index.next_batch(bucket, world.version), None);
}

#[test]
fn what_changes_while_the_state_is_told_is_told_too() {
    let mut world = World::new(0);
    for n in 0..EVENTS_PER_BATCH_MAX as u32 + 5 {
        world.register(user(n), 1);
    }
    let bucket = world.add_bucket(1);
    let sending = world.index.next_batch(bucket, world.version).unwrap();
    // Between two pages.
    world.register(alice(), 7);
    world.version += 1;
    let stamp = Stamp {
        seq: EVENTS_PER_BATCH_MAX as u64,
        version: 1,
    };
    let answer = EventsOk {
        stamp,
        report: None,
    };
    assert_eq!(world.index.batch_answered(&sending, answer), Sent::Taken);
    world.upgrade();
    let events = world.drain(bucket);
    let last: UserUpserted = decode_one(&events.last().unwrap().bytes).unwrap();
    assert_eq!((last.user, last.byte_limit), (alice(), 7));
}

#[test]
fn an_unanswered_batch_is_sent_again_and_a_known_limit_is_no_news() {
    let mut world = World::new(1);
    let bucket = canister(1);
    world.drain(bucket);
    world.register(alice(), 7);
    world.register(alice(), 7);
    let lost = world.index.next_batch(bucket, world.version).unwrap();
    assert_eq!(kinds(&lost.args.events), [kind::USER_UPSERTED]);
    world.upgrade();
    let again = world.index.next_batch(bucket, world.version).unwrap();
    assert_eq!(again, lost);
    // It had arrived, and only the answer was lost: the bucket stands after it.
    let stamp = Stamp {
        seq: lost.args.from_stamp.seq + 1,
        version: 1,
    };
    let answer = EventsOk {
        stamp,
        report: None,
    };
    assert_eq!(world.index.batch_answered(&again, answer), Sent::Taken);
    assert_eq!(world.index.next_batch(bucket, world.version), None);
    assert_eq!(world.index.buckets()[0].events_behind, 0);
}

#[test]
fn a_bucket_that_stands_where_nobody_knows_is_told_everything_anew() {
    let mut world = World::new(1);
    let bucket = canister(1);
    world.register(alice(), 7);
    world.drain(bucket);
    world.register(alice(), 8);
    let sending = world.index.next_batch(bucket, world.version).unwrap();
    // The bucket was restored from a snapshot of another time.
    let elsewhere = EventsOk {
        stamp: Stamp {
            seq: 77,
            version: 99,
        },
        report: None,
    };
    let sent = world.index.batch_answered(&sending, elsewhere);
    assert_eq!(sent, Sent::Refused);
    let next = world.index.next_batch(bucket, world.version).unwrap();
    assert_eq!(next.args.from_stamp.seq, 77);
    assert_eq!(
        kinds(&next.args.events),
        [kind::ISSUER_UPSERTED, kind::USER_UPSERTED]
    );
}

#[test]
fn each_bucket_has_its_own_pace_and_the_log_waits_for_the_slowest() {
    let mut world = World::new(2);
    let (fast, slow) = (canister(1), canister(2));
    world.drain(fast);
    world.drain(slow);
    for limit in 1..=5 {
        world.register(alice(), limit);
        assert_eq!(world.drain(fast).len(), 1);
    }
    let behind: Vec<_> = world
        .index
        .buckets()
        .iter()
        .map(|bucket| bucket.events_behind)
        .collect();
    assert_eq!(behind, [0, 5]);
    assert_eq!(world.drain(slow).len(), 5);
}

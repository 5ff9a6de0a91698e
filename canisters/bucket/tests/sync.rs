//! Events to and from the index: each counts once, whatever is lost or repeated.

mod support;

use candid::{CandidType, decode_one, encode_one};
use openstorage_types::{
    bucket::{EnsureRegisteredError, RemoveBlobReferenceArgs},
    channel::{
        BlobHeld, Event, EventsArgs, EventsError, EventsOk, Reference, Stamp, StatePage,
        UserUpserted, kind,
    },
    limits::{BEHIND_EVENTS_MAX, EVENT_BATCH_BYTES_MAX, EVENTS_PER_BATCH_MAX},
};
use support::*;

fn event(kind: u16, event: &impl CandidType) -> Event {
    Event {
        version: 5,
        kind,
        bytes: encode_one(event).unwrap().into(),
    }
}

fn user_event(n: u8) -> Event {
    let user = UserUpserted {
        user: principal(n),
        incarnation: 1,
        byte_limit: 0,
        counters: None,
        gone: None,
    };
    event(kind::USER_UPSERTED, &user)
}

fn batch(from_stamp: Stamp, events: Vec<Event>) -> EventsArgs {
    EventsArgs {
        from_stamp,
        events,
        counters: vec![],
        report: None,
        heard: Stamp::default(),
        version: 5,
    }
}

fn stamp(seq: u64) -> Stamp {
    Stamp { seq, version: 5 }
}

#[test]
fn a_batch_that_comes_twice_or_overlaps_counts_once() {
    let mut world = World::empty(None);
    let hear = |world: &mut World, from, ns: &[u8]| {
        let events = ns.iter().map(|n| user_event(*n)).collect();
        world.hear(&batch(from, events)).unwrap().stamp
    };
    assert_eq!(hear(&mut world, Stamp::default(), &[1, 2]), stamp(2));
    assert_eq!(hear(&mut world, Stamp::default(), &[1, 2]), stamp(2));
    world.upgrade();
    assert_eq!(hear(&mut world, stamp(1), &[2, 3]), stamp(3));
    assert!((1..=3).all(|n| world.bucket.knows(&principal(n))));
    // A gap: the answer says where to go on.
    assert_eq!(hear(&mut world, stamp(7), &[9]), stamp(3));
    assert!(!world.bucket.knows(&principal(9)));
    // Another history: the index was restored from an older snapshot.
    let other = Stamp { seq: 3, version: 4 };
    assert_eq!(hear(&mut world, other, &[9]), stamp(3));
    assert!(!world.bucket.knows(&principal(9)));
}

#[test]
fn a_restored_bucket_says_that_it_has_heard_nothing_and_is_told_everything_anew() {
    let mut world = World::empty(None);
    let hear = |world: &mut World, from, ns: &[u8]| {
        let events = ns.iter().map(|n| user_event(*n)).collect();
        world.hear(&batch(from, events)).unwrap().stamp
    };
    assert_eq!(hear(&mut world, Stamp::default(), &[1, 2]), stamp(2));
    // A gap in its own versions: a snapshot was restored, and leases of after it are forgotten.
    assert!(!world.bucket.observe(10));
    assert!(world.bucket.observe(50));
    let told = world.bucket.next_batch(50).expect("it reports");
    assert_eq!(told.args.heard, Stamp::default());
    // What comes next is no part of what it has heard; the state is.
    assert_eq!(hear(&mut world, stamp(2), &[3]), Stamp::default());
    assert_eq!(hear(&mut world, Stamp::default(), &[1, 2]), stamp(2));
}

#[test]
fn only_the_index_is_heard_and_not_more_than_a_batch() {
    let mut world = World::empty(None);
    let args = batch(Stamp::default(), vec![user_event(1)]);
    let other = world.bucket.receive(&principal(1), &args, world.now);
    assert_eq!(other, Err(EventsError::NotAuthorized));
    let too_large = Err(EventsError::BatchTooLarge {
        events_max: EVENTS_PER_BATCH_MAX as u32,
        bytes_max: EVENT_BATCH_BYTES_MAX as u64,
    });
    let many = vec![user_event(1); EVENTS_PER_BATCH_MAX + 1];
    assert_eq!(world.hear(&batch(Stamp::default(), many)), too_large);
    let mut long = user_event(1);
    long.bytes.resize(EVENT_BATCH_BYTES_MAX + 1, 0);
    assert_eq!(world.hear(&batch(Stamp::default(), vec![long])), too_large);
}

#[test]
fn an_event_that_is_not_understood_is_counted_and_not_in_the_way() {
    let mut world = World::empty(None);
    let unknown = event(999, &"from the future");
    let broken = event(kind::USER_UPSERTED, &"no user");
    let args = batch(Stamp::default(), vec![unknown, broken, user_event(1)]);
    assert_eq!(world.hear(&args).unwrap().stamp, stamp(3));
    assert!(world.bucket.knows(&principal(1)));
}

#[test]
fn what_the_index_has_not_acknowledged_is_sent_again() {
    let mut world = World::new();
    world.drain();
    let data = bytes(300, 3);
    let id = world.upload(alice(), &data);
    let first = world.bucket.next_batch(world.now.version).unwrap();
    assert_eq!(first.args.events.len(), 1);
    let added = Reference {
        blob_id: id,
        size: 300,
        owner: alice(),
        accessor_id: chat(),
        with_blob: true,
    };
    let read = |args: &EventsArgs| Reference::from_bytes(&args.events[0].bytes).unwrap();
    assert_eq!(read(&first.args), added);
    let report = first.args.report.clone().unwrap();
    assert_eq!((report.bytes_used, report.key.is_some()), (300, true));
    world.upgrade();
    let again = world.bucket.next_batch(world.now.version).unwrap();
    assert_eq!(
        (&again.args.events, &again.args.counters),
        (&first.args.events, &first.args.counters)
    );

    // While the batch is on its way, more happens.
    let removal = RemoveBlobReferenceArgs {
        blob_id: id,
        accessor_id: chat(),
        owner: alice(),
        token: None,
    };
    world
        .bucket
        .remove_blob_reference(alice(), &removal, world.now)
        .unwrap();
    world.acknowledge(&first);
    let next = world.bucket.next_batch(world.now.version).unwrap();
    assert_eq!(next.args.from_stamp, end(&first.args));
    assert_eq!(next.args.events.len(), 1);
    assert!(read(&next.args).with_blob);
    assert_eq!(next.args.counters[0].counters.used(), 0);
    world.acknowledge(&next);
    assert_eq!(world.bucket.next_batch(world.now.version), None);
    assert!(!world.bucket.has_news());
}

#[test]
fn an_index_that_stands_elsewhere_is_told_all_that_the_bucket_has() {
    let mut world = World::new();
    let id = world.upload(alice(), &bytes(300, 3));
    world.drain();
    // The index was restored, and says in its next batch how far it has heard.
    let args = EventsArgs {
        heard: stamp(99),
        ..batch(world.told, vec![])
    };
    world.hear(&args).unwrap();
    let asks = world.bucket.next_batch(world.now.version).unwrap();
    assert!(asks.args.events.is_empty());
    let answer = EventsOk {
        stamp: stamp(99),
        report: None,
        counters: vec![],
        version: 5,
    };
    world.bucket.acknowledged(&asks, &answer, world.now);
    let state = world.bucket.next_batch(world.now.version).unwrap().args;
    assert_eq!(state.from_stamp, stamp(99));
    let page: StatePage = decode_one(&state.events[0].bytes).unwrap();
    assert!(page.first && page.last);
    let kinds: Vec<_> = page.rows.iter().map(|row| row.kind).collect();
    assert_eq!(kinds, [kind::USER_HELD, kind::USER_HELD, kind::BLOB_HELD]);
    let held = BlobHeld::from_bytes(&page.rows[2].bytes).unwrap();
    assert_eq!((held.blob_id, held.size), (id, 300));
}

#[test]
fn a_caller_that_is_unknown_is_asked_about() {
    let mut world = World::empty(None);
    let nobody = world
        .bucket
        .ensure_registered(&candid::Principal::anonymous());
    assert_eq!(nobody, Err(EnsureRegisteredError::NotAuthorized));
    let question = world.bucket.ensure_registered(&alice()).unwrap().unwrap();
    assert_eq!(
        (question.user, question.incarnation, question.wanted),
        (alice(), None, 0)
    );
    world.lease(alice(), 0);
    assert_eq!(world.bucket.ensure_registered(&alice()), Ok(None));
}

#[test]
fn the_first_secret_stays_and_is_reported() {
    let mut world = World::empty(None);
    assert!(!world.bucket.has_secret());
    assert_eq!(
        world.bucket.next_batch(2).unwrap().args.report.unwrap().key,
        None
    );
    world.bucket.set_secret(SECRET, world.now);
    let key = world.bucket.status().key;
    assert!(key.is_some());
    world.bucket.set_secret([8; 32], world.now);
    world.upgrade();
    assert_eq!(world.bucket.status().key, key);
    assert_eq!(
        world.bucket.next_batch(2).unwrap().args.report.unwrap().key,
        key
    );
}

/// An index that is away for long is told the state when it is back: what the bucket keeps for it is bounded.
#[test]
fn what_an_index_that_is_away_has_missed_is_not_kept_for_ever() {
    let mut world = World::new();
    let data = bytes(100, 3);
    world.upload(alice(), &data);
    world.drain();
    let removal = RemoveBlobReferenceArgs {
        blob_id: blob_id(&data),
        accessor_id: chat(),
        owner: alice(),
        token: None,
    };
    let both = |world: &mut World| {
        let removed = world
            .bucket
            .remove_blob_reference(alice(), &removal, world.now);
        removed.unwrap();
        world.upload(alice(), &data);
    };
    for _ in 0..BEHIND_EVENTS_MAX / 2 {
        both(&mut world);
    }
    // On its way when the index comes to be too far behind: its answer is of no use any more.
    let late = world.bucket.next_batch(world.now.version).unwrap();
    assert_eq!(world.bucket.status().events_unsent, BEHIND_EVENTS_MAX);
    for _ in 0..BEHIND_EVENTS_MAX / 2 {
        both(&mut world);
    }
    assert!(world.bucket.status().events_unsent < BEHIND_EVENTS_MAX);
    world.acknowledge(&late);
    world.upgrade();
    let mut rows = vec![];
    while let Some(sent) = world.bucket.next_batch(world.now.version) {
        for event in &sent.args.events {
            let page: StatePage = decode_one(&event.bytes).expect("only the state is left to tell");
            rows.extend(page.rows);
        }
        world.acknowledge(&sent);
        world.now.version += 1;
    }
    let held = BlobHeld {
        blob_id: blob_id(&data),
        size: data.len() as u64,
    };
    assert!(rows.iter().any(|row| row.bytes == held.to_bytes()));
    assert_eq!(world.bucket.status().events_unsent, 0);
    // And everything after it one by one.
    both(&mut world);
    let sent = world.bucket.next_batch(world.now.version).unwrap();
    let kinds = sent.args.events.iter().map(|event| event.kind);
    let (removed, added) = (kind::BLOB_REFERENCE_REMOVED, kind::BLOB_REFERENCE_ADDED);
    assert_eq!(kinds.collect::<Vec<_>>(), [removed, added]);
}

//! What buckets are told: the whole state, then what changes, each bucket at its own pace.

mod support;

use std::collections::BTreeSet;

use candid::{Principal, decode_one, encode_one};
use data_bucket_index::{
    agenda::{Job, SENDS_MAX},
    sync::Sent,
};
use openstorage_types::{
    BlobId,
    channel::{
        AccessorDeleted, Counters, Reference, Stamp, StatePage, StateRow, UserCounters,
        UserDeleted, UserUpserted, kind,
    },
    index::FeedArgs,
    limits::{BEHIND_EVENTS_MAX, EVENTS_PER_BATCH_MAX},
};
use support::*;

fn user(n: u32) -> Principal {
    Principal::self_authenticating(n.to_be_bytes())
}

fn kinds(rows: &[StateRow]) -> Vec<u16> {
    rows.iter().map(|row| row.kind).collect()
}

fn upserted(row: &StateRow) -> UserUpserted {
    assert_eq!(row.kind, kind::USER_UPSERTED);
    decode_one(&row.bytes).unwrap()
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
    assert_eq!(flat(&first.args.events).len(), EVENTS_PER_BATCH_MAX);
    let rows = world.drain(bucket);
    // The issuer first, then every user once, in the order of their principals.
    assert_eq!(rows.len(), count as usize + 1);
    assert_eq!(rows[0].kind, kind::ISSUER_UPSERTED);
    let mut told: Vec<Principal> = rows[1..].iter().map(|row| upserted(row).user).collect();
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
    assert_eq!(world.acknowledge(&sending), Sent::Taken);
    world.upgrade();
    let rows = world.drain(bucket);
    let last = upserted(rows.last().unwrap());
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
    assert_eq!(kinds(&flat(&lost.args.events)), [kind::USER_UPSERTED]);
    world.upgrade();
    let again = world.index.next_batch(bucket, world.version).unwrap();
    assert_eq!(again.args.events, lost.args.events);
    // It had arrived, and only the answer was lost: the bucket stands after it.
    assert_eq!(world.acknowledge(&again), Sent::Taken);
    assert_eq!(world.index.next_batch(bucket, world.version), None);
    assert_eq!(world.index.buckets()[0].events_behind, 0);
    assert_eq!(world.index.log_len(), 0);
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
    let elsewhere = world.answer(Stamp {
        seq: 77,
        version: 99,
    });
    let sent = world.index.batch_answered(&sending, elsewhere);
    assert_eq!(sent, Sent::Refused);
    let next = world.index.next_batch(bucket, world.version).unwrap();
    assert_eq!(next.args.from_stamp.seq, 77);
    assert_eq!(
        kinds(&flat(&next.args.events)),
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
    assert_eq!(world.index.log_len(), 5);
    assert_eq!(world.drain(slow).len(), 5);
}

#[test]
fn a_bucket_too_far_behind_is_waited_for_no_longer_and_gets_the_state() {
    let mut world = World::new(2);
    let (fast, slow) = (canister(1), canister(2));
    world.drain(fast);
    world.drain(slow);
    for limit in 0..=BEHIND_EVENTS_MAX + 1 {
        world.register(alice(), limit);
    }
    world.drain(fast);
    assert!(world.index.log_len() < BEHIND_EVENTS_MAX / 2);
    let rows = world.drain(slow);
    assert_eq!(kinds(&rows), [kind::ISSUER_UPSERTED, kind::USER_UPSERTED]);
    assert_eq!(upserted(&rows[1]).byte_limit, BEHIND_EVENTS_MAX + 1);
}

#[test]
fn a_deletion_is_told_to_new_buckets_too() {
    let mut world = World::new(1);
    world.register(alice(), 7);
    world.drain(canister(1));
    let context = world.context(operator());
    world.index.delete_user(&context, alice()).unwrap();
    let version = world.version;
    for n in [1, 2] {
        if n == 2 {
            world.add_bucket(2);
        }
        let rows = world.drain(canister(n));
        let deleted: UserDeleted = decode_one(&rows.last().unwrap().bytes).unwrap();
        assert_eq!((deleted.user, deleted.incarnation), (alice(), version));
    }
}

#[test]
fn a_bucket_that_has_heard_less_than_it_was_told_is_asked() {
    let mut world = World::new(1);
    let bucket = canister(1);
    world.register(alice(), 7);
    world.drain(bucket);
    assert_eq!(world.index.next_batch(bucket, world.version), None);
    // It was restored from a snapshot of before: it tells, and has heard nothing.
    world.hear(bucket, Stamp::default(), vec![], None);
    assert!(
        world
            .index
            .agenda(world.now_ms, &BTreeSet::new())
            .jobs
            .contains(&Job::Send(bucket))
    );
    let asked = world.index.next_batch(bucket, world.version).unwrap();
    assert!(asked.args.events.is_empty());
    let answer = world.answer(Stamp::default());
    world.index.batch_answered(&asked, answer);
    assert_eq!(
        kinds(&world.drain(bucket)),
        [kind::ISSUER_UPSERTED, kind::USER_UPSERTED]
    );
    assert_eq!(world.index.next_batch(bucket, world.version), None);
}

#[test]
fn deletions_that_a_restored_index_has_forgotten_are_learned_from_a_bucket() {
    let mut world = World::new(2);
    let (told, other) = (canister(1), canister(2));
    world.register(alice(), 7);
    world.drain(told);
    let rows = world.drain(other);
    let incarnation = upserted(rows.last().unwrap()).incarnation;
    let row = |kind, bytes: Vec<u8>| StateRow {
        kind,
        bytes: bytes.into(),
    };
    let gone = UserDeleted {
        user: alice(),
        incarnation,
    };
    let accessor_id = chat();
    let page = StatePage {
        first: true,
        rows: vec![
            row(kind::USER_DELETED, encode_one(&gone).unwrap()),
            row(
                kind::ACCESSOR_DELETED,
                encode_one(AccessorDeleted { accessor_id }).unwrap(),
            ),
        ],
        last: true,
    };
    let page = event(kind::STATE_PAGE, &page);
    world.hear(told, Stamp::default(), vec![page.clone()], None);
    assert!(world.index.user(&world.context(alice()), None).is_err());
    let deletions = [kind::USER_DELETED, kind::ACCESSOR_DELETED];
    assert_eq!(kinds(&world.drain(other)), deletions);
    // Who is registered again is another.
    world.version += 1;
    world.register(alice(), 8);
    world.drain(other);
    world.hear(canister(2), Stamp::default(), vec![page], None);
    let info = world.index.user(&world.context(alice()), None).unwrap();
    assert_eq!(info.byte_limit, 8);
    assert_eq!(world.drain(other), []);
}

#[test]
fn a_bucket_that_speaks_of_a_user_who_is_gone_is_told_so_at_once() {
    let mut world = World::new(1);
    let bucket = canister(1);
    world.register(alice(), 7);
    let incarnation = upserted(world.drain(bucket).last().unwrap()).incarnation;
    let counters = Counters {
        granted: 5,
        spent: 5,
        ..Counters::default()
    };
    let told = UserCounters {
        user: alice(),
        incarnation,
        counters,
    };
    let answer = |world: &mut World| world.tell(bucket, told);
    // Silence says that they are right.
    assert_eq!(answer(&mut world), []);
    let gone = UserCounters {
        counters: Counters::default(),
        ..told
    };
    let context = world.context(admin());
    world.index.delete_user(&context, alice()).unwrap();
    assert_eq!(answer(&mut world), [gone]);
    // And so of one who was before.
    world.version += 1;
    world.register(alice(), 8);
    assert_eq!(answer(&mut world), [gone]);
}

/// Two snapshots of the index, of before a user was registered anew: in one the user is an earlier one, in the other
/// none. Whoever deletes the user after the restoration means the one that only a bucket knows.
#[test]
fn a_deletion_covers_incarnations_that_a_restored_index_has_forgotten() {
    for was_gone in [false, true] {
        let mut world = World::new(1);
        let bucket = canister(1);
        world.index.observe(world.version);
        world.register(alice(), 7);
        let delete = |world: &mut World| {
            let context = world.context(admin());
            world.index.delete_user(&context, alice())
        };
        if was_gone {
            delete(&mut world).unwrap();
        }
        world.drain(bucket);
        world.version = 90;
        assert!(world.index.observe(world.version));
        delete(&mut world).unwrap();
        let told = UserCounters {
            user: alice(),
            incarnation: 80,
            counters: Counters {
                granted: 5,
                spent: 5,
                ..Counters::default()
            },
        };
        let gone = UserCounters {
            counters: Counters::default(),
            ..told
        };
        assert_eq!(world.tell(bucket, told), [gone]);
        assert!(world.index.user(&world.context(alice()), None).is_err());
        // Who is registered afterwards is another.
        world.version += 1;
        world.register(alice(), 8);
        assert_eq!(world.tell(bucket, told), [gone]);
        let info = world.index.user(&world.context(alice()), None).unwrap();
        assert_eq!((info.byte_limit, info.bytes_used), (8, 0));
    }
}

/// The same snapshots; the user is registered again before the bucket speaks of it.
#[test]
fn who_is_registered_after_a_restoration_is_whom_the_index_has_forgotten() {
    for was_gone in [false, true] {
        let mut world = World::new(1);
        let bucket = canister(1);
        world.index.observe(world.version);
        let mut gone = 0;
        if was_gone {
            world.register(alice(), 7);
            gone = upserted(world.drain(bucket).last().unwrap()).incarnation;
            let context = world.context(admin());
            world.index.delete_user(&context, alice()).unwrap();
            gone = gone.max(world.version);
        }
        world.drain(bucket);
        world.version = 90;
        assert!(world.index.observe(world.version));
        world.register(alice(), 8);
        let event = upserted(world.drain(bucket).last().unwrap());
        assert_eq!((event.incarnation, event.gone), (90, Some(gone)));
        let told = |incarnation| UserCounters {
            user: alice(),
            incarnation,
            counters: Counters {
                granted: 5,
                spent: 5,
                ..Counters::default()
            },
        };
        // That is right, and counts, before and after the bucket knows the new number.
        for incarnation in [80, 90] {
            assert_eq!(world.tell(bucket, told(incarnation)), []);
            let info = world.index.user(&world.context(alice()), None).unwrap();
            assert_eq!((info.byte_limit, info.bytes_used), (8, 5));
        }
        if was_gone {
            let nothing = UserCounters {
                counters: Counters::default(),
                ..told(gone)
            };
            assert_eq!(world.tell(bucket, told(gone)), [nothing]);
        }
    }
}

/// A bucket tells a restored index of a user of whom it knows nothing, and of an earlier one, who was deleted.
#[test]
fn a_bucket_in_doubt_is_believed_once_it_has_said_who_is_gone() {
    let mut world = World::new(2);
    let (bucket, other) = (canister(1), canister(2));
    world.index.observe(world.version);
    world.register(alice(), 7);
    let first = upserted(world.drain(other).last().unwrap()).incarnation;
    world.drain(bucket);
    world.version = 90;
    assert!(world.index.observe(world.version));
    let told = UserCounters {
        user: alice(),
        incarnation: 80,
        counters: Counters {
            granted: 5,
            spent: 5,
            ..Counters::default()
        },
    };
    assert_eq!(world.tell(bucket, told), []);
    assert_eq!(world.drain(other), []);
    let row = |kind, bytes: Vec<u8>| StateRow {
        kind,
        bytes: bytes.into(),
    };
    let gone = UserDeleted {
        user: alice(),
        incarnation: 60,
    };
    let page = StatePage {
        first: true,
        rows: vec![
            row(kind::USER_DELETED, encode_one(&gone).unwrap()),
            row(kind::USER_HELD, encode_one(told).unwrap()),
        ],
        last: true,
    };
    let page = event(kind::STATE_PAGE, &page);
    world.hear(bucket, Stamp::default(), vec![page], None);
    let rows = world.drain(other);
    assert_eq!(kinds(&rows), [kind::USER_DELETED, kind::USER_UPSERTED]);
    let event = upserted(&rows[1]);
    assert_eq!((event.incarnation, event.gone), (80, Some(60)));
    assert!(first < 60 && event.byte_limit == 7);
}

#[test]
fn a_bucket_that_has_not_answered_for_long_is_told_the_news_once_it_speaks() {
    let mut world = World::new(1);
    let bucket = canister(1);
    world.drain(bucket);
    for _ in 0..10 {
        world.index.send_failed(bucket, world.now_ms);
    }
    world.register(alice(), 7);
    let is_sent = |world: &World| {
        let agenda = world.index.agenda(world.now_ms, &BTreeSet::new());
        agenda.jobs.contains(&Job::Send(bucket))
    };
    assert!(!is_sent(&world));
    world.hear(bucket, Stamp::default(), vec![], None);
    assert!(is_sent(&world));
}

/// Who follows the feed is told that it may have missed something: what a bucket tells with its state is not in it.
#[test]
fn a_state_that_is_told_anew_is_a_gap_in_the_feed() {
    let mut world = World::new(1);
    let bucket = canister(1);
    let told = Reference {
        blob_id: BlobId([1; 32]),
        size: 5,
        owner: alice(),
        accessor_id: chat(),
        with_blob: true,
    };
    let state = |first| StatePage {
        first,
        rows: vec![],
        last: true,
    };
    let look = |world: &World, after| {
        let args = FeedArgs {
            after,
            limit: 10,
            owner: None,
        };
        let page = world.index.feed(&world.context(admin()), &args).unwrap();
        let ids: Vec<_> = page.changes.iter().map(|change| change.id).collect();
        (ids, page.forgotten_until)
    };
    let added = || reference(kind::BLOB_REFERENCE_ADDED, &told);
    let first = vec![event(kind::STATE_PAGE, &state(true)), added()];
    let stamp = world.hear(bucket, Stamp::default(), first, None).stamp;
    let (ids, forgotten) = look(&world, 0);
    assert_eq!(
        (ids.len(), forgotten),
        (1, 0),
        "a new bucket has told everything"
    );
    let again = vec![event(kind::STATE_PAGE, &state(true)), added()];
    world.hear(bucket, stamp, again, None);
    let (later, forgotten) = look(&world, ids[0]);
    assert!(forgotten > ids[0]);
    assert_eq!(later.len(), 1);
    assert!(later[0] > forgotten, "what comes after the gap is read on");
}

/// News for all that come faster than they are told reach the last bucket too.
#[test]
fn each_bucket_has_its_turn_however_much_there_is_to_tell() {
    let count = SENDS_MAX as u8 + 4;
    let mut world = World::new(count);
    for n in 1..=count {
        world.drain(canister(n));
    }
    let mut told = BTreeSet::new();
    for n in 0..2 {
        world.register(user(n), 1);
        let agenda = world.index.agenda(world.now_ms, &BTreeSet::new());
        for job in agenda.jobs {
            if let Job::Send(bucket) = job {
                world.drain(bucket);
                told.insert(bucket);
            }
        }
    }
    assert_eq!(told.len(), usize::from(count));
}

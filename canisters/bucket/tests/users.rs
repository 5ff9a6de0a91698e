//! Users: leases and what takes them back, deletions that take everything along, and a bucket that was
//! restored from a snapshot.

mod support;

use candid::{Principal, decode_one};
use data_bucket::{Bucket, Stop};
use openstorage_types::{
    bucket::{GoneReason, PushChunkArgs, PushChunkError, UploadState},
    channel::{
        AccessorDeleted, Counters, EventsOk, LeaseOk, RecallArgs, RecallError, Revoked, StatePage,
        UserCounters, UserDeleted, UserUpserted, kind,
    },
    limits::{CHUNK_BYTES, LEASE_IDLE_MS, charge},
};
use support::*;

const GRANTED: u64 = 1_000_000_000;

fn upsert(world: &mut World, incarnation: u64, byte_limit: u64) {
    let event = UserUpserted {
        user: alice(),
        incarnation,
        byte_limit,
        counters: None,
        gone: None,
    };
    world.tell(kind::USER_UPSERTED, &event);
}

fn delete(world: &mut World, incarnation: u64) {
    let user = alice();
    world.tell(kind::USER_DELETED, &UserDeleted { user, incarnation });
}

fn recall(world: &mut World, caller: Principal) -> Result<UserCounters, RecallError> {
    let args = RecallArgs {
        user: alice(),
        incarnation: 1,
        counters: Counters::default(),
        version: 5,
    };
    world.bucket.recall(&caller, &args, world.now)
}

/// Two chunks, the first of which is in.
fn begun(world: &mut World) -> Vec<u8> {
    let data = bytes(CHUNK_BYTES + 10, 7);
    world.push(alice(), &chunk(&data, 0)).unwrap();
    data
}

#[test]
fn a_recall_takes_what_is_not_reserved_and_nothing_else() {
    let mut world = World::new();
    let data = begun(&mut world);
    assert_eq!(recall(&mut world, bob()), Err(RecallError::NotAuthorized));
    for _ in 0..2 {
        let told = recall(&mut world, index()).unwrap();
        assert_eq!(told.counters.lease(), data.len() as u64);
    }
    // The upload goes on, and ends well.
    let pushed = world.push(alice(), &chunk(&data, 1)).unwrap();
    assert_eq!(pushed.state, UploadState::Stored);
    let told = recall(&mut world, index()).unwrap();
    assert_eq!(
        (told.counters.used(), told.counters.lease()),
        (data.len() as u64, 0)
    );
    // What is wanted next is asked for.
    let question = world.shortage(alice(), &chunk(b"more", 0));
    assert_eq!(
        (question.wanted, question.incarnation),
        (charge(4, 1), Some(1))
    );
}

#[test]
fn a_lowered_limit_takes_back_what_is_not_reserved() {
    let mut world = World::new();
    begun(&mut world);
    upsert(&mut world, 1, LIMIT + 1);
    assert!(world.push(alice(), &chunk(b"small", 0)).is_ok());
    upsert(&mut world, 1, 5);
    world.shortage(alice(), &chunk(b"another", 0));
}

#[test]
fn an_idle_lease_goes_back() {
    let mut world = World::new();
    world.drain();
    assert_eq!(world.bucket.next_idle_ms(), Some(START_MS + LEASE_IDLE_MS));
    world.pass(LEASE_IDLE_MS / 2);
    world.upload(bob(), &bytes(10, 1));
    let data = begun(&mut world);
    world.pass(LEASE_IDLE_MS / 2);
    world.bucket.give_back_idle(world.now, 100);
    assert!(world.bucket.next_idle_ms().is_some());
    world.pass(LEASE_IDLE_MS);
    world.bucket.give_back_idle(world.now, 100);
    world.shortage(bob(), &chunk(b"another", 0));
    let batch = world.bucket.next_batch(2).unwrap();
    let leases: u64 = batch
        .args
        .counters
        .iter()
        .map(|row| row.counters.lease())
        .sum();
    assert_eq!(leases, data.len() as u64);
    // What the open upload held is looked at once more when it ends.
    let (user, blob, now) = (alice(), blob_id(&data), world.now);
    let aborted = world.bucket.abort_upload(&user, &blob, now);
    assert_eq!(aborted, Ok(()));
    world.bucket.give_back_idle(now, 100);
    let question = world.shortage(alice(), &chunk(b"small", 0));
    assert_eq!(question.counters.lease(), 0);
}

#[test]
fn a_deleted_user_loses_uploads_and_blobs_and_comes_back_as_another() {
    let mut world = World::new();
    let shared = bytes(300, 1);
    world.upload(bob(), &shared);
    world.upload(alice(), &shared);
    world.upload(alice(), &bytes(500, 2));
    let open = begun(&mut world);
    delete(&mut world, 1);
    // Nothing of it can be added to meanwhile.
    let pushed = world.refusal(alice(), &chunk(&open, 1));
    assert!(matches!(pushed, PushChunkError::Retry { .. }));
    // Registered again at once: it has to wait too.
    upsert(&mut world, 4, LIMIT);
    let pushed = world.refusal(alice(), &chunk(&open, 1));
    assert!(matches!(pushed, PushChunkError::Retry { .. }));
    world.upgrade();
    while world.bucket.is_deleting_users() {
        world.bucket.delete_user_slice(world.now);
    }
    // Bob's stay.
    assert_eq!(world.figures(), [1, 1, 0, 300, 0]);
    assert_eq!(
        world.state(alice(), &open).state,
        UploadState::Gone(GoneReason::UserDeleted)
    );
    // A bucket that was restored may have had the new one before: the index is asked.
    let batch = world.bucket.next_batch(world.now.version).unwrap();
    let asked = batch.args.counters.iter();
    let asked: Vec<_> = asked.map(|row| (row.user, row.incarnation)).collect();
    assert!(asked.contains(&(alice(), 4)), "{asked:?}");
    // The new one has nothing, and no lease.
    let question = world.shortage(alice(), &chunk(&open, 0));
    assert_eq!(
        (question.incarnation, question.counters),
        (Some(4), Counters::default())
    );
    // What is late of the old one changes nothing.
    upsert(&mut world, 1, LIMIT);
    delete(&mut world, 3);
    world.lease(alice(), GRANTED);
    assert_eq!(
        world.shortage(alice(), &chunk(&open, 0)).incarnation,
        Some(4)
    );
    delete(&mut world, 4);
    world.bucket.delete_user_slice(world.now);
    assert_eq!(
        world.refusal(alice(), &chunk(&open, 0)),
        PushChunkError::NotRegistered
    );
    // An older index's word does not bring it back.
    upsert(&mut world, 4, LIMIT);
    assert!(!world.bucket.knows(&alice()));
}

#[test]
fn a_higher_incarnation_in_any_message_deletes_the_lower() {
    let mut world = World::new();
    world.upload(alice(), &bytes(500, 2));
    let answer = LeaseOk {
        incarnation: 6,
        byte_limit: LIMIT,
        counters: Counters {
            granted: 2_000,
            ..Counters::default()
        },
        gone: None,
        version: 5,
    };
    world.bucket.leased(alice(), &answer, world.now);
    let pushed = world.refusal(alice(), &chunk(b"new", 0));
    assert!(matches!(pushed, PushChunkError::Retry { .. }));
    world.bucket.delete_user_slice(world.now);
    assert_eq!(world.figures(), [0; 5]);
    world.bucket.leased(alice(), &answer, world.now);
    world.upload(alice(), b"new");
}

/// An index that was restored from a snapshot has registered the user anew: it does not know of the one before, and
/// has not deleted it.
#[test]
fn a_higher_incarnation_keeps_a_lower_one_that_was_never_deleted() {
    let mut world = World::new();
    let upsert = |world: &mut World, incarnation, gone| {
        let event = UserUpserted {
            user: alice(),
            incarnation,
            byte_limit: LIMIT,
            counters: None,
            gone: Some(gone),
        };
        world.tell(kind::USER_UPSERTED, &event);
    };
    world.upload(alice(), &bytes(500, 2));
    upsert(&mut world, 9, 0);
    assert!(!world.bucket.is_deleting_users());
    world.upload(alice(), b"new");
    // The index hears what the user has, under the new number.
    let batch = world.bucket.next_batch(world.now.version).unwrap();
    let told = batch.args.counters.iter().find(|it| it.user == alice());
    assert_eq!(
        told.map(|it| (it.incarnation, it.counters.used())),
        Some((9, charge(500, 1) + charge(3, 1)))
    );
    // Deleted, and registered again.
    upsert(&mut world, 12, 10);
    while world.bucket.is_deleting_users() {
        world.bucket.delete_user_slice(world.now);
    }
    assert_eq!(world.figures(), [0; 5]);
    upsert(&mut world, 12, 10);
    assert!(world.bucket.knows(&alice()));
}

#[test]
fn after_a_snapshot_no_lease_counts_before_the_index_has_confirmed_it() {
    let mut world = World::new();
    world.bucket.observe(10);
    world.upload(alice(), &bytes(5_000, 2));
    let data = begun(&mut world);
    let snapshot = world.memory.borrow().clone();
    // All that is not reserved goes back; the upload is finished, and the small blob deleted.
    recall(&mut world, index()).unwrap();
    world.push(alice(), &chunk(&data, 1)).unwrap();
    let known = recall(&mut world, index()).unwrap().counters;
    assert_eq!(
        (known.used(), known.lease()),
        (5_000 + data.len() as u64, 0)
    );

    *world.memory.borrow_mut() = snapshot;
    world.bucket = Bucket::open(world.memory.clone(), own(), None);
    world.bucket.observe(20);
    // Neither begun nor ended before the index has said what it knows.
    for args in [chunk(b"small", 0), chunk(&data, 1)] {
        let question = world.shortage(alice(), &args);
        assert_eq!(question.counters.lease(), GRANTED - 5_000);
    }
    let answer = LeaseOk {
        incarnation: 1,
        byte_limit: LIMIT,
        counters: known,
        gone: None,
        version: 6,
    };
    world.bucket.leased(alice(), &answer, world.now);
    // No lease covers the upload any more: it is gone, and what is stored is what counts.
    assert_eq!(
        world.state(alice(), &data).state,
        UploadState::Gone(GoneReason::Aborted)
    );
    let told = recall(&mut world, index()).unwrap().counters;
    assert_eq!((told.used(), told.lease()), (5_000, 0));
    assert!(told.returned >= known.returned && told.spent >= known.spent);
}

#[test]
fn a_revoked_token_opens_nothing_and_a_later_one_does() {
    let mut world = World::new();
    let id = world.upload(alice(), &bytes(500, 2));
    let (hers, his) = (world.read_token(alice()), world.read_token(bob()));
    let revoked = Revoked {
        accessor_id: chat(),
        user: Some(alice()),
        min_iat_ms: world.now.ms + 1,
        until_ms: world.now.ms + DAY_MS,
    };
    world.tell(kind::REVOKED, &revoked);
    let read = |world: &World, user: Principal, token: String| {
        let args = openstorage_types::bucket::ReadChunkArgs {
            blob_id: id,
            accessor_id: chat(),
            token,
            chunk_index: 0,
        };
        world.bucket.read_chunk(&user, &args, world.now).is_ok()
    };
    assert!(!read(&world, alice(), hers));
    assert!(read(&world, bob(), his));
    world.pass(1);
    let later = world.read_token(alice());
    assert!(read(&world, alice(), later));
}

#[test]
fn a_doubted_upload_is_verified_once_the_index_has_confirmed_the_counters() {
    let mut world = World::new();
    world.drain();
    world.bucket.observe(10);
    world.bucket.observe(20);
    let Err(Stop::Lease(question)) = world.push(alice(), &chunk(b"small", 0)) else {
        panic!("it is in doubt");
    };
    assert_eq!(question.wanted, 0);
    let answer = LeaseOk {
        incarnation: 1,
        byte_limit: LIMIT,
        counters: question.counters,
        gone: None,
        version: 5,
    };
    world.bucket.leased(alice(), &answer, world.now);
    world.upload(alice(), b"small");
}

/// The first chunk of a blob for which nobody has a lease.
fn large() -> PushChunkArgs {
    PushChunkArgs {
        size: 2 * GRANTED,
        ..chunk(&bytes(CHUNK_BYTES, 1), 0)
    }
}

#[test]
fn a_lease_whose_answer_was_lost_is_heard_of_with_the_next_batch() {
    let mut world = World::new();
    world.drain();
    let large = large();
    let question = world.shortage(alice(), &large);
    assert!(world.bucket.asks(&question) && !world.bucket.asks(&question));
    // The index has granted, and its answer was lost.
    world.bucket.ask_is_over(&alice());
    let batch = world.bucket.next_batch(world.now.version).unwrap();
    let asked: Vec<_> = batch.args.counters.iter().map(|row| row.user).collect();
    assert_eq!(asked, [alice()]);
    let granted = UserCounters {
        user: alice(),
        incarnation: 1,
        counters: Counters {
            granted: 3 * GRANTED,
            ..question.counters
        },
    };
    let answer = EventsOk {
        stamp: end(&batch.args),
        report: None,
        counters: vec![granted],
        version: 5,
    };
    world.bucket.acknowledged(&batch, &answer, world.now);
    assert!(world.push(alice(), &large).is_ok());

    // Where the index has answered, there is nothing more to ask.
    let mut world = World::new();
    world.drain();
    assert!(world.bucket.asks(&question));
    world.bucket.refused(&question);
    world.bucket.ask_is_over(&alice());
    assert_eq!(world.bucket.next_batch(world.now.version), None);
    assert!(world.bucket.asks(&question));
    world.lease(alice(), GRANTED);
    world.bucket.ask_is_over(&alice());
    assert_eq!(world.bucket.next_batch(world.now.version), None);
}

/// The index hears a batch, and then grants; its answer to the batch arrives, what it granted does not. To the bucket it
/// looks as though the index knew all.
#[test]
fn a_lease_that_was_granted_behind_a_batch_is_heard_of_with_the_next() {
    for is_lost_first in [false, true] {
        let mut world = World::new();
        world.drain();
        let question = world.shortage(alice(), &large());
        world.upload(bob(), b"small");
        world.bucket.asks(&question);
        let batch = world.bucket.next_batch(world.now.version).unwrap();
        if is_lost_first {
            world.bucket.ask_is_over(&alice());
        }
        world.acknowledge(&batch);
        if !is_lost_first {
            world.bucket.ask_is_over(&alice());
        }
        let batch = world.bucket.next_batch(world.now.version).unwrap();
        let told: Vec<_> = batch.args.counters.iter().map(|row| row.user).collect();
        assert_eq!(told, [alice()]);
        world.acknowledge(&batch);
        assert_eq!(world.bucket.next_batch(world.now.version), None);
    }
}

#[test]
fn an_idle_lease_in_doubt_goes_back_once_the_index_has_confirmed_it() {
    let mut world = World::new();
    world.drain();
    // As after an upgrade.
    world.bucket.observe(10);
    world.bucket.observe(20);
    for _ in 0..2 {
        world.pass(LEASE_IDLE_MS);
        world.bucket.give_back_idle(world.now, 100);
        let batch = world.bucket.next_batch(world.now.version).unwrap();
        assert_eq!(batch.args.counters.len(), 2);
        world.acknowledge(&batch);
    }
    assert_eq!(world.bucket.next_idle_ms(), None);
    let question = world.shortage(alice(), &chunk(b"small", 0));
    assert_eq!(question.counters.lease(), 0);
}

#[test]
fn a_deletion_that_a_restored_bucket_has_forgotten_is_no_consent_to_a_user() {
    let mut world = World::new();
    world.bucket.observe(10);
    world.upload(alice(), b"old");
    world.drain();
    // Restored from a snapshot, and then told nothing but the answer to its own batch.
    world.bucket.observe(20);
    let batch = world.bucket.next_batch(20).unwrap();
    let gone = UserCounters {
        user: alice(),
        incarnation: 1,
        counters: Counters::default(),
    };
    let answer = EventsOk {
        stamp: end(&batch.args),
        report: None,
        counters: vec![gone],
        version: 5,
    };
    world.bucket.acknowledged(&batch, &answer, world.now);
    let pushed = world.refusal(alice(), &chunk(b"new", 0));
    assert!(matches!(pushed, PushChunkError::Retry { .. }));
    world.bucket.delete_user_slice(world.now);
    assert_eq!(world.figures()[3], 0);
    assert_eq!(
        world.refusal(alice(), &chunk(b"new", 0)),
        PushChunkError::NotRegistered
    );
}

#[test]
fn whoever_is_told_the_state_is_told_what_was_deleted() {
    let mut world = World::new();
    delete(&mut world, 1);
    world.bucket.delete_user_slice(world.now);
    assert!(!world.bucket.is_deleting_users());
    let accessor_id = chat();
    world.tell(kind::ACCESSOR_DELETED, &AccessorDeleted { accessor_id });
    let batch = world.bucket.next_batch(world.now.version).unwrap();
    let page: StatePage = decode_one(&batch.args.events[0].bytes).unwrap();
    let kinds: Vec<_> = page.rows.iter().map(|row| row.kind).collect();
    assert_eq!(
        kinds,
        [kind::USER_DELETED, kind::USER_HELD, kind::ACCESSOR_DELETED]
    );
    let gone: UserDeleted = decode_one(&page.rows[0].bytes).unwrap();
    assert_eq!((gone.user, gone.incarnation), (alice(), 1));
    assert!(page.last);
}

//! Leases: no two buckets together promise too much, and a refusal comes once every holder was asked.

mod support;

use data_bucket_index::agenda::Job;
use openstorage_types::{
    channel::{Counters, LeaseArgs, LeaseError, LeaseOk, RecallArgs, UserCounters},
    index::Allowance,
    limits::{LEASE_BYTES_MIN, POOL_LOW_BYTES},
};
use support::*;

const LIMIT: u64 = 1_000_000_000;

/// A bucket that wants `wanted` more than it has heard of.
fn wish(wanted: u64, counters: Counters) -> LeaseArgs {
    LeaseArgs {
        user: alice(),
        incarnation: Some(1),
        wanted,
        counters,
    }
}

fn lease(world: &mut World, n: u8, args: &LeaseArgs) -> Result<u64, LeaseError> {
    let context = world.context(canister(n));
    let answer = world.index.lease(&context, args);
    answer.map(|LeaseOk { counters, .. }| counters.granted)
}

fn granted(granted: u64) -> Counters {
    Counters {
        granted,
        ..Counters::default()
    }
}

fn told(incarnation: u64, counters: Counters) -> UserCounters {
    UserCounters {
        user: alice(),
        incarnation,
        counters,
    }
}

fn tell(world: &mut World, told: UserCounters) -> Vec<UserCounters> {
    world.tell(canister(1), told)
}

fn figures(world: &World) -> (u64, u64) {
    let info = world.index.user(&world.context(alice()), None).unwrap();
    (info.bytes_used, info.bytes_leased)
}

/// The recalls that are due now.
fn recalls(world: &World) -> Vec<u8> {
    let agenda = world.index.agenda(world.now_ms, &Default::default());
    let jobs = agenda.jobs.iter().filter_map(|job| match job {
        Job::Recall(user, bucket) if *user == alice() => Some(bucket.as_slice()[7]),
        _ => None,
    });
    jobs.collect()
}

/// Bucket `n` answers a recall; none is no answer.
fn recalled(world: &mut World, n: u8, counters: Option<Counters>) {
    let args = world.index.recall(alice(), canister(n), 1);
    assert!(matches!(args, Some(RecallArgs { incarnation: 1, .. })));
    let context = world.context(canister(n));
    let answer = counters.map(|counters| Ok(told(1, counters)));
    world
        .index
        .recalled(&context, (alice(), canister(n)), answer);
}

#[test]
fn a_small_wish_is_granted_generously_while_there_is_plenty() {
    let mut world = World::new(1);
    world.register(alice(), LIMIT);
    let none = Counters::default();
    assert_eq!(lease(&mut world, 1, &wish(10, none)), Ok(LEASE_BYTES_MIN));
    let large = wish(LIMIT / 2, granted(LEASE_BYTES_MIN));
    let total = LEASE_BYTES_MIN + LIMIT / 2;
    assert_eq!(lease(&mut world, 1, &large), Ok(total));
    // Where little would be left, nothing more than the wish.
    let wanted = LIMIT - total - POOL_LOW_BYTES + 1;
    assert_eq!(
        lease(&mut world, 1, &wish(wanted, granted(total))),
        Ok(total + wanted)
    );
    assert_eq!(
        lease(&mut world, 1, &wish(1, granted(total + wanted))),
        Ok(total + wanted + 1)
    );
}

#[test]
fn a_wish_that_is_repeated_is_granted_once() {
    let mut world = World::new(1);
    world.register(alice(), LIMIT);
    let wish = wish(LIMIT / 2, Counters::default());
    for _ in 0..3 {
        // The answer is lost each time; the bucket has heard of nothing.
        assert_eq!(lease(&mut world, 1, &wish), Ok(LIMIT / 2));
        world.upgrade();
    }
    assert_eq!(figures(&world), (0, LIMIT / 2));
}

#[test]
fn a_refusal_comes_when_every_holder_has_answered() {
    let mut world = World::new(3);
    world.register(alice(), LIMIT);
    let none = Counters::default();
    assert_eq!(lease(&mut world, 1, &wish(LIMIT / 2, none)), Ok(LIMIT / 2));
    assert_eq!(lease(&mut world, 2, &wish(LIMIT / 2, none)), Ok(LIMIT / 2));
    let pending = |answer| matches!(answer, Err(LeaseError::Pending { .. }));
    assert!(pending(lease(&mut world, 3, &wish(1, none))));
    assert_eq!(recalls(&world), [1, 2]);
    recalled(&mut world, 1, Some(granted(LIMIT / 2)));
    assert!(pending(lease(&mut world, 3, &wish(1, none))));
    assert_eq!(recalls(&world), [2]);
    recalled(&mut world, 2, Some(granted(LIMIT / 2)));
    let refused = Err(LeaseError::AllowanceExceeded(Allowance {
        byte_limit: LIMIT,
        bytes_used: 0,
        bytes_reserved: LIMIT,
        leased_elsewhere: LIMIT,
        unreachable: None,
    }));
    assert_eq!(lease(&mut world, 3, &wish(1, none)), refused);

    // The next wish is another: the holders are asked anew, but not at once.
    assert!(pending(lease(&mut world, 3, &wish(2, none))));
    assert_eq!(recalls(&world), Vec::<u8>::new());
    world.now_ms += 5_000;
    assert!(pending(lease(&mut world, 3, &wish(2, none))));
    let returned = Counters {
        returned: 10,
        ..granted(LIMIT / 2)
    };
    recalled(&mut world, 1, Some(returned));
    recalled(&mut world, 2, Some(granted(LIMIT / 2)));
    // Exactly the wish: others want some too.
    assert_eq!(lease(&mut world, 3, &wish(2, none)), Ok(2));
}

#[test]
fn a_holder_that_does_not_answer_is_named() {
    let mut world = World::new(2);
    world.register(alice(), LIMIT);
    let none = Counters::default();
    lease(&mut world, 1, &wish(LIMIT, none)).unwrap();
    assert!(lease(&mut world, 2, &wish(1, none)).is_err());
    for _ in 0..3 {
        assert_eq!(recalls(&world), [1]);
        recalled(&mut world, 1, None);
        assert_eq!(recalls(&world), Vec::<u8>::new());
        world.now_ms += 1_000;
    }
    let Err(LeaseError::AllowanceExceeded(allowance)) = lease(&mut world, 2, &wish(1, none)) else {
        panic!("it cannot be reached");
    };
    assert_eq!(allowance.unreachable, Some(canister(1)));
}

#[test]
fn a_wish_above_the_limit_is_refused_at_once_and_asks_nobody() {
    let mut world = World::new(2);
    world.register(alice(), LIMIT);
    lease(&mut world, 1, &wish(LIMIT, Counters::default())).unwrap();
    let answer = lease(&mut world, 2, &wish(LIMIT + 1, Counters::default()));
    assert!(matches!(answer, Err(LeaseError::AllowanceExceeded(_))));
    assert_eq!(recalls(&world), Vec::<u8>::new());
}

#[test]
fn what_is_spent_and_returned_elsewhere_can_be_granted_here() {
    let mut world = World::new(2);
    world.register(alice(), LIMIT);
    let none = Counters::default();
    assert_eq!(lease(&mut world, 1, &wish(LIMIT, none)), Ok(LIMIT));
    let counters = Counters {
        granted: LIMIT,
        spent: LIMIT / 2,
        freed: 0,
        returned: LIMIT / 2,
    };
    assert_eq!(lease(&mut world, 1, &wish(0, counters)), Ok(LIMIT));
    assert_eq!(lease(&mut world, 2, &wish(LIMIT / 2, none)), Ok(LIMIT / 2));
    assert_eq!(figures(&world), (LIMIT / 2, LIMIT / 2));
}

#[test]
fn a_lowered_limit_deletes_nothing_and_grants_nothing() {
    let mut world = World::new(1);
    world.register(alice(), LIMIT);
    let none = Counters::default();
    assert_eq!(lease(&mut world, 1, &wish(LIMIT, none)), Ok(LIMIT));
    world.register(alice(), 1);
    assert_eq!(figures(&world), (0, LIMIT));
    assert!(lease(&mut world, 1, &wish(1, granted(LIMIT))).is_err());
}

#[test]
fn only_a_bucket_leases_and_only_for_users() {
    let mut world = World::new(1);
    world.register(alice(), LIMIT);
    let wish = wish(1, Counters::default());
    assert_eq!(lease(&mut world, 9, &wish), Err(LeaseError::NotAuthorized));
    let unknown = LeaseArgs {
        user: principal(2),
        incarnation: None,
        ..wish
    };
    assert_eq!(
        lease(&mut world, 1, &unknown),
        Err(LeaseError::NotRegistered)
    );
}

#[test]
fn counters_that_come_late_or_twice_change_nothing() {
    let mut world = World::new(1);
    world.register(alice(), LIMIT);
    let mut says = |spent, freed| {
        let counters = Counters {
            granted: LIMIT,
            spent,
            freed,
            returned: 0,
        };
        tell(&mut world, told(1, counters));
        figures(&world).0
    };
    assert_eq!(says(500, 100), 400);
    assert_eq!(says(500, 100), 400);
    // An older message that was overtaken.
    assert_eq!(says(300, 0), 400);
    assert_eq!(says(500, 500), 0);
    world.upgrade();
    assert_eq!(figures(&world), (0, LIMIT - 500));
}

#[test]
fn a_user_that_a_restored_index_does_not_know_is_taken_in_again() {
    let mut world = World::new(1);
    let counters = Counters {
        spent: 700,
        freed: 200,
        ..granted(700)
    };
    tell(&mut world, told(9, counters));
    let info = world.index.user(&world.context(alice()), None).unwrap();
    // The best guess at its limit is what it stores.
    assert_eq!((info.byte_limit, info.bytes_used), (500, 500));
    // And of an incarnation that it has forgotten.
    tell(&mut world, told(12, granted(5)));
    assert_eq!(figures(&world), (0, 5));
    // A lower one that was never deleted is the same user. One that is deleted counts for nothing.
    tell(&mut world, told(9, counters));
    assert_eq!(figures(&world), (500, 0));
    let context = world.context(operator());
    world.index.delete_user(&context, alice()).unwrap();
    tell(&mut world, told(12, counters));
    assert!(world.index.user(&world.context(alice()), None).is_err());
}

#[test]
fn a_bucket_that_knows_less_is_told_more() {
    let mut world = World::new(1);
    world.register(alice(), LIMIT);
    let newest = Counters {
        spent: 300,
        ..granted(700)
    };
    assert_eq!(tell(&mut world, told(1, newest)), []);
    let answer = tell(&mut world, told(1, granted(500)));
    assert_eq!(answer, [told(1, newest)]);
}

/// Users at their limits whose buckets answer slowly, or not at all, keep nobody else waiting for good.
#[test]
fn each_user_has_its_turn_in_being_called_back() {
    let mut world = World::new(2);
    let users: Vec<_> = (1..=60).map(principal).collect();
    let wish = |user| LeaseArgs {
        user,
        incarnation: Some(1),
        wanted: LIMIT,
        counters: Counters::default(),
    };
    for user in &users {
        world.register(*user, LIMIT);
        assert_eq!(lease(&mut world, 1, &wish(*user)), Ok(LIMIT));
        lease(&mut world, 2, &wish(*user)).unwrap_err();
    }
    let mut asked = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let agenda = world.index.agenda(world.now_ms, &Default::default());
        for job in agenda.jobs {
            if let Job::Recall(user, bucket) = job {
                asked.insert(user);
                world.index.recall(user, bucket, 1).expect("it is due");
                let context = world.context(bucket);
                world.index.recalled(&context, (user, bucket), None);
            }
        }
        world.now_ms += 1_000;
    }
    assert_eq!(asked.len(), users.len());
}

//! Users and their allowances: who may register, and that no two buckets together promise too much.

mod support;

use candid::Principal;
use openstorage_types::{
    channel::{Counters, EventsArgs, LeaseArgs, LeaseError, LeaseOk, Stamp, UserCounters},
    index::{Allowance, UserArgs, UserError, UserInfo},
    limits::{LEASE_BYTES_MIN, PAGE_ROWS_MAX, POOL_LOW_BYTES},
};
use support::*;

const LIMIT: u64 = 1_000_000_000;

fn args(user: Principal) -> UserArgs {
    UserArgs {
        user,
        byte_limit: LIMIT,
    }
}

#[test]
fn admins_controllers_and_issuers_register_users_and_nobody_else() {
    let mut world = World::new(0);
    for caller in [operator(), admin(), chat()] {
        let context = world.context(caller);
        assert_eq!(world.index.register_user(&context, &args(alice())), Ok(()));
    }
    for caller in [alice(), Principal::anonymous(), canister(1)] {
        let context = world.context(caller);
        let index = &mut world.index;
        let refused = Err(UserError::NotAuthorized);
        assert_eq!(index.register_user(&context, &args(caller)), refused);
        assert_eq!(index.update_user(&context, &args(alice())), refused);
        assert_eq!(
            index.register_users(&context, &[args(caller), args(alice())]),
            [refused.clone(), refused]
        );
    }
    assert_eq!(world.index.status().users, 1);
}

#[test]
fn nobody_is_no_user_and_an_update_makes_none() {
    let mut world = World::new(0);
    let context = world.context(operator());
    for nobody in [Principal::anonymous(), Principal::management_canister()] {
        assert_eq!(
            world.index.register_user(&context, &args(nobody)),
            Err(UserError::InvalidUser)
        );
    }
    assert_eq!(
        world.index.update_user(&context, &args(alice())),
        Err(UserError::NotRegistered)
    );
}

#[test]
fn of_a_batch_the_first_thousand_are_answered() {
    let mut world = World::new(0);
    let rows: Vec<_> = (0..=PAGE_ROWS_MAX)
        .map(|n| args(Principal::self_authenticating(n.to_be_bytes())))
        .collect();
    let context = world.context(chat());
    let answers = world.index.register_users(&context, &rows);
    assert_eq!(answers.len(), PAGE_ROWS_MAX as usize);
    assert_eq!(world.index.status().users, u64::from(PAGE_ROWS_MAX));
}

#[test]
fn a_user_sees_itself_and_services_see_all() {
    let mut world = World::new(0);
    world.register(alice(), LIMIT);
    let info = Ok(UserInfo {
        byte_limit: LIMIT,
        bytes_used: 0,
        bytes_leased: 0,
    });
    let see = |caller, user| world.index.user(&world.context(caller), user);
    assert_eq!(see(alice(), None), info);
    assert_eq!(see(chat(), Some(alice())), info);
    assert_eq!(see(operator(), Some(alice())), info);
    assert_eq!(
        see(principal(2), Some(alice())),
        Err(UserError::NotAuthorized)
    );
    assert_eq!(see(principal(2), None), Err(UserError::NotRegistered));
}

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
    answer.map(|LeaseOk { granted, .. }| granted)
}

fn granted(granted: u64) -> Counters {
    Counters {
        granted,
        ..Counters::default()
    }
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
    let left = LIMIT - total;
    let wanted = left - POOL_LOW_BYTES + 1;
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
    let info = world.index.user(&world.context(alice()), None).unwrap();
    assert_eq!(info.bytes_leased, LIMIT / 2);
}

#[test]
fn two_buckets_together_never_promise_more_than_the_limit() {
    let mut world = World::new(2);
    world.register(alice(), LIMIT);
    let none = Counters::default();
    assert_eq!(lease(&mut world, 1, &wish(LIMIT, none)), Ok(LIMIT));
    // The other's upload may end soon and give back what it does not need.
    let pending = lease(&mut world, 2, &wish(1, none));
    assert!(
        matches!(pending, Err(LeaseError::Pending { .. })),
        "{pending:?}"
    );
    world.now_ms += 60_000;
    assert_eq!(
        lease(&mut world, 2, &wish(1, none)),
        Err(LeaseError::AllowanceExceeded(Allowance {
            byte_limit: LIMIT,
            bytes_used: 0,
            leased_elsewhere: LIMIT,
        }))
    );
    // It spends half, and gives the rest back.
    let counters = Counters {
        granted: LIMIT,
        spent: LIMIT / 2,
        freed: 0,
        returned: LIMIT / 2,
    };
    assert_eq!(lease(&mut world, 1, &wish(0, counters)), Ok(LIMIT));
    assert_eq!(lease(&mut world, 2, &wish(LIMIT / 2, none)), Ok(LIMIT / 2));
    let info = world.index.user(&world.context(alice()), None).unwrap();
    assert_eq!((info.bytes_used, info.bytes_leased), (LIMIT / 2, LIMIT / 2));
}

#[test]
fn a_lowered_limit_deletes_nothing_and_grants_nothing() {
    let mut world = World::new(1);
    world.register(alice(), LIMIT);
    let none = Counters::default();
    assert_eq!(lease(&mut world, 1, &wish(LIMIT, none)), Ok(LIMIT));
    world.register(alice(), 1);
    let info = world.index.user(&world.context(alice()), None).unwrap();
    assert_eq!((info.byte_limit, info.bytes_leased), (1, LIMIT));
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
    let tell = |world: &mut World, spent, freed| {
        let counters = Counters {
            granted: LIMIT,
            spent,
            freed,
            returned: 0,
        };
        let args = EventsArgs {
            from_stamp: Stamp::default(),
            events: vec![],
            counters: vec![UserCounters {
                user: alice(),
                incarnation: 1,
                counters,
            }],
            report: None,
        };
        let context = world.context(canister(1));
        world.index.events(&context, &args).unwrap();
        world.index.user(&world.context(alice()), None).unwrap()
    };
    assert_eq!(tell(&mut world, 500, 100).bytes_used, 400);
    assert_eq!(tell(&mut world, 500, 100).bytes_used, 400);
    // An older message that was overtaken.
    assert_eq!(tell(&mut world, 300, 0).bytes_used, 400);
    assert_eq!(tell(&mut world, 500, 500).bytes_used, 0);
    world.upgrade();
    let info = world.index.user(&world.context(alice()), None).unwrap();
    assert_eq!((info.bytes_used, info.bytes_leased), (0, LIMIT - 500));
}

#[test]
fn what_is_said_of_another_incarnation_is_not_counted() {
    let mut world = World::new(1);
    world.register(alice(), LIMIT);
    let args = EventsArgs {
        from_stamp: Stamp::default(),
        events: vec![],
        counters: vec![UserCounters {
            user: alice(),
            incarnation: 7,
            counters: Counters {
                spent: 500,
                ..Counters::default()
            },
        }],
        report: None,
    };
    let context = world.context(canister(1));
    world.index.events(&context, &args).unwrap();
    let info = world.index.user(&world.context(alice()), None).unwrap();
    assert_eq!(info.bytes_used, 0);
}

//! Users: who may register and delete them, and what is told of them.

mod support;

use candid::Principal;
use data_bucket_index::accounts::batch;
use openstorage_types::{
    channel::{LeaseArgs, LeaseError},
    index::{AllocatedBucketArgs, AllocatedBucketError, UserArgs, UserError, UserInfo},
    limits::PAGE_ROWS_MAX,
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
        assert_eq!(index.delete_user(&context, alice()), refused);
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
    let unknown = Err(UserError::NotRegistered);
    assert_eq!(world.index.update_user(&context, &args(alice())), unknown);
    assert_eq!(world.index.delete_user(&context, alice()), unknown);
}

#[test]
fn of_a_batch_the_first_thousand_are_answered() {
    let mut world = World::new(0);
    let rows: Vec<_> = (0..=PAGE_ROWS_MAX)
        .map(|n| args(Principal::self_authenticating(n.to_be_bytes())))
        .collect();
    let context = world.context(chat());
    let answers = batch(&rows, |args| world.index.register_user(&context, args));
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

#[test]
fn a_deleted_user_is_unknown_and_comes_back_as_another() {
    let mut world = World::new(1);
    world.register(alice(), LIMIT);
    let lease = |world: &mut World, incarnation| {
        let context = world.context(canister(1));
        let args = LeaseArgs {
            user: alice(),
            incarnation,
            wanted: 100,
            counters: Default::default(),
        };
        world.index.lease(&context, &args)
    };
    assert_eq!(lease(&mut world, None).unwrap().incarnation, 1);
    for _ in 0..2 {
        let context = world.context(chat());
        assert_eq!(world.index.delete_user(&context, alice()), Ok(()));
    }
    assert_eq!(world.index.status().users, 0);
    let seen = world.index.user(&world.context(alice()), None);
    assert_eq!(seen, Err(UserError::NotRegistered));
    assert_eq!(lease(&mut world, Some(1)), Err(LeaseError::NotRegistered));
    let asked = AllocatedBucketArgs {
        blob_id: WASM,
        size: 1,
        exclude: vec![],
    };
    assert_eq!(
        world
            .index
            .allocated_bucket(&world.context(alice()), &asked),
        Err(AllocatedBucketError::NotRegistered)
    );

    world.version += 1;
    world.register(alice(), LIMIT);
    world.index.sweep();
    let again = lease(&mut world, Some(1)).unwrap();
    // The bucket has to learn of the new incarnation first: nothing is granted to the old one.
    assert_eq!((again.incarnation, again.counters.granted), (2, 0));
    assert!(lease(&mut world, Some(2)).unwrap().counters.granted >= 100);
    let info = world.index.user(&world.context(alice()), None).unwrap();
    assert!(info.bytes_leased >= 100 && info.bytes_used == 0);
}

#[test]
fn what_an_admin_sets_or_deletes_an_issuer_does_not_change_also_after_an_upgrade() {
    let mut world = World::new(0);
    let register = |world: &mut World, caller, byte_limit| {
        let args = UserArgs {
            user: alice(),
            byte_limit,
        };
        world.version += 1;
        let context = world.context(caller);
        world.index.register_user(&context, &args)
    };
    let update = |world: &mut World, caller, byte_limit| {
        let args = UserArgs {
            user: alice(),
            byte_limit,
        };
        let context = world.context(caller);
        world.index.update_user(&context, &args)
    };
    let limit = |world: &World| {
        let info = world.index.user(&world.context(alice()), None);
        info.map(|info| info.byte_limit)
    };
    assert_eq!(register(&mut world, chat(), 10), Ok(()));
    assert_eq!(update(&mut world, chat(), 20), Ok(()));
    for (byte_limit, admin) in [(0, admin()), (30, operator())] {
        assert_eq!(update(&mut world, admin, byte_limit), Ok(()));
        world.upgrade();
        let refused = Err(UserError::SetByAdmin { byte_limit });
        assert_eq!(register(&mut world, chat(), 10), refused);
        assert_eq!(update(&mut world, chat(), 20), refused);
        assert_eq!(limit(&world), Ok(byte_limit));
    }
    // An admin's registration is as an app's: the app decides from then on.
    assert_eq!(register(&mut world, admin(), 40), Ok(()));
    assert_eq!(register(&mut world, chat(), 50), Ok(()));
    // The app may delete a user, and an admin whom the app has deleted: then it stays away.
    for caller in [chat(), operator()] {
        let context = world.context(caller);
        assert_eq!(world.index.delete_user(&context, alice()), Ok(()));
        world.upgrade();
    }
    let refused = Err(UserError::SetByAdmin { byte_limit: 0 });
    assert_eq!(register(&mut world, chat(), 10), refused);
    assert_eq!(limit(&world), Err(UserError::NotRegistered));
    assert_eq!(register(&mut world, operator(), 60), Ok(()));
    assert_eq!(register(&mut world, chat(), 70), Ok(()));
    // Deleted by the app alone, it may come back by the app.
    let context = world.context(chat());
    assert_eq!(world.index.delete_user(&context, alice()), Ok(()));
    assert_eq!(register(&mut world, chat(), 80), Ok(()));
    assert_eq!(limit(&world), Ok(80));
}

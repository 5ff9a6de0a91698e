//! The cost of the index's calls beside ever more buckets.

use candid::Principal;
use integration_tests::{Setup, blob_id, index, operator, user};
use openstorage_types::index::{AllocatedBucketArgs, BucketState, UserArgs, UserError};
use pocket_ic::CanisterSettings;

use crate::{
    figures::Report,
    meter::{Account, Meter, of_method, of_updates},
};

/// Calls of each kind whose mean is taken.
const CALLS: u64 = 10;
const SIZES: [u64; 4] = [1, 10, 100, 1_000];
const BUCKET_CYCLES: u128 = 10_000_000_000_000;

pub fn measure(report: &mut Report) {
    let setup = Setup::new();
    let asker = user(1_000);
    setup.register(asker);
    let mut meter = Meter::new(&setup);
    for size in SIZES {
        println!("  {size} buckets");
        grow(&setup, size);
        calls(&setup, &mut meter, report, asker, size);
    }
}

/// An operator makes canisters and adds them, until there are `size` buckets that have heard everything.
fn grow(setup: &Setup, size: u64) {
    let there = index::status(setup).buckets.len() as u64;
    for _ in there..size {
        let settings = CanisterSettings {
            controllers: Some(vec![operator(), setup.index]),
            ..CanisterSettings::default()
        };
        let bucket = setup
            .pic
            .create_canister_with_settings(Some(operator()), Some(settings));
        setup.pic.add_cycles(bucket, BUCKET_CYCLES);
        index::add_bucket(setup, operator(), bucket).expect("the index may");
    }
    quiet(setup, size);
}

fn quiet(setup: &Setup, size: u64) {
    const ROUNDS: u64 = 10_000;
    let is_quiet = || {
        let buckets = index::status(setup).buckets;
        let active = buckets
            .iter()
            .filter(|row| row.state == BucketState::Active);
        active.count() as u64 == size && buckets.iter().all(|row| row.events_behind == 0)
    };
    let came = (0..ROUNDS).any(|_| {
        setup.pic.tick();
        is_quiet()
    });
    assert!(came, "all buckets are active and have heard everything");
    for _ in 0..10 {
        setup.pic.tick();
    }
}

fn calls(setup: &Setup, meter: &mut Meter, report: &mut Report, asker: Principal, size: u64) {
    let mut mean = |of: fn(&[Account], Principal) -> u64, work: &dyn Fn(u64)| {
        let ((), accounts) = meter.of(|| (0..CALLS).for_each(work));
        of(&accounts, setup.index) as f64 / CALLS as f64
    };
    let figure = mean(
        |accounts, index| of_method(accounts, index, "allocated_bucket"),
        &|n| {
            let args = AllocatedBucketArgs {
                blob_id: blob_id(&n.to_le_bytes()),
                size: 1_000,
                exclude: vec![],
            };
            index::allocated_bucket(setup, asker, args).expect("there is a bucket");
        },
    );
    report.by_buckets.at(size, "allocated_bucket", figure);

    let row = |n: u64, byte_limit| UserArgs {
        user: user(n),
        byte_limit,
    };
    // The index's own message: what it begins is counted below.
    let figure = mean(
        |accounts, index| of_method(accounts, index, "update_user"),
        &|n| {
            index::register_user(setup, operator(), row(n, size)).expect("the operator may");
            // From here on the limit is the operator's: by another method, whose cost does not count.
            let rows = (vec![row(n, size)],);
            let set: Vec<Result<(), UserError>> =
                setup.call(setup.index, operator(), "update_users", rows);
            assert_eq!(set, [Ok(())]);
            quiet(setup, size);
            index::update_user(setup, operator(), row(n, size)).expect("the operator may");
        },
    );
    report
        .by_buckets
        .at(size, "update_user that changes nothing", figure);

    let figure = mean(|accounts, _| of_updates(accounts), &|n| {
        index::update_user(setup, operator(), row(n, size + 1)).expect("the operator may");
        quiet(setup, size);
    });
    report
        .by_buckets
        .at(size, "sync of a user, a bucket", figure / size as f64);
}

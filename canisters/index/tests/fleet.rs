//! The fleet is kept up: new code, cycles, and operators' calls, whatever becomes of any one call.

mod support;

use std::collections::BTreeSet;

use candid::Principal;
use data_bucket_index::{
    Index, Moment,
    agenda::Job,
    calls::{Answer, Call},
    fleet::Fleet,
    memory,
    topup::{BUDGET_PER_DAY, CYCLES_FLOOR, UNKNOWN_MS},
};
use ic_stable_structures::{DefaultMemoryImpl, StableCell};
use openstorage_canister::Row;
use openstorage_types::{
    BlobId, bucket,
    channel::{Counters, EventsArgs, LeaseArgs, Reference, Stamp, UserCounters, kind},
    index::*,
};
use support::{
    cloud::{Canister, Cloud, Fault, T},
    *,
};

const OLD: BlobId = BlobId([1; 32]);

/// An index that has just been upgraded, over buckets with the code of the one before.
fn before_a_roll(count: u8) -> (World, Cloud) {
    let mut world = World::new(count);
    let mut cloud = Cloud::default();
    for n in 1..=count {
        cloud.canisters.insert(canister(n), Canister::bucket(OLD));
    }
    // By the daily look the index knows what is in them.
    world.now_ms += 25 * 3_600_000;
    for n in 1..=count {
        let job = Job::TopUp(canister(n));
        let moment = world.moment();
        let call = world.index.begin(job, &moment).expect("it is due");
        let answer = Answer::Seen(cloud.look(&canister(n)).unwrap());
        world.index.end(job, &call, Ok(answer), &moment);
        // Asked about its other code.
        let job = Job::Upkeep(canister(n));
        let call = world.index.begin(job, &moment).expect("it is asked");
        assert_eq!(call, Call::Ask(canister(n)));
        let told = Answer::Told(bucket::BucketStatus {
            version: bucket::VERSION - 1,
            ..cloud::status()
        });
        world.index.end(job, &call, Ok(told), &moment);
    }
    (world, cloud)
}

fn roll(world: &World) -> RollStatus {
    world.index.status().roll
}

fn upgrade_buckets(world: &mut World) -> Result<RollStatus, FleetError> {
    let context = world.context(operator());
    world.index.upgrade_buckets(&context)
}

#[test]
fn every_bucket_gets_the_new_code_the_first_one_alone_and_few_at_a_time() {
    let (mut world, mut cloud) = before_a_roll(7);
    assert_eq!((roll(&world).waiting, roll(&world).done), (7, 0));
    world.settle(&mut cloud);
    assert_eq!((roll(&world).waiting, roll(&world).done), (0, 7));
    assert!(cloud.canisters.values().all(|it| it.module == Some(WASM)));
    assert_eq!(cloud.stopped_max, 3);
    // The first: stopped, upgraded, started, looked at and asked before any other is touched.
    let first: Vec<_> = cloud
        .calls
        .iter()
        .filter(|call| !matches!(call, Call::Look(_)))
        .take(4)
        .collect();
    let bucket = canister(1);
    let Call::Upgrade { args, .. } = first[1] else {
        panic!("{first:?}")
    };
    assert_eq!(args.index, own());
    assert_eq!(first[0], &Call::Stop(bucket));
    assert_eq!(first[2..], [&Call::Start(bucket), &Call::Ask(bucket)]);
}

/// A call that fails for good stops the roll; an operator takes it up again.
#[test]
fn a_roll_comes_to_its_end_whatever_becomes_of_one_call() {
    for fault in Fault::ALL {
        for at in 0..30 {
            let (mut world, mut cloud) = before_a_roll(4);
            cloud.fault = Some((at, fault));
            world.settle(&mut cloud);
            let what = format!("{fault:?} of call {at}: {:?}", roll(&world));
            assert!(cloud.canisters.values().all(|it| it.running), "{what}");
            if roll(&world).stopped.is_some() {
                assert_eq!(fault, Fault::Final, "{what}");
                assert!(matches!(cloud.calls[at], Call::Upgrade { .. }), "{what}");
                upgrade_buckets(&mut world).expect("the operator may");
                world.settle(&mut cloud);
            }
            assert_eq!(roll(&world).done, 4, "{what}");
            assert_eq!(roll(&world).stopped, None, "{what}");
            assert!(cloud.stopped_max <= 3, "{what}");
        }
    }
}

#[test]
fn a_bucket_whose_upgrade_fails_runs_on_and_stops_the_roll() {
    let (mut world, mut cloud) = before_a_roll(7);
    cloud.canisters.get_mut(&canister(3)).unwrap().breaks = true;
    world.settle(&mut cloud);
    let status = roll(&world);
    let reason = status.stopped.clone().expect("the roll has stopped");
    assert!(
        reason.contains("post_upgrade trapped") && reason.contains(&canister(3).to_text()),
        "{reason}"
    );
    // The first one, and those that were under way beside the third; nobody after.
    assert_eq!((status.done, status.running, status.waiting), (3, 0, 4));
    assert!(cloud.canisters.values().all(|it| it.running));
    let info = world.index.bucket(&world.context(operator()), canister(3));
    assert_eq!(info.unwrap().state, BucketState::Active);
    // Nothing goes on by itself, also after an upgrade to the same code.
    let calls = cloud.count(|call| matches!(call, Call::Stop(_)));
    world.upgrade();
    world.settle(&mut cloud);
    assert_eq!(cloud.count(|call| matches!(call, Call::Stop(_))), calls);
    // Once mended, an operator takes it up.
    cloud.canisters.get_mut(&canister(3)).unwrap().breaks = false;
    assert_eq!(
        world.index.upgrade_buckets(&world.context(alice())),
        Err(FleetError::NotAuthorized)
    );
    upgrade_buckets(&mut world).unwrap();
    world.settle(&mut cloud);
    assert_eq!(roll(&world).done, 7);
    // Again is no error and does nothing.
    let calls = cloud.calls.len();
    assert_eq!(upgrade_buckets(&mut world).unwrap().done, 7);
    world.settle(&mut cloud);
    assert_eq!(cloud.calls.len(), calls);
}

#[test]
fn a_bucket_that_is_ill_after_its_upgrade_stops_the_roll() {
    let (mut world, mut cloud) = before_a_roll(3);
    cloud.canisters.get_mut(&canister(1)).unwrap().is_ill = true;
    world.settle(&mut cloud);
    let status = roll(&world);
    let reason = status.stopped.expect("the roll has stopped");
    assert!(reason.contains("belongs to another index"), "{reason}");
    assert_eq!((status.done, status.waiting), (1, 2));
}

#[test]
fn newer_code_is_kept() {
    let (mut world, mut cloud) = before_a_roll(2);
    // An operator has upgraded it by hand, and the bucket says so.
    let it = cloud.canisters.get_mut(&canister(2)).unwrap();
    (it.module, it.version) = (Some(BlobId([2; 32])), bucket::VERSION + 1);
    world.settle(&mut cloud);
    // The roll did not know; with the next look it does.
    let mut cloud_after = Cloud::default();
    std::mem::swap(&mut cloud, &mut cloud_after);
    assert_eq!(roll(&world).done, 2);
    let (mut world, mut cloud) = (World::new(1), Cloud::default());
    let newer = Canister {
        version: bucket::VERSION + 1,
        ..Canister::bucket(BlobId([2; 32]))
    };
    cloud.canisters.insert(canister(1), newer);
    world.now_ms += 25 * 3_600_000;
    world.settle(&mut cloud);
    assert_eq!((roll(&world).newer, roll(&world).waiting), (1, 0));
    upgrade_buckets(&mut world).unwrap();
    world.settle(&mut cloud);
    assert_eq!(cloud.canisters[&canister(1)].version, bucket::VERSION + 1);
    assert_eq!(cloud.count(|call| matches!(call, Call::Stop(_))), 0);
}

#[test]
#[should_panic(expected = "an index is not downgraded")]
fn an_older_index_does_not_take_over() {
    let memory = DefaultMemoryImpl::default();
    Index::open(memory.clone(), own(), Some(WASM)).take_over();
    let newer = Fleet {
        version: VERSION + 1,
        ..Fleet::default()
    };
    let cell = memory::manager(memory.clone()).get(memory::FLEET);
    StableCell::init(cell, Row(Fleet::default())).set(Row(newer));
    Index::open(memory, own(), Some(WASM)).take_over();
}

/// A fleet of one that burns a T a day and has too little.
fn low() -> (World, Cloud) {
    let mut world = World::new(1);
    let mut cloud = Cloud::default();
    let bucket = Canister {
        balance: 31 * T,
        idle_per_day: T,
        ..Canister::bucket(WASM)
    };
    cloud.canisters.insert(canister(1), bucket);
    world.now_ms += 25 * 3_600_000;
    (world, cloud)
}

#[test]
fn a_bucket_that_runs_low_is_filled_up_to_two_weeks_once() {
    let (mut world, mut cloud) = low();
    world.settle(&mut cloud);
    assert_eq!(cloud.canisters[&canister(1)].balance, (30 + 14) * T);
    let info = world
        .index
        .bucket(&world.context(operator()), canister(1))
        .unwrap();
    assert_eq!(info.cycles_deposited, 13 * T);
    world.now_ms += 25 * 3_600_000;
    world.settle(&mut cloud);
    assert_eq!(cloud.deposited, 13 * T);
}

#[test]
fn a_bucket_is_topped_up_once_whatever_becomes_of_one_call() {
    for fault in Fault::ALL {
        for at in 0..4 {
            let (mut world, mut cloud) = low();
            cloud.fault = Some((at, fault));
            world.settle(&mut cloud);
            let balance = cloud.canisters[&canister(1)].balance;
            assert_eq!(balance, 44 * T, "{fault:?} of call {at}");
            assert_eq!(world.index.status().topup_withheld, None);
        }
    }
}

#[test]
fn a_deposit_without_an_answer_is_waited_out_and_counts() {
    let (mut world, mut cloud) = low();
    cloud.fault = Some((1, Fault::DoneUpgraded));
    let began_ms = world.now_ms;
    world.settle(&mut cloud);
    assert_eq!(cloud.deposited, 13 * T);
    assert!(world.now_ms >= began_ms + UNKNOWN_MS);
    // Of an unknown one only the balance tells; it was not counted as given.
    assert!(metric(&world, "deposited_cycles_total") == 13 * T);
}

fn metric(world: &World, name: &str) -> u128 {
    let gauges = data_bucket_index::page::Gauges {
        cycles: 1_000 * T,
        liquid_cycles: 1_000 * T,
        stable_bytes: 0,
        calls: 0,
        trapped_jobs: 0,
        now_ms: world.now_ms,
    };
    let request = openstorage_types::http::HttpRequest {
        method: "GET".into(),
        url: "/metrics".into(),
        headers: vec![],
        body: Default::default(),
        certificate_version: None,
    };
    let page = world.index.http(&request, &gauges).body.into_vec();
    let page = String::from_utf8(page).unwrap();
    let line = format!("\nopenstorage_index_{name} ");
    let start = page.find(&line).expect("the figure is there") + line.len();
    let value = page[start..].lines().next().unwrap();
    value.parse().unwrap()
}

#[test]
fn the_budget_of_a_day_is_not_exceeded_and_goes_on_the_next() {
    let (mut world, mut cloud) = low();
    let budget = 2 * T;
    world.index.configure(&InitArgs {
        topup_budget_per_day: Some(budget),
        ..InitArgs::default()
    });
    // From midnight, UTC.
    let day_ms = 24 * 3_600_000;
    world.now_ms = (world.now_ms / day_ms + 1) * day_ms;
    let begin_ms = world.now_ms;
    for day in 1..=2 {
        world.settle(&mut cloud);
        while world.now_ms < begin_ms + day * day_ms - 3_600_000 {
            world.now_ms += 3_600_000;
            world.settle(&mut cloud);
        }
        assert_eq!(cloud.deposited, u128::from(day) * budget);
        let why = world.index.status().topup_withheld.expect("it is told");
        assert!(why.contains("budget"), "{why}");
        assert_eq!(metric(&world, "topups_withheld"), 1);
        world.now_ms = begin_ms + day * day_ms;
    }
    world.index.configure(&InitArgs::default());
    world.settle(&mut cloud);
    assert_eq!(world.index.status().topup_withheld, None);
    assert_eq!(cloud.canisters[&canister(1)].balance, 44 * T);
    assert!(budget < BUDGET_PER_DAY);
}

#[test]
fn the_index_keeps_its_floor_and_raises_the_alarm() {
    let (mut world, mut cloud) = low();
    let start = CYCLES_FLOOR + 3 * T;
    let mut given = 0;
    // What it has given is gone.
    for _ in 0..5 {
        let left = start - given;
        world.settle_with(&mut cloud, |world| Moment {
            balance: left,
            ..world.moment()
        });
        given = cloud.deposited;
        world.now_ms += 3_600_000;
        if given > 0 {
            break;
        }
    }
    assert_eq!(given, 3 * T);
    world.settle_with(&mut cloud, |world| Moment {
        balance: CYCLES_FLOOR,
        ..world.moment()
    });
    assert_eq!(cloud.deposited, 3 * T);
    let why = world.index.status().topup_withheld.expect("it is told");
    assert!(why.contains("floor"), "{why}");
}

#[test]
fn a_report_that_a_bucket_is_low_brings_the_look_forward() {
    let mut world = World::new(1);
    let idle = BTreeSet::new();
    world.now_ms += 3_600_000;
    let job = Job::TopUp(canister(1));
    assert!(!world.index.agenda(world.now_ms, &idle).jobs.contains(&job));
    let report = openstorage_types::channel::BucketReport {
        bytes_used: 0,
        bytes_free: BUCKET_BYTES,
        key: None,
        oldest_key_version: None,
        version: Some(bucket::VERSION),
        index_version: 0,
        cycles: Some(openstorage_types::channel::CyclesReport {
            balance: 32 * T,
            freezing_at: 30 * T,
            burned_per_day: T,
        }),
        overdue_ms: None,
        set_aside: None,
    };
    world.hear(canister(1), Stamp::default(), vec![], Some(report));
    assert!(world.index.agenda(world.now_ms, &idle).jobs.contains(&job));
}

#[test]
fn operators_calls_are_for_admins_and_may_be_repeated() {
    let mut world = World::new(2);
    let stranger = world.context(alice());
    let (one, nobody) = (canister(1), canister(77));
    let full = |bucket, full| SetBucketFullArgs { bucket, full };
    let index = &mut world.index;
    let no = FleetError::NotAuthorized;
    assert_eq!(index.list_buckets(&stranger), Err(no.clone()));
    assert_eq!(index.bucket(&stranger, one), Err(no.clone()));
    assert_eq!(index.add_bucket(&stranger, nobody), Err(no.clone()));
    assert_eq!(
        index.set_bucket_full(&stranger, &full(one, true)),
        Err(no.clone())
    );
    assert_eq!(index.retire_bucket(&stranger, one), Err(no.clone()));
    assert_eq!(index.forget_bucket(&stranger, one), Err(no.clone()));
    assert_eq!(index.upgrade_buckets(&stranger), Err(no));

    let admin = world.context(admin());
    let index = &mut world.index;
    let unknown = FleetError::NotFound;
    assert_eq!(index.list_buckets(&admin).unwrap().len(), 2);
    assert_eq!(index.bucket(&admin, nobody), Err(unknown.clone()));
    assert_eq!(
        index.set_bucket_full(&admin, &full(nobody, true)),
        Err(unknown.clone())
    );
    assert_eq!(index.retire_bucket(&admin, nobody), Err(unknown.clone()));
    assert_eq!(index.forget_bucket(&admin, nobody), Err(unknown));
    for _ in 0..2 {
        let info = index.set_bucket_full(&admin, &full(one, true)).unwrap();
        assert_eq!(info.state, BucketState::Full);
    }
    let info = index.set_bucket_full(&admin, &full(one, false)).unwrap();
    assert_eq!(info.state, BucketState::Active);
    assert_eq!(
        index.forget_bucket(&admin, one),
        Err(FleetError::NotRetired)
    );
    for _ in 0..2 {
        let info = index.retire_bucket(&admin, one).unwrap();
        assert_eq!(info.state, BucketState::Retired);
    }
    assert_eq!(
        index.set_bucket_full(&admin, &full(one, false)),
        Err(FleetError::Retired)
    );
}

/// Nobody tells that what a lost bucket had is gone: whoever follows the feed has to look anew.
#[test]
fn a_bucket_that_is_given_up_leaves_a_gap_in_the_feed() {
    let mut world = World::new(1);
    let admin = world.context(admin());
    let args = FeedArgs {
        after: 0,
        limit: 10,
        owner: None,
    };
    let forgotten = |world: &World| world.index.feed(&admin, &args).unwrap().forgotten_until;
    let before = forgotten(&world);
    world.index.retire_bucket(&admin, canister(1)).unwrap();
    assert_eq!(forgotten(&world), before);
    world.index.forget_bucket(&admin, canister(1)).unwrap();
    assert!(forgotten(&world) > before);
}

#[test]
fn a_closed_bucket_hears_of_it_and_gets_no_new_blob() {
    let (mut world, mut cloud) = (World::new(2), Cloud::default());
    for n in 1..=2 {
        cloud.canisters.insert(canister(n), Canister::bucket(WASM));
    }
    world.register(alice(), 1_000);
    let context = world.context(operator());
    let args = |full| SetBucketFullArgs {
        bucket: canister(1),
        full,
    };
    let allocated = |world: &World| -> BTreeSet<Principal> {
        (0..50)
            .map(|n| {
                let args = AllocatedBucketArgs {
                    blob_id: BlobId([n; 32]),
                    size: 1,
                    exclude: vec![],
                };
                let context = world.context(alice());
                world
                    .index
                    .allocated_bucket(&context, &args)
                    .unwrap()
                    .bucket
            })
            .collect()
    };
    assert_eq!(allocated(&world).len(), 2);
    world.index.set_bucket_full(&context, &args(true)).unwrap();
    assert_eq!(allocated(&world), BTreeSet::from([canister(2)]));
    cloud.fault = Some((0, Fault::UndoneUpgraded));
    world.settle(&mut cloud);
    assert!(cloud.canisters[&canister(1)].closed);
    world.index.set_bucket_full(&context, &args(false)).unwrap();
    world.settle(&mut cloud);
    assert!(!cloud.canisters[&canister(1)].closed);
    assert_eq!(allocated(&world).len(), 2);
}

#[test]
fn a_bucket_is_added_only_when_nobody_else_controls_it_and_its_code_is_known() {
    let mut world = World::new(1);
    let context = world.context(operator());
    let new = canister(60);
    for (bucket, wanted) in [
        (new, Ok(None)),
        (own(), Err(FleetError::InvalidBucket)),
        (alice(), Err(FleetError::InvalidBucket)),
        (Principal::anonymous(), Err(FleetError::InvalidBucket)),
    ] {
        assert_eq!(world.index.add_bucket(&context, bucket), wanted);
    }
    let mut cloud = Cloud::default();
    let mut try_with = |canister: Canister| {
        cloud.canisters.insert(new, canister);
        let look = cloud.look(&new).unwrap();
        world.index.adopt(&context, new, &look, vec![operator()])
    };
    let foreign = Canister {
        controllers: vec![own(), operator(), alice()],
        ..Canister::empty()
    };
    assert_eq!(
        try_with(foreign),
        Err(FleetError::ForeignControllers {
            controllers: vec![alice()]
        })
    );
    assert_eq!(
        try_with(Canister::bucket(OLD)),
        Err(FleetError::UnknownModule { module_hash: OLD })
    );
    let empty = Canister {
        controllers: vec![own(), operator()],
        ..Canister::empty()
    };
    assert_eq!(try_with(empty).unwrap().state, BucketState::Creating);
    world.settle(&mut cloud);
    let info = world.index.bucket(&context, new).unwrap();
    assert_eq!(
        (info.state, info.module_hash),
        (BucketState::Active, Some(WASM))
    );
    assert_eq!(world.index.add_bucket(&context, new), Ok(Some(info)));
}

#[test]
fn a_lost_bucket_is_forgotten_with_its_users_bytes() {
    let mut world = World::new(2);
    let lost = canister(1);
    let blob = |n: u16| {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        BlobId(id)
    };
    // More than a slice of blobs in each bucket; every second one is in both.
    for (bucket, blobs) in [(lost, 0..3_000), (canister(2), 1_500..4_500)] {
        let all: Vec<u16> = blobs.collect();
        let mut from = Stamp::default();
        for some in all.chunks(1_000) {
            let events: Vec<_> = some
                .iter()
                .map(|n| {
                    reference(
                        kind::BLOB_REFERENCE_ADDED,
                        &Reference {
                            blob_id: blob(*n),
                            size: 10,
                            owner: alice(),
                            accessor_id: chat(),
                            with_blob: true,
                        },
                    )
                })
                .collect();
            from = world.hear(bucket, from, events, None).stamp;
        }
    }
    world.register(alice(), 1_000_000);
    let leased = [lost, canister(2)].map(|bucket| {
        let context = world.context(bucket);
        let args = LeaseArgs {
            user: alice(),
            incarnation: None,
            wanted: 500,
            counters: Counters::default(),
        };
        let ok = world.index.lease(&context, &args).unwrap();
        let granted = ok.counters.granted;
        let args = EventsArgs {
            from_stamp: Stamp::default(),
            events: vec![],
            counters: vec![UserCounters {
                user: alice(),
                incarnation: ok.incarnation,
                counters: Counters {
                    granted,
                    spent: 200,
                    ..Counters::default()
                },
            }],
            report: None,
            heard: Stamp::default(),
            version: 5,
        };
        world.index.events(&context, &args).unwrap();
        granted - 200
    });
    let user = |world: &World| world.index.user(&world.context(alice()), None).unwrap();
    assert_eq!(
        (user(&world).bytes_used, user(&world).bytes_leased),
        (400, leased[0] + leased[1])
    );
    assert_eq!(world.index.status().blobs, 4_500);

    let context = world.context(operator());
    world.index.retire_bucket(&context, lost).unwrap();
    world.index.forget_bucket(&context, lost).unwrap();
    // At once it is nobody's bucket any more, and holds no blob.
    assert_eq!(
        world.index.bucket(&context, lost),
        Err(FleetError::NotFound)
    );
    let allocated = world
        .index
        .allocated_bucket(
            &world.context(alice()),
            &AllocatedBucketArgs {
                blob_id: blob(0),
                size: 10,
                exclude: vec![],
            },
        )
        .unwrap();
    assert_eq!((allocated.bucket, allocated.stored), (canister(2), false));
    assert!(
        world
            .index
            .lease(
                &world.context(lost),
                &LeaseArgs {
                    user: alice(),
                    incarnation: None,
                    wanted: 1,
                    counters: Counters::default(),
                }
            )
            .is_err()
    );
    // Again is no error; added again it can be only when it is forgotten.
    world.index.forget_bucket(&context, lost).unwrap();
    assert!(matches!(
        world.index.add_bucket(&context, lost),
        Err(FleetError::Retry { .. })
    ));
    let mut slices = 0;
    while world
        .index
        .agenda(world.now_ms, &BTreeSet::new())
        .jobs
        .contains(&Job::Forget)
    {
        world.index.forget_slice(world.now_ms);
        world.upgrade();
        slices += 1;
    }
    assert!(slices > 2, "{slices}");
    assert_eq!(
        (user(&world).bytes_used, user(&world).bytes_leased),
        (200, leased[1])
    );
    let status = world.index.status();
    assert_eq!((status.blobs, status.bytes_stored), (3_000, 30_000));
    assert_eq!(
        world.index.forget_bucket(&context, lost),
        Err(FleetError::NotFound)
    );
    assert_eq!(world.index.add_bucket(&context, lost), Ok(None));
}

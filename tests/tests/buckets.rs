//! The fleet of buckets grows, is upgraded and topped up by the index, and obeys its operators.

use std::{cell::RefCell, rc::Rc, time::Duration};

use candid::{Principal, encode_one};
use data_bucket_index::{buckets::Buckets, memory};
use ic_stable_structures::DefaultMemoryImpl;
use integration_tests::{Setup, bucket, bytes, chat, chunk, index, operator, user, wasm};
use openstorage_types::{BlobReference, bucket as bucket_types, bucket::PushChunkError, index::*};
use pocket_ic::common::rest::BlobCompression;

const T: u128 = 1_000_000_000_000;

/// A deployed system that has made itself `count` buckets.
fn with_buckets(count: u64) -> Setup {
    let bytes_max = 20_000_000;
    let setup = Setup::with(InitArgs {
        bucket_bytes_max: Some(bytes_max),
        free_bytes_target: Some((count - 1) * bytes_max + 1),
        ..InitArgs::default()
    });
    setup.settle("all buckets are active", |setup| {
        let buckets = index::status(setup).buckets;
        (buckets.len() as u64 == count && buckets.iter().all(|it| it.state == BucketState::Active))
            .then_some(())
    });
    setup
}

fn ids(setup: &Setup) -> Vec<Principal> {
    let buckets = index::status(setup).buckets;
    buckets.iter().map(|info| info.bucket).collect()
}

fn assert_readable(
    setup: &Setup,
    caller: Principal,
    room: &openstorage_types::chat::ChatInfo,
    message: u64,
    data: &[u8],
) {
    let (access, token) = chat::access(setup, caller, room.chat_id, message);
    let BlobReference {
        blob_id, bucket, ..
    } = access.reference;
    let url = format!("/{}/{blob_id}?token={token}", room.accessor_id);
    let shown = bucket::get(setup, bucket, &url, &[]);
    assert_eq!(shown.status_code, 200);
    assert_eq!(shown.body.as_ref(), data);
}

/// The line of a figure in the index's metrics.
fn metric(setup: &Setup, name: &str) -> u128 {
    let page = bucket::get(setup, setup.index, "/metrics", &[]).body;
    let page = String::from_utf8(page.into_vec()).unwrap();
    let line = format!("\nopenstorage_index_{name} ");
    let start = page.find(&line).expect("the figure is there") + line.len();
    page[start..].lines().next().unwrap().parse().unwrap()
}

#[test]
fn a_bucket_is_made_before_it_is_needed_and_a_full_one_goes_on_serving() {
    let setup = Setup::with(InitArgs {
        bucket_bytes_max: Some(10_000_000),
        ..InitArgs::default()
    });
    let (alice, room) = setup.user_with_chat(1);
    let uploads: Vec<_> = (0..8)
        .map(|seed| {
            let data = bytes(1_900_000, seed);
            // Never `NoActiveBucket`: the next one is there in time.
            let reference = setup.upload(alice, &data, room.accessor_id);
            for _ in 0..20 {
                setup.pic.tick();
            }
            (data, reference)
        })
        .collect();
    let status = index::status(&setup);
    assert!(status.buckets.len() >= 2, "{status:?}");
    let first = &status.buckets.iter().find(|it| it.bucket == setup.bucket);
    assert_eq!(first.unwrap().state, BucketState::Full, "{status:?}");
    for (data, reference) in &uploads {
        let message = chat::post(&setup, alice, room.chat_id, reference);
        assert_readable(&setup, alice, &room, message, data);
    }
    for info in &status.buckets {
        let controllers = setup.pic.get_controllers(info.bucket);
        let mut expected = vec![setup.index, operator()];
        expected.sort();
        assert_eq!(controllers, expected);
    }
}

#[test]
fn an_upgraded_index_upgrades_its_buckets() {
    let setup = with_buckets(3);
    let (alice, room) = setup.user_with_chat(1);
    let data = bytes(300_000, 1);
    let reference = setup.upload(alice, &data, room.accessor_id);
    let message = chat::post(&setup, alice, room.chat_id, &reference);
    assert_eq!(index::status(&setup).roll.done, 3);

    setup.upgrade(setup.index, "index-next").unwrap();
    let status = index::status(&setup);
    assert_eq!((status.version, status.roll.done), (VERSION + 1, 0));
    setup.settle("all buckets are upgraded", |setup| {
        (index::status(setup).roll.done == 3).then_some(())
    });
    for bucket in ids(&setup) {
        let status = bucket::status(&setup, bucket);
        assert_eq!(status.version, bucket_types::VERSION + 1);
    }
    assert_readable(&setup, alice, &room, message, &data);
    let (bob, other) = setup.user_with_chat(2);
    setup.upload(bob, &bytes(10, 2), other.accessor_id);

    // Neither goes back: the code says so, and the newer goes on.
    let rejected = setup.upgrade(setup.index, "index").unwrap_err();
    assert!(
        rejected
            .reject_message
            .contains("an index is not downgraded"),
        "{rejected}"
    );
    assert_eq!(index::status(&setup).version, VERSION + 1);
    let rejected = setup.upgrade(setup.bucket, "bucket").unwrap_err();
    assert!(
        rejected
            .reject_message
            .contains("a bucket is not downgraded"),
        "{rejected}"
    );
    assert_readable(&setup, alice, &room, message, &data);
}

/// Lets a bucket's memory say that another version wrote it.
fn set_version(setup: &Setup, bucket: Principal, from: u32, to: u32) {
    let record = |version: u32| [&b"OSBUCKET"[..], &version.to_le_bytes()].concat();
    let mut memory = setup.pic.get_stable_memory(bucket);
    let at = memory
        .windows(12)
        .position(|bytes| bytes == record(from))
        .expect("the record is there");
    memory[at..at + 12].copy_from_slice(&record(to));
    setup
        .pic
        .set_stable_memory(bucket, memory, BlobCompression::NoCompression);
}

#[test]
fn a_roll_stops_at_the_first_bucket_that_fails_and_is_taken_up_again() {
    let setup = with_buckets(3);
    let ill = ids(&setup)[1];
    let current = bucket_types::VERSION;
    set_version(&setup, ill, current, 99);
    setup.upgrade(setup.index, "index-next").unwrap();
    let roll = setup.settle("the roll has stopped", |setup| {
        let roll = index::status(setup).roll;
        (roll.stopped.is_some() && roll.running == 0).then_some(roll)
    });
    let reason = roll.stopped.unwrap();
    assert!(
        reason.contains(&ill.to_text()) && reason.contains("written by version 99"),
        "{reason}"
    );
    assert_eq!(metric(&setup, "roll_stopped"), 1);
    // It runs on with the code that it had.
    assert_eq!(bucket::status(&setup, ill).version, current);
    let info = index::bucket(&setup, operator(), ill).unwrap();
    assert_eq!(info.state, BucketState::Active);
    assert!(info.last_error.is_some());
    let logs = bucket::get(&setup, setup.index, "/logs", &[]).body;
    assert!(String::from_utf8_lossy(&logs).contains("the roll has stopped"));

    set_version(&setup, ill, 99, current);
    setup.turned_away(setup.index, user(1), "upgrade_buckets", ());
    index::upgrade_buckets(&setup, operator()).unwrap();
    setup.settle("all buckets are upgraded", |setup| {
        (index::status(setup).roll.done == 3).then_some(())
    });
    assert_eq!(index::status(&setup).roll.stopped, None);
}

#[test]
fn a_roll_goes_on_when_the_index_is_upgraded_in_its_middle_again_and_again() {
    let setup = with_buckets(3);
    setup.upgrade(setup.index, "index-next").unwrap();
    let mut upgrades = 0;
    while index::status(&setup).roll.done < 3 {
        assert!(upgrades < 60, "{:?}", index::status(&setup).roll);
        for _ in 0..2 {
            setup.pic.advance_time(Duration::from_millis(500));
            setup.pic.tick();
        }
        setup.upgrade(setup.index, "index-next").unwrap();
        upgrades += 1;
    }
    assert!(upgrades > 1);
    setup.settle("all buckets serve", |setup| {
        let buckets = index::status(setup).buckets;
        buckets
            .iter()
            .all(|it| it.state == BucketState::Active)
            .then_some(())
    });
}

#[test]
fn newer_code_of_a_bucket_is_kept() {
    let setup = Setup::new();
    setup.upgrade(setup.bucket, "bucket-next").unwrap();
    // The index looks at each bucket once a day.
    setup.pic.advance_time(Duration::from_secs(25 * 3_600));
    let roll = setup.settle("the index has seen it", |setup| {
        let roll = index::status(setup).roll;
        (roll.newer == 1).then_some(roll)
    });
    assert_eq!((roll.waiting, roll.stopped), (0, None));
    index::upgrade_buckets(&setup, operator()).unwrap();
    for _ in 0..20 {
        setup.pic.tick();
    }
    let status = bucket::status(&setup, setup.bucket);
    assert_eq!(status.version, bucket_types::VERSION + 1);
    let (alice, room) = setup.user_with_chat(1);
    setup.upload(alice, &bytes(10, 1), room.accessor_id);
}

#[test]
fn a_bucket_that_runs_low_is_topped_up_once() {
    let setup = Setup::new();
    let before = setup.pic.cycle_balance(setup.bucket);
    assert!(before <= 2 * T);
    // Less than half of what a bucket is to have.
    let more = InitArgs {
        bucket_cycles: Some(10 * T),
        ..InitArgs::default()
    };
    let operator = Some(operator());
    setup.pic.stop_canister(setup.index, operator).unwrap();
    let arg = encode_one(Some(more)).unwrap();
    setup
        .pic
        .upgrade_canister(setup.index, wasm("index"), arg, operator)
        .unwrap();
    setup.pic.start_canister(setup.index, operator).unwrap();
    setup.pic.advance_time(Duration::from_secs(25 * 3_600));
    setup.settle("the bucket is topped up", |setup| {
        (setup.pic.cycle_balance(setup.bucket) > 9 * T).then_some(())
    });
    for _ in 0..50 {
        setup.pic.advance_time(Duration::from_secs(3_600));
        setup.pic.tick();
        setup.pic.tick();
    }
    let balance = setup.pic.cycle_balance(setup.bucket);
    // What a call of the bucket's own holds back while the index looks comes on top: 42 G at most.
    assert!(balance <= 10 * T + T / 20, "{balance}");
    let info = index::bucket(&setup, integration_tests::operator(), setup.bucket).unwrap();
    assert!(info.cycles_deposited <= 10 * T && info.cycles_deposited >= 8 * T);
    assert_eq!(
        metric(&setup, "deposited_cycles_total"),
        info.cycles_deposited
    );
    assert_eq!(metric(&setup, "cycles_low"), 0);
}

#[test]
fn a_bucket_of_another_subnet_is_added_retired_and_forgotten() {
    let setup = Setup::on(2, InitArgs::default());
    let own_subnet = setup.pic.get_subnet(setup.index).unwrap();
    let subnets = setup.pic.topology().get_app_subnets();
    let other = subnets.into_iter().find(|id| *id != own_subnet).unwrap();
    let new = setup
        .pic
        .create_canister_on_subnet(Some(operator()), None, other);
    setup.pic.add_cycles(new, 10 * T);

    let add = |caller| index::add_bucket(&setup, caller, new);
    setup.turned_away(setup.index, user(1), "add_bucket", (new,));
    assert_eq!(add(operator()), Err(FleetError::NotController));
    let control = |controllers| {
        setup
            .pic
            .set_controllers(new, Some(operator()), controllers)
            .unwrap();
    };
    control(vec![operator(), setup.index, user(9)]);
    assert_eq!(
        add(operator()),
        Err(FleetError::ForeignControllers {
            controllers: vec![user(9)]
        })
    );
    control(vec![operator(), setup.index]);
    add(operator()).unwrap();
    add(operator()).unwrap();
    setup.settle("the added bucket is active", |setup| {
        let info = index::bucket(setup, operator(), new).unwrap();
        (info.state == BucketState::Active).then_some(())
    });
    assert_eq!(setup.pic.get_subnet(new), Some(other));

    // The first one takes nothing new, so everything goes to the added one.
    let full = SetBucketFullArgs {
        bucket: setup.bucket,
        full: true,
    };
    index::set_bucket_full(&setup, operator(), full).unwrap();
    let (alice, room) = setup.user_with_chat(1);
    let data = bytes(50_000, 1);
    let reference = setup.upload(alice, &data, room.accessor_id);
    assert_eq!(reference.bucket, new);
    let message = chat::post(&setup, alice, room.chat_id, &reference);
    setup.settle("the index has counted the blob", |setup| {
        (index::user(setup, alice).unwrap().bytes_used == 50_000).then_some(())
    });
    setup.settle("the first bucket has heard that it is closed", |setup| {
        bucket::status(setup, setup.bucket).closed.then_some(())
    });
    bucket::ensure_registered(&setup, setup.bucket, alice).unwrap();
    let refused = bucket::push_chunk(
        &setup,
        setup.bucket,
        alice,
        chunk(&bytes(10, 2), 0, room.accessor_id),
    );
    assert_eq!(
        refused,
        Err(PushChunkError::BucketFull {
            bytes_free: 0,
            bytes_arrived: 0
        })
    );

    // A retired bucket goes on serving; a forgotten one is gone, with what it held.
    assert_eq!(
        index::forget_bucket(&setup, operator(), new),
        Err(FleetError::NotRetired)
    );
    index::retire_bucket(&setup, operator(), new).unwrap();
    assert_readable(&setup, alice, &room, message, &data);
    index::forget_bucket(&setup, operator(), new).unwrap();
    setup.settle("the user has its bytes back", |setup| {
        (index::user(setup, alice).unwrap().bytes_used == 0).then_some(())
    });
    assert_eq!(
        index::bucket(&setup, operator(), new),
        Err(FleetError::NotFound)
    );
}

#[test]
fn every_canister_shows_how_it_is_and_nothing_of_its_users() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    let reference = setup.upload(alice, &bytes(10, 1), room.accessor_id);
    for (canister, ready) in [
        (setup.index, "openstorage_index_buckets 1"),
        (setup.bucket, "openstorage_bucket_blobs 1"),
        (setup.chat, "openstorage_chat_ready 1"),
    ] {
        let page = |path| {
            let shown = bucket::get(&setup, canister, path, &[]);
            assert_eq!(shown.status_code, 200, "{path} of {canister}");
            let text = String::from_utf8(shown.body.into_vec()).unwrap();
            for secret in [
                alice.to_text(),
                room.accessor_id.to_text(),
                reference.blob_id.to_string(),
            ] {
                assert!(!text.contains(&secret), "{path} of {canister}: {text}");
            }
            text
        };
        let metrics = page("/metrics");
        assert!(metrics.lines().any(|line| line == ready), "{metrics}");
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            for head in ["HELP", "TYPE"] {
                let head = format!("# {head} {name} ");
                assert_eq!(metrics.matches(&head).count(), 1, "{head}");
            }
            let value = line.rsplit(' ').next().unwrap();
            value.parse::<u128>().expect("a figure");
        }
        let status = page("/status");
        assert!(status.starts_with('{') && status.ends_with('}'), "{status}");
        page("/logs");
        assert_eq!(
            bucket::request(&setup, canister, "POST", "/status", &[]).status_code,
            405
        );
    }
}

/// What the index pays for a call that changes nothing: twenty in one round.
fn cost_of_a_call(setup: &Setup) -> u128 {
    const CALLS: u128 = 20;
    let args = UserArgs {
        user: user(1),
        byte_limit: 1,
    };
    index::register_user(setup, operator(), args.clone()).unwrap();
    (0..30).for_each(|_| setup.pic.tick());
    let arg = encode_one(args).unwrap();
    let before = setup.pic.cycle_balance(setup.index);
    let sent: Vec<_> = (0..CALLS)
        .map(|_| {
            let pic = &setup.pic;
            let sent = pic.submit_call(setup.index, operator(), "register_user", arg.clone());
            sent.unwrap()
        })
        .collect();
    for id in sent {
        setup.pic.await_call(id).unwrap();
    }
    (before - setup.pic.cycle_balance(setup.index)) / CALLS
}

/// Every update looks for what is due, in all buckets. The thousand are written into the memory of the index; there is
/// nobody behind them, so there is always something to tell them later, which is the dearest case.
#[test]
fn a_thousand_buckets_make_no_call_dear() {
    let setup = Setup::new();
    let with_one = cost_of_a_call(&setup);
    let bytes = setup.pic.get_stable_memory(setup.index);
    let memory: DefaultMemoryImpl = Rc::new(RefCell::new(bytes));
    let manager = memory::manager(memory.clone());
    let (rows, troubles) = (manager.get(memory::BUCKETS), manager.get(memory::TROUBLES));
    let mut buckets = Buckets::init(rows, troubles);
    let row = buckets.get(&setup.bucket).unwrap().clone();
    for n in 1..1_000_u16 {
        let n = n.to_be_bytes();
        let id = Principal::from_slice(&[0, 0, 0, 0, 0, 1, n[0], n[1], 1, 1]);
        buckets.set(id, row.clone());
    }
    drop((buckets, manager));
    let bytes = memory.take();
    let compression = BlobCompression::NoCompression;
    setup.pic.set_stable_memory(setup.index, bytes, compression);
    setup.upgrade(setup.index, "index").unwrap();
    assert_eq!(index::status(&setup).buckets.len(), 1_000);
    // Nobody has answered, and they are tried again later.
    (0..300).for_each(|_| setup.pic.tick());
    let with_all = cost_of_a_call(&setup);
    println!("cycles of a call: {with_one} with one bucket, {with_all} with a thousand");
    assert!(with_all < with_one + 4_000_000, "{with_one}, {with_all}");
}

//! How a bucket comes to be, whatever is cut short.

mod support;

use std::collections::BTreeSet;

use data_bucket_index::{
    Index, Moment,
    agenda::{Agenda, CALLS_MAX, Job, SENDS_MAX},
    calls::{Answer, Call, Failure},
    creation::BUCKET_CYCLES,
    page::Gauges,
};
use ic_stable_structures::DefaultMemoryImpl;
use openstorage_types::{
    BlobId,
    http::HttpRequest,
    index::{BucketState, InitArgs},
    limits::BLOB_BYTES_MAX,
};
use support::{
    cloud::{Canister, Cloud, Fault, T},
    *,
};

#[test]
fn an_empty_index_makes_one_bucket() {
    let (mut world, mut cloud) = (World::empty(), Cloud::default());
    world.settle(&mut cloud);
    let bucket = canister(100);
    let kinds: Vec<_> = cloud
        .calls
        .iter()
        .map(|call| match call {
            Call::OwnControllers => "controllers",
            Call::Create { .. } => "create",
            Call::Look(_) => "look",
            Call::Install { .. } => "install",
            Call::Ask(_) => "ask",
            _ => "other",
        })
        .collect();
    let expected = ["controllers", "create", "look", "install", "look", "ask"];
    assert_eq!(kinds, expected);
    let info = &world.index.buckets()[0];
    assert_eq!((info.bucket, info.state), (bucket, BucketState::Active));
    assert_eq!(info.module_hash, Some(WASM));
    // The index and its own controllers, each once.
    assert_eq!(cloud.canisters[&bucket].controllers, [own(), operator()]);
    assert_eq!(cloud.canisters[&bucket].balance, BUCKET_CYCLES);
    assert_eq!(world.index.status().last_creation_error, None);
}

#[test]
fn governance_controls_buckets_where_it_is_named() {
    let (mut world, mut cloud) = (World::empty(), Cloud::default());
    world.index.configure(&InitArgs {
        governance: Some(vec![admin()]),
        ..InitArgs::default()
    });
    world.settle(&mut cloud);
    let controllers = &cloud.canisters[&canister(100)].controllers;
    assert_eq!(*controllers, [own(), admin()]);
}

/// Whatever becomes of any one call, one bucket comes into use; a second canister is made only when the
/// first one's id was lost with the answer.
#[test]
fn a_bucket_comes_to_be_whatever_becomes_of_one_call() {
    for fault in Fault::ALL {
        for at in 0..6 {
            let mut world = World::empty();
            let mut cloud = Cloud {
                fault: Some((at, fault)),
                ..Cloud::default()
            };
            world.settle(&mut cloud);
            let buckets = world.index.buckets();
            let states: Vec<_> = buckets.iter().map(|info| info.state).collect();
            assert_eq!(states, [BucketState::Active], "{fault:?} of call {at}");
            let is_lost = matches!(fault, Fault::DoneUnknown | Fault::DoneUpgraded)
                && matches!(cloud.calls[at], Call::Create { .. });
            let made = 1 + usize::from(is_lost);
            assert_eq!(cloud.canisters.len(), made, "{fault:?} of call {at}");
            assert!(
                cloud
                    .canisters
                    .values()
                    .all(|it| it.running && (is_lost || it.module == Some(WASM)))
            );
            if is_lost {
                let page = logs(&world);
                assert!(page.contains("was lost"), "{page}");
            }
        }
    }
}

#[test]
fn a_half_made_canister_with_foreign_code_is_never_used() {
    let (mut world, mut cloud) = (World::empty(), Cloud::default());
    let moment = world.moment();
    // The controllers, then the canister; somebody is faster than the index.
    for answer in [
        Answer::Controllers(vec![operator()]),
        Answer::Created(canister(100)),
    ] {
        let call = world.index.begin(Job::MakeBucket, &moment).unwrap();
        world.index.end(Job::MakeBucket, &call, Ok(answer), &moment);
    }
    cloud
        .canisters
        .insert(canister(100), Canister::bucket(BlobId([9; 32])));
    let call = world
        .index
        .begin(Job::Upkeep(canister(100)), &moment)
        .unwrap();
    let look = Answer::Seen(cloud.look(&canister(100)).unwrap());
    world
        .index
        .end(Job::Upkeep(canister(100)), &call, Ok(look), &moment);
    let info = &world.index.buckets()[0];
    assert_eq!(info.state, BucketState::Creating);
    let error = info.last_error.as_ref().unwrap();
    assert!(error.contains("another module"), "{error}");
    // An operator gives it up, and another one is made.
    let context = world.context(operator());
    world
        .index
        .forget_bucket(&context, canister(100))
        .expect("it was never ready");
    let mut cloud = Cloud::default();
    cloud.canisters.insert(canister(1), Canister::empty());
    world.settle(&mut cloud);
    assert_eq!(world.index.buckets()[0].state, BucketState::Active);
}

#[test]
fn a_failure_is_shown_and_tried_again_later_each_time() {
    let mut world = World::empty();
    let idle = BTreeSet::new();
    let mut waits_ms = vec![];
    for _ in 0..12 {
        let moment = world.moment();
        let call = world.index.begin(Job::MakeBucket, &moment).unwrap();
        let failure = Failure::Rejected {
            passing: false,
            text: "no such luck".into(),
        };
        world
            .index
            .end(Job::MakeBucket, &call, Err(failure), &moment);
        let status = world.index.status();
        assert_eq!(status.last_creation_error.as_deref(), Some("no such luck"));
        let Agenda { jobs, next_ms } = world.index.agenda(world.now_ms, &idle);
        assert_eq!(jobs, [Job::DrawSecret]);
        waits_ms.push(next_ms.unwrap() - world.now_ms);
        world.now_ms = next_ms.unwrap();
        let agenda = world.index.agenda(world.now_ms, &idle);
        assert!(agenda.jobs.contains(&Job::MakeBucket));
    }
    assert_eq!(waits_ms[..4], [1_000, 2_000, 4_000, 8_000]);
    assert_eq!(waits_ms[10..], [600_000, 600_000]);
}

#[test]
fn an_index_without_cycles_to_spare_makes_none_and_says_so() {
    let (mut world, mut cloud) = (World::empty(), Cloud::default());
    // The floor, the price of a canister, and less than half of what a bucket gets.
    let poor = |world: &World| Moment {
        balance: T + T / 2 + BUCKET_CYCLES / 2 - 1,
        ..world.moment()
    };
    let moment = poor(&world);
    let call = world.index.begin(Job::MakeBucket, &moment).unwrap();
    let answer = Ok(Answer::Controllers(vec![]));
    world.index.end(Job::MakeBucket, &call, answer, &moment);
    assert_eq!(world.index.begin(Job::MakeBucket, &moment), None);
    let error = world.index.status().last_creation_error.unwrap();
    assert!(error.contains("keeps 1000000000000"), "{error}");
    // With a little more a poor bucket is made rather than none.
    world.now_ms += 10_000;
    world.settle_with(&mut cloud, |world| Moment {
        balance: poor(world).balance + 1,
        ..world.moment()
    });
    assert_eq!(cloud.canisters[&canister(100)].balance, BUCKET_CYCLES / 2);
}

#[test]
fn a_further_bucket_is_made_before_the_last_is_full_and_not_sooner() {
    let mut world = World::new(1);
    let wants = |world: &World| {
        let agenda = world.index.agenda(world.now_ms, &BTreeSet::new());
        agenda.jobs.contains(&Job::MakeBucket)
    };
    let room = BLOB_BYTES_MAX.min(BUCKET_BYTES / 2);
    world.report(canister(1), BUCKET_BYTES - room, room);
    assert!(!wants(&world));
    world.report(canister(1), BUCKET_BYTES - room + 1, room - 1);
    assert!(wants(&world));
    world.add_bucket(2);
    assert!(!wants(&world));
    // One that has no room although it is empty has another problem: another bucket would not help.
    world.report(canister(2), 0, 0);
    assert!(!wants(&world));
}

#[test]
fn a_target_for_free_space_counts_the_room_of_all_that_take_blobs() {
    let mut world = World::new(2);
    world.index.configure(&InitArgs {
        bucket_bytes_max: Some(BUCKET_BYTES),
        free_bytes_target: Some(2 * BUCKET_BYTES - 10),
        ..InitArgs::default()
    });
    let wants = |world: &World| {
        let agenda = world.index.agenda(world.now_ms, &BTreeSet::new());
        agenda.jobs.contains(&Job::MakeBucket)
    };
    world.report(canister(1), 10, BUCKET_BYTES - 10);
    assert!(!wants(&world));
    world.report(canister(1), 11, BUCKET_BYTES - 11);
    assert!(wants(&world));
    // The room of a bucket that an operator has set full does not count.
    world.report(canister(1), 10, BUCKET_BYTES - 10);
    let context = world.context(operator());
    world
        .index
        .retire_bucket(&context, canister(1))
        .expect("the operator may");
    assert!(wants(&world));
}

#[test]
fn without_a_wasm_there_are_no_buckets_and_the_status_says_why() {
    let index = Index::open(DefaultMemoryImpl::default(), own(), None);
    let Agenda { jobs, .. } = index.agenda(START_MS, &BTreeSet::new());
    assert_eq!(jobs, [Job::DrawSecret]);
    let error = index.status().last_creation_error.unwrap();
    assert!(error.contains("OPENSTORAGE_BUCKET_WASM"), "{error}");
}

#[test]
fn a_job_that_runs_is_not_begun_again_and_sends_are_bounded() {
    let mut world = World::new(20);
    world.register(alice(), 1);
    let is_send = |job: &Job| matches!(job, Job::Send(_));
    let sends = |world: &World, running: &BTreeSet<Job>| -> Vec<_> {
        let jobs = world.index.agenda(world.now_ms, running).jobs;
        jobs.into_iter().filter(is_send).collect()
    };
    let jobs = sends(&world, &BTreeSet::new());
    assert_eq!(jobs.len(), SENDS_MAX);
    let running: BTreeSet<_> = jobs.into_iter().take(10).collect();
    let further = sends(&world, &running);
    assert_eq!(further.len(), SENDS_MAX - 10);
    assert!(further.iter().all(|job| !running.contains(job)));
    // A bucket that does not answer is left alone for a while.
    let now_ms = world.now_ms;
    world.index.send_failed(canister(1), now_ms);
    let agenda = world.index.agenda(now_ms, &BTreeSet::new());
    assert!(!agenda.jobs.contains(&Job::Send(canister(1))));
    assert_eq!(agenda.next_ms, Some(now_ms + 1_000));
    // However much is due, only so many calls are under way.
    let running = (0..CALLS_MAX as u8 - 1)
        .map(|n| Job::CheckIssuer(principal(n)))
        .collect();
    assert_eq!(world.index.agenda(now_ms, &running).jobs.len(), 1);
}

fn get(world: &World, method: &str, url: &str) -> (u16, String) {
    let gauges = Gauges {
        cycles: 7,
        liquid_cycles: 6,
        stable_bytes: 8,
        calls: 9,
        trapped_jobs: 0,
        now_ms: world.now_ms,
    };
    let request = HttpRequest {
        method: method.into(),
        url: url.into(),
        headers: vec![],
        body: Default::default(),
        certificate_version: None,
    };
    let response = world.index.http(&request, &gauges);
    let text = String::from_utf8(response.body.into_vec()).unwrap();
    (response.status_code, text)
}

fn logs(world: &World) -> String {
    get(world, "GET", "/logs").1
}

#[test]
fn status_metrics_and_logs_tell_the_figures() {
    let mut world = World::new(1);
    world.register(alice(), 1);
    let (code, text) = get(&world, "GET", "/status?x");
    assert_eq!(code, 200);
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["users"], 1);
    assert_eq!(status["cycles_low"], true);
    assert_eq!(status["buckets"][0]["state"], "Active");
    let (code, text) = get(&world, "GET", "/metrics");
    assert_eq!(code, 200);
    for line in [
        "openstorage_index_buckets 1".to_string(),
        "openstorage_index_cycles_low 1".to_string(),
        "openstorage_index_calls_outstanding 9".to_string(),
        "openstorage_index_buckets_in_state{state=\"active\"} 1".to_string(),
        "openstorage_index_roll_buckets{place=\"done\"} 1".to_string(),
        format!(
            "openstorage_index_bucket_cycles{{bucket=\"{}\"}} 2000000000000",
            canister(1)
        ),
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
    }
    // Every figure is introduced, once.
    for name in text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap())
    {
        assert_eq!(
            text.matches(&format!("# TYPE {name} ")).count(),
            1,
            "{name}"
        );
    }
    let page = logs(&world);
    assert!(page.contains("is ready, version"), "{page}");
    // No page tells of a user.
    for url in ["/status", "/metrics", "/logs"] {
        assert!(!get(&world, "GET", url).1.contains(&alice().to_text()));
    }
    assert_eq!(get(&world, "GET", "/").0, 404);
    assert_eq!(get(&world, "POST", "/status").0, 405);
}

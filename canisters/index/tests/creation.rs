//! How a bucket comes to be, whatever is cut short.

mod support;

use std::collections::BTreeSet;

use data_bucket_index::{
    Index,
    agenda::{Agenda, Job, SENDS_MAX},
    creation::Step,
};
use ic_stable_structures::DefaultMemoryImpl;
use openstorage_types::{http::HttpRequest, index::BucketState, limits::BLOB_BYTES_MAX};
use support::*;

#[test]
fn an_empty_index_makes_a_bucket_step_by_step() {
    let mut world = World::empty();
    assert_eq!(world.step(), Some(Step::Create));
    world.upgrade();
    // The answer may have been lost: it says so, and asks again.
    assert_eq!(world.step(), Some(Step::Create));
    let error = world.index.status().last_creation_error.unwrap();
    assert!(error.contains("was lost"), "{error}");
    world.index.canister_created(canister(1));
    world.upgrade();
    assert_eq!(world.step(), Some(Step::Install(canister(1))));
    assert_eq!(world.index.buckets()[0].state, BucketState::Creating);
    world.index.bucket_installed(canister(1));
    world.upgrade();
    assert_eq!(world.step(), None);
    let status = world.index.status();
    assert_eq!(status.buckets[0].state, BucketState::Active);
    assert_eq!(status.last_creation_error, None);
}

#[test]
fn a_failure_is_shown_and_tried_again_later_each_time() {
    let mut world = World::empty();
    let idle = BTreeSet::new();
    let mut waits_ms = vec![];
    for _ in 0..12 {
        world.step();
        let error = "no cycles".to_string();
        world.index.creation_failed(error, world.now_ms);
        let status = world.index.status();
        assert_eq!(status.last_creation_error.as_deref(), Some("no cycles"));
        let Agenda { jobs, next_ms } = world.index.agenda(world.now_ms, &idle);
        assert_eq!(jobs, [Job::DrawSecret]);
        waits_ms.push(next_ms.unwrap() - world.now_ms);
        world.now_ms = next_ms.unwrap();
        assert!(
            world
                .index
                .agenda(world.now_ms, &idle)
                .jobs
                .contains(&Job::MakeBucket)
        );
    }
    assert_eq!(waits_ms[..4], [1_000, 2_000, 4_000, 8_000]);
    assert_eq!(waits_ms[10..], [600_000, 600_000]);
}

#[test]
fn a_further_bucket_is_made_before_the_last_is_full_and_not_sooner() {
    let mut world = World::new(1);
    let room = BLOB_BYTES_MAX.min(BUCKET_BYTES / 2);
    world.report(canister(1), BUCKET_BYTES - room, room);
    assert_eq!(world.step(), None);
    world.report(canister(1), BUCKET_BYTES - room + 1, room - 1);
    assert_eq!(world.step(), Some(Step::Create));
    world.add_bucket(2);
    assert_eq!(world.step(), None);
    // One that has no room although it is empty has another problem: another bucket would not help.
    world.report(canister(2), 0, 0);
    assert_eq!(world.step(), None);
}

#[test]
fn without_a_wasm_there_are_no_buckets_and_the_status_says_why() {
    let index = Index::open(DefaultMemoryImpl::default(), None);
    let Agenda { jobs, .. } = index.agenda(START_MS, &BTreeSet::new());
    assert_eq!(jobs, [Job::DrawSecret]);
    let error = index.status().last_creation_error.unwrap();
    assert!(error.contains("OPENSTORAGE_BUCKET_WASM"), "{error}");
}

#[test]
fn a_job_that_runs_is_not_begun_again_and_sends_are_bounded() {
    let mut world = World::new(20);
    world.register(alice(), 1);
    let jobs = world.index.agenda(START_MS, &BTreeSet::new()).jobs;
    assert_eq!(jobs.len(), SENDS_MAX);
    let running: BTreeSet<_> = jobs.into_iter().take(10).collect();
    let further = world.index.agenda(START_MS, &running).jobs;
    assert_eq!(further.len(), SENDS_MAX - 10);
    assert!(further.iter().all(|job| !running.contains(job)));
    // A bucket that does not answer is left alone for a while.
    world.index.send_failed(canister(1), START_MS);
    let agenda = world.index.agenda(START_MS, &BTreeSet::new());
    assert!(!agenda.jobs.contains(&Job::Send(canister(1))));
    assert_eq!(agenda.next_ms, Some(START_MS + 1_000));
}

#[test]
fn status_and_metrics_tell_the_figures() {
    let mut world = World::new(1);
    world.register(alice(), 1);
    let gauges = data_bucket_index::page::Gauges {
        cycles: 7,
        stable_bytes: 8,
    };
    let get = |method: &str, url: &str| {
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
    };
    let (code, text) = get("GET", "/status?x");
    assert_eq!(code, 200);
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["users"], 1);
    let (code, text) = get("GET", "/metrics");
    assert_eq!(code, 200);
    assert!(text.contains("\nopenstorage_index_buckets 1\n"), "{text}");
    assert_eq!(get("GET", "/").0, 404);
    assert_eq!(get("POST", "/status").0, 405);
}

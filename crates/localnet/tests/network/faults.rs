//! Faults: each kind by plan, many by seed, and the log that repeats them.

use candid::Principal;
use ic_management_canister_types::CanisterStatusType;
use openstorage_localnet::network::{Fault, Ingress, Input, Plan, PlanError, Rule, Seeded, Site};

use crate::{
    bench::{Bench, OWNER, forward},
    workload::{balanced, canisters, inputs},
};

/// Flag of the test canister: the call waits ten seconds at most.
const BOUNDED: u8 = 2;

/// A caller and a callee, and one fault.
fn with(rule: Rule) -> (Bench, Principal, Principal) {
    let mut bench = Bench::paid();
    let (caller, callee) = (bench.canister(0), bench.canister(0));
    plan(&mut bench, rule);
    (bench, caller, callee)
}

fn plan(bench: &mut Bench, rule: Rule) {
    let rules = vec![rule];
    let plan = Plan {
        rules,
        seeded: None,
    };
    bench.0.set_faults(plan).unwrap();
}

/// The answer to a call of `bump` with 1,000 cycles, and how often it was executed.
fn outcome(rule: Rule, flags: u8) -> (Vec<u8>, u8) {
    let (mut bench, caller, callee) = with(rule);
    let id = bench
        .0
        .submit(Ingress {
            sender: OWNER,
            sender_info: None,
            canister: caller,
            method: "call".into(),
            arg: forward(callee, flags, 1_000, "bump", &[]),
            effective: None,
        })
        .unwrap();
    bench.0.tick();
    let later = bench.0.time_ns() + 11_000_000_000;
    bench.0.set_time(later).unwrap();
    let reply = bench.0.await_ingress(&id).unwrap().unwrap();
    assert_eq!(bench.0.fault_log().len(), 1);
    balanced(&bench.0);
    (reply, bench.count(callee))
}

#[test]
fn a_call_fails_before_or_after_it_is_executed() {
    let at = |site, fault| Rule::new(site, 1, fault);
    let (reply, executed) = outcome(at(Site::Request, Fault::Reject), 0);
    assert_eq!((&reply[..2], executed), (&[b'E', 2][..], 0));
    let (reply, executed) = outcome(at(Site::Request, Fault::TimeOutBefore), BOUNDED);
    assert_eq!((&reply[..2], executed), (&[b'E', 6][..], 0));
    let (reply, executed) = outcome(at(Site::Request, Fault::Lose), BOUNDED);
    assert_eq!((&reply[..2], executed), (&[b'E', 6][..], 0));
    let (reply, executed) = outcome(at(Site::Answer, Fault::TimeOutAfter), BOUNDED);
    assert_eq!((&reply[..2], executed), (&[b'E', 6][..], 1));
    // Late beyond the deadline: executed, and nobody hears of it.
    let (reply, executed) = outcome(at(Site::Answer, Fault::Delay { rounds: 5 }), BOUNDED);
    assert_eq!((&reply[..2], executed), (&[b'E', 6][..], 1));
    // Late without a deadline: only late.
    let (reply, executed) = outcome(at(Site::Answer, Fault::Delay { rounds: 5 }), 0);
    assert_eq!((reply, executed), (b"R\x01\xe8\x03\0\0".to_vec(), 1));
}

#[test]
fn a_call_that_waits_without_bound_is_answered_truly() {
    let (mut bench, caller, callee) = with(Rule::new(Site::Answer, 1, Fault::TimeOutAfter));
    let reply = bench
        .call(caller, "call", &forward(callee, 0, 0, "bump", &[]))
        .unwrap();
    assert_eq!(reply[..2], [b'R', 1]);
    assert!(bench.0.fault_log().is_empty());
}

#[test]
fn the_nth_execution_of_a_method_traps_where_it_is_told() {
    let rule = |canister, nth, fault| Rule {
        canister: Some(canister),
        method: Some("bump".into()),
        ..Rule::new(Site::Execution, nth, fault)
    };
    let (mut bench, _, callee) = with(Rule::new(Site::Round, u64::MAX, Fault::Restart));
    plan(&mut bench, rule(callee, 2, Fault::Trap { instructions: 5 }));
    assert_eq!(bench.call(callee, "bump", &[]).unwrap(), [1]);
    let before = bench.0.query(OWNER, callee, "count", vec![]);
    let reject = bench.call(callee, "bump", &[]).unwrap_err();
    assert_eq!(
        reject.error_code,
        pocket_ic::ErrorCode::CanisterInstructionLimitExceeded
    );
    assert_eq!(bench.0.query(OWNER, callee, "count", vec![]), before);
    assert_eq!(bench.call(callee, "bump", &[]).unwrap(), [2]);
}

#[test]
fn memory_cannot_grow_and_queues_are_full() {
    let (mut bench, caller, callee) = with(Rule::new(Site::Execution, 1, Fault::NoGrowth));
    assert_eq!(bench.call(caller, "grow", &[]).unwrap(), [0xff; 4]);
    assert_ne!(bench.call(caller, "grow", &[]).unwrap(), [0xff; 4]);
    plan(&mut bench, Rule::new(Site::Execution, 1, Fault::QueueFull));
    let arg = forward(callee, 0, 0, "bump", &[]);
    assert_eq!(bench.call(caller, "call", &arg).unwrap(), b"F");
    assert_eq!(bench.call(caller, "call", &arg).unwrap()[0], b'R');
}

#[test]
fn a_caller_is_stopped_or_upgraded_before_its_answer_comes() {
    let (mut bench, caller, callee) = with(Rule::new(Site::Answer, 1, Fault::StopCaller));
    let reply = bench
        .call(caller, "call", &forward(callee, 0, 0, "bump", &[]))
        .unwrap();
    assert_eq!(reply[..2], [b'R', 1]);
    assert_eq!(bench.status(caller).status, CanisterStatusType::Stopped);

    let (mut bench, caller, callee) = with(Rule::new(Site::Answer, 1, Fault::UpgradeCaller));
    bench.call(caller, "bump", &[]).unwrap();
    let version = bench.status(caller).version;
    let reply = bench
        .call(caller, "call", &forward(callee, 0, 0, "bump", &[]))
        .unwrap();
    // The new table is the old one, so the callback is found; the heap is fresh.
    assert_eq!(reply[..2], [b'R', 1]);
    assert_eq!(
        (bench.count(caller), bench.status(caller).version),
        (0, version + 3)
    );
}

#[test]
fn a_halted_subnet_runs_nothing_and_then_goes_on() {
    let (mut bench, caller, _) = with(Rule::new(
        Site::Round,
        1,
        Fault::HaltSubnet {
            subnet: 0,
            rounds: 3,
        },
    ));
    let id = bench
        .0
        .submit(Ingress {
            sender: OWNER,
            sender_info: None,
            canister: caller,
            method: "bump".into(),
            arg: vec![],
            effective: None,
        })
        .unwrap();
    for _ in 0..3 {
        bench.0.tick();
        assert_eq!(bench.0.ingress_status(&id), Some(None));
    }
    bench.0.tick();
    assert!(matches!(bench.0.ingress_status(&id), Some(Some(Ok(_)))));
}

#[test]
fn delays_never_reorder_what_two_canisters_say_to_each_other() {
    let (mut bench, caller, callee) = with(Rule::new(Site::Request, 1, Fault::Delay { rounds: 4 }));
    let calls: Vec<_> = [1, 2, 3]
        .into_iter()
        .map(|byte| {
            bench
                .0
                .submit(Ingress {
                    sender: OWNER,
                    sender_info: None,
                    canister: caller,
                    method: "call".into(),
                    arg: forward(callee, 0, 0, "keep", &[byte]),
                    effective: None,
                })
                .unwrap()
        })
        .collect();
    for id in calls {
        bench.0.await_ingress(&id).unwrap().unwrap();
    }
    assert_eq!(bench.0.query(OWNER, callee, "kept", vec![]).unwrap(), [3]);
}

#[test]
fn a_plan_that_cannot_be_followed_is_refused() {
    let mut bench = Bench::new();
    let wrong = Plan {
        rules: vec![Rule::new(Site::Round, 1, Fault::Reject)],
        seeded: None,
    };
    assert_eq!(
        bench.0.set_faults(wrong),
        Err(PlanError::Site(Fault::Reject, Site::Round))
    );
    let rounds = 1 << 40;
    let long = Plan {
        rules: vec![Rule::new(Site::Answer, 1, Fault::Delay { rounds })],
        seeded: None,
    };
    assert_eq!(bench.0.set_faults(long), Err(PlanError::Rounds { rounds }));
}

/// Runs the workload under a plan; the digest at its end, and the log.
fn under(plan: Plan) -> ([u8; 32], Vec<openstorage_localnet::network::Decision>) {
    let mut bench = Bench::paid();
    let canisters = canisters(&mut bench);
    bench.0.set_faults(plan).unwrap();
    for input in inputs(9, &canisters, bench.0.time_ns()) {
        let tick = input == Input::Tick;
        bench.0.apply(input);
        if tick {
            balanced(&bench.0);
        }
    }
    (bench.0.digest(), bench.0.fault_log().to_vec())
}

#[test]
fn a_run_is_repeated_from_its_seed_and_from_its_log() {
    let seeded = Plan {
        rules: vec![],
        seeded: Some(Seeded {
            seed: 4,
            per_million: 120_000,
            faults: vec![
                Fault::Reject,
                Fault::TimeOutBefore,
                Fault::Lose,
                Fault::Delay { rounds: 3 },
                Fault::Trap { instructions: 400 },
                Fault::NoGrowth,
                Fault::QueueFull,
                Fault::DrainCycles {
                    leave: 90_000_000_000_000,
                },
                Fault::TimeOutAfter,
                Fault::StopCaller,
                Fault::UpgradeCaller,
                Fault::HaltSubnet {
                    subnet: 1,
                    rounds: 4,
                },
                Fault::Restart,
            ],
        }),
    };
    let (digest, log) = under(seeded.clone());
    let kinds: std::collections::BTreeSet<_> = log
        .iter()
        .map(|decision| {
            format!("{:?}", decision.fault)
                .split(' ')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert!(
        log.len() > 20 && kinds.len() > 8,
        "{} of {kinds:?}",
        log.len()
    );
    assert_eq!(under(seeded), (digest, log.clone()));
    assert_eq!(under(Plan::replay(&log)), (digest, log));
    assert_ne!(under(Plan::default()).0, digest);
}

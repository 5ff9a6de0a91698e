//! What canisters pay, to the cycle.

use candid::Nat;
use ic_management_canister_types::{CanisterIdRecord, CanisterSettings, UpdateSettingsArgs};
use openstorage_localnet::fees::Fees;
use pocket_ic::ErrorCode;

use crate::bench::{Bench, CYCLES, OWNER, forward};

const DAY_NS: u64 = 86_400_000_000_000;

fn balanced(bench: &Bench) {
    let money = bench.0.money();
    assert_eq!(
        money.minted,
        money.burned + money.balances + money.in_flight,
        "{money:?}"
    );
}

#[test]
fn an_update_costs_its_bytes_its_base_and_its_instructions() {
    let fees = Fees::default();
    let mut bench = Bench::paid();
    let id = bench.canister(0);
    bench.0.keep_accounts(10);
    let mut costs = vec![];
    for _ in 0..3 {
        let before = bench.0.cycles(&id).unwrap();
        bench.call(id, "bump", &[7; 100]).unwrap();
        costs.push(before - bench.0.cycles(&id).unwrap());
    }
    let accounts = bench.0.accounts(0, 10).accounts;
    let account = accounts.last().unwrap();
    assert_eq!(account.bytes_in, 104);
    assert_eq!(
        costs[2],
        fees.ingress(104) + fees.execution(account.usage.instructions)
    );
    // To the instruction the same, each time.
    assert_eq!(costs[1], costs[2]);
    assert_eq!(accounts[1].usage, accounts[2].usage);
    balanced(&bench);
}

#[test]
fn a_call_costs_both_ways_both_executions_and_nothing_else() {
    let fees = Fees::default();
    for subnet in [0, 1] {
        let mut bench = Bench::paid();
        let (caller, callee) = (bench.canister(0), bench.canister(subnet));
        let (before, before_callee) = (bench.0.cycles(&caller), bench.0.cycles(&callee));
        bench.0.keep_accounts(10);
        let arg = forward(callee, 0, 500, "accept", &200u32.to_le_bytes());
        bench.call(caller, "call", &arg).unwrap();
        let accounts = bench.0.accounts(0, 10).accounts;
        let of = |index: usize| fees.execution(accounts[index].usage.instructions);
        assert_eq!(accounts.len(), 3);
        assert_eq!(
            before.unwrap() - bench.0.cycles(&caller).unwrap(),
            fees.ingress(4 + arg.len() as u64)
                + of(0)
                + fees.request(6 + 4)
                + fees.response(1)
                + of(2)
                + 200
        );
        assert_eq!(
            before_callee.unwrap() + 200 - of(1),
            bench.0.cycles(&callee).unwrap()
        );
        balanced(&bench);
    }
}

#[test]
fn who_cannot_prepay_a_call_makes_none() {
    let mut bench = Bench::paid();
    let (caller, callee) = (bench.canister(0), bench.canister(0));
    // Enough to run a message (40.005 B and what is frozen), not enough for a call on top of that.
    drain(&mut bench, caller, 45_000_000_000);
    let arg = forward(callee, 0, 0, "bump", &[]);
    assert_eq!(bench.call(caller, "call", &arg).unwrap(), b"F");
    assert_eq!(bench.count(callee), 0);
    balanced(&bench);
}

#[test]
fn a_frozen_canister_refuses_updates_and_queries_until_it_is_topped_up() {
    let mut bench = Bench::paid();
    let id = bench.canister(0);
    drain(&mut bench, id, 30_000_000_000);
    let out = |reject: openstorage_localnet::network::Reject| {
        assert_eq!(reject.error_code, ErrorCode::CanisterOutOfCycles);
        reject.message
    };
    let message = out(bench.call(id, "bump", &[]).unwrap_err());
    assert!(message.contains("please top up"), "{message}");
    assert_eq!(bench.count(id), 0);
    // A longer threshold than the balance can bear: not even queries.
    let freeze = |seconds: u64| UpdateSettingsArgs {
        canister_id: id,
        settings: CanisterSettings {
            freezing_threshold: Some(Nat::from(seconds)),
            ..Default::default()
        },
        sender_canister_version: None,
    };
    bench.manage("update_settings", &freeze(1 << 40)).unwrap();
    let message = out(bench.0.query(OWNER, id, "count", vec![]).unwrap_err());
    assert!(message.contains("frozen"), "{message}");
    bench.manage("update_settings", &freeze(0)).unwrap();
    assert_eq!(bench.count(id), 0);
    bench.0.add_cycles(&id, CYCLES).unwrap();
    assert_eq!(bench.call(id, "bump", &[]).unwrap(), [1]);
    balanced(&bench);
}

#[test]
fn storage_is_paid_by_time_and_costs_the_code_when_nothing_is_left() {
    let mut bench = Bench::paid();
    let (rich, poor) = (bench.canister(0), bench.canister(0));
    drain(&mut bench, poor, 1_000_000);
    let status = bench.status(rich);
    let idle = u128::try_from(status.idle_cycles_burned_per_day.0).unwrap();
    let bytes = u64::try_from(status.memory_size.0).unwrap();
    assert!(bytes > 40 * 65_536);
    assert_eq!(idle, Fees::default().idle_per_day(bytes, 0));
    bench.0.tick();
    let before = bench.0.cycles(&rich).unwrap();
    bench.0.set_time(bench.0.time_ns() + 100 * DAY_NS).unwrap();
    bench.0.tick();
    let paid = before - bench.0.cycles(&rich).unwrap();
    // To the second: a round may have begun one.
    assert!(
        paid.abs_diff(100 * idle) <= 2 * idle / 86_400 + 100,
        "{paid} for 100 times {idle}"
    );
    assert!(bench.status(poor).module_hash.is_none());
    assert_eq!(bench.0.cycles(&poor), Some(0));
    assert!(bench.status(rich).module_hash.is_some());
    balanced(&bench);
}

#[test]
fn what_is_burned_or_deleted_is_gone_and_accounted_for() {
    let mut bench = Bench::paid();
    let id = bench.canister(0);
    let burned = bench.0.money().burned;
    bench.call(id, "burn", &1_000_000u32.to_le_bytes()).unwrap();
    assert!(bench.0.money().burned >= burned + 1_000_000);
    balanced(&bench);
    let record = CanisterIdRecord { canister_id: id };
    bench.manage("stop_canister", &record).unwrap();
    bench.manage("delete_canister", &record).unwrap();
    let money = bench.0.money();
    assert_eq!((money.balances, money.burned), (0, CYCLES));
}

/// Leaves the canister with so many cycles.
pub fn drain(bench: &mut Bench, canister: candid::Principal, leave: u128) {
    use openstorage_localnet::network::{Fault, Plan, Rule, Site};
    let rule = Rule {
        canister: Some(canister),
        ..Rule::new(Site::Execution, 1, Fault::DrainCycles { leave })
    };
    let rules = vec![rule];
    bench
        .0
        .set_faults(Plan {
            rules,
            seeded: None,
        })
        .unwrap();
    // Whether it can still run is not asked here.
    bench.call(canister, "burn", &0u32.to_le_bytes()).ok();
    bench.0.set_faults(Plan::default()).unwrap();
}

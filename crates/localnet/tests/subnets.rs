//! What is of a subnet and not of one canister: its admins, its figures, its nodes' history.

mod pic;

use std::time::Duration;

use candid::{CandidType, Decode, Encode, Nat, Principal};
use ic_management_canister_types::{
    CanisterIdRecord, CanisterStatusResult, ListCanistersResult, NodeMetricsHistoryArgs,
    NodeMetricsHistoryRecord, SubnetMetricsArgs, SubnetMetricsResult,
};
use openstorage_universal::{Call, Program};
use pic::*;
use pocket_ic::{
    ErrorCode, PocketIc, PocketIcBuilder, RejectResponse,
    common::rest::{
        CanisterCyclesCostSchedule, ExtendedSubnetConfigSet, RawEffectivePrincipal, SubnetSpec,
    },
};

const ADMIN: Principal = Principal::from_slice(&[7, 7, 7]);
const USER: Principal = Principal::anonymous();
const MANAGEMENT: Principal = Principal::management_canister();

/// Two application subnets; the first one has an admin, and asks for no cycles.
fn administered() -> PocketIc {
    let first = SubnetSpec::default()
        .with_subnet_admins(vec![ADMIN])
        .with_cost_schedule(CanisterCyclesCostSchedule::Free);
    let config = ExtendedSubnetConfigSet {
        application: vec![first, SubnetSpec::default()],
        ..Default::default()
    };
    PocketIcBuilder::new_with_config(config)
        .with_server_binary(env!("CARGO_BIN_EXE_pocket-ic-server").into())
        .build()
}

/// The subnets, in the order in which they were asked for.
fn subnets(pic: &PocketIc) -> [Principal; 2] {
    let configs = pic.topology().subnet_configs;
    let free =
        |subnet: &Principal| configs[subnet].cost_schedule == CanisterCyclesCostSchedule::Free;
    let mut subnets: Vec<_> = configs.keys().copied().collect();
    subnets.sort_by_key(|subnet| !free(subnet));
    subnets.try_into().unwrap()
}

fn manage(
    pic: &PocketIc,
    sender: Principal,
    on: Principal,
    method: &str,
    arg: &impl CandidType,
) -> Result<Vec<u8>, RejectResponse> {
    let effective = RawEffectivePrincipal::SubnetId(on.as_slice().to_vec());
    let arg = Encode!(arg).unwrap();
    let id =
        pic.submit_call_with_effective_principal(MANAGEMENT, effective, sender, method, arg)?;
    pic.await_call(id)
}

#[test]
fn admins_do_what_controllers_may_and_nothing_else() {
    let pic = administered();
    let [subnet, other] = subnets(&pic);
    let config = &pic.topology().subnet_configs[&subnet];
    assert_eq!(config.subnet_admins, Some(vec![ADMIN.into()]));
    // Of canisters, nobody else may create one from outside.
    let nothing = &Nothing {};
    let create = |who, on| manage(&pic, who, on, "create_canister", nothing);
    let made = Decode!(&create(ADMIN, subnet).unwrap(), CanisterIdRecord).unwrap();
    assert_eq!(pic.get_controllers(made.canister_id), [ADMIN]);
    assert_eq!(pic.get_subnet(made.canister_id), Some(subnet));
    failed(create(USER, subnet), ErrorCode::CanisterRejectedMessage);
    failed(create(ADMIN, other), ErrorCode::CanisterRejectedMessage);

    let canister_id = pic.create_canister_on_subnet(None, None, subnet);
    let record = CanisterIdRecord { canister_id };
    let ask = |method| manage(&pic, ADMIN, canister_id, method, &record);
    let status = ok(ask("canister_status"));
    Decode!(&status, CanisterStatusResult).unwrap();
    ok(ask("canister_metrics"));
    failed(ask("stored_chunks"), ErrorCode::CanisterInvalidController);
    for method in [
        "uninstall_code",
        "start_canister",
        "stop_canister",
        "delete_canister",
    ] {
        ok(ask(method));
    }
    assert!(!pic.canister_exists(canister_id));
    // Not on another subnet.
    let canister_id = pic.create_canister_on_subnet(None, None, other);
    let record = CanisterIdRecord { canister_id };
    let stopped = manage(&pic, ADMIN, canister_id, "stop_canister", &record);
    failed(stopped, ErrorCode::CanisterInvalidController);
}

#[derive(CandidType)]
struct Nothing {}

#[test]
fn admins_list_the_canisters_of_their_subnet() {
    let pic = administered();
    let [subnet, other] = subnets(&pic);
    let canisters: Vec<_> = (0..5)
        .map(|_| pic.create_canister_on_subnet(None, None, subnet))
        .collect();
    pic.create_canister_on_subnet(None, None, other);
    pic.stop_canister(canisters[2], None).unwrap();
    pic.delete_canister(canisters[2], None).unwrap();
    let arg = || Encode!(&()).unwrap();
    let effective = |on: Principal| RawEffectivePrincipal::SubnetId(on.as_slice().to_vec());
    let list = |who, on| {
        let list = "list_canisters";
        pic.query_call_with_effective_principal(MANAGEMENT, effective(on), who, list, arg())
    };
    let ranges = |bytes: Vec<u8>| {
        let listed = Decode!(&bytes, ListCanistersResult).unwrap();
        let pairs = listed.canisters.iter();
        pairs
            .map(|range| (range.start, range.end))
            .collect::<Vec<_>>()
    };
    let all = [(canisters[0], canisters[1]), (canisters[3], canisters[4])];
    assert_eq!(ranges(list(ADMIN, subnet).unwrap()), all);
    list(USER, subnet).unwrap_err();
    list(ADMIN, other).unwrap_err();
    // It is a query and nothing else.
    let called = manage(&pic, ADMIN, subnet, "list_canisters", &());
    failed(called, ErrorCode::CanisterRejectedMessage);
}

/// What a canister learns from the management canister.
fn asked(pic: &PocketIc, by: Principal, method: &str, arg: Vec<u8>) -> Vec<u8> {
    let call = Call::new(MANAGEMENT, method).payload(arg);
    ok(update(pic, by, Program::new().call(call)))
}

#[test]
fn a_subnet_tells_what_it_did() {
    let pic = network(2);
    let canister = install_on(&pic, 0);
    let far = install_on(&pic, 1);
    let subnet_id = pic.get_subnet(canister).unwrap();
    let metrics = |of| {
        let arg = Encode!(&SubnetMetricsArgs { subnet_id: of }).unwrap();
        let bytes = asked(&pic, canister, "subnet_metrics", arg);
        Decode!(&bytes, SubnetMetricsResult).unwrap()
    };
    let first = metrics(subnet_id);
    assert_eq!(first.num_canisters, Nat::from(1_u8));
    ok(update(
        &pic,
        canister,
        Program::new().spin_until(3_000_000_000).reply(b""),
    ));
    let then = metrics(subnet_id);
    assert!(then.block_height > first.block_height);
    assert!(then.update_transactions_total > first.update_transactions_total);
    assert!(then.consumed_cycles_total > first.consumed_cycles_total);
    let spun = then.million_round_instructions_total - first.million_round_instructions_total;
    assert!(
        (Nat::from(3_000_u32)..Nat::from(3_100_u32)).contains(&spun),
        "{spun}"
    );
    assert!(then.canister_state_bytes > 0_u8);
    // Asking for another subnet's is work for one's own.
    let elsewhere = metrics(pic.get_subnet(far).unwrap());
    assert!(elsewhere.million_round_instructions_total < 3_000_u32);
}

#[test]
fn nodes_have_a_history_of_one_sample_a_day() {
    const DAY: Duration = Duration::from_secs(86_400);
    let pic = network(1);
    let canister = install(&pic);
    let subnet_id = pic.get_subnet(canister).unwrap();
    let history = |start_at_timestamp_nanos| {
        let args = NodeMetricsHistoryArgs {
            subnet_id,
            start_at_timestamp_nanos,
        };
        let arg = Encode!(&args).unwrap();
        let bytes = asked(&pic, canister, "node_metrics_history", arg);
        Decode!(&bytes, Vec<NodeMetricsHistoryRecord>).unwrap()
    };
    assert_eq!(history(0).len(), 1);
    pic.add_cycles(canister, 1_000 * TRILLION);
    for _ in 0..70 {
        pic.advance_time(DAY);
        pic.tick();
        pic.tick();
    }
    let all = history(0);
    assert_eq!(all.len(), 60);
    let days = all.windows(2).map(|pair| {
        let [before, after] = pair else {
            unreachable!()
        };
        let day = |record: &NodeMetricsHistoryRecord| record.timestamp_nanos / 86_400_000_000_000;
        let blocks = |record: &NodeMetricsHistoryRecord| {
            let [node] = &record.node_metrics[..] else {
                panic!("{record:?}")
            };
            assert_eq!(node.num_block_failures_total, 0);
            node.num_blocks_proposed_total
        };
        assert!(blocks(after) > blocks(before));
        day(after) - day(before)
    });
    assert!(days.collect::<Vec<_>>().iter().all(|days| *days == 1));
    assert_eq!(history(all[57].timestamp_nanos), all[57..]);
    assert!(history(u64::MAX).is_empty());
}

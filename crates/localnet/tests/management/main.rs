//! What the management canister keeps within bounds and what it tells, seen by the official client.

mod memory;
#[path = "../pic/mod.rs"]
mod pic;
mod snapshots;

use candid::{CandidType, Decode, Encode, Nat, Principal};
use ic_management_canister_types::{
    CanisterIdRecord, CanisterInfoArgs, CanisterInfoResult, CanisterInstallMode,
    CanisterMetadataArgs, CanisterMetadataResult, CanisterMetricsResult, CanisterSettings,
    CanisterStatusResult, ChangeDetails, ChangeOrigin, ChunkHash, EnvironmentVariable,
    InstallChunkedCodeArgs, InstallCodeArgs, LogVisibility, StatusVisibility, SubnetInfoArgs,
    SubnetInfoResult, UpdateSettingsArgs, UpgradeFlags, UploadChunkArgs, WasmMemoryPersistence,
};
use openstorage_universal::{Call, Op, Program, WASM};
use pic::*;
use pocket_ic::{
    ErrorCode, PocketIc, RejectCode, RejectResponse, common::rest::RawEffectivePrincipal,
};

const USER: Principal = Principal::anonymous();
const STRANGER: Principal = Principal::from_slice(&[9, 9, 9]);
const PAGE: u64 = 65_536;

/// A call of the management canister from outside.
fn manage<T: CandidType>(
    pic: &PocketIc,
    sender: Principal,
    canister: Principal,
    method: &str,
    arg: &T,
) -> Result<Vec<u8>, RejectResponse> {
    let effective = RawEffectivePrincipal::CanisterId(canister.as_slice().to_vec());
    let management = Principal::management_canister();
    let arg = Encode!(arg).unwrap();
    let id =
        pic.submit_call_with_effective_principal(management, effective, sender, method, arg)?;
    pic.await_call(id)
}

fn set(
    pic: &PocketIc,
    canister_id: Principal,
    settings: CanisterSettings,
) -> Result<(), RejectResponse> {
    let args = UpdateSettingsArgs {
        canister_id,
        settings,
        sender_canister_version: None,
    };
    manage(pic, USER, canister_id, "update_settings", &args).map(drop)
}

#[track_caller]
fn refused(result: Result<(), RejectResponse>, code: ErrorCode) -> String {
    failed(result.map(|()| vec![]), code)
}

fn nat(figure: u64) -> Option<Nat> {
    Some(Nat::from(figure))
}

/// A number that the universal canister pushes with this operation.
fn ask(pic: &PocketIc, canister: Principal, op: Op) -> u64 {
    number(&ok(query(
        pic,
        canister,
        Program::new().op(op).append().answer(),
    )))
}

#[test]
fn settings_are_bounded() {
    let pic = network(1);
    let canister = install(&pic);
    let wrong =
        |settings: CanisterSettings, code: ErrorCode| refused(set(&pic, canister, settings), code);
    let large = |figure: u128| Some(Nat::from(figure));
    let contract = ErrorCode::CanisterContractViolation;
    let defaults = CanisterSettings::default;
    for settings in [
        CanisterSettings {
            compute_allocation: nat(101),
            ..defaults()
        },
        CanisterSettings {
            memory_allocation: large(1 << 64),
            ..defaults()
        },
        CanisterSettings {
            freezing_threshold: large(1 << 64),
            ..defaults()
        },
        CanisterSettings {
            wasm_memory_limit: nat((1 << 48) + 1),
            ..defaults()
        },
        CanisterSettings {
            wasm_memory_threshold: nat((1 << 48) + 1),
            ..defaults()
        },
        CanisterSettings {
            log_memory_limit: nat((2 << 20) + 1),
            ..defaults()
        },
        CanisterSettings {
            reserved_cycles_limit: Some(large(u128::MAX).unwrap() + 1u8),
            ..defaults()
        },
    ] {
        let text = wrong(settings, contract);
        assert!(text.contains("range"), "{text}");
    }
    let principals = |count: u8| {
        (0..count)
            .map(|byte| Principal::from_slice(&[byte]))
            .collect()
    };
    let payload = ErrorCode::InvalidManagementPayload;
    let controllers = Some(principals(11));
    wrong(
        CanisterSettings {
            controllers,
            ..defaults()
        },
        payload,
    );
    let log_visibility = Some(LogVisibility::AllowedViewers(principals(11)));
    wrong(
        CanisterSettings {
            log_visibility,
            ..defaults()
        },
        payload,
    );

    let variable = |name: &str, value: &str| EnvironmentVariable {
        name: name.into(),
        value: value.into(),
    };
    let environment = |variables: Vec<EnvironmentVariable>| CanisterSettings {
        environment_variables: Some(variables),
        ..Default::default()
    };
    let many = |count: usize| {
        (0..count)
            .map(|index| variable(&format!("V{index}"), ""))
            .collect()
    };
    for variables in [
        many(21),
        vec![variable(&"n".repeat(129), "")],
        vec![variable("n", &"v".repeat(129))],
        vec![variable("n", "a"), variable("n", "b")],
    ] {
        wrong(environment(variables), payload);
    }
    assert_eq!(
        ask(&pic, canister, Op::EnvironmentCount),
        0,
        "nothing was set in part"
    );
    set(&pic, canister, environment(many(20))).unwrap();
    assert_eq!(ask(&pic, canister, Op::EnvironmentCount), 20);
    let long = vec![variable(&"n".repeat(128), &"v".repeat(128))];
    set(&pic, canister, environment(long)).unwrap();
    let value = Program::new()
        .push("n".repeat(128))
        .op(Op::EnvironmentValue)
        .append()
        .answer();
    assert_eq!(ok(query(&pic, canister, value)), "v".repeat(128).as_bytes());
}

#[test]
fn a_subnet_counts_what_it_executes_and_what_is_paid_for_it() {
    let pic = network(2);
    let (a, b, far) = (
        install_on(&pic, 0),
        install_on(&pic, 0),
        install_on(&pic, 1),
    );
    let subnets = pic.topology().get_app_subnets();
    let figures = |index: usize| {
        let metrics = pic.get_subnet_metrics(subnets[index]).unwrap();
        (
            metrics.consumed_cycles_total,
            metrics.update_transactions_total,
        )
    };
    let balances = |ids: &[Principal]| ids.iter().map(|id| pic.cycle_balance(*id)).sum::<u128>();
    let metrics = pic.get_subnet_metrics(subnets[0]).unwrap();
    assert_eq!(metrics.num_canisters, 2);
    let memory = pic.canister_status(a, None).unwrap().memory_metrics;
    let bytes = memory.wasm_memory_size + memory.stable_memory_size + memory.wasm_binary_size;
    assert_eq!(Nat::from(metrics.canister_state_bytes), bytes * 2_u8);

    let before = [figures(0), figures(1)];
    let (near_before, far_before) = (balances(&[a, b]), balances(&[far]));
    let answer = || Program::new().reply(b"");
    // One message; then one, its call, and the callback; then two executions here and one there.
    ok(update(&pic, a, answer()));
    ok(update(
        &pic,
        a,
        Program::new().call(Call::new(b, "update").arg(answer())),
    ));
    ok(update(
        &pic,
        a,
        Program::new().call(Call::new(far, "update").arg(answer())),
    ));
    let after = [figures(0), figures(1)];
    assert_eq!(after[0].1 - before[0].1, 1 + 3 + 2);
    assert_eq!(after[1].1 - before[1].1, 1);
    assert_eq!(after[0].0 - before[0].0, near_before - balances(&[a, b]));
    assert_eq!(after[1].0 - before[1].0, far_before - balances(&[far]));

    // What a canister leaves behind is consumed, too; the management canister's work is counted.
    let (before, left) = (figures(1), pic.cycle_balance(far));
    pic.stop_canister(far, None).unwrap();
    pic.delete_canister(far, None).unwrap();
    let after = figures(1);
    assert_eq!((after.0 - before.0, after.1 - before.1), (left, 2));
    assert_eq!(pic.get_subnet_metrics(subnets[1]).unwrap().num_canisters, 0);
}

#[test]
fn a_canister_s_cycles_are_told_by_use() {
    let pic = network(1);
    let canister = install(&pic);
    let consumed = || {
        let record = CanisterIdRecord {
            canister_id: canister,
        };
        let bytes = ok(manage(&pic, USER, canister, "canister_metrics", &record));
        Decode!(&bytes, CanisterMetricsResult)
            .unwrap()
            .cycles_consumed
    };
    let figure = |nat: &Nat| u128::try_from(&nat.0).unwrap();
    let (before, balance) = (consumed(), pic.cycle_balance(canister));
    let burn = Program::new().amount(1_000_000).op(Op::Burn).op(Op::Drop);
    let own = Call::new(canister, "query").arg(Program::new().reply(b""));
    ok(update(&pic, canister, burn.call(own)));
    let spent = balance - pic.cycle_balance(canister);
    let after = consumed();
    assert_eq!(
        figure(&after.burned_cycles) - figure(&before.burned_cycles),
        1_000_000
    );
    let parts = |it: &ic_management_canister_types::CyclesConsumed| {
        [
            &it.memory,
            &it.ingress_induction,
            &it.instructions,
            &it.request_and_response_transmission,
            &it.burned_cycles,
        ]
        .map(figure)
    };
    let (first, last) = (parts(&before), parts(&after));
    assert!(
        first
            .iter()
            .zip(&last)
            .skip(1)
            .all(|(first, last)| first < last),
        "{before:?} {after:?}"
    );
    // Asking costs its message.
    let asking = 2_000 * ("canister_metrics".len() as u128 + 19) + 1_200_000;
    let total = last.iter().sum::<u128>() - first.iter().sum::<u128>();
    assert!(
        total >= spent && total <= spent + 2 * asking,
        "{total} {spent}"
    );
    let record = CanisterIdRecord {
        canister_id: canister,
    };
    failed(
        manage(&pic, STRANGER, canister, "canister_metrics", &record),
        ErrorCode::CanisterInvalidController,
    );
}

#[test]
fn logs_are_bounded_and_shown_to_those_who_may_see_them() {
    let pic = network(1);
    let canister = install(&pic);
    let logs = |sender: Principal| pic.fetch_canister_logs(canister, sender);
    for line in 0..100 {
        ok(update(
            &pic,
            canister,
            Program::new().print(&format!("{line:>100}")).reply(b""),
        ));
    }
    let lines = logs(USER).unwrap();
    assert!(lines.iter().map(|line| line.content.len()).sum::<usize>() <= 4_096);
    assert!(lines.len() > 30);
    assert_eq!(lines.last().unwrap().idx, 99);
    // A trap of Wasm itself is told, too; what a query prints is not.
    failed(
        update(&pic, canister, Program::new().op(Op::Unreachable)),
        ErrorCode::CanisterTrapped,
    );
    ok(query(
        &pic,
        canister,
        Program::new().print("query").reply(b""),
    ));
    let lines = logs(USER).unwrap();
    let text = String::from_utf8_lossy(&lines.last().unwrap().content).into_owned();
    assert!(text.contains("[TRAP]: unreachable"), "{text}");

    assert_eq!(
        logs(STRANGER).unwrap_err().reject_code,
        RejectCode::CanisterReject
    );
    for visibility in [
        LogVisibility::AllowedViewers(vec![STRANGER]),
        LogVisibility::Public,
    ] {
        let log_visibility = Some(visibility);
        set(
            &pic,
            canister,
            CanisterSettings {
                log_visibility,
                ..Default::default()
            },
        )
        .unwrap();
        assert!(!logs(STRANGER).unwrap().is_empty());
    }
    let less = CanisterSettings {
        log_memory_limit: nat(200),
        ..Default::default()
    };
    set(&pic, canister, less).unwrap();
    assert_eq!(logs(USER).unwrap().len(), 2);
    // Not in a block.
    let record = CanisterIdRecord {
        canister_id: canister,
    };
    failed(
        manage(&pic, USER, canister, "fetch_canister_logs", &record),
        ErrorCode::CanisterRejectedMessage,
    );
    // They go with the code, and their numbers do not begin again.
    pic.uninstall_canister(canister, None).unwrap();
    assert!(logs(USER).unwrap().is_empty());
    equip(&pic, canister, WASM);
    ok(update(
        &pic,
        canister,
        Program::new().print("again").reply(b""),
    ));
    assert_eq!(logs(USER).unwrap()[0].idx, 101);
}

#[test]
fn the_status_is_shown_to_those_who_may_see_it() {
    let pic = network(1);
    let canister = install(&pic);
    let status = || pic.canister_status(canister, Some(STRANGER));
    assert_eq!(
        status().unwrap_err().error_code,
        ErrorCode::CanisterStatusAccessDenied
    );
    for visibility in [
        StatusVisibility::AllowedViewers(vec![STRANGER]),
        StatusVisibility::Public,
    ] {
        let status_visibility = Some(visibility);
        set(
            &pic,
            canister,
            CanisterSettings {
                status_visibility,
                ..Default::default()
            },
        )
        .unwrap();
        assert!(status().is_ok());
    }
}

#[test]
fn calls_with_too_few_cycles_are_turned_away() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    let minimum_incoming_canister_call_cycles = nat(1_000);
    set(
        &pic,
        b,
        CanisterSettings {
            minimum_incoming_canister_call_cycles,
            ..Default::default()
        },
    )
    .unwrap();
    let code = || {
        Program::new()
            .op(Op::RejectCode)
            .append()
            .op(Op::Refunded)
            .append()
            .answer()
    };
    let call = |cycles: u128| {
        let call = Call::new(b, "update")
            .arg(Program::new().reply(b"in"))
            .cycles(cycles)
            .on_reject(code());
        ok(update(&pic, a, Program::new().call(call)))
    };
    let before = pic.cycle_balance(b);
    let answer = call(999);
    assert_eq!(number(&answer[..8]), RejectCode::CanisterError as u64);
    assert_eq!(cycles(&answer[8..]), 999);
    assert_eq!(pic.cycle_balance(b), before, "it costs the callee nothing");
    assert_eq!(call(1_000), b"in");
    // Not those from outside, nor its own.
    ok(update(&pic, b, Program::new().reply(b"")));
    let own = Call::new(b, "update").arg(Program::new().reply(b"own"));
    assert_eq!(ok(update(&pic, b, Program::new().call(own))), b"own");
}

/// A canister's call of the management canister; what it answers.
fn asked(
    pic: &PocketIc,
    by: Principal,
    method: &str,
    arg: Vec<u8>,
) -> Result<Vec<u8>, RejectResponse> {
    let call = Call::new(Principal::management_canister(), method).payload(arg);
    update(pic, by, Program::new().call(call))
}

#[test]
fn a_canister_s_history_says_who_changed_it() {
    let pic = network(1);
    let (canister, other) = (install(&pic), install(&pic));
    pic.set_controllers(canister, None, vec![USER, other])
        .unwrap();
    let said = version(&pic, other);
    let args = UpdateSettingsArgs {
        canister_id: canister,
        settings: CanisterSettings {
            controllers: Some(vec![USER]),
            ..Default::default()
        },
        sender_canister_version: Some(said),
    };
    ok(asked(
        &pic,
        other,
        "update_settings",
        Encode!(&args).unwrap(),
    ));
    pic.uninstall_canister(canister, None).unwrap();
    let info = |wanted: Option<u64>| {
        let args = CanisterInfoArgs {
            canister_id: canister,
            num_requested_changes: wanted,
        };
        let bytes = ok(asked(&pic, other, "canister_info", Encode!(&args).unwrap()));
        Decode!(&bytes, CanisterInfoResult).unwrap()
    };
    let all = info(Some(20));
    assert_eq!((all.total_num_changes, all.module_hash), (5, None));
    let kinds: Vec<_> = all
        .recent_changes
        .iter()
        .map(|change| &change.details)
        .collect();
    assert!(
        matches!(
            kinds[..],
            [
                Some(ChangeDetails::Creation(_)),
                Some(ChangeDetails::CodeDeployment(_)),
                Some(ChangeDetails::ControllersChange(_)),
                Some(ChangeDetails::ControllersChange(_)),
                Some(ChangeDetails::CodeUninstall),
            ]
        ),
        "{kinds:?}"
    );
    match &all.recent_changes[3].origin {
        ChangeOrigin::FromCanister(by) => {
            assert_eq!((by.canister_id, by.canister_version), (other, Some(said)));
        }
        by => panic!("{by:?}"),
    }
    let versions: Vec<_> = all
        .recent_changes
        .iter()
        .map(|change| change.canister_version)
        .collect();
    assert!(versions.is_sorted(), "{versions:?}");
    assert_eq!(info(Some(2)).recent_changes, all.recent_changes[3..]);
    assert_eq!(info(None).recent_changes, []);
    // Not for users.
    let args = CanisterInfoArgs {
        canister_id: canister,
        num_requested_changes: None,
    };
    manage(&pic, USER, canister, "canister_info", &args).unwrap_err();
}

/// A few bytes may stand for more values than anybody can look at.
#[test]
fn an_argument_that_never_ends_is_refused() {
    let pic = network(1);
    let canister = install(&pic);
    // A field `1` (labels sort by number, so it comes first): 2^60 nulls, in nine bytes. Then the id.
    let hash = candid::types::Label::Named("canister_id".into()).get_id();
    let mut bomb = b"DIDL\x02\x6c\x02\x01\x01".to_vec();
    leb128::write::unsigned(&mut bomb, hash.into()).unwrap();
    bomb.extend(b"\x68\x6d\x7f\x01\x00");
    leb128::write::unsigned(&mut bomb, 1 << 60).unwrap();
    bomb.push(1);
    bomb.push(canister.as_slice().len() as u8);
    bomb.extend(canister.as_slice());
    let said = pic.update_call(
        Principal::management_canister(),
        USER,
        "canister_status",
        bomb.clone(),
    );
    failed(said, ErrorCode::InvalidManagementPayload);
    asked(&pic, canister, "start_canister", bomb).unwrap_err();
    assert!(pic.canister_status(canister, None).is_ok());
}

/// There are never more cycles than can be counted, however many are asked for.
#[test]
fn cycles_add_up_in_the_end() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    pic.add_cycles(a, u128::MAX);
    pic.add_cycles(b, u128::MAX);
    let (half, before) = (pic.cycle_balance(a) / 2, pic.cycle_balance(b));
    let take = Program::new().accept_cycles(u128::MAX).reply(b"");
    let give = Call::new(b, "update").cycles(half).arg(take);
    ok(update(&pic, a, Program::new().call(give)));
    assert!(pic.cycle_balance(b) > half && before < half);
    assert!(
        pic.cycle_balance(a)
            .checked_add(pic.cycle_balance(b))
            .is_some()
    );
}

/// What canisters may ask of subnets.
#[test]
fn a_canister_asks_what_a_subnet_runs() {
    let pic = network(2);
    let canister = install_on(&pic, 0);
    let info = |subnet_id| {
        let args = Encode!(&SubnetInfoArgs { subnet_id }).unwrap();
        asked(&pic, canister, "subnet_info", args)
    };
    for subnet in pic.topology().get_app_subnets() {
        let info = Decode!(&ok(info(subnet)), SubnetInfoResult).unwrap();
        assert!(!info.replica_version.is_empty());
    }
    failed(info(STRANGER), ErrorCode::CanisterRejectedMessage);
}

/// Composite queries may ask, too: of canisters of their own subnet.
#[test]
fn a_composite_query_asks_the_management_canister() {
    let pic = network(2);
    let (canister, far) = (install_on(&pic, 0), install_on(&pic, 1));
    let ask = |of: Principal| {
        let arg = Encode!(&CanisterIdRecord { canister_id: of }).unwrap();
        let call = Call::new(Principal::management_canister(), "canister_status").payload(arg);
        let program = Program::new().call(call);
        pic.query_call(canister, USER, "composite_query", program.bytes().to_vec())
    };
    let status = Decode!(&ok(ask(canister)), CanisterStatusResult).unwrap();
    assert!(status.module_hash.is_some());
    let controllers = vec![USER, canister];
    pic.set_controllers(far, None, controllers).unwrap();
    ask(far).unwrap_err();
}

#[test]
fn a_module_in_chunks_is_bounded_and_comes_from_its_subnet() {
    let pic = network(2);
    let (canister, far) = (install_on(&pic, 0), install_on(&pic, 1));
    let hash = |of: Principal| {
        let chunk = UploadChunkArgs {
            canister_id: of,
            chunk: vec![7; 1 << 20],
        };
        let bytes = ok(manage(&pic, USER, of, "upload_chunk", &chunk));
        Decode!(&bytes, ChunkHash).unwrap()
    };
    let install = |store: Principal, hashes: Vec<ChunkHash>| {
        let args = InstallChunkedCodeArgs {
            mode: CanisterInstallMode::Reinstall,
            target_canister: canister,
            store_canister: Some(store),
            chunk_hashes_list: hashes,
            wasm_module_hash: vec![0; 32],
            arg: vec![],
            sender_canister_version: None,
        };
        manage(&pic, USER, canister, "install_chunked_code", &args)
    };
    let near = vec![hash(canister); 101];
    let text = failed(install(canister, near), ErrorCode::InvalidManagementPayload);
    assert!(text.contains("more than 104857600 bytes"), "{text}");
    failed(install(far, vec![hash(far)]), ErrorCode::CanisterNotFound);
    // However small, a chunk is paid for as a whole one.
    let before = pic.canister_status(far, None).unwrap().memory_size;
    let chunk = UploadChunkArgs {
        canister_id: far,
        chunk: vec![1],
    };
    ok(manage(&pic, USER, far, "upload_chunk", &chunk));
    assert_eq!(
        pic.canister_status(far, None).unwrap().memory_size,
        before + (1u64 << 20)
    );
}

/// Whoever waits for the canister hears of it; what it waited for comes back as cycles and nothing else.
#[test]
fn a_canister_without_code_answers_its_callers_and_takes_no_answers() {
    let pic = network(2);
    let (canister, far) = (install_on(&pic, 0), install_on(&pic, 1));
    let call = Call::new(far, "update")
        .arg(Program::new().accept_cycles(100).reply(b"late"))
        .cycles(10 * TRILLION)
        .on_reply(keep("answered"));
    let arg = keep("asked ").call(call).bytes().to_vec();
    let id = pic.submit_call(canister, USER, "update", arg).unwrap();
    pic.tick();
    let waiting = pic.cycle_balance(canister);
    pic.uninstall_canister(canister, None).unwrap();
    let reject = pic.await_call(id).unwrap_err();
    assert_eq!(reject.reject_code, RejectCode::CanisterReject, "{reject:?}");
    // Other code takes its place before the answer comes.
    equip(&pic, canister, WASM);
    for _ in 0..5 {
        pic.tick();
    }
    assert_eq!(kept(&pic, canister), "");
    let back = pic.cycle_balance(canister) - waiting - 100 * TRILLION;
    assert!(back > 9 * TRILLION, "{back}");
}

#[test]
fn custom_sections_are_read_by_canisters() {
    let pic = network(1);
    let reader = install(&pic);
    let canister = pic.create_canister();
    let module = r#"(module
        (@custom "icp:public candid:service" "service : {}")
        (@custom "icp:private secret" "for controllers"))"#;
    let module = wat::parse_str(module).unwrap();
    pic.install_canister(canister, module, vec![], None);
    let args = |name: &str| CanisterMetadataArgs {
        canister_id: canister,
        name: name.into(),
    };
    let read = |name: &str| {
        let arg = Encode!(&args(name)).unwrap();
        let bytes = asked(&pic, reader, "canister_metadata", arg)?;
        Ok(Decode!(&bytes, CanisterMetadataResult).unwrap().value)
    };
    assert_eq!(ok(read("candid:service")), b"service : {}");
    read("secret").unwrap_err();
    read("nothing").unwrap_err();
    pic.set_controllers(canister, None, vec![USER, reader])
        .unwrap();
    assert_eq!(ok(read("secret")), b"for controllers");
    // Not for users.
    let args = args("candid:service");
    manage(&pic, USER, canister, "canister_metadata", &args).unwrap_err();
}

/// Only canisters may ask some things, only controllers others: from outside that is refused before it is a
/// message (interface specification, "API Request submission").
#[test]
fn what_somebody_may_not_ask_is_no_message() {
    let pic = network(1);
    let canister = install(&pic);
    let submit = |sender, method: &str, arg: Vec<u8>| {
        let effective = RawEffectivePrincipal::CanisterId(canister.as_slice().to_vec());
        let management = Principal::management_canister();
        pic.submit_call_with_effective_principal(management, effective, sender, method, arg)
    };
    let refused = |sender, method, arg: &[u8], code| {
        let reject = submit(sender, method, arg.to_vec()).unwrap_err();
        assert_eq!(
            (reject.error_code, reject.certified),
            (code, false),
            "{method}"
        );
    };
    let record = Encode!(&CanisterIdRecord {
        canister_id: canister
    })
    .unwrap();
    for method in [
        "raw_rand",
        "deposit_cycles",
        "canister_info",
        "create_canister",
    ] {
        refused(USER, method, &record, ErrorCode::CanisterRejectedMessage);
    }
    refused(USER, "nothing", &record, ErrorCode::CanisterMethodNotFound);
    let stop = "stop_canister";
    refused(
        STRANGER,
        stop,
        &record,
        ErrorCode::CanisterInvalidController,
    );
    refused(
        USER,
        stop,
        b"no candid",
        ErrorCode::InvalidManagementPayload,
    );
    let status = "canister_status";
    refused(
        STRANGER,
        status,
        &record,
        ErrorCode::CanisterStatusAccessDenied,
    );
    let nobody = Encode!(&CanisterIdRecord {
        canister_id: STRANGER
    });
    refused(USER, stop, &nobody.unwrap(), ErrorCode::CanisterNotFound);
    // Nothing of that was executed.
    submit(USER, stop, record).map(drop).unwrap();
}

/// A canister cannot name another version of itself than it has; a user may say what he wants.
#[test]
fn a_canister_names_its_own_version() {
    let pic = network(1);
    let canister = install(&pic);
    pic.set_controllers(canister, None, vec![USER, canister])
        .unwrap();
    let args = |said| UpdateSettingsArgs {
        canister_id: canister,
        settings: CanisterSettings::default(),
        sender_canister_version: Some(said),
    };
    let change = |said| {
        let arg = Encode!(&args(said)).unwrap();
        asked(&pic, canister, "update_settings", arg)
    };
    let is = version(&pic, canister);
    let text = failed(change(is + 1), ErrorCode::CanisterRejectedMessage);
    assert!(text.contains("IC0504"), "{text}");
    ok(change(version(&pic, canister)));
    ok(manage(&pic, USER, canister, "update_settings", &args(666)));
}

/// A module that replies with four bytes of its heap, of which the last is its own, and can set the first.
fn keeper(last: char, section: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module
            (import "ic0" "msg_reply" (func $reply))
            (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
            (memory 1)
            (global $last (mut i32) (i32.const {}))
            (data (i32.const 1) "{last}")
            (@custom "{section}" "")
            (func (export "canister_update set")
                (i32.store8 (i32.const 0) (i32.const 0x58))
                (drop (memory.grow (i32.const 1)))
                (i32.store8 (i32.const 70000) (i32.const 0x59))
                (global.set $last (i32.const 0x5a))
                (call $reply))
            (func (export "canister_query get")
                (call $append (i32.const 0) (i32.const 2))
                (i32.store8 (i32.const 2) (global.get $last))
                (call $append (i32.const 2) (i32.const 1))
                (call $append (i32.const 70000) (i32.const 1))
                (call $reply)))"#,
        last as u32
    ))
    .unwrap()
}

/// An upgrade keeps the heap where it is told to: globals begin anew, and segments stay unwritten.
#[test]
fn an_upgrade_keeps_the_heap_of_code_that_can_go_on_with_it() {
    let pic = network(1);
    let canister = install(&pic);
    let upgrade = |last, section, wasm_memory_persistence| {
        let flags = UpgradeFlags {
            skip_pre_upgrade: None,
            wasm_memory_persistence,
        };
        let args = InstallCodeArgs {
            mode: CanisterInstallMode::Upgrade(Some(flags)),
            canister_id: canister,
            wasm_module: keeper(last, section),
            arg: vec![],
            sender_canister_version: None,
        };
        manage(&pic, USER, canister, "install_code", &args)
    };
    let (can, cannot) = ("icp:private enhanced-orthogonal-persistence", "name2");
    let (keep, replace) = (
        Some(WasmMemoryPersistence::Keep),
        Some(WasmMemoryPersistence::Replace),
    );
    let get = || pic.query_call(canister, USER, "get", vec![]);
    ok(upgrade('a', can, None));
    get().unwrap_err();
    pic.update_call(canister, USER, "set", vec![]).unwrap();
    assert_eq!(get().unwrap(), b"XaZY");
    // It must be said, and only of code that says so, too.
    failed(
        upgrade('b', can, None),
        ErrorCode::CanisterContractViolation,
    );
    failed(
        upgrade('b', cannot, keep),
        ErrorCode::CanisterContractViolation,
    );
    for last in ['b', 'c'] {
        ok(upgrade(last, can, keep));
        assert_eq!(get().unwrap(), format!("Xa{last}Y").into_bytes());
    }
    // A message that traps leaves that heap as it is.
    pic.update_call(canister, USER, "nothing", vec![])
        .unwrap_err();
    assert_eq!(get().unwrap(), b"XacY");
    ok(upgrade('d', cannot, replace));
    get().unwrap_err();
}

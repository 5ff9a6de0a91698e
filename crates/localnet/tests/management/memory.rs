//! Memory that runs low, that is set aside, and that could not be paid for.

use std::time::Duration;

use candid::{Nat, Principal};
use ic_management_canister_types::{CanisterInstallMode, CanisterSettings, InstallCodeArgs};
use openstorage_universal::{Call, Op, Program, WASM};
use pocket_ic::{ErrorCode, PocketIc};

use crate::{PAGE, USER, ask, manage, nat, pic::*, refused, set};

fn grow(pages: u64) -> Program {
    Program::new().heap_grow(pages).reply(b"")
}

/// A canister that notes when its memory is low: with 20 pages of heap to grow, and 10 of them wanted.
fn watchful(pic: &PocketIc) -> Principal {
    let canister = install(pic);
    let hook = Program::new().on_low_wasm_memory(keep("low "));
    ok(update(pic, canister, hook.reply(b"")));
    let heap = ask(pic, canister, Op::HeapSize) * PAGE;
    let settings = CanisterSettings {
        wasm_memory_limit: nat(heap + 20 * PAGE),
        wasm_memory_threshold: nat(10 * PAGE),
        ..Default::default()
    };
    set(pic, canister, settings).unwrap();
    canister
}

#[test]
fn low_memory_is_told_once_until_there_is_enough_again() {
    let pic = network(1);
    let canister = watchful(&pic);
    ok(update(&pic, canister, grow(10)));
    pic.tick();
    assert_eq!(
        kept(&pic, canister),
        "",
        "there is as much left as is wanted"
    );
    ok(update(&pic, canister, grow(1)));
    pic.tick();
    assert_eq!(kept(&pic, canister), "low ");
    ok(update(&pic, canister, grow(1)));
    pic.tick();
    assert_eq!(kept(&pic, canister), "low ", "it knows");
    // Settings can change it, too.
    let wanted = |pages: u64| CanisterSettings {
        wasm_memory_threshold: nat(pages * PAGE),
        ..Default::default()
    };
    set(&pic, canister, wanted(5)).unwrap();
    pic.tick();
    set(&pic, canister, wanted(9)).unwrap();
    pic.tick();
    assert_eq!(kept(&pic, canister), "low low ");
}

#[test]
fn low_memory_is_told_before_any_other_message() {
    let pic = network(1);
    let canister = watchful(&pic);
    let messages = [grow(15), keep("message ").reply(b"")];
    let ids = messages.map(|program| {
        let arg = program.bytes().to_vec();
        pic.submit_call(canister, USER, "update", arg).unwrap()
    });
    for id in ids {
        pic.await_call(id).unwrap();
    }
    assert_eq!(kept(&pic, canister), "low message ");
}

#[test]
fn low_memory_waits_for_a_canister_that_is_stopped_or_frozen() {
    let pic = network(1);
    let canister = watchful(&pic);
    pic.stop_canister(canister, None).unwrap();
    let wanted = |pages: u64, threshold_s: u64| CanisterSettings {
        wasm_memory_threshold: nat(pages * PAGE),
        freezing_threshold: nat(threshold_s),
        ..Default::default()
    };
    set(&pic, canister, wanted(30, 0)).unwrap();
    pic.tick();
    pic.start_canister(canister, None).unwrap();
    pic.tick();
    assert_eq!(kept(&pic, canister), "low ");
    // Frozen when it gets low; by the time it thaws, there is enough again.
    set(&pic, canister, wanted(10, u64::MAX)).unwrap();
    set(&pic, canister, wanted(30, u64::MAX)).unwrap();
    pic.tick();
    set(&pic, canister, wanted(10, 0)).unwrap();
    pic.tick();
    assert_eq!(kept(&pic, canister), "low ");
    set(&pic, canister, wanted(10, u64::MAX)).unwrap();
    set(&pic, canister, wanted(30, u64::MAX)).unwrap();
    pic.tick();
    set(&pic, canister, wanted(30, 0)).unwrap();
    pic.tick();
    assert_eq!(kept(&pic, canister), "low low ");
}

#[test]
fn allocations_are_kept_within_the_cycles_and_the_subnet() {
    let pic = network(1);
    let (canister, other) = (install(&pic), install(&pic));
    let allocate = |canister: Principal, bytes: u64| {
        let memory_allocation = nat(bytes);
        set(
            &pic,
            canister,
            CanisterSettings {
                memory_allocation,
                ..Default::default()
            },
        )
    };
    // A year of 1 TiB costs 4,000 T cycles.
    let year = CanisterSettings {
        freezing_threshold: nat(31_536_000),
        ..Default::default()
    };
    set(&pic, canister, year).unwrap();
    let text = refused(
        allocate(canister, 1 << 40),
        ErrorCode::InsufficientCyclesInMemoryAllocation,
    );
    assert!(text.contains("additional cycles are required"), "{text}");
    pic.add_cycles(canister, 10_000 * TRILLION);
    pic.add_cycles(other, 10_000 * TRILLION);
    allocate(canister, 1 << 40).unwrap();
    assert_eq!(
        pic.canister_status(canister, None)
            .unwrap()
            .settings
            .memory_allocation,
        Nat::from(1u64 << 40)
    );
    let text = refused(
        allocate(other, (1 << 40) + 1),
        ErrorCode::SubnetOversubscribed,
    );
    assert!(text.contains("available in the subnet"), "{text}");
    // Less is always granted.
    allocate(canister, 1 << 30).unwrap();
    allocate(other, 1 << 40).unwrap();
    // It is paid for.
    let before = pic.cycle_balance(other);
    pic.advance_time(Duration::from_secs(1_000));
    pic.tick();
    let paid = before - pic.cycle_balance(other);
    assert!(
        paid.abs_diff(127_000 * 1_024 * 1_000) < 10 * 127_000 * 1_024,
        "{paid}"
    );

    let compute = CanisterSettings {
        compute_allocation: nat(100),
        ..Default::default()
    };
    let poor = pic.create_canister();
    let year = CanisterSettings {
        freezing_threshold: nat(31_536_000),
        ..Default::default()
    };
    set(&pic, poor, year).unwrap();
    refused(
        set(&pic, poor, compute),
        ErrorCode::InsufficientCyclesInComputeAllocation,
    );
}

/// A canister that grew until it could not pay for its storage would be lost with everything in it.
#[test]
fn memory_that_would_freeze_the_canister_is_refused() {
    let pic = network(1);
    let canister = install(&pic);
    // 31.7 years: a page of 64 KiB keeps 7.75 billion cycles.
    let settings = CanisterSettings {
        freezing_threshold: nat(1_000_000_000),
        wasm_memory_limit: nat(0),
        ..Default::default()
    };
    set(&pic, canister, settings).unwrap();
    let pages = 60_000;
    let stable = || {
        Program::new()
            .number(pages)
            .op(Op::StableGrow)
            .append()
            .answer()
    };
    let heap = || {
        Program::new()
            .number(pages)
            .op(Op::HeapGrow)
            .append()
            .answer()
    };
    let stable_size = ask(&pic, canister, Op::StableSize);
    for program in [stable(), heap()] {
        let text = failed(
            update(&pic, canister, program),
            ErrorCode::InsufficientCyclesInMemoryGrow,
        );
        assert!(
            text.contains(&format!("grow memory by {} bytes", pages * PAGE)),
            "{text}"
        );
        assert!(text.contains("additional cycles are required"), "{text}");
    }
    assert_eq!(ask(&pic, canister, Op::StableSize), stable_size);
    // What a query does is discarded, and callbacks are let through.
    assert_eq!(number(&ok(query(&pic, canister, stable()))), stable_size);
    let own = Call::new(canister, "query")
        .arg(Program::new().reply(b""))
        .on_reply(stable());
    assert_eq!(
        number(&ok(update(&pic, canister, Program::new().call(own)))),
        stable_size
    );
    // Now it is frozen; whoever tops it up can use it.
    failed(
        update(&pic, canister, grow(0)),
        ErrorCode::CanisterOutOfCycles,
    );
    pic.add_cycles(canister, 1_000 * TRILLION);
    ok(update(&pic, canister, grow(0)));
    assert_eq!(
        number(&ok(update(&pic, canister, stable()))),
        stable_size + pages
    );

    // Set aside is paid for already.
    let other = install(&pic);
    pic.add_cycles(other, 1_000 * TRILLION);
    let settings = CanisterSettings {
        freezing_threshold: nat(1_000_000_000),
        memory_allocation: nat((pages + 100) * PAGE),
        ..Default::default()
    };
    set(&pic, other, settings).unwrap();
    let have = pic.cycle_balance(other);
    let spend = Program::new().amount(have).op(Op::Burn).append().answer();
    assert!(cycles(&ok(update(&pic, other, spend))) > 500 * TRILLION);
    pic.add_cycles(other, TRILLION);
    assert_eq!(number(&ok(update(&pic, other, stable()))), 4);

    // An installation is looked at when it is done, and taken back.
    let poor = pic.create_canister();
    let settings = CanisterSettings {
        freezing_threshold: nat(1_000_000_000),
        ..Default::default()
    };
    set(&pic, poor, settings).unwrap();
    let init = Program::new().stable_grow(pages);
    let install = |init: Program| {
        let args = InstallCodeArgs {
            mode: CanisterInstallMode::Install,
            canister_id: poor,
            wasm_module: WASM.to_vec(),
            arg: init.bytes().to_vec(),
            sender_canister_version: None,
        };
        manage(&pic, USER, poor, "install_code", &args)
    };
    failed(install(init), ErrorCode::InsufficientCyclesInMemoryGrow);
    assert!(
        pic.canister_status(poor, None)
            .unwrap()
            .module_hash
            .is_none()
    );
    ok(install(Program::new()));
}

//! What is easy to get wrong in an Internet Computer, each under a test of its own: the official client
//! drives the server's binary, and a canister does what the test says.

mod pic;

use std::time::{Duration, SystemTime};

use candid::Principal;
use ic_certification::{Certificate, LookupResult};
use openstorage_universal::{Call, Op, Program, WASM, WASM_WITH_HEARTBEAT};
use pic::*;
use pocket_ic::{
    ErrorCode, PocketIc, PocketIcBuilder, RejectCode, Time, common::rest::RawSenderInfo,
};

/// 1. A timer of ic-cdk is an execution that makes a bounded-wait call to its own canister, and another.
#[test]
fn a_timer_calls_its_own_canister_with_a_bounded_wait() {
    let pic = network(1);
    let canister = install(&pic);
    let task = keep("task ")
        .op(Op::Deadline)
        .op(Op::GlobalAppend)
        .reply(b"");
    let call = Call::new(canister, "update")
        .timeout_s(300)
        .arg(task)
        .on_reply(keep("done"))
        .on_reject(keep("rejected"));
    let program = Program::new()
        .on_timer(keep("timer ").call(call))
        .set_timer(1)
        .reply(b"");
    ok(update(&pic, canister, program));
    let before = pic.get_time().as_nanos_since_unix_epoch();
    pic.tick();
    pic.tick();
    let global = ok(query(&pic, canister, Program::new().reply_global()));
    assert_eq!(&global[..11], b"timer task ");
    let deadline = number(&global[11..19]);
    let bound = 300 * 1_000_000_000;
    assert!(deadline >= before + bound && deadline < before + bound + 1_000_000_000);
    assert_eq!(&global[19..], b"done");
}

/// 2. A callback is a function of a table that is not exported, and the value it gets.
#[test]
fn callbacks_are_table_entries_with_an_environment() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    let call = |text: &str| {
        Call::new(b, "query")
            .arg(Program::new().reply(text))
            .on_reply(keep(text).op(Op::Arg).op(Op::GlobalAppend))
    };
    let last = Call::new(b, "query").on_reject(Program::new().reply(b""));
    let program = Program::new()
        .call(call("one"))
        .call(call("two"))
        // A method that does not answer is rejected.
        .call(last);
    ok(update(&pic, a, program));
    assert_eq!(kept(&pic, a), "oneonetwotwo");
}

/// 3. A trap takes everything back but what was printed.
#[test]
fn a_trap_takes_everything_back_but_the_log() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    ok(update(&pic, a, keep("before").reply(b"")));
    let time = pic.get_time().as_nanos_since_unix_epoch();
    let program = keep("lost")
        .stable_write(0, b"lost")
        .set_timer(time)
        .on_timer(keep("timer"))
        .call(Call::new(b, "update").arg(keep("called").reply(b"")))
        .heap_grow(10)
        .heap_touch(300)
        .print("said")
        .trap("sorry");
    let text = failed(update(&pic, a, program), ErrorCode::CanisterCalledTrap);
    assert!(text.contains("sorry"), "{text}");
    pic.tick();
    assert_eq!(kept(&pic, a), "before");
    assert_eq!(kept(&pic, b), "");
    let stable = Program::new().stable_read(0, 4).append().answer();
    assert_eq!(ok(query(&pic, a, stable)), [0; 4]);
    let logs = pic.fetch_canister_logs(a, Principal::anonymous()).unwrap();
    let lines: Vec<_> = logs
        .iter()
        .map(|line| String::from_utf8_lossy(&line.content).into_owned())
        .collect();
    assert_eq!(lines[0], "said");
    assert!(lines[1].contains("sorry"), "{lines:?}");
}

/// 3. A callback that traps is cleaned up after in a transaction of its own, and its context is rejected
///    only when nothing else can answer.
#[test]
fn a_trapping_callback_is_cleaned_up_after() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    let call = |on_reply: Program, cleanup: Program| {
        Call::new(b, "query")
            .arg(Program::new().reply(b""))
            .on_reply(on_reply)
            .on_cleanup(cleanup)
    };
    let trapping = || keep("lost").op(Op::Unreachable);
    let alone = Program::new().call(call(trapping(), keep("cleaned ")));
    failed(update(&pic, a, alone), ErrorCode::CanisterTrapped);
    assert_eq!(kept(&pic, a), "cleaned ");
    // Another call of the same context still answers.
    let other = call(Program::new().reply(b"answered"), keep("unused"));
    let program = Program::new()
        .call(call(trapping(), keep("again ")))
        .call(other);
    assert_eq!(ok(update(&pic, a, program)), b"answered");
    assert_eq!(kept(&pic, a), "cleaned again ");
    // A clean-up that traps changes nothing, and the callback's error is told.
    let program = Program::new().call(call(
        Program::new().trap("first"),
        keep("lost").trap("second"),
    ));
    let text = failed(update(&pic, a, program), ErrorCode::CanisterCalledTrap);
    assert!(text.contains("first"), "{text}");
    assert_eq!(kept(&pic, a), "cleaned again ");
    // Clean-up may not call.
    let program = Program::new().call(call(
        Program::new().trap("first"),
        keep("lost").call(Call::new(b, "update")),
    ));
    failed(update(&pic, a, program), ErrorCode::CanisterCalledTrap);
    assert_eq!(kept(&pic, a), "cleaned again ");
}

/// 4. Who neither answers nor waits is answered for; an answer stands, whatever comes after it.
#[test]
fn a_context_is_answered_once_by_itself_or_for_it() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    failed(
        update(&pic, a, keep("silent ")),
        ErrorCode::CanisterDidNotReply,
    );
    assert_eq!(kept(&pic, a), "silent ", "its work stays");
    let call = Call::new(b, "query")
        .arg(Program::new().reply(b""))
        .on_reply(keep("lost").trap("late"));
    let program = keep("answered").call(call).reply(b"early");
    assert_eq!(ok(update(&pic, a, program)), b"early");
    pic.tick();
    assert_eq!(kept(&pic, a), "silent answered");
    // A second answer traps, and takes the first one back.
    let twice = Program::new().reply(b"one").reply(b"two");
    failed(update(&pic, a, twice), ErrorCode::CanisterContractViolation);
}

/// 4. Cycles that nobody accepted come back, with an answer and with a reject of any kind.
#[test]
fn cycles_that_were_not_accepted_come_back() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    let refund = || Program::new().op(Op::Refunded).append().answer();
    let asks = |callee: Principal, arg: Program| {
        let call = Call::new(callee, "update")
            .cycles(1_000)
            .arg(arg)
            .on_reply(refund())
            .on_reject(refund());
        Program::new().call(call)
    };
    let refunded = |callee, arg| cycles(&ok(update(&pic, a, asks(callee, arg))));
    assert_eq!(refunded(b, Program::new().reply(b"")), 1_000);
    assert_eq!(
        refunded(b, Program::new().accept_cycles(300).reply(b"")),
        700
    );
    assert_eq!(
        refunded(b, Program::new().accept_cycles(5_000).reply(b"")),
        0
    );
    assert_eq!(
        refunded(b, Program::new().accept_cycles(300).reject("no")),
        700
    );
    assert_eq!(
        refunded(b, Program::new().accept_cycles(300).trap("no")),
        1_000
    );
    let nobody = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 99, 1, 1]);
    assert_eq!(refunded(nobody, Program::new()), 1_000);
    pic.stop_canister(b, None).unwrap();
    assert_eq!(refunded(b, Program::new()), 1_000);
}

/// 5. A pair of canisters has room for 500 calls; the next is not made.
#[test]
fn a_full_queue_refuses_the_call_at_once() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    let quiet = || {
        Call::new(b, "query")
            .arg(Program::new().reply(b""))
            .on_reply(Program::new())
    };
    let program = |calls| {
        Program::new()
            .repeat(calls, Program::new().call(quiet()))
            .call_and_push(quiet())
            .append()
            .answer()
    };
    assert_eq!(number(&ok(update(&pic, a, program(499)))), 0);
    assert_eq!(number(&ok(update(&pic, a, program(500)))), 2);
    // They are all answered by now: there is room again.
    pic.tick();
    assert_eq!(number(&ok(update(&pic, a, program(0)))), 0);
}

/// 7. A guaranteed response comes once, however long it takes.
#[test]
fn a_guaranteed_response_waits_for_as_long_as_it_takes() {
    let pic = network(2);
    let (a, b, far) = (
        install_on(&pic, 0),
        install_on(&pic, 0),
        install_on(&pic, 1),
    );
    let id = slow_call(&pic, a, b, far, None);
    for _ in 0..3 {
        pic.advance_time(Duration::from_secs(1_000));
        pic.tick();
    }
    assert_eq!(ok(pic.await_call(id)), b"slow");
    pic.tick();
    assert_eq!(kept(&pic, a), "R", "one callback ran");
}

/// 7. A bounded wait ends at its deadline with an unknown outcome; the callee goes on, its answer and the
///    cycles with it are gone.
#[test]
fn a_bounded_wait_ends_at_its_deadline() {
    let pic = network(2);
    let (a, b, far) = (
        install_on(&pic, 0),
        install_on(&pic, 0),
        install_on(&pic, 1),
    );
    let balance = pic.cycle_balance(a);
    let id = slow_call(&pic, a, b, far, Some(10));
    pic.advance_time(Duration::from_secs(11));
    let answer = ok(pic.await_call(id));
    let (code, text) = answer.split_at(8);
    assert_eq!(number(code), RejectCode::SysUnknown as u64);
    assert!(String::from_utf8_lossy(text).contains("deadline"));
    for _ in 0..5 {
        pic.tick();
    }
    assert_eq!(kept(&pic, a), "E", "one callback ran");
    assert_eq!(kept(&pic, b), "begun ended");
    assert!(pic.cycle_balance(a) <= balance - 1_000);
    // No wait is longer than five minutes.
    let deadline = Program::new().op(Op::Deadline).append().answer();
    let program = Program::new().call(Call::new(b, "update").timeout_s(100_000).arg(deadline));
    let before = pic.get_time().as_nanos_since_unix_epoch();
    let deadline = number(&ok(update(&pic, a, program)));
    assert!(deadline - before < 301 * 1_000_000_000);
}

/// `a` calls `b`, which asks `far`, on another subnet, before it answers.
fn slow_call(
    pic: &PocketIc,
    a: Principal,
    b: Principal,
    far: Principal,
    timeout_s: Option<u32>,
) -> pocket_ic::common::rest::RawMessageId {
    let ask = Call::new(far, "query")
        .arg(Program::new().reply(b""))
        .on_reply(keep("ended").reply(b"slow"));
    let code_and_text = Program::new()
        .global_append(b"E")
        .op(Op::RejectCode)
        .append()
        .op(Op::RejectMessage)
        .append()
        .answer();
    let mut call = Call::new(b, "update")
        .cycles(1_000)
        .arg(keep("begun ").call(ask))
        .on_reply(keep("R").arg().append().answer())
        .on_reject(code_and_text);
    if let Some(seconds) = timeout_s {
        call = call.timeout_s(seconds);
    }
    let arg = Program::new().call(call).bytes().to_vec();
    let id = pic
        .submit_call(a, Principal::anonymous(), "update", arg)
        .unwrap();
    pic.tick();
    id
}

/// 8. An upgrade keeps stable memory and nothing else; one that traps keeps everything.
#[test]
fn an_upgrade_keeps_stable_memory_or_everything() {
    let pic = network(1);
    let canister = install(&pic);
    let time = pic.get_time().as_nanos_since_unix_epoch();
    let prepare = keep("heap")
        .set_timer(time + 1_000_000_000)
        .on_timer(keep("timer"))
        .on_pre_upgrade(Program::new().stable_write(0, b"saved"))
        .reply(b"");
    ok(update(&pic, canister, prepare));
    let upgrade = |program: Program| {
        pic.upgrade_canister(canister, WASM.to_vec(), program.bytes().to_vec(), None)
    };
    let stable = || Program::new().stable_read(0, 5).append().answer();
    upgrade(Program::new().stable_write(0, b"other").trap("no")).unwrap_err();
    assert_eq!(ok(query(&pic, canister, stable())), [0; 5]);
    assert_eq!(kept(&pic, canister), "heap");

    let before = version(&pic, canister);
    let init = Program::new()
        .op(Op::Version)
        .op(Op::GlobalAppend)
        .number(0)
        .op(Op::TimerSet)
        .op(Op::GlobalAppend);
    upgrade(init).unwrap();
    assert_eq!(ok(query(&pic, canister, stable())), b"saved");
    let global = ok(query(&pic, canister, Program::new().reply_global()));
    assert_eq!(
        number(&global[..8]),
        before + 1,
        "post_upgrade sees the new version"
    );
    assert_eq!(number(&global[8..]), 0, "and no timer");
}

/// 8. What is certified stays as it was until somebody sets it, be it `canister_pre_upgrade`; what that burned
///    is burned. A reinstallation begins with nothing.
#[test]
fn certified_data_outlives_an_upgrade() {
    let pic = network(1);
    let canister = install(&pic);
    let certified = || {
        let program = Program::new().op(Op::Certificate).append().answer();
        let bytes = ok(query(&pic, canister, program));
        let certificate: Certificate = serde_cbor::from_slice(&bytes).unwrap();
        let path = [b"canister", canister.as_slice(), b"certified_data"];
        match certificate.tree.lookup_path(path) {
            LookupResult::Found(data) => String::from_utf8(data.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let certify = |text: &str| Program::new().push(text).op(Op::CertifiedDataSet);
    let upgrade = |init: Program| {
        pic.upgrade_canister(canister, WASM.to_vec(), init.bytes().to_vec(), None)
            .unwrap();
    };
    assert_eq!(certified(), "");
    ok(update(&pic, canister, certify("first").reply(b"")));
    upgrade(Program::new());
    assert_eq!(certified(), "first");
    let burn = Program::new()
        .amount(TRILLION)
        .op(Op::Burn)
        .op(Op::Drop)
        .then(certify("second"));
    let prepare = Program::new().on_pre_upgrade(burn).reply(b"");
    ok(update(&pic, canister, prepare));
    let before = pic.cycle_balance(canister);
    upgrade(Program::new());
    assert_eq!(certified(), "second");
    assert!(before - pic.cycle_balance(canister) >= TRILLION);
    upgrade(certify("third"));
    assert_eq!(certified(), "third");
    pic.reinstall_canister(canister, WASM.to_vec(), vec![], None)
        .unwrap();
    assert_eq!(certified(), "");
}

/// 8. Who stops takes no calls, and is stopped when everything it waits for has come.
#[test]
fn a_stopping_canister_waits_for_its_calls() {
    let pic = network(2);
    let (a, far) = (install_on(&pic, 0), install_on(&pic, 1));
    let call = Call::new(far, "query")
        .arg(Program::new().reply(b"far"))
        .on_reply(Program::new().op(Op::Status).append().answer());
    let arg = Program::new().call(call).bytes().to_vec();
    let anonymous = Principal::anonymous();
    let id = pic.submit_call(a, anonymous, "update", arg).unwrap();
    pic.tick();
    pic.stop_canister(a, None).unwrap();
    assert_eq!(number(&ok(pic.await_call(id))), 2, "it was stopping");
    let refused = update(&pic, a, Program::new().reply(b""));
    failed(refused, ErrorCode::CanisterStopped);
    pic.start_canister(a, None).unwrap();
    ok(update(&pic, a, Program::new().reply(b"")));
}

/// 9. A query leaves nothing behind, not even as part of a block.
#[test]
fn queries_leave_nothing_behind() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    let program = || {
        keep("lost")
            .stable_write(0, b"lost")
            .op(Op::Replicated)
            .append()
            .op(Op::CertificatePresent)
            .append()
            .answer()
    };
    let (no, yes) = (0u64.to_le_bytes(), 1u64.to_le_bytes());
    let bytes = ok(query(&pic, a, program()));
    assert_eq!(bytes[..8], no);
    let arg = program().bytes().to_vec();
    let called = pic.update_call(a, Principal::anonymous(), "query", arg);
    assert_eq!(ok(called), [yes, no].concat());
    let call = Call::new(a, "query").arg(program());
    assert_eq!(
        ok(update(&pic, b, Program::new().call(call))),
        [yes, no].concat()
    );
    assert_eq!(kept(&pic, a), "");
    // Queries do not call.
    let calls = Program::new().call(Call::new(b, "query"));
    failed(query(&pic, a, calls), ErrorCode::CanisterContractViolation);
}

/// 10. The version rises with whatever may have changed the canister, and with nothing else.
#[test]
fn the_version_rises_with_every_change() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    let first = version(&pic, a);
    ok(query(&pic, a, Program::new().reply(b"")));
    assert_eq!(version(&pic, a), first, "a query");
    let arg = Program::new().reply(b"").bytes().to_vec();
    pic.update_call(a, Principal::anonymous(), "query", arg)
        .unwrap();
    assert_eq!(version(&pic, a), first, "a query called as an update");
    update(&pic, a, Program::new().trap("no")).unwrap_err();
    assert_eq!(version(&pic, a), first, "a trap");
    ok(update(&pic, a, Program::new().reply(b"")));
    assert_eq!(version(&pic, a), first + 1, "an update");
    let call = Call::new(b, "query").arg(Program::new().reply(b""));
    ok(update(&pic, a, Program::new().call(call)));
    assert_eq!(version(&pic, a), first + 3, "an update and a callback");
    ok(update(&pic, a, Program::new().set_timer(1).reply(b"")));
    pic.tick();
    assert_eq!(version(&pic, a), first + 5, "an update and a timer");
    pic.set_controllers(a, None, vec![Principal::anonymous(), a])
        .unwrap();
    assert_eq!(version(&pic, a), first + 6, "settings");
    pic.stop_canister(a, None).unwrap();
    pic.start_canister(a, None).unwrap();
    assert_eq!(version(&pic, a), first + 9, "stopping, stopped, started");
}

/// 10. A message from outside can be looked at first: within fewer instructions, without calls.
#[test]
fn messages_from_outside_are_inspected() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    let on_inspect = |program: Program| Program::new().on_inspect(program).reply(b"");
    ok(update(&pic, a, on_inspect(Program::new())));
    let text = Program::new().reply(b"");
    let refused = update(&pic, a, text.clone());
    failed(refused, ErrorCode::CanisterRejectedMessage);
    // Calls of canisters and queries are not inspected.
    ok(query(&pic, a, text.clone()));
    let call = Call::new(a, "update").arg(on_inspect(keep("lost").call(Call::new(b, "update"))));
    ok(update(&pic, b, Program::new().call(call)));
    failed(
        update(&pic, a, text.clone()),
        ErrorCode::CanisterContractViolation,
    );
    let spin = keep("lost").spin_until(250_000_000).op(Op::AcceptMessage);
    let call = Call::new(a, "update").arg(on_inspect(spin));
    ok(update(&pic, b, Program::new().call(call)));
    failed(
        update(&pic, a, text.clone()),
        ErrorCode::CanisterInstructionLimitExceeded,
    );
    let accept = keep("lost").spin_until(100_000_000).op(Op::AcceptMessage);
    let call = Call::new(a, "update").arg(on_inspect(accept));
    ok(update(&pic, b, Program::new().call(call)));
    ok(update(&pic, a, text));
    assert_eq!(kept(&pic, a), "", "inspection leaves nothing behind");
}

/// 11. The timer fires once, at its time or as soon as it can; 0 disables it.
#[test]
fn the_global_timer_fires_once() {
    let pic = network(1);
    let canister = install(&pic);
    let now = pic.get_time().as_nanos_since_unix_epoch();
    let second = 1_000_000_000;
    let set = |time: u64| {
        Program::new()
            .number(time)
            .op(Op::TimerSet)
            .append()
            .answer()
    };
    let on_timer = Program::new().on_timer(keep("!")).reply(b"");
    ok(update(&pic, canister, on_timer));
    assert_eq!(
        number(&ok(update(&pic, canister, set(now + 10 * second)))),
        0
    );
    assert_eq!(
        number(&ok(update(&pic, canister, set(now + 5 * second)))),
        now + 10 * second
    );
    pic.advance_time(Duration::from_secs(6));
    pic.tick();
    assert_eq!(kept(&pic, canister), "!");
    pic.advance_time(Duration::from_secs(6));
    pic.tick();
    assert_eq!(kept(&pic, canister), "!", "it is not set any more");
    assert_eq!(number(&ok(update(&pic, canister, set(now)))), 0);
    pic.tick();
    assert_eq!(kept(&pic, canister), "!!", "the past is the next round");
    let soon = pic.get_time().as_nanos_since_unix_epoch() + second;
    ok(update(&pic, canister, set(soon)));
    assert_eq!(number(&ok(update(&pic, canister, set(0)))), soon);
    pic.advance_time(Duration::from_secs(2));
    pic.tick();
    assert_eq!(kept(&pic, canister), "!!");
}

/// 11. A heartbeat beats every round, until it is silent.
#[test]
fn a_heartbeat_beats_every_round() {
    let pic = network(1);
    let canister = pic.create_canister();
    equip(&pic, canister, WASM_WITH_HEARTBEAT);
    ok(update(
        &pic,
        canister,
        Program::new().on_heartbeat(keep("!")).reply(b""),
    ));
    let before = kept(&pic, canister).len();
    for _ in 0..3 {
        pic.tick();
    }
    assert_eq!(kept(&pic, canister).len(), before + 3);
}

/// 12. PocketIC's habits.
#[test]
fn it_behaves_like_pocket_ic() {
    let pic = network(1);
    let start = 1_620_328_630_000_000_000;
    let time = pic.get_time().as_nanos_since_unix_epoch();
    assert_eq!(time, start + 1);
    pic.tick();
    assert_eq!(pic.get_time().as_nanos_since_unix_epoch(), time + 1);
    let canister = pic.create_canister();
    assert_eq!(canister.to_text(), "rwlgt-iiaaa-aaaaa-aaaaa-cai");
    let missing = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 99, 1, 1]);
    let reject = update(&pic, missing, Program::new()).unwrap_err();
    assert_eq!(reject.reject_code, RejectCode::DestinationInvalid);
    assert!(reject.reject_message.contains("not found"), "{reject:?}");
    let at = Time::from_nanos_since_unix_epoch;
    assert!(panic_of(|| pic.set_time(at(start))).contains("SettingTimeIntoPast"));
    assert!(panic_of(|| pic.set_time(at(u64::MAX))).contains("too late"));
    let later = SystemTime::UNIX_EPOCH + Duration::from_nanos(start + 5_000_000_000);
    pic.set_time(later.into());
    assert_eq!(SystemTime::try_from(pic.get_time()).unwrap(), later);
    // A round shows the time that was set; the next one comes after it.
    for nanos in 0..3 {
        pic.tick();
        assert_eq!(
            pic.get_time(),
            Time::from(later) + Duration::from_nanos(nanos)
        );
    }
    pic.set_certified_time(at(start + 9_000_000_000));
    assert_eq!(pic.get_time(), at(start + 9_000_000_000));
}

/// 12. The first time is the nanosecond after the one that was asked for.
#[test]
fn a_network_begins_when_it_was_asked_to() {
    let asked = |nanos| {
        PocketIcBuilder::new()
            .with_application_subnet()
            .with_initial_time(Time::from_nanos_since_unix_epoch(nanos))
            .with_server_binary(env!("CARGO_BIN_EXE_pocket-ic-server").into())
            .build()
    };
    let start = 1_620_328_630_000_000_000;
    for nanos in [start, start + 5_000_000_000] {
        let time = asked(nanos).get_time();
        assert_eq!(time.as_nanos_since_unix_epoch(), nanos + 1);
    }
    for (nanos, text) in [
        (start - 1, "must be no earlier than 1620328630000000000"),
        (u64::MAX, "too late"),
    ] {
        let said = panic_of(|| drop(asked(nanos)));
        assert!(said.contains(text), "{said}");
    }
}

/// What the client panics with.
fn panic_of(work: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    let panic = panic.expect_err("it panics");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic
            .downcast_ref::<&str>()
            .copied()
            .unwrap_or_default()
            .into(),
    }
}

/// Canisters read an error's code in its text; what a canister rejects with, they read as it is.
#[test]
fn canisters_read_why_a_call_failed() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    let said = |callee: Principal, method: &str, arg: Program| {
        let program = Program::new()
            .op(Op::RejectCode)
            .append()
            .op(Op::RejectMessage)
            .append()
            .answer();
        let call = Call::new(callee, method).arg(arg).on_reject(program);
        let answer = ok(update(&pic, a, Program::new().call(call)));
        let text = String::from_utf8(answer[8..].to_vec()).unwrap();
        (number(&answer[..8]), text)
    };
    assert_eq!(
        said(b, "update", Program::new().reject("no")),
        (4, "no".into())
    );
    let missing = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 99, 1, 1]);
    let management = Principal::management_canister();
    for (callee, method, code, begin) in [
        (b, "update", 5, "IC0503: Error from Canister"),
        (b, "nothing", 5, "IC0536: Error from Canister"),
        (missing, "update", 3, "IC0301: Canister"),
        (
            management,
            "nothing",
            5,
            "IC0536: Management canister has no method 'nothing'",
        ),
    ] {
        let (said, text) = said(callee, method, Program::new().trap("trap"));
        assert_eq!(said, code, "{text}");
        assert!(text.starts_with(begin), "{text}");
    }
}

/// 12. Arguments have up to 10 MB on one subnet, and 2 MiB from one to another.
#[test]
fn large_arguments_stay_on_their_subnet() {
    let pic = network(2);
    let (a, near, far) = (
        install_on(&pic, 0),
        install_on(&pic, 0),
        install_on(&pic, 1),
    );
    // The argument is a program that answers, and then pushes ballast, so many times 100 kB.
    let carry = |callee: Principal, pushes: u64| {
        let ballast = Program::new().push(vec![0; 100_000]);
        let append = Program::new().push(ballast.bytes()).op(Op::CallDataAppend);
        Program::new()
            .push(callee)
            .push(b"update")
            .push(Program::new().arg().append().answer().bytes())
            .push(Program::new().op(Op::RejectMessage).op(Op::Reject).bytes())
            .op(Op::CallNew)
            .push(Program::new().reply(b"got it").bytes())
            .op(Op::CallDataAppend)
            .repeat(pushes, append)
            .op(Op::CallPerform)
    };
    assert_eq!(ok(update(&pic, a, carry(far, 20))), b"got it");
    assert_eq!(ok(update(&pic, a, carry(near, 100))), b"got it");
    update(&pic, a, carry(far, 21)).unwrap_err();
    let text = failed(
        update(&pic, a, carry(near, 105)),
        ErrorCode::CanisterContractViolation,
    );
    assert!(text.contains("bytes"), "{text}");
}

/// 5, 6. A call takes what its longest answer would cost out of what may be spent, or is not made.
#[test]
fn a_call_must_be_paid_for_beforehand() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    // Method of 5 bytes, argument of 7.
    let cost = Program::new()
        .number(5)
        .number(7)
        .op(Op::CostCall)
        .append()
        .answer();
    let (transmission, execution) = (2_097_152_000, 40_005_000_000);
    let price = 260_000 + 1_000 * (5 + 7) + transmission + execution;
    assert_eq!(cycles(&ok(query(&pic, a, cost))), price);

    let poor = install(&pic);
    let call = Call::new(b, "query").on_reply(Program::new());
    let try_it = |keep: u128| {
        // All but so much is burnt, then a call is tried.
        let have = pic.cycle_balance(poor);
        let program = Program::new()
            .op(Op::Liquid)
            .append()
            .amount(have - keep)
            .op(Op::Burn)
            .op(Op::Drop)
            .call_and_push(call.clone())
            .append()
            .answer();
        ok(update(&pic, poor, program))
    };
    assert_eq!(number(&try_it(90 * TRILLION)[16..]), 0);
    // The update's own prepayment leaves less than a call costs.
    assert_eq!(number(&try_it(70_000_000_000)[16..]), 2);
}

/// 6. Who cannot pay for an update beforehand runs none.
#[test]
fn an_update_must_be_paid_for_beforehand() {
    let pic = network(1);
    let canister = install(&pic);
    let have = pic.cycle_balance(canister);
    let burn = Program::new()
        .amount(have - 41_000_000_000)
        .op(Op::Burn)
        .op(Op::Drop)
        .reply(b"");
    ok(update(&pic, canister, burn));
    assert!(pic.cycle_balance(canister) < 41_000_000_000);
    let work = || keep("!").reply(b"");
    ok(update(&pic, canister, work()));
    let have = pic.cycle_balance(canister);
    let burn = Program::new()
        .amount(have)
        .op(Op::Burn)
        .op(Op::Drop)
        .reply(b"");
    ok(update(&pic, canister, burn));
    failed(
        update(&pic, canister, work()),
        ErrorCode::CanisterOutOfCycles,
    );
    pic.add_cycles(canister, TRILLION);
    ok(update(&pic, canister, work()));
    assert_eq!(kept(&pic, canister), "!!");
}

/// 6. What was prepaid and not used comes back: an update costs its instructions.
#[test]
fn what_was_not_used_comes_back() {
    let pic = network(1);
    let canister = install(&pic);
    let cost = |instructions: u64| {
        let before = pic.cycle_balance(canister);
        ok(update(
            &pic,
            canister,
            Program::new().spin_until(instructions).reply(b""),
        ));
        before - pic.cycle_balance(canister)
    };
    cost(1_000_000);
    let (short, long) = (cost(1_000_000), cost(101_000_000));
    let difference = long - short;
    assert!(
        (99_990_000..100_010_000).contains(&difference),
        "{difference} cycles for 100 million instructions"
    );
}

/// 9. A composite query asks other canisters of its subnet, and what it did is gone afterwards.
#[test]
fn a_composite_query_asks_its_subnet() {
    let pic = network(2);
    let (a, b, far) = (
        install_on(&pic, 0),
        install_on(&pic, 0),
        install_on(&pic, 1),
    );
    let composite = |program: Program| {
        let arg = program.bytes().to_vec();
        pic.query_call(a, Principal::anonymous(), "composite_query", arg)
    };
    let ask = |callee: Principal| {
        Call::new(callee, "query")
            .arg(keep("lost").reply(b"asked"))
            .on_reply(
                keep("answer")
                    .op(Op::GlobalGet)
                    .append()
                    .arg()
                    .append()
                    .answer(),
            )
    };
    let asked = composite(keep("begun ").call(ask(b)));
    assert_eq!(ok(asked), b"begun answerasked");
    assert_eq!((kept(&pic, a), kept(&pic, b)), ("".into(), "".into()));
    // Itself too: the other query sees what is committed.
    let own = Call::new(a, "query").arg(Program::new().reply_global());
    assert_eq!(ok(composite(keep("mine").call(own))), b"");
    composite(Program::new().call(ask(far))).unwrap_err();
    // Not as an update, and not through a canister's call.
    let arg = Program::new().reply(b"").bytes().to_vec();
    pic.update_call(a, Principal::anonymous(), "composite_query", arg)
        .unwrap_err();
    let through = Call::new(a, "composite_query").arg(Program::new().reply(b""));
    update(&pic, b, Program::new().call(through)).unwrap_err();
}

/// 5. Cycles that were put on a call stay with the canister when the call is not performed.
#[test]
fn a_call_that_is_not_performed_costs_no_cycles() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    let begin = |program: Program| {
        let named = program.push(b.as_slice()).push("update");
        let begun = named.push("").push("").op(Op::CallNew);
        begun.amount(7 * TRILLION).op(Op::CallCycles)
    };
    let look = |program: Program| program.op(Op::Balance).append();
    let program = look(begin(look(begin(look(Program::new()))))).answer();
    let balances: Vec<_> = ok(update(&pic, a, program))
        .chunks(16)
        .map(cycles)
        .collect();
    let [before, one, another] = balances[..] else {
        panic!("{balances:?}");
    };
    assert_eq!((before - one, one), (7 * TRILLION, another));
    assert!(pic.cycle_balance(a) > before - TRILLION);
}

/// 9. The canister that was asked from outside has a certificate in all of its queries, and nobody else has one.
#[test]
fn a_certificate_is_the_first_canister_s() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    let present = || Program::new().op(Op::CertificatePresent).append().answer();
    let composite = |program: Program| {
        let arg = program.bytes().to_vec();
        number(&ok(pic.query_call(
            a,
            Principal::anonymous(),
            "composite_query",
            arg,
        )))
    };
    let ask = |of| Program::new().call(Call::new(of, "query").arg(present()));
    assert_eq!(composite(present()), 1);
    assert_eq!(composite(ask(a)), 1);
    assert_eq!(composite(ask(b)), 0);
    let call = Call::new(b, "query").arg(Program::new().reply(b""));
    assert_eq!(composite(Program::new().call(call.on_reply(present()))), 0);
}

/// 9. A callback that traps ends its composite query, whatever else is under way.
#[test]
fn a_trap_ends_a_composite_query() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    let ask = || Call::new(b, "query").arg(Program::new().reply(b""));
    let first = ask().on_reply(Program::new().trap("first"));
    let second = ask().on_reply(Program::new().reply(b"second"));
    let arg = Program::new().call(first).call(second).bytes().to_vec();
    let asked = pic.query_call(a, Principal::anonymous(), "composite_query", arg);
    let text = failed(asked, ErrorCode::CanisterCalledTrap);
    assert!(text.contains("first"), "{text}");
}

/// Memory that no address reaches is not to be had, and asking for it is no fault.
#[test]
fn a_heap_does_not_grow_beyond_its_addresses() {
    let pic = network(1);
    let canister = install(&pic);
    let program = Program::new().number(1 << 20).op(Op::HeapGrow);
    let grown = number(&ok(update(&pic, canister, program.append().answer())));
    assert_eq!(grown as u32, u32::MAX);
}

/// Nobody calls a composite query but a query.
#[test]
fn a_composite_query_is_no_update() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    let arg = Program::new().reply(b"").bytes().to_vec();
    let called = pic.update_call(a, Principal::anonymous(), "composite_query", arg);
    failed(called, ErrorCode::CompositeQueryCalledInReplicatedMode);
    let code = Program::new().op(Op::RejectCode).append().answer();
    let call = Call::new(b, "composite_query").on_reject(code);
    assert_eq!(number(&ok(update(&pic, a, Program::new().call(call)))), 5);
}

/// What a canister says of a sender outside comes with the message: when it is inspected, while it runs, and in its
/// callbacks. It does not come with the calls that the message makes.
#[test]
fn what_is_said_of_a_sender_comes_with_the_message() {
    let pic = network(1);
    let (a, b) = (install(&pic), install(&pic));
    let once = 1u64.to_le_bytes();
    let said = || RawSenderInfo {
        info: once.to_vec(),
        signer: b.as_slice().to_vec(),
    };
    let nobody = Principal::anonymous();
    let update = |program: Program| {
        let arg = program.bytes().to_vec();
        pic.update_call_with_sender_info(a, nobody, "update", arg, said())
    };
    let query = |method, program: Program| {
        let arg = program.bytes().to_vec();
        pic.query_call_with_sender_info(a, nobody, method, arg, said())
    };
    let tell = || {
        let info = Program::new().op(Op::CallerInfoData).append();
        info.op(Op::CallerInfoSigner).append()
    };
    let whole = [&once, b.as_slice()].concat();
    assert_eq!(ok(update(tell().answer())), whole);
    assert_eq!(ok(query("query", tell().answer())), whole);
    let call = |method| {
        let callback = Program::new().op(Op::Arg).append().then(tell());
        let call = Call::new(b, method).arg(tell().answer());
        Program::new().call(call.on_reply(callback.answer()))
    };
    assert_eq!(ok(update(call("update"))), whole);
    assert_eq!(ok(query("composite_query", call("query"))), whole);

    // Accepts a message as often as is said of its sender.
    let accept = Program::new().op(Op::AcceptMessage);
    let accept = Program::new()
        .op(Op::CallerInfoData)
        .push(accept.bytes())
        .op(Op::Repeat);
    ok(update(Program::new().on_inspect(accept).reply(b"")));
    assert_eq!(ok(update(tell().answer())), whole);
    let arg = Program::new().reply(b"").bytes().to_vec();
    pic.update_call(a, nobody, "update", arg).unwrap_err();
}

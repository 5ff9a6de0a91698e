//! Calls to other canisters.

use candid::Principal;
use wasmtime::{Caller, Linker, Result};

use super::{BASE_COST, CALLBACK, COMPOSITE_CALLBACK, Ic0, PAYLOAD_BYTE_COST, TASK, join};
use crate::machine::{
    Call, Closure,
    host::{Host, Kind},
};

/// Where cycles may be attached to a call.
const MAY_PAY: Kind = Kind::UPDATE.or(CALLBACK).or(TASK);
const MAY_CALL: Kind = MAY_PAY.or(Kind::COMPOSITE_QUERY).or(COMPOSITE_CALLBACK);
/// Calls that may be outstanding from one canister to another.
const QUEUE_MAX: usize = 500;
/// Bytes of a call's argument within a subnet.
const ARG_BYTES_MAX: usize = 10 << 20;
const METHOD_BYTES_MAX: u32 = 20_000;
/// Not performed: no cycles, or no room for the call.
const SYS_TRANSIENT: u32 = 2;

pub fn define(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("ic0", "call_new", call_new)?;
    linker.func_wrap(
        "ic0",
        "call_on_cleanup",
        |mut c: Caller<Host>, fun: u32, env: u32| {
            c.enter("call_on_cleanup", MAY_CALL, BASE_COST)?;
            match &mut c.run().call {
                Some(call) if call.on_cleanup.is_none() => {
                    call.on_cleanup = Some(Closure { fun, env })
                }
                Some(_) => return c.contract("ic0_call_on_cleanup: the cleanup is set already"),
                None => return no_call(&mut c, "call_on_cleanup"),
            }
            Ok(())
        },
    )?;
    linker.func_wrap(
        "ic0",
        "call_data_append",
        |mut c: Caller<Host>, src: u32, size: u32| {
            c.enter(
                "call_data_append",
                MAY_CALL,
                BASE_COST + PAYLOAD_BYTE_COST * u64::from(size),
            )?;
            let bytes = c.load(src, size)?;
            match &mut c.run().call {
                None => no_call(&mut c, "call_data_append"),
                Some(call) if call.arg.len() + bytes.len() > ARG_BYTES_MAX => c.contract(format!(
                    "ic0_call_data_append: an argument has at most {ARG_BYTES_MAX} bytes"
                )),
                Some(call) => {
                    call.arg.extend_from_slice(&bytes);
                    Ok(())
                }
            }
        },
    )?;
    linker.func_wrap(
        "ic0",
        "call_with_best_effort_response",
        |mut c: Caller<Host>, timeout_s: u32| {
            c.enter("call_with_best_effort_response", MAY_CALL, BASE_COST)?;
            match &mut c.run().call {
                Some(call) if call.timeout_s.is_none() => call.timeout_s = Some(timeout_s),
                Some(_) => {
                    return c.contract(
                        "ic0_call_with_best_effort_response: the timeout is set already",
                    );
                }
                None => return no_call(&mut c, "call_with_best_effort_response"),
            }
            Ok(())
        },
    )?;
    linker.func_wrap(
        "ic0",
        "call_cycles_add128",
        |mut c: Caller<Host>, high: u64, low: u64| {
            c.enter("call_cycles_add128", MAY_PAY, BASE_COST)?;
            add_cycles(&mut c, "call_cycles_add128", join(high, low))
        },
    )?;
    linker.func_wrap(
        "ic0",
        "call_cycles_add",
        |mut c: Caller<Host>, amount: u64| {
            c.enter("call_cycles_add", MAY_PAY, BASE_COST)?;
            add_cycles(&mut c, "call_cycles_add", u128::from(amount))
        },
    )?;
    linker.func_wrap("ic0", "call_perform", call_perform)?;
    Ok(())
}

#[allow(clippy::too_many_arguments)] // the signature is the specification's
fn call_new(
    mut c: Caller<Host>,
    callee_src: u32,
    callee_size: u32,
    name_src: u32,
    name_size: u32,
    reply_fun: u32,
    reply_env: u32,
    reject_fun: u32,
    reject_env: u32,
) -> Result<()> {
    c.enter(
        "call_new",
        MAY_CALL,
        1_500 + u64::from(callee_size) + u64::from(name_size),
    )?;
    give_back(&mut c);
    if name_size > METHOD_BYTES_MAX {
        return c.contract(format!(
            "ic0_call_new: a method's name has at most {METHOD_BYTES_MAX} bytes"
        ));
    }
    let Ok(callee) = Principal::try_from_slice(&c.load(callee_src, callee_size)?) else {
        return c.contract("ic0_call_new: the callee is no principal");
    };
    let Ok(method) = String::from_utf8(c.load(name_src, name_size)?) else {
        return c.contract("ic0_call_new: the method's name is not UTF-8");
    };
    c.run().call = Some(Call {
        callee,
        method,
        arg: vec![],
        cycles: 0,
        on_reply: Closure {
            fun: reply_fun,
            env: reply_env,
        },
        on_reject: Closure {
            fun: reject_fun,
            env: reject_env,
        },
        on_cleanup: None,
        timeout_s: None,
    });
    Ok(())
}

fn call_perform(mut c: Caller<Host>) -> Result<u32> {
    c.enter("call_perform", MAY_CALL, 5_000)?;
    let Some(call) = c.run().call.take() else {
        return no_call(&mut c, "call_perform");
    };
    let run = c.run();
    if run.kind.among(MAY_PAY) {
        let cost = run.fees.call((call.method.len() + call.arg.len()) as u64);
        if cost > run.liquid() {
            run.balance += call.cycles;
            return Ok(SYS_TRANSIENT);
        }
        let outstanding = run.calls_outstanding.entry(call.callee).or_default();
        if *outstanding >= QUEUE_MAX || run.queues_full {
            run.balance += call.cycles;
            return Ok(SYS_TRANSIENT);
        }
        *outstanding += 1;
        run.balance -= cost;
    }
    run.calls.push(call);
    Ok(0)
}

fn add_cycles(c: &mut Caller<Host>, name: &str, amount: u128) -> Result<()> {
    let run = c.run();
    let liquid = run.liquid();
    let Some(call) = &mut run.call else {
        return no_call(c, name);
    };
    if amount > liquid {
        return c.contract(format!(
            "ic0_{name}: {amount} cycles are more than the {liquid} that can be spent"
        ));
    }
    run.balance -= amount;
    call.cycles += amount;
    Ok(())
}

/// A call that was begun and not performed: its cycles stay.
fn give_back(c: &mut Caller<Host>) {
    let run = c.run();
    if let Some(call) = run.call.take() {
        run.balance += call.cycles;
    }
}

fn no_call<T>(c: &mut Caller<Host>, name: &str) -> Result<T> {
    c.contract(format!(
        "ic0_{name} called when no call is under construction"
    ))
}

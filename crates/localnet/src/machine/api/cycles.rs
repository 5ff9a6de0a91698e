//! Cycles: what the canister has, what comes with a message, what things cost.

use candid::{CandidType, Deserialize};
use wasmtime::{Caller, Linker, Result};

use super::{AND_START, BASE_COST, CALLBACK, EVERYWHERE, Ic0, canister::REPLICATED, join};
use crate::{
    bounded,
    fees::HttpUsage,
    machine::{
        Trap,
        host::{Host, Kind},
    },
};

const ATTACHED: Kind = Kind::UPDATE.or(Kind::REPLICATED_QUERY).or(CALLBACK);

pub fn define(linker: &mut Linker<Host>) -> Result<()> {
    define_balance(linker)?;
    define_attached(linker)?;
    define_costs(linker)?;
    define_signature_costs(linker)
}

fn define_balance(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap(
        "ic0",
        "canister_cycle_balance128",
        |mut c: Caller<Host>, dst: u32| {
            c.enter("canister_cycle_balance128", EVERYWHERE, BASE_COST)?;
            let balance = c.run().balance;
            c.store_u128(dst, balance)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "canister_liquid_cycle_balance128",
        |mut c: Caller<Host>, dst: u32| {
            c.enter("canister_liquid_cycle_balance128", EVERYWHERE, BASE_COST)?;
            let liquid = c.run().liquid();
            c.store_u128(dst, liquid)
        },
    )?;
    linker.func_wrap("ic0", "canister_cycle_balance", |mut c: Caller<Host>| {
        c.enter("canister_cycle_balance", EVERYWHERE, BASE_COST)?;
        let balance = c.run().balance;
        as_u64(&mut c, balance)
    })?;
    linker.func_wrap(
        "ic0",
        "cycles_burn128",
        |mut c: Caller<Host>, high: u64, low: u64, dst: u32| {
            c.enter("cycles_burn128", REPLICATED, BASE_COST)?;
            let run = c.run();
            let burned = run.liquid().min(join(high, low));
            run.balance -= burned;
            run.cycles_burned += burned;
            c.store_u128(dst, burned)
        },
    )?;
    Ok(())
}

fn define_attached(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap(
        "ic0",
        "msg_cycles_available128",
        |mut c: Caller<Host>, dst: u32| {
            c.enter("msg_cycles_available128", ATTACHED, BASE_COST)?;
            let available = c.run().cycles_available;
            c.store_u128(dst, available)
        },
    )?;
    linker.func_wrap("ic0", "msg_cycles_available", |mut c: Caller<Host>| {
        c.enter("msg_cycles_available", ATTACHED, BASE_COST)?;
        let available = c.run().cycles_available;
        as_u64(&mut c, available)
    })?;
    linker.func_wrap(
        "ic0",
        "msg_cycles_refunded128",
        |mut c: Caller<Host>, dst: u32| {
            c.enter("msg_cycles_refunded128", CALLBACK, BASE_COST)?;
            let refunded = c.run().cycles_refunded;
            c.store_u128(dst, refunded)
        },
    )?;
    linker.func_wrap("ic0", "msg_cycles_refunded", |mut c: Caller<Host>| {
        c.enter("msg_cycles_refunded", CALLBACK, BASE_COST)?;
        let refunded = c.run().cycles_refunded;
        as_u64(&mut c, refunded)
    })?;
    linker.func_wrap(
        "ic0",
        "msg_cycles_accept128",
        |mut c: Caller<Host>, high: u64, low: u64, dst: u32| {
            c.enter("msg_cycles_accept128", ATTACHED, BASE_COST)?;
            let accepted = accept(&mut c, join(high, low));
            c.store_u128(dst, accepted)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "msg_cycles_accept",
        |mut c: Caller<Host>, max: u64| {
            c.enter("msg_cycles_accept", ATTACHED, BASE_COST)?;
            Ok(accept(&mut c, u128::from(max)) as u64)
        },
    )?;
    Ok(())
}

fn accept(c: &mut Caller<Host>, max: u128) -> u128 {
    let run = c.run();
    let accepted = max.min(run.cycles_available);
    run.cycles_available -= accepted;
    run.cycles_accepted += accepted;
    run.balance += accepted;
    accepted
}

fn as_u64(c: &mut Caller<Host>, cycles: u128) -> Result<u64> {
    match u64::try_from(cycles) {
        Ok(cycles) => Ok(cycles),
        Err(_) => c.trap(Trap::Wasm(
            "cycles amount exceeds 64-bit representation".into(),
        )),
    }
}

/// The record that `cost_http_request_v2` takes.
#[derive(CandidType, Deserialize)]
struct HttpParameters {
    request_bytes: u64,
    http_roundtrip_time_ms: u64,
    raw_response_bytes: u64,
    transformed_response_bytes: u64,
    transform_instructions: u64,
}

fn define_costs(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap(
        "ic0",
        "cost_call",
        |mut c: Caller<Host>, name: u64, payload: u64, dst: u32| {
            c.enter("cost_call", AND_START, BASE_COST)?;
            let cost = c.run().fees.call(name.saturating_add(payload));
            c.store_u128(dst, cost)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "cost_create_canister",
        |mut c: Caller<Host>, dst: u32| {
            c.enter("cost_create_canister", AND_START, BASE_COST)?;
            let cost = c.run().fees.create_canister();
            c.store_u128(dst, cost)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "cost_http_request",
        |mut c: Caller<Host>, size: u64, max: u64, dst: u32| {
            c.enter("cost_http_request", AND_START, BASE_COST)?;
            let cost = c.run().fees.http_request(size, Some(max));
            c.store_u128(dst, cost)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "cost_http_request_v2",
        |mut c: Caller<Host>, src: u32, size: u32, dst: u32| {
            c.enter("cost_http_request_v2", AND_START, 10_000)?;
            let bytes = c.load(src, size)?;
            let Ok((parameters,)) = bounded::decode::<(HttpParameters,)>(&bytes) else {
                return c.contract("ic0_cost_http_request_v2: the parameters are not that record");
            };
            let cost = c.run().fees.http_request_v2(HttpUsage {
                request_bytes: parameters.request_bytes,
                roundtrip_ms: parameters.http_roundtrip_time_ms,
                raw_response_bytes: parameters.raw_response_bytes,
                transformed_response_bytes: parameters.transformed_response_bytes,
                transform_instructions: parameters.transform_instructions,
            });
            c.store_u128(dst, cost)
        },
    )?;
    Ok(())
}

/// The price of signing with keys that this network does not hold: whoever asks for the signature itself
/// is refused by the management canister.
fn define_signature_costs(linker: &mut Linker<Host>) -> Result<()> {
    /// Keys of the Internet Computer and of its local networks.
    const KEYS: [&[u8]; 3] = [b"key_1", b"test_key_1", b"dfx_test_key"];
    const UNKNOWN_CURVE: u32 = 1;
    const UNKNOWN_KEY: u32 = 2;
    for (name, curves) in [
        ("cost_sign_with_ecdsa", 1),
        ("cost_sign_with_schnorr", 2),
        ("cost_vetkd_derive_key", 1),
    ] {
        linker.func_wrap(
            "ic0",
            name,
            move |mut c: Caller<Host>, src: u32, size: u32, curve: u32, dst: u32| {
                c.enter(name, AND_START, BASE_COST + u64::from(size))?;
                let key = c.load(src, size)?;
                if curve >= curves {
                    return Ok(UNKNOWN_CURVE);
                }
                if !KEYS.contains(&key.as_slice()) {
                    return Ok(UNKNOWN_KEY);
                }
                let cost = c.run().fees.signature();
                c.store_u128(dst, cost)?;
                Ok(0)
            },
        )?;
    }
    Ok(())
}

//! The canister itself and the world around it.

use candid::Principal;
use wasmtime::{Caller, Linker, Result};

use super::{
    AND_START, BASE_COST, CALLBACK, COMPOSITE_CALLBACK, EVERYWHERE, Ic0, TASK, define_bytes,
};
use crate::machine::{
    Trap,
    host::{Host, Kind},
};

const WRITES: Kind = Kind::INIT
    .or(Kind::PRE_UPGRADE)
    .or(Kind::UPDATE)
    .or(CALLBACK)
    .or(TASK);
const REPLICATED: Kind = WRITES.or(Kind::REPLICATED_QUERY).or(Kind::CLEANUP);
const CERTIFIED_DATA_BYTES_MAX: u32 = 32;
/// Nodes of a subnet, as fees are reckoned.
const SUBNET_NODES: u32 = 13;

pub fn define(linker: &mut Linker<Host>) -> Result<()> {
    define_bytes(linker, "canister_self", EVERYWHERE, |run| {
        run.canister_id.as_slice().to_vec()
    })?;
    define_bytes(linker, "subnet_self", EVERYWHERE, |run| {
        run.subnet_id.as_slice().to_vec()
    })?;
    define_bytes(linker, "root_key", REPLICATED, |run| run.root_key.clone())?;
    define_certificate(linker)?;
    define_cycles(linker)?;
    define_costs(linker)?;
    define_environment(linker)?;
    define_writes(linker)?;

    macro_rules! number {
        ($name:literal, $allowed:expr, $cost:expr, |$run:ident| $value:expr) => {
            linker.func_wrap("ic0", $name, |mut c: Caller<Host>| {
                c.enter($name, $allowed, $cost)?;
                let $run = c.run();
                Ok($value)
            })?;
        };
    }
    number!("canister_status", EVERYWHERE, BASE_COST, |run| run.status);
    number!("canister_version", EVERYWHERE, BASE_COST, |run| run
        .canister_version);
    number!("subnet_self_node_count", EVERYWHERE, BASE_COST, |_run| {
        SUBNET_NODES
    });
    number!(
        "data_certificate_present",
        EVERYWHERE,
        BASE_COST,
        |run| run.certificate.is_some() as u32
    );
    number!("time", EVERYWHERE, BASE_COST, |run| run.time_ns);
    number!(
        "in_replicated_execution",
        AND_START,
        BASE_COST,
        |run| !run.kind.among(NOT_REPLICATED) as u32
    );

    linker.func_wrap(
        "ic0",
        "performance_counter",
        |mut c: Caller<Host>, counter: u32| {
            c.enter("performance_counter", AND_START, 200)?;
            let left = c.get_fuel()?;
            let run = c.run();
            let here = run.instructions_max.saturating_sub(left);
            match counter {
                0 => Ok(here),
                1 => Ok(run.instructions_before + here),
                _ => c.contract(format!(
                    "ic0_performance_counter: there is no counter {counter}"
                )),
            }
        },
    )?;
    linker.func_wrap(
        "ic0",
        "is_controller",
        |mut c: Caller<Host>, src: u32, size: u32| {
            c.enter("is_controller", AND_START, 1_000)?;
            match Principal::try_from_slice(&c.load(src, size)?) {
                Ok(principal) => Ok(c.run().controllers.contains(&principal) as u32),
                Err(_) => c.contract("ic0_is_controller: not a principal"),
            }
        },
    )?;
    linker.func_wrap(
        "ic0",
        "debug_print",
        |mut c: Caller<Host>, src: u32, size: u32| {
            c.enter("debug_print", AND_START, 100)?;
            let text = c.load(src, size)?;
            c.run().log(text);
            Ok(())
        },
    )?;
    linker.func_wrap(
        "ic0",
        "trap",
        |mut c: Caller<Host>, src: u32, size: u32| -> Result<()> {
            c.enter("trap", AND_START, BASE_COST)?;
            let text = c.load(src, size)?;
            c.run().log([b"[TRAP]: ", &text[..]].concat());
            c.trap(Trap::CalledTrap(
                String::from_utf8_lossy(&text).into_owned(),
            ))
        },
    )?;
    Ok(())
}

const NOT_REPLICATED: Kind = Kind::QUERY
    .or(Kind::COMPOSITE_QUERY)
    .or(COMPOSITE_CALLBACK)
    .or(Kind::COMPOSITE_CLEANUP)
    .or(Kind::INSPECT);

/// Queries of the canister that was asked get the certificate, and only there.
fn define_certificate(linker: &mut Linker<Host>) -> Result<()> {
    const ALLOWED: Kind = Kind::QUERY.or(Kind::COMPOSITE_QUERY);
    fn certificate(c: &mut Caller<Host>, name: &str) -> Result<Vec<u8>> {
        c.enter(name, ALLOWED, BASE_COST)?;
        match c.run().certificate.clone() {
            Some(certificate) => Ok(certificate),
            None => c.contract(format!("ic0_{name}: no certificate is present")),
        }
    }
    linker.func_wrap("ic0", "data_certificate_size", |mut c: Caller<Host>| {
        Ok(certificate(&mut c, "data_certificate_size")?.len() as u32)
    })?;
    linker.func_wrap(
        "ic0",
        "data_certificate_copy",
        |mut c: Caller<Host>, dst: u32, offset: u32, size: u32| {
            let bytes = certificate(&mut c, "data_certificate_copy")?;
            c.copy_out(&bytes, dst, offset, size)
        },
    )?;
    Ok(())
}

fn define_writes(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap(
        "ic0",
        "certified_data_set",
        |mut c: Caller<Host>, src: u32, size: u32| {
            c.enter("certified_data_set", WRITES, BASE_COST + u64::from(size))?;
            if size > CERTIFIED_DATA_BYTES_MAX {
                return c.contract(format!(
                    "ic0_certified_data_set: at most {CERTIFIED_DATA_BYTES_MAX} bytes"
                ));
            }
            let data = c.load(src, size)?;
            c.run().certified_data = Some(data);
            Ok(())
        },
    )?;
    linker.func_wrap(
        "ic0",
        "global_timer_set",
        |mut c: Caller<Host>, time_ns: u64| {
            c.enter("global_timer_set", WRITES.or(Kind::CLEANUP), BASE_COST)?;
            Ok(c.run().set_timer(time_ns))
        },
    )?;
    Ok(())
}

fn define_cycles(linker: &mut Linker<Host>) -> Result<()> {
    // Nothing is frozen yet: the liquid balance is the balance.
    for name in [
        "canister_cycle_balance128",
        "canister_liquid_cycle_balance128",
    ] {
        linker.func_wrap("ic0", name, move |mut c: Caller<Host>, dst: u32| {
            c.enter(name, EVERYWHERE, BASE_COST)?;
            let balance = c.run().balance;
            c.store_u128(dst, balance)
        })?;
    }
    linker.func_wrap("ic0", "canister_cycle_balance", |mut c: Caller<Host>| {
        c.enter("canister_cycle_balance", EVERYWHERE, BASE_COST)?;
        let balance = c.run().balance;
        match u64::try_from(balance) {
            Ok(balance) => Ok(balance),
            Err(_) => c.contract(format!(
                "ic0_canister_cycle_balance: {balance} cycles do not fit in 64 bits"
            )),
        }
    })?;
    linker.func_wrap(
        "ic0",
        "cycles_burn128",
        |mut c: Caller<Host>, high: u64, low: u64, dst: u32| {
            c.enter("cycles_burn128", REPLICATED, BASE_COST)?;
            let run = c.run();
            let burned = run.balance.min(u128::from(high) << 64 | u128::from(low));
            run.balance -= burned;
            c.store_u128(dst, burned)
        },
    )?;
    Ok(())
}

/// What things cost: nothing. This network charges no fees.
fn define_costs(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap(
        "ic0",
        "cost_call",
        |mut c: Caller<Host>, _name: u64, _payload: u64, dst: u32| {
            c.enter("cost_call", AND_START, BASE_COST)?;
            c.store_u128(dst, 0)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "cost_create_canister",
        |mut c: Caller<Host>, dst: u32| {
            c.enter("cost_create_canister", AND_START, BASE_COST)?;
            c.store_u128(dst, 0)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "cost_http_request",
        |mut c: Caller<Host>, _size: u64, _max: u64, dst: u32| {
            c.enter("cost_http_request", AND_START, BASE_COST)?;
            c.store_u128(dst, 0)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "cost_http_request_v2",
        |mut c: Caller<Host>, _src: u32, _size: u32, dst: u32| {
            c.enter("cost_http_request_v2", AND_START, BASE_COST)?;
            c.store_u128(dst, 0)
        },
    )?;
    // There are no threshold keys here, so that every name of one is unknown: 2.
    for name in [
        "cost_sign_with_ecdsa",
        "cost_sign_with_schnorr",
        "cost_vetkd_derive_key",
    ] {
        linker.func_wrap(
            "ic0",
            name,
            move |mut c: Caller<Host>, _: u32, _: u32, _: u32, _: u32| {
                c.enter(name, AND_START, BASE_COST)?;
                Ok(2u32)
            },
        )?;
    }
    Ok(())
}

fn define_environment(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("ic0", "env_var_count", |mut c: Caller<Host>| {
        c.enter("env_var_count", EVERYWHERE, BASE_COST)?;
        Ok(c.run().environment.len() as u32)
    })?;
    linker.func_wrap(
        "ic0",
        "env_var_name_size",
        |mut c: Caller<Host>, index: u32| {
            c.enter("env_var_name_size", EVERYWHERE, BASE_COST)?;
            Ok(name_at(&mut c, index)?.len() as u32)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "env_var_name_copy",
        |mut c: Caller<Host>, index: u32, dst: u32, offset: u32, size: u32| {
            c.enter("env_var_name_copy", EVERYWHERE, BASE_COST)?;
            let name = name_at(&mut c, index)?;
            c.copy_out(name.as_bytes(), dst, offset, size)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "env_var_name_exists",
        |mut c: Caller<Host>, src: u32, size: u32| {
            c.enter("env_var_name_exists", EVERYWHERE, BASE_COST)?;
            let name = c.load(src, size)?;
            Ok(c.run().environment.keys().any(|key| key.as_bytes() == name) as u32)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "env_var_value_size",
        |mut c: Caller<Host>, src: u32, size: u32| {
            c.enter("env_var_value_size", EVERYWHERE, BASE_COST)?;
            Ok(value_of(&mut c, src, size)?.len() as u32)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "env_var_value_copy",
        |mut c: Caller<Host>, src: u32, name_size: u32, dst: u32, offset: u32, size: u32| {
            c.enter("env_var_value_copy", EVERYWHERE, BASE_COST)?;
            let value = value_of(&mut c, src, name_size)?;
            c.copy_out(value.as_bytes(), dst, offset, size)
        },
    )?;
    Ok(())
}

fn name_at(c: &mut Caller<Host>, index: u32) -> Result<String> {
    match c.run().environment.keys().nth(index as usize).cloned() {
        Some(name) => Ok(name),
        None => c.contract(format!("there is no environment variable {index}")),
    }
}

fn value_of(c: &mut Caller<Host>, src: u32, size: u32) -> Result<String> {
    let name = c.load(src, size)?;
    match c
        .run()
        .environment
        .iter()
        .find(|(key, _)| key.as_bytes() == name)
        .map(|(_, value)| value.clone())
    {
        Some(value) => Ok(value),
        None => c.contract("there is no such environment variable"),
    }
}

//! The canister itself and the world around it.

use candid::Principal;
use wasmtime::{Caller, Linker, Result};

use super::{
    AND_START, BASE_COST, CALLBACK, COMPOSITE_CALLBACK, EVERYWHERE, Ic0, TASK, define_bytes,
};
use crate::machine::host::{Host, Kind};

const WRITES: Kind = Kind::INIT
    .or(Kind::PRE_UPGRADE)
    .or(Kind::UPDATE)
    .or(CALLBACK)
    .or(TASK);
pub(super) const REPLICATED: Kind = WRITES.or(Kind::REPLICATED_QUERY).or(Kind::CLEANUP);
const NOT_REPLICATED: Kind = Kind::QUERY
    .or(Kind::COMPOSITE_QUERY)
    .or(COMPOSITE_CALLBACK)
    .or(Kind::COMPOSITE_CLEANUP)
    .or(Kind::INSPECT);
const CERTIFIED_DATA_BYTES_MAX: u32 = 32;

pub fn define(linker: &mut Linker<Host>) -> Result<()> {
    define_bytes(linker, "canister_self", EVERYWHERE, |run| {
        run.canister_id.as_slice().to_vec()
    })?;
    define_bytes(linker, "subnet_self", EVERYWHERE, |run| {
        run.subnet_id.as_slice().to_vec()
    })?;
    define_bytes(linker, "root_key", REPLICATED, |run| run.root_key.clone())?;
    define_certificate(linker)?;
    define_writes(linker)?;

    macro_rules! number {
        ($name:literal, $allowed:expr, |$run:ident| $value:expr) => {
            linker.func_wrap("ic0", $name, |mut c: Caller<Host>| {
                c.enter($name, $allowed, BASE_COST)?;
                let $run = c.run();
                Ok($value)
            })?;
        };
    }
    number!("canister_status", EVERYWHERE, |run| run.status);
    number!("canister_version", EVERYWHERE, |run| run.canister_version);
    number!("subnet_self_node_count", EVERYWHERE, |run| run.fees.nodes);
    number!(
        "data_certificate_present",
        EVERYWHERE,
        |run| run.certificate.is_some() as u32
    );
    number!("time", EVERYWHERE, |run| run.time_ns);
    number!(
        "in_replicated_execution",
        AND_START,
        |run| !run.kind.among(NOT_REPLICATED) as u32
    );

    linker.func_wrap("ic0", "performance_counter", performance_counter)?;
    linker.func_wrap(
        "ic0",
        "is_controller",
        |mut c: Caller<Host>, src: u32, size: u32| {
            c.enter("is_controller", AND_START, 1_000 + u64::from(size))?;
            match Principal::try_from_slice(&c.load(src, size)?) {
                Ok(principal) => Ok(c.run().controllers.contains(&principal) as u32),
                Err(_) => c.contract("ic0_is_controller: not a principal"),
            }
        },
    )?;
    Ok(())
}

/// 0: this execution; 1: everything in its call context. Dirty pages of the heap are counted when the
/// execution is over, and so not seen here.
fn performance_counter(mut c: Caller<Host>, counter: u32) -> Result<u64> {
    c.enter("performance_counter", AND_START, 200)?;
    let left = c.get_fuel()?;
    let run = c.run();
    let here = run.fuel_at_start.saturating_sub(left);
    match counter {
        0 => Ok(here),
        1 => Ok(run.instructions_before + here),
        _ => c.contract(format!(
            "ic0_performance_counter: there is no counter {counter}"
        )),
    }
}

/// Queries of the canister that was asked get the certificate, and only there.
fn define_certificate(linker: &mut Linker<Host>) -> Result<()> {
    const ALLOWED: Kind = Kind::QUERY.or(Kind::COMPOSITE_QUERY);
    fn certificate(c: &mut Caller<Host>, name: &str, cost: u64) -> Result<Vec<u8>> {
        c.enter(name, ALLOWED, cost)?;
        match c.run().certificate.clone() {
            Some(certificate) => Ok(certificate),
            None => c.contract(format!("ic0_{name}: no certificate is present")),
        }
    }
    linker.func_wrap("ic0", "data_certificate_size", |mut c: Caller<Host>| {
        Ok(certificate(&mut c, "data_certificate_size", BASE_COST)?.len() as u32)
    })?;
    linker.func_wrap(
        "ic0",
        "data_certificate_copy",
        |mut c: Caller<Host>, dst: u32, offset: u32, size: u32| {
            let cost = BASE_COST + u64::from(size);
            let bytes = certificate(&mut c, "data_certificate_copy", cost)?;
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

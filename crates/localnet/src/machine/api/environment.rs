//! Environment variables of the canister.

use wasmtime::{Caller, Linker, Result};

use super::{BASE_COST, EVERYWHERE, Ic0};
use crate::machine::host::Host;

/// Bytes of a name, as in the Internet Computer.
const NAME_BYTES_MAX: u32 = 128;

pub fn define(linker: &mut Linker<Host>) -> Result<()> {
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
            let cost = BASE_COST + u64::from(size);
            c.enter("env_var_name_copy", EVERYWHERE, cost)?;
            let name = name_at(&mut c, index)?;
            c.copy_out(name.as_bytes(), dst, offset, size)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "env_var_name_exists",
        |mut c: Caller<Host>, src: u32, size: u32| {
            c.enter("env_var_name_exists", EVERYWHERE, BASE_COST)?;
            let name = load_name(&mut c, "env_var_name_exists", src, size)?;
            Ok(c.run().environment.contains_key(&name) as u32)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "env_var_value_size",
        |mut c: Caller<Host>, src: u32, size: u32| {
            c.enter("env_var_value_size", EVERYWHERE, BASE_COST)?;
            Ok(value_of(&mut c, "env_var_value_size", src, size)?.len() as u32)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "env_var_value_copy",
        |mut c: Caller<Host>, src: u32, name_size: u32, dst: u32, offset: u32, size: u32| {
            let cost = BASE_COST + u64::from(size);
            c.enter("env_var_value_copy", EVERYWHERE, cost)?;
            let value = value_of(&mut c, "env_var_value_copy", src, name_size)?;
            c.copy_out(value.as_bytes(), dst, offset, size)
        },
    )?;
    Ok(())
}

fn name_at(c: &mut Caller<Host>, index: u32) -> Result<String> {
    let environment = &c.run().environment;
    let count = environment.len();
    match environment.keys().nth(index as usize).cloned() {
        Some(name) => Ok(name),
        None => c.contract(format!(
            "there is no environment variable {index} of {count}"
        )),
    }
}

fn load_name(c: &mut Caller<Host>, import: &str, src: u32, size: u32) -> Result<String> {
    if size > NAME_BYTES_MAX {
        return c.contract(format!(
            "ic0_{import}: a name has at most {NAME_BYTES_MAX} bytes, not {size}"
        ));
    }
    match String::from_utf8(c.load(src, size)?) {
        Ok(name) => Ok(name),
        Err(_) => c.contract(format!("ic0_{import}: the name is not UTF-8")),
    }
}

fn value_of(c: &mut Caller<Host>, import: &str, src: u32, size: u32) -> Result<String> {
    let name = load_name(c, import, src, size)?;
    match c.run().environment.get(&name).cloned() {
        Some(value) => Ok(value),
        None => c.contract(format!("there is no environment variable '{name}'")),
    }
}

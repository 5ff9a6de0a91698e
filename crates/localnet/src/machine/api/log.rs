//! What the canister says to its owner: log lines, and why it gives up.

use wasmtime::{Caller, Linker, Result};

use super::{AND_START, BASE_COST, Ic0, PAYLOAD_BYTE_COST};
use crate::machine::{Trap, host::Host};

/// Bytes of its log that a message pays for; more is not carried.
const LOG_BYTES_MAX: u64 = 4_096;

pub fn define(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap(
        "ic0",
        "debug_print",
        |mut c: Caller<Host>, src: u32, size: u32| {
            let cost = 100 + log_cost(&mut c, size);
            c.enter("debug_print", AND_START, cost)?;
            let text = readable(&mut c, src, size);
            c.run().log(text);
            Ok(())
        },
    )?;
    linker.func_wrap(
        "ic0",
        "trap",
        |mut c: Caller<Host>, src: u32, size: u32| -> Result<()> {
            let cost = BASE_COST + u64::from(size) + log_cost(&mut c, size);
            c.enter("trap", AND_START, cost)?;
            let text = readable(&mut c, src, size);
            c.run().log([b"[TRAP]: ", &text[..]].concat());
            c.trap(Trap::CalledTrap(
                String::from_utf8_lossy(&text).into_owned(),
            ))
        },
    )?;
    Ok(())
}

/// Room is made for the line and taken by it (2 a byte), and it leaves the canister.
fn log_cost(c: &mut Caller<Host>, size: u32) -> u64 {
    let size = u64::from(size);
    let logged: u64 = c.run().logs.iter().map(|line| line.text.len() as u64).sum();
    2 * size.min(LOG_BYTES_MAX) + PAYLOAD_BYTE_COST * size.min(LOG_BYTES_MAX.saturating_sub(logged))
}

/// Neither import traps for a text that lies outside of the heap.
fn readable(c: &mut Caller<Host>, src: u32, size: u32) -> Vec<u8> {
    match c.peek(src, size) {
        Some(text) => text,
        None => b"(message out of memory bounds)".to_vec(),
    }
}

//! The System API: what canisters import from `ic0`.
//!
//! Each import is allowed in some kinds of execution only, as the interface specification says; anywhere
//! else it traps. Costs are those of the Internet Computer: a base for each call, and so much a byte.

mod call;
mod canister;
mod cycles;
mod environment;
mod log;
mod message;
mod stable;

use wasmtime::{Caller, Error, Linker, Result};

use super::{
    Trap,
    host::{Host, Kind, Run},
};

/// Heartbeat, global timer, `canister_on_low_wasm_memory`.
const TASK: Kind = Kind::HEARTBEAT.or(Kind::TIMER).or(Kind::LOW_WASM_MEMORY);
/// Callbacks of calls that an update, a task or a callback made.
const CALLBACK: Kind = Kind::REPLY_CALLBACK.or(Kind::REJECT_CALLBACK);
const COMPOSITE_CALLBACK: Kind = Kind::COMPOSITE_REPLY.or(Kind::COMPOSITE_REJECT);
/// Where a call may be answered.
const MESSAGE: Kind = Kind::UPDATE
    .or(Kind::REPLICATED_QUERY)
    .or(Kind::QUERY)
    .or(Kind::COMPOSITE_QUERY)
    .or(CALLBACK)
    .or(COMPOSITE_CALLBACK);
/// What the specification writes `*`: everywhere but in the start function.
const EVERYWHERE: Kind = Kind::INIT
    .or(Kind::PRE_UPGRADE)
    .or(MESSAGE)
    .or(Kind::CLEANUP)
    .or(Kind::COMPOSITE_CLEANUP)
    .or(Kind::INSPECT)
    .or(TASK);
const AND_START: Kind = EVERYWHERE.or(Kind::START);

/// What nearly every import costs, in instructions. Source of all costs of imports: the replica's
/// `system_api_complexity.rs` and `linker.rs`.
const BASE_COST: u64 = 500;
/// A byte that leaves the canister: of a reply, of a call's argument, of a log line.
const PAYLOAD_BYTE_COST: u64 = 50;

/// Defines every import.
pub fn define(linker: &mut Linker<Host>) -> Result<()> {
    message::define(linker)?;
    call::define(linker)?;
    canister::define(linker)?;
    cycles::define(linker)?;
    environment::define(linker)?;
    log::define(linker)?;
    stable::define(linker)
}

/// What the imports need of a caller.
trait Ic0 {
    /// Charges the import, and traps where it is not allowed.
    fn enter(&mut self, name: &str, allowed: Kind, cost: u64) -> Result<()>;
    fn run(&mut self) -> &mut Run;
    fn trap<T>(&mut self, trap: Trap) -> Result<T>;
    fn contract<T>(&mut self, text: impl Into<String>) -> Result<T> {
        self.trap(Trap::Contract(text.into()))
    }
    fn charge(&mut self, instructions: u64) -> Result<()>;
    /// Bytes of the heap, where they are all in it.
    fn peek(&mut self, at: u32, len: u32) -> Option<Vec<u8>>;
    /// Bytes of the heap.
    fn load(&mut self, at: u32, len: u32) -> Result<Vec<u8>> {
        match self.peek(at, len) {
            Some(bytes) => Ok(bytes),
            None => self.contract(format!("heap out of bounds: {len} bytes at {at}")),
        }
    }
    fn store(&mut self, at: u32, bytes: &[u8]) -> Result<()>;
    /// Copies `bytes[offset..offset + len]` to the heap.
    fn copy_out(&mut self, bytes: &[u8], to: u32, offset: u32, len: u32) -> Result<()>;
    fn store_u128(&mut self, at: u32, value: u128) -> Result<()> {
        self.store(at, &value.to_le_bytes())
    }
}

impl Ic0 for Caller<'_, Host> {
    fn enter(&mut self, name: &str, allowed: Kind, cost: u64) -> Result<()> {
        self.charge(cost)?;
        let kind = self.run().kind;
        if !kind.among(allowed) {
            return self.contract(format!(
                "\"ic0_{name}\" cannot be executed in {} mode",
                kind.name()
            ));
        }
        Ok(())
    }

    fn run(&mut self) -> &mut Run {
        &mut self.data_mut().run
    }

    fn trap<T>(&mut self, trap: Trap) -> Result<T> {
        self.run().trap = Some(trap.clone());
        Err(Error::new(trap))
    }

    fn charge(&mut self, instructions: u64) -> Result<()> {
        match self.get_fuel()?.checked_sub(instructions) {
            Some(left) => self.set_fuel(left),
            None => {
                self.set_fuel(0)?;
                let max = self.run().instructions_max;
                self.trap(Trap::InstructionLimit { max })
            }
        }
    }

    fn peek(&mut self, at: u32, len: u32) -> Option<Vec<u8>> {
        let memory = self.data().memory?;
        let range = at as usize..at as usize + len as usize;
        memory.data(&*self).get(range).map(<[u8]>::to_vec)
    }

    fn store(&mut self, at: u32, bytes: &[u8]) -> Result<()> {
        let range = at as usize..at as usize + bytes.len();
        let memory = self.data().memory;
        match memory.and_then(|memory| memory.data_mut(&mut *self).get_mut(range)) {
            Some(part) => {
                part.copy_from_slice(bytes);
                Ok(())
            }
            None => self.contract(format!("heap out of bounds: {} bytes at {at}", bytes.len())),
        }
    }

    fn copy_out(&mut self, bytes: &[u8], to: u32, offset: u32, len: u32) -> Result<()> {
        match bytes.get(offset as usize..offset as usize + len as usize) {
            Some(part) => self.store(to, part),
            None => self.contract(format!(
                "{len} bytes from {offset} of data that has {}",
                bytes.len()
            )),
        }
    }
}

/// Two halves of a number of 128 bits.
fn join(high: u64, low: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// Defines `NAME_size() -> i32` and `NAME_copy(dst, offset, size)` for bytes that `get` finds.
fn define_bytes(
    linker: &mut Linker<Host>,
    name: &'static str,
    allowed: Kind,
    get: impl Fn(&Run) -> Vec<u8> + Copy + Send + Sync + 'static,
) -> Result<()> {
    let (size_name, copy_name) = (format!("{name}_size"), format!("{name}_copy"));
    linker.func_wrap("ic0", &size_name.clone(), move |mut c: Caller<Host>| {
        c.enter(&size_name, allowed, BASE_COST)?;
        Ok(get(c.run()).len() as u32)
    })?;
    linker.func_wrap(
        "ic0",
        &copy_name.clone(),
        move |mut c: Caller<Host>, dst: u32, offset: u32, size: u32| {
            c.enter(&copy_name, allowed, BASE_COST + u64::from(size))?;
            let bytes = get(c.run());
            c.copy_out(&bytes, dst, offset, size)
        },
    )?;
    Ok(())
}

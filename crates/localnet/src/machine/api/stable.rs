//! Stable memory, with 64-bit addresses and with the 32-bit ones of old.

use wasmtime::{Caller, Linker, Result};

use super::{AND_START, Ic0};
use crate::machine::{STABLE_PAGE_BYTES, host::Host};

/// Reading and writing cost less than other imports.
const ACCESS_COST: u64 = 20;
/// Above this many pages, 32-bit addresses do not reach everything.
const PAGES_32_MAX: u64 = (1 << 32) / STABLE_PAGE_BYTES;

pub fn define(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("ic0", "stable64_size", |mut c: Caller<Host>| {
        c.enter("stable64_size", AND_START, ACCESS_COST)?;
        Ok(c.data().stable.size_pages())
    })?;
    linker.func_wrap("ic0", "stable64_grow", |mut c: Caller<Host>, pages: u64| {
        c.enter("stable64_grow", AND_START, super::BASE_COST)?;
        Ok(c.data_mut().stable.grow(pages).unwrap_or(u64::MAX))
    })?;
    linker.func_wrap(
        "ic0",
        "stable64_write",
        |mut c: Caller<Host>, offset: u64, src: u64, size: u64| {
            write(&mut c, "stable64_write", offset, src, size)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "stable64_read",
        |mut c: Caller<Host>, dst: u64, offset: u64, size: u64| {
            read(&mut c, "stable64_read", dst, offset, size)
        },
    )?;
    linker.func_wrap("ic0", "stable_size", |mut c: Caller<Host>| {
        c.enter("stable_size", AND_START, ACCESS_COST)?;
        within_32_bits(&mut c, "stable_size")?;
        Ok(c.data().stable.size_pages() as u32)
    })?;
    linker.func_wrap("ic0", "stable_grow", |mut c: Caller<Host>, pages: u32| {
        c.enter("stable_grow", AND_START, super::BASE_COST)?;
        within_32_bits(&mut c, "stable_grow")?;
        let stable = &mut c.data_mut().stable;
        if stable.size_pages() + u64::from(pages) > PAGES_32_MAX {
            return Ok(u32::MAX);
        }
        Ok(stable
            .grow(u64::from(pages))
            .map_or(u32::MAX, |old| old as u32))
    })?;
    linker.func_wrap(
        "ic0",
        "stable_write",
        |mut c: Caller<Host>, offset: u32, src: u32, size: u32| {
            within_32_bits(&mut c, "stable_write")?;
            write(
                &mut c,
                "stable_write",
                offset.into(),
                src.into(),
                size.into(),
            )
        },
    )?;
    linker.func_wrap(
        "ic0",
        "stable_read",
        |mut c: Caller<Host>, dst: u32, offset: u32, size: u32| {
            within_32_bits(&mut c, "stable_read")?;
            read(
                &mut c,
                "stable_read",
                dst.into(),
                offset.into(),
                size.into(),
            )
        },
    )?;
    Ok(())
}

fn within_32_bits(c: &mut Caller<Host>, name: &str) -> Result<()> {
    if c.data().stable.size_pages() > PAGES_32_MAX {
        return c.contract(format!(
            "ic0_{name}: stable memory is beyond 32-bit addresses"
        ));
    }
    Ok(())
}

/// The place of `size` bytes at `at` in the heap.
fn heap_range(
    c: &mut Caller<Host>,
    name: &str,
    at: u64,
    size: u64,
) -> Result<std::ops::Range<usize>> {
    let end = at.checked_add(size).filter(|end| {
        let len = c.data().memory.map_or(0, |memory| memory.data_size(&*c));
        *end <= len as u64
    });
    match end {
        Some(end) => Ok(at as usize..end as usize),
        None => c.contract(format!(
            "ic0_{name}: heap out of bounds: {size} bytes at {at}"
        )),
    }
}

fn write(c: &mut Caller<Host>, name: &str, offset: u64, src: u64, size: u64) -> Result<()> {
    c.enter(name, AND_START, ACCESS_COST.saturating_add(size))?;
    let range = heap_range(c, name, src, size)?;
    let Some(memory) = c.data().memory else {
        return Ok(());
    };
    let (heap, host) = memory.data_and_store_mut(&mut *c);
    match host.stable.write(offset, &heap[range]) {
        Ok(()) => Ok(()),
        Err(_) => c.contract(format!(
            "ic0_{name}: stable memory out of bounds: {size} bytes at {offset}"
        )),
    }
}

fn read(c: &mut Caller<Host>, name: &str, dst: u64, offset: u64, size: u64) -> Result<()> {
    c.enter(name, AND_START, ACCESS_COST.saturating_add(size))?;
    let range = heap_range(c, name, dst, size)?;
    let Some(memory) = c.data().memory else {
        return Ok(());
    };
    let (heap, host) = memory.data_and_store_mut(&mut *c);
    match host.stable.read(offset, &mut heap[range]) {
        Ok(()) => Ok(()),
        Err(_) => c.contract(format!(
            "ic0_{name}: stable memory out of bounds: {size} bytes at {offset}"
        )),
    }
}

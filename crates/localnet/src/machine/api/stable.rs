//! Stable memory, with 64-bit addresses and with the 32-bit ones of old.

use wasmtime::{Caller, Linker, Result};

use super::{AND_START, BASE_COST, Ic0};
use crate::machine::{
    DIRTY_PAGE_BYTES, STABLE_PAGE_BYTES, StableAccess, Trap,
    host::{Host, Kind},
    run::DIRTY_PAGE_COST,
    stable::pages_of,
};

/// Reading and writing cost less than other imports, but for so much a byte.
const ACCESS_COST: u64 = 20;
/// Above this many pages, 32-bit addresses do not reach everything.
const PAGES_32_MAX: u64 = (1 << 32) / STABLE_PAGE_BYTES;

/// How much of stable memory one message may write, or touch at all.
const GIB_PAGES: u64 = (1 << 30) / DIRTY_PAGE_BYTES;
const QUERIES: Kind = Kind::QUERY
    .or(Kind::COMPOSITE_QUERY)
    .or(Kind::COMPOSITE_REPLY)
    .or(Kind::COMPOSITE_REJECT)
    .or(Kind::COMPOSITE_CLEANUP)
    .or(Kind::INSPECT);
const INSTALLATIONS: Kind = Kind::START.or(Kind::INIT).or(Kind::PRE_UPGRADE);

pub fn define(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("ic0", "stable64_size", |mut c: Caller<Host>| {
        c.enter("stable64_size", AND_START, ACCESS_COST)?;
        Ok(c.data().stable.size_pages())
    })?;
    linker.func_wrap("ic0", "stable64_grow", |mut c: Caller<Host>, pages: u64| {
        c.enter("stable64_grow", AND_START, BASE_COST)?;
        Ok(grow(&mut c, pages)?.unwrap_or(u64::MAX))
    })?;
    linker.func_wrap(
        "ic0",
        "stable64_write",
        |mut c: Caller<Host>, offset: u64, src: u64, size: u64| {
            c.enter(
                "stable64_write",
                AND_START,
                ACCESS_COST.saturating_add(size),
            )?;
            write(&mut c, offset, src, size)
        },
    )?;
    linker.func_wrap(
        "ic0",
        "stable64_read",
        |mut c: Caller<Host>, dst: u64, offset: u64, size: u64| {
            c.enter("stable64_read", AND_START, ACCESS_COST.saturating_add(size))?;
            read(&mut c, dst, offset, size)
        },
    )?;
    define_32(linker)
}

fn define_32(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("ic0", "stable_size", |mut c: Caller<Host>| {
        c.enter("stable_size", AND_START, ACCESS_COST)?;
        within_32_bits(&mut c)?;
        Ok(c.data().stable.size_pages() as u32)
    })?;
    linker.func_wrap("ic0", "stable_grow", |mut c: Caller<Host>, pages: u32| {
        c.enter("stable_grow", AND_START, BASE_COST)?;
        within_32_bits(&mut c)?;
        if c.data().stable.size_pages() + u64::from(pages) > PAGES_32_MAX {
            return Ok(u32::MAX);
        }
        Ok(grow(&mut c, u64::from(pages))?.map_or(u32::MAX, |old| old as u32))
    })?;
    linker.func_wrap(
        "ic0",
        "stable_write",
        |mut c: Caller<Host>, offset: u32, src: u32, size: u32| {
            c.enter("stable_write", AND_START, ACCESS_COST + u64::from(size))?;
            within_32_bits(&mut c)?;
            write(&mut c, offset.into(), src.into(), size.into())
        },
    )?;
    linker.func_wrap(
        "ic0",
        "stable_read",
        |mut c: Caller<Host>, dst: u32, offset: u32, size: u32| {
            c.enter("stable_read", AND_START, ACCESS_COST + u64::from(size))?;
            within_32_bits(&mut c)?;
            read(&mut c, dst.into(), offset.into(), size.into())
        },
    )?;
    Ok(())
}

fn within_32_bits(c: &mut Caller<Host>) -> Result<()> {
    if c.data().stable.size_pages() > PAGES_32_MAX {
        return c.trap(Trap::Wasm(
            "32 bit stable memory api used on a memory larger than 4GB".into(),
        ));
    }
    Ok(())
}

/// The size before, or none where memory cannot grow so far.
fn grow(c: &mut Caller<Host>, pages: u64) -> Result<Option<u64>> {
    let host = c.data_mut();
    if !host.stable.has_room(pages) {
        return Ok(None);
    }
    match host.run.grow(pages * STABLE_PAGE_BYTES) {
        Ok(true) => Ok(host.stable.grow(pages)),
        Ok(false) => Ok(None),
        Err(trap) => c.trap(trap),
    }
}

/// The place of `size` bytes at `at` in the heap.
fn heap_range(c: &mut Caller<Host>, at: u64, size: u64) -> Result<std::ops::Range<usize>> {
    let end = at.checked_add(size).filter(|end| {
        let len = c.data().memory.map_or(0, |memory| memory.data_size(&*c));
        *end <= len as u64
    });
    match end {
        Some(end) => Ok(at as usize..end as usize),
        None => c.trap(Trap::Wasm("heap out of bounds".into())),
    }
}

/// Notes that these bytes of stable memory are touched, within the limits of the message.
fn touch(c: &mut Caller<Host>, access: StableAccess, offset: u64, size: u64) -> Result<()> {
    let host = c.data_mut();
    if host.stable.check(offset, size).is_err() {
        return c.trap(Trap::Wasm("stable memory out of bounds".into()));
    }
    let kind = host.run.kind;
    let pages_max = if kind.among(QUERIES) {
        GIB_PAGES
    } else if kind.among(INSTALLATIONS) {
        8 * GIB_PAGES
    } else {
        2 * GIB_PAGES
    };
    let new = match access {
        StableAccess::Written => host.stable.newly_dirty(offset, size),
        StableAccess::Read => 0,
    };
    if host.stable.dirty_pages() + new > pages_max {
        return c.trap(Trap::StableAccessLimit { access, pages_max });
    }
    host.run.stable_access.note(pages_of(offset, size));
    if host.run.stable_access.pages() > pages_max {
        return c.trap(Trap::StableAccessLimit {
            access: StableAccess::Read,
            pages_max,
        });
    }
    c.charge(new * DIRTY_PAGE_COST)
}

fn write(c: &mut Caller<Host>, offset: u64, src: u64, size: u64) -> Result<()> {
    let range = heap_range(c, src, size)?;
    touch(c, StableAccess::Written, offset, size)?;
    let Some(memory) = c.data().memory else {
        return Ok(());
    };
    let (heap, host) = memory.data_and_store_mut(&mut *c);
    host.run.stable_access.bytes_written += size;
    host.stable
        .write(offset, &heap[range])
        .expect("the bounds are checked");
    Ok(())
}

fn read(c: &mut Caller<Host>, dst: u64, offset: u64, size: u64) -> Result<()> {
    let range = heap_range(c, dst, size)?;
    touch(c, StableAccess::Read, offset, size)?;
    let Some(memory) = c.data().memory else {
        return Ok(());
    };
    let (heap, host) = memory.data_and_store_mut(&mut *c);
    host.run.stable_access.bytes_read += size;
    host.stable
        .read(offset, &mut heap[range])
        .expect("the bounds are checked");
    Ok(())
}

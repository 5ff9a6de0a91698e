//! A heap that the kernel copies on write.
//!
//! The committed heap is a file in memory. The live one is a private mapping of it, so that the first
//! write to a page copies that page and the file stays as it is. The process's page map tells private pages
//! from the file's; to undo is to forget the private ones, to keep is to write them to the file.

use std::{
    cell::RefCell, ffi::c_void, fs::File, io, os::unix::fs::FileExt, ptr, slice, sync::Arc,
    sync::OnceLock, sync::atomic::AtomicUsize, sync::atomic::Ordering,
};

use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mprotect, munmap},
};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use super::{PAGE, Pages, range};

/// So many pages stay private between executions: messages write to the same pages again, and to copy them
/// is cheaper than to fault them in.
const RETAINED_MAX: usize = 4_096;
/// If there are more, those stay that the last execution changed: each is compared after every execution.
const RETAINED_UNCHANGED_MAX: usize = 64;

/// The heap of one instance after the other.
pub struct Mapped {
    mapping: Arc<Mapping>,
    committed: usize,
}

impl Mapped {
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `file` maps at least `committed` bytes, readable as long as the mapping lives. Only
        // `keep` writes to it, through `&mut self`; private mappings of the file never do.
        unsafe { slice::from_raw_parts(self.mapping.file.start, self.committed) }
    }

    pub fn keep(&mut self, live: &mut [u8], pages: &Pages) {
        self.committed = live.len();
        // SAFETY: as in `bytes`; `&mut self` makes this slice the only one.
        let file = unsafe { slice::from_raw_parts_mut(self.mapping.file.start, self.committed) };
        for range in pages.changed.iter().copied().map(range) {
            file[range.clone()].copy_from_slice(&live[range]);
        }
        release(live, pages);
    }
}

/// Forgets private pages that are as they were committed, where there are too many to look at them again.
pub fn release(live: &mut [u8], pages: &Pages) {
    let Pages { touched, changed } = pages;
    if changed.len() > RETAINED_MAX {
        forget_pages(live, touched);
    } else if touched.len() - changed.len() > RETAINED_UNCHANGED_MAX {
        let mut changed = changed.iter().peekable();
        let unchanged: Vec<_> = touched
            .iter()
            .filter(|page| changed.next_if_eq(page).is_none())
            .copied()
            .collect();
        forget_pages(live, &unchanged);
    }
}

fn forget_pages(live: &mut [u8], pages: &[usize]) {
    for run in pages.chunk_by(|one, next| one + 1 == *next) {
        forget(&mut live[range(run[0]).start..range(run[run.len() - 1]).end]);
    }
}

/// Makes private pages of a heap the file's again.
fn forget(bytes: &mut [u8]) {
    // SAFETY: the bytes are whole pages of a private mapping of a file, and `bytes` is the only reference
    // to them; afterwards they read as the file, which is as long.
    unsafe {
        madvise(
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            Advice::LinuxDontNeed,
        )
    }
    .expect("whole pages of a mapping can be forgotten");
}

/// Pages of a heap that are private: written to since they were last forgotten.
pub fn private_pages(live: &[u8]) -> Vec<usize> {
    const ENTRY: usize = size_of::<u64>();
    const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;
    const OF_A_FILE: u64 = 1 << 61;
    let map = page_map().expect("it was there when the heap was made");
    let pages = live.len() / PAGE;
    let first = live.as_ptr() as usize / PAGE;
    let mut entries = vec![0; pages.min(8_192) * ENTRY];
    let mut private = vec![];
    let mut page = 0;
    while page < pages {
        let part = &mut entries[..(pages - page).min(8_192) * ENTRY];
        map.read_exact_at(part, ((first + page) * ENTRY) as u64)
            .expect("a process may read its own page map");
        for (index, entry) in part.as_chunks::<ENTRY>().0.iter().enumerate() {
            let entry = u64::from_ne_bytes(*entry);
            if entry & PRESENT_OR_SWAPPED != 0 && entry & OF_A_FILE == 0 {
                private.push(page + index);
            }
        }
        page += part.len() / ENTRY;
    }
    private
}

fn page_map() -> Option<&'static File> {
    static PAGE_MAP: OnceLock<Option<File>> = OnceLock::new();
    PAGE_MAP
        .get_or_init(|| File::open("/proc/self/pagemap").ok())
        .as_ref()
}

/// Whether heaps of this kind can be had: pages are of the size that is charged, files in memory are
/// allowed, and the page map tells what it must.
pub fn works() -> bool {
    let try_it = || -> io::Result<bool> {
        let mapping = Mapping::new(4 * PAGE, PAGE)?;
        mapping.open_to(4 * PAGE)?;
        // SAFETY: the mapping is that long, writable, and nobody else's.
        let live = unsafe { slice::from_raw_parts_mut(mapping.live.start, 4 * PAGE) };
        let read = live[0] == 0 && live[2 * PAGE] == 0;
        live[PAGE] = 1;
        let written = private_pages(live) == [1];
        forget(live);
        Ok(read && written && live[PAGE] == 0 && private_pages(live).is_empty())
    };
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        rustix::param::page_size() == PAGE
            && page_map().is_some_and(|map| {
                let here = &raw const map as usize / PAGE * size_of::<u64>();
                map.read_exact_at(&mut [0; 8], here as u64).is_ok()
            })
            && try_it().unwrap_or(false)
    })
}

/// A range of addresses that is unmapped in the end.
struct Span {
    start: *mut u8,
    len: usize,
}

impl Drop for Span {
    fn drop(&mut self) {
        // SAFETY: the span owns these addresses, and whoever held it is gone.
        unsafe { munmap(self.start.cast(), self.len) }.expect("a mapping can be unmapped");
    }
}

/// A file in memory, mapped twice.
struct Mapping {
    /// Shared: what is committed.
    file: Span,
    /// Private: what Wasm sees. Only the first `open` bytes are accessible; the rest, and a guard behind
    /// the file's end, trap.
    live: Span,
    open: AtomicUsize,
    capacity: usize,
}

// SAFETY: the pointers are to mappings that the value owns alone. What lies in `live` is accessed through
// the instance that has it as its memory, what lies in `file` through `Mapped`, and both are as safe to send
// and to share as a `Box<[u8]>`.
unsafe impl Send for Mapping {}
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(capacity: usize, guard: usize) -> io::Result<Self> {
        let file = memfd_create("heap", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, capacity as u64)?;
        let map = |at: *mut c_void, len, access, flags| {
            // SAFETY: where `at` is null the kernel chooses unused addresses; else it is the span that was
            // reserved below, which nobody uses yet.
            unsafe { mmap(at, len, access, flags | MapFlags::NORESERVE, &file, 0) }
        };
        let anywhere = ptr::null_mut();
        // Reserved with the guard; the file has no bytes there, so that no access to it can succeed.
        let live = Span {
            start: map(
                anywhere,
                capacity + guard,
                ProtFlags::empty(),
                MapFlags::PRIVATE,
            )?
            .cast(),
            len: capacity + guard,
        };
        let shared = Span {
            start: map(
                anywhere,
                capacity,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )?
            .cast(),
            len: capacity,
        };
        Ok(Self {
            file: shared,
            live,
            open: AtomicUsize::new(0),
            capacity,
        })
    }

    /// Makes exactly the first `bytes` accessible.
    fn open_to(&self, bytes: usize) -> io::Result<()> {
        assert!(bytes <= self.capacity, "a heap stays within its capacity");
        let open = self.open.swap(bytes, Ordering::Relaxed);
        let (from, to, access) = if bytes >= open {
            (open, bytes, MprotectFlags::READ | MprotectFlags::WRITE)
        } else {
            (bytes, open, MprotectFlags::empty())
        };
        if from == to {
            return Ok(());
        }
        // SAFETY: the range lies within the span, which is ours; what becomes inaccessible is no longer
        // part of any memory, for a heap only shrinks when its instance is replaced.
        unsafe { mprotect(self.live.start.add(from).cast(), to - from, access) }?;
        Ok(())
    }

    /// Everything written to the live heap is gone.
    fn forget_all(&self) {
        let open = self.open.load(Ordering::Relaxed);
        // SAFETY: the range is accessible; the instance that had it as its memory runs no more.
        forget(unsafe { slice::from_raw_parts_mut(self.live.start, open) });
    }
}

thread_local! {
    /// Passes a mapping to the creator, and back from it: the engine asks it for a memory while it
    /// instantiates, on the same thread.
    static HANDED: RefCell<Option<Arc<Mapping>>> = const { RefCell::new(None) };
}

/// See [`super::provide`].
pub fn provide<T>(before: Option<&Mapped>, instantiate: impl FnOnce() -> T) -> (T, Option<Mapped>) {
    HANDED.set(before.map(|mapped| mapped.mapping.clone()));
    let result = instantiate();
    let heap = HANDED.take().map(|mapping| Mapped {
        mapping,
        committed: before.map_or(0, |mapped| mapped.committed),
    });
    (result, heap)
}

/// Gives instances their memories.
pub struct Creator;

// SAFETY: the memory is reserved whole with its guard, never moves, and is accessible exactly as far as it
// has grown. A fresh one is zero. One that is used again holds what was committed, which the instance's
// owner wants in it: whatever instantiating writes there is forgotten before Wasm runs.
unsafe impl MemoryCreator for Creator {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        const CAPACITY: usize = 1 << 32;
        let capacity = reserved
            .or(maximum)
            .unwrap_or(CAPACITY)
            .max(minimum)
            .next_multiple_of(PAGE);
        let mapping = match HANDED.take() {
            Some(mapping) => {
                mapping.forget_all();
                mapping
            }
            None => Arc::new(
                Mapping::new(capacity, guard).map_err(|error| format!("no heap: {error}"))?,
            ),
        };
        mapping
            .open_to(minimum)
            .map_err(|error| format!("no heap of {minimum} bytes: {error}"))?;
        HANDED.set(Some(mapping.clone()));
        Ok(Box::new(Memory {
            mapping,
            size: minimum,
        }))
    }
}

struct Memory {
    mapping: Arc<Mapping>,
    size: usize,
}

// SAFETY: `as_ptr` is the start of a mapping that lives as long as this value and whose first `size` bytes
// are accessible; growing never moves it.
unsafe impl LinearMemory for Memory {
    fn byte_size(&self) -> usize {
        self.size
    }

    fn byte_capacity(&self) -> usize {
        self.mapping.capacity
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        if new_size > self.mapping.capacity {
            wasmtime::bail!("a heap has at most {} bytes", self.mapping.capacity);
        }
        self.mapping.open_to(new_size)?;
        self.size = new_size;
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.mapping.live.start
    }
}

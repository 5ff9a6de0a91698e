//! The heap between executions, and how the live one is put back to it.
//!
//! | heap | where | to undo or to keep costs |
//! | --- | --- | --- |
//! | mapped | Linux, where a process may look at its own page map | what was written to |
//! | copied | everywhere else | the whole heap |
//!
//! Both count the same pages as dirty: those whose bytes differ from the committed ones.

#[cfg(target_os = "linux")]
mod mapped;

use super::{DIRTY_PAGE_BYTES, HeapKind};

const PAGE: usize = DIRTY_PAGE_BYTES as usize;

/// The heap as it was committed.
pub enum Heap {
    Copied(Vec<u8>),
    #[cfg(target_os = "linux")]
    Mapped(mapped::Mapped),
}

/// What an execution did to the heap, taken out of it.
#[derive(Default)]
pub struct HeapChange {
    pub size: usize,
    pages: Vec<(usize, Vec<u8>)>,
}

/// Sets a compiler up so that instances have heaps of that kind, where they can be had.
pub fn configure(config: &mut wasmtime::Config, kind: HeapKind) {
    #[cfg(target_os = "linux")]
    if kind == HeapKind::Mapped && mapped::works() {
        config.with_host_memory(std::sync::Arc::new(mapped::Creator));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (config, kind);
}

/// Runs `instantiate`, which gives an instance a heap: a new one, or that of `before` again.
pub fn provide<T>(before: Option<&Heap>, instantiate: impl FnOnce() -> T) -> (T, Option<Heap>) {
    #[cfg(target_os = "linux")]
    {
        let before = match before {
            Some(Heap::Mapped(mapped)) => Some(mapped),
            _ => None,
        };
        let (result, heap) = mapped::provide(before, instantiate);
        (result, heap.map(Heap::Mapped))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = before;
        (instantiate(), None)
    }
}

impl Heap {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            #[cfg(target_os = "linux")]
            Self::Mapped(mapped) => mapped.bytes(),
        }
    }

    /// What has happened to `live` since it was kept or put back.
    pub fn look(&self, live: &[u8]) -> Pages {
        let touched = match self {
            Self::Copied(_) => (0..live.len() / PAGE).collect(),
            #[cfg(target_os = "linux")]
            Self::Mapped(_) => mapped::private_pages(live),
        };
        let committed = self.bytes();
        let differs = |page: &usize| match committed.get(range(*page)) {
            Some(before) => live[range(*page)] != *before,
            // It has grown since then, and was zero.
            None => live[range(*page)].iter().any(|byte| *byte != 0),
        };
        let changed = touched.iter().copied().filter(differs).collect();
        Pages { touched, changed }
    }

    /// Makes `live` the committed heap.
    pub fn keep(&mut self, live: &mut [u8], pages: &Pages) {
        match self {
            Self::Copied(bytes) => {
                bytes.resize(live.len(), 0);
                for range in pages.changed.iter().copied().map(range) {
                    bytes[range.clone()].copy_from_slice(&live[range]);
                }
            }
            #[cfg(target_os = "linux")]
            Self::Mapped(mapped) => mapped.keep(live, pages),
        }
    }

    /// Puts `live`, which has the same size, back.
    pub fn restore(&self, live: &mut [u8], pages: &Pages) {
        for range in pages.changed.iter().copied().map(range) {
            live[range.clone()].copy_from_slice(&self.bytes()[range]);
        }
        #[cfg(target_os = "linux")]
        if let Self::Mapped(_) = self {
            mapped::release(live, pages);
        }
    }
}

/// Pages of a heap, by number, rising.
#[derive(Default)]
pub struct Pages {
    /// They may have been written to; no other page differs from the committed one.
    touched: Vec<usize>,
    /// Of those, the ones that do differ.
    pub changed: Vec<usize>,
}

impl HeapChange {
    pub fn take(live: &[u8], pages: &Pages) -> Self {
        let copy = |page: &usize| (*page, live[range(*page)].to_vec());
        Self {
            size: live.len(),
            pages: pages.changed.iter().map(copy).collect(),
        }
    }

    /// Writes the pages again to a heap that has grown to [`HeapChange::size`].
    pub fn put_again(self, live: &mut [u8]) {
        for (page, bytes) in self.pages {
            live[range(page)].copy_from_slice(&bytes);
        }
    }
}

fn range(page: usize) -> std::ops::Range<usize> {
    page * PAGE..(page + 1) * PAGE
}

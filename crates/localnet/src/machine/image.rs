//! A canister's memories as bytes: to be kept, and to make the same machine from.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wasmtime::Val;

use super::{DIRTY_PAGE_BYTES, STABLE_PAGE_BYTES, StableMemory};

/// Heap, mutable globals and stable memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    #[serde(with = "serde_bytes")]
    pub heap: Vec<u8>,
    globals: Vec<Global>,
    /// In pages of [`STABLE_PAGE_BYTES`].
    stable_size: u64,
    /// Pages of 4 KiB that were written to.
    pub(crate) stable_pages: Vec<(u64, ByteBuf)>,
}

/// A global's value. References cannot be kept: they come back null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Global {
    I32(i32),
    I64(i64),
    F32(u32),
    F64(u64),
    V128(u128),
    NullFunction,
    NullExtern,
}

impl Image {
    pub(super) fn new(heap: &[u8], globals: &[Val], stable: &StableMemory) -> Self {
        let number = |value: &Val| match value {
            Val::I32(value) => Global::I32(*value),
            Val::I64(value) => Global::I64(*value),
            Val::F32(bits) => Global::F32(*bits),
            Val::F64(bits) => Global::F64(*bits),
            Val::V128(value) => Global::V128(value.as_u128()),
            Val::FuncRef(_) => Global::NullFunction,
            _ => Global::NullExtern,
        };
        Self {
            heap: heap.to_vec(),
            globals: globals.iter().map(number).collect(),
            stable_size: stable.size_pages(),
            stable_pages: stable
                .pages()
                .map(|(page, bytes)| (page, ByteBuf::from(bytes)))
                .collect(),
        }
    }

    pub(super) fn globals(&self) -> Vec<Val> {
        let value = |number: &Global| match *number {
            Global::I32(value) => Val::I32(value),
            Global::I64(value) => Val::I64(value),
            Global::F32(bits) => Val::F32(bits),
            Global::F64(bits) => Val::F64(bits),
            Global::V128(value) => Val::V128(value.into()),
            Global::NullFunction => Val::FuncRef(None),
            Global::NullExtern => Val::ExternRef(None),
        };
        self.globals.iter().map(value).collect()
    }

    pub(super) fn stable(&self) -> Option<StableMemory> {
        let pages = self.stable_pages.iter();
        StableMemory::from_pages(
            self.stable_size,
            pages.map(|(page, bytes)| (*page, bytes.as_slice())),
        )
    }

    /// Of a heap and a stable memory of zeros, of whole pages of [`STABLE_PAGE_BYTES`].
    pub fn blank(heap_pages: u32, globals: Vec<Global>, stable_pages: u64) -> Self {
        Self {
            heap: vec![0; heap_pages as usize * STABLE_PAGE_BYTES as usize],
            globals,
            stable_size: stable_pages,
            stable_pages: vec![],
        }
    }

    /// The mutable globals, in the module's order.
    pub fn global_values(&self) -> &[Global] {
        &self.globals
    }

    /// Bytes of stable memory.
    pub fn stable_bytes(&self) -> u64 {
        self.stable_size * STABLE_PAGE_BYTES
    }

    /// A part of stable memory; the caller looks that it is one.
    pub fn read_stable(&self, offset: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        for (page, at, range) in parts(offset, size) {
            if let Ok(index) = self
                .stable_pages
                .binary_search_by_key(&page, |(page, _)| *page)
            {
                let (_, content) = &self.stable_pages[index];
                let len = range.len();
                bytes[range].copy_from_slice(&content[at..at + len]);
            }
        }
        bytes
    }

    /// Overwrites a part of stable memory; the caller looks that it is one.
    pub fn write_stable(&mut self, offset: u64, bytes: &[u8]) {
        for (page, at, range) in parts(offset, bytes.len()) {
            let pages = &mut self.stable_pages;
            let index = pages
                .binary_search_by_key(&page, |(page, _)| *page)
                .unwrap_or_else(|index| {
                    let empty = ByteBuf::from(vec![0; DIRTY_PAGE_BYTES as usize]);
                    pages.insert(index, (page, empty));
                    index
                });
            let (_, content) = &mut pages[index];
            content[at..at + range.len()].copy_from_slice(&bytes[range]);
        }
    }

    /// Bytes of heap and stable memory.
    pub fn bytes(&self) -> u64 {
        self.heap.len() as u64 + self.stable_size * STABLE_PAGE_BYTES
    }
}

/// The pages of [`DIRTY_PAGE_BYTES`] that `size` bytes at `offset` lie in: each with the place in it and
/// the range of those bytes.
fn parts(offset: u64, size: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let from = offset + done as u64;
        let at = (from % DIRTY_PAGE_BYTES) as usize;
        let len = (DIRTY_PAGE_BYTES as usize - at).min(size - done);
        let range = done..done + len;
        done += len;
        (len > 0).then_some((from / DIRTY_PAGE_BYTES, at, range))
    })
}

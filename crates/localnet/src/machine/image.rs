//! A canister's memories as bytes: to be kept, and to make the same machine from.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use wasmtime::Val;

use super::{STABLE_PAGE_BYTES, StableMemory};

/// Heap, mutable globals and stable memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    #[serde(with = "serde_bytes")]
    pub heap: Vec<u8>,
    globals: Vec<Number>,
    /// In pages of [`STABLE_PAGE_BYTES`].
    stable_size: u64,
    /// Pages of 4 KiB that were written to.
    pub(crate) stable_pages: Vec<(u64, ByteBuf)>,
}

/// A global's value. References cannot be kept: they come back null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Number {
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
            Val::I32(value) => Number::I32(*value),
            Val::I64(value) => Number::I64(*value),
            Val::F32(bits) => Number::F32(*bits),
            Val::F64(bits) => Number::F64(*bits),
            Val::V128(value) => Number::V128(value.as_u128()),
            Val::FuncRef(_) => Number::NullFunction,
            _ => Number::NullExtern,
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
        let value = |number: &Number| match *number {
            Number::I32(value) => Val::I32(value),
            Number::I64(value) => Val::I64(value),
            Number::F32(bits) => Val::F32(bits),
            Number::F64(bits) => Val::F64(bits),
            Number::V128(value) => Val::V128(value.into()),
            Number::NullFunction => Val::FuncRef(None),
            Number::NullExtern => Val::ExternRef(None),
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

    /// Bytes of heap and stable memory.
    pub fn bytes(&self) -> u64 {
        self.heap.len() as u64 + self.stable_size * STABLE_PAGE_BYTES
    }
}

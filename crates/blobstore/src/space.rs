//! Which bytes of the data memory are taken and which are free. Extents are of any length in units of 64
//! bytes; free ones are merged with their neighbours, and the smallest that is large enough is taken first.
//!
//! # Fragmentation
//!
//! Each chunk takes its own bytes when it comes, rounded up to a unit, and no more: next to the chunk before it, if
//! that is free. So an upload takes at most 63 bytes more than have arrived of it, and a blob has at most one extent
//! for each chunk, one in all where its chunks came in order and alone.
//!
//! Between two extents that are taken lies at most one hole, and the memory grows for a chunk of r bytes
//! only while every hole is shorter than r. So there are never more holes than extents, and at the moment
//! of growth all of them together have fewer than (extents + 1) · r bytes; r is at most 2,000,000. Where
//! blobs are of one size, or shrink over time, no hole is ever out of use; where they grow, a hole waits for
//! its neighbours to go.
//!
//! # Byte map
//!
//! Two maps of `ic-stable-structures`: place (8 bytes) to length (8 bytes), and the same as keys of length
//! and place. Numbers are little-endian.

use ic_stable_structures::{Memory, StableBTreeMap};

use crate::slots::Slots;

/// A small picture of 5 KB wastes at most 1.3 % by rounding up.
const UNIT: u64 = 64;
const PAGE: u64 = 65_536;

/// The bytes cannot be had: memory does not grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Bytes that an extent for `len` bytes takes.
pub fn rounded(len: u64) -> u64 {
    len.div_ceil(UNIT) * UNIT
}

/// The extents of one memory. Its end stands in the table of slots.
pub struct Space<M: Memory> {
    /// Place to length.
    free: StableBTreeMap<u64, u64, M>,
    /// (length, place).
    by_size: StableBTreeMap<(u64, u64), (), M>,
    pub data: M,
}

impl<M: Memory> Space<M> {
    pub fn init(free: M, by_size: M, data: M) -> Self {
        Self {
            free: StableBTreeMap::init(free),
            by_size: StableBTreeMap::init(by_size),
            data,
        }
    }

    /// An extent of `len` bytes: at `best`, if it is free there, else out of the free ones, else behind all others.
    pub fn take<S: Memory>(
        &mut self,
        len: u64,
        best: Option<u64>,
        slots: &mut Slots<S>,
    ) -> Result<u64, Full> {
        if let Some(offset) = best
            && self.reuse_at(offset, len)
        {
            return Ok(offset);
        }
        match self.reuse(len) {
            Some(offset) => Ok(offset),
            None => self.grow(len, slots),
        }
    }

    /// Takes `len` bytes where a free extent begins. False where none does, or a shorter one.
    fn reuse_at(&mut self, offset: u64, len: u64) -> bool {
        let len = rounded(len);
        if self.free.is_empty() {
            return false;
        }
        let Some(size) = self.free.get(&offset).filter(|size| *size >= len) else {
            return false;
        };
        self.remove_free(offset, size);
        if size > len {
            self.insert_free(offset + len, size - len);
        }
        true
    }

    fn reuse(&mut self, len: u64) -> Option<u64> {
        let len = rounded(len);
        if self.by_size.is_empty() {
            return None;
        }
        let (size, offset) = self.by_size.keys_range((len, 0)..).next()?;
        self.remove_free(offset, size);
        if size > len {
            self.insert_free(offset + len, size - len);
        }
        Some(offset)
    }

    /// An extent of `len` bytes behind all others.
    fn grow<S: Memory>(&mut self, len: u64, slots: &mut Slots<S>) -> Result<u64, Full> {
        let offset = slots.end();
        let end = offset + rounded(len);
        let missing = end.div_ceil(PAGE).saturating_sub(self.data.size());
        if missing > 0 && self.data.grow(missing) < 0 {
            return Err(Full);
        }
        slots.set_end(end);
        Ok(offset)
    }

    /// Gives an extent back that was taken with the same length.
    pub fn give<S: Memory>(&mut self, offset: u64, len: u64, slots: &mut Slots<S>) {
        let (mut offset, mut len) = (offset, rounded(len));
        if len == 0 {
            return;
        }
        if !self.free.is_empty() {
            let before = self.free.range(..offset).next_back();
            if let Some((start, size)) = before.map(|entry| (*entry.key(), entry.value()))
                && start + size == offset
            {
                self.remove_free(start, size);
                (offset, len) = (start, len + size);
            }
            if let Some(size) = self.free.get(&(offset + len)) {
                self.remove_free(offset + len, size);
                len += size;
            }
        }
        if offset + len == slots.end() {
            slots.set_end(offset);
        } else {
            self.insert_free(offset, len);
        }
    }

    fn insert_free(&mut self, offset: u64, len: u64) {
        self.free.insert(offset, len);
        self.by_size.insert((len, offset), ());
    }

    fn remove_free(&mut self, offset: u64, len: u64) {
        self.free.remove(&offset);
        self.by_size.remove(&(len, offset));
    }

    /// Free extents in order of their places: place and length.
    pub fn free(&self) -> impl Iterator<Item = (u64, u64)> {
        self.free.iter().map(|entry| (*entry.key(), entry.value()))
    }

    /// Whether the two views of the free list agree.
    pub fn is_consistent(&self) -> bool {
        self.free.len() == self.by_size.len()
            && self
                .free()
                .all(|(offset, len)| self.by_size.contains_key(&(len, offset)))
    }
}

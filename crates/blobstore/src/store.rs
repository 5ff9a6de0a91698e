//! Slots, their chunks, and the running hash.

use std::fmt;

use ic_stable_structures::{Memory, StableBTreeMap};
use openstorage_types::{ChunkRange, chunk_count, chunk_len};
use sha2::Digest;

use crate::{
    record::Record,
    space::{Full, Header, Space, rounded},
};

/// Bytes read at once for hashing and comparing.
const WINDOW: usize = 64 * 1024;

/// Where the store keeps its parts. Each needs a memory of its own, the same at every start.
pub struct Memories<M> {
    pub header: M,
    pub records: M,
    pub chunks: M,
    pub free: M,
    pub free_by_size: M,
    /// The blobs' bytes.
    pub data: M,
}

impl<M> Memories<M> {
    /// Six memories from their numbers, 0 to 5.
    pub fn from_fn(mut memory: impl FnMut(u8) -> M) -> Self {
        Self {
            header: memory(0),
            records: memory(1),
            chunks: memory(2),
            free: memory(3),
            free_by_size: memory(4),
            data: memory(5),
        }
    }
}

/// Why a chunk was not written. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteError {
    /// The slot has `count` chunks; 0 where there is no such slot.
    NoSuchChunk { count: u32 },
    /// In bytes.
    InvalidLength { expected: u64 },
    /// The chunk is in already, with other bytes.
    Conflict,
    /// Memory does not grow.
    Full,
}

/// How far a blob's hash has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Chunks are missing.
    Waiting,
    /// All chunks are in; ask again to go on.
    Hashing,
    /// The SHA-256 of the whole blob.
    Done { digest: [u8; 32] },
}

/// Blobs of known sizes.
pub struct BlobStore<M: Memory> {
    records: StableBTreeMap<u64, Record, M>,
    /// (slot, chunk index) to the chunk's offset.
    chunks: StableBTreeMap<(u64, u32), u64, M>,
    space: Space<M>,
    data: M,
}

impl<M: Memory> BlobStore<M> {
    /// A new store, or the one that is in these memories already.
    pub fn init(memories: Memories<M>) -> Self {
        Self {
            records: StableBTreeMap::init(memories.records),
            chunks: StableBTreeMap::init(memories.chunks),
            space: Space::init(memories.header, memories.free, memories.free_by_size),
            data: memories.data,
        }
    }

    /// A new slot for a blob of `size` bytes. Space is taken chunk by chunk, as they arrive.
    pub fn open(&mut self, size: u64) -> u64 {
        let header = *self.space.header.get();
        let slot = header.next_slot;
        self.space.header.set(Header {
            next_slot: slot + 1,
            ..header
        });
        self.records.insert(slot, Record::new(size));
        slot
    }

    /// Writes a chunk to its final place. The same chunk with the same bytes again is no error.
    pub fn write(&mut self, slot: u64, index: u32, bytes: &[u8]) -> Result<(), WriteError> {
        let mut record = self
            .records
            .get(&slot)
            .ok_or(WriteError::NoSuchChunk { count: 0 })?;
        let Some(expected) = chunk_len(record.size, index.into()) else {
            let count = chunk_count(record.size) as u32;
            return Err(WriteError::NoSuchChunk { count });
        };
        if bytes.len() as u64 != expected {
            return Err(WriteError::InvalidLength { expected });
        }
        if let Some(offset) = self.chunks.get(&(slot, index)) {
            return match self.equals(offset, bytes) {
                true => Ok(()),
                false => Err(WriteError::Conflict),
            };
        }
        let taken = self.space.take(expected, &self.data);
        let offset = taken.map_err(|Full| WriteError::Full)?;
        self.data.write(offset, bytes);
        self.chunks.insert((slot, index), offset);
        record.received += 1;
        if index == record.hashed
            && let Some(hash) = &mut record.hash
        {
            hash.update(bytes);
            record.hashed += 1;
        }
        self.records.insert(slot, record);
        Ok(())
    }

    /// Hashes chunks that are in and next in order, until `budget` bytes are hashed or one is missing. The
    /// last chunk may go over the budget. An unknown or sealed slot waits for ever.
    pub fn verify(&mut self, slot: u64, budget: u64) -> Progress {
        let Some(mut record) = self.records.get(&slot) else {
            return Progress::Waiting;
        };
        let Some(mut hash) = record.hash.take() else {
            return Progress::Waiting;
        };
        let count = chunk_count(record.size) as u32;
        let (before, mut left) = (record.hashed, budget);
        while left > 0
            && let Some(offset) = self.chunks.get(&(slot, record.hashed))
        {
            let len = chunk_len(record.size, record.hashed.into()).unwrap_or(0);
            self.windows(offset, len, |bytes| {
                hash.update(bytes);
                true
            });
            record.hashed += 1;
            left = left.saturating_sub(len);
        }
        let progress = match (record.hashed == count, record.received == count) {
            (true, _) => Progress::Done {
                digest: hash.clone().finalize().into(),
            },
            (false, true) => Progress::Hashing,
            (false, false) => Progress::Waiting,
        };
        if record.hashed != before {
            record.hash = Some(hash);
            self.records.insert(slot, record);
        }
        progress
    }

    /// The hash is known and nobody asks for it again: its state is dropped.
    pub fn seal(&mut self, slot: u64) {
        if let Some(record) = self.records.get(&slot) {
            self.records.insert(
                slot,
                Record {
                    hash: None,
                    ..record
                },
            );
        }
    }

    /// The bytes of a chunk that is in.
    pub fn read_chunk(&self, slot: u64, index: u32) -> Option<Vec<u8>> {
        let offset = self.chunks.get(&(slot, index))?;
        let len = chunk_len(self.records.get(&slot)?.size, index.into())?;
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        self.data.read(offset, &mut bytes);
        Some(bytes)
    }

    /// Whether a chunk is in and has exactly these bytes.
    pub fn holds(&self, slot: u64, index: u32, bytes: &[u8]) -> bool {
        let size = self.records.get(&slot).map(|record| record.size);
        let len = size.and_then(|size| chunk_len(size, index.into()));
        len == Some(bytes.len() as u64)
            && self
                .chunks
                .get(&(slot, index))
                .is_some_and(|offset| self.equals(offset, bytes))
    }

    /// Chunks that are not in yet.
    pub fn missing_count(&self, slot: u64) -> u32 {
        self.records.get(&slot).map_or(0, |record| {
            chunk_count(record.size) as u32 - record.received
        })
    }

    /// The same as ranges, in order.
    pub fn missing(&self, slot: u64) -> Vec<ChunkRange> {
        let Some(record) = self.records.get(&slot) else {
            return vec![];
        };
        let mut ranges = vec![];
        let mut start = 0;
        let there = self.chunks.keys_range((slot, 0)..=(slot, u32::MAX));
        let count = chunk_count(record.size) as u32;
        for end in there.map(|(_, index)| index).chain([count]) {
            if start < end {
                ranges.push(ChunkRange { start, end });
            }
            start = end + 1;
        }
        ranges
    }

    /// Gives a slot and its bytes back. An unknown slot is no error.
    pub fn remove(&mut self, slot: u64) {
        let Some(record) = self.records.remove(&slot) else {
            return;
        };
        while let Some(((_, index), offset)) = self.first_chunk(slot) {
            self.chunks.remove(&(slot, index));
            let len = chunk_len(record.size, index.into()).unwrap_or(0);
            self.space.give(offset, len);
        }
    }

    fn first_chunk(&self, slot: u64) -> Option<((u64, u32), u64)> {
        let mut chunks = self.chunks.range((slot, 0)..=(slot, u32::MAX));
        chunks.next().map(|entry| (*entry.key(), entry.value()))
    }

    /// Slots in use.
    pub fn len(&self) -> u64 {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Checks that the extents of all chunks and the free ones cover the space exactly, without overlap,
    /// and that every record counts its chunks right. Looks at everything: for tests and for operators of
    /// small stores.
    pub fn audit(&self) -> Result<(), Damage> {
        let mut extents: Vec<_> = self.space.free().collect();
        for entry in self.chunks.iter() {
            let (slot, index) = *entry.key();
            let record = self.records.get(&slot);
            let len = record.and_then(|record| chunk_len(record.size, index.into()));
            let len = rounded(len.ok_or(Damage::Orphan { slot, index })?);
            if len > 0 {
                extents.push((entry.value(), len));
            }
        }
        extents.sort_unstable();
        let mut end = 0;
        for (offset, len) in extents {
            if offset != end {
                return Err(Damage::Gap { end, offset });
            }
            end += len;
        }
        if end != self.space.header.get().end {
            let offset = self.space.header.get().end;
            return Err(Damage::Gap { end, offset });
        }
        if !self.space.is_consistent() {
            return Err(Damage::FreeList);
        }
        for entry in self.records.iter() {
            let (slot, record) = (*entry.key(), entry.value());
            let there = self.chunks.keys_range((slot, 0)..=(slot, u32::MAX)).count();
            if there != record.received as usize {
                return Err(Damage::Count { slot });
            }
        }
        Ok(())
    }

    fn equals(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        self.windows(offset, bytes.len() as u64, |window| {
            let (head, tail) = rest.split_at(window.len());
            rest = tail;
            head == window
        })
    }

    /// Hands `len` bytes from `offset` on to `look`, window by window, until it answers false.
    fn windows(&self, offset: u64, len: u64, mut look: impl FnMut(&[u8]) -> bool) -> bool {
        let mut window = [0; WINDOW];
        let mut at = 0;
        while at < len {
            let size = (len - at).min(WINDOW as u64) as usize;
            self.data.read(offset + at, &mut window[..size]);
            if !look(&window[..size]) {
                return false;
            }
            at += size as u64;
        }
        true
    }
}

/// What [`BlobStore::audit`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Extents overlap, or bytes belong to nobody: `offset` follows where `end` should.
    Gap { end: u64, offset: u64 },
    /// A chunk of no slot.
    Orphan { slot: u64, index: u32 },
    /// The free list's two orders disagree.
    FreeList,
    /// A slot's chunks are not as many as its record says.
    Count { slot: u64 },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { end, offset } => write!(f, "an extent begins at {offset}, not at {end}"),
            Self::Orphan { slot, index } => write!(f, "chunk {index} of slot {slot} is an orphan"),
            Self::FreeList => write!(f, "the free list contradicts itself"),
            Self::Count { slot } => write!(f, "slot {slot} miscounts its chunks"),
        }
    }
}

impl std::error::Error for Damage {}

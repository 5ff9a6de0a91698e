//! Slots, their chunks, and the running hash.

use ic_stable_structures::{Memory, StableBTreeMap};
use openstorage_types::{ChunkRange, chunk_count, chunk_len, limits::CHUNK_BYTES};

use crate::{
    OpenError,
    pending::Pending,
    slots::{Record, Slots, State},
    space::{Full, Space},
};

/// Bytes read at once.
const WINDOW: u64 = 64 * 1024;

/// Bytes of a blob that are taken at once, when the first of them arrive: a blob has few extents, and an
/// upload that has only begun blocks little.
const STEP: u64 = 32 * CHUNK_BYTES;

/// Where the store keeps its parts. Each needs a memory of its own, the same at every start.
pub struct Memories<M> {
    /// The table of slots, and the head of the store.
    pub slots: M,
    /// Extents of blobs that lie in several.
    pub extents: M,
    /// Blobs whose chunks come in.
    pub pending: M,
    pub free: M,
    pub free_by_size: M,
    /// The blobs' bytes.
    pub data: M,
}

impl<M> Memories<M> {
    /// Six memories from their numbers, 0 to 5.
    pub fn from_fn(mut memory: impl FnMut(u8) -> M) -> Self {
        Self {
            slots: memory(0),
            extents: memory(1),
            pending: memory(2),
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

impl From<Full> for WriteError {
    fn from(Full: Full) -> Self {
        Self::Full
    }
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
    pub(crate) slots: Slots<M>,
    /// (slot, place in the blob) to (place in the data memory, length).
    pub(crate) extents: StableBTreeMap<(u64, u64), (u64, u64), M>,
    pub(crate) pending: StableBTreeMap<u64, Pending, M>,
    pub(crate) space: Space<M>,
}

impl<M: Memory> BlobStore<M> {
    /// A new store, or the one that is in these memories already. What is not understood is refused
    /// before anything is written.
    pub fn init(memories: Memories<M>) -> Result<Self, OpenError> {
        Ok(Self {
            slots: Slots::open(memories.slots)?,
            extents: StableBTreeMap::init(memories.extents),
            pending: StableBTreeMap::init(memories.pending),
            space: Space::init(memories.free, memories.free_by_size, memories.data),
        })
    }

    /// A slot for a blob of `size` bytes whose chunks will come one by one. Its space is taken in steps,
    /// as they arrive.
    pub fn open(&mut self, size: u64) -> Result<u64, Full> {
        let slot = self.slots.add(Record::open(size)).ok_or(Full)?;
        self.pending.insert(slot, Pending::new(size));
        Ok(slot)
    }

    /// A sealed slot for a blob of one chunk, whose SHA-256 the caller has computed.
    pub fn put(&mut self, bytes: &[u8], digest: [u8; 32]) -> Result<u64, Full> {
        let size = bytes.len() as u64;
        let mut record = Record {
            state: State::Sealed,
            digest,
            ..Record::open(size)
        };
        let slot = self.slots.add(record).ok_or(Full)?;
        let taken = match size {
            0 => Ok(0),
            _ => self
                .space
                .reuse(size)
                .map_or_else(|| self.space.grow(size, &mut self.slots), Ok),
        };
        match taken {
            Ok(offset) => {
                record.whole = Some(offset);
                self.slots.set(slot, record);
                self.space.data.write(offset, bytes);
                Ok(slot)
            }
            Err(Full) => {
                self.slots.remove(slot);
                Err(Full)
            }
        }
    }

    /// Writes a chunk to its final place. The same chunk with the same bytes again is no error.
    pub fn write(&mut self, slot: u64, index: u32, bytes: &[u8]) -> Result<(), WriteError> {
        let none = WriteError::NoSuchChunk { count: 0 };
        let record = self.slots.get(slot).ok_or(none)?;
        let Some(expected) = chunk_len(record.size, index.into()) else {
            let count = chunk_count(record.size) as u32;
            return Err(WriteError::NoSuchChunk { count });
        };
        if bytes.len() as u64 != expected {
            return Err(WriteError::InvalidLength { expected });
        }
        let pending = self.pending.get(&slot);
        let Some(mut pending) = pending.filter(|pending| !pending.has(index)) else {
            return match self.equals(slot, &record, index, bytes) {
                true => Ok(()),
                false => Err(WriteError::Conflict),
            };
        };
        self.take(slot, record, index)?;
        let record = self.slots.get(slot).ok_or(none)?;
        let mut rest = bytes;
        self.places(slot, &record, start_of(index), expected, |offset, len| {
            let (head, tail) = rest.split_at(len as usize);
            self.space.data.write(offset, head);
            rest = tail;
            true
        });
        pending.set(index);
        if index == pending.hashed {
            pending.hash.update(bytes);
            pending.hashed += 1;
        }
        self.pending.insert(slot, pending);
        Ok(())
    }

    /// Makes sure that a chunk has a place: its step of the blob is taken at once, or as much of it as
    /// lies free in one piece.
    fn take(&mut self, slot: u64, record: Record, index: u32) -> Result<(), Full> {
        let start = start_of(index);
        let end = record.size.min(start + CHUNK_BYTES);
        if record.whole.is_some() || start == end {
            return Ok(());
        }
        let step = start / STEP * STEP;
        let (mut low, mut high) = (step, record.size.min(step + STEP));
        if record.pieces > 0 {
            if let Some((from, (_, len))) = self.piece_before(slot, start) {
                if start < from + len {
                    return Ok(());
                }
                low = low.max(from + len);
            }
            let mut after = self.extents.keys_range((slot, start)..(slot, high));
            high = after.next().map_or(high, |(_, from)| from);
        }
        let (from, len, offset) = self.find(low, high, start, end)?;
        let mut record = record;
        if len == record.size {
            record.whole = Some(offset);
        } else {
            record.pieces += 1;
            self.extents.insert((slot, from), (offset, len));
        }
        self.slots.set(slot, record);
        Ok(())
    }

    /// An extent for `low..high` of a blob, or for a part of it that holds `start..end`: its place in the
    /// blob, its length, its place in the data memory. Memory grows only where no free extent holds the
    /// chunk.
    fn find(&mut self, low: u64, high: u64, start: u64, end: u64) -> Result<(u64, u64, u64), Full> {
        if let Some(offset) = self.space.reuse(high - low) {
            return Ok((low, high - low, offset));
        }
        let longest = self.space.longest();
        if longest >= end - start {
            let chunks = (longest / CHUNK_BYTES).max(1);
            let len = (chunks * CHUNK_BYTES).min(high - start).max(end - start);
            if let Some(offset) = self.space.reuse(len) {
                return Ok((start, len, offset));
            }
        }
        if let Ok(offset) = self.space.grow(high - low, &mut self.slots) {
            return Ok((low, high - low, offset));
        }
        let offset = self.space.grow(end - start, &mut self.slots)?;
        Ok((start, end - start, offset))
    }

    /// The piece of a slot that begins last, of those that begin at `place` or before.
    fn piece_before(&self, slot: u64, place: u64) -> Option<(u64, (u64, u64))> {
        let mut before = self.extents.range((slot, 0)..=(slot, place));
        let entry = before.next_back()?;
        Some((entry.key().1, entry.value()))
    }

    /// Hashes chunks that are in and next in order, until `budget` bytes are hashed or one is missing. The
    /// last chunk may go over the budget. An unknown or sealed slot waits for ever.
    pub fn verify(&mut self, slot: u64, budget: u64) -> Progress {
        let Some((record, mut pending)) = self.slots.get(slot).zip(self.pending.get(&slot)) else {
            return Progress::Waiting;
        };
        let count = chunk_count(record.size) as u32;
        let (before, mut left) = (pending.hashed, budget);
        while left > 0 && pending.hashed < count && pending.has(pending.hashed) {
            let len = chunk_len(record.size, pending.hashed.into()).unwrap_or(0);
            let from = start_of(pending.hashed);
            self.windows(slot, &record, from, len, |bytes| {
                pending.hash.update(bytes);
                true
            });
            pending.hashed += 1;
            left = left.saturating_sub(len);
        }
        let progress = match (pending.hashed == count, pending.received == count) {
            (true, _) => Progress::Done {
                digest: pending.hash.clone().finalize(),
            },
            (false, true) => Progress::Hashing,
            (false, false) => Progress::Waiting,
        };
        if pending.hashed != before {
            self.pending.insert(slot, pending);
        }
        progress
    }

    /// The blob is complete and has this digest: what was kept of its upload is dropped.
    pub fn seal(&mut self, slot: u64, digest: [u8; 32]) {
        if let Some(record) = self.slots.get(slot)
            && self.pending.remove(&slot).is_some()
        {
            let state = State::Sealed;
            let sealed = Record {
                state,
                digest,
                ..record
            };
            self.slots.set(slot, sealed);
        }
    }

    /// The size of a sealed slot's blob, and the number that [`BlobStore::set_note`] has put beside it; 0 at
    /// first.
    pub fn note(&self, slot: u64) -> Option<(u64, u64)> {
        let record = self.slots.get(slot)?;
        (record.state == State::Sealed).then_some((record.size, record.note))
    }

    /// Keeps a number beside the blob of a slot in use, in place of the one before: at the cost of one write.
    pub fn set_note(&mut self, slot: u64, note: u64) {
        self.slots.set_note(slot, note);
    }

    /// The size of a slot's blob.
    pub fn size(&self, slot: u64) -> Option<u64> {
        Some(self.slots.get(slot)?.size)
    }

    /// The digest of a sealed slot's blob.
    pub fn digest(&self, slot: u64) -> Option<[u8; 32]> {
        let record = self.slots.get(slot)?;
        (record.state == State::Sealed).then_some(record.digest)
    }

    /// Hands `len` bytes of a sealed blob from `from` on to `look`, in windows of at most 64 KiB. None
    /// where there is no such blob or it ends before.
    pub fn read(&self, slot: u64, from: u64, len: u64, mut look: impl FnMut(&[u8])) -> Option<()> {
        let record = self.slots.get(slot)?;
        let end = from.checked_add(len)?;
        if record.state != State::Sealed || end > record.size {
            return None;
        }
        self.windows(slot, &record, from, len, |bytes| {
            look(bytes);
            true
        });
        Some(())
    }

    /// The bytes of a chunk that is in.
    pub fn read_chunk(&self, slot: u64, index: u32) -> Option<Vec<u8>> {
        let record = self.slots.get(slot)?;
        let len = chunk_len(record.size, index.into())?;
        if !self.has(slot, &record, index) {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(len).ok()?);
        self.windows(slot, &record, start_of(index), len, |window| {
            bytes.extend_from_slice(window);
            true
        });
        Some(bytes)
    }

    /// Whether a chunk is in and has exactly these bytes.
    pub fn holds(&self, slot: u64, index: u32, bytes: &[u8]) -> bool {
        let record = self.slots.get(slot);
        record.is_some_and(|record| {
            chunk_len(record.size, index.into()) == Some(bytes.len() as u64)
                && self.has(slot, &record, index)
                && self.equals(slot, &record, index, bytes)
        })
    }

    fn has(&self, slot: u64, record: &Record, index: u32) -> bool {
        record.state == State::Sealed
            || self
                .pending
                .get(&slot)
                .is_some_and(|pending| pending.has(index))
    }

    /// Chunks that are not in yet.
    pub fn missing_count(&self, slot: u64) -> u32 {
        let pending = self.slots.get(slot).zip(self.pending.get(&slot));
        pending.map_or(0, |(record, pending)| {
            chunk_count(record.size) as u32 - pending.received
        })
    }

    /// The same as ranges, in order.
    pub fn missing(&self, slot: u64) -> Vec<ChunkRange> {
        let pending = self.slots.get(slot).zip(self.pending.get(&slot));
        pending.map_or(vec![], |(record, pending)| {
            pending.missing(chunk_count(record.size) as u32)
        })
    }

    /// Gives a slot and its bytes back: one step for each extent. An unknown slot is no error.
    pub fn remove(&mut self, slot: u64) {
        let Some(record) = self.slots.get(slot) else {
            return;
        };
        if record.state == State::Open {
            self.pending.remove(&slot);
        }
        if let Some(offset) = record.whole {
            self.space.give(offset, record.size, &mut self.slots);
        }
        for _ in 0..record.pieces {
            let Some((from, (offset, len))) = self.piece_before(slot, u64::MAX) else {
                break;
            };
            self.extents.remove(&(slot, from));
            self.space.give(offset, len, &mut self.slots);
        }
        self.slots.remove(slot);
    }

    /// Slots in use.
    pub fn len(&self) -> u64 {
        self.slots.used()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn equals(&self, slot: u64, record: &Record, index: u32, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        self.windows(
            slot,
            record,
            start_of(index),
            bytes.len() as u64,
            |window| {
                let (head, tail) = rest.split_at(window.len());
                rest = tail;
                head == window
            },
        )
    }

    /// Hands `len` bytes of a blob from `from` on to `look`, window by window, until it answers false.
    fn windows(
        &self,
        slot: u64,
        record: &Record,
        from: u64,
        len: u64,
        mut look: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let mut window = vec![0; len.min(WINDOW) as usize];
        self.places(slot, record, from, len, |offset, len| {
            let mut at = 0;
            while at < len {
                let size = (len - at).min(WINDOW) as usize;
                self.space.data.read(offset + at, &mut window[..size]);
                if !look(&window[..size]) {
                    return false;
                }
                at += size as u64;
            }
            true
        })
    }

    /// Where `len` bytes of a blob from `from` on lie, piece by piece, until `look` answers false. They
    /// must have a place.
    fn places(
        &self,
        slot: u64,
        record: &Record,
        from: u64,
        len: u64,
        mut look: impl FnMut(u64, u64) -> bool,
    ) -> bool {
        let mut at = from;
        let end = from + len;
        while at < end {
            let (start, (offset, size)) = match record.whole {
                Some(offset) => (0, (offset, record.size)),
                None => self
                    .piece_before(slot, at)
                    .expect("a chunk that is in has a place"),
            };
            let size = size.min(end - start);
            if !look(offset + (at - start), start + size - at) {
                return false;
            }
            at = start + size;
        }
        true
    }
}

/// Where a chunk begins in its blob.
fn start_of(index: u32) -> u64 {
    u64::from(index) * CHUNK_BYTES
}

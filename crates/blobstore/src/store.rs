//! Slots, their chunks, and the running hash.

use ic_stable_structures::{Memory, StableBTreeMap};
use openstorage_types::{ChunkRange, chunk_count, chunk_len, limits::CHUNK_BYTES};

use crate::{
    OpenError,
    pending::Pending,
    slots::{Record, Slots, State},
    space::{Full, Space, rounded},
};

/// Bytes read at once.
const WINDOW: u64 = 64 * 1024;

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

    /// A slot for a blob of `size` bytes whose chunks will come one by one. Each takes its space when it arrives.
    pub fn open(&mut self, size: u64) -> Result<u64, Full> {
        let slot = self.slots.add(Record::open(size)).ok_or(Full)?;
        self.pending.insert(slot, Pending::new());
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
            _ => self.space.take(size, None, &mut self.slots),
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

    /// Writes a chunk to its final place, and hashes it if it is next in order. Returns the bytes that were hashed. The
    /// same chunk with the same bytes again is no error.
    pub fn write(&mut self, slot: u64, index: u32, bytes: &[u8]) -> Result<u64, WriteError> {
        let none = WriteError::NoSuchChunk { count: 0 };
        let record = self.slots.get(slot).ok_or(none)?;
        let Some(expected) = chunk_len(record.size, index.into()) else {
            let count = chunk_count(record.size) as u32;
            return Err(WriteError::NoSuchChunk { count });
        };
        if bytes.len() as u64 != expected {
            return Err(WriteError::InvalidLength { expected });
        }
        let start = start_of(index);
        let pending = self.pending.get(&slot);
        let Some(mut pending) =
            pending.filter(|pending| !self.is_in(slot, &record, pending, start))
        else {
            return match self.equals(slot, &record, index, bytes) {
                true => Ok(0),
                false => Err(WriteError::Conflict),
            };
        };
        if expected > 0 {
            let offset = self.place(slot, record, start, expected)?;
            self.space.data.write(offset, bytes);
        }
        pending.received += 1;
        let mut hashed = 0;
        if pending.hashed == start {
            pending.hash.update(bytes);
            hashed = expected;
            pending.hashed += hashed;
        }
        self.pending.insert(slot, pending);
        Ok(hashed)
    }

    /// Takes the bytes `start..start + len` of a blob, which have no place yet. They become one extent with their
    /// neighbours, where these lie next to them.
    fn place(&mut self, slot: u64, mut record: Record, start: u64, len: u64) -> Result<u64, Full> {
        let before = self.piece_before(slot, &record, start);
        let before = before.filter(|piece| piece.end() == start);
        // It ends with a chunk that is not the last: such a one fills whole units.
        let best = before.map(|piece| piece.offset + piece.len);
        let offset = self.space.take(len, best, &mut self.slots)?;
        let mut piece = match before {
            Some(before) if best == Some(offset) => Piece {
                len: before.len + len,
                ..before
            },
            _ => Piece {
                from: start,
                offset,
                len,
            },
        };
        let mut pieces = record.pieces + u32::from(piece.from == start);
        if record.pieces > u32::from(before.is_some()) {
            let after = (slot, piece.end());
            let next = self.extents.get(&after);
            if let Some((_, len)) = next.filter(|(offset, _)| *offset == piece.offset + piece.len) {
                self.extents.remove(&after);
                piece.len += len;
                pieces -= 1;
            }
        }
        self.extents
            .insert((slot, piece.from), (piece.offset, piece.len));
        if pieces != record.pieces {
            record.pieces = pieces;
            self.slots.set(slot, record);
        }
        Ok(offset)
    }

    /// The piece of a slot that begins last, of those that begin at `at` or before.
    fn piece_before(&self, slot: u64, record: &Record, at: u64) -> Option<Piece> {
        if record.pieces == 0 {
            return None;
        }
        let mut before = self.extents.range((slot, 0)..=(slot, at));
        let entry = before.next_back()?;
        let (offset, len) = entry.value();
        Some(Piece {
            from: entry.key().1,
            offset,
            len,
        })
    }

    /// The piece that holds a byte of a blob; none where it is not in.
    fn piece_at(&self, slot: u64, record: &Record, at: u64) -> Option<Piece> {
        let piece = match record.whole {
            Some(offset) => Some(Piece {
                from: 0,
                offset,
                len: record.size,
            }),
            None => self.piece_before(slot, record, at),
        };
        piece.filter(|piece| at < piece.end())
    }

    /// Hashes bytes that are in and next in order, until `budget` of them are hashed or one is missing. An unknown or
    /// sealed slot waits for ever.
    pub fn verify(&mut self, slot: u64, budget: u64) -> Progress {
        let Some((record, mut pending)) = self.slots.get(slot).zip(self.pending.get(&slot)) else {
            return Progress::Waiting;
        };
        let before = pending.hashed;
        let end = record.size.min(before.saturating_add(budget));
        while pending.hashed < end
            && let Some(piece) = self.piece_at(slot, &record, pending.hashed)
        {
            let len = end.min(piece.end()) - pending.hashed;
            let hash = &mut pending.hash;
            self.windows(slot, &record, pending.hashed, len, |bytes| {
                hash.update(bytes);
                true
            });
            pending.hashed += len;
        }
        let is_complete = u64::from(pending.received) == chunk_count(record.size);
        let progress = match (is_complete, pending.hashed == record.size) {
            (true, true) => Progress::Done {
                digest: pending.hash.clone().finalize(),
            },
            (true, false) => Progress::Hashing,
            (false, _) => Progress::Waiting,
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
            let mut sealed = Record {
                state: State::Sealed,
                digest,
                ..record
            };
            if record.pieces == 1
                && let Some((offset, _)) = self.extents.remove(&(slot, 0))
            {
                (sealed.whole, sealed.pieces) = (Some(offset), 0);
            }
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
        let looked = self.windows(slot, &record, from, len, |bytes| {
            look(bytes);
            true
        });
        looked.then_some(())
    }

    /// The bytes of a chunk that is in.
    pub fn read_chunk(&self, slot: u64, index: u32) -> Option<Vec<u8>> {
        let record = self.slots.get(slot)?;
        let len = chunk_len(record.size, index.into())?;
        if !self.has(slot, &record, index) {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(len).ok()?);
        let looked = self.windows(slot, &record, start_of(index), len, |window| {
            bytes.extend_from_slice(window);
            true
        });
        looked.then_some(bytes)
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

    /// Whether a chunk is in.
    pub fn has_chunk(&self, slot: u64, index: u32) -> bool {
        let record = self.slots.get(slot);
        record.is_some_and(|record| self.has(slot, &record, index))
    }

    fn has(&self, slot: u64, record: &Record, index: u32) -> bool {
        record.state == State::Sealed
            || self
                .pending
                .get(&slot)
                .is_some_and(|pending| self.is_in(slot, record, &pending, start_of(index)))
    }

    /// Whether the chunk of an open slot is in that begins at `start`. The empty blob's has no place.
    pub(crate) fn is_in(&self, slot: u64, record: &Record, pending: &Pending, start: u64) -> bool {
        match record.size {
            0 => pending.received > 0,
            _ => self.piece_at(slot, record, start).is_some(),
        }
    }

    /// Chunks that are not in yet.
    pub fn missing_count(&self, slot: u64) -> u32 {
        let pending = self.slots.get(slot).zip(self.pending.get(&slot));
        pending.map_or(0, |(record, pending)| {
            chunk_count(record.size) as u32 - pending.received
        })
    }

    /// The same as ranges, in order. One step for each extent.
    pub fn missing(&self, slot: u64) -> Vec<ChunkRange> {
        let Some((record, pending)) = self.slots.get(slot).zip(self.pending.get(&slot)) else {
            return vec![];
        };
        let count = chunk_count(record.size) as u32;
        let (mut next, mut ranges) = (0, vec![]);
        let mut push = |start, end| {
            if start < end {
                ranges.push(ChunkRange { start, end });
            }
        };
        if record.size == 0 {
            next = pending.received;
        }
        for entry in self.extents.range((slot, 0)..=(slot, u64::MAX)) {
            let ((_, from), (_, len)) = (*entry.key(), entry.value());
            push(next, (from / CHUNK_BYTES) as u32);
            next = (from + len).div_ceil(CHUNK_BYTES) as u32;
        }
        push(next, count);
        ranges
    }

    /// Bytes of the chunks that are in; of a sealed slot all, of an unknown one none.
    pub fn bytes_arrived(&self, slot: u64) -> u64 {
        let Some(record) = self.slots.get(slot) else {
            return 0;
        };
        let Some(pending) = self.pending.get(&slot) else {
            return record.size;
        };
        let last = chunk_count(record.size) as u32 - 1;
        let full = u64::from(pending.received) * CHUNK_BYTES;
        match self.is_in(slot, &record, &pending, start_of(last)) {
            true => full - CHUNK_BYTES + chunk_len(record.size, last.into()).unwrap_or(0),
            false => full,
        }
    }

    /// Gives a slot and its bytes back: a step for each extent, and one for each run of them. An unknown slot is no
    /// error.
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
        if record.pieces > 0 {
            let extents = self.extents.range((slot, 0)..=(slot, u64::MAX));
            let extents: Vec<_> = extents
                .map(|entry| (entry.key().1, entry.value()))
                .collect();
            let mut places = Vec::with_capacity(extents.len());
            for (from, (offset, len)) in extents {
                self.extents.remove(&(slot, from));
                places.push((offset, rounded(len)));
            }
            places.sort_unstable();
            let runs = places.chunk_by(|(offset, len), (next, _)| offset + len == *next);
            for run in runs {
                let len = run.iter().map(|(_, len)| len).sum();
                self.space.give(run[0].0, len, &mut self.slots);
            }
        }
        self.slots.remove(slot);
    }

    /// The slots in use, in order.
    pub fn slots(&self) -> impl Iterator<Item = u64> {
        self.slots.in_use()
    }

    /// Bytes of the data memory that are taken, and the holes between them.
    pub fn bytes_taken(&self) -> u64 {
        self.slots.end()
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

    /// Where `len` bytes of a blob from `from` on lie, piece by piece, until `look` answers false, or some of them
    /// have no place.
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
            let Some(piece) = self.piece_at(slot, record, at) else {
                return false;
            };
            let until = end.min(piece.end());
            if !look(piece.offset + (at - piece.from), until - at) {
                return false;
            }
            at = until;
        }
        true
    }
}

/// A part of a blob that lies in one place.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Where it begins in the blob.
    from: u64,
    /// Where it lies in the data memory.
    offset: u64,
    len: u64,
}

impl Piece {
    fn end(&self) -> u64 {
        self.from + self.len
    }
}

/// Where a chunk begins in its blob.
fn start_of(index: u32) -> u64 {
    u64::from(index) * CHUNK_BYTES
}

//! The table of slots: one record of 64 bytes for each blob, found by its number without a search.
//!
//! # Byte map, version 2
//!
//! Numbers are little-endian.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 3 | magic `OSB` |
//! | 3 | 1 | layout version of the whole store: 2 |
//! | 4 | 4 | reserved, zero |
//! | 8 | 8 | end: bytes of the data memory that are taken or in the free list |
//! | 16 | 8 | records in the table |
//! | 24 | 8 | the first free record, plus 1; 0 where none is free |
//! | 32 | 8 | records in use |
//! | 40 | 24 | reserved, zero |
//! | 64 | 64 each | the records |
//!
//! A record:
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 1 | 0 free, 1 open, 2 sealed |
//! | 1 | 3 | reserved, zero |
//! | 4 | 4 | pieces: extents of this blob in the map of extents |
//! | 8 | 8 | size of the blob |
//! | 16 | 8 | where the whole blob lies, if it is sealed and lies in one extent; all bits set otherwise. In a free record: the next free one, plus 1; 0 at the end |
//! | 24 | 32 | the digest, once sealed |
//! | 56 | 8 | a number that whoever keeps the blob keeps beside it |

use ic_stable_structures::Memory;

use crate::OpenError;

const MAGIC: &[u8; 3] = b"OSB";
const VERSION: u8 = 2;
const HEADER_BYTES: u64 = 64;
const RECORD_BYTES: u64 = 64;
const NOTE_AT: usize = 56;
const PAGE: u64 = 65_536;

/// The blob lies in no extent of its own, or in several.
const NOWHERE: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Free,
    Open,
    Sealed,
}

/// What is kept of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub state: State,
    pub pieces: u32,
    pub size: u64,
    /// Where the whole blob lies, if it is sealed and lies in one extent.
    pub whole: Option<u64>,
    pub digest: [u8; 32],
    pub note: u64,
}

impl Record {
    pub fn open(size: u64) -> Self {
        Self {
            state: State::Open,
            pieces: 0,
            size,
            whole: None,
            digest: [0; 32],
            note: 0,
        }
    }

    fn to_bytes(self) -> [u8; RECORD_BYTES as usize] {
        let mut bytes = [0; RECORD_BYTES as usize];
        bytes[0] = self.state as u8;
        bytes[4..8].copy_from_slice(&self.pieces.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.size.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.whole.unwrap_or(NOWHERE).to_le_bytes());
        bytes[24..56].copy_from_slice(&self.digest);
        bytes[NOTE_AT..].copy_from_slice(&self.note.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; RECORD_BYTES as usize]) -> Self {
        let whole = u64_at(bytes, 16);
        Self {
            state: match bytes[0] {
                1 => State::Open,
                2 => State::Sealed,
                _ => State::Free,
            },
            pieces: u32::from_le_bytes(bytes[4..8].try_into().expect("4 bytes")),
            size: u64_at(bytes, 8),
            whole: (whole != NOWHERE).then_some(whole),
            digest: bytes[24..56].try_into().expect("32 bytes"),
            note: u64_at(bytes, NOTE_AT),
        }
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// The table, with its header at hand.
pub struct Slots<M: Memory> {
    memory: M,
    end: u64,
    count: u64,
    /// Plus 1.
    first_free: u64,
    used: u64,
}

impl<M: Memory> Slots<M> {
    /// A new table, or the one that is in `memory`.
    pub fn open(memory: M) -> Result<Self, OpenError> {
        let mut slots = Self {
            memory,
            end: 0,
            count: 0,
            first_free: 0,
            used: 0,
        };
        if slots.memory.size() == 0 {
            if slots.memory.grow(1) < 0 {
                return Err(OpenError::Full);
            }
            slots.save();
            return Ok(slots);
        }
        let mut header = [0; HEADER_BYTES as usize];
        slots.memory.read(0, &mut header);
        if header[..3] != MAGIC[..] {
            return Err(OpenError::Foreign);
        }
        if header[3] != VERSION {
            return Err(OpenError::Version { found: header[3] });
        }
        slots.end = u64_at(&header, 8);
        slots.count = u64_at(&header, 16);
        slots.first_free = u64_at(&header, 24);
        slots.used = u64_at(&header, 32);
        Ok(slots)
    }

    fn save(&self) {
        let mut header = [0; HEADER_BYTES as usize];
        header[..3].copy_from_slice(MAGIC);
        header[3] = VERSION;
        let numbers = [self.end, self.count, self.first_free, self.used];
        for (place, number) in header[8..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.memory.write(0, &header);
    }

    /// Bytes of the data memory that are taken or in the free list.
    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn set_end(&mut self, end: u64) {
        self.end = end;
        self.save();
    }

    /// Records in use.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Records, free ones included.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The record of a slot in use.
    pub fn get(&self, slot: u64) -> Option<Record> {
        let record = (slot < self.count).then(|| self.read(slot))?;
        (record.state != State::Free).then_some(record)
    }

    /// Writes the record of a slot in use.
    pub fn set(&mut self, slot: u64, record: Record) {
        self.memory.write(place(slot), &record.to_bytes());
    }

    /// Changes nothing of a record in use but its note.
    pub fn set_note(&mut self, slot: u64, note: u64) {
        let place = place(slot) + NOTE_AT as u64;
        self.memory.write(place, &note.to_le_bytes());
    }

    /// A slot for a new record: a free one, else one behind the last. None where memory does not grow.
    pub fn add(&mut self, record: Record) -> Option<u64> {
        let slot = match self.first_free.checked_sub(1) {
            Some(slot) => {
                self.first_free = self.read(slot).whole.unwrap_or(0);
                slot
            }
            None => {
                let pages = place(self.count + 1).div_ceil(PAGE);
                let missing = pages.saturating_sub(self.memory.size());
                if missing > 0 && self.memory.grow(missing) < 0 {
                    return None;
                }
                self.count += 1;
                self.count - 1
            }
        };
        self.used += 1;
        self.save();
        self.set(slot, record);
        Some(slot)
    }

    /// Frees a slot in use.
    pub fn remove(&mut self, slot: u64) {
        let free = Record {
            state: State::Free,
            whole: Some(self.first_free),
            ..Record::open(0)
        };
        self.set(slot, free);
        self.first_free = slot + 1;
        self.used -= 1;
        self.save();
    }

    /// Whether the chain of free records has all of them.
    pub fn chain_is_whole(&self) -> bool {
        let (mut free, mut next) = (0, self.first_free);
        while let Some(slot) = next.checked_sub(1) {
            let is_free = slot < self.count && self.read(slot).state == State::Free;
            if !is_free || free == self.count {
                return false;
            }
            free += 1;
            next = self.read(slot).whole.unwrap_or(0);
        }
        free + self.used == self.count
    }

    /// The slots in use.
    pub fn in_use(&self) -> impl Iterator<Item = u64> {
        (0..self.count).filter(|slot| self.read(*slot).state != State::Free)
    }

    fn read(&self, slot: u64) -> Record {
        let mut bytes = [0; RECORD_BYTES as usize];
        self.memory.read(place(slot), &mut bytes);
        Record::from_bytes(&bytes)
    }
}

fn place(slot: u64) -> u64 {
    HEADER_BYTES + slot * RECORD_BYTES
}

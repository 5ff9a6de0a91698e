//! What is kept of a blob while its chunks come in.

use std::borrow::Cow;

use ic_stable_structures::{Storable, storable::Bound};
use openstorage_sha256::{SAVED_BYTES, Sha256};
use openstorage_types::{ChunkRange, chunk_count};

/// Chunks that are in, and how far the hash has come.
#[derive(Clone)]
pub struct Pending {
    /// Chunks that are in.
    pub received: u32,
    /// Chunks, from the first on, that are hashed.
    pub hashed: u32,
    pub hash: Sha256,
    /// One bit for each chunk, the lowest of a byte first.
    chunks: Vec<u8>,
}

impl Pending {
    pub fn new(size: u64) -> Self {
        Self {
            received: 0,
            hashed: 0,
            hash: Sha256::new(),
            chunks: vec![0; chunk_count(size).div_ceil(8) as usize],
        }
    }

    /// Whether a chunk is in.
    pub fn has(&self, index: u32) -> bool {
        self.chunks[index as usize / 8] & 1 << (index % 8) != 0
    }

    /// A chunk has come in that was not.
    pub fn set(&mut self, index: u32) {
        self.chunks[index as usize / 8] |= 1 << (index % 8);
        self.received += 1;
    }

    /// Chunks that are not in, of `count`.
    pub fn missing(&self, count: u32) -> Vec<ChunkRange> {
        let mut ranges: Vec<ChunkRange> = vec![];
        for index in (0..count).filter(|index| !self.has(*index)) {
            match ranges.last_mut() {
                Some(last) if last.end == index => last.end += 1,
                _ => ranges.push(ChunkRange {
                    start: index,
                    end: index + 1,
                }),
            }
        }
        ranges
    }

    /// Whether the bits say what `received` says.
    pub fn is_consistent(&self) -> bool {
        let bits: u32 = self.chunks.iter().map(|byte| byte.count_ones()).sum();
        bits == self.received && self.hashed <= self.received
    }
}

const CHUNKS_AT: usize = 8 + SAVED_BYTES;

/// Chunks received and hashed (4 bytes each, little-endian), the hash's state (104), then the chunks' bits.
impl Storable for Pending {
    const BOUND: Bound = Bound::Unbounded;

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        let mut bytes = Vec::with_capacity(CHUNKS_AT + self.chunks.len());
        bytes.extend_from_slice(&self.received.to_le_bytes());
        bytes.extend_from_slice(&self.hashed.to_le_bytes());
        bytes.extend_from_slice(&self.hash.to_bytes());
        bytes.extend_from_slice(&self.chunks);
        bytes.into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let state = bytes[8..CHUNKS_AT].try_into().expect("104 bytes");
        Self {
            received: number(0),
            hashed: number(4),
            hash: Sha256::from_bytes(state).expect("only this store writes states"),
            chunks: bytes[CHUNKS_AT..].to_vec(),
        }
    }
}

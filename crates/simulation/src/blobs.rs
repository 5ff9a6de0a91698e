//! What is uploaded in a run.

use openstorage_types::{BlobId, chunk_count, chunk_len, limits::CHUNK_BYTES};
use sha2::{Digest, Sha256};

use crate::dice::Dice;

/// One blob.
pub struct Blob {
    pub id: BlobId,
    pub bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let id = BlobId(Sha256::digest(&bytes).into());
        Self { id, bytes }
    }

    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub fn chunks(&self) -> u32 {
        chunk_count(self.size()) as u32
    }

    /// The bytes of a chunk; empty where there is no such chunk.
    pub fn chunk(&self, index: u32) -> &[u8] {
        let start = u64::from(index) * CHUNK_BYTES;
        let len = chunk_len(self.size(), index.into()).unwrap_or(0);
        self.bytes
            .get(start as usize..(start + len) as usize)
            .unwrap_or_default()
    }
}

/// Blobs of less than a chunk; they come first.
pub const SMALL: usize = 9;
/// One run in so many has a blob of [`CHUNKS_MAX`] chunks: hashing it takes as long as the rest of the run.
const LONG_ONE_IN: usize = 8;
const CHUNKS_MAX: usize = 12;

/// [`SMALL`] small blobs, the empty one among them, three of one to three chunks, and at times a long one.
pub fn of(dice: &mut Dice) -> Vec<Blob> {
    let mut sizes = vec![0, 1, 64, 4_096];
    sizes.extend((4..SMALL).map(|_| 100 + dice.below(150_000)));
    let chunk = CHUNK_BYTES as usize;
    sizes.extend([
        chunk,
        chunk + 1 + dice.below(60_000),
        2 * chunk + 1 + dice.below(50_000),
    ]);
    if dice.one_in(LONG_ONE_IN) {
        sizes.push((CHUNKS_MAX - 1) * chunk + 1 + dice.below(1_000));
    }
    sizes
        .into_iter()
        .map(|len| {
            let mut bytes = Vec::with_capacity(len + 8);
            while bytes.len() < len {
                bytes.extend(dice.number().to_le_bytes());
            }
            bytes.truncate(len);
            Blob::new(bytes)
        })
        .collect()
}

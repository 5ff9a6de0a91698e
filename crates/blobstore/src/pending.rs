//! What is kept of a blob while its chunks come in. Which of them are in is what its extents say.

use std::borrow::Cow;

use ic_stable_structures::{Storable, storable::Bound};
use openstorage_sha256::{SAVED_BYTES, Sha256};

/// How many chunks are in, and how far the hash has come.
#[derive(Clone)]
pub struct Pending {
    /// Chunks that are in.
    pub received: u32,
    /// Bytes, from the first on, that are hashed.
    pub hashed: u64,
    pub hash: Sha256,
}

impl Pending {
    pub fn new() -> Self {
        Self {
            received: 0,
            hashed: 0,
            hash: Sha256::new(),
        }
    }
}

const HASH_AT: usize = 16;

/// Chunks received (4 bytes), 4 bytes of zero, bytes hashed (8), both little-endian, then the hash's state (104).
impl Storable for Pending {
    const BOUND: Bound = Bound::Bounded {
        max_size: (HASH_AT + SAVED_BYTES) as u32,
        is_fixed_size: true,
    };

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        let mut bytes = Vec::with_capacity(HASH_AT + SAVED_BYTES);
        bytes.extend_from_slice(&u64::from(self.received).to_le_bytes());
        bytes.extend_from_slice(&self.hashed.to_le_bytes());
        bytes.extend_from_slice(&self.hash.to_bytes());
        bytes.into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let state = bytes[HASH_AT..].try_into().expect("104 bytes");
        Self {
            received: number(0) as u32,
            hashed: number(8),
            hash: Sha256::from_bytes(state).expect("only this store writes states"),
        }
    }
}

//! What is kept of a slot.

use std::borrow::Cow;

use ic_stable_structures::{Storable, storable::Bound};
use sha2::{
    Sha256,
    digest::{Digest, common::hazmat::SerializableState},
};

/// A slot's blob: how much of it is in, and how far its hash has come.
#[derive(Clone)]
pub struct Record {
    pub size: u64,
    /// Chunks that are in.
    pub received: u32,
    /// Chunks, from the first on, that are hashed.
    pub hashed: u32,
    /// None once nobody asks for it any more.
    pub hash: Option<Sha256>,
}

impl Record {
    pub fn new(size: u64) -> Self {
        Self {
            size,
            received: 0,
            hashed: 0,
            hash: Some(Sha256::new()),
        }
    }
}

/// Size (8 bytes, little-endian), chunks received and hashed (4 each), then the hash's state, if it is
/// still needed.
impl Storable for Record {
    const BOUND: Bound = Bound::Bounded {
        max_size: 256,
        is_fixed_size: false,
    };

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        let mut bytes = self.size.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.received.to_le_bytes());
        bytes.extend_from_slice(&self.hashed.to_le_bytes());
        if let Some(hash) = &self.hash {
            bytes.extend_from_slice(&hash.serialize());
        }
        bytes.into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let state = &bytes[16..];
        Self {
            size: u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")),
            received: number(8),
            hashed: number(12),
            hash: (!state.is_empty()).then(|| {
                let state = state.try_into().expect("the state has always one length");
                Sha256::deserialize(state).expect("only this store writes states")
            }),
        }
    }
}

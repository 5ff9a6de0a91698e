//! Blobs in stable memory: each chunk is written once, to its final place, and hashed once, whatever the
//! order of arrival.
//!
//! A blob lives in a *slot*, a number that [`BlobStore::open`] or [`BlobStore::put`] hands out and that is
//! its own until [`BlobStore::remove`]. The store knows sizes, chunks and hashes; it knows no users, no
//! references and no names.
//!
//! | module | what |
//! | --- | --- |
//! | `store` | [`BlobStore`]: slots, chunks, the running hash |
//! | `slots` | the table of slots, byte by byte |
//! | `pending` | how far a blob is while its chunks come in |
//! | `space` | which bytes are taken and which are free; how they fragment |
//! | `audit` | the proof that nothing is lost and nothing is taken twice |
//!
//! ```
//! use ic_stable_structures::VectorMemory;
//! use openstorage_blobstore::{BlobStore, Memories, Progress};
//! use sha2::{Digest, Sha256};
//!
//! let mut store = BlobStore::init(Memories::from_fn(|_| VectorMemory::default())).unwrap();
//! let slot = store.open(5).unwrap();
//! store.write(slot, 0, b"hello").unwrap();
//! let digest = Sha256::digest(b"hello").into();
//! assert_eq!(store.verify(slot, 1_000_000), Progress::Done { digest });
//! store.seal(slot, digest);
//! assert_eq!(store.read_chunk(slot, 0).unwrap(), b"hello");
//! store.remove(slot);
//! assert_eq!(store.read_chunk(slot, 0), None);
//! ```
//!
//! # Layout
//!
//! The byte map of the table of slots stands in `slots`, with the magic and the version of the layout of the
//! whole store. The other parts are maps of `ic-stable-structures`, which carry a magic and a version of
//! their own; what their keys and values look like stands beside them. Numbers in keys are big-endian, as
//! `Storable` writes them, so that their order is that of the bytes. Golden files hold all of it fast.

mod audit;
mod pending;
mod slots;
mod space;
mod store;

use std::fmt;

pub use audit::Damage;
pub use space::Full;
pub use store::{BlobStore, Memories, Progress, WriteError};

/// Why a store cannot be opened. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// The memory holds something else.
    Foreign,
    /// A layout of another version than this code knows.
    Version { found: u8 },
    /// The memory does not grow.
    Full,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => write!(f, "the memory holds something else than a blob store"),
            Self::Version { found } => write!(f, "unknown layout version {found} of a blob store"),
            Self::Full => write!(f, "the memory does not grow"),
        }
    }
}

impl std::error::Error for OpenError {}

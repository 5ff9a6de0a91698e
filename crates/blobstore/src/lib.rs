//! Blobs in stable memory: each chunk is written once, to its final place, and hashed once, whatever the
//! order of arrival.
//!
//! A blob lives in a *slot*, a number that [`BlobStore::open`] hands out and never hands out again. The
//! store knows sizes, chunks and hashes; it knows no users, no references and no names.
//!
//! | module | what |
//! | --- | --- |
//! | `store` | [`BlobStore`]: slots, chunks, the running hash |
//! | `record` | what is kept of a slot |
//! | `space` | which bytes are taken and which are free |
//!
//! ```
//! use ic_stable_structures::VectorMemory;
//! use openstorage_blobstore::{BlobStore, Memories, Progress};
//! use sha2::{Digest, Sha256};
//!
//! let mut store = BlobStore::init(Memories::from_fn(|_| VectorMemory::default()));
//! let slot = store.open(5);
//! store.write(slot, 0, b"hello").unwrap();
//! let digest = Sha256::digest(b"hello").into();
//! assert_eq!(store.verify(slot, 1_000_000), Progress::Done { digest });
//! assert_eq!(store.read_chunk(slot, 0).unwrap(), b"hello");
//! store.remove(slot);
//! assert_eq!(store.read_chunk(slot, 0), None);
//! ```

mod record;
mod space;
mod store;

pub use store::{BlobStore, Damage, Memories, Progress, WriteError};

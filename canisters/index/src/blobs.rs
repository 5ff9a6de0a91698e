//! Which bucket holds which blob. References live in the buckets; the index keeps a blob's homes only.

use std::{borrow::Cow, ops::RangeBounds};

use candid::Principal;
use ic_stable_structures::{StableBTreeMap, StableCell, Storable, storable::Bound};
use openstorage_types::BlobId;

use crate::{
    forget::SLICE_ROWS,
    memory::{LAST, Memory, row_bytes, row_numbers},
};

/// What would take a walk over all blobs to count. Row: blobs, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Blobs, however many buckets have each.
    pub blobs: u64,
    /// Bytes of all copies.
    pub bytes_stored: u64,
}

pub struct Blobs {
    /// (blob, bucket) → bytes of the blob.
    homes: StableBTreeMap<([u8; 32], Principal), u64, Memory>,
    totals: StableCell<Totals, Memory>,
}

impl Blobs {
    pub fn init(homes: Memory, totals: Memory) -> Self {
        Self {
            homes: StableBTreeMap::init(homes),
            totals: StableCell::init(totals, Totals::default()),
        }
    }

    pub fn totals(&self) -> Totals {
        *self.totals.get()
    }

    /// The buckets that hold a blob.
    pub fn homes(&self, blob: &BlobId) -> impl Iterator<Item = Principal> {
        self.homes.range(all_homes(blob)).map(|entry| entry.key().1)
    }

    /// The bucket holds the blob, as it may have said before.
    pub fn add(&mut self, blob: &BlobId, bucket: Principal, size: u64) {
        let first = self.homes(blob).next().is_none();
        if self.homes.insert((blob.0, bucket), size).is_none() {
            let Totals {
                blobs,
                bytes_stored,
            } = self.totals();
            self.totals.set(Totals {
                blobs: blobs + u64::from(first),
                bytes_stored: bytes_stored.saturating_add(size),
            });
        }
    }

    /// The bucket holds the blob no more, as it may have said before.
    pub fn remove(&mut self, blob: &BlobId, bucket: Principal) {
        if let Some(size) = self.homes.remove(&(blob.0, bucket)) {
            let last = self.homes(blob).next().is_none();
            let Totals {
                blobs,
                bytes_stored,
            } = self.totals();
            self.totals.set(Totals {
                blobs: blobs - u64::from(last),
                bytes_stored: bytes_stored.saturating_sub(size),
            });
        }
    }
}

fn all_homes(blob: &BlobId) -> impl RangeBounds<([u8; 32], Principal)> {
    (blob.0, Principal::management_canister())..=(blob.0, LAST)
}

impl Storable for Totals {
    const BOUND: Bound = Bound::Unbounded;

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        row_bytes([self.blobs, self.bytes_stored]).into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        let [blobs, bytes_stored] = row_numbers(&bytes);
        Self {
            blobs,
            bytes_stored,
        }
    }
}

impl Blobs {
    /// Forgets a lost bucket's copies among the next [`SLICE_ROWS`] homes after a blob's, and those of one
    /// blob more. Returns the blob up to which it has looked; none at the end.
    pub fn forget(&mut self, bucket: Principal, after: Option<[u8; 32]>) -> Option<[u8; 32]> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |blob| Excluded((blob, LAST)));
        let mut found = Vec::new();
        let mut seen = None;
        for (rows, entry) in self.homes.range((from, Unbounded)).enumerate() {
            let (blob, home) = *entry.key();
            if rows >= SLICE_ROWS && seen != Some(blob) {
                found.iter().for_each(|blob| self.remove(blob, bucket));
                return seen;
            }
            seen = Some(blob);
            if home == bucket {
                found.push(BlobId(blob));
            }
        }
        found.iter().for_each(|blob| self.remove(blob, bucket));
        None
    }
}

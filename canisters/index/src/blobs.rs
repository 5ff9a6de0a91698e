//! Which bucket holds which blob. References live in the buckets; the index keeps a blob's homes only.

use std::{borrow::Cow, collections::BTreeMap, ops::RangeBounds};

use candid::Principal;
use ic_stable_structures::{StableBTreeMap, StableCell, Storable, storable::Bound};
use openstorage_types::BlobId;

use crate::memory::{LAST, Memory, row_bytes, row_numbers};

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
    /// (bucket, blob) → the telling of the bucket's whole state that named the blob last.
    by_bucket: StableBTreeMap<(Principal, [u8; 32]), u64, Memory>,
    totals: StableCell<Totals, Memory>,
    /// Where [`Blobs::sweep`] goes on; after an upgrade, from the beginning.
    swept: BTreeMap<Principal, [u8; 32]>,
}

impl Blobs {
    pub fn init(homes: Memory, by_bucket: Memory, totals: Memory) -> Self {
        Self {
            homes: StableBTreeMap::init(homes),
            by_bucket: StableBTreeMap::init(by_bucket),
            totals: StableCell::init(totals, Totals::default()),
            swept: BTreeMap::new(),
        }
    }

    pub fn totals(&self) -> Totals {
        *self.totals.get()
    }

    /// (blob, bucket) → bytes.
    pub fn all(&self) -> impl Iterator<Item = ((BlobId, Principal), u64)> {
        self.homes.iter().map(|entry| {
            let (blob, bucket) = *entry.key();
            ((BlobId(blob), bucket), entry.value())
        })
    }

    /// The buckets that hold a blob.
    pub fn homes(&self, blob: &BlobId) -> impl Iterator<Item = Principal> {
        self.homes.range(all_homes(blob)).map(|entry| entry.key().1)
    }

    /// The bucket holds the blob, as it may have said before. `generation` counts how often the bucket has
    /// begun to tell its whole state.
    pub fn add(&mut self, blob: &BlobId, bucket: Principal, size: u64, generation: u64) {
        self.by_bucket.insert((bucket, blob.0), generation);
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
        self.by_bucket.remove(&(bucket, blob.0));
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

    /// Removes the blobs that a bucket has not named since `generation`, looking at `max` of them at most.
    /// True when all have been looked at.
    pub fn sweep(&mut self, bucket: Principal, generation: u64, max: usize) -> bool {
        let from = self.swept.remove(&bucket).unwrap_or([0; 32]);
        let seen: Vec<_> = self
            .by_bucket
            .range((bucket, from)..=(bucket, [u8::MAX; 32]))
            .take(max)
            .map(|entry| (entry.key().1, entry.value()))
            .collect();
        for (blob, named) in &seen {
            if *named < generation {
                self.remove(&BlobId(*blob), bucket);
            }
        }
        match seen.last() {
            Some((last, _)) if seen.len() == max => {
                self.swept.insert(bucket, *last);
                false
            }
            _ => true,
        }
    }

    /// Whether both orders and the totals agree.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut counted = Totals::default();
        let mut latest = None;
        for ((blob, bucket), size) in self.all() {
            counted.blobs += u64::from(latest != Some(blob));
            counted.bytes_stored += size;
            latest = Some(blob);
            if !self.by_bucket.contains_key(&(bucket, blob.0)) {
                return Err(format!(
                    "{blob} in {bucket} is not among what that bucket holds"
                ));
            }
        }
        let (homes, held) = (self.homes.len(), self.by_bucket.len());
        if homes != held {
            return Err(format!(
                "there are {homes} homes of blobs, and buckets hold {held}"
            ));
        }
        let said = self.totals();
        if said != counted {
            return Err(format!("there are {counted:?}, and {said:?} are said"));
        }
        Ok(())
    }

    /// Removes all homes in a lost bucket, `max` of them at most. True when none is left.
    pub fn forget(&mut self, bucket: Principal, max: usize) -> bool {
        self.swept.remove(&bucket);
        let found: Vec<_> = self
            .by_bucket
            .range((bucket, [0; 32])..=(bucket, [u8::MAX; 32]))
            .take(max)
            .map(|entry| BlobId(entry.key().1))
            .collect();
        found.iter().for_each(|blob| self.remove(blob, bucket));
        found.len() < max
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

//! Who refers to which blob, and for whom it is visible.

use std::borrow::Cow;

use candid::{CandidType, Principal};
use ic_stable_structures::{StableBTreeMap, Storable, storable::Bound};
use openstorage_types::{BlobId, limits::MIME_TYPE_BYTES_MAX};
use serde::{Deserialize, Serialize};

use crate::memory::{self, Memories, Memory};

type Id = [u8; 32];

/// What a reference says besides its key (blob, owner, accessor).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub mime_type: String,
    pub name: Option<String>,
    pub created_ms: u64,
    /// Its place among all references that were ever made here.
    number: u64,
}

/// The version of a row's layout.
const VERSION: u8 = 1;
const MIME_TYPE_AT: usize = 18;
// The length of a MIME type has one byte.
const _: () = assert!(MIME_TYPE_BYTES_MAX <= u8::MAX as usize);

/// Version (1 byte), creation and number (8 bytes each, little-endian), the MIME type's length (1 byte), the
/// MIME type, and the file name, if there is one: it is never empty.
impl Storable for Reference {
    const BOUND: Bound = Bound::Unbounded;

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        let name = self.name.as_deref().unwrap_or_default();
        let mut bytes = Vec::with_capacity(MIME_TYPE_AT + self.mime_type.len() + name.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.created_ms.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.push(self.mime_type.len() as u8);
        bytes.extend_from_slice(self.mime_type.as_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        assert_eq!(bytes[0], VERSION, "the version of a reference's layout");
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (mime_type, name) =
            bytes[MIME_TYPE_AT..].split_at(usize::from(bytes[MIME_TYPE_AT - 1]));
        Self {
            created_ms: number(1),
            number: number(9),
            mime_type: text(mime_type),
            name: (!name.is_empty()).then(|| text(name)),
        }
    }
}

pub struct References {
    rows: StableBTreeMap<(Id, Principal, Principal), Reference, Memory>,
    by_owner: StableBTreeMap<(Principal, Id), (), Memory>,
    /// (accessor, blob, number) to owner: the first of an accessor and blob is the oldest.
    by_accessor: StableBTreeMap<(Principal, Id, u64), Principal, Memory>,
}

/// Smaller and larger than any principal.
const LOWEST: Principal = Principal::management_canister();
fn highest() -> Principal {
    Principal::from_slice(&[u8::MAX; 29])
}

impl References {
    pub fn open(memories: &Memories) -> Self {
        Self {
            rows: StableBTreeMap::init(memories.get(memory::REFERENCES)),
            by_owner: StableBTreeMap::init(memories.get(memory::BY_OWNER)),
            by_accessor: StableBTreeMap::init(memories.get(memory::BY_ACCESSOR)),
        }
    }

    pub fn count(&self) -> u64 {
        self.rows.len()
    }

    pub fn get(&self, blob: &BlobId, owner: &Principal, accessor: &Principal) -> Option<Reference> {
        self.rows.get(&(blob.0, *owner, *accessor))
    }

    /// Adds a reference under a `number` that was never used before. False where it is there already;
    /// then nothing has changed.
    pub fn add(
        &mut self,
        blob: &BlobId,
        owner: Principal,
        named: &Named,
        now_ms: u64,
        number: u64,
    ) -> bool {
        let key = (blob.0, owner, named.accessor_id);
        if self.rows.contains_key(&key) {
            return false;
        }
        let reference = Reference {
            mime_type: named.mime_type.clone(),
            name: named.name.clone(),
            created_ms: now_ms,
            number,
        };
        self.rows.insert(key, reference);
        self.by_owner.insert((owner, blob.0), ());
        self.by_accessor
            .insert((named.accessor_id, blob.0, number), owner);
        true
    }

    /// Whether there was such a reference.
    pub fn remove(&mut self, blob: &BlobId, owner: &Principal, accessor: &Principal) -> bool {
        let Some(reference) = self.rows.remove(&(blob.0, *owner, *accessor)) else {
            return false;
        };
        self.by_accessor
            .remove(&(*accessor, blob.0, reference.number));
        if !self.owner_has(blob, owner) {
            self.by_owner.remove(&(*owner, blob.0));
        }
        true
    }

    pub fn owner_has(&self, blob: &BlobId, owner: &Principal) -> bool {
        self.of_owner(blob, owner).next().is_some()
    }

    /// Whether anybody refers to the blob.
    pub fn any(&self, blob: &BlobId) -> bool {
        let range = (blob.0, LOWEST, LOWEST)..=(blob.0, highest(), highest());
        self.rows.keys_range(range).next().is_some()
    }

    /// Accessors to which the owner shows the blob, and how.
    pub fn of_owner(
        &self,
        blob: &BlobId,
        owner: &Principal,
    ) -> impl Iterator<Item = (Principal, Reference)> {
        let range = (blob.0, *owner, LOWEST)..=(blob.0, *owner, highest());
        self.rows
            .range(range)
            .map(|entry| (entry.key().2, entry.value()))
    }

    /// How an accessor sees a blob: by its oldest living reference. None where it does not.
    pub fn seen(&self, blob: &BlobId, accessor: &Principal) -> Option<Reference> {
        let range = (*accessor, blob.0, 0)..=(*accessor, blob.0, u64::MAX);
        let owner = self.by_accessor.range(range).next()?.value();
        self.get(blob, &owner, accessor)
    }

    /// The first of an owner's references: blob and accessor.
    pub fn first_of(&self, owner: &Principal) -> Option<(BlobId, Principal)> {
        let blob = self.blobs_of(owner, None, 1).pop()?;
        let (accessor, _) = self.of_owner(&blob, owner).next()?;
        Some((blob, accessor))
    }

    /// The owner's blobs in order of their ids, after `after`.
    pub fn blobs_of(&self, owner: &Principal, after: Option<&BlobId>, max: usize) -> Vec<BlobId> {
        let first = (*owner, after.map_or([0; 32], |id| id.0));
        let range = self.by_owner.keys_range(first..=(*owner, [u8::MAX; 32]));
        range
            .map(|(_, id)| BlobId(id))
            .filter(|id| after != Some(id))
            .take(max)
            .collect()
    }

    /// References that an accessor sees: (blob, owner), at most `max`.
    pub fn of_accessor(&self, accessor: &Principal, max: usize) -> Vec<(BlobId, Principal)> {
        let range = (*accessor, [0; 32], 0)..=(*accessor, [u8::MAX; 32], u64::MAX);
        self.by_accessor
            .range(range)
            .take(max)
            .map(|entry| (BlobId(entry.key().1), entry.value()))
            .collect()
    }
}

/// An accessor, and how the blob is shown to it.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub accessor_id: Principal,
    pub mime_type: String,
    pub name: Option<String>,
}

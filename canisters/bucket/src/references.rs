//! Who refers to which blob, and for whom it is visible.

use std::{borrow::Cow, collections::BTreeMap};

use candid::{CandidType, Principal};
use ic_stable_structures::{StableBTreeMap, Storable, storable::Bound};
use openstorage_types::{BlobId, file_name, limits::MIME_TYPE_BYTES_MAX, mime_type};
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

#[cfg(test)]
impl Reference {
    pub fn new(mime_type: &str, name: Option<&str>) -> Self {
        Self {
            mime_type: mime_type.into(),
            name: name.map(str::to_owned),
            created_ms: 0,
            number: 0,
        }
    }
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

/// The bytes of a principal in a key: 29, padded with zeros, and its length.
pub const PRINCIPAL_BYTES: usize = 30;
const ID_BYTES: usize = 32;

pub fn principal_bytes(principal: &Principal) -> [u8; PRINCIPAL_BYTES] {
    let (mut bytes, id) = ([0; PRINCIPAL_BYTES], principal.as_slice());
    bytes[..id.len()].copy_from_slice(id);
    bytes[PRINCIPAL_BYTES - 1] = id.len() as u8;
    bytes
}

pub fn principal_at(bytes: &[u8]) -> Principal {
    let len = usize::from(bytes[PRINCIPAL_BYTES - 1]);
    Principal::from_slice(&bytes[..len])
}

/// Owner, blob, accessor: what an owner has lies together.
type Row = [u8; 2 * PRINCIPAL_BYTES + ID_BYTES];
const BLOB_AT: usize = PRINCIPAL_BYTES;
const ACCESSOR_AT: usize = BLOB_AT + ID_BYTES;

/// Accessor, blob, number (8 bytes, big-endian): the first of an accessor and blob is the oldest.
type Sight = [u8; PRINCIPAL_BYTES + ID_BYTES + 8];
const NUMBER_AT: usize = PRINCIPAL_BYTES + ID_BYTES;

fn row(owner: &Principal, blob: &Id, accessor: &Principal) -> Row {
    let mut key = first_row(owner, blob);
    key[ACCESSOR_AT..].copy_from_slice(&principal_bytes(accessor));
    key
}

/// Before every row of the owner and the blob.
fn first_row(owner: &Principal, blob: &Id) -> Row {
    let mut key = [0; size_of::<Row>()];
    key[..BLOB_AT].copy_from_slice(&principal_bytes(owner));
    key[BLOB_AT..ACCESSOR_AT].copy_from_slice(blob);
    key
}

/// After every row of the owner and the blob.
fn last_row(owner: &Principal, blob: &Id) -> Row {
    let mut key = first_row(owner, blob);
    key[ACCESSOR_AT..].fill(u8::MAX);
    key
}

fn sight(accessor: &Principal, blob: &Id, number: u64) -> Sight {
    let mut key = [0; size_of::<Sight>()];
    key[..BLOB_AT].copy_from_slice(&principal_bytes(accessor));
    key[BLOB_AT..NUMBER_AT].copy_from_slice(blob);
    key[NUMBER_AT..].copy_from_slice(&number.to_be_bytes());
    key
}

fn blob_at(key: &[u8]) -> Id {
    key[BLOB_AT..][..ID_BYTES].try_into().expect("32 bytes")
}

pub struct References {
    rows: StableBTreeMap<Row, Reference, Memory>,
    /// References that are not how an accessor sees a blob, since an older one is; to the owner. What it sees
    /// stands in the certified tree.
    later: StableBTreeMap<Sight, Principal, Memory>,
}

impl References {
    pub fn open(memories: &Memories) -> Self {
        Self {
            rows: StableBTreeMap::init(memories.get(memory::REFERENCES)),
            later: StableBTreeMap::init(memories.get(memory::LATER_SIGHTS)),
        }
    }

    pub fn count(&self) -> u64 {
        self.rows.len()
    }

    pub fn get(&self, blob: &BlobId, owner: &Principal, accessor: &Principal) -> Option<Reference> {
        self.rows.get(&row(owner, &blob.0, accessor))
    }

    pub fn has(&self, blob: &BlobId, owner: &Principal, accessor: &Principal) -> bool {
        self.rows.contains_key(&row(owner, &blob.0, accessor))
    }

    /// Adds a reference that is not there, under a `number` that was never used before, and returns it.
    pub fn add(
        &mut self,
        blob: &BlobId,
        owner: Principal,
        named: &Named,
        now_ms: u64,
        number: u64,
    ) -> Reference {
        let reference = Reference {
            mime_type: named.mime_type.clone(),
            name: named.name.clone(),
            created_ms: now_ms,
            number,
        };
        let accessor = &named.accessor_id;
        let row = row(&owner, &blob.0, accessor);
        self.rows.insert(row, reference.clone());
        reference
    }

    /// What there was.
    pub fn remove(
        &mut self,
        blob: &BlobId,
        owner: &Principal,
        accessor: &Principal,
    ) -> Option<Reference> {
        self.rows.remove(&row(owner, &blob.0, accessor))
    }

    /// The accessor sees the blob by an older reference: this one waits.
    pub fn queue(&mut self, blob: &BlobId, owner: Principal, accessor: &Principal, number: u64) {
        self.later.insert(sight(accessor, &blob.0, number), owner);
    }

    /// A reference that waited is gone.
    pub fn unqueue(&mut self, blob: &BlobId, accessor: &Principal, reference: &Reference) {
        self.later
            .remove(&sight(accessor, &blob.0, reference.number));
    }

    /// The oldest of those that wait, which waits no longer, and its owner.
    pub fn next(&mut self, blob: &BlobId, accessor: &Principal) -> Option<(Principal, Reference)> {
        if self.later.is_empty() {
            return None;
        }
        let (owner, reference) = self.waiting(blob, accessor).next()?;
        self.unqueue(blob, accessor, &reference);
        Some((owner, reference))
    }

    /// Whether some references wait.
    pub fn some_wait(&self) -> bool {
        !self.later.is_empty()
    }

    /// Those that wait, the oldest first.
    pub fn waiting(
        &self,
        blob: &BlobId,
        accessor: &Principal,
    ) -> impl Iterator<Item = (Principal, Reference)> {
        let range = sight(accessor, &blob.0, 0)..=sight(accessor, &blob.0, u64::MAX);
        let (blob, accessor) = (*blob, *accessor);
        self.later.range(range).filter_map(move |entry| {
            let owner = entry.value();
            Some((owner, self.get(&blob, &owner, &accessor)?))
        })
    }

    pub fn owner_has(&self, blob: &BlobId, owner: &Principal) -> bool {
        let range = first_row(owner, &blob.0)..=last_row(owner, &blob.0);
        self.rows.keys_range(range).next().is_some()
    }

    /// The owner's references to the blob.
    pub fn count_of(&self, blob: &BlobId, owner: &Principal) -> u64 {
        let range = first_row(owner, &blob.0)..=last_row(owner, &blob.0);
        self.rows.keys_range(range).count() as u64
    }

    /// Accessors to which the owner shows the blob, and how.
    pub fn of_owner(
        &self,
        blob: &BlobId,
        owner: &Principal,
    ) -> impl Iterator<Item = (Principal, Reference)> {
        let range = first_row(owner, &blob.0)..=last_row(owner, &blob.0);
        self.rows
            .range(range)
            .map(|entry| (principal_at(&entry.key()[ACCESSOR_AT..]), entry.value()))
    }

    /// The first of an owner's references: blob and accessor.
    pub fn first_of(&self, owner: &Principal) -> Option<(BlobId, Principal)> {
        let range = first_row(owner, &[0; ID_BYTES])..=last_row(owner, &[u8::MAX; ID_BYTES]);
        let key = self.rows.keys_range(range).next()?;
        Some((BlobId(blob_at(&key)), principal_at(&key[ACCESSOR_AT..])))
    }

    /// The owner's blobs in order of their ids, after `after`. One search for each, however many accessors
    /// it is shown to.
    pub fn blobs_of(&self, owner: &Principal, after: Option<&BlobId>, max: usize) -> Vec<BlobId> {
        use std::ops::Bound::{Excluded, Included};
        let end = Included(last_row(owner, &[u8::MAX; ID_BYTES]));
        let mut start = match after {
            Some(blob) => Excluded(last_row(owner, &blob.0)),
            None => Included(first_row(owner, &[0; ID_BYTES])),
        };
        let mut blobs = vec![];
        while blobs.len() < max
            && start != Excluded(last_row(owner, &[u8::MAX; ID_BYTES]))
            && let Some(key) = self.rows.keys_range((start, end)).next()
        {
            let blob = blob_at(&key);
            start = Excluded(last_row(owner, &blob));
            blobs.push(BlobId(blob));
        }
        blobs
    }

    /// Of each accessor and blob the owners of all references, the oldest first, and what they say.
    pub fn shown(&self) -> BTreeMap<(Principal, BlobId), Vec<(Principal, Reference)>> {
        let mut shown = BTreeMap::<_, Vec<_>>::new();
        for entry in self.rows.iter() {
            let (key, reference) = (entry.key(), entry.value());
            let accessor = principal_at(&key[ACCESSOR_AT..]);
            let pair = (accessor, BlobId(blob_at(key)));
            let of_pair = shown.entry(pair).or_default();
            of_pair.push((principal_at(key), reference));
        }
        for of_pair in shown.values_mut() {
            of_pair.sort_by_key(|(_, reference)| reference.number);
        }
        shown
    }

    /// How many wait.
    pub fn waiting_count(&self) -> u64 {
        self.later.len()
    }

    /// All of them: (blob, owner, accessor), in the order of owners.
    pub fn all(&self) -> impl Iterator<Item = (BlobId, Principal, Principal)> {
        self.rows.keys().map(|key| {
            let blob = BlobId(blob_at(&key));
            (blob, principal_at(&key), principal_at(&key[ACCESSOR_AT..]))
        })
    }
}

/// An accessor, and how the blob is shown to it.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub accessor_id: Principal,
    pub mime_type: String,
    pub name: Option<String>,
}

impl Named {
    /// Accessors to all of which a blob is shown in the same way; MIME type and name as they are stored.
    pub fn all(
        accessors: &[Principal],
        mime: &str,
        name: Option<&str>,
    ) -> impl Iterator<Item = Self> {
        let mime_type = mime_type(mime).unwrap_or_default().into_owned();
        let name = name.and_then(file_name).map(Cow::into_owned);
        accessors.iter().map(move |accessor_id| Self {
            accessor_id: *accessor_id,
            mime_type: mime_type.clone(),
            name: name.clone(),
        })
    }
}

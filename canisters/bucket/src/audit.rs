//! Counts anew, from references and open uploads, what users' counters ought to say; and looks at all there
//! is, for tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use candid::Principal;
use openstorage_blobstore::Damage;
use openstorage_types::{
    BlobId,
    channel::{AuditArgs, AuditPage, AuditPageError, AuditPlace, AuditedUser, UserCounters},
    limits::AUDIT_ROWS_MAX,
};

use sha2::{Digest, Sha256};

use crate::Bucket;

/// All that a bucket holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// With their sizes.
    pub blobs: BTreeMap<BlobId, u64>,
    /// Blob, owner, accessor.
    pub references: BTreeSet<(BlobId, Principal, Principal)>,
    /// User, blob, and the size of the whole.
    pub uploads: BTreeSet<(Principal, BlobId, u64)>,
    /// No reference may name these any more.
    pub accessors_deleted: BTreeSet<Principal>,
}

/// What in a bucket cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contradiction {
    /// Bytes are lost, or taken twice.
    Store(Damage),
    /// Bytes that belong to neither a blob nor an upload.
    Slots { used: u64, owned: u64 },
    /// The bytes of a blob do not hash to its id, or are not as many as is said.
    Bytes(BlobId),
    /// A blob is said to have so many references, and has others: 0 where there is no such blob.
    References {
        blob: BlobId,
        said: u64,
        counted: u64,
    },
    /// So many bytes are said to be stored and reserved.
    Totals {
        said: (u64, u64),
        counted: (u64, u64),
    },
    /// What is certified is not what there is.
    Certified(&'static str),
}

impl Bucket {
    /// Looks at every byte, and lists what there is. No message could: for tests, on an image of the memory.
    pub fn inventory(&self) -> Result<Inventory, Contradiction> {
        self.store.audit().map_err(Contradiction::Store)?;
        let references: BTreeSet<_> = self.references.all().collect();
        let mut counted = BTreeMap::<BlobId, u64>::new();
        for (blob, ..) in &references {
            *counted.entry(*blob).or_default() += 1;
        }
        let mut blobs = BTreeMap::new();
        for entry in self.blobs.iter() {
            let (blob, slot) = (BlobId(*entry.key()), entry.value());
            let stored = self.in_slot(slot).ok_or(Contradiction::Bytes(blob))?;
            let mut hash = Sha256::new();
            let read = self
                .store
                .read(stored.slot, 0, stored.size, |bytes| hash.update(bytes));
            if read.is_none() || <[u8; 32]>::from(hash.finalize()) != blob.0 {
                return Err(Contradiction::Bytes(blob));
            }
            let counted = counted.remove(&blob).unwrap_or(0);
            let said = stored.references;
            if counted == 0 || counted != said {
                return Err(Contradiction::References {
                    blob,
                    said,
                    counted,
                });
            }
            blobs.insert(blob, stored.size);
        }
        if let Some((blob, counted)) = counted.pop_first() {
            let said = 0;
            return Err(Contradiction::References {
                blob,
                said,
                counted,
            });
        }
        let sessions: Vec<_> = self.uploads.all().collect();
        let slots = sessions
            .iter()
            .filter(|(.., session)| session.slot.is_some());
        let (used, owned) = (self.store.len(), blobs.len() as u64 + slots.count() as u64);
        if used != owned {
            return Err(Contradiction::Slots { used, owned });
        }
        let uploads: BTreeSet<_> = sessions
            .iter()
            .map(|(user, blob, session)| (*user, *blob, session.size))
            .collect();
        let totals = self.totals();
        let said = (totals.bytes_stored, totals.bytes_reserved);
        let counted = (
            blobs.values().sum(),
            uploads.iter().map(|(.., size)| *size).sum(),
        );
        if said != counted {
            return Err(Contradiction::Totals { said, counted });
        }
        self.audit_certified().map_err(Contradiction::Certified)?;
        Ok(Inventory {
            blobs,
            references,
            uploads,
            accessors_deleted: self.accessors_deleted.iter().map(|it| *it.key()).collect(),
        })
    }

    /// One page: so many users, or so many of one user's blobs, as a message may count.
    pub fn audit(&self, caller: &Principal, args: &AuditArgs) -> Result<AuditPage, AuditPageError> {
        if *caller != self.index() {
            return Err(AuditPageError::NotAuthorized);
        }
        let mut users = vec![];
        let mut left = AUDIT_ROWS_MAX;
        let mut place = args.after.clone();
        loop {
            let within = place.as_ref().and_then(|place| place.within);
            let kept = match (&place, within) {
                (Some(place), Some(_)) => self.accounts.kept(&place.user),
                _ => {
                    let none = Principal::management_canister();
                    let after = place.as_ref().map_or(none, |place| place.user);
                    self.accounts.after(after).next()
                }
            };
            let Some(kept) = kept else {
                // The end; or a user that was deleted while its blobs were counted: the next follows.
                place = place.filter(|_| within.is_some());
                match &mut place {
                    Some(place) => place.within = None,
                    None => return Ok(AuditPage { users, next: None }),
                }
                continue;
            };
            let (blob, bytes) = self.count_blobs(&kept.user, within, &mut left);
            let user = kept.user;
            if let Some(blob) = blob {
                let within = Some((blob, bytes));
                let next = Some(AuditPlace { user, within });
                return Ok(AuditPage { users, next });
            }
            users.push(self.audited(kept, bytes));
            place = Some(AuditPlace { user, within: None });
            left = left.saturating_sub(1);
            if left == 0 {
                let next = place;
                return Ok(AuditPage { users, next });
            }
        }
    }

    /// Counts on after `within`. The last blob, unless it was the user's last; and the bytes.
    fn count_blobs(
        &self,
        user: &Principal,
        within: Option<(BlobId, u64)>,
        left: &mut usize,
    ) -> (Option<BlobId>, u64) {
        let (after, mut bytes) = within.map_or((None, 0), |(blob, bytes)| (Some(blob), bytes));
        let blobs = self.references.blobs_of(user, after.as_ref(), *left);
        for blob in &blobs {
            bytes += self.stored(blob).map_or(0, |stored| stored.size);
        }
        let is_cut = blobs.len() == *left;
        *left -= blobs.len();
        (blobs.last().copied().filter(|_| is_cut), bytes)
    }

    fn audited(&self, kept: UserCounters, bytes_referenced: u64) -> AuditedUser {
        let reserved = self
            .accounts
            .get(&kept.user)
            .map_or(0, |account| account.escrow.reserved);
        AuditedUser {
            kept,
            reserved,
            bytes_referenced,
            bytes_open: self.uploads.bytes_of(&kept.user),
        }
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(damage) => write!(f, "{damage}"),
            Self::Slots { used, owned } => write!(
                f,
                "{used} slots are taken, and blobs and uploads have {owned}"
            ),
            Self::Bytes(blob) => write!(f, "the bytes of {blob} are not what its id says"),
            Self::References {
                blob,
                said,
                counted,
            } => write!(f, "{blob} has {counted} references, and {said} are said"),
            Self::Totals { said, counted } => write!(
                f,
                "{counted:?} bytes are stored and reserved, and {said:?} are said"
            ),
            Self::Certified(what) => write!(f, "the certificates do not fit: {what}"),
        }
    }
}

impl std::error::Error for Contradiction {}

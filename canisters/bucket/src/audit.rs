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
    limits::{ACCESSORS_MAX, AUDIT_ROWS_MAX, charge},
};

use sha2::{Digest, Sha256};

use crate::{
    Bucket,
    push::{bytes_arrived, promised},
    uploads::{Phase, Session},
};

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

/// What a user has in a bucket, besides bytes that are charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    pub references: u64,
    pub uploads: u64,
    /// Bytes of the lease that uploads hold.
    pub reserved: u64,
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
    /// A row of an upload, or of what waits for one, that cannot be.
    Upload {
        what: &'static str,
        user: Principal,
        blob: BlobId,
    },
    /// An account says that its user has so much, and it has something else.
    Account {
        user: Principal,
        said: Held,
        counted: Held,
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
    /// Lists what there is, and looks whether it agrees. No message could: for tests, on an image of the memory. What
    /// blobs hold is looked at by [`Bucket::check_bytes`].
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
        self.audit_slots(&sessions)?;
        self.audit_uploads(&sessions)?;
        self.audit_accounts(&references, &sessions)?;
        let uploads: BTreeSet<_> = sessions
            .iter()
            .map(|(user, blob, session)| (*user, *blob, session.size))
            .collect();
        let totals = self.totals();
        let said = (totals.bytes_stored, totals.bytes_reserved);
        let counted = (
            blobs.values().sum(),
            sessions.iter().map(|(.., session)| session.room).sum(),
        );
        if said != counted {
            return Err(Contradiction::Totals { said, counted });
        }
        Ok(Inventory {
            blobs,
            references,
            uploads,
            accessors_deleted: self.accessors_deleted.iter().map(|it| *it.key()).collect(),
        })
    }

    /// Open uploads: user and blob.
    pub fn open_uploads(&self) -> BTreeSet<(Principal, BlobId)> {
        let sessions = self.uploads.all();
        sessions.map(|(user, blob, _)| (user, blob)).collect()
    }

    /// Type and name of a reference; none where it is not there.
    pub fn kind_of(
        &self,
        blob: &BlobId,
        owner: &Principal,
        accessor: &Principal,
    ) -> Option<(String, Option<String>)> {
        let reference = self.references.get(blob, owner, accessor)?;
        Some((reference.mime_type, reference.name))
    }

    /// Whether the bytes of a stored blob are what its id says. For tests, as above.
    pub fn check_bytes(&self, blob: &BlobId) -> Result<(), Contradiction> {
        let stored = self.stored(blob).ok_or(Contradiction::Bytes(*blob))?;
        let mut hash = Sha256::new();
        let read = self
            .store
            .read(stored.slot, 0, stored.size, |bytes| hash.update(bytes));
        let is_right = read.is_some() && <[u8; 32]>::from(hash.finalize()) == blob.0;
        is_right.then_some(()).ok_or(Contradiction::Bytes(*blob))
    }

    /// Every slot belongs to one blob or upload, and is as this says.
    fn audit_slots(&self, sessions: &[(Principal, BlobId, Session)]) -> Result<(), Contradiction> {
        let mut owned: Vec<_> = self.blobs.iter().map(|entry| entry.value()).collect();
        owned.extend(sessions.iter().filter_map(|(.., it)| it.phase.slot()));
        owned.sort_unstable();
        let used: Vec<_> = self.store.slots().collect();
        if used != owned {
            let (used, owned) = (used.len() as u64, owned.len() as u64);
            return Err(Contradiction::Slots { used, owned });
        }
        Ok(())
    }

    /// Uploads hold what they ought to, and each queue has what it must.
    fn audit_uploads(
        &self,
        sessions: &[(Principal, BlobId, Session)],
    ) -> Result<(), Contradiction> {
        if let Some((what, user, blob)) = self
            .uploads
            .contradiction(|user, blob| self.asides.has_upload(user, blob))
        {
            return Err(Contradiction::Upload { what, user, blob });
        }
        for (user, blob, session) in sessions {
            let (user, blob) = (*user, *blob);
            let told = |what| Err(Contradiction::Upload { what, user, blob });
            let arrived = bytes_arrived(&self.store, session);
            let is_whole = match &session.phase {
                Phase::Open { slot } | Phase::Verifying { slot } => {
                    let room = arrived..=promised(session.size, arrived);
                    if !room.contains(&session.room) {
                        return told("an upload holds other room than it may");
                    }
                    if self.store.size(*slot) != Some(session.size) {
                        return told("an upload's slot has another size");
                    }
                    arrived == session.size
                }
                Phase::Showing { needed, shown } => {
                    let of_needed = shown.iter().all(|index| needed.contains(index));
                    if session.room > 0 || !of_needed || shown.len() >= needed.len() {
                        return told("an upload has shown other chunks than it had to");
                    }
                    false
                }
            };
            if session.phase.is_verifying() && !is_whole {
                return told("an upload is verified before all of it is in");
            }
            if !(1..=ACCESSORS_MAX).contains(&session.accessors.len()) {
                return told("an upload names too few accessors, or too many");
            }
        }
        match self
            .uploads
            .drawn_blobs()
            .find(|blob| self.stored(blob).is_none())
        {
            Some(blob) => Err(Contradiction::Upload {
                what: "chunks are drawn of a blob that is not there",
                user: Principal::anonymous(),
                blob,
            }),
            None => Ok(()),
        }
    }

    /// Each account counts the references and the open uploads of its user, and no user without one has any.
    fn audit_accounts(
        &self,
        references: &BTreeSet<(BlobId, Principal, Principal)>,
        sessions: &[(Principal, BlobId, Session)],
    ) -> Result<(), Contradiction> {
        let mut counted: BTreeMap<Principal, Held> = BTreeMap::new();
        for (_, owner, _) in references {
            counted.entry(*owner).or_default().references += 1;
        }
        for (user, _, session) in sessions {
            let held = counted.entry(*user).or_default();
            held.uploads += 1;
            held.reserved += session.charge();
        }
        for (user, account) in self.accounts.all() {
            let said = Held {
                references: account.references.into(),
                uploads: account.open_uploads.into(),
                reserved: account.escrow.reserved,
            };
            let counted = counted.remove(&user).unwrap_or_default();
            if said != counted {
                return Err(Contradiction::Account {
                    user,
                    said,
                    counted,
                });
            }
        }
        match counted.pop_first() {
            Some((user, counted)) => Err(Contradiction::Account {
                user,
                said: Held::default(),
                counted,
            }),
            None => Ok(()),
        }
    }

    /// Whether what is certified agrees with what there is. For tests, as above.
    pub fn check_certified(&self) -> Result<(), Contradiction> {
        self.audit_certified().map_err(Contradiction::Certified)
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
            let size = self.stored(blob).map_or(0, |stored| stored.size);
            bytes += charge(size, self.references.count_of(blob, user));
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
            Self::Upload { what, user, blob } => {
                write!(f, "{what}: {user} and {blob}")
            }
            Self::Account {
                user,
                said,
                counted,
            } => write!(f, "{user} has {counted:?}, and {said:?} is said"),
            Self::Totals { said, counted } => write!(
                f,
                "{counted:?} bytes are stored and reserved, and {said:?} are said"
            ),
            Self::Certified(what) => write!(f, "the certificates do not fit: {what}"),
        }
    }
}

impl std::error::Error for Contradiction {}

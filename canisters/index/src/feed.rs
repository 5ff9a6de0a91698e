//! The feed of changes to files: the newest million, and of each owner the newest ten thousand, for everybody who may see
//! all, and for each owner.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::Bound::{Excluded, Included},
};

use candid::Principal;
use ic_stable_structures::{StableBTreeMap, StableCell, Storable, storable::Bound};
use openstorage_types::{
    channel::Reference,
    index::{Change, ChangeKind, FeedArgs, FeedError, FeedPage},
    limits::{FEED_CHANGES_MAX, FEED_OWNER_CHANGES_MAX, PAGE_ROWS_MAX},
};

use crate::{
    Context, Index,
    memory::{Memory, row_bytes, row_numbers},
};

pub struct Feed {
    changes: StableBTreeMap<u64, Stored, Memory>,
    by_owner: StableBTreeMap<(Principal, u64), (), Memory>,
    /// The newest change that is not kept any more, or was never heard of.
    forgotten: StableCell<u64, Memory>,
    /// How many changes of each owner are kept, and the newest of its own that is not since there were too many. Under
    /// [`ALL`] stands the newest of all of those.
    shares: StableBTreeMap<Principal, Share, Memory>,
}

/// No owner.
const ALL: Principal = Principal::management_canister();

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Share {
    kept: u64,
    forgotten: u64,
}

/// A change without its id, which is the key: `at_ms u64 ‖ what u8 ‖ len u8 ‖ bucket ‖ reference`.
#[derive(Debug, Clone)]
struct Stored {
    at_ms: u64,
    what: ChangeKind,
    bucket: Principal,
    reference: Reference,
}

impl Feed {
    pub fn init(changes: Memory, by_owner: Memory, forgotten: Memory, shares: Memory) -> Self {
        Self {
            changes: StableBTreeMap::init(changes),
            by_owner: StableBTreeMap::init(by_owner),
            forgotten: StableCell::init(forgotten, 0),
            shares: StableBTreeMap::init(shares),
        }
    }

    /// Ids rise with the canister's version, which no snapshot rolls back; one message tells of less than 2¹⁶
    /// changes.
    fn next_id(&self, context: &Context) -> u64 {
        let newest = self.changes.last_key_value().map_or(0, |(id, _)| id);
        (newest.max(*self.forgotten.get()) + 1).max(context.version << 16)
    }

    /// Changes may have been missed: whoever has read no further than all that is here has to look anew.
    pub fn gap(&mut self, context: &Context) {
        self.forgotten.set(self.next_id(context));
    }

    /// A reference came or went in a bucket.
    pub fn push(
        &mut self,
        context: &Context,
        what: ChangeKind,
        bucket: Principal,
        reference: Reference,
    ) {
        let id = self.next_id(context);
        let stored = Stored {
            at_ms: context.now_ms,
            what,
            bucket,
            reference,
        };
        let owner = reference.owner;
        self.by_owner.insert((owner, id), ());
        self.changes.insert(id, stored);
        let mut share = self.share(owner);
        share.kept += 1;
        let is_over = share.kept > FEED_OWNER_CHANGES_MAX;
        let oldest = is_over.then(|| self.ids_of(owner, 0).next()).flatten();
        if let Some(oldest) = oldest {
            self.changes.remove(&oldest);
            self.by_owner.remove(&(owner, oldest));
            share = Share {
                kept: share.kept - 1,
                forgotten: oldest,
            };
            let all = self.share(ALL);
            let forgotten = all.forgotten.max(oldest);
            self.shares.insert(ALL, Share { forgotten, ..all });
        }
        self.shares.insert(owner, share);
        if self.changes.len() > FEED_CHANGES_MAX
            && let Some((id, oldest)) = self.changes.pop_first()
        {
            let owner = oldest.reference.owner;
            self.by_owner.remove(&(owner, id));
            let mut share = self.share(owner);
            share.kept = share.kept.saturating_sub(1);
            match share == Share::default() {
                true => self.shares.remove(&owner),
                false => self.shares.insert(owner, share),
            };
            self.forgotten.set(id.max(*self.forgotten.get()));
        }
    }

    fn share(&self, owner: Principal) -> Share {
        self.shares.get(&owner).unwrap_or_default()
    }

    /// An owner's changes, from the first after one.
    fn ids_of(&self, owner: Principal, after: u64) -> impl Iterator<Item = u64> {
        self.by_owner
            .keys_range((Excluded((owner, after)), Included((owner, u64::MAX))))
            .map(|(_, id)| id)
    }

    /// Up to here changes are not kept any more, or some were never heard of: of an owner's, or of everybody's.
    fn forgotten_until(&self, owner: Option<Principal>) -> u64 {
        let share = self.share(owner.unwrap_or(ALL));
        share.forgotten.max(*self.forgotten.get())
    }

    /// Whether what is kept twice agrees.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut kept: BTreeMap<Principal, u64> = BTreeMap::new();
        for entry in self.changes.iter() {
            let (id, owner) = (*entry.key(), entry.value().reference.owner);
            if !self.by_owner.contains_key(&(owner, id)) {
                return Err(format!(
                    "change {id} is not among those of its owner {owner}"
                ));
            }
            *kept.entry(owner).or_default() += 1;
        }
        if self.changes.len() != self.by_owner.len() {
            let (all, owned) = (self.changes.len(), self.by_owner.len());
            return Err(format!("{all} changes are kept, and {owned} are owners'"));
        }
        for entry in self.shares.iter().filter(|entry| *entry.key() != ALL) {
            let (owner, said) = (*entry.key(), entry.value().kept);
            let counted = kept.remove(&owner).unwrap_or(0);
            if said != counted || said > FEED_OWNER_CHANGES_MAX {
                return Err(format!(
                    "{counted} changes of {owner} are kept, and {said} are said"
                ));
            }
        }
        match kept.pop_first() {
            Some((owner, counted)) => Err(format!("{counted} changes of {owner} are not counted")),
            None => Ok(()),
        }
    }

    fn change(&self, id: u64) -> Option<Change> {
        let stored = self.changes.get(&id)?;
        let Reference {
            blob_id,
            size,
            owner,
            accessor_id,
            ..
        } = stored.reference;
        Some(Change {
            id,
            at_ms: stored.at_ms,
            what: stored.what,
            blob_id,
            size,
            bucket: stored.bucket,
            owner,
            accessor_id,
        })
    }
}

impl Index {
    /// What has changed after a change that the caller knows. A user sees its own; admins and issuers see
    /// all.
    pub fn feed(&self, context: &Context, args: &FeedArgs) -> Result<FeedPage, FeedError> {
        let owner = if self.is_service(context) {
            args.owner
        } else {
            let owner = args.owner.unwrap_or(context.caller);
            if owner != context.caller || owner == Principal::anonymous() {
                return Err(FeedError::NotAuthorized);
            }
            Some(owner)
        };
        let limit = args.limit.min(PAGE_ROWS_MAX) as usize;
        let after = Excluded(args.after);
        let ids: Vec<u64> = match owner {
            None => self
                .feed
                .changes
                .keys_range((after, Included(u64::MAX)))
                .take(limit)
                .collect(),
            Some(owner) => self.feed.ids_of(owner, args.after).take(limit).collect(),
        };
        Ok(FeedPage {
            changes: ids
                .into_iter()
                .filter_map(|id| self.feed.change(id))
                .collect(),
            forgotten_until: self.feed.forgotten_until(owner),
        })
    }
}

/// Two numbers of 8 bytes, little-endian, in the order of the fields.
impl Storable for Share {
    const BOUND: Bound = Bound::Bounded {
        max_size: 16,
        is_fixed_size: true,
    };

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        row_bytes([self.kept, self.forgotten]).into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        let [kept, forgotten] = row_numbers(&bytes);
        Self { kept, forgotten }
    }
}

const KINDS: [ChangeKind; 4] = [
    ChangeKind::Added,
    ChangeKind::Referenced,
    ChangeKind::Unreferenced,
    ChangeKind::Deleted,
];

impl Storable for Stored {
    const BOUND: Bound = Bound::Unbounded;

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        let what = KINDS.iter().position(|kind| *kind == self.what);
        let bucket = self.bucket.as_slice();
        [
            &self.at_ms.to_le_bytes()[..],
            &[what.unwrap_or_default() as u8, bucket.len() as u8],
            bucket,
            &self.reference.to_bytes(),
        ]
        .concat()
        .into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        let (at_ms, rest) = bytes.split_first_chunk().expect("8 bytes of time");
        let (bucket, reference) = rest[2..].split_at(rest[1].into());
        Self {
            at_ms: u64::from_le_bytes(*at_ms),
            what: KINDS[usize::from(rest[0])],
            bucket: Principal::from_slice(bucket),
            reference: Reference::from_bytes(reference).expect("rows are written here only"),
        }
    }
}

//! The feed of changes to files: the newest million, for everybody who may see all, and for each owner.

use std::{
    borrow::Cow,
    ops::Bound::{Excluded, Included},
};

use candid::Principal;
use ic_stable_structures::{StableBTreeMap, StableCell, Storable, storable::Bound};
use openstorage_types::{
    channel::Reference,
    index::{Change, ChangeKind, FeedArgs, FeedError, FeedPage},
    limits::{FEED_CHANGES_MAX, PAGE_ROWS_MAX},
};

use crate::{Context, Index, memory::Memory};

pub struct Feed {
    changes: StableBTreeMap<u64, Stored, Memory>,
    by_owner: StableBTreeMap<(Principal, u64), (), Memory>,
    /// The newest change that is not kept any more, or was never heard of.
    forgotten: StableCell<u64, Memory>,
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
    pub fn init(changes: Memory, by_owner: Memory, forgotten: Memory) -> Self {
        Self {
            changes: StableBTreeMap::init(changes),
            by_owner: StableBTreeMap::init(by_owner),
            forgotten: StableCell::init(forgotten, 0),
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
        self.by_owner.insert((reference.owner, id), ());
        self.changes.insert(id, stored);
        if self.changes.len() > FEED_CHANGES_MAX
            && let Some((id, oldest)) = self.changes.pop_first()
        {
            self.by_owner.remove(&(oldest.reference.owner, id));
            self.forgotten.set(id.max(*self.forgotten.get()));
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
            Some(owner) => self
                .feed
                .by_owner
                .keys_range((Excluded((owner, args.after)), Included((owner, u64::MAX))))
                .take(limit)
                .map(|(_, id)| id)
                .collect(),
        };
        Ok(FeedPage {
            changes: ids
                .into_iter()
                .filter_map(|id| self.feed.change(id))
                .collect(),
            forgotten_until: *self.feed.forgotten.get(),
        })
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

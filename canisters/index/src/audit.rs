//! Compares a bucket's references with its counters, and those with the index's; and lists all there is,
//! for tests.

use std::collections::BTreeMap;

use candid::Principal;
use openstorage_types::{
    BlobId,
    channel::{AuditPage, Counters},
    index::{AuditArgs, AuditDifference, AuditError, AuditOk},
    limits::REVOCATIONS_MAX,
};

use crate::{Context, Index, users::User};

/// All that an index knows of users and blobs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// Those that are deleted, too.
    pub users: BTreeMap<Principal, User>,
    /// (user, bucket) → the user's incarnation and its counters there.
    pub counters: BTreeMap<(Principal, Principal), (u64, Counters)>,
    /// (blob, bucket) → bytes.
    pub homes: BTreeMap<(BlobId, Principal), u64>,
    /// Blobs, and bytes of all copies, as they are kept.
    pub totals: (u64, u64),
}

impl Index {
    /// Lists what there is. No message could: for tests, on an image of the memory.
    pub fn inventory(&self) -> Inventory {
        let totals = self.blobs.totals();
        Inventory {
            users: self.users.after(Principal::management_canister()).collect(),
            counters: self.users.all_counters().collect(),
            homes: self.blobs.all().collect(),
            totals: (totals.blobs, totals.bytes_stored),
        }
    }

    /// Whether what is kept twice agrees: sums with what they are of, and the same rows in two orders.
    ///
    /// # Errors
    /// What does not, in words. No message could: for tests, on an image of the memory.
    pub fn check(&self) -> Result<(), String> {
        self.users.check()?;
        self.blobs.check()?;
        self.feed.check()?;
        let revocations = self.revocations.len();
        if revocations > u64::from(REVOCATIONS_MAX) {
            return Err(format!("{revocations} revocations are in force"));
        }
        Ok(())
    }

    /// Whether the caller may have a bucket audited.
    pub fn may_audit(&self, context: &Context, args: &AuditArgs) -> Result<(), AuditError> {
        if !self.is_admin(context) {
            return Err(AuditError::NotAuthorized);
        }
        match self.buckets.get(&args.bucket) {
            Some(_) => Ok(()),
            None => Err(AuditError::NotFound),
        }
    }

    /// What a bucket has counted, beside what is kept here.
    pub fn audited(&self, args: &AuditArgs, page: AuditPage) -> AuditOk {
        let users = page.users.len() as u64;
        let differences = page
            .users
            .into_iter()
            .filter_map(|at_bucket| {
                let kept = at_bucket.kept;
                let at_index = self
                    .users
                    .counters(kept.user, kept.incarnation, args.bucket);
                let agrees = at_index == kept.counters
                    && kept.counters.used() == at_bucket.bytes_referenced
                    && at_bucket.reserved == at_bucket.bytes_open
                    && kept.counters.lease() >= at_bucket.reserved;
                (!agrees).then_some(AuditDifference {
                    at_bucket,
                    at_index,
                })
            })
            .collect();
        AuditOk {
            users,
            differences,
            next: page.next,
        }
    }
}

//! Compares a bucket's references with its counters, and those with the index's.

use openstorage_types::{
    channel::AuditPage,
    index::{AuditArgs, AuditDifference, AuditError, AuditOk},
};

use crate::{Context, Index};

impl Index {
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

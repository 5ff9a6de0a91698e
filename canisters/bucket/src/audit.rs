//! Counts anew, from references and open uploads, what users' counters ought to say.

use candid::Principal;
use openstorage_types::{
    BlobId,
    channel::{AuditArgs, AuditPage, AuditPageError, AuditPlace, AuditedUser, UserCounters},
    limits::AUDIT_ROWS_MAX,
};

use crate::Bucket;

impl Bucket {
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

//! What holds after every step, whatever goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use candid::Principal;
use data_bucket::{Bucket, Now};
use data_bucket_index::audit::Inventory;
use openstorage_types::{
    BlobId,
    bucket::{GoneReason, UploadState},
    channel::{AuditArgs, AuditedUser},
    limits::{CHAT_PREMIUM_USER_BYTES, UPLOAD_IDLE_MS},
};

use crate::{Violation, clients::Op, ensure, run::Run};

/// What may pass between the beginning of an upload and the first look at it.
const SLACK_MS: u64 = 3_600_000;

/// What was seen before.
#[derive(Default)]
pub struct Pulse {
    /// (bucket, user) → the newest incarnation.
    incarnations: BTreeMap<(Principal, Principal), u64>,
    /// User → its incarnation, and the bytes of its limit that buckets hold, or that the index has promised them.
    held: BTreeMap<Principal, (u64, u64)>,
    /// What buckets and the index had when they were looked at last, and how often they had changed by then.
    users: BTreeMap<Principal, (u64, Vec<AuditedUser>)>,
    index: Option<(u64, Inventory)>,
    /// (bucket, user, blob) → since when an upload is seen to be open; 0 where it may have been before.
    uploads: BTreeMap<(Principal, Principal, BlobId), u64>,
    /// Buckets that were restored: what is open in them may have been for long.
    unsure: BTreeSet<Principal>,
}

impl Pulse {
    /// The canister is as it was before.
    pub fn forget(&mut self, canister: Principal) {
        self.lost(canister);
        self.held.clear();
        self.unsure.insert(canister);
    }

    /// The canister has lost all that it had.
    pub fn lost(&mut self, canister: Principal) {
        self.incarnations
            .retain(|(bucket, _), _| *bucket != canister);
        self.uploads.retain(|(bucket, ..), _| *bucket != canister);
        self.users.remove(&canister);
    }
}

/// The users of a bucket, as it counts them.
pub fn users_of(bucket: &Bucket) -> Vec<AuditedUser> {
    let page = bucket.audit(&bucket.index(), &AuditArgs { after: None });
    page.map(|page| page.users).unwrap_or_default()
}

impl Run<'_> {
    pub fn check_pulse(&mut self) -> Result<(), Violation> {
        self.broken.take().map_or(Ok(()), Err)?;
        let money = self.stage.network.money();
        let known = money.burned + money.balances + money.in_flight;
        ensure(money.minted == known, 19, || format!("{money:?}"))?;
        if let Some(status) = self.stage.status() {
            let named = status.buckets.iter().map(|info| info.bucket);
            let lost = &self.lost;
            self.known
                .extend(named.filter(|bucket| !lost.contains(bucket)));
        }
        for id in self.known.clone() {
            let Some(changes) = self.stage.changes(id) else {
                self.pulse.users.remove(&id);
                continue;
            };
            if self.pulse.users.get(&id).is_some_and(|it| it.0 == changes) {
                continue;
            }
            let Some(bucket) = self.stage.bucket(id) else {
                continue;
            };
            self.check_uploads(id, &bucket)?;
            let users = users_of(&bucket);
            for user in &users {
                self.check_account(id, user)?;
            }
            self.pulse.users.insert(id, (changes, users));
        }
        let Some(changes) = self.stage.changes(self.stage.index) else {
            return Ok(());
        };
        let index = match self.pulse.index.take() {
            Some(seen) if seen.0 == changes => Some(seen.1),
            _ => self.stage.index_image().map(|index| index.inventory()),
        };
        let Some(index) = index else {
            return Ok(());
        };
        let users = std::mem::take(&mut self.pulse.users);
        let checked = self.check_limits(&index, users.values().flat_map(|(_, users)| users));
        self.pulse.users = users;
        self.pulse.index = Some((changes, index));
        checked
    }

    /// No upload lapses before a day has passed.
    fn check_uploads(&mut self, id: Principal, bucket: &Bucket) -> Result<(), Violation> {
        let now_ms = self.stage.now_ms();
        let open = bucket.open_uploads();
        let seen = &mut self.pulse.uploads;
        let since_ms = match self.pulse.unsure.remove(&id) {
            true => 0,
            false => now_ms,
        };
        let over = seen.extract_if(.., |(in_bucket, user, blob), _| {
            *in_bucket == id && !open.contains(&(*user, *blob))
        });
        for ((_, user, blob), since_ms) in over.collect::<Vec<_>>() {
            let now = Now {
                ms: now_ms,
                version: 0,
            };
            let status = bucket.upload_status(&user, &blob, now);
            let state = status.map(|status| status.state);
            let is_early = since_ms > 0 && now_ms < since_ms + UPLOAD_IDLE_MS - SLACK_MS;
            let has_lapsed = state == Ok(UploadState::Gone(GoneReason::Expired));
            ensure(!(has_lapsed && is_early), 8, || {
                format!("in bucket {id} the upload of {blob} by {user} lapsed within a day")
            })?;
        }
        for (user, blob) in open {
            seen.entry((id, user, blob)).or_insert(since_ms);
        }
        Ok(())
    }

    /// In a bucket, everything about a user agrees in every message.
    fn check_account(&mut self, bucket: Principal, user: &AuditedUser) -> Result<(), Violation> {
        let (kept, reserved) = (&user.kept, user.reserved);
        let what = || format!("bucket {bucket}: {user:?}");
        ensure(kept.counters.lease() >= reserved, 7, what)?;
        ensure(kept.counters.used() == user.bytes_referenced, 6, what)?;
        ensure(reserved == user.bytes_open, 8, what)?;
        let key = (bucket, kept.user);
        let before = self.pulse.incarnations.insert(key, kept.incarnation);
        ensure(before.unwrap_or(0) <= kept.incarnation, 11, || {
            format!("{}, and before its incarnation was {before:?}", what())
        })
    }

    /// No grant leaves more than the limit stored or leased: not as the index sees it, and not as it is.
    fn check_limits<'a>(
        &mut self,
        index: &Inventory,
        at: impl Iterator<Item = &'a AuditedUser> + Clone,
    ) -> Result<(), Violation> {
        let mut ceilings = BTreeMap::new();
        for (user, row) in &index.users {
            let of =
                |it: &&AuditedUser| it.kept.user == *user && it.kept.incarnation == row.incarnation;
            let counters = index
                .counters
                .iter()
                .filter(|((of, _), (incarnation, _))| of == user && *incarnation == row.incarnation)
                .map(|(_, (_, counters))| counters);
            if row.deleted {
                continue;
            }
            let (mut used, mut leased) = (0, 0);
            for counters in counters {
                used += counters.used();
                leased += counters.lease();
            }
            let pool = &row.pool;
            ensure((pool.used, pool.leased) == (used, leased), 5, || {
                format!(
                    "the index sums {user} up as {pool:?}, and the buckets' counters are {used} used and {leased} leased"
                )
            })?;
            let here: u64 = at
                .clone()
                .filter(of)
                .map(|it| it.kept.counters.held())
                .sum();
            let ceiling = self.ceiling(user, pool.byte_limit);
            // A grant may be on its way: it is held already, whatever becomes of the limit meanwhile.
            let held = here.max(used + leased);
            let before = self.pulse.held.get(user).copied();
            let was = match before {
                Some((incarnation, was)) if incarnation == row.incarnation => was,
                _ => 0,
            };
            ensure(self.is_loose || held <= ceiling.max(was), 7, || {
                format!(
                    "buckets hold {held} bytes of {user}, {was} before, and no limit was above {ceiling}"
                )
            })?;
            self.pulse.held.insert(*user, (row.incarnation, held));
            ceilings.insert(*user, pool.byte_limit);
        }
        self.ceilings = ceilings;
        for pending in &self.pending {
            if let Op::Limit { user, byte_limit } = pending.op {
                let ceiling = self.ceilings.entry(user).or_default();
                *ceiling = byte_limit.max(*ceiling);
            }
        }
        Ok(())
    }

    /// The highest limit that may have been in force since the last time.
    fn ceiling(&self, user: &Principal, now: u64) -> u64 {
        let before = self.ceilings.get(user).copied().unwrap_or(0);
        let by_chat = match self.chat_limits.contains(user) {
            true => CHAT_PREMIUM_USER_BYTES,
            false => 0,
        };
        now.max(before).max(by_chat)
    }
}

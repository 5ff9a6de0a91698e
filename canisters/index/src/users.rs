//! Users: how much each may store, and how much of it each bucket has been promised.
//!
//! A user's row carries the sums over its buckets, so that no question walks all of them. A deleted user's
//! row stays, so that the deletion can be told again, and no lower incarnation comes back.

use std::{borrow::Cow, collections::BTreeMap};

use candid::Principal;
use ic_stable_structures::{StableBTreeMap, StableCell, Storable, storable::Bound};
use openstorage_escrow::{Counters, Pool};
use openstorage_types::{channel::UserCounters, index::UserInfo};

use crate::{
    forget::SLICE_ROWS,
    memory::{LAST, Memory, row_bytes, row_numbers},
};

/// One user. Row: incarnation, limit, used, leased, a number (1 for a deleted one, plus 2 for a fixed one), and gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The canister version of the index when the user was registered: it never comes again, also not
    /// after a restored snapshot.
    pub incarnation: u64,
    pub pool: Pool,
    pub deleted: bool,
    /// Every incarnation up to this one is deleted. Those above it are this user: registered before, and forgotten by
    /// an index that was restored from a snapshot.
    pub gone: u64,
    /// An admin has set the limit, or has deleted the user: issuers change neither.
    pub fixed: bool,
}

impl User {
    fn gone(incarnation: u64, byte_limit: u64, fixed: bool) -> Self {
        Self {
            incarnation,
            pool: Pool::new(byte_limit),
            deleted: true,
            gone: incarnation,
            fixed,
        }
    }

    pub fn info(&self) -> UserInfo {
        UserInfo {
            byte_limit: self.pool.byte_limit,
            bytes_used: self.pool.used,
            bytes_leased: self.pool.leased,
        }
    }
}

/// A user's counters in one bucket. Row: granted, spent, freed, returned, incarnation.
#[derive(Debug, Clone, Copy, Default)]
struct Lease {
    counters: Counters,
    incarnation: u64,
}

/// What a bucket's word about a user came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Another incarnation that is no more, or is not known yet: it counts for nothing.
    Ignored,
    Merged,
    /// The index did not know this user or this incarnation: it was restored from a snapshot of before.
    Adopted(User),
}

pub struct Users {
    users: StableBTreeMap<Principal, User, Memory>,
    leases: StableBTreeMap<(Principal, Principal), Lease, Memory>,
    /// Users that are registered.
    living: StableCell<u64, Memory>,
}

impl Users {
    pub fn init(users: Memory, leases: Memory, living: Memory) -> Self {
        Self {
            users: StableBTreeMap::init(users),
            leases: StableBTreeMap::init(leases),
            living: StableCell::init(living, 0),
        }
    }

    /// Rows, those of deleted users too.
    pub fn len(&self) -> u64 {
        self.users.len()
    }

    /// Users that are registered.
    pub fn living(&self) -> u64 {
        *self.living.get()
    }

    fn set(&mut self, user: Principal, row: User) {
        let was = self.users.insert(user, row).is_some_and(|was| !was.deleted);
        let living = self.living() + u64::from(!row.deleted) - u64::from(was);
        if living != self.living() {
            self.living.set(living);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// What an admin has set for good: the limit, 0 for a user that is deleted. None where issuers decide.
    pub fn fixed_limit(&self, user: &Principal) -> Option<u64> {
        let row = self.users.get(user).filter(|row| row.fixed)?;
        Some(if row.deleted { 0 } else { row.pool.byte_limit })
    }

    /// A user that is registered.
    pub fn get(&self, user: &Principal) -> Option<User> {
        self.users.get(user).filter(|row| !row.deleted)
    }

    /// Whether there is, or ever was, such a user.
    pub fn knows(&self, user: &Principal) -> bool {
        self.users.contains_key(user)
    }

    /// Users in key order, from the first after `after`, deleted ones too.
    pub fn after(&self, after: Principal) -> impl Iterator<Item = (Principal, User)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.users
            .range((Excluded(after), Unbounded))
            .map(|entry| (*entry.key(), entry.value()))
    }

    /// Gives a user this limit; who is not registered gets a new incarnation and an empty account. None
    /// when that changes nothing.
    pub fn upsert(
        &mut self,
        user: Principal,
        byte_limit: u64,
        fixed: bool,
        version: u64,
    ) -> Option<User> {
        let old = self.users.get(&user);
        let mut new = match old {
            Some(row) if !row.deleted => row,
            _ => User {
                incarnation: version.max(old.map_or(0, |row| row.incarnation + 1)),
                pool: Pool::default(),
                deleted: false,
                gone: old.map_or(0, |row| row.gone),
                fixed,
            },
        };
        new.pool.byte_limit = byte_limit;
        new.fixed = fixed;
        if old == Some(new) {
            return None;
        }
        self.set(user, new);
        Some(new)
    }

    /// The user is gone with every incarnation of before `version`, the canister's: also with those that a restored
    /// index has forgotten, and that buckets still speak of. Its row; none when it was never there, or was gone
    /// before, unless `again`.
    pub fn delete(
        &mut self,
        user: Principal,
        fixed: bool,
        version: u64,
        again: bool,
    ) -> Option<User> {
        let known = self.users.get(&user)?;
        if fixed && !known.fixed {
            self.set(user, User { fixed, ..known });
        }
        if known.deleted && !again {
            return None;
        }
        let row = User::gone(version.max(known.incarnation), 0, fixed || known.fixed);
        self.set(user, row);
        Some(row)
    }

    /// The user is gone with every incarnation up to this one, as a bucket remembers. Its row, in which a higher one may
    /// live; none where that is known. The limit is kept for a higher one of which the bucket may speak next.
    pub fn bury(&mut self, user: Principal, incarnation: u64) -> Option<User> {
        let row = match self.users.get(&user) {
            Some(row) if row.gone >= incarnation => return None,
            Some(row) if row.incarnation > incarnation => User {
                gone: incarnation,
                ..row
            },
            known => {
                let (limit, fixed) =
                    known.map_or((0, false), |row| (row.pool.byte_limit, row.fixed));
                User::gone(incarnation, limit, fixed)
            }
        };
        self.set(user, row);
        Some(row)
    }

    /// Whether that incarnation of a user is deleted.
    pub fn is_gone(&self, user: &Principal, incarnation: u64) -> bool {
        let known = self.users.get(user);
        known.is_some_and(|row| incarnation <= row.gone)
    }

    /// What the index knows of a user in a bucket.
    pub fn counters(&self, user: Principal, incarnation: u64, bucket: Principal) -> Counters {
        self.leases
            .get(&(user, bucket))
            .filter(|lease| lease.incarnation == incarnation)
            .map(|lease| lease.counters)
            .unwrap_or_default()
    }

    /// The buckets that the user has, or had, something in.
    pub fn buckets_of(&self, user: Principal) -> Vec<Principal> {
        let all = (user, Principal::management_canister())..=(user, LAST);
        self.leases
            .keys_range(all)
            .map(|(_, bucket)| bucket)
            .collect()
    }

    /// (user, bucket), and the user's incarnation and counters there.
    pub fn all_counters(&self) -> impl Iterator<Item = ((Principal, Principal), (u64, Counters))> {
        self.leases.iter().map(|entry| {
            let lease = entry.value();
            (*entry.key(), (lease.incarnation, lease.counters))
        })
    }

    /// Whether the sums agree with what they are of.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut sums: BTreeMap<Principal, (u64, u64)> = BTreeMap::new();
        for ((user, _), (incarnation, counters)) in self.all_counters() {
            let is_living = |row: &User| row.incarnation == incarnation;
            if self.get(&user).as_ref().is_some_and(is_living) {
                let (used, leased) = sums.entry(user).or_default();
                *used += counters.used();
                *leased += counters.lease();
            }
        }
        let mut living = 0;
        for (user, row) in self.after(Principal::management_canister()) {
            living += u64::from(!row.deleted);
            let said = (row.pool.used, row.pool.leased);
            let counted = sums.remove(&user).unwrap_or_default();
            if said != counted {
                return Err(format!(
                    "{user} has {counted:?} bytes stored and leased, and {said:?} are said"
                ));
            }
        }
        if living != self.living() {
            let said = self.living();
            return Err(format!(
                "{living} users are registered, and {said} are said"
            ));
        }
        Ok(())
    }

    /// Takes what `bucket` says about a user. One that is not known is only believed where `may_adopt`.
    pub fn hear(&mut self, bucket: Principal, told: &UserCounters, may_adopt: bool) -> Heard {
        let known = self.users.get(&told.user);
        let adopted = known.is_none_or(|row| row.incarnation < told.incarnation);
        let is_gone = known.is_some_and(|row| told.incarnation <= row.gone);
        if is_gone || adopted && !may_adopt {
            return Heard::Ignored;
        }
        let mut row = match known {
            Some(row) if !adopted => row,
            _ => {
                let limited = known.filter(|row| !row.deleted || row.pool.byte_limit > 0);
                let limit = limited.map(|row| row.pool.byte_limit);
                User {
                    incarnation: told.incarnation,
                    pool: Pool::new(limit.unwrap_or(told.counters.used())),
                    deleted: false,
                    gone: known.map_or(0, |row| row.gone),
                    fixed: limit.is_some() && known.is_some_and(|row| row.fixed),
                }
            }
        };
        let mut counters = self.counters(told.user, row.incarnation, bucket);
        if row.pool.hear(&mut counters, &told.counters) {
            self.set_counters(told.user, row.incarnation, bucket, counters);
        } else if !adopted {
            return Heard::Merged;
        }
        self.set(told.user, row);
        if adopted {
            Heard::Adopted(row)
        } else {
            Heard::Merged
        }
    }

    /// Grants `bucket` what it lacks, if the pool has it. Returns the user and its counters there.
    pub fn grant(
        &mut self,
        user: Principal,
        bucket: Principal,
        known_granted: u64,
        wanted: u64,
        contended: bool,
    ) -> Option<(User, Counters, bool)> {
        let mut row = self.get(&user)?;
        let was = self.counters(user, row.incarnation, bucket);
        let mut counters = was;
        let granted = row
            .pool
            .grant(&mut counters, known_granted, wanted, contended)
            .is_ok();
        if counters != was {
            self.set_counters(user, row.incarnation, bucket, counters);
            self.set(user, row);
        }
        Some((row, counters, granted))
    }

    /// The buckets that hold some of a user's limit: stored or leased.
    pub fn holders(&self, user: Principal, incarnation: u64) -> Vec<Principal> {
        self.leases_of(user)
            .filter(|(_, lease)| lease.incarnation == incarnation && lease.counters.held() > 0)
            .map(|(bucket, _)| bucket)
            .collect()
    }

    /// Drops the leases of incarnations of a user that are gone, at most `max` of them. True when none is
    /// left.
    pub fn sweep_leases(&mut self, user: Principal, max: usize) -> bool {
        let living = self.get(&user).map(|row| row.incarnation);
        let stale: Vec<_> = self
            .leases_of(user)
            .filter(|(_, lease)| Some(lease.incarnation) != living)
            .map(|(bucket, _)| bucket)
            .take(max)
            .collect();
        for bucket in &stale {
            self.leases.remove(&(user, *bucket));
        }
        stale.len() < max
    }

    fn leases_of(&self, user: Principal) -> impl Iterator<Item = (Principal, Lease)> {
        self.leases
            .range((user, Principal::management_canister())..)
            .take_while(move |entry| entry.key().0 == user)
            .map(|entry| (entry.key().1, entry.value()))
    }

    fn set_counters(
        &mut self,
        user: Principal,
        incarnation: u64,
        bucket: Principal,
        counters: Counters,
    ) {
        let lease = Lease {
            counters,
            incarnation,
        };
        self.leases.insert((user, bucket), lease);
    }
}

impl Storable for User {
    const BOUND: Bound = Bound::Unbounded;

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        let Pool {
            byte_limit,
            used,
            leased,
        } = self.pool;
        let state = u64::from(self.deleted) | u64::from(self.fixed) << 1;
        let gone = self.gone;
        row_bytes([self.incarnation, byte_limit, used, leased, state, gone]).into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        let [incarnation, byte_limit, used, leased, state, gone] = row_numbers(&bytes);
        Self {
            incarnation,
            pool: Pool {
                byte_limit,
                used,
                leased,
            },
            deleted: state & 1 != 0,
            fixed: state & 2 != 0,
            gone,
        }
    }
}

impl Storable for Lease {
    const BOUND: Bound = Bound::Unbounded;

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        let Counters {
            granted,
            spent,
            freed,
            returned,
        } = self.counters;
        row_bytes([granted, spent, freed, returned, self.incarnation]).into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        let [granted, spent, freed, returned, incarnation] = row_numbers(&bytes);
        Self {
            counters: Counters {
                granted,
                spent,
                freed,
                returned,
            },
            incarnation,
        }
    }
}

impl Users {
    /// Forgets what users stored and were promised in a lost bucket, among the next [`SLICE_ROWS`] leases
    /// after a user's, and those of one user more. Returns the user up to whom it has looked; none at the
    /// end.
    pub fn forget(&mut self, bucket: Principal, after: Principal) -> Option<Principal> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = Excluded((after, LAST));
        let mut found = Vec::new();
        let mut seen = None;
        let mut next = None;
        for (rows, entry) in self.leases.range((from, Unbounded)).enumerate() {
            let (user, holder) = *entry.key();
            if rows >= SLICE_ROWS && seen != Some(user) {
                next = seen;
                break;
            }
            seen = Some(user);
            if holder == bucket {
                found.push((user, entry.value()));
            }
        }
        for (user, lease) in found {
            let row = self.get(&user);
            if let Some(mut row) = row.filter(|row| row.incarnation == lease.incarnation) {
                row.pool.forget(&lease.counters);
                self.set(user, row);
            }
            self.leases.remove(&(user, bucket));
        }
        next
    }
}

//! Users: how much each may store, and how much of it each bucket has been promised.
//!
//! A user's row carries the sums over its buckets, so that no question walks all of them. The promise
//! kept here: no grant is made that brings what is stored and what is leased above the limit.

use std::borrow::Cow;

use candid::Principal;
use ic_stable_structures::{StableBTreeMap, Storable, storable::Bound};
use openstorage_types::{
    channel::{Counters, LeaseArgs, LeaseError, LeaseOk, UserCounters},
    index::{Allowance, UserInfo},
    limits::{LEASE_BYTES_MIN, POOL_LOW_BYTES},
};

use crate::{
    forget::SLICE_ROWS,
    memory::{LAST, Memory, row_bytes, row_numbers},
};

/// While a bucket that holds what is missing was heard of so recently, its upload is still going on.
const LEASE_MOVES_MS: u64 = 60_000;

/// When to ask again for a lease that is pending.
const LEASE_RETRY_MS: u64 = 2_000;

/// One user. Row: incarnation, limit, used, leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub incarnation: u64,
    pub byte_limit: u64,
    /// Stored, over all buckets.
    used: u64,
    /// Promised and not spent, over all buckets.
    leased: u64,
}

impl User {
    /// Bytes that may still be granted.
    fn pool(&self) -> u64 {
        self.byte_limit
            .saturating_sub(self.used)
            .saturating_sub(self.leased)
    }

    pub fn info(&self) -> UserInfo {
        UserInfo {
            byte_limit: self.byte_limit,
            bytes_used: self.used,
            bytes_leased: self.leased,
        }
    }
}

/// A user's counters in one bucket. Row: granted, spent, freed, returned, time.
#[derive(Debug, Clone, Copy, Default)]
struct Lease {
    counters: Counters,
    /// When the bucket last said something new.
    heard_ms: u64,
}

pub struct Users {
    users: StableBTreeMap<Principal, User, Memory>,
    leases: StableBTreeMap<(Principal, Principal), Lease, Memory>,
}

impl Users {
    pub fn init(users: Memory, leases: Memory) -> Self {
        Self {
            users: StableBTreeMap::init(users),
            leases: StableBTreeMap::init(leases),
        }
    }

    pub fn len(&self) -> u64 {
        self.users.len()
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    pub fn get(&self, user: &Principal) -> Option<User> {
        self.users.get(user)
    }

    /// Users in key order, from the first after `after`.
    pub fn after(&self, after: Principal) -> impl Iterator<Item = (Principal, User)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.users
            .range((Excluded(after), Unbounded))
            .map(|entry| (*entry.key(), entry.value()))
    }

    /// Gives a user this limit, a new user an empty account. None when that changes nothing.
    pub fn upsert(&mut self, user: Principal, byte_limit: u64) -> Option<User> {
        let old = self.users.get(&user);
        let new = User {
            byte_limit,
            ..old.unwrap_or(User {
                incarnation: 1,
                byte_limit,
                used: 0,
                leased: 0,
            })
        };
        if old == Some(new) {
            return None;
        }
        self.users.insert(user, new);
        Some(new)
    }

    /// Takes what `bucket` says about a user. False when that user is unknown, or was another under the
    /// same principal.
    pub fn merge(&mut self, bucket: Principal, heard: &UserCounters, now_ms: u64) -> bool {
        let Some(user) = self.users.get(&heard.user) else {
            return false;
        };
        if user.incarnation != heard.incarnation {
            return false;
        }
        let key = (heard.user, bucket);
        let old = self.leases.get(&key).unwrap_or_default();
        let mut new = old;
        new.counters.merge(&heard.counters);
        if new.counters != old.counters {
            new.heard_ms = now_ms;
            self.set(key, user, old, new);
        }
        true
    }

    /// Answers `bucket`'s wish. Asking again with the same counters grants nothing twice: what was
    /// granted and not heard of counts towards the wish.
    pub fn lease(
        &mut self,
        bucket: Principal,
        args: &LeaseArgs,
        now_ms: u64,
    ) -> Result<LeaseOk, LeaseError> {
        let incarnation = self
            .users
            .get(&args.user)
            .ok_or(LeaseError::NotRegistered)?
            .incarnation;
        let heard = UserCounters {
            user: args.user,
            incarnation: args.incarnation.unwrap_or(incarnation),
            counters: args.counters,
        };
        let same = self.merge(bucket, &heard, now_ms);
        let user = self.users.get(&args.user).expect("it was there just now");
        let key = (args.user, bucket);
        let old = self.leases.get(&key).unwrap_or_default();
        let known = if same { args.counters.granted } else { 0 };
        let wanted = args.wanted.saturating_sub(old.counters.granted - known);
        if wanted > user.pool() {
            return Err(self.refusal(&user, key, old.counters.lease(), wanted, now_ms));
        }
        let mut new = old;
        new.counters.granted += match wanted {
            0 => 0,
            _ => grant_bytes(wanted, user.pool()),
        };
        if new.counters != old.counters {
            new.heard_ms = now_ms;
            self.set(key, user, old, new);
        }
        Ok(LeaseOk {
            incarnation,
            granted: new.counters.granted,
        })
    }

    fn refusal(
        &self,
        user: &User,
        (principal, bucket): (Principal, Principal),
        leased_here: u64,
        wanted: u64,
        now_ms: u64,
    ) -> LeaseError {
        let leased_elsewhere = user.leased.saturating_sub(leased_here);
        let would_fit = wanted <= user.pool().saturating_add(leased_elsewhere);
        let moves = self
            .leases
            .range((principal, Principal::management_canister())..)
            .take_while(|entry| entry.key().0 == principal)
            .filter(|entry| entry.key().1 != bucket)
            .map(|entry| entry.value())
            .any(|lease| lease.counters.lease() > 0 && now_ms < lease.heard_ms + LEASE_MOVES_MS);
        if would_fit && moves {
            LeaseError::Pending {
                retry_ms: LEASE_RETRY_MS,
            }
        } else {
            LeaseError::AllowanceExceeded(Allowance {
                byte_limit: user.byte_limit,
                bytes_used: user.used,
                leased_elsewhere,
            })
        }
    }

    /// Writes a bucket's counters, and the user's sums with them.
    fn set(&mut self, key: (Principal, Principal), user: User, old: Lease, new: Lease) {
        let moved = |sum: u64, old: u64, new: u64| sum.saturating_sub(old).saturating_add(new);
        let (was, is) = (old.counters, new.counters);
        let user = User {
            used: moved(user.used, was.used(), is.used()),
            leased: moved(user.leased, was.lease(), is.lease()),
            ..user
        };
        self.users.insert(key.0, user);
        self.leases.insert(key, new);
    }
}

/// At least [`LEASE_BYTES_MIN`] where there is so much, but exactly what is asked for where little would
/// be left.
fn grant_bytes(wanted: u64, pool: u64) -> u64 {
    let generous = wanted.max(LEASE_BYTES_MIN).min(pool);
    if pool - generous < POOL_LOW_BYTES {
        wanted
    } else {
        generous
    }
}

impl Storable for User {
    const BOUND: Bound = Bound::Unbounded;

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        row_bytes([self.incarnation, self.byte_limit, self.used, self.leased]).into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        let [incarnation, byte_limit, used, leased] = row_numbers(&bytes);
        Self {
            incarnation,
            byte_limit,
            used,
            leased,
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
        row_bytes([granted, spent, freed, returned, self.heard_ms]).into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        let [granted, spent, freed, returned, heard_ms] = row_numbers(&bytes);
        Self {
            counters: Counters {
                granted,
                spent,
                freed,
                returned,
            },
            heard_ms,
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
            if let Some(row) = self.users.get(&user) {
                self.set((user, bucket), row, lease, Lease::default());
            }
            self.leases.remove(&(user, bucket));
        }
        next
    }
}

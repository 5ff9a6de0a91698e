//! What the bucket knows of its users: the bytes that the index has leased to it for each, and what of
//! them is spent, freed, or promised to open uploads.

use candid::{CandidType, Principal};
use ic_stable_structures::StableBTreeMap;
use openstorage_types::channel::{Counters, LeaseArgs, LeaseOk, UserCounters};
use serde::{Deserialize, Serialize};

use crate::memory::{self, Memories, Memory};
use openstorage_canister::Row;

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    pub incarnation: u64,
    pub counters: Counters,
    /// Bytes promised to open uploads. Never above the lease.
    pub reserved: u64,
    pub open_uploads: u32,
}

impl Account {
    /// Bytes of the lease that nothing is promised to.
    pub fn available(&self) -> u64 {
        self.counters.lease().saturating_sub(self.reserved)
    }
}

pub struct Accounts {
    rows: StableBTreeMap<Principal, Row<Account>, Memory>,
    /// Users whose counters the index has not seen yet.
    changed: StableBTreeMap<Principal, (), Memory>,
}

impl Accounts {
    pub fn open(memories: &Memories) -> Self {
        Self {
            rows: StableBTreeMap::init(memories.get(memory::USERS)),
            changed: StableBTreeMap::init(memories.get(memory::USERS_CHANGED)),
        }
    }

    pub fn get(&self, user: &Principal) -> Option<Account> {
        self.rows.get(user).map(|row| row.0)
    }

    pub fn knows(&self, user: &Principal) -> bool {
        self.rows.contains_key(user)
    }

    /// The index has such a user. What is known already stays.
    pub fn learn(&mut self, user: Principal, incarnation: u64) {
        if !self.knows(&user) {
            let account = Account {
                incarnation,
                ..Account::default()
            };
            self.rows.insert(user, Row(account));
        }
    }

    /// The index's answer to a [`LeaseArgs`].
    pub fn leased(&mut self, user: Principal, answer: &LeaseOk) {
        self.learn(user, answer.incarnation);
        self.change(&user, |account| {
            account.counters.granted = account.counters.granted.max(answer.granted);
        });
    }

    /// What to ask the index for, so that the user can store `size` more bytes; none where it can.
    pub fn shortage(&self, user: &Principal, size: u64) -> Option<LeaseArgs> {
        let account = self.get(user);
        let Account { counters, .. } = account.unwrap_or_default();
        let available = account.map_or(0, |account| account.available());
        (account.is_none() || available < size).then(|| LeaseArgs {
            user: *user,
            incarnation: account.map(|account| account.incarnation),
            wanted: size.saturating_sub(available),
            counters,
        })
    }

    /// Changes an account in memory only: for what the index need not hear of.
    fn change(&mut self, user: &Principal, work: impl FnOnce(&mut Account)) {
        let mut account = self.get(user).unwrap_or_default();
        work(&mut account);
        self.rows.insert(*user, Row(account));
    }

    pub fn reserve(&mut self, user: &Principal, size: u64) {
        self.change(user, |account| {
            account.reserved += size;
            account.open_uploads += 1;
        });
    }

    pub fn release(&mut self, user: &Principal, size: u64) {
        self.change(user, |account| {
            account.reserved = account.reserved.saturating_sub(size);
            account.open_uploads = account.open_uploads.saturating_sub(1);
        });
    }

    pub fn spend(&mut self, user: &Principal, size: u64) {
        self.change(user, |account| account.counters.spent += size);
        self.changed.insert(*user, ());
    }

    pub fn free(&mut self, user: &Principal, size: u64) {
        self.change(user, |account| account.counters.freed += size);
        self.changed.insert(*user, ());
    }

    /// Counters that the index has not seen, at most `max` of them.
    pub fn unsent(&self, max: usize) -> Vec<UserCounters> {
        let users = self.changed.iter().take(max).map(|entry| *entry.key());
        users
            .filter_map(|user| {
                let Account {
                    incarnation,
                    counters,
                    ..
                } = self.get(&user)?;
                Some(UserCounters {
                    user,
                    incarnation,
                    counters,
                })
            })
            .collect()
    }

    pub fn has_unsent(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The index has these; what has changed meanwhile is sent again.
    pub fn sent(&mut self, counters: &[UserCounters]) {
        for sent in counters {
            if self
                .get(&sent.user)
                .is_none_or(|account| account.counters == sent.counters)
            {
                self.changed.remove(&sent.user);
            }
        }
    }
}

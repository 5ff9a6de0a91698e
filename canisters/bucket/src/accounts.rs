//! What the bucket knows of its users: the bytes that the index has leased to it for each, and what of
//! them is spent, freed, or promised to open uploads.

use std::{borrow::Cow, cell::Cell, collections::BTreeMap};

use candid::Principal;
use ic_stable_structures::{StableBTreeMap, StableCell, StableVec, Storable, storable::Bound};
use openstorage_escrow::{Account as Escrow, Counters};
use openstorage_types::{
    channel::{LeaseArgs, LeaseOk, UserCounters, UserDeleted, UserUpserted},
    limits::{LEASE_IDLE_MS, references_max},
};

use crate::memory::{self, Memories, Memory};

/// What a caller waits while what belonged to an earlier incarnation of it is being deleted.
const DELETION_RETRY_MS: u64 = 1_000;

/// One user. Thirteen numbers of 8 bytes, little-endian, in the order of the fields; open uploads and references share
/// one, 4 bytes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    pub incarnation: u64,
    pub escrow: Escrow,
    pub byte_limit: u64,
    pub open_uploads: u32,
    pub references: u32,
    pub life: Life,
    /// How often the bucket had doubted itself when the index last confirmed the counters.
    confirmed: u64,
    /// When some of the lease was last used or granted. Milliseconds since 1970.
    used_ms: u64,
    /// A look at the lease is noted; it goes back if it is idle then.
    is_noted: bool,
    /// Every incarnation up to this one is deleted, as far as the bucket has heard.
    gone: u64,
}

/// Whether there is such a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Life {
    #[default]
    Living,
    /// What belonged to it is being removed; this incarnation comes next, if it is not 0.
    Dying { next: u64 },
    /// Nothing is left but the number, so that no lower one comes back.
    Dead,
}

/// Why a user may do nothing now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unready {
    NotRegistered,
    Retry {
        ms: u64,
    },
    /// Ask the index what it knows first: the bucket may have been restored from a snapshot.
    Confirm(LeaseArgs),
}

/// What the index's word about a user brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Learned {
    /// Uploads have reserved so many bytes more than the lease has: some have to go.
    pub excess: u64,
}

/// The users' rows. Each has a number for good, so that a row is changed where it stands; the one that was
/// used last is at hand: a message looks at its caller's several times, and the next one is often the same
/// user's.
struct Rows {
    numbers: StableBTreeMap<Principal, u64, Memory>,
    accounts: StableVec<Account, Memory>,
    latest: Cell<Option<Row>>,
}

#[derive(Clone, Copy)]
struct Row {
    user: Principal,
    number: u64,
    account: Account,
}

impl Rows {
    fn find(&self, user: &Principal) -> Option<Row> {
        if let Some(row) = self.latest.get().filter(|row| row.user == *user) {
            return Some(row);
        }
        let number = self.numbers.get(user)?;
        let account = self.accounts.get(number)?;
        let user = *user;
        let row = Row {
            user,
            number,
            account,
        };
        self.latest.set(Some(row));
        Some(row)
    }

    fn get(&self, user: &Principal) -> Option<Account> {
        Some(self.find(user)?.account)
    }

    fn insert(&mut self, user: Principal, account: Account) {
        let number = match self.find(&user) {
            Some(row) => {
                self.accounts.set(row.number, &account);
                row.number
            }
            None => {
                let number = self.accounts.len();
                self.accounts.push(&account);
                self.numbers.insert(user, number);
                number
            }
        };
        self.latest.set(Some(Row {
            user,
            number,
            account,
        }));
    }

    /// In key order, from the first after `after`.
    fn after(&self, after: Principal) -> impl Iterator<Item = (Principal, Account)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let numbers = self.numbers.range((Excluded(after), Unbounded));
        numbers.filter_map(|entry| Some((*entry.key(), self.accounts.get(entry.value())?)))
    }
}

pub struct Accounts {
    rows: Rows,
    /// Users whose counters the index has not seen yet.
    changed: StableBTreeMap<Principal, (), Memory>,
    /// Users for whom the index is being asked (true), or has been since the batch under way was put together: it may
    /// have granted after it heard that batch. On the heap: no call is under way in an upgrade.
    asked: BTreeMap<Principal, bool>,
    /// Users that are being removed.
    dying: StableBTreeMap<Principal, bool, Memory>,
    /// When to look whether a lease is idle.
    idle: StableBTreeMap<(u64, Principal), (), Memory>,
    /// How often this bucket may have been restored from a snapshot.
    doubts: StableCell<u64, Memory>,
}

impl Account {
    /// Bytes of the lease that nothing is promised to.
    pub fn available(&self) -> u64 {
        self.escrow.available()
    }

    /// References that the user may have here, and how many more that is than it has.
    pub fn room_for_references(&self) -> (u64, u64) {
        let max = references_max(self.byte_limit).min(u32::MAX.into());
        (max, max.saturating_sub(self.references.into()))
    }

    /// What to ask the index for, so that this user can store `size` more bytes; none where it can. Of what is more than
    /// its whole limit all is asked for: the index refuses it at once.
    pub fn shortage(&self, user: Principal, size: u64) -> Option<LeaseArgs> {
        let wanted = match size > self.byte_limit {
            true => size,
            false => self.escrow.shortage(size),
        };
        (wanted > 0).then(|| question(user, Some(*self), wanted))
    }

    fn new(incarnation: u64, gone: u64, byte_limit: u64, confirmed: u64) -> Self {
        Self {
            incarnation,
            byte_limit,
            confirmed,
            gone,
            ..Self::default()
        }
    }
}

impl Accounts {
    pub fn open(memories: &Memories) -> Self {
        Self {
            rows: Rows {
                numbers: StableBTreeMap::init(memories.get(memory::USERS)),
                accounts: StableVec::init(memories.get(memory::ACCOUNTS)),
                latest: Cell::new(None),
            },
            changed: StableBTreeMap::init(memories.get(memory::USERS_CHANGED)),
            asked: BTreeMap::new(),
            dying: StableBTreeMap::init(memories.get(memory::USERS_DYING)),
            idle: StableBTreeMap::init(memories.get(memory::LEASES_IDLE)),
            doubts: StableCell::init(memories.get(memory::DOUBTS), 0),
        }
    }

    pub fn get(&self, user: &Principal) -> Option<Account> {
        self.rows
            .get(user)
            .filter(|account| account.life == Life::Living)
    }

    pub fn knows(&self, user: &Principal) -> bool {
        self.get(user).is_some()
    }

    /// Whether a user may do something that counts.
    pub fn admit(&self, user: &Principal) -> Result<Account, Unready> {
        let account = self.rows.get(user).ok_or(Unready::NotRegistered)?;
        match account.life {
            Life::Dead => Err(Unready::NotRegistered),
            Life::Dying { .. } => Err(Unready::Retry {
                ms: DELETION_RETRY_MS,
            }),
            Life::Living if account.confirmed != *self.doubts.get() => {
                Err(Unready::Confirm(question(*user, Some(account), 0)))
            }
            Life::Living => Ok(account),
        }
    }

    /// Whether the index has to confirm what is known of a user.
    pub fn is_doubted(&self, user: &Principal) -> bool {
        matches!(self.admit(user), Err(Unready::Confirm(_)))
    }

    /// As [`Accounts::is_doubted`]; then the next batch asks for the confirmation.
    pub fn wants_confirmation(&mut self, user: &Principal) -> bool {
        let is_doubted = self.is_doubted(user);
        if is_doubted {
            self.changed.insert(*user, ());
        }
        is_doubted
    }

    /// This bucket may have been restored from a snapshot: no lease counts before the index has confirmed
    /// it.
    pub fn doubt(&mut self) {
        let doubts = *self.doubts.get();
        self.doubts.set(doubts + 1);
        // A snapshot holds the heap too, with calls that are over.
        self.asked.clear();
    }

    /// The index has such a user.
    pub fn learn(&mut self, event: &UserUpserted, now_ms: u64) -> Learned {
        let UserUpserted {
            user,
            incarnation,
            byte_limit,
            counters,
            gone,
        } = *event;
        let known = self.rows.get(&user).unwrap_or_default();
        let Some(gone) = self.gone_before(&user, incarnation, gone) else {
            return Learned::default();
        };
        let is_lower = known.incarnation == incarnation && byte_limit < known.byte_limit;
        let told = (incarnation, gone, byte_limit);
        self.take(user, told, counters, now_ms, is_lower)
    }

    /// The index's answer to a [`LeaseArgs`].
    pub fn leased(&mut self, user: Principal, answer: &LeaseOk, now_ms: u64) -> Learned {
        let LeaseOk {
            incarnation,
            byte_limit,
            counters,
            gone,
            ..
        } = *answer;
        let Some(gone) = self.gone_before(&user, incarnation, gone) else {
            return Learned::default();
        };
        let told = (incarnation, gone, byte_limit);
        let learned = self.take(user, told, Some(counters), now_ms, false);
        self.agreed(&user, &counters);
        learned
    }

    /// The index is being asked. Should its answer get lost, with what it granted, the next batch brings the
    /// counters to its mind again. True where no batch would have done so anyway.
    pub fn asked(&mut self, user: &Principal) -> bool {
        // Of strangers nothing is kept: they would be as many as they like.
        if !self.knows(user) {
            return false;
        }
        self.asked.insert(*user, true);
        self.changed.insert(*user, ()).is_none()
    }

    /// The question is over, answered or not.
    pub fn ask_is_over(&mut self, user: &Principal) {
        if let Some(is_asking) = self.asked.get_mut(user) {
            *is_asking = false;
        }
    }

    /// The index has these counters: where they are what is here, it has nothing to hear.
    pub fn agreed(&mut self, user: &Principal, counters: &Counters) {
        let account = self.get(user);
        if account.is_some_and(|account| account.escrow.counters == *counters) {
            self.changed.remove(user);
        }
    }

    /// What the index knows of a user, where that is more than is known here.
    pub fn reconcile(&mut self, told: &UserCounters, now_ms: u64) -> Learned {
        match self.get(&told.user) {
            Some(account) if account.incarnation == told.incarnation => self.take(
                told.user,
                (told.incarnation, account.gone, account.byte_limit),
                Some(told.counters),
                now_ms,
                false,
            ),
            _ => Learned::default(),
        }
    }

    /// Makes the user of that incarnation one of this bucket's, and says up to which it is deleted: what is here of a
    /// later one is the same user's. None where the incarnation is gone itself, or has to wait until what belonged to
    /// a deleted one is removed.
    fn gone_before(
        &mut self,
        user: &Principal,
        incarnation: u64,
        gone: Option<u64>,
    ) -> Option<u64> {
        let gone = gone.unwrap_or(incarnation.saturating_sub(1));
        let Some(mut account) = self.rows.get(user) else {
            return Some(gone);
        };
        match account.life {
            _ if incarnation < account.incarnation => None,
            Life::Living if account.incarnation > gone => {
                if account.incarnation < incarnation {
                    account.incarnation = incarnation;
                    self.rows.insert(*user, account);
                    // The index has yet to hear what the user has here.
                    self.changed.insert(*user, ());
                }
                Some(gone.max(account.gone))
            }
            Life::Dead if incarnation > account.incarnation => Some(gone.max(account.incarnation)),
            Life::Living => {
                self.bury(*user, account, incarnation);
                None
            }
            Life::Dying { next } if incarnation > account.incarnation.max(next) => {
                account.life = Life::Dying { next: incarnation };
                self.rows.insert(*user, account);
                None
            }
            Life::Dying { .. } | Life::Dead => None,
        }
    }

    /// `told` is the user's incarnation, up to which it is deleted, and its limit.
    fn take(
        &mut self,
        user: Principal,
        told: (u64, u64, u64),
        counters: Option<Counters>,
        now_ms: u64,
        give_back: bool,
    ) -> Learned {
        let (incarnation, gone, byte_limit) = told;
        let doubts = *self.doubts.get();
        let known = self
            .rows
            .get(&user)
            .filter(|account| account.life == Life::Living && account.incarnation == incarnation);
        let new = || Account::new(incarnation, gone, byte_limit, doubts);
        let mut account = known.unwrap_or_else(new);
        let was = account.escrow.counters;
        (account.gone, account.byte_limit) = (gone, byte_limit);
        let mut excess = 0;
        if let Some(counters) = &counters {
            excess = account.escrow.reconcile(counters);
            account.confirmed = doubts;
        }
        if give_back && account.confirmed == doubts {
            account.escrow.give_back();
        }
        if account.escrow.counters.granted != was.granted {
            account.used_ms = now_ms;
        }
        let is = account.escrow.counters;
        if (is.spent, is.freed, is.returned) != (was.spent, was.freed, was.returned) {
            self.changed.insert(user, ());
        }
        self.note_idle(user, &mut account);
        self.rows.insert(user, account);
        Learned { excess }
    }

    /// A user is gone, with every incarnation up to this one.
    pub fn delete(&mut self, user: Principal, incarnation: u64) {
        match self.rows.get(&user) {
            Some(account) if account.incarnation > incarnation => {}
            Some(mut account) => match account.life {
                Life::Living => self.bury(user, account, 0),
                Life::Dying { next } if next <= incarnation => {
                    account.life = Life::Dying { next: 0 };
                    account.incarnation = incarnation;
                    self.rows.insert(user, account);
                }
                Life::Dying { .. } => {}
                Life::Dead => {
                    account.incarnation = incarnation;
                    self.rows.insert(user, account);
                }
            },
            None => {
                let mut account = Account::new(incarnation, incarnation, 0, 0);
                account.life = Life::Dead;
                self.rows.insert(user, account);
            }
        }
    }

    fn bury(&mut self, user: Principal, mut account: Account, next: u64) {
        account.life = Life::Dying { next };
        self.rows.insert(user, account);
        self.changed.remove(&user);
        self.dying.insert(user, false);
    }

    /// A user whose belongings have to be removed.
    pub fn next_dying(&self) -> Option<Principal> {
        let mut dying = self.dying.iter();
        let next = dying.find(|entry| !entry.value())?;
        Some(*next.key())
    }

    /// Whether the user is gone, and what it had is not all removed yet.
    pub fn is_dying(&self, user: &Principal) -> bool {
        !self.dying.is_empty() && self.dying.contains_key(user)
    }

    /// The user's belongings stay for now: nobody sees them.
    pub fn skip_dying(&mut self, user: Principal) {
        self.dying.insert(user, true);
    }

    /// They are to be removed after all. False where there are none.
    pub fn die_again(&mut self, user: Principal) -> bool {
        let is_dying = self.is_dying(&user);
        if is_dying {
            self.dying.insert(user, false);
        }
        is_dying
    }

    /// Nothing of the user is left; its next incarnation may begin.
    pub fn died(&mut self, user: &Principal) {
        self.dying.remove(user);
        let Some(account) = self.rows.get(user) else {
            return;
        };
        let account = match account.life {
            // A bucket that was restored has had it before: the next batch asks the index for what it has.
            Life::Dying { next } if next > 0 => {
                self.changed.insert(*user, ());
                Account::new(next, account.incarnation, 0, *self.doubts.get())
            }
            _ => Account {
                incarnation: account.incarnation,
                life: Life::Dead,
                ..Account::default()
            },
        };
        self.rows.insert(*user, account);
    }

    /// What to ask the index for, so that the user can store `size` more bytes; none where it can.
    pub fn shortage(&self, user: &Principal, size: u64) -> Option<LeaseArgs> {
        match self.get(user) {
            Some(account) => account.shortage(*user, size),
            None => Some(question(*user, None, size)),
        }
    }

    /// Changes an account in memory only: for what the index need not hear of.
    fn change(&mut self, user: &Principal, work: impl FnOnce(&mut Account)) {
        let mut account = self.rows.get(user).unwrap_or_default();
        work(&mut account);
        if account.life == Life::Living {
            // What was reserved when its lease was looked at last may have become free.
            self.note_idle(*user, &mut account);
        }
        self.rows.insert(*user, account);
    }

    /// An upload begins, and holds so much of the lease.
    pub fn begin(&mut self, user: &Principal, size: u64, now_ms: u64) {
        self.reserve(user, size, now_ms);
        self.change(user, |account| account.open_uploads += 1);
    }

    /// An upload holds so much more of the lease.
    pub fn reserve(&mut self, user: &Principal, size: u64, now_ms: u64) {
        self.change(user, |account| {
            let reserved = account.escrow.reserve(size);
            debug_assert_eq!(reserved, Ok(()));
            account.used_ms = now_ms;
        });
    }

    /// An upload that held so much has ended, well or badly.
    pub fn end(&mut self, user: &Principal, size: u64) {
        self.change(user, |account| {
            account.escrow.release(size);
            account.open_uploads = account.open_uploads.saturating_sub(1);
        });
    }

    /// The user has so many references more.
    pub fn referred(&mut self, user: &Principal, count: u32) {
        self.change(user, |account| {
            account.references = account.references.saturating_add(count);
        });
    }

    /// The user has one reference less.
    pub fn unreferred(&mut self, user: &Principal) {
        self.change(user, |account| {
            account.references = account.references.saturating_sub(1);
        });
    }

    pub fn spend(&mut self, user: &Principal, size: u64) {
        self.change(user, |account| account.escrow.spend(size));
        self.changed.insert(*user, ());
    }

    pub fn free(&mut self, user: &Principal, size: u64) {
        let mut is_living = false;
        self.change(user, |account| {
            account.escrow.free(size);
            is_living = account.life == Life::Living;
        });
        if is_living {
            self.changed.insert(*user, ());
        }
    }

    /// Gives back what of a user's lease is not reserved. None where there is no such user.
    pub fn recall(&mut self, user: &Principal, incarnation: u64) -> Option<UserCounters> {
        let mut account = self
            .get(user)
            .filter(|account| account.incarnation == incarnation)?;
        if account.confirmed == *self.doubts.get() && account.escrow.give_back() > 0 {
            self.rows.insert(*user, account);
            self.changed.insert(*user, ());
        }
        Some(told(*user, &account))
    }

    fn note_idle(&mut self, user: Principal, account: &mut Account) {
        if account.available() > 0 && !account.is_noted {
            account.is_noted = true;
            self.idle
                .insert((account.used_ms + LEASE_IDLE_MS, user), ());
        }
    }

    /// When [`Accounts::give_back_idle`] has something to do.
    pub fn next_idle_ms(&self) -> Option<u64> {
        self.idle.first_key_value().map(|((due_ms, _), ())| due_ms)
    }

    /// The lease that is looked at next, and when.
    pub fn next_idle(&self) -> Option<(u64, Principal)> {
        self.idle.first_key_value().map(|(key, ())| key)
    }

    /// A lease is not looked at then.
    pub fn skip_idle(&mut self, due_ms: u64, user: &Principal) {
        self.idle.remove(&(due_ms, *user));
    }

    /// It is after all.
    pub fn look_again(&mut self, due_ms: u64, user: Principal) {
        self.idle.insert((due_ms, user), ());
    }

    /// Gives back some of the leases of which nothing was used for long, looking at `max` of them at most.
    pub fn give_back_idle(&mut self, now_ms: u64, max: usize) {
        for _ in 0..max {
            let Some((key @ (due_ms, user), ())) = self.idle.first_key_value() else {
                return;
            };
            if due_ms > now_ms {
                return;
            }
            self.idle.remove(&key);
            let Some(mut account) = self.get(&user) else {
                continue;
            };
            account.is_noted = false;
            if account.used_ms + LEASE_IDLE_MS > now_ms {
                self.note_idle(user, &mut account);
            } else if account.confirmed != *self.doubts.get() {
                // The next batch has the index confirm the lease: then it goes back.
                self.changed.insert(user, ());
                account.is_noted = true;
                self.idle.insert((now_ms + LEASE_IDLE_MS, user), ());
            } else if account.escrow.give_back() > 0 {
                self.changed.insert(user, ());
            }
            self.rows.insert(user, account);
        }
    }

    /// Counters that the index has not seen, at most `max` of them, for the next batch.
    pub fn unsent(&mut self, max: usize) -> Vec<UserCounters> {
        self.asked.retain(|_, is_asking| *is_asking);
        let users = self.changed.iter().take(max).map(|entry| *entry.key());
        users
            .filter_map(|user| Some(told(user, &self.get(&user)?)))
            .collect()
    }

    /// Whether there is something to tell. Of users for whom the index is being asked there is once that is over.
    pub fn has_unsent(&self) -> bool {
        let is_asking = |user: &Principal| self.asked.get(user) == Some(&true);
        let asking = self.asked.values().filter(|is_asking| **is_asking).count();
        // To count is cheap, to look is not.
        match self.changed.len() {
            0 => false,
            changed if changed > asking as u64 => true,
            _ => self.changed.iter().any(|entry| !is_asking(entry.key())),
        }
    }

    /// The index has these, and has answered where it knows more; what has changed meanwhile is sent
    /// again.
    pub fn sent(&mut self, counters: &[UserCounters]) {
        let doubts = *self.doubts.get();
        for sent in counters {
            let account = self.get(&sent.user);
            let is_heard = |account: Account| {
                account.incarnation == sent.incarnation && account.escrow.counters == sent.counters
            };
            if account.is_none_or(is_heard) && !self.asked.contains_key(&sent.user) {
                self.changed.remove(&sent.user);
            }
            if let Some(account) = account.filter(|account| account.confirmed != doubts) {
                let confirmed = doubts;
                self.rows.insert(
                    sent.user,
                    Account {
                        confirmed,
                        ..account
                    },
                );
            }
        }
    }

    /// All that there are, in key order, deleted ones too.
    pub fn all(&self) -> impl Iterator<Item = (Principal, Account)> {
        self.rows.after(Principal::management_canister())
    }

    /// A user's counters.
    pub fn kept(&self, user: &Principal) -> Option<UserCounters> {
        Some(told(*user, &self.get(user)?))
    }

    /// Users in key order, from the first after `after`.
    pub fn after(&self, after: Principal) -> impl Iterator<Item = UserCounters> {
        self.rows
            .after(after)
            .filter(|(_, account)| account.life == Life::Living)
            .map(|(user, account)| told(user, &account))
    }

    /// Users that were deleted, some of them registered again, in key order, from the first after `after`.
    pub fn gone_after(&self, after: Principal) -> impl Iterator<Item = UserDeleted> {
        let rows = self.rows.after(after).map(|(user, account)| UserDeleted {
            user,
            incarnation: match account.life {
                Life::Living => account.gone,
                Life::Dying { .. } | Life::Dead => account.incarnation,
            },
        });
        rows.filter(|gone| gone.incarnation > 0)
    }
}

fn told(user: Principal, account: &Account) -> UserCounters {
    UserCounters {
        user,
        incarnation: account.incarnation,
        counters: account.escrow.counters,
    }
}

fn question(user: Principal, account: Option<Account>, wanted: u64) -> LeaseArgs {
    LeaseArgs {
        user,
        incarnation: account.map(|account| account.incarnation),
        wanted,
        counters: account.map_or_else(Counters::default, |account| account.escrow.counters),
    }
}

const NUMBERS: usize = 13;

impl Storable for Account {
    const BOUND: Bound = Bound::Bounded {
        max_size: 8 * NUMBERS as u32,
        is_fixed_size: true,
    };

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        let Counters {
            granted,
            spent,
            freed,
            returned,
        } = self.escrow.counters;
        let life = match self.life {
            Life::Living => 0,
            Life::Dead => 1,
            Life::Dying { next } => next.saturating_add(2),
        };
        let numbers: [u64; NUMBERS] = [
            self.incarnation,
            granted,
            spent,
            freed,
            returned,
            self.escrow.reserved,
            self.byte_limit,
            u64::from(self.references) << 32 | u64::from(self.open_uploads),
            life,
            self.confirmed,
            self.used_ms,
            self.is_noted.into(),
            self.gone,
        ];
        numbers.map(u64::to_le_bytes).concat().into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        let number =
            |i: usize| u64::from_le_bytes(bytes[8 * i..][..8].try_into().expect("8 bytes"));
        Self {
            incarnation: number(0),
            escrow: Escrow {
                counters: Counters {
                    granted: number(1),
                    spent: number(2),
                    freed: number(3),
                    returned: number(4),
                },
                reserved: number(5),
            },
            byte_limit: number(6),
            open_uploads: number(7) as u32,
            references: (number(7) >> 32) as u32,
            life: match number(8) {
                0 => Life::Living,
                1 => Life::Dead,
                next => Life::Dying { next: next - 2 },
            },
            confirmed: number(9),
            used_ms: number(10),
            is_noted: number(11) != 0,
            gone: number(12),
        }
    }
}

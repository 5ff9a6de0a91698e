//! What the chat does by itself, and how long it waits after a failure.
//!
//! Work is kept in stable memory until it is done, so an upgrade or a lost answer costs a repetition
//! at most. The work stands in lanes: one that fails holds up no other.

use candid::Principal;
use openstorage_types::index::{RegisterIssuerArgs, RevokeIssuerKeyArgs, UserArgs};

/// The first wait after a failure.
const BACK_OFF_MIN_MS: u64 = 1_000;
const BACK_OFF_MAX_MS: u64 = 60_000;

/// Members and messages that go in one slice of a chat's removal.
pub const REMOVAL_ROWS_MAX: usize = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// A key, then the index's trust in it, now and then again.
    Setup,
    /// Tells the index of users and their limits.
    Users,
    /// Asks the index for the keys of buckets, now and then again.
    Buckets,
    /// Computes what a new key shares with buckets.
    Derivation,
    /// Removes what belonged to deleted chats.
    Removal,
}

impl Lane {
    pub const ALL: [Self; 5] = [
        Self::Setup,
        Self::Users,
        Self::Buckets,
        Self::Derivation,
        Self::Removal,
    ];
}

/// The next step of a lane.
#[derive(Debug, PartialEq, Eq)]
pub enum Work {
    /// 32 random bytes.
    DrawSecret,
    RegisterIssuer(RegisterIssuerArgs),
    RevokeIssuerKey(RevokeIssuerKeyArgs),
    RegisterUsers(Vec<UserArgs>),
    AskBucketKey(Principal),
    DeriveKeys,
    /// The id of a deleted chat.
    RemoveSlice(u64),
}

/// After failures in a row, when to try again: waits that double from a second to a minute.
#[derive(Debug, Clone, Copy, Default)]
pub struct BackOff {
    wait_ms: u64,
    due_ms: u64,
}

impl BackOff {
    /// Not before this time, in milliseconds since 1970; 0 where the last try has succeeded.
    pub fn due_ms(&self) -> u64 {
        self.due_ms
    }

    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub fn failed(&mut self, now_ms: u64) {
        self.wait_ms = (self.wait_ms * 2).clamp(BACK_OFF_MIN_MS, BACK_OFF_MAX_MS);
        self.due_ms = now_ms + self.wait_ms;
    }
}

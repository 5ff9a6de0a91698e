//! What the chat does by itself.
//!
//! Work is kept in stable memory until it is done, so an upgrade or a lost answer costs a repetition
//! at most. The work stands in lanes: one that fails holds up no other.

use candid::Principal;
use openstorage_types::index::{RegisterIssuerArgs, RevokeIssuerKeyArgs, UserArgs};

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

/// What a lane's next step is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneRow {
    /// A deleted chat.
    Chat(u64),
    Bucket(Principal),
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

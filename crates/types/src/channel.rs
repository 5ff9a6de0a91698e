//! What travels between the index and its buckets: events in order, and lease counters.

use candid::{CandidType, Principal};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::BlobId;

/// A place in a stream of events. The canister version never rolls back, also not when a snapshot is
/// restored, so two streams that share a sequence number but not a history differ in `version`.
#[derive(
    CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default,
)]
pub struct Stamp {
    /// Of the last event before this place; 0 before the first.
    pub seq: u64,
    /// The sender's canister version when it appended that event; 0 before the first.
    pub version: u64,
}

/// One event. Its sequence number is its place in the batch after `from_stamp`.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The sender's canister version when it appended the event.
    pub version: u64,
    /// Which shape `bytes` has: [`kind`].
    pub kind: u16,
    /// The event in Candid.
    pub bytes: ByteBuf,
}

/// The kinds of events. A number is never used again for something else.
pub mod kind {
    /// Index → bucket: [`super::UserUpserted`].
    pub const USER_UPSERTED: u16 = 1;
    /// Index → bucket: [`super::IssuerUpserted`].
    pub const ISSUER_UPSERTED: u16 = 2;
    /// Index → bucket: [`super::IssuerRemoved`].
    pub const ISSUER_REMOVED: u16 = 3;
    /// Index → bucket: [`super::AccessorDeleted`].
    pub const ACCESSOR_DELETED: u16 = 4;
    /// Bucket → index: [`super::BlobReferenceAdded`].
    pub const BLOB_REFERENCE_ADDED: u16 = 65;
    /// Bucket → index: [`super::BlobReferenceRemoved`].
    pub const BLOB_REFERENCE_REMOVED: u16 = 66;
}

/// A user may upload to the bucket.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct UserUpserted {
    pub user: Principal,
    /// Rises when a user is registered anew after a deletion.
    pub incarnation: u64,
    pub byte_limit: u64,
}

/// Tokens of this issuer are to be believed.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct IssuerUpserted {
    pub issuer: Principal,
    pub key: PublicKey,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct IssuerRemoved {
    pub issuer: Principal,
}

/// Every reference to this accessor goes, and none may come again.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct AccessorDeleted {
    pub accessor_id: Principal,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct BlobReferenceAdded {
    pub blob_id: BlobId,
    pub size: u64,
    pub owner: Principal,
    pub accessor_id: Principal,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct BlobReferenceRemoved {
    pub blob_id: BlobId,
    pub size: u64,
    pub owner: Principal,
    pub accessor_id: Principal,
    /// It was the blob's last reference in the bucket: the blob is gone from there.
    pub blob_gone: bool,
}

/// An X25519 public key of a canister, under which tokens are issued and checked.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    pub version: u16,
    /// 32 bytes.
    pub bytes: Key,
}

/// 32 bytes of a public key; in Candid a `blob`, like a [`BlobId`].
pub type Key = BlobId;

/// One user's allowance in one bucket: four counts of bytes that only ever grow. Each side sends them
/// as they stand and takes the larger of what it has and what it hears, so that loss, repetition and
/// reordering of messages change nothing.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Given to the bucket. Written by the index.
    pub granted: u64,
    /// Charged for stored blobs. Written by the bucket, as the two below.
    pub spent: u64,
    /// Given back when blobs went.
    pub freed: u64,
    /// Given back unused.
    pub returned: u64,
}

impl Counters {
    /// Takes the larger of each.
    pub fn merge(&mut self, other: &Self) {
        self.granted = self.granted.max(other.granted);
        self.spent = self.spent.max(other.spent);
        self.freed = self.freed.max(other.freed);
        self.returned = self.returned.max(other.returned);
    }

    /// Bytes that the user stores in the bucket.
    pub fn used(&self) -> u64 {
        self.spent.saturating_sub(self.freed)
    }

    /// Bytes that the bucket may still spend.
    pub fn lease(&self) -> u64 {
        self.granted
            .saturating_sub(self.spent)
            .saturating_sub(self.returned)
    }
}

/// One user's counters, as a bucket reports them.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct UserCounters {
    pub user: Principal,
    pub incarnation: u64,
    pub counters: Counters,
}

/// Argument of `c2c_events`, the one method of the channel in both directions.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct EventsArgs {
    /// The place before the first event.
    pub from_stamp: Stamp,
    pub events: Vec<Event>,
    /// Of the users whom the batch concerns. From a bucket only.
    pub counters: Vec<UserCounters>,
    /// Of the bucket that sends. From a bucket only.
    pub report: Option<BucketReport>,
}

/// What a bucket tells about itself.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct BucketReport {
    /// Bytes of stored blobs and of what open uploads have reserved.
    pub bytes_used: u64,
    /// Bytes that new blobs may still take.
    pub bytes_free: u64,
    /// The bucket's key; none until it has drawn its secret.
    pub key: Option<PublicKey>,
    /// The version of the bucket's code: [`crate::bucket::VERSION`].
    pub version: Option<u32>,
    pub cycles: Option<CyclesReport>,
}

/// How a canister stands with its cycles.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CyclesReport {
    pub balance: u128,
    /// With less than this it is frozen.
    pub freezing_at: u128,
    /// Burned in a day, at the pace of late.
    pub burned_per_day: u128,
}

/// Answer of `c2c_events`.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct EventsOk {
    /// The place after the last event that the receiver has applied. Another than the batch's end
    /// means: send on from here.
    pub stamp: Stamp,
    /// From a bucket only, as in [`EventsArgs::report`].
    pub report: Option<BucketReport>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum EventsError {
    /// The caller is not the peer of this channel.
    NotAuthorized,
    BatchTooLarge {
        events_max: u32,
        bytes_max: u64,
    },
}

/// Argument of `c2c_lease`. `wanted = 0` asks only who the user is.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct LeaseArgs {
    pub user: Principal,
    /// As the bucket knows it; none where it does not know the user.
    pub incarnation: Option<u64>,
    /// The upload needs so many bytes above what the bucket has leased.
    pub wanted: u64,
    pub counters: Counters,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct LeaseOk {
    pub incarnation: u64,
    /// All that was ever granted to this bucket for this user.
    pub granted: u64,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum LeaseError {
    /// The caller is not a bucket of this index.
    NotAuthorized,
    NotRegistered,
    /// Other buckets hold what is missing; ask again.
    Pending {
        retry_ms: u64,
    },
    AllowanceExceeded(crate::index::Allowance),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_merge_in_any_order() {
        let old = Counters {
            granted: 10,
            spent: 4,
            freed: 1,
            returned: 0,
        };
        let new = Counters {
            granted: 10,
            spent: 6,
            freed: 3,
            returned: 2,
        };
        let (mut a, mut b) = (old, new);
        a.merge(&new);
        b.merge(&old);
        assert_eq!(a, b);
        assert_eq!((a.used(), a.lease()), (3, 2));
    }
}

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
    /// The event in Candid; references, which are the bulk, in a shorter form ([`Reference::to_bytes`]).
    pub bytes: ByteBuf,
}

/// The kinds of events. A number is never used again for something else.
pub mod kind {
    /// Stands for an event that the receiver would not understand. Changes nothing.
    pub const NOTHING: u16 = 0;
    /// Index → bucket: [`super::UserUpserted`].
    pub const USER_UPSERTED: u16 = 1;
    /// Index → bucket: [`super::IssuerUpserted`].
    pub const ISSUER_UPSERTED: u16 = 2;
    /// Index → bucket: [`super::IssuerRemoved`].
    pub const ISSUER_REMOVED: u16 = 3;
    /// Index → bucket: [`super::AccessorDeleted`]. Back in a state only: the index may have forgotten it.
    pub const ACCESSOR_DELETED: u16 = 4;
    /// Index → bucket: [`super::UserDeleted`]. Back in a state only, as above.
    pub const USER_DELETED: u16 = 5;
    /// Index → bucket: [`super::Revoked`].
    pub const REVOKED: u16 = 6;
    /// Both ways: [`super::StatePage`].
    pub const STATE_PAGE: u16 = 32;
    /// Bucket → index: [`super::Reference`], which is there now.
    pub const BLOB_REFERENCE_ADDED: u16 = 65;
    /// Bucket → index: [`super::Reference`], which is gone.
    pub const BLOB_REFERENCE_REMOVED: u16 = 66;
    /// Bucket → index, in a state only: [`super::UserCounters`].
    pub const USER_HELD: u16 = 67;
    /// Bucket → index, in a state only: [`super::BlobHeld`].
    pub const BLOB_HELD: u16 = 68;

    /// The first [version of a bucket](crate::bucket::VERSION) that knows a kind. A bucket of an older one
    /// is not told of it, and gets the whole state once it is upgraded.
    pub const fn since(_kind: u16) -> u32 {
        1
    }

    /// Bytes that a row of a state counts for in a page besides its own: work for the receiver.
    pub const fn weight(kind: u16) -> usize {
        match kind {
            ISSUER_UPSERTED => {
                crate::limits::STATE_PAGE_BYTES_MAX / crate::limits::ISSUERS_PER_BATCH_MAX
            }
            _ => 0,
        }
    }

    /// Kinds that a bucket may be told.
    pub const TO_BUCKETS: [u16; 7] = [
        USER_UPSERTED,
        USER_DELETED,
        ISSUER_UPSERTED,
        ISSUER_REMOVED,
        ACCESSOR_DELETED,
        REVOKED,
        STATE_PAGE,
    ];

    /// Whether a bucket of version `new` may be told kinds that one of version `old` does not know.
    pub fn any_between(old: u32, new: u32) -> bool {
        TO_BUCKETS
            .iter()
            .any(|kind| (old + 1..=new).contains(&since(*kind)))
    }
}

/// Part of a whole state, row by row in the order of the sender's keys. A page is one event: it is
/// applied as a whole or not at all, and may hold other rows when it is sent again.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct StatePage {
    /// The state begins here.
    pub first: bool,
    pub rows: Vec<StateRow>,
    /// The state is complete.
    pub last: bool,
}

/// One row of a state: an event without a place of its own.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct StateRow {
    pub kind: u16,
    pub bytes: ByteBuf,
}

/// A user may upload to the bucket.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct UserUpserted {
    pub user: Principal,
    /// Rises when a user is registered anew after a deletion.
    pub incarnation: u64,
    /// A lower one than before takes back what of the user's lease is not reserved.
    pub byte_limit: u64,
    /// What the index knows of the user in this bucket. In a state only.
    pub counters: Option<Counters>,
    /// Every incarnation up to this one is deleted. One above it is the same user, whom a restored index had
    /// forgotten when it was registered. None means all below `incarnation`.
    pub gone: Option<u64>,
}

/// The user and every lower incarnation of it are gone, with all they stored.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct UserDeleted {
    pub user: Principal,
    pub incarnation: u64,
}

/// Tokens for this accessor (of this user, where one is named) that were issued before `min_iat_ms` are
/// not believed.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    pub accessor_id: Principal,
    pub user: Option<Principal>,
    /// Milliseconds since 1970.
    pub min_iat_ms: u64,
    /// By then every such token has lapsed, and the revocation is forgotten. Milliseconds since 1970.
    pub until_ms: u64,
}

/// Tokens of this issuer are to be believed, under these of its keys and no other.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct IssuerUpserted {
    pub issuer: Principal,
    /// The newest.
    pub key: PublicKey,
    /// Replaced keys that are not revoked; none and an empty list mean the same.
    pub older: Option<Vec<OldKey>>,
}

/// A key that a newer one has replaced: its tokens are believed for a while.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldKey {
    pub key: PublicKey,
    /// From then on its tokens are refused. Milliseconds since 1970.
    pub until_ms: u64,
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

/// A reference came or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    pub blob_id: BlobId,
    pub size: u64,
    pub owner: Principal,
    pub accessor_id: Principal,
    /// Whether the blob came with its first reference, or went with its last.
    pub with_blob: bool,
}

impl Reference {
    /// `blob_id[32] ‖ size u64 little-endian ‖ with_blob u8 ‖ len u8 ‖ owner ‖ len u8 ‖ accessor_id`: at most
    /// 101 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(101);
        bytes.extend(self.blob_id.0);
        bytes.extend(self.size.to_le_bytes());
        bytes.push(self.with_blob.into());
        for principal in [self.owner, self.accessor_id] {
            bytes.push(principal.as_slice().len() as u8);
            bytes.extend(principal.as_slice());
        }
        bytes
    }

    /// None for anything that [`Reference::to_bytes`] does not give.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        fn principal(bytes: &[u8]) -> Option<(Principal, &[u8])> {
            let (len, rest) = bytes.split_first()?;
            let (id, rest) = rest.split_at_checked((*len).into())?;
            Some((Principal::try_from_slice(id).ok()?, rest))
        }
        let (blob_id, rest) = bytes.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (with_blob, rest) = rest.split_first()?;
        let (owner, rest) = principal(rest)?;
        let (accessor_id, rest) = principal(rest)?;
        (*with_blob <= 1 && rest.is_empty()).then(|| Self {
            blob_id: BlobId(*blob_id),
            size: u64::from_le_bytes(*size),
            owner,
            accessor_id,
            with_blob: *with_blob == 1,
        })
    }
}

/// The bucket has this blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobHeld {
    pub blob_id: BlobId,
    pub size: u64,
}

impl BlobHeld {
    /// `blob_id[32] ‖ size u64 little-endian`.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.blob_id.0[..], &self.size.to_le_bytes()].concat()
    }

    /// None for anything that [`BlobHeld::to_bytes`] does not give.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (blob_id, size) = bytes.split_first_chunk()?;
        Some(Self {
            blob_id: BlobId(*blob_id),
            size: u64::from_le_bytes(size.try_into().ok()?),
        })
    }
}

/// An X25519 public key of a canister, under which tokens are issued and checked.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    pub version: u16,
    /// 32 bytes.
    pub bytes: Key,
}

/// Why a canister draws no new key.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum RotateKeyError {
    /// Only a controller of the canister may; of the index, an admin too.
    NotAuthorized,
    /// Tokens of `max` versions are believed already; at `ms` since 1970 there is room for another. Revoking one
    /// makes room at once.
    TooManyKeyVersions { max: u32, ms: u64 },
}

/// Why a version of a key is not revoked.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum RevokeKeyError {
    /// Only a controller may; of the index's keys, an admin too, and of an issuer's the issuer or an admin of the index.
    NotAuthorized,
    /// There is no such issuer.
    NotFound,
    /// `version` is the newest there is: the key has to be rotated first.
    CurrentKey { version: u16 },
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

    /// What of the user's limit this bucket takes: stored or leased.
    pub fn held(&self) -> u64 {
        self.used().saturating_add(self.lease())
    }
}

/// One user's counters in one bucket, as one side has them.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Up to where the sender has heard the receiver. A receiver that knows better starts telling.
    pub heard: Stamp,
    /// The sender's canister version.
    pub version: u64,
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
    /// Tokens under older versions of its key than this are refused.
    pub oldest_key_version: Option<u16>,
    /// The version of the bucket's code: [`crate::bucket::VERSION`].
    pub version: Option<u32>,
    /// The newest canister version of the index that the bucket has seen. An index that does not
    /// remember having been there was restored from a snapshot.
    pub index_version: u64,
    pub cycles: Option<CyclesReport>,
    /// Rows of the bucket's own jobs that are set aside, since every message about them has trapped.
    pub set_aside: Option<u32>,
    /// For how long the job that waits longest has had something to do and got nothing done, in milliseconds. In a
    /// batch of its own it leaves out how long that batch has waited.
    pub overdue_ms: Option<u64>,
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
    /// From the index only: what it knows of users whom the batch told of, where that is more. Counters
    /// that are all 0: there is no such incarnation any more.
    pub counters: Vec<UserCounters>,
    /// The answerer's canister version.
    pub version: u64,
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
    /// A higher one than the bucket's: the user was registered again.
    pub incarnation: u64,
    pub byte_limit: u64,
    /// All that the index knows of the user in this bucket, the grant included.
    pub counters: Counters,
    /// As in [`UserUpserted`].
    pub gone: Option<u64>,
    /// The index's canister version.
    pub version: u64,
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

/// Argument of `c2c_recall`: the bucket gives back what of the user's lease is not reserved.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct RecallArgs {
    pub user: Principal,
    pub incarnation: u64,
    /// What the index knows.
    pub counters: Counters,
    /// The index's canister version.
    pub version: u64,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum RecallError {
    /// The caller is not the bucket's index.
    NotAuthorized,
    /// No such user here, nor such an incarnation: nothing is leased to it.
    NotRegistered,
}

/// Argument of `c2c_audit`: one page of a bucket's users.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct AuditArgs {
    /// Where the page before ended.
    pub after: Option<AuditPlace>,
}

/// A place in an audit: after a user, or within its blobs.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct AuditPlace {
    pub user: Principal,
    /// The last blob that was counted, and the bytes so far; none when the user is done.
    pub within: Option<(BlobId, u64)>,
}

/// What a bucket's references and uploads say, counted anew.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    pub users: Vec<AuditedUser>,
    /// None at the end.
    pub next: Option<AuditPlace>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct AuditedUser {
    /// As the bucket keeps them.
    pub kept: UserCounters,
    /// As the bucket keeps it.
    pub reserved: u64,
    /// Bytes of the distinct blobs that the user refers to.
    pub bytes_referenced: u64,
    /// Bytes of the user's open uploads.
    pub bytes_open: u64,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum AuditPageError {
    /// The caller is not the bucket's index.
    NotAuthorized,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_as_it_was_written_and_nothing_else_does() {
        let reference = Reference {
            blob_id: BlobId([7; 32]),
            size: u64::MAX,
            owner: Principal::from_slice(&[1; 29]),
            accessor_id: Principal::anonymous(),
            with_blob: true,
        };
        let bytes = reference.to_bytes();
        assert_eq!(Reference::from_bytes(&bytes), Some(reference));
        for len in 0..bytes.len() {
            assert_eq!(Reference::from_bytes(&bytes[..len]), None);
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Reference::from_bytes(&longer), None);
    }

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

//! The calls of the `data_bucket_index`.

use candid::{CandidType, Principal};
use serde::{Deserialize, Serialize};

use crate::{
    BlobId,
    channel::{AuditPlace, AuditedUser, Counters, CyclesReport, Key, PublicKey},
};

/// The version of the index's code. Rises with every change of what an index keeps; an older one refuses
/// to take over from a newer one.
pub const VERSION: u32 = 1 + cfg!(feature = "next") as u32;

/// Given at installation; all of it optional, so that a plain `dfx deploy` is enough.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct InitArgs {
    /// Who may do everything, besides the canister's controllers.
    pub admins: Vec<Principal>,
    /// Cycles given to a new bucket; none means 2 T.
    pub bucket_cycles: Option<u128>,
    /// The largest number of bytes of each bucket; none means [`crate::limits::BUCKET_BYTES_MAX`].
    pub bucket_bytes_max: Option<u64>,
    /// Whether browsers ask a bucket again each time before they show what they keep; counts for buckets that are made
    /// from then on. None means that they may show it for five minutes unasked.
    pub bucket_strict_cache: Option<bool>,
    /// Who controls the buckets besides the index; none means the index's own controllers.
    pub governance: Option<Vec<Principal>>,
    /// A bucket is made when the active ones have less room than this in all; none means half a bucket,
    /// at most the largest blob.
    pub free_bytes_target: Option<u64>,
    /// Cycles that the index keeps for itself: none below this goes to buckets. None means 1 T.
    pub cycles_floor: Option<u128>,
    /// Cycles that buckets may be topped up with in a day (UTC); none means 100 T.
    pub topup_budget_per_day: Option<u128>,
    /// The bug that its buckets are to have. In builds for the simulation only.
    #[cfg(feature = "mutants")]
    pub mutant: Option<u32>,
}

/// A user's allowance, with the figures that a refusal needs.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub byte_limit: u64,
    /// Stored, in all buckets.
    pub bytes_used: u64,
    /// Held by uploads that are not finished, in all buckets. `my_uploads` of each bucket lists them, and
    /// `abort_upload` frees what one of them holds.
    pub bytes_reserved: u64,
    /// That part of `bytes_reserved` which uploads in other buckets hold, and what a bucket that could not be asked
    /// has been promised.
    pub leased_elsewhere: u64,
    /// A bucket that was asked to give back what it does not need, and did not answer.
    pub unreachable: Option<Principal>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct UserArgs {
    pub user: Principal,
    /// Bytes that the user may store.
    pub byte_limit: u64,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum UserError {
    /// Neither an admin nor an issuer.
    NotAuthorized,
    NotRegistered,
    /// The anonymous principal and the management canister are nobody.
    InvalidUser,
    /// An admin has set this limit with `update_user`, or has deleted the user (then it is 0): an issuer does not
    /// change that. An admin's `register_user` lets issuers change it again.
    SetByAdmin {
        byte_limit: u64,
    },
}

/// Whose part of the file-change feed to read, and from where.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct FeedArgs {
    /// The `id` of the last change that was read; 0 reads from the oldest that is kept.
    pub after: u64,
    /// Changes in one answer; at most 1,000.
    pub limit: u32,
    /// Whose changes: none means everybody's for admins and issuers, the caller's own for others.
    pub owner: Option<Principal>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct FeedPage {
    /// In order.
    pub changes: Vec<Change>,
    /// Changes up to this id are not kept any more (there are a million, and ten thousand of each owner), or some were never heard of (canisters that were restored, or
    /// away for long, tell how things are and not how they came about): who has read less far has missed some.
    pub forgotten_until: u64,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum FeedError {
    /// Another's changes are shown to admins and issuers only.
    NotAuthorized,
}

/// One change of a file.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Rises from change to change, also over a restored snapshot; not by one.
    pub id: u64,
    /// When the index heard of it. Milliseconds since 1970.
    pub at_ms: u64,
    pub what: ChangeKind,
    pub blob_id: BlobId,
    pub size: u64,
    pub bucket: Principal,
    pub owner: Principal,
    pub accessor_id: Principal,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The bucket has got the blob, with its first reference.
    Added,
    /// A further reference.
    Referenced,
    /// A reference went; the blob has others.
    Unreferenced,
    /// The last reference went, and the blob with it.
    Deleted,
}

/// Compares what a bucket's references say with its counters, and those with the index's: one page.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct AuditArgs {
    pub bucket: Principal,
    /// Where the page before ended.
    pub after: Option<AuditPlace>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct AuditOk {
    /// Users that were looked at.
    pub users: u64,
    /// Those whose figures disagree. While uploads and events are under way the index is a little behind;
    /// at rest there is no difference.
    pub differences: Vec<AuditDifference>,
    /// None at the end.
    pub next: Option<AuditPlace>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct AuditDifference {
    /// What the bucket keeps, and what its references and uploads say.
    pub at_bucket: AuditedUser,
    /// What the index keeps of the same user in that bucket.
    pub at_index: Counters,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum AuditError {
    /// Not an admin.
    NotAuthorized,
    /// No bucket of this index.
    NotFound,
    /// The bucket did not answer, or is being audited already.
    Retry { ms: u64 },
}

/// Tokens of the calling issuer for one of its accessors are believed only when they were issued at
/// `min_iat_ms` or later.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct RevokeArgs {
    /// Names the accessor within the issuer; none means the issuer itself.
    pub dn: Option<serde_bytes::ByteBuf>,
    /// Only this user's tokens; none means everybody's.
    pub user: Option<Principal>,
    /// Milliseconds since 1970.
    pub min_iat_ms: u64,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum RevokeError {
    /// The caller is no issuer.
    NotAuthorized,
    /// In bytes.
    InvalidName { max: u32 },
    /// Later than now, or so early that every such token has lapsed already.
    InvalidTime { now_ms: u64, earliest_ms: u64 },
    /// Too many are in force; the first lapses at `ms` since 1970.
    TooManyRevocations { max: u32, ms: u64 },
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct UserInfo {
    pub byte_limit: u64,
    /// Stored, in all buckets.
    pub bytes_used: u64,
    /// Held in buckets by uploads that are not finished; and up to 4 MiB in each bucket that was uploaded to in the
    /// last hour, for the next files.
    pub bytes_leased: u64,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct AllocatedBucketArgs {
    pub blob_id: BlobId,
    pub size: u64,
    /// Buckets that answered `BucketFull`.
    pub exclude: Vec<Principal>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct AllocatedBucketOk {
    pub bucket: Principal,
    pub chunk_bytes: u64,
    /// The bucket has the blob: the upload will be short.
    pub stored: bool,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum AllocatedBucketError {
    NotRegistered,
    /// The blob alone is larger than the caller's whole allowance.
    AllowanceExceeded {
        byte_limit: u64,
    },
    BlobTooLarge {
        max: u64,
    },
    /// No bucket with room is ready and well; one may be in the making. Ask again in some seconds.
    NoActiveBucket,
    /// More than `max`.
    InvalidExclude {
        max: u32,
    },
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct DeleteChatArgs {
    /// The chat's accessor id.
    pub chat_id: Principal,
    /// Its scope says "delete this accessor", its principal is the caller.
    pub token: String,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum DeleteChatError {
    /// The token's principal is not the caller.
    NotAuthorized,
    InvalidToken(crate::bucket::TokenProblem),
}

/// Asks the index to trust the caller's tokens. A canister that has the index's controllers and no others, and whose
/// code one of them put in, registers itself; for others an admin calls with `issuer` set.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct RegisterIssuerArgs {
    /// None means the caller.
    pub issuer: Option<Principal>,
    pub key: PublicKey,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct RegisterIssuerOk {
    /// The index's own key, for tokens that the index checks.
    pub index_key: PublicKey,
    /// The issuer seals with no older version of its key than this: buckets refuse those tokens, or will before they lapse.
    /// For example, an issuer that was removed and is trusted again begins anew. None from an index that does not say.
    pub oldest_version: Option<u16>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum IssuerError {
    NotAuthorized,
    /// The index has not drawn its secret yet; try again.
    KeysNotReady,
    /// Versions begin with 1 and rise by one.
    InvalidKeyVersion {
        expected: u16,
    },
    /// Tokens of `max` versions are believed already; at `ms` since 1970 there is room for another. `oldest` is the version
    /// that goes first: `revoke_issuer_key` makes room at once.
    TooManyKeyVersions {
        max: u32,
        ms: u64,
        oldest: Option<u16>,
    },
    /// No secret can be shared under this key: its point is of small order.
    InvalidKey,
    /// Another call to do the same is under way, or the management canister did not answer.
    Retry {
        ms: u64,
    },
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    pub issuer: Principal,
    pub key: PublicKey,
}

/// Tokens under one version of an issuer's key are believed no longer.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct RevokeIssuerKeyArgs {
    /// None means the caller; an admin may name any.
    pub issuer: Option<Principal>,
    pub version: u16,
}

/// A bucket's public key: a [`PublicKey`], and which others count.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketKey {
    pub version: u16,
    /// 32 bytes.
    pub bytes: Key,
    /// Tokens under older versions than this are refused.
    pub oldest_version: Option<u16>,
}

impl BucketKey {
    pub fn public(&self) -> PublicKey {
        PublicKey {
            version: self.version,
            bytes: self.bytes,
        }
    }
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct BucketKeysArgs {
    pub bucket: Principal,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum BucketKeysError {
    /// No bucket of this index.
    NotFound,
    KeysNotReady,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketState {
    /// Being created or installed; takes nothing yet.
    Creating,
    /// Takes new blobs.
    Active,
    /// Serves what it has.
    Full,
    /// Stopped for a moment, while its code is replaced.
    Upgrading,
    /// Serves what it has, and takes nothing new any more.
    Retired,
    /// It does not answer, or does not work as it should: [`BucketInfo::trouble`]. It is given no new blobs until it does
    /// again, which the index sees by itself.
    Unhealthy,
}

/// What is wrong with a bucket.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub cause: TroubleCause,
    /// When it was noticed. Milliseconds since 1970.
    pub since_ms: u64,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleCause {
    /// It took nothing that it was sent, several times in a row.
    Silent,
    /// Somebody has stopped it.
    Stopped,
    /// There is no code in it.
    Uninstalled,
    /// Its cycles are below its freezing threshold.
    Frozen { balance: u128, freezing_at: u128 },
    /// The canister is gone, or the index does not control it.
    Lost,
    /// It answers, but some job of its own has got nothing done for so long.
    Stuck { overdue_ms: u64 },
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct BucketInfo {
    pub bucket: Principal,
    pub state: BucketState,
    pub bytes_used: u64,
    pub bytes_free: u64,
    /// Events that the bucket has not acknowledged yet.
    pub events_behind: u64,
    /// Of its code; none until it has said.
    pub version: Option<u32>,
    /// SHA-256 of its module, as last seen.
    pub module_hash: Option<BlobId>,
    /// As last seen; none until then.
    pub cycles: Option<CyclesReport>,
    /// Cycles that the index has topped it up with.
    pub cycles_deposited: u128,
    /// The last thing that went wrong in keeping it up, until it went well.
    pub last_error: Option<String>,
    /// Why it is given no new blobs, if something is wrong with it.
    pub trouble: Option<Trouble>,
    /// Rows of its own jobs that are set aside, since every message about them has trapped: `set_aside` of the bucket
    /// lists them. An alarm.
    pub set_aside: Option<u32>,
}

/// Why an operator's call about the fleet was refused.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum FleetError {
    /// Not an admin.
    NotAuthorized,
    /// No bucket of this index.
    NotFound,
    /// Not the id of a canister, or the index's own.
    InvalidBucket,
    /// The same call is under way, or another canister did not answer: try again.
    Retry {
        ms: u64,
    },
    TooManyBuckets {
        max: u32,
    },
    /// There is no such canister, or the index does not control it.
    NotController,
    /// A bucket is controlled by the index and its governance, and by nobody else. These are too many.
    ForeignControllers {
        controllers: Vec<Principal>,
    },
    /// Its code is neither none nor a bucket's that this index knows.
    UnknownModule {
        module_hash: BlobId,
    },
    /// The bucket is retired, for good.
    Retired,
    /// Only a retired bucket can be forgotten.
    NotRetired,
    /// This index was built without a bucket's Wasm.
    NoWasm,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct SetBucketFullArgs {
    pub bucket: Principal,
    /// False lets it take new blobs again.
    pub full: bool,
}

/// How far the buckets are with the code that the index embeds.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct RollStatus {
    /// SHA-256 of the gzipped module that buckets get.
    pub module_hash: BlobId,
    pub version: u32,
    /// Buckets that have it.
    pub done: u32,
    /// Buckets that are being upgraded now.
    pub running: u32,
    /// Buckets that are to get it.
    pub waiting: u32,
    /// Buckets with newer code: they keep it.
    pub newer: u32,
    /// Why the roll has stopped; `upgrade_buckets` takes it up again.
    pub stopped: Option<String>,
}

/// Answer of `status`: what an operator or a health check asks first.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct IndexStatus {
    pub version: u32,
    pub users: u64,
    pub blobs: u64,
    pub bytes_stored: u64,
    pub buckets: Vec<BucketInfo>,
    /// SHA-256 of the (uncompressed or gzipped, as embedded) bucket Wasm that this index installs.
    pub bucket_wasm_hash: BlobId,
    pub roll: RollStatus,
    /// Why the last attempt to create a bucket failed, if it did.
    pub last_creation_error: Option<String>,
    /// Why a bucket that needs cycles gets none, if that is so.
    pub topup_withheld: Option<String>,
    /// The index's own key, for tokens that the index checks; none until it has drawn its secret.
    pub key: Option<PublicKey>,
}

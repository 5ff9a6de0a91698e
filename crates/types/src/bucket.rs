//! The calls of a `data_bucket`.

use std::fmt;

use candid::{CandidType, Principal};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};

use crate::{BlobId, ChunkRange, channel::PublicKey, index::Allowance};

/// The version of a bucket's code. Rises with every change of what a bucket keeps, understands or
/// answers; an index replaces a bucket's code by the same or a higher version only.
pub const VERSION: u32 = 1 + cfg!(feature = "next") as u32;

/// Given by the index when it installs the bucket, and again at each upgrade.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct InitArgs {
    pub index: Principal,
    /// The largest number of bytes to take; none means [`crate::limits::BUCKET_BYTES_MAX`].
    pub bytes_max: Option<u64>,
    /// Browsers ask again each time before they show what they keep (`Cache-Control: private, no-cache`), and do not
    /// show it for five minutes unasked. What counts is said at the installation: certificates are made of it.
    pub strict_cache: Option<bool>,
    /// The bug to have: see `canisters/bucket/src/mutants.rs`. In builds for the simulation only.
    #[cfg(feature = "mutants")]
    pub mutant: Option<u32>,
    /// Where a job is to trap. In builds for tests only.
    #[cfg(feature = "mutants")]
    pub trap: Option<Trap>,
}

/// A job traps whenever it comes to a row. In builds for tests only.
#[cfg(feature = "mutants")]
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    /// The job's name, as in [`SetAside::job`].
    pub job: String,
    /// Part of the row's text, as in [`SetAside::row`]; none means every row.
    pub row: Option<String>,
}

/// A chunk that holds its own bytes: what clients send.
pub type PushChunkArgs = PushChunk<ByteBuf>;

/// A chunk on its way to a bucket. `B` holds the bytes: whoever reads a chunk where it arrived takes `&serde_bytes::Bytes`.
#[derive(CandidType, Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct PushChunk<B> {
    pub blob_id: BlobId,
    /// Bytes of the whole blob; the same in every chunk.
    pub size: u64,
    pub mime_type: String,
    /// A file name for downloads.
    pub name: Option<String>,
    pub chunk_index: u32,
    /// 2,000,000 bytes, fewer only in the last chunk.
    pub bytes: B,
    /// Who may see the blob: 1 to 32 principals. They add up over an upload's chunks; each keeps the
    /// MIME type and name of the chunk that first named it.
    pub accessor_ids: Vec<Principal>,
}

impl PushChunkArgs {
    /// The same, but for the bytes: they are borrowed.
    pub fn borrowed(&self) -> PushChunk<&Bytes> {
        PushChunk {
            blob_id: self.blob_id,
            size: self.size,
            mime_type: self.mime_type.clone(),
            name: self.name.clone(),
            chunk_index: self.chunk_index,
            bytes: Bytes::new(&self.bytes),
            accessor_ids: self.accessor_ids.clone(),
        }
    }
}

impl<B: AsRef<[u8]>> fmt::Debug for PushChunk<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushChunkArgs")
            .field("blob_id", &self.blob_id)
            .field("size", &self.size)
            .field("chunk_index", &self.chunk_index)
            .field(
                "bytes",
                &format_args!("{} bytes", self.bytes.as_ref().len()),
            )
            .finish_non_exhaustive()
    }
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct PushChunkOk {
    pub state: UploadState,
    /// Chunks that are not in yet.
    pub missing_count: u32,
}

/// Where an upload stands.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadState {
    /// Chunks are missing.
    Open,
    /// All chunks are in; the hash is being computed over several messages.
    Verifying,
    /// The caller has a reference to the blob.
    Stored,
    Gone(GoneReason),
}

/// Why an upload is gone; kept for 24 h.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoneReason {
    /// The bytes did not hash to the blob's id.
    HashMismatch,
    Aborted,
    /// Nothing arrived for 24 h, or less than [`crate::limits::UPLOAD_BYTES_PER_DAY`] a day after the first.
    Expired,
    UserDeleted,
    /// Every accessor that it named was deleted.
    AccessorDeleted,
    /// The bucket failed to go on with it; its log says why.
    Fault,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum PushChunkError {
    /// The anonymous principal uploads nothing.
    NotAuthorized,
    /// Unknown here: call `ensure_registered`, then push again.
    NotRegistered,
    /// The same call may succeed after so long.
    Retry {
        ms: u64,
    },
    /// In bytes.
    BlobTooLarge {
        max: u64,
    },
    InvalidChunkIndex {
        count: u32,
    },
    /// In bytes.
    InvalidChunkLength {
        expected: u64,
    },
    /// None, more than `max`, or one of them anonymous or the management canister.
    InvalidAccessors {
        max: u32,
    },
    AccessorDeleted {
        accessor_id: Principal,
    },
    /// Not `type/subtype` in visible ASCII of at most `max` bytes. Parameters are dropped, and letters are stored in
    /// lower case.
    InvalidMimeType {
        max: u32,
    },
    /// Longer than `max` bytes. What a file name may not hold is replaced, and a long one shortened: see
    /// [`crate::file_name`].
    InvalidName {
        max: u32,
    },
    /// An earlier chunk said `size`.
    SessionMismatch {
        size: u64,
    },
    /// This chunk is in already, with other bytes; the first stay.
    ChunkConflict,
    /// The chunks hash to `actual`. All of them are dropped, nothing is charged.
    HashMismatch {
        actual: BlobId,
    },
    AllowanceExceeded(Allowance),
    TooManyOpenUploads {
        max: u32,
    },
    /// The caller has as many references in this bucket as its limit allows: one for each 1,024 bytes of it, and
    /// 1,000 more.
    TooManyReferences {
        max: u64,
    },
    /// The bucket has no room for the blob, or for the next chunk of an upload of which `bytes_arrived` are in. These
    /// stay: push again later, or call `abort_upload` and ask the index for another bucket.
    BucketFull {
        bytes_free: u64,
        /// Of this upload; 0 where it has not begun.
        bytes_arrived: u64,
    },
    /// The bucket's memory cannot grow now; nothing was written.
    StorageFull,
    /// The blob is stored already, and the caller has shown a chunk of it: these are the others to show.
    ChunkNeeded {
        indexes: Vec<u32>,
    },
    /// The bytes are not the stored blob's.
    ChunkMismatch {
        attempts_left: u32,
    },
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct UploadArgs {
    pub blob_id: BlobId,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct UploadStatus {
    pub state: UploadState,
    pub size: u64,
    /// Chunks that are not in yet; of a blob that others have stored, those that the caller has to show: first one,
    /// which opens the upload, then those that were drawn for it.
    pub missing: Vec<ChunkRange>,
}

/// Which of the caller's open uploads to list.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct MyUploadsArgs {
    /// The last id of the page before.
    pub after: Option<BlobId>,
    /// At most 1,000.
    pub limit: u32,
}

/// An upload of the caller's that is not finished. `abort_upload` gives back what it holds.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    pub blob_id: BlobId,
    /// Bytes of the whole blob.
    pub size: u64,
    /// Bytes that are in; of a blob that others have stored, those that were shown.
    pub bytes_arrived: u64,
    /// Bytes of the caller's allowance that the upload holds.
    pub bytes_reserved: u64,
    /// `Open` or `Verifying`.
    pub state: UploadState,
    /// When the last new chunk came. Milliseconds since 1970.
    pub touched_ms: u64,
    /// When it is dropped, if nothing comes until then.
    pub expires_ms: u64,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum UploadError {
    /// The caller has no such upload.
    NotFound,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum EnsureRegisteredError {
    NotAuthorized,
    NotRegistered,
    Retry { ms: u64 },
}

/// A registered caller who may read a blob gives it to further accessors, at its own charge.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct AddBlobReferenceArgs {
    pub blob_id: BlobId,
    pub accessor_ids: Vec<Principal>,
    pub mime_type: String,
    pub name: Option<String>,
    /// Where the caller sees the blob now.
    pub from_accessor: Principal,
    /// A read token for `from_accessor` whose principal is the caller.
    pub token: String,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum AddBlobReferenceError {
    NotAuthorized,
    NotRegistered,
    Retry {
        ms: u64,
    },
    InvalidToken(TokenProblem),
    /// No such blob is visible to `from_accessor`.
    NotFound,
    InvalidAccessors {
        max: u32,
    },
    AccessorDeleted {
        accessor_id: Principal,
    },
    InvalidMimeType {
        max: u32,
    },
    InvalidName {
        max: u32,
    },
    AllowanceExceeded(Allowance),
    /// As in [`PushChunkError`].
    TooManyReferences {
        max: u64,
    },
    BucketFull {
        bytes_free: u64,
    },
}

/// Removes the reference (blob, owner, accessor). Removing one that is not there is Ok.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct RemoveBlobReferenceArgs {
    pub blob_id: BlobId,
    pub accessor_id: Principal,
    pub owner: Principal,
    /// Needed unless the caller is the owner: a delete token bound to blob, accessor and owner, issued
    /// after the reference was created.
    pub token: Option<String>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum RemoveBlobReferenceError {
    /// Neither the owner nor the bearer of a delete token.
    NotAuthorized,
    InvalidToken(TokenProblem),
    /// The reference was created after the token was issued.
    TokenOlderThanReference,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    pub blob_id: BlobId,
    pub size: u64,
    /// The caller's own, at most the first 1,000.
    pub references: Vec<ReferenceInfo>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct ReferenceInfo {
    pub accessor_id: Principal,
    pub mime_type: String,
    pub name: Option<String>,
    /// Milliseconds since 1970.
    pub created_ms: u64,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct MyBlobsArgs {
    /// The last id of the page before.
    pub after: Option<BlobId>,
    /// At most 1,000.
    pub limit: u32,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct ReadChunkArgs {
    pub blob_id: BlobId,
    pub accessor_id: Principal,
    /// A read token for the accessor whose principal is the caller.
    pub token: String,
    pub chunk_index: u32,
}

#[derive(CandidType, Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct ReadChunkOk {
    pub bytes: ByteBuf,
    /// Bytes of the whole blob.
    pub size: u64,
    pub mime_type: String,
}

impl fmt::Debug for ReadChunkOk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ReadChunkOk {{ {} bytes of {} }}",
            self.bytes.len(),
            self.size
        )
    }
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum ReadChunkError {
    /// The token's principal is not the caller.
    NotAuthorized,
    InvalidToken(TokenProblem),
    /// No such blob is visible to the accessor.
    NotFound,
    InvalidChunkIndex {
        count: u32,
    },
}

/// Why a token opens nothing. Told in Candid calls; HTTP answers 401, and says why where the token is authentic.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenProblem {
    /// Not a token's form.
    Malformed,
    /// Well formed, but not issued for this accessor, blob, bucket and right by this issuer.
    NotAuthentic,
    /// The index trusts no such issuer, or no such key version of it.
    UnknownIssuer,
    Expired,
    /// Taken back before its time.
    Revoked,
    /// Issued in the future, or to live longer than tokens may.
    InvalidTimes,
    /// The bucket has not drawn its secret yet; try again.
    KeysNotReady,
}

/// Answer of `status`: what an operator or a health check asks first.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct BucketStatus {
    pub index: Principal,
    pub blobs: u64,
    pub references: u64,
    pub open_uploads: u64,
    /// Of stored blobs.
    pub bytes_stored: u64,
    /// Promised to open uploads.
    pub bytes_reserved: u64,
    pub bytes_free: u64,
    /// Events that the index has not acknowledged yet.
    pub events_unsent: u64,
    pub key: Option<PublicKey>,
    /// Of the code that answers: [`VERSION`].
    pub version: u32,
    /// The index has closed the bucket: it takes no new blobs, and goes on serving.
    pub closed: bool,
    /// Rows of the bucket's own jobs that are set aside, since every message about them has trapped. An alarm.
    pub set_aside: Option<u32>,
    /// For how long the job that waits longest has had something to do and got nothing done. Milliseconds.
    pub overdue_ms: Option<u64>,
}

/// A row of one of the bucket's own jobs, set aside since every message about it has trapped. The job's other rows go
/// on. An upgrade gives it another turn; it is listed until its work is done.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// As `/logs` names it.
    pub number: u64,
    /// `tell`, `verify`, `derive`, `delete_accessors`, `delete_users`, `expire` or `give_back`.
    pub job: String,
    /// What it is about: a word, and the principals, blob ids, times (milliseconds since 1970) and numbers that name it.
    pub row: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What an event says that the index is not told of.
    pub event: Option<ByteBuf>,
}

/// Why the rows that are set aside are not listed.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum SetAsideError {
    /// Only controllers see them: they name users.
    NotAuthorized,
}

/// Why the index's word was not taken.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum SetClosedError {
    /// The caller is not the bucket's index.
    NotAuthorized,
}

//! What can go wrong between a file and a bucket.

use candid::Principal;
use openstorage_types::{
    BlobId,
    bucket::{
        EnsureRegisteredError, GoneReason, PushChunkError, ReadChunkError, RemoveBlobReferenceError,
    },
    index::AllocatedBucketError,
};
use thiserror::Error;

use crate::{CallError, CallErrorKind};

/// Why an upload or a download ended without its result. Nothing that may pass by itself is in here: it
/// has been tried again until [`Error::GaveUp`]. The sentence holds the whole cause; there is no chain to
/// follow.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{what}: {error}")]
    Io {
        /// What was tried, with the path.
        what: String,
        error: std::io::Error,
    },

    /// The bytes at hand are fewer or others than when the work began.
    #[error("the source changed while it was being read: upload it again")]
    SourceChanged,

    #[error("{}", call(.canister, .method, .error))]
    Call {
        canister: Principal,
        method: &'static str,
        error: CallError,
    },

    #[error("{canister} and this client do not agree on {method}; their versions differ: {error}")]
    Candid {
        canister: Principal,
        method: &'static str,
        error: candid::Error,
    },

    #[error("the index allocates no bucket: {}", allocation(.0))]
    Allocation(AllocatedBucketError),

    #[error("the bucket {bucket} does not know the caller: {}", registration(.error))]
    Registration {
        bucket: Principal,
        error: EnsureRegisteredError,
    },

    #[error("the bucket {bucket} refuses the upload: {}", push(.error))]
    Push {
        bucket: Principal,
        error: PushChunkError,
    },

    #[error("the upload is gone: {}", gone(*.0))]
    Gone(GoneReason),

    #[error("the bucket {bucket} refuses chunk {chunk_index}: {error:?}")]
    Read {
        bucket: Principal,
        blob_id: BlobId,
        chunk_index: u32,
        error: ReadChunkError,
    },

    /// Not `start ≤ end ≤ max`, in bytes of the blob.
    #[error("{start} to {end} is not a range within 0 to {max}")]
    InvalidRange { start: u64, end: u64, max: u64 },

    #[error("the bucket {bucket} does not remove the reference: {error:?}")]
    Remove {
        bucket: Principal,
        error: RemoveBlobReferenceError,
    },

    /// What a bucket sent is not the blob.
    #[error("{bucket} sent other bytes than the blob {expected}: do not use them")]
    WrongBytes { bucket: Principal, expected: BlobId },

    #[error("gave up after {seconds} s without progress; the last answer was: {last}")]
    GaveUp { seconds: u64, last: String },
}

impl Error {
    /// What went wrong, in one word: the same words as in the JavaScript library, for programs that compare.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "SourceUnreadable",
            Self::SourceChanged => "SourceChanged",
            Self::Call { error, .. } => match error.kind {
                CallErrorKind::Denied => "SignInRefused",
                _ => "CallFailed",
            },
            Self::Candid { .. } => "InterfaceMismatch",
            Self::Allocation(error) => match error {
                AllocatedBucketError::NotRegistered => "NotRegistered",
                AllocatedBucketError::AllowanceExceeded { .. } => "AllowanceExceeded",
                AllocatedBucketError::BlobTooLarge { .. } => "BlobTooLarge",
                AllocatedBucketError::NoActiveBucket
                | AllocatedBucketError::InvalidExclude { .. } => "NoBucketWithRoom",
            },
            Self::Registration { error, .. } => match error {
                EnsureRegisteredError::NotAuthorized => "NotAuthorized",
                EnsureRegisteredError::NotRegistered => "NotRegistered",
                EnsureRegisteredError::Retry { .. } => "CallFailed",
            },
            Self::Push { error, .. } => push_code(error),
            Self::Gone(_) => "UploadGone",
            Self::Read { error, .. } => match error {
                ReadChunkError::NotAuthorized => "NotAuthorized",
                ReadChunkError::InvalidToken(_) => "TokenRefused",
                ReadChunkError::NotFound => "NotFound",
                ReadChunkError::InvalidChunkIndex { .. } => "CallFailed",
            },
            Self::InvalidRange { .. } => "InvalidRange",
            Self::Remove { error, .. } => match error {
                RemoveBlobReferenceError::NotAuthorized => "NotAuthorized",
                RemoveBlobReferenceError::InvalidToken(_) => "TokenRefused",
                RemoveBlobReferenceError::TokenOlderThanReference => "TokenOlderThanReference",
            },
            Self::WrongBytes { .. } => "WrongBytes",
            Self::GaveUp { .. } => "GaveUp",
        }
    }
}

fn call(canister: &Principal, method: &str, error: &CallError) -> String {
    match error.kind {
        CallErrorKind::Denied => format!(
            "the network does not accept the caller's sign-in: sign in again, and do this again ({error})"
        ),
        _ => format!("{canister} did not take the call {method}: {error}"),
    }
}

fn push_code(error: &PushChunkError) -> &'static str {
    match error {
        PushChunkError::NotAuthorized => "NotAuthorized",
        PushChunkError::NotRegistered => "NotRegistered",
        PushChunkError::BlobTooLarge { .. } => "BlobTooLarge",
        PushChunkError::InvalidAccessors { .. } => "InvalidAccessors",
        PushChunkError::AccessorDeleted { .. } => "AccessorDeleted",
        PushChunkError::InvalidMimeType { .. } => "InvalidMimeType",
        PushChunkError::InvalidName { .. } => "InvalidName",
        PushChunkError::SessionMismatch { .. } => "SessionMismatch",
        PushChunkError::ChunkConflict => "ChunkConflict",
        PushChunkError::HashMismatch { .. } => "HashMismatch",
        PushChunkError::AllowanceExceeded(_) => "AllowanceExceeded",
        PushChunkError::TooManyOpenUploads { .. } => "TooManyOpenUploads",
        PushChunkError::TooManyReferences { .. } => "TooManyReferences",
        PushChunkError::ChunkMismatch { .. } => "ChunkMismatch",
        // The client deals with these itself, or makes no such call.
        PushChunkError::Retry { .. }
        | PushChunkError::InvalidChunkIndex { .. }
        | PushChunkError::InvalidChunkLength { .. }
        | PushChunkError::BucketFull { .. }
        | PushChunkError::StorageFull
        | PushChunkError::ChunkNeeded { .. } => "CallFailed",
    }
}

fn allocation(error: &AllocatedBucketError) -> String {
    match error {
        AllocatedBucketError::NotRegistered => {
            "the caller is no registered user; the app registers it with register_user".into()
        }
        AllocatedBucketError::AllowanceExceeded { byte_limit } => {
            format!("the blob is larger than the caller's allowance of {byte_limit} bytes")
        }
        AllocatedBucketError::BlobTooLarge { max } => format!("a blob has at most {max} bytes"),
        AllocatedBucketError::NoActiveBucket => "no bucket with room is ready".into(),
        AllocatedBucketError::InvalidExclude { max } => {
            format!("more than {max} buckets were full")
        }
    }
}

fn registration(error: &EnsureRegisteredError) -> &'static str {
    match error {
        EnsureRegisteredError::NotAuthorized => "the anonymous principal uploads nothing",
        EnsureRegisteredError::NotRegistered => {
            "the index has no such user; the app registers it with register_user"
        }
        EnsureRegisteredError::Retry { .. } => "it is asking the index; try again",
    }
}

fn push(error: &PushChunkError) -> String {
    match error {
        PushChunkError::HashMismatch { actual } => {
            format!(
                "the chunks hash to {actual}; the file changed while it was read: upload it again"
            )
        }
        PushChunkError::AllowanceExceeded(allowance) => format!(
            "of the allowance of {} bytes, {} are used and {} are held by uploads that are not finished: finish or \
             discard these, delete something, or ask the app for more",
            allowance.byte_limit, allowance.bytes_used, allowance.bytes_reserved
        ),
        PushChunkError::AccessorDeleted { accessor_id } => {
            format!("the accessor {accessor_id} was deleted")
        }
        PushChunkError::InvalidMimeType { max } => {
            format!("a MIME type is type/subtype in at most {max} visible ASCII characters")
        }
        PushChunkError::InvalidName { max } => {
            format!("a file name has at most {max} bytes")
        }
        PushChunkError::InvalidAccessors { max } => {
            format!("a blob is uploaded for 1 to {max} accessors, none of them anonymous")
        }
        PushChunkError::TooManyOpenUploads { max } => {
            format!("{max} uploads are open: finish or abort one")
        }
        PushChunkError::TooManyReferences { max } => format!(
            "{max} references are all that the caller's limit allows in this bucket: delete some, or \
             ask the app for a larger limit"
        ),
        PushChunkError::ChunkConflict => {
            "an earlier upload of this blob holds other bytes: call abort_upload, then upload again"
                .into()
        }
        other => format!("{other:?}"),
    }
}

fn gone(reason: GoneReason) -> &'static str {
    match reason {
        GoneReason::HashMismatch => {
            "its chunks did not hash to the blob's id; the file changed while it was read"
        }
        GoneReason::Aborted => "it was aborted",
        GoneReason::Expired => "nothing arrived for a day, or too little since it began",
        GoneReason::UserDeleted => "the user was deleted",
        GoneReason::AccessorDeleted => "all accessors that it was for were deleted",
        GoneReason::Fault => "the bucket failed to go on with it: upload it again",
    }
}

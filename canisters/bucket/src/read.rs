//! What a caller may see: its own blobs, and chunks that a token opens.

use candid::Principal;
use openstorage_canister::audience::Wanted;
use openstorage_tokens::Scope;
use openstorage_types::{
    BlobId,
    bucket::{
        BlobInfo, MyBlobsArgs, ReadChunkArgs, ReadChunkError, ReadChunkOk, ReferenceInfo,
        UploadError,
    },
    chunk_count, chunk_len,
    limits::{CHUNK_BYTES, PAGE_ROWS_MAX},
};
use serde_bytes::ByteBuf;

use crate::{Bucket, Now, Stored, mutants::Mutant, references::Reference};

/// References of an accessor to one blob that are looked at for one whose owner is not being deleted.
const WAITING_MAX: usize = 100;

/// Bytes of a stored blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    slot: u64,
    from: u64,
    pub len: u64,
}

impl Part {
    pub(crate) const fn new(slot: u64, from: u64, len: u64) -> Self {
        Self { slot, from, len }
    }
}

impl Bucket {
    /// One chunk, for the principal that the token was issued to.
    pub fn read_chunk(
        &self,
        caller: &Principal,
        args: &ReadChunkArgs,
        now: Now,
    ) -> Result<ReadChunkOk, ReadChunkError> {
        let (mut answer, part) = self.open_chunk(caller, args, now)?;
        self.read_part(&part, |window| answer.bytes.extend_from_slice(window));
        Ok(answer)
    }

    /// The answer of [`Bucket::read_chunk`] without its bytes, and where these lie.
    pub fn open_chunk(
        &self,
        caller: &Principal,
        args: &ReadChunkArgs,
        now: Now,
    ) -> Result<(ReadChunkOk, Part), ReadChunkError> {
        let wanted = Wanted {
            scope: Scope::READ,
            accessor: args.accessor_id,
            blob: args.blob_id,
            owner: None,
        };
        let claims = self.access.check(&args.token, &wanted, now.ms);
        let claims = claims.map_err(ReadChunkError::InvalidToken)?;
        if claims.principal != *caller && !self.is_mutant(Mutant::TokenOfAnybody) {
            return Err(ReadChunkError::NotAuthorized);
        }
        let (seen, stored) = self
            .seen(&args.blob_id, &args.accessor_id, &claims.principal)
            .ok_or(ReadChunkError::NotFound)?;
        let Some(len) = chunk_len(stored.size, args.chunk_index.into()) else {
            let count = chunk_count(stored.size) as u32;
            return Err(ReadChunkError::InvalidChunkIndex { count });
        };
        let from = u64::from(args.chunk_index) * CHUNK_BYTES;
        let part = Part::new(stored.slot, from, len);
        let answer = ReadChunkOk {
            bytes: ByteBuf::new(),
            size: stored.size,
            mime_type: seen.mime_type,
        };
        Ok((answer, part))
    }

    /// How somebody sees a blob through an accessor: by the own reference there, else by the oldest. None where the
    /// accessor does not see it, and of what is deleted for good, though it may not be gone yet.
    pub(crate) fn seen(
        &self,
        blob: &BlobId,
        accessor: &Principal,
        viewer: &Principal,
    ) -> Option<(Reference, Stored)> {
        if self.is_deleted(accessor) {
            return None;
        }
        let (stored, oldest) = (self.stored(blob)?, self.certify.owner(accessor, blob)?);
        let are_several = stored.references > 1 && self.references.some_wait();
        let is_hidden = self.is_mutant(Mutant::TypeOfAnother);
        let own =
            (are_several && !is_hidden && oldest != *viewer && !self.accounts.is_dying(viewer))
                .then(|| self.references.get(blob, viewer, accessor))
                .flatten();
        let reference = own.or_else(|| {
            if !self.accounts.is_dying(&oldest) {
                return self.references.get(blob, &oldest, accessor);
            }
            let mut waiting = self.references.waiting(blob, accessor).take(WAITING_MAX);
            let living = waiting.find(|(owner, _)| !self.accounts.is_dying(owner));
            living.map(|(_, reference)| reference)
        });
        Some((reference?, stored))
    }

    /// Whether an accessor sees a blob.
    pub(crate) fn sees(&self, accessor: &Principal, blob: &BlobId) -> bool {
        match self.is_deleting_users() {
            true => self.seen(blob, accessor, &Principal::anonymous()).is_some(),
            false => !self.is_deleted(accessor) && self.certify.shows(accessor, blob),
        }
    }

    /// Whether an accessor is deleted for good, and its references are not all gone yet.
    pub(crate) fn is_deleted(&self, accessor: &Principal) -> bool {
        !self.deletions.is_empty() && self.deletions.contains_key(accessor)
    }

    /// The reference by which an accessor sees a blob, and its owner.
    pub(crate) fn oldest(
        &self,
        blob: &BlobId,
        accessor: &Principal,
    ) -> Option<(Principal, Reference)> {
        let owner = self.certify.owner(accessor, blob)?;
        Some((owner, self.references.get(blob, &owner, accessor)?))
    }

    /// The bytes of a part, window by window, so that nobody has to hold all of them.
    pub fn read_part(&self, part: &Part, look: impl FnMut(&[u8])) {
        let read = self.store.read(part.slot, part.from, part.len, look);
        debug_assert!(read.is_some(), "parts are of stored blobs");
    }

    /// A blob that the caller has references to, with the first of these references. One that is deleted has none.
    pub fn blob_info(&self, caller: &Principal, blob: &BlobId) -> Result<BlobInfo, UploadError> {
        if self.accounts.is_dying(caller) {
            return Err(UploadError::NotFound);
        }
        let references: Vec<_> = self
            .references
            .of_owner(blob, caller)
            .filter(|(accessor, _)| !self.is_deleted(accessor))
            .take(PAGE_ROWS_MAX as usize)
            .map(|(accessor_id, reference)| ReferenceInfo {
                accessor_id,
                mime_type: reference.mime_type,
                name: reference.name,
                created_ms: reference.created_ms,
            })
            .collect();
        match self.stored(blob) {
            Some(stored) if !references.is_empty() => Ok(BlobInfo {
                blob_id: *blob,
                size: stored.size,
                references,
            }),
            _ => Err(UploadError::NotFound),
        }
    }

    /// The caller's blobs, page by page in order of their ids. A page also ends where its rows get many.
    pub fn my_blobs(&self, caller: &Principal, args: &MyBlobsArgs) -> Vec<BlobInfo> {
        let max = args.limit.min(PAGE_ROWS_MAX) as usize;
        let ids = self.references.blobs_of(caller, args.after.as_ref(), max);
        let mut rows = 0;
        ids.iter()
            .filter_map(|id| self.blob_info(caller, id).ok())
            .take_while(|info| {
                let first = rows == 0;
                rows += info.references.len();
                first || rows <= PAGE_ROWS_MAX as usize
            })
            .collect()
    }
}

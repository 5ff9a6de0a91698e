//! Chunks come in, in any order; the last one brings the verdict on the hash.

use candid::Principal;
use openstorage_blobstore::{Full, Progress, WriteError};
use openstorage_sha256::sha256;
use openstorage_types::{
    BlobId, ChunkRange, accessors_are_valid,
    bucket::{
        self, GoneReason, PushChunkError, PushChunkOk, UploadError, UploadState, UploadStatus,
    },
    chunk_count, chunk_len, is_file_name, is_mime_type,
    limits::{
        ACCESSORS_MAX, BLOB_BYTES_MAX, MIME_TYPE_BYTES_MAX, NAME_BYTES_MAX, OPEN_UPLOADS_MAX,
        POSSESSION_CHUNKS_MAX,
    },
};
use serde_bytes::Bytes;

use crate::{
    Bucket, Now, Stop, Stored, accounts::Account, mutants::Mutant, references::Named,
    uploads::Session,
};

/// Bytes hashed in one message, besides the chunk that it brought: about 8 billion instructions of the
/// 40 that a message may take.
const HASH_BYTES_PER_MESSAGE: u64 = 100_000_000;
/// What a caller waits before it asks a bucket that has no secret yet.
const SECRET_RETRY_MS: u64 = 1_000;

/// The bytes stay where they arrived.
pub type Chunk<'a> = bucket::PushChunk<&'a Bytes>;

type Pushed = Result<PushChunkOk, PushChunkError>;

impl Bucket {
    /// Takes one chunk of a blob. An error leaves everything as it was, but for a wrong hash, which drops
    /// the whole upload, and a wrong chunk of a stored blob, which is counted.
    pub fn push_chunk(
        &mut self,
        caller: Principal,
        args: &Chunk,
        now: Now,
    ) -> Result<PushChunkOk, Stop<PushChunkError>> {
        if caller == Principal::anonymous() {
            return Err(PushChunkError::NotAuthorized.into());
        }
        check_form(args)?;
        let account = self.admit_user::<PushChunkError>(&caller)?;
        let mut deleted = args
            .accessor_ids
            .iter()
            .filter(|id| self.accessors_deleted.contains_key(id));
        if let Some(accessor_id) = deleted.next() {
            let accessor_id = *accessor_id;
            return Err(PushChunkError::AccessorDeleted { accessor_id }.into());
        }
        let room = self.check_room(&caller, &account, &args.blob_id, &args.accessor_ids);
        room.map_err(|max| PushChunkError::TooManyReferences { max })?;
        let room = self.certify.reserve(args.accessor_ids.len());
        room.map_err(|_| PushChunkError::StorageFull)?;
        match self.stored(&args.blob_id) {
            Some(stored) => self.push_to_stored(caller, &account, args, stored, now),
            None => self.push_to_upload(caller, &account, args, now),
        }
    }

    fn push_to_upload(
        &mut self,
        caller: Principal,
        account: &Account,
        args: &Chunk,
        now: Now,
    ) -> Result<PushChunkOk, Stop<PushChunkError>> {
        let known = self.uploads.get(&caller, &args.blob_id);
        if chunk_count(args.size) == 1 {
            return self.push_whole(caller, account, args, known, now);
        }
        let is_new = known.is_none();
        let mut session = self.session(caller, account, args, known, now)?;
        let slot = match session.slot {
            Some(slot) => slot,
            None => {
                // Also where a stored blob, of which the user had begun to show chunks, has gone.
                session.shown.clear();
                let opened = self.store.open(session.size);
                opened.map_err(|Full| PushChunkError::StorageFull)?
            }
        };
        session.slot = Some(slot);
        let written = self.store.write(slot, args.chunk_index, args.bytes);
        if let Err(error) = written {
            if is_new {
                self.store.remove(slot);
            }
            return Err(match error {
                WriteError::Conflict => PushChunkError::ChunkConflict,
                WriteError::Full => PushChunkError::StorageFull,
                WriteError::NoSuchChunk { count } => PushChunkError::InvalidChunkIndex { count },
                WriteError::InvalidLength { expected } => {
                    PushChunkError::InvalidChunkLength { expected }
                }
            }
            .into());
        }
        let (size, index) = (args.size, args.chunk_index);
        let bytes = (args.mime_type.as_str(), &args.bytes[..]);
        self.certify.chunk(slot, &args.blob_id, size, index, bytes);
        if is_new {
            self.reserve(&caller, session.size, now);
        }
        Ok(self.advance(caller, args.blob_id, session, now)?)
    }

    /// A blob of one chunk is hashed first and only written if it is what its id says. Nothing of it is
    /// ever pending; `known` is an upload in which the user had begun to show that it has the blob.
    fn push_whole(
        &mut self,
        caller: Principal,
        account: &Account,
        args: &Chunk,
        known: Option<Session>,
        now: Now,
    ) -> Result<PushChunkOk, Stop<PushChunkError>> {
        let (blob, size) = (args.blob_id, args.size);
        let session = self.session(caller, account, args, known.clone(), now)?;
        let digest = sha256(&[args.bytes]);
        if digest != blob.0 {
            match known {
                Some(known) => {
                    self.drop_upload(&caller, &blob, known, GoneReason::HashMismatch, now);
                }
                None => {
                    let reason = GoneReason::HashMismatch;
                    self.uploads.bury(&caller, &blob, reason, size, now.ms);
                }
            }
            let actual = BlobId(digest);
            return Err(PushChunkError::HashMismatch { actual }.into());
        }
        let put = self.store.put(args.bytes, digest);
        let slot = put.map_err(|Full| PushChunkError::StorageFull)?;
        if known.is_some() {
            self.uploads.remove(&caller, &blob);
            self.release(&caller, size);
        }
        let stored = Stored {
            slot,
            size,
            references: 0,
        };
        let accessors = self.living(&session);
        self.refer(caller, &blob, stored, false, &accessors, now);
        self.uploads.forget(&caller, &blob);
        Ok(STORED)
    }

    /// The caller's session with the accessors of this chunk added; a new one where there is none and the
    /// caller may begin. Nothing is stored yet.
    fn session(
        &self,
        caller: Principal,
        account: &Account,
        args: &Chunk,
        known: Option<Session>,
        now: Now,
    ) -> Result<Session, Stop<PushChunkError>> {
        let mut session = match known {
            Some(session) if session.size != args.size => {
                return Err(PushChunkError::SessionMismatch { size: session.size }.into());
            }
            Some(session) => session,
            None => {
                self.admit(caller, account, args.size)?;
                Session::new(args.size, now.ms)
            }
        };
        session.touched_ms = now.ms;
        for named in named(args) {
            if session
                .accessors
                .iter()
                .all(|known| known.accessor_id != named.accessor_id)
            {
                session.accessors.push(named);
            }
        }
        if session.accessors.len() > ACCESSORS_MAX {
            let max = ACCESSORS_MAX as u32;
            return Err(PushChunkError::InvalidAccessors { max }.into());
        }
        Ok(session)
    }

    /// Whether the user may begin an upload of `size` bytes.
    fn admit(
        &self,
        user: Principal,
        account: &Account,
        size: u64,
    ) -> Result<(), Stop<PushChunkError>> {
        if account.open_uploads >= OPEN_UPLOADS_MAX {
            return Err(PushChunkError::TooManyOpenUploads {
                max: OPEN_UPLOADS_MAX,
            }
            .into());
        }
        let bytes_free = self.bytes_free();
        // An empty blob, too, is none for a bucket that is closed.
        if bytes_free < size || self.operation.is_closed() {
            return Err(PushChunkError::BucketFull { bytes_free }.into());
        }
        match account.shortage(user, size) {
            Some(lease) if !self.is_mutant(Mutant::NotLeased) => Err(Stop::Lease(lease)),
            _ => Ok(()),
        }
    }

    /// Hashes what is in; stores the session again, or finishes it.
    fn advance(&mut self, user: Principal, blob: BlobId, mut session: Session, now: Now) -> Pushed {
        let slot = session
            .slot
            .expect("only sessions with a slot are advanced");
        match self.store.verify(slot, HASH_BYTES_PER_MESSAGE) {
            Progress::Done { digest } => self.finish(user, blob, session, digest, now),
            progress => {
                session.verifying = progress == Progress::Hashing;
                let state = match session.verifying {
                    true => UploadState::Verifying,
                    false => UploadState::Open,
                };
                self.uploads.put(&user, &blob, session);
                Ok(PushChunkOk {
                    state,
                    missing_count: self.store.missing_count(slot),
                })
            }
        }
    }

    fn finish(
        &mut self,
        user: Principal,
        blob: BlobId,
        session: Session,
        digest: [u8; 32],
        now: Now,
    ) -> Pushed {
        let accessors = self.living(&session);
        let error = match (session.accessors.first(), accessors.is_empty()) {
            _ if digest != blob.0 => Some((
                GoneReason::HashMismatch,
                PushChunkError::HashMismatch {
                    actual: BlobId(digest),
                },
            )),
            (Some(Named { accessor_id, .. }), true) => Some((
                GoneReason::Aborted,
                PushChunkError::AccessorDeleted {
                    accessor_id: *accessor_id,
                },
            )),
            _ if self.certify.reserve(accessors.len()).is_err() => {
                Some((GoneReason::Aborted, PushChunkError::StorageFull))
            }
            _ => None,
        };
        if let Some((reason, error)) = error {
            self.drop_upload(&user, &blob, session, reason, now);
            return Err(error);
        }
        self.uploads.remove(&user, &blob);
        self.release(&user, session.size);
        let slot = session.slot.expect("a session that was hashed has a slot");
        let stored = match self.stored(&blob) {
            Some(stored) => {
                // Another user was faster; these bytes have proved that this one has them too.
                self.drop_slot(slot);
                stored
            }
            None => {
                self.store.seal(slot, digest);
                self.certify.complete(slot, &blob, session.size);
                Stored {
                    slot,
                    size: session.size,
                    references: 0,
                }
            }
        };
        let owner_has = stored.references > 0 && self.references.owner_has(&blob, &user);
        self.refer(user, &blob, stored, owner_has, &accessors, now);
        Ok(STORED)
    }

    /// A blob that is stored already: the caller gets a reference once it has shown that it has the bytes.
    fn push_to_stored(
        &mut self,
        caller: Principal,
        account: &Account,
        args: &Chunk,
        stored: Stored,
        now: Now,
    ) -> Result<PushChunkOk, Stop<PushChunkError>> {
        let blob = args.blob_id;
        if stored.size != args.size {
            return Err(PushChunkError::SessionMismatch { size: stored.size }.into());
        }
        let known = self.uploads.get(&caller, &blob);
        if self.references.owner_has(&blob, &caller) {
            if let Some(session) = known {
                self.drop_upload(&caller, &blob, session, GoneReason::Aborted, now);
            }
            let accessors: Vec<_> = named(args).collect();
            self.refer(caller, &blob, stored, true, &accessors, now);
            return Ok(STORED);
        }
        let needed = self.challenge(&blob, &caller, stored.size)?;
        let is_new = known.is_none();
        let mut session = self.session(caller, account, args, known, now)?;
        if is_new {
            self.reserve(&caller, session.size, now);
        }
        self.adopt_own_chunks(&mut session, &needed, stored);
        let shown = self.show(caller, args, &mut session, &needed, stored, now);
        let left = left(&needed, &session.shown);
        if left.is_empty() {
            self.uploads.remove(&caller, &blob);
            self.release(&caller, session.size);
            let accessors = self.living(&session);
            self.refer(caller, &blob, stored, false, &accessors, now);
            return Ok(STORED);
        }
        self.uploads.put(&caller, &blob, session);
        shown?;
        Ok(PushChunkOk {
            state: UploadState::Open,
            missing_count: left.len() as u32,
        })
    }

    /// Compares a chunk with the stored blob's and notes it as shown.
    fn show(
        &mut self,
        caller: Principal,
        args: &Chunk,
        session: &mut Session,
        needed: &[u32],
        stored: Stored,
        now: Now,
    ) -> Result<(), PushChunkError> {
        let index = args.chunk_index;
        if session.shown.contains(&index) {
            return Ok(());
        }
        if !needed.contains(&index) {
            return Err(PushChunkError::ChunkNeeded {
                indexes: left(needed, &session.shown),
            });
        }
        let attempts_left = self.uploads.attempts_left(&caller, &args.blob_id, now.ms);
        if attempts_left == 0 {
            return Err(PushChunkError::ChunkMismatch { attempts_left });
        }
        if !self.store.holds(stored.slot, index, args.bytes) {
            self.uploads.failed(&caller, &args.blob_id, now.ms);
            let attempts_left = attempts_left - 1;
            return Err(PushChunkError::ChunkMismatch { attempts_left });
        }
        session.shown.push(index);
        Ok(())
    }

    /// The user had begun to upload the blob when another finished it: what is in counts as shown, and
    /// its bytes are given back.
    fn adopt_own_chunks(&mut self, session: &mut Session, needed: &[u32], stored: Stored) {
        let Some(slot) = session.slot.take() else {
            return;
        };
        for index in needed {
            let own = self.store.read_chunk(slot, *index);
            if own.is_some_and(|own| self.store.holds(stored.slot, *index, &own)) {
                session.shown.push(*index);
            }
        }
        session.verifying = false;
        self.drop_slot(slot);
    }

    fn challenge(
        &self,
        blob: &BlobId,
        caller: &Principal,
        size: u64,
    ) -> Result<Vec<u32>, PushChunkError> {
        self.access
            .challenge(blob, caller, chunk_count(size), POSSESSION_CHUNKS_MAX)
            .ok_or(PushChunkError::Retry {
                ms: SECRET_RETRY_MS,
            })
    }

    /// The session's accessors that were not deleted meanwhile.
    fn living(&self, session: &Session) -> Vec<Named> {
        let accessors = session.accessors.iter();
        accessors
            .filter(|named| !self.accessors_deleted.contains_key(&named.accessor_id))
            .cloned()
            .collect()
    }

    /// Where the caller's upload stands. Of a blob that others have stored: which chunks the caller has to show.
    pub fn upload_status(
        &self,
        caller: &Principal,
        blob: &BlobId,
    ) -> Result<UploadStatus, UploadError> {
        if let Some(session) = self.uploads.get(caller, blob) {
            let missing = match session.slot {
                Some(slot) => self.store.missing(slot),
                None => self.to_show(caller, blob, session.size, &session.shown),
            };
            let state = match session.verifying {
                true => UploadState::Verifying,
                false => UploadState::Open,
            };
            return Ok(UploadStatus {
                state,
                size: session.size,
                missing,
            });
        }
        let ended = |state, size| UploadStatus {
            state,
            size,
            missing: vec![],
        };
        if let Some(Stored { size, .. }) = self.stored(blob) {
            if self.references.owner_has(blob, caller) {
                return Ok(ended(UploadState::Stored, size));
            }
            // Registered users learn of a hash whether it is stored; a push would tell the same.
            if self.accounts.admit(caller).is_ok() {
                return Ok(UploadStatus {
                    state: UploadState::Open,
                    size,
                    missing: self.to_show(caller, blob, size, &[]),
                });
            }
        }
        let gone = self
            .uploads
            .gone(caller, blob)
            .ok_or(UploadError::NotFound)?;
        Ok(ended(UploadState::Gone(gone.reason), gone.size))
    }

    /// The chunks of a stored blob that the caller has still to show.
    fn to_show(
        &self,
        caller: &Principal,
        blob: &BlobId,
        size: u64,
        shown: &[u32],
    ) -> Vec<ChunkRange> {
        let needed = self.challenge(blob, caller, size).unwrap_or_default();
        let single = |start| ChunkRange {
            start,
            end: start + 1,
        };
        left(&needed, shown).into_iter().map(single).collect()
    }

    /// Drops the caller's upload; bytes and allowance are given back at once.
    pub fn abort_upload(
        &mut self,
        caller: &Principal,
        blob: &BlobId,
        now: Now,
    ) -> Result<(), UploadError> {
        match self.uploads.get(caller, blob) {
            Some(session) => {
                self.drop_upload(caller, blob, session, GoneReason::Aborted, now);
                Ok(())
            }
            None if self.uploads.gone(caller, blob).is_some() => Ok(()),
            None => Err(UploadError::NotFound),
        }
    }

    pub(crate) fn drop_upload(
        &mut self,
        user: &Principal,
        blob: &BlobId,
        session: Session,
        reason: GoneReason,
        now: Now,
    ) {
        self.uploads.remove(user, blob);
        if let Some(slot) = session.slot {
            self.drop_slot(slot);
        }
        self.release(user, session.size);
        self.uploads.bury(user, blob, reason, session.size, now.ms);
    }

    fn reserve(&mut self, user: &Principal, size: u64, now: Now) {
        self.accounts.reserve(user, size, now.ms);
        self.count(|totals| totals.bytes_reserved += size);
    }

    fn release(&mut self, user: &Principal, size: u64) {
        self.accounts.release(user, size);
        self.count(|totals| totals.bytes_reserved = totals.bytes_reserved.saturating_sub(size));
    }

    /// Hashes a slice of an upload whose chunks are all in. False where there is none.
    pub fn verify_slice(&mut self, now: Now) -> bool {
        let Some((user, blob)) = self.uploads.next_verifying() else {
            return false;
        };
        if self.accounts.wants_confirmation(&user) {
            return false;
        }
        if let Some(session) = self.uploads.get(&user, &blob) {
            // A wrong hash is told by `upload_status`: nobody waits for this message.
            self.advance(user, blob, session, now).ok();
        }
        true
    }

    pub fn is_verifying(&self) -> bool {
        let next = self.uploads.next_verifying();
        next.is_some_and(|(user, _)| !self.accounts.is_doubted(&user))
    }

    /// Drops uploads in which nothing has arrived for a day, and forgets old graves, looking at `max` of them at most.
    pub fn expire(&mut self, now: Now, max: usize) {
        for (user, blob) in self.uploads.lapse(now.ms, max) {
            if let Some(session) = self.uploads.get(&user, &blob) {
                self.drop_upload(&user, &blob, session, GoneReason::Expired, now);
            }
        }
    }

    /// When [`Bucket::expire`] has something to do.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.uploads.next_due_ms()
    }
}

const STORED: PushChunkOk = PushChunkOk {
    state: UploadState::Stored,
    missing_count: 0,
};

/// Chunks that are needed and not shown yet.
fn left(needed: &[u32], shown: &[u32]) -> Vec<u32> {
    let needed = needed.iter().copied();
    needed.filter(|index| !shown.contains(index)).collect()
}

fn named(args: &Chunk) -> impl Iterator<Item = Named> {
    args.accessor_ids.iter().map(|accessor_id| Named {
        accessor_id: *accessor_id,
        mime_type: args.mime_type.clone(),
        name: args.name.clone(),
    })
}

/// What can be said of a chunk without knowing anything else.
fn check_form(args: &Chunk) -> Result<(), PushChunkError> {
    if args.size > BLOB_BYTES_MAX {
        return Err(PushChunkError::BlobTooLarge {
            max: BLOB_BYTES_MAX,
        });
    }
    let Some(expected) = chunk_len(args.size, args.chunk_index.into()) else {
        let count = chunk_count(args.size) as u32;
        return Err(PushChunkError::InvalidChunkIndex { count });
    };
    if args.bytes.len() as u64 != expected {
        return Err(PushChunkError::InvalidChunkLength { expected });
    }
    if !accessors_are_valid(&args.accessor_ids) {
        let max = ACCESSORS_MAX as u32;
        return Err(PushChunkError::InvalidAccessors { max });
    }
    if !is_mime_type(&args.mime_type) {
        let max = MIME_TYPE_BYTES_MAX as u32;
        return Err(PushChunkError::InvalidMimeType { max });
    }
    if args.name.as_deref().is_some_and(|name| !is_file_name(name)) {
        let max = NAME_BYTES_MAX as u32;
        return Err(PushChunkError::InvalidName { max });
    }
    Ok(())
}

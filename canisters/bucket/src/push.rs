//! Chunks come in, in any order; the last one brings the verdict on the hash.

use candid::Principal;
use openstorage_blobstore::{BlobStore, Full, Progress, WriteError};
use openstorage_sha256::sha256;
use openstorage_types::{
    BlobId, ChunkRange, accessors_are_valid,
    bucket::{
        self, GoneReason, MyUploadsArgs, OpenUpload, PushChunkError, PushChunkOk, UploadError,
        UploadState, UploadStatus,
    },
    chunk_count, chunk_len,
    limits::{
        ACCESSORS_MAX, BLOB_BYTES_MAX, CHUNK_BYTES, MIME_TYPE_BYTES_MAX, NAME_BYTES_MAX,
        OPEN_UPLOADS_MAX, PAGE_ROWS_MAX, POSSESSION_CHUNKS_MAX, charge,
    },
    mime_type,
};
use serde_bytes::Bytes;

use crate::{
    Bucket, Now, Stop, Stored,
    accounts::Account,
    memory::Memory,
    mutants::Mutant,
    references::Named,
    uploads::{Phase, Session},
};

/// Bytes of a running hash in the message of a chunk, those of the chunk included: at 74 instructions a byte, and with
/// the 140 million of the hash of the chunk's part, less than 400 million in all.
const HASH_BYTES_PER_PUSH: u64 = 3_200_000;
/// Bytes of a running hash in one turn of the timer.
const HASH_BYTES_PER_TURN: u64 = 5_000_000;
/// Uploads looked at for one whose verification may go on.
const LOOKED_AT_PER_TURN: usize = 100;
/// Chunks whose bytes are given back in one turn of any job, about: some 200,000 instructions each. What begins
/// within is done to its end.
pub(crate) const CHUNKS_PER_TURN: u64 = 2_000;
/// What a caller waits before it asks a bucket that has no secret yet.
const SECRET_RETRY_MS: u64 = 1_000;

/// The bytes stay where they arrived.
pub type Chunk<'a> = bucket::PushChunk<&'a Bytes>;

type Pushed = Result<PushChunkOk, PushChunkError>;

impl Bucket {
    /// Takes one chunk of a blob. An error leaves everything as it was, but for two: a wrong hash drops the whole
    /// upload, and a wrong chunk of a stored blob is counted.
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
        // Blobs of one chunk have no sessions.
        let known = match chunk_count(args.size) {
            1 => None,
            _ => self.uploads.get(&caller, &args.blob_id),
        };
        let accessors = known.as_ref().map_or(0, |session| session.accessors.len());
        let room = self.certify.reserve(accessors + args.accessor_ids.len());
        room.map_err(|_| PushChunkError::StorageFull)?;
        let pushed = match self.stored(&args.blob_id) {
            Some(stored) => self.push_to_stored(caller, &account, args, stored, known, now),
            None => self.push_to_upload(caller, &account, args, known, now),
        };
        if matches!(pushed, Err(Stop::Error(PushChunkError::BucketFull { .. }))) {
            self.report_room();
        }
        pushed
    }

    fn push_to_upload(
        &mut self,
        caller: Principal,
        account: &Account,
        args: &Chunk,
        known: Option<Session>,
        now: Now,
    ) -> Result<PushChunkOk, Stop<PushChunkError>> {
        let accessors = self.prepare(caller, account, args, known.as_ref())?;
        if known.is_none() {
            self.check_space(args.size)?;
        }
        if chunk_count(args.size) == 1 {
            return self.push_whole(caller, args, &accessors, now);
        }
        let (size, index, len) = (args.size, args.chunk_index, args.bytes.len() as u64);
        let held = known.as_ref().and_then(|session| session.phase.slot());
        let arrived = held.map_or(0, |slot| self.store.bytes_arrived(slot));
        let room = known.as_ref().map_or(0, |session| session.room);
        let is_in = held.is_some_and(|slot| self.store.has_chunk(slot, index));
        let room = match is_in {
            true => room,
            false => self.room_for(size, arrived, len, room)?,
        };
        let slot = match held {
            Some(slot) => slot,
            // A new upload; or the stored blob, of which the user had begun to show chunks, has gone.
            None => {
                let opened = self.store.open(size);
                opened.map_err(|Full| PushChunkError::StorageFull)?
            }
        };
        let hashed = match self.store.write(slot, index, args.bytes) {
            Ok(hashed) => hashed,
            Err(error) => {
                if held.is_none() {
                    self.store.remove(slot);
                }
                return Err(match error {
                    WriteError::Conflict => PushChunkError::ChunkConflict,
                    WriteError::Full => PushChunkError::StorageFull,
                    WriteError::NoSuchChunk { count } => {
                        PushChunkError::InvalidChunkIndex { count }
                    }
                    WriteError::InvalidLength { expected } => {
                        PushChunkError::InvalidChunkLength { expected }
                    }
                }
                .into());
            }
        };
        self.certify
            .chunk(slot, &args.blob_id, size, index, args.bytes);
        let mut session = Session {
            phase: Phase::Open { slot },
            room,
            ..self.held(caller, args, known, accessors, now)
        };
        if !is_in {
            session.touched_ms = now.ms;
        }
        let budget = HASH_BYTES_PER_PUSH.saturating_sub(hashed);
        Ok(self.advance(caller, args.blob_id, session, slot, budget, now)?)
    }

    /// A blob of one chunk is hashed first and only written if it is what its id says. Nothing of it is
    /// ever pending.
    fn push_whole(
        &mut self,
        caller: Principal,
        args: &Chunk,
        accessors: &[Named],
        now: Now,
    ) -> Result<PushChunkOk, Stop<PushChunkError>> {
        let (blob, size) = (args.blob_id, args.size);
        let digest = match self.is_mutant(Mutant::HashSkipped) {
            true => blob.0,
            false => sha256(&[args.bytes]),
        };
        if digest != blob.0 {
            let reason = GoneReason::HashMismatch;
            self.uploads.bury(&caller, &blob, reason, size, now.ms);
            let actual = BlobId(digest);
            return Err(PushChunkError::HashMismatch { actual }.into());
        }
        let put = self.store.put(args.bytes, digest);
        let slot = put.map_err(|Full| PushChunkError::StorageFull)?;
        let stored = Stored {
            slot,
            size,
            references: 0,
        };
        self.refer(caller, &blob, stored, false, accessors, now);
        self.uploads.forget(&caller, &blob);
        Ok(STORED)
    }

    /// What is to be kept of the caller's upload once this chunk of it counts; what its accessors take of the allowance
    /// is reserved from now on.
    fn held(
        &mut self,
        caller: Principal,
        args: &Chunk,
        known: Option<Session>,
        accessors: Vec<Named>,
        now: Now,
    ) -> Session {
        let taken = known.as_ref().map(Session::charge);
        let session = match known {
            Some(session) => Session {
                accessors,
                ..session
            },
            None => {
                let nothing = Phase::Showing {
                    needed: vec![],
                    shown: vec![],
                };
                Session::new(args.size, nothing, accessors, now.ms)
            }
        };
        let bytes = session.charge() - taken.unwrap_or(0);
        match taken {
            None => self.accounts.begin(&caller, bytes, now.ms),
            Some(_) if bytes > 0 => self.accounts.reserve(&caller, bytes, now.ms),
            Some(_) => {}
        }
        session
    }

    /// The accessors of the caller's upload, with those that this chunk names: each as it was first named. An error
    /// where the caller may not begin, or has not the allowance for all of them.
    fn prepare(
        &self,
        caller: Principal,
        account: &Account,
        args: &Chunk,
        known: Option<&Session>,
    ) -> Result<Vec<Named>, Stop<PushChunkError>> {
        match known {
            Some(session) if session.size != args.size => {
                return Err(PushChunkError::SessionMismatch { size: session.size }.into());
            }
            None if account.open_uploads >= OPEN_UPLOADS_MAX => {
                return Err(PushChunkError::TooManyOpenUploads {
                    max: OPEN_UPLOADS_MAX,
                }
                .into());
            }
            _ => {}
        }
        let mut accessors = known.map_or_else(Vec::new, |session| session.accessors.clone());
        for named in named(args) {
            if accessors
                .iter()
                .all(|known| known.accessor_id != named.accessor_id)
            {
                accessors.push(named);
            }
        }
        if accessors.len() > ACCESSORS_MAX {
            let max = ACCESSORS_MAX as u32;
            return Err(PushChunkError::InvalidAccessors { max }.into());
        }
        let charge = charge(args.size, accessors.len() as u64);
        let wanted = match known {
            Some(session) => account.shortage(caller, charge - session.charge()),
            None => account.shortage(caller, charge),
        };
        match wanted {
            Some(lease) if !self.is_mutant(Mutant::NotLeased) => Err(Stop::Lease(lease)),
            _ => Ok(accessors),
        }
    }

    /// Whether a blob of `size` bytes that is not here may begin to come.
    fn check_space(&self, size: u64) -> Result<(), PushChunkError> {
        let bytes_free = self.bytes_free();
        // An empty blob, too, is none for a bucket that is closed.
        if bytes_free < size || self.operation.is_closed() {
            return Err(PushChunkError::BucketFull {
                bytes_free,
                bytes_arrived: 0,
            });
        }
        Ok(())
    }

    /// The room that an upload holds once `len` bytes more have arrived: these, and as much again for the rest, at
    /// least a chunk, as long as the bucket has it. So what is promised to an upload grows with what it brings.
    fn room_for(
        &self,
        size: u64,
        arrived: u64,
        len: u64,
        room: u64,
    ) -> Result<u64, PushChunkError> {
        let totals = self.totals();
        let taken = totals.bytes_stored + totals.bytes_reserved;
        let left = self.config.get().0.bytes_max.saturating_sub(taken);
        let arrives = arrived + len;
        if arrives > room + left {
            return Err(PushChunkError::BucketFull {
                bytes_free: self.bytes_free(),
                bytes_arrived: arrived,
            });
        }
        let promised = promised(size, arrives).min(room + left);
        Ok(promised.max(room))
    }

    /// Hashes what is in; stores the session again, or finishes it.
    fn advance(
        &mut self,
        user: Principal,
        blob: BlobId,
        session: Session,
        slot: u64,
        budget: u64,
        now: Now,
    ) -> Pushed {
        let (phase, state) = match self.store.verify(slot, budget) {
            Progress::Done { digest } => {
                return self.finish(user, blob, session, slot, digest, now);
            }
            Progress::Hashing => (Phase::Verifying { slot }, UploadState::Verifying),
            Progress::Waiting => (Phase::Open { slot }, UploadState::Open),
        };
        self.keep(&user, &blob, Session { phase, ..session });
        Ok(PushChunkOk {
            state,
            missing_count: self.store.missing_count(slot),
        })
    }

    fn finish(
        &mut self,
        user: Principal,
        blob: BlobId,
        session: Session,
        slot: u64,
        digest: [u8; 32],
        now: Now,
    ) -> Pushed {
        if digest != blob.0 {
            self.keep(&user, &blob, session);
            self.drop_upload(&user, &blob, GoneReason::HashMismatch, now);
            let actual = BlobId(digest);
            return Err(PushChunkError::HashMismatch { actual });
        }
        let accessors = self.living(&session);
        if accessors.is_empty() {
            // The timer goes on with it: whoever pushes names accessors that there are.
            let named = session.accessors.first();
            let accessor_id = named.map_or(Principal::anonymous(), |named| named.accessor_id);
            self.keep(&user, &blob, session);
            self.drop_upload(&user, &blob, GoneReason::AccessorDeleted, now);
            return Err(PushChunkError::AccessorDeleted { accessor_id });
        }
        if self.certify.reserve(accessors.len()).is_err() {
            // It is whole: any chunk again ends it, when there is memory.
            let phase = Phase::Open { slot };
            self.keep(&user, &blob, Session { phase, ..session });
            return Err(PushChunkError::StorageFull);
        }
        self.end(&user, &blob, session.charge());
        let stored = match self.stored(&blob) {
            Some(stored) => {
                // Another user was faster; these bytes have proved that this one has them too.
                self.drop_slot(slot);
                stored
            }
            None => {
                let size = self.store.size(slot).unwrap_or(0);
                self.store.seal(slot, digest);
                self.certify.complete(slot, &blob, size);
                Stored {
                    slot,
                    size,
                    references: 0,
                }
            }
        };
        let owner_has = stored.references > 0 && self.references.owner_has(&blob, &user);
        self.refer(user, &blob, stored, owner_has, &accessors, now);
        Ok(STORED)
    }

    /// A blob that is stored already: the caller gets a reference once it has shown that it has the bytes. First it
    /// shows one chunk, whichever it likes. That opens an upload, for which others are drawn. Who has begun to upload
    /// the blob when another finished it goes on so too, and what is in counts. Where chunks were drawn too often for
    /// callers who did not have them all, the blob is uploaded as if it were not there.
    fn push_to_stored(
        &mut self,
        caller: Principal,
        account: &Account,
        args: &Chunk,
        stored: Stored,
        known: Option<Session>,
        now: Now,
    ) -> Result<PushChunkOk, Stop<PushChunkError>> {
        let (blob, index) = (args.blob_id, args.chunk_index);
        if stored.size != args.size {
            return Err(PushChunkError::SessionMismatch { size: stored.size }.into());
        }
        if self.references.owner_has(&blob, &caller) {
            let wanted = self.further_charge(&blob, &caller, account, &args.accessor_ids);
            if let Some(lease) = wanted {
                return Err(Stop::Lease(lease));
            }
            if known.is_some() {
                self.drop_upload(&caller, &blob, GoneReason::Aborted, now);
            }
            let accessors: Vec<_> = named(args).collect();
            self.refer(caller, &blob, stored, true, &accessors, now);
            return Ok(STORED);
        }
        let is_whole = chunk_count(stored.size) == 1;
        match known.as_ref().map(|session| &session.phase) {
            Some(Phase::Showing { needed, shown }) if !shown.contains(&index) => {
                if !needed.contains(&index) {
                    let indexes = left(needed, shown);
                    return Err(PushChunkError::ChunkNeeded { indexes }.into());
                }
            }
            Some(Phase::Showing { .. }) => {}
            _ if is_whole || self.uploads.may_draw(&blob, now.ms) => {}
            _ => return self.push_to_upload(caller, account, args, known, now),
        }
        let accessors = self.prepare(caller, account, args, known.as_ref())?;
        let attempts_left = self.uploads.attempts_left(&caller, &blob, now.ms);
        if attempts_left == 0 {
            return Err(PushChunkError::ChunkMismatch { attempts_left }.into());
        }
        let is_shown = self.store.holds(stored.slot, index, args.bytes);
        if !is_shown && !self.is_mutant(Mutant::PossessionSkipped) {
            self.uploads.failed(&caller, &blob, now.ms);
            let attempts_left = attempts_left - 1;
            return Err(PushChunkError::ChunkMismatch { attempts_left }.into());
        }
        if is_whole {
            self.refer(caller, &blob, stored, false, &accessors, now);
            self.uploads.forget(&caller, &blob);
            return Ok(STORED);
        }
        let (needed, mut shown) = match known.as_ref().map(|session| &session.phase) {
            Some(Phase::Showing { needed, shown }) => (needed.clone(), shown.clone()),
            own => {
                let needed = self.challenge(&blob, &caller, stored.size, now)?;
                let shown = match own.and_then(Phase::slot) {
                    Some(slot) => self.adopt(slot, &needed, stored),
                    None => vec![],
                };
                self.uploads.drawn(&blob, now.ms);
                (needed, shown)
            }
        };
        let before = shown.len();
        if needed.contains(&index) && !shown.contains(&index) {
            shown.push(index);
        }
        let is_new = known.is_none() || shown.len() > before;
        let left = left(&needed, &shown);
        let mut session = Session {
            phase: Phase::Showing { needed, shown },
            room: 0,
            ..self.held(caller, args, known, accessors, now)
        };
        if is_new {
            session.touched_ms = now.ms;
        }
        if left.is_empty() {
            self.end(&caller, &blob, session.charge());
            self.uploads.proved(&blob);
            let living = self.living(&session);
            self.refer(caller, &blob, stored, false, &living, now);
            return Ok(STORED);
        }
        self.keep(&caller, &blob, session);
        Ok(PushChunkOk {
            state: UploadState::Open,
            missing_count: left.len() as u32,
        })
    }

    /// The user had begun to upload the blob when another finished it: which of the needed chunks are in. Their
    /// bytes are given back.
    fn adopt(&mut self, slot: u64, needed: &[u32], stored: Stored) -> Vec<u32> {
        let needed = needed.iter().copied();
        let shown = needed.filter(|index| {
            let own = self.store.read_chunk(slot, *index);
            own.is_some_and(|own| self.store.holds(stored.slot, *index, &own))
        });
        let shown = shown.collect();
        self.drop_slot(slot);
        shown
    }

    /// The chunks of a stored blob that the caller has to show, drawn now.
    fn challenge(
        &self,
        blob: &BlobId,
        caller: &Principal,
        size: u64,
        now: Now,
    ) -> Result<Vec<u32>, PushChunkError> {
        self.access
            .challenge(
                blob,
                caller,
                now.ms,
                chunk_count(size),
                POSSESSION_CHUNKS_MAX,
            )
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
        now: Now,
    ) -> Result<UploadStatus, UploadError> {
        let stored = self.stored(blob);
        if let Some(session) = self.uploads.get(caller, blob) {
            let missing = match &session.phase {
                Phase::Open { slot } | Phase::Verifying { slot } => self.store.missing(*slot),
                Phase::Showing { needed, shown } if stored.is_some() => {
                    left(needed, shown).into_iter().map(single).collect()
                }
                // The stored blob has gone meanwhile.
                Phase::Showing { .. } => all_chunks(session.size),
            };
            return Ok(UploadStatus {
                state: state_of(&session),
                size: session.size,
                missing,
            });
        }
        if let Some(stored) = stored {
            let size = stored.size;
            if self.references.owner_has(blob, caller) {
                return Ok(UploadStatus {
                    state: UploadState::Stored,
                    size,
                    missing: vec![],
                });
            }
            if self.accounts.knows(caller) {
                return Ok(UploadStatus {
                    state: UploadState::Open,
                    size,
                    missing: self.to_show_first(blob, size, now.ms),
                });
            }
        }
        let gone = self.uploads.gone(caller, blob);
        let gone = gone.ok_or(UploadError::NotFound)?;
        Ok(UploadStatus {
            state: UploadState::Gone(gone.reason),
            size: gone.size,
            missing: vec![],
        })
    }

    /// What a caller shows first of a stored blob.
    fn to_show_first(&self, blob: &BlobId, size: u64, now_ms: u64) -> Vec<ChunkRange> {
        match self.uploads.may_draw(blob, now_ms) {
            true => vec![single(0)],
            false => all_chunks(size),
        }
    }

    /// The caller's open uploads, page by page in order of their blobs' ids.
    pub fn my_uploads(&self, caller: &Principal, args: &MyUploadsArgs) -> Vec<OpenUpload> {
        let max = args.limit.min(PAGE_ROWS_MAX) as usize;
        let uploads = self.uploads.of_user(caller, args.after.as_ref()).take(max);
        let described = uploads.map(|(blob_id, session)| {
            let bytes_arrived = bytes_arrived(&self.store, &session);
            OpenUpload {
                blob_id,
                size: session.size,
                bytes_arrived,
                bytes_reserved: session.charge(),
                state: state_of(&session),
                touched_ms: session.touched_ms,
                expires_ms: session.expires_ms(bytes_arrived),
            }
        });
        described.collect()
    }

    /// Drops the caller's upload; bytes and allowance are given back at once.
    pub fn abort_upload(
        &mut self,
        caller: &Principal,
        blob: &BlobId,
        now: Now,
    ) -> Result<(), UploadError> {
        if self.drop_upload(caller, blob, GoneReason::Aborted, now)
            || self.uploads.gone(caller, blob).is_some()
        {
            return Ok(());
        }
        Err(UploadError::NotFound)
    }

    /// Gives back all that an upload holds, and remembers why. False where there is none.
    pub(crate) fn drop_upload(
        &mut self,
        user: &Principal,
        blob: &BlobId,
        reason: GoneReason,
        now: Now,
    ) -> bool {
        let Some(session) = self.uploads.get(user, blob) else {
            return false;
        };
        self.end(user, blob, session.charge());
        if let Some(slot) = session.phase.slot()
            && !self.is_mutant(Mutant::UploadKept)
        {
            self.drop_slot(slot);
        }
        self.uploads.bury(user, blob, reason, session.size, now.ms);
        true
    }

    /// Keeps a session, and counts the room that it holds.
    fn keep(&mut self, user: &Principal, blob: &BlobId, session: Session) {
        let before = self.uploads.get(user, blob).map_or(0, |it| it.room);
        let room = session.room;
        if before != room {
            self.count(|totals| {
                totals.bytes_reserved = totals.bytes_reserved.saturating_sub(before) + room;
            });
        }
        self.uploads.put(user, blob, session);
        if self.is_mutant(Mutant::TurnLost) {
            self.uploads.skip_verifying(user, blob);
        }
    }

    /// An upload is over, which held so much of the user's allowance: that is free, and its room. Its slot is the
    /// caller's.
    fn end(&mut self, user: &Principal, blob: &BlobId, charge: u64) {
        let session = self.uploads.remove(user, blob);
        self.accounts.end(user, charge);
        let room = session.map_or(0, |session| session.room);
        if room > 0 {
            self.count(|totals| {
                totals.bytes_reserved = totals.bytes_reserved.saturating_sub(room);
            });
        }
    }

    /// Hashes a slice of an upload whose chunks are all in, looking at `max` uploads for one that may go on. False where
    /// there is none.
    pub fn verify_slice(&mut self, now: Now, max: usize) -> bool {
        for _ in 0..max {
            let Some((user, blob)) = self.uploads.next_verifying() else {
                return false;
            };
            self.uploads.had_turn(&user, &blob);
            if self.accounts.wants_confirmation(&user) {
                continue;
            }
            match self.uploads.get(&user, &blob) {
                Some(session) if let Phase::Verifying { slot } = session.phase => {
                    // A wrong hash is told by `upload_status`: nobody waits for this message.
                    let budget = HASH_BYTES_PER_TURN;
                    self.advance(user, blob, session, slot, budget, now).ok();
                    return true;
                }
                _ => self.uploads.skip_verifying(&user, &blob),
            }
        }
        false
    }

    pub fn is_verifying(&self) -> bool {
        let mut turns = self.uploads.verifying().take(LOOKED_AT_PER_TURN);
        turns.any(|(user, _)| !self.accounts.is_doubted(&user))
    }

    /// Drops uploads in which nothing, or too little, has arrived for long, and forgets old graves, looking at `max` of
    /// them at most.
    pub fn expire(&mut self, now: Now, max: usize) {
        let mut chunks = 0;
        let now = Now {
            ms: now.ms + self.early_ms(),
            ..now
        };
        for _ in 0..max {
            let due = self.uploads.next_due();
            let Some(due @ (_, user, blob)) = due.filter(|(due_ms, ..)| *due_ms <= now.ms) else {
                return;
            };
            let store = &self.store;
            let expires_ms = |session: &Session| session.expires_ms(bytes_arrived(store, session));
            let Some(session) = self.uploads.lapse(due, now.ms, expires_ms) else {
                continue;
            };
            let reason = match session.phase.is_verifying() {
                // Its turns were taken away.
                true => GoneReason::Fault,
                false => GoneReason::Expired,
            };
            self.drop_upload(&user, &blob, reason, now);
            chunks += chunk_count(session.size);
            if chunks >= CHUNKS_PER_TURN {
                return;
            }
        }
    }

    /// When [`Bucket::expire`] has something to do.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        let due = self.uploads.next_due();
        due.map(|(due_ms, ..)| due_ms.saturating_sub(self.early_ms()))
    }
}

/// Bytes of a blob of `size` bytes for which a bucket holds room when so many have arrived.
pub(crate) fn promised(size: u64, arrived: u64) -> u64 {
    arrived + (size - arrived).min(arrived.max(CHUNK_BYTES))
}

/// Bytes of an upload that are in, or of which the user has shown that it has them.
pub(crate) fn bytes_arrived(store: &BlobStore<Memory>, session: &Session) -> u64 {
    match &session.phase {
        Phase::Open { slot } | Phase::Verifying { slot } => store.bytes_arrived(*slot),
        Phase::Showing { shown, .. } => {
            let lens = shown
                .iter()
                .filter_map(|index| chunk_len(session.size, (*index).into()));
            lens.sum()
        }
    }
}

fn state_of(session: &Session) -> UploadState {
    match session.phase.is_verifying() {
        true => UploadState::Verifying,
        false => UploadState::Open,
    }
}

fn single(start: u32) -> ChunkRange {
    ChunkRange {
        start,
        end: start + 1,
    }
}

fn all_chunks(size: u64) -> Vec<ChunkRange> {
    vec![ChunkRange {
        start: 0,
        end: chunk_count(size) as u32,
    }]
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
    Named::all(&args.accessor_ids, &args.mime_type, args.name.as_deref())
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
    if mime_type(&args.mime_type).is_none() {
        let max = MIME_TYPE_BYTES_MAX as u32;
        return Err(PushChunkError::InvalidMimeType { max });
    }
    let name = args.name.as_deref().unwrap_or_default();
    if name.len() > NAME_BYTES_MAX {
        let max = NAME_BYTES_MAX as u32;
        return Err(PushChunkError::InvalidName { max });
    }
    Ok(())
}

//! Chunks to a bucket, in parallel, and again where an earlier try ended.
//!
//! An upload is a loop around one question: which chunks does the bucket want? At first `upload_status`
//! answers it (all of them, or what an interrupted upload left), later what the pushes themselves met.
//! The first chunk of every turn goes alone: it finds out whether the bucket knows the caller, has
//! room and allowance, or has the blob already, before megabytes travel in vain.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use candid::Principal;
use futures_util::{TryStreamExt as _, stream::FuturesUnordered};
use openstorage_types::{
    BlobId, BlobReference,
    bucket::{
        EnsureRegisteredError, PushChunkArgs, PushChunkError, PushChunkOk, RemoveBlobReferenceArgs,
        RemoveBlobReferenceError, UploadArgs, UploadError, UploadState, UploadStatus,
    },
    chunk_count, chunk_len,
    index::{AllocatedBucketArgs, AllocatedBucketError, AllocatedBucketOk, UserError, UserInfo},
    limits::{BLOB_BYTES_MAX, CHUNK_BYTES, POSSESSION_CHUNKS_MAX},
    mime_type,
};

use crate::{
    Client, Error, OnProgress, Phase, Progress, Source, Transport,
    pace::Pace,
    retry::{PATIENCE, Patience, again},
    source::{blocking, hash},
    transport::CallErrorKind,
};

/// How often an upload that is to go is looked for again: a chunk that was on its way may open it anew.
const DISCARD_TRIES: usize = 3;
const DISCARD_WAIT: Duration = Duration::from_millis(300);

/// A smaller file is hashed sooner than the index answers.
const EARLY_BYTES_MIN: u64 = 16_000_000;

/// A bucket that verifies does at least so much between two questions.
const VERIFIED_BYTES_MIN: u64 = 2_500_000;

/// What to say about a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// `type/subtype`: what browsers are told, in lower case and without parameters.
    pub mime_type: String,
    /// A file name for downloads. A bucket shortens one of more than 255 bytes and keeps its extension.
    pub name: Option<String>,
    /// Who may see the blob: 1 to 32 principals.
    pub accessor_ids: Vec<Principal>,
    /// How long to try again without any progress, from the first failure on.
    pub patience: Duration,
}

impl Upload {
    /// No name, and the [`PATIENCE`] of all clients.
    pub fn new(mime_type: impl Into<String>, accessor_ids: Vec<Principal>) -> Self {
        Self {
            mime_type: mime_type.into(),
            name: None,
            accessor_ids,
            patience: PATIENCE,
        }
    }
}

impl<T: Transport> Client<T> {
    /// Stores the bytes of `source` for the caller and makes them visible to the upload's accessors.
    ///
    /// Drop the future to stop: what is in stays for a day, and the next upload of the same bytes goes
    /// on from there. Bytes that the bucket has already are not sent again; a few chunks of them are,
    /// to prove that the caller has them.
    ///
    /// # Errors
    /// [`Error`], once trying again does not help.
    pub async fn upload(
        &self,
        source: impl Source,
        upload: &Upload,
        on_progress: OnProgress<'_>,
    ) -> Result<BlobReference, Error> {
        if source.size() > BLOB_BYTES_MAX {
            let max = BLOB_BYTES_MAX;
            return Err(Error::Allocation(AllocatedBucketError::BlobTooLarge {
                max,
            }));
        }
        self.refuse_early(source.size()).await?;
        let source = Arc::new(source);
        let blob_id = hash(source.clone(), on_progress).await?;
        let mut exclude = Vec::new();
        loop {
            let AllocatedBucketOk { bucket, stored, .. } = self
                .allocate(blob_id, source.size(), &exclude, upload)
                .await?;
            let work = Work {
                client: self,
                source: source.clone(),
                upload,
                blob_id,
                bucket,
                is_stored: stored,
                on_progress,
                bytes_done: AtomicU64::new(0),
                pace: Pace::new(),
                arrived: AtomicU64::new(0),
            };
            match work.run().await {
                // The index did not know yet; another bucket has room.
                Err(Error::Push {
                    error: PushChunkError::BucketFull { bytes_arrived, .. },
                    ..
                }) => {
                    if bytes_arrived > 0 {
                        // Two buckets would hold the allowance.
                        self.discard(bucket, blob_id).await?;
                    }
                    exclude.push(bucket);
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    work.tell_all_done();
                    return Ok(BlobReference {
                        blob_id,
                        bucket,
                        size: source.size(),
                        mime_type: mime_type(&upload.mime_type).unwrap_or_default().into(),
                    });
                }
            }
        }
    }

    /// Makes a bucket drop the chunks of an unfinished upload of the caller's and give the allowance back. One that
    /// is not there is no error.
    ///
    /// # Errors
    /// [`Error::Call`], [`Error::Candid`].
    pub async fn discard(&self, bucket: Principal, blob_id: BlobId) -> Result<(), Error> {
        for _ in 0..DISCARD_TRIES {
            let args = UploadArgs { blob_id };
            let abort = || self.update(bucket, "abort_upload", (args.clone(),));
            let aborted: Result<(), UploadError> = again(PATIENCE, abort).await?;
            if aborted.is_err() {
                return Ok(());
            }
            tokio::time::sleep(DISCARD_WAIT).await;
            let ask = || self.query(bucket, "upload_status", (args.clone(),));
            let status: Result<UploadStatus, UploadError> = again(PATIENCE, ask).await?;
            let state = status.map(|status| status.state);
            if !matches!(state, Ok(UploadState::Open | UploadState::Verifying)) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Removes a reference; the last one takes the blob along. One that is not there is no error.
    ///
    /// # Errors
    /// [`Error::Remove`]; [`Error::Call`], [`Error::Candid`].
    pub async fn delete(
        &self,
        bucket: Principal,
        args: RemoveBlobReferenceArgs,
    ) -> Result<(), Error> {
        let remove = || self.update(bucket, "delete_blob", (args.clone(),));
        let answer: Result<(), RemoveBlobReferenceError> = again(PATIENCE, remove).await?;
        answer.map_err(|error| Error::Remove { bucket, error })
    }

    /// Before a large file is read for its hash: what is larger than the caller's whole allowance is refused.
    async fn refuse_early(&self, size: u64) -> Result<(), Error> {
        if size <= EARLY_BYTES_MIN {
            return Ok(());
        }
        let ask = self.query(self.index, "user", (None::<Principal>,));
        let answer: Result<Result<UserInfo, UserError>, Error> = ask.await;
        match answer {
            Ok(Err(UserError::NotRegistered)) => {
                Err(Error::Allocation(AllocatedBucketError::NotRegistered))
            }
            Ok(Ok(UserInfo { byte_limit, .. })) if size > byte_limit => {
                let error = AllocatedBucketError::AllowanceExceeded { byte_limit };
                Err(Error::Allocation(error))
            }
            // What went wrong is met again, and told, when the bucket is asked for.
            _ => Ok(()),
        }
    }

    /// The bucket for the blob. Waits while the index makes one.
    async fn allocate(
        &self,
        blob_id: BlobId,
        size: u64,
        exclude: &[Principal],
        upload: &Upload,
    ) -> Result<AllocatedBucketOk, Error> {
        let mut patience = Patience::new(upload.patience);
        loop {
            let args = AllocatedBucketArgs {
                blob_id,
                size,
                exclude: exclude.to_vec(),
            };
            let answer: Result<Result<AllocatedBucketOk, AllocatedBucketError>, Error> =
                self.query(self.index, "allocated_bucket", (args,)).await;
            let last = match answer {
                Ok(Ok(allocated)) => return Ok(allocated),
                Ok(Err(error @ AllocatedBucketError::NoActiveBucket)) => Error::Allocation(error),
                Ok(Err(error)) => return Err(Error::Allocation(error)),
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(error),
            };
            patience.pause(None, || last.to_string()).await?;
        }
    }
}

/// One blob on its way to one bucket.
struct Work<'a, T, S> {
    client: &'a Client<T>,
    source: Arc<S>,
    upload: &'a Upload,
    blob_id: BlobId,
    bucket: Principal,
    /// The index says that the bucket has the blob, the caller's or somebody else's.
    is_stored: bool,
    on_progress: OnProgress<'a>,
    /// Bytes that the bucket has.
    bytes_done: AtomicU64,
    pace: Pace,
    /// Chunks that have arrived: one that does is progress of the whole.
    arrived: AtomicU64,
}

/// What a push has shown.
enum Step {
    /// The chunk is in.
    Taken(UploadState),
    /// The blob is stored already; the bucket wants to see these chunks.
    Needed(Vec<u32>),
}

impl<T: Transport, S: Source> Work<'_, T, S> {
    /// Until the caller has a reference to the blob.
    async fn run(&self) -> Result<(), Error> {
        let mut patience = Patience::new(self.upload.patience);
        let mut wanted = self.first_plan().await?;
        // The fewest chunks that were ever missing: only less than that is progress, so this ends.
        let mut fewest = if self.is_stored {
            usize::MAX
        } else {
            wanted.len()
        };
        loop {
            let next = match self.push_all(&wanted).await? {
                Step::Taken(UploadState::Stored) => return Ok(()),
                Step::Taken(UploadState::Gone(reason)) => return Err(Error::Gone(reason)),
                Step::Needed(indexes) => indexes,
                Step::Taken(UploadState::Open | UploadState::Verifying) => {
                    match self.settled().await? {
                        None => return Ok(()),
                        Some(missing) => missing,
                    }
                }
            };
            if next.len() < fewest {
                fewest = next.len();
                patience.renew();
            } else {
                let last = || format!("{} chunks are still missing", next.len());
                patience.pause(None, last).await?;
            }
            wanted = next;
        }
    }

    /// The bucket has all, also what it had not to be sent, or of which no answer has come yet.
    fn tell_all_done(&self) {
        self.bytes_done.store(self.source.size(), Ordering::Relaxed);
        self.tell(Phase::Uploading);
    }

    /// The chunks to send at first: what an interrupted upload left, what the bucket wants to see of a blob that it
    /// has, or all. Never none: the first push also names the accessors.
    async fn first_plan(&self) -> Result<Vec<u32>, Error> {
        let mut status = self.status().await?;
        if status.is_none() && self.is_stored && u64::from(self.count()) > POSSESSION_CHUNKS_MAX {
            // To whom it does not know the bucket says nothing; a call is cheaper than a chunk in vain.
            self.register().await?;
            status = self.status().await?;
        }
        let wanted = match status {
            Some(UploadStatus {
                state: UploadState::Open,
                missing,
                ..
            }) => indexes(&missing, self.count()),
            Some(UploadStatus {
                state: UploadState::Stored | UploadState::Verifying,
                ..
                // The last chunk may be short: the cheapest way to name the accessors.
            }) => vec![self.count().saturating_sub(1)],
            _ => self.all(),
        };
        let missing_bytes: u64 = wanted.iter().map(|index| self.len(*index)).sum();
        self.bytes_done.store(
            self.source.size().saturating_sub(missing_bytes),
            Ordering::Relaxed,
        );
        self.tell(Phase::Uploading);
        Ok(if wanted.is_empty() { vec![0] } else { wanted })
    }

    fn count(&self) -> u32 {
        chunk_count(self.source.size()) as u32
    }

    fn all(&self) -> Vec<u32> {
        (0..self.count()).collect()
    }

    /// Pushes chunks: the first alone, the others in parallel. Ends early when one of them says that the
    /// rest is not wanted.
    async fn push_all(&self, wanted: &[u32]) -> Result<Step, Error> {
        let (first, others) = wanted.split_first().expect("a plan has a chunk");
        let mut step = self.push(*first).await?;
        if !matches!(step, Step::Taken(UploadState::Open)) {
            return Ok(step);
        }
        let mut others = others.iter();
        let mut pushes = FuturesUnordered::new();
        loop {
            while pushes.len() < self.pace.limit()
                && let Some(index) = others.next()
            {
                pushes.push(self.push(*index));
            }
            let Some(next) = pushes.try_next().await? else {
                return Ok(step);
            };
            match next {
                // Answers may overtake each other: Open after Stored says nothing.
                Step::Taken(UploadState::Open) => {}
                Step::Taken(UploadState::Verifying) => step = next,
                Step::Taken(UploadState::Stored | UploadState::Gone(_)) | Step::Needed(_) => {
                    return Ok(next);
                }
            }
        }
    }

    /// Pushes one chunk until it is in, or until it is clear that it will not be.
    async fn push(&self, chunk_index: u32) -> Result<Step, Error> {
        let mut patience = Patience::new(self.upload.patience);
        let mut registered = false;
        let mut arrived = self.arrived.load(Ordering::Relaxed);
        loop {
            let args = self.chunk(chunk_index).await?;
            let began = Instant::now();
            let answer: Result<Result<PushChunkOk, PushChunkError>, Error> =
                self.client.update(self.bucket, "push_chunk", (args,)).await;
            let (asked, last) = match answer {
                Ok(Ok(PushChunkOk { state, .. })) => {
                    self.pace.arrived(began.elapsed());
                    self.arrived.fetch_add(1, Ordering::Relaxed);
                    self.bytes_done
                        .fetch_add(self.len(chunk_index), Ordering::Relaxed);
                    self.tell(Phase::Uploading);
                    return Ok(Step::Taken(state));
                }
                Ok(Err(PushChunkError::ChunkNeeded { indexes })) => {
                    return Ok(Step::Needed(indexes));
                }
                Ok(Err(PushChunkError::NotRegistered)) if !registered => {
                    registered = true;
                    self.register().await?;
                    continue;
                }
                Ok(Err(PushChunkError::Retry { ms })) => {
                    (Some(Duration::from_millis(ms)), "Retry".to_owned())
                }
                // Other uploads' chunks may free or grow it.
                Ok(Err(error @ PushChunkError::StorageFull)) => (None, format!("{error:?}")),
                Ok(Err(error)) => {
                    let bucket = self.bucket;
                    return Err(Error::Push { bucket, error });
                }
                // A bucket turns large messages of callers away whom it does not know.
                Err(Error::Call { error, .. })
                    if error.kind == CallErrorKind::Refused && !registered =>
                {
                    registered = true;
                    self.register().await?;
                    continue;
                }
                Err(error) if error.is_transient() => {
                    self.pace.lost();
                    (None, error.to_string())
                }
                Err(error) => return Err(error),
            };
            let now = self.arrived.load(Ordering::Relaxed);
            if std::mem::replace(&mut arrived, now) != now {
                patience.renew();
            }
            patience.pause(asked, || last).await?;
        }
    }

    /// Makes the bucket ask the index about the caller.
    async fn register(&self) -> Result<(), Error> {
        let mut patience = Patience::new(self.upload.patience);
        loop {
            let answer: Result<Result<(), EnsureRegisteredError>, Error> = self
                .client
                .update(self.bucket, "ensure_registered", ())
                .await;
            let (asked, last) = match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(EnsureRegisteredError::Retry { ms })) => {
                    (Some(Duration::from_millis(ms)), "Retry".to_owned())
                }
                Ok(Err(error)) => {
                    let bucket = self.bucket;
                    return Err(Error::Registration { bucket, error });
                }
                Err(error) if error.is_transient() => (None, error.to_string()),
                Err(error) => return Err(error),
            };
            patience.pause(asked, || last).await?;
        }
    }

    /// Waits while the bucket verifies; the chunks that it misses, or none when the blob is stored.
    async fn settled(&self) -> Result<Option<Vec<u32>>, Error> {
        let mut patience = Patience::new(self.upload.patience);
        // A large blob takes the bucket many slices: as many as its size explains are no lack of progress.
        let mut slices = self.source.size() / VERIFIED_BYTES_MIN;
        loop {
            match self.status().await? {
                Some(UploadStatus { state, missing, .. }) => match state {
                    UploadState::Stored => return Ok(None),
                    UploadState::Gone(reason) => return Err(Error::Gone(reason)),
                    UploadState::Verifying => {}
                    UploadState::Open if !missing.is_empty() => {
                        return Ok(Some(indexes(&missing, self.count())));
                    }
                    // Nothing is missing: any chunk again makes the bucket look at it.
                    UploadState::Open => return Ok(Some(vec![0])),
                },
                // Nothing is left of it, not even a reason: the bucket was installed anew.
                None => return Ok(Some(self.all())),
            }
            self.tell(Phase::Verifying);
            if let Some(left) = slices.checked_sub(1) {
                slices = left;
                patience.renew();
            }
            let last = || "the bucket is verifying".to_owned();
            patience.pause(None, last).await?;
        }
    }

    /// Where the upload stands; none where there is none.
    async fn status(&self) -> Result<Option<UploadStatus>, Error> {
        let args = UploadArgs {
            blob_id: self.blob_id,
        };
        let ask = || {
            self.client
                .query(self.bucket, "upload_status", (args.clone(),))
        };
        let answer: Result<UploadStatus, UploadError> = again(self.upload.patience, ask).await?;
        // The only error: there is no such upload.
        Ok(answer.ok())
    }

    async fn chunk(&self, chunk_index: u32) -> Result<PushChunkArgs, Error> {
        let source = self.source.clone();
        let offset = u64::from(chunk_index) * CHUNK_BYTES;
        let len = self.len(chunk_index) as usize;
        let bytes = blocking(move || source.read(offset, len)).await?;
        Ok(PushChunkArgs {
            blob_id: self.blob_id,
            size: self.source.size(),
            mime_type: self.upload.mime_type.clone(),
            name: self.upload.name.clone(),
            chunk_index,
            bytes: bytes.into(),
            accessor_ids: self.upload.accessor_ids.clone(),
        })
    }

    /// Bytes of a chunk; 0 where there is no such chunk, which a bucket will say.
    fn len(&self, chunk_index: u32) -> u64 {
        chunk_len(self.source.size(), chunk_index.into()).unwrap_or_default()
    }

    fn tell(&self, phase: Phase) {
        let bytes_total = self.source.size();
        (self.on_progress)(Progress {
            phase,
            // A chunk that was sent twice counts once.
            bytes_done: self.bytes_done.load(Ordering::Relaxed).min(bytes_total),
            bytes_total,
        });
    }
}

/// The chunks in `ranges`, of a blob that has `count`; a bucket that names others or too many is not
/// believed.
fn indexes(ranges: &[openstorage_types::ChunkRange], count: u32) -> Vec<u32> {
    ranges
        .iter()
        .flat_map(|range| range.start..range.end.min(count))
        .take(count as usize)
        .collect()
}

impl Error {
    /// Whether the same call may succeed when it is made again.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Call { error, .. } if error.kind == CallErrorKind::Transient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CallError, transport::CallErrorKind};

    /// A network on which nothing is reached.
    struct Nowhere;

    impl Transport for Nowhere {
        async fn query(&self, _: Principal, _: &str, _: Vec<u8>) -> Result<Vec<u8>, CallError> {
            Err(CallError {
                kind: CallErrorKind::Final,
                message: "nobody there".into(),
            })
        }

        async fn update(
            &self,
            to: Principal,
            method: &str,
            arg: Vec<u8>,
        ) -> Result<Vec<u8>, CallError> {
            self.query(to, method, arg).await
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn an_upload_can_run_in_a_task_of_its_own_and_says_which_call_failed() {
        let work = tokio::spawn(async {
            let client = Client::new(Nowhere, Principal::management_canister());
            let upload = Upload::new("text/plain", vec![Principal::management_canister()]);
            client.upload(b"abc".to_vec(), &upload, &|_| {}).await
        });
        let error = work.await.unwrap().unwrap_err().to_string();
        assert!(
            error.contains("allocated_bucket") && error.contains("nobody there"),
            "{error}"
        );
    }

    #[test]
    fn ranges_are_listed_chunk_by_chunk() {
        let range = |start, end| openstorage_types::ChunkRange { start, end };
        assert_eq!(indexes(&[range(0, 2), range(5, 6)], 6), [0, 1, 5]);
        assert!(indexes(&[], 6).is_empty());
        assert_eq!(
            indexes(&[range(1, u32::MAX), range(0, u32::MAX)], 3),
            [1, 2, 0]
        );
    }
}

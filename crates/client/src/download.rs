//! Chunks from a bucket, checked against the blob's id.

use std::{
    io::{self, Write},
    ops::Range,
    time::Instant,
};

use candid::Principal;
use futures_util::{TryStreamExt as _, stream::FuturesOrdered};
use openstorage_types::{
    BlobId, BlobReference,
    bucket::{ReadChunkArgs, ReadChunkError, ReadChunkOk, TokenProblem},
    chunk_count, chunk_len,
    limits::CHUNK_BYTES,
};
use sha2::{Digest, Sha256};

use crate::{
    Client, Error, OnProgress, Phase, Progress, Transport,
    pace::Pace,
    retry::{PATIENCE, Patience},
};

/// A blob as its accessor sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    pub reference: BlobReference,
    pub accessor_id: Principal,
    /// A read token for the accessor whose principal is the client's caller.
    pub token: String,
}

impl<T: Transport> Client<T> {
    /// Writes the blob's bytes to `out`, in order, chunks being fetched in parallel.
    ///
    /// Each chunk's length is checked as it comes, the hash of all when the last one is there: what has
    /// been written may be used only after this has returned `Ok`.
    ///
    /// # Errors
    /// [`Error::WrongBytes`] when a bucket sent something else than the blob; [`Error::Read`] when it
    /// refuses; [`Error::Io`] when `out` does not take the bytes.
    pub async fn download(
        &self,
        blob: &Blob,
        out: &mut (impl Write + Send),
        on_progress: OnProgress<'_>,
    ) -> Result<(), Error> {
        let BlobReference { size, blob_id, .. } = blob.reference;
        let mut hash = Sha256::new();
        let mut bytes_done = 0;
        let mut indexes = 0..chunk_count(size);
        let pace = Pace::new();
        let mut chunks = FuturesOrdered::new();
        loop {
            while chunks.len() < pace.limit()
                && let Some(index) = indexes.next()
            {
                chunks.push_back(self.read_chunk(blob, index, &pace));
            }
            let Some(bytes) = chunks.try_next().await? else {
                break;
            };
            hash.update(&bytes);
            out.write_all(&bytes).map_err(cannot_write)?;
            bytes_done += bytes.len() as u64;
            on_progress(Progress {
                phase: Phase::Downloading,
                bytes_done,
                bytes_total: size,
            });
        }
        out.flush().map_err(cannot_write)?;
        if BlobId(hash.finalize().into()) != blob_id {
            return Err(wrong_bytes(blob));
        }
        Ok(())
    }

    /// Some bytes of a blob, without the rest, in memory. They are what the bucket says: only the whole can be
    /// checked against the blob's id.
    ///
    /// # Errors
    /// [`Error::InvalidRange`]; as [`Client::download`].
    pub async fn read_range(&self, blob: &Blob, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let max = blob.reference.size;
        let Range { start, end } = range;
        if start > end || end > max {
            return Err(Error::InvalidRange { start, end, max });
        }
        let mut indexes = start / CHUNK_BYTES..end.div_ceil(CHUNK_BYTES);
        let pace = Pace::new();
        let mut chunks = FuturesOrdered::new();
        let mut bytes = Vec::with_capacity((end - start) as usize);
        let mut from = indexes.start * CHUNK_BYTES;
        loop {
            while chunks.len() < pace.limit()
                && start < end
                && let Some(index) = indexes.next()
            {
                chunks.push_back(self.read_chunk(blob, index, &pace));
            }
            let Some(chunk) = chunks.try_next().await? else {
                return Ok(bytes);
            };
            let first = start.saturating_sub(from) as usize;
            let last = chunk.len().min((end - from) as usize);
            bytes.extend_from_slice(&chunk[first..last]);
            from += CHUNK_BYTES;
        }
    }

    async fn read_chunk(&self, blob: &Blob, index: u64, pace: &Pace) -> Result<Vec<u8>, Error> {
        let BlobReference {
            bucket,
            size,
            blob_id,
            ..
        } = blob.reference;
        let chunk_index = u32::try_from(index).map_err(|_| wrong_bytes(blob))?;
        let mut patience = Patience::new(PATIENCE);
        loop {
            let args = ReadChunkArgs {
                blob_id,
                accessor_id: blob.accessor_id,
                token: blob.token.clone(),
                chunk_index,
            };
            let began = Instant::now();
            let answer: Result<Result<ReadChunkOk, ReadChunkError>, Error> =
                self.query(bucket, "read_chunk", (args,)).await;
            let last = match answer {
                Ok(Ok(chunk)) => {
                    pace.arrived(began.elapsed());
                    let expected = chunk_len(size, index);
                    let fits = chunk.size == size && Some(chunk.bytes.len() as u64) == expected;
                    return match fits {
                        true => Ok(chunk.bytes.into_vec()),
                        false => Err(wrong_bytes(blob)),
                    };
                }
                // The bucket learns of the token's issuer in the next sync.
                Ok(Err(ReadChunkError::InvalidToken(
                    problem @ (TokenProblem::UnknownIssuer | TokenProblem::KeysNotReady),
                ))) => format!("{problem:?}"),
                Ok(Err(error)) => {
                    return Err(Error::Read {
                        bucket,
                        blob_id,
                        chunk_index,
                        error,
                    });
                }
                Err(error) if error.is_transient() => {
                    pace.lost();
                    error.to_string()
                }
                Err(error) => return Err(error),
            };
            patience.pause(None, || last).await?;
        }
    }
}

fn wrong_bytes(blob: &Blob) -> Error {
    Error::WrongBytes {
        bucket: blob.reference.bucket,
        expected: blob.reference.blob_id,
    }
}

fn cannot_write(error: io::Error) -> Error {
    Error::Io {
        what: "cannot write what was read".into(),
        error,
    }
}

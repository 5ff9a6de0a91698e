//! Blobs: what a client sends apart, because it is too long for JSON. They are taken as they come, and
//! lie in files when they are long, so that an image of gigabytes does not have to be in memory.

use std::{
    io::{self, BufReader, Read, Seek, Write},
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, header},
};
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tempfile::SpooledTempFile;
use tokio::sync::mpsc;

use super::{listen::locked, server::Server, shapes::ApiError};

/// The longest blob, as it is sent and unpacked.
const BLOB_BYTES_MAX: u64 = 8 << 30;
/// Blobs up to this size are kept in memory.
const MEMORY_BYTES_MAX: usize = 16 << 20;
/// Pieces of a body that have come and are not yet written; a client that is faster waits.
const PIECES_MAX: usize = 16;

/// Bytes that were stored. A file has no name, so it goes with the process.
pub struct Blob {
    bytes: Mutex<SpooledTempFile>,
    len: u64,
}

impl Blob {
    pub fn len(&self) -> u64 {
        self.len
    }

    /// What `take` makes of the bytes, from the first on. One reader at a time.
    pub fn read<T>(&self, take: impl FnOnce(&mut dyn Read) -> io::Result<T>) -> io::Result<T> {
        let mut bytes = locked(&self.bytes);
        bytes.rewind()?;
        take(&mut BufReader::with_capacity(1 << 20, &mut *bytes))
    }
}

/// Stores a blob, unpacked, and answers its name: the hash of the bytes as they were sent.
pub async fn store(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    body: Body,
) -> Result<String, ApiError> {
    let gzip = match headers.get(header::CONTENT_ENCODING).map(AsRef::as_ref) {
        None => false,
        Some(b"gzip") => true,
        Some(other) => {
            return Err(ApiError::bad(format!(
                "the content encoding {} is not served, only gzip",
                String::from_utf8_lossy(other)
            )));
        }
    };
    let (pieces, received) = mpsc::channel(PIECES_MAX);
    let writing = tokio::task::spawn_blocking(move || write(received, gzip, BLOB_BYTES_MAX));
    let mut body = body.into_data_stream();
    let mut whole = Ok(());
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => {
                if pieces.send(piece).await.is_err() {
                    // Writing has failed, and says why.
                    break;
                }
            }
            Err(error) => {
                whole = Err(ApiError::bad(format!("the blob broke off: {error}")));
                break;
            }
        }
    }
    drop(pieces);
    let written = writing.await.map_err(ApiError::bad)?;
    whole?;
    let (hash, blob) = written.map_err(ApiError::bad)?;
    let name = hex::encode(&hash);
    server.add_blob(hash, blob);
    Ok(name)
}

/// Writes the pieces of a blob, one after the other; the hash of what came, and what it is unpacked.
fn write(
    mut pieces: mpsc::Receiver<Bytes>,
    gzip: bool,
    bytes_max: u64,
) -> io::Result<(Vec<u8>, Blob)> {
    let mut hash = Sha256::new();
    let mut sent = 0;
    let mut sink = Sink::new(gzip, bytes_max);
    while let Some(piece) = pieces.blocking_recv() {
        sent = bounded(sent, piece.len(), bytes_max)?;
        hash.update(&piece);
        sink.write_all(&piece)?;
    }
    let Spool { bytes, len, .. } = sink.finish()?;
    let blob = Blob {
        bytes: Mutex::new(bytes),
        len,
    };
    Ok((hash.finalize().to_vec(), blob))
}

/// So many bytes more.
fn bounded(len: u64, more: usize, max: u64) -> io::Result<u64> {
    let len = len + more as u64;
    match len <= max {
        true => Ok(len),
        false => Err(io::Error::other(format!(
            "the blob has more than {max} bytes"
        ))),
    }
}

/// Where unpacked bytes go.
struct Spool {
    bytes: SpooledTempFile,
    len: u64,
    len_max: u64,
}

impl Write for Spool {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let len = bounded(self.len, piece.len(), self.len_max)?;
        self.bytes.write_all(piece)?;
        self.len = len;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.bytes.flush()
    }
}

/// Where bytes go as they were sent.
enum Sink {
    Plain(Spool),
    Gzip(MultiGzDecoder<Spool>),
}

impl Sink {
    fn new(gzip: bool, len_max: u64) -> Self {
        let spool = Spool {
            bytes: SpooledTempFile::new(MEMORY_BYTES_MAX),
            len: 0,
            len_max,
        };
        match gzip {
            true => Self::Gzip(MultiGzDecoder::new(spool)),
            false => Self::Plain(spool),
        }
    }

    fn write_all(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(spool) => spool.write_all(piece),
            Self::Gzip(unpacker) => unpacker.write_all(piece).map_err(no_gzip),
        }
    }

    fn finish(self) -> io::Result<Spool> {
        match self {
            Self::Plain(spool) => Ok(spool),
            Self::Gzip(unpacker) => unpacker.finish().map_err(no_gzip),
        }
    }
}

fn no_gzip(error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("the gzip cannot be unpacked: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// What comes of a body that arrives in pieces of 100 bytes.
    fn written(body: &[u8], gzip: bool, bytes_max: u64) -> Result<Vec<u8>, String> {
        let (pieces, received) = mpsc::channel(1 + body.len() / 100);
        for piece in body.chunks(100) {
            let _ = pieces.try_send(Bytes::copy_from_slice(piece));
        }
        drop(pieces);
        let (hash, blob) = write(received, gzip, bytes_max).map_err(|error| error.to_string())?;
        assert_eq!(hash, Sha256::digest(body).to_vec());
        let mut bytes = vec![];
        let read = blob.read(|from| from.read_to_end(&mut bytes));
        assert_eq!(read.unwrap() as u64, blob.len());
        Ok(bytes)
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(vec![], Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn a_blob_is_what_was_sent_or_packed() {
        let bytes: Vec<u8> = (0..5000_u32).map(|at| (at * at >> 3) as u8).collect();
        assert_eq!(written(&bytes, false, 5000), Ok(bytes.clone()));
        assert_eq!(written(&packed(&bytes), true, 6000), Ok(bytes.clone()));
        assert_eq!(written(&[], false, 0), Ok(vec![]));
        // Parts that were packed alone are one blob.
        let parts = [packed(&bytes[..77]), packed(&bytes[77..])].concat();
        assert_eq!(written(&parts, true, 6000), Ok(bytes));
    }

    #[test]
    fn a_blob_that_is_too_long_or_broken_is_refused() {
        let bytes = vec![7; 5000];
        for (body, gzip, named) in [
            (bytes.clone(), false, "more than 4999 bytes"),
            // Packed it is short.
            (packed(&bytes), true, "more than 4999 bytes"),
            (packed(&bytes)[..30].to_vec(), true, "cannot be unpacked"),
            (b"no gzip at all".to_vec(), true, "cannot be unpacked"),
            (vec![], true, "cannot be unpacked"),
        ] {
            let error = written(&body, gzip, 4999).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}

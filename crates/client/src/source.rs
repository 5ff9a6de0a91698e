//! Where a blob's bytes come from, and the id they give it.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use openstorage_types::{BlobId, limits::CHUNK_BYTES};
use sha2::{Digest, Sha256};

use crate::{Error, OnProgress, Phase, Progress};

/// Bytes that can be read more than once, at any place, from any thread.
pub trait Source: Send + Sync + 'static {
    /// Bytes in all.
    fn size(&self) -> u64;

    /// The `len` bytes from `offset` on.
    ///
    /// # Errors
    /// [`Error::SourceChanged`] where they end before.
    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error>;
}

/// A file of the file system. Its size is taken when it is opened.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    path: PathBuf,
    size: u64,
}

impl FileSource {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Io`], with the path: there is none, it may not be read, it is a directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        let failed = |error| Error::Io {
            what: format!("cannot read {}", path.display()),
            error,
        };
        let file = File::open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            let kind = io::Error::new(io::ErrorKind::InvalidInput, "it is not a file");
            return Err(failed(kind));
        }
        Ok(Self {
            file,
            size: metadata.len(),
            path,
        })
    }

    /// The name that downloads of it may have; none where it is not text.
    pub fn name(&self) -> Option<&str> {
        self.path.file_name()?.to_str()
    }
}

impl Source for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len];
        match read_exact_at(&self.file, &mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::SourceChanged),
            Err(error) => Err(Error::Io {
                what: format!("cannot read {}", self.path.display()),
                error,
            }),
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}

/// Bytes in memory.
impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let start = usize::try_from(offset).map_err(|_| Error::SourceChanged)?;
        let end = start.checked_add(len).ok_or(Error::SourceChanged)?;
        let bytes = self.get(start..end).ok_or(Error::SourceChanged)?;
        Ok(bytes.to_vec())
    }
}

/// The id of a source's bytes, read once, one chunk at a time.
///
/// # Errors
/// As [`Source::read`].
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let id = openstorage_client::hash(std::sync::Arc::new(b"abc".to_vec()), &|_| {}).await.unwrap();
/// assert!(id.to_string().starts_with("ba7816bf"));
/// # });
/// ```
pub async fn hash<S: Source>(source: Arc<S>, on_progress: OnProgress<'_>) -> Result<BlobId, Error> {
    let bytes_total = source.size();
    let mut hash = Sha256::new();
    let mut offset = 0;
    let told = |bytes_done| {
        on_progress(Progress {
            phase: Phase::Hashing,
            bytes_done,
            bytes_total,
        });
    };
    told(0);
    while offset < bytes_total {
        let len = CHUNK_BYTES.min(bytes_total - offset);
        let source = source.clone();
        hash = blocking(move || {
            hash.update(&source.read(offset, len as usize)?);
            Ok(hash)
        })
        .await?;
        offset += len;
        told(offset);
    }
    Ok(BlobId(hash.finalize().into()))
}

/// Runs what reads a disk or computes for long where it holds up nobody.
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Error> + Send + 'static,
) -> Result<R, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime is going away, or a source of someone else's panicked.
        Err(error) => Err(Error::Io {
            what: "reading was broken off".into(),
            error: io::Error::other(error),
        }),
    }
}

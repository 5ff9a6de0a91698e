//! The Rust client: it hashes files, uploads them to buckets, and reads blobs back, verified.
//!
//! ```no_run
//! use openstorage_client::{Client, FileSource, PocketTransport, Upload};
//! # async fn example(
//! #     pic: std::sync::Arc<pocket_ic::nonblocking::PocketIc>,
//! #     user: candid::Principal, index: candid::Principal, accessor: candid::Principal,
//! # ) -> Result<(), openstorage_client::Error> {
//! let client = Client::new(PocketTransport::new(pic, user), index);
//! let source = FileSource::open("lighthouse.jpg")?;
//! let upload = Upload::new("image/jpeg", vec![accessor]);
//! let reference = client.upload(source, &upload, &|progress| eprintln!("{progress:?}")).await?;
//! println!("{} lies in {}", reference.blob_id, reference.bucket);
//! # Ok(())
//! # }
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`source`] | where a blob's bytes come from, and its id |
//! | [`transport`] | how calls reach a canister; [`agent`] is the way to the Internet Computer, [`pocket`] to a PocketIC server |
//! | [`upload`] | chunks to a bucket, in parallel, resumed where an earlier try ended |
//! | [`uploads`] | what is unfinished in all buckets |
//! | [`download`] | chunks from a bucket, checked against the blob's id |
//! | [`error`] | what can go wrong |
//!
//! Memory is bounded by the chunks in flight ([`CHUNKS_IN_FLIGHT`] at most, fewer on a slow line), whatever the blob's
//! size. A call that may succeed later is made again until [`PATIENCE`] has passed since the first failure without any
//! progress.

pub mod agent;
pub mod download;
pub mod error;
mod pace;
pub mod pocket;
mod retry;
pub mod source;
pub mod transport;
pub mod upload;
pub mod uploads;

use std::time::Duration;

use candid::{CandidType, Principal, utils::ArgumentEncoder};
use serde::de::DeserializeOwned;

pub use agent::AgentTransport;
pub use download::Blob;
pub use error::Error;
pub use pace::CHUNKS_IN_FLIGHT;
pub use pocket::PocketTransport;
pub use retry::PATIENCE;
pub use source::{FileSource, Source, hash};
pub use transport::{CallError, CallErrorKind, Transport};
pub use upload::Upload;
pub use uploads::Unfinished;

/// A call that has no answer by then is given up and made again: a network would not take it any more.
const CALL_MAX: Duration = Duration::from_secs(300);

/// How far a long work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub phase: Phase,
    pub bytes_done: u64,
    pub bytes_total: u64,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The bytes are read once for the blob's id, which must be known before the first push.
    Hashing,
    Uploading,
    /// All chunks are in; the bucket computes the hash of a large blob over several messages.
    Verifying,
    Downloading,
}

/// Told of every step; called often, so it should be quick.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Sync);

/// One user's way to the storage: an index and a transport that calls as that user.
pub struct Client<T> {
    transport: T,
    index: Principal,
}

impl<T: Transport> Client<T> {
    /// A client of the index `index` and its buckets.
    pub fn new(transport: T, index: Principal) -> Self {
        Self { transport, index }
    }

    /// A query call, in Candid.
    async fn query<A>(
        &self,
        canister: Principal,
        method: &'static str,
        args: impl ArgumentEncoder,
    ) -> Result<A, Error>
    where
        A: CandidType + DeserializeOwned,
    {
        let call = Call { canister, method };
        let answer = self.transport.query(canister, method, call.encode(args)?);
        call.decode(in_time(answer).await)
    }

    /// An update call, in Candid.
    async fn update<A>(
        &self,
        canister: Principal,
        method: &'static str,
        args: impl ArgumentEncoder,
    ) -> Result<A, Error>
    where
        A: CandidType + DeserializeOwned,
    {
        let call = Call { canister, method };
        let answer = self.transport.update(canister, method, call.encode(args)?);
        call.decode(in_time(answer).await)
    }
}

async fn in_time(
    answer: impl Future<Output = Result<Vec<u8>, CallError>>,
) -> Result<Vec<u8>, CallError> {
    tokio::time::timeout(CALL_MAX, answer)
        .await
        .unwrap_or_else(|_| {
            Err(CallError {
                kind: CallErrorKind::Transient,
                message: format!("no answer within {} s", CALL_MAX.as_secs()),
            })
        })
}

/// Names a call in its errors.
struct Call {
    canister: Principal,
    method: &'static str,
}

impl Call {
    fn encode(&self, args: impl ArgumentEncoder) -> Result<Vec<u8>, Error> {
        candid::encode_args(args).map_err(|error| self.no_candid(error))
    }

    fn decode<A: CandidType + DeserializeOwned>(
        &self,
        answer: Result<Vec<u8>, CallError>,
    ) -> Result<A, Error> {
        let bytes = answer.map_err(|error| Error::Call {
            canister: self.canister,
            method: self.method,
            error,
        })?;
        candid::decode_one(&bytes).map_err(|error| self.no_candid(error))
    }

    fn no_candid(&self, error: candid::Error) -> Error {
        Error::Candid {
            canister: self.canister,
            method: self.method,
            error,
        }
    }
}

//! The shapes that cross a canister's border: arguments, answers, errors, and the limits on them.
//!
//! Everything here is Candid. The `.did` file beside each canister is the same thing in the other
//! language, and a test of the canister keeps the two equal. Nothing here knows `ic_cdk`, so that
//! canisters, clients and tests share one definition.
//!
//! | module | what |
//! | --- | --- |
//! | [`blob`] | [`BlobId`], [`BlobReference`], and how a blob is cut into chunks |
//! | [`bucket`] | the calls of a `data_bucket` |
//! | [`index`] | the calls of the `data_bucket_index` |
//! | [`chat`] | the calls of the example app |
//! | [`channel`] | what travels between index and buckets: events, stamps, lease counters |
//! | [`form`] | what names, MIME types and accessors look like |
//! | [`http`] | the HTTP gateway's request and response |
//! | [`limits`] | every bound, once |

pub mod blob;
pub mod bucket;
pub mod channel;
pub mod chat;
pub mod form;
pub mod http;
pub mod index;
pub mod limits;

pub use blob::{BlobId, BlobReference, ChunkRange, chunk_count, chunk_len};
pub use form::{accessors_are_valid, file_name, is_file_name, is_mime_type, mime_type};

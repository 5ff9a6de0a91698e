//! How a call reaches a canister.

use std::future::Future;

use candid::Principal;
use thiserror::Error;

/// Carries calls to canisters in the name of one caller. All that the client knows of a network.
pub trait Transport: Send + Sync {
    /// A query call: `arg` and the answer are Candid.
    fn query(
        &self,
        canister: Principal,
        method: &str,
        arg: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, CallError>> + Send;

    /// An update call, until its answer is there.
    fn update(
        &self,
        canister: Principal,
        method: &str,
        arg: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, CallError>> + Send;
}

/// A call without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct CallError {
    pub kind: CallErrorKind,
    /// The network's own words.
    pub message: String,
}

/// What a caller can do about a [`CallError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallErrorKind {
    /// It may pass: the same call can be made again.
    Transient,
    /// The canister turned the message away before executing it.
    Refused,
    /// It was, or may have been, executed and had no answer; again will not help.
    Final,
}

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
    /// The canister turned the message away, in most cases before executing it.
    Refused,
    /// There is no such canister, or it has no such method.
    Absent,
    /// The network does not accept the caller's signature or delegation: the caller has to sign in again.
    Denied,
    /// It was, or may have been, executed and had no answer; again will not help.
    Final,
}

impl CallErrorKind {
    /// Of a call that was rejected with a code of the interface specification, and with the error code that networks
    /// add to it, such as `IC0508`; that one may be missing.
    pub fn of_reject(reject_code: u64, error_code: &str) -> Self {
        match (reject_code, error_code) {
            // Stopping or stopped for an upgrade.
            (_, "IC0508" | "IC0509") => Self::Transient,
            // No module, no such method.
            (_, "IC0536" | "IC0537") | (DESTINATION_INVALID, _) => Self::Absent,
            (CANISTER_REJECT, _) => Self::Refused,
            (SYS_TRANSIENT | SYS_UNKNOWN, _) => Self::Transient,
            _ => Self::Final,
        }
    }

    /// Of a call that was answered with an HTTP error.
    pub fn of_http(status: u16, body: &str) -> Self {
        let body = body.to_ascii_lowercase();
        let is_about = |words: &[&str]| words.iter().any(|word| body.contains(word));
        match status {
            408 | 429 | 500.. => Self::Transient,
            401 => Self::Denied,
            // The message was too long under way.
            400 if is_about(&["request expiry"]) => Self::Transient,
            400 | 403 if is_about(&["delegation", "signature", "authenticat"]) => Self::Denied,
            _ => Self::Final,
        }
    }
}

const SYS_TRANSIENT: u64 = 2;
const DESTINATION_INVALID: u64 = 3;
const CANISTER_REJECT: u64 = 4;
const SYS_UNKNOWN: u64 = 6;

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Table {
        rejects: Vec<Rejected>,
        http: Vec<Answered>,
    }

    #[derive(Deserialize)]
    struct Rejected {
        reject_code: u64,
        error_code: Option<String>,
        kind: String,
    }

    #[derive(Deserialize)]
    struct Answered {
        status: u16,
        body: String,
        kind: String,
    }

    fn word(kind: CallErrorKind) -> String {
        format!("{kind:?}").to_lowercase()
    }

    #[test]
    fn a_call_without_an_answer_means_what_the_table_of_all_clients_says() {
        let table = include_str!("../../../tests/conformance/calls.json");
        let table: Table = serde_json::from_str(table).unwrap();
        for Rejected {
            reject_code,
            error_code,
            kind,
        } in table.rejects
        {
            let error_code = error_code.unwrap_or_default();
            let found = CallErrorKind::of_reject(reject_code, &error_code);
            assert_eq!(word(found), kind, "{reject_code} {error_code}");
        }
        for Answered { status, body, kind } in table.http {
            let found = CallErrorKind::of_http(status, &body);
            assert_eq!(word(found), kind, "{status} {body}");
        }
    }
}

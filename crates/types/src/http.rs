//! The HTTP gateway protocol: what a gateway hands to `http_request`, and what it gets back.

use candid::{CandidType, define_function};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    pub method: String,
    /// Path and query; no scheme, no host.
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: ByteBuf,
    /// The version of response certification that the gateway wants.
    pub certificate_version: Option<u16>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    pub status_code: u16,
    pub headers: Vec<(String, String)>,
    pub body: ByteBuf,
}

/// An [`HttpResponse`] of a canister that may want to be asked again, by an update.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct UpgradableResponse {
    pub status_code: u16,
    pub headers: Vec<(String, String)>,
    pub body: ByteBuf,
    /// True: the gateway forgets this response, and calls `http_request_update` with the same request.
    pub upgrade: Option<bool>,
}

/// An [`UpgradableResponse`] whose body may go on: the gateway asks for the pieces that follow one after the other,
/// and does not verify what it joins of more than five.
#[derive(CandidType, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct StreamedResponse {
    pub status_code: u16,
    pub headers: Vec<(String, String)>,
    pub body: ByteBuf,
    pub upgrade: Option<bool>,
    pub streaming_strategy: Option<StreamingStrategy>,
}

/// How a gateway gets what follows.
#[derive(CandidType, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum StreamingStrategy {
    /// It calls `callback` with `token`, and with each token that comes back.
    Callback {
        callback: StreamingCallback,
        token: StreamingToken,
    },
}

define_function!(pub StreamingCallback : (StreamingToken) -> (StreamingPiece) query);

/// Where a body goes on.
#[derive(CandidType, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct StreamingToken {
    /// Path and query of the request, with what opens it: each piece is opened anew.
    pub url: String,
    /// The first byte of the piece, and the first byte behind all of them.
    pub from: u64,
    pub end: u64,
    /// Pieces before this one.
    pub piece: u32,
}

/// Some bytes of a body, and where it goes on, if it does.
#[derive(CandidType, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct StreamingPiece {
    pub body: ByteBuf,
    pub token: Option<StreamingToken>,
}

impl HttpRequest {
    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

impl HttpResponse {
    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// A response whose body is text.
    pub fn text(status_code: u16, content_type: &str, body: impl Into<String>) -> Self {
        Self {
            status_code,
            headers: vec![
                ("Content-Type".into(), content_type.into()),
                ("Cache-Control".into(), "no-store".into()),
                ("X-Content-Type-Options".into(), "nosniff".into()),
            ],
            body: ByteBuf::from(body.into().into_bytes()),
        }
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

//! JSON in, JSON out. The shapes themselves are those of the `pocket-ic` crate; here is what the server
//! adds: errors as the client reads them, and ids that are checked.

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request, rejection::JsonRejection},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use base64_simd::STANDARD;
use candid::Principal;
use pocket_ic::{
    RejectResponse,
    common::rest::{RawCanisterResult, RawEffectivePrincipal},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error, IgnoredAny, Visitor},
};
use std::{fmt, sync::Arc};

use super::{
    engine::{Answer, Gone, NoAnswer},
    server::{Instance, Server},
};
use crate::network::{MessageId, Reject};

/// A JSON body. What is no JSON, or not of this shape, is answered with a sentence in JSON.
pub struct Json<T>(pub T);

impl<S, T> FromRequest<S> for Json<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let parsed: Result<axum::Json<T>, JsonRejection> =
            axum::Json::from_request(request, state).await;
        parsed
            .map(|axum::Json(body)| Self(body))
            .map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// A `RawCanisterCall` as it arrives: bytes are decoded from where they lie in the body, since a payload may
/// have megabytes.
#[derive(Deserialize)]
pub struct Call {
    #[serde(deserialize_with = "base64")]
    pub sender: Vec<u8>,
    #[serde(deserialize_with = "base64")]
    pub canister_id: Vec<u8>,
    pub effective_principal: RawEffectivePrincipal,
    pub method: String,
    #[serde(deserialize_with = "base64")]
    pub payload: Vec<u8>,
    /// What a canister says of the sender; a canister that was promised it must not run without it.
    #[serde(default, rename = "sender_info", deserialize_with = "unserved")]
    _sender_info: (),
}

/// Takes nothing but null.
fn unserved<'de, D: Deserializer<'de>>(json: D) -> Result<(), D::Error> {
    match Option::<IgnoredAny>::deserialize(json)? {
        None => Ok(()),
        Some(_) => Err(D::Error::custom(
            "sender_info is not served by this network",
        )),
    }
}

/// Asks for bytes and not for text, which would be checked as UTF-8 and copied first.
fn base64<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<u8>, D::Error> {
    struct Base64;
    impl Visitor<'_> for Base64 {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("bytes in base64")
        }

        fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<Vec<u8>, E> {
            STANDARD.decode_to_vec(text).map_err(E::custom)
        }
    }
    json.deserialize_bytes(Base64)
}

/// An error answer: `{"message": …}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// The request cannot be met as it is.
    pub fn bad(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message.to_string())
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub fn no_canister(canister: &Principal) -> Self {
        Self::bad(format!(
            "CanisterNotFound(CanisterId({canister})): Canister {canister} not found"
        ))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "message": self.message });
        (self.status, axum::Json(body)).into_response()
    }
}

impl From<Gone> for ApiError {
    fn from(gone: Gone) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, gone.to_string())
    }
}

impl From<NoAnswer> for ApiError {
    fn from(no_answer: NoAnswer) -> Self {
        Self::bad(no_answer)
    }
}

/// What most handlers answer.
pub type Reply<T> = Result<Json<T>, ApiError>;

/// The instance that the path's `{id}` names.
impl FromRequestParts<Arc<Server>> for Instance {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Named {
            id: usize,
        }
        let Path(Named { id }) = Path::from_request_parts(parts, server)
            .await
            .map_err(|_| ApiError::bad("an instance's id is a number"))?;
        server
            .instance(id)
            .ok_or_else(|| ApiError::not_found(format!("there is no instance {id}")))
    }
}

/// A principal from its bytes.
pub fn principal(bytes: &[u8]) -> Result<Principal, ApiError> {
    Principal::try_from_slice(bytes).map_err(ApiError::bad)
}

/// The canister or subnet that a management call means.
pub fn effective(raw: &RawEffectivePrincipal) -> Result<Option<Principal>, ApiError> {
    match raw {
        RawEffectivePrincipal::None => Ok(None),
        RawEffectivePrincipal::SubnetId(bytes) | RawEffectivePrincipal::CanisterId(bytes) => {
            principal(bytes).map(Some)
        }
    }
}

pub fn message_id(bytes: &[u8]) -> Result<MessageId, ApiError> {
    bytes
        .try_into()
        .map_err(|_| ApiError::bad(format!("a message id has 32 bytes, not {}", bytes.len())))
}

/// `certified` tells whether the answer went through a round, as it does for everything but queries and
/// messages that were not let in.
pub fn reject(reject: Reject, certified: bool) -> RejectResponse {
    RejectResponse {
        reject_code: reject.code,
        reject_message: reject.message,
        error_code: reject.error_code,
        certified,
    }
}

pub fn canister_result(answer: Answer, certified: bool) -> RawCanisterResult {
    answer.map_err(|error| reject(error, certified)).into()
}

#[cfg(test)]
mod tests {
    use pocket_ic::common::rest::{RawCanisterCall, RawSenderInfo};

    use super::*;

    #[test]
    fn a_call_is_read_as_the_client_writes_it() {
        for len in [0, 1, 2, 3, 100_000] {
            let payload: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let written = RawCanisterCall {
                sender: vec![4],
                canister_id: vec![],
                effective_principal: RawEffectivePrincipal::CanisterId(vec![1, 2]),
                method: "a \"quoted\" name".into(),
                payload: payload.clone(),
                sender_info: None,
            };
            let json = serde_json::to_vec(&written).expect("it is plain data");
            let read: Call = serde_json::from_slice(&json).expect("it is its own shape");
            assert_eq!(read.payload, payload);
            assert_eq!((read.sender, read.canister_id), (vec![4], vec![]));
            assert_eq!(read.method, written.method);
        }
    }

    #[test]
    fn a_call_with_what_is_not_served_is_refused() {
        let written = RawCanisterCall {
            sender: vec![4],
            canister_id: vec![],
            effective_principal: RawEffectivePrincipal::None,
            method: "go".into(),
            payload: vec![],
            sender_info: Some(RawSenderInfo {
                info: vec![1],
                signer: vec![2],
            }),
        };
        let json = serde_json::to_vec(&written).expect("it is plain data");
        let refused = serde_json::from_slice::<Call>(&json).err();
        let text = refused.expect("it is refused").to_string();
        assert!(text.contains("sender_info"), "{text}");
    }

    #[test]
    fn base64_is_read_strictly() {
        let read = |text: &str| base64(&mut serde_json::Deserializer::from_str(text));
        assert_eq!(read(r#""AQI=""#).unwrap(), [1, 2]);
        // As JSON may escape it.
        assert_eq!(read(r#""\u0041Q\u0049=""#).unwrap(), [1, 2]);
        for wrong in [
            r#""AQI""#,
            r#""AQJ=""#,
            r#""A Q=""#,
            r#""AQI=="#,
            "[1, 2]",
            "7",
            "null",
            "\"\u{e9}AQI\"",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}

//! JSON in, JSON out. The shapes themselves are those of the `pocket-ic` crate; here is what the server
//! adds: errors as the client reads them, and ids that are checked.

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request, rejection::JsonRejection},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use candid::Principal;
use pocket_ic::{
    RejectResponse,
    common::rest::{RawCanisterResult, RawEffectivePrincipal},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;

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

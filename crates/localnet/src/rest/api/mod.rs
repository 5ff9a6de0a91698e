//! The Internet Computer's HTTP interface, for agents: `/api/v2` to `/api/v4`.
//!
//! | module | what |
//! | --- | --- |
//! | `call` | updates: accepted, or answered with a certificate |
//! | `query` | queries, answered with a node's signature |
//! | `read_state`, `paths` | certificates of what may be read |
//!
//! The same routes stand under an instance (`/instances/{id}/api/…`) and on its gateways (`/api/…`). The
//! versions differ for nobody here: a delegation has the canister ranges in the old form and in the new.

mod call;
mod paths;
mod query;
mod read_state;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Request as HttpRequest},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use candid::Principal;
use ic_transport_types::EnvelopeContent;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{engine::Gone, server::Instance};
use crate::{
    bounded::decode_part,
    cert::cbor,
    envelope::{EnvelopeError, Request},
    machine::SenderInfo,
};

/// The Internet Computer's limit on a message, here on the whole envelope.
const ENVELOPE_BYTES_MAX: usize = 2 << 20;
const CBOR: &str = "application/cbor";

/// All routes, for states in which an instance can be found.
pub fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Instance: FromRequestParts<S>,
    <Instance as FromRequestParts<S>>::Rejection: Send,
{
    let mut router = Router::new().route("/api/v2/status", get(status));
    for version in ["v2", "v3"] {
        router = router
            .route(&on_canister(version, "query"), post(query::of_canister))
            .route(
                &on_canister(version, "read_state"),
                post(read_state::of_canister),
            )
            .route(
                &on_subnet(version, "read_state"),
                post(read_state::of_subnet),
            );
    }
    router
        .route(&on_subnet("v3", "query"), post(query::of_subnet))
        .route(&on_canister("v2", "call"), post(call::submit))
        .route(&on_canister("v3", "call"), post(call::of_canister))
        .route(&on_canister("v4", "call"), post(call::of_canister))
        .route(&on_subnet("v4", "call"), post(call::of_subnet))
        .layer(DefaultBodyLimit::max(ENVELOPE_BYTES_MAX))
}

fn on_canister(version: &str, what: &str) -> String {
    format!("/api/{version}/canister/{{effective}}/{what}")
}

fn on_subnet(version: &str, what: &str) -> String {
    format!("/api/{version}/subnet/{{effective}}/{what}")
}

/// Why a request is not met: a status and a sentence, which agents show.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// In the words of the Internet Computer's gateways, like [`Refusal::too_large`].
    fn no_subnet(id: &Principal) -> Self {
        Self::bad(format!(
            "error: subnet_not_found\ndetails: The specified subnet cannot be found. ({id})"
        ))
    }

    fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "error: payload_too_large\ndetails: Payload is too large: maximum body size is {ENVELOPE_BYTES_MAX} bytes."
            ),
        )
    }
}

impl From<EnvelopeError> for Refusal {
    fn from(error: EnvelopeError) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<Gone> for Refusal {
    fn from(gone: Gone) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, gone.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, self.message).into_response()
    }
}

/// An answer in CBOR.
struct Cbor<T>(T);

impl<T: Serialize> IntoResponse for Cbor<T> {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, CBOR)], cbor(&self.0)).into_response()
    }
}

/// The canister or subnet that a path names.
struct Effective(Principal);

impl<S: Send + Sync> FromRequestParts<S> for Effective {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Named {
            effective: String,
        }
        let Path(Named { effective }) = Path::from_request_parts(parts, state)
            .await
            .map_err(|error| Refusal::bad(error.to_string()))?;
        Principal::from_text(&effective)
            .map(Self)
            .map_err(|error| Refusal::bad(format!("{effective} is no principal: {error}")))
    }
}

/// The bytes of an envelope.
struct Envelope(Bytes);

impl<S: Send + Sync> FromRequest<S> for Envelope {
    type Rejection = Refusal;

    async fn from_request(request: HttpRequest, state: &S) -> Result<Self, Refusal> {
        check_content_type(request.headers())?;
        Bytes::from_request(request, state)
            .await
            .map(Self)
            .map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Refusal::too_large(),
                status => Refusal::new(status, rejection.body_text()),
            })
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let sent = headers.get(header::CONTENT_TYPE);
    match sent.map(|value| value.as_bytes()) {
        Some(value) if value.eq_ignore_ascii_case(CBOR.as_bytes()) => Ok(()),
        other => Err(Refusal::bad(format!(
            "the content type is {}, not {CBOR}",
            other.map_or("missing".into(), String::from_utf8_lossy)
        ))),
    }
}

impl Envelope {
    /// The request, once it is known who sent it. Checking a signature takes up to some milliseconds,
    /// so it happens where nobody else waits for it.
    async fn open(self, instance: &Instance) -> Result<Request, Refusal> {
        let root_key = instance.keys[0].public.clone();
        let trusted = instance.trusts_envelopes;
        let opening =
            tokio::task::spawn_blocking(move || Request::open(&self.0, &root_key, trusted));
        let opened = opening
            .await
            .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        Ok(opened?)
    }
}

/// The canister whose method a request calls must be the one that its URL names; a method of the
/// management canister is about the canister in its argument.
fn check_effective(canister: &Principal, arg: &[u8], effective: &Principal) -> Result<(), Refusal> {
    #[derive(candid::CandidType, Deserialize)]
    struct About {
        canister_id: Principal,
    }
    let meant = if *canister == Principal::management_canister() {
        // A method that is about no canister, or an argument that cannot be read: its answer tells.
        decode_part(arg)
            .ok()
            .map(|About { canister_id }| canister_id)
    } else {
        Some(*canister)
    };
    match meant {
        Some(meant) if meant != *effective => Err(Refusal::bad(format!(
            "Specified CanisterId {meant} does not match effective canister id in URL {effective}"
        ))),
        _ => Ok(()),
    }
}

/// What is said of a request's sender, for the canister.
fn said(said: Option<ic_transport_types::SenderInfo>) -> Result<Option<SenderInfo>, Refusal> {
    said.map(|said| {
        let signer = Principal::try_from_slice(&said.signer)
            .map_err(|error| Refusal::bad(format!("sender_info's signer: {error}")))?;
        Ok(SenderInfo {
            info: said.info,
            signer,
        })
    })
    .transpose()
}

/// A request of the wrong kind for its route.
fn wrong_kind(content: &EnvelopeContent, wanted: &str) -> Refusal {
    let kind = match content {
        EnvelopeContent::Call { .. } => "call",
        EnvelopeContent::Query { .. } => "query",
        EnvelopeContent::ReadState { .. } => "read_state",
    };
    Refusal::bad(format!("the request is a {kind}, not a {wanted}"))
}

/// What agents ask first: the key by which they verify everything else.
async fn status(instance: Instance) -> Cbor<Status<'static>> {
    Cbor(Status {
        ic_api_version: "0.18.0",
        impl_version: super::VERSION,
        replica_health_status: "healthy",
        root_key: ByteBuf::from(instance.keys[0].public.clone()),
    })
}

#[derive(Serialize)]
struct Status<'a> {
    ic_api_version: &'a str,
    impl_version: &'a str,
    replica_health_status: &'a str,
    root_key: ByteBuf,
}

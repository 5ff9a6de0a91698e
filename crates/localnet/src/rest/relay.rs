//! One request through a gateway: to a canister's `http_request` and back.
//!
//! Answers are not verified, and the header `x-ic-verified: false` says so: this network signs nothing.

use std::sync::Arc;

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts as Head,
    },
    response::Response,
};
use candid::{CandidType, Principal, Reserved};
use pocket_ic::{ErrorCode, RejectCode};
use serde::Deserialize;
use serde_bytes::ByteBuf;

use super::{
    engine::Answer,
    gateway::Gate,
    parts::{ContentRange, Parts},
};
use crate::network::{Ingress, Reject};

/// The Internet Computer's limit on a message, which a request's body is part of.
const BODY_BYTES_MAX: usize = 2 << 20;
/// The version of response certification that a gateway asks for.
const CERTIFICATE_VERSION: u16 = 2;
/// Headers about the connection, which a gateway makes itself.
const OWN_HEADERS: [HeaderName; 3] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
];

/// A request as canisters get it.
#[derive(CandidType, Debug, Clone)]
pub struct HttpRequest {
    pub method: String,
    /// Path and query.
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: ByteBuf,
    pub certificate_version: Option<u16>,
}

/// A canister's answer.
#[derive(CandidType, Deserialize, Debug, Clone)]
pub struct HttpResponse {
    pub status_code: u16,
    pub headers: Vec<(String, String)>,
    pub body: ByteBuf,
    /// The canister wants the request again, as an update.
    pub upgrade: Option<bool>,
    /// Further parts by callback: an older way than ranges, which is not served.
    pub streaming_strategy: Option<Reserved>,
}

impl HttpResponse {
    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Why there is no answer from a canister: a status and a sentence.
#[derive(Debug)]
pub struct Failure {
    pub status: StatusCode,
    pub message: String,
}

impl Failure {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// The canister answered something that is of no use.
    fn unusable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, message)
    }

    fn unavailable(message: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message.to_string())
    }
}

impl From<Reject> for Failure {
    /// 503 where trying again later may help, 404 where there is no such canister, else 502.
    fn from(reject: Reject) -> Self {
        let status = match (reject.error_code, reject.code) {
            (ErrorCode::CanisterNotFound, _) => StatusCode::NOT_FOUND,
            (ErrorCode::CanisterStopped | ErrorCode::CanisterStopping, _)
            | (ErrorCode::CanisterWasmModuleNotFound, _)
            | (_, RejectCode::SysTransient) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, reject.message)
    }
}

pub async fn handle(State(gate): State<Arc<Gate>>, request: Request) -> Response {
    let preflight = request.method() == Method::OPTIONS;
    let mut response = if preflight {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        match relay(gate, request).await {
            Ok(response) => response,
            Err(Failure { status, message }) => {
                let mut response = Response::new(Body::from(message));
                *response.status_mut() = status;
                let text = HeaderValue::from_static("text/plain; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, text);
                response
            }
        }
    };
    open_to_all(response.headers_mut(), preflight);
    response
}

/// Scripts of every origin may read the answer.
fn open_to_all(headers: &mut HeaderMap, preflight: bool) {
    let mut set = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    set(HeaderName::from_static("x-ic-verified"), "false");
    set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    if preflight {
        set(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS",
        );
        set(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "content-type, if-match, if-none-match, if-range, range",
        );
    } else {
        set(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            "accept-ranges, content-length, content-range, etag, x-ic-verified",
        );
    }
}

async fn relay(gate: Arc<Gate>, request: Request) -> Result<Response, Failure> {
    let busy = gate.activity.begin();
    let (head, body) = request.into_parts();
    let host = head
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let canister = gate.canister(host, head.uri.query()).ok_or_else(|| {
        Failure::new(
            StatusCode::BAD_REQUEST,
            "The request names no canister: neither in its host, as in CANISTER.localhost, nor as ?canisterId=CANISTER.",
        )
    })?;
    let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The request's body did not arrive whole within {BODY_BYTES_MAX} bytes."),
        )
    })?;
    let request = to_canister(&head, body.to_vec());
    let mut response = query(&gate, canister, &request).await?;
    if response.upgrade == Some(true) {
        response = update(&gate, canister, &request).await?;
    }
    let plain_get = head.method == Method::GET && !head.headers.contains_key(header::RANGE);
    if response.status_code != 206 || !plain_get {
        let body = Body::from(std::mem::take(&mut response.body).into_vec());
        return from_canister(response, body, head.method == Method::HEAD);
    }
    let range = ContentRange::of(&response, 0).map_err(Failure::unusable)?;
    response.status_code = 200;
    let first = std::mem::take(&mut response.body).into_vec();
    let body = Parts {
        gate,
        canister,
        request,
        etag: response.header("etag").map(Into::into),
        next: range.last + 1,
        total: range.total,
        _busy: busy,
    }
    .body(first.into());
    response
        .headers
        .retain(|(name, _)| !name.eq_ignore_ascii_case("content-range"));
    let mut whole = from_canister(response, body, false)?;
    whole
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(range.total));
    Ok(whole)
}

fn to_canister(head: &Head, body: Vec<u8>) -> HttpRequest {
    let url = match head.uri.path_and_query() {
        Some(url) => url.as_str(),
        None => "/",
    };
    // Candid's text holds no other bytes; such headers are left out.
    let headers = head.headers.iter().filter_map(|(name, value)| {
        let value = value.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    HttpRequest {
        method: head.method.to_string(),
        url: url.to_owned(),
        headers: headers.collect(),
        body: ByteBuf::from(body),
        certificate_version: Some(CERTIFICATE_VERSION),
    }
}

/// Asks a canister's `http_request`.
pub async fn query(
    gate: &Gate,
    canister: Principal,
    request: &HttpRequest,
) -> Result<HttpResponse, Failure> {
    let arg = encode(request)?;
    let answer = gate
        .instance
        .engine
        .run(move |engine| {
            let anonymous = Principal::anonymous();
            engine
                .network
                .query(anonymous, canister, "http_request", arg)
        })
        .await
        .map_err(Failure::unavailable)?;
    decode(answer)
}

/// Asks a canister's `http_request_update`.
async fn update(
    gate: &Gate,
    canister: Principal,
    request: &HttpRequest,
) -> Result<HttpResponse, Failure> {
    let ingress = Ingress {
        sender: Principal::anonymous(),
        canister,
        method: "http_request_update".into(),
        arg: encode(request)?,
        effective: Some(canister),
    };
    let engine = &gate.instance.engine;
    let message = engine
        .run(move |engine| engine.network.submit(ingress))
        .await
        .map_err(Failure::unavailable)??;
    let answer = engine
        .answer(message)
        .await
        .map_err(Failure::unavailable)?
        .map_err(Failure::unavailable)?;
    decode(answer)
}

fn encode(request: &HttpRequest) -> Result<Vec<u8>, Failure> {
    candid::encode_one(request)
        .map_err(|error| Failure::unusable(format!("The request has no Candid form: {error}")))
}

fn decode(answer: Answer) -> Result<HttpResponse, Failure> {
    let response: HttpResponse = candid::decode_one(&answer?).map_err(|error| {
        Failure::unusable(format!(
            "The canister's answer is no HTTP response: {error}"
        ))
    })?;
    if response.streaming_strategy.is_some() {
        return Err(Failure::unusable(
            "The canister sends its body by callbacks, which this gateway does not follow; it follows parts (status 206).",
        ));
    }
    Ok(response)
}

/// A canister's answer for the browser. An answer to HEAD keeps its Content-Length: it is that of the
/// body which is not there.
fn from_canister(canister: HttpResponse, body: Body, head: bool) -> Result<Response, Failure> {
    let status = StatusCode::from_u16(canister.status_code)
        .ok()
        .filter(|status| !status.is_informational())
        .ok_or_else(|| {
            Failure::unusable(format!(
                "The canister answered with status {}, which is none.",
                canister.status_code
            ))
        })?;
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in canister.headers {
        let (Ok(key), Ok(content)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
        else {
            return Err(Failure::unusable(format!(
                "The canister answered with a header that cannot be sent: {name}"
            )));
        };
        let own = OWN_HEADERS.contains(&key) && !(head && key == header::CONTENT_LENGTH);
        if !own {
            response.headers_mut().append(key, content);
        }
    }
    Ok(response)
}

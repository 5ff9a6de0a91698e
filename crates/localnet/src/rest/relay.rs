//! One request through a gateway: to a canister's `http_request` and back, by the ecosystem's own
//! `ic-http-gateway`, which verifies the answer, asks again as an update where the canister wants it, and
//! joins what comes in parts.
//!
//! On the raw domain (`CANISTER.raw.DOMAIN`) nothing is verified. The header `x-ic-verified` tells.

use std::sync::Arc;

use axum::{
    body::{Body, HttpBody, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use ic_http_gateway::{
    HttpGatewayError, HttpGatewayRequestArgs, HttpGatewayResponse, HttpGatewayResponseBody,
};

use super::gateway::{Gate, Target};

/// The Internet Computer's limit on a message, which a request's body is part of.
const BODY_BYTES_MAX: usize = 2 << 20;
/// Headers about the connection, which a gateway makes itself.
const OWN_HEADERS: [HeaderName; 2] = [header::CONNECTION, header::TRANSFER_ENCODING];
const VERIFIED: HeaderName = HeaderName::from_static("x-ic-verified");

pub async fn handle(State(gate): State<Arc<Gate>>, request: Request) -> Response {
    relay(&gate, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn relay(gate: &Gate, request: Request) -> Result<Response, (StatusCode, String)> {
    let (head, body) = request.into_parts();
    let host = head.headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    let Target { canister, raw } = gate.target(host, head.uri.query()).ok_or((
        StatusCode::BAD_REQUEST,
        "The request names no canister: neither in its host, as in CANISTER.localhost, nor as ?canisterId=CANISTER.".to_owned(),
    ))?;
    let is_head = head.method == Method::HEAD;
    let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The request's body did not arrive whole within {BODY_BYTES_MAX} bytes."),
        )
    })?;
    let client = if raw { &gate.raw } else { &gate.verifying };
    let mut asking = client.request(HttpGatewayRequestArgs {
        canister_request: Request::from_parts(head, body),
        canister_id: canister,
    });
    asking.unsafe_set_skip_verification(raw);
    Ok(for_browser(asking.send().await, is_head))
}

/// A canister's answer for the browser. Answers to HEAD, and 304, keep their Content-Length: it is that of the body
/// which is not there.
fn for_browser(answer: HttpGatewayResponse, is_head: bool) -> Response {
    let HttpGatewayResponse {
        canister_response,
        metadata,
    } = answer;
    let (mut head, body) = canister_response.into_parts();
    if let Some(HttpGatewayError::ResponseVerificationError(_)) = metadata.internal_error {
        // As the gateways of the Internet Computer answer.
        head.status = StatusCode::SERVICE_UNAVAILABLE;
    }
    for name in &OWN_HEADERS {
        head.headers.remove(name);
    }
    match &body {
        // Parts were joined.
        HttpGatewayResponseBody::Left(_) if head.status == StatusCode::OK => {
            keep_last_length(&mut head.headers);
        }
        // A stream, of which the canister says how long it is. One that ends before is cut off for the client too.
        HttpGatewayResponseBody::Left(_) => {}
        // The layers above hand it on frame by frame and know no length.
        HttpGatewayResponseBody::Right(whole)
            if !is_head && head.status != StatusCode::NOT_MODIFIED =>
        {
            let length = whole.size_hint().exact().unwrap_or_default();
            head.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        HttpGatewayResponseBody::Right(_) => {}
    }
    if metadata.internal_error.is_some() {
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        head.headers.insert(header::CONTENT_TYPE, text);
    }
    // What came as an update was certified by the subnet. That nothing is certified can be verified too.
    let is_certified = metadata.response_verification_version.is_some() && !is_loose(&head.headers);
    let verified =
        metadata.internal_error.is_none() && (metadata.upgraded_to_update_call || is_certified);
    let verified = HeaderValue::from_static(if verified { "true" } else { "false" });
    head.headers.insert(VERIFIED, verified);
    Response::from_parts(head, Body::new(body))
}

/// Whether the canister says of an answer that it certifies nothing of it.
fn is_loose(headers: &HeaderMap) -> bool {
    let expression = headers.get("ic-certificateexpression");
    let expression = expression.and_then(|expression| expression.to_str().ok());
    expression.is_some_and(|expression| expression.contains("no_certification"))
}

/// Parts were joined: the length is that of the whole, not of the first part, and no range is left.
fn keep_last_length(headers: &mut HeaderMap) {
    let last = headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .next_back()
        .cloned();
    if let Some(length) = last {
        headers.insert(header::CONTENT_LENGTH, length);
        headers.remove(header::CONTENT_RANGE);
    }
}

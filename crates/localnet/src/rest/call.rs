//! Updates and queries as the official client writes them: a few short fields and a payload of up to megabytes,
//! in base64.
//!
//! A long payload is decoded while it arrives, so that its text never lies in memory as a whole. That is for calls
//! whose payload comes after the other fields, as the client writes them; all others are read once they are whole.

use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use base64_simd::STANDARD;
use futures_util::StreamExt;
use pocket_ic::common::rest::{RawEffectivePrincipal, RawSenderInfo};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use std::{fmt, ops::RangeInclusive};

use super::{
    BODY_BYTES_MAX,
    shapes::{ApiError, Json, effective, principal},
};
use crate::{machine::SenderInfo, network::Ingress};

/// Bodies that are decoded while they arrive; shorter ones come at once.
const LONG_BYTES: RangeInclusive<usize> = 1 << 16..=BODY_BYTES_MAX;
/// What stands before a payload, and within how many bytes it is looked for.
const PAYLOAD: &[u8] = br#""payload":""#;
const HEAD_BYTES_MAX: usize = 1 << 14;

/// A `RawCanisterCall`.
#[derive(Debug, Deserialize)]
pub struct Call {
    #[serde(deserialize_with = "base64")]
    sender: Vec<u8>,
    #[serde(deserialize_with = "base64")]
    canister_id: Vec<u8>,
    pub effective_principal: RawEffectivePrincipal,
    method: String,
    #[serde(deserialize_with = "base64")]
    payload: Vec<u8>,
    sender_info: Option<RawSenderInfo>,
}

impl Call {
    /// Fails where something is no principal.
    pub fn ingress(self) -> Result<Ingress, ApiError> {
        let sender_info = self.sender_info.map(|said| {
            let signer = principal(&said.signer)?;
            Ok::<_, ApiError>(SenderInfo {
                info: said.info,
                signer,
            })
        });
        Ok(Ingress {
            sender: principal(&self.sender)?,
            sender_info: sender_info.transpose()?,
            canister: principal(&self.canister_id)?,
            method: self.method,
            arg: self.payload,
            effective: effective(&self.effective_principal)?,
        })
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

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let length = request.body().size_hint().exact();
        let length = length.and_then(|length| usize::try_from(length).ok());
        let Some(length) = length.filter(|length| LONG_BYTES.contains(length)) else {
            return whole(request, state).await;
        };
        if !is_json(request.headers()) {
            return whole(request, state).await;
        }
        let (parts, body) = request.into_parts();
        let mut arriving = Arriving::of(length);
        let mut body = body.into_data_stream();
        while let Some(part) = body.next().await {
            arriving.push(&part.map_err(ApiError::bad)?);
        }
        match arriving.call() {
            Ok(call) => Ok(call),
            Err(json) => whole(Request::from_parts(parts, Body::from(json)), state).await,
        }
    }
}

async fn whole<S: Send + Sync>(request: Request, state: &S) -> Result<Call, ApiError> {
    let Json(call) = Json::from_request(request, state).await?;
    Ok(call)
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes() == b"application/json")
}

/// A body of which a part is there.
struct Arriving {
    stage: Stage,
    /// What was decoded lies between these two.
    head: Vec<u8>,
    rest: Vec<u8>,
    payload: Vec<u8>,
    call: Option<Call>,
}

enum Stage {
    /// The payload has not begun.
    Head,
    /// All of it that can be decoded is.
    Payload,
    /// It is over, or is not to be decoded.
    Rest,
}

impl Arriving {
    fn of(length: usize) -> Self {
        Self {
            stage: Stage::Head,
            head: Vec::new(),
            rest: Vec::new(),
            payload: Vec::with_capacity(length / 4 * 3),
            call: None,
        }
    }

    fn push(&mut self, part: &[u8]) {
        match self.stage {
            Stage::Head => {
                self.rest.extend_from_slice(part);
                self.look_for_payload();
            }
            Stage::Payload => self.decode(part),
            Stage::Rest => self.rest.extend_from_slice(part),
        }
    }

    fn look_for_payload(&mut self) {
        let looked = &self.rest[..self.rest.len().min(HEAD_BYTES_MAX)];
        let found = looked.windows(PAYLOAD.len()).position(|at| at == PAYLOAD);
        let Some(start) = found else {
            if looked.len() == HEAD_BYTES_MAX {
                self.stage = Stage::Rest;
            }
            return;
        };
        let text = self.rest.split_off(start + PAYLOAD.len());
        self.head = std::mem::take(&mut self.rest);
        // It is the payload, and all that a call needs besides was before it, where an empty one makes a call.
        self.call = serde_json::from_slice(&[&self.head, br#""}"#.as_slice()].concat()).ok();
        if self.call.is_some() {
            self.stage = Stage::Payload;
            self.decode(&text);
        } else {
            self.stage = Stage::Rest;
            self.rest = text;
        }
    }

    /// Decodes characters by fours; fewer wait for the next part.
    fn decode(&mut self, text: &[u8]) {
        let missing = (4 - self.rest.len()) % 4;
        let (first, mut text) = text.split_at(missing.min(text.len()));
        self.rest.extend_from_slice(first);
        if self.rest.len() == 4 {
            let four = std::mem::take(&mut self.rest);
            if !self.append(&four) {
                self.rest = four;
                self.stage = Stage::Rest;
            }
        }
        if self.rest.is_empty() {
            let mut fours = text.len() / 4 * 4;
            if !self.append(&text[..fours]) {
                // Only the part in which the payload ends has its end looked for.
                let end = text.iter().position(|byte| *byte == b'"');
                fours = end.unwrap_or(0) / 4 * 4;
                if !self.append(&text[..fours]) {
                    fours = 0;
                }
                self.stage = Stage::Rest;
            }
            text = &text[fours..];
        }
        self.rest.extend_from_slice(text);
    }

    /// False where it is not base64, or something follows what was filled up.
    fn append(&mut self, fours: &[u8]) -> bool {
        let payload = &mut self.payload;
        fours.is_empty()
            || payload.len().is_multiple_of(3) && STANDARD.decode_append(fours, payload).is_ok()
    }

    /// The call, now that all of it is there; or the body, where it is not as the client writes it.
    fn call(self) -> Result<Call, Vec<u8>> {
        /// What may come after a payload.
        #[derive(Deserialize)]
        struct Tail {
            sender_info: Option<RawSenderInfo>,
        }
        if let Some(call) = self.call
            && self.rest.starts_with(b"\"")
            && let Ok(tail) = serde_json::from_slice::<Tail>(&[b"{", PAYLOAD, &self.rest].concat())
        {
            return Ok(Call {
                payload: self.payload,
                sender_info: tail.sender_info.or(call.sender_info),
                ..call
            });
        }
        let payload = STANDARD.encode_to_string(&self.payload);
        Err([self.head, payload.into_bytes(), self.rest].concat())
    }
}

#[cfg(test)]
mod tests {
    use pocket_ic::common::rest::RawCanisterCall;

    use super::*;

    fn written(len: usize, sender_info: Option<RawSenderInfo>) -> RawCanisterCall {
        RawCanisterCall {
            sender: vec![4],
            canister_id: vec![],
            effective_principal: RawEffectivePrincipal::CanisterId(vec![1, 2]),
            method: "a \"payload\":\"quoted\" name".into(),
            payload: (0..len).map(|at| (at % 251) as u8).collect(),
            sender_info,
        }
    }

    fn said() -> RawSenderInfo {
        RawSenderInfo {
            info: vec![1, 2, 3, 4],
            signer: vec![2],
        }
    }

    /// In parts of so many bytes.
    fn arrived(json: &[u8], part: usize) -> Arriving {
        let mut arriving = Arriving::of(json.len());
        json.chunks(part).for_each(|part| arriving.push(part));
        arriving
    }

    #[test]
    fn a_call_is_read_as_the_client_writes_it() {
        for len in [0, 1, 2, 3, 100_000] {
            for sender_info in [None, Some(said())] {
                let written = written(len, sender_info);
                let json = serde_json::to_vec(&written).expect("it is plain data");
                let whole: Call = serde_json::from_slice(&json).expect("it is its own shape");
                for part in (1..=40).chain([4_096, 65_537, json.len()]) {
                    let read = arrived(&json, part).call().expect("it was decoded");
                    for read in [&read, &whole] {
                        assert_eq!(read.payload, written.payload, "{len} in parts of {part}");
                        assert_eq!((&*read.sender, &*read.canister_id), (&[4][..], &[][..]));
                        assert_eq!(read.method, written.method);
                        let info = read.sender_info.as_ref().map(|said| said.info.as_slice());
                        assert_eq!(
                            info,
                            written.sender_info.as_ref().map(|_| &[1, 2, 3, 4][..])
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_call_that_is_written_otherwise_is_left_as_it_is() {
        let ordinary = serde_json::to_string(&written(1_000, None)).expect("it is plain data");
        let (head, payload) = ordinary.split_once(r#""payload":""#).expect("it has one");
        let (text, tail) = payload.split_once('"').expect("it ends");
        let otherwise = |text: &str, tail: &str| format!(r#"{head}"payload":"{text}"{tail}"#);
        let escaped = text.replace('/', "\\/");
        assert_ne!(escaped, text);
        for json in [
            otherwise(&escaped, tail),
            otherwise(&text[1..], tail),
            otherwise(&format!("{text}===="), tail),
            otherwise(&format!("{text}{text}"), tail),
            otherwise(&text.replace('A', "%"), tail),
            otherwise(text, ""),
            otherwise(text, ",}"),
            otherwise(text, r#","sender_info":7}"#),
            format!(r#"{{"payload":"{text}",{}"#, head.replacen('{', "", 1)),
            format!("{}{ordinary}", " ".repeat(2 * HEAD_BYTES_MAX)),
            head.into(),
            String::new(),
        ] {
            for part in (1..=40).chain([4_096, json.len().max(1)]) {
                let left = arrived(json.as_bytes(), part).call();
                let left = left.expect_err("nothing of it was decoded");
                assert_eq!(String::from_utf8_lossy(&left), json, "in parts of {part}");
            }
        }
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

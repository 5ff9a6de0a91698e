//! Signatures by security keys and passkeys: what is signed is not the message but what a browser
//! says of it (W3C Web Authentication, "Verifying an Authentication Assertion").

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::{
    EncodedPoint,
    ecdsa::{Signature, VerifyingKey, signature::Verifier},
};
use serde::Deserialize;
use serde_bytes::ByteBuf;
use serde_cbor::Value;
use sha2::{Digest, Sha256};

/// Labels and values of a COSE key (RFC 9053).
const KEY_TYPE: i128 = 1;
const ALGORITHM: i128 = 3;
const CURVE: i128 = -1;
const X: i128 = -2;
const Y: i128 = -3;
const TWO_COORDINATES: i128 = 2;
const ES256: i128 = -7;
const CURVE_P256: i128 = 1;

/// A signature as the Internet Computer takes it, in CBOR.
#[derive(Deserialize)]
struct Assertion {
    authenticator_data: ByteBuf,
    /// Some clients send text, some bytes.
    client_data_json: Value,
    /// In DER.
    signature: ByteBuf,
}

/// What the browser says; its challenge is the message.
#[derive(Deserialize)]
struct ClientData {
    challenge: String,
}

/// Checks an assertion by a COSE key, which must be of ECDSA on P-256. The error is a sentence.
pub fn verify(cose: &[u8], message: &[u8], signature: &[u8]) -> Result<(), String> {
    let key = key(cose)?;
    let assertion: Assertion = serde_cbor::from_slice(signature)
        .map_err(|error| format!("the WebAuthn signature is not CBOR of its form: {error}"))?;
    let client_data = match &assertion.client_data_json {
        Value::Text(text) => text.as_bytes(),
        Value::Bytes(bytes) => bytes,
        _ => return Err("client_data_json is neither text nor bytes".into()),
    };
    let said: ClientData = serde_json::from_slice(client_data)
        .map_err(|error| format!("client_data_json is not JSON of its form: {error}"))?;
    let challenge = URL_SAFE_NO_PAD.decode(&said.challenge);
    if challenge.as_deref() != Ok(message) {
        return Err("the WebAuthn signature is for another request".into());
    }
    let signed = [
        assertion.authenticator_data.as_slice(),
        &Sha256::digest(client_data),
    ]
    .concat();
    let signature = Signature::from_der(&assertion.signature)
        .map_err(|error| format!("the WebAuthn signature is not in DER: {error}"))?;
    key.verify(&signed, &signature)
        .map_err(|_| "the WebAuthn signature does not verify".into())
}

fn key(cose: &[u8]) -> Result<VerifyingKey, String> {
    let fields: BTreeMap<Value, Value> = serde_cbor::from_slice(cose)
        .map_err(|error| format!("the COSE key is not a map in CBOR: {error}"))?;
    let field = |label| fields.get(&Value::Integer(label));
    for (label, wanted) in [
        (KEY_TYPE, TWO_COORDINATES),
        (ALGORITHM, ES256),
        (CURVE, CURVE_P256),
    ] {
        if field(label) != Some(&Value::Integer(wanted)) {
            return Err("COSE keys other than of ECDSA on P-256 are not served".into());
        }
    }
    let coordinate = |label| match field(label) {
        Some(Value::Bytes(bytes)) => <[u8; 32]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    };
    let (Some(x), Some(y)) = (coordinate(X), coordinate(Y)) else {
        return Err("the COSE key lacks a coordinate of 32 bytes".into());
    };
    let point = EncodedPoint::from_affine_coordinates(&x.into(), &y.into(), false);
    VerifyingKey::from_encoded_point(&point)
        .map_err(|error| format!("the COSE key is not valid: {error}"))
}

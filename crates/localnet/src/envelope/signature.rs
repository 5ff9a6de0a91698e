//! Public keys and the signatures made with them.

use p256::pkcs8::{ObjectIdentifier, spki::SubjectPublicKeyInfoRef};

use super::webauthn;

/// Object identifiers of the key types (RFC 8410, RFC 5480, interface specification "Signatures").
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ELLIPTIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP256K1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.10");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const COSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.56387.1.1");
const CANISTER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.56387.1.2");

/// What stands before the root key's 96 bytes in its DER form.
const BLS_DER_PREFIX_BYTES: usize = 37;

/// Checks a signature by a key in DER: Ed25519, ECDSA on secp256k1 and P-256 (64 bytes: r, s), P-256 by
/// WebAuthn, or a canister's, which is a certificate under `root_key`. The error is a sentence.
pub fn verify(key: &[u8], message: &[u8], signature: &[u8], root_key: &[u8]) -> Result<(), String> {
    let info = SubjectPublicKeyInfoRef::try_from(key)
        .map_err(|error| format!("the public key is not in DER: {error}"))?;
    let raw = info.subject_public_key.raw_bytes();
    match info.algorithm.oid {
        ED25519 => verify_ed25519(key, message, signature),
        ELLIPTIC => match info.algorithm.parameters_oid() {
            Ok(SECP256K1) => verify_secp256k1(raw, message, signature),
            Ok(P256) => verify_p256(raw, message, signature),
            Ok(curve) => Err(format!("keys on the curve {curve} are not served")),
            Err(error) => Err(format!("the public key names no curve: {error}")),
        },
        COSE => webauthn::verify(raw, message, signature),
        CANISTER => verify_canister_signature(key, message, signature, root_key),
        other => Err(format!("keys of the type {other} are not served")),
    }
}

/// Checks a signature of a canister. Other keys than canisters' are refused. The error is a sentence.
pub fn verify_canister_signature(
    key: &[u8],
    message: &[u8],
    signature: &[u8],
    root_key: &[u8],
) -> Result<(), String> {
    let root = root_key.get(BLS_DER_PREFIX_BYTES..).unwrap_or_default();
    ic_signature_verification::verify_canister_sig(message, signature, key, root)
        .map_err(|error| format!("the canister signature does not verify: {error}"))
}

/// The canister that signs with such a key: its id, with its length before it, begins the key (interface
/// specification, "Canister signatures"). None for other keys.
pub fn signing_canister(key: &[u8]) -> Option<&[u8]> {
    let info = SubjectPublicKeyInfoRef::try_from(key).ok()?;
    let (length, rest) = info.subject_public_key.raw_bytes().split_first()?;
    (info.algorithm.oid == CANISTER)
        .then(|| rest.get(..usize::from(*length)))
        .flatten()
}

fn verify_ed25519(key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), String> {
    ic_ed25519::PublicKey::deserialize_rfc8410_der(key)
        .map_err(|error| format!("the Ed25519 key is not valid: {error}"))?
        .verify_signature(message, signature)
        .map_err(|_| "the Ed25519 signature does not verify".into())
}

fn verify_secp256k1(key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), String> {
    use k256::ecdsa::{Signature, VerifyingKey, signature::Verifier};
    let key = VerifyingKey::from_sec1_bytes(key)
        .map_err(|error| format!("the secp256k1 key is not valid: {error}"))?;
    let signature = Signature::from_slice(signature)
        .map_err(|error| format!("the secp256k1 signature is not two numbers: {error}"))?;
    // Both forms of a signature are accepted; the library accepts the one with the smaller number.
    let signature = signature.normalize_s().unwrap_or(signature);
    key.verify(message, &signature)
        .map_err(|_| "the secp256k1 signature does not verify".into())
}

fn verify_p256(key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), String> {
    use p256::ecdsa::{Signature, VerifyingKey, signature::Verifier};
    let key = VerifyingKey::from_sec1_bytes(key)
        .map_err(|error| format!("the P-256 key is not valid: {error}"))?;
    let signature = Signature::from_slice(signature)
        .map_err(|error| format!("the P-256 signature is not two numbers: {error}"))?;
    key.verify(message, &signature)
        .map_err(|_| "the P-256 signature does not verify".into())
}

//! Keys: each canister draws a secret of its own; a pair of canisters shares a key that only the two
//! can compute. Only public keys travel.

use candid::Principal;
use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::mac::Mac;

/// An X25519 secret. It has no `Debug`, and is wiped from memory when it is dropped.
pub struct SecretKey(StaticSecret);

/// Who issues and who checks, each with the version of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    pub issuer: Principal,
    pub issuer_key_version: u16,
    pub audience: Principal,
    pub audience_key_version: u16,
}

/// A public key with which no secret can be shared: its points are of small order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidKey;

impl SecretKey {
    /// From 32 random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes.into())
    }

    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    pub fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// The key that `pair` shares, of which this secret is one side and `peer` the other's public key.
    /// Several million instructions: compute it once and keep it.
    pub fn pair(&self, peer: &[u8; 32], pair: &Pair) -> Result<PairKey, InvalidKey> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*peer));
        if !shared.was_contributory() {
            return Err(InvalidKey);
        }
        let mut info = b"os1".to_vec();
        for principal in [&pair.audience, &pair.issuer] {
            info.push(principal.as_slice().len() as u8);
            info.extend_from_slice(principal.as_slice());
        }
        info.extend_from_slice(&pair.issuer_key_version.to_be_bytes());
        info.extend_from_slice(&pair.audience_key_version.to_be_bytes());
        let mut root = [0; 32];
        Hkdf::<Sha256>::new(None, shared.as_bytes())
            .expand(&info, &mut root)
            .expect("32 bytes are one block");
        let root = Mac::new(&root);
        Ok(PairKey {
            seal: root.of(b"enc"),
            nonce: Mac::new(&root.of(b"nonce")),
        })
    }
}

/// What an issuer and an audience share: a key that seals, and a key that derives nonces.
#[derive(Clone, PartialEq, Eq)]
pub struct PairKey {
    pub(crate) seal: [u8; 32],
    pub(crate) nonce: Mac,
}

/// Bytes of a [`PairKey`]: the key that seals, and the nonce key as HMAC needs it.
pub const PAIR_KEY_BYTES: usize = 96;

impl PairKey {
    /// To be kept in the canister's own stable memory.
    pub fn to_bytes(&self) -> [u8; PAIR_KEY_BYTES] {
        let mut bytes = [0; PAIR_KEY_BYTES];
        bytes[..32].copy_from_slice(&self.seal);
        bytes[32..].copy_from_slice(&self.nonce.to_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; PAIR_KEY_BYTES]) -> Self {
        Self {
            seal: bytes[..32].try_into().expect("32 bytes"),
            nonce: Mac::from_bytes(bytes[32..].try_into().expect("64 bytes")),
        }
    }
}

impl std::fmt::Debug for PairKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PairKey({PAIR_KEY_BYTES} bytes)")
    }
}

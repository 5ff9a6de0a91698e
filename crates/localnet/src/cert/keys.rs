//! The keys of a subnet.

use candid::Principal;
use ic_verify_bls_signature::PrivateKey;
use sha2::{Digest, Sha256};

/// What stands before the 96 bytes of a BLS key in DER: the object identifiers of BLS12-381 keys
/// in G2 and of the curve (interface specification, "Certificate").
const BLS_DER_PREFIX: [u8; 37] = [
    0x30, 0x81, 0x82, 0x30, 0x1d, 0x06, 0x0d, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05,
    0x03, 0x01, 0x02, 0x01, 0x06, 0x0c, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05, 0x03,
    0x02, 0x01, 0x03, 0x61, 0x00,
];

/// What a certificate's signature signs, before the root hash.
const STATE_ROOT: &[u8] = b"\x0Dic-state-root";

/// One subnet's keys: its own, and that of its only node.
#[derive(Debug)]
pub struct SubnetKeys {
    secret: PrivateKey,
    node: ic_ed25519::PrivateKey,
    /// The subnet's public key, in DER.
    pub public: Vec<u8>,
    /// The node's public key, in DER.
    pub node_public: Vec<u8>,
}

impl SubnetKeys {
    /// The same seed and index give the same keys.
    pub fn new(seed: u64, index: u64) -> Self {
        let mut scalar = secret(seed, index, "subnet");
        // Less than 2^254, and so less than the order of the group.
        scalar[0] &= 0x3f;
        let secret_key =
            PrivateKey::deserialize(&scalar).expect("the number is less than the group's order");
        let public = [
            &BLS_DER_PREFIX[..],
            &secret_key.public_key().serialize()[..],
        ]
        .concat();
        let node = ic_ed25519::PrivateKey::deserialize_raw_32(&secret(seed, index, "node"));
        Self {
            secret: secret_key,
            node_public: node.public_key().serialize_rfc8410_der(),
            node,
            public,
        }
    }

    /// The subnet's id.
    pub fn subnet(&self) -> Principal {
        Principal::self_authenticating(&self.public)
    }

    pub fn node(&self) -> Principal {
        Principal::self_authenticating(&self.node_public)
    }

    /// Signs a state with that root hash, for the whole subnet.
    pub fn sign_state(&self, root: &[u8; 32]) -> Vec<u8> {
        let message = [STATE_ROOT, root].concat();
        self.secret.sign(&message).serialize().to_vec()
    }

    /// Signs for the node. The message carries its own domain separator.
    pub fn sign_as_node(&self, message: &[u8]) -> Vec<u8> {
        self.node.sign_message(message).to_vec()
    }
}

/// 32 bytes for one purpose.
fn secret(seed: u64, index: u64, purpose: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"\x0blocalnetkey")
        .chain_update(seed.to_be_bytes())
        .chain_update(index.to_be_bytes())
        .chain_update(purpose)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_from_seed_and_index() {
        let keys = SubnetKeys::new(7, 1);
        assert_eq!(keys.public, SubnetKeys::new(7, 1).public);
        assert_eq!(keys.public.len(), 133);
        assert_eq!(keys.node_public.len(), 44);
        for other in [SubnetKeys::new(7, 2), SubnetKeys::new(8, 1)] {
            assert_ne!(keys.public, other.public);
            assert_ne!(keys.node_public, other.node_public);
        }
    }
}

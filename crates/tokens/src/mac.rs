//! HMAC-SHA-256 (RFC 2104) under a key that is used again and again.
//!
//! Half of what HMAC costs for a short message is hashing the padded key, twice; a canister keeps the two states
//! after that.

use openstorage_sha256::{INITIAL, compress};

const BLOCK_BYTES: usize = 64;

type State = [u32; 8];

/// A key, as the states of the two hashes that have taken it in.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Mac {
    inner: State,
    outer: State,
}

impl Mac {
    pub fn new(key: &[u8; 32]) -> Self {
        let padded = |pad: u8| {
            let mut block = [pad; BLOCK_BYTES];
            block
                .iter_mut()
                .zip(key)
                .for_each(|(byte, key)| *byte ^= key);
            let mut state = INITIAL;
            compress(&mut state, &[block]);
            state
        };
        Self {
            inner: padded(0x36),
            outer: padded(0x5c),
        }
    }

    pub fn of(&self, message: &[u8]) -> [u8; 32] {
        finish(self.outer, &finish(self.inner, message))
    }

    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&to_bytes(&self.inner));
        bytes[32..].copy_from_slice(&to_bytes(&self.outer));
        bytes
    }

    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let words = bytes.as_chunks::<4>().0;
        let state = |from: usize| std::array::from_fn(|i| u32::from_be_bytes(words[from + i]));
        Self {
            inner: state(0),
            outer: state(8),
        }
    }
}

/// SHA-256 of one block, after which it stands at `state`, and `rest`.
fn finish(mut state: State, rest: &[u8]) -> [u8; 32] {
    let (blocks, tail) = rest.as_chunks::<BLOCK_BYTES>();
    compress(&mut state, blocks);
    // The end: a bit, zeros, and the length in bits, 8 bytes.
    let mut last = [0; 2 * BLOCK_BYTES];
    last[..tail.len()].copy_from_slice(tail);
    last[tail.len()] = 0x80;
    let len = if tail.len() < BLOCK_BYTES - 8 { 1 } else { 2 } * BLOCK_BYTES;
    let bits = 8 * (BLOCK_BYTES + rest.len()) as u64;
    last[len - 8..len].copy_from_slice(&bits.to_be_bytes());
    compress(&mut state, last[..len].as_chunks::<BLOCK_BYTES>().0);
    to_bytes(&state)
}

fn to_bytes(state: &State) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit, Mac as _};
    use sha2::Sha256;

    use super::*;

    #[test]
    fn it_is_hmac_for_messages_of_every_length() {
        for len in 0..=300 {
            let key = [len as u8 ^ 0xa5; 32];
            let message: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            let mac = Mac::from_bytes(&Mac::new(&key).to_bytes());
            let mut expected = Hmac::<Sha256>::new_from_slice(&key).unwrap();
            expected.update(&message);
            let expected: [u8; 32] = expected.finalize().into_bytes().into();
            assert_eq!(mac.of(&message), expected, "{len} bytes");
        }
    }
}

//! SHA-256 for canisters, where what counts is instructions and most of them are hashing.
//!
//! A canister has no instruction for it. The words that each round takes from the block (the message
//! schedule, FIPS 180-4, section 6.2.2) are independent enough to be computed four at a time in vectors of
//! 128 bits, which every replica of the Internet Computer runs; the rounds themselves are not. The compression
//! function here does just that, and nothing else is new: outside of a canister it is the one of `sha2`, and
//! all lengths are hashed on deployed Wasm in the integration tests.
//!
//! ```
//! use openstorage_sha256::{Sha256, sha256};
//! let mut hash = Sha256::new();
//! hash.update(b"a");
//! hash.update(b"bc");
//! assert_eq!(hash.finalize(), sha256(&[b"abc"]));
//! ```

mod known;
#[cfg(target_arch = "wasm32")]
mod vectors;

/// Bytes of a block.
const BLOCK: usize = 64;
/// Where in the last block the length in bits stands.
const LENGTH_AT: usize = BLOCK - 8;

/// The words that SHA-256 begins with (FIPS 180-4, section 5.3.3).
pub const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The SHA-256 of `parts`, one behind the other.
///
/// ```
/// use openstorage_sha256::sha256;
/// assert_eq!(sha256(&[])[..4], [0xe3, 0xb0, 0xc4, 0x42]);
/// assert_eq!(sha256(&[b"a", b"bc"]), sha256(&[b"abc"]));
/// ```
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize()
}

/// The SHA-256 of bytes that are known when the program is compiled. Slow otherwise.
///
/// ```
/// use openstorage_sha256::{known, sha256};
/// const ABC: [u8; 32] = known(b"abc");
/// assert_eq!(ABC, sha256(&[b"abc"]));
/// ```
pub const fn known(bytes: &[u8]) -> [u8; 32] {
    known::sha256(bytes)
}

/// A hash under way. Its state can be kept and taken up again.
#[derive(Clone, Debug)]
pub struct Sha256 {
    state: [u32; 8],
    /// Bytes that were taken in.
    len: u64,
    /// Those of them that do not fill a block yet, and zeros.
    rest: [u8; BLOCK],
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl Sha256 {
    /// Of no bytes.
    pub fn new() -> Self {
        Self {
            state: INITIAL,
            len: 0,
            rest: [0; BLOCK],
        }
    }

    /// Bytes of `rest` that are in use.
    fn filled(&self) -> usize {
        (self.len % BLOCK as u64) as usize
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let (filled, mut bytes) = (self.filled(), bytes);
        self.len += bytes.len() as u64;
        if filled + bytes.len() < BLOCK {
            self.rest[filled..filled + bytes.len()].copy_from_slice(bytes);
            return;
        }
        if filled > 0 {
            let (head, tail) = bytes.split_at(BLOCK - filled);
            self.rest[filled..].copy_from_slice(head);
            compress(&mut self.state, &[self.rest]);
            bytes = tail;
        }
        let (blocks, tail) = bytes.as_chunks::<BLOCK>();
        compress(&mut self.state, blocks);
        self.rest = [0; BLOCK];
        self.rest[..tail.len()].copy_from_slice(tail);
    }

    /// The hash of all that was taken in.
    pub fn finalize(mut self) -> [u8; 32] {
        let filled = self.filled();
        self.rest[filled] = 0x80;
        if filled >= LENGTH_AT {
            compress(&mut self.state, &[self.rest]);
            self.rest = [0; BLOCK];
        }
        let bits = self.len * 8;
        self.rest[LENGTH_AT..].copy_from_slice(&bits.to_be_bytes());
        compress(&mut self.state, &[self.rest]);
        let mut hash = [0; 32];
        for (place, word) in hash.chunks_exact_mut(4).zip(self.state) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        hash
    }

    /// The state, as `sha2` writes its own: the eight words (little-endian), the number of whole blocks (8
    /// bytes, little-endian), how many bytes are left over (1 byte), those bytes, zeros.
    pub fn to_bytes(&self) -> [u8; SAVED_BYTES] {
        let mut bytes = [0; SAVED_BYTES];
        for (place, word) in bytes[..32].chunks_exact_mut(4).zip(self.state) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes[32..40].copy_from_slice(&(self.len / BLOCK as u64).to_le_bytes());
        bytes[40] = self.filled() as u8;
        bytes[41..].copy_from_slice(&self.rest[..BLOCK - 1]);
        bytes
    }

    /// What [`Sha256::to_bytes`] wrote. None for what it cannot have written.
    pub fn from_bytes(bytes: &[u8; SAVED_BYTES]) -> Option<Self> {
        let mut state = [0; 8];
        for (word, place) in state.iter_mut().zip(bytes[..32].as_chunks().0) {
            *word = u32::from_le_bytes(*place);
        }
        let blocks = u64::from_le_bytes(bytes[32..40].try_into().ok()?);
        let filled = usize::from(bytes[40]);
        let mut rest = [0; BLOCK];
        rest[..BLOCK - 1].copy_from_slice(&bytes[41..]);
        if filled >= BLOCK || rest[filled..].iter().any(|byte| *byte != 0) {
            return None;
        }
        let len = blocks
            .checked_mul(BLOCK as u64)?
            .checked_add(filled as u64)?;
        Some(Self { state, len, rest })
    }
}

/// Bytes of a saved state.
pub const SAVED_BYTES: usize = 104;

/// Takes whole blocks into a state, which begins as [`INITIAL`]: for those who pad for themselves.
#[cfg(target_arch = "wasm32")]
pub use vectors::compress;

/// Takes whole blocks into a state, which begins as [`INITIAL`]: for those who pad for themselves.
#[cfg(not(target_arch = "wasm32"))]
pub use sha2::block_api::compress256 as compress;

#[cfg(test)]
mod tests {
    use sha2::{Digest, digest::common::hazmat::SerializableState};

    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    #[test]
    fn all_lengths_hash_as_with_sha2_however_they_are_cut() {
        for len in 0..400 {
            let data = bytes(len);
            let expected: [u8; 32] = sha2::Sha256::digest(&data).into();
            for cut in [0, 1, len / 3, 63, 64, 65, len].map(|cut| cut.min(len)) {
                let (head, tail) = data.split_at(cut);
                assert_eq!(sha256(&[head, &[], tail]), expected, "{len} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_known_hashes_as_with_sha2() {
        for len in 0..200 {
            let data = bytes(len);
            assert_eq!(known(&data)[..], sha2::Sha256::digest(&data)[..], "{len}");
        }
    }

    #[test]
    fn a_state_is_saved_as_sha2_saves_it_and_taken_up_again() {
        for len in [0, 1, 63, 64, 65, 1_000] {
            let data = bytes(len);
            let (mut ours, mut theirs) = (Sha256::new(), sha2::Sha256::new());
            ours.update(&data);
            theirs.update(&data);
            let saved = ours.to_bytes();
            assert_eq!(saved[..], theirs.serialize()[..], "{len}");
            let mut again = Sha256::from_bytes(&saved).expect("it was saved");
            again.update(b"more");
            theirs.update(b"more");
            assert_eq!(again.finalize()[..], theirs.finalize()[..]);
        }
    }

    #[test]
    fn other_bytes_are_no_state() {
        let mut bytes = Sha256::new().to_bytes();
        bytes[40] = 64;
        assert!(Sha256::from_bytes(&bytes).is_none());
        bytes[40] = 1;
        bytes[43] = 1;
        assert!(Sha256::from_bytes(&bytes).is_none());
        bytes[43] = 0;
        bytes[32..40].fill(0xff);
        assert!(Sha256::from_bytes(&bytes).is_none());
    }
}

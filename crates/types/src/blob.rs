//! A blob's name, its reference, and its chunks.

use std::{fmt, str::FromStr};

use candid::{
    CandidType, Principal,
    types::{Serializer, Type, TypeInner},
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::limits::CHUNK_BYTES;

/// The SHA-256 of a blob's bytes: its name everywhere. Written as 64 lower-case hex characters,
/// in Candid a `blob` of 32 bytes.
///
/// ```
/// use openstorage_types::BlobId;
/// let id: BlobId = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse().unwrap();
/// assert_eq!(id.to_string().len(), 64);
/// assert!("E3B0".parse::<BlobId>().is_err()); // too short, and upper case is not canonical
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub [u8; 32]);

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not by `{:02x}`, which takes 500 instructions a byte: a bucket writes ids in every answer.
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
        let text = self.0.map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        f.write_str(std::str::from_utf8(text.as_flattened()).expect("digits are ASCII"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is not 64 lower-case hex characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidBlobId;

impl fmt::Display for InvalidBlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a blob id is 64 lower-case hex characters: the SHA-256 of the blob's bytes")
    }
}

impl std::error::Error for InvalidBlobId {}

impl FromStr for BlobId {
    type Err = InvalidBlobId;

    fn from_str(text: &str) -> Result<Self, InvalidBlobId> {
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Ok(c - b'0'),
            b'a'..=b'f' => Ok(c - b'a' + 10),
            _ => Err(InvalidBlobId),
        };
        let text = text.as_bytes();
        if text.len() != 64 {
            return Err(InvalidBlobId);
        }
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(id))
    }
}

impl CandidType for BlobId {
    fn _ty() -> Type {
        TypeInner::Vec(TypeInner::Nat8.into()).into()
    }

    fn idl_serialize<S: Serializer>(&self, serializer: S) -> Result<(), S::Error> {
        serializer.serialize_blob(&self.0)
    }
}

impl Serialize for BlobId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteArray::<32>::deserialize(deserializer)
            .map_err(|_| D::Error::custom("a blob id is 32 bytes"))?;
        Ok(Self(bytes.into_array()))
    }
}

/// Where a blob is: what a message or a record stores.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct BlobReference {
    pub blob_id: BlobId,
    /// The `data_bucket` canister that holds the blob.
    pub bucket: Principal,
    /// Bytes.
    pub size: u64,
    pub mime_type: String,
}

/// Chunk indexes `start..end`.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRange {
    pub start: u32,
    /// Not included.
    pub end: u32,
}

/// How many chunks a blob of `size` bytes has: `max(1, ⌈size / 2,000,000⌉)`. The empty blob is one
/// empty chunk.
pub fn chunk_count(size: u64) -> u64 {
    size.div_ceil(CHUNK_BYTES).max(1)
}

/// The bytes in chunk `index` of a blob of `size` bytes; `None` where there is no such chunk.
///
/// ```
/// use openstorage_types::chunk_len;
/// assert_eq!(chunk_len(2_000_001, 0), Some(2_000_000));
/// assert_eq!(chunk_len(2_000_001, 1), Some(1));
/// assert_eq!(chunk_len(2_000_001, 2), None);
/// assert_eq!(chunk_len(0, 0), Some(0));
/// ```
pub fn chunk_len(size: u64, index: u64) -> Option<u64> {
    (index < chunk_count(size)).then(|| (size - index * CHUNK_BYTES).min(CHUNK_BYTES))
}

#[cfg(test)]
mod tests {
    use candid::{decode_one, encode_one};

    use super::*;

    #[test]
    fn a_blob_id_survives_candid_and_text() {
        let id = BlobId(std::array::from_fn(|i| i as u8));
        assert_eq!(decode_one::<BlobId>(&encode_one(id).unwrap()).unwrap(), id);
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn a_blob_id_of_another_length_does_not_decode() {
        assert!(
            decode_one::<BlobId>(&encode_one(serde_bytes::Bytes::new(&[0; 31])).unwrap()).is_err()
        );
        assert!(
            decode_one::<BlobId>(&encode_one(serde_bytes::Bytes::new(&[0; 33])).unwrap()).is_err()
        );
    }

    /// The same file holds the TypeScript library to the same facts.
    #[test]
    fn the_golden_file_is_reproduced() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../js-lib/test/golden.json")).unwrap();
        assert_eq!(golden["limits"]["chunk_bytes"], CHUNK_BYTES);
        assert_eq!(
            golden["limits"]["blob_bytes_max"],
            crate::limits::BLOB_BYTES_MAX
        );
        assert_eq!(
            golden["limits"]["token_chars_max"],
            crate::limits::TOKEN_CHARS_MAX
        );
        for row in golden["chunks"].as_array().unwrap() {
            let size = row["size"].as_u64().unwrap();
            let count = chunk_count(size);
            assert_eq!(
                (&row["count"], &row["last_chunk_bytes"]),
                (&count.into(), &chunk_len(size, count - 1).into())
            );
        }
        let ids = |key: &str| golden["blob_ids"][key].as_array().unwrap().clone();
        for id in ids("valid") {
            assert_eq!(
                id.as_str().unwrap().parse::<BlobId>().unwrap().to_string(),
                id.as_str().unwrap()
            );
        }
        for id in ids("invalid") {
            assert!(id.as_str().unwrap().parse::<BlobId>().is_err(), "{id}");
        }
    }

    #[test]
    fn chunks_cover_a_blob_exactly() {
        for size in [
            0,
            1,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
            10 * CHUNK_BYTES,
        ] {
            let total: u64 = (0..chunk_count(size))
                .map(|i| chunk_len(size, i).unwrap())
                .sum();
            assert_eq!(total, size);
            assert_eq!(chunk_len(size, chunk_count(size)), None);
        }
    }
}

//! Replies with many bytes, which are appended from stable memory instead of being gathered first.

use candid::{CandidType, encode_one};

/// The Candid form of `value` up to where the bytes of its last field follow: `len` bytes of a blob, which
/// `value` itself has empty. Fields come in the order of their hashes, so which one is last has to be
/// tested.
///
/// ```
/// use serde_bytes::ByteBuf;
/// let mut reply = openstorage_canister::before_blob(&ByteBuf::new(), 3);
/// reply.extend_from_slice(b"abc");
/// assert_eq!(reply, candid::encode_one(ByteBuf::from(*b"abc")).unwrap());
/// ```
pub fn before_blob<T: CandidType>(value: &T, len: u64) -> Vec<u8> {
    let mut bytes = encode_one(value).expect("a reply has a Candid form");
    let empty = bytes.pop();
    debug_assert_eq!(empty, Some(0), "the length of a blob comes last");
    write_length(&mut bytes, len);
    bytes
}

/// A length, as Candid writes it before what is so long: unsigned LEB128.
pub fn write_length(bytes: &mut Vec<u8>, len: u64) {
    let mut rest = len;
    while rest > 0x7f {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

//! Replies: encoded without describing their type anew each time, and with many bytes, which are appended
//! from stable memory instead of being gathered first.

use std::{any::TypeId, cell::RefCell, collections::BTreeMap};

use candid::{CandidType, encode_one, ser::ValueSerializer};

thread_local! {
    /// What stands before the value in every encoding of a type.
    static HEADS: RefCell<BTreeMap<TypeId, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
}

/// The Candid form of a value, as [`encode_one`] writes it. Most of the work of that is the description of
/// the type, some 300,000 instructions for a result with two dozen errors: it is kept from the first time on.
/// What a query keeps is forgotten with the query, so the types of replies to queries want to be encoded once
/// when the canister starts.
///
/// ```
/// let reply: Result<u64, String> = Ok(7);
/// for _ in 0..2 {
///     assert_eq!(openstorage_canister::encode(&reply), candid::encode_one(&reply).unwrap());
/// }
/// ```
///
/// # Panics
/// For a value without a Candid form: ours all have one.
pub fn encode<T: CandidType + 'static>(value: &T) -> Vec<u8> {
    HEADS.with_borrow_mut(|heads| {
        let Some(head) = heads.get(&TypeId::of::<T>()) else {
            let whole = encode_one(value).expect("a reply has a Candid form");
            let head = &whole[..whole.len() - encode_value(value, vec![]).len()];
            heads.insert(TypeId::of::<T>(), head.to_vec());
            return whole;
        };
        encode_value(value, head.clone())
    })
}

/// Appends the Candid form of a value, without its type, to what stands before it.
///
/// # Panics
/// For a value without a Candid form.
pub fn encode_value<T: CandidType>(value: &T, mut bytes: Vec<u8>) -> Vec<u8> {
    let mut values = ValueSerializer::new();
    let encoded = value.idl_serialize(&mut values);
    encoded.expect("a reply has a Candid form");
    bytes.extend_from_slice(values.get_result());
    bytes
}

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
pub fn before_blob<T: CandidType + 'static>(value: &T, len: u64) -> Vec<u8> {
    let mut bytes = encode(value);
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

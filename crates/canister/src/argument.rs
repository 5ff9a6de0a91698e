//! Arguments of calls, decoded within a budget.

use candid::{CandidType, de::DecoderConfig, utils::decode_args_with_config};
use openstorage_types::limits::{
    DECODE_SKIP_MAX, DECODE_WORK_MAX, DECODE_WORK_MIN, DECODE_WORK_PER_BYTE,
    UNKNOWN_CALLER_BYTES_MAX,
};
use serde::Deserialize;

/// No arguments, in Candid.
const NOTHING: &[u8] = b"DIDL\0\0";

/// The one argument of a call. A small message that claims to hold a lot costs little: the decoder stops after so much
/// work as bytes of that number may need, at most [`DECODE_WORK_MAX`], and up to `blob_bytes_max` bytes of blob come on
/// top of that. No argument at all
/// reads as one that is optional and absent. What is read may borrow bytes.
///
/// ```
/// let arg = candid::encode_one(7_u64).unwrap();
/// assert_eq!(openstorage_canister::decode::<u64>(&arg, 0), 7);
/// assert_eq!(openstorage_canister::decode::<Option<u64>>(&[], 0), None);
/// ```
///
/// # Panics
/// When the argument cannot be decoded or costs more. In a canister that is a trap: nothing has been
/// changed by then, and the caller reads the reason in the reject message.
pub fn decode<'a, T: CandidType + Deserialize<'a>>(bytes: &'a [u8], blob_bytes_max: usize) -> T {
    let mut config = DecoderConfig::new();
    let work = DECODE_WORK_MIN + DECODE_WORK_PER_BYTE * bytes.len();
    // Candid counts up to 4 for a byte.
    let blob_work = 4 * blob_bytes_max.min(bytes.len());
    config
        .set_decoding_quota(work.min(DECODE_WORK_MAX) + blob_work)
        .set_skipping_quota(DECODE_SKIP_MAX);
    let bytes = if bytes.is_empty() { NOTHING } else { bytes };
    match decode_args_with_config::<(T,)>(bytes, &config) {
        Ok((arg,)) => arg,
        Err(error) => panic!("the argument cannot be decoded: {error}"),
    }
}

/// Turns away an argument of `len` bytes, before it is read, that is long and of a caller who is not known: reading
/// costs an instruction for each byte and more, and what canisters send passes no `inspect_message`.
///
/// # Panics
/// When it is turned away. In a canister that is a trap, not an answer: a message that changes nothing leaves the
/// canister's version as it is, which is looked at for gaps.
pub fn expect_short(len: usize, is_known: impl FnOnce() -> bool) {
    assert!(
        len <= UNKNOWN_CALLER_BYTES_MAX || is_known(),
        "of a caller who is not known here arguments of at most {UNKNOWN_CALLER_BYTES_MAX} bytes are read, not of {len}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_argument_is_read_of_those_who_are_known() {
        let long = UNKNOWN_CALLER_BYTES_MAX + 1;
        expect_short(long - 1, || false);
        expect_short(long, || true);
        assert!(std::panic::catch_unwind(|| expect_short(long, || false)).is_err());
    }

    #[test]
    fn a_blob_needs_the_room_that_was_made_for_it() {
        let len = DECODE_WORK_MAX + 1;
        let blob = candid::encode_one("a".repeat(len)).expect("text has a Candid form");
        assert!(std::panic::catch_unwind(|| decode::<String>(&blob, 0)).is_err());
        assert_eq!(decode::<String>(&blob, len).len(), len);
    }

    #[test]
    fn many_values_that_take_no_room_are_refused() {
        // A vector of 2³² nulls: 12 bytes.
        let bomb = b"DIDL\x01\x6d\x7f\x01\x00\xff\xff\xff\xff\x0f";
        assert!(std::panic::catch_unwind(|| decode::<Vec<()>>(bomb, 0)).is_err());
    }
}

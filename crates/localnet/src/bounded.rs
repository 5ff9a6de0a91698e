//! Candid that strangers wrote, decoded within bounds: a few bytes can stand for more values than anybody
//! can look at, such as a list of 2^60 nulls.

use candid::{
    CandidType, DecoderConfig,
    utils::{ArgumentDecoder, decode_args_with_config},
};
use serde::Deserialize;

/// What may be skipped of values that nobody asked for, as the Internet Computer has it.
const SKIPPED_MAX: usize = 10_000;
/// What may be decoded, in units of about a byte: ten times the largest argument of a call.
const DECODED_MAX: usize = 100_000_000;
/// What may be skipped beside a few fields: the largest message from outside, at four units a byte.
const BESIDE_MAX: usize = 16_000_000;

/// All of an argument.
pub fn decode<'a, T: ArgumentDecoder<'a>>(bytes: &'a [u8]) -> candid::Result<T> {
    let mut config = DecoderConfig::new();
    config.set_skipping_quota(SKIPPED_MAX);
    config.set_decoding_quota(DECODED_MAX);
    // The other message has the whole argument in it.
    config.set_full_error_message(false);
    decode_args_with_config(bytes, &config)
}

/// A few fields of a record, whose others may be large.
pub fn decode_part<'a, T: CandidType + Deserialize<'a>>(bytes: &'a [u8]) -> candid::Result<T> {
    let mut config = DecoderConfig::new();
    config.set_skipping_quota(BESIDE_MAX);
    let (part,) = decode_args_with_config(bytes, &config)?;
    Ok(part)
}

//! The form of names that callers give.

use candid::Principal;

use crate::limits::{ACCESSORS_MAX, MIME_TYPE_BYTES_MAX, NAME_BYTES_MAX};

/// `type/subtype` in the characters that a header may carry, at most 127 bytes; no parameters.
///
/// ```
/// use openstorage_types::is_mime_type;
/// assert!(is_mime_type("image/svg+xml"));
/// assert!(!is_mime_type("image/png\r\nSet-Cookie: a=b") && !is_mime_type("image"));
/// ```
pub fn is_mime_type(text: &str) -> bool {
    let is_token = |part: &str| {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&c);
        !part.is_empty() && part.bytes().all(allowed)
    };
    let parts = text.split_once('/');
    text.len() <= MIME_TYPE_BYTES_MAX
        && parts.is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// A file name for downloads: 1 to 255 bytes without control characters.
pub fn is_file_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// 1 to 32 principals, none of which stands for everybody or nobody.
pub fn accessors_are_valid(ids: &[Principal]) -> bool {
    let nobody = [Principal::anonymous(), Principal::management_canister()];
    (1..=ACCESSORS_MAX).contains(&ids.len()) && !ids.iter().any(|id| nobody.contains(id))
}

//! The form of names that callers give.

use std::borrow::Cow;

use candid::Principal;

use crate::limits::{
    ACCESSORS_MAX, MIME_TYPE_BYTES_MAX, MIME_TYPE_GIVEN_BYTES_MAX, NAME_BYTES_MAX,
    NAME_STORED_BYTES_MAX,
};

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

/// A MIME type as it is stored: in lower case, without parameters. None where it has no such form.
///
/// ```
/// use openstorage_types::mime_type;
/// assert_eq!(mime_type("VIDEO/MP4; codecs=\"avc1\"").as_deref(), Some("video/mp4"));
/// assert_eq!(mime_type("png"), None);
/// ```
pub fn mime_type(text: &str) -> Option<Cow<'_, str>> {
    if text.len() > MIME_TYPE_GIVEN_BYTES_MAX {
        return None;
    }
    let essence = text.split(';').next().unwrap_or_default();
    let essence = essence.trim_matches([' ', '\t']);
    if !is_mime_type(essence) {
        return None;
    }
    Some(match essence.bytes().any(|c| c.is_ascii_uppercase()) {
        true => essence.to_ascii_lowercase().into(),
        false => essence.into(),
    })
}

/// A file name for downloads: 1 to 1,024 bytes without control characters.
pub fn is_file_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// A file name as it is stored: what could end a line, turn the direction of writing, or lead to another folder is
/// replaced by `_`, and what is longer than 255 bytes is shortened, its extension kept. None for no name.
///
/// ```
/// use openstorage_types::file_name;
/// assert_eq!(file_name("../a\u{202e}gpj.exe").as_deref(), Some(".._a_gpj.exe"));
/// assert_eq!(file_name(&format!("{}.png", "\u{5b57}".repeat(84))).unwrap().len(), 249 + 4);
/// assert_eq!(file_name(""), None);
/// ```
pub fn file_name(text: &str) -> Option<Cow<'_, str>> {
    let is_kept = |c: char| {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let ends_line = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        !turns && !ends_line && c != '/' && c != '\\'
    };
    if text.is_empty() {
        return None;
    }
    // A folder, or the one above it.
    if text == "." || text == ".." {
        return Some("_".into());
    }
    let name: Cow<str> = match text.chars().all(is_kept) {
        true => text.into(),
        false => text
            .chars()
            .map(|c| if is_kept(c) { c } else { '_' })
            .collect::<String>()
            .into(),
    };
    if name.len() <= NAME_STORED_BYTES_MAX {
        return Some(name);
    }
    let dot = name.rfind('.').filter(|dot| *dot > 0);
    let dot = dot.filter(|dot| name.len() - dot <= EXTENSION_BYTES_MAX);
    let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
    let end = stem.floor_char_boundary(NAME_STORED_BYTES_MAX - extension.len());
    Some(format!("{}{extension}", &stem[..end]).into())
}

/// Bytes of what is taken for a file name's extension, with its dot.
const EXTENSION_BYTES_MAX: usize = 32;

/// 1 to 32 principals, none of which stands for everybody or nobody.
pub fn accessors_are_valid(ids: &[Principal]) -> bool {
    let nobody = [Principal::anonymous(), Principal::management_canister()];
    (1..=ACCESSORS_MAX).contains(&ids.len()) && !ids.iter().any(|id| nobody.contains(id))
}

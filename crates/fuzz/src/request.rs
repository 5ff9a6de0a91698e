//! Requests for blobs: path, query, headers, and the file name that goes back.

use data_bucket::request::{
    ByteRange, byte_range, disposition, matches_etag, parse_path, parse_query, part_of,
};
use openstorage_types::limits::CHUNK_BYTES;

const ETAG: &str = "\"abababababababababababababababababababababababababababababababab\"";

/// A path means one blob of one accessor, and nothing else means the same.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some((accessor, blob)) = parse_path(text) {
        assert_eq!(
            text,
            format!("/{accessor}/{blob}"),
            "a second path of one blob"
        );
    }
}

/// A query has at most one token, which stands in it as it is.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let named = text
        .split('&')
        .filter(|pair| pair.starts_with("token="))
        .count();
    let token = parse_query(text);
    assert_eq!(token.is_some(), named == 1);
    if let Some(token) = token {
        assert!(!token.contains('&'));
        assert!(text.contains(&format!("token={token}")));
    }
}

/// What is served for a range lies inside of the body. The first eight bytes are the body's size.
pub fn range(data: &[u8]) {
    let Some((size, text)) = data.split_first_chunk::<8>() else {
        return;
    };
    let size = u64::from_le_bytes(*size);
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    if let ByteRange::Bytes { from, len } = byte_range(text, size) {
        assert!(
            len > 0 && from < size && len <= size - from,
            "{text} of {size}"
        );
    }
    if let Some(part) = part_of(text, size) {
        let from = u64::from(part) * CHUNK_BYTES;
        // The range is an open one, and begins where the part does.
        let len = size - from;
        assert_eq!(byte_range(text, size), ByteRange::Bytes { from, len });
    }
}

/// A tag is known when it, or all, is named, and a list with it still names it.
pub fn if_none_match(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if matches_etag(text, ETAG) {
        assert!(text.contains(ETAG) || text.contains('*'));
    }
    assert!(matches_etag(&format!("{text},{ETAG}"), ETAG));
}

/// No name leaves its header, leads to another folder, or is shown other than it is; and the two forms agree.
pub fn file_name(data: &[u8]) {
    let Ok(name) = std::str::from_utf8(data) else {
        return;
    };
    let text = disposition("attachment", Some(name));
    let Some(quoted) = text.strip_prefix("attachment; filename=\"") else {
        assert_eq!(text, "attachment");
        return;
    };
    let (ascii, rest) = quoted.split_once('"').expect("a quoted name");
    assert!(
        ascii
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && !b"\"\\/%".contains(&byte))
    );
    if rest.is_empty() {
        assert!(
            name.contains(ascii)
                || name.chars().any(|c| !c.is_ascii() || c.is_control())
                || name.contains(['/', '\\'])
        );
        return;
    }
    let coded = rest
        .strip_prefix("; filename*=UTF-8''")
        .expect("the whole name");
    assert!(
        coded
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\"';\\".contains(&byte))
    );
    let whole = String::from_utf8(decoded(coded)).expect("the name is text");
    let is_harmful = |c: char| c.is_control() || "/\\\u{202e}\u{2066}".contains(c);
    assert!(!whole.contains(is_harmful) && !whole.starts_with('.'));
}

fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let pair = [bytes.next(), bytes.next()].map(|digit| digit.expect("two digits"));
                let digits = std::str::from_utf8(&pair).expect("ASCII");
                u8::from_str_radix(digits, 16).expect("hexadecimal digits")
            }
            byte => byte,
        });
    }
    out
}

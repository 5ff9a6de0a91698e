//! What a browser asks for: the parts of a request, each read on its own.

use candid::Principal;
use openstorage_types::{BlobId, limits::CHUNK_BYTES};

/// Bytes of a URL that is looked at: paths have 132, tokens 192, and gateways and caches add little.
pub const URL_BYTES_MAX: usize = 1_024;

/// Characters of the longest principal.
const PRINCIPAL_CHARS_MAX: usize = 63;

const CHECKSUM_BYTES: usize = 4;

/// `/{accessor_id}/{blob_id}`, each in its one canonical form.
pub fn parse_path(path: &str) -> Option<(Principal, BlobId)> {
    let (accessor, blob) = path.strip_prefix('/')?.split_once('/')?;
    let blob = blob.parse().ok()?;
    Some((parse_principal(accessor)?, blob))
}

/// A principal in its canonical form: base32 of a checksum and the id, in groups of five characters.
/// `Principal::from_text` takes other forms for a moment, and writes what it has read to compare: that was a tenth of
/// what a refusal costs.
fn parse_principal(text: &str) -> Option<Principal> {
    let mut bytes = Vec::with_capacity(CHECKSUM_BYTES + Principal::MAX_LENGTH_IN_BYTES);
    // Bits that were read and are not in `bytes` yet.
    let (mut bits, mut count) = (0u32, 0);
    for (at, character) in text.bytes().enumerate().take(PRINCIPAL_CHARS_MAX + 1) {
        let five = match character {
            b'-' if at % 6 == 5 => continue,
            b'a'..=b'z' if at % 6 < 5 => character - b'a',
            b'2'..=b'7' if at % 6 < 5 => character - b'2' + 26,
            _ => return None,
        };
        (bits, count) = (bits << 5 | u32::from(five), count + 5);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    // What is left over is less than a character, and zero.
    let is_whole = count < 5 && bits == 0 && !text.ends_with('-');
    let (checksum, id) = bytes.split_first_chunk::<CHECKSUM_BYTES>()?;
    let principal = Principal::try_from_slice(id).ok()?;
    let is_principal = is_whole && crc32(id).to_be_bytes() == *checksum;
    is_principal.then_some(principal)
}

/// CRC-32 as in Ethernet and zip, bit by bit: there are 29 bytes at most.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    let of_byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), step);
    !bytes.iter().fold(!0, of_byte)
}

/// The one token of a query.
pub fn parse_query(query: &str) -> Option<&str> {
    let mut tokens = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("token="));
    let token = tokens.next()?;
    tokens.next().is_none().then_some(token)
}

/// The number of the part that begins where `bytes=n-` does; none for any other range.
pub fn part_of(range: &str, size: u64) -> Option<u32> {
    match byte_range(range, size) {
        ByteRange::Bytes { from, len } if from + len == size && range.ends_with('-') => {
            part_at(from)
        }
        _ => None,
    }
}

/// The number of the part that a range of a body is, to the byte.
pub fn whole_part(from: u64, len: u64, size: u64) -> Option<u32> {
    part_at(from).filter(|_| len == CHUNK_BYTES.min(size - from))
}

/// The number of the part that begins there.
fn part_at(from: u64) -> Option<u32> {
    let is_start = from.is_multiple_of(CHUNK_BYTES);
    is_start.then(|| u32::try_from(from / CHUNK_BYTES).ok())?
}

/// What a `Range` header means for a body of some size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// No single range of bytes: it is ignored, and the whole is served.
    Ignored,
    /// The first byte and the length, at least 1.
    Bytes { from: u64, len: u64 },
    /// Nothing of the body lies in it.
    Unsatisfiable,
}

/// One range as RFC 9110 writes it: `bytes=a-b`, `bytes=a-` or `bytes=-n`.
pub fn byte_range(range: &str, size: u64) -> ByteRange {
    let is_bytes = |(unit, _): &(&str, &str)| unit.eq_ignore_ascii_case("bytes");
    let range = range.split_once('=').filter(is_bytes);
    let Some((first, last)) = range.and_then(|(_, range)| range.split_once('-')) else {
        return ByteRange::Ignored;
    };
    let (from, end) = match (number(first), number(last)) {
        (Some(from), Some(last)) if from <= last => (from, size.min(last.saturating_add(1))),
        (Some(from), None) if last.is_empty() => (from, size),
        (None, Some(len)) if first.is_empty() => (size - size.min(len), size),
        _ => return ByteRange::Ignored,
    };
    match end.checked_sub(from) {
        None | Some(0) => ByteRange::Unsatisfiable,
        Some(len) => ByteRange::Bytes { from, len },
    }
}

/// The range that a request asks for; none where its `If-Range` names other content than `etag` does, so that a
/// client that has the start of something else gets all of it anew. The comparison is the strong one, and a date
/// never matches: no answer has one.
pub fn wanted_range<'a>(
    range: Option<&'a str>,
    if_range: Option<&str>,
    etag: &str,
) -> Option<&'a str> {
    range.filter(|_| if_range.is_none_or(|tag| tag.trim() == etag))
}

/// Digits only. What is larger than any size reads as the largest number.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Whether `If-None-Match` names this ETag, or any. The comparison is the weak one.
pub fn matches_etag(if_none_match: &str, etag: &str) -> bool {
    if_none_match
        .split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// What a browser does with a blob, `inline` or `attachment`, and the name under which it is saved: in ASCII, and
/// where that is not all of it as RFC 8187 has it, too.
pub fn disposition(kind: &str, name: Option<&str>) -> String {
    // As most are: nothing to change.
    if let Some(name) = name.filter(|name| is_plain(name)) {
        return format!("{kind}; filename=\"{name}\"");
    }
    let Some(name) = name.map(safe_name).filter(|name| !name.is_empty()) else {
        return kind.into();
    };
    let ascii = ascii_name(&name);
    let mut text = format!("{kind}; filename=\"{ascii}\"");
    if ascii != name {
        text.push_str("; filename*=UTF-8''");
        push_encoded(&mut text, &name);
    }
    text
}

/// Letters, digits, `-` and `_`, with dots between them.
fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    name.bytes().all(is_plain) && !name.starts_with('.') && !name.ends_with('.') && !name.is_empty()
}

/// A name without what leads elsewhere, hides, or shows other than it is: separators of paths, dots in front, and
/// characters that cannot be seen or turn the direction of reading.
fn safe_name(name: &str) -> String {
    let is_unseen = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
    };
    let kept = name.chars().filter(|c| !is_unseen(*c));
    let kept: String = kept
        .map(|c| if matches!(c, '/' | '\\') { '_' } else { c })
        .collect();
    kept.trim_start_matches(['.', ' '])
        .trim_end_matches(['.', ' '])
        .to_owned()
}

/// A name for clients that read ASCII alone: `_` in place of each run of other characters, and of those that mean
/// something in a header. The extension stays.
fn ascii_name(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut is_run = false;
    for c in name.chars() {
        let is_kept = c.is_ascii_alphanumeric() || " -._~()[]{}!#$&+,;=@^".contains(c);
        if is_kept {
            text.push(c);
        } else if !is_run {
            text.push('_');
        }
        is_run = !is_kept;
    }
    text
}

/// All but letters, digits and `-._~` as %XX of UTF-8.
fn push_encoded(text: &mut String, name: &str) {
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte as char);
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
            text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_read_in_its_canonical_form_alone() {
        let canonical = |text: &str| {
            let principal = Principal::from_text(text).ok()?;
            (principal.to_text() == text).then_some(principal)
        };
        for len in 0..=29 {
            let id: Vec<_> = (0..len).map(|i: u8| i.wrapping_mul(37) ^ len).collect();
            let principal = Principal::from_slice(&id);
            let text = principal.to_text();
            assert_eq!(parse_principal(&text), Some(principal), "{text}");
            let mut others = vec![text.to_uppercase(), text.replace('-', "")];
            for at in 0..=text.len() {
                let (front, rest) = text.split_at(at);
                others.push(front.to_owned());
                for other in ["", "-", "a", "7", "1", "A", "é"] {
                    others.push(format!("{front}{other}{rest}"));
                    others.push(format!("{front}{other}{}", rest.get(1..).unwrap_or("")));
                }
            }
            for other in others {
                assert_eq!(parse_principal(&other), canonical(&other), "{other}");
            }
        }
        let longest = Principal::from_slice(&[255; 29]).to_text();
        assert_eq!(longest.len(), PRINCIPAL_CHARS_MAX);
        assert_eq!(parse_principal(&longest.repeat(1_000)), None);
    }

    #[test]
    fn a_part_is_asked_for_from_its_first_byte() {
        let size = 2 * CHUNK_BYTES + 1;
        for (range, part) in [
            ("bytes=0-", Some(0)),
            ("bytes=2000000-", Some(1)),
            ("bytes=4000000-", Some(2)),
            ("bytes=1-", None),
            ("bytes=1999999-", None),
            ("bytes=4000001-", None),
            ("bytes=6000000-", None),
            ("bytes=0-4000000", None),
            ("bytes=-4000001", None),
            ("bytes=", None),
            ("bytes=+0-", None),
            ("items=0-", None),
            ("bytes=99999999999999999999-", None),
        ] {
            assert_eq!(part_of(range, size), part, "{range}");
        }
        for ((from, len), part) in [
            ((0, CHUNK_BYTES), Some(0)),
            ((CHUNK_BYTES, CHUNK_BYTES), Some(1)),
            ((2 * CHUNK_BYTES, 1), Some(2)),
            ((0, CHUNK_BYTES - 1), None),
            ((0, CHUNK_BYTES + 1), None),
            ((1, CHUNK_BYTES), None),
        ] {
            assert_eq!(whole_part(from, len, size), part, "{from} {len}");
        }
    }

    #[test]
    fn a_range_is_read_as_http_means_it() {
        let bytes = |from, len| ByteRange::Bytes { from, len };
        for (range, meaning) in [
            ("bytes=0-1", bytes(0, 2)),
            ("Bytes=0-1", bytes(0, 2)),
            ("bytes=0-", bytes(0, 10)),
            ("bytes=9-99999999999999999999", bytes(9, 1)),
            ("bytes=-3", bytes(7, 3)),
            ("bytes=-11", bytes(0, 10)),
            ("bytes=-0", ByteRange::Unsatisfiable),
            ("bytes=10-", ByteRange::Unsatisfiable),
            ("bytes=99999999999999999999-", ByteRange::Unsatisfiable),
            ("bytes=5-4", ByteRange::Ignored),
            ("bytes=0-1,3-4", ByteRange::Ignored),
            ("bytes=-", ByteRange::Ignored),
            ("items=0-1", ByteRange::Ignored),
            ("", ByteRange::Ignored),
        ] {
            assert_eq!(byte_range(range, 10), meaning, "{range}");
        }
        assert_eq!(byte_range("bytes=0-", 0), ByteRange::Unsatisfiable);
    }

    #[test]
    fn a_known_tag_may_stand_in_a_list_and_be_weak() {
        for known in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "*"] {
            assert!(matches_etag(known, "\"a\""), "{known}");
        }
        for unknown in ["", "a", "\"b\"", "\"A\""] {
            assert!(!matches_etag(unknown, "\"a\""), "{unknown}");
        }
    }

    #[test]
    fn a_range_of_other_content_is_not_wanted() {
        let range = Some("bytes=0-1");
        for matching in [None, Some("\"a\""), Some(" \"a\" ")] {
            assert_eq!(wanted_range(range, matching, "\"a\""), range);
        }
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        for other in ["", "a", "\"b\"", "W/\"a\"", "*", "\"a\", \"b\"", date] {
            assert_eq!(wanted_range(range, Some(other), "\"a\""), None, "{other}");
        }
        assert_eq!(wanted_range(None, None, "\"a\""), None);
    }

    #[test]
    fn a_file_name_is_kept_and_does_no_harm() {
        for (name, shown) in [
            ("a.png", "; filename=\"a.png\""),
            ("a b (1).tar.gz", "; filename=\"a b (1).tar.gz\""),
            (
                "\u{5c65}\u{6b74}\u{66f8}.pdf",
                "; filename=\"_.pdf\"; filename*=UTF-8''%E5%B1%A5%E6%AD%B4%E6%9B%B8.pdf",
            ),
            (
                "a\"b;\r\nc é%41.txt",
                "; filename=\"a_b;c _41.txt\"; filename*=UTF-8''a%22b%3Bc%20%C3%A9%2541.txt",
            ),
            // Shown as `exe.png` where the direction is turned.
            ("a\u{202e}gnp.exe", "; filename=\"agnp.exe\""),
            ("../../.bashrc", "; filename=\"_.._.bashrc\""),
            ("..\\x", "; filename=\"_x\""),
            (".profile", "; filename=\"profile\""),
            ("a.exe. ", "; filename=\"a.exe\""),
            ("..", ""),
            ("\u{202e}", ""),
        ] {
            for kind in ["inline", "attachment"] {
                assert_eq!(
                    disposition(kind, Some(name)),
                    format!("{kind}{shown}"),
                    "{name:?}"
                );
            }
        }
        assert_eq!(disposition("attachment", None), "attachment");
    }
}

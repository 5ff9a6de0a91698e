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

/// The number of the part in which `bytes=n-` begins; none for a range of another form, or past the end.
pub fn part_of(range: &str, size: u64) -> Option<u32> {
    let start = range.strip_prefix("bytes=")?.strip_suffix('-')?;
    let start = number(start).filter(|start| *start < size)?;
    u32::try_from(start / CHUNK_BYTES).ok()
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
    let Some((first, last)) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
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

/// A download under this name: all but letters, digits and `-._~` as %XX of UTF-8, as RFC 8187 has it.
pub fn disposition(name: Option<&str>) -> String {
    let Some(name) = name else {
        return "attachment".into();
    };
    let start = String::from("attachment; filename*=UTF-8''");
    name.bytes().fold(start, |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte as char);
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
            text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
        text
    })
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
    fn the_part_is_the_one_in_which_the_range_begins() {
        let size = 2 * CHUNK_BYTES + 1;
        for (range, part) in [
            ("bytes=0-", 0),
            ("bytes=1-", 0),
            ("bytes=1999999-", 0),
            ("bytes=2000000-", 1),
            ("bytes=4000000-", 2),
        ] {
            assert_eq!(part_of(range, size), Some(part), "{range}");
        }
        for range in [
            "bytes=4000001-",
            "bytes=6000000-",
            "bytes=0-1",
            "bytes=-5",
            "bytes=",
            "bytes=+0-",
            "items=0-",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(part_of(range, size), None, "{range}");
        }
    }

    #[test]
    fn a_range_is_read_as_http_means_it() {
        let bytes = |from, len| ByteRange::Bytes { from, len };
        for (range, meaning) in [
            ("bytes=0-1", bytes(0, 2)),
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
    fn a_file_name_cannot_break_out_of_its_header() {
        assert_eq!(
            disposition(Some("a\"b;\r\nc é.txt")),
            "attachment; filename*=UTF-8''a%22b%3B%0D%0Ac%20%C3%A9.txt"
        );
    }
}

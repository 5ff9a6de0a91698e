//! The Candid of `http_request`, read and written by hand: Candid's own decoder and encoder cost more than all
//! that a refusal needs besides, and a refusal is what strangers can have as often as they like.
//!
//! Only the form that gateways send is read here, every other by Candid itself.

use std::borrow::Cow;

use candid::encode_one;
use openstorage_canister::{encode_value, write_length};
use openstorage_types::http::{HttpRequest, HttpResponse, StreamedResponse, StreamingStrategy};
use serde_bytes::ByteBuf;

/// Bytes of a request that is read as it comes: browsers send some 2 KB of headers, and the URL may have 1 KiB.
pub const REQUEST_BYTES_MAX: usize = 8 * 1_024;

/// Headers of a request: browsers and gateways send some 25 together.
const HEADERS_MAX: usize = 64;

/// The headers that answers depend on; no others are looked at.
const HEADERS: [&str; 4] = ["range", "if-range", "if-none-match", "origin"];

/// Bytes of a header's value that is looked at: a longer one counts as an empty one, which is no range and no tag.
const VALUE_BYTES_MAX: usize = 1_024;

/// A request that is longer is read by windows of so many bytes, so many of them at most. Long values of headers lie
/// between them and do not count, such as the cookies that a gateway's domain has collected.
const WINDOW_BYTES: usize = 4 * 1_024;
const LONG_WINDOWS_MAX: usize = 4;

/// Why a request was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It has another form than gateways send.
    OtherForm,
    /// It has more than 64 headers, or more of them than is read.
    TooLong,
}

/// What stands before the values of a request: Candid's magic, and the types. A test compares it with what Candid writes.
const REQUEST: &[u8] = b"\
    DIDL\x05l\x05\xef\xd6\xe4\x02q\xe1\xed\xebJq\xa2\xf5\xed\x88\x04\x01\xc6\xa4\xa1\x98\x06\x02\xb0\
    \xf1\xb9\x98\x06\x04m\x7bm\x03l\x02\x00q\x01qnz\x01\x00";

/// The same of an [`UpgradableResponse`](openstorage_types::http::UpgradableResponse).
const RESPONSE: &[u8] = b"\
    DIDL\x05l\x04\xa2\xf5\xed\x88\x04\x01\xc6\xa4\xa1\x98\x06\x02\x9c\xe9\xc6\x99\x06\x04\x9a\xa1\
    \xb2\xf9\x0czm\x7bm\x03l\x02\x00q\x01qn\x7e\x01\x00";

/// Of a value in Candid what stands before its `values` bytes.
fn types(encoded: candid::Result<Vec<u8>>, values: usize) -> Vec<u8> {
    let mut bytes = encoded.expect("it has a Candid form");
    bytes.truncate(bytes.len() - values);
    bytes
}

/// What stands before a response whose body goes on. Described anew each time: its bytes cost far more.
fn streamed() -> Vec<u8> {
    let streamed = StreamedResponse {
        status_code: 0,
        headers: vec![],
        body: ByteBuf::new(),
        upgrade: None,
        streaming_strategy: None,
    };
    // Two lengths, no upgrade, no strategy and a status code.
    types(encode_one(streamed), 6)
}

/// A request, with the headers that count.
pub fn read(bytes: &[u8]) -> Result<HttpRequest, Unread> {
    let values = bytes.strip_prefix(REQUEST);
    let mut rest = Reader(values.ok_or(Unread::OtherForm)?);
    let (url, method, headers) = rest.before_headers().ok_or(Unread::OtherForm)?;
    if headers > HEADERS_MAX {
        return Err(Unread::TooLong);
    }
    let (headers, certificate_version) = rest.headers(headers).ok_or(Unread::OtherForm)?;
    Ok(HttpRequest {
        method,
        url,
        headers,
        body: ByteBuf::new(),
        certificate_version,
    })
}

/// As [`read`], a request of `len` bytes of which `copy` gives as many as are wanted, from where they
/// are wanted. Long values of headers are skipped: they count as empty ones.
pub fn read_long(
    len: usize,
    copy: impl Fn(usize, usize) -> Vec<u8>,
) -> Result<HttpRequest, Unread> {
    let mut windows = LONG_WINDOWS_MAX;
    let mut window = |at: usize| {
        let left = len.checked_sub(at).ok_or(Unread::OtherForm)?;
        windows = windows.checked_sub(1).ok_or(Unread::TooLong)?;
        Ok(copy(at, left.min(WINDOW_BYTES)))
    };
    let mut bytes = window(0)?;
    let values = bytes.strip_prefix(REQUEST);
    let mut rest = Reader(values.ok_or(Unread::OtherForm)?);
    let (url, method, headers) = rest.before_headers().ok_or(Unread::TooLong)?;
    if headers > HEADERS_MAX {
        return Err(Unread::TooLong);
    }
    let mut found = Found::default();
    // Where the window begins, and what of it was read.
    let (mut at, mut read) = (0, bytes.len() - rest.0.len());
    for _ in 0..headers {
        let (name, value, whole) = match header(&bytes[read..]) {
            Some(header) => header,
            None => {
                (at, read) = (at + read, 0);
                bytes = window(at)?;
                header(&bytes).ok_or(Unread::TooLong)?
            }
        };
        found.look(name, value);
        read += whole;
        if read > bytes.len() {
            (at, read) = (at + read, 0);
            bytes = window(at)?;
        }
    }
    let end = at + read;
    let tail = len.checked_sub(end).filter(|tail| *tail <= 3);
    let tail = tail.map(|tail| copy(end, tail));
    let certificate_version = tail.and_then(|tail| Reader(&tail).version());
    Ok(HttpRequest {
        method,
        url,
        headers: found.texts().ok_or(Unread::OtherForm)?,
        body: ByteBuf::new(),
        certificate_version: certificate_version.ok_or(Unread::OtherForm)?,
    })
}

/// A response, before and after a body of `len` more bytes than it has. With `upgrade` the gateway is to ask
/// again by an update; with `strategy` for what follows.
pub fn write(
    response: &HttpResponse,
    len: u64,
    upgrade: bool,
    strategy: Option<&StreamingStrategy>,
) -> (Vec<u8>, Vec<u8>) {
    let types = match strategy {
        None => Cow::Borrowed(RESPONSE),
        Some(_) => Cow::Owned(streamed()),
    };
    let mut head = Vec::with_capacity(types.len() + 10 + response.body.len());
    head.extend_from_slice(&types);
    write_length(&mut head, response.body.len() as u64 + len);
    head.extend_from_slice(&response.body);
    let mut tail = Vec::with_capacity(4_096);
    write_length(&mut tail, response.headers.len() as u64);
    for text in response
        .headers
        .iter()
        .flat_map(|(name, value)| [name, value])
    {
        write_length(&mut tail, text.len() as u64);
        tail.extend_from_slice(text.as_bytes());
    }
    // As an option.
    tail.extend_from_slice(if upgrade { &[1, 1] } else { &[0] });
    if let Some(strategy) = strategy {
        tail.push(1);
        tail = encode_value(strategy, tail);
    }
    tail.extend_from_slice(&response.status_code.to_le_bytes());
    (head, tail)
}

/// Names and values.
type Headers = Vec<(String, String)>;

/// Takes values from the front, never more than there are.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    /// A LEB128 number below 2²⁸: nothing in a request is longer.
    fn length(&mut self) -> Option<usize> {
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            length |= usize::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Some(length);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// URL, method and the number of headers. The fields come in the order of their hashes.
    fn before_headers(&mut self) -> Option<(String, String, usize)> {
        let (url, method) = (self.text()?.to_owned(), self.text()?.to_owned());
        self.bytes()?;
        Some((url, method, self.length()?))
    }

    /// The rest of a request: those of so many headers that count, and the version of certificates that is wanted.
    fn headers(mut self, count: usize) -> Option<(Headers, Option<u16>)> {
        let mut found = Found::default();
        for _ in 0..count {
            found.look(self.bytes()?, self.bytes()?);
        }
        Some((found.texts()?, self.version()?))
    }

    /// What stands behind the headers, and nothing else.
    fn version(mut self) -> Option<Option<u16>> {
        let version = match self.take(1)? {
            [0] => None,
            [1] => Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?)),
            _ => return None,
        };
        self.0.is_empty().then_some(version)
    }
}

/// The header with which `bytes` begin: its name, its value, which counts as empty where it is long, and the bytes of
/// both. None where it does not end there.
fn header(bytes: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let mut rest = Reader(bytes);
    let (name, len) = (rest.bytes()?, rest.length()?);
    let before = bytes.len() - rest.0.len();
    let is_long = len > VALUE_BYTES_MAX;
    let value = rest.take(if is_long { 0 } else { len })?;
    Some((name, value, before + len))
}

/// The headers that count, each under its name as it was sent.
#[derive(Default)]
struct Found([Option<(Vec<u8>, Vec<u8>)>; HEADERS.len()]);

impl Found {
    fn look(&mut self, name: &[u8], value: &[u8]) {
        // The first of a name counts.
        let mut wanted = HEADERS.iter().zip(&mut self.0);
        let place = wanted.find_map(|(wanted, place)| {
            let is_new = place.is_none() && wanted.as_bytes().eq_ignore_ascii_case(name);
            is_new.then_some(place)
        });
        if let Some(place) = place {
            let is_long = value.len() > VALUE_BYTES_MAX;
            let value = if is_long { b"" } else { value };
            *place = Some((name.to_vec(), value.to_vec()));
        }
    }

    fn texts(self) -> Option<Headers> {
        let text = |bytes| String::from_utf8(bytes).ok();
        let found = self.0.into_iter().flatten();
        let texts = found.map(|(name, value)| Some((text(name)?, text(value)?)));
        texts.collect()
    }
}

#[cfg(test)]
mod tests {
    use candid::Principal;
    use openstorage_types::http::{StreamingCallback, StreamingToken, UpgradableResponse};

    use super::*;

    fn request(headers: &[(&str, &str)], certificate_version: Option<u16>) -> HttpRequest {
        let headers = headers.iter();
        HttpRequest {
            method: "GET".into(),
            url: format!("/{}", "é".repeat(200)),
            headers: headers
                .map(|(a, b)| (a.to_string(), b.to_string()))
                .collect(),
            body: ByteBuf::from(vec![7; 200]),
            certificate_version,
        }
    }

    #[test]
    fn types_are_as_candid_writes_them() {
        let request = HttpRequest {
            method: String::new(),
            url: String::new(),
            headers: vec![],
            body: ByteBuf::new(),
            certificate_version: None,
        };
        // Four lengths and no version.
        assert_eq!(types(encode_one(request), 5), REQUEST);
        let response = UpgradableResponse {
            status_code: 0,
            headers: vec![],
            body: ByteBuf::new(),
            upgrade: None,
        };
        // Two lengths, no upgrade and a status code.
        assert_eq!(types(encode_one(response), 5), RESPONSE);
    }

    #[test]
    fn what_candid_writes_is_read_but_for_what_does_not_count() {
        for version in [None, Some(2), Some(u16::MAX)] {
            for headers in [
                &[][..],
                &[
                    ("Host", "x"),
                    ("RANGE", "bytes=0-"),
                    ("If-None-Match", "\"é\""),
                ],
            ] {
                let sent = request(headers, version);
                let read = super::read(&encode_one(&sent).unwrap()).unwrap();
                assert_eq!((&read.url, &read.method), (&sent.url, &sent.method));
                assert_eq!(read.certificate_version, version);
                for name in HEADERS {
                    assert_eq!(read.header(name), sent.header(name), "{name}");
                }
                assert_eq!(read.header("host"), None);
            }
        }
    }

    #[test]
    fn a_long_header_counts_as_empty() {
        for (len, read) in [(1_024, 1_024), (1_025, 0)] {
            let value = "a".repeat(len);
            let bytes = encode_one(request(&[("If-Range", &value)], Some(2))).unwrap();
            let request = super::read(&bytes).unwrap();
            assert_eq!(request.header("if-range").map(str::len), Some(read));
        }
    }

    #[test]
    fn long_values_do_not_count_and_the_rest_is_bounded() {
        let read = |headers: &[(&str, &str)]| {
            let bytes = encode_one(request(headers, Some(2))).unwrap();
            assert!(bytes.len() > REQUEST_BYTES_MAX);
            let copied = std::cell::Cell::new(0);
            let read = read_long(bytes.len(), |at, len| {
                copied.set(copied.get() + len);
                bytes[at..at + len].to_vec()
            });
            assert!(
                copied.get() <= LONG_WINDOWS_MAX * WINDOW_BYTES + 3,
                "{}",
                copied.get()
            );
            read
        };
        for len in [9_000, 100_000] {
            let cookies = "a".repeat(len);
            let headers = [
                ("host", "x"),
                ("cookie", &cookies),
                ("Range", "bytes=0-"),
                ("if-range", &cookies),
            ];
            let request = read(&headers).unwrap();
            assert_eq!(request.url, format!("/{}", "é".repeat(200)));
            assert_eq!(request.header("range"), Some("bytes=0-"));
            assert_eq!(request.header("if-range"), Some(""));
            assert_eq!(request.certificate_version, Some(2));
        }
        let value = "a".repeat(1_024);
        assert!(read(&[("x", value.as_str()); 9]).is_ok());
        assert_eq!(read(&[("x", value.as_str()); 16]), Err(Unread::TooLong));
        let name = "a".repeat(9_000);
        assert_eq!(read(&[(&name, "x")]), Err(Unread::TooLong));
        // Lengths that promise more than there is.
        let bytes = encode_one(request(&[("cookie", &"a".repeat(9_000))], Some(2))).unwrap();
        for len in [bytes.len() / 2, bytes.len() - 1] {
            let cut = |at: usize, n: usize| bytes[at..at + n].to_vec();
            assert_eq!(read_long(len, cut), Err(Unread::OtherForm), "{len}");
        }
    }

    #[test]
    fn so_many_headers_are_read_and_no_more() {
        let mut headers = vec![("x", "y"); HEADERS_MAX - 1];
        headers.push(("range", "bytes=0-"));
        let read = |headers: &[(&str, &str)]| {
            let bytes = encode_one(request(headers, Some(2))).unwrap();
            super::read(&bytes)
        };
        let known = read(&headers).unwrap();
        assert_eq!(known.header("range"), Some("bytes=0-"));
        headers.push(("x", "y"));
        assert_eq!(read(&headers), Err(Unread::TooLong));
    }

    #[test]
    fn what_is_cut_off_or_of_another_form_is_left_to_candid() {
        let bytes = encode_one(request(&[("range", "bytes=0-")], Some(2))).unwrap();
        for len in 0..bytes.len() {
            assert_eq!(super::read(&bytes[..len]), Err(Unread::OtherForm), "{len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(super::read(&longer), Err(Unread::OtherForm));
        for other in [encode_one("GET"), encode_one(None::<u16>)] {
            assert_eq!(super::read(&other.unwrap()), Err(Unread::OtherForm));
        }
        // Lengths that promise more than there is, or never end.
        for length in [&[0xff; 5][..], &[0xff, 0xff, 0xff, 0x7f]] {
            let bomb = [REQUEST, length].concat();
            assert_eq!(super::read(&bomb), Err(Unread::OtherForm));
        }
    }

    #[test]
    fn what_is_written_is_what_candid_would_write() {
        for len in [0, 1, 127, 128, 70_000] {
            for upgrade in [None, Some(true)] {
                let headers = vec![("A".into(), "b".repeat(300))];
                let response = |body: &[u8]| HttpResponse {
                    status_code: 206,
                    headers: headers.clone(),
                    body: body.to_vec().into(),
                };
                let bytes = vec![7; len];
                let expected = encode_one(UpgradableResponse {
                    status_code: 206,
                    headers: headers.clone(),
                    body: bytes.clone().into(),
                    upgrade,
                });
                let expected = expected.unwrap();
                let written =
                    |body: &[u8], len| write(&response(body), len, upgrade.is_some(), None);
                let (head, tail) = written(&[], len as u64);
                assert_eq!([&head[..], &bytes[..], &tail[..]].concat(), expected);
                let (head, tail) = written(&bytes, 0);
                assert_eq!([head, tail].concat(), expected);
                let strategy = StreamingStrategy::Callback {
                    callback: StreamingCallback::new(Principal::anonymous(), "more".into()),
                    token: StreamingToken {
                        url: "/m".into(),
                        from: 1,
                        end: 2,
                        piece: 3,
                    },
                };
                let expected = encode_one(StreamedResponse {
                    status_code: 206,
                    headers: headers.clone(),
                    body: bytes.clone().into(),
                    upgrade,
                    streaming_strategy: Some(strategy.clone()),
                });
                let (head, tail) = write(&response(&bytes), 0, upgrade.is_some(), Some(&strategy));
                assert_eq!([head, tail].concat(), expected.unwrap());
            }
        }
    }
}

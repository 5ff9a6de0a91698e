//! The Candid of `http_request`, read and written by hand: Candid's own decoder and encoder cost more than all
//! that a refusal needs besides, and a refusal is what strangers can have as often as they like.
//!
//! Only the form that gateways send is read here, every other by Candid itself.

use candid::encode_one;
use openstorage_types::http::{HttpRequest, HttpResponse, UpgradableResponse};
use serde_bytes::ByteBuf;

/// Bytes of a request that is read at all: browsers send some 2 KB of headers, and the URL may have 1 KiB.
pub const REQUEST_BYTES_MAX: usize = 8 * 1_024;

/// Headers of a request: browsers and gateways send some 25 together.
const HEADERS_MAX: usize = 64;

/// The headers that answers depend on; no others are looked at.
const HEADERS: [&str; 3] = ["range", "if-range", "if-none-match"];

/// Bytes of a header's value that is looked at: a longer one counts as an empty one, which is no range and no tag.
const VALUE_BYTES_MAX: usize = 1_024;

/// Why a request was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It has another form than gateways send.
    OtherForm,
    /// It has more than 64 headers.
    TooManyHeaders,
}

/// What stands before the values: the magic, and the types. Computed once after each upgrade.
pub struct Gateway {
    request: Vec<u8>,
    response: Vec<u8>,
}

impl Default for Gateway {
    fn default() -> Self {
        let request = HttpRequest {
            method: String::new(),
            url: String::new(),
            headers: vec![],
            body: ByteBuf::new(),
            certificate_version: None,
        };
        let response = UpgradableResponse {
            status_code: 0,
            headers: vec![],
            body: ByteBuf::new(),
            upgrade: None,
        };
        let types = |encoded: candid::Result<Vec<u8>>, values: usize| {
            let mut bytes = encoded.expect("it has a Candid form");
            bytes.truncate(bytes.len() - values);
            bytes
        };
        Self {
            // Four lengths and no version.
            request: types(encode_one(request), 5),
            // Two lengths, no upgrade and a status code.
            response: types(encode_one(response), 5),
        }
    }
}

impl Gateway {
    /// A request, with the headers that count.
    pub fn read(&self, bytes: &[u8]) -> Result<HttpRequest, Unread> {
        let values = bytes.strip_prefix(self.request.as_slice());
        let mut rest = Reader(values.ok_or(Unread::OtherForm)?);
        let (url, method, headers) = rest.before_headers().ok_or(Unread::OtherForm)?;
        if headers > HEADERS_MAX {
            return Err(Unread::TooManyHeaders);
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

    /// A response, before and after a body of `len` more bytes than it has. With `upgrade` the gateway is to ask
    /// again by an update.
    pub fn write(&self, response: &HttpResponse, len: u64, upgrade: bool) -> (Vec<u8>, Vec<u8>) {
        let mut head = Vec::with_capacity(self.response.len() + 10 + response.body.len());
        head.extend_from_slice(&self.response);
        openstorage_canister::write_length(&mut head, response.body.len() as u64 + len);
        head.extend_from_slice(&response.body);
        let mut tail = Vec::with_capacity(4_096);
        openstorage_canister::write_length(&mut tail, response.headers.len() as u64);
        for text in response
            .headers
            .iter()
            .flat_map(|(name, value)| [name, value])
        {
            openstorage_canister::write_length(&mut tail, text.len() as u64);
            tail.extend_from_slice(text.as_bytes());
        }
        // As an option.
        tail.extend_from_slice(if upgrade { &[1, 1] } else { &[0] });
        tail.extend_from_slice(&response.status_code.to_le_bytes());
        (head, tail)
    }
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

    /// The rest of a request: those of so many headers that count, under their names in lower case, and the
    /// version of certificates that is wanted.
    fn headers(mut self, count: usize) -> Option<(Headers, Option<u16>)> {
        let mut found = [None; HEADERS.len()];
        for _ in 0..count {
            let (name, value) = (self.bytes()?, self.bytes()?);
            let is_wanted = |wanted: &&str| wanted.as_bytes().eq_ignore_ascii_case(name);
            if let Some(which) = HEADERS.iter().position(is_wanted) {
                // The first of a name counts.
                found[which].get_or_insert(value);
            }
        }
        let mut headers = vec![];
        for (name, value) in HEADERS.into_iter().zip(found) {
            let Some(value) = value else { continue };
            let is_long = value.len() > VALUE_BYTES_MAX;
            let value = std::str::from_utf8(if is_long { b"" } else { value }).ok()?;
            headers.push((name.to_owned(), value.to_owned()));
        }
        let certificate_version = match self.take(1)? {
            [0] => None,
            [1] => Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?)),
            _ => return None,
        };
        self.0.is_empty().then_some((headers, certificate_version))
    }
}

#[cfg(test)]
mod tests {
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
    fn what_candid_writes_is_read_but_for_what_does_not_count() {
        let gateway = Gateway::default();
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
                let read = gateway.read(&encode_one(&sent).unwrap()).unwrap();
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
        let gateway = Gateway::default();
        for (len, read) in [(1_024, 1_024), (1_025, 0)] {
            let value = "a".repeat(len);
            let bytes = encode_one(request(&[("If-Range", &value)], Some(2))).unwrap();
            let request = gateway.read(&bytes).unwrap();
            assert_eq!(request.header("if-range").map(str::len), Some(read));
        }
    }

    #[test]
    fn so_many_headers_are_read_and_no_more() {
        let gateway = Gateway::default();
        let mut headers = vec![("x", "y"); HEADERS_MAX - 1];
        headers.push(("range", "bytes=0-"));
        let read = |headers: &[(&str, &str)]| {
            let bytes = encode_one(request(headers, Some(2))).unwrap();
            gateway.read(&bytes)
        };
        let known = read(&headers).unwrap();
        assert_eq!(known.header("range"), Some("bytes=0-"));
        headers.push(("x", "y"));
        assert_eq!(read(&headers), Err(Unread::TooManyHeaders));
    }

    #[test]
    fn what_is_cut_off_or_of_another_form_is_left_to_candid() {
        let gateway = Gateway::default();
        let bytes = encode_one(request(&[("range", "bytes=0-")], Some(2))).unwrap();
        for len in 0..bytes.len() {
            assert_eq!(gateway.read(&bytes[..len]), Err(Unread::OtherForm), "{len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(gateway.read(&longer), Err(Unread::OtherForm));
        for other in [encode_one("GET"), encode_one(None::<u16>)] {
            assert_eq!(gateway.read(&other.unwrap()), Err(Unread::OtherForm));
        }
        // Lengths that promise more than there is, or never end.
        for length in [&[0xff; 5][..], &[0xff, 0xff, 0xff, 0x7f]] {
            let bomb = [&gateway.request[..], length].concat();
            assert_eq!(gateway.read(&bomb), Err(Unread::OtherForm));
        }
    }

    #[test]
    fn what_is_written_is_what_candid_would_write() {
        let gateway = Gateway::default();
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
                let write =
                    |body: &[u8], len| gateway.write(&response(body), len, upgrade.is_some());
                let (head, tail) = write(&[], len as u64);
                assert_eq!([&head[..], &bytes[..], &tail[..]].concat(), expected);
                let (head, tail) = write(&bytes, 0);
                assert_eq!([head, tail].concat(), expected);
            }
        }
    }
}

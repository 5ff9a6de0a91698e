//! What gateways hand to `http_request`, in Candid.

use std::sync::LazyLock;

use candid::{decode_one, encode_one};
use data_bucket::gateway::read;
use openstorage_types::http::HttpRequest;

/// A request without anything: five bytes of values, with the types before them.
const VALUES_BYTES: usize = 5;

static TYPES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let request = HttpRequest {
        method: String::new(),
        url: String::new(),
        headers: vec![],
        body: Default::default(),
        certificate_version: None,
    };
    let mut bytes = encode_one(request).expect("a request has a Candid form");
    bytes.truncate(bytes.len() - VALUES_BYTES);
    bytes
});

/// The values of a request mean what they mean to Candid, of the headers that count the first of each name. (Inputs are
/// too short for a header that is too long.)
pub fn gateway(data: &[u8]) {
    let bytes = [&TYPES[..], data].concat();
    let read = read(&bytes);
    // Headers that do not count may be no text.
    let Ok(meant) = decode_one::<HttpRequest>(&bytes) else {
        return;
    };
    let Ok(read) = read else {
        return;
    };
    assert_eq!((&read.url, &read.method), (&meant.url, &meant.method));
    assert_eq!(read.certificate_version, meant.certificate_version);
    for name in ["Range", "If-Range", "If-None-Match"] {
        assert_eq!(read.header(name), meant.header(name), "{name}");
    }
}

//! The few answers that are certified: their headers, and the hashes under which a gateway looks for them
//! (HTTP gateway protocol, response verification version 2).
//!
//! All headers of an answer are certified, so none can be added, left out or changed. The first answer about
//! a blob, and HEAD, are certified together with the request's method: a node cannot serve the one for the
//! other. Parts, 304 and 416 are the same under every reference to a blob, and carry nothing of it. Of films and
//! sounds the parts after the first have the type under which the bytes came: browsers keep a range without such a
//! type from a player of another origin (opaque response blocking), and look at no more of it than that it is media.

use std::borrow::Cow;

use openstorage_certtree::{Hash, fork, labeled, leaf};
use openstorage_sha256::sha256;
use openstorage_types::{BlobId, chunk_count, http::HttpResponse, limits::CHUNK_BYTES};
use serde_bytes::ByteBuf;

use crate::{references::Reference, request::disposition};

/// Types that browsers show without running anything in them. All others are downloads.
const SHOWN: [&str; 12] = [
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "audio/ogg",
    "audio/webm",
    "audio/mpeg",
    "audio/wav",
];

pub const EXPRESSION: &str = "IC-CertificateExpression";

/// Method and body of the request, and the whole answer.
pub const WITH_METHOD: &str = "default_certification(ValidationArgs{certification:Certification{request_certification:RequestCertification{certified_request_headers:[],certified_query_parameters:[]},response_certification:ResponseCertification{response_header_exclusions:ResponseHeaderList{headers:[]}}}})";
/// The whole answer, whatever was asked.
pub const ANSWER_ONLY: &str = "default_certification(ValidationArgs{certification:Certification{no_request_certification:Empty{},response_certification:ResponseCertification{response_header_exclusions:ResponseHeaderList{headers:[]}}}})";
/// Nothing: the canister says itself that an answer is not certified.
pub const NOTHING: &str = "default_certification(ValidationArgs{no_certification:Empty{}})";

/// How long browsers show what they keep without asking: five minutes, or not at all.
const CACHE: [(&str, &str); 2] = [
    ("Cache-Control", "private, max-age=300"),
    ("Cache-Control", "private, no-cache"),
];

/// Those that answers of 304 repeat (RFC 9110, section 15.4.5, with [`CACHE`]), as they let a page of another origin
/// read them.
const OF_UNCHANGED: [(&str, &str); 2] = [
    ("Access-Control-Allow-Origin", "*"),
    ("Cross-Origin-Resource-Policy", "cross-origin"),
];

/// Those that every other answer about a blob has besides.
const OF_BLOBS: [(&str, &str); 4] = [
    ("Accept-Ranges", "bytes"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    // What a blob may do in a browser that opens it as a page: be looked at.
    (
        "Content-Security-Policy",
        "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'",
    ),
];

/// Statuses of certified answers.
const STATUSES: [u16; 5] = [200, 206, 304, 404, 416];

const MISSING: &str = "The accessor has no such blob.\n";

/// Whether a type is one of films or sounds that browsers play.
pub fn is_played(mime_type: &str) -> bool {
    SHOWN.contains(&mime_type) && !mime_type.starts_with("image/")
}

/// A header: the hashes of its name and its value.
type Pair = [Hash; 2];

/// A header of one answer.
#[derive(Debug, Clone)]
struct Field {
    name: &'static str,
    value: Cow<'static, str>,
    name_hash: Hash,
    /// None until somebody needs it.
    value_hash: Option<Hash>,
}

/// An answer without its body.
#[derive(Debug, Clone)]
pub struct Head {
    pub status: u16,
    status_pair: Pair,
    fields: Vec<Field>,
}

impl Head {
    fn new(shapes: &Shapes, status: u16) -> Self {
        let known = STATUSES.iter().position(|known| *known == status);
        let known = known.expect("one of the statuses of certified answers");
        Self {
            status,
            status_pair: shapes.statuses[known],
            fields: Vec::with_capacity(16),
        }
    }

    fn with(mut self, (name, name_hash): &(&'static str, Hash), value: String) -> Self {
        self.fields.push(Field {
            name,
            value: value.into(),
            name_hash: *name_hash,
            value_hash: None,
        });
        self
    }

    fn fixed(mut self, known: &[Known]) -> Self {
        self.fields.extend(known.iter().map(|known| Field {
            name: known.name,
            value: known.value.into(),
            name_hash: known.pair[0],
            value_hash: Some(known.pair[1]),
        }));
        self
    }

    /// The hashes under which a verifier looks for the answer, one for each SHA-256 of a body.
    fn hashes<const N: usize>(&self, bodies: [&Hash; N]) -> [Hash; N] {
        let pairs = self.fields.iter().map(|field| {
            let hash = || sha256(&[field.value.as_bytes()]);
            [field.name_hash, field.value_hash.unwrap_or_else(hash)]
        });
        // As the hash of a map wants them.
        let mut pairs: Vec<Pair> = pairs.chain([self.status_pair]).collect();
        pairs.sort_unstable();
        let headers = sha256(&[pairs.as_flattened().as_flattened()]);
        bodies.map(|body| sha256(&[&headers, body]))
    }

    /// As [`Head::hashes`], for one body.
    pub fn hash(&self, body: &Hash) -> Hash {
        let [hash] = self.hashes([body]);
        hash
    }

    pub fn response(self, body: impl Into<Vec<u8>>) -> HttpResponse {
        let fields = self.fields.into_iter();
        HttpResponse {
            status_code: self.status,
            headers: fields
                .map(|field| (field.name.into(), field.value.into_owned()))
                .collect(),
            body: ByteBuf::from(body.into()),
        }
    }
}

struct Known {
    name: &'static str,
    value: &'static str,
    pair: Pair,
}

impl Known {
    fn new(name: &'static str, value: &'static str) -> Self {
        let pair = [header_name(name), sha256(&[value.as_bytes()])];
        Self { name, value, pair }
    }
}

/// What never changes, hashed once after each upgrade.
pub struct Shapes {
    /// Of the [`STATUSES`], in their order.
    statuses: [Pair; STATUSES.len()],
    content_type: (&'static str, Hash),
    content_length: (&'static str, Hash),
    content_range: (&'static str, Hash),
    content_disposition: (&'static str, Hash),
    etag: (&'static str, Hash),
    of_blobs: Vec<Known>,
    of_unchanged: Vec<Known>,
    of_missing: Vec<Known>,
    with_method: Known,
    answer_only: Known,
    get: Hash,
    head: Hash,
    leaf: Hash,
    nothing: Hash,
    /// Of no bytes.
    empty: Hash,
    /// Of the answer of 404.
    missing: Hash,
}

impl Shapes {
    /// `is_strict`: browsers are to ask each time.
    pub fn new(is_strict: bool) -> Self {
        let name = |name| (name, header_name(name));
        let of_unchanged = [&CACHE[usize::from(is_strict)..][..1], &OF_UNCHANGED].concat();
        let fixed = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter();
            pairs.map(|(name, value)| Known::new(name, value)).collect()
        };
        let status = sha256(&[b":ic-cert-status"]);
        let mut shapes = Self {
            // A number is hashed as LEB128; these have two bytes.
            statuses: STATUSES
                .map(|code| [status, sha256(&[&[code as u8 | 0x80, (code >> 7) as u8]])]),
            content_type: name("Content-Type"),
            content_length: name("Content-Length"),
            content_range: name("Content-Range"),
            content_disposition: name("Content-Disposition"),
            etag: name("ETag"),
            of_blobs: fixed(&[&of_unchanged[..], &OF_BLOBS].concat()),
            of_unchanged: fixed(&of_unchanged),
            of_missing: fixed(&[
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
                ("Access-Control-Allow-Origin", "*"),
                ("Cross-Origin-Resource-Policy", "cross-origin"),
                ("Referrer-Policy", "no-referrer"),
            ]),
            with_method: Known::new(EXPRESSION, WITH_METHOD),
            answer_only: Known::new(EXPRESSION, ANSWER_ONLY),
            get: request_hash("GET"),
            head: request_hash("HEAD"),
            leaf: leaf(b""),
            nothing: sha256(&[NOTHING.as_bytes()]),
            empty: sha256(&[]),
            missing: [0; 32],
        };
        let (head, body) = shapes.missing();
        shapes.missing = head.hash(&sha256(&[body.as_bytes()]));
        shapes
    }

    /// Above the answers that belong to one reference.
    pub fn with_method(&self) -> &Hash {
        &self.with_method.pair[1]
    }

    /// Above the answers that a blob has in all its references.
    pub fn answer_only(&self) -> &Hash {
        &self.answer_only.pair[1]
    }

    /// Above nothing.
    pub fn nothing(&self) -> &Hash {
        &self.nothing
    }

    /// Hashes of a GET and of a HEAD without a body.
    pub fn requests(&self) -> [&Hash; 2] {
        [&self.get, &self.head]
    }

    /// What stands under every label at the bottom: an empty value.
    pub fn leaf(&self) -> &Hash {
        &self.leaf
    }

    fn of_blob(&self, status: u16, blob: &BlobId) -> Head {
        Head::new(self, status)
            .fixed(&self.of_blobs)
            .with(&self.etag, etag(blob))
    }

    /// A blob as a reference shows it, before its length.
    pub fn shown(&self, status: u16, blob: &BlobId, seen: &Reference) -> Head {
        let head = self
            .of_blob(status, blob)
            .with(&self.content_type, seen.mime_type.clone());
        match SHOWN.contains(&seen.mime_type.as_str()) {
            true => head,
            false => head.with(&self.content_disposition, disposition(seen.name.as_deref())),
        }
    }

    pub fn length(&self, head: Head, len: u64) -> Head {
        head.with(&self.content_length, len.to_string())
    }

    /// `len` bytes from `from` of `size`.
    pub fn range(&self, head: Head, from: u64, len: u64, size: u64) -> Head {
        let range = format!("bytes {from}-{}/{size}", from + len - 1);
        self.length(head, len).with(&self.content_range, range)
    }

    /// What a plain GET gets: the whole blob, or the first of its parts.
    pub fn first(&self, blob: &BlobId, size: u64, seen: &Reference) -> Head {
        let head = match chunk_count(size) {
            1 => self.length(self.shown(200, blob, seen), size),
            _ => self.range(self.shown(206, blob, seen), 0, CHUNK_BYTES, size),
        };
        head.fixed(std::slice::from_ref(&self.with_method))
    }

    pub fn head(&self, blob: &BlobId, size: u64, seen: &Reference) -> Head {
        self.length(self.shown(200, blob, seen), size)
            .fixed(std::slice::from_ref(&self.with_method))
    }

    /// A part after the first; with a type where the blob came as something [that is played](is_played).
    pub fn part(&self, blob: &BlobId, size: u64, index: u32, mime_type: Option<String>) -> Head {
        let from = u64::from(index) * CHUNK_BYTES;
        let len = CHUNK_BYTES.min(size - from);
        let head = self.range(self.of_blob(206, blob), from, len, size);
        let head = match mime_type {
            Some(mime_type) => head.with(&self.content_type, mime_type),
            None => head,
        };
        head.fixed(std::slice::from_ref(&self.answer_only))
    }

    pub fn unchanged(&self, blob: &BlobId) -> Head {
        Head::new(self, 304)
            .fixed(&self.of_unchanged)
            .with(&self.etag, etag(blob))
            .fixed(std::slice::from_ref(&self.answer_only))
    }

    pub fn unsatisfiable(&self, blob: &BlobId, size: u64) -> Head {
        self.of_blob(416, blob)
            .with(&self.content_range, format!("bytes */{size}"))
            .fixed(std::slice::from_ref(&self.answer_only))
    }

    pub fn missing(&self) -> (Head, &'static str) {
        let head = Head::new(self, 404)
            .fixed(&self.of_missing)
            .fixed(std::slice::from_ref(&self.answer_only));
        (head, MISSING)
    }

    /// Under the expression that certifies the method: GET and HEAD, each with its answer. `body` is the
    /// SHA-256 of the first answer's body.
    pub fn first_hashes(
        &self,
        blob: &BlobId,
        size: u64,
        seen: &Reference,
        body: &Hash,
    ) -> [Hash; 2] {
        let first = self.first(blob, size, seen);
        match chunk_count(size) {
            // The same headers.
            1 => first.hashes([body, &self.empty]),
            _ => [
                first.hash(body),
                self.head(blob, size, seen).hash(&self.empty),
            ],
        }
    }

    pub fn unchanged_hash(&self, blob: &BlobId) -> Hash {
        self.unchanged(blob).hash(&self.empty)
    }

    pub fn unsatisfiable_hash(&self, blob: &BlobId, size: u64) -> Hash {
        self.unsatisfiable(blob, size).hash(&self.empty)
    }

    pub fn missing_hash(&self) -> Hash {
        self.missing
    }

    /// The digest of one answer under its hash.
    pub fn answer(&self, hash: &Hash) -> Hash {
        labeled(hash, &self.leaf)
    }
}

/// Two labelled nodes in order: their digest.
pub fn pair(first: (&[u8], Hash), second: (&[u8], Hash)) -> Hash {
    let [low, high] = match first.0 < second.0 {
        true => [first, second],
        false => [second, first],
    };
    fork(&labeled(low.0, &low.1), &labeled(high.0, &high.1))
}

pub fn etag(blob: &BlobId) -> String {
    format!("\"{blob}\"")
}

fn header_name(name: &str) -> Hash {
    sha256(&[name.to_ascii_lowercase().as_bytes()])
}

/// Of a request of which only the method and the empty body count.
fn request_hash(method: &str) -> Hash {
    let map = sha256(&[
        &sha256(&[b":ic-cert-method"]),
        &sha256(&[method.as_bytes()]),
    ]);
    sha256(&[&map, &sha256(&[])])
}

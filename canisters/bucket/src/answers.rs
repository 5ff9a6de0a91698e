//! The few answers that are certified: their headers, and the hashes under which a gateway looks for them
//! (HTTP gateway protocol, response verification version 2).
//!
//! All headers of an answer are certified, so none can be added, left out or changed. The first answer about
//! a blob, and HEAD, are certified together with the request's method: a node cannot serve the one for the
//! other. Parts, 304 and 416 are the same under every reference to a blob, and carry nothing of it: a gateway takes
//! the headers of what it joins from the first part.

use std::borrow::Cow;

use openstorage_certtree::{Hash, fork, labeled, leaf};
use openstorage_sha256::{Sha256, known, sha256};
use openstorage_types::{BlobId, chunk_count, http::HttpResponse, limits::CHUNK_BYTES};
use serde_bytes::ByteBuf;

use crate::{references::Reference, request::disposition};

/// The type under which a reference is shown: pictures, films and sounds as what they are. Everything else is a
/// download without a type: a page of any origin could run or include it, or a browser what is in it. So are pictures
/// that are XML, in which scripts may be.
fn shown_type(mime_type: &str) -> Option<String> {
    let mime_type = mime_type.to_ascii_lowercase();
    let (kind, subtype) = mime_type.split_once('/')?;
    let is_shown = matches!(kind, "image" | "audio" | "video") && !subtype.ends_with("xml");
    is_shown.then_some(mime_type)
}

/// Of what is not shown.
const ANY_TYPE: &str = "application/octet-stream";

/// Parts that a gateway joins. A blob of more is not served whole by its certified URL: it would end after so many.
pub const JOINED_PARTS_MAX: u64 = 1_000;

pub const EXPRESSION: &str = "IC-CertificateExpression";

/// Method and body of the request, and the whole answer.
pub const WITH_METHOD: &str = "default_certification(ValidationArgs{certification:Certification{request_certification:RequestCertification{certified_request_headers:[],certified_query_parameters:[]},response_certification:ResponseCertification{response_header_exclusions:ResponseHeaderList{headers:[]}}}})";
/// The whole answer, whatever was asked.
pub const ANSWER_ONLY: &str = "default_certification(ValidationArgs{certification:Certification{no_request_certification:Empty{},response_certification:ResponseCertification{response_header_exclusions:ResponseHeaderList{headers:[]}}}})";
/// Nothing: the canister says itself that an answer is not certified.
pub const NOTHING: &str = "default_certification(ValidationArgs{no_certification:Empty{}})";

/// How long browsers show what they keep without asking: five minutes, or not at all.
const CACHE: [Known; 2] = [
    Known::new("Cache-Control", "private, max-age=300"),
    Known::new("Cache-Control", "private, no-cache"),
];

/// Those that answers of 304 repeat (RFC 9110, section 15.4.5, with [`CACHE`]), as they let a page of another origin
/// read them.
const OF_UNCHANGED: [Known; 2] = [
    Known::new("Access-Control-Allow-Origin", "*"),
    Known::new("Cross-Origin-Resource-Policy", "cross-origin"),
];

/// Those that every other answer about a blob has besides.
const OF_BLOBS: [Known; 4] = [
    Known::new("Accept-Ranges", "bytes"),
    Known::new("Referrer-Policy", "no-referrer"),
    Known::new("X-Content-Type-Options", "nosniff"),
    // What a blob may do in a browser that opens it as a page: be looked at.
    Known::new(
        "Content-Security-Policy",
        "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'",
    ),
];

/// Those of answers that have a text of their own.
const OF_ERRORS: [Known; 5] = [
    Known::new("Cache-Control", "no-store"),
    Known::new("X-Content-Type-Options", "nosniff"),
    Known::new("Access-Control-Allow-Origin", "*"),
    Known::new("Cross-Origin-Resource-Policy", "cross-origin"),
    Known::new("Referrer-Policy", "no-referrer"),
];
const OF_MISSING: [Known; 2] = [
    Known::new("Content-Type", "text/plain; charset=utf-8"),
    ANSWER_ONLY_KNOWN,
];
const OF_TOO_LARGE: [Known; 2] = [
    Known::new("Content-Type", "application/problem+json"),
    WITH_METHOD_KNOWN,
];

const WITH_METHOD_KNOWN: Known = Known::new(EXPRESSION, WITH_METHOD);
const ANSWER_ONLY_KNOWN: Known = Known::new(EXPRESSION, ANSWER_ONLY);

/// A header whose value differs, and the hash of its name.
type Name = (&'static str, Hash);

const CONTENT_TYPE: Name = name("Content-Type");
const CONTENT_LENGTH: Name = name("Content-Length");
const CONTENT_RANGE: Name = name("Content-Range");
const CONTENT_DISPOSITION: Name = name("Content-Disposition");
const ETAG: Name = name("ETag");

const STATUS: Hash = known(b":ic-cert-status");

/// Of a GET and of a HEAD without a body.
const REQUESTS: [Hash; 2] = [request_hash("GET"), request_hash("HEAD")];
const NOTHING_HASH: Hash = known(NOTHING.as_bytes());
/// Of no bytes.
const EMPTY: Hash = known(b"");

/// Statuses of certified answers.
const STATUSES: [u16; 6] = [200, 206, 304, 404, 413, 416];

const MISSING: &str = "The accessor has no such blob.\n";

const TOO_LARGE: &str = r#"{"type":"about:blank","title":"Content Too Large","status":413,"detail":"Gateways join at most 1,000 verified parts of 2,000,000 bytes, and this blob has more. Put /m in front of the path for a download that gateways do not verify, ask for a range of bytes, or download it by the library, which verifies all of it."}"#;

/// A header: the hashes of its name and its value.
type Pair = [Hash; 2];

/// The pairs of the [`STATUSES`]. A number is hashed as LEB128; these have two bytes.
const STATUS_PAIRS: [Pair; STATUSES.len()] = {
    let mut pairs = [[[0; 32]; 2]; STATUSES.len()];
    let mut i = 0;
    while i < STATUSES.len() {
        let code = STATUSES[i];
        pairs[i] = [STATUS, known(&[code as u8 | 0x80, (code >> 7) as u8])];
        i += 1;
    }
    pairs
};

/// A header of one answer.
#[derive(Debug, Clone)]
pub struct Field {
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
    /// None where the beginning has it.
    status_pair: Option<Pair>,
    fields: Vec<Field>,
    /// So many fields are in `hash`.
    begun: usize,
    hash: Sha256,
}

impl Head {
    /// An answer that begins as many do.
    fn new(shapes: &Shapes, status: u16, start: &Start) -> Self {
        let mut fields = Vec::with_capacity(16);
        fields.extend(start.known.iter().map(Known::field));
        Self {
            status,
            status_pair: (!start.has_status).then(|| shapes.status(status)),
            fields,
            begun: start.begun,
            hash: start.hash.clone(),
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

    fn tagged(mut self, tag: Field) -> Self {
        self.fields.push(tag);
        self
    }

    fn fixed(mut self, known: &Known) -> Self {
        self.fields.push(known.field());
        self
    }

    /// The hashes under which a verifier looks for the answer, one for each SHA-256 of a body.
    fn hashes<const N: usize>(&self, bodies: [&Hash; N]) -> [Hash; N] {
        let pairs = self.fields[self.begun..].iter().map(|field| {
            let hash = || sha256(&[field.value.as_bytes()]);
            [field.name_hash, field.value_hash.unwrap_or_else(hash)]
        });
        // As the hash of a map wants them.
        let mut pairs: Vec<Pair> = pairs.chain(self.status_pair).collect();
        pairs.sort_unstable();
        let mut hash = self.hash.clone();
        hash.update(pairs.as_flattened().as_flattened());
        let headers = hash.finalize();
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

#[derive(Clone, Copy)]
struct Known {
    name: &'static str,
    value: &'static str,
    pair: Pair,
}

impl Known {
    const fn new(name: &'static str, value: &'static str) -> Self {
        let pair = [header_name(name), known(value.as_bytes())];
        Self { name, value, pair }
    }

    fn field(&self) -> Field {
        Field {
            name: self.name,
            value: self.value.into(),
            name_hash: self.pair[0],
            value_hash: Some(self.pair[1]),
        }
    }
}

/// Headers that several answers share. A pair of hashes is a block of SHA-256, and the pairs are sorted: those
/// that come before all others are hashed once for all answers.
struct Start {
    /// In the order of their pairs.
    known: Vec<Known>,
    /// So many of them are in `hash`.
    begun: usize,
    has_status: bool,
    hash: Sha256,
}

impl Start {
    /// `status` is part of it where all answers have the same; `others` are the names of headers that answers
    /// have besides.
    fn new(mut known: Vec<Known>, status: Option<&Pair>, others: &[&Hash]) -> Self {
        known.sort_unstable_by_key(|known| known.pair);
        let is_first = |pair: &Pair| others.iter().all(|name| pair[0] < **name);
        let begun = known.iter().take_while(|known| is_first(&known.pair));
        let begun = begun.count();
        let mut pairs: Vec<Pair> = known[..begun].iter().map(|known| known.pair).collect();
        let has_status = status.is_some_and(is_first);
        pairs.extend(status.filter(|_| has_status));
        pairs.sort_unstable();
        let mut hash = Sha256::new();
        hash.update(pairs.as_flattened().as_flattened());
        Self {
            known,
            begun,
            has_status,
            hash,
        }
    }
}

/// What never changes and is not known when the program is compiled, hashed once after each upgrade.
pub struct Shapes {
    of_blobs: Start,
    of_unchanged: Start,
    of_missing: Start,
    of_too_large: Start,
    leaf: Hash,
    /// Of the answers of 404 and 413.
    missing: Hash,
    too_large: Hash,
}

impl Shapes {
    /// `is_strict`: browsers are to ask each time.
    pub fn new(is_strict: bool) -> Self {
        let every = [&STATUS, &WITH_METHOD_KNOWN.pair[0]];
        let some = [
            CONTENT_TYPE,
            CONTENT_LENGTH,
            CONTENT_RANGE,
            CONTENT_DISPOSITION,
            ETAG,
        ];
        let some = some.each_ref().map(|(_, hash)| hash);
        let status = |code| &STATUS_PAIRS[place_of(code)];
        let shared = [&CACHE[usize::from(is_strict)..][..1], &OF_UNCHANGED].concat();
        let of_blobs = [&shared[..], &OF_BLOBS].concat();
        let of_unchanged = [&shared[..], &[ANSWER_ONLY_KNOWN]].concat();
        let error =
            |own: &[Known], code| Start::new([&OF_ERRORS, own].concat(), Some(status(code)), &[]);
        let mut shapes = Self {
            of_blobs: Start::new(of_blobs, None, &[&some[..], &every].concat()),
            of_unchanged: Start::new(of_unchanged, Some(status(304)), &[&ETAG.1]),
            of_missing: error(&OF_MISSING, 404),
            of_too_large: error(&OF_TOO_LARGE, 413),
            leaf: leaf(b""),
            missing: [0; 32],
            too_large: [0; 32],
        };
        let hash = |(head, body): (Head, &str)| head.hash(&sha256(&[body.as_bytes()]));
        (shapes.missing, shapes.too_large) = (hash(shapes.missing()), hash(shapes.too_large()));
        shapes
    }

    /// Above the answers that belong to one reference.
    pub fn with_method(&self) -> &Hash {
        &WITH_METHOD_KNOWN.pair[1]
    }

    /// Above the answers that a blob has in all its references.
    pub fn answer_only(&self) -> &Hash {
        &ANSWER_ONLY_KNOWN.pair[1]
    }

    /// Above nothing.
    pub fn nothing(&self) -> &Hash {
        &NOTHING_HASH
    }

    /// Hashes of a GET and of a HEAD without a body.
    pub fn requests(&self) -> [&Hash; 2] {
        REQUESTS.each_ref()
    }

    /// What stands under every label at the bottom: an empty value.
    pub fn leaf(&self) -> &Hash {
        &self.leaf
    }

    /// The name's hash and the value's.
    fn status(&self, code: u16) -> Pair {
        STATUS_PAIRS[place_of(code)]
    }

    /// The ETag of a blob.
    pub fn tag(&self, blob: &BlobId) -> Field {
        let (name, name_hash) = ETAG;
        Field {
            name,
            value: etag(blob).into(),
            name_hash,
            value_hash: None,
        }
    }

    /// The same for several answers that are hashed.
    pub fn tag_hashed(&self, blob: &BlobId) -> Field {
        let tag = self.tag(blob);
        let value_hash = Some(sha256(&[tag.value.as_bytes()]));
        Field { value_hash, ..tag }
    }

    fn of_blob(&self, status: u16, tag: Field) -> Head {
        Head::new(self, status, &self.of_blobs).tagged(tag)
    }

    /// A blob as a reference shows it, before its length.
    pub fn shown(&self, status: u16, tag: Field, seen: &Reference) -> Head {
        let (kind, mime_type) = match shown_type(&seen.mime_type) {
            Some(mime_type) => ("inline", mime_type),
            None => ("attachment", ANY_TYPE.into()),
        };
        let head = self.of_blob(status, tag).with(&CONTENT_TYPE, mime_type);
        match seen.name.as_deref() {
            None if kind == "inline" => head,
            name => head.with(&CONTENT_DISPOSITION, disposition(kind, name)),
        }
    }

    pub fn length(&self, head: Head, len: u64) -> Head {
        head.with(&CONTENT_LENGTH, len.to_string())
    }

    /// `len` bytes from `from` of `size`.
    pub fn range(&self, head: Head, from: u64, len: u64, size: u64) -> Head {
        let range = format!("bytes {from}-{}/{size}", from + len - 1);
        self.length(head, len).with(&CONTENT_RANGE, range)
    }

    /// What a plain GET gets: the whole blob, or the first of its parts. None where there are more than a gateway
    /// joins.
    pub fn first(&self, tag: Field, size: u64, seen: &Reference) -> Option<Head> {
        let head = match chunk_count(size) {
            1 => self.length(self.shown(200, tag, seen), size),
            ..=JOINED_PARTS_MAX => self.range(self.shown(206, tag, seen), 0, CHUNK_BYTES, size),
            _ => return None,
        };
        Some(head.fixed(&WITH_METHOD_KNOWN))
    }

    /// What it gets in place of that.
    pub fn too_large(&self) -> (Head, &'static str) {
        (Head::new(self, 413, &self.of_too_large), TOO_LARGE)
    }

    pub fn head(&self, tag: Field, size: u64, seen: &Reference) -> Head {
        self.length(self.shown(200, tag, seen), size)
            .fixed(&WITH_METHOD_KNOWN)
    }

    /// A part after the first.
    pub fn part(&self, blob: &BlobId, size: u64, index: u32) -> Head {
        let from = u64::from(index) * CHUNK_BYTES;
        let len = CHUNK_BYTES.min(size - from);
        self.range(self.of_blob(206, self.tag(blob)), from, len, size)
            .fixed(&ANSWER_ONLY_KNOWN)
    }

    pub fn unchanged(&self, tag: Field) -> Head {
        Head::new(self, 304, &self.of_unchanged).tagged(tag)
    }

    pub fn unsatisfiable(&self, blob: &BlobId, size: u64) -> Head {
        self.of_blob(416, self.tag(blob))
            .with(&CONTENT_RANGE, format!("bytes */{size}"))
            .fixed(&ANSWER_ONLY_KNOWN)
    }

    pub fn missing(&self) -> (Head, &'static str) {
        (Head::new(self, 404, &self.of_missing), MISSING)
    }

    /// Under the expression that certifies the method: GET and HEAD, each with its answer. `body` is the
    /// SHA-256 of the first answer's body.
    pub fn first_hashes(&self, tag: &Field, size: u64, seen: &Reference, body: &Hash) -> [Hash; 2] {
        let head = || self.head(tag.clone(), size, seen).hash(&EMPTY);
        match self.first(tag.clone(), size, seen) {
            // The same headers.
            Some(first) if chunk_count(size) == 1 => first.hashes([body, &EMPTY]),
            Some(first) => [first.hash(body), head()],
            None => [self.too_large, head()],
        }
    }

    pub fn unchanged_hash(&self, tag: Field) -> Hash {
        self.unchanged(tag).hash(&EMPTY)
    }

    pub fn unsatisfiable_hash(&self, blob: &BlobId, size: u64) -> Hash {
        self.unsatisfiable(blob, size).hash(&EMPTY)
    }

    pub fn missing_hash(&self) -> Hash {
        self.missing
    }

    /// The digest of one answer under its hash.
    pub fn answer(&self, hash: &Hash) -> Hash {
        labeled(hash, &self.leaf)
    }
}

/// Among the [`STATUSES`].
fn place_of(code: u16) -> usize {
    let known = STATUSES.iter().position(|known| *known == code);
    known.expect("one of the statuses of certified answers")
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

const fn name(name: &'static str) -> Name {
    (name, header_name(name))
}

/// # Panics
/// For a name of more than 64 bytes: while compiling.
const fn header_name(name: &str) -> Hash {
    let name = name.as_bytes();
    let mut lower = [0; 64];
    let mut i = 0;
    while i < name.len() {
        lower[i] = name[i].to_ascii_lowercase();
        i += 1;
    }
    known(lower.split_at(i).0)
}

/// Of a request of which only the method and the empty body count.
const fn request_hash(method: &str) -> Hash {
    let map = pair_hash(&known(b":ic-cert-method"), &known(method.as_bytes()));
    pair_hash(&map, &EMPTY)
}

const fn pair_hash(first: &Hash, second: &Hash) -> Hash {
    let mut both = [0; 64];
    let (low, high) = both.split_at_mut(32);
    low.copy_from_slice(first);
    high.copy_from_slice(second);
    known(&both)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One part more than a gateway joins.
    #[test]
    fn what_a_gateway_would_cut_off_is_refused_with_the_way_out() {
        let shapes = Shapes::new(false);
        let blob = BlobId([7; 32]);
        let seen = Reference::new("video/mp4", None);
        let first = |size| shapes.first(shapes.tag(&blob), size, &seen);
        let whole = JOINED_PARTS_MAX * CHUNK_BYTES;
        assert_eq!(first(whole).map(|head| head.status), Some(206));
        assert!(first(whole + 1).is_none());
        let (head, text) = shapes.too_large();
        assert_eq!(head.status, 413);
        for way in ["/m", "library", "range"] {
            assert!(text.contains(way), "{text}");
        }
        // It is what stands in the tree, beside the answer to HEAD.
        let tag = shapes.tag_hashed(&blob);
        let body = sha256(&[text.as_bytes()]);
        let hashes = shapes.first_hashes(&tag, whole + 1, &seen, &[1; 32]);
        let of_head = shapes
            .head(shapes.tag(&blob), whole + 1, &seen)
            .hash(&EMPTY);
        assert_eq!(hashes, [head.hash(&body), of_head]);
    }
}

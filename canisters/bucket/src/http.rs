//! Blobs for browsers, and what operators read.
//!
//! `GET|HEAD /{accessor_id}/{blob_id}?token=…`: first the form, then the token, then the reference, then
//! the bytes. Without a valid token every path answers the same 401, which is not certified: nobody learns
//! what is there. Blobs of more than one chunk come in parts of 2,000,000 bytes, which gateways ask for one
//! after the other and verify one by one.
//!
//! A client that asks for a range gets exactly that, as long as it is: only whole parts are certified, and a
//! gateway does not join parts for a client that asked for a range. So the bytes are streamed, which gateways do not
//! verify. `/m/{accessor_id}/{blob_id}` streams everything.

use candid::Principal;
use openstorage_canister::{audience::Wanted, metrics};
use openstorage_tokens::Scope;
use openstorage_types::{
    BlobId,
    bucket::TokenProblem,
    chunk_count, chunk_len,
    http::{HttpRequest, HttpResponse, StreamingToken},
    limits::CHUNK_BYTES,
};

use crate::{
    Bucket, Now, Part, Stored,
    answers::{EXPRESSION, JOINED_PARTS_MAX, NOTHING, etag},
    certify::{OPERATORS, RANGES, Shown},
    references::Reference,
    request::{
        ByteRange, URL_BYTES_MAX, byte_range, matches_etag, parse_path, parse_query, part_of,
        wanted_range, whole_part,
    },
};

/// An answer; the bytes of a blob still lie where they are stored.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Without a body where there is a part.
    pub response: HttpResponse,
    pub part: Option<Part>,
    /// Where the body goes on behind the part.
    pub next: Option<StreamingToken>,
    /// Nothing in the tree proves the answer: the gateway is to ask again by an update, whose answer the subnet
    /// certifies as it is.
    pub upgrade: bool,
}

impl Answer {
    /// The same whatever is wrong, but for a token that did open something.
    fn refused(problem: Option<TokenProblem>) -> Self {
        match problem {
            Some(TokenProblem::Expired) => {
                text(401, "The token has expired: ask the app for a fresh one.\n").into()
            }
            Some(TokenProblem::Revoked) => text(
                401,
                "The token was taken back: ask the app for a fresh one.\n",
            )
            .into(),
            _ => Self::refusal(),
        }
    }

    fn refusal() -> Self {
        text(
            401,
            "A blob is opened by /{accessor_id}/{blob_id}?token=… with a valid token.\n",
        )
        .into()
    }

    /// To a request that is too long to be read.
    pub fn too_long() -> Self {
        text(
            431,
            "At most 64 headers are read, and some 8 KiB of them besides values of more than 1,024 bytes.\n",
        )
        .into()
    }
}

impl From<HttpResponse> for Answer {
    fn from(response: HttpResponse) -> Self {
        Self {
            response,
            part: None,
            next: None,
            upgrade: false,
        }
    }
}

/// Pieces of a stream that a gateway holds back until it has all of them. A body that ends with them it verifies; of
/// one that is longer it verifies nothing. A client of a certified URL waits for these before it sees the first byte,
/// so they are short.
const HELD_PIECES: u32 = 5;
const HELD_PIECE_BYTES: u64 = 256 * 1_024;

/// Bytes of every other piece: an answer to a query may have 3 MiB. A gateway joins 1,004 pieces, so nearly 3 GB; of
/// what is longer the client sees that it breaks off, before the length that was promised.
const PIECE_BYTES: u64 = 3_000_000;

/// A blob that a request may see.
struct Sight {
    accessor: Principal,
    blob: BlobId,
    seen: Reference,
    stored: Stored,
}

/// A blob that the accessor does not see.
struct Absent {
    accessor: Principal,
    blob: BlobId,
    /// The token opens this blob alone.
    is_bound: bool,
    /// The tree still has it: it is deleted for good, and goes in slices.
    is_going: bool,
    issued_ms: u64,
}

/// Why a path shows no blob.
enum Unseen {
    /// It means none, or the token opens nothing.
    Refused(Option<TokenProblem>),
    /// There is none, and the token allows to know that.
    Absent(Absent),
}

impl Bucket {
    /// `certificate` is the subnet's, of what [`Bucket::certified`] said last; none in a call that changes
    /// something, whose answer the subnet itself certifies.
    pub fn http_request(
        &self,
        request: &HttpRequest,
        certificate: Option<&[u8]>,
        now: Now,
    ) -> Answer {
        let is_head = request.method == "HEAD";
        if !is_head && request.method != "GET" {
            let mut response = text(405, "Only GET and HEAD are served here.\n");
            let allowed = ("Allow".into(), "GET, HEAD".into());
            response.headers.push(allowed);
            return response.into();
        }
        // Before anything walks through it.
        if request.url.len() > URL_BYTES_MAX {
            return Answer::refusal();
        }
        let (path, query) = match request.url.split_once('?') {
            Some((path, query)) => (path, query),
            None => (request.url.as_str(), ""),
        };
        let name = path.strip_prefix('/').unwrap_or_default();
        if OPERATORS.contains(&name) {
            let page = match name {
                "status" => HttpResponse::text(200, "application/json", self.status_json()),
                "metrics" => HttpResponse::text(200, metrics::CONTENT_TYPE, self.metrics()),
                _ => text(200, &self.lines.page()),
            };
            return self.uncertified(page, name, certificate).into();
        }
        let ranges = streamed_path(path);
        match self.sight(ranges.unwrap_or(path), query, now) {
            Ok(sight) if ranges.is_some() => self.any_range(&sight, request, is_head, certificate),
            Ok(sight) => self.certified_answer(&sight, request, is_head, certificate),
            Err(Unseen::Absent(absent)) if ranges.is_none() => self.missing(&absent, certificate),
            Err(Unseen::Absent(_)) => {
                let (head, body) = self.certify.shapes.missing();
                let response = head.response(body);
                self.uncertified(response, RANGES, certificate).into()
            }
            Err(Unseen::Refused(problem)) => Answer::refused(problem),
        }
    }

    /// What a path and a token show.
    fn sight(&self, path: &str, query: &str, now: Now) -> Result<Sight, Unseen> {
        // The token first: junk costs least there.
        let token = parse_query(query).ok_or(Unseen::Refused(None))?;
        let (accessor, blob) = parse_path(path).ok_or(Unseen::Refused(None))?;
        let wanted = Wanted {
            scope: Scope::READ,
            accessor,
            blob,
            owner: None,
        };
        let checked = self.access.check(token, &wanted, now.ms);
        let claims = checked.map_err(|problem| Unseen::Refused(Some(problem)))?;
        match self.seen(&blob, &accessor, &claims.principal) {
            Some((seen, stored)) => Ok(Sight {
                accessor,
                blob,
                seen,
                stored,
            }),
            None => Err(Unseen::Absent(Absent {
                accessor,
                blob,
                is_bound: claims.scope.contains(Scope::BOUND_TO_BLOB),
                is_going: self.certify.shows(&accessor, &blob),
                issued_ms: claims.iat_ms,
            })),
        }
    }

    fn certified_answer(
        &self,
        sight: &Sight,
        request: &HttpRequest,
        is_head: bool,
        certificate: Option<&[u8]>,
    ) -> Answer {
        let shapes = &self.certify.shapes;
        let (blob, size) = (&sight.blob, sight.stored.size);
        let shown = if is_known(request, blob) {
            Shown::Unchanged
        } else if is_head {
            Shown::Head
        } else {
            match certified(request, blob, size) {
                Ok(shown) => shown,
                Err(range) => return self.streamed(sight, request, range),
            }
        };
        let tag = shapes.tag(blob);
        let mut text = "";
        let (head, index) = match shown {
            Shown::Unchanged => (shapes.unchanged(tag), None),
            Shown::Head => (shapes.head(tag, size, &sight.seen), None),
            Shown::Unsatisfiable => (shapes.unsatisfiable(blob, size), None),
            Shown::Part(index) => (shapes.part(blob, size, index), Some(index)),
            Shown::First => match shapes.first(tag, size, &sight.seen) {
                Some(first) => (first, Some(0)),
                None => {
                    let (head, too_large) = shapes.too_large();
                    text = too_large;
                    (head, None)
                }
            },
        };
        let mut response = head.response(text);
        if let Some(certificate) = certificate {
            let Sight {
                accessor,
                seen,
                stored,
                ..
            } = sight;
            let sight = (seen, stored);
            let proof = self
                .certify
                .prove(certificate, accessor, blob, sight, shown);
            response.headers.push((CERTIFICATE.into(), proof));
        }
        let part = index.and_then(|index| {
            let from = u64::from(index) * CHUNK_BYTES;
            let len = chunk_len(size, index.into())?;
            Some(Part::new(sight.stored.slot, from, len))
        });
        Answer {
            part,
            ..response.into()
        }
    }

    /// Proved by the tree where the accessor sees anything here: then there is a place for it. The proof shows the
    /// ids of blobs beside the one that is missing, so a token for one blob gets none, and no token gets one that shows
    /// what came after its issue: whoever has it may have left by then. Nor can there be one for an accessor that sees
    /// nothing, as it would show the accessors beside it. All these are asked again by an update.
    fn missing(&self, absent: &Absent, certificate: Option<&[u8]>) -> Answer {
        let (head, body) = self.certify.shapes.missing();
        let mut response = head.response(body);
        let Absent {
            accessor,
            blob,
            issued_ms,
            ..
        } = absent;
        let is_known = |beside: &BlobId, owner: &Principal| {
            let reference = self.references.get(beside, owner, accessor);
            reference.is_some_and(|reference| reference.created_ms <= *issued_ms)
        };
        let may_be_proved = !absent.is_bound && !absent.is_going && !self.is_deleted(accessor);
        let proof = certificate
            .filter(|_| may_be_proved)
            .and_then(|known| self.certify.prove_missing(known, accessor, blob, is_known));
        let upgrade = certificate.is_some() && proof.is_none();
        let proof = proof.map(|proof| (CERTIFICATE.into(), proof));
        response.headers.extend(proof);
        Answer {
            upgrade,
            ..response.into()
        }
    }

    /// Whether a request is one that a gateway asks by an update: nobody else is let in to make the subnet agree on
    /// an answer.
    pub fn is_upgraded(&self, request: &HttpRequest, now: Now) -> bool {
        // What is proved does not count, only whether it is.
        self.http_request(request, Some(&[]), now).upgrade
    }

    /// Everything, of a path under which nothing is certified.
    fn any_range(
        &self,
        sight: &Sight,
        request: &HttpRequest,
        is_head: bool,
        certificate: Option<&[u8]>,
    ) -> Answer {
        let shapes = &self.certify.shapes;
        let (blob, size) = (&sight.blob, sight.stored.size);
        let mut answer = if is_known(request, blob) {
            shapes.unchanged(shapes.tag(blob)).response([]).into()
        } else if is_head {
            let head = shapes.shown(200, shapes.tag(blob), &sight.seen);
            shapes.length(head, size).response([]).into()
        } else {
            let range = clients_range(request, blob, size);
            self.streamed(sight, request, range.unwrap_or(ByteRange::Ignored))
        };
        answer.response = self.uncertified(answer.response, RANGES, certificate);
        answer
    }

    /// Exactly the bytes of a range, or all of them where it is ignored.
    fn streamed(&self, sight: &Sight, request: &HttpRequest, range: ByteRange) -> Answer {
        let shapes = &self.certify.shapes;
        let (blob, size) = (&sight.blob, sight.stored.size);
        let shown = |status| shapes.shown(status, shapes.tag(blob), &sight.seen);
        let (head, from, end) = match range {
            ByteRange::Unsatisfiable => (shapes.length(shapes.unsatisfiable(blob, size), 0), 0, 0),
            ByteRange::Bytes { from, len } => {
                let head = shapes.range(shown(206), from, len, size);
                (head, from, from + len)
            }
            ByteRange::Ignored => (shapes.length(shown(200), size), 0, size),
        };
        let mut response = head.response([]);
        // One is made in the form in which it is certified elsewhere.
        response.headers.retain(|(header, _)| header != EXPRESSION);
        let token = StreamingToken {
            url: request.url.clone(),
            from,
            end,
            piece: 0,
        };
        let (part, next) = piece(sight.stored.slot, token);
        Answer {
            part,
            next,
            ..response.into()
        }
    }

    /// The piece of a stream for which a token stands, and where it goes on. None where what opened the first piece
    /// opens nothing any more: then a gateway breaks off, and the client sees that.
    pub fn stream(
        &self,
        token: StreamingToken,
        now: Now,
    ) -> Option<(Option<Part>, Option<StreamingToken>)> {
        if token.url.len() > URL_BYTES_MAX {
            return None;
        }
        let (path, query) = token.url.split_once('?')?;
        let path = streamed_path(path).unwrap_or(path);
        let sight = self.sight(path, query, now).ok()?;
        let is_within = token.from <= token.end && token.end <= sight.stored.size;
        is_within.then(|| piece(sight.stored.slot, token))
    }

    /// Says, with a proof, that the canister certifies nothing there.
    fn uncertified(
        &self,
        mut response: HttpResponse,
        name: &str,
        certificate: Option<&[u8]>,
    ) -> HttpResponse {
        // Some answers are made in the form in which they are certified elsewhere.
        response.headers.retain(|(header, _)| header != EXPRESSION);
        if let Some(certificate) = certificate {
            let proof = self.certify.prove_nothing(certificate, name);
            let expression = (EXPRESSION.into(), NOTHING.into());
            response.headers.push(expression);
            response.headers.push((CERTIFICATE.into(), proof));
        }
        response
    }

    fn status_json(&self) -> String {
        let status = self.status();
        format!(
            r#"{{"index":"{}","blobs":{},"references":{},"open_uploads":{},"bytes_stored":{},"bytes_reserved":{},"bytes_free":{},"events_unsent":{},"key_ready":{},"set_aside":{},"overdue_ms":{}}}"#,
            status.index,
            status.blobs,
            status.references,
            status.open_uploads,
            status.bytes_stored,
            status.bytes_reserved,
            status.bytes_free,
            status.events_unsent,
            status.key.is_some(),
            status.set_aside.unwrap_or(0),
            status.overdue_ms.unwrap_or(0),
        )
    }

    fn metrics(&self) -> String {
        let status = self.status();
        let cycles = self.cycles();
        let mut page = metrics::Page::new("openstorage_bucket");
        page.gauge("version", "Version of the bucket's code.", status.version);
        let help = "Alarm: rows of the bucket's own jobs that are set aside, since every message about them has trapped.";
        page.gauge("set_aside_rows", help, self.set_aside_count());
        let help = "Alarm above 600,000: for how long the job that waits longest has got nothing done, in milliseconds.";
        page.gauge("overdue_ms", help, status.overdue_ms.unwrap_or(0));
        page.gauge("blobs", "Blobs stored.", status.blobs);
        page.gauge("references", "References to them.", status.references);
        page.gauge("open_uploads", "Uploads under way.", status.open_uploads);
        page.gauge(
            "stored_bytes",
            "Bytes of stored blobs.",
            status.bytes_stored,
        );
        let help = "Bytes promised to uploads.";
        page.gauge("reserved_bytes", help, status.bytes_reserved);
        let help = "Bytes that can still be taken.";
        page.gauge("free_bytes", help, status.bytes_free);
        let help = "The index has closed the bucket to new blobs.";
        page.gauge("closed", help, u8::from(status.closed));
        let help = "Events the index has not confirmed.";
        page.gauge("unsent_events", help, status.events_unsent);
        let help = "Events of the index that could not be applied.";
        page.gauge("skipped_events", help, self.totals().events_skipped);
        let help = "Cycles, as of the last update that looked.";
        page.gauge("cycles", help, cycles.balance);
        let help = "Cycles below which the bucket is frozen.";
        page.gauge("freezing_cycles", help, cycles.freezing_at);
        let help = "Cycles burned in a day, at the pace of late.";
        page.gauge("burned_per_day_cycles", help, cycles.burned_per_day);
        page.text()
    }
}

const CERTIFICATE: &str = "IC-Certificate";

/// Whether the client has the blob already.
fn is_known(request: &HttpRequest, blob: &BlobId) -> bool {
    let tags = request.header("If-None-Match");
    tags.is_some_and(|tags| matches_etag(tags, &etag(blob)))
}

/// The path behind the name under which nothing is certified.
fn streamed_path(path: &str) -> Option<&str> {
    let path = path.strip_prefix('/')?.strip_prefix(RANGES)?;
    path.starts_with('/').then_some(path)
}

/// What a GET of a certified URL is answered with; the error is a range that nothing certifies.
fn certified(request: &HttpRequest, blob: &BlobId, size: u64) -> Result<Shown, ByteRange> {
    let part = |index| match index {
        0 => Shown::First,
        index => Shown::Part(index),
    };
    if let Some(index) = gateways_part(request, size) {
        return Ok(part(index));
    }
    let Some(range) = clients_range(request, blob, size) else {
        return Ok(Shown::First);
    };
    let in_parts = chunk_count(size) > 1;
    match range {
        ByteRange::Unsatisfiable if in_parts => Ok(Shown::Unsatisfiable),
        // A whole that is certified as it is.
        ByteRange::Ignored if !in_parts => Ok(Shown::First),
        // Scripts of other pages say their origin and may read whatever they get. Players say none, and browsers keep
        // parts from them, which have no type.
        ByteRange::Bytes { from, len } if !in_parts || request.header("Origin").is_some() => {
            let is_joined = chunk_count(size) <= JOINED_PARTS_MAX;
            let index = whole_part(from, len, size).filter(|index| *index > 0 || is_joined);
            index.map(part).ok_or(range)
        }
        range => Err(range),
    }
}

/// The part for which a gateway asks on its own, to join it with those before. It does so for requests without a
/// range alone, and writes its header with a capital letter; those of clients come to it, and from it, in lower case.
fn gateways_part(request: &HttpRequest, size: u64) -> Option<u32> {
    let (_, range) = request.headers.iter().find(|(name, _)| name == "Range")?;
    let is_clients = request.header("If-Range").is_some();
    part_of(range, size).filter(|_| !is_clients)
}

/// The range that a client asks for; ignored where it is of other content. None where it asks for none: then the
/// gateway joins what comes in parts.
fn clients_range(request: &HttpRequest, blob: &BlobId, size: u64) -> Option<ByteRange> {
    let [range, if_range] = ["Range", "If-Range"].map(|name| request.header(name));
    range.or(if_range)?;
    let wanted = wanted_range(range, if_range, &etag(blob));
    // Of nothing there is no range.
    let wanted = wanted.filter(|_| size > 0);
    Some(wanted.map_or(ByteRange::Ignored, |range| byte_range(range, size)))
}

/// A piece of a stream, and where it goes on. Under a certified URL it has more pieces than a gateway holds back, the
/// last ones empty if need be: what ends before, the gateway would compare with what is certified.
fn piece(slot: u64, token: StreamingToken) -> (Option<Part>, Option<StreamingToken>) {
    let StreamingToken {
        url,
        from,
        end,
        piece,
    } = token;
    let is_certified = streamed_path(&url).is_none();
    let max = match piece {
        0 if !is_certified && end - from <= CHUNK_BYTES => CHUNK_BYTES,
        ..HELD_PIECES => HELD_PIECE_BYTES,
        _ => PIECE_BYTES,
    };
    let len = max.min(end - from);
    let is_last = from + len == end && (piece >= HELD_PIECES || !is_certified);
    let next = StreamingToken {
        url,
        from: from + len,
        end,
        piece: piece.saturating_add(1),
    };
    let part = (len > 0).then(|| Part::new(slot, from, len));
    (part, (!is_last).then_some(next))
}

fn text(status_code: u16, body: &str) -> HttpResponse {
    HttpResponse::text(status_code, "text/plain; charset=utf-8", body)
}

//! Blobs for browsers, and what operators read.
//!
//! `GET|HEAD /{accessor_id}/{blob_id}?token=…`: first the form, then the token, then the reference, then
//! the bytes. Without a valid token every path answers the same 401, which is not certified: nobody learns
//! what is there. Blobs of more than one chunk come in parts of 2,000,000 bytes, which gateways ask for one
//! after the other and verify one by one. Players ask from anywhere (`bytes=n-`) and get the part in which that
//! lies: only whole parts are certified, and `Content-Range` says which one it is. `/m/{accessor_id}/{blob_id}`
//! serves any range, uncertified.

use candid::Principal;
use openstorage_canister::{audience::Wanted, metrics};
use openstorage_tokens::Scope;
use openstorage_types::{
    BlobId, chunk_count, chunk_len,
    http::{HttpRequest, HttpResponse},
    limits::CHUNK_BYTES,
};

use crate::{
    Bucket, Now, Part, Stored,
    answers::{EXPRESSION, Head, NOTHING, etag},
    certify::{OPERATORS, RANGES, Shown},
    references::Reference,
    request::{
        ByteRange, URL_BYTES_MAX, byte_range, matches_etag, parse_path, parse_query, part_of,
        wanted_range,
    },
};

/// An answer; the bytes of a blob still lie where they are stored.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Without a body where there is a part.
    pub response: HttpResponse,
    pub part: Option<Part>,
    /// Nothing in the tree proves the answer: the gateway is to ask again by an update, whose answer the subnet
    /// certifies as it is.
    pub upgrade: bool,
}

impl Answer {
    /// The same whatever is wrong.
    pub fn refusal() -> Self {
        text(
            401,
            "A blob is opened by /{accessor_id}/{blob_id}?token=… with a valid token.\n",
        )
        .into()
    }
}

impl From<HttpResponse> for Answer {
    fn from(response: HttpResponse) -> Self {
        Self {
            response,
            part: None,
            upgrade: false,
        }
    }
}

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
        let ranges = name
            .strip_prefix(RANGES)
            .filter(|path| path.starts_with('/'));
        match self.sight(ranges.unwrap_or(path), query, now) {
            Ok(sight) if ranges.is_some() => self.any_range(&sight, request, is_head, certificate),
            Ok(sight) => self.certified_answer(&sight, request, is_head, certificate),
            Err(Some(absent)) if ranges.is_none() => self.missing(&absent, certificate),
            Err(Some(_)) => {
                let (head, body) = self.certify.shapes.missing();
                let response = head.response(body);
                self.uncertified(response, RANGES, certificate).into()
            }
            Err(None) => Answer::refusal(),
        }
    }

    /// What a path and a token show; the error is what is not there, if the token allows to know that.
    fn sight(&self, path: &str, query: &str, now: Now) -> Result<Sight, Option<Absent>> {
        // The token first: junk costs least there.
        let token = parse_query(query).ok_or(None)?;
        let (accessor, blob) = parse_path(path).ok_or(None)?;
        let wanted = Wanted {
            scope: Scope::READ,
            accessor,
            blob,
            owner: None,
        };
        let checked = self.access.check(token, &wanted, now.ms);
        let claims = checked.map_err(|_| None)?;
        let seen = self.seen(&blob, &accessor);
        let there = seen.zip(self.stored(&blob));
        let (seen, stored) = there.ok_or(Some(Absent {
            accessor,
            blob,
            is_bound: claims.scope.contains(Scope::BOUND_TO_BLOB),
        }))?;
        Ok(Sight {
            accessor,
            blob,
            seen,
            stored,
        })
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
        let in_parts = chunk_count(size) > 1;
        let range = range_of(request, blob).filter(|_| in_parts && !is_head);
        // A blob of one part is served whole: a server may ignore ranges.
        let (shown, head) = if is_known(request, blob) {
            (Shown::Unchanged, shapes.unchanged(shapes.tag(blob)))
        } else if is_head {
            (
                Shown::Head,
                shapes.head(shapes.tag(blob), size, &sight.seen),
            )
        } else {
            match range.map_or(Some(0), |range| part_of(range, size)) {
                None => (Shown::Unsatisfiable, shapes.unsatisfiable(blob, size)),
                Some(0) => {
                    let first = shapes.first(shapes.tag(blob), size, &sight.seen);
                    (Shown::First, first)
                }
                Some(index) => {
                    let part = self.certify.part(sight.stored.slot, blob, size, index);
                    (Shown::Part(index), part)
                }
            }
        };
        let index = match shown {
            Shown::First => Some(0),
            Shown::Part(index) => Some(index),
            _ => None,
        };
        let mut response = head.response([]);
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
            response,
            part,
            upgrade: false,
        }
    }

    /// Proved by the tree where the accessor sees anything here: then there is a place for it. The proof shows the
    /// ids of blobs beside the one that is missing, so a token for one blob gets none. Nor can there be one for an
    /// accessor that sees nothing, as it would show the accessors beside it: both are asked again by an update.
    fn missing(&self, absent: &Absent, certificate: Option<&[u8]>) -> Answer {
        let (head, body) = self.certify.shapes.missing();
        let mut response = head.response(body);
        let proof = certificate.filter(|_| !absent.is_bound).and_then(|known| {
            let Absent { accessor, blob, .. } = absent;
            self.certify.prove_missing(known, accessor, blob)
        });
        let upgrade = certificate.is_some() && proof.is_none();
        let proof = proof.map(|proof| (CERTIFICATE.into(), proof));
        response.headers.extend(proof);
        Answer {
            response,
            part: None,
            upgrade,
        }
    }

    /// Whether a request is one that a gateway asks by an update: nobody else is let in to make the subnet agree on
    /// an answer.
    pub fn is_upgraded(&self, request: &HttpRequest, now: Now) -> bool {
        // What is proved does not count, only whether it is.
        self.http_request(request, Some(&[]), now).upgrade
    }

    /// Exactly the bytes that are asked for, up to one part of them.
    fn any_range(
        &self,
        sight: &Sight,
        request: &HttpRequest,
        is_head: bool,
        certificate: Option<&[u8]>,
    ) -> Answer {
        let shapes = &self.certify.shapes;
        let (blob, size) = (&sight.blob, sight.stored.size);
        if is_known(request, blob) {
            let response = shapes.unchanged(shapes.tag(blob)).response([]);
            return self.uncertified(response, RANGES, certificate).into();
        }
        let whole = |status| shapes.shown(status, shapes.tag(blob), &sight.seen);
        let range = range_of(request, blob).filter(|_| !is_head);
        let range = range.map_or(ByteRange::Ignored, |range| byte_range(range, size));
        let (head, bytes): (Head, _) = match range {
            ByteRange::Unsatisfiable => {
                let response = shapes.unsatisfiable(blob, size).response([]);
                return self.uncertified(response, RANGES, certificate).into();
            }
            ByteRange::Bytes { from, len } => {
                let len = len.min(CHUNK_BYTES);
                let head = shapes.range(whole(206), from, len, size);
                (head, Some((from, len)))
            }
            ByteRange::Ignored if is_head => (shapes.length(whole(200), size), None),
            ByteRange::Ignored if size <= CHUNK_BYTES => {
                (shapes.length(whole(200), size), Some((0, size)))
            }
            ByteRange::Ignored => {
                let head = shapes.range(whole(206), 0, CHUNK_BYTES, size);
                (head, Some((0, CHUNK_BYTES)))
            }
        };
        let part = bytes.map(|(from, len)| Part::new(sight.stored.slot, from, len));
        let response = self.uncertified(head.response([]), RANGES, certificate);
        Answer {
            response,
            part,
            upgrade: false,
        }
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

fn range_of<'a>(request: &'a HttpRequest, blob: &BlobId) -> Option<&'a str> {
    let [range, if_range] = ["Range", "If-Range"].map(|name| request.header(name));
    wanted_range(range, if_range, &etag(blob))
}

fn text(status_code: u16, body: &str) -> HttpResponse {
    HttpResponse::text(status_code, "text/plain; charset=utf-8", body)
}

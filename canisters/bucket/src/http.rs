//! Blobs for browsers, and what operators read.
//!
//! `GET|HEAD /{accessor_id}/{blob_id}?token=…`: first the form, then the token, then the reference, then
//! the bytes. Without a valid token every path answers the same 401: nobody learns what is there. Blobs of
//! more than one chunk come in parts of 2,000,000 bytes, which gateways ask for one after the other.

use candid::Principal;
use openstorage_canister::metrics;
use openstorage_tokens::Scope;
use openstorage_types::{
    BlobId, chunk_count,
    http::{HttpRequest, HttpResponse},
    limits::CHUNK_BYTES,
};
use serde_bytes::ByteBuf;

use crate::{Bucket, Now, Stored, access::Wanted, references::Reference};

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

/// What a blob may do in a browser that opens it as a page: be looked at.
const POLICY: &str = "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'";

type Header = (String, String);

impl Bucket {
    pub fn http_request(&self, request: &HttpRequest, now: Now) -> HttpResponse {
        let is_head = request.method.eq_ignore_ascii_case("HEAD");
        if !is_head && !request.method.eq_ignore_ascii_case("GET") {
            let mut response = text(405, "Only GET and HEAD are served here.\n");
            response.headers.push(header("Allow", "GET, HEAD"));
            return response;
        }
        let (path, query) = match request.url.split_once('?') {
            Some((path, query)) => (path, query),
            None => (request.url.as_str(), ""),
        };
        match path {
            "/status" => HttpResponse::text(200, "application/json", self.status_json()),
            "/metrics" => HttpResponse::text(200, metrics::CONTENT_TYPE, self.metrics()),
            "/logs" => text(200, &self.lines.page()),
            _ => self.blob_response(path, query, request, is_head, now),
        }
    }

    fn blob_response(
        &self,
        path: &str,
        query: &str,
        request: &HttpRequest,
        is_head: bool,
        now: Now,
    ) -> HttpResponse {
        let refused = || {
            text(
                401,
                "A blob is opened by /{accessor_id}/{blob_id}?token=… with a valid token.\n",
            )
        };
        let (Some((accessor, blob)), Some(token)) = (parse_path(path), parse_query(query)) else {
            return refused();
        };
        let wanted = Wanted {
            scope: Scope::READ,
            accessor,
            blob,
            owner: None,
        };
        if self.access.check(token, &wanted, now.ms).is_err() {
            return refused();
        }
        let seen = self.references.seen(&blob, &accessor);
        let (Some(seen), Some(stored)) = (seen, self.stored(&blob)) else {
            return text(404, "The accessor has no such blob.\n");
        };
        let etag = format!("\"{blob}\"");
        let known = request.header("If-None-Match").unwrap_or_default();
        if known.split(',').any(|tag| tag.trim() == etag) {
            return HttpResponse {
                status_code: 304,
                headers: headers(&seen, &etag),
                body: ByteBuf::new(),
            };
        }
        self.bytes_response(&seen, &etag, stored, request.header("Range"), is_head)
    }

    fn bytes_response(
        &self,
        seen: &Reference,
        etag: &str,
        stored: Stored,
        range: Option<&str>,
        is_head: bool,
    ) -> HttpResponse {
        let mut headers = headers(seen, etag);
        let size = stored.size;
        if is_head {
            headers.push(header("Content-Length", size.to_string()));
            return HttpResponse {
                status_code: 200,
                headers,
                body: ByteBuf::new(),
            };
        }
        let in_parts = chunk_count(size) > 1;
        let part = match range {
            // A blob of one part is served whole: a server may ignore ranges.
            Some(range) if in_parts => part_of(range, size),
            _ => Some(0),
        };
        let body = part.and_then(|part| self.store.read_chunk(stored.slot, part));
        let (Some(part), Some(body)) = (part, body) else {
            headers.push(header("Content-Range", format!("bytes */{size}")));
            return HttpResponse {
                status_code: 416,
                headers,
                body: ByteBuf::new(),
            };
        };
        headers.push(header("Content-Length", body.len().to_string()));
        if in_parts {
            let start = u64::from(part) * CHUNK_BYTES;
            let end = start + body.len() as u64 - 1;
            headers.push(header(
                "Content-Range",
                format!("bytes {start}-{end}/{size}"),
            ));
        }
        HttpResponse {
            status_code: if in_parts { 206 } else { 200 },
            headers,
            body: ByteBuf::from(body),
        }
    }

    fn status_json(&self) -> String {
        let status = self.status();
        format!(
            r#"{{"index":"{}","blobs":{},"references":{},"open_uploads":{},"bytes_stored":{},"bytes_reserved":{},"bytes_free":{},"events_unsent":{},"key_ready":{}}}"#,
            status.index,
            status.blobs,
            status.references,
            status.open_uploads,
            status.bytes_stored,
            status.bytes_reserved,
            status.bytes_free,
            status.events_unsent,
            status.key.is_some(),
        )
    }

    fn metrics(&self) -> String {
        let status = self.status();
        let cycles = self.cycles();
        let mut page = metrics::Page::new("openstorage_bucket");
        page.gauge("version", "Version of the bucket's code.", status.version);
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

/// The index of the part that `bytes=k·2,000,000-` asks for; none for any other range.
fn part_of(range: &str, size: u64) -> Option<u32> {
    let start = range.strip_prefix("bytes=")?.strip_suffix('-')?;
    let start: u64 = start.parse().ok()?;
    (start.is_multiple_of(CHUNK_BYTES) && start < size)
        .then(|| u32::try_from(start / CHUNK_BYTES).ok())
        .flatten()
}

/// `/{accessor_id}/{blob_id}`, each in its one canonical form.
fn parse_path(path: &str) -> Option<(Principal, BlobId)> {
    let (accessor, blob) = path.strip_prefix('/')?.split_once('/')?;
    let id = Principal::from_text(accessor).ok()?;
    (id.to_text() == accessor).then_some(())?;
    Some((id, blob.parse().ok()?))
}

/// The one token.
fn parse_query(query: &str) -> Option<&str> {
    let mut tokens = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("token="));
    let token = tokens.next()?;
    tokens.next().is_none().then_some(token)
}

/// Those that every answer about a blob has.
fn headers(seen: &Reference, etag: &str) -> Vec<Header> {
    let mut headers = vec![
        header("Content-Type", &seen.mime_type),
        header("ETag", etag),
        header("Accept-Ranges", "bytes"),
        header("Cache-Control", "private, max-age=300"),
        header("Access-Control-Allow-Origin", "*"),
        header("Cross-Origin-Resource-Policy", "cross-origin"),
        header("Referrer-Policy", "no-referrer"),
        header("X-Content-Type-Options", "nosniff"),
        header("Content-Security-Policy", POLICY),
    ];
    if !SHOWN.contains(&seen.mime_type.as_str()) {
        let disposition = match &seen.name {
            Some(name) => format!("attachment; filename*=UTF-8''{}", percent_encoded(name)),
            None => "attachment".into(),
        };
        headers.push(header("Content-Disposition", disposition));
    }
    headers
}

/// A file name as RFC 8187 writes it: all but letters, digits and `-._~` as %XX.
fn percent_encoded(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte as char);
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

fn text(status_code: u16, body: &str) -> HttpResponse {
    HttpResponse::text(status_code, "text/plain; charset=utf-8", body)
}

fn header(name: &str, value: impl Into<String>) -> Header {
    (name.into(), value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_parts_are_ranges() {
        let size = 2 * CHUNK_BYTES + 1;
        assert_eq!(part_of("bytes=0-", size), Some(0));
        assert_eq!(part_of("bytes=4000000-", size), Some(2));
        for range in [
            "bytes=6000000-",
            "bytes=1-",
            "bytes=0-1",
            "bytes=-5",
            "bytes=",
            "items=0-",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(part_of(range, size), None, "{range}");
        }
    }

    #[test]
    fn a_file_name_cannot_break_out_of_its_header() {
        assert_eq!(
            percent_encoded("a\"b;\r\nc é.txt"),
            "a%22b%3B%0D%0Ac%20%C3%A9.txt"
        );
    }
}

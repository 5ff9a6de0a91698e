//! Reads: tokens, HTTP, chunk by chunk.

mod support;

use candid::Principal;
use openstorage_tokens::{Grant, Scope};
use openstorage_types::{
    bucket::{
        AddBlobReferenceArgs, AddBlobReferenceError, InitArgs, ReadChunkArgs, ReadChunkError,
        ReadChunkOk, RemoveBlobReferenceArgs, TokenProblem,
    },
    channel::{AccessorDeleted, IssuerRemoved, Revoked, UserDeleted, kind},
    http::{HttpRequest, HttpResponse, StreamingToken},
    limits::{CHUNK_BYTES, CLOCK_SKEW_MS, READ_TOKEN_LIFE_MS},
};
use support::*;

fn request(world: &World, method: &str, url: &str, headers: &[(&str, &str)]) -> HttpResponse {
    world.answer(&asking(method, url, headers))
}

fn get(world: &World, url: &str) -> HttpResponse {
    request(world, "GET", url, &[])
}

fn path(data: &[u8]) -> String {
    format!("/{}/{}", chat(), blob_id(data))
}

fn read_args(data: &[u8], token: String, chunk_index: u32) -> ReadChunkArgs {
    ReadChunkArgs {
        blob_id: blob_id(data),
        accessor_id: chat(),
        token,
        chunk_index,
    }
}

#[test]
fn a_picture_is_shown_with_what_a_browser_needs_and_nothing_that_harms() {
    let mut world = World::new();
    let data = bytes(300, 3);
    let id = world.upload(alice(), &data);
    let url = format!("{}?token={}", path(&data), world.read_token(bob()));
    let shown = get(&world, &url);
    assert_eq!((shown.status_code, shown.body.as_ref()), (200, &data[..]));
    assert_eq!(shown.header("content-type"), Some(MIME_TYPE));
    assert_eq!(shown.header("content-length"), Some("300"));
    assert_eq!(shown.header("x-content-type-options"), Some("nosniff"));
    let named = "inline; filename=\"picture.png\"";
    assert_eq!(shown.header("content-disposition"), Some(named));
    let policy = shown.header("content-security-policy").unwrap();
    assert!(policy.contains("sandbox") && policy.contains("default-src 'none'"));

    let etag = format!("\"{id}\"");
    assert_eq!(shown.header("etag"), Some(etag.as_str()));
    let known = request(&world, "GET", &url, &[("if-none-match", &etag)]);
    assert_eq!((known.status_code, known.body.len()), (304, 0));
    let head = request(&world, "HEAD", &url, &[]);
    assert_eq!((head.status_code, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some("300"));
    let post = request(&world, "POST", &url, &[]);
    assert_eq!(post.status_code, 405);
}

/// What was certified under the one setting would not verify under the other.
#[test]
fn how_long_browsers_may_show_what_they_keep_is_said_once() {
    for (installed, cache) in [
        (None, "private, max-age=300"),
        (Some(false), "private, max-age=300"),
        (Some(true), "private, no-cache"),
    ] {
        let mut world = World::with(InitArgs {
            strict_cache: installed,
            ..World::init()
        });
        let data = bytes(5_000_000, 3);
        let id = world.upload(alice(), &data);
        let etag = format!("\"{id}\"");
        let look = |world: &World| {
            let url = format!("{}?token={}", path(&data), world.read_token(bob()));
            for (headers, status) in [
                (&[][..], 206),
                (&[("Range", "bytes=4000000-")], 206),
                (&[("range", "bytes=0-1")], 206),
                (&[("range", "bytes=5000000-")], 416),
                (&[("If-None-Match", etag.as_str())], 304),
            ] {
                let answer = request(world, "GET", &url, headers);
                assert_eq!(answer.status_code, status);
                assert_eq!(answer.header("cache-control"), Some(cache));
            }
        };
        look(&world);
        for strict_cache in [None, Some(true), Some(false)] {
            let args = InitArgs {
                strict_cache,
                ..World::init()
            };
            world.upgrade_with(Some(args));
            look(&world);
        }
    }
}

/// What is stored and what is certified fit together.
#[track_caller]
fn assert_whole(world: &World) {
    assert_eq!(world.bucket.inventory().err(), None);
}

/// One reference of this type and name, as it is shown.
fn shown_as(mime_type: &str, name: Option<&str>) -> HttpResponse {
    let mut world = World::new();
    let data = bytes(300, 3);
    let mut args = chunk(&data, 0);
    args.mime_type = mime_type.into();
    args.name = name.map(str::to_owned);
    world.push(alice(), &args).unwrap();
    let url = format!("{}?token={}", path(&data), world.read_token(bob()));
    get(&world, &url)
}

#[test]
fn what_a_browser_might_run_or_include_is_a_download_without_a_type() {
    for mime_type in [
        "text/html",
        "TEXT/HTML",
        "image/svg+xml",
        "Image/SVG+XML",
        "application/xhtml+xml",
        "application/pdf",
        "text/xml",
        "text/javascript",
        "application/javascript",
        "text/css",
        "application/json",
        "application/wasm",
        "text/event-stream",
        "multipart/x-mixed-replace",
        "font/woff2",
    ] {
        let shown = shown_as(mime_type, Some("a \"b\".html"));
        let typed = shown.header("content-type");
        assert_eq!(typed, Some("application/octet-stream"), "{mime_type}");
        assert_eq!(
            shown.header("content-disposition"),
            Some("attachment; filename=\"a _b_.html\"; filename*=UTF-8''a%20%22b%22.html"),
            "{mime_type}"
        );
        assert_eq!(shown.header("x-content-type-options"), Some("nosniff"));
    }
    let nameless = shown_as("text/html", None);
    assert_eq!(nameless.header("content-disposition"), Some("attachment"));
}

#[test]
fn what_browsers_show_and_play_keeps_its_type_whatever_its_case() {
    for mime_type in [
        "image/png",
        "image/heic",
        "video/mp4",
        "VIDEO/MP4",
        "video/quicktime",
        "video/x-matroska",
        "video/webm",
        "audio/mpeg",
        "audio/mp4",
        "audio/x-m4a",
        "audio/flac",
        "Audio/AAC",
        "audio/opus",
        "audio/wav",
    ] {
        let shown = shown_as(mime_type, None);
        let lower = mime_type.to_lowercase();
        assert_eq!(shown.header("content-type"), Some(lower.as_str()));
        assert_eq!(shown.header("content-disposition"), None, "{mime_type}");
        let named = shown_as(mime_type, Some("\u{5f71}.mp4"));
        assert_eq!(
            named.header("content-disposition"),
            Some("inline; filename=\"_.mp4\"; filename*=UTF-8''%E5%BD%B1.mp4")
        );
    }
}

/// Another user has stored the same bytes for the same accessor before, or does so after.
#[test]
fn nobody_decides_how_the_reference_of_another_is_shown() {
    for size in [300, 4_500_000] {
        let mut world = World::new();
        let data = bytes(size, 3);
        let add = |world: &mut World, user, mime_type: &str, name: &str| {
            let args = AddBlobReferenceArgs {
                blob_id: blob_id(&data),
                from_accessor: chat(),
                accessor_ids: vec![chat()],
                token: world.read_token(user),
                mime_type: mime_type.into(),
                name: Some(name.into()),
            };
            let added = world.bucket.add_blob_reference(user, &args, world.now);
            assert!(added.is_ok(), "{added:?}");
        };
        for index in 0..openstorage_types::chunk_count(size) {
            let mut args = chunk(&data, index);
            args.mime_type = "application/octet-stream".into();
            args.name = Some("x.exe".into());
            world.push(bob(), &args).unwrap();
        }
        add(&mut world, alice(), "video/mp4", "film.mp4");
        let look = |world: &World, viewer| {
            let url = format!("{}?token={}", path(&data), world.read_token(viewer));
            let shown = get(world, &url);
            let head = request(world, "HEAD", &url, &[]);
            let range = request(world, "GET", &url, &[("range", "bytes=1-2")]);
            let of = |response: &HttpResponse| {
                let typed = response.header("content-type").map(str::to_owned);
                let named = response.header("content-disposition").unwrap().to_owned();
                (typed, named)
            };
            assert_eq!((of(&head), of(&range)), (of(&shown), of(&shown)));
            let (typed, named) = of(&shown);
            let args = read_args(&data, world.read_token(viewer), 0);
            let read = world.bucket.read_chunk(&viewer, &args, world.now).unwrap();
            (typed.unwrap(), named, read.mime_type)
        };
        let film = |mime: &str| {
            let named = "inline; filename=\"film.mp4\"".to_owned();
            (mime.to_owned(), named, mime.to_owned())
        };
        let other = || {
            let mime = "application/octet-stream".to_owned();
            let named = "attachment; filename=\"x.exe\"".to_owned();
            (mime.clone(), named, mime)
        };
        let carol = principal(3);
        assert_eq!(look(&world, alice()), film("video/mp4"));
        assert_eq!(look(&world, bob()), other());
        // Who has none sees the oldest.
        assert_eq!(look(&world, carol), other());
        assert_whole(&world);
        world.upgrade();
        assert_eq!(look(&world, alice()), film("video/mp4"));
        let remove = |world: &mut World, owner| {
            let args = RemoveBlobReferenceArgs {
                blob_id: blob_id(&data),
                accessor_id: chat(),
                owner,
                token: None,
            };
            let removed = world.bucket.remove_blob_reference(owner, &args, world.now);
            assert_eq!(removed, Ok(()));
            assert_whole(world);
        };
        remove(&mut world, bob());
        assert_eq!(look(&world, carol), film("video/mp4"));
        assert_eq!(look(&world, bob()), film("video/mp4"));
        add(&mut world, bob(), "application/octet-stream", "x.exe");
        assert_whole(&world);
        assert_eq!(look(&world, carol), film("video/mp4"));
        assert_eq!(look(&world, bob()), other());
        remove(&mut world, bob());
        remove(&mut world, alice());
        let url = format!("{}?token={}", path(&data), world.read_token(alice()));
        assert_eq!(get(&world, &url).status_code, 404);
    }
}

#[test]
fn without_a_valid_token_every_path_looks_the_same() {
    let mut world = World::new();
    let data = bytes(300, 3);
    let id = world.upload(alice(), &data);
    let token = world.read_token(bob());
    let right = format!("{}?token={token}", path(&data));
    assert_eq!(get(&world, &right).status_code, 200);
    let refused = get(&world, "/");
    assert_eq!(refused.status_code, 401);
    let delete = world.delete_token(bob(), alice(), id);
    for url in [
        path(&data),
        format!("{}?token=", path(&data)),
        format!("{}?token={delete}", path(&data)),
        format!("{}?token={}", path(&data), &token[1..]),
        format!("{right}&token={token}"),
        format!("{}?TOKEN={token}", path(&data)),
        format!("/{}/{id}?token={token}", principal(50)),
        format!("{}/?token={token}", path(&data)),
        format!("/{}?token={token}", chat()),
        format!(
            "/{}/{}?token={token}",
            chat(),
            id.to_string().to_uppercase()
        ),
        format!("/{}/{}?token={token}", chat().to_text().to_uppercase(), id),
        format!("/x/../{}/{id}?token={token}", chat()),
        "/%00%ff".into(),
        "?".into(),
        String::new(),
    ] {
        assert_eq!(get(&world, &url), refused, "{url}");
    }
    // Whoever may see what the chat sees learns that it does not see this.
    let other = format!("{}?token={token}", path(b"other"));
    let missing = get(&world, &other);
    assert_eq!(missing.status_code, 404);
    // The proof shows the ids of blobs beside it, so whoever may see one blob alone gets none.
    assert!(missing.header("IC-Certificate").is_some());
    let one = blob_id(b"other");
    let bound = world.token(Grant {
        scope: Scope::READ.with(Scope::BOUND_TO_BLOB),
        dn: None,
        blob: Some(one.0),
        owner: None,
        principal: bob(),
        iat_ms: world.now.ms,
        exp_ms: world.now.ms + READ_TOKEN_LIFE_MS,
    });
    let missing = get(&world, &format!("{}?token={bound}", path(b"other")));
    assert_eq!(missing.status_code, 404);
    assert_eq!(missing.header("IC-Certificate"), None);
    let is_upgraded = |world: &World, url: &str| {
        let request = HttpRequest {
            method: "GET".into(),
            url: url.into(),
            headers: vec![],
            body: Default::default(),
            certificate_version: Some(2),
        };
        world.bucket.is_upgraded(&request, world.now)
    };
    assert!(is_upgraded(
        &world,
        &format!("{}?token={bound}", path(b"other"))
    ));
    // Nor has an accessor without a blob a place in the tree. Nothing else is worth an update.
    assert!(!is_upgraded(&world, &other));
    assert!(!is_upgraded(&world, &right));
    world
        .bucket
        .remove_blob_reference(
            alice(),
            &RemoveBlobReferenceArgs {
                blob_id: id,
                accessor_id: chat(),
                owner: alice(),
                token: None,
            },
            world.now,
        )
        .unwrap();
    assert!(is_upgraded(&world, &other));
    assert!(is_upgraded(&world, &right));
    for url in [
        path(&data),
        format!("{right}A"),
        format!("/m{other}"),
        "/".into(),
    ] {
        assert!(!is_upgraded(&world, &url), "{url}");
    }
}

#[test]
fn a_token_opens_from_its_issue_to_its_expiry() {
    let mut world = World::new();
    let data = bytes(300, 3);
    world.upload(alice(), &data);
    let url = format!("{}?token={}", path(&data), world.read_token(bob()));
    world.pass(READ_TOKEN_LIFE_MS - 1);
    assert_eq!(get(&world, &url).status_code, 200);
    world.pass(1);
    assert_eq!(get(&world, &url).status_code, 401);

    let problem = |world: &World, iat_ms: u64| {
        let token = world.token(Grant {
            scope: Scope::READ,
            dn: None,
            blob: None,
            owner: None,
            principal: bob(),
            iat_ms,
            exp_ms: iat_ms + READ_TOKEN_LIFE_MS,
        });
        let args = read_args(&data, token, 0);
        world.bucket.read_chunk(&bob(), &args, world.now)
    };
    let now_ms = world.now.ms;
    assert!(problem(&world, now_ms + CLOCK_SKEW_MS).is_ok());
    assert_eq!(
        problem(&world, now_ms + CLOCK_SKEW_MS + 1),
        Err(ReadChunkError::InvalidToken(TokenProblem::InvalidTimes))
    );
}

fn asking(method: &str, url: &str, headers: &[(&str, &str)]) -> HttpRequest {
    let headers = headers.iter();
    HttpRequest {
        method: method.into(),
        url: url.into(),
        headers: headers
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        body: Default::default(),
        certificate_version: Some(2),
    }
}

#[test]
fn a_gateway_gets_a_large_blob_in_parts() {
    let mut world = World::new();
    let data = bytes(5_000_000, 3);
    world.upload(alice(), &data);
    let url = format!("{}?token={}", path(&data), world.read_token(bob()));
    // A gateway's own header, as it spells it.
    let part = |range: &str| request(&world, "GET", &url, &[("Range", range)]);
    let first = get(&world, &url);
    assert_eq!((first.status_code, first.body.len()), (206, 2_000_000));
    assert_eq!(
        first.header("content-range"),
        Some("bytes 0-1999999/5000000")
    );
    assert_eq!(part("bytes=0-"), first);
    for (range, shown, bytes) in [
        (
            "bytes=2000000-",
            "bytes 2000000-3999999/5000000",
            2_000_000..4_000_000,
        ),
        (
            "bytes=4000000-",
            "bytes 4000000-4999999/5000000",
            4_000_000..5_000_000,
        ),
    ] {
        let part = part(range);
        assert_eq!(part.status_code, 206);
        assert_eq!(part.header("content-range"), Some(shown));
        assert_eq!(part.body.as_ref(), &data[bytes]);
    }
    // The same of a script, which says its origin, and closed.
    let range = [("range", "bytes=2000000-3999999"), ("origin", "https://a")];
    assert_eq!(request(&world, "GET", &url, &range), part("bytes=2000000-"));
    let head = request(&world, "HEAD", &url, &[("range", "bytes=1-2")]);
    assert_eq!(
        (head.status_code, head.header("content-length")),
        (200, Some("5000000"))
    );
}

/// Whatever a client asks for, by both URLs: what RFC 9110 has it get, to the byte.
#[test]
fn a_client_gets_exactly_the_range_that_it_asks_for() {
    for size in [1, 300, 2_000_000, 2_000_001, 5_000_000, 14_000_001] {
        let mut world = World::new();
        let data = bytes(size, 3);
        let id = world.upload(alice(), &data);
        let (etag, last) = (format!("\"{id}\""), size - 1);
        let path = format!("{}?token={}", path(&data), world.read_token(bob()));
        let whole = |from: u64| (206, from, last);
        let cases = [
            ("bytes=0-".to_owned(), whole(0)),
            (format!("bytes=0-{last}"), whole(0)),
            (format!("bytes=0-{size}"), whole(0)),
            ("bytes=0-0".to_owned(), (206, 0, 0)),
            ("BYTES=0-1".to_owned(), (206, 0, last.min(1))),
            ("bytes=0-99".to_owned(), (206, 0, last.min(99))),
            ("bytes=-1".to_owned(), whole(last)),
            (format!("bytes=-{}", size + 7), whole(0)),
            (format!("bytes={last}-"), whole(last)),
            (format!("bytes={}-", size / 2), whole(size / 2)),
            (
                format!("bytes={}-{}", size / 3, size / 2),
                (206, size / 3, size / 2),
            ),
            (
                format!("bytes={}-", size / 2_000_000 * 2_000_000),
                (206, size / 2_000_000 * 2_000_000, last),
            ),
            (format!("bytes={size}-"), (416, 0, 0)),
            ("bytes=-0".to_owned(), (416, 0, 0)),
            ("bytes=5-4".to_owned(), (200, 0, last)),
            ("bytes=0-0,2-3".to_owned(), (200, 0, last)),
            ("lines=1-2".to_owned(), (200, 0, last)),
            ("bytes".to_owned(), (200, 0, last)),
        ];
        for url in [path.clone(), format!("/m{path}")] {
            for (range, (status, from, to)) in &cases {
                let (mut status, from, to) = (*status, *from, *to);
                if status == 206 && from >= size {
                    status = 416;
                }
                let headers = [("range", range.as_str()), ("if-range", &etag)];
                for headers in [&headers[..1], &headers[..]] {
                    let request = asking("GET", &url, headers);
                    let (answer, pieces) = world.streamed(&request);
                    let what = format!("{range} of {size} at {url}");
                    let is_certified = !url.starts_with("/m/");
                    let is_whole = size <= CHUNK_BYTES && from == 0 && to == last;
                    if is_certified && is_whole && status == 206 {
                        // Certified as it is, and a range may be ignored.
                        assert_eq!(answer.status_code, 200, "{what}");
                    } else {
                        assert_eq!(answer.status_code, status, "{what}");
                    }
                    let len = answer.body.len().to_string();
                    let shown = answer.header("content-range");
                    match answer.status_code {
                        416 => {
                            let none = format!("bytes */{size}");
                            assert_eq!(shown, Some(none.as_str()), "{what}");
                            assert_eq!(answer.body.len(), 0, "{what}");
                            if pieces > 1 {
                                // No gateway knows how long a stream is.
                                assert_eq!(answer.header("content-length"), Some("0"));
                            }
                        }
                        200 => {
                            assert_eq!((shown, answer.body.as_ref()), (None, &data[..]), "{what}");
                            assert_eq!(answer.header("content-length"), Some(len.as_str()));
                        }
                        _ => {
                            let range = format!("bytes {from}-{to}/{size}");
                            assert_eq!(shown, Some(range.as_str()), "{what}");
                            let bytes = &data[from as usize..=to as usize];
                            assert!(answer.body.as_ref() == bytes, "{what}");
                            assert_eq!(answer.header("content-length"), Some(len.as_str()));
                        }
                    }
                    assert_eq!(answer.header("accept-ranges"), Some("bytes"), "{what}");
                    // Nothing that is not certified ends before a gateway gives up to compare it.
                    let is_proved = answer.header("IC-Certificate").is_some();
                    assert!(
                        is_proved || (is_certified && pieces > 5),
                        "{what}: {pieces}"
                    );
                    assert!(
                        pieces <= 5 + 1 + to.saturating_sub(from) as usize / 3_000_000 + 1,
                        "{what}"
                    );
                }
                // The start of other content: everything anew.
                for other in ["\"other\"", "Wed, 21 Oct 2015 07:28:00 GMT", ""] {
                    let headers = [("range", range.as_str()), ("if-range", other)];
                    let (answer, _) = world.streamed(&asking("GET", &url, &headers));
                    assert_eq!(answer.status_code, 200);
                    assert!(
                        answer.body.as_ref() == &data[..],
                        "{range} of {size} if {other}"
                    );
                }
            }
            // Without a range, and where there is only a condition for one.
            let (answer, _) = world.streamed(&asking("GET", &url, &[("if-range", &etag)]));
            assert_eq!((answer.status_code, answer.body.len() as u64), (200, size));
            let head = request(&world, "HEAD", &url, &[("range", "bytes=0-0")]);
            let len = size.to_string();
            assert_eq!(
                (head.status_code, head.header("content-length")),
                (200, Some(len.as_str()))
            );
            assert_eq!((head.body.len(), head.header("content-range")), (0, None));
        }
        let (whole, _) = world.streamed(&asking("GET", &format!("/m{path}"), &[]));
        assert_eq!((whole.status_code, whole.body.as_ref()), (200, &data[..]));
    }
}

/// Many owners of one blob under one accessor, some of whom show it alike, come and go in any order.
#[test]
fn what_many_show_of_one_blob_stays_whole() {
    let mut world = World::new();
    let data = bytes(2_000_001, 3);
    world.upload(alice(), &data);
    world.push(bob(), &chunk(&bytes(4_000_001, 5), 1)).unwrap();
    assert_whole(&world);
    let owners: Vec<_> = (10..22).map(principal).collect();
    for (n, owner) in owners.iter().enumerate() {
        world.tell_user(*owner);
        world.lease(*owner, 1_000_000_000);
        let args = AddBlobReferenceArgs {
            blob_id: blob_id(&data),
            from_accessor: chat(),
            accessor_ids: vec![chat(), *owner],
            token: world.read_token(*owner),
            mime_type: ["image/png", "video/mp4", "text/html"][n % 3].into(),
            name: (n % 2 == 0).then(|| "a.b".into()),
        };
        let added = world.bucket.add_blob_reference(*owner, &args, world.now);
        assert!(added.is_ok(), "{added:?}");
        assert_whole(&world);
    }
    for (at, owner) in [5, 0, 11, 1, 2, 10, 3].map(|at| (at, owners[at])) {
        let args = RemoveBlobReferenceArgs {
            blob_id: blob_id(&data),
            accessor_id: chat(),
            owner: if at == 0 { alice() } else { owner },
            token: None,
        };
        let removed = world
            .bucket
            .remove_blob_reference(args.owner, &args, world.now);
        assert_eq!(removed, Ok(()));
        assert_whole(&world);
    }
    world.tell(
        kind::ACCESSOR_DELETED,
        &AccessorDeleted {
            accessor_id: chat(),
        },
    );
    while world.bucket.is_deleting() {
        world.bucket.delete_slice(world.now);
        assert_whole(&world);
    }
}

#[test]
fn nothing_has_no_ranges() {
    let mut world = World::new();
    world.upload(alice(), &[]);
    let path = format!("{}?token={}", path(&[]), world.read_token(bob()));
    for url in [path.clone(), format!("/m{path}")] {
        for range in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=1-"] {
            let answer = request(&world, "GET", &url, &[("range", range)]);
            assert_eq!((answer.status_code, answer.body.len()), (200, 0), "{range}");
        }
    }
}

#[test]
fn a_stream_ends_with_what_opened_it() {
    let mut world = World::new();
    let data = bytes(5_000_000, 3);
    let id = world.upload(alice(), &data);
    let url = format!("/m{}?token={}", path(&data), world.read_token(bob()));
    let first = world
        .bucket
        .http_request(&asking("GET", &url, &[]), None, world.now);
    let token = first.next.unwrap();
    let next = |world: &World, change: &dyn Fn(&mut StreamingToken)| {
        let mut token = token.clone();
        change(&mut token);
        world.bucket.stream(token, world.now)
    };
    let (part, _) = next(&world, &|_| ()).unwrap();
    assert_eq!(part.unwrap().len, 256 * 1_024);
    // Nobody gets more by a token of a stream than by the token in it.
    for change in [
        &(|token: &mut StreamingToken| token.end = 5_000_001) as &dyn Fn(&mut StreamingToken),
        &|token| token.from = token.end + 1,
        &|token| token.url = path(&data),
        &|token| token.url.push('A'),
        &|token| token.url = token.url.replace(&id.to_string(), &"ab".repeat(32)),
        &|token| token.url.push_str(&"&a=".repeat(1_000)),
    ] {
        assert_eq!(next(&world, change), None);
    }
    assert!(next(&world, &|token| token.piece = u32::MAX).is_some());
    assert!(next(&world, &|token| token.from = token.end).is_some());
    let args = RemoveBlobReferenceArgs {
        blob_id: id,
        accessor_id: chat(),
        owner: alice(),
        token: None,
    };
    let removed = world
        .bucket
        .remove_blob_reference(alice(), &args, world.now);
    assert_eq!(removed, Ok(()));
    assert_eq!(next(&world, &|_| ()), None);
}

#[test]
fn a_call_reads_chunk_by_chunk_for_the_tokens_principal_only() {
    let mut world = World::new();
    let data = bytes(3_000_000, 3);
    world.upload(alice(), &data);
    let token = world.read_token(bob());
    let read = |caller: Principal, index| {
        let args = read_args(&data, token.clone(), index);
        world.bucket.read_chunk(&caller, &args, world.now)
    };
    assert_eq!(
        read(bob(), 1),
        Ok(ReadChunkOk {
            bytes: data[2_000_000..].to_vec().into(),
            size: 3_000_000,
            mime_type: MIME_TYPE.into()
        })
    );
    assert_eq!(
        read(bob(), 2),
        Err(ReadChunkError::InvalidChunkIndex { count: 2 })
    );
    assert_eq!(read(alice(), 0), Err(ReadChunkError::NotAuthorized));
    assert_eq!(
        read(Principal::anonymous(), 0),
        Err(ReadChunkError::NotAuthorized)
    );
}

#[test]
fn an_issuer_that_is_trusted_no_more_opens_nothing() {
    let mut world = World::new();
    let data = bytes(300, 3);
    world.upload(alice(), &data);
    let args = read_args(&data, world.read_token(bob()), 0);
    assert!(world.bucket.read_chunk(&bob(), &args, world.now).is_ok());
    world.tell(kind::ISSUER_REMOVED, &IssuerRemoved { issuer: chat() });
    assert_eq!(
        world.bucket.read_chunk(&bob(), &args, world.now),
        Err(ReadChunkError::InvalidToken(TokenProblem::UnknownIssuer))
    );
}

#[test]
fn without_a_secret_there_is_nothing_to_check_tokens_with() {
    let ready = World::new();
    let world = World::empty(None);
    let args = read_args(&[], ready.read_token(bob()), 0);
    assert_eq!(
        world.bucket.read_chunk(&bob(), &args, world.now),
        Err(ReadChunkError::InvalidToken(TokenProblem::KeysNotReady))
    );
}

/// From the very message of the deletion on, and in a restored bucket before any other: nothing is shown, forwarded or
/// listed of what goes in slices.
#[test]
fn what_is_deleted_for_good_is_shown_no_more_before_it_is_gone() {
    let deletions: [&dyn Fn(&mut World); 2] = [
        &|world| {
            let accessor_id = chat();
            world.tell(kind::ACCESSOR_DELETED, &AccessorDeleted { accessor_id });
        },
        &|world| {
            let (user, incarnation) = (alice(), 1);
            world.tell(kind::USER_DELETED, &UserDeleted { user, incarnation });
        },
    ];
    for delete in deletions {
        let mut world = World::new();
        let (data, other) = (bytes(5_000_000, 3), bytes(300, 4));
        let id = world.upload(alice(), &data);
        world.upload(alice(), &other);
        let url = format!("{}?token={}", path(&data), world.read_token(bob()));
        let film = asking("GET", &format!("/m{url}"), &[]);
        let next = world.bucket.http_request(&film, None, world.now).next;
        assert_eq!(get(&world, &url).status_code, 206);
        delete(&mut world);
        for round in 0..2 {
            // Not gone yet.
            assert_eq!(world.bucket.status().references, 2);
            for method in ["GET", "HEAD"] {
                let missing = request(&world, method, &url, &[]);
                assert_eq!(missing.status_code, 404);
                // The tree still has it: no proof of the contrary.
                assert_eq!(missing.header("IC-Certificate"), None);
                assert!(
                    world
                        .bucket
                        .is_upgraded(&asking(method, &url, &[]), world.now)
                );
                let streamed = request(&world, method, &format!("/m{url}"), &[]);
                assert_eq!(streamed.status_code, 404);
            }
            assert_eq!(world.bucket.stream(next.clone().unwrap(), world.now), None);
            let args = read_args(&data, world.read_token(bob()), 0);
            let read = world.bucket.read_chunk(&bob(), &args, world.now);
            assert_eq!(read, Err(ReadChunkError::NotFound));
            let args = AddBlobReferenceArgs {
                blob_id: id,
                from_accessor: chat(),
                accessor_ids: vec![bob()],
                token: world.read_token(bob()),
                mime_type: MIME_TYPE.into(),
                name: None,
            };
            let added = world.bucket.add_blob_reference(bob(), &args, world.now);
            assert_eq!(added, Err(AddBlobReferenceError::NotFound.into()));
            if round == 0 {
                world.upgrade();
            }
        }
    }
}

/// What another user has there too is still seen, as that one shows it.
#[test]
fn the_reference_of_a_user_that_goes_leaves_those_of_others() {
    let mut world = World::new();
    let data = bytes(300, 3);
    let id = world.upload(alice(), &data);
    let args = AddBlobReferenceArgs {
        blob_id: id,
        from_accessor: chat(),
        accessor_ids: vec![chat()],
        token: world.read_token(bob()),
        mime_type: "video/mp4".into(),
        name: None,
    };
    world
        .bucket
        .add_blob_reference(bob(), &args, world.now)
        .unwrap();
    let url = format!("{}?token={}", path(&data), world.read_token(principal(3)));
    let typed = |world: &World| {
        let shown = get(world, &url);
        assert_eq!(shown.status_code, 200);
        shown.header("content-type").unwrap().to_owned()
    };
    assert_eq!(typed(&world), MIME_TYPE);
    let (user, incarnation) = (alice(), 1);
    world.tell(kind::USER_DELETED, &UserDeleted { user, incarnation });
    assert_eq!(typed(&world), "video/mp4");
    world.bucket.delete_user_slice(world.now);
    assert_eq!(world.bucket.status().references, 1);
    assert_whole(&world);
    assert_eq!(typed(&world), "video/mp4");
}

/// The witness of a 404 shows the ids of blobs beside it: none of them is newer than the token.
#[test]
fn no_proof_shows_what_came_after_the_token() {
    let mut world = World::new();
    world.upload(alice(), b"before");
    let url = format!("{}?token={}", path(b"absent"), world.read_token(bob()));
    let is_proved = |world: &World, url: &str| {
        let missing = get(world, url);
        assert_eq!(missing.status_code, 404);
        let is_proved = missing.header("IC-Certificate").is_some();
        let request = asking("GET", url, &[]);
        assert_eq!(world.bucket.is_upgraded(&request, world.now), !is_proved);
        is_proved
    };
    assert!(is_proved(&world, &url));
    world.pass(1);
    for n in 0..20 {
        world.upload(alice(), &[n]);
    }
    // Twenty blobs more: its neighbours are of them.
    assert!(!is_proved(&world, &url));
    let fresh = format!("{}?token={}", path(b"absent"), world.read_token(bob()));
    assert!(is_proved(&world, &fresh));
}

#[test]
fn a_token_that_was_taken_back_is_told_as_that() {
    let mut world = World::new();
    let data = bytes(300, 3);
    world.upload(alice(), &data);
    let (token, other) = (world.read_token(bob()), world.read_token(alice()));
    let url = |token: &str| format!("{}?token={token}", path(&data));
    world.tell(
        kind::REVOKED,
        &Revoked {
            accessor_id: chat(),
            user: Some(bob()),
            min_iat_ms: world.now.ms + 1,
            until_ms: world.now.ms + READ_TOKEN_LIFE_MS,
        },
    );
    let read = |caller, token: &str| {
        let args = read_args(&data, token.into(), 0);
        world.bucket.read_chunk(&caller, &args, world.now)
    };
    let revoked = ReadChunkError::InvalidToken(TokenProblem::Revoked);
    assert_eq!(read(bob(), &token), Err(revoked));
    assert!(read(alice(), &other).is_ok());
    let refused = get(&world, &url(&token));
    let said = String::from_utf8(refused.body.into_vec()).unwrap();
    assert_eq!(refused.status_code, 401);
    assert!(said.contains("taken back"), "{said}");
    assert_eq!(get(&world, &url(&other)).status_code, 200);
}

#[test]
fn status_and_metrics_tell_the_figures() {
    let mut world = World::new();
    world.upload(alice(), &bytes(300, 3));
    let status = get(&world, "/status");
    assert_eq!(status.header("content-type"), Some("application/json"));
    let text = String::from_utf8(status.body.into_vec()).unwrap();
    assert!(text.contains(r#""bytes_stored":300"#), "{text}");
    let metrics = get(&world, "/metrics");
    let text = String::from_utf8(metrics.body.into_vec()).unwrap();
    assert!(text.contains("\nopenstorage_bucket_blobs 1\n"), "{text}");
}

//! Reads: tokens, HTTP, chunk by chunk.

mod support;

use candid::Principal;
use openstorage_tokens::{Grant, Scope};
use openstorage_types::{
    bucket::{
        InitArgs, ReadChunkArgs, ReadChunkError, ReadChunkOk, RemoveBlobReferenceArgs, TokenProblem,
    },
    channel::{IssuerRemoved, kind},
    http::{HttpRequest, HttpResponse},
    limits::{CHUNK_BYTES, CLOCK_SKEW_MS, READ_TOKEN_LIFE_MS},
};
use support::*;

fn request(world: &World, method: &str, url: &str, headers: &[(&str, &str)]) -> HttpResponse {
    let headers = headers.iter();
    let request = HttpRequest {
        method: method.into(),
        url: url.into(),
        headers: headers
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        body: Default::default(),
        certificate_version: Some(2),
    };
    world.answer(&request)
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
    assert_eq!(shown.header("content-disposition"), None);
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
                (&[("Range", "bytes=0-1")], 416),
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

#[test]
fn what_a_browser_might_run_is_a_download() {
    for mime_type in ["text/html", "image/svg+xml", "application/pdf", "text/xml"] {
        let mut world = World::new();
        let data = bytes(300, 3);
        let mut args = chunk(&data, 0);
        args.mime_type = mime_type.into();
        args.name = Some("a \"b\".html".into());
        world.push(alice(), &args).unwrap();
        let url = format!("{}?token={}", path(&data), world.read_token(bob()));
        assert_eq!(
            get(&world, &url).header("content-disposition"),
            Some("attachment; filename*=UTF-8''a%20%22b%22.html"),
            "{mime_type}"
        );
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

#[test]
fn a_large_blob_comes_in_parts() {
    let mut world = World::new();
    let data = bytes(5_000_000, 3);
    world.upload(alice(), &data);
    let url = format!("{}?token={}", path(&data), world.read_token(bob()));
    let part = |range: &str| request(&world, "GET", &url, &[("Range", range)]);
    let first = get(&world, &url);
    assert_eq!((first.status_code, first.body.len()), (206, 2_000_000));
    assert_eq!(
        first.header("content-range"),
        Some("bytes 0-1999999/5000000")
    );
    assert_eq!(part("bytes=0-"), first);
    let last = part("bytes=4000000-");
    assert_eq!(
        (last.status_code, last.body.as_ref()),
        (206, &data[4_000_000..])
    );
    assert_eq!(
        last.header("content-range"),
        Some("bytes 4000000-4999999/5000000")
    );
    // Whole parts only: that in which the range begins.
    for (range, part_of) in [
        ("bytes=1-", "bytes=0-"),
        ("bytes=4000001-", "bytes=4000000-"),
    ] {
        assert_eq!(part(range), part(part_of), "{range}");
    }
    for range in ["bytes=5000000-", "bytes=0-1", "bytes=-1", "x"] {
        let response = part(range);
        assert_eq!(response.status_code, 416, "{range}");
        assert_eq!(response.header("content-range"), Some("bytes */5000000"));
    }
    let head = request(&world, "HEAD", &url, &[]);
    assert_eq!(head.header("content-length"), Some("5000000"));
}

#[test]
fn the_parts_of_a_film_have_the_type_of_its_first_bytes() {
    let mut world = World::new();
    let data = bytes(5_000_000, 3);
    let push = |world: &mut World, index, mime_type: &str| {
        let mut args = chunk(&data, index);
        args.mime_type = mime_type.into();
        world.push(alice(), &args).unwrap();
    };
    let types = |world: &World| {
        let url = format!("{}?token={}", path(&data), world.read_token(bob()));
        [0, 1, 2].map(|index| {
            let range = format!("bytes={}-", index * CHUNK_BYTES);
            let part = request(world, "GET", &url, &[("Range", &range)]);
            assert_eq!(part.status_code, 206);
            part.header("content-type").map(str::to_owned)
        })
    };
    for (first, then, shown) in [
        ("video/mp4", "image/png", Some("video/mp4")),
        ("audio/mpeg", "audio/mpeg", Some("audio/mpeg")),
        // Not what browsers play, or too late.
        ("image/png", "video/mp4", None),
        ("video/x-html", "video/mp4", None),
    ] {
        push(&mut world, 2, first);
        push(&mut world, 0, then);
        push(&mut world, 1, then);
        let shown = shown.map(str::to_owned);
        // The type of the whole is that of the reference: of what made the session.
        assert_eq!(
            types(&world),
            [Some(first.to_owned()), shown.clone(), shown]
        );
        let id = blob_id(&data);
        let gone = RemoveBlobReferenceArgs {
            blob_id: id,
            accessor_id: chat(),
            owner: alice(),
            token: None,
        };
        let removed = world
            .bucket
            .remove_blob_reference(alice(), &gone, world.now);
        assert_eq!(removed, Ok(()));
    }
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

//! What a bucket answers to a browser, under the verifier that gateways have built in: every answer that says
//! it is certified verifies, and nothing else does in its place.

use std::time::{Duration, SystemTime};

use candid::Principal;
use integration_tests::{
    Setup, blob_id, bucket, bytes, chat, chunk, exchange::Exchange, grown, user,
};
use openstorage_types::{
    BlobId, BlobReference,
    bucket::RemoveBlobReferenceArgs,
    http::{HttpRequest, UpgradableResponse},
    index::InitArgs,
};
use pocket_ic::{PocketIc, PocketIcBuilder, RejectCode};
use reqwest::{Client, Url, header::HeaderMap};
use tokio::runtime::Runtime;

/// A bucket with blobs that one chat sees, and what opens them.
struct Shelf {
    setup: Setup,
    accessor: Principal,
    /// A chat and one of its messages.
    room: (u64, u64),
    token: String,
    picture: BlobReference,
    film: BlobReference,
}

impl Shelf {
    fn new() -> Self {
        Self::with(InitArgs::default())
    }

    fn with(init: InitArgs) -> Self {
        Self::on(network(), init)
    }

    fn on(pic: PocketIc, init: InitArgs) -> Self {
        let setup = Setup::deploy(pic, init);
        let (alice, room) = setup.user_with_chat(1);
        let accessor = room.accessor_id;
        let picture = setup.upload(alice, &bytes(5_000, 1), accessor);
        let film = upload_film(&setup, alice, accessor);
        let message = chat::post(&setup, alice, room.chat_id, &picture);
        let mut shelf = Self {
            setup,
            accessor,
            room: (room.chat_id, message),
            token: String::new(),
            picture,
            film,
        };
        shelf.renew();
        shelf
    }

    /// A token that was issued after all blobs came: one is as old as the window of six hours.
    fn renew(&mut self) {
        let (setup, (chat, message)) = (&self.setup, self.room);
        setup.pic.advance_time(WINDOW);
        setup.pic.tick();
        self.token = chat::access(setup, user(1), chat, message).1;
    }

    /// The accessor sees nothing any more.
    fn empty(&self) {
        for blob in [&self.film, &self.picture] {
            let args = RemoveBlobReferenceArgs {
                blob_id: blob.blob_id,
                accessor_id: self.accessor,
                owner: user(1),
                token: None,
            };
            bucket::delete_blob(&self.setup, self.setup.bucket, user(1), args).unwrap();
        }
    }

    fn url(&self, blob: BlobId) -> String {
        format!("/{}/{blob}?token={}", self.accessor, self.token)
    }

    fn ask(&self, method: &'static str, url: String, headers: &[(&str, &str)]) -> Exchange {
        Exchange::of(&self.setup, self.setup.bucket, method, &url, headers)
    }

    /// One exchange of each kind that is certified.
    fn exchanges(&self) -> Vec<Exchange> {
        let (picture, film) = (self.picture.blob_id, self.film.blob_id);
        let etag = format!("\"{film}\"");
        // As a gateway asks on its own.
        let range = |from| vec![("Range", from)];
        let part = |range| vec![("range", range), ("origin", "https://app.example")];
        let known = vec![("If-None-Match", etag.as_str())];
        let absent = BlobId([7; 32]);
        [
            ("GET", picture, vec![], 200, 5_000),
            ("GET", picture, vec![("range", "bytes=0-")], 200, 5_000),
            ("HEAD", picture, vec![], 200, 0),
            ("GET", film, vec![], 206, 2_000_000),
            ("GET", film, range("bytes=0-"), 206, 2_000_000),
            ("GET", film, range("bytes=2000000-"), 206, 2_000_000),
            ("GET", film, range("bytes=4000000-"), 206, 1_000_001),
            // Of a script that wants a part which a gateway can verify.
            ("GET", film, part("bytes=0-1999999"), 206, 2_000_000),
            ("GET", film, part("bytes=2000000-3999999"), 206, 2_000_000),
            ("GET", film, part("bytes=4000000-5000000"), 206, 1_000_001),
            ("HEAD", film, vec![], 200, 0),
            ("GET", film, known.clone(), 304, 0),
            ("HEAD", film, known, 304, 0),
            ("GET", film, range("bytes=6000000-"), 416, 0),
            ("GET", absent, vec![], 404, 31),
        ]
        .into_iter()
        .map(|(method, blob, headers, status, len)| {
            let exchange = self.ask(method, self.url(blob), &headers);
            let answer = &exchange.answer;
            let kind = format!("{method} {blob} {headers:?}");
            assert_eq!(
                (answer.status_code, answer.body.len()),
                (status, len),
                "{kind}"
            );
            exchange
        })
        .collect()
    }
}

/// In which read tokens are issued.
const WINDOW: Duration = Duration::from_secs(6 * 3_600);

/// Only a network with an NNS has a root key.
fn network() -> PocketIc {
    let builder = PocketIcBuilder::new().with_nns_subnet();
    builder.with_application_subnet().build()
}

/// One that lives in the present once a shelf is on it, as one that runs does.
fn network_of_now() -> PocketIc {
    let pic = network();
    pic.set_time((SystemTime::now() - WINDOW).into());
    pic
}

fn upload_film(setup: &Setup, user: Principal, accessor: Principal) -> BlobReference {
    let data = bytes(5_000_001, 2);
    let mime_type = "video/mp4";
    for index in 0..3 {
        let mut chunk = chunk(&data, index, accessor);
        chunk.mime_type = mime_type.into();
        let pushed = bucket::push_chunk(setup, setup.bucket, user, chunk);
        pushed.expect("the chunk is taken");
    }
    BlobReference {
        blob_id: blob_id(&data),
        bucket: setup.bucket,
        size: data.len() as u64,
        mime_type: mime_type.into(),
    }
}

#[test]
fn every_certified_answer_verifies_and_no_other_in_its_place() {
    let shelf = Shelf::new();
    let exchanges = shelf.exchanges();
    for exchange in &exchanges {
        exchange.assert_certified(&shelf.setup);
        exchange.assert_no_change_passes(&shelf.setup);
    }
    // No node can serve one blob's answer for another, nor the one to GET for the one to HEAD.
    for (i, one) in exchanges.iter().enumerate() {
        for other in &exchanges[..i] {
            let swapped = Exchange {
                answer: other.answer.clone(),
                ..one.clone()
            };
            let is_own = |exchange: &Exchange| matches!(exchange.answer.status_code, 304 | 416);
            let is_part = |exchange: &Exchange| {
                let range = exchange.answer.header("content-range");
                exchange.answer.status_code == 206
                    && range.is_some_and(|range| !range.starts_with("bytes 0-"))
            };
            // What is the same whatever was asked of a blob verifies with all questions about it. A
            // gateway compares the range of a part with the one that it asked for.
            let may = one.url == other.url
                && (is_own(other) || is_part(other) || one.method == other.method);
            assert_eq!(
                swapped.verify(&shelf.setup).is_ok(),
                may,
                "{} for {} {}",
                other.answer.status_code,
                one.method,
                one.answer.status_code
            );
        }
    }
}

#[test]
fn answers_verify_after_an_upgrade_and_after_a_deletion() {
    let shelf = Shelf::new();
    let setup = &shelf.setup;
    setup.upgrade(setup.bucket, "bucket").unwrap();
    setup.pic.tick();
    for exchange in shelf.exchanges() {
        exchange.assert_certified(setup);
    }
    let alice = user(1);
    let args = RemoveBlobReferenceArgs {
        blob_id: shelf.film.blob_id,
        accessor_id: shelf.accessor,
        owner: alice,
        token: None,
    };
    let before = shelf.ask("GET", shelf.url(shelf.film.blob_id), &[]);
    bucket::delete_blob(setup, setup.bucket, alice, args).unwrap();
    let gone = shelf.ask("GET", shelf.url(shelf.film.blob_id), &[]);
    assert_eq!(gone.answer.status_code, 404);
    gone.assert_certified(setup);
    // What was there cannot be shown under today's certificate.
    let header = |exchange: &Exchange| {
        let header = exchange.answer.header("ic-certificate").unwrap();
        header
            .split_once(", tree=")
            .map(|(certificate, tree)| (certificate.to_string(), tree.to_string()))
            .unwrap()
    };
    let mut mixed = before.clone();
    let (certificate, tree) = (header(&gone).0, header(&before).1);
    for (name, value) in &mut mixed.answer.headers {
        if name == "IC-Certificate" {
            *value = format!("{certificate}, tree={tree}");
        }
    }
    mixed.assert_refused(setup, "the certificate of later");
    let picture = shelf.ask("GET", shelf.url(shelf.picture.blob_id), &[]);
    picture.assert_certified(setup);
}

/// Where browsers are to ask each time, each answer says so under its certificate, before an upgrade and after it.
#[test]
fn a_strict_bucket_lets_nobody_show_what_was_not_asked_for_again() {
    let shelf = Shelf::with(InitArgs {
        bucket_strict_cache: Some(true),
        ..InitArgs::default()
    });
    let setup = &shelf.setup;
    let look = || {
        for exchange in shelf.exchanges() {
            let expected = match exchange.answer.status_code {
                404 => "no-store",
                _ => "private, no-cache",
            };
            assert_eq!(exchange.answer.header("cache-control"), Some(expected));
            exchange.assert_certified(setup);
        }
    };
    look();
    // As the index upgrades it; a setting that has changed since does not reach it.
    setup.upgrade(setup.bucket, "bucket").unwrap();
    setup.pic.tick();
    look();
}

/// References beside which answers are looked at.
fn references() -> u64 {
    match std::env::var_os("OPENSTORAGE_FULL") {
        Some(_) => 100_000,
        None => 2_000,
    }
}

/// What an upgrade clears is the certified data alone: the tree is there, whatever its size, and everything
/// verifies at once.
#[test]
fn the_tree_is_whole_right_after_an_upgrade_beside_many_references() {
    let mut shelf = Shelf::new();
    let count = references();
    let alice = user(1);
    grown::grow(&shelf.setup, alice, shelf.accessor, 0, count);
    shelf.renew();
    let setup = &shelf.setup;
    setup.upgrade(setup.bucket, "bucket").unwrap();
    let shown = |n: u64| blob_id(&grown::small(n));
    let look = |what: &str| {
        // No message has come since: not one that could build anything.
        for n in [0, 1, count / 3, count / 2, count - 1] {
            let exchange = shelf.ask("GET", shelf.url(shown(n)), &[]);
            assert_eq!(exchange.answer.status_code, 200, "blob {n} {what}");
            assert_eq!(exchange.answer.body.as_ref(), grown::small(n));
            exchange.assert_certified(setup);
        }
        for exchange in shelf.exchanges() {
            exchange.assert_certified(setup);
        }
    };
    let held = bucket::status(setup, setup.bucket).references;
    assert_eq!(held, count + 2);
    setup.pic.tick();
    look("after they came");
    setup.upgrade(setup.bucket, "bucket").unwrap();
    setup.pic.tick();
    look("after another upgrade");
    // And one more reference goes where it belongs.
    let data = b"one more";
    let one = setup.upload(alice, data, shelf.accessor);
    let exchange = shelf.ask("GET", shelf.url(one.blob_id), &[]);
    assert_eq!(exchange.answer.body.as_ref(), data);
    exchange.assert_certified(setup);
    look("after another came");
}

/// Nothing in the tree can prove that an accessor sees nothing, or that it does not see the one blob of a token,
/// without showing what is beside it. So the gateway is told to ask by an update, whose answer is the subnet's.
#[test]
fn what_cannot_be_proved_is_asked_again_by_an_update() {
    let mut shelf = Shelf::new();
    shelf.empty();
    let url = shelf.url(shelf.film.blob_id);
    let setup = &shelf.setup;
    let request = |url: &str, method: &str| HttpRequest {
        method: method.into(),
        url: url.into(),
        headers: vec![],
        body: Default::default(),
        certificate_version: Some(2),
    };
    let ask = |url: &str, method: &str| -> UpgradableResponse {
        let args = (request(url, method),);
        setup.ask(setup.bucket, Principal::anonymous(), "http_request", args)
    };
    let again = |url: &str, method: &str| {
        let args = candid::encode_one(request(url, method)).unwrap();
        let (pic, nobody) = (&setup.pic, Principal::anonymous());
        pic.update_call(setup.bucket, nobody, "http_request_update", args)
    };
    for method in ["GET", "HEAD"] {
        let first = ask(&url, method);
        assert_eq!((first.status_code, first.upgrade), (404, Some(true)));
        let answer: UpgradableResponse = candid::decode_one(&again(&url, method).unwrap()).unwrap();
        assert_eq!((answer.status_code, answer.upgrade), (404, None));
        assert_eq!(answer.body, first.body);
    }
    // For nobody else does the subnet agree on anything.
    let junk = format!("{url}A");
    for (url, method) in [(&junk, "GET"), (&url, "POST"), (&format!("/m{url}"), "GET")] {
        assert_eq!(ask(url, method).upgrade, None, "{method} {url}");
        let refused = again(url, method).unwrap_err();
        assert_eq!(refused.reject_code, RejectCode::CanisterReject, "{refused}");
    }
    // Where the accessor sees something again the tree proves it again, but to nobody whose token is older than that:
    // the proof would show it.
    setup.upload(user(1), b"something", shelf.accessor);
    assert_eq!(ask(&url, "GET").upgrade, Some(true));
    shelf.renew();
    let url = shelf.url(shelf.film.blob_id);
    let missing = shelf.ask("GET", url, &[]);
    assert_eq!(missing.answer.status_code, 404);
    missing.assert_certified(&shelf.setup);
}

/// What a browser gets at `path` through a gateway: status, whether the gateway has verified it, and body.
async fn browse(gateway: &Url, bucket: Principal, path: &str) -> (u16, bool, String) {
    let client = Client::builder().no_proxy().build().unwrap();
    let asked = client.get(gateway.join(path).unwrap());
    let asked = asked.header("host", format!("{bucket}.localhost"));
    let answer = asked.send().await.unwrap();
    let verified = answer.headers()["x-ic-verified"] == "true";
    let status = answer.status().as_u16();
    (status, verified, answer.text().await.unwrap())
}

/// The whole way: a gateway that runs asks again by itself, and a browser gets the subnet's answer.
#[test]
fn a_running_gateway_shows_what_cannot_be_proved_and_no_refusal() {
    let mut shelf = Shelf::on(network_of_now(), InitArgs::default());
    let (bucket, url) = (shelf.setup.bucket, shelf.url(shelf.picture.blob_id));
    let gateway = shelf.setup.pic.make_live(None);
    let runtime = Runtime::new().unwrap();
    let get = |path: &str| runtime.block_on(browse(&gateway, bucket, path));

    let (status, verified, _) = get(&url);
    assert_eq!((status, verified), (200, true));
    shelf.empty();
    let (status, verified, body) = get(&url);
    assert_eq!((status, verified), (404, true), "{body}");
    assert_eq!(body, "The accessor has no such blob.\n");
    // Without a good token nothing is asked again, and nothing is verified.
    let (status, verified, why) = get(&format!("{url}A"));
    assert_eq!((status, verified), (503, false), "{why}");
}

/// A client's answer, whole: status, headers and body; the error is an answer that breaks off.
async fn fetch(
    gateway: &Url,
    bucket: Principal,
    path: &str,
    headers: &[(&str, &str)],
) -> reqwest::Result<(u16, HeaderMap, Vec<u8>)> {
    let client = Client::builder().no_proxy().build().unwrap();
    let mut asked = client.get(gateway.join(path).unwrap());
    for (name, value) in headers {
        asked = asked.header(*name, *value);
    }
    let asked = asked.header("host", format!("{bucket}.localhost"));
    let answer = asked.send().await?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Ok((status, headers, answer.bytes().await?.to_vec()))
}

/// Through a gateway that runs: whatever range a client asks for, of whatever blob, by either URL, it gets that, and
/// nothing ends as complete that is not.
#[test]
fn every_range_arrives_exact_through_a_gateway() {
    let shelf = Shelf::on(network_of_now(), InitArgs::default());
    let Shelf {
        mut setup,
        accessor,
        token,
        ..
    } = shelf;
    let alice = user(1);
    let blobs = [7_900, 2_000_000, 2_000_001, 9_000_123, 17_500_000].map(|size| {
        let data = bytes(size, 9);
        let blob = setup.upload(alice, &data, accessor).blob_id;
        (data, blob)
    });
    let (bucket, gateway) = (setup.bucket, setup.pic.make_live(None));
    let runtime = Runtime::new().unwrap();
    for (data, blob) in &blobs {
        let (size, etag) = (data.len(), format!("\"{blob}\""));
        let certified = format!("/{accessor}/{blob}?token={token}");
        let last = size - 1;
        for url in [certified.clone(), format!("/m{certified}")] {
            let get = |headers: &[(&str, &str)]| {
                let answer = runtime.block_on(fetch(&gateway, bucket, &url, headers));
                let (status, headers, body) = answer.expect("the answer is whole");
                let length = headers["content-length"].to_str().unwrap().to_owned();
                assert_eq!(length, body.len().to_string(), "{url}");
                (status, headers, body)
            };
            let (status, headers, body) = get(&[]);
            assert_eq!(status, 200);
            assert!(body == *data, "{size} at {url}");
            let is_verified = headers["x-ic-verified"] == "true";
            assert_eq!(is_verified, !url.starts_with("/m/"), "{size} at {url}");
            for (range, from, to) in [
                ("bytes=0-".to_owned(), 0, last),
                ("bytes=0-1".into(), 0, 1),
                ("bytes=0-99".into(), 0, 99),
                ("bytes=-100".into(), size - 100, last),
                (format!("bytes={last}-"), last, last),
                (format!("bytes={}-", size / 3), size / 3, last),
                (format!("bytes={}-{last}", size / 2), size / 2, last),
                // With so much on disk, as a download that broke off at the end of a part.
                (
                    format!("bytes={}-", last / 2_000_000 * 2_000_000),
                    last / 2_000_000 * 2_000_000,
                    last,
                ),
                (
                    format!("bytes={}-", last.min(2_000_000)),
                    last.min(2_000_000),
                    last,
                ),
            ] {
                for headers in [
                    &[("range", range.as_str())][..],
                    &[("range", &range), ("if-range", &etag)],
                ] {
                    let (status, headers, body) = get(headers);
                    let what = format!("{range} of {size} at {url}");
                    if status == 200 {
                        assert!(size <= 2_000_000 && from == 0 && to == last, "{what}");
                        assert!(body == *data, "{what}");
                        continue;
                    }
                    assert_eq!(status, 206, "{what}");
                    assert_eq!(
                        headers["content-range"],
                        format!("bytes {from}-{to}/{size}")
                    );
                    assert!(body == data[from..=to], "{what}");
                }
            }
            for headers in [
                &[("range", "bytes=1-2"), ("if-range", "\"other\"")][..],
                &[("range", "bytes=1-2,4-5")],
                &[("if-range", etag.as_str())],
            ] {
                let (status, shown, body) = get(headers);
                assert_eq!(
                    (status, shown.get("content-range")),
                    (200, None),
                    "{headers:?}"
                );
                assert!(body == *data, "{headers:?} of {size} at {url}");
            }
            let behind = format!("bytes={size}-");
            let (status, headers, body) = get(&[("range", &behind)]);
            assert_eq!((status, body.len()), (416, 0), "{size} at {url}");
            assert_eq!(headers["content-range"], format!("bytes */{size}"));
        }
        // A script of another page gets whole parts, verified.
        if size > 2_000_000 {
            let range = format!("bytes=2000000-{}", last.min(3_999_999));
            let headers = [("range", range.as_str()), ("origin", "https://app.example")];
            let answer = runtime.block_on(fetch(&gateway, bucket, &certified, &headers));
            let (status, headers, body) = answer.unwrap();
            assert_eq!((status, headers["x-ic-verified"] == "true"), (206, true));
            assert!(body == data[2_000_000..size.min(4_000_000)]);
        }
        // Cookies of the gateway's domain are nobody's fault.
        let cookies = format!("a={}", "0".repeat(9_000));
        let headers = [("cookie", cookies.as_str()), ("range", "bytes=5-6")];
        let answer = runtime.block_on(fetch(&gateway, bucket, &certified, &headers));
        let (status, _, body) = answer.unwrap();
        assert_eq!((status, &body[..]), (206, &data[5..7]));
    }
}

/// What opened a stream opens nothing any more in the middle of it: the client sees that it has not all.
#[test]
fn a_stream_that_is_cut_does_not_look_complete() {
    let shelf = Shelf::on(network_of_now(), InitArgs::default());
    let Shelf {
        mut setup,
        accessor,
        token,
        ..
    } = shelf;
    let alice = user(1);
    let data = bytes(40_000_000, 9);
    let blob = setup.upload(alice, &data, accessor).blob_id;
    let (bucket, gateway) = (setup.bucket, setup.pic.make_live(None));
    let runtime = Runtime::new().unwrap();
    for path in [
        format!("/m/{accessor}/{blob}?token={token}"),
        format!("/{accessor}/{blob}?token={token}"),
    ] {
        let begin = async {
            let client = Client::builder().no_proxy().build().unwrap();
            let asked = client.get(gateway.join(&path).unwrap());
            let asked = asked.header("host", format!("{bucket}.localhost"));
            let mut answer = asked.send().await.unwrap();
            let mut body = answer.chunk().await.unwrap().unwrap().to_vec();
            (answer, std::mem::take(&mut body))
        };
        let (mut answer, mut body) = runtime.block_on(begin);
        assert_eq!(answer.headers()["content-length"], "40000000");
        let args = RemoveBlobReferenceArgs {
            blob_id: blob,
            accessor_id: accessor,
            owner: alice,
            token: None,
        };
        bucket::delete_blob(&setup, bucket, alice, args).unwrap();
        let rest = async {
            while let Some(more) = answer.chunk().await? {
                body.extend_from_slice(&more);
            }
            Ok::<_, reqwest::Error>(())
        };
        let ended = runtime.block_on(rest);
        assert!(ended.is_err(), "{path}: {} bytes are all", body.len());
        setup.upload(alice, &data, accessor);
    }
}

#[test]
fn what_is_not_certified_says_so_or_fails() {
    let shelf = Shelf::new();
    let film = shelf.film.blob_id;
    let range = shelf.ask(
        "GET",
        format!("/m{}", shelf.url(film)),
        &[("Range", "bytes=9-18")],
    );
    assert_eq!(
        (range.answer.status_code, range.answer.body.len()),
        (206, 10)
    );
    let stale = [("Range", "bytes=9-18"), ("If-Range", "\"other\"")];
    let whole = shelf.ask("GET", range.url.clone(), &stale);
    let shown = whole.answer.header("content-range");
    assert_eq!((whole.answer.status_code, shown), (200, None));
    assert_eq!(whole.answer.header("content-length"), Some("5000001"));
    for url in [range.url.as_str(), "/status", "/metrics", "/logs"] {
        let exchange = shelf.ask("GET", url.into(), &[]);
        let info = exchange.verify(&shelf.setup).unwrap();
        assert!(info.response.is_none(), "{url} says that it is certified");
    }
    // Nobody can pass a blob off as one of them.
    let mut bare = shelf.ask("GET", shelf.url(film), &[]);
    let loose = |name: &str| {
        range
            .answer
            .headers
            .iter()
            .find(|header| header.0 == name)
            .cloned()
    };
    bare.answer
        .headers
        .retain(|(name, _)| !name.starts_with("IC-Certificate"));
    bare.answer.headers.extend(loose("IC-Certificate"));
    bare.answer
        .headers
        .extend(loose("IC-CertificateExpression"));
    bare.assert_refused(
        &shelf.setup,
        "the proof that nothing is certified elsewhere",
    );
    // A refusal of a token proves nothing.
    let refused = shelf.ask("GET", format!("/{}/{film}?token=x", shelf.accessor), &[]);
    assert_eq!(refused.answer.status_code, 401);
    refused.assert_refused(&shelf.setup, "no token");
}

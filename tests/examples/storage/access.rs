//! What tokens cost, and what those cost that are none.
//!
//! A token is checked or issued in the middle of a message. So the figures of it are differences of two
//! messages that differ in nothing else, as far as can be: each says in which.

use candid::Principal;
use integration_tests::{SMALL_BUCKET_BYTES, Setup, blob_id, bucket, bytes, chat, index, operator};
use openstorage_types::{
    BlobReference,
    bucket::{ReadChunkArgs, ReadChunkError, TokenProblem},
    channel::RotateKeyError,
    index::{InitArgs, RevokeIssuerKeyArgs},
    limits::TOKEN_CHARS_MAX,
};

use crate::{
    figures::{Goal, Report},
    meter::{Account, Meter, of_method},
};

/// Somebody who is not whom the tokens are for.
fn stranger() -> Principal {
    integration_tests::user(99)
}

struct Bench {
    setup: Setup,
    meter: Meter,
    user: Principal,
    accessor: Principal,
    picture: BlobReference,
    token: String,
}

pub fn measure(report: &mut Report) {
    let mut bench = Bench::new();
    bench.check(report);
    bench.issue(report);
    bench.junk(report);
    bench.derive(report);
}

impl Bench {
    /// With two buckets, so that one page of messages may need two tokens.
    fn new() -> Self {
        let init = InitArgs {
            bucket_bytes_max: Some(SMALL_BUCKET_BYTES),
            ..InitArgs::default()
        };
        let setup = Setup::with(init).with_buckets(2);
        let (user, room) = setup.user_with_chat(1);
        let picture = setup.upload(user, &bytes(1_000, 1), room.accessor_id);
        let message = chat::post(&setup, user, room.chat_id, &picture);
        let (_, token) = chat::access(&setup, user, room.chat_id, message);
        setup.rest();
        Self {
            meter: Meter::new(&setup),
            setup,
            user,
            accessor: room.accessor_id,
            picture,
            token,
        }
    }

    /// `read_chunk` as somebody else: after the token was found good, and with one that has not a token's form.
    fn check(&mut self, report: &mut Report) {
        let junk = format!("!{}", &self.token[1..]);
        let good = self.read_as_stranger(self.token.clone(), ReadChunkError::NotAuthorized);
        let malformed = ReadChunkError::InvalidToken(TokenProblem::Malformed);
        let bad = self.read_as_stranger(junk, malformed);
        report.figure(
            "token_check_instr",
            "check of a token with the pair's key at hand: read_chunk with a good one, less that with a malformed one",
            (good - bad) as f64,
            Goal::at_most(60e3, 0.0),
        );
    }

    fn read_as_stranger(&mut self, token: String, expected: ReadChunkError) -> u64 {
        let args = ReadChunkArgs {
            blob_id: self.picture.blob_id,
            accessor_id: self.accessor,
            token,
            chunk_index: 0,
        };
        let (setup, bucket) = (&self.setup, self.picture.bucket);
        let read = || bucket::read_chunk(setup, bucket, stranger(), args);
        let (answer, accounts) = self.meter.of(read);
        assert_eq!(answer, Err(expected));
        of_method(&accounts, bucket, "read_chunk")
    }

    /// A page of two messages with blobs in two buckets, less one with both in the same: it has a token for
    /// each bucket.
    fn issue(&mut self, report: &mut Report) {
        let [one, two] = self.setup.active_buckets()[..] else {
            panic!("there are two buckets");
        };
        let [same, different] = [[one, one], [one, two]].map(|buckets| self.page_of(buckets));
        report.figure(
            "token_issue_instr",
            "issue of a token: messages with blobs in two buckets, less that with both in one",
            (different - same) as f64,
            Goal::at_most(60e3, 0.0),
        );
    }

    /// What it costs to show two blobs that lie in these buckets.
    fn page_of(&mut self, buckets: [Principal; 2]) -> u64 {
        let setup = &self.setup;
        let name = "pictures".into();
        let room = chat::create_chat(
            setup,
            self.user,
            openstorage_types::chat::CreateChatArgs { name },
        );
        let chat_id = room.expect("there may be many chats").chat_id;
        let posted = buckets.map(|bucket| {
            let blob = BlobReference {
                bucket,
                ..self.picture.clone()
            };
            chat::post(setup, self.user, chat_id, &blob)
        });
        for message in posted {
            chat::access(setup, self.user, chat_id, message);
        }
        let user = self.user;
        let (page, accounts) = self.meter.of(|| chat::messages(setup, user, chat_id));
        assert_eq!(page.expect("the user is a member").len(), 2);
        of_method(&accounts, setup.chat, "messages")
    }

    /// The most expensive of many requests that no token opens: as a browser sends them, with its headers.
    fn junk(&mut self, report: &mut Report) {
        let mut worst = (0, String::new());
        let mut shown = |bench: &mut Self, method: &str, url: &str, headers: &[(&str, &str)]| {
            let instructions = bench.refused(method, url, headers);
            if instructions > worst.0 {
                let (name, value) = headers.last().copied().unwrap_or_default();
                let count = headers.len();
                let last = format!("{name}: {value:.20} ({} bytes)", value.len());
                worst = (
                    instructions,
                    format!("{method} {url:.80} with {count} headers, the last {last}"),
                );
            }
        };
        for url in self.junk_urls() {
            shown(self, "GET", &url, &BROWSER_HEADERS);
            shown(self, "HEAD", &url, &BROWSER_HEADERS);
        }
        shown(self, "POST", &self.good_url(), &BROWSER_HEADERS);
        // Long headers, many headers, and more than are looked at: no gateway hands them on, but anybody can call.
        let junk = self.flipped(60);
        let url = self.good_url().replace(&self.token, &junk);
        for len in [1, 6, 7, 8, 1_000] {
            let long = "a".repeat(len * 1024);
            shown(self, "GET", &url, &[("range", &long)]);
            let mut all = vec![("range", "bytes=0-"); 63];
            all.push(("x", &long));
            shown(self, "GET", &url, &all);
            shown(self, "GET", &format!("/{long}"), &[]);
        }
        for count in [64, 65, 512, 10_000] {
            shown(self, "GET", &url, &vec![("x", ""); count]);
            shown(self, "GET", &url, &vec![("range", "bytes=0-"); count]);
            shown(
                self,
                "GET",
                &url,
                &vec![("x-junk", &"0".repeat(90)[..]); count],
            );
        }
        println!("the most expensive junk: {}", worst.1);
        report.figure(
            "http_junk_max_instr",
            "most expensive http_request that no token opens",
            worst.0 as f64,
            Goal::at_most(100e3, 0.0),
        );
    }

    fn good_url(&self) -> String {
        let Self {
            accessor, token, ..
        } = self;
        format!("/{accessor}/{}?token={token}", self.picture.blob_id)
    }

    /// The token with another character.
    fn flipped(&self, at: usize) -> String {
        let mut bytes = self.token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).expect("it is ASCII")
    }

    fn junk_urls(&self) -> Vec<String> {
        const LONG: usize = 8 * 1024;
        let Self {
            accessor, token, ..
        } = self;
        let blob = self.picture.blob_id;
        let path = format!("/{accessor}/{blob}");
        let with = |token: &str| format!("{path}?token={token}");
        let flipped = |at: usize| self.flipped(at);
        let fill = |text: &str| text.repeat(LONG / text.len());
        vec![
            path.clone(),
            "/".into(),
            format!("/{}", fill("a")),
            fill("/"),
            fill("/../"),
            format!("/{}/{blob}?token={token}", fill("a")),
            format!("/{}?token={token}", fill("aaaaa-")),
            format!("/{accessor}/{}?token={token}", fill("a")),
            format!(
                "/{accessor}/{}?token={token}",
                blob.to_string().to_uppercase()
            ),
            format!("/m{}", with(&flipped(100))),
            with(&fill("A")),
            with(&"A".repeat(TOKEN_CHARS_MAX)),
            with(&"A".repeat(token.len())),
            with(&token[..token.len() - 1]),
            with(&fill("%41")),
            with(&flipped(3)),
            with(&flipped(8)),
            with(&flipped(60)),
            with(&flipped(token.len() - 20)),
            with(&format!("{token}&token={token}")),
            format!("{path}?{}", fill("token=A&")),
            format!("{path}?{}", fill("&")),
            format!("{path}?{}token={token}A", fill("a=b&")),
            format!("/{accessor}/{}?token={token}", blob_id(b"other")).replace(token, &flipped(60)),
            format!("/{}/{blob}?token={token}", self.picture.bucket),
            format!("/{}/{blob}?token={token}", operator()),
        ]
    }

    fn refused(&mut self, method: &str, url: &str, headers: &[(&str, &str)]) -> u64 {
        let (setup, bucket) = (&self.setup, self.picture.bucket);
        let ask = || bucket::request(setup, bucket, method, url, headers);
        let (answer, accounts) = self.meter.of(ask);
        assert!(
            [401, 405, 431].contains(&answer.status_code),
            "{method} {url}"
        );
        of_method(&accounts, bucket, "http_request")
    }

    /// A bucket hears that an issuer has two keys, and then that it has one of them: the first time it computes
    /// what it shares under the new one.
    fn derive(&mut self, report: &mut Report) {
        let setup = &self.setup;
        let chat = setup.chat;
        let (rotated, accounts) = self.meter.of(|| {
            let rotated: Result<(), RotateKeyError> =
                setup.call(chat, operator(), "rotate_key", ());
            setup.settle("the index knows the chat's new key", |setup| {
                (index::issuers(setup)[0].key.version == 2).then_some(())
            });
            setup.rest();
            rotated
        });
        rotated.expect("the operator may");
        let with = heard(&accounts, setup);
        let args = RevokeIssuerKeyArgs {
            issuer: Some(chat),
            version: 1,
        };
        let (revoked, accounts) = self.meter.of(|| {
            let revoked: Result<(), openstorage_types::channel::RevokeKeyError> =
                setup.call(setup.index, operator(), "revoke_issuer_key", (args,));
            setup.rest();
            revoked
        });
        revoked.expect("the operator may");
        let without = heard(&accounts, setup);
        report.figure(
            "pair_key_instr",
            "what a pair shares, computed once: an event with an issuer's new key, less one that takes a key back",
            (with - without) as f64,
            Goal::at_most(8e6, 0.0),
        );
    }
}

/// The most expensive batch of events that the bucket took.
fn heard(accounts: &[Account], setup: &Setup) -> u64 {
    let batches = accounts
        .iter()
        .filter(|account| account.canister == setup.bucket && account.method == "c2c_events");
    let batches = batches.map(|account| account.usage.instructions);
    batches.max().expect("the bucket has heard of it")
}

/// What a browser sends with the request for a picture, by way of a gateway.
const BROWSER_HEADERS: [(&str, &str); 14] = [
    ("host", "bkyz2-fmaaa-aaaaa-qaaaq-cai.icp0.io"),
    ("connection", "keep-alive"),
    (
        "sec-ch-ua",
        "\"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"",
    ),
    ("sec-ch-ua-mobile", "?0"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    ("sec-ch-ua-platform", "\"Linux\""),
    (
        "accept",
        "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
    ),
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-mode", "no-cors"),
    ("sec-fetch-dest", "image"),
    ("referer", "https://chat.example.org/"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9"),
    (
        "if-none-match",
        "\"0000000000000000000000000000000000000000000000000000000000000000\"",
    ),
];

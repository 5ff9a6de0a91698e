//! No secret leaves a canister: not in pages, logs, answers or refusals, and not into another canister's memory.
//!
//! The test learns the secrets from the canisters' own memory: 32 bytes whose public key is the one that the
//! canister has published.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use candid::{Principal, encode_args, utils::ArgumentEncoder};
use integration_tests::{Setup, bucket, bytes, chat, operator, user};
use openstorage_tokens::{Pair, SecretKey};
use openstorage_types::{
    BlobId,
    bucket::{AddBlobReferenceArgs, ReadChunkArgs, RemoveBlobReferenceArgs},
    channel::PublicKey,
    index::{
        BucketKeysArgs, DeleteChatArgs, RegisterIssuerArgs, RegisterIssuerOk, RevokeIssuerKeyArgs,
    },
    limits::KEY_REFRESH_MS,
};

/// How far a secret may lie from the public key that is kept with it.
const ROW_BYTES: usize = 200;

/// A secret of 32 bytes, as it lies in memory, and as a text might show it.
struct Secret {
    what: &'static str,
    bytes: [u8; 32],
    texts: Vec<String>,
}

impl Secret {
    fn new(what: &'static str, bytes: [u8; 32]) -> Self {
        // Without what depends on the bytes that may follow.
        let coded = |engine: &dyn Fn(&[u8]) -> String| engine(&bytes)[..40].to_string();
        let numbers = bytes[..24].iter().map(u8::to_string);
        let texts = vec![
            hex::encode(bytes),
            hex::encode_upper(bytes),
            coded(&|bytes| STANDARD_NO_PAD.encode(bytes)),
            coded(&|bytes| URL_SAFE_NO_PAD.encode(bytes)),
            numbers.collect::<Vec<_>>().join(", "),
        ];
        Self { what, bytes, texts }
    }

    fn is_in(&self, haystack: &[u8]) -> bool {
        let mut needles = self.texts.iter().map(|text| text.as_bytes());
        contains(haystack, &self.bytes) || needles.any(|needle| contains(haystack, needle))
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    places(haystack, needle).next().is_some()
}

/// Where `needle` lies; memories are large, so the first byte is looked for first.
fn places<'a>(haystack: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let last = haystack.len().saturating_sub(needle.len() - 1);
    let starts = haystack[..last].iter().enumerate();
    starts
        .filter(|(_, byte)| **byte == needle[0])
        .map(|(at, _)| at)
        .filter(move |at| &haystack[*at..*at + needle.len()] == needle)
}

/// The secret behind a public key, from the memory of the canister that drew it.
fn secret_of(memory: &[u8], public: &[u8; 32]) -> SecretKey {
    let mut beside = places(memory, public).flat_map(|at| {
        let from = at.saturating_sub(ROW_BYTES);
        from..at + ROW_BYTES
    });
    let secret = beside.find_map(|at| {
        let bytes: [u8; 32] = memory.get(at..at + 32)?.try_into().ok()?;
        let secret = SecretKey::from_bytes(bytes);
        (secret.public() == *public).then_some(secret)
    });
    secret.expect("a canister keeps its secret")
}

/// Everything that was said to anybody.
#[derive(Default)]
struct Heard {
    answers: Vec<(String, Vec<u8>)>,
}

impl Heard {
    /// What a call answers, whatever that is.
    fn call(
        &mut self,
        setup: &Setup,
        canister: Principal,
        caller: Principal,
        method: &str,
        args: impl ArgumentEncoder,
    ) {
        let args = encode_args(args).expect("arguments have a Candid form");
        let what = format!("{method} at {canister}");
        let answer = setup.pic.update_call(canister, caller, method, args);
        let bytes = answer.unwrap_or_else(|reject| reject.to_string().into_bytes());
        self.answers.push((what, bytes));
    }

    fn pages(&mut self, setup: &Setup) {
        for canister in [setup.index, setup.bucket, setup.chat] {
            for path in ["/status", "/metrics", "/logs", "/", "/x/y?token=z"] {
                let page = bucket::get(setup, canister, path, &[]);
                let headers = format!("{:?}", page.headers).into_bytes();
                self.answers
                    .push((format!("{path} of {canister}"), headers));
                let body = page.body.into_vec();
                self.answers.push((format!("{path} of {canister}"), body));
            }
            let logs = setup.pic.fetch_canister_logs(canister, operator());
            for line in logs.expect("the operator may read the log") {
                self.answers
                    .push((format!("log of {canister}"), line.content));
            }
        }
    }
}

#[test]
fn no_secret_is_said_or_kept_elsewhere() {
    let setup = Setup::new();
    let Setup { index, bucket, .. } = setup;
    let (alice, room) = setup.user_with_chat(1);
    let picture = setup.upload(alice, &bytes(1_000, 1), room.accessor_id);
    let message = chat::post(&setup, alice, room.chat_id, &picture);
    let (_, token) = chat::access(&setup, alice, room.chat_id, message);
    let mut heard = Heard::default();

    // Keys are drawn anew, so that their making is heard too.
    for canister in [setup.chat, bucket, index] {
        heard.call(&setup, canister, operator(), "rotate_key", ());
    }
    setup.rest();
    let chat_key: Option<PublicKey> = setup.ask(setup.chat, operator(), "public_key", ());
    let chat_key = chat_key.expect("the chat has a key");
    let bucket_key = bucket::status(&setup, bucket)
        .key
        .expect("so has the bucket");
    assert_eq!((chat_key.version, bucket_key.version), (2, 2));
    let registered: Result<RegisterIssuerOk, openstorage_types::index::IssuerError> = setup.call(
        index,
        operator(),
        "register_issuer",
        (RegisterIssuerArgs {
            issuer: Some(setup.chat),
            key: chat_key,
        },),
    );
    let index_key = registered.expect("it is registered").index_key;
    assert_eq!(index_key.version, 2);

    // Every call that has to do with keys and tokens, and everything that can be wrong with one.
    let strange = token.chars().rev().collect::<String>();
    for token in [&token, &token[..50], &strange, "", "Ω"] {
        let token = token.to_string();
        let read = ReadChunkArgs {
            blob_id: picture.blob_id,
            accessor_id: room.accessor_id,
            token: token.clone(),
            chunk_index: 9,
        };
        let add = AddBlobReferenceArgs {
            blob_id: picture.blob_id,
            accessor_ids: vec![user(5)],
            mime_type: "image/png".into(),
            name: None,
            from_accessor: room.accessor_id,
            token: token.clone(),
        };
        let remove = RemoveBlobReferenceArgs {
            blob_id: BlobId([1; 32]),
            accessor_id: room.accessor_id,
            owner: user(2),
            token: Some(token.clone()),
        };
        let delete = DeleteChatArgs {
            chat_id: room.accessor_id,
            token,
        };
        for caller in [alice, user(9)] {
            heard.call(&setup, bucket, caller, "read_chunk", (&read,));
            heard.call(&setup, bucket, caller, "add_blob_reference", (&add,));
            heard.call(&setup, bucket, caller, "delete_blob", (&remove,));
            heard.call(&setup, index, caller, "delete_chat", (&delete,));
        }
    }
    for caller in [operator(), alice] {
        for canister in [setup.chat, bucket, index] {
            heard.call(&setup, canister, alice, "rotate_key", ());
            heard.call(&setup, canister, caller, "revoke_key", (7_u16,));
            heard.call(&setup, canister, caller, "revoke_key", ("junk",));
        }
        let args = RevokeIssuerKeyArgs {
            issuer: Some(setup.chat),
            version: 9,
        };
        heard.call(&setup, index, caller, "revoke_issuer_key", (args,));
        heard.call(
            &setup,
            index,
            caller,
            "c2c_bucket_keys",
            (BucketKeysArgs { bucket },),
        );
        heard.call(&setup, index, caller, "issuers", ());
        heard.call(&setup, index, caller, "status", ());
        heard.call(&setup, bucket, caller, "status", ());
        heard.call(&setup, setup.chat, caller, "public_key", ());
    }
    // The chat hears of the bucket's new key.
    let hour = std::time::Duration::from_millis(KEY_REFRESH_MS);
    setup.pic.advance_time(hour);
    (0..10).for_each(|_| setup.pic.tick());
    // A failed call of a canister's own is written into its log.
    setup.pic.stop_canister(index, Some(operator())).unwrap();
    setup.pic.advance_time(hour);
    (0..10).for_each(|_| setup.pic.tick());
    setup.pic.start_canister(index, Some(operator())).unwrap();
    heard.pages(&setup);

    let memory = |canister| setup.pic.get_stable_memory(canister);
    let memories = [index, bucket, setup.chat].map(memory);
    let [index_memory, bucket_memory, chat_memory] = &memories;
    let of_index = secret_of(index_memory, &index_key.bytes.0);
    let of_bucket = secret_of(bucket_memory, &bucket_key.bytes.0);
    let of_chat = secret_of(chat_memory, &chat_key.bytes.0);
    let pair = Pair {
        issuer: setup.chat,
        issuer_key_version: 2,
        audience: bucket,
        audience_key_version: 2,
    };
    let shared = of_chat.pair(&bucket_key.bytes.0, &pair).unwrap().to_bytes();
    let thirds = [0, 32, 64].map(|at| shared[at..at + 32].try_into().unwrap());
    let of_index = Secret::new("the index's secret", of_index.to_bytes());
    let of_bucket = Secret::new("the bucket's secret", of_bucket.to_bytes());
    let of_chat = Secret::new("the chat's secret", of_chat.to_bytes());
    let sealing = Secret::new("the key that seals", thirds[0]);
    // HMAC needs both.
    let inner = Secret::new("the inner state of the nonce key", thirds[1]);
    let outer = Secret::new("the outer state of the nonce key", thirds[2]);
    let all = [&of_index, &of_bucket, &of_chat, &sealing, &inner, &outer];

    for (what, bytes) in &heard.answers {
        for secret in all {
            assert!(!secret.is_in(bytes), "{what} says {}", secret.what);
        }
        assert!(!contains(bytes, token.as_bytes()), "{what} says a token");
    }
    assert!(
        heard
            .answers
            .iter()
            .any(|(what, _)| what.starts_with("/logs"))
    );
    // Each stays where it is needed: the shared ones at both ends, and nowhere else.
    for (secret, places) in [
        (&of_index, [true, false, false]),
        (&of_bucket, [false, true, false]),
        (&of_chat, [false, false, true]),
        (&sealing, [false, true, true]),
        (&inner, [false, true, true]),
        (&outer, [false, true, true]),
    ] {
        let found = [0, 1, 2].map(|at| secret.is_in(&memories[at]));
        assert_eq!(found, places, "{}: in index, bucket, chat", secret.what);
    }
}

//! The cases of `tests/conformance/cases.json` over the Rust client; the JavaScript library passes the same.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use candid::Principal;
use futures_util::future::try_join_all;
use integration_tests::{Setup, chat, index, operator, user};
use openstorage_client::{
    Blob, CallError, Client, Error, PocketTransport, Source, Transport, Upload, hash,
};
use openstorage_types::{
    BlobId, BlobReference,
    bucket::{PushChunkError, PushChunkOk, ReadChunkError, RemoveBlobReferenceArgs},
    index::{AllocatedBucketError, UserArgs},
    limits::CHUNK_BYTES,
};
use pocket_ic::{PocketIcBuilder, nonblocking::PocketIc};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::{runtime::Runtime, sync::Notify};

#[derive(Deserialize)]
struct Table {
    users: BTreeMap<String, UserSpec>,
    cases: Vec<Case>,
}

#[derive(Deserialize, Clone, Copy)]
struct UserSpec {
    byte_limit: Option<u64>,
    #[serde(default = "yes")]
    registered: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Case {
    name: String,
    steps: Vec<Step>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Step {
    r#do: String,
    r#as: String,
    blob: BlobSpec,
    name: Option<String>,
    mime_type: Option<String>,
    accessors: Option<Vec<Principal>>,
    changes: bool,
    stop_after: Option<u32>,
    discard: bool,
    times: Option<usize>,
    of: Option<String>,
    token: Option<String>,
    token_of: Option<String>,
    damage: bool,
    start: u64,
    end: u64,
    expect: Value,
}

#[derive(Deserialize, Default, Clone, Copy)]
struct BlobSpec {
    size: u64,
    seed: u64,
}

/// A blob by its formula; with `changes` it is another once it has been read through.
struct Made {
    spec: BlobSpec,
    changes: bool,
    bytes_read: AtomicU64,
}

impl Source for Made {
    fn size(&self) -> u64 {
        self.spec.size
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let before = self.bytes_read.fetch_add(len as u64, Ordering::Relaxed);
        let turned = u8::from(self.changes && before >= self.spec.size);
        let byte = |at: u64| {
            let salt = 31 * self.spec.seed + 37 * (at / CHUNK_BYTES);
            (at % 251) as u8 ^ salt as u8 ^ turned
        };
        Ok((offset..offset + len as u64).map(byte).collect())
    }
}

/// Counts what goes over the line, and may damage what comes back.
#[derive(Clone)]
struct Line {
    inner: PocketTransport,
    damages: bool,
    stop_after: Option<u32>,
    pushes: Arc<AtomicU32>,
    taken: Arc<AtomicU32>,
    stopped: Arc<Notify>,
    /// The last bucket that a chunk went to.
    bucket: Arc<Mutex<Option<Principal>>>,
}

impl Transport for Line {
    async fn query(&self, to: Principal, method: &str, arg: Vec<u8>) -> Result<Vec<u8>, CallError> {
        let mut answer = self.inner.query(to, method, arg).await?;
        if self.damages && method == "read_chunk" {
            // Nearly all of the answer are the blob's bytes.
            let middle = answer.len() / 2;
            answer[middle] ^= 1;
        }
        Ok(answer)
    }

    async fn update(
        &self,
        to: Principal,
        method: &str,
        arg: Vec<u8>,
    ) -> Result<Vec<u8>, CallError> {
        if method != "push_chunk" {
            return self.inner.update(to, method, arg).await;
        }
        self.pushes.fetch_add(1, Ordering::Relaxed);
        *self.bucket.lock().unwrap() = Some(to);
        let answer = self.inner.update(to, method, arg).await?;
        let pushed: Result<PushChunkOk, PushChunkError> =
            candid::decode_one(&answer).expect("the bucket speaks as it says");
        if pushed.is_ok() {
            let taken = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
            if Some(taken) == self.stop_after {
                self.stopped.notify_one();
            }
        }
        Ok(answer)
    }
}

/// A user of the table, and what it has shared last.
#[derive(Clone)]
struct Part {
    user: Principal,
    /// None who is not registered has a chat.
    chat: Option<(u64, Principal)>,
    shared: Option<BlobReference>,
    token: Option<String>,
}

struct Story {
    setup: Setup,
    runtime: Runtime,
    pic: Arc<PocketIc>,
    users: BTreeMap<String, UserSpec>,
    parts: BTreeMap<String, Part>,
}

impl Story {
    fn new(users: BTreeMap<String, UserSpec>) -> Self {
        let pic = PocketIcBuilder::new().with_application_subnet().build();
        pic.set_time(SystemTime::now().into());
        let setup = Setup::deploy(pic, Default::default());
        setup.pic.auto_progress();
        let (url, id) = (setup.pic.get_server_url(), setup.pic.instance_id());
        Self {
            pic: Arc::new(PocketIc::new_from_existing_instance(url, id, None)),
            runtime: Runtime::new().unwrap(),
            setup,
            users,
            parts: BTreeMap::new(),
        }
    }

    fn tell(&mut self, step: &Step) -> Value {
        let part = self.part(&step.r#as);
        let line = Line {
            inner: PocketTransport::new(self.pic.clone(), part.user),
            damages: step.damage,
            stop_after: step.stop_after,
            pushes: Default::default(),
            taken: Default::default(),
            stopped: Default::default(),
            bucket: Default::default(),
        };
        let client = Client::new(line.clone(), self.setup.index);
        let done = match step.r#do.as_str() {
            "upload" => self.upload(step, &part, &client, &line),
            "download" => self.shared(step).and_then(|blob| {
                let mut bytes = vec![];
                let loading = client.download(&blob, &mut bytes, &|_| {});
                self.runtime.block_on(loading)?;
                Ok(json!({ "blob_id": digest(&bytes), "size": bytes.len() }))
            }),
            "read" => self.shared(step).and_then(|blob| {
                let reading = client.read_range(&blob, step.start..step.end);
                let bytes = self.runtime.block_on(reading)?;
                Ok(json!({ "sha256": digest(&bytes), "size": bytes.len() }))
            }),
            "delete" => self.delete(&part, &client),
            other => panic!("the table knows no `{other}`"),
        };
        let mut outcome = match done {
            Ok(Value::Null) => json!({ "stopped": true }),
            Ok(ok) => json!({ "ok": ok }),
            Err(error) => json!({ "error": { "code": error.code(), "fields": fields(&error) } }),
        };
        outcome["pushes"] = line.pushes.load(Ordering::Relaxed).into();
        outcome
    }

    /// Null where the upload was stopped.
    fn upload(
        &mut self,
        step: &Step,
        part: &Part,
        client: &Client<Line>,
        line: &Line,
    ) -> Result<Value, Error> {
        let own = part.chat.or_else(|| self.part("ada").chat);
        let (_, own) = own.expect("ada has a chat");
        let accessors = step.accessors.clone().unwrap_or_else(|| vec![own]);
        let mime_type = step.mime_type.as_deref();
        let upload = Upload {
            name: step.name.clone(),
            ..Upload::new(mime_type.unwrap_or("application/octet-stream"), accessors)
        };
        let made = || Made {
            spec: step.blob,
            changes: step.changes,
            bytes_read: AtomicU64::new(0),
        };
        let uploads = (0..step.times.unwrap_or(1)).map(|_| client.upload(made(), &upload, &|_| {}));
        let all = try_join_all(uploads);
        let references = self.runtime.block_on(async {
            tokio::select! {
                references = all => references.map(Some),
                () = line.stopped.notified() => Ok(None),
            }
        })?;
        let Some(references) = references else {
            let bucket = *line.bucket.lock().unwrap();
            if let (true, Some(bucket)) = (step.discard, bucket) {
                self.runtime.block_on(async {
                    let blob_id = hash(Arc::new(made()), &|_| {}).await?;
                    client.discard(bucket, blob_id).await
                })?;
            }
            return Ok(Value::Null);
        };
        let reference = references[0].clone();
        assert!(
            references
                .iter()
                .all(|other| other.bucket == reference.bucket)
        );
        let ok = json!({
            "blob_id": reference.blob_id.to_string(),
            "size": reference.size,
            "mime_type": reference.mime_type,
        });
        if let Some(part) = self.parts.get_mut(&step.r#as)
            && part.shared.as_ref() != Some(&reference)
        {
            part.shared = Some(reference);
            part.token = None;
        }
        Ok(ok)
    }

    fn delete(&self, part: &Part, client: &Client<Line>) -> Result<Value, Error> {
        let shared = part.shared.as_ref().expect("something has been shared");
        let args = RemoveBlobReferenceArgs {
            blob_id: shared.blob_id,
            accessor_id: part.chat.expect("a chat").1,
            owner: part.user,
            token: None,
        };
        self.runtime.block_on(client.delete(shared.bucket, args))?;
        Ok(json!({}))
    }

    fn part(&mut self, name: &str) -> Part {
        if let Some(part) = self.parts.get(name) {
            return part.clone();
        }
        let UserSpec {
            byte_limit,
            registered,
        } = self.users[name];
        let number = self.parts.len() as u64 + 1;
        let mut part = Part {
            user: user(number),
            chat: None,
            shared: None,
            token: None,
        };
        if registered {
            let (user, room) = self.setup.user_with_chat(number);
            if let Some(byte_limit) = byte_limit {
                let args = UserArgs { user, byte_limit };
                index::update_user(&self.setup, operator(), args).expect("the operator may");
            }
            part.chat = Some((room.chat_id, room.accessor_id));
        }
        self.parts.insert(name.into(), part.clone());
        part
    }

    /// The blob that a step is about, under the token that it says.
    fn shared(&mut self, step: &Step) -> Result<Blob, Error> {
        let of = step.of.as_ref().unwrap_or(&step.r#as);
        let part = self.part(of);
        let token = match &step.token {
            Some(token) => token.clone(),
            None => self.token(step.token_of.as_ref().unwrap_or(of)),
        };
        Ok(Blob {
            reference: part.shared.expect("something has been shared"),
            accessor_id: part.chat.expect("a chat").1,
            token,
        })
    }

    /// For what a user has shared last; the chat gives it once the blob is posted.
    fn token(&mut self, name: &str) -> String {
        let part = self.part(name);
        if let Some(token) = part.token {
            return token;
        }
        let reference = part.shared.expect("something has been shared");
        let (chat_id, _) = part.chat.expect("a chat");
        let message = chat::post(&self.setup, part.user, chat_id, &reference);
        let (_, token) = chat::access(&self.setup, part.user, chat_id, message);
        self.parts.get_mut(name).expect("it is there").token = Some(token.clone());
        token
    }
}

fn digest(bytes: &[u8]) -> String {
    BlobId(Sha256::digest(bytes).into()).to_string()
}

/// The figures of an error, as the table names them.
fn fields(error: &Error) -> Value {
    match error {
        Error::Allocation(AllocatedBucketError::AllowanceExceeded { byte_limit }) => {
            json!({ "byte_limit": byte_limit })
        }
        Error::Allocation(AllocatedBucketError::BlobTooLarge { max }) => json!({ "max": max }),
        Error::Push { error, .. } => match error {
            PushChunkError::HashMismatch { actual } => json!({ "actual": actual.to_string() }),
            PushChunkError::AllowanceExceeded(allowance) => json!({
                "byte_limit": allowance.byte_limit,
                "bytes_used": allowance.bytes_used,
                "bytes_reserved": allowance.bytes_reserved,
                "leased_elsewhere": allowance.leased_elsewhere,
            }),
            PushChunkError::InvalidAccessors { max }
            | PushChunkError::InvalidMimeType { max }
            | PushChunkError::InvalidName { max } => json!({ "max": max }),
            _ => json!({}),
        },
        Error::Read {
            blob_id,
            error: ReadChunkError::NotFound,
            ..
        } => {
            json!({ "blob_id": blob_id.to_string() })
        }
        Error::Read {
            error: ReadChunkError::InvalidToken(problem),
            ..
        } => {
            json!({ "problem": format!("{problem:?}") })
        }
        Error::WrongBytes { expected, .. } => json!({ "blob_id": expected.to_string() }),
        Error::InvalidRange { start, end, max } => {
            json!({ "start": start, "end": end, "max": max })
        }
        _ => json!({}),
    }
}

/// Of the outcome what the expectation speaks of. `pushes_max` is the expected one where it has been kept.
fn seen(expected: &Value, outcome: &Value) -> Value {
    let Value::Object(expected) = expected else {
        return outcome.clone();
    };
    let entry = |(key, value): (&String, &Value)| {
        let found = match key.as_str() {
            "pushes_max" if outcome["pushes"].as_u64() <= value.as_u64() => value.clone(),
            "pushes_max" => outcome["pushes"].clone(),
            key => seen(value, &outcome[key]),
        };
        (key.clone(), found)
    };
    Value::Object(expected.iter().map(entry).collect::<Map<_, _>>())
}

#[test]
fn the_rust_client_passes_every_case() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance/cases.json");
    let table: Table = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let mut story = Story::new(table.users);
    let mut failures = vec![];
    for Case { name, steps } in &table.cases {
        for (number, step) in steps.iter().enumerate() {
            let outcome = story.tell(step);
            let seen = seen(&step.expect, &outcome);
            if seen != step.expect {
                let Step {
                    r#do, r#as, expect, ..
                } = step;
                failures.push(format!(
                    "{name}, step {}, {} as {}: expected {expect}, but {outcome}",
                    number + 1,
                    r#do,
                    r#as
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

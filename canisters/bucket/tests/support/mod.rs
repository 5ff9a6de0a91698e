//! A bucket whose index and issuer the test plays.
//!
//! Each test program uses a part of it.
#![allow(dead_code)]

use candid::{CandidType, Principal, encode_one};
use data_bucket::{Bucket, Now, Outgoing, Stop};
use ic_stable_structures::DefaultMemoryImpl;
use openstorage_tokens::{Grant, Pair, Scope, SecretKey, issue};
use openstorage_types::{
    BlobId,
    bucket::{InitArgs, PushChunkArgs, PushChunkError, PushChunkOk, UploadState, UploadStatus},
    channel::{
        Counters, Event, EventsArgs, EventsError, EventsOk, IssuerUpserted, LeaseArgs, LeaseOk,
        PublicKey, Stamp, UserUpserted, kind,
    },
    chunk_count, chunk_len,
    http::{HttpRequest, HttpResponse},
    limits::{CHUNK_BYTES, HOUR_MS, READ_TOKEN_LIFE_MS},
};
use sha2::{Digest, Sha256};

pub const START_MS: u64 = 1_700_000_000_000;
pub const DAY_MS: u64 = 24 * HOUR_MS;
pub const SECRET: [u8; 32] = [7; 32];
/// Of each user.
pub const LIMIT: u64 = 10_000_000_000;
/// Stands for the subnet's certificate, which is not looked at here.
pub const CERTIFICATE: &[u8] = b"certificate";
pub const MIME_TYPE: &str = "image/png";

pub fn principal(n: u8) -> Principal {
    Principal::from_slice(&[n; 10])
}

pub const fn own() -> Principal {
    Principal::from_slice(&[200; 10])
}

pub fn index() -> Principal {
    principal(201)
}

/// The issuer of all tokens, and an accessor: it speaks for itself.
pub fn chat() -> Principal {
    principal(202)
}

fn chat_secret() -> SecretKey {
    SecretKey::from_bytes([9; 32])
}

pub fn chat_key() -> PublicKey {
    PublicKey {
        version: 1,
        bytes: BlobId(chat_secret().public()),
    }
}

pub fn alice() -> Principal {
    principal(1)
}

pub fn bob() -> Principal {
    principal(2)
}

pub fn blob_id(data: &[u8]) -> BlobId {
    BlobId(Sha256::digest(data).into())
}

/// `len` bytes that differ from seed to seed and from chunk to chunk.
pub fn bytes(len: u64, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i / CHUNK_BYTES) as u8 ^ (i as u8).wrapping_mul(seed) ^ seed)
        .collect()
}

/// The arguments that push chunk `index` of `data` for the chat.
pub fn chunk(data: &[u8], index: u64) -> PushChunkArgs {
    chunk_of(blob_id(data), data, index)
}

/// The same where the id is known: hashing the data for each chunk of a large blob takes long.
pub fn chunk_of(blob_id: BlobId, data: &[u8], index: u64) -> PushChunkArgs {
    let size = data.len() as u64;
    let start = (index * CHUNK_BYTES) as usize;
    let len = chunk_len(size, index).expect("there is such a chunk") as usize;
    PushChunkArgs {
        blob_id,
        size,
        mime_type: MIME_TYPE.into(),
        name: Some("picture.png".into()),
        chunk_index: index as u32,
        bytes: data[start..start + len].to_vec().into(),
        accessor_ids: vec![chat()],
    }
}

/// The place after a batch.
pub fn end(args: &EventsArgs) -> Stamp {
    let from = args.from_stamp;
    Stamp {
        seq: from.seq + args.events.len() as u64,
        version: args.events.last().map_or(from.version, |last| last.version),
    }
}

/// A bucket, the memory under it, and the time.
pub struct World {
    pub bucket: Bucket,
    pub memory: DefaultMemoryImpl,
    pub now: Now,
    /// The place in the index's log that the bucket was told last.
    pub told: Stamp,
}

impl World {
    /// With a secret, users 1 and 2 (each with a lease of 1 GB) and a trusted chat.
    pub fn new() -> Self {
        Self::with(Self::init())
    }

    /// What an index gives that has no wishes.
    pub fn init() -> InitArgs {
        InitArgs {
            index: index(),
            bytes_max: None,
            strict_cache: None,
        }
    }

    /// As [`World::new`], otherwise installed.
    pub fn with(init: InitArgs) -> Self {
        let mut world = Self::installed(init);
        world.bucket.set_secret(SECRET, world.now);
        world.tell_user(alice());
        world.tell_user(bob());
        world.lease(alice(), 1_000_000_000);
        world.lease(bob(), 1_000_000_000);
        world.tell(
            kind::ISSUER_UPSERTED,
            &IssuerUpserted {
                issuer: chat(),
                key: chat_key(),
                older: None,
            },
        );
        world
    }

    /// Just installed, to take so many bytes.
    pub fn empty(bytes_max: Option<u64>) -> Self {
        Self::installed(InitArgs {
            bytes_max,
            ..Self::init()
        })
    }

    fn installed(init: InitArgs) -> Self {
        let memory = DefaultMemoryImpl::default();
        Self {
            bucket: Bucket::open(memory.clone(), own(), Some(init)),
            memory,
            now: Now {
                ms: START_MS,
                version: 1,
            },
            told: Stamp::default(),
        }
    }

    /// An upgrade: only stable memory is left.
    pub fn upgrade(&mut self) {
        self.upgrade_with(None);
    }

    pub fn upgrade_with(&mut self, args: Option<InitArgs>) {
        self.now.version += 1;
        self.bucket = Bucket::open(self.memory.clone(), own(), args);
    }

    pub fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
    }

    /// One event of the index.
    pub fn tell(&mut self, kind: u16, event: &impl CandidType) {
        let bytes = encode_one(event).expect("an event has a Candid form");
        let args = EventsArgs {
            from_stamp: self.told,
            events: vec![Event {
                version: 5,
                kind,
                bytes: bytes.into(),
            }],
            counters: vec![],
            report: None,
            heard: Stamp::default(),
            version: 5,
        };
        self.told = self.hear(&args).expect("the index is heard").stamp;
    }

    pub fn hear(&mut self, args: &EventsArgs) -> Result<EventsOk, EventsError> {
        self.bucket.receive(&index(), args, self.now)
    }

    pub fn tell_user(&mut self, user: Principal) {
        self.tell(
            kind::USER_UPSERTED,
            &UserUpserted {
                user,
                incarnation: 1,
                byte_limit: LIMIT,
                counters: None,
                gone: None,
            },
        );
    }

    /// All that was ever granted to the bucket for the user.
    pub fn lease(&mut self, user: Principal, granted: u64) {
        let answer = LeaseOk {
            incarnation: 1,
            byte_limit: LIMIT,
            counters: Counters {
                granted,
                ..Counters::default()
            },
            gone: None,
            version: 5,
        };
        self.bucket.leased(user, &answer, self.now);
    }

    pub fn push(
        &mut self,
        caller: Principal,
        args: &PushChunkArgs,
    ) -> Result<PushChunkOk, Stop<PushChunkError>> {
        self.bucket.push_chunk(caller, &args.borrowed(), self.now)
    }

    /// A whole answer, as its parts are put together for a gateway.
    pub fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let certificate = Some(CERTIFICATE);
        let answer = self.bucket.http_request(request, certificate, self.now);
        let mut response = answer.response;
        if let Some(part) = answer.part {
            let look = |window: &[u8]| response.body.extend_from_slice(window);
            self.bucket.read_part(&part, look);
        }
        response
    }

    /// The whole body, as a gateway joins the pieces of a stream, and how many there are.
    pub fn streamed(&self, request: &HttpRequest) -> (HttpResponse, usize) {
        let mut response = self.answer(request);
        let certificate = Some(CERTIFICATE);
        let mut next = self
            .bucket
            .http_request(request, certificate, self.now)
            .next;
        let mut pieces = 1;
        while let Some(token) = next {
            let piece = self.bucket.stream(token, self.now);
            let (part, token) = piece.expect("the stream goes on");
            if let Some(part) = part {
                let look = |window: &[u8]| response.body.extend_from_slice(window);
                self.bucket.read_part(&part, look);
            }
            (next, pieces) = (token, pieces + 1);
        }
        (response, pieces)
    }

    /// What is wrong with a push.
    pub fn refusal(&mut self, caller: Principal, args: &PushChunkArgs) -> PushChunkError {
        match self.push(caller, args) {
            Err(Stop::Error(error)) => error,
            other => panic!("no refusal: {other:?}"),
        }
    }

    /// What a push asks the index for.
    pub fn shortage(&mut self, caller: Principal, args: &PushChunkArgs) -> LeaseArgs {
        match self.push(caller, args) {
            Err(Stop::Lease(lease)) => lease,
            other => panic!("no shortage: {other:?}"),
        }
    }

    /// Pushes all chunks in order; panics unless the blob is stored.
    pub fn upload(&mut self, caller: Principal, data: &[u8]) -> BlobId {
        let (count, id) = (chunk_count(data.len() as u64), blob_id(data));
        for i in 0..count {
            let pushed = self.push(caller, &chunk_of(id, data, i));
            let pushed = pushed.expect("it is taken");
            assert_eq!(pushed.state == UploadState::Stored, i + 1 == count);
        }
        id
    }

    pub fn state(&self, caller: Principal, data: &[u8]) -> UploadStatus {
        self.status(caller, blob_id(data))
    }

    pub fn status(&self, caller: Principal, blob: BlobId) -> UploadStatus {
        let status = self.bucket.upload_status(&caller, &blob, self.now);
        status.expect("there is an upload")
    }

    /// Looks at all that there is.
    ///
    /// # Panics
    /// Where something contradicts something else.
    pub fn audit(&self) {
        if let Err(contradiction) = self.bucket.inventory() {
            panic!("{contradiction}");
        }
    }

    /// Blobs, references, open uploads, bytes stored, bytes reserved.
    pub fn figures(&self) -> [u64; 5] {
        let status = self.bucket.status();
        [
            status.blobs,
            status.references,
            status.open_uploads,
            status.bytes_stored,
            status.bytes_reserved,
        ]
    }

    /// The index takes a batch, and knows nothing more.
    pub fn acknowledge(&mut self, sent: &Outgoing) {
        let answer = EventsOk {
            stamp: end(&sent.args),
            report: None,
            counters: vec![],
            version: 5,
        };
        self.bucket.acknowledged(sent, &answer, self.now);
    }

    /// The index takes all that there is.
    pub fn drain(&mut self) {
        while let Some(sent) = self.bucket.next_batch(self.now.version) {
            self.acknowledge(&sent);
            self.now.version += 1;
        }
    }

    /// Bytes that the user is charged for, as the next batch tells the index.
    pub fn charged(&mut self, user: Principal) -> Option<u64> {
        let batch = self.bucket.next_batch(self.now.version)?.args;
        let row = batch.counters.iter().find(|row| row.user == user)?;
        Some(row.counters.used())
    }

    /// A token of the chat.
    pub fn token(&self, grant: Grant) -> String {
        let pair = Pair {
            issuer: chat(),
            issuer_key_version: 1,
            audience: own(),
            audience_key_version: 1,
        };
        let public = SecretKey::from_bytes(SECRET).public();
        let key = chat_secret().pair(&public, &pair).expect("a shared key");
        issue(&key, &pair, &grant).expect("a valid grant")
    }

    /// Lets `user` read what the chat sees, for a day.
    pub fn read_token(&self, user: Principal) -> String {
        self.token(Grant {
            scope: Scope::READ,
            dn: None,
            blob: None,
            owner: None,
            principal: user,
            iat_ms: self.now.ms,
            exp_ms: self.now.ms + READ_TOKEN_LIFE_MS,
        })
    }

    /// Lets `user` delete `owner`'s reference to the blob, for an hour.
    pub fn delete_token(&self, user: Principal, owner: Principal, blob: BlobId) -> String {
        self.token(Grant {
            scope: Scope::DELETE_REFERENCE.with(Scope::BOUND_TO_BLOB),
            dn: None,
            blob: Some(blob.0),
            owner: Some(owner),
            principal: user,
            iat_ms: self.now.ms,
            exp_ms: self.now.ms + HOUR_MS,
        })
    }
}

//! An index whose buckets and issuers the test plays.
//!
//! Each test program uses a part of it.
#![allow(dead_code)]

pub mod cloud;

use candid::{CandidType, Principal, decode_one, encode_one};
use data_bucket_index::{
    Context, Index, Moment,
    sync::{Sending, Sent},
};
use ic_stable_structures::DefaultMemoryImpl;
use openstorage_tokens::{Grant, Pair, Scope, SecretKey, issue};
use openstorage_types::{
    BlobId,
    channel::{
        BucketReport, Event, EventsArgs, EventsOk, PublicKey, Reference, Stamp, StatePage,
        StateRow, UserCounters, kind,
    },
    index::{InitArgs, RegisterIssuerArgs, RegisterIssuerOk, UserArgs},
    limits::HOUR_MS,
};

pub const START_MS: u64 = 1_700_000_000_000;
pub const SECRET: [u8; 32] = secret(1);
pub const WASM: BlobId = BlobId([3; 32]);
/// Of each bucket.
pub const BUCKET_BYTES: u64 = 100_000_000_000;

/// The n-th person: its id ends in 2, as those of keys do.
pub fn principal(n: u8) -> Principal {
    let mut id = [n; 29];
    id[28] = 2;
    Principal::from_slice(&id)
}

/// The n-th canister: its id ends in 1, as canisters' do.
pub fn canister(n: u8) -> Principal {
    Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, n, 1, 1])
}

/// Of a version of the index's own key.
pub const fn secret(version: u16) -> [u8; 32] {
    [6 + version as u8; 32]
}

pub fn own() -> Principal {
    canister(0)
}

pub fn operator() -> Principal {
    principal(100)
}

pub fn admin() -> Principal {
    principal(101)
}

pub fn alice() -> Principal {
    principal(1)
}

pub fn chat() -> Principal {
    canister(50)
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

/// An index, the memory under it, and the time.
pub struct World {
    pub index: Index,
    pub memory: DefaultMemoryImpl,
    pub now_ms: u64,
    pub version: u64,
}

impl World {
    /// A bucket tells a user's counters, and nothing else. What the index knows better.
    pub fn tell(&mut self, bucket: Principal, told: UserCounters) -> Vec<UserCounters> {
        let args = EventsArgs {
            from_stamp: Stamp::default(),
            events: vec![],
            counters: vec![told],
            report: None,
            heard: Stamp::default(),
            version: 5,
        };
        let context = self.context(bucket);
        self.index.events(&context, &args).unwrap().counters
    }

    /// Just installed, with an admin.
    pub fn empty() -> Self {
        let memory = DefaultMemoryImpl::default();
        let mut index = Index::open(memory.clone(), own(), Some(WASM));
        index.configure(&InitArgs {
            admins: vec![admin()],
            bucket_bytes_max: Some(BUCKET_BYTES),
            ..InitArgs::default()
        });
        Self {
            index,
            memory,
            now_ms: START_MS,
            version: 1,
        }
    }

    /// With a secret, a trusted chat, and `count` buckets.
    pub fn new(count: u8) -> Self {
        let mut world = Self::empty();
        world.index.set_secret(SECRET, START_MS);
        world.trust_chat();
        for n in 1..=count {
            world.add_bucket(n);
        }
        world
    }

    /// An upgrade: only stable memory is left.
    pub fn upgrade(&mut self) {
        self.version += 1;
        self.index = Index::open(self.memory.clone(), own(), Some(WASM));
    }

    pub fn context(&self, caller: Principal) -> Context {
        Context {
            own: own(),
            caller,
            is_controller: caller == operator(),
            now_ms: self.now_ms,
            version: self.version,
        }
    }

    pub fn trust_chat(&mut self) -> RegisterIssuerOk {
        self.trust_chat_under(1)
    }

    /// The chat's key has this version.
    pub fn trust_chat_under(&mut self, version: u16) -> RegisterIssuerOk {
        let context = self.context(operator());
        let key = PublicKey {
            version,
            ..chat_key()
        };
        self.index
            .trust_issuer(&context, chat(), key)
            .expect("the key is one")
    }

    /// What the fleet's jobs know of the moment: the index is rich.
    pub fn moment(&self) -> Moment {
        Moment {
            own: own(),
            now_ms: self.now_ms,
            balance: 1_000 * cloud::T,
            creation: cloud::T / 2,
        }
    }

    /// A bucket that was added and not looked at yet. It is ready when the cloud has settled.
    pub fn begin_bucket(&mut self, n: u8) -> cloud::Cloud {
        let mut cloud = cloud::Cloud::default();
        cloud
            .canisters
            .insert(canister(n), cloud::Canister::bucket(WASM));
        let look = cloud.look(&canister(n)).expect("it is there");
        let context = self.context(operator());
        self.index
            .adopt(&context, canister(n), &look, vec![])
            .expect("the operator may");
        cloud
    }

    /// A bucket that is ready.
    pub fn add_bucket(&mut self, n: u8) -> Principal {
        let mut cloud = self.begin_bucket(n);
        self.settle(&mut cloud);
        canister(n)
    }

    pub fn register(&mut self, user: Principal, byte_limit: u64) {
        let context = self.context(operator());
        let args = UserArgs { user, byte_limit };
        self.index
            .register_user(&context, &args)
            .expect("the operator may");
    }

    /// A bucket tells how it is.
    pub fn report(&mut self, bucket: Principal, bytes_used: u64, bytes_free: u64) {
        let report = BucketReport {
            bytes_used,
            bytes_free,
            key: Some(chat_key()),
            oldest_key_version: Some(1),
            version: Some(1),
            index_version: 0,
            cycles: None,
            set_aside: None,
            overdue_ms: None,
        };
        self.hear(bucket, Stamp::default(), vec![], Some(report));
    }

    pub fn hear(
        &mut self,
        bucket: Principal,
        from_stamp: Stamp,
        events: Vec<Event>,
        report: Option<BucketReport>,
    ) -> EventsOk {
        let args = EventsArgs {
            from_stamp,
            events,
            counters: vec![],
            report,
            heard: Stamp::default(),
            version: 5,
        };
        let context = self.context(bucket);
        self.index.events(&context, &args).expect("it is heard")
    }

    /// What a bucket is sent until it knows everything, with every batch acknowledged; the rows of a
    /// state one by one.
    pub fn drain(&mut self, bucket: Principal) -> Vec<StateRow> {
        let mut rows = vec![];
        while let Some(sending) = self.index.next_batch(bucket, self.version) {
            rows.extend(flat(&sending.args.events));
            self.acknowledge(&sending);
        }
        rows
    }

    /// A bucket has taken the whole batch.
    pub fn acknowledge(&mut self, sending: &Sending) -> Sent {
        let answer = self.answer(end(&sending.args));
        self.index.batch_answered(sending, answer)
    }

    /// A bucket stands there now. It has seen every version of the index.
    pub fn answer(&mut self, stamp: Stamp) -> EventsOk {
        self.version += 1;
        EventsOk {
            stamp,
            report: Some(BucketReport {
                bytes_used: 0,
                bytes_free: BUCKET_BYTES,
                key: Some(chat_key()),
                oldest_key_version: Some(1),
                version: Some(1),
                index_version: 0,
                cycles: None,
                set_aside: None,
                overdue_ms: None,
            }),
            counters: vec![],
            version: 1,
        }
    }

    /// The chat's token for `user`, to delete the accessor `dn` of the chat.
    pub fn deletion_token(&self, user: Principal, dn: &[u8]) -> String {
        self.deletion_token_under(user, dn, (1, 1))
    }

    /// The same, sealed under a version of the chat's key and for one of the index's.
    pub fn deletion_token_under(
        &self,
        user: Principal,
        dn: &[u8],
        (issuer_key_version, version): (u16, u16),
    ) -> String {
        let pair = Pair {
            issuer: chat(),
            issuer_key_version,
            audience: own(),
            audience_key_version: version,
        };
        let public = SecretKey::from_bytes(secret(version)).public();
        let key = chat_secret().pair(&public, &pair).expect("a shared key");
        let grant = Grant {
            scope: Scope::DELETE_ACCESSOR,
            dn: Some(dn),
            blob: None,
            owner: None,
            principal: user,
            iat_ms: self.now_ms,
            exp_ms: self.now_ms + HOUR_MS,
        };
        issue(&key, &pair, &grant).expect("a valid grant")
    }
}

/// Events, and the rows of a state among them one by one.
pub fn flat(events: &[Event]) -> Vec<StateRow> {
    let mut rows = vec![];
    for Event { kind, bytes, .. } in events {
        if *kind == kind::STATE_PAGE {
            let page: StatePage = decode_one(bytes).expect("a page");
            rows.extend(page.rows);
        } else {
            let (kind, bytes) = (*kind, bytes.clone());
            rows.push(StateRow { kind, bytes });
        }
    }
    rows
}

/// The place after a batch.
pub fn end(args: &EventsArgs) -> Stamp {
    let from = args.from_stamp;
    Stamp {
        seq: from.seq + args.events.len() as u64,
        version: args.events.last().map_or(from.version, |last| last.version),
    }
}

/// A reference comes or goes.
pub fn reference(kind: u16, reference: &Reference) -> Event {
    Event {
        version: 5,
        kind,
        bytes: reference.to_bytes().into(),
    }
}

/// An event of a bucket or of the index.
pub fn event(kind: u16, event: &impl CandidType) -> Event {
    Event {
        version: 5,
        kind,
        bytes: encode_one(event)
            .expect("an event has a Candid form")
            .into(),
    }
}

/// The registration of the chat by itself.
pub fn registration() -> RegisterIssuerArgs {
    RegisterIssuerArgs {
        issuer: None,
        key: chat_key(),
    }
}

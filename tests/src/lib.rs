//! A network with an index, its first bucket and a chat, ready for a test.
//!
//! The tests run the Wasm that is deployed, on the server that `POCKET_IC_BIN` names: the project's
//! own local network when `cargo xtask test` starts them, any other that speaks the PocketIC protocol
//! otherwise. `OPENSTORAGE_WASM_DIR` names the folder of the built canisters; without it,
//! `target/canisters` is taken, where `cargo xtask build` puts them.

pub mod bucket;
pub mod chat;
pub mod exchange;
pub mod grown;
pub mod index;

use std::{fs, path::PathBuf};

use candid::{CandidType, Principal, decode_one, encode_args, encode_one, utils::ArgumentEncoder};
use openstorage_types::{
    BlobId, BlobReference,
    bucket::PushChunkArgs,
    chat::{ChatInfo, CreateChatArgs, InitArgs as ChatInit},
    chunk_count, chunk_len,
    index::{AllocatedBucketArgs, BucketInfo, BucketState, IndexStatus, InitArgs as IndexInit},
    limits::CHUNK_BYTES,
};
use pocket_ic::{PocketIc, PocketIcBuilder};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// Rounds that the canisters get to settle something between them, before a test gives up.
const SETTLE_ROUNDS: usize = 300;

/// Buckets so small that a test can fill them.
pub const SMALL_BUCKET_BYTES: u64 = 100_000_000;

const CYCLES: u128 = 100_000_000_000_000;

/// Who deploys: controller of index and chat.
pub fn operator() -> Principal {
    user(0)
}

/// The n-th user: a self-authenticating principal made up from its number.
pub fn user(n: u64) -> Principal {
    Principal::self_authenticating(format!("user {n}"))
}

pub fn blob_id(bytes: &[u8]) -> BlobId {
    BlobId(Sha256::digest(bytes).into())
}

/// `len` bytes that differ from chunk to chunk and from seed to seed.
pub fn bytes(len: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// A deployed system.
pub struct Setup {
    pub pic: PocketIc,
    pub index: Principal,
    pub bucket: Principal,
    pub chat: Principal,
}

impl Setup {
    pub fn new() -> Self {
        Self::with(IndexInit::default())
    }

    /// Deploys as an operator does: index and chat, nothing else.
    pub fn with(init: IndexInit) -> Self {
        Self::on(1, init)
    }

    /// The same, with so many application subnets: index, chat and the first bucket lie on one of them.
    pub fn on(subnets: usize, init: IndexInit) -> Self {
        let builder = (0..subnets).fold(PocketIcBuilder::new(), |builder, _| {
            builder.with_application_subnet()
        });
        Self::deploy(builder.build(), init)
    }

    /// The same, on a network that is there.
    pub fn deploy(pic: PocketIc, init: IndexInit) -> Self {
        Self::deploy_index(pic, "index", init)
    }

    /// The same, with the index of another build.
    pub fn deploy_index(pic: PocketIc, name: &str, init: IndexInit) -> Self {
        let index = create(&pic);
        let chat = create(&pic);
        pic.install_canister(
            index,
            wasm(name),
            encode_one(Some(init)).unwrap(),
            Some(operator()),
        );
        pic.install_canister(
            chat,
            wasm("chat"),
            encode_one(ChatInit {
                index,
                origins: None,
            })
            .unwrap(),
            Some(operator()),
        );
        let mut setup = Self {
            pic,
            index,
            bucket: Principal::anonymous(),
            chat,
        };
        setup.bucket = setup.settle(
            "the index has an active bucket and trusts the chat",
            |setup| {
                let status: IndexStatus = setup.ask(setup.index, operator(), "status", ());
                let bucket = status
                    .buckets
                    .iter()
                    .find(|bucket| bucket.state == BucketState::Active)?;
                (!index::issuers(setup).is_empty()).then_some(bucket.bucket)
            },
        );
        setup
    }

    /// Runs rounds until `seen` sees what it waits for.
    ///
    /// # Panics
    /// When that has not come about after a good many rounds.
    pub fn settle<T>(&self, what: &str, seen: impl Fn(&Self) -> Option<T>) -> T {
        for _ in 0..SETTLE_ROUNDS {
            if let Some(value) = seen(self) {
                return value;
            }
            self.pic.advance_time(std::time::Duration::from_millis(100));
            self.pic.tick();
        }
        let status: IndexStatus = self.ask(self.index, operator(), "status", ());
        panic!("after {SETTLE_ROUNDS} rounds still not so: {what}; the index says {status:?}");
    }

    /// Stops a canister, upgrades it with the arguments it has, starts it.
    ///
    /// # Errors
    /// What the upgrade was rejected with; then the old code runs on.
    pub fn upgrade(
        &self,
        canister: Principal,
        name: &str,
    ) -> Result<(), pocket_ic::RejectResponse> {
        let operator = Some(operator());
        let arg = encode_one(None::<()>).unwrap();
        self.pic.stop_canister(canister, operator).unwrap();
        let upgraded = self
            .pic
            .upgrade_canister(canister, wasm(name), arg, operator);
        self.pic.start_canister(canister, operator).unwrap();
        upgraded
    }

    /// Registers `user` through the chat and waits until the index has confirmed it.
    pub fn register(&self, user: Principal) {
        chat::register(self, user).expect("the chat registers everybody");
        self.settle("the user is confirmed", |setup| {
            chat::me(setup, user).unwrap().confirmed.then_some(())
        });
    }

    /// Adds buckets until there are `count`, each about half full: uploads that are begun and not ended take
    /// the room. Needs buckets of [`SMALL_BUCKET_BYTES`].
    pub fn with_buckets(self, count: usize) -> Self {
        let (filler, room) = self.user_with_chat(1_000);
        let mut buckets = self.active_buckets();
        while buckets.len() < count {
            let bucket = *buckets.last().expect("there is one");
            bucket::ensure_registered(&self, bucket, filler)
                .expect("the bucket learns of the user");
            let seed = 1_000 + buckets.len() as u64;
            let mut large = chunk(&bytes(CHUNK_BYTES, seed), 0, room.accessor_id);
            large.size = SMALL_BUCKET_BYTES / 2 + 1;
            // With half of it the rest is promised to it.
            for index in 0..=(large.size / 2 / CHUNK_BYTES) as u32 {
                large.chunk_index = index;
                let pushed = bucket::push_chunk(&self, bucket, filler, large.clone());
                pushed.expect("the bucket takes half");
            }
            // The report of what is stored tells what is held.
            let small = chunk(&bytes(10, seed), 0, room.accessor_id);
            bucket::push_chunk(&self, bucket, filler, small).expect("it is small");
            let known = buckets;
            buckets = self.settle("another bucket is active", |setup| {
                let active = setup.active_buckets();
                let new = active.iter().find(|bucket| !known.contains(bucket))?;
                Some([&known[..], &[*new]].concat())
            });
        }
        self
    }

    pub fn active_buckets(&self) -> Vec<Principal> {
        let buckets = index::status(self).buckets.into_iter();
        buckets
            .filter(|bucket| bucket.state == BucketState::Active)
            .map(|bucket| bucket.bucket)
            .collect()
    }

    /// Everything is told, and the counters agree wherever they are kept.
    pub fn rest(&self) {
        self.settle(
            "every bucket has heard everything, and the audit agrees",
            |setup| {
                let is_told = |bucket: &BucketInfo| bucket.events_behind == 0;
                let all_told = index::status(setup).buckets.iter().all(is_told);
                (all_told && index::differences(setup).is_empty()).then_some(())
            },
        );
    }

    /// A registered user with a chat of its own.
    pub fn user_with_chat(&self, n: u64) -> (Principal, ChatInfo) {
        let user = user(n);
        self.register(user);
        let chat = chat::create_chat(
            self,
            user,
            CreateChatArgs {
                name: format!("chat of user {n}"),
            },
        )
        .unwrap();
        (user, chat)
    }

    /// Uploads as a client does, chunks in order; registers with the bucket when it is asked to.
    pub fn upload(&self, user: Principal, data: &[u8], accessor: Principal) -> BlobReference {
        let args = AllocatedBucketArgs {
            blob_id: blob_id(data),
            size: data.len() as u64,
            exclude: vec![],
        };
        let bucket = index::allocated_bucket(self, user, args)
            .expect("a bucket is allocated")
            .bucket;
        bucket::ensure_registered(self, bucket, user).expect("the bucket learns of the user");
        for i in 0..chunk_count(data.len() as u64) {
            bucket::push_chunk(self, bucket, user, chunk(data, i, accessor))
                .expect("the chunk is taken");
        }
        BlobReference {
            blob_id: blob_id(data),
            bucket,
            size: data.len() as u64,
            mime_type: MIME_TYPE.into(),
        }
    }

    /// An update call.
    ///
    /// # Panics
    /// When the call is rejected: canisters answer with typed errors, they do not trap.
    pub fn call<T: CandidType + DeserializeOwned>(
        &self,
        canister: Principal,
        caller: Principal,
        method: &str,
        args: impl ArgumentEncoder,
    ) -> T {
        match self
            .pic
            .update_call(canister, caller, method, encode_args(args).unwrap())
        {
            Ok(bytes) => decode_one(&bytes).unwrap(),
            Err(reject) => panic!("{method} was rejected: {reject}"),
        }
    }

    /// An update call that the canister turns away before it is executed.
    ///
    /// # Panics
    /// When it is let in.
    #[track_caller]
    pub fn turned_away(
        &self,
        canister: Principal,
        caller: Principal,
        method: &str,
        args: impl ArgumentEncoder,
    ) {
        let args = encode_args(args).unwrap();
        let call = self.pic.submit_call(canister, caller, method, args);
        assert!(call.is_err(), "{method} is let in");
    }

    /// A query call; as [`Setup::call`].
    pub fn ask<T: CandidType + DeserializeOwned>(
        &self,
        canister: Principal,
        caller: Principal,
        method: &str,
        args: impl ArgumentEncoder,
    ) -> T {
        match self
            .pic
            .query_call(canister, caller, method, encode_args(args).unwrap())
        {
            Ok(bytes) => decode_one(&bytes).unwrap(),
            Err(reject) => panic!("{method} was rejected: {reject}"),
        }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

/// From now on the first call of a method of a canister finds no memory to grow by. The local network can do that.
pub fn no_growth(setup: &Setup, canister: Principal, method: &str) {
    let pic = &setup.pic;
    let (server, instance) = (pic.get_server_url(), pic.instance_id());
    let route = format!("{server}instances/{instance}/faults");
    let rule = serde_json::json!({
        "site": "execution", "canister": canister, "method": method, "nth": 1, "fault": "no_growth"
    });
    let plan = serde_json::json!({ "rules": [rule] }).to_string();
    let client = reqwest::Client::builder().no_proxy().build();
    let told = client
        .expect("a client is made")
        .post(route)
        .header("content-type", "application/json")
        .body(plan);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime is made");
    let answer = runtime.block_on(told.send()).expect("the server answers");
    assert!(answer.status().is_success(), "this network makes no faults");
}

/// What the tests' blobs say they are.
pub const MIME_TYPE: &str = "image/png";

/// The arguments that push chunk `index` of `data`.
pub fn chunk(data: &[u8], index: u64, accessor: Principal) -> PushChunkArgs {
    let size = data.len() as u64;
    let start = (index * CHUNK_BYTES) as usize;
    let len = chunk_len(size, index).expect("there is such a chunk") as usize;
    PushChunkArgs {
        blob_id: blob_id(data),
        size,
        mime_type: MIME_TYPE.into(),
        name: Some("picture.png".into()),
        chunk_index: index as u32,
        bytes: data[start..start + len].to_vec().into(),
        accessor_ids: vec![accessor],
    }
}

/// The built Wasm of `index`, `bucket` or `chat`.
pub fn wasm(name: &str) -> Vec<u8> {
    let dir = std::env::var_os("OPENSTORAGE_WASM_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/canisters"),
        PathBuf::from,
    );
    let path = dir.join(format!("{name}.wasm.gz"));
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask build` makes it", path.display()))
}

fn create(pic: &PocketIc) -> Principal {
    let canister = pic.create_canister_with_settings(Some(operator()), None);
    pic.add_cycles(canister, CYCLES);
    canister
}

//! Index and bucket with many blobs and users, filled natively by their own cores.

use candid::Principal;
use data_bucket::{Bucket, Now, Stop};
use data_bucket_index::{Context, Index};
use ic_stable_structures::DefaultMemoryImpl;
use openstorage_types::{BlobId, bucket::PushChunkArgs, index::UserArgs};
use pocket_ic::common::rest::BlobCompression;
use sha2::{Digest, Sha256};

use crate::{MIME_TYPE, Setup, operator};

/// Blobs or users between two exchanges of events.
const PAGE: u64 = 1_000;
/// Blobs or users between two questions to the server.
const TURN: u64 = 10_000;
const USER_BYTES: u64 = 1_000_000;

/// The stable memories of an index and a bucket whose canisters are stopped.
pub struct Grown {
    index_id: Principal,
    bucket_id: Principal,
    index: Index,
    index_memory: DefaultMemoryImpl,
    bucket: Bucket,
    bucket_memory: DefaultMemoryImpl,
    now: Now,
    index_version: u64,
}

/// The n-th small blob.
pub fn small(n: u64) -> [u8; 8] {
    n.to_le_bytes()
}

/// The n-th of the many users.
pub fn one_of_many(n: u64) -> Principal {
    Principal::self_authenticating(format!("one of many, {n}"))
}

/// A blob of one chunk.
pub fn whole(data: &[u8], accessor: Principal) -> PushChunkArgs {
    PushChunkArgs {
        blob_id: BlobId(Sha256::digest(data).into()),
        size: data.len() as u64,
        mime_type: MIME_TYPE.into(),
        name: Some("picture.png".into()),
        chunk_index: 0,
        bytes: data.to_vec().into(),
        accessor_ids: vec![accessor],
    }
}

/// Adds the small blobs `from..to`, all of them `owner`'s and shown to `accessor`, and as many users.
pub fn grow(setup: &Setup, owner: Principal, accessor: Principal, from: u64, to: u64) {
    let mut grown = Grown::take(setup);
    for from in (from..to).step_by(TURN as usize) {
        let to = to.min(from + TURN);
        grown.register(from, to);
        grown.fill(owner, accessor, from, to);
        // A server that nobody asks for a minute ends.
        setup.pic.get_time();
    }
    grown.give_back(setup);
}

impl Grown {
    fn take(setup: &Setup) -> Self {
        let pic = &setup.pic;
        let take = |canister| {
            pic.stop_canister(canister, Some(operator()))
                .expect("it can be stopped");
            let status = pic.canister_status(canister, Some(operator()));
            let version = status.expect("the operator controls it").version;
            let memory = DefaultMemoryImpl::default();
            *memory.borrow_mut() = pic.get_stable_memory(canister);
            (memory, version)
        };
        let (bucket_memory, bucket_version) = take(setup.bucket);
        let (index_memory, index_version) = take(setup.index);
        let mut index = Index::open(index_memory.clone(), setup.index, None);
        let mut bucket = Bucket::open(bucket_memory.clone(), setup.bucket, None);
        // Nobody is to take what follows for a restored snapshot.
        index.observe(index_version);
        bucket.observe(bucket_version);
        Self {
            index_id: setup.index,
            bucket_id: setup.bucket,
            index,
            index_memory,
            bucket,
            bucket_memory,
            now: Now {
                ms: pic.get_time().as_nanos_since_unix_epoch() / 1_000_000,
                version: bucket_version,
            },
            index_version,
        }
    }

    /// The canisters run on with what they hold now.
    fn give_back(self, setup: &Setup) {
        drop((self.index, self.bucket));
        for (canister, memory, name) in [
            (setup.index, self.index_memory, "index"),
            (setup.bucket, self.bucket_memory, "bucket"),
        ] {
            let plain = BlobCompression::NoCompression;
            setup.pic.set_stable_memory(canister, memory.take(), plain);
            setup.upgrade(canister, name).expect("it can be upgraded");
        }
    }

    fn context(&self, caller: Principal) -> Context {
        Context {
            own: self.index_id,
            caller,
            is_controller: caller == operator(),
            now_ms: self.now.ms,
            version: self.index_version,
        }
    }

    fn register(&mut self, from: u64, to: u64) {
        let context = self.context(operator());
        for n in from..to {
            let args = UserArgs {
                user: one_of_many(n),
                byte_limit: USER_BYTES,
            };
            self.index
                .register_user(&context, &args)
                .expect("the operator may");
            if n % PAGE == 0 || n + 1 == to {
                self.exchange();
            }
        }
    }

    fn fill(&mut self, owner: Principal, accessor: Principal, from: u64, to: u64) {
        for n in from..to {
            let args = whole(&small(n), accessor);
            loop {
                match self.bucket.push_chunk(owner, &args.borrowed(), self.now) {
                    Ok(_) => break,
                    Err(Stop::Lease(wanted)) => {
                        let context = self.context(self.bucket_id);
                        let lease = self.index.lease(&context, &wanted);
                        let lease = lease.expect("the owner has allowance");
                        self.bucket.leased(owner, &lease, self.now);
                    }
                    Err(Stop::Error(error)) => panic!("blob {n}: {error:?}"),
                }
            }
            if n % PAGE == 0 || n + 1 == to {
                self.exchange();
            }
        }
    }

    /// Each tells the other everything, in turns: what one has heard may be what the other asks for.
    fn exchange(&mut self) {
        while self.index_tells() | self.bucket_tells() {}
    }

    /// False where there is nothing to tell.
    fn index_tells(&mut self) -> bool {
        let Some(sending) = self.index.next_batch(self.bucket_id, self.index_version) else {
            return false;
        };
        let answer = self.bucket.receive(&self.index_id, &sending.args, self.now);
        let answer = answer.expect("the index is heard");
        self.index.batch_answered(&sending, answer);
        true
    }

    fn bucket_tells(&mut self) -> bool {
        let Some(sending) = self.bucket.next_batch(self.now.version) else {
            return false;
        };
        let context = self.context(self.bucket_id);
        let answer = self.index.events(&context, &sending.args);
        let answer = answer.expect("the bucket is heard");
        self.bucket.acknowledged(&sending, &answer, self.now);
        true
    }
}

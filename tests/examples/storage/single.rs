//! Figures of single calls, in a bucket that holds little else.

use candid::Principal;
use integration_tests::{Setup, bucket, bytes, chat, chunk};
use openstorage_types::{
    BlobReference,
    bucket::{ReadChunkArgs, RemoveBlobReferenceArgs, UploadArgs, UploadState},
    chunk_count,
    limits::CHUNK_BYTES,
};

use crate::{
    figures::{Goal, Report},
    meter::{Account, Meter, of_method},
};

const MB: u64 = 1_000_000;
/// Of a blob in several parts.
const LARGE: u64 = 50 * MB;
const TAIL: u64 = 64 * 1024;

struct Bench {
    setup: Setup,
    meter: Meter,
    user: Principal,
    chat_id: u64,
    accessor: Principal,
    /// Blobs differ by it.
    seed: u64,
}

pub fn measure(report: &mut Report) {
    // Each growth begins with an empty bucket, whose memory has no room to spare.
    let (large, small) = (Goal::at_most(1.02, 1.0), Goal::at_most(1.2, 1.0));
    Bench::new().growth(report, 5 * MB, 20, "bytes_per_byte_5mb", large);
    Bench::new().growth(report, 5_000, 2_000, "bytes_per_byte_5kb", small);
    let mut bench = Bench::new();
    bench.one_part(report);
    bench.large(report);
    bench.delete(report);
    Bench::new().any_order(report);
}

impl Bench {
    fn new() -> Self {
        let setup = Setup::new();
        let (user, room) = setup.user_with_chat(1);
        bucket::ensure_registered(&setup, setup.bucket, user)
            .expect("the bucket learns of the user");
        Self {
            meter: Meter::new(&setup),
            setup,
            user,
            chat_id: room.chat_id,
            accessor: room.accessor_id,
            seed: 0,
        }
    }

    /// Uploads a new blob, chunks in order.
    fn upload(&mut self, size: u64) -> (BlobReference, Vec<Account>) {
        let order: Vec<_> = (0..chunk_count(size)).collect();
        self.upload_in(size, &order)
    }

    /// The same in any order.
    fn upload_in(&mut self, size: u64, order: &[u64]) -> (BlobReference, Vec<Account>) {
        self.seed += 1;
        let data = bytes(size, self.seed);
        let (setup, user, accessor) = (&self.setup, self.user, self.accessor);
        let ((), accounts) = self.meter.of(|| {
            for index in order {
                let chunk = chunk(&data, *index, accessor);
                bucket::push_chunk(setup, setup.bucket, user, chunk).expect("the chunk is taken");
            }
        });
        let blob = BlobReference {
            blob_id: integration_tests::blob_id(&data),
            bucket: setup.bucket,
            size,
            mime_type: integration_tests::MIME_TYPE.into(),
        };
        (blob, accounts)
    }

    fn pushed(&self, accounts: &[Account]) -> u64 {
        of_method(accounts, self.setup.bucket, "push_chunk")
    }

    /// The mean of several: every second one has to ask for allowance first.
    fn one_part(&mut self, report: &mut Report) {
        const COUNT: u64 = 10;
        let mut instructions = 0;
        for _ in 0..COUNT {
            let (_, accounts) = self.upload(CHUNK_BYTES);
            instructions += self.pushed(&accounts);
        }
        report.figure(
            "push_instr_per_byte",
            "push_chunk of a blob of 2 MB, reference and lease included, instructions/byte",
            instructions as f64 / (COUNT * CHUNK_BYTES) as f64,
            Goal::at_most(82.0, 79.6),
        );
    }

    fn large(&mut self, report: &mut Report) {
        let (blob, accounts) = self.upload(LARGE);
        let rest = self.rest();
        let all = accounts.iter().chain(&rest);
        let most = all.map(|account| account.usage.instructions).max();
        report.figure(
            "upload_50mb_max_message_instr",
            "most expensive message of an upload of 50 MB, instructions",
            most.unwrap_or(0) as f64,
            Goal::at_most(400e6, 314e6),
        );
        report.figure(
            "push_certified_instr_per_byte",
            "push_chunk of a blob of 50 MB, whose parts are certified, instructions/byte",
            self.pushed(&accounts) as f64 / LARGE as f64,
            Goal::at_most(159.0, 156.9),
        );
        self.read(report, &blob);
    }

    /// Orders in which the first chunk comes last: one backwards, and two as if drawn.
    fn any_order(&mut self, report: &mut Report) {
        let count = chunk_count(LARGE);
        let orders = [count - 1, 7, 11]
            .map(|step| (1..=count).map(|n| n * step % count).collect::<Vec<_>>());
        let mut most = 0;
        for order in orders {
            let (blob, mut accounts) = self.upload_in(LARGE, &order);
            let (setup, user) = (&self.setup, self.user);
            let (_, turns) = self.meter.of(|| {
                setup.settle("the blob is stored", |setup| {
                    let blob_id = blob.blob_id;
                    let args = UploadArgs { blob_id };
                    let status = bucket::upload_status(setup, setup.bucket, user, args);
                    let is_stored = status.expect("it is known").state == UploadState::Stored;
                    is_stored.then_some(())
                });
            });
            accounts.extend(turns);
            accounts.extend(self.rest());
            let instructions = accounts.iter().map(|account| account.usage.instructions);
            most = most.max(instructions.max().unwrap_or(0));
        }
        report.figure(
            "upload_50mb_max_message_any_order_instr",
            "most expensive message of an upload of 50 MB whose first chunk comes last, in any order, instructions",
            most as f64,
            Goal::at_most(400e6, 314e6),
        );
    }

    fn read(&mut self, report: &mut Report, blob: &BlobReference) {
        let message = chat::post(&self.setup, self.user, self.chat_id, blob);
        let (access, token) = chat::access(&self.setup, self.user, self.chat_id, message);
        let args = ReadChunkArgs {
            blob_id: blob.blob_id,
            accessor_id: access.accessor_id,
            token: token.clone(),
            chunk_index: 20,
        };
        let (setup, user) = (&self.setup, self.user);
        let (answer, accounts) = self
            .meter
            .of(|| bucket::read_chunk(setup, setup.bucket, user, args));
        let len = answer.expect("it is readable").bytes.len() as f64;
        report.figure(
            "read_part_instr_per_byte",
            "read_chunk of 2 MB out of 50, instructions/byte",
            of_method(&accounts, setup.bucket, "read_chunk") as f64 / len,
            Goal::at_most(52.15, 51.0),
        );
        let url = format!("/{}/{}?token={token}", access.accessor_id, blob.blob_id);
        let mut get = |url: &str, range: String| {
            let (response, accounts) = self
                .meter
                .of(|| bucket::get(setup, setup.bucket, url, &[("Range", &range)]));
            let instructions = of_method(&accounts, setup.bucket, "http_request");
            (response, instructions as f64)
        };
        let (response, instructions) = get(&url, format!("bytes={}-", 20 * CHUNK_BYTES));
        assert_eq!(response.status_code, 206);
        report.figure(
            "http_part_instr_per_byte",
            "the same by http_request, instructions/byte",
            instructions / response.body.len() as f64,
            Goal::at_most(52.5, 51.0),
        );
        let tail = format!("bytes={}-{}", LARGE - TAIL, LARGE - 1);
        let (response, instructions) = get(&format!("/m{url}"), tail);
        assert_eq!(response.status_code, 206);
        assert_eq!(response.body.len() as u64, TAIL);
        report.figure(
            "read_tail_64kb_instr",
            "the last 64 KiB of 50 MB by http_request, instructions",
            instructions,
            Goal::at_most(3.7e6, 3.35e6),
        );
    }

    /// What bucket and index grow by while `count` blobs come in, after the first one.
    fn growth(
        &mut self,
        report: &mut Report,
        size: u64,
        count: u64,
        key: &'static str,
        goal: Goal,
    ) {
        // The heap is as large as the largest message needs, once, whatever is stored.
        self.upload(size);
        self.rest();
        let before = [
            self.memory(self.setup.bucket),
            self.memory(self.setup.index),
        ];
        for _ in 0..count {
            self.upload(size);
        }
        self.rest();
        let after = [
            self.memory(self.setup.bucket),
            self.memory(self.setup.index),
        ];
        let bytes = (size * count) as f64;
        let [bucket, index] = [0, 1].map(|i| (after[i] - before[i]) as f64 / bytes);
        let what = match size {
            MB.. => "memory of the bucket for each byte of blobs of 5 MB, after the first one",
            _ => {
                "memory of the bucket for each byte of 2,000 pictures of 5 KB, after the first one"
            }
        };
        report.figure(key, what, bucket, goal);
        let (key, what) = match size {
            MB.. => (
                "index_bytes_per_byte_5mb",
                "memory of the index beside it, 5 MB",
            ),
            _ => (
                "index_bytes_per_byte_5kb",
                "memory of the index beside it, 5 KB",
            ),
        };
        report.figure(key, what, index, Goal::None);
    }

    /// Bytes of heap and stable memory.
    fn memory(&self, canister: Principal) -> u64 {
        let operator = Some(integration_tests::operator());
        let status = self.setup.pic.canister_status(canister, operator);
        let metrics = status.expect("the operator controls it").memory_metrics;
        let bytes = metrics.wasm_memory_size + metrics.stable_memory_size;
        u64::try_from(bytes.0).expect("it is below 16 EiB")
    }

    fn delete(&mut self, report: &mut Report) {
        let (blob, _) = self.upload(5 * MB);
        let args = RemoveBlobReferenceArgs {
            blob_id: blob.blob_id,
            accessor_id: self.accessor,
            owner: self.user,
            token: None,
        };
        let (setup, user) = (&self.setup, self.user);
        let (deleted, accounts) = self
            .meter
            .of(|| bucket::delete_blob(setup, setup.bucket, user, args));
        deleted.expect("it is the user's own");
        report.figure(
            "delete_5mb_instr",
            "delete_blob of 5 MB, instructions",
            of_method(&accounts, setup.bucket, "delete_blob") as f64,
            Goal::at_most(0.5e6, 0.0),
        );
    }

    /// Lets the canisters tell each other everything.
    fn rest(&mut self) -> Vec<Account> {
        let setup = &self.setup;
        let ((), accounts) = self.meter.of(|| setup.rest());
        accounts
    }
}

//! The cost of each call beside ever more blobs and users.

use candid::Principal;
use integration_tests::{
    Setup, bucket, chat,
    grown::{self, one_of_many, whole},
    index, operator,
};
use openstorage_types::{
    bucket::{AddBlobReferenceArgs, RemoveBlobReferenceArgs},
    index::{AllocatedBucketArgs, UserArgs},
};

use crate::{
    figures::{Goal, Report},
    meter::{Account, Meter, of_method, of_updates},
};

/// Calls of each kind whose mean is taken.
const CALLS: u64 = 20;

struct Bench {
    setup: Setup,
    meter: Meter,
    owner: Principal,
    accessor: Principal,
    /// Opens what `accessor` sees.
    token: String,
    /// Blobs that were pushed besides those that were grown.
    pushed: u64,
}

pub fn measure(report: &mut Report, sizes: Vec<u64>) {
    let setup = Setup::new();
    let (owner, room) = setup.user_with_chat(1);
    let data = b"a first picture";
    let reference = setup.upload(owner, data, room.accessor_id);
    let message = chat::post(&setup, owner, room.chat_id, &reference);
    let (_, token) = chat::access(&setup, owner, room.chat_id, message);
    let mut bench = Bench {
        meter: Meter::new(&setup),
        setup,
        owner,
        accessor: room.accessor_id,
        token,
        pushed: 0,
    };
    let mut stored = 0;
    for size in sizes {
        println!("  {size} blobs of one user, and {size} users");
        let more = (bench.owner, bench.accessor);
        let (setup, meter) = (&bench.setup, &mut bench.meter);
        let ((), accounts) = meter.of(|| grown::grow(setup, more.0, more.1, stored, size));
        stored = size;
        let mut upgrades = accounts
            .iter()
            .filter(|account| account.kind == "upgrade" && account.canister == bench.setup.bucket);
        let upgrade = upgrades.next_back().expect("the bucket was upgraded");
        report
            .by_blobs
            .at(size, "upgrade", upgrade.usage.instructions as f64);
        bench.quiet();
        bench.calls(report, size);
    }
    for (key, size) in [
        ("upload_8b_at_10k_instr", 10_000),
        ("upload_8b_at_100k_instr", 100_000),
        ("upload_8b_at_1m_instr", 1_000_000),
    ] {
        let what = "push_chunk of 8 bytes by a user with so many files, instructions";
        report.take_from_scale(key, what, "push_chunk", size, Goal::at_most(1e6, 0.04e6));
    }
    for (key, size) in [
        ("upgrade_instr_at_10", 10),
        ("upgrade_instr_at_10k", 10_000),
        ("upgrade_instr_at_1m", 1_000_000),
    ] {
        let what = "upgrade of a bucket with so many blobs, instructions";
        report.take_from_scale(key, what, "upgrade", size, Goal::at_most(2e6, 0.0));
    }
    let what = "add_blob_reference beside 100,000 blobs, instructions";
    let (key, goal) = ("add_reference_instr_at_100k", Goal::at_most(1e6, 0.0));
    report.take_from_scale(key, what, "add_blob_reference", 100_000, goal);
}

impl Bench {
    /// Until nothing happens any more by itself. A canister whose memory was replaced takes itself for one that
    /// was restored, and is told everything anew: a thousand rows in some rounds. Then the index looks at every blob of the
    /// bucket, two thousand in a message.
    fn quiet(&mut self) {
        const TIMES: u64 = 1_000;
        let quiet = (0..TIMES).any(|_| self.told() == 0);
        assert!(quiet, "nothing runs any more");
    }

    /// Until both have told each other everything, and for a while. The instructions of what ran in the while after that.
    fn told(&mut self) -> u64 {
        const ROUNDS: u64 = 100_000;
        const CALM_ROUNDS: u64 = 100;
        let setup = &self.setup;
        let is_quiet = |setup: &Setup| {
            let buckets = index::status(setup).buckets;
            let heard = buckets.iter().all(|row| row.events_behind == 0);
            heard && bucket::status(setup, setup.bucket).events_unsent == 0
        };
        self.meter.of(|| {
            // Quiet for a while: between two pages there may be a moment in which nothing waits.
            let mut calm = 0;
            let quiet = (0..ROUNDS).any(|_| {
                setup.pic.tick();
                calm = if is_quiet(setup) { calm + 1 } else { 0 };
                calm == CALM_ROUNDS
            });
            assert!(quiet, "both have told each other everything");
        });
        let ((), accounts) = self
            .meter
            .of(|| (0..CALM_ROUNDS).for_each(|_| setup.pic.tick()));
        of_updates(&accounts)
    }

    /// The mean of what `count` calls use; `work` is given the number of each.
    fn mean(
        &mut self,
        cost: impl Fn(&Setup, &[Account]) -> u64,
        mut work: impl FnMut(&Setup, u64),
    ) -> f64 {
        let setup = &self.setup;
        let ((), accounts) = self.meter.of(|| (0..CALLS).for_each(|n| work(setup, n)));
        cost(setup, &accounts) as f64 / CALLS as f64
    }

    fn calls(&mut self, report: &mut Report, size: u64) {
        let in_bucket = |method: &'static str| {
            move |setup: &Setup, accounts: &[Account]| of_method(accounts, setup.bucket, method)
        };
        let (owner, accessor) = (self.owner, self.accessor);
        let first = self.pushed;
        self.pushed += CALLS;
        let new = |n: u64| (1 << 40 | (first + n)).to_le_bytes();
        let figure = self.mean(in_bucket("push_chunk"), |setup, n| {
            let pushed = bucket::push_chunk(setup, setup.bucket, owner, whole(&new(n), accessor));
            pushed.expect("it is taken");
        });
        report.by_blobs.at(size, "push_chunk", figure);

        let other = Principal::from_slice(&[7; 10]);
        let token = self.token.clone();
        let figure = self.mean(in_bucket("add_blob_reference"), |setup, n| {
            let args = AddBlobReferenceArgs {
                blob_id: whole(&new(n), accessor).blob_id,
                accessor_ids: vec![other],
                mime_type: "image/png".into(),
                name: None,
                from_accessor: accessor,
                token: token.clone(),
            };
            bucket::add_blob_reference(setup, setup.bucket, owner, args).expect("it is added");
        });
        report.by_blobs.at(size, "add_blob_reference", figure);

        let figure = self.mean(in_bucket("remove_blob_reference"), |setup, n| {
            let args = RemoveBlobReferenceArgs {
                blob_id: whole(&new(n), accessor).blob_id,
                accessor_id: other,
                owner,
                token: None,
            };
            let removed: Result<(), openstorage_types::bucket::RemoveBlobReferenceError> =
                setup.call(setup.bucket, owner, "remove_blob_reference", (args,));
            removed.expect("it is removed");
        });
        report.by_blobs.at(size, "remove_blob_reference", figure);

        let token = self.token.clone();
        let figure = self.mean(in_bucket("http_request"), |setup, n| {
            let blob_id = whole(&new(n), accessor).blob_id;
            let url = format!("/{accessor}/{blob_id}?token={token}");
            let response = bucket::get(setup, setup.bucket, &url, &[]);
            assert_eq!(response.status_code, 200);
        });
        report.by_blobs.at(size, "http_request", figure);
        self.quiet();

        let in_index = |setup: &Setup, accounts: &[Account]| {
            of_method(accounts, setup.index, "allocated_bucket")
        };
        let figure = self.mean(in_index, |setup, n| {
            let args = AllocatedBucketArgs {
                blob_id: whole(&(1 << 50 | n).to_le_bytes(), accessor).blob_id,
                size: 1_000,
                exclude: vec![],
            };
            index::allocated_bucket(setup, owner, args).expect("there is a bucket");
        });
        report.by_blobs.at(size, "allocated_bucket", figure);

        // All that follows, in both canisters, until both are quiet.
        let all = |_: &Setup, accounts: &[Account]| of_updates(accounts);
        let figure = self.mean(all, |setup, n| {
            let args = UserArgs {
                user: one_of_many(n % size),
                byte_limit: 2_000_000 + size + n,
            };
            index::update_user(setup, operator(), args).expect("the operator may");
            for _ in 0..6 {
                setup.pic.tick();
            }
        });
        report.by_blobs.at(size, "sync of a user", figure);
    }
}

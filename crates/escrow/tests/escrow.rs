//! One user at its limit, many buckets, and messages that are lost, repeated and overtaken, canisters that
//! are restored from snapshots: at every step the two promises hold.
//!
//! 1. No grant is made that leaves more than the limit stored or leased, over all buckets.
//! 2. In every bucket the lease covers what open uploads have reserved.

use openstorage_escrow::{Account, Counters, Pool};
use proptest::prelude::*;

const BUCKETS: usize = 4;
const LIMIT: u64 = 40_000_000;

#[derive(Debug, Clone, Copy)]
enum Message {
    /// A bucket asks: what it lacks, and its counters.
    Ask(usize, u64, Counters),
    /// What the index knows of a bucket.
    Tell(usize, Counters),
    /// The index wants back what is not reserved.
    Recall(usize),
    /// A bucket's counters.
    Report(usize, Counters),
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    account: Account,
    /// Sizes of open uploads and of stored blobs.
    open: [u64; 4],
    stored: [u64; 4],
    /// Restored from a snapshot, and not reconciled with the index yet: nothing is begun or ended.
    doubted: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Index {
    pool: Pool,
    rows: [Counters; BUCKETS],
    /// Restored from a snapshot: buckets that have reported since.
    reported: [bool; BUCKETS],
}

struct World {
    index: Index,
    buckets: [Bucket; BUCKETS],
    wire: Vec<Message>,
    old_index: Index,
    old_buckets: [Bucket; BUCKETS],
}

impl World {
    fn new() -> Self {
        let index = Index {
            pool: Pool::new(LIMIT),
            reported: [true; BUCKETS],
            ..Index::default()
        };
        Self {
            index,
            buckets: Default::default(),
            wire: vec![],
            old_index: index,
            old_buckets: Default::default(),
        }
    }

    /// Stored and leased in truth.
    fn held(&self) -> u64 {
        let buckets = self.buckets.iter();
        buckets.map(|bucket| bucket.account.counters.held()).sum()
    }

    fn ask(&mut self, b: usize, size: u64) {
        let account = self.buckets[b].account;
        let wanted = account.shortage(size);
        self.wire.push(Message::Ask(b, wanted, account.counters));
    }

    /// A message arrives. Nothing says that it is the oldest, or that it comes once.
    fn arrive(&mut self, message: Message) -> Result<(), TestCaseError> {
        match message {
            Message::Ask(b, wanted, told) => {
                let index = &mut self.index;
                index.pool.hear(&mut index.rows[b], &told);
                if index.reported == [true; BUCKETS] {
                    let before = index.rows[b].granted;
                    let row = &mut index.rows[b];
                    let granted = index.pool.grant(row, told.granted, wanted, wanted % 2 == 0);
                    if granted.is_ok() && index.rows[b].granted > before {
                        let Pool {
                            used,
                            leased,
                            byte_limit,
                        } = index.pool;
                        prop_assert!(
                            used + leased <= byte_limit,
                            "the index sees the limit overrun"
                        );
                        if !self.buckets.iter().any(|bucket| bucket.doubted) {
                            prop_assert!(self.held() <= byte_limit, "the limit is overrun");
                        }
                    }
                }
                let row = self.index.rows[b];
                self.wire.push(Message::Tell(b, row));
            }
            Message::Tell(b, known) => {
                let bucket = &mut self.buckets[b];
                let mut lacking = bucket.account.reconcile(&known);
                for open in bucket.open.iter_mut().filter(|open| **open > 0) {
                    if lacking > 0 {
                        bucket.account.release(*open);
                        lacking = lacking.saturating_sub(*open);
                        *open = 0;
                    }
                }
                bucket.doubted = false;
            }
            Message::Recall(b) => {
                let bucket = &mut self.buckets[b];
                if !bucket.doubted {
                    bucket.account.give_back();
                }
                let told = bucket.account.counters;
                self.wire.push(Message::Report(b, told));
            }
            Message::Report(b, told) => {
                let index = &mut self.index;
                index.pool.hear(&mut index.rows[b], &told);
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for bucket in &self.buckets {
            let Account { counters, reserved } = bucket.account;
            prop_assert!(
                counters.lease() >= reserved,
                "a reservation without a lease: {:?}",
                bucket
            );
            prop_assert_eq!(counters.used(), bucket.stored.iter().sum::<u64>());
            prop_assert_eq!(reserved, bucket.open.iter().sum::<u64>());
        }
        let rows = self.index.rows.iter();
        let (used, leased) = rows.fold((0, 0), |(used, leased), row| {
            (used + row.used(), leased + row.lease())
        });
        prop_assert_eq!(
            (used, leased),
            (self.index.pool.used, self.index.pool.leased)
        );
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Upload {
        bucket: usize,
        slot: usize,
        size: u64,
    },
    Finish {
        bucket: usize,
        slot: usize,
    },
    Abort {
        bucket: usize,
        slot: usize,
    },
    Delete {
        bucket: usize,
        slot: usize,
    },
    GiveBack(usize),
    Report(usize),
    Recall(usize),
    /// The message arrives, and stays on the wire when it is to come again.
    Arrive {
        which: usize,
        again: bool,
    },
    Lose(usize),
    Limit(u64),
    SnapshotBucket(usize),
    RestoreBucket(usize),
    SnapshotIndex,
    RestoreIndex,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![1..100_u64, 1..5_000_000_u64, 5_000_000..20_000_000_u64];
    let at = || (0..BUCKETS, 0..4_usize);
    prop_oneof![
        8 => (at(), size).prop_map(|((bucket, slot), size)| Step::Upload { bucket, slot, size }),
        6 => at().prop_map(|(bucket, slot)| Step::Finish { bucket, slot }),
        1 => at().prop_map(|(bucket, slot)| Step::Abort { bucket, slot }),
        3 => at().prop_map(|(bucket, slot)| Step::Delete { bucket, slot }),
        1 => (0..BUCKETS).prop_map(Step::GiveBack),
        3 => (0..BUCKETS).prop_map(Step::Report),
        2 => (0..BUCKETS).prop_map(Step::Recall),
        16 => (any::<usize>(), prop::bool::weighted(0.2))
            .prop_map(|(which, again)| Step::Arrive { which, again }),
        2 => any::<usize>().prop_map(Step::Lose),
        1 => (1..2 * LIMIT).prop_map(Step::Limit),
        1 => (0..BUCKETS).prop_map(Step::SnapshotBucket),
        1 => (0..BUCKETS).prop_map(Step::RestoreBucket),
        1 => Just(Step::SnapshotIndex),
        1 => Just(Step::RestoreIndex),
    ]
}

fn take(world: &mut World, step: Step) -> Result<(), TestCaseError> {
    let World { buckets, wire, .. } = world;
    match step {
        Step::Upload {
            bucket: b,
            slot,
            size,
        } => {
            let bucket = &mut buckets[b];
            if bucket.doubted || bucket.open[slot] > 0 || bucket.stored[slot] > 0 {
                return Ok(());
            }
            match bucket.account.reserve(size) {
                Ok(()) => bucket.open[slot] = size,
                Err(_) => world.ask(b, size),
            }
        }
        Step::Finish { bucket, slot } => {
            let bucket = &mut buckets[bucket];
            if !bucket.doubted && bucket.open[slot] > 0 {
                let size = std::mem::take(&mut bucket.open[slot]);
                bucket.account.release(size);
                bucket.account.spend(size);
                bucket.stored[slot] = size;
            }
        }
        Step::Abort { bucket, slot } => {
            let bucket = &mut buckets[bucket];
            bucket
                .account
                .release(std::mem::take(&mut bucket.open[slot]));
        }
        Step::Delete { bucket, slot } => {
            let bucket = &mut buckets[bucket];
            bucket
                .account
                .free(std::mem::take(&mut bucket.stored[slot]));
        }
        Step::GiveBack(b) => {
            if !buckets[b].doubted {
                buckets[b].account.give_back();
            }
        }
        Step::Report(b) => wire.push(Message::Report(b, buckets[b].account.counters)),
        Step::Recall(b) => wire.push(Message::Recall(b)),
        Step::Arrive { which, again } => {
            if !wire.is_empty() {
                let which = which % wire.len();
                let message = if again {
                    wire[which]
                } else {
                    wire.swap_remove(which)
                };
                world.arrive(message)?;
            }
        }
        Step::Lose(which) => {
            if !wire.is_empty() {
                wire.swap_remove(which % wire.len());
            }
        }
        Step::Limit(limit) => world.index.pool.byte_limit = limit,
        Step::SnapshotBucket(b) => world.old_buckets[b] = buckets[b],
        Step::RestoreBucket(b) => {
            // What it sent before arrives before what it sends after: one canister's messages to another
            // keep their order. Calls to it of before are over when it is restored.
            for message in std::mem::take(wire) {
                match message {
                    Message::Ask(from, ..) | Message::Report(from, _) if from == b => {
                        world.arrive(message)?;
                    }
                    other => world.wire.push(other),
                }
            }
            world.wire.retain(
                |message| !matches!(message, Message::Tell(to, _) | Message::Recall(to) if *to == b),
            );
            world.buckets[b] = Bucket {
                doubted: true,
                ..world.old_buckets[b]
            };
            world.ask(b, 0);
        }
        Step::SnapshotIndex => world.old_index = world.index,
        Step::RestoreIndex => {
            let byte_limit = world.index.pool.byte_limit;
            world.index = world.old_index;
            world.index.pool.byte_limit = byte_limit;
            // Its answers under way are waited for before a bucket reports.
            for b in 0..BUCKETS {
                for message in std::mem::take(&mut world.wire) {
                    match message {
                        Message::Tell(to, _) if to == b => world.arrive(message)?,
                        other => world.wire.push(other),
                    }
                }
                let told = world.buckets[b].account.counters;
                world.index.pool.hear(&mut world.index.rows[b], &told);
            }
        }
    }
    world.check()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_limit_and_every_reservation_hold_at_every_step(
        steps in prop::collection::vec(step(), 0..120)
    ) {
        let mut world = World::new();
        for step in steps {
            take(&mut world, step)?;
        }
        // When messages arrive again, the index knows what is, and can give away whatever is free.
        let wire = std::mem::take(&mut world.wire);
        for message in wire {
            world.arrive(message)?;
            world.check()?;
        }
        for b in 0..BUCKETS {
            world.ask(b, 0);
        }
        while let Some(message) = world.wire.pop() {
            world.arrive(message)?;
        }
        for b in 0..BUCKETS {
            world.arrive(Message::Recall(b))?;
        }
        while let Some(message) = world.wire.pop() {
            world.arrive(message)?;
        }
        world.check()?;
        let stored: u64 = world.buckets.iter().flat_map(|bucket| bucket.stored).sum();
        let reserved: u64 = world.buckets.iter().flat_map(|bucket| bucket.open).sum();
        prop_assert_eq!((world.index.pool.used, world.index.pool.leased), (stored, reserved));
        let free = world.index.pool.byte_limit.saturating_sub(stored).saturating_sub(reserved);
        prop_assert_eq!(world.index.pool.free(), free);
    }
}

#[test]
fn a_grant_is_generous_only_where_there_is_plenty() {
    use openstorage_types::limits::{LEASE_BYTES_MIN, POOL_LOW_BYTES};
    let mut pool = Pool::new(LEASE_BYTES_MIN + POOL_LOW_BYTES + 3);
    let mut row = Counters::default();
    pool.grant(&mut row, 0, 1, true).unwrap();
    assert_eq!(row.granted, 1);
    pool.grant(&mut row, 1, 1, false).unwrap();
    assert_eq!(row.granted, 1 + LEASE_BYTES_MIN);
    pool.grant(&mut row, 1 + LEASE_BYTES_MIN, 3, false).unwrap();
    assert_eq!(row.granted, 4 + LEASE_BYTES_MIN);
    // Asked again, because the answer was lost.
    pool.grant(&mut row, 1 + LEASE_BYTES_MIN, 3, false).unwrap();
    assert_eq!(row.granted, 4 + LEASE_BYTES_MIN);
    assert!(
        pool.grant(&mut row, 4 + LEASE_BYTES_MIN, u64::MAX, false)
            .is_err()
    );
}

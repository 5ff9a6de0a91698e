//! One change of a user on its way to all buckets: what it costs, and what it takes of memory.
//!
//! `OPENSTORAGE_FULL=1` runs it with a million users and a thousand buckets.

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

use candid::Principal;
use data_bucket_index::{
    accounts::batch,
    buckets::{Bucket, Buckets},
    memory,
    sync::Sent,
};
use openstorage_channel::{Log, Next};
use openstorage_types::{index::UserArgs, limits::EVENT_BATCH_BYTES_MAX};
use support::*;

/// Counts what lives on the heap, and the most that ever did.
struct Counted;

static LIVING: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let living = LIVING.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(living, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVING.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTED: Counted = Counted;

/// What of the index lives in stable memory, which the test keeps on the heap.
fn stable_bytes(world: &World) -> usize {
    world.memory.borrow().capacity()
}

fn bucket(n: usize) -> Principal {
    let n = (n as u16).to_be_bytes();
    Principal::from_slice(&[0, 0, 0, 0, 0, 1, n[0], n[1], 1, 1])
}

fn user(n: usize) -> Principal {
    Principal::self_authenticating(n.to_be_bytes())
}

/// Tells every bucket whatever it has to know. Returns batches and bytes.
fn push(world: &mut World, buckets: usize) -> (usize, usize) {
    let (mut batches, mut bytes) = (0, 0);
    for n in 0..buckets {
        while let Some(sending) = world.index.next_batch(bucket(n), world.version) {
            let sizes = sending.args.events.iter().map(|event| event.bytes.len());
            let size: usize = sizes.sum();
            assert!(size <= EVENT_BATCH_BYTES_MAX);
            assert_eq!(world.acknowledge(&sending), Sent::Taken);
            batches += 1;
            bytes += size;
        }
    }
    (batches, bytes)
}

/// Buckets that have been told everything, or nothing: written into the stable image, since telling them a
/// million users one after the other would take a day.
fn add_buckets(world: &mut World, from: usize, to: usize, told: bool) {
    let memory = memory::manager(world.memory.clone());
    let log = Log::init(memory.get(memory::LOG_EVENTS), memory.get(memory::LOG_ENDS));
    let mut buckets = Buckets::init(memory.get(memory::BUCKETS), memory.get(memory::TROUBLES));
    for n in from..to {
        let mut row = Bucket::new(BUCKET_BYTES);
        row.installed = true;
        row.report.key = Some(chat_key());
        row.upkeep.stage = None;
        if told {
            row.cursor.next = Next::Log(log.last());
        }
        buckets.set(bucket(n), row);
    }
    world.upgrade();
}

fn heap(world: &World) -> usize {
    LIVING.load(Relaxed).saturating_sub(stable_bytes(world))
}

/// What each update spends on looking for what is due, in nanoseconds.
fn look_ns(world: &World) -> u128 {
    const LOOKS: u32 = 1_000;
    let running = Default::default();
    let begun = Instant::now();
    for _ in 0..LOOKS {
        std::hint::black_box(world.index.agenda(world.now_ms, &running));
    }
    begun.elapsed().as_nanos() / u128::from(LOOKS)
}

/// The most that lived on the heap during `work`, above what lived before.
fn peak<T>(world: &mut World, work: impl FnOnce(&mut World) -> T) -> (T, usize) {
    let before = heap(world);
    PEAK.store(LIVING.load(Relaxed), Relaxed);
    let done = work(world);
    let peak = PEAK.load(Relaxed).saturating_sub(stable_bytes(world));
    (done, peak.saturating_sub(before))
}

#[test]
fn one_change_reaches_every_bucket_within_bounded_heap() {
    let users = match std::env::var_os("OPENSTORAGE_FULL") {
        Some(_) => 1_000_000,
        None => 20_000,
    };
    let mut world = World::new(0);
    let context = world.context(operator());
    for page in 0..users / 1_000 {
        let rows: Vec<_> = (0..1_000)
            .map(|n| UserArgs {
                user: user(1_000 * page + n),
                byte_limit: 1_000_000,
            })
            .collect();
        let answers = batch(&rows, |args| world.index.register_user(&context, args));
        assert!(answers.iter().all(Result::is_ok));
    }
    println!(
        "{users} users, {} bytes of stable memory",
        stable_bytes(&world)
    );
    println!(
        "buckets | batches | bytes sent | µs a bucket | heap above the tables | heap in all | ns a look"
    );
    let mut made = 0;
    for buckets in [10, 100, 1_000] {
        add_buckets(&mut world, made, buckets, true);
        made = buckets;
        // What the registrations have left in the log goes first.
        while world.index.log_len() > 1 {
            world.register(user(0), world.index.log_len());
            push(&mut world, buckets);
        }
        world.register(user(0), 2_000_000 + buckets as u64);
        let begun = Instant::now();
        let ((batches, bytes), above) = peak(&mut world, |world| push(world, buckets));
        let micros = begun.elapsed().as_micros() as usize / buckets;
        println!(
            "{buckets:>7} | {batches:>7} | {bytes:>10} | {micros:>11} | {above:>21} | {:>11} | {:>9}",
            heap(&world),
            look_ns(&world)
        );
        // One event for each bucket.
        assert_eq!(batches, buckets);
        assert!(bytes <= 300 * buckets);
        assert!(above < 1_000_000, "{above} bytes of heap for one change");
    }
    assert!(heap(&world) < 16_000_000, "{} bytes of heap", heap(&world));
    // A page of the state, and no more of it at once, is what a new bucket needs of the heap.
    add_buckets(&mut world, made, made + 1, false);
    let ((batches, bytes), above) = peak(&mut world, |world| push(world, made + 1));
    println!(
        "a new bucket: {batches} batches, {bytes} bytes, {above} bytes of heap above the tables"
    );
    assert!(batches > users / 1_000);
    assert!(above < 8 * EVENT_BATCH_BYTES_MAX);
}

//! A fixed set of seeds, three hundred with `--full`, and some that nobody has run yet.

use std::{
    path::PathBuf,
    sync::Mutex,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use candid::{Principal, encode_one};
use ic_management_canister_types::{CanisterInstallMode, InstallCodeArgs};
use openstorage_localnet::network::{Fault, Plan, Rule, Site};
use openstorage_simulation::{Base, Options, Stage, Summary, operator, run};
use openstorage_types::index::UserArgs;

/// Seeds of every test run.
const SEEDS: u64 = 12;
/// Of a full one.
const SEEDS_FULL: u64 = 300;
/// Fresh seeds are begun for so long.
const FRESH: Duration = Duration::from_secs(60);

fn wasm_dir() -> PathBuf {
    std::env::var_os("OPENSTORAGE_WASM_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/canisters"),
        PathBuf::from,
    )
}

fn in_full() -> bool {
    std::env::var_os("OPENSTORAGE_FULL").is_some_and(|value| value == "1")
}

fn base(mutant: Option<u32>) -> Base {
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("simulation");
    std::fs::create_dir_all(&cache).expect("the build's folder can be written to");
    Base::deploy(&wasm_dir(), Some(&cache), mutant)
        .expect("`cargo xtask build` has built the canisters")
}

/// Seeds on two threads, until there are none, or one fails.
fn all(base: &Base, seeds: impl Iterator<Item = u64> + Send) -> Summary {
    let options = Options::default();
    let seeds = Mutex::new(seeds);
    let some = || {
        let mut sum = Summary::default();
        // The seeds are let go of before the run.
        while let Some(seed) = { seeds.lock().ok().and_then(|mut seeds| seeds.next()) } {
            match run(base, seed, &options) {
                Ok(summary) => sum = sum.and(&summary),
                Err(failure) => panic!(
                    "seed {seed}, step {}: {}\nagain: cargo xtask simulate --seed {seed}\n{}",
                    failure.step,
                    failure.violation,
                    failure.log[failure.log.len().saturating_sub(60)..].join("\n")
                ),
            }
        }
        sum
    };
    thread::scope(|scope| {
        let threads = [scope.spawn(some), scope.spawn(some)];
        let sums = threads.map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        sums[0].and(&sums[1])
    })
}

#[test]
fn the_fixed_seeds_hold_and_a_seed_is_the_same_run_each_time() {
    let base = base(None);
    let last = if in_full() { SEEDS_FULL } else { SEEDS };
    let summary = all(&base, 1..last + 1);
    println!("{summary}");
    // They do something.
    let seeds = last as usize;
    assert!(
        summary.calls > 100 * seeds && summary.stored > 5 * seeds,
        "{summary}"
    );
    assert!(
        summary.faults > 20 * seeds && summary.reads > seeds,
        "{summary}"
    );
    assert!(summary.upgrades > seeds / 2, "{summary}");

    let options = Options::default();
    let again = [0, 1].map(|_| run(&base, 1, &options).map(|summary| summary.digest));
    assert!(again[0].is_ok());
    assert_eq!(again[0].as_ref().ok(), again[1].as_ref().ok());
}

/// Seeds that nobody has run: they follow from the time, or from `OPENSTORAGE_SEED`.
#[test]
fn fresh_seeds_hold() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let given = std::env::var("OPENSTORAGE_SEED").ok();
    let first = match given.and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed,
        None => now.map_or(0, |now| now.as_secs()) * 1_000,
    };
    println!("fresh seeds from {first} on; each again: cargo xtask simulate --seed N");
    let base = base(None);
    let begun = Instant::now();
    let seeds = (first..).take_while(|_| begun.elapsed() < FRESH);
    println!("{}", all(&base, seeds));
}

/// The index has told two buckets of a user, in one message of its timer. The first answer's message traps: the other
/// call is still under way, and counts.
#[test]
fn an_answer_whose_message_traps_ends_no_other_job() {
    let mut stage = base(None).stage();
    let index = stage.index;
    let args = UserArgs {
        user: Principal::self_authenticating("somebody"),
        byte_limit: 1,
    };
    let sent = stage.send(index, operator(), "register_user", (args,));
    // The call, then the timer.
    (0..2).for_each(|_| stage.pass(1));
    let of_index = |site, nth, fault| Rule {
        canister: Some(index),
        ..Rule::new(site, nth, fault)
    };
    let trap = Fault::Trap {
        instructions: 5_000,
    };
    let plan = Plan {
        rules: vec![
            of_index(Site::Execution, 1, trap),
            of_index(Site::Answer, 2, Fault::Delay { rounds: 8 }),
        ],
        seeded: None,
    };
    stage.network.set_faults(plan).expect("it can be followed");
    (0..6).for_each(|_| stage.pass(1));
    assert_eq!(
        stage.network.fault_log().len(),
        2,
        "{:?}",
        stage.network.fault_log()
    );
    assert!(sent.is_ok_and(|id| stage.wait(&id, "register_user").is_ok()));

    let mut upgrade = || {
        let args = InstallCodeArgs {
            mode: CanisterInstallMode::Upgrade(None),
            canister_id: index,
            wasm_module: std::fs::read(wasm_dir().join("index.wasm.gz")).expect("it is built"),
            arg: encode_one(None::<()>).expect("nothing has a Candid form"),
            sender_canister_version: None,
        };
        let sent = stage.manage(index, "install_code", &args);
        let sent = sent.expect("the management canister takes messages");
        stage.wait(&sent, "install_code")
    };
    let refused = upgrade().expect_err("a call is under way");
    assert!(
        refused.message.contains("has 1 calls under way"),
        "{}",
        refused.message
    );
    // It is answered, and what was not heard is told again.
    let told = |stage: &mut Stage| {
        let buckets = stage.status()?.buckets;
        buckets.iter().all(|it| it.events_behind == 0).then_some(())
    };
    stage.until("all buckets have heard of the user", told);
}

/// The bugs of `mutants.rs` in `canisters/bucket/src` and `canisters/index/src`, and the invariants one of which finds
/// each.
const MUTANTS: [(u32, &[u8]); 17] = [
    (1, &[6]),
    (2, &[7, 8]),
    (3, &[4]),
    (4, &[13]),
    (5, &[6, 22]),
    (6, &[1, 4]),
    (7, &[1, 27]),
    (8, &[4, 12]),
    (9, &[4]),
    (10, &[8]),
    (11, &[13]),
    (12, &[13]),
    (13, &[14]),
    (14, &[8]),
    (21, &[10]),
    (22, &[3, 5]),
    (23, &[6, 22]),
];
/// Each is found in one of the first so many seeds.
const MUTANT_SEEDS: u64 = 100;

/// In a full run only: the canisters with these bugs are another build.
#[test]
fn every_bug_that_is_planted_on_purpose_is_found() {
    if !in_full() {
        return;
    }
    let mutants = Mutex::new(MUTANTS.iter());
    let some = || {
        while let Some((mutant, invariants)) = { mutants.lock().ok().and_then(|mut it| it.next()) }
        {
            let base = base(Some(*mutant));
            let options = Options::default();
            let found = (1..=MUTANT_SEEDS).find_map(|seed| run(&base, seed, &options).err());
            let failure = found.unwrap_or_else(|| panic!("no seed finds mutant {mutant}"));
            let (seed, violation) = (failure.seed, failure.violation);
            assert!(
                invariants.contains(&violation.invariant),
                "mutant {mutant}: {violation}"
            );
            println!("mutant {mutant}, seed {seed}: {violation}");
        }
    };
    thread::scope(|scope| {
        let threads = [scope.spawn(some), scope.spawn(some)];
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

//! How fast the local network is, in process and through the official client, beside floors measured in the
//! same run: `cargo xtask bench --only localnet`.
//!
//! The server to measure is what `POCKET_IC_BIN` names; without one its half is left out. The last line is
//! one JSON object. Each line is the best of several runs, since whatever else the machine does only makes it
//! slower.

mod chunks;
mod idle;

use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    time::Instant,
};

use candid::{Encode, Principal};
use ic_management_canister_types::{
    CanisterIdRecord, CanisterInstallMode, InstallCodeArgs, ProvisionalCreateCanisterWithCyclesArgs,
};
use openstorage_localnet::{
    fees::Fees,
    machine::{Compiler, Context, Entry, HeapKind, Keep, Machine},
    network::{Config, Ingress, Network},
};
use openstorage_universal::{Program, WASM};
use sha2::{Digest, Sha256};

/// Adds to a counter in the heap, notes it in stable memory, answers with it.
const SMALL: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (memory 20)
    (func (export "canister_init") (drop (call $grow (i64.const 1))))
    (func $answer (call $append (i32.const 0) (i32.const 8)) (call $reply))
    (func (export "canister_query get") (call $answer))
    (func $bump
        (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1)))
        (call $write (i64.const 100) (i64.const 0) (i64.const 8)))
    (func (export "canister_update bump") (call $bump) (call $answer)))"#;

const RUNS: usize = 5;

/// Figures by their names.
type Report = BTreeMap<String, f64>;

fn main() {
    let mut report = Report::new();
    let mut keep =
        |name: &str, figure: f64| report.insert(format!("localnet_{name}"), figure.round());
    let bare = bare();
    println!("floors");
    let calls = rate("bare call of the update's Wasm", 200_000, bare);
    keep("floor_wasm_calls_per_s", calls);
    let bytes = vec![7u8; 100_000_000];
    let mut copy = vec![0u8; bytes.len()];
    let copied = amount("memcpy of 100 MB", bytes.len(), || {
        copy.copy_from_slice(black_box(&bytes))
    });
    keep("floor_copy_mb_per_s", copied);
    let hashed = amount("SHA-256 of 100 MB", bytes.len(), || {
        black_box(Sha256::digest(&bytes));
    });
    keep("floor_sha256_mb_per_s", hashed);
    drop((bytes, copy));

    for (heaps, name) in [
        (HeapKind::Mapped, "machine, mapped heap"),
        (HeapKind::Copied, "machine, copied heap"),
    ] {
        println!("{name}");
        machine(heaps);
    }
    println!("network");
    let (updates, queries) = network();
    keep("updates_per_s", updates);
    keep("queries_per_s", queries);
    println!("networks of idle canisters");
    idle::measure(&mut report);
    match std::env::var_os("POCKET_IC_BIN") {
        Some(server) => {
            println!("100 MB in chunks of 1.9 MB through the pocket-ic crate");
            chunks::measure(&mut report, server.into());
        }
        None => println!("POCKET_IC_BIN names no server, so none is measured"),
    }
    println!(
        "{}",
        serde_json::to_string(&report).expect("figures are plain data")
    );
}

/// The module's own update in the engine alone: imports do nothing, nothing is undone.
fn bare() -> impl FnMut() {
    let engine = wasmtime::Engine::default();
    let module = wasmtime::Module::new(&engine, wat::parse_str(SMALL).expect("it is text"))
        .expect("the module is valid");
    let mut store = wasmtime::Store::new(&engine, ());
    let mut linker = wasmtime::Linker::new(&engine);
    linker
        .define_unknown_imports_as_default_values(&mut store, &module)
        .expect("imports are functions");
    let instance = linker
        .instantiate(&mut store, &module)
        .expect("it can be instantiated");
    let update = instance
        .get_typed_func::<(), ()>(&mut store, "canister_update bump")
        .expect("it is exported");
    move || update.call(&mut store, ()).expect("it does not trap")
}

fn machine(heaps: HeapKind) {
    let compiler = Compiler::with_heaps(None, heaps);
    let (controllers, environment, outstanding) =
        (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    let fees = Fees::default();
    let context = Context {
        canister_id: Principal::from_slice(&[1]),
        subnet_id: Principal::from_slice(&[2]),
        caller: Principal::anonymous(),
        sender_info: None,
        controllers: &controllers,
        environment: &environment,
        root_key: &[],
        time_ns: 5,
        timer_ns: 0,
        canister_version: 1,
        status: 1,
        balance: 1 << 60,
        keep: Keep::default(),
        fees: &fees,
        queues_full: false,
        growth_bytes_max: u64::MAX,
        heap_bytes_max: 0,
        cycles_available: 0,
        deadline_ns: 0,
        answered: false,
        certificate: None,
        calls_outstanding: &outstanding,
        instructions_max: 40_000_000_000,
        instructions_before: 0,
    };
    let install = |module: &[u8], arg: &[u8]| {
        let module = compiler.compile(module).expect("the module is valid");
        let (machine, outcome) = Machine::install(&module, arg.to_vec(), &context);
        assert_eq!(outcome.result, Ok(()));
        machine.expect("it is installed")
    };
    let run = |machine: &mut Machine, entry: Entry| {
        assert_eq!(machine.run(entry, &context).result, Ok(()));
    };
    let update = |method: &str, arg: &[u8]| Entry::Update {
        method: method.into(),
        arg: arg.to_vec(),
    };
    let query = |method: &str, arg: &[u8]| Entry::Query {
        method: method.into(),
        arg: arg.to_vec(),
    };

    let mut small = install(&wat::parse_str(SMALL).expect("it is text"), &[]);
    rate("small updates", 20_000, || {
        run(&mut small, update("bump", &[]))
    });
    rate("small queries", 20_000, || {
        run(&mut small, query("get", &[]))
    });
    let mut rust = install(WASM, Program::new().stable_grow(100).bytes());
    let program = Program::new().global_set(b"12345678").reply(b"x");
    rate("updates of a Rust canister", 20_000, || {
        run(&mut rust, update("update", program.bytes()))
    });
    let program = Program::new().reply_global();
    rate("queries of a Rust canister", 20_000, || {
        run(&mut rust, query("query", program.bytes()))
    });
    let large: Vec<_> = (0..20)
        .map(|fill| {
            Program::new()
                .stable_write(0, vec![fill; 1_900_000])
                .reply(b"")
        })
        .collect();
    amount(
        "chunks of 1.9 MB into stable memory",
        1_900_000 * 20,
        || {
            for program in &large {
                run(&mut rust, update("update", program.bytes()));
            }
        },
    );
}

/// A canister of the small module, with cycles.
fn canister(network: &mut Network) -> Principal {
    let management = Principal::management_canister();
    let create = ProvisionalCreateCanisterWithCyclesArgs {
        amount: Some(1_000_000_000_000_000u64.into()),
        ..Default::default()
    };
    let arg = Encode!(&create).expect("it can be encoded");
    let bytes = update(
        network,
        management,
        None,
        "provisional_create_canister_with_cycles",
        arg,
    );
    let canister = candid::decode_one::<CanisterIdRecord>(&bytes)
        .expect("it answers with an id")
        .canister_id;
    let install = InstallCodeArgs {
        mode: CanisterInstallMode::Install,
        canister_id: canister,
        wasm_module: wat::parse_str(SMALL).expect("it is text"),
        arg: vec![],
        sender_canister_version: None,
    };
    let arg = Encode!(&install).expect("it can be encoded");
    update(network, management, Some(canister), "install_code", arg);
    canister
}

/// Updates and queries a second.
fn network() -> (f64, f64) {
    let mut network = Network::new(Config::default());
    let canister = canister(&mut network);
    let updates = rate("small updates", 5_000, || {
        update(&mut network, canister, None, "bump", vec![]);
    });
    let queries = rate("small queries", 20_000, || {
        let anonymous = Principal::anonymous();
        network
            .query(anonymous, canister, "get", vec![])
            .expect("it answers");
    });
    (updates, queries)
}

fn ingress(
    canister: Principal,
    effective: Option<Principal>,
    method: &str,
    arg: Vec<u8>,
) -> Ingress {
    Ingress {
        sender: Principal::anonymous(),
        sender_info: None,
        canister,
        method: method.into(),
        arg,
        effective,
    }
}

fn update(
    network: &mut Network,
    canister: Principal,
    effective: Option<Principal>,
    method: &str,
    arg: Vec<u8>,
) -> Vec<u8> {
    let id = network
        .submit(ingress(canister, effective, method, arg))
        .expect("it is accepted");
    network
        .await_ingress(&id)
        .expect("it is done in a few rounds")
        .expect("it is answered")
}

/// The best of several runs of `count` times `work`.
fn best(count: usize, mut work: impl FnMut()) -> f64 {
    (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..count {
                work();
            }
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

/// How often a second.
fn rate(what: &str, count: usize, work: impl FnMut()) -> f64 {
    let seconds = best(count, work) / count as f64;
    println!(
        "  {what:40} {:>12.0} /s   {:>8.2} µs each",
        1.0 / seconds,
        seconds * 1e6
    );
    1.0 / seconds
}

/// How many MB a second.
fn amount(what: &str, bytes: usize, work: impl FnMut()) -> f64 {
    let seconds = best(1, work);
    println!(
        "  {what:40} {:>12.0} MB/s {:>8.1} ms",
        bytes as f64 / seconds / 1e6,
        seconds * 1e3
    );
    bytes as f64 / seconds / 1e6
}

//! The machine runs entry points all or nothing.

use std::collections::{BTreeMap, BTreeSet};

use candid::Principal;
use openstorage_localnet::fees::{CostSchedule, Fees};
use openstorage_localnet::machine::{
    Compiler, Context, Entry, Keep, Machine, Module, ModuleError, Outcome, Response, StableMemory,
    Trap, Upgrade,
};

fn compile(wat: &str) -> Module {
    Compiler::new(None)
        .compile(&wat::parse_str(wat).unwrap())
        .unwrap()
}

const FREE: Fees = Fees {
    nodes: 13,
    schedule: CostSchedule::Free,
};

fn with_context<T>(work: impl FnOnce(&Context) -> T) -> T {
    let (controllers, environment, outstanding) =
        (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    work(&Context {
        canister_id: Principal::from_slice(&[1]),
        subnet_id: Principal::from_slice(&[2]),
        caller: Principal::from_slice(&[3]),
        sender_info: None,
        controllers: &controllers,
        environment: &environment,
        root_key: &[],
        time_ns: 5,
        timer_ns: 0,
        canister_version: 1,
        status: 1,
        balance: 1_000,
        keep: Keep::default(),
        fees: &FREE,
        queues_full: false,
        growth_bytes_max: u64::MAX,
        heap_bytes_max: 0,
        cycles_available: 100,
        deadline_ns: 0,
        answered: false,
        certificate: None,
        calls_outstanding: &outstanding,
        instructions_max: 10_000_000,
        instructions_before: 0,
    })
}

fn install(wat: &str) -> Machine {
    let module = compile(wat);
    let (machine, outcome) = with_context(|context| Machine::install(&module, vec![], context));
    assert_eq!(outcome.result, Ok(()));
    machine.unwrap()
}

fn update(machine: &mut Machine, method: &str) -> Outcome {
    with_context(|context| {
        machine.run(
            Entry::Update {
                method: method.into(),
                arg: vec![],
            },
            context,
        )
    })
}

/// Answers one byte of the heap, one of stable memory, and a global.
const COUNTERS: &str = r#"
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_read" (func $read (param i64 i64 i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (import "ic0" "global_timer_set" (func $timer (param i64) (result i64)))
    (import "ic0" "msg_cycles_accept128" (func $accept (param i64 i64 i32)))
    (memory 1)
    (global $count (mut i32) (i32.const 0))
    (func $bump
        (global.set $count (i32.add (global.get $count) (i32.const 1)))
        (i32.store8 (i32.const 0) (global.get $count))
        (call $write (i64.const 7) (i64.const 0) (i64.const 1)))
    (func $answer
        (call $read (i64.const 1) (i64.const 7) (i64.const 1))
        (i32.store8 (i32.const 2) (global.get $count))
        (call $append (i32.const 0) (i32.const 3))
        (call $reply))
    (func (export "canister_init") (drop (call $grow (i64.const 1))))
    (func (export "canister_update bump") (call $bump) (call $answer))
    (func (export "canister_update get") (call $answer))
    (func (export "canister_query bump_query") (call $bump) (call $answer))
    (func (export "canister_update bump_and_trap")
        (call $bump)
        (drop (call $timer (i64.const 9)))
        (call $accept (i64.const 0) (i64.const 50) (i32.const 100))
        (drop (memory.grow (i32.const 3)))
        (i32.store8 (i32.const 70000) (i32.const 9))
        unreachable)
    (func (export "canister_update forever") (call $bump) (loop $again (br $again)))
    (func (export "canister_update out_of_bounds") (call $bump) (call $append (i32.const 65530) (i32.const 100)))
    (func (export "canister_update read_out_of_bounds")
        (call $read (i64.const 0) (i64.const 65530) (i64.const 100)))"#;

fn counters() -> Machine {
    install(&format!("(module {COUNTERS})"))
}

fn reply(outcome: Outcome) -> Vec<u8> {
    assert_eq!(outcome.result, Ok(()));
    match outcome.response {
        Some(Response::Reply(bytes)) => bytes,
        _ => panic!("no reply"),
    }
}

#[test]
fn what_succeeds_stays() {
    let mut machine = counters();
    assert_eq!(reply(update(&mut machine, "bump")), [1, 1, 1]);
    assert_eq!(reply(update(&mut machine, "bump")), [2, 2, 2]);
}

#[test]
fn a_trap_takes_back_heap_stable_memory_and_globals() {
    let mut machine = counters();
    update(&mut machine, "bump");
    let digest = machine.digest();
    for method in [
        "bump_and_trap",
        "forever",
        "out_of_bounds",
        "read_out_of_bounds",
    ] {
        let outcome = update(&mut machine, method);
        assert!(outcome.result.is_err(), "{method}");
        assert!(outcome.usage.instructions > 0);
        assert_eq!(machine.digest(), digest, "{method}");
        assert_eq!(reply(update(&mut machine, "get")), [1, 1, 1], "{method}");
    }
    assert_eq!(machine.heap_bytes(), 65_536);
    let outcome = update(&mut machine, "forever");
    assert_eq!(
        outcome.result,
        Err(Trap::InstructionLimit { max: 10_000_000 })
    );
}

#[test]
fn a_query_leaves_nothing_behind() {
    let mut machine = counters();
    let digest = machine.digest();
    let entry = Entry::Query {
        method: "bump_query".into(),
        arg: vec![],
    };
    let outcome = with_context(|context| machine.run(entry.clone(), context));
    assert_eq!(reply(outcome), [1, 1, 1]);
    assert_eq!(machine.digest(), digest);
    // Nor does the same method as part of a block.
    let entry = Entry::ReplicatedQuery {
        method: "bump_query".into(),
        arg: vec![],
    };
    assert_eq!(
        reply(with_context(|context| machine.run(entry, context))),
        [1, 1, 1]
    );
    assert_eq!(machine.digest(), digest);
    assert_eq!(reply(update(&mut machine, "get")), [0, 0, 0]);
}

#[test]
fn an_upgrade_keeps_stable_memory_or_everything() {
    let mut machine = install(&format!(
        r#"(module {COUNTERS} (func (export "canister_pre_upgrade") (call $bump) (call $bump)))"#
    ));
    update(&mut machine, "bump");
    let before = machine.digest();
    let broken = compile(&format!(
        r#"(module {COUNTERS} (func (export "canister_post_upgrade") (call $bump) unreachable))"#
    ));
    let outcome =
        with_context(|context| machine.upgrade(&broken, vec![], context, Upgrade::default()));
    assert!(outcome.result.is_err());
    assert_eq!(
        machine.digest(),
        before,
        "what pre_upgrade wrote is taken back too"
    );
    assert_eq!(reply(update(&mut machine, "get")), [1, 1, 1]);

    let new = compile(&format!("(module {COUNTERS})"));
    let outcome =
        with_context(|context| machine.upgrade(&new, vec![], context, Upgrade::default()));
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(
        reply(update(&mut machine, "get")),
        [0, 3, 0],
        "heap and globals are new"
    );
}

#[test]
fn a_start_function_runs_once() {
    let wat =
        format!("(module {COUNTERS} (func $s (global.set $count (i32.const 40))) (start $s))");
    let mut machine = install(&wat);
    assert_eq!(reply(update(&mut machine, "bump")), [41, 41, 41]);
    // After growing and trapping the instance is made anew, and does not start again.
    assert!(update(&mut machine, "bump_and_trap").result.is_err());
    assert_eq!(reply(update(&mut machine, "bump")), [42, 42, 42]);
}

#[test]
fn an_import_is_refused_where_it_does_not_belong() {
    let mut machine = install(
        r#"(module
            (import "ic0" "call_new" (func $new (param i32 i32 i32 i32 i32 i32 i32 i32)))
            (import "ic0" "accept_message" (func $accept))
            (import "ic0" "data_certificate_size" (func $certificate (result i32)))
            (memory 1)
            (func (export "canister_query call")
                (call $new (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
            (func (export "canister_update accept") (call $accept))
            (func (export "canister_update certificate") (drop (call $certificate))))"#,
    );
    let contract = |outcome: Outcome| match outcome.result {
        Err(Trap::Contract(text)) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        contract(update(&mut machine, "accept")),
        "\"ic0_accept_message\" cannot be executed in update mode"
    );
    assert!(contract(update(&mut machine, "certificate")).contains("update mode"));
    let query = Entry::Query {
        method: "call".into(),
        arg: vec![],
    };
    let text = contract(with_context(|context| machine.run(query, context)));
    assert!(text.contains("non replicated query mode"), "{text}");
}

#[test]
fn stable_memory_goes_far_beyond_what_is_written() {
    let mut memory = StableMemory::default();
    assert_eq!(memory.grow(8_000_000), Some(0));
    assert_eq!(memory.grow(1_000_000), None, "there are 500 GiB");
    memory.begin();
    memory.write(500_000_000_000, &[1, 2, 3]).unwrap();
    let mut bytes = [9; 5];
    memory.read(499_999_999_999, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 1, 2, 3, 0]);
    memory.roll_back();
    memory.read(499_999_999_999, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 5]);
    assert!(memory.read(u64::MAX, &mut bytes).is_err());
}

#[test]
fn modules_that_are_no_canisters_are_refused_by_name() {
    let compile = |wat: &str| {
        Compiler::new(None)
            .compile(&wat::parse_str(wat).unwrap())
            .err()
            .unwrap()
    };
    let text = compile(r#"(module (import "ic0" "fly" (func)))"#).to_string();
    assert!(text.contains("ic0.fly"), "{text}");
    assert!(matches!(
        compile("(module (memory i64 1))"),
        ModuleError::Memory64
    ));
    let twice =
        r#"(module (func (export "canister_update a")) (func (export "canister_query a")))"#;
    assert!(matches!(compile(twice), ModuleError::ExportedTwice(name) if name == "a"));
    assert!(matches!(
        compile(r#"(module (func (export "canister_fly")))"#),
        ModuleError::UnknownExport(_)
    ));
    // Blocks in blocks, and their ends.
    let nested = |count: usize| {
        let mut body = wasm_encoder::Function::new([]);
        for _ in 0..count {
            body.instructions().block(wasm_encoder::BlockType::Empty);
        }
        for _ in 0..=count {
            body.instructions().end();
        }
        let mut types = wasm_encoder::TypeSection::new();
        types.ty().function([], []);
        let mut functions = wasm_encoder::FunctionSection::new();
        functions.function(0);
        let mut code = wasm_encoder::CodeSection::new();
        code.function(&body);
        let mut module = wasm_encoder::Module::new();
        module.section(&types).section(&functions).section(&code);
        Compiler::new(None).compile(&module.finish())
    };
    assert!(nested(1_000).is_ok());
    assert!(matches!(
        nested(10_001),
        Err(ModuleError::TooMany {
            what: "nested blocks",
            ..
        })
    ));
    assert!(matches!(
        Compiler::new(None).compile(b"junk"),
        Err(ModuleError::Invalid(_))
    ));
    assert!(matches!(
        Compiler::new(None).compile(&[0x1f, 0x8b, 1]),
        Err(ModuleError::Gzip(_))
    ));
}

#[test]
fn the_same_run_costs_the_same_and_ends_the_same() {
    let run = || {
        let mut machine = counters();
        let costs: Vec<u64> = ["bump", "bump_and_trap", "get"]
            .iter()
            .map(|method| update(&mut machine, method).usage.instructions)
            .collect();
        (costs, machine.digest())
    };
    assert_eq!(run(), run());
}

//! What an execution is charged, counted by hand; and what it may use at most.

mod support;

use openstorage_localnet::machine::{
    Compiler, Entry, Machine, ModuleError, Outcome, StableAccess, Trap, Usage,
};
use support::{World, compile, reply};

const IMPORTS: &str = r#"
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
    (import "ic0" "performance_counter" (func $counter (param i32) (result i64)))
    (import "ic0" "debug_print" (func $print (param i32 i32)))
    (import "ic0" "is_controller" (func $is_controller (param i32 i32) (result i32)))
    (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "ic0" "call_perform" (func $call_perform (result i32)))
    (import "ic0" "time" (func $time (result i64)))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (import "ic0" "stable64_read" (func $read (param i64 i64 i64)))
"#;

fn run(rest: &str, body: &str) -> Outcome {
    run_in(&World::default(), rest, body)
}

fn run_in(world: &World, rest: &str, body: &str) -> Outcome {
    let module = compile(
        &Compiler::new(None),
        &format!(
            r#"(module {IMPORTS} (memory 1) {rest}
                (func (export "canister_init") (drop (call $grow (i64.const 100000))))
                (func (export "canister_update go") (local $i i32) {body}))"#
        ),
    );
    let mut machine = world.install(&module, &[]);
    world.update(&mut machine, "go", &[7; 100])
}

#[track_caller]
fn costs(rest: &str, body: &str, instructions: u64) -> Outcome {
    let outcome = run(rest, body);
    assert_eq!(outcome.result, Ok(()), "{body}");
    assert_eq!(outcome.usage.instructions, instructions, "{body}");
    outcome
}

#[test]
fn operators_have_their_weights() {
    // To enter a function costs 1.
    costs("", "", 1);
    costs("", "nop", 1 + 1);
    costs("", "(drop (i32.const 0))", 1 + 1 + 1);
    costs(
        "",
        "(local.set $i (i32.add (i32.const 1) (i32.const 2)))",
        1 + 3 + 1,
    );
    costs(
        "",
        "(drop (i32.div_u (i32.const 1) (i32.const 1)))",
        1 + 2 + 10 + 1,
    );
    costs(
        "",
        "(drop (f64.div (f64.const 1) (f64.const 1)))",
        1 + 2 + 5 + 1,
    );
    costs("", "(drop (f32.sqrt (f32.const 1)))", 1 + 1 + 5 + 1);
    costs(
        "",
        "(drop (f64.lt (f64.const 1) (f64.const 1)))",
        1 + 2 + 3 + 1,
    );
    costs(
        "",
        "(drop (f64.convert_i32_u (i32.const 1)))",
        1 + 1 + 16 + 1,
    );
    costs("", "(drop (i32.trunc_f32_s (f32.const 1)))", 1 + 1 + 20 + 1);
    costs("", "(drop (i32.load (i32.const 0)))", 1 + 1 + 1 + 1);
    costs("", "(block (loop))", 1);
    costs(
        "",
        "(if (i32.const 1) (then nop) (else nop nop))",
        1 + 1 + 2 + 1,
    );
    costs("", "(block (br 0))", 1 + 2);
    costs("", "return", 1 + 1);
    // Ten times: add, two gets, a set, a const; compare, get, const; branch.
    let turn = "(local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if 0 (i32.lt_u (local.get $i) (i32.const 10)))";
    costs("", &format!("(loop {turn})"), 1 + 10 * (4 + 3 + 2));
    costs(
        "(global $g (mut i32) (i32.const 0))",
        "(global.set $g (global.get $g))",
        1 + 2 + 2,
    );
    costs("(func $f)", "(call $f)", 1 + 5 + 1);
    costs(
        "(table 1 funcref) (elem (i32.const 0) $f) (func $f)",
        "(call_indirect (i32.const 0))",
        1 + 1 + 10 + 1,
    );
    costs(
        "",
        "(drop (i8x16.extract_lane_u 0 (i8x16.shl (v128.const i64x2 1 2) (i32.const 1))))",
        1 + 2 + 3 + 1 + 1,
    );
}

#[test]
fn the_heaviest_operators_weigh_what_no_byte_holds() {
    costs("", "(drop (memory.size))", 1 + 20 + 1);
    costs("", "(drop (memory.grow (i32.const 0)))", 1 + 1 + 300 + 1);
    costs("", "(drop (memory.grow (i32.const 1000)))", 1 + 1 + 300 + 1);
    // Each of them, and what stands between.
    costs(
        "",
        "(drop (memory.grow (i32.const 1))) (drop (memory.grow (memory.grow (i32.const 0))))",
        1 + 302 + 1 + 300 + 300 + 1,
    );
    costs("(table 1 funcref)", "(drop (table.size))", 1 + 100 + 1);
    costs(
        "(table 1 funcref)",
        "(drop (table.grow (ref.null func) (i32.const 5)))",
        1 + 1 + 1 + 300 + 1,
    );
    costs("(data $d \"abc\")", "(data.drop $d)", 1 + 300);
    costs(
        "(elem $e func $f) (func $f)",
        "(elem.drop $e) (drop (ref.func $f))",
        1 + 300 + 130 + 1,
    );
}

#[test]
fn bytes_and_dirty_pages_are_charged() {
    costs(
        "",
        "(memory.fill (i32.const 0) (i32.const 0) (i32.const 100))",
        1 + 3 + 100 + 100,
    );
    // Two pages become other than they were.
    let outcome = costs(
        "",
        "(memory.fill (i32.const 4000) (i32.const 1) (i32.const 100))",
        1 + 3 + 100 + 100 + 2 * 1_000,
    );
    assert_eq!(outcome.usage.heap_pages_dirtied, 2);
    costs("", "(i32.store (i32.const 0) (i32.const 1))", 1 + 3 + 1_000);
    // Written, but not changed.
    costs("", "(i32.store (i32.const 0) (i32.const 0))", 1 + 3);
    costs(
        "",
        "(memory.copy (i32.const 0) (i32.const 9) (i32.const 50))",
        1 + 3 + 100 + 50,
    );
}

#[test]
fn imports_cost_a_base_and_so_much_a_byte() {
    costs("", "(drop (call $time))", 1 + 5 + 500 + 1);
    costs(
        "",
        "(call $append (i32.const 0) (i32.const 10)) (call $reply)",
        1 + 2 + 5 + 500 + 50 * 10 + 5 + 500,
    );
    costs(
        "",
        "(call $arg_copy (i32.const 0) (i32.const 0) (i32.const 9))",
        1 + 3 + 5 + 500 + 9 + 1_000,
    );
    costs(
        "",
        "(call $print (i32.const 0) (i32.const 0))",
        1 + 2 + 5 + 100,
    );
    costs(
        "",
        "(call $print (i32.const 0) (i32.const 10))",
        1 + 2 + 5 + 100 + 10 * (2 + 50),
    );
    costs(
        "(data (i32.const 0) \"\\04\")",
        "(drop (call $is_controller (i32.const 0) (i32.const 1)))",
        1 + 2 + 5 + 1_000 + 1 + 1,
    );
    costs(
        "(data (i32.const 0) \"\\01\")",
        "(call $call_new (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 3)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
        (drop (call $call_perform))",
        1 + 8 + 5 + 1_500 + 1 + 3 + 5 + 5_000 + 1,
    );
}

#[test]
fn stable_memory_costs_bytes_and_each_page_once() {
    let write = |offset: u64, size: u64| {
        format!("(call $write (i64.const {offset}) (i64.const 0) (i64.const {size}))")
    };
    let call = 3 + 5 + 20;
    costs("", &write(0, 10), 1 + call + 10 + 1_000);
    let outcome = costs(
        "",
        &format!("{}{}{}", write(0, 10), write(4_000, 200), write(100, 10)),
        1 + 3 * call + 220 + 2 * 1_000,
    );
    assert_eq!(
        outcome.usage,
        Usage {
            instructions: outcome.usage.instructions,
            stable_pages_dirtied: 2,
            stable_pages_accessed: 2,
            stable_bytes_written: 220,
            ..Usage::default()
        }
    );
    let outcome = costs(
        "",
        "(call $read (i64.const 0) (i64.const 8190) (i64.const 4))",
        1 + call + 4,
    );
    assert_eq!(
        (
            outcome.usage.stable_pages_accessed,
            outcome.usage.stable_bytes_read
        ),
        (2, 4)
    );
}

#[test]
fn performance_counters_tell_the_execution_and_its_context() {
    let body = |counter: u32| {
        format!(
            "(i64.store (i32.const 0) (call $counter (i32.const {counter})))
            (call $append (i32.const 0) (i32.const 8)) (call $reply)"
        )
    };
    let world = World {
        instructions_before: 1_000_000,
        ..World::default()
    };
    let number = |outcome: &Outcome| u64::from_le_bytes(reply(outcome).try_into().unwrap());
    // To enter, two consts, the call, the import itself.
    let so_far = 1 + 2 + 5 + 200;
    assert_eq!(number(&run_in(&world, "", &body(0))), so_far);
    assert_eq!(number(&run_in(&world, "", &body(1))), 1_000_000 + so_far);
    let outcome = run_in(&world, "", &body(2));
    assert!(matches!(outcome.result, Err(Trap::Contract(_))));
}

#[test]
fn an_execution_ends_at_its_limit() {
    let world = World {
        instructions_max: 10_000,
        ..World::default()
    };
    let outcome = run_in(&world, "", "(loop (br 0))");
    assert_eq!(outcome.result, Err(Trap::InstructionLimit { max: 10_000 }));
    assert_eq!(outcome.usage.instructions, 10_000);
    // An import that costs more than is left.
    let outcome = run_in(&world, "", "(call $append (i32.const 0) (i32.const 1000))");
    assert_eq!(outcome.result, Err(Trap::InstructionLimit { max: 10_000 }));
    // Dirty pages take what is left, and fail nothing.
    let outcome = run_in(
        &world,
        "",
        "(memory.fill (i32.const 0) (i32.const 1) (i32.const 8000))",
    );
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(
        outcome.usage.instructions,
        1 + 3 + 100 + 8_000 + 1_000 + 896
    );
}

#[test]
fn a_heap_grows_within_its_limits() {
    let grow = "(i32.store (i32.const 0) (memory.grow (i32.const 2)))
        (call $append (i32.const 0) (i32.const 4)) (call $reply)";
    let world = |heap_bytes_max, growth_bytes_max| World {
        heap_bytes_max,
        growth_bytes_max,
        ..World::default()
    };
    let grown = [1, 0, 0, 0];
    assert_eq!(
        reply(&run_in(&world(3 * 65_536, u64::MAX), "", grow)),
        grown
    );
    assert_eq!(
        run_in(&world(3 * 65_536 - 1, u64::MAX), "", grow).result,
        Err(Trap::WasmMemoryLimit {
            bytes: 3 * 65_536,
            max: 3 * 65_536 - 1
        })
    );
    let stable = 100_000 * 65_536;
    assert_eq!(reply(&run_in(&world(0, stable), "", grow)), grown);
    // Too little for it: `memory.grow` answers -1.
    let module = compile(
        &Compiler::new(None),
        &format!(r#"(module {IMPORTS} (memory 1) (func (export "canister_update go") {grow}))"#),
    );
    let world = world(0, 2 * 65_536 - 1);
    let mut machine = world.install(&module, &[]);
    assert_eq!(reply(&world.update(&mut machine, "go", &[])), [255; 4]);
}

#[test]
fn a_query_touches_a_gigabyte_of_stable_memory_at_most() {
    // 16 MiB at a time, at other places each time.
    let module = compile(
        &Compiler::new(None),
        &format!(
            r#"(module {IMPORTS} (memory 256)
                (func (export "canister_init") (drop (call $grow (i64.const 100000))))
                (func $read_all (param $times i32) (local $at i64)
                    (loop
                        (call $read (i64.const 0) (local.get $at) (i64.const 16777216))
                        (local.set $at (i64.add (local.get $at) (i64.const 16777216)))
                        (br_if 0 (local.tee $times (i32.sub (local.get $times) (i32.const 1))))))
                (func (export "canister_query all") (call $read_all (i32.const 64)) (call $reply))
                (func (export "canister_query more") (call $read_all (i32.const 65)) (call $reply)))"#
        ),
    );
    let world = World::default();
    let mut machine = world.install(&module, &[]);
    let mut query = |method: &str| {
        let entry = Entry::Query {
            method: method.into(),
            arg: vec![],
        };
        machine.run(entry, &world.context())
    };
    let outcome = query("all");
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(outcome.usage.stable_pages_accessed, 262_144);
    assert_eq!(
        query("more").result,
        Err(Trap::StableAccessLimit {
            access: StableAccess::Read,
            pages_max: 262_144
        })
    );
}

/// What is looked at before anything is written: so neither memory takes what the test asks for.
#[test]
fn an_update_writes_and_touches_two_gigabytes_of_stable_memory_at_most() {
    const PAGES: u64 = 2 << 18;
    let module = compile(
        &Compiler::new(None),
        &format!(
            r#"(module {IMPORTS} (memory 32769)
                (func (export "canister_init") (drop (call $grow (i64.const 100000))))
                (func $touch (param $pages i32) (local $at i64)
                    (loop
                        (call $read (i64.const 0) (local.get $at) (i64.const 1))
                        (local.set $at (i64.add (local.get $at) (i64.const 4096)))
                        (br_if 0 (local.tee $pages (i32.sub (local.get $pages) (i32.const 1))))))
                (func (export "canister_update write")
                    (call $write (i64.const 0) (i64.const 0) (i64.const 2147483649)))
                (func (export "canister_update write_more")
                    (call $write (i64.const 4096) (i64.const 0) (i64.const 1))
                    (call $write (i64.const 8192) (i64.const 0) (i64.const 2147483648)))
                (func (export "canister_update touch") (call $touch (i32.const {PAGES})) (call $reply))
                (func (export "canister_update touch_more")
                    (call $touch (i32.const {PAGES}))
                    (call $write (i64.const 4294967296) (i64.const 0) (i64.const 1))))"#
        ),
    );
    let world = World::default();
    let mut machine = world.install(&module, &[]);
    let mut update = |method: &str| world.update(&mut machine, method, &[]);
    let limit = |access| {
        Err(Trap::StableAccessLimit {
            access,
            pages_max: PAGES,
        })
    };
    assert_eq!(update("write").result, limit(StableAccess::Written));
    assert_eq!(update("write_more").result, limit(StableAccess::Written));
    let touched = update("touch");
    assert_eq!(touched.result, Ok(()));
    assert_eq!(touched.usage.stable_pages_accessed, PAGES);
    assert_eq!(update("touch_more").result, limit(StableAccess::Read));
    assert_eq!(machine.stable().bytes_written(), 0);
}

#[test]
fn modules_beyond_the_specification_are_refused() {
    let compile = |wat: String| {
        Compiler::new(None)
            .compile(&wat::parse_str(wat).unwrap())
            .err()
    };
    let too_many = |wat: String, what: &str| match compile(wat) {
        Some(ModuleError::TooMany { what: found, .. }) => assert_eq!(found, what),
        other => panic!("{what}: {other:?}"),
    };
    too_many(format!("(module {})", "(func)".repeat(50_001)), "functions");
    too_many(
        format!("(module {})", "(global i32 (i32.const 0))".repeat(1_001)),
        "globals",
    );
    let methods = |count: usize, name: usize| {
        let exports: String = (0..count)
            .map(|index| format!(r#"(export "canister_query {index:0name$}" (func $f))"#))
            .collect();
        format!("(module (func $f) {exports})")
    };
    too_many(methods(1_001, 4), "methods");
    too_many(methods(201, 100), "bytes of method names");
    assert!(compile(methods(1_000, 4)).is_none());
    let sections = |names: &[&str], size: usize| {
        let sections: String = names
            .iter()
            .map(|name| format!(r#"(@custom "{name}" "{}")"#, "x".repeat(size)))
            .collect();
        format!("(module {sections})")
    };
    let names: Vec<_> = (0..17).map(|index| format!("icp:public {index}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    too_many(sections(&names, 1), "metadata sections");
    assert!(compile(sections(&names[..16], 1)).is_none());
    too_many(sections(&["icp:private a"], 1 << 20), "bytes of metadata");
    assert!(matches!(
        compile(sections(&["icp:public a", "icp:private a"], 1)),
        Some(ModuleError::MetadataTwice(name)) if name == "a"
    ));
    assert!(matches!(
        compile(sections(&["icp:secret a"], 1)),
        Some(ModuleError::UnknownSection(_))
    ));
    assert!(matches!(
        compile(r#"(module (func (export "canister_init") (param i32)))"#.into()),
        Some(ModuleError::EntryPointType(_))
    ));
    assert!(matches!(
        compile(r#"(module (import "ic0" "memory" (memory 1)))"#.into()),
        Some(ModuleError::UnknownImport { .. })
    ));
}

#[test]
fn the_same_work_costs_the_same_again() {
    let module = compile(
        &Compiler::new(None),
        &format!(
            r#"(module {IMPORTS} (memory 4)
                (func (export "canister_update go") (local $i i32)
                    (loop
                        (i32.store (local.get $i) (i32.add (i32.load (local.get $i)) (i32.const 1)))
                        (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 512)))
                            (i32.const 200000))))))"#
        ),
    );
    let world = World::default();
    let run = || -> Vec<Usage> {
        let mut machine: Machine = world.install(&module, &[]);
        (0..5)
            .map(|_| world.update(&mut machine, "go", &[]).usage)
            .collect()
    };
    let first = run();
    assert_eq!(first, run());
    assert!(first.windows(2).all(|pair| pair[0] == pair[1]));
}

//! Whatever an execution did, a trap at any point takes it back; and both kinds of heap do the same.

mod support;

use openstorage_localnet::machine::{
    Closure, Compiler, Entry, HeapKind, Machine, Response, Scratch, Trap, Upgrade, Usage,
};
use openstorage_universal::{Call, Op, Program, WASM};
use support::{World, compile, in_full, reply};

const BOTH: [HeapKind; 2] = [HeapKind::Mapped, HeapKind::Copied];

fn universal(heaps: HeapKind, world: &World) -> Machine {
    let module = Compiler::with_heaps(None, heaps).compile(WASM).unwrap();
    world.install(&module, Program::new().stable_grow(10).bytes())
}

/// Touches everything that can be undone.
fn busy() -> Program {
    Program::new()
        .global_append(b"heap")
        .stable_write(60_000, [7; 9_000])
        .stable_grow(1)
        .heap_touch(20)
        .set_timer(77)
        .accept_cycles(50)
        .amount(3)
        .op(Op::Burn)
        .op(Op::Drop)
        .push(b"certified")
        .op(Op::CertifiedDataSet)
        .call(Call::new([9], "update").cycles(5))
        .heap_grow(3)
        .heap_touch(80)
        .stable_write(5, b"end")
        .reply(b"done")
}

#[test]
fn a_trap_at_any_instruction_changes_nothing() {
    let world = World::default();
    let mut machine = universal(HeapKind::Mapped, &world);
    reply(&world.update(&mut machine, "update", busy().bytes()));
    let before = machine.digest();
    let whole = {
        let mut machine = universal(HeapKind::Mapped, &world);
        reply(&world.update(&mut machine, "update", busy().bytes()));
        world.update(&mut machine, "update", busy().bytes()).usage
    };
    // The dirty pages of the heap are charged at the end, when nothing can fail any more.
    let work = whole.instructions - whole.heap_pages_dirtied * 1_000;
    let step = if in_full() { 1 } else { work / 200 };
    // The engine looks at what is left where code loops, calls or enters; the last stretch is free.
    let last = work - 100;
    for at in (0..last).step_by(step as usize) {
        let world = World {
            instructions_max: at,
            ..World::default()
        };
        let outcome = world.update(&mut machine, "update", busy().bytes());
        assert_eq!(outcome.result, Err(Trap::InstructionLimit { max: at }));
        assert!(machine.digest() == before, "trapped at instruction {at}");
    }
    let outcome = world.update(&mut machine, "update", busy().bytes());
    assert_eq!(reply(&outcome), b"done");
    assert_eq!(
        outcome.usage, whole,
        "traps before it do not change what it costs"
    );
}

#[test]
fn an_upgrade_that_fails_at_any_instruction_changes_nothing() {
    let world = World::default();
    let module = Compiler::new(None).compile(WASM).unwrap();
    let mut machine = world.install(&module, Program::new().stable_grow(10).bytes());
    let prepare = Program::new()
        .on_pre_upgrade(Program::new().stable_write(0, b"saved").heap_touch(10))
        .global_set(b"kept")
        .reply(b"");
    reply(&world.update(&mut machine, "update", prepare.bytes()));
    let before = machine.digest();
    let init = Program::new().stable_write(100, [1; 10_000]).heap_touch(5);
    let steps = if in_full() { 2_000 } else { 40 };
    let mut failed = 0;
    for step in 0..steps {
        let world = World {
            instructions_max: step * 60_000 / steps,
            ..World::default()
        };
        let arg = init.bytes().to_vec();
        let outcome = machine.upgrade(&module, arg, &world.context(), Upgrade::default());
        if outcome.result.is_ok() {
            break;
        }
        failed += 1;
        assert!(machine.digest() == before);
    }
    assert!(failed > steps / 4);
    let get = Program::new().reply_global();
    assert_eq!(
        reply(&world.update(&mut machine, "update", get.bytes())).len() % 4,
        0
    );
}

#[test]
fn both_kinds_of_heap_end_the_same_and_cost_the_same() {
    let run = |heaps| -> (Vec<Usage>, [u8; 32]) {
        let world = World::default();
        let mut machine = universal(heaps, &world);
        let mut usages = vec![];
        for round in 0..20u64 {
            // Every third message traps at its end, every fourth is a query.
            let program = busy().heap_touch(round * 30);
            let program = if round % 3 == 2 {
                program.op(Op::Unreachable)
            } else {
                program
            };
            let arg = program.bytes().to_vec();
            let entry = if round % 4 == 3 {
                let method = "query".into();
                let arg = Program::new()
                    .heap_touch(round * 10)
                    .heap_grow(round)
                    .reply(b"");
                Entry::Query {
                    method,
                    arg: arg.bytes().to_vec(),
                }
            } else {
                Entry::Update {
                    method: "update".into(),
                    arg,
                }
            };
            usages.push(machine.run(entry, &world.context()).usage);
        }
        (usages, machine.digest())
    };
    assert_eq!(run(HeapKind::Mapped), run(HeapKind::Copied));
}

#[test]
fn a_heap_that_has_grown_shrinks_again() {
    for heaps in BOTH {
        let world = World::default();
        let mut machine = universal(heaps, &world);
        let (bytes, digest) = (machine.heap_bytes(), machine.digest());
        let program = Program::new()
            .heap_grow(1_000)
            .heap_touch(3_000)
            .op(Op::Unreachable);
        let outcome = world.update(&mut machine, "update", program.bytes());
        assert_eq!(outcome.result, Err(Trap::Wasm("unreachable".into())));
        assert_eq!((machine.heap_bytes(), machine.digest()), (bytes, digest));
        // What lay beyond the end is zero again when the heap grows there once more.
        let sum = Program::new()
            .heap_grow(1_000)
            .op(Op::HeapSize)
            .append()
            .answer();
        let outcome = world.update(&mut machine, "update", sum.bytes());
        let size = u64::from_le_bytes(reply(&outcome).try_into().unwrap());
        assert_eq!(size, bytes / 65_536 + 1_000);
        assert!(outcome.usage.heap_pages_dirtied < 20);
    }
}

#[test]
fn tables_and_segments_are_the_modules_in_each_message() {
    for heaps in BOTH {
        let compiler = Compiler::with_heaps(None, heaps);
        let module = compile(
            &compiler,
            r#"(module
                (import "ic0" "msg_reply" (func $reply))
                (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
                (type $number (func (result i32)))
                (memory 1) (data $passive "xyz")
                (global $count (mut i32) (i32.const 0))
                (table 2 funcref) (elem (i32.const 0) $one $two)
                (func $one (result i32) (i32.const 1)) (func $two (result i32) (i32.const 2))
                (func (export "canister_update go")
                    (global.set $count (i32.add (global.get $count) (i32.const 1)))
                    (i32.store8 (i32.const 0) (call_indirect (type $number) (i32.const 0)))
                    (i32.store8 (i32.const 1) (global.get $count))
                    (memory.init $passive (i32.const 2) (i32.const 0) (i32.const 3))
                    (table.set (i32.const 0) (table.get (i32.const 1)))
                    (data.drop $passive)
                    (call $append (i32.const 0) (i32.const 5)) (call $reply)))"#,
        );
        let world = World::default();
        let mut machine = world.install(&module, &[]);
        for count in 1..4 {
            let outcome = world.update(&mut machine, "go", &[]);
            assert_eq!(reply(&outcome), [1, count, b'x', b'y', b'z']);
        }
    }
}

#[test]
fn a_composite_query_goes_on_where_it_was_and_leaves_nothing() {
    for heaps in BOTH {
        let world = World::default();
        let mut machine = universal(heaps, &world);
        let digest = machine.digest();
        let composite = |text: &str| Entry::CompositeQuery {
            method: "composite_query".into(),
            arg: Program::new()
                .global_append(text)
                .stable_write(0, text)
                .heap_grow(2)
                .heap_touch(100)
                .call(
                    Call::new([9], "query").on_reply(
                        Program::new()
                            .op(Op::GlobalGet)
                            .stable_read(0, 1)
                            .op(Op::Concat)
                            .append()
                            .answer(),
                    ),
                )
                .bytes()
                .to_vec(),
        };
        let (mut one, mut other) = (Scratch::default(), Scratch::default());
        let first = machine.run_composite(&mut one, composite("a"), &world.context());
        assert_eq!(machine.digest(), digest);
        let second = machine.run_composite(&mut other, composite("b"), &world.context());
        assert_eq!(machine.digest(), digest);
        assert_eq!((first.calls.len(), second.calls.len()), (1, 1));
        let mut answer = |scratch: &mut Scratch, closure: Closure| {
            let entry = Entry::CompositeCallback {
                closure,
                response: Response::Reply(vec![]),
            };
            machine.run_composite(scratch, entry, &world.context())
        };
        let outcome = answer(&mut one, first.calls[0].on_reply);
        assert_eq!(reply(&outcome), b"aa");
        let outcome = answer(&mut other, second.calls[0].on_reply);
        assert_eq!(reply(&outcome), b"bb");
        assert_eq!(machine.digest(), digest);
    }
}

//! Every import of the System API, in every context: allowed exactly where the interface specification
//! says so.

mod support;

use openstorage_localnet::machine::{
    Closure, Compiler, Entry, Machine, Module, Outcome, Response, Scratch, Trap, Upgrade,
};
use support::{World, compile};

/// Name, type, contexts: the specification's "Overview of imports". `*` is everywhere but in the start
/// function, which is `s`. (`TQ`, transforming an HTTP answer, does not exist here.)
const IMPORTS: &str = "
msg_arg_data_size               -> i32                  : I U RQ NRQ CQ Ry CRy F
msg_arg_data_copy               i32 i32 i32 ->          : I U RQ NRQ CQ Ry CRy F
msg_caller_size                 -> i32                  : *
msg_caller_copy                 i32 i32 i32 ->          : *
msg_caller_info_data_size       -> i32                  : U RQ NRQ CQ Ry Rt CRy CRt C CC F
msg_caller_info_data_copy       i32 i32 i32 ->          : U RQ NRQ CQ Ry Rt CRy CRt C CC F
msg_caller_info_signer_size     -> i32                  : U RQ NRQ CQ Ry Rt CRy CRt C CC F
msg_caller_info_signer_copy     i32 i32 i32 ->          : U RQ NRQ CQ Ry Rt CRy CRt C CC F
msg_reject_code                 -> i32                  : Ry Rt CRy CRt C
msg_reject_msg_size             -> i32                  : Rt CRt
msg_reject_msg_copy             i32 i32 i32 ->          : Rt CRt
msg_deadline                    -> i64                  : U RQ NRQ CQ Ry Rt CRy CRt
msg_reply_data_append           i32 i32 ->              : U RQ NRQ CQ Ry Rt CRy CRt
msg_reply                       ->                      : U RQ NRQ CQ Ry Rt CRy CRt
msg_reject                      i32 i32 ->              : U RQ NRQ CQ Ry Rt CRy CRt
msg_cycles_available128         i32 ->                  : U RQ Rt Ry
msg_cycles_refunded128          i32 ->                  : Rt Ry
msg_cycles_accept128            i64 i64 i32 ->          : U RQ Rt Ry
cycles_burn128                  i64 i64 i32 ->          : I G U RQ Ry Rt C T
canister_self_size              -> i32                  : *
canister_self_copy              i32 i32 i32 ->          : *
canister_cycle_balance128       i32 ->                  : *
canister_liquid_cycle_balance128 i32 ->                 : *
canister_status                 -> i32                  : *
canister_version                -> i64                  : *
subnet_self_size                -> i32                  : *
subnet_self_copy                i32 i32 i32 ->          : *
subnet_self_node_count          -> i32                  : *
msg_method_name_size            -> i32                  : F
msg_method_name_copy            i32 i32 i32 ->          : F
accept_message                  ->                      : F
call_new            i32 i32 i32 i32 i32 i32 i32 i32 ->  : U CQ Ry Rt CRy CRt T
call_on_cleanup                 i32 i32 ->              : U CQ Ry Rt CRy CRt T
call_data_append                i32 i32 ->              : U CQ Ry Rt CRy CRt T
call_with_best_effort_response  i32 ->                  : U CQ Ry Rt CRy CRt T
call_cycles_add128              i64 i64 ->              : U Ry Rt T
call_perform                    -> i32                  : U CQ Ry Rt CRy CRt T
stable64_size                   -> i64                  : * s
stable64_grow                   i64 -> i64              : * s
stable64_write                  i64 i64 i64 ->          : * s
stable64_read                   i64 i64 i64 ->          : * s
root_key_size                   -> i32                  : I G U RQ Ry Rt C T
root_key_copy                   i32 i32 i32 ->          : I G U RQ Ry Rt C T
certified_data_set              i32 i32 ->              : I G U Ry Rt T
data_certificate_present        -> i32                  : *
data_certificate_size           -> i32                  : NRQ CQ
data_certificate_copy           i32 i32 i32 ->          : NRQ CQ
time                            -> i64                  : *
global_timer_set                i64 -> i64              : I G U Ry Rt C T
performance_counter             i32 -> i64              : * s
is_controller                   i32 i32 -> i32          : * s
in_replicated_execution         -> i32                  : * s
cost_call                       i64 i64 i32 ->          : * s
cost_create_canister            i32 ->                  : * s
cost_http_request               i64 i64 i32 ->          : * s
cost_http_request_v2            i32 i32 i32 ->          : * s
cost_sign_with_ecdsa            i32 i32 i32 i32 -> i32  : * s
cost_sign_with_schnorr          i32 i32 i32 i32 -> i32  : * s
cost_vetkd_derive_key           i32 i32 i32 i32 -> i32  : * s
env_var_count                   -> i32                  : *
env_var_name_size               i32 -> i32              : *
env_var_name_copy               i32 i32 i32 i32 ->      : *
env_var_name_exists             i32 i32 -> i32          : *
env_var_value_size              i32 i32 -> i32          : *
env_var_value_copy              i32 i32 i32 i32 i32 ->  : *
debug_print                     i32 i32 ->              : * s
trap                            i32 i32 ->              : * s
msg_cycles_available            -> i64                  : U RQ Rt Ry
msg_cycles_refunded             -> i64                  : Rt Ry
msg_cycles_accept               i64 -> i64              : U RQ Rt Ry
canister_cycle_balance          -> i64                  : *
call_cycles_add                 i64 ->                  : U Ry Rt T
stable_size                     -> i32                  : * s
stable_grow                     i32 -> i32              : * s
stable_write                    i32 i32 i32 ->          : * s
stable_read                     i32 i32 i32 ->          : * s
";

const CONTEXTS: [&str; 18] = [
    "I",
    "I upgrade",
    "G",
    "U",
    "RQ",
    "NRQ",
    "CQ",
    "Ry",
    "Rt",
    "CRy",
    "CRt",
    "C",
    "CC",
    "s",
    "F",
    "T heartbeat",
    "T timer",
    "T low memory",
];

struct Import<'a> {
    name: &'a str,
    parameters: Vec<&'a str>,
    result: &'a str,
    contexts: Vec<&'a str>,
}

impl<'a> Import<'a> {
    fn parse(line: &'a str) -> Self {
        let (signature, contexts) = line.split_once(':').unwrap();
        let (left, result) = signature.split_once("->").unwrap();
        let mut words = left.split_whitespace();
        Self {
            name: words.next().unwrap(),
            parameters: words.collect(),
            result: result.trim(),
            contexts: contexts.split_whitespace().collect(),
        }
    }

    fn allowed_in(&self, context: &str) -> bool {
        let context = context.split(' ').next().unwrap();
        self.contexts.contains(&context) || (context != "s" && self.contexts.contains(&"*"))
    }

    /// A module that calls the import with zeros, wherever `rest` says.
    fn module(&self, compiler: &Compiler, rest: &str) -> Module {
        let parameters = self.parameters.join(" ");
        let zeros: String = self
            .parameters
            .iter()
            .map(|ty| format!("({ty}.const 0) "))
            .collect();
        let (result, drop) = match self.result {
            "" => (String::new(), ""),
            ty => (format!("(result {ty})"), "drop"),
        };
        compile(
            compiler,
            &format!(
                r#"(module
                    (import "ic0" "{}" (func $import (param {parameters}) {result}))
                    (memory 1) (table 1 funcref) (elem (i32.const 0) $callback)
                    (func $go (call $import {zeros}) {drop})
                    (func $callback (param i32) (call $go))
                    {rest})"#,
                self.name
            ),
        )
    }
}

/// What calling the import in that context comes to.
fn outcome(import: &Import, compiler: &Compiler, world: &World, context: &str) -> Outcome {
    let method = "go".to_string();
    let arg = vec![];
    let closure = Closure { fun: 0, env: 0 };
    let rejected = Response::Reject {
        code: 4,
        message: "no".into(),
    };
    let replied = Response::Reply(vec![]);
    let exported =
        |name: &str| import.module(compiler, &format!(r#"(export "{name}" (func $go))"#));
    let run = |export: &str, entry: Entry| {
        world
            .install(&exported(export), &[])
            .run(entry, &world.context())
    };
    let run_composite = |export: &str, entry: Entry| {
        world.install(&exported(export), &[]).run_composite(
            &mut Scratch::default(),
            entry,
            &world.context(),
        )
    };
    let reject_code = 4;
    match context {
        "I" => Machine::install(&exported("canister_init"), arg, &world.context()).1,
        "I upgrade" => {
            let module = exported("canister_post_upgrade");
            world
                .install(&module, &[])
                .upgrade(&module, arg, &world.context(), Upgrade::default())
        }
        "G" => {
            let module = exported("canister_pre_upgrade");
            world
                .install(&module, &[])
                .upgrade(&module, arg, &world.context(), Upgrade::default())
        }
        "s" => {
            Machine::install(
                &import.module(compiler, "(start $go)"),
                arg,
                &world.context(),
            )
            .1
        }
        "U" => run("canister_update go", Entry::Update { method, arg }),
        "RQ" => run("canister_query go", Entry::ReplicatedQuery { method, arg }),
        "NRQ" => run("canister_query go", Entry::Query { method, arg }),
        "CQ" => run_composite(
            "canister_composite_query go",
            Entry::CompositeQuery { method, arg },
        ),
        "F" => run("canister_inspect_message", Entry::Inspect { method, arg }),
        "T heartbeat" => run("canister_heartbeat", Entry::Heartbeat),
        "T timer" => run("canister_global_timer", Entry::Timer),
        "T low memory" => run("canister_on_low_wasm_memory", Entry::LowWasmMemory),
        "Ry" | "Rt" => run(
            "callback",
            Entry::Callback {
                closure,
                response: if context == "Ry" { replied } else { rejected },
                cycles_refunded: 0,
            },
        ),
        "CRy" | "CRt" => run_composite(
            "callback",
            Entry::CompositeCallback {
                closure,
                response: if context == "CRy" { replied } else { rejected },
            },
        ),
        "C" => run(
            "callback",
            Entry::Cleanup {
                closure,
                reject_code,
            },
        ),
        _ => run_composite(
            "callback",
            Entry::CompositeCleanup {
                closure,
                reject_code,
            },
        ),
    }
}

#[test]
fn imports_run_exactly_where_the_specification_allows_them() {
    let compiler = Compiler::new(None);
    let world = World::default();
    let mut wrong = vec![];
    let mut seen = 0;
    for line in IMPORTS.trim().lines() {
        let import = Import::parse(line);
        for context in CONTEXTS {
            let outcome = outcome(&import, &compiler, &world, context);
            let refused = matches!(
                &outcome.result,
                Err(Trap::Contract(text)) if text.contains("cannot be executed in")
            );
            if refused == import.allowed_in(context) {
                wrong.push(format!(
                    "{} in {context}: {:?}",
                    import.name, outcome.result
                ));
            }
            seen += 1;
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {seen}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(seen, 76 * 18);
}

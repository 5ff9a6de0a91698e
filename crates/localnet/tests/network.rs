//! Canisters that call each other: cycles, traps, clean-up, deadlines, stops, upgrades, chunks, timers.

use candid::{CandidType, Encode, Nat, Principal};
use ic_management_canister_types::{
    CanisterIdRecord, CanisterInstallMode, CanisterStatusResult, CanisterStatusType, ChunkHash,
    InstallChunkedCodeArgs, InstallCodeArgs, ProvisionalCreateCanisterWithCyclesArgs,
    UploadChunkArgs,
};
use openstorage_localnet::{
    fees::{CostSchedule, Fees},
    network::{Config, Ingress, Network, Reject, SubnetKind},
};
use pocket_ic::{ErrorCode, RejectCode};
use sha2::{Digest, Sha256};

/// Methods of the test canister; every one answers its counter's byte unless said otherwise.
/// `call` takes callee (10 bytes), flags (1: trap in the callback, 2: wait 10 s at most), cycles (u32),
/// length of the method's name, method, argument; it answers `R` and the reply and the cycles that came
/// back (u32), or `E`, the reject code and its message.
const WAT: &str = r#"(module
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reject" (func $reject (param i32 i32)))
  (import "ic0" "msg_reject_code" (func $reject_code (result i32)))
  (import "ic0" "msg_reject_msg_size" (func $reject_size (result i32)))
  (import "ic0" "msg_reject_msg_copy" (func $reject_copy (param i32 i32 i32)))
  (import "ic0" "msg_cycles_accept128" (func $accept (param i64 i64 i32)))
  (import "ic0" "msg_cycles_refunded128" (func $refunded (param i32)))
  (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ic0" "call_on_cleanup" (func $call_on_cleanup (param i32 i32)))
  (import "ic0" "call_data_append" (func $call_data (param i32 i32)))
  (import "ic0" "call_cycles_add128" (func $call_cycles (param i64 i64)))
  (import "ic0" "call_with_best_effort_response" (func $call_bounded (param i32)))
  (import "ic0" "call_perform" (func $call_perform (result i32)))
  (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
  (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
  (import "ic0" "stable64_read" (func $stable_read (param i64 i64 i64)))
  (import "ic0" "global_timer_set" (func $timer_set (param i64) (result i64)))
  (import "ic0" "trap" (func $trap (param i32 i32)))
  (memory 2)
  (table funcref (elem $on_reply $on_reject $on_cleanup))
  (data (i32.const 100) "R") (data (i32.const 101) "E") (data (i32.const 110) "as asked")
  (func $load (call $arg_copy (i32.const 1000) (i32.const 0) (call $arg_size)))
  (func $bump (i32.store8 (i32.const 0) (i32.add (i32.load8_u (i32.const 0)) (i32.const 1))))
  (func $answer (call $append (i32.const 0) (i32.const 1)) (call $reply))
  (func $on_reply (param $flags i32)
    (if (i32.and (local.get $flags) (i32.const 1))
      (then (i32.store8 (i32.const 0) (i32.const 99)) (call $trap (i32.const 110) (i32.const 8))))
    (call $load)
    (call $append (i32.const 100) (i32.const 1))
    (call $append (i32.const 1000) (call $arg_size))
    (call $refunded (i32.const 200))
    (call $append (i32.const 200) (i32.const 4))
    (call $reply))
  (func $on_reject (param i32)
    (i32.store8 (i32.const 102) (call $reject_code))
    (call $reject_copy (i32.const 1000) (i32.const 0) (call $reject_size))
    (call $append (i32.const 101) (i32.const 2))
    (call $append (i32.const 1000) (call $reject_size))
    (call $reply))
  (func $on_cleanup (param i32) (call $bump))
  (func (export "canister_update call") (local $name i32)
    (call $load)
    (local.set $name (i32.load8_u (i32.const 1015)))
    (call $call_new (i32.const 1000) (i32.const 10) (i32.const 1016) (local.get $name)
      (i32.const 0) (i32.load8_u (i32.const 1010)) (i32.const 1) (i32.const 0))
    (call $call_on_cleanup (i32.const 2) (i32.const 0))
    (call $call_data (i32.add (i32.const 1016) (local.get $name))
      (i32.sub (i32.sub (call $arg_size) (i32.const 16)) (local.get $name)))
    (if (i32.load (i32.const 1011)) (then (call $call_cycles (i64.const 0) (i64.load32_u (i32.const 1011)))))
    (if (i32.and (i32.load8_u (i32.const 1010)) (i32.const 2)) (then (call $call_bounded (i32.const 10))))
    (drop (call $call_perform)))
  (func (export "canister_query count") (call $answer))
  (func (export "canister_update bump") (call $bump) (call $answer))
  (func (export "canister_update accept")
    (call $load) (call $accept (i64.const 0) (i64.load32_u (i32.const 1000)) (i32.const 200)) (call $answer))
  (func (export "canister_update say_no") (call $reject (i32.const 110) (i32.const 8)))
  (func (export "canister_update silent"))
  (func (export "canister_update die") (call $bump) (call $trap (i32.const 110) (i32.const 8)))
  (func (export "canister_update keep")
    (drop (call $grow (i64.const 1))) (call $load)
    (call $stable_write (i64.const 0) (i64.const 1000) (i64.const 1)) (call $answer))
  (func (export "canister_query kept")
    (call $stable_read (i64.const 300) (i64.const 0) (i64.const 1)) (call $append (i32.const 300) (i32.const 1)) (call $reply))
  (func (export "canister_update at")
    (call $load) (drop (call $timer_set (i64.load (i32.const 1000)))) (call $answer))
  (func (export "canister_global_timer") (call $bump)))"#;

const OWNER: Principal = Principal::from_slice(&[7]);
/// So that what is attached and accepted shows to the cycle.
const FREE: Fees = Fees {
    nodes: 13,
    schedule: CostSchedule::Free,
};
const CYCLES: u128 = 1_000_000_000;

fn wasm() -> Vec<u8> {
    wat::parse_str(WAT).unwrap()
}

struct Bench(Network);

impl Bench {
    fn new() -> Self {
        Self(Network::new(Config {
            subnets: vec![SubnetKind::Application, SubnetKind::Application],
            fees: vec![FREE, FREE],
            seed: 1,
            ..Config::default()
        }))
    }

    fn call_as(
        &mut self,
        sender: Principal,
        canister: Principal,
        method: &str,
        arg: Vec<u8>,
        effective: Option<Principal>,
    ) -> Result<Vec<u8>, Reject> {
        let ingress = Ingress {
            sender,
            canister,
            method: method.into(),
            arg,
            effective,
        };
        let id = self.0.submit(ingress)?;
        self.0.await_ingress(&id).expect("it is answered")
    }

    fn call(&mut self, canister: Principal, method: &str, arg: &[u8]) -> Result<Vec<u8>, Reject> {
        self.call_as(OWNER, canister, method, arg.to_vec(), None)
    }

    fn manage(&mut self, method: &str, arg: &impl CandidType) -> Result<Vec<u8>, Reject> {
        self.call_as(
            OWNER,
            Principal::management_canister(),
            method,
            Encode!(arg).unwrap(),
            None,
        )
    }

    fn count(&mut self, canister: Principal) -> u8 {
        self.0.query(OWNER, canister, "count", vec![]).unwrap()[0]
    }

    /// An empty canister on the subnet of that number.
    fn create(&mut self, subnet: usize) -> Principal {
        let arg = ProvisionalCreateCanisterWithCyclesArgs {
            amount: Some(Nat::from(CYCLES)),
            ..Default::default()
        };
        let effective = Some(self.0.subnets()[subnet].id);
        let method = "provisional_create_canister_with_cycles";
        let management = Principal::management_canister();
        let reply = self
            .call_as(OWNER, management, method, Encode!(&arg).unwrap(), effective)
            .unwrap();
        candid::decode_one::<CanisterIdRecord>(&reply)
            .unwrap()
            .canister_id
    }

    fn install(
        &mut self,
        id: Principal,
        mode: CanisterInstallMode,
        wasm_module: Vec<u8>,
    ) -> Result<(), Reject> {
        let args = InstallCodeArgs {
            mode,
            canister_id: id,
            wasm_module,
            arg: vec![],
            sender_canister_version: None,
        };
        self.manage("install_code", &args).map(drop)
    }

    fn canister(&mut self, subnet: usize) -> Principal {
        let id = self.create(subnet);
        self.install(id, CanisterInstallMode::Install, wasm())
            .unwrap();
        id
    }

    fn status(&mut self, id: Principal) -> CanisterStatusResult {
        let reply = self
            .manage("canister_status", &CanisterIdRecord { canister_id: id })
            .unwrap();
        candid::decode_one(&reply).unwrap()
    }
}

fn forward(callee: Principal, flags: u8, cycles: u32, method: &str, arg: &[u8]) -> Vec<u8> {
    let length = [method.len() as u8];
    [
        callee.as_slice(),
        &[flags],
        &cycles.to_le_bytes(),
        &length,
        method.as_bytes(),
        arg,
    ]
    .concat()
}

#[test]
fn cycles_are_attached_accepted_and_refunded_on_one_subnet_and_across() {
    for subnet in [0, 1] {
        let mut bench = Bench::new();
        let (caller, callee) = (bench.canister(0), bench.canister(subnet));
        let reply = bench
            .call(
                caller,
                "call",
                &forward(callee, 0, 500, "accept", &200u32.to_le_bytes()),
            )
            .unwrap();
        assert_eq!(reply, [&b"R\0"[..], &300u32.to_le_bytes()].concat());
        assert_eq!(bench.0.cycles(&caller), Some(CYCLES - 200));
        assert_eq!(bench.0.cycles(&callee), Some(CYCLES + 200));
    }
}

#[test]
fn a_trap_leaves_nothing_and_gives_the_cycles_back() {
    let mut bench = Bench::new();
    let (caller, callee) = (bench.canister(0), bench.canister(0));
    let reject = bench.call(callee, "die", &[]).unwrap_err();
    assert_eq!(
        (reject.code, reject.error_code),
        (RejectCode::CanisterError, ErrorCode::CanisterCalledTrap)
    );
    assert!(reject.message.contains("as asked"), "{}", reject.message);
    let reply = bench
        .call(caller, "call", &forward(callee, 0, 500, "die", &[]))
        .unwrap();
    assert_eq!(reply[..2], [b'E', 5]);
    assert_eq!(
        (bench.count(callee), bench.0.cycles(&caller)),
        (0, Some(CYCLES))
    );
}

#[test]
fn what_cannot_answer_is_answered_for() {
    let mut bench = Bench::new();
    let (caller, callee) = (bench.canister(0), bench.canister(1));
    let gone = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 9, 9, 1, 1]);
    for (callee, method, code, text) in [
        (callee, "silent", 5, "did not reply"),
        (callee, "say_no", 4, "as asked"),
        (callee, "no_such_method", 5, "no update method"),
        (gone, "bump", 3, "not found"),
    ] {
        let reply = bench
            .call(caller, "call", &forward(callee, 0, 0, method, &[]))
            .unwrap();
        let message = String::from_utf8_lossy(&reply[2..]).into_owned();
        assert_eq!(reply[..2], [b'E', code], "{method}: {message}");
        assert!(message.contains(text), "{message}");
    }
}

#[test]
fn after_a_trap_in_a_callback_the_cleanup_runs_alone() {
    let mut bench = Bench::new();
    let (caller, callee) = (bench.canister(0), bench.canister(0));
    let reject = bench
        .call(caller, "call", &forward(callee, 1, 0, "bump", &[]))
        .unwrap_err();
    assert_eq!(reject.error_code, ErrorCode::CanisterCalledTrap);
    // What the callee did stays; of the callback nothing; of the cleanup everything.
    assert_eq!((bench.count(callee), bench.count(caller)), (1, 1));
}

#[test]
fn a_bounded_wait_ends_and_a_late_answer_is_dropped() {
    let mut bench = Bench::new();
    let (caller, callee) = (bench.canister(0), bench.canister(1));
    let ingress = Ingress {
        sender: OWNER,
        canister: caller,
        method: "call".into(),
        arg: forward(callee, 2, 0, "bump", &[]),
        effective: None,
    };
    let id = bench.0.submit(ingress).unwrap();
    bench.0.tick();
    bench
        .0
        .set_time(bench.0.time_ns() + 11_000_000_000)
        .unwrap();
    let reply = bench.0.await_ingress(&id).unwrap().unwrap();
    // Nobody knows whether it was executed: code 6.
    assert_eq!(reply[..2], [b'E', 6]);
    bench.0.tick();
    assert_eq!(bench.status(caller).status, CanisterStatusType::Running);
}

#[test]
fn stopping_waits_for_what_is_outstanding() {
    let mut bench = Bench::new();
    let (caller, callee) = (bench.canister(0), bench.canister(1));
    let record = CanisterIdRecord {
        canister_id: caller,
    };
    let ingress = |canister, method: &str, arg| Ingress {
        sender: OWNER,
        canister,
        method: method.into(),
        arg,
        effective: None,
    };
    let call = bench
        .0
        .submit(ingress(caller, "call", forward(callee, 0, 0, "bump", &[])))
        .unwrap();
    bench.0.tick();
    let management = Principal::management_canister();
    let stop = bench
        .0
        .submit(ingress(
            management,
            "stop_canister",
            Encode!(&record).unwrap(),
        ))
        .unwrap();
    bench.0.tick();
    assert!(bench.0.await_ingress(&call).unwrap().is_ok());
    assert!(bench.0.await_ingress(&stop).unwrap().is_ok());
    assert_eq!(bench.status(caller).status, CanisterStatusType::Stopped);
    assert_eq!(
        bench.call(caller, "bump", &[]).unwrap_err().error_code,
        ErrorCode::CanisterStopped
    );
    let delete = |bench: &mut Bench| {
        bench
            .manage("delete_canister", &record)
            .map_err(|reject| reject.error_code)
    };
    assert!(bench.manage("start_canister", &record).is_ok());
    assert_eq!(delete(&mut bench), Err(ErrorCode::CanisterNotStopped));
    assert!(bench.manage("stop_canister", &record).is_ok());
    assert!(delete(&mut bench).is_ok());
    assert_eq!(
        bench.call(caller, "bump", &[]).unwrap_err().error_code,
        ErrorCode::CanisterNotFound
    );
}

#[test]
fn an_upgrade_keeps_stable_memory_and_a_reinstallation_does_not() {
    let mut bench = Bench::new();
    let id = bench.canister(0);
    bench.call(id, "keep", &[42]).unwrap();
    bench.call(id, "bump", &[]).unwrap();
    bench
        .install(id, CanisterInstallMode::Upgrade(None), wasm())
        .unwrap();
    assert_eq!(bench.0.query(OWNER, id, "kept", vec![]).unwrap(), [42]);
    assert_eq!(bench.count(id), 0);
    assert_eq!(
        bench
            .install(id, CanisterInstallMode::Install, wasm())
            .unwrap_err()
            .error_code,
        ErrorCode::CanisterNonEmpty
    );
    let broken = bench
        .install(
            id,
            CanisterInstallMode::Upgrade(None),
            b"\0asm nonsense".to_vec(),
        )
        .unwrap_err();
    assert_eq!(broken.error_code, ErrorCode::CanisterInvalidWasm);
    bench
        .install(id, CanisterInstallMode::Reinstall, wasm())
        .unwrap();
    assert!(bench.0.query(OWNER, id, "kept", vec![]).is_err());
}

#[test]
fn code_comes_in_chunks_too() {
    let mut bench = Bench::new();
    let (id, wasm) = (bench.create(0), wasm());
    let chunk_hashes_list: Vec<_> = wasm
        .chunks(1_000)
        .map(|chunk| {
            let reply = bench.manage(
                "upload_chunk",
                &UploadChunkArgs {
                    canister_id: id,
                    chunk: chunk.to_vec(),
                },
            );
            candid::decode_one::<ChunkHash>(&reply.unwrap()).unwrap()
        })
        .collect();
    let mut args = InstallChunkedCodeArgs {
        mode: CanisterInstallMode::Install,
        target_canister: id,
        store_canister: None,
        chunk_hashes_list,
        wasm_module_hash: vec![0; 32],
        arg: vec![],
        sender_canister_version: None,
    };
    assert!(
        bench
            .manage("install_chunked_code", &args)
            .unwrap_err()
            .message
            .contains("hash")
    );
    args.wasm_module_hash = Sha256::digest(&wasm).to_vec();
    bench.manage("install_chunked_code", &args).unwrap();
    assert_eq!(bench.call(id, "bump", &[]).unwrap(), [1]);
    assert_eq!(bench.status(id).module_hash, Some(args.wasm_module_hash));
}

#[test]
fn only_controllers_manage_a_canister() {
    let mut bench = Bench::new();
    let id = bench.canister(0);
    let arg = Encode!(&CanisterIdRecord { canister_id: id }).unwrap();
    for method in [
        "stop_canister",
        "canister_status",
        "clear_chunk_store",
        "delete_canister",
    ] {
        let management = Principal::management_canister();
        let reject = bench
            .call_as(
                Principal::anonymous(),
                management,
                method,
                arg.clone(),
                None,
            )
            .unwrap_err();
        assert_eq!(
            reject.error_code,
            ErrorCode::CanisterInvalidController,
            "{method}"
        );
    }
    let unknown = bench
        .manage("sign_with_ecdsa", &CanisterIdRecord { canister_id: id })
        .unwrap_err();
    assert_eq!(unknown.error_code, ErrorCode::UnknownManagementMessage);
}

#[test]
fn a_timer_fires_once_when_its_time_has_come() {
    let mut bench = Bench::new();
    let id = bench.canister(0);
    let at = bench.0.time_ns() + 1_000_000;
    bench.call(id, "at", &at.to_le_bytes()).unwrap();
    bench.0.tick();
    assert_eq!(bench.count(id), 0);
    bench.0.set_time(at).unwrap();
    bench.0.tick();
    bench.0.tick();
    assert_eq!(bench.count(id), 1);
    // An upgrade takes the timer with it.
    bench
        .call(id, "at", &at.wrapping_add(1_000_000).to_le_bytes())
        .unwrap();
    bench
        .install(id, CanisterInstallMode::Upgrade(None), wasm())
        .unwrap();
    bench.0.set_time(at + 2_000_000).unwrap();
    bench.0.tick();
    assert_eq!(bench.count(id), 0);
}

#[test]
fn the_same_calls_give_the_same_state() {
    let run = || {
        let mut bench = Bench::new();
        let (one, two) = (bench.canister(0), bench.canister(1));
        for step in 0..20u8 {
            let (caller, callee) = if step % 2 == 0 {
                (one, two)
            } else {
                (two, one)
            };
            bench
                .call(caller, "call", &forward(callee, step % 4, 7, "bump", &[]))
                .ok();
            bench.call(callee, "keep", &[step]).unwrap();
        }
        bench.0.digest()
    };
    assert_eq!(run(), run());
}

//! A network and a canister to try it with.

use candid::{CandidType, Encode, Nat, Principal};
use ic_management_canister_types::{
    CanisterIdRecord, CanisterInstallMode, CanisterStatusResult, InstallCodeArgs,
    ProvisionalCreateCanisterWithCyclesArgs,
};
use openstorage_localnet::{
    fees::{CostSchedule, Fees},
    network::{Config, Ingress, Network, Reject, SubnetKind},
};

/// Methods of the test canister; every one answers its counter's byte unless said otherwise.
/// `call` takes callee (10 bytes), flags (1: trap in the callback, 2: wait 10 s at most), cycles (u32),
/// length of the method's name, method, argument; it answers `R` and the reply and the cycles that came
/// back (u32), or `E`, the reject code and its message, or `F` where the call could not be made. `ask` is
/// the same as a composite query.
pub const WAT: &str = r#"(module
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
  (import "ic0" "cycles_burn128" (func $cycles_burn (param i64 i64 i32)))
  (import "ic0" "trap" (func $trap (param i32 i32)))
  (memory 40)
  (table funcref (elem $on_reply $on_reject $on_cleanup $on_answer))
  (data (i32.const 100) "R") (data (i32.const 101) "E") (data (i32.const 104) "F") (data (i32.const 110) "as asked")
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
    (if (call $call_perform) (then (call $append (i32.const 104) (i32.const 1)) (call $reply))))
  (func (export "canister_composite_query ask") (local $name i32)
    (call $load)
    (local.set $name (i32.load8_u (i32.const 1015)))
    (call $call_new (i32.const 1000) (i32.const 10) (i32.const 1016) (local.get $name)
      (i32.const 3) (i32.const 0) (i32.const 1) (i32.const 0))
    (call $call_data (i32.add (i32.const 1016) (local.get $name))
      (i32.sub (i32.sub (call $arg_size) (i32.const 16)) (local.get $name)))
    (drop (call $call_perform)))
  (func $on_answer (param i32)
    (call $load)
    (call $append (i32.const 100) (i32.const 1))
    (call $append (i32.const 1000) (call $arg_size))
    (call $reply))
  (func (export "canister_update grow")
    (i32.store (i32.const 200) (memory.grow (i32.const 1)))
    (call $append (i32.const 200) (i32.const 4)) (call $reply))
  (func (export "canister_update burn")
    (call $load) (call $cycles_burn (i64.const 0) (i64.load32_u (i32.const 1000)) (i32.const 200)) (call $answer))
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

pub const OWNER: Principal = Principal::from_slice(&[7]);
/// So that what is attached and accepted shows to the cycle.
pub const FREE: Fees = Fees {
    nodes: 13,
    schedule: CostSchedule::Free,
};
pub const CYCLES: u128 = 100_000_000_000_000;

pub fn wasm() -> Vec<u8> {
    wat::parse_str(WAT).unwrap()
}

pub struct Bench(pub Network);

impl Bench {
    /// Two subnets on which everything is free, so that cycles show exactly what they were sent for.
    pub fn new() -> Self {
        Self::with(Config {
            subnets: vec![SubnetKind::Application, SubnetKind::Application],
            fees: vec![FREE, FREE],
            seed: 1,
            ..Config::default()
        })
    }

    /// Two subnets on which canisters pay.
    pub fn paid() -> Self {
        Self::with(Config {
            subnets: vec![SubnetKind::Application, SubnetKind::Application],
            ..Config::default()
        })
    }

    pub fn with(config: Config) -> Self {
        Self(Network::new(config))
    }

    pub fn call_as(
        &mut self,
        sender: Principal,
        canister: Principal,
        method: &str,
        arg: Vec<u8>,
        effective: Option<Principal>,
    ) -> Result<Vec<u8>, Reject> {
        let ingress = Ingress {
            sender,
            sender_info: None,
            canister,
            method: method.into(),
            arg,
            effective,
        };
        let id = self.0.submit(ingress)?;
        self.0.await_ingress(&id).expect("it is answered")
    }

    pub fn call(
        &mut self,
        canister: Principal,
        method: &str,
        arg: &[u8],
    ) -> Result<Vec<u8>, Reject> {
        self.call_as(OWNER, canister, method, arg.to_vec(), None)
    }

    pub fn manage(&mut self, method: &str, arg: &impl CandidType) -> Result<Vec<u8>, Reject> {
        self.call_as(
            OWNER,
            Principal::management_canister(),
            method,
            Encode!(arg).unwrap(),
            None,
        )
    }

    pub fn count(&mut self, canister: Principal) -> u8 {
        self.0.query(OWNER, canister, "count", vec![]).unwrap()[0]
    }

    /// An empty canister on the subnet of that number.
    pub fn create(&mut self, subnet: usize) -> Principal {
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

    pub fn install(
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

    pub fn canister(&mut self, subnet: usize) -> Principal {
        let id = self.create(subnet);
        self.install(id, CanisterInstallMode::Install, wasm())
            .unwrap();
        id
    }

    pub fn status(&mut self, id: Principal) -> CanisterStatusResult {
        let reply = self
            .manage("canister_status", &CanisterIdRecord { canister_id: id })
            .unwrap();
        candid::decode_one(&reply).unwrap()
    }
}

pub fn forward(callee: Principal, flags: u8, cycles: u32, method: &str, arg: &[u8]) -> Vec<u8> {
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

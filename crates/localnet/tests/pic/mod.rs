//! A network of the server's binary, driven by the official client, and universal canisters on it.

#![allow(dead_code)] // each test file uses a part

use candid::Principal;
use openstorage_universal::{Op, Program, WASM};
use pocket_ic::{ErrorCode, PocketIc, PocketIcBuilder, RejectResponse};

pub const TRILLION: u128 = 1_000_000_000_000;

pub fn network(subnets: usize) -> PocketIc {
    (0..subnets)
        .fold(PocketIcBuilder::new(), |builder, _| {
            builder.with_application_subnet()
        })
        .with_server_binary(env!("CARGO_BIN_EXE_pocket-ic-server").into())
        .build()
}

/// A universal canister with cycles.
pub fn install(pic: &PocketIc) -> Principal {
    let canister = pic.create_canister();
    equip(pic, canister, WASM);
    canister
}

pub fn equip(pic: &PocketIc, canister: Principal, wasm: &[u8]) {
    pic.add_cycles(canister, 100 * TRILLION);
    let init = Program::new().stable_grow(4);
    pic.install_canister(canister, wasm.to_vec(), init.bytes().to_vec(), None);
}

/// A universal canister on the subnet of that number.
pub fn install_on(pic: &PocketIc, subnet: usize) -> Principal {
    let subnet = pic.topology().get_app_subnets()[subnet];
    let canister = pic.create_canister_on_subnet(None, None, subnet);
    equip(pic, canister, WASM);
    canister
}

pub fn update(
    pic: &PocketIc,
    canister: Principal,
    program: Program,
) -> Result<Vec<u8>, RejectResponse> {
    let arg = program.bytes().to_vec();
    pic.update_call(canister, Principal::anonymous(), "update", arg)
}

pub fn query(
    pic: &PocketIc,
    canister: Principal,
    program: Program,
) -> Result<Vec<u8>, RejectResponse> {
    let arg = program.bytes().to_vec();
    pic.query_call(canister, Principal::anonymous(), "query", arg)
}

#[track_caller]
pub fn ok(result: Result<Vec<u8>, RejectResponse>) -> Vec<u8> {
    result.unwrap()
}

#[track_caller]
pub fn failed(result: Result<Vec<u8>, RejectResponse>, code: ErrorCode) -> String {
    let reject = result.unwrap_err();
    assert_eq!(reject.error_code, code, "{}", reject.reject_message);
    reject.reject_message
}

pub fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

pub fn cycles(bytes: &[u8]) -> u128 {
    u128::from_le_bytes(bytes.try_into().unwrap())
}

/// The byte string that the canister keeps.
pub fn kept(pic: &PocketIc, canister: Principal) -> String {
    String::from_utf8(ok(query(pic, canister, Program::new().reply_global()))).unwrap()
}

pub fn version(pic: &PocketIc, canister: Principal) -> u64 {
    let program = Program::new().op(Op::Version).append().answer();
    number(&ok(query(pic, canister, program)))
}

pub fn keep(text: &str) -> Program {
    Program::new().global_append(text)
}

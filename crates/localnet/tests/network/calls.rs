//! Canisters that call each other: cycles, traps, clean-up, deadlines, stops, upgrades, chunks, timers.

use candid::{Encode, Principal};
use ic_management_canister_types::{
    CanisterIdRecord, CanisterInstallMode, CanisterStatusType, ChunkHash, InstallChunkedCodeArgs,
    UploadChunkArgs,
};
use openstorage_localnet::network::Ingress;
use pocket_ic::{ErrorCode, RejectCode};
use sha2::{Digest, Sha256};

use crate::bench::{Bench, CYCLES, OWNER, forward, wasm};

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
        sender_info: None,
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
        sender_info: None,
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
        "clear_chunk_store",
        "canister_metrics",
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
    let management = Principal::management_canister();
    let status = bench.call_as(
        Principal::anonymous(),
        management,
        "canister_status",
        arg,
        None,
    );
    assert_eq!(
        status.unwrap_err().error_code,
        ErrorCode::CanisterStatusAccessDenied
    );
    let unknown = bench
        .manage("sign_with_ecdsa", &CanisterIdRecord { canister_id: id })
        .unwrap_err();
    assert_eq!(unknown.error_code, ErrorCode::CanisterMethodNotFound);
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

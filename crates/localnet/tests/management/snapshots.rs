//! Snapshots that are carried elsewhere.

use candid::{Decode, Principal};
use ic_management_canister_types::{
    CanisterSettings, LoadCanisterSnapshotArgs, ReadCanisterSnapshotDataArgs,
    ReadCanisterSnapshotDataResult, ReadCanisterSnapshotMetadataArgs,
    ReadCanisterSnapshotMetadataResult, SnapshotDataKind, SnapshotDataOffset,
    SnapshotMetadataGlobal, SnapshotVisibility, UploadCanisterSnapshotDataArgs,
    UploadCanisterSnapshotMetadataArgs, UploadCanisterSnapshotMetadataResult,
};
use openstorage_universal::{Op, Program, WASM};
use pocket_ic::{ErrorCode, PocketIc};

use crate::{PAGE, STRANGER, USER, manage, pic::*, set};

#[test]
fn a_snapshot_can_be_carried_to_another_network() {
    let (pic, elsewhere) = (network(1), network(1));
    let canister = install(&pic);
    let later = pic.get_time().as_nanos_since_unix_epoch() + 1_000_000_000_000;
    let fill = keep("carried")
        .stable_write(3 * PAGE - 2, b"stable")
        .set_timer(later);
    ok(update(&pic, canister, fill.reply(b"")));
    let taken = pic.take_canister_snapshot(canister, None, None).unwrap();
    let snapshot_id = taken.id;
    let args = ReadCanisterSnapshotMetadataArgs {
        canister_id: canister,
        snapshot_id: snapshot_id.clone(),
    };
    let bytes = ok(manage(
        &pic,
        USER,
        canister,
        "read_canister_snapshot_metadata",
        &args,
    ));
    let metadata = Decode!(&bytes, ReadCanisterSnapshotMetadataResult).unwrap();
    assert_eq!(metadata.wasm_module_size, WASM.len() as u64);
    let read = |kind: SnapshotDataKind| {
        let args = ReadCanisterSnapshotDataArgs {
            canister_id: canister,
            snapshot_id: snapshot_id.clone(),
            kind,
        };
        manage(&pic, USER, canister, "read_canister_snapshot_data", &args).map(|bytes| {
            Decode!(&bytes, ReadCanisterSnapshotDataResult)
                .unwrap()
                .chunk
        })
    };
    let size = metadata.stable_memory_size;
    failed(
        read(SnapshotDataKind::StableMemory {
            offset: size,
            size: 1,
        }),
        ErrorCode::InvalidManagementPayload,
    );
    failed(
        read(SnapshotDataKind::WasmMemory {
            offset: 0,
            size: 2_000_001,
        }),
        ErrorCode::InvalidManagementPayload,
    );

    let twin = install(&elsewhere);
    let args = UploadCanisterSnapshotMetadataArgs {
        canister_id: twin,
        replace_snapshot: None,
        wasm_module_size: metadata.wasm_module_size,
        globals: metadata.globals.into_iter().flatten().collect(),
        wasm_memory_size: metadata.wasm_memory_size,
        stable_memory_size: metadata.stable_memory_size,
        certified_data: metadata.certified_data,
        global_timer: metadata.global_timer,
        on_low_wasm_memory_hook_status: metadata.on_low_wasm_memory_hook_status,
    };
    let bytes = ok(manage(
        &elsewhere,
        USER,
        twin,
        "upload_canister_snapshot_metadata",
        &args,
    ));
    let uploaded = Decode!(&bytes, UploadCanisterSnapshotMetadataResult)
        .unwrap()
        .snapshot_id;
    let write = |kind: SnapshotDataOffset, chunk: Vec<u8>| {
        let args = UploadCanisterSnapshotDataArgs {
            canister_id: twin,
            snapshot_id: uploaded.clone(),
            kind,
            chunk,
        };
        manage(
            &elsewhere,
            USER,
            twin,
            "upload_canister_snapshot_data",
            &args,
        )
    };
    // In parts that end within pages.
    let step = 700_001;
    let parts = |total: u64| {
        (0..total)
            .step_by(step as usize)
            .map(move |offset| (offset, step.min(total - offset)))
    };
    for (offset, size) in parts(metadata.wasm_module_size) {
        let chunk = ok(read(SnapshotDataKind::WasmModule { offset, size }));
        ok(write(SnapshotDataOffset::WasmModule { offset }, chunk));
    }
    for (offset, size) in parts(metadata.wasm_memory_size) {
        let chunk = ok(read(SnapshotDataKind::WasmMemory { offset, size }));
        ok(write(SnapshotDataOffset::WasmMemory { offset }, chunk));
    }
    for (offset, size) in parts(metadata.stable_memory_size) {
        let chunk = ok(read(SnapshotDataKind::StableMemory { offset, size }));
        ok(write(SnapshotDataOffset::StableMemory { offset }, chunk));
    }
    let beyond = SnapshotDataOffset::StableMemory { offset: size };
    failed(write(beyond, vec![0]), ErrorCode::InvalidManagementPayload);

    let load = |pic: &PocketIc, canister_id: Principal, snapshot_id: Vec<u8>| {
        let args = LoadCanisterSnapshotArgs {
            canister_id,
            snapshot_id,
            sender_canister_version: None,
        };
        manage(pic, USER, canister_id, "load_canister_snapshot", &args)
    };
    ok(load(&elsewhere, twin, uploaded.clone()));
    assert_eq!(kept(&elsewhere, twin), "carried");
    let stable = Program::new()
        .stable_read(3 * PAGE - 2, 6)
        .append()
        .answer();
    assert_eq!(ok(query(&elsewhere, twin, stable)), b"stable");
    let timer = Program::new().number(0).op(Op::TimerSet).append().answer();
    assert_eq!(number(&ok(update(&elsewhere, twin, timer))), later);

    // One that was taken cannot be written to; another canister of the same controller may have it.
    let args = UploadCanisterSnapshotDataArgs {
        canister_id: canister,
        snapshot_id: snapshot_id.clone(),
        kind: SnapshotDataOffset::StableMemory { offset: 0 },
        chunk: vec![1],
    };
    failed(
        manage(&pic, USER, canister, "upload_canister_snapshot_data", &args),
        ErrorCode::CanisterSnapshotImmutable,
    );
    let sibling = install(&pic);
    ok(load(&pic, sibling, snapshot_id.clone()));
    assert_eq!(kept(&pic, sibling), "carried");
    // Only for those who may see it.
    let args = ReadCanisterSnapshotMetadataArgs {
        canister_id: canister,
        snapshot_id,
    };
    manage(
        &pic,
        STRANGER,
        canister,
        "read_canister_snapshot_metadata",
        &args,
    )
    .unwrap_err();
    let snapshot_visibility = Some(SnapshotVisibility::Public);
    let visible = CanisterSettings {
        snapshot_visibility,
        ..Default::default()
    };
    set(&pic, canister, visible).unwrap();
    ok(manage(
        &pic,
        STRANGER,
        canister,
        "read_canister_snapshot_metadata",
        &args,
    ));
}

/// The client's own way: a folder on the server's disk.
#[test]
fn a_snapshot_is_a_folder() {
    let (pic, elsewhere) = (network(1), network(1));
    let canister = install(&pic);
    // More than one part of stable memory, with nothing in the middle; a chunk.
    let fill = keep("carried")
        .stable_grow(100)
        .stable_write(0, b"first")
        .stable_write(100 * PAGE, b"last");
    ok(update(&pic, canister, fill.reply(b"")));
    let hash = pic.upload_chunk(canister, None, vec![7; 1000]).unwrap();
    let taken = pic.take_canister_snapshot(canister, None, None).unwrap();
    let folders = tempfile::tempdir().unwrap();
    let (there, again) = (folders.path().join("there"), folders.path().join("again"));
    pic.canister_snapshot_download(canister, USER, taken.id.clone(), there.clone());

    let other = elsewhere.create_canister();
    let uploaded = elsewhere.canister_snapshot_upload(other, USER, None, there.clone());
    elsewhere.canister_snapshot_download(other, USER, uploaded.clone(), again.clone());
    let file = |name: &str| {
        let read = |folder: &std::path::Path| std::fs::read(folder.join(name)).unwrap();
        assert!(read(&there) == read(&again), "{name}");
        read(&there)
    };
    assert_eq!(file("wasm_module.bin"), WASM);
    assert!(!file("wasm_memory.bin").is_empty());
    let stable = file("stable_memory.bin");
    assert_eq!(stable.len() as u64, 104 * PAGE);
    assert!(stable.starts_with(b"first") && stable[100 * PAGE as usize..].starts_with(b"last"));
    let chunk = format!("wasm_chunk_store/{}.bin", hex::encode(&hash));
    assert_eq!(file(&chunk), vec![7; 1000]);
    elsewhere
        .load_canister_snapshot(other, None, uploaded.clone())
        .unwrap();
    assert_eq!(kept(&elsewhere, other), "carried");

    // One takes another's place; what does not fit together is refused, and so is a stranger.
    let second = elsewhere.canister_snapshot_upload(other, USER, Some(uploaded), there.clone());
    let listed = elsewhere.list_canister_snapshots(other, None).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, second);
    let refused = |work: &dyn Fn()| {
        let work = std::panic::AssertUnwindSafe(work);
        *std::panic::catch_unwind(work)
            .unwrap_err()
            .downcast::<String>()
            .unwrap()
    };
    let text = refused(&|| {
        pic.canister_snapshot_download(canister, STRANGER, taken.id.clone(), again.clone())
    });
    assert!(text.contains("Only controllers"), "{text}");
    std::fs::write(there.join("stable_memory.bin"), b"short").unwrap();
    let text = refused(&|| drop(pic.canister_snapshot_upload(canister, USER, None, there.clone())));
    assert!(text.contains("5 bytes and should have"), "{text}");
    assert_eq!(
        pic.list_canister_snapshots(canister, None).unwrap().len(),
        1
    );
}

/// Whoever uploads a snapshot may say what no module would: that is refused, and the network goes on.
#[test]
fn a_snapshot_that_does_not_fit_its_module_is_refused() {
    let pic = network(1);
    let canister = install(&pic);
    let module = r#"(module (memory 1 2) (global (mut i64) (i64.const 1)))"#;
    let module = wat::parse_str(module).unwrap();
    let load = |heap_pages: u64, globals: Vec<SnapshotMetadataGlobal>| {
        let args = UploadCanisterSnapshotMetadataArgs {
            canister_id: canister,
            replace_snapshot: None,
            wasm_module_size: module.len() as u64,
            globals,
            wasm_memory_size: heap_pages * PAGE,
            stable_memory_size: 0,
            certified_data: vec![],
            global_timer: None,
            on_low_wasm_memory_hook_status: None,
        };
        let method = "upload_canister_snapshot_metadata";
        let bytes = ok(manage(&pic, USER, canister, method, &args));
        let uploaded = Decode!(&bytes, UploadCanisterSnapshotMetadataResult);
        let snapshot_id = uploaded.unwrap().snapshot_id;
        let args = UploadCanisterSnapshotDataArgs {
            canister_id: canister,
            snapshot_id: snapshot_id.clone(),
            kind: SnapshotDataOffset::WasmModule { offset: 0 },
            chunk: module.clone(),
        };
        let method = "upload_canister_snapshot_data";
        ok(manage(&pic, USER, canister, method, &args));
        let args = LoadCanisterSnapshotArgs {
            canister_id: canister,
            snapshot_id: snapshot_id.clone(),
            sender_canister_version: None,
        };
        let loaded = manage(&pic, USER, canister, "load_canister_snapshot", &args);
        pic.delete_canister_snapshot(canister, None, snapshot_id)
            .unwrap();
        loaded
    };
    use SnapshotMetadataGlobal::{I32, I64};
    for (heap_pages, globals) in [
        (3, vec![I64(7)]),
        (0, vec![I64(7)]),
        (1, vec![I32(7)]),
        (1, vec![]),
        (1, vec![I64(7), I64(7)]),
    ] {
        let refused = load(heap_pages, globals);
        failed(refused, ErrorCode::InvalidManagementPayload);
    }
    ok(load(2, vec![I64(7)]));
}

//! Snapshots as folders of the server's disk, in the layout of `dfx` and `icp`:
//!
//! | file | what |
//! | --- | --- |
//! | `metadata.json` | the answer of `read_canister_snapshot_metadata` |
//! | `wasm_module.bin`, `wasm_memory.bin`, `stable_memory.bin` | what their names say |
//! | `wasm_chunk_store/HASH.bin` | the chunks of the chunk store, by their SHA-256 |
//!
//! The management canister's methods do the work, part by part, as they would for an agent.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use candid::{CandidType, Principal};
use ic_management_canister_types::{
    ReadCanisterSnapshotDataArgs, ReadCanisterSnapshotDataResult, ReadCanisterSnapshotMetadataArgs,
    ReadCanisterSnapshotMetadataResult, SnapshotDataKind, SnapshotDataOffset,
    UploadCanisterSnapshotDataArgs, UploadCanisterSnapshotMetadataArgs,
    UploadCanisterSnapshotMetadataResult,
};
use pocket_ic::common::rest::{
    RawCanisterSnapshotDownload, RawCanisterSnapshotId, RawCanisterSnapshotUpload,
};
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use super::{
    server::Instance,
    shapes::{ApiError, Json, Reply, principal},
};
use crate::network::Ingress;

/// The largest part that is read or written at once, as on the Internet Computer.
const PART_BYTES_MAX: u64 = 2_000_000;

/// Writes a snapshot to a folder, which is made where there is none.
pub async fn download(
    instance: Instance,
    Json(raw): Json<RawCanisterSnapshotDownload>,
) -> Reply<()> {
    let caller = Caller {
        instance,
        sender: principal(&raw.sender.principal_id)?,
        canister: principal(&raw.canister_id.canister_id)?,
    };
    apart(move || write(&caller, raw.snapshot_id, &Folder(raw.snapshot_dir))).await
}

/// Makes a snapshot of a folder; its id.
pub async fn upload(
    instance: Instance,
    Json(raw): Json<RawCanisterSnapshotUpload>,
) -> Reply<RawCanisterSnapshotId> {
    let caller = Caller {
        instance,
        sender: principal(&raw.sender.principal_id)?,
        canister: principal(&raw.canister_id.canister_id)?,
    };
    let replaced = raw.replace_snapshot.map(|raw| raw.snapshot_id);
    apart(move || {
        let snapshot_id = read(&caller, replaced, &Folder(raw.snapshot_dir))?;
        Ok(RawCanisterSnapshotId { snapshot_id })
    })
    .await
}

/// Files are read and written where nobody else waits for them.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Reply<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(ApiError::bad)?
        .map(Json)
}

fn write(caller: &Caller, snapshot_id: Vec<u8>, folder: &Folder) -> Result<(), ApiError> {
    let args = ReadCanisterSnapshotMetadataArgs {
        canister_id: caller.canister,
        snapshot_id: snapshot_id.clone(),
    };
    let metadata: ReadCanisterSnapshotMetadataResult =
        caller.call("read_canister_snapshot_metadata", &args)?;
    let part = |kind| -> Result<Vec<u8>, ApiError> {
        let args = ReadCanisterSnapshotDataArgs {
            canister_id: caller.canister,
            snapshot_id: snapshot_id.clone(),
            kind,
        };
        let read: ReadCanisterSnapshotDataResult =
            caller.call("read_canister_snapshot_data", &args)?;
        Ok(read.chunk)
    };
    let chunks = folder.chunks();
    fs::create_dir_all(&chunks).map_err(|error| broken(&chunks, error))?;
    for (memory, len) in sizes(&metadata) {
        let path = folder.memory(memory);
        let mut file = File::create(&path).map_err(|error| broken(&path, error))?;
        for (offset, size) in parts(len) {
            let bytes = part(memory.kind(offset, size))?;
            file.write_all(&bytes)
                .map_err(|error| broken(&path, error))?;
        }
    }
    for chunk in &metadata.wasm_chunk_store {
        let path = folder.chunk(&chunk.hash);
        let bytes = part(SnapshotDataKind::WasmChunk {
            hash: chunk.hash.clone(),
        })?;
        fs::write(&path, bytes).map_err(|error| broken(&path, error))?;
    }
    let json = serde_json::to_vec_pretty(&metadata).map_err(ApiError::bad)?;
    let path = folder.metadata();
    fs::write(&path, json).map_err(|error| broken(&path, error))
}

fn read(
    caller: &Caller,
    replace_snapshot: Option<Vec<u8>>,
    folder: &Folder,
) -> Result<Vec<u8>, ApiError> {
    let path = folder.metadata();
    let json = fs::read(&path).map_err(|error| broken(&path, error))?;
    let metadata: ReadCanisterSnapshotMetadataResult =
        serde_json::from_slice(&json).map_err(|error| broken(&path, error))?;
    for (memory, len) in sizes(&metadata) {
        let path = folder.memory(memory);
        let there = fs::metadata(&path).map_err(|error| broken(&path, error))?;
        if there.len() != len {
            let text = format!("it has {} bytes and should have {len}", there.len());
            return Err(broken(&path, text));
        }
    }
    let globals = metadata.globals.iter().cloned().collect::<Option<_>>();
    let args = UploadCanisterSnapshotMetadataArgs {
        canister_id: caller.canister,
        replace_snapshot,
        wasm_module_size: metadata.wasm_module_size,
        globals: globals.ok_or_else(|| broken(&path, "a global has no value"))?,
        wasm_memory_size: metadata.wasm_memory_size,
        stable_memory_size: metadata.stable_memory_size,
        certified_data: metadata.certified_data.clone(),
        global_timer: metadata.global_timer.clone(),
        on_low_wasm_memory_hook_status: metadata.on_low_wasm_memory_hook_status.clone(),
    };
    let uploaded: UploadCanisterSnapshotMetadataResult =
        caller.call("upload_canister_snapshot_metadata", &args)?;
    let snapshot_id = uploaded.snapshot_id;
    let part = |kind, chunk| {
        let args = UploadCanisterSnapshotDataArgs {
            canister_id: caller.canister,
            snapshot_id: snapshot_id.clone(),
            kind,
            chunk,
        };
        caller.tell("upload_canister_snapshot_data", &args)
    };
    for (memory, len) in sizes(&metadata) {
        let path = folder.memory(memory);
        let mut file = File::open(&path).map_err(|error| broken(&path, error))?;
        for (offset, size) in parts(len) {
            let mut bytes = vec![0; size as usize];
            file.read_exact(&mut bytes)
                .map_err(|error| broken(&path, error))?;
            // An upload is of zeros to begin with.
            if bytes.iter().any(|byte| *byte != 0) {
                part(memory.offset(offset), bytes)?;
            }
        }
    }
    for chunk in &metadata.wasm_chunk_store {
        let path = folder.chunk(&chunk.hash);
        let bytes = fs::read(&path).map_err(|error| broken(&path, error))?;
        part(SnapshotDataOffset::WasmChunk, bytes)?;
    }
    Ok(snapshot_id)
}

/// Who asks the management canister about whom.
struct Caller {
    instance: Instance,
    sender: Principal,
    canister: Principal,
}

impl Caller {
    fn call<R: CandidType + DeserializeOwned>(
        &self,
        method: &str,
        args: &impl CandidType,
    ) -> Result<R, ApiError> {
        let answer = self.answer(method, args)?;
        candid::decode_one(&answer).map_err(ApiError::bad)
    }

    /// A call without a result.
    fn tell(&self, method: &str, args: &impl CandidType) -> Result<(), ApiError> {
        self.answer(method, args).map(drop)
    }

    fn answer(&self, method: &str, args: &impl CandidType) -> Result<Vec<u8>, ApiError> {
        let ingress = Ingress {
            sender: self.sender,
            sender_info: None,
            canister: Principal::management_canister(),
            method: method.into(),
            arg: candid::encode_one(args).map_err(ApiError::bad)?,
            effective: Some(self.canister),
        };
        let engine = &self.instance.engine;
        Handle::current().block_on(async {
            let id = engine
                .run(move |engine| engine.network.submit(ingress))
                .await?
                .map_err(|reject| ApiError::bad(reject.message))?;
            let answer = engine.answer(id).await??;
            answer.map_err(|reject| ApiError::bad(reject.message))
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Memory {
    Module,
    Heap,
    Stable,
}

impl Memory {
    fn kind(self, offset: u64, size: u64) -> SnapshotDataKind {
        match self {
            Self::Module => SnapshotDataKind::WasmModule { offset, size },
            Self::Heap => SnapshotDataKind::WasmMemory { offset, size },
            Self::Stable => SnapshotDataKind::StableMemory { offset, size },
        }
    }

    fn offset(self, offset: u64) -> SnapshotDataOffset {
        match self {
            Self::Module => SnapshotDataOffset::WasmModule { offset },
            Self::Heap => SnapshotDataOffset::WasmMemory { offset },
            Self::Stable => SnapshotDataOffset::StableMemory { offset },
        }
    }
}

fn sizes(metadata: &ReadCanisterSnapshotMetadataResult) -> [(Memory, u64); 3] {
    [
        (Memory::Module, metadata.wasm_module_size),
        (Memory::Heap, metadata.wasm_memory_size),
        (Memory::Stable, metadata.stable_memory_size),
    ]
}

/// Offsets and sizes of the parts of so many bytes.
fn parts(len: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..len.div_ceil(PART_BYTES_MAX)).map(move |number| {
        let offset = number * PART_BYTES_MAX;
        (offset, (len - offset).min(PART_BYTES_MAX))
    })
}

struct Folder(PathBuf);

impl Folder {
    fn metadata(&self) -> PathBuf {
        self.0.join("metadata.json")
    }

    fn memory(&self, memory: Memory) -> PathBuf {
        self.0.join(match memory {
            Memory::Module => "wasm_module.bin",
            Memory::Heap => "wasm_memory.bin",
            Memory::Stable => "stable_memory.bin",
        })
    }

    fn chunks(&self) -> PathBuf {
        self.0.join("wasm_chunk_store")
    }

    fn chunk(&self, hash: &[u8]) -> PathBuf {
        self.chunks().join(format!("{}.bin", hex::encode(hash)))
    }
}

fn broken(path: &Path, error: impl std::fmt::Display) -> ApiError {
    ApiError::bad(format!("{}: {error}", path.display()))
}

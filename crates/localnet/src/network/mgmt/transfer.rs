//! Snapshots leave and come, part by part.

use std::collections::BTreeMap;

use candid::{Nat, Principal, Reserved};
use ic_management_canister_types::{
    CanisterTimer, ChunkHash, OnLowWasmMemoryHookStatus, ReadCanisterSnapshotDataArgs,
    ReadCanisterSnapshotDataResult, ReadCanisterSnapshotMetadataArgs,
    ReadCanisterSnapshotMetadataResult, SnapshotDataKind, SnapshotDataOffset,
    SnapshotMetadataGlobal, SnapshotSource, UploadCanisterSnapshotDataArgs,
    UploadCanisterSnapshotMetadataArgs, UploadCanisterSnapshotMetadataResult,
};
use pocket_ic::ErrorCode;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use super::{
    Managed,
    code::{CHUNKS_MAX, check_chunk},
    nothing, reply,
    snapshots::{SNAPSHOT_INSTRUCTIONS, unknown},
};
use crate::{
    machine::{Global, Image, STABLE_PAGE_BYTES, WASM_BYTES_MAX},
    network::{Network, Reject, canister::LowMemory, money::CHUNK_BYTES, snapshot::Snapshot},
};

/// The largest part that is read at once, as on the Internet Computer.
const PART_BYTES_MAX: u64 = 2_000_000;
/// Limits of the interface specification on what a canister can have.
const HEAP_BYTES_MAX: u64 = 4 << 30;
const STABLE_BYTES_MAX: u64 = 500 << 30;
const CERTIFIED_DATA_BYTES_MAX: usize = 32;

impl Network {
    pub(super) fn read_snapshot_metadata(
        &mut self,
        caller: &Principal,
        (args,): (ReadCanisterSnapshotMetadataArgs,),
    ) -> Managed {
        let snapshot = self.shown_snapshot(caller, &args.canister_id, &args.snapshot_id)?;
        let global = |global: &Global| {
            Some(match *global {
                Global::I32(value) => SnapshotMetadataGlobal::I32(value),
                Global::I64(value) => SnapshotMetadataGlobal::I64(value),
                Global::F32(bits) => SnapshotMetadataGlobal::F32(f32::from_bits(bits)),
                Global::F64(bits) => SnapshotMetadataGlobal::F64(f64::from_bits(bits)),
                Global::V128(value) => SnapshotMetadataGlobal::V128(Nat::from(value)),
                Global::NullFunction | Global::NullExtern => return None,
            })
        };
        reply(&ReadCanisterSnapshotMetadataResult {
            source: Some(snapshot.source()),
            taken_at_timestamp: snapshot.taken_ns,
            wasm_module_size: snapshot.wasm_bytes,
            globals: snapshot.image.global_values().iter().map(global).collect(),
            wasm_memory_size: snapshot.image.heap.len() as u64,
            stable_memory_size: snapshot.image.stable_bytes(),
            wasm_chunk_store: snapshot
                .chunks
                .keys()
                .map(|hash| ChunkHash {
                    hash: hash.to_vec(),
                })
                .collect(),
            canister_version: snapshot.version,
            certified_data: snapshot.certified_data.clone(),
            global_timer: snapshot.timer_ns.map(|time_ns| match time_ns {
                0 => CanisterTimer::Inactive,
                time_ns => CanisterTimer::Active(time_ns),
            }),
            on_low_wasm_memory_hook_status: snapshot.low_memory.map(|status| match status {
                LowMemory::Enough => OnLowWasmMemoryHookStatus::ConditionNotSatisfied,
                LowMemory::Ready => OnLowWasmMemoryHookStatus::Ready,
                LowMemory::Executed => OnLowWasmMemoryHookStatus::Executed,
            }),
        })
    }

    pub(super) fn read_snapshot_data(
        &mut self,
        caller: &Principal,
        (args,): (ReadCanisterSnapshotDataArgs,),
    ) -> Managed {
        let (id, name) = (args.canister_id, &args.snapshot_id);
        let snapshot = self.shown_snapshot(caller, &id, name)?;
        let chunk = match args.kind {
            SnapshotDataKind::WasmModule { offset, size } => {
                let wasm = match &snapshot.uploaded {
                    Some(wasm) => wasm.as_slice(),
                    None => self.modules.get(&snapshot.module).map_or(&[][..], |it| it),
                };
                let (start, size) = part(offset, size, wasm.len() as u64)?;
                wasm[start..start + size].to_vec()
            }
            SnapshotDataKind::WasmMemory { offset, size } => {
                let heap = &snapshot.image.heap;
                let (start, size) = part(offset, size, heap.len() as u64)?;
                heap[start..start + size].to_vec()
            }
            SnapshotDataKind::StableMemory { offset, size } => {
                let (_, size) = part(offset, size, snapshot.image.stable_bytes())?;
                snapshot.image.read_stable(offset, size)
            }
            SnapshotDataKind::WasmChunk { hash } => {
                let known = <[u8; 32]>::try_from(hash.as_slice()).ok();
                let chunk = known.and_then(|hash| snapshot.chunks.get(&hash));
                chunk.cloned().ok_or_else(|| {
                    payload(format!("the snapshot has no chunk {}", hex::encode(&hash)))
                })?
            }
        };
        self.charge_work(&id, chunk.len() as u64, 0)?;
        reply(&ReadCanisterSnapshotDataResult { chunk })
    }

    /// Of zeros where nothing is uploaded.
    pub(super) fn upload_snapshot_metadata(
        &mut self,
        caller: &Principal,
        (args,): (UploadCanisterSnapshotMetadataArgs,),
    ) -> Managed {
        let (id, taken_ns) = (args.canister_id, self.time_ns);
        let version = self.controlled(&id, caller)?.version;
        for (what, size, max, unit) in [
            ("module", args.wasm_module_size, WASM_BYTES_MAX, 1),
            (
                "heap",
                args.wasm_memory_size,
                HEAP_BYTES_MAX,
                STABLE_PAGE_BYTES,
            ),
            (
                "stable memory",
                args.stable_memory_size,
                STABLE_BYTES_MAX,
                STABLE_PAGE_BYTES,
            ),
        ] {
            if size > max || size % unit != 0 {
                return Err(payload(format!(
                    "a {what} has at most {max} bytes, a multiple of {unit}, not {size}"
                )));
            }
        }
        if args.certified_data.len() > CERTIFIED_DATA_BYTES_MAX {
            return Err(payload(format!(
                "certified data has at most {CERTIFIED_DATA_BYTES_MAX} bytes, not {}",
                args.certified_data.len()
            )));
        }
        // What it will take is asked for before it is taken.
        let bytes = args.wasm_module_size + args.wasm_memory_size + args.stable_memory_size;
        let replaced = args.replace_snapshot.as_deref();
        self.check_new_snapshot(&id, replaced, bytes, SNAPSHOT_INSTRUCTIONS)?;
        let globals = args.globals.iter().map(global).collect::<Result<_, _>>()?;
        let pages = |bytes: u64| bytes / STABLE_PAGE_BYTES;
        let heap_pages = u32::try_from(pages(args.wasm_memory_size)).unwrap_or(u32::MAX);
        let snapshot = Snapshot {
            taken_ns,
            version,
            module: [0; 32],
            wasm_bytes: args.wasm_module_size,
            image: Image::blank(heap_pages, globals, pages(args.stable_memory_size)),
            certified_data: args.certified_data,
            timer_ns: args.global_timer.map(|timer| match timer {
                CanisterTimer::Inactive => 0,
                CanisterTimer::Active(time_ns) => time_ns,
            }),
            low_memory: args
                .on_low_wasm_memory_hook_status
                .map(|status| match status {
                    OnLowWasmMemoryHookStatus::ConditionNotSatisfied => LowMemory::Enough,
                    OnLowWasmMemoryHookStatus::Ready => LowMemory::Ready,
                    OnLowWasmMemoryHookStatus::Executed => LowMemory::Executed,
                }),
            uploaded: Some(ByteBuf::from(vec![0; args.wasm_module_size as usize])),
            chunks: BTreeMap::new(),
        };
        let snapshot_id = self.put_snapshot(&id, replaced, snapshot)?;
        reply(&UploadCanisterSnapshotMetadataResult { snapshot_id })
    }

    pub(super) fn upload_snapshot_data(
        &mut self,
        caller: &Principal,
        (args,): (UploadCanisterSnapshotDataArgs,),
    ) -> Managed {
        let (id, chunk) = (args.canister_id, args.chunk);
        self.controlled(&id, caller)?;
        let hash: [u8; 32] = Sha256::digest(&chunk).into();
        let grows = matches!(args.kind, SnapshotDataOffset::WasmChunk);
        let bytes = if grows { CHUNK_BYTES } else { 0 };
        self.uploaded_snapshot(&id, &args.snapshot_id)?;
        self.charge_work(&id, chunk.len() as u64, bytes)?;
        let snapshot = self.uploaded_snapshot(&id, &args.snapshot_id)?;
        let size = chunk.len() as u64;
        match args.kind {
            SnapshotDataOffset::WasmModule { offset } => {
                let wasm = snapshot.uploaded.get_or_insert_default();
                let (start, size) = range(offset, size, wasm.len() as u64)?;
                wasm[start..start + size].copy_from_slice(&chunk);
            }
            SnapshotDataOffset::WasmMemory { offset } => {
                let heap = &mut snapshot.image.heap;
                let (start, size) = range(offset, size, heap.len() as u64)?;
                heap[start..start + size].copy_from_slice(&chunk);
            }
            SnapshotDataOffset::StableMemory { offset } => {
                range(offset, size, snapshot.image.stable_bytes())?;
                snapshot.image.write_stable(offset, &chunk);
            }
            SnapshotDataOffset::WasmChunk => {
                check_chunk(&chunk)?;
                if !snapshot.chunks.contains_key(&hash) && snapshot.chunks.len() >= CHUNKS_MAX {
                    return Err(payload(format!(
                        "the chunk store holds at most {CHUNKS_MAX} chunks"
                    )));
                }
                snapshot.chunks.insert(hash, chunk);
            }
        }
        nothing()
    }

    /// A snapshot that is visible to the caller.
    fn shown_snapshot(
        &self,
        caller: &Principal,
        id: &Principal,
        name: &[u8],
    ) -> Result<&Snapshot, Reject> {
        let canister = self
            .canisters
            .get(id)
            .ok_or_else(|| Reject::not_found(id))?;
        if !canister.shows(&canister.settings.snapshot_visibility, caller) {
            return Err(Reject::not_controller(id, caller));
        }
        let snapshot = canister.snapshots.get(name);
        snapshot.ok_or_else(|| unknown(id, name))
    }

    /// A snapshot that may be written to.
    fn uploaded_snapshot(&mut self, id: &Principal, name: &[u8]) -> Result<&mut Snapshot, Reject> {
        let snapshot = self.existing(id)?.snapshots.get_mut(name);
        let snapshot = snapshot.ok_or_else(|| unknown(id, name))?;
        if snapshot.uploaded.is_none() {
            return Err(Reject::new(
                ErrorCode::CanisterSnapshotImmutable,
                "Only canister snapshots created by metadata upload can be mutated.",
            ));
        }
        Ok(snapshot)
    }
}

impl Snapshot {
    pub fn source(&self) -> SnapshotSource {
        match self.uploaded {
            Some(_) => SnapshotSource::MetadataUpload(Reserved),
            None => SnapshotSource::TakenFromCanister(Reserved),
        }
    }
}

fn global(global: &SnapshotMetadataGlobal) -> Result<Global, Reject> {
    Ok(match global {
        SnapshotMetadataGlobal::I32(value) => Global::I32(*value),
        SnapshotMetadataGlobal::I64(value) => Global::I64(*value),
        SnapshotMetadataGlobal::F32(value) => Global::F32(value.to_bits()),
        SnapshotMetadataGlobal::F64(value) => Global::F64(value.to_bits()),
        SnapshotMetadataGlobal::V128(value) => Global::V128(
            u128::try_from(&value.0)
                .map_err(|_| payload(format!("a global has 128 bits at most, not {value}")))?,
        ),
    })
}

/// A part that is read. It is within `total` bytes and not too large for an answer.
fn part(offset: u64, size: u64, total: u64) -> Result<(usize, usize), Reject> {
    if size > PART_BYTES_MAX {
        return Err(payload(format!(
            "Requested slice too large: {size} > {PART_BYTES_MAX}"
        )));
    }
    range(offset, size, total)
}

fn range(offset: u64, size: u64, total: u64) -> Result<(usize, usize), Reject> {
    match offset.checked_add(size) {
        Some(end) if end <= total => Ok((offset as usize, size as usize)),
        _ => Err(payload(format!(
            "Invalid subslice into wasm module / main memory / stable memory: offset: {offset}, size: {size}"
        ))),
    }
}

fn payload(text: String) -> Reject {
    Reject::new(ErrorCode::InvalidManagementPayload, text)
}

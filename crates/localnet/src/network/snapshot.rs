//! Snapshots: a canister's code and memories, kept beside it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{
    canister::{Canister, LowMemory},
    money::CHUNK_BYTES,
};
use crate::machine::Image;

/// Snapshots of one canister, as on the Internet Computer.
pub const SNAPSHOTS_MAX: usize = 10;

/// One snapshot.
#[derive(Serialize, Deserialize)]
pub struct Snapshot {
    pub taken_ns: u64,
    pub version: u64,
    /// The module's SHA-256; of an upload nothing is known before it is loaded.
    pub module: [u8; 32],
    pub wasm_bytes: u64,
    pub image: Image,
    pub certified_data: Vec<u8>,
    /// The global timer; 0 where it was not set, none where an upload does not say.
    pub timer_ns: Option<u64>,
    /// None where an upload does not say.
    pub low_memory: Option<LowMemory>,
    /// The module of a snapshot that is being uploaded, or was. One that was taken cannot be changed.
    pub uploaded: Option<ByteBuf>,
    pub chunks: BTreeMap<[u8; 32], Vec<u8>>,
}

impl Snapshot {
    /// Everything that storage is paid for.
    pub fn bytes(&self) -> u64 {
        self.image.bytes() + self.wasm_bytes + self.chunks.len() as u64 * CHUNK_BYTES
    }
}

impl Canister {
    pub fn snapshot_bytes(&self) -> u64 {
        self.snapshots.values().map(Snapshot::bytes).sum()
    }
}

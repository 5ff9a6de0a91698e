//! Snapshots: a canister's code and memories, kept beside it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::canister::Canister;
use crate::machine::Image;

/// Snapshots of one canister, as on the Internet Computer.
pub const SNAPSHOTS_MAX: usize = 10;

/// One snapshot.
#[derive(Serialize, Deserialize)]
pub struct Snapshot {
    pub taken_ns: u64,
    pub version: u64,
    pub module: [u8; 32],
    pub wasm_bytes: u64,
    pub image: Image,
    pub certified_data: Vec<u8>,
    pub chunks: BTreeMap<[u8; 32], Vec<u8>>,
}

impl Snapshot {
    /// Everything that storage is paid for.
    pub fn bytes(&self) -> u64 {
        let chunks: usize = self.chunks.values().map(Vec::len).sum();
        self.image.bytes() + self.wasm_bytes + chunks as u64
    }
}

impl Canister {
    pub fn snapshot_bytes(&self) -> u64 {
        self.snapshots.values().map(Snapshot::bytes).sum()
    }
}

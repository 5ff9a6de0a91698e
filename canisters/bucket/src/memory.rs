//! Which part of stable memory holds what. A number is never used for something else later.

use ic_stable_structures::{
    DefaultMemoryImpl,
    memory_manager::{MemoryId, MemoryManager, VirtualMemory},
};

pub type Memory = VirtualMemory<DefaultMemoryImpl>;

pub const CONFIG: u8 = 0;
pub const TOTALS: u8 = 1;
pub const SECRET: u8 = 2;
pub const ISSUERS: u8 = 3;
pub const USERS: u8 = 4;
pub const USERS_CHANGED: u8 = 5;
pub const BLOBS: u8 = 6;
pub const REFERENCES: u8 = 7;
pub const BY_OWNER: u8 = 8;
pub const BY_ACCESSOR: u8 = 9;
pub const ACCESSORS_DELETED: u8 = 10;
pub const DELETIONS: u8 = 11;
pub const SESSIONS: u8 = 12;
pub const GONE: u8 = 13;
pub const FAILURES: u8 = 14;
pub const DUE: u8 = 15;
pub const VERIFYING: u8 = 16;
pub const LOG_EVENTS: u8 = 17;
pub const LOG_ENDS: u8 = 18;
pub const CURSORS: u8 = 19;
pub const STORE_RECORDS: u8 = 20;
pub const STORE_CHUNKS: u8 = 21;
pub const STORE_FREE: u8 = 22;
pub const STORE_FREE_BY_SIZE: u8 = 23;
pub const STORE_HEADER: u8 = 24;
pub const STORE_DATA: u8 = 25;
pub const USERS_DYING: u8 = 26;
pub const LEASES_IDLE: u8 = 27;
pub const DOUBTS: u8 = 28;
pub const WATCH: u8 = 29;
pub const INDEX_VERSION: u8 = 31;
pub const REVOCATIONS: u8 = 32;

/// Pages of 64 KiB that a part of stable memory grows by. The manager counts at most 32,768 such steps,
/// so 16 MiB reach the 500 GiB that a canister may have.
const STEP_PAGES: u16 = 256;

pub struct Memories(MemoryManager<DefaultMemoryImpl>);

impl Memories {
    pub fn open(memory: DefaultMemoryImpl) -> Self {
        Self(MemoryManager::init_with_bucket_size(memory, STEP_PAGES))
    }

    pub fn get(&self, id: u8) -> Memory {
        self.0.get(MemoryId::new(id))
    }
}

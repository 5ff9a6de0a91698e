//! Where everything lives in stable memory. A number is never used again for something else: 1 was the one secret
//! of before there were versions of it.

use candid::Principal;
use ic_stable_structures::{
    DefaultMemoryImpl,
    memory_manager::{MemoryId, MemoryManager, VirtualMemory},
};

pub type Memory = VirtualMemory<DefaultMemoryImpl>;

pub const CONFIG: MemoryId = MemoryId::new(0);
pub const CREATION: MemoryId = MemoryId::new(2);
pub const TOTALS: MemoryId = MemoryId::new(3);
pub const USERS: MemoryId = MemoryId::new(4);
pub const LEASES: MemoryId = MemoryId::new(5);
pub const HOMES: MemoryId = MemoryId::new(6);
pub const BUCKETS: MemoryId = MemoryId::new(7);
pub const ISSUERS: MemoryId = MemoryId::new(8);
pub const DELETED_ACCESSORS: MemoryId = MemoryId::new(9);
pub const LOG_EVENTS: MemoryId = MemoryId::new(10);
pub const LOG_ENDS: MemoryId = MemoryId::new(11);
pub const SWEEPS: MemoryId = MemoryId::new(12);
pub const HOMES_BY_BUCKET: MemoryId = MemoryId::new(13);
pub const FEED: MemoryId = MemoryId::new(14);
pub const FEED_BY_OWNER: MemoryId = MemoryId::new(15);
pub const FEED_FORGOTTEN: MemoryId = MemoryId::new(16);
pub const REVOCATIONS: MemoryId = MemoryId::new(17);
pub const WATCH: MemoryId = MemoryId::new(18);
pub const TRUSTED: MemoryId = MemoryId::new(19);
pub const USERS_LIVING: MemoryId = MemoryId::new(20);
pub const FLEET: MemoryId = MemoryId::new(30);
pub const LINES: MemoryId = MemoryId::new(31);
pub const FORGETTING: MemoryId = MemoryId::new(32);
pub const KEYS: MemoryId = MemoryId::new(33);
pub const PAIRS: MemoryId = MemoryId::new(34);
pub const TROUBLES: MemoryId = MemoryId::new(35);
pub const SET_ASIDE: MemoryId = MemoryId::new(36);
pub const FEED_SHARES: MemoryId = MemoryId::new(37);

/// Pages of 64 KiB that a memory grows by at once: 1 MiB. The manager has 32,768 such steps, so an
/// index may take 32 GiB, and an empty one takes 25 MiB.
const STEP_PAGES: u16 = 16;

pub fn manager(memory: DefaultMemoryImpl) -> MemoryManager<DefaultMemoryImpl> {
    MemoryManager::init_with_bucket_size(memory, STEP_PAGES)
}

/// No principal is greater: of full length, all bits set.
pub const LAST: Principal = Principal::from_slice(&[255; 29]);

/// The bytes of a row of numbers, little-endian one after the other.
pub fn row_bytes<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers.map(u64::to_le_bytes).concat()
}

/// The numbers of [`row_bytes`]; those that an older, shorter row lacks are 0.
pub fn row_numbers<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut numbers = [0; N];
    for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *number = u64::from_le_bytes(*bytes);
    }
    numbers
}

//! Where each stable structure lives. A number is never used again for something else.

use ic_stable_structures::{
    DefaultMemoryImpl,
    memory_manager::{MemoryId, MemoryManager, VirtualMemory},
};

pub type Memory = VirtualMemory<DefaultMemoryImpl>;
pub type Manager = MemoryManager<DefaultMemoryImpl>;

pub const INDEX: MemoryId = MemoryId::new(0);
pub const SECRET: MemoryId = MemoryId::new(1);
pub const INDEX_KEY: MemoryId = MemoryId::new(2);
pub const BUCKET_KEYS: MemoryId = MemoryId::new(3);
pub const BUCKETS_AWAITED: MemoryId = MemoryId::new(4);
pub const USERS: MemoryId = MemoryId::new(5);
pub const USERS_PENDING: MemoryId = MemoryId::new(6);
pub const CHATS: MemoryId = MemoryId::new(7);
pub const MEMBERS: MemoryId = MemoryId::new(8);
pub const MEMBERSHIPS: MemoryId = MemoryId::new(9);
pub const CHATS_IN_REMOVAL: MemoryId = MemoryId::new(10);
pub const MESSAGES: MemoryId = MemoryId::new(11);
pub const BLOBS_SHOWN: MemoryId = MemoryId::new(12);
pub const LINES: MemoryId = MemoryId::new(13);

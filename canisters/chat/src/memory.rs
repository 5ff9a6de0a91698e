//! Where each stable structure lives. A number is never used again for something else; 1 to 4 held
//! keys before these had versions.

use ic_stable_structures::{
    DefaultMemoryImpl,
    memory_manager::{MemoryId, MemoryManager, VirtualMemory},
};

pub type Memory = VirtualMemory<DefaultMemoryImpl>;
pub type Manager = MemoryManager<DefaultMemoryImpl>;

pub const INDEX: MemoryId = MemoryId::new(0);
pub const USERS: MemoryId = MemoryId::new(5);
pub const USERS_PENDING: MemoryId = MemoryId::new(6);
pub const CHATS: MemoryId = MemoryId::new(7);
pub const MEMBERS: MemoryId = MemoryId::new(8);
pub const MEMBERSHIPS: MemoryId = MemoryId::new(9);
pub const CHATS_IN_REMOVAL: MemoryId = MemoryId::new(10);
pub const MESSAGES: MemoryId = MemoryId::new(11);
pub const BLOBS_SHOWN: MemoryId = MemoryId::new(12);
pub const LINES: MemoryId = MemoryId::new(13);
pub const OWN_KEYS: MemoryId = MemoryId::new(14);
pub const BUCKETS: MemoryId = MemoryId::new(15);
pub const SHARED_KEYS: MemoryId = MemoryId::new(16);
pub const BUCKETS_DUE: MemoryId = MemoryId::new(17);
pub const WATCH: MemoryId = MemoryId::new(18);
pub const REGISTRATIONS: MemoryId = MemoryId::new(19);
pub const ORIGINS: MemoryId = MemoryId::new(20);
pub const CHATS_SET_ASIDE: MemoryId = MemoryId::new(21);

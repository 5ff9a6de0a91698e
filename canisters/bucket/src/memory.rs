//! Which part of stable memory holds what. A number is never used for something else later; those that are
//! missing held something else before the first release.

use ic_stable_structures::DefaultMemoryImpl;
use openstorage_segments::{OpenError, SegmentMemory, Segments};

pub type Memory = SegmentMemory<DefaultMemoryImpl>;

pub const CONFIG: u8 = 0;
pub const TOTALS: u8 = 1;
pub const ISSUERS: u8 = 3;
pub const USERS_CHANGED: u8 = 5;
pub const REFERENCES: u8 = 7;
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
pub const STORE_SLOTS: u8 = 20;
pub const STORE_EXTENTS: u8 = 21;
pub const STORE_PENDING: u8 = 22;
pub const STORE_FREE: u8 = 23;
pub const STORE_FREE_BY_SIZE: u8 = 24;
pub const STORE_DATA: u8 = 25;
pub const USERS_DYING: u8 = 26;
pub const LEASES_IDLE: u8 = 27;
pub const DOUBTS: u8 = 28;
pub const WATCH: u8 = 29;
pub const OPERATION: u8 = 30;
pub const LINES: u8 = 31;
pub const REVOCATIONS: u8 = 32;
pub const INDEX_VERSION: u8 = 33;
pub const KEYS: u8 = 34;
pub const PAIRS: u8 = 35;
pub const DRAWS: u8 = 36;
pub const SET_ASIDE: u8 = 37;
pub const SHARED_ANSWERS: u8 = 39;
pub const CERTIFIED: u8 = 40;
pub const PARTS: u8 = 41;
pub const PART_TREES: u8 = 42;
pub const USERS: u8 = 43;
pub const ACCOUNTS: u8 = 44;
pub const BLOBS: u8 = 45;
pub const LATER_SIGHTS: u8 = 46;

pub struct Memories(Segments<DefaultMemoryImpl>);

impl Memories {
    /// # Panics
    /// When the memory holds something else, or a layout of a version that this code does not know. In a
    /// canister that is a trap before anything is written: an upgrade fails and leaves what was there.
    pub fn open(memory: DefaultMemoryImpl) -> Self {
        match Segments::open(memory) {
            Ok(segments) => Self(segments),
            Err(error @ OpenError::Version { .. }) => {
                panic!("{error}: it is a bucket's of another build, make a new bucket")
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub fn get(&self, id: u8) -> Memory {
        self.0.get(id)
    }
}

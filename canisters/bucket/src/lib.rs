//! A bucket: blobs in stable memory, who refers to them, and the reads that tokens open.
//!
//! The core of the canister: it knows no `ic_cdk`. Caller and [`Now`] come in as arguments, calls that
//! are needed come out as values. Everything lives in stable memory; an upgrade copies nothing.
//!
//! | module | what |
//! | --- | --- |
//! | `push` | chunks come in, uploads are finished, aborted, expired |
//! | `refer` | references come and go; a blob lives as long as it has one |
//! | `read` | what a caller or a token may see |
//! | `http` | blobs, status and metrics for browsers |
//! | `gateway` | the Candid of that, where it would cost more than all else |
//! | `request` | what a browser asks for, read piece by piece |
//! | `answers` | the answers that are certified: headers and hashes |
//! | `certify` | the tree that a gateway verifies them with |
//! | `sync` | events to and from the index |
//! | `users` | leases, recalls, deletions of users |
//! | `access` | the issuers, the tokens that were taken back, the chunks that prove possession |
//! | `accounts`, `uploads`, `references` | the tables |
//! | `audit` | the counters, counted anew |
//! | `work` | the jobs that the bucket does by itself, and the rows that are set aside |
//! | `callers` | who may usefully call what |
//! | `operation` | version, cycles, and whether the index has closed the bucket |
//! | `memory` | where the tables lie |
//! | `mutants` | bugs on purpose, in builds for the simulation only |

mod access;
mod accounts;
mod answers;
mod audit;
pub mod callers;
mod certify;
pub mod gateway;
mod http;
mod memory;
mod mutants;
mod operation;
mod push;
mod read;
mod refer;
mod references;
pub mod request;
mod sync;
mod uploads;
mod users;
mod work;

use std::borrow::Cow;

use candid::{CandidType, Principal};
use ic_stable_structures::{
    DefaultMemoryImpl, StableBTreeMap, StableCell, Storable, storable::Bound,
};
use openstorage_blobstore::BlobStore;
use openstorage_channel::{Log, Watch};
use openstorage_types::{
    BlobId,
    bucket::{BucketStatus, InitArgs, VERSION},
    channel::{LeaseArgs, RevokeKeyError, RotateKeyError},
    limits::BUCKET_BYTES_MAX,
};
use serde::{Deserialize, Serialize};

use access::Access;
use accounts::Accounts;
pub use audit::{Contradiction, Held, Inventory};
use certify::Certify;
pub use http::Answer;
use memory::{Memories, Memory};
use mutants::Mutant;
use openstorage_canister::{Row, lines::Lines};
use operation::Operation;
pub use push::Chunk;
pub use read::Part;
use references::References;
use sync::Cursors;
pub use sync::Outgoing;
use uploads::Uploads;
use work::Asides;
use work::ISSUERS_PER_SLICE;
pub use work::{Job, WorkRow};

/// When a message is executed.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Milliseconds since 1970.
    pub ms: u64,
    /// The canister's version, for events.
    pub version: u64,
}

/// A call cannot be finished here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop<E> {
    /// It failed.
    Error(E),
    /// Ask the index for allowance first, give its answer to [`Bucket::leased`], then call again.
    Lease(LeaseArgs),
}

impl<E> From<E> for Stop<E> {
    fn from(error: E) -> Self {
        Self::Error(error)
    }
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone)]
struct Config {
    index: Principal,
    bytes_max: u64,
    /// As it was installed: what is certified says so.
    strict_cache: Option<bool>,
    #[cfg(feature = "mutants")]
    mutant: Option<u32>,
    #[cfg(feature = "mutants")]
    trap: Option<openstorage_types::bucket::Trap>,
}

/// Four numbers of 8 bytes, little-endian, in the order of the fields: written with almost every message.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    bytes_stored: u64,
    /// Held by open uploads: what has arrived, and what is promised to the rest.
    bytes_reserved: u64,
    references_made: u64,
    /// Events that could not be applied.
    events_skipped: u64,
}

impl Storable for Totals {
    const BOUND: Bound = Bound::Bounded {
        max_size: 32,
        is_fixed_size: true,
    };

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        let numbers = [
            self.bytes_stored,
            self.bytes_reserved,
            self.references_made,
            self.events_skipped,
        ];
        numbers.map(u64::to_le_bytes).concat().into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        Self {
            bytes_stored: number_at(&bytes, 0),
            bytes_reserved: number_at(&bytes, 8),
            references_made: number_at(&bytes, 16),
            events_skipped: number_at(&bytes, 24),
        }
    }
}

fn number_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// A blob that is stored.
#[derive(Debug, Clone, Copy)]
struct Stored {
    slot: u64,
    size: u64,
    /// It lives as long as it has one.
    references: u64,
}

pub struct Bucket {
    config: StableCell<Row<Config>, Memory>,
    totals: StableCell<Totals, Memory>,
    access: Access,
    accounts: Accounts,
    uploads: Uploads,
    references: References,
    /// To their slots, in the store.
    blobs: StableBTreeMap<[u8; 32], u64, Memory>,
    /// The note beside a blob is the number of its references.
    store: BlobStore<Memory>,
    certify: Certify,
    accessors_deleted: StableBTreeMap<Principal, (), Memory>,
    /// Deleted accessors whose references are not all gone yet.
    deletions: StableBTreeMap<Principal, (), Memory>,
    log: Log<Memory>,
    cursors: StableCell<Row<Cursors>, Memory>,
    watch: Watch<Memory>,
    /// The newest version of the index that was seen.
    index_version: StableCell<u64, Memory>,
    operation: Operation,
    lines: Lines<Memory>,
    asides: Asides,
    /// As last observed: how long some job has waited, with the one that tells the index and without it.
    overdue_ms: (u64, u64),
    /// The index has not heard of this bucket's key and space since they came about.
    report_due: bool,
    /// The room that the index was told of last. Forgotten in an upgrade, when a report is due anyway.
    told_free: Option<u64>,
}

impl Bucket {
    /// A new bucket, or the one that is in `memory` already. `own` is this canister. `args` are needed
    /// for a new one and change what is there otherwise.
    pub fn open(memory: DefaultMemoryImpl, own: Principal, args: Option<InitArgs>) -> Self {
        let memories = Memories::open(memory);
        let config = args.map(|args| Config {
            index: args.index,
            bytes_max: args.bytes_max.unwrap_or(BUCKET_BYTES_MAX),
            strict_cache: args.strict_cache,
            #[cfg(feature = "mutants")]
            mutant: args.mutant,
            #[cfg(feature = "mutants")]
            trap: args.trap,
        });
        let nobody = Config {
            index: Principal::anonymous(),
            bytes_max: 0,
            strict_cache: None,
            #[cfg(feature = "mutants")]
            mutant: None,
            #[cfg(feature = "mutants")]
            trap: None,
        };
        let cell = |id| memories.get(id);
        // First, before anything is read that a newer version may have written.
        let operation = Operation::open(cell(memory::OPERATION));
        let store = BlobStore::init(openstorage_blobstore::Memories {
            slots: cell(memory::STORE_SLOTS),
            extents: cell(memory::STORE_EXTENTS),
            pending: cell(memory::STORE_PENDING),
            free: cell(memory::STORE_FREE),
            free_by_size: cell(memory::STORE_FREE_BY_SIZE),
            data: cell(memory::STORE_DATA),
        });
        let store = store.unwrap_or_else(|error| panic!("{error}"));
        let mut stored = StableCell::init(cell(memory::CONFIG), Row(nobody));
        if let Some(mut config) = config {
            let known = &stored.get().0;
            if known.index != Principal::anonymous() {
                config.strict_cache = known.strict_cache;
            }
            stored.set(Row(config));
        }
        let is_strict = stored.get().0.strict_cache == Some(true);
        Self {
            config: stored,
            totals: StableCell::init(cell(memory::TOTALS), Totals::default()),
            access: Access::open(&memories, own),
            accounts: Accounts::open(&memories),
            uploads: Uploads::open(&memories),
            references: References::open(&memories),
            blobs: StableBTreeMap::init(cell(memory::BLOBS)),
            store,
            certify: Certify::open(&memories, is_strict),
            accessors_deleted: StableBTreeMap::init(cell(memory::ACCESSORS_DELETED)),
            deletions: StableBTreeMap::init(cell(memory::DELETIONS)),
            log: Log::init(cell(memory::LOG_EVENTS), cell(memory::LOG_ENDS)),
            cursors: StableCell::init(cell(memory::CURSORS), Row(Cursors::default())),
            watch: Watch::init(cell(memory::WATCH)),
            index_version: StableCell::init(cell(memory::INDEX_VERSION), 0),
            operation,
            lines: Lines::init(cell(memory::LINES)),
            asides: Asides::open(cell(memory::SET_ASIDE)),
            overdue_ms: (0, 0),
            report_due: true,
            told_free: None,
        }
    }

    /// The index that this bucket belongs to.
    pub fn index(&self) -> Principal {
        self.config.get().0.index
    }

    pub fn knows(&self, user: &Principal) -> bool {
        self.accounts.knows(user)
    }

    pub fn has_secret(&self) -> bool {
        !self.access.audience.keys.is_empty()
    }

    /// When 32 random bytes are needed for a new key, in milliseconds since 1970; 0 for at once.
    pub fn secret_due_ms(&self) -> u64 {
        self.access.audience.keys.due_ms()
    }

    /// 32 random bytes for the key that is due; later ones are of no use.
    pub fn set_secret(&mut self, random: [u8; 32], now: Now) {
        if self.access.audience.keys.add(random, now.ms) {
            self.derive_slice();
        }
    }

    /// A new key is not told before all issuers share one with it.
    pub fn is_deriving(&self) -> bool {
        self.access.audience.is_deriving()
    }

    /// Computes some of what a new key shares with issuers.
    pub fn derive_slice(&mut self) {
        self.derive_issuers(ISSUERS_PER_SLICE);
    }

    /// The same, of `max` issuers at most.
    pub(crate) fn derive_issuers(&mut self, max: usize) {
        self.report_due |= self.access.derive_slice(max);
    }

    /// A new key is drawn soon, by a controller's wish; tokens under the one before are believed until the last
    /// of them has lapsed.
    pub fn rotate_key(&mut self, is_controller: bool, now: Now) -> Result<(), RotateKeyError> {
        if !is_controller {
            return Err(RotateKeyError::NotAuthorized);
        }
        self.access.audience.keys.want(now.ms)
    }

    /// Tokens under a replaced version of the key are believed no longer, by a controller's wish.
    pub fn revoke_key(&mut self, is_controller: bool, version: u16) -> Result<(), RevokeKeyError> {
        if !is_controller {
            return Err(RevokeKeyError::NotAuthorized);
        }
        self.access.audience.keys.revoke(version)?;
        self.report_due = true;
        Ok(())
    }

    /// What the subnet is to certify: all that browsers are shown. It must be told after every change, and
    /// after an upgrade.
    pub fn certified(&self) -> [u8; 32] {
        self.certify.root()
    }

    /// Gives the bytes of a slot back.
    fn drop_slot(&mut self, slot: u64) {
        if !self.is_mutant(Mutant::SlotKept) {
            self.store.remove(slot);
        }
        self.certify.drop_slot(slot);
    }

    fn bytes_free(&self) -> u64 {
        if self.operation.is_closed() {
            return 0;
        }
        let totals = self.totals();
        let taken = totals.bytes_stored + totals.bytes_reserved;
        self.config.get().0.bytes_max.saturating_sub(taken)
    }

    fn totals(&self) -> Totals {
        *self.totals.get()
    }

    fn count(&mut self, work: impl FnOnce(&mut Totals)) {
        let mut totals = self.totals();
        work(&mut totals);
        self.totals.set(totals);
    }

    fn in_slot(&self, slot: u64) -> Option<Stored> {
        let (size, references) = self.store.note(slot)?;
        Some(Stored {
            slot,
            size,
            references,
        })
    }

    fn stored(&self, blob: &BlobId) -> Option<Stored> {
        self.in_slot(self.blobs.get(&blob.0)?)
    }

    pub fn status(&self) -> BucketStatus {
        let totals = self.totals();
        BucketStatus {
            index: self.index(),
            blobs: self.blobs.len(),
            references: self.references.count(),
            open_uploads: self.uploads.count(),
            bytes_stored: totals.bytes_stored,
            bytes_reserved: totals.bytes_reserved,
            bytes_free: self.bytes_free(),
            events_unsent: self.events_unsent(),
            key: self.access.audience.keys.public(),
            version: VERSION,
            closed: self.operation.is_closed(),
            set_aside: Some(self.set_aside_count()),
            overdue_ms: Some(self.overdue_ms.0),
        }
    }
}

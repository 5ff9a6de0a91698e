//! The index: who may store how much, and which bucket holds which blob.
//!
//! This is the core. It knows no `ic_cdk`: caller, time and version come in as a [`Context`], and what
//! has to be called comes out as a value. `main.rs` makes the calls.
//!
//! | module | what |
//! | --- | --- |
//! | [`memory`] | where everything lives in stable memory |
//! | [`users`] | users, their limits, and the leases of the buckets |
//! | [`accounts`] | the calls about users, and the leases of their allowances |
//! | [`recalls`] | leases that are asked back |
//! | [`feed`] | changes of files, for apps that follow them |
//! | [`blobs`] | which bucket holds which blob |
//! | [`buckets`] | the buckets, and which one takes a new blob |
//! | [`allocation`] | `allocated_bucket` |
//! | [`issuers`] | whose tokens are believed, and deleted accessors |
//! | [`trust`] | the calls about issuers, keys and deletions |
//! | [`sync`] | what buckets have to be told |
//! | [`reports`] | `c2c_events`: what buckets tell |
//! | [`audit`] | the counters beside those of a bucket, counted anew |
//! | [`doubt`] | after a restored snapshot |
//! | [`sweeps`] | rows that are of no use any more |
//! | [`revocations`] | tokens that are taken back |
//! | [`creation`] | how a bucket comes to be |
//! | [`aside`] | rows of its own jobs that are set aside |
//! | [`health`] | whether buckets are well |
//! | [`upkeep`] | what a bucket's code needs: put in, checked, replaced |
//! | [`roll`] | every bucket gets the embedded code, a few at a time |
//! | [`topup`] | what a bucket's cycles need |
//! | [`forget`] | a lost bucket is given up |
//! | [`fleet`] | all of that together, and the calls of operators |
//! | [`callers`] | who may usefully call what |
//! | [`calls`] | the calls that it needs, as values |
//! | [`agenda`] | what is to be done without being asked |
//! | [`page`] | `status`, `buckets`, and the HTTP pages |

pub mod accounts;
pub mod agenda;
pub mod allocation;
pub mod aside;
pub mod audit;
pub mod backoff;
pub mod blobs;
pub mod buckets;
pub mod callers;
pub mod calls;
pub mod creation;
pub mod doubt;
pub mod feed;
pub mod fleet;
pub mod forget;
pub mod health;
pub mod issuers;
pub mod memory;
mod mutants;
pub mod page;
pub mod recalls;
pub mod reports;
pub mod revocations;
pub mod roll;
pub mod sweeps;
pub mod sync;
pub mod topup;
pub mod trust;
pub mod upkeep;
pub mod users;

pub use fleet::Moment;

use std::collections::{BTreeMap, BTreeSet};

use candid::Principal;
use ic_stable_structures::{DefaultMemoryImpl, StableBTreeMap, StableCell};
use openstorage_canister::{Row, audience::Audience, lines::Lines};
use openstorage_channel::Watch;
use openstorage_types::{BlobId, index::InitArgs};

use crate::{
    aside::Asides, backoff::Backoff, blobs::Blobs, buckets::Buckets, creation::Creation,
    feed::Feed, fleet::Fleet, forget::Forgetting, health::Health, issuers::Issuers, memory::Memory,
    recalls::Recalls, revocations::Revocations, sweeps::Sweeps, sync::SharedLog, users::Users,
};

/// What a message brings along.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// This canister.
    pub own: Principal,
    pub caller: Principal,
    /// The caller is a controller of this canister.
    pub is_controller: bool,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// This canister's version.
    pub version: u64,
}

/// When to try again with each bucket that has failed.
pub(crate) type Backoffs = BTreeMap<Principal, Backoff>;

/// All of the index.
pub struct Index {
    config: StableCell<Row<InitArgs>, Memory>,
    creation: StableCell<Row<Creation>, Memory>,
    users: Users,
    blobs: Blobs,
    buckets: Buckets,
    issuers: Issuers,
    revocations: Revocations,
    log: SharedLog,
    feed: Feed,
    sweeps: Sweeps,
    watch: Watch<Memory>,
    /// The newest version of this canister that is remembered for certain, while buckets are in doubt.
    trusted: StableCell<u64, Memory>,
    fleet: StableCell<Row<Fleet>, Memory>,
    lines: Lines<Memory>,
    /// Lost buckets, and how far each is forgotten.
    forgetting: StableBTreeMap<Principal, Row<Forgetting>, Memory>,
    /// Of the Wasm that buckets get; none when there is none.
    bucket_wasm: Option<BlobId>,
    /// The rest is forgotten in an upgrade.
    secret_backoff: Backoff,
    creation_backoff: Backoff,
    upkeep_backoffs: Backoffs,
    topup_backoffs: Backoffs,
    send_backoffs: Backoffs,
    /// Buckets that may have been restored from a snapshot: they are asked how far they have heard.
    to_ask: BTreeSet<Principal>,
    health: Health,
    asides: Asides,
    /// Who controls the index; none until it has asked.
    own_controllers: Option<Vec<Principal>>,
    recalls: Recalls,
    /// Batches that were answered since the log was last compacted.
    answers: usize,
    /// Events of a kind or form that is not known.
    events_skipped: u64,
    /// Users of buckets that this index did not know.
    users_adopted: u64,
    restorations_suspected: u64,
}

impl Index {
    /// Opens what is in `memory`, or begins with nothing; `own` is this canister.
    pub fn open(memory: DefaultMemoryImpl, own: Principal, bucket_wasm: Option<BlobId>) -> Self {
        let memory = memory::manager(memory);
        let at = |id| memory.get(id);
        Self {
            config: StableCell::init(at(memory::CONFIG), Row(InitArgs::default())),
            creation: StableCell::init(at(memory::CREATION), Row(Creation::default())),
            users: Users::init(
                at(memory::USERS),
                at(memory::LEASES),
                at(memory::USERS_LIVING),
            ),
            blobs: Blobs::init(
                at(memory::HOMES),
                at(memory::HOMES_BY_BUCKET),
                at(memory::TOTALS),
            ),
            buckets: Buckets::init(at(memory::BUCKETS), at(memory::TROUBLES)),
            issuers: Issuers::init(
                Audience::open(at(memory::KEYS), at(memory::PAIRS), own),
                at(memory::ISSUERS),
                at(memory::DELETED_ACCESSORS),
            ),
            revocations: Revocations::init(at(memory::REVOCATIONS)),
            log: SharedLog::init(at(memory::LOG_EVENTS), at(memory::LOG_ENDS)),
            feed: Feed::init(
                at(memory::FEED),
                at(memory::FEED_BY_OWNER),
                at(memory::FEED_FORGOTTEN),
                at(memory::FEED_SHARES),
            ),
            sweeps: Sweeps::init(at(memory::SWEEPS)),
            watch: Watch::init(at(memory::WATCH)),
            trusted: StableCell::init(at(memory::TRUSTED), 0),
            fleet: StableCell::init(at(memory::FLEET), Row(Fleet::default())),
            lines: Lines::init(at(memory::LINES)),
            forgetting: StableBTreeMap::init(at(memory::FORGETTING)),
            bucket_wasm,
            secret_backoff: Backoff::default(),
            creation_backoff: Backoff::default(),
            upkeep_backoffs: BTreeMap::new(),
            topup_backoffs: BTreeMap::new(),
            own_controllers: None,
            send_backoffs: BTreeMap::new(),
            to_ask: BTreeSet::new(),
            health: Health::default(),
            asides: Asides::init(at(memory::SET_ASIDE)),
            recalls: Recalls::default(),
            answers: 0,
            events_skipped: 0,
            users_adopted: 0,
            restorations_suspected: 0,
        }
    }

    fn config(&self) -> &InitArgs {
        &self.config.get().0
    }

    pub fn configure(&mut self, config: &InitArgs) {
        self.config.set(Row(config.clone()));
    }

    /// An admin may do everything.
    pub fn is_admin(&self, context: &Context) -> bool {
        context.is_controller || self.config().admins.contains(&context.caller)
    }

    /// An admin, or an app that is trusted.
    pub fn is_service(&self, context: &Context) -> bool {
        self.is_admin(context) || self.issuers.contains(&context.caller)
    }

    /// An admin, an app that is trusted, or a bucket.
    pub fn knows(&self, context: &Context) -> bool {
        self.is_service(context) || self.buckets.get(&context.caller).is_some()
    }

    /// Adds to what all buckets will be told.
    fn tell(&mut self, context: &Context, (kind, bytes): (u16, Vec<u8>)) {
        self.log.append(context.version, kind, bytes);
    }
}

//! The calls that the fleet needs, as values: the core says which is next and takes what came back;
//! `main.rs` makes them. One call at a time for each job, so every await lies between two messages that
//! each leave everything on record.

use candid::Principal;
use openstorage_types::{
    BlobId,
    bucket::{self, BucketStatus},
};

/// A call to the management canister, or to a bucket where that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `canister_info` of the index.
    OwnControllers,
    /// `create_canister`, with so many cycles for the new one.
    Create {
        controllers: Vec<Principal>,
        cycles: u128,
    },
    /// `canister_status`.
    Look(Principal),
    /// `install_code` of the embedded Wasm: into an empty canister.
    Install {
        bucket: Principal,
        args: bucket::InitArgs,
    },
    /// The same, in place of older code.
    Upgrade {
        bucket: Principal,
        args: bucket::InitArgs,
    },
    /// `stop_canister`.
    Stop(Principal),
    /// `start_canister`.
    Start(Principal),
    /// `status` of the bucket.
    Ask(Principal),
    /// `c2c_set_closed` of the bucket.
    SetClosed { bucket: Principal, closed: bool },
    /// `deposit_cycles`.
    Deposit { bucket: Principal, cycles: u128 },
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing but that it is done.
    Done,
    Controllers(Vec<Principal>),
    Created(Principal),
    Seen(Look),
    Told(BucketStatus),
}

/// What `canister_status` shows of a canister.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    pub running: bool,
    /// SHA-256 of its module; none when it is empty.
    pub module: Option<BlobId>,
    pub controllers: Vec<Principal>,
    pub balance: u128,
    /// With less than this it is frozen.
    pub freezing_at: u128,
    /// Burned in a day by merely being there.
    pub idle_per_day: u128,
}

/// Why nothing, or nothing good, came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It had no effect, and its cycles are back. `passing`: the same may go well a little later.
    Rejected { passing: bool, text: String },
    /// It may have had its effect.
    Unknown(String),
}

impl Failure {
    pub fn text(&self) -> &str {
        match self {
            Self::Rejected { text, .. } | Self::Unknown(text) => text,
        }
    }
}

pub type Outcome = Result<Answer, Failure>;

//! Bugs on purpose, one of which an initial argument chooses: the simulation must find each. Nothing of this is
//! in a bucket that is built without the feature `mutants`.

use openstorage_types::limits::HOUR_MS;

use crate::Bucket;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A reference that goes gives its bytes back twice.
    FreedTwice = 1,
    /// An upload takes bytes that were never leased.
    NotLeased = 2,
    /// The bytes of a blob that goes stay taken.
    SlotKept = 3,
    /// Whoever has somebody's token may read.
    TokenOfAnybody = 4,
    /// The deletion of a user is heard and not done.
    DeletionDropped = 5,
    /// A small blob is stored under whatever id is said.
    HashSkipped = 6,
    /// A reference to what its accessor sees already is not shown when the older one goes.
    WaitingForgotten = 7,
    /// An upload of which all chunks are in has no turn to be verified.
    TurnLost = 8,
    /// The bytes of an upload that is dropped stay taken.
    UploadKept = 9,
    /// An upload lapses after an hour.
    EarlyExpiry = 10,
    /// Whoever has an own reference is shown the type of another's.
    TypeOfAnother = 11,
    /// Whatever chunk is shown of a stored blob is taken for it.
    PossessionSkipped = 12,
    /// Tokens that were taken back are believed.
    RevocationIgnored = 13,
    /// An idle lease is not given back.
    LeaseKept = 14,
}

impl Bucket {
    /// By how much uploads lapse too early.
    pub(crate) fn early_ms(&self) -> u64 {
        match self.is_mutant(Mutant::EarlyExpiry) {
            true => 23 * HOUR_MS,
            false => 0,
        }
    }

    /// Whether the bucket is to have this bug.
    pub(crate) fn is_mutant(&self, mutant: Mutant) -> bool {
        #[cfg(feature = "mutants")]
        return self.config.get().0.mutant == Some(mutant as u32);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = mutant;
            false
        }
    }
}

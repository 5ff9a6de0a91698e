//! Bugs on purpose, one of which an initial argument chooses: the simulation must find each. Nothing of this is
//! in a bucket that is built without the feature `mutants`.

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
}

impl Bucket {
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

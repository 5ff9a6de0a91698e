//! Bugs on purpose, as those of buckets (`canisters/bucket/src/mutants.rs`): nothing of this is in an index that is
//! built without the feature `mutants`.

use crate::Index;

/// A bug. Buckets have the lower numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The feed does not say that a reference has gone.
    FeedRowLost = 21,
    /// A bucket that has a blob no more is still said to have it.
    HomeKept = 22,
    /// Buckets do not hear that a user is deleted.
    DeletionUntold = 23,
}

impl Index {
    /// Whether the index is to have this bug.
    pub(crate) fn is_mutant(&self, mutant: Mutant) -> bool {
        #[cfg(feature = "mutants")]
        return self.config().mutant == Some(mutant as u32);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = mutant;
            false
        }
    }
}

//! Notices that this canister was restored from a snapshot.
//!
//! A restored snapshot takes back everything that a canister remembers, but not its version, which the
//! system raises by one for every message it executes and for every change of code, settings and status.
//! A canister that notes the version in every message finds a gap after it was restored: the messages
//! between the snapshot and the restoration.

use ic_stable_structures::{Memory, StableCell};

/// Changes between two noted messages that the canister's own code does not see: it is stopped and started, or
/// cleans up after an answer whose message trapped.
const UNSEEN_MAX: u64 = 2;

/// The newest version of this canister that was noted: a `StableCell<u64>`.
pub struct Watch<M: Memory> {
    noted: StableCell<u64, M>,
}

impl<M: Memory> Watch<M> {
    pub fn init(memory: M) -> Self {
        Self {
            noted: StableCell::init(memory, 0),
        }
    }

    /// Notes the canister's version, in every message. True when there is a gap that ordinary life does
    /// not explain: this canister may have been restored from a snapshot. An upgrade, or a change of its
    /// settings, may look the same; whoever believes it compares itself with its peers, and no more.
    pub fn note(&mut self, version: u64) -> bool {
        self.has_gap(version, UNSEEN_MAX)
    }

    /// The same, where a question to the peers is cheap: a gap of one change is one. A snapshot that is restored is a
    /// change itself, so none goes unnoticed, however little was done since it was taken.
    pub fn note_strictly(&mut self, version: u64) -> bool {
        self.has_gap(version, 0)
    }

    fn has_gap(&mut self, version: u64, unseen_max: u64) -> bool {
        let noted = *self.noted.get();
        if noted == version {
            return false;
        }
        self.noted.set(version);
        noted != 0 && !(noted..=noted + 1 + unseen_max).contains(&version)
    }

    /// The newest version that was noted.
    pub fn noted(&self) -> u64 {
        *self.noted.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ic_stable_structures::VectorMemory;

    #[test]
    fn a_gap_is_noticed_once() {
        let memory = VectorMemory::default();
        let mut watch = Watch::init(memory.clone());
        assert!(!watch.note(70));
        assert!(!watch.note(70));
        assert!(!watch.note(71) && !watch.note(74));
        assert!(!watch.note_strictly(75) && watch.note_strictly(77));
        let mut watch = Watch::init(memory);
        assert!(watch.note(81));
        assert!(!watch.note(82));
        assert_eq!(watch.noted(), 82);
    }
}

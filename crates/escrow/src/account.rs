//! A bucket's side: one user's lease, and what of it is promised to open uploads.

use openstorage_types::channel::Counters;

/// One user in one bucket. `lease ≥ reserved` holds at every step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    pub counters: Counters,
    /// Bytes promised to open uploads.
    pub reserved: u64,
}

/// The lease is short of so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    pub bytes: u64,
}

impl Account {
    /// Bytes of the lease that nothing is promised to.
    pub fn available(&self) -> u64 {
        self.counters.lease().saturating_sub(self.reserved)
    }

    /// What to ask the index for, so that `size` bytes can be stored; 0 where they can.
    pub fn shortage(&self, size: u64) -> u64 {
        size.saturating_sub(self.available())
    }

    /// The index has granted so much in all.
    pub fn granted(&mut self, granted: u64) {
        self.counters.granted = self.counters.granted.max(granted);
    }

    /// Promises bytes of the lease to an upload.
    pub fn reserve(&mut self, size: u64) -> Result<(), Short> {
        match self.shortage(size) {
            0 => {
                self.reserved += size;
                Ok(())
            }
            bytes => Err(Short { bytes }),
        }
    }

    /// An upload that had reserved `size` has ended, well or badly.
    pub fn release(&mut self, size: u64) {
        self.reserved = self.reserved.saturating_sub(size);
    }

    /// A blob is charged. Whoever spends has made sure that so much is [available](Self::available).
    pub fn spend(&mut self, size: u64) {
        debug_assert!(self.available() >= size, "{self:?} cannot spend {size}");
        self.counters.spent = self.counters.spent.saturating_add(size);
    }

    /// A charged blob is gone.
    pub fn free(&mut self, size: u64) {
        self.counters.freed = self.counters.freed.saturating_add(size);
    }

    /// Gives back what of the lease is not reserved. Returns how much that was.
    pub fn give_back(&mut self) -> u64 {
        let bytes = self.available();
        self.counters.returned = self.counters.returned.saturating_add(bytes);
        bytes
    }

    /// Takes what the index knows, which may be more than this side does: this bucket may have been
    /// restored from a snapshot. What is stored stays the truth, so the counters are moved up until they
    /// say it. Returns the bytes that are reserved without a lease: that many must be
    /// [released](Self::release).
    pub fn reconcile(&mut self, at_index: &Counters) -> u64 {
        let used = self.counters.used();
        self.counters.merge(at_index);
        let said = self.counters.used();
        if said > used {
            self.free(said - used);
        } else {
            self.counters.spent = self.counters.spent.saturating_add(used - said);
        }
        self.reserved.saturating_sub(self.counters.lease())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(granted: u64, spent: u64, freed: u64, returned: u64, reserved: u64) -> Account {
        Account {
            counters: Counters {
                granted,
                spent,
                freed,
                returned,
            },
            reserved,
        }
    }

    #[test]
    fn what_is_stored_survives_a_reconciliation_and_a_returned_lease_does_not_come_back() {
        // A snapshot of before 30 bytes were freed and 20 returned.
        let mut restored = account(100, 60, 0, 0, 15);
        let known = account(100, 60, 30, 40, 0).counters;
        assert_eq!(restored.reconcile(&known), 15);
        assert_eq!(restored.counters.used(), 60);
        assert_eq!(restored.counters.lease(), 0);

        // A snapshot of before 30 bytes were stored.
        let mut restored = account(100, 10, 0, 0, 0);
        let known = account(100, 40, 0, 0, 0).counters;
        assert_eq!(restored.reconcile(&known), 0);
        assert_eq!(restored.counters.used(), 10);
        assert_eq!(restored.counters.lease(), 60);
    }

    #[test]
    fn only_what_is_not_reserved_is_given_back() {
        let mut account = account(100, 20, 0, 0, 50);
        assert_eq!(account.give_back(), 30);
        assert_eq!((account.available(), account.counters.lease()), (0, 50));
        assert_eq!(account.reserve(1), Err(Short { bytes: 1 }));
    }
}

//! The index's side: one user's limit, and the sums over the buckets that hold some of it.

use openstorage_types::{
    channel::Counters,
    limits::{LEASE_BYTES_MIN, POOL_LOW_BYTES},
};

/// One user's allowance. The sums are kept so that no question walks all buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pool {
    pub byte_limit: u64,
    /// Stored, over all buckets, as far as the index has heard.
    pub used: u64,
    /// Promised and not known to be spent or returned, over all buckets.
    pub leased: u64,
}

/// The pool has not enough for a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// Bytes that were wanted and are not in the pool.
    pub missing: u64,
}

impl Pool {
    pub fn new(byte_limit: u64) -> Self {
        Self {
            byte_limit,
            ..Self::default()
        }
    }

    /// Bytes that may still be granted.
    pub fn free(&self) -> u64 {
        self.byte_limit
            .saturating_sub(self.used)
            .saturating_sub(self.leased)
    }

    /// Takes what a bucket says. `at_index` are that bucket's counters as the index has them. False when
    /// nothing in it is new.
    pub fn hear(&mut self, at_index: &mut Counters, told: &Counters) -> bool {
        let was = *at_index;
        at_index.merge(told);
        self.moved(&was, at_index);
        *at_index != was
    }

    /// Grants a bucket `wanted` bytes on top of its lease, or more where there is plenty. `known_granted`
    /// is what the bucket has heard of: a grant whose answer was lost counts towards the wish, so asking
    /// again grants nothing twice. `contended` says that others want some of this pool too: then exactly
    /// the wish is granted.
    pub fn grant(
        &mut self,
        at_index: &mut Counters,
        known_granted: u64,
        wanted: u64,
        contended: bool,
    ) -> Result<(), Exhausted> {
        let unheard = at_index.granted.saturating_sub(known_granted);
        let wanted = wanted.saturating_sub(unheard);
        if wanted == 0 {
            return Ok(());
        }
        let free = self.free();
        if wanted > free {
            let missing = wanted - free;
            return Err(Exhausted { missing });
        }
        let was = *at_index;
        // A bucket that was restored from a snapshot may have spent more than it was granted.
        let settled = was.spent.saturating_add(was.returned).max(was.granted);
        at_index.granted = settled.saturating_add(grant_bytes(wanted, free, contended));
        self.moved(&was, at_index);
        Ok(())
    }

    /// A bucket is lost, with the user's bytes in it.
    pub fn forget(&mut self, at_index: &Counters) {
        self.moved(at_index, &Counters::default());
    }

    fn moved(&mut self, was: &Counters, is: &Counters) {
        let moved = |sum: u64, was: u64, is: u64| sum.saturating_sub(was).saturating_add(is);
        self.used = moved(self.used, was.used(), is.used());
        self.leased = moved(self.leased, was.lease(), is.lease());
    }
}

/// At least [`LEASE_BYTES_MIN`] where there is so much, but exactly the wish where little would be left.
fn grant_bytes(wanted: u64, free: u64, contended: bool) -> u64 {
    let generous = wanted.max(LEASE_BYTES_MIN).min(free);
    if contended || free - generous < POOL_LOW_BYTES {
        wanted
    } else {
        generous
    }
}

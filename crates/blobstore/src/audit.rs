//! The proof that nothing is lost and nothing is taken twice.

use std::fmt;

use ic_stable_structures::Memory;
use openstorage_types::{chunk_count, limits::CHUNK_BYTES};

use crate::{
    BlobStore,
    slots::{Record, State},
    space::rounded,
};

impl<M: Memory> BlobStore<M> {
    /// Checks that the extents of all blobs and the free ones cover the data memory's used part exactly,
    /// without overlap; that every blob's extents lie within it and a sealed one's cover it; and that
    /// every slot is as its record says. Looks at everything but the bytes: for tests and for operators of
    /// small stores.
    pub fn audit(&self) -> Result<(), Damage> {
        let mut extents: Vec<_> = self.space.free().collect();
        let (mut pieces, mut pending) = (0, 0);
        for slot in 0..self.slots.count() {
            let Some(record) = self.slots.get(slot) else {
                continue;
            };
            self.audit_upload(slot, &record)?;
            self.audit_extents(slot, &record, &mut extents)?;
            pieces += u64::from(record.pieces);
            pending += u64::from(record.state == State::Open);
        }
        if pieces != self.extents.len() || pending != self.pending.len() {
            return Err(Damage::Orphan);
        }
        extents.sort_unstable();
        let mut end = 0;
        for (offset, len) in extents {
            if offset != end {
                return Err(Damage::Gap { end, offset });
            }
            end += len;
        }
        if end != self.slots.end() {
            let offset = self.slots.end();
            return Err(Damage::Gap { end, offset });
        }
        if !self.space.is_consistent() {
            return Err(Damage::FreeList);
        }
        match self.slots.chain_is_whole() {
            true => Ok(()),
            false => Err(Damage::Chain),
        }
    }

    fn audit_upload(&self, slot: u64, record: &Record) -> Result<(), Damage> {
        let is_right = match (record.state, self.pending.get(&slot)) {
            (State::Open, Some(pending)) => {
                let missing = self.missing(slot);
                let missing: u32 = missing.iter().map(|range| range.end - range.start).sum();
                let is_next = |at| at == record.size || self.is_in(slot, record, &pending, at);
                let hashed = pending.hashed;
                missing + pending.received == chunk_count(record.size) as u32
                    && record.whole.is_none()
                    && hashed <= record.size
                    && (hashed == 0 || is_next(hashed - 1))
            }
            (State::Sealed, None) => true,
            _ => false,
        };
        match is_right {
            true => Ok(()),
            false => Err(Damage::Count { slot }),
        }
    }

    fn audit_extents(
        &self,
        slot: u64,
        record: &Record,
        extents: &mut Vec<(u64, u64)>,
    ) -> Result<(), Damage> {
        let damage = Damage::Extents { slot };
        let (mut end, mut covered, mut pieces) = (0, 0, 0);
        if let Some(offset) = record.whole {
            covered = record.size;
            if record.size > 0 {
                extents.push((offset, rounded(record.size)));
            }
        }
        for entry in self.extents.range((slot, 0)..=(slot, u64::MAX)) {
            let (_, from) = *entry.key();
            let (offset, len) = entry.value();
            let until = from + len;
            let is_cut = until % CHUNK_BYTES != 0 && until != record.size;
            if from < end || len == 0 || from % CHUNK_BYTES != 0 || is_cut {
                return Err(damage);
            }
            extents.push((offset, rounded(len)));
            (end, covered, pieces) = (until, covered + len, pieces + 1);
        }
        let is_right = pieces == record.pieces
            && covered <= record.size
            && end <= record.size
            && (record.state == State::Open || covered == record.size);
        match is_right {
            true => Ok(()),
            false => Err(damage),
        }
    }
}

/// What [`BlobStore::audit`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Extents overlap, or bytes belong to nobody: `offset` follows where `end` should.
    Gap { end: u64, offset: u64 },
    /// Extents or an upload of no slot.
    Orphan,
    /// A slot's extents are not those that its blob needs.
    Extents { slot: u64 },
    /// A slot's chunks are not as many as it says.
    Count { slot: u64 },
    /// The free list's two orders disagree.
    FreeList,
    /// The free slots are not all in their chain.
    Chain,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { end, offset } => write!(f, "an extent begins at {offset}, not at {end}"),
            Self::Orphan => write!(f, "something belongs to no slot"),
            Self::Extents { slot } => write!(f, "slot {slot} has other extents than it needs"),
            Self::Count { slot } => write!(f, "slot {slot} miscounts its chunks"),
            Self::FreeList => write!(f, "the free list contradicts itself"),
            Self::Chain => write!(f, "the chain of free slots is broken"),
        }
    }
}

impl std::error::Error for Damage {}

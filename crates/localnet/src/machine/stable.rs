//! Stable memory: outside Wasm, sparse, with an undo log.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io::{self, Read},
    sync::atomic::{AtomicU64, Ordering},
};

use sha2::{Digest, Sha256};

use super::DIRTY_PAGE_BYTES;

/// A page of Wasm, in which memory grows.
pub const STABLE_PAGE_BYTES: u64 = 65_536;

/// The Internet Computer's limit: 500 GiB.
const STABLE_PAGES_MAX: u64 = 500 * (1 << 30) / STABLE_PAGE_BYTES;

/// Kept, undone and charged in pages of [`DIRTY_PAGE_BYTES`].
type Page = Box<[u8; DIRTY_PAGE_BYTES as usize]>;

/// Pages that were never written are not there: untouched gigabytes cost nothing.
#[derive(Default)]
pub struct StableMemory {
    pages: BTreeMap<u64, Page>,
    size_pages: u64,
    /// As it was before the running transaction; none outside of one.
    undo: Option<Undo>,
    /// What a [`Copied`] of this memory lacks; none where there is no such copy.
    watch: Option<Watch>,
}

/// A copy of a stable memory, which is brought up to date at the cost of what was written since the last time.
#[derive(Debug, Default)]
pub struct Copied {
    watch: u64,
}

struct Watch {
    /// Which copy: every first look has a number of its own.
    number: u64,
    /// Pages that were written to since the last look.
    pages: BTreeSet<u64>,
}

#[derive(Default)]
struct Undo {
    /// Pages as they were, for those that were written; none for those that were not there.
    pages: BTreeMap<u64, Option<Page>>,
    size_pages: u64,
}

/// What a transaction did to stable memory, taken out of it.
#[derive(Default)]
pub struct StableChange {
    pages: BTreeMap<u64, Page>,
    size_pages: u64,
}

/// An access beyond the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfBounds;

impl StableMemory {
    /// Its first bytes are `bytes`, filled up with zeros to whole pages.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self::from_reader(bytes, bytes.len() as u64).expect("there are so many bytes")
    }

    /// The same of the next `len` bytes of a reader, which has at least so many. Pages of zeros take no
    /// memory.
    pub fn from_reader(mut from: impl Read, len: u64) -> io::Result<Self> {
        let mut memory = Self {
            size_pages: len.div_ceil(STABLE_PAGE_BYTES),
            ..Self::default()
        };
        for page in pages_of(0, len) {
            let mut bytes: Page = Box::new([0; DIRTY_PAGE_BYTES as usize]);
            let rest = (len - page * DIRTY_PAGE_BYTES).min(DIRTY_PAGE_BYTES);
            from.read_exact(&mut bytes[..rest as usize])?;
            if bytes.iter().any(|byte| *byte != 0) {
                memory.pages.insert(page, bytes);
            }
        }
        Ok(memory)
    }

    /// Of that size, in pages of [`STABLE_PAGE_BYTES`], with these pages of [`DIRTY_PAGE_BYTES`]. None
    /// where they do not fit.
    pub fn from_pages<'a>(
        size_pages: u64,
        pages: impl Iterator<Item = (u64, &'a [u8])>,
    ) -> Option<Self> {
        let mut memory = Self {
            size_pages,
            ..Self::default()
        };
        for (page, bytes) in pages {
            let offset = page.checked_mul(DIRTY_PAGE_BYTES)?;
            memory.write(offset, bytes).ok()?;
        }
        Some(memory)
    }

    /// The pages of [`DIRTY_PAGE_BYTES`] that were written to, in their order.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let pages = self.pages.iter();
        pages.map(|(page, bytes)| (*page, bytes.as_slice()))
    }

    /// Bytes of those pages.
    pub fn bytes_written(&self) -> u64 {
        self.pages.len() as u64 * DIRTY_PAGE_BYTES
    }

    /// All of it. For images that a test takes or puts; what was never written is not touched.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; (self.size_pages * STABLE_PAGE_BYTES) as usize];
        for (page, written) in self.pages() {
            let start = (page * DIRTY_PAGE_BYTES) as usize;
            bytes[start..start + written.len()].copy_from_slice(written);
        }
        bytes
    }

    /// Makes `bytes`, which `copied` was made of before, equal to this memory. False where they were. One copy is
    /// cheap to renew, the last one that was made: any other is made anew.
    pub fn copy_into(&mut self, copied: &mut Copied, bytes: &mut Vec<u8>) -> bool {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let size = (self.size_pages * STABLE_PAGE_BYTES) as usize;
        let known = self.watch.as_mut().filter(|it| it.number == copied.watch);
        let Some(watch) = known else {
            *bytes = self.to_bytes();
            copied.watch = NEXT.fetch_add(1, Ordering::Relaxed);
            self.watch = Some(Watch {
                number: copied.watch,
                pages: BTreeSet::new(),
            });
            return true;
        };
        let pages = std::mem::take(&mut watch.pages);
        let is_changed = !pages.is_empty() || bytes.len() != size;
        bytes.resize(size, 0);
        for page in pages {
            let start = (page * DIRTY_PAGE_BYTES) as usize;
            let part = &mut bytes[start..start + DIRTY_PAGE_BYTES as usize];
            match self.pages.get(&page) {
                Some(written) => part.copy_from_slice(written.as_slice()),
                None => part.fill(0),
            }
        }
        is_changed
    }

    /// In pages of [`STABLE_PAGE_BYTES`].
    pub fn size_pages(&self) -> u64 {
        self.size_pages
    }

    /// Whether the memory can grow by so many pages.
    pub fn has_room(&self, pages: u64) -> bool {
        pages <= STABLE_PAGES_MAX - self.size_pages
    }

    /// The size before, or none where the memory cannot grow so far.
    pub fn grow(&mut self, pages: u64) -> Option<u64> {
        let old = self.size_pages;
        self.has_room(pages).then(|| {
            self.size_pages += pages;
            old
        })
    }

    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        self.check(offset, into.len() as u64)?;
        let mut done = 0;
        while done < into.len() {
            let (page, at, len) = span(offset + done as u64, into.len() - done);
            let part = &mut into[done..done + len];
            match self.pages.get(&page) {
                Some(bytes) => part.copy_from_slice(&bytes[at..at + len]),
                None => part.fill(0),
            }
            done += len;
        }
        Ok(())
    }

    pub fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds> {
        self.check(offset, from.len() as u64)?;
        let mut done = 0;
        while done < from.len() {
            let (page, at, len) = span(offset + done as u64, from.len() - done);
            let part = &from[done..done + len];
            let first = match &mut self.undo {
                None => None,
                Some(undo) => match undo.pages.entry(page) {
                    Entry::Vacant(first) => Some(first),
                    Entry::Occupied(_) => None,
                },
            };
            match (first, self.pages.entry(page)) {
                (None, Entry::Occupied(mut bytes)) => {
                    bytes.get_mut()[at..at + len].copy_from_slice(part);
                }
                (None, Entry::Vacant(place)) => {
                    place.insert(page_with(None, at, part));
                }
                (Some(undo), Entry::Occupied(mut bytes)) => {
                    let new = page_with(Some(bytes.get()), at, part);
                    undo.insert(Some(bytes.insert(new)));
                }
                (Some(undo), Entry::Vacant(place)) => {
                    place.insert(page_with(None, at, part));
                    undo.insert(None);
                }
            }
            done += len;
        }
        Ok(())
    }

    /// From here on, everything can be undone.
    pub fn begin(&mut self) {
        self.undo = Some(Undo {
            pages: BTreeMap::new(),
            size_pages: self.size_pages,
        });
    }

    /// Keeps what was written since [`StableMemory::begin`].
    pub fn commit(&mut self) {
        if let (Some(watch), Some(undo)) = (&mut self.watch, &self.undo) {
            watch.pages.extend(undo.pages.keys());
        }
        self.undo = None;
    }

    /// Undoes what was written since [`StableMemory::begin`].
    pub fn roll_back(&mut self) {
        self.take_back();
    }

    /// Undoes what was written since [`StableMemory::begin`], and hands it out.
    pub fn take_back(&mut self) -> StableChange {
        let Some(undo) = self.undo.take() else {
            return StableChange {
                size_pages: self.size_pages,
                ..StableChange::default()
            };
        };
        let mut change = StableChange {
            pages: BTreeMap::new(),
            size_pages: std::mem::replace(&mut self.size_pages, undo.size_pages),
        };
        for (page, before) in undo.pages {
            let after = match before {
                Some(bytes) => self.pages.insert(page, bytes),
                None => self.pages.remove(&page),
            };
            change.pages.extend(after.map(|bytes| (page, bytes)));
        }
        change
    }

    /// Does again what [`StableMemory::take_back`] took, in a transaction that has just begun.
    pub fn put_again(&mut self, change: StableChange) {
        let Some(undo) = &mut self.undo else { return };
        self.size_pages = change.size_pages;
        for (page, bytes) in change.pages {
            undo.pages.insert(page, self.pages.insert(page, bytes));
        }
    }

    /// Pages of [`DIRTY_PAGE_BYTES`] that the running transaction has written to.
    pub fn dirty_pages(&self) -> u64 {
        self.undo.as_ref().map_or(0, |undo| undo.pages.len() as u64)
    }

    /// Of the pages that a write there touches, how many the running transaction has not yet written to.
    pub fn newly_dirty(&self, offset: u64, len: u64) -> u64 {
        let Some(undo) = &self.undo else { return 0 };
        let pages = pages_of(offset, len);
        let all = pages.end - pages.start;
        all - undo.pages.range(pages).count() as u64
    }

    pub fn digest(&self, hash: &mut Sha256) {
        hash.update(self.size_pages.to_le_bytes());
        for (page, bytes) in &self.pages {
            // A page of zeros is the same as none.
            if bytes.iter().any(|byte| *byte != 0) {
                hash.update(page.to_le_bytes());
                hash.update(bytes.as_slice());
            }
        }
    }

    pub fn check(&self, offset: u64, len: u64) -> Result<(), OutOfBounds> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size_pages * STABLE_PAGE_BYTES => Ok(()),
            _ => Err(OutOfBounds),
        }
    }
}

/// The pages of [`DIRTY_PAGE_BYTES`] that hold `len` bytes at `offset`.
pub fn pages_of(offset: u64, len: u64) -> std::ops::Range<u64> {
    let first = offset / DIRTY_PAGE_BYTES;
    match len {
        0 => first..first,
        _ => first..(offset + len - 1) / DIRTY_PAGE_BYTES + 1,
    }
}

/// A page as it was, or of zeros, with `part` at that place. A whole page is copied once and nothing else.
fn page_with(before: Option<&Page>, at: usize, part: &[u8]) -> Page {
    if part.len() == DIRTY_PAGE_BYTES as usize {
        let whole = Page::try_from(part.to_vec().into_boxed_slice());
        return whole.expect("it has that length");
    }
    let mut page = match before {
        Some(before) => before.clone(),
        None => Box::new([0; DIRTY_PAGE_BYTES as usize]),
    };
    page[at..at + part.len()].copy_from_slice(part);
    page
}

/// The page of `offset`, the place in it, and how many of `len` bytes it holds from there.
fn span(offset: u64, len: usize) -> (u64, usize, usize) {
    let at = (offset % DIRTY_PAGE_BYTES) as usize;
    (
        offset / DIRTY_PAGE_BYTES,
        at,
        len.min(DIRTY_PAGE_BYTES as usize - at),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_renewed_with_what_was_kept() {
        let mut memory = StableMemory::from_bytes(&[7; 10_000]);
        let (mut copied, mut bytes) = (Copied::default(), vec![]);
        assert!(memory.copy_into(&mut copied, &mut bytes));
        assert!(!memory.copy_into(&mut copied, &mut bytes));
        let mut write = |offset, is_kept: bool| {
            memory.begin();
            memory.write(offset, &[9; 5_000]).unwrap();
            match is_kept {
                true => memory.commit(),
                false => memory.roll_back(),
            }
            memory.grow(u64::from(is_kept));
            let changed = memory.copy_into(&mut copied, &mut bytes);
            (changed, bytes == memory.to_bytes())
        };
        assert_eq!(write(4_000, false), (false, true));
        assert_eq!(write(30_000, true), (true, true));
        assert_eq!(write(9_000, true), (true, true));
        // Another copy is whole, and so is the first one again.
        let (mut other, mut others) = (Copied::default(), vec![]);
        assert!(memory.copy_into(&mut other, &mut others) && others == memory.to_bytes());
        assert!(memory.copy_into(&mut copied, &mut bytes) && bytes == memory.to_bytes());
    }
}

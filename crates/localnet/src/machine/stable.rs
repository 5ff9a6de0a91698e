//! Stable memory: outside Wasm, sparse, with an undo log.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// A page of Wasm.
pub const STABLE_PAGE_BYTES: u64 = 65_536;

/// The Internet Computer's limit: 500 GiB.
const STABLE_PAGES_MAX: u64 = 500 * (1 << 30) / STABLE_PAGE_BYTES;

type Page = Box<[u8; STABLE_PAGE_BYTES as usize]>;

/// Pages that were never written are not there: untouched gigabytes cost nothing.
#[derive(Default)]
pub struct StableMemory {
    pages: BTreeMap<u64, Page>,
    size_pages: u64,
    /// As it was before the running transaction; none outside of one.
    undo: Option<Undo>,
}

struct Undo {
    /// Pages as they were, for those that were written; none for those that were not there.
    pages: BTreeMap<u64, Option<Page>>,
    size_pages: u64,
}

/// An access beyond the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfBounds;

impl StableMemory {
    /// Its first bytes are `bytes`, filled up with zeros to whole pages.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut memory = Self {
            size_pages: (bytes.len() as u64).div_ceil(STABLE_PAGE_BYTES),
            ..Self::default()
        };
        memory.write(0, bytes).expect("the memory has that size");
        memory
    }

    /// All of it. For images that a test takes or puts; a large memory is copied whole.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; (self.size_pages * STABLE_PAGE_BYTES) as usize];
        self.read(0, &mut bytes).expect("the memory has that size");
        bytes
    }

    pub fn size_pages(&self) -> u64 {
        self.size_pages
    }

    /// The size before, or none where the memory cannot grow so far.
    pub fn grow(&mut self, pages: u64) -> Option<u64> {
        let old = self.size_pages;
        let new = old
            .checked_add(pages)
            .filter(|new| *new <= STABLE_PAGES_MAX)?;
        self.size_pages = new;
        Some(old)
    }

    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        self.check(offset, into.len())?;
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
        self.check(offset, from.len())?;
        let mut done = 0;
        while done < from.len() {
            let (page, at, len) = span(offset + done as u64, from.len() - done);
            if let Some(undo) = &mut self.undo {
                undo.pages
                    .entry(page)
                    .or_insert_with(|| self.pages.get(&page).cloned());
            }
            let bytes = self
                .pages
                .entry(page)
                .or_insert_with(|| Box::new([0; STABLE_PAGE_BYTES as usize]));
            bytes[at..at + len].copy_from_slice(&from[done..done + len]);
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
        self.undo = None;
    }

    /// Undoes what was written since [`StableMemory::begin`].
    pub fn roll_back(&mut self) {
        if let Some(undo) = self.undo.take() {
            self.size_pages = undo.size_pages;
            for (page, before) in undo.pages {
                match before {
                    Some(bytes) => self.pages.insert(page, bytes),
                    None => self.pages.remove(&page),
                };
            }
        }
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

    fn check(&self, offset: u64, len: usize) -> Result<(), OutOfBounds> {
        let end = offset.checked_add(len as u64).ok_or(OutOfBounds)?;
        if end <= self.size_pages * STABLE_PAGE_BYTES {
            Ok(())
        } else {
            Err(OutOfBounds)
        }
    }
}

/// The page of `offset`, the place in it, and how many of `len` bytes it holds from there.
fn span(offset: u64, len: usize) -> (u64, usize, usize) {
    let at = (offset % STABLE_PAGE_BYTES) as usize;
    (
        offset / STABLE_PAGE_BYTES,
        at,
        len.min(STABLE_PAGE_BYTES as usize - at),
    )
}

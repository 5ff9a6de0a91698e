//! The heap between executions, and how the live one is put back to it.

use super::DIRTY_PAGE_BYTES;

const PAGE: usize = DIRTY_PAGE_BYTES as usize;

/// The heap as it was committed.
#[derive(Default)]
pub struct Image {
    bytes: Vec<u8>,
}

/// What an execution did to the heap, taken out of it.
#[derive(Default)]
pub struct HeapChange {
    pub size: usize,
    pages: Vec<(usize, Vec<u8>)>,
}

impl Image {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Pages in which `live` differs.
    pub fn dirty(&self, live: &[u8]) -> Vec<usize> {
        let known = self.bytes.chunks(PAGE);
        let grown = std::iter::repeat(&[0; PAGE][..]);
        live.chunks(PAGE)
            .zip(known.chain(grown))
            .enumerate()
            .filter(|(_, (now, before))| now != before)
            .map(|(page, _)| page)
            .collect()
    }

    /// Makes `live` the committed heap.
    pub fn keep(&mut self, live: &[u8], dirty: &[usize]) {
        self.bytes.resize(live.len(), 0);
        for page in dirty {
            let range = page * PAGE..(page + 1) * PAGE;
            self.bytes[range.clone()].copy_from_slice(&live[range]);
        }
    }

    /// Puts `live`, which has the same size, back.
    pub fn restore(&self, live: &mut [u8], dirty: &[usize]) {
        for page in dirty {
            let range = page * PAGE..(page + 1) * PAGE;
            live[range.clone()].copy_from_slice(&self.bytes[range]);
        }
    }
}

impl HeapChange {
    pub fn take(live: &[u8], dirty: &[usize]) -> Self {
        let pages = dirty
            .iter()
            .map(|page| (*page, live[page * PAGE..(page + 1) * PAGE].to_vec()))
            .collect();
        Self {
            size: live.len(),
            pages,
        }
    }

    /// Writes the pages again to a heap that has grown to [`HeapChange::size`].
    pub fn put_again(self, live: &mut [u8]) {
        for (page, bytes) in self.pages {
            live[page * PAGE..(page + 1) * PAGE].copy_from_slice(&bytes);
        }
    }
}

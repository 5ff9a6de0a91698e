//! Which bytes are taken and which are free. Extents are of any length in units of 64 bytes; free ones are
//! merged with their neighbours, and the smallest that is large enough is taken first.

use std::borrow::Cow;

use ic_stable_structures::{Memory, StableBTreeMap, StableCell, Storable, storable::Bound};

/// A small picture of 5 KB wastes at most 1.3 % by rounding up.
const UNIT: u64 = 64;
const WASM_PAGE: u64 = 65_536;

/// The bytes cannot be had: memory does not grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The counters of the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// Bytes from the start of the data memory that are taken or in the free list.
    pub end: u64,
    pub next_slot: u64,
}

impl Storable for Header {
    const BOUND: Bound = Bound::Bounded {
        max_size: 16,
        is_fixed_size: true,
    };

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        [self.end, self.next_slot]
            .map(u64::to_le_bytes)
            .concat()
            .into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Self {
            end: number(0),
            next_slot: number(8),
        }
    }
}

/// Bytes that an extent for `len` bytes takes.
pub fn rounded(len: u64) -> u64 {
    len.div_ceil(UNIT) * UNIT
}

/// The extents of one memory.
pub struct Space<M: Memory> {
    pub header: StableCell<Header, M>,
    /// Offset to length.
    free: StableBTreeMap<u64, u64, M>,
    /// (length, offset).
    by_size: StableBTreeMap<(u64, u64), (), M>,
}

impl<M: Memory> Space<M> {
    pub fn init(header: M, free: M, by_size: M) -> Self {
        Self {
            header: StableCell::init(header, Header::default()),
            free: StableBTreeMap::init(free),
            by_size: StableBTreeMap::init(by_size),
        }
    }

    /// An extent of `len` bytes; `data` grows where that is needed.
    pub fn take(&mut self, len: u64, data: &M) -> Result<u64, Full> {
        let len = rounded(len);
        if len == 0 {
            return Ok(0);
        }
        if let Some((size, offset)) = self.by_size.keys_range((len, 0)..).next() {
            self.remove_free(offset, size);
            if size > len {
                self.insert_free(offset + len, size - len);
            }
            return Ok(offset);
        }
        let header = *self.header.get();
        let end = header.end + len;
        let missing = end.div_ceil(WASM_PAGE).saturating_sub(data.size());
        if missing > 0 && data.grow(missing) < 0 {
            return Err(Full);
        }
        self.header.set(Header { end, ..header });
        Ok(header.end)
    }

    /// Gives an extent back that was taken with the same length.
    pub fn give(&mut self, offset: u64, len: u64) {
        let (mut offset, mut len) = (offset, rounded(len));
        if len == 0 {
            return;
        }
        let before = self.free.range(..offset).next_back();
        if let Some((start, size)) = before.map(|entry| (*entry.key(), entry.value()))
            && start + size == offset
        {
            self.remove_free(start, size);
            (offset, len) = (start, len + size);
        }
        if let Some(size) = self.free.get(&(offset + len)) {
            self.remove_free(offset + len, size);
            len += size;
        }
        let header = *self.header.get();
        if offset + len == header.end {
            self.header.set(Header {
                end: offset,
                ..header
            });
        } else {
            self.insert_free(offset, len);
        }
    }

    fn insert_free(&mut self, offset: u64, len: u64) {
        self.free.insert(offset, len);
        self.by_size.insert((len, offset), ());
    }

    fn remove_free(&mut self, offset: u64, len: u64) {
        self.free.remove(&offset);
        self.by_size.remove(&(len, offset));
    }

    /// Free extents in order of their offsets: offset and length.
    pub fn free(&self) -> impl Iterator<Item = (u64, u64)> {
        self.free.iter().map(|entry| (*entry.key(), entry.value()))
    }

    /// Whether the two views of the free list agree.
    pub fn is_consistent(&self) -> bool {
        self.free.len() == self.by_size.len()
            && self
                .free()
                .all(|(offset, len)| self.by_size.contains_key(&(len, offset)))
    }
}

//! One stable memory shared by many memories, each of which grows in small steps.
//!
//! The manager of `ic-stable-structures` hands out steps of one size, at most 32,768 of them: to reach the
//! 500 GiB of a canister they must be 16 MiB each, and two dozen memories take 400 MiB before the first
//! byte is stored. Here a step is as long as it has to be. A memory that is the last one on the stable
//! memory grows by exactly what it asks for; any other takes at least 1/256 of its own size at once, and 1/64
//! once there are many segments: so the table lasts however large the memories get, and less than 0.4 %, in
//! the end 1.6 %, is taken ahead.
//!
//! ```
//! use ic_stable_structures::{Memory, VectorMemory};
//! use openstorage_segments::Segments;
//!
//! let stable = VectorMemory::default();
//! let segments = Segments::open(stable.clone()).unwrap();
//! let (a, b) = (segments.get(0), segments.get(1));
//! assert_eq!((a.grow(1), b.grow(1), a.grow(1)), (0, 0, 1));
//! a.write(65_530, b"over the edge");
//!
//! let again = Segments::open(stable).unwrap().get(0);
//! let mut bytes = [0; 13];
//! again.read(65_530, &mut bytes);
//! assert_eq!(&bytes, b"over the edge");
//! ```
//!
//! # Byte map, version 1
//!
//! Numbers are little-endian; a page is 65,536 bytes.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 3 | magic `OSM` |
//! | 3 | 1 | layout version: 1 |
//! | 4 | 4 | number of segments |
//! | 8 | 56 | reserved, zero |
//! | 64 | 48 × 8 | size of each memory, in pages |
//! | 448 | 576 | reserved, zero |
//! | 1,024 | 4 each | the segments, in the order of their places: pages in the lower 24 bits, number of the memory in the upper 8 |
//! | 131,072 | | the first segment; each of the others follows the one before |

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
};

use ic_stable_structures::Memory;

const MAGIC: &[u8; 3] = b"OSM";
const VERSION: u8 = 1;
/// Memories that can be had.
pub const MEMORIES_MAX: u8 = 48;
const SIZES_AT: u64 = 64;
const SEGMENTS_AT: u64 = 1_024;
const HEADER_PAGES: u64 = 2;
const PAGE: u64 = 65_536;
/// A memory of s pages that grows by a 64th has at most 64 + 64·ln(s/64) segments of its own choice. For 48
/// memories that share 8,192,000 pages (500 GiB) these are at most 27,400.
const SEGMENTS_MAX: u64 = (HEADER_PAGES * PAGE - SEGMENTS_AT) / 4;
/// So many segments come before that.
const FINE_SEGMENTS: u64 = SEGMENTS_MAX - 27_400;
/// A step is at least this part of a memory: at first, and from [`FINE_SEGMENTS`] on.
const STEP_PARTS: [u64; 2] = [256, 64];
/// A segment's length has 24 bits: 1 TiB.
const SEGMENT_PAGES_MAX: u64 = (1 << 24) - 1;

/// Why a memory cannot be opened. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// It holds something else.
    Foreign,
    /// A layout of another version than this code knows.
    Version { found: u8 },
    /// The table contradicts itself or the memory's size.
    Damaged,
    /// The memory does not grow.
    Full,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => write!(f, "the stable memory holds something else"),
            Self::Version { found } => write!(
                f,
                "the stable memory has layout version {found}, this code knows {VERSION}"
            ),
            Self::Damaged => write!(f, "the stable memory's table of segments is damaged"),
            Self::Full => write!(f, "the stable memory does not grow"),
        }
    }
}

impl std::error::Error for OpenError {}

/// The memories of one stable memory.
pub struct Segments<M: Memory>(Rc<Shared<M>>);

struct Shared<M> {
    memory: M,
    table: RefCell<Table>,
}

struct Table {
    /// Segments of all memories.
    count: u64,
    /// The first page that belongs to nobody.
    end: u64,
    memories: [Extents; MEMORIES_MAX as usize],
}

impl Table {
    fn empty() -> Self {
        Self {
            count: 0,
            end: HEADER_PAGES,
            memories: std::array::from_fn(|_| Extents::default()),
        }
    }
}

/// One memory's segments, in order.
#[derive(Default)]
struct Extents {
    /// Pages that its user has asked for.
    size: u64,
    /// Pages in its segments.
    capacity: u64,
    segments: Vec<Segment>,
}

#[derive(Clone, Copy)]
struct Segment {
    /// Its first byte's place in the memory that it is a part of.
    from: u64,
    /// Its first byte's place in the stable memory.
    at: u64,
    /// Its place in the list of all segments.
    number: u64,
}

impl<M: Memory> Segments<M> {
    /// Opens what is there; lays out an empty memory anew.
    pub fn open(memory: M) -> Result<Self, OpenError> {
        let table = match memory.size() {
            0 => create(&memory)?,
            _ => load(&memory)?,
        };
        let table = RefCell::new(table);
        Ok(Self(Rc::new(Shared { memory, table })))
    }

    /// The memory with that number: the same one each time.
    ///
    /// # Panics
    /// When there is no such number below [`MEMORIES_MAX`].
    pub fn get(&self, number: u8) -> SegmentMemory<M> {
        assert!(
            number < MEMORIES_MAX,
            "memories are numbered below {MEMORIES_MAX}"
        );
        SegmentMemory {
            number,
            shared: Rc::clone(&self.0),
            latest: Cell::default(),
        }
    }

    /// Pages of the whole stable memory that no memory has asked for: the header, and what was taken
    /// ahead.
    pub fn spare_pages(&self) -> u64 {
        let table = self.0.table.borrow();
        table.end - table.memories.iter().map(|memory| memory.size).sum::<u64>()
    }
}

fn create<M: Memory>(memory: &M) -> Result<Table, OpenError> {
    if memory.grow(HEADER_PAGES) < 0 {
        return Err(OpenError::Full);
    }
    let [a, b, c] = *MAGIC;
    memory.write(0, &[a, b, c, VERSION]);
    Ok(Table::empty())
}

fn load<M: Memory>(memory: &M) -> Result<Table, OpenError> {
    let mut header = [0; SEGMENTS_AT as usize];
    memory.read(0, &mut header);
    if header[..3] != MAGIC[..] {
        return Err(OpenError::Foreign);
    }
    if header[3] != VERSION {
        return Err(OpenError::Version { found: header[3] });
    }
    let count: u64 = u32_at(&header, 4).into();
    if count > SEGMENTS_MAX {
        return Err(OpenError::Damaged);
    }
    let mut entries = vec![0; count as usize * 4];
    memory.read(SEGMENTS_AT, &mut entries);
    let mut table = Table::empty();
    for entry in entries.chunks_exact(4) {
        let entry = u32_at(entry, 0);
        let number = (entry >> 24) as usize;
        if number >= MEMORIES_MAX as usize {
            return Err(OpenError::Damaged);
        }
        table.add(number, u64::from(entry) & SEGMENT_PAGES_MAX);
    }
    for (memory, size) in table.memories.iter_mut().zip(header[64..].chunks_exact(8)) {
        memory.size = u64::from_le_bytes(size.try_into().expect("8 bytes"));
        if memory.size > memory.capacity {
            return Err(OpenError::Damaged);
        }
    }
    match table.end <= memory.size() {
        true => Ok(table),
        false => Err(OpenError::Damaged),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

impl Table {
    /// Notes a new last segment.
    fn add(&mut self, number: usize, pages: u64) {
        let memory = &mut self.memories[number];
        memory.segments.push(Segment {
            from: memory.capacity * PAGE,
            at: self.end * PAGE,
            number: self.count,
        });
        memory.capacity += pages;
        self.end += pages;
        self.count += 1;
    }
}

/// One of the memories.
pub struct SegmentMemory<M: Memory> {
    number: u8,
    shared: Rc<Shared<M>>,
    /// Where it was accessed last: what is asked next is mostly beside it. Segments stay where they are, so
    /// this never becomes wrong.
    latest: Cell<Window>,
}

/// Bytes of a memory that lie in one segment.
#[derive(Clone, Copy, Default)]
struct Window {
    /// The place in the memory of the first of them, and of the first behind them.
    from: u64,
    end: u64,
    /// The first one's place in the stable memory.
    at: u64,
}

impl<M: Memory> Clone for SegmentMemory<M> {
    fn clone(&self) -> Self {
        Self {
            number: self.number,
            shared: Rc::clone(&self.shared),
            latest: self.latest.clone(),
        }
    }
}

impl<M: Memory> SegmentMemory<M> {
    /// Makes room for `pages` more pages, which are not counted in the size yet. None where the stable
    /// memory does not grow or the table is full; then nothing has changed.
    fn extend(&self, table: &mut Table, pages: u64) -> Option<()> {
        let number = usize::from(self.number);
        let memory = &table.memories[number];
        let last = memory.segments.last().copied();
        // The last segment of all: it is made longer.
        let open = last.filter(|last| {
            last.number + 1 == table.count
                && memory.capacity + pages - last.from / PAGE <= SEGMENT_PAGES_MAX
        });
        let step = match open {
            Some(_) => pages,
            None if table.count == SEGMENTS_MAX => return None,
            None => {
                let part = STEP_PARTS[usize::from(table.count >= FINE_SEGMENTS)];
                pages.max(memory.capacity / part)
            }
        };
        // What an execution that failed after growing has left is used first.
        let missing = (table.end + step).saturating_sub(self.shared.memory.size());
        if missing > 0 && self.shared.memory.grow(missing) < 0 {
            // Not even what is needed without the part that is taken ahead?
            let missing = missing.checked_sub(step - pages).filter(|_| step > pages)?;
            if self.shared.memory.grow(missing) < 0 {
                return None;
            }
            return self.note(table, open, pages);
        }
        self.note(table, open, step)
    }

    fn note(&self, table: &mut Table, open: Option<Segment>, pages: u64) -> Option<()> {
        let number = usize::from(self.number);
        let (place, length) = match open {
            Some(last) => {
                let memory = &mut table.memories[number];
                memory.capacity += pages;
                table.end += pages;
                (last.number, memory.capacity - last.from / PAGE)
            }
            None => {
                table.add(number, pages);
                (table.count - 1, pages)
            }
        };
        let entry = u32::from(self.number) << 24 | u32::try_from(length).ok()?;
        let memory = &self.shared.memory;
        memory.write(SEGMENTS_AT + place * 4, &entry.to_le_bytes());
        let count = u32::try_from(table.count).ok()?;
        memory.write(4, &count.to_le_bytes());
        Some(())
    }

    /// Cuts `len` bytes from `offset` on into the pieces that lie in one segment each: place in the stable
    /// memory, place in the buffer, length.
    #[inline]
    fn pieces(&self, offset: u64, len: usize, mut piece: impl FnMut(u64, usize, usize)) {
        let Window { from, end, at } = self.latest.get();
        if offset >= from && end.checked_sub(offset) >= Some(len as u64) {
            return piece(at + (offset - from), 0, len);
        }
        self.search(offset, len, &mut piece);
    }

    #[inline(never)]
    fn search(&self, offset: u64, len: usize, piece: &mut impl FnMut(u64, usize, usize)) {
        let table = self.shared.table.borrow();
        let memory = &table.memories[usize::from(self.number)];
        let end = offset.checked_add(len as u64);
        assert!(
            end.is_some_and(|end| end <= memory.size * PAGE),
            "a memory is accessed beyond its end"
        );
        let segments = &memory.segments;
        let mut next = match segments.len() {
            0 | 1 => segments.len(),
            _ => segments.partition_point(|segment| segment.from <= offset),
        };
        let mut done = 0;
        while done < len {
            let segment = segments[next - 1];
            let inside = offset + done as u64 - segment.from;
            let end = segments.get(next).map_or(u64::MAX, |next| next.from);
            let end = end.min(memory.size * PAGE);
            let room = end - segment.from - inside;
            let size = (len - done).min(usize::try_from(room).unwrap_or(usize::MAX));
            self.latest.set(Window {
                from: segment.from,
                end,
                at: segment.at,
            });
            piece(segment.at + inside, done, size);
            done += size;
            next += 1;
        }
    }
}

impl<M: Memory> Memory for SegmentMemory<M> {
    fn size(&self) -> u64 {
        self.shared.table.borrow().memories[usize::from(self.number)].size
    }

    fn grow(&self, pages: u64) -> i64 {
        let mut table = self.shared.table.borrow_mut();
        let number = usize::from(self.number);
        let memory = &table.memories[number];
        let (before, capacity) = (memory.size, memory.capacity);
        let Some(after) = before.checked_add(pages) else {
            return -1;
        };
        if after > capacity && self.extend(&mut table, after - capacity).is_none() {
            return -1;
        }
        table.memories[number].size = after;
        let place = SIZES_AT + u64::from(self.number) * 8;
        self.shared.memory.write(place, &after.to_le_bytes());
        i64::try_from(before).unwrap_or(-1)
    }

    fn read(&self, offset: u64, dst: &mut [u8]) {
        self.pieces(offset, dst.len(), |at, from, len| {
            self.shared.memory.read(at, &mut dst[from..from + len]);
        });
    }

    unsafe fn read_unsafe(&self, offset: u64, dst: *mut u8, count: usize) {
        self.pieces(offset, count, |at, from, len| {
            // SAFETY: `pieces` cuts `0..count`, and the caller promises that much room behind `dst`.
            unsafe { self.shared.memory.read_unsafe(at, dst.add(from), len) };
        });
    }

    fn write(&self, offset: u64, src: &[u8]) {
        self.pieces(offset, src.len(), |at, from, len| {
            self.shared.memory.write(at, &src[from..from + len]);
        });
    }
}

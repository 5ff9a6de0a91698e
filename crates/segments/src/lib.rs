//! One stable memory shared by many memories, each of which grows in small steps.
//!
//! The manager of `ic-stable-structures` hands out steps of one size, at most 32,768 of them: to reach the
//! 500 GiB of a canister they must be 16 MiB each, and two dozen memories take 400 MiB before the first
//! byte is stored. Here a step is as long as it has to be. A memory that is the last one on the stable
//! memory grows by exactly what it asks for; any other takes at least 1/64 of its own size at once, and the one
//! that is larger than all others together 1/256, as long as there are not many segments. So the table lasts
//! however large the memories get, and less than 1 %, in the end 1.6 %, is taken ahead.
//!
//! Opening costs nearly the same however many segments there are: they lie in blocks of 64, of which it reads 4 bytes
//! each. A block is read when something in it is accessed for the first time.
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
//! # Byte map, version 2
//!
//! Numbers are little-endian; a page is 65,536 bytes.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 3 | magic `OSM` |
//! | 3 | 1 | layout version: 2 |
//! | 4 | 4 | number of blocks |
//! | 8 | 8 | the first page that belongs to nobody |
//! | 16 | 48 | reserved, zero |
//! | 64 | 48 × 12 | each memory: its size in pages, the pages in its segments, its number of segments, 4 bytes each |
//! | 640 | 384 | reserved, zero |
//! | 1,024 | 632 × 4 | whose each block is: the first page of that memory which is in it in the lower 24 bits, number of the memory in the upper 8 |
//! | 3,552 | 544 | reserved, zero |
//! | 4,096 | 632 × 512 | the blocks, of 64 segments each: the segment's first page in its memory and in the stable memory, 4 bytes each |
//! | 327,680 | | the first segment; each of the others follows the one before |

use std::{
    cell::{Cell, OnceCell, RefCell},
    fmt,
    rc::Rc,
};

use ic_stable_structures::Memory;

const MAGIC: &[u8; 3] = b"OSM";
const VERSION: u8 = 2;
/// Memories that can be had.
pub const MEMORIES_MAX: u8 = 48;
const PAGE: u64 = 65_536;

const STATE_AT: u64 = 4;
const ROWS_AT: u64 = 64;
const ROW: u64 = 12;
const OWNERS_AT: u64 = 1_024;
const BLOCKS_AT: u64 = 4_096;
const HEADER_PAGES: u64 = 5;

/// Segments of one block.
const BLOCK_SEGMENTS: u64 = 64;
const SEGMENT: usize = 8;
const BLOCK: u64 = BLOCK_SEGMENTS * SEGMENT as u64;
const BLOCKS_MAX: u64 = (HEADER_PAGES * PAGE - BLOCKS_AT) / BLOCK;
const _: () = assert!(OWNERS_AT + BLOCKS_MAX * 4 <= BLOCKS_AT);
/// A memory of s pages that grows by a 64th has at most 64 + 64·ln(s/64) segments of its own choice. For 48
/// memories that share 8,192,000 pages (500 GiB) these are at most 27,400, and the last block of each need not
/// be full.
const COARSE_BLOCKS_MAX: u64 = 27_400_u64.div_ceil(BLOCK_SEGMENTS) + MEMORIES_MAX as u64;
/// So many blocks come before that.
const FINE_BLOCKS: u64 = BLOCKS_MAX - COARSE_BLOCKS_MAX;
/// A step is at least this part of a memory.
const STEP_PART: u64 = 64;
/// The same for a memory that has more than half of all pages, until there are [`FINE_BLOCKS`].
const FINE_STEP_PART: u64 = 256;
/// A page's place in its memory has 24 bits: 1 TiB.
const MEMORY_PAGES_MAX: u64 = (1 << 24) - 1;
/// Segments that are remembered of a memory.
const RECENT: usize = 16;

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
    /// Blocks of all memories.
    blocks: u64,
    /// The first page that belongs to nobody.
    end: u64,
    memories: [Extents; MEMORIES_MAX as usize],
}

/// One memory's segments, in order.
#[derive(Default)]
struct Extents {
    /// Pages that its user has asked for.
    size: u64,
    /// Pages in its segments.
    capacity: u64,
    /// Number of its segments.
    count: u64,
    /// All but the last are full.
    blocks: Vec<Block>,
    /// Where it was accessed last, by the last digit of the page: a map goes the same way twice, to look and to
    /// change.
    recent: OnceCell<Box<[Cell<Window>; RECENT]>>,
}

struct Block {
    /// Its place among the blocks of all memories.
    number: u64,
    /// Its first page in the memory that it is a part of.
    from: u64,
    /// As they lie in the table; read when they are needed.
    segments: OnceCell<Vec<[u8; SEGMENT]>>,
}

#[derive(Clone, Copy)]
struct Segment {
    /// Its first page in the memory that it is a part of.
    from: u64,
    /// Its first page in the stable memory.
    at: u64,
}

impl Segment {
    fn read(bytes: [u8; SEGMENT]) -> Self {
        let both = u64::from_le_bytes(bytes);
        Self {
            from: both & u64::from(u32::MAX),
            at: both >> 32,
        }
    }

    fn bytes(self) -> [u8; SEGMENT] {
        (self.from | self.at << 32).to_le_bytes()
    }
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
    let table = Table {
        blocks: 0,
        end: HEADER_PAGES,
        memories: std::array::from_fn(|_| Extents::default()),
    };
    table.write_state(memory);
    Ok(table)
}

fn load<M: Memory>(memory: &M) -> Result<Table, OpenError> {
    let mut header = [0; OWNERS_AT as usize];
    memory.read(0, &mut header);
    if header[..3] != MAGIC[..] {
        return Err(OpenError::Foreign);
    }
    if header[3] != VERSION {
        return Err(OpenError::Version { found: header[3] });
    }
    let (words, _) = header.as_chunks::<4>();
    let word = |at: u64| u64::from(u32::from_le_bytes(words[at as usize / 4]));
    let mut table = Table {
        blocks: word(STATE_AT),
        end: word(STATE_AT + 4) | word(STATE_AT + 8) << 32,
        memories: std::array::from_fn(|number| {
            let at = ROWS_AT + number as u64 * ROW;
            Extents {
                size: word(at),
                capacity: word(at + 4),
                count: word(at + 8),
                ..Extents::default()
            }
        }),
    };
    if table.blocks > BLOCKS_MAX || table.end > memory.size() {
        return Err(OpenError::Damaged);
    }
    let mut owners = vec![0; table.blocks as usize * 4];
    memory.read(OWNERS_AT, &mut owners);
    let (owners, _) = owners.as_chunks::<4>();
    for (number, owner) in (0..).zip(owners) {
        let owner = u32::from_le_bytes(*owner);
        let memory = table.memories.get_mut((owner >> 24) as usize);
        memory.ok_or(OpenError::Damaged)?.blocks.push(Block {
            number,
            from: u64::from(owner) & MEMORY_PAGES_MAX,
            segments: OnceCell::new(),
        });
    }
    match table.is_sound() {
        true => Ok(table),
        false => Err(OpenError::Damaged),
    }
}

impl Table {
    /// Whether its parts agree with each other.
    fn is_sound(&self) -> bool {
        let each = self.memories.iter().all(|memory| {
            memory.size <= memory.capacity
                && memory.count.div_ceil(BLOCK_SEGMENTS) == memory.blocks.len() as u64
                && memory.blocks.first().is_none_or(|first| first.from == 0)
                && memory.blocks.is_sorted_by(|a, b| a.from < b.from)
        });
        let capacity: u64 = self.memories.iter().map(|memory| memory.capacity).sum();
        each && HEADER_PAGES + capacity == self.end
    }

    fn write_state<M: Memory>(&self, memory: &M) {
        let mut state = [0; 12];
        state[..4].copy_from_slice(&(self.blocks as u32).to_le_bytes());
        state[4..].copy_from_slice(&self.end.to_le_bytes());
        memory.write(STATE_AT, &state);
    }
}

impl Extents {
    fn write_row<M: Memory>(&self, number: u8, memory: &M) {
        let mut row = [0; ROW as usize];
        let words = [self.size, self.capacity, self.count];
        for (bytes, word) in row.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&(word as u32).to_le_bytes());
        }
        memory.write(ROWS_AT + u64::from(number) * ROW, &row);
    }

    /// The segments of the block with that place among its own.
    fn segments<M: Memory>(&self, block: usize, memory: &M) -> &[[u8; SEGMENT]] {
        let Block {
            number,
            from,
            segments,
        } = &self.blocks[block];
        segments.get_or_init(|| {
            let count = (self.count - block as u64 * BLOCK_SEGMENTS).min(BLOCK_SEGMENTS);
            let mut segments = vec![[0; SEGMENT]; count as usize];
            memory.read(BLOCKS_AT + number * BLOCK, segments.as_flattened_mut());
            assert!(
                Segment::read(segments[0]).from == *from,
                "the stable memory's table of segments is damaged"
            );
            segments
        })
    }

    fn last<M: Memory>(&self, memory: &M) -> Option<Segment> {
        let block = self.blocks.len().checked_sub(1)?;
        self.segments(block, memory)
            .last()
            .map(|bytes| Segment::read(*bytes))
    }

    /// What lies in the same segment as the byte at `offset`, which is below its size.
    fn window<M: Memory>(&self, offset: u64, memory: &M) -> Window {
        let page = offset / PAGE;
        let next_block = match self.blocks.len() {
            1 => 1,
            _ => self.blocks.partition_point(|block| block.from <= page),
        };
        let segments = self.segments(next_block - 1, memory);
        let next = match segments.len() {
            1 => 1,
            _ => segments.partition_point(|bytes| Segment::read(*bytes).from <= page),
        };
        let Segment { from, at } = Segment::read(segments[next - 1]);
        let end = match segments.get(next) {
            Some(bytes) => Segment::read(*bytes).from,
            None => self
                .blocks
                .get(next_block)
                .map_or(self.size, |block| block.from),
        };
        Window {
            from: from * PAGE,
            end: end * PAGE,
            at: at * PAGE,
        }
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

impl Window {
    #[inline]
    fn holds(self, offset: u64, len: usize) -> bool {
        offset >= self.from && self.end.checked_sub(offset) >= Some(len as u64)
    }
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
        let memory = &table.memories[usize::from(self.number)];
        let last = memory.last(&self.shared.memory);
        // The last segment of all: it is made longer.
        let is_open = last.is_some_and(|last| last.at + memory.capacity - last.from == table.end);
        let needs_block = !is_open && memory.count.is_multiple_of(BLOCK_SEGMENTS);
        if needs_block && table.blocks == BLOCKS_MAX
            || pages > MEMORY_PAGES_MAX.saturating_sub(memory.capacity)
        {
            return None;
        }
        let step = match is_open {
            true => pages,
            false => {
                let is_fine = memory.capacity > table.end / 2 && table.blocks < FINE_BLOCKS;
                let part = if is_fine { FINE_STEP_PART } else { STEP_PART };
                let room = MEMORY_PAGES_MAX - memory.capacity;
                pages.max((memory.capacity / part).min(room))
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
            self.note(table, is_open, pages);
        } else {
            self.note(table, is_open, step);
        }
        Some(())
    }

    /// Gives the memory the next `pages` pages: to its last segment where that `is_open`, else as a new one.
    fn note(&self, table: &mut Table, is_open: bool, pages: u64) {
        let stable = &self.shared.memory;
        let memory = &mut table.memories[usize::from(self.number)];
        if !is_open {
            let place = memory.count % BLOCK_SEGMENTS;
            let segment = Segment {
                from: memory.capacity,
                at: table.end,
            };
            if place == 0 {
                let owner = u32::from(self.number) << 24 | segment.from as u32;
                stable.write(OWNERS_AT + table.blocks * 4, &owner.to_le_bytes());
                memory.blocks.push(Block {
                    number: table.blocks,
                    from: segment.from,
                    segments: OnceCell::from(Vec::new()),
                });
                table.blocks += 1;
            }
            let block = memory.blocks.last_mut().expect("the one before is full");
            let bytes = segment.bytes();
            let offset = block.number * BLOCK + place * SEGMENT as u64;
            stable.write(BLOCKS_AT + offset, &bytes);
            if let Some(segments) = block.segments.get_mut() {
                segments.push(bytes);
            }
            memory.count += 1;
        }
        memory.capacity += pages;
        table.end += pages;
        table.write_state(stable);
    }

    /// Cuts `len` bytes from `offset` on into the pieces that lie in one segment each: place in the stable
    /// memory, place in the buffer, length.
    #[inline]
    fn pieces(&self, offset: u64, len: usize, mut piece: impl FnMut(u64, usize, usize)) {
        let latest = self.latest.get();
        if latest.holds(offset, len) {
            return piece(latest.at + (offset - latest.from), 0, len);
        }
        self.search(offset, len, &mut piece);
    }

    #[inline(never)]
    fn search(&self, offset: u64, len: usize, piece: &mut impl FnMut(u64, usize, usize)) {
        let table = self.shared.table.borrow();
        let memory = &table.memories[usize::from(self.number)];
        let recent = &memory.recent.get_or_init(Box::default)[(offset / PAGE) as usize % RECENT];
        let window = recent.get();
        if window.holds(offset, len) {
            self.latest.set(window);
            return piece(window.at + (offset - window.from), 0, len);
        }
        let end = offset.checked_add(len as u64);
        assert!(
            end.is_some_and(|end| end <= memory.size * PAGE),
            "a memory is accessed beyond its end"
        );
        let mut done = 0;
        while done < len {
            let from = offset + done as u64;
            let window = memory.window(from, &self.shared.memory);
            self.latest.set(window);
            if done == 0 {
                recent.set(window);
            }
            let room = usize::try_from(window.end - from).unwrap_or(usize::MAX);
            let size = (len - done).min(room);
            piece(window.at + (from - window.from), done, size);
            done += size;
        }
    }
}

impl<M: Memory> Memory for SegmentMemory<M> {
    fn size(&self) -> u64 {
        self.shared.table.borrow().memories[usize::from(self.number)].size
    }

    fn grow(&self, pages: u64) -> i64 {
        let mut table = self.shared.table.borrow_mut();
        let memory = &table.memories[usize::from(self.number)];
        let (before, capacity) = (memory.size, memory.capacity);
        let Some(after) = before.checked_add(pages) else {
            return -1;
        };
        if after > capacity && self.extend(&mut table, after - capacity).is_none() {
            return -1;
        }
        let memory = &mut table.memories[usize::from(self.number)];
        memory.size = after;
        memory.write_row(self.number, &self.shared.memory);
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

//! Many memories in one, against as many vectors.

use ic_stable_structures::{Memory, VectorMemory};
use openstorage_segments::{MEMORIES_MAX, OpenError, SegmentMemory, Segments};
use proptest::prelude::*;

const PAGE: u64 = 65_536;

#[derive(Debug, Clone)]
enum Step {
    Grow { memory: u8, pages: u64 },
    Write { memory: u8, at: u64, len: u64 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4u8, 0..5u64).prop_map(|(memory, pages)| Step::Grow { memory, pages }),
        6 => (0..4u8, any::<u32>(), 0..3 * PAGE)
            .prop_map(|(memory, at, len)| Step::Write { memory, at: at.into(), len }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn each_memory_keeps_what_was_written_to_it(steps in prop::collection::vec(step(), 1..60)) {
        let stable = VectorMemory::default();
        let open = || {
            let segments = Segments::open(stable.clone()).unwrap();
            [0, 1, 2, 3].map(|number| segments.get(number))
        };
        let mut memories = open();
        let mut model = vec![Vec::<u8>::new(); 4];
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Grow { memory, pages } => {
                    let bytes = &mut model[usize::from(memory)];
                    let before = bytes.len() as u64 / PAGE;
                    prop_assert_eq!(memories[usize::from(memory)].grow(pages), before as i64);
                    bytes.resize(((before + pages) * PAGE) as usize, 0);
                }
                Step::Write { memory, at, len } => {
                    let bytes = &mut model[usize::from(memory)];
                    let at = at % (bytes.len() as u64 + 1);
                    let len = len.min(bytes.len() as u64 - at);
                    let new: Vec<u8> = (0..len).map(|i| (i as u8) ^ n as u8).collect();
                    memories[usize::from(memory)].write(at, &new);
                    bytes[at as usize..][..len as usize].copy_from_slice(&new);
                }
                Step::Reopen => memories = open(),
            }
        }
        for (memory, expected) in memories.iter().zip(&model) {
            prop_assert_eq!(memory.size() * PAGE, expected.len() as u64);
            let mut found = vec![1; expected.len()];
            memory.read(0, &mut found);
            prop_assert!(found == *expected);
        }
        let used: u64 = model.iter().map(|bytes| bytes.len() as u64 / PAGE).sum();
        let segments = Segments::open(stable.clone()).unwrap();
        prop_assert_eq!(segments.spare_pages(), stable.size() - used);
    }
}

/// Pages that take no room: only their number counts.
#[derive(Clone, Default)]
struct Endless {
    header: VectorMemory,
    pages: std::rc::Rc<std::cell::Cell<u64>>,
}

impl Memory for Endless {
    fn size(&self) -> u64 {
        self.pages.get()
    }
    fn grow(&self, pages: u64) -> i64 {
        if self.header.size() < 5 {
            self.header.grow(5);
        }
        let before = self.pages.get();
        self.pages.set(before + pages);
        before as i64
    }
    fn read(&self, offset: u64, dst: &mut [u8]) {
        self.header.read(offset, dst);
    }
    fn write(&self, offset: u64, src: &[u8]) {
        self.header.write(offset, src);
    }
}

/// A memory that notes how much each read reads.
#[derive(Clone, Default)]
struct Counted {
    memory: VectorMemory,
    reads: std::rc::Rc<std::cell::RefCell<Vec<usize>>>,
}

impl Counted {
    fn read_u32(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.memory.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }
}

impl Memory for Counted {
    fn size(&self) -> u64 {
        self.memory.size()
    }
    fn grow(&self, pages: u64) -> i64 {
        self.memory.grow(pages)
    }
    fn read(&self, offset: u64, dst: &mut [u8]) {
        self.reads.borrow_mut().push(dst.len());
        self.memory.read(offset, dst);
    }
    fn write(&self, offset: u64, src: &[u8]) {
        self.memory.write(offset, src);
    }
}

/// 48 memories that grow page by page in turn until a canister's 500 GiB are taken. The table has room for
/// all their segments, and little is taken that nobody asked for.
#[test]
fn a_whole_canister_can_be_used() {
    let stable = Endless::default();
    let segments = Segments::open(stable.clone()).unwrap();
    let memories: Vec<_> = (0..MEMORIES_MAX).map(|n| segments.get(n)).collect();
    while stable.size() < 8_192_000 {
        for memory in &memories {
            let before = memory.size() as i64;
            assert_eq!(memory.grow(1 + before as u64 / 1_000), before);
        }
    }
    let spare = segments.spare_pages() as f64 / stable.size() as f64;
    assert!(spare < 0.016, "{spare}");
    let again = Segments::open(stable).unwrap();
    assert_eq!(again.get(47).size(), memories[47].size());
}

#[test]
fn one_memory_alone_takes_what_it_asks_for() {
    let stable = VectorMemory::default();
    let segments = Segments::open(stable.clone()).unwrap();
    let alone = segments.get(7);
    for _ in 0..500 {
        alone.grow(3);
    }
    assert_eq!((stable.size(), segments.spare_pages()), (1_505, 5));
}

#[test]
fn what_is_not_understood_is_left_alone() {
    let refused = |bytes: &[u8]| {
        let stable = VectorMemory::default();
        stable.grow(6);
        stable.write(0, bytes);
        let before = stable.borrow().clone();
        let error = Segments::open(stable.clone()).err();
        assert!(*stable.borrow() == before);
        error
    };
    let damaged = Some(OpenError::Damaged);
    assert_eq!(refused(b"MGR\x01"), Some(OpenError::Foreign));
    assert_eq!(refused(b"OSM\x01"), Some(OpenError::Version { found: 1 }));
    assert_eq!(refused(b"OSM\x02\xff\xff\xff\xff"), damaged);
    // One memory of one page, with one thing changed at a time.
    let sound = {
        let mut bytes = vec![0; 1_028];
        bytes[..16].copy_from_slice(b"OSM\x02\x01\0\0\0\x06\0\0\0\0\0\0\0");
        for at in [64, 68, 72] {
            bytes[at] = 1;
        }
        bytes
    };
    assert_eq!(refused(&sound), None);
    let places = [
        ("blocks", 4, 0),
        ("more than there is", 8, 7),
        ("less than is used", 8, 5),
        ("size above capacity", 64, 2),
        ("capacity", 68, 2),
        ("segments without a block", 72, 65),
        ("a block without segments", 72, 0),
        ("where the first block begins", 1_024, 1),
        ("a block of memory 60", 1_027, 60),
    ];
    for (what, at, byte) in places {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        assert_eq!(refused(&bytes), damaged, "{what}");
    }
}

#[test]
#[should_panic(expected = "damaged")]
fn a_damaged_block_is_not_read() {
    let stable = VectorMemory::default();
    Segments::open(stable.clone()).unwrap().get(0).grow(1);
    stable.write(4_096, &[1]);
    Segments::open(stable).unwrap().get(0).read(0, &mut [0]);
}

/// What opening reads does not depend on how many segments there are, and a block is read once.
#[test]
fn blocks_are_read_when_they_are_needed() {
    let stable = Counted::default();
    let grown = Segments::open(stable.clone()).unwrap();
    let (a, b) = (grown.get(0), grown.get(1));
    for page in 0..2_000_u64 {
        a.grow(1);
        a.write(page * PAGE, &page.to_le_bytes());
        b.grow(1);
    }
    let blocks = stable.read_u32(4);
    assert!(blocks > 8, "{blocks}");
    stable.reads.borrow_mut().clear();
    let again = Segments::open(stable.clone()).unwrap();
    assert_eq!(*stable.reads.borrow(), [1_024, blocks as usize * 4]);
    stable.reads.borrow_mut().clear();
    let a = again.get(0);
    let page = |page: u64| {
        let mut bytes = [0; 8];
        a.read(page * PAGE, &mut bytes);
        u64::from_le_bytes(bytes)
    };
    assert_eq!(
        (page(1_500), page(1_501), page(0), page(1_500)),
        (1_500, 1_501, 0, 1_500)
    );
    let reads = stable.reads.borrow();
    assert_eq!(reads.iter().filter(|len| **len > 8).count(), 2, "{reads:?}");
    drop(reads);
    assert!((0..2_000).all(|number| page(number) == number));
    // From the last byte of each page on, so that every edge of segments and blocks is crossed.
    for number in 1..2_000_u64 {
        let mut bytes = [1; 9];
        a.read(number * PAGE - 1, &mut bytes);
        assert_eq!(bytes[0], 0);
        assert_eq!(bytes[1..], number.to_le_bytes());
    }
}

#[test]
#[should_panic(expected = "beyond its end")]
fn nothing_is_read_beyond_the_end() {
    let segments = Segments::open(VectorMemory::default()).unwrap();
    let memory = segments.get(0);
    memory.grow(1);
    segments.get(1).grow(1);
    memory.read(PAGE - 1, &mut [0; 2]);
}

/// An execution that failed may leave a stable memory that is longer than the table says.
#[test]
fn pages_left_by_a_failure_are_used() {
    let stable = VectorMemory::default();
    Segments::open(stable.clone()).unwrap().get(0).grow(1);
    stable.grow(5);
    let segments = Segments::open(stable.clone()).unwrap();
    segments.get(1).grow(4);
    assert_eq!(stable.size(), 11);
    assert_eq!(segments.get(1).size(), 4);
}

/// The layout as it was when this file was committed. `segments.golden` is the header and the three used blocks
/// of a memory that `golden` has filled; a change to it is a new layout version.
#[test]
fn the_layout_is_the_committed_one() {
    let stable = VectorMemory::default();
    let segments = Segments::open(stable.clone()).unwrap();
    golden(|number| segments.get(number));
    let expected = include_bytes!("segments.golden");
    let found = stable.borrow()[..expected.len()].to_vec();
    assert!(found == expected, "{:?}", hex(&found));
    // And an old image is opened.
    let old = VectorMemory::default();
    old.grow(stable.size());
    old.write(0, expected);
    let opened = Segments::open(old).unwrap();
    let sizes: Vec<u64> = (0..4).map(|number| opened.get(number).size()).collect();
    assert_eq!(sizes, [5, 70, 0, 1]);
}

fn golden(get: impl Fn(u8) -> SegmentMemory<VectorMemory>) {
    for (number, pages) in [(0, 1), (1, 69), (1, 1), (0, 4), (3, 1)] {
        get(number).grow(pages);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

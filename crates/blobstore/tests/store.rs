//! The store against a model: a map of what was written.

use std::{cell::Cell, collections::BTreeMap, rc::Rc};

use ic_stable_structures::{Memory, VectorMemory};
use openstorage_blobstore::{BlobStore, Full, Memories, OpenError, Progress, WriteError};
use openstorage_segments::{SegmentMemory, Segments};
use openstorage_types::{ChunkRange, chunk_count, chunk_len, limits::CHUNK_BYTES};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

type Store = BlobStore<SegmentMemory<VectorMemory>>;

/// The store as it is after an upgrade: nothing but the memory is left.
fn reopened(memory: &VectorMemory) -> Store {
    let segments = Segments::open(memory.clone()).unwrap();
    BlobStore::init(Memories::from_fn(|id| segments.get(id))).unwrap()
}

fn bytes(len: u64, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed)
        .collect()
}

fn chunk(data: &[u8], index: u32) -> &[u8] {
    let start = u64::from(index) * CHUNK_BYTES;
    let len = chunk_len(data.len() as u64, index.into()).unwrap();
    &data[start as usize..][..len as usize]
}

fn digest(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

#[derive(Debug, Clone)]
enum Step {
    Open {
        size: u64,
    },
    /// The n-th slot in use takes the m-th of its chunks; `wrong` bytes change nothing.
    Write {
        slot: usize,
        index: u32,
        wrong: bool,
    },
    Verify {
        slot: usize,
        budget: u64,
    },
    /// A blob of one chunk at once.
    Put {
        size: u64,
    },
    Remove {
        slot: usize,
    },
    Upgrade,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![
        Just(0u64),
        1..300u64,
        Just(CHUNK_BYTES),
        CHUNK_BYTES..5 * CHUNK_BYTES,
    ];
    prop_oneof![
        3 => size.prop_map(|size| Step::Open { size }),
        12 => (0..8usize, 0..5u32, prop::bool::weighted(0.2))
            .prop_map(|(slot, index, wrong)| Step::Write { slot, index, wrong }),
        3 => (0..8usize, prop_oneof![Just(1), Just(10_000_000)])
            .prop_map(|(slot, budget)| Step::Verify { slot, budget }),
        2 => (0..=CHUNK_BYTES).prop_map(|size| Step::Put { size }),
        3 => (0..8usize).prop_map(|slot| Step::Remove { slot }),
        1 => Just(Step::Upgrade),
    ]
}

struct Blob {
    data: Vec<u8>,
    written: Vec<bool>,
    sealed: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_store_keeps_what_the_model_keeps(steps in prop::collection::vec(step(), 1..40)) {
        let memory = VectorMemory::default();
        let mut store = reopened(&memory);
        let mut model = BTreeMap::<u64, Blob>::new();
        let nth = |model: &BTreeMap<u64, Blob>, n: usize| {
            model.keys().nth(n % model.len().max(1)).copied()
        };
        for step in steps {
            match step {
                Step::Open { size } => {
                    let slot = store.open(size).unwrap();
                    let data = bytes(size, slot as u8);
                    let written = vec![false; chunk_count(size) as usize];
                    let before = model.insert(slot, Blob { data, written, sealed: false });
                    prop_assert!(before.is_none());
                }
                Step::Write { slot, index, wrong } => {
                    let Some(slot) = nth(&model, slot) else { continue };
                    let blob = model.get_mut(&slot).unwrap();
                    let index = index % blob.written.len() as u32;
                    let there = &mut blob.written[index as usize];
                    let mut new = chunk(&blob.data, index).to_vec();
                    if wrong && *there && !new.is_empty() {
                        *new.last_mut().unwrap() ^= 1;
                        prop_assert_eq!(store.write(slot, index, &new), Err(WriteError::Conflict));
                        prop_assert!(!store.holds(slot, index, &new));
                    } else {
                        prop_assert!(store.write(slot, index, &new).is_ok());
                        *there = true;
                    }
                }
                Step::Verify { slot, budget } => {
                    let Some(slot) = nth(&model, slot) else { continue };
                    let blob = model.get_mut(&slot).unwrap();
                    match store.verify(slot, budget) {
                        Progress::Done { digest: found } => {
                            prop_assert!(!blob.sealed);
                            prop_assert_eq!(found, digest(&blob.data));
                            store.seal(slot, found);
                            blob.sealed = true;
                        }
                        Progress::Hashing => prop_assert!(blob.written.iter().all(|there| *there)),
                        Progress::Waiting => {
                            prop_assert!(blob.sealed || !blob.written.iter().all(|there| *there));
                        }
                    }
                }
                Step::Put { size } => {
                    let data = bytes(size, size as u8);
                    let slot = store.put(&data, digest(&data)).unwrap();
                    let before = model.insert(slot, Blob { data, written: vec![true], sealed: true });
                    prop_assert!(before.is_none());
                }
                Step::Remove { slot } => {
                    let Some(slot) = nth(&model, slot) else { continue };
                    store.remove(slot);
                    model.remove(&slot);
                }
                Step::Upgrade => store = reopened(&memory),
            }
            prop_assert_eq!(store.audit(), Ok(()));
            prop_assert_eq!(store.len(), model.len() as u64);
            prop_assert_eq!(store.slots().collect::<Vec<_>>(), model.keys().copied().collect::<Vec<_>>());
            for (slot, blob) in &model {
                let chunks = (0u32..).zip(&blob.written).filter(|(_, there)| **there);
                let arrived = chunks.map(|(index, _)| chunk(&blob.data, index).len() as u64).sum::<u64>();
                prop_assert_eq!(store.bytes_arrived(*slot), arrived);
            }
        }
        for (slot, blob) in &model {
            let missing = blob.written.iter().filter(|there| !**there).count();
            prop_assert_eq!(store.missing_count(*slot) as usize, missing);
            let listed: u32 = store.missing(*slot).iter().map(|range| range.end - range.start).sum();
            prop_assert_eq!(listed as usize, missing);
            prop_assert_eq!(store.digest(*slot), blob.sealed.then(|| digest(&blob.data)));
            let mut whole = vec![];
            let len = blob.data.len() as u64;
            let read = store.read(*slot, len / 3, len - len / 3, |window| whole.extend_from_slice(window));
            prop_assert_eq!(read.is_some(), blob.sealed);
            prop_assert!(read.is_none() || whole == blob.data[(len / 3) as usize..]);
            for (index, there) in (0u32..).zip(&blob.written) {
                let expected = there.then(|| chunk(&blob.data, index).to_vec());
                prop_assert!(store.read_chunk(*slot, index) == expected);
            }
        }
    }
}

#[test]
fn a_hash_is_computed_in_slices_and_over_upgrades() {
    let memory = VectorMemory::default();
    let mut store = reopened(&memory);
    let data = bytes(4 * CHUNK_BYTES + 17, 1);
    let slot = store.open(data.len() as u64).unwrap();
    for index in (0..5).rev() {
        assert_eq!(store.verify(slot, u64::MAX), Progress::Waiting);
        store.write(slot, index, chunk(&data, index)).unwrap();
    }
    let mut slices = 0;
    let found = loop {
        slices += 1;
        store = reopened(&memory);
        match store.verify(slot, CHUNK_BYTES) {
            Progress::Done { digest } => break digest,
            progress => assert_eq!(progress, Progress::Hashing),
        }
    };
    // The first chunk was hashed as it came; the others one by one.
    assert_eq!((slices, found), (4, digest(&data)));
    store.seal(slot, found);
    assert_eq!(store.verify(slot, u64::MAX), Progress::Waiting);
    assert_eq!(store.digest(slot), Some(found));
    assert!(store.holds(slot, 4, chunk(&data, 4)));
}

#[test]
fn freed_space_is_used_again() {
    let memory = VectorMemory::default();
    let mut store = reopened(&memory);
    let put = |store: &mut Store, len: u64| {
        let slot = store.open(len).unwrap();
        store.write(slot, 0, &bytes(len, 3)).unwrap();
        slot
    };
    let slots: Vec<_> = (0..300).map(|_| put(&mut store, 10_000)).collect();
    let size = memory.size();
    for round in 0..3 {
        for slot in slots.iter().skip(round).step_by(3) {
            store.remove(*slot);
        }
        for _ in 0..100 {
            put(&mut store, 9_999);
        }
        store.audit().unwrap();
    }
    assert_eq!(memory.size(), size);
}

#[test]
fn what_is_no_chunk_is_refused() {
    let mut store = reopened(&VectorMemory::default());
    let slot = store.open(CHUNK_BYTES + 1).unwrap();
    let refused =
        |store: &mut Store, slot, index, len| store.write(slot, index, &bytes(len, 0)).unwrap_err();
    assert_eq!(
        refused(&mut store, slot, 2, 1),
        WriteError::NoSuchChunk { count: 2 }
    );
    assert_eq!(
        refused(&mut store, slot + 1, 0, 1),
        WriteError::NoSuchChunk { count: 0 }
    );
    assert_eq!(
        refused(&mut store, slot, 1, 2),
        WriteError::InvalidLength { expected: 1 }
    );
    assert_eq!(store.missing(slot), [ChunkRange { start: 0, end: 2 }]);
    assert_eq!(store.read_chunk(slot, 0), None);
    store.remove(slot + 1);
    store.audit().unwrap();
}

/// A memory that never grows beyond `pages`.
#[derive(Clone)]
struct Small {
    memory: VectorMemory,
    pages: u64,
}

impl Memory for Small {
    fn size(&self) -> u64 {
        self.memory.size()
    }
    fn grow(&self, pages: u64) -> i64 {
        if self.size() + pages > self.pages {
            -1
        } else {
            self.memory.grow(pages)
        }
    }
    fn read(&self, offset: u64, dst: &mut [u8]) {
        self.memory.read(offset, dst);
    }
    fn write(&self, offset: u64, src: &[u8]) {
        self.memory.write(offset, src);
    }
}

#[test]
fn a_full_memory_takes_nothing_and_loses_nothing() {
    let mut store = BlobStore::init(Memories::from_fn(|id| Small {
        memory: VectorMemory::default(),
        pages: if id == 5 { 2 } else { 1_000 },
    }))
    .unwrap();
    let mut open = |size| store.open(size).unwrap();
    let (first, second) = (open(100_000), open(60_000));
    store.write(first, 0, &bytes(100_000, 1)).unwrap();
    assert_eq!(
        store.write(second, 0, &bytes(60_000, 2)),
        Err(WriteError::Full)
    );
    let small = bytes(60_000, 3);
    assert_eq!(store.put(&small, digest(&small)), Err(Full));
    assert_eq!(store.missing_count(second), 1);
    assert_eq!(store.len(), 2);
    assert_eq!(store.read_chunk(first, 0), Some(bytes(100_000, 1)));
    store.remove(first);
    store.write(second, 0, &bytes(60_000, 2)).unwrap();
    store.audit().unwrap();
}

/// An upload whose memory does not grow keeps what is in.
#[test]
fn a_chunk_that_does_not_fit_changes_nothing() {
    let pages = (2 * CHUNK_BYTES).div_ceil(65_536);
    let mut store = BlobStore::init(Memories::from_fn(|id| Small {
        memory: VectorMemory::default(),
        pages: if id == 5 { pages } else { 1_000 },
    }))
    .unwrap();
    let data = bytes(3 * CHUNK_BYTES, 1);
    let slot = store.open(data.len() as u64).unwrap();
    store.write(slot, 2, chunk(&data, 2)).unwrap();
    store.write(slot, 0, chunk(&data, 0)).unwrap();
    assert_eq!(store.write(slot, 1, chunk(&data, 1)), Err(WriteError::Full));
    store.audit().unwrap();
    assert_eq!(store.missing(slot), [ChunkRange { start: 1, end: 2 }]);
    store.remove(slot);
    store.audit().unwrap();
    assert!(store.is_empty());
}

/// Holes are filled before memory grows, and a blob that lies in many pieces reads as one.
#[test]
fn a_large_blob_fills_the_holes_of_small_ones() {
    let memory = VectorMemory::default();
    let mut store = reopened(&memory);
    let slots: Vec<_> = (0..8)
        .map(|i| {
            let data = bytes(CHUNK_BYTES, i);
            store.put(&data, digest(&data)).unwrap()
        })
        .collect();
    let size = memory.size();
    for slot in slots.iter().step_by(2) {
        store.remove(*slot);
    }
    let data = bytes(4 * CHUNK_BYTES, 9);
    let slot = store.open(data.len() as u64).unwrap();
    for index in [3, 0, 2, 1] {
        store.write(slot, index, chunk(&data, index)).unwrap();
        store.audit().unwrap();
    }
    // The map of extents and that of uploads have begun; the data has not grown.
    assert!(memory.size() <= size + 2, "{} {size}", memory.size());
    assert!((0..4).all(|index| store.holds(slot, index, chunk(&data, index))));
    store.seal(slot, digest(&data));
    let mut read = vec![];
    store
        .read(slot, 0, data.len() as u64, |window| {
            read.extend_from_slice(window)
        })
        .unwrap();
    assert!(read == data);
    store.remove(slot);
    store.audit().unwrap();
}

/// What its last chunk of one byte takes of an upload is a unit, and not a step of 64 MB.
#[test]
fn room_is_taken_as_bytes_arrive() {
    let mut store = reopened(&VectorMemory::default());
    let mut arrived = 0;
    let slots: Vec<_> = (1..=20)
        .map(|chunks| {
            let size = chunks * CHUNK_BYTES + 1;
            let slot = store.open(size).unwrap();
            store.write(slot, chunks as u32, &[7]).unwrap();
            arrived += 1;
            assert!(store.bytes_taken() <= arrived + 64 * chunks);
            assert_eq!(store.bytes_arrived(slot), 1);
            slot
        })
        .collect();
    let part = vec![7; CHUNK_BYTES as usize];
    store.write(slots[2], 1, &part).unwrap();
    store.write(slots[7], 0, &part).unwrap();
    assert!(store.bytes_taken() <= arrived + 2 * CHUNK_BYTES + 64 * 20);
    store.audit().unwrap();
    for slot in slots {
        store.remove(slot);
    }
    store.audit().unwrap();
    assert_eq!(store.bytes_taken(), 0);
}

/// Memory that forgets its bytes and counts those that were written.
#[derive(Clone, Default)]
struct Hollow {
    pages: Rc<Cell<u64>>,
}

impl Memory for Hollow {
    fn size(&self) -> u64 {
        self.pages.get()
    }
    fn grow(&self, pages: u64) -> i64 {
        self.pages.replace(self.pages.get() + pages) as i64
    }
    fn read(&self, _: u64, dst: &mut [u8]) {
        dst.fill(0);
    }
    fn write(&self, _: u64, _: &[u8]) {}
}

/// The tables of a store, which count the bytes that are written to them, or its data.
#[derive(Clone)]
enum Counting {
    Table(VectorMemory, Rc<Cell<u64>>),
    Data(Hollow),
}

impl Memory for Counting {
    fn size(&self) -> u64 {
        match self {
            Self::Table(memory, _) => memory.size(),
            Self::Data(memory) => memory.size(),
        }
    }
    fn grow(&self, pages: u64) -> i64 {
        match self {
            Self::Table(memory, _) => memory.grow(pages),
            Self::Data(memory) => memory.grow(pages),
        }
    }
    fn read(&self, offset: u64, dst: &mut [u8]) {
        match self {
            Self::Table(memory, _) => memory.read(offset, dst),
            Self::Data(memory) => memory.read(offset, dst),
        }
    }
    fn write(&self, offset: u64, src: &[u8]) {
        match self {
            Self::Table(memory, written) => {
                written.set(written.get() + src.len() as u64);
                memory.write(offset, src);
            }
            Self::Data(memory) => memory.write(offset, src),
        }
    }
}

/// A blob of 10 GiB whose chunks come in an order as if drawn: none of them makes the store write more than the
/// thousandth did, there is at most one extent for each, and all of them are given back.
#[test]
fn a_chunk_costs_the_same_however_many_are_in() {
    let written = Rc::new(Cell::new(0));
    let mut store = BlobStore::init(Memories::from_fn(|id| match id {
        5 => Counting::Data(Hollow::default()),
        _ => Counting::Table(VectorMemory::default(), written.clone()),
    }))
    .unwrap();
    let size = 10 * (1 << 30);
    let count = chunk_count(size) as u32;
    let slot = store.open(size).unwrap();
    let part = vec![0; CHUNK_BYTES as usize];
    let mut most = [0; 6];
    for i in 0..count {
        // 2,003 and the count have no divisor in common.
        let index = (u64::from(i) * 2_003 % u64::from(count)) as u32;
        let len = chunk_len(size, index.into()).unwrap() as usize;
        let before = written.get();
        store.write(slot, index, &part[..len]).unwrap();
        let most = &mut most[i as usize / 1_000];
        *most = (*most).max(written.get() - before);
    }
    assert!(most.iter().all(|bytes| *bytes < 12_000), "{most:?}");
    assert_eq!(store.missing(slot), []);
    assert_eq!(store.bytes_arrived(slot), size);
    assert!(store.bytes_taken() <= size + 64);
    store.audit().unwrap();
    store.remove(slot);
    assert_eq!((store.bytes_taken(), store.len()), (0, 0));
    store.audit().unwrap();
}

/// In order, and nobody else in between: one extent, and the blob lies in one place when it is sealed. The other way
/// round each chunk has its own.
#[test]
fn neighbours_become_one_extent() {
    for reversed in [false, true] {
        let memory = VectorMemory::default();
        let mut store = reopened(&memory);
        let data = bytes(9 * CHUNK_BYTES + 5, 3);
        let slot = store.open(data.len() as u64).unwrap();
        let order: Vec<u32> = match reversed {
            false => (0..10).collect(),
            true => (0..10).rev().collect(),
        };
        for index in order {
            store.write(slot, index, chunk(&data, index)).unwrap();
            store.audit().unwrap();
        }
        assert_eq!(
            store.verify(slot, u64::MAX),
            Progress::Done {
                digest: digest(&data)
            }
        );
        store.seal(slot, digest(&data));
        store = reopened(&memory);
        assert!((0..10).all(|index| store.holds(slot, index, chunk(&data, index))));
        store.audit().unwrap();
        store.remove(slot);
        assert_eq!(store.bytes_taken(), 0);
    }
}

#[test]
fn a_layout_of_another_version_is_refused_before_anything_is_written() {
    let refused = |head: &[u8]| {
        let memories: Vec<_> = (0..6).map(|_| VectorMemory::default()).collect();
        memories[0].grow(1);
        memories[0].write(0, head);
        let open = Memories::from_fn(|id| memories[usize::from(id)].clone());
        let error = BlobStore::init(open).err();
        assert!(memories[1..].iter().all(|memory| memory.size() == 0));
        error
    };
    assert_eq!(refused(b"OSB\x01"), Some(OpenError::Version { found: 1 }));
    assert_eq!(refused(b"OSB\x03"), Some(OpenError::Version { found: 3 }));
    assert_eq!(refused(b"SGR\x01"), Some(OpenError::Foreign));
}

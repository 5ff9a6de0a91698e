//! The store against a model: a map of what was written.

use std::collections::BTreeMap;

use ic_stable_structures::{
    DefaultMemoryImpl, Memory, VectorMemory,
    memory_manager::{MemoryId, MemoryManager, VirtualMemory},
};
use openstorage_blobstore::{BlobStore, Memories, Progress, WriteError};
use openstorage_types::{ChunkRange, chunk_count, chunk_len, limits::CHUNK_BYTES};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

type Store = BlobStore<VirtualMemory<DefaultMemoryImpl>>;

/// The store as it is after an upgrade: nothing but the memory is left.
fn reopened(memory: &DefaultMemoryImpl) -> Store {
    let manager = MemoryManager::init_with_bucket_size(memory.clone(), 16);
    BlobStore::init(Memories::from_fn(|id| manager.get(MemoryId::new(id))))
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
        CHUNK_BYTES..3 * CHUNK_BYTES,
    ];
    prop_oneof![
        3 => size.prop_map(|size| Step::Open { size }),
        8 => (0..8usize, 0..3u32, prop::bool::weighted(0.2))
            .prop_map(|(slot, index, wrong)| Step::Write { slot, index, wrong }),
        3 => (0..8usize, prop_oneof![Just(1), Just(10_000_000)])
            .prop_map(|(slot, budget)| Step::Verify { slot, budget }),
        3 => (0..8usize).prop_map(|slot| Step::Remove { slot }),
        1 => Just(Step::Upgrade),
    ]
}

struct Blob {
    data: Vec<u8>,
    written: Vec<bool>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_store_keeps_what_the_model_keeps(steps in prop::collection::vec(step(), 1..40)) {
        let memory = DefaultMemoryImpl::default();
        let mut store = reopened(&memory);
        let mut model = BTreeMap::<u64, Blob>::new();
        let nth = |model: &BTreeMap<u64, Blob>, n: usize| {
            model.keys().nth(n % model.len().max(1)).copied()
        };
        for step in steps {
            match step {
                Step::Open { size } => {
                    let slot = store.open(size);
                    let data = bytes(size, slot as u8);
                    let written = vec![false; chunk_count(size) as usize];
                    let before = model.insert(slot, Blob { data, written });
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
                        prop_assert_eq!(store.write(slot, index, &new), Ok(()));
                        *there = true;
                    }
                }
                Step::Verify { slot, budget } => {
                    let Some(slot) = nth(&model, slot) else { continue };
                    let blob = &model[&slot];
                    match store.verify(slot, budget) {
                        Progress::Done { digest: found } => prop_assert_eq!(found, digest(&blob.data)),
                        Progress::Hashing => prop_assert!(blob.written.iter().all(|there| *there)),
                        Progress::Waiting => prop_assert!(!blob.written.iter().all(|there| *there)),
                    }
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
        }
        for (slot, blob) in &model {
            let missing = blob.written.iter().filter(|there| !**there).count();
            prop_assert_eq!(store.missing_count(*slot) as usize, missing);
            let listed: u32 = store.missing(*slot).iter().map(|range| range.end - range.start).sum();
            prop_assert_eq!(listed as usize, missing);
            for (index, there) in (0u32..).zip(&blob.written) {
                let expected = there.then(|| chunk(&blob.data, index).to_vec());
                prop_assert!(store.read_chunk(*slot, index) == expected);
            }
        }
    }
}

#[test]
fn a_hash_is_computed_in_slices_and_over_upgrades() {
    let memory = DefaultMemoryImpl::default();
    let mut store = reopened(&memory);
    let data = bytes(4 * CHUNK_BYTES + 17, 1);
    let slot = store.open(data.len() as u64);
    for index in (0..5).rev() {
        assert_eq!(store.verify(slot, u64::MAX), Progress::Waiting);
        store.write(slot, index, chunk(&data, index)).unwrap();
    }
    let mut slices = 0;
    let found = loop {
        slices += 1;
        store = reopened(&memory);
        match store.verify(slot, 1) {
            Progress::Done { digest } => break digest,
            progress => assert_eq!(progress, Progress::Hashing),
        }
    };
    // The first chunk was hashed as it came; the others one by one.
    assert_eq!((slices, found), (4, digest(&data)));
    store.seal(slot);
    assert_eq!(store.verify(slot, u64::MAX), Progress::Waiting);
    assert!(store.holds(slot, 4, chunk(&data, 4)));
}

#[test]
fn freed_space_is_used_again() {
    let memory = DefaultMemoryImpl::default();
    let mut store = reopened(&memory);
    let put = |store: &mut Store, len: u64| {
        let slot = store.open(len);
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
    let mut store = reopened(&DefaultMemoryImpl::default());
    let slot = store.open(CHUNK_BYTES + 1);
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
    }));
    let (first, second) = (store.open(100_000), store.open(60_000));
    store.write(first, 0, &bytes(100_000, 1)).unwrap();
    assert_eq!(
        store.write(second, 0, &bytes(60_000, 2)),
        Err(WriteError::Full)
    );
    assert_eq!(store.missing_count(second), 1);
    assert_eq!(store.read_chunk(first, 0), Some(bytes(100_000, 1)));
    store.remove(first);
    store.write(second, 0, &bytes(60_000, 2)).unwrap();
    store.audit().unwrap();
}

//! The layout as it was when the golden files were committed: what an old version has written is read, and
//! what is written now is the same bytes. A change to them is a new layout version.
//!
//! Each file is one memory of the store that `fill` makes, without the zeros at its end; the blobs' own
//! bytes have no file. `UPDATE_GOLDEN=1` writes them anew.

use std::{fs, path::PathBuf};

use ic_stable_structures::{Memory, VectorMemory};
use openstorage_blobstore::{BlobStore, Memories};
use openstorage_types::{ChunkRange, limits::CHUNK_BYTES};
use sha2::{Digest, Sha256};

const NAMES: [&str; 5] = ["slots", "extents", "pending", "free", "free_by_size"];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.bin"))
}

fn bytes(len: u64) -> Vec<u8> {
    vec![7; len as usize]
}

fn put(store: &mut BlobStore<VectorMemory>, len: u64) -> u64 {
    let data = bytes(len);
    store.put(&data, Sha256::digest(&data).into()).unwrap()
}

/// Slots 0 and 2 sealed, 1 free, 3 open and in two pieces.
fn fill(memories: &[VectorMemory]) {
    let mut store = open(memories);
    put(&mut store, 100);
    let hole = put(&mut store, CHUNK_BYTES);
    put(&mut store, 5_000);
    let upload = store.open(2 * CHUNK_BYTES + 9).unwrap();
    let small = put(&mut store, 1_000);
    put(&mut store, 0);
    store.remove(hole);
    store.remove(small);
    for (index, len) in [(1, CHUNK_BYTES), (0, CHUNK_BYTES)] {
        store.write(upload, index, &bytes(len)).unwrap();
    }
    let hole = put(&mut store, 700);
    put(&mut store, 800);
    store.remove(hole);
    store.audit().unwrap();
}

fn open(memories: &[VectorMemory]) -> BlobStore<VectorMemory> {
    BlobStore::init(Memories::from_fn(|id| memories[usize::from(id)].clone())).unwrap()
}

#[test]
fn the_layout_is_the_committed_one() {
    let memories: Vec<_> = (0..6).map(|_| VectorMemory::default()).collect();
    fill(&memories);
    for (name, memory) in NAMES.iter().zip(&memories) {
        let found = memory.borrow();
        let len = found
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(path(name), &found[..len]).unwrap();
        }
        let expected = fs::read(path(name)).unwrap();
        assert!(found[..len] == expected, "the memory of {name} has changed");
    }
}

#[test]
fn an_old_store_is_opened_and_goes_on() {
    let memories: Vec<_> = (0..6).map(|_| VectorMemory::default()).collect();
    for (name, memory) in NAMES.iter().zip(&memories) {
        let image = fs::read(path(name)).unwrap();
        memory.grow((image.len() as u64).div_ceil(65_536));
        memory.write(0, &image);
    }
    memories[5].grow((3 * CHUNK_BYTES).div_ceil(65_536));
    let mut store = open(&memories);
    store.audit().unwrap();
    let sizes: Vec<_> = (0..7).map(|slot| store.size(slot)).collect();
    let upload = 2 * CHUNK_BYTES + 9;
    let expected = [
        Some(100),
        Some(800),
        Some(5_000),
        Some(upload),
        None,
        Some(0),
        None,
    ];
    assert_eq!(sizes, expected);
    assert_eq!(store.digest(2), Some(Sha256::digest(bytes(5_000)).into()));
    assert_eq!(store.missing(3), [ChunkRange { start: 2, end: 3 }]);
    store.write(3, 2, &bytes(9)).unwrap();
    store.remove(0);
    put(&mut store, 64);
    store.audit().unwrap();
}

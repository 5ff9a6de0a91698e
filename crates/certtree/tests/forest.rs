//! Trees against a model, and against the tree that agents and gateways verify with.

use std::collections::BTreeMap;

use ic_certification::{HashTree, SubtreeLookupResult};
use ic_stable_structures::{Memory, VectorMemory};
use openstorage_certtree::{
    Content, Forest, Full, Hash, INSERT_NODES_MAX, NONE, OpenError, Tree, Witness, leaf,
    path_to_cbor,
};
use proptest::prelude::*;

fn forest() -> Forest<VectorMemory> {
    Forest::init(VectorMemory::default()).unwrap()
}

/// What verifiers make of a witness.
fn parsed(witness: &Witness) -> HashTree {
    serde_cbor::from_slice(&witness.to_cbor()).expect("it is the CBOR of a hash tree")
}

/// Shows the value of each of `labels`, which is one byte.
fn reveal(
    forest: &Forest<VectorMemory>,
    tree: Tree,
    labels: &[&[u8]],
    model: &BTreeMap<Vec<u8>, u8>,
) -> HashTree {
    let witness = forest.reveal(tree, labels, &mut |label, content| {
        let value = vec![model[label]];
        assert_eq!(content, Content::Digest(leaf(&value)));
        Witness::Leaf(value)
    });
    assert_eq!(witness.digest(), forest.digest(tree));
    let tree = parsed(&witness);
    assert_eq!(tree.digest(), witness.digest());
    tree
}

fn label() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(vec![]),
        prop::collection::vec(0u8..4, 1..4),
        prop::collection::vec(any::<u8>(), 64),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_tree_is_the_map_that_it_was_told(
        steps in prop::collection::vec((label(), prop::option::weighted(0.6, any::<u8>())), 1..80),
        absent in label(),
    ) {
        let memory = VectorMemory::default();
        let mut forest = Forest::init(memory.clone()).unwrap();
        let mut model = BTreeMap::new();
        for (label, value) in &steps {
            let tree = forest.top();
            let tree = match value {
                Some(value) => {
                    model.insert(label.clone(), *value);
                    forest.insert(tree, label, Content::Digest(leaf(&[*value])))
                }
                None => {
                    model.remove(label);
                    forest.remove(tree, label)
                }
            };
            forest.set_top(tree);
            forest.check(tree).unwrap();
        }
        // As after an upgrade.
        let forest = Forest::init(memory).unwrap();
        let tree = forest.top();
        prop_assert!(forest.chain_is_whole());
        prop_assert_eq!(forest.len(), (2 * model.len() as u64).saturating_sub(1));
        for (label, value) in &model {
            prop_assert_eq!(forest.get(tree, label), Some(Content::Digest(leaf(&[*value]))));
            let shown = reveal(&forest, tree, &[label], &model);
            let SubtreeLookupResult::Found(found) = shown.lookup_subtree([label]) else {
                panic!("{label:?} is not shown");
            };
            prop_assert_eq!(found.digest(), leaf(&[*value]));
        }
        // The neighbours of a label that is not there prove that it is not.
        if !model.contains_key(&absent) {
            prop_assert_eq!(forest.get(tree, &absent), None);
            let neighbours = forest.neighbours(tree, &absent);
            let below = model.range(..absent.clone()).next_back().map(|(label, _)| label.clone());
            let above = model.range(absent.clone()..).next().map(|(label, _)| label.clone());
            prop_assert_eq!(&neighbours, &[below, above]);
            let labels: Vec<&[u8]> = neighbours.iter().flatten().map(Vec::as_slice).collect();
            let shown = reveal(&forest, tree, &labels, &model);
            prop_assert_eq!(shown.lookup_subtree([&absent]), SubtreeLookupResult::Absent);
        }
    }
}

#[test]
fn only_what_is_asked_for_is_shown() {
    let mut forest = forest();
    let (mut tree, mut model) = (NONE, BTreeMap::new());
    for i in 0..100u8 {
        tree = forest.insert(tree, &[i; 20], Content::Digest(leaf(&[i])));
        model.insert(vec![i; 20], i);
    }
    let shown = reveal(&forest, tree, &[&[40; 20]], &model);
    assert_eq!(shown.list_paths(), [vec![[40; 20].into()]]);
    assert_eq!(
        shown.lookup_subtree([&[41u8; 20]]),
        SubtreeLookupResult::Unknown
    );
}

#[test]
fn a_tree_hangs_under_a_label_of_another() {
    let mut forest = forest();
    let inner = forest.insert(NONE, b"blob", Content::Digest(leaf(b"there")));
    let inner = forest.insert(inner, b"other", Content::Digest(leaf(b"hidden")));
    let mut top = NONE;
    for label in ["a", "accessor", "z"] {
        top = forest.insert(top, label.as_bytes(), Content::Tree(inner));
    }
    let witness = forest.reveal(top, &[b"accessor"], &mut |_, content| {
        let Content::Tree(inner) = content else {
            panic!("a tree hangs there");
        };
        forest.reveal(inner, &[b"blob"], &mut |_, _| {
            Witness::Leaf(b"there".to_vec())
        })
    });
    assert_eq!(witness.digest(), forest.digest(top));
    let shown = parsed(&witness);
    assert_eq!(
        shown.lookup_path(["accessor", "blob"]),
        ic_certification::LookupResult::Found(b"there")
    );
    forest.clear(inner);
    forest.clear(top);
    assert!(forest.is_empty() && forest.chain_is_whole());
}

/// Whoever names labels that come in order, or in the worst of orders, makes no tree deep.
#[test]
fn a_tree_stays_flat_whatever_the_labels() {
    for order in [|i: u32| i, |i: u32| u32::MAX - i, u32::reverse_bits] {
        let mut forest = forest();
        let mut tree = NONE;
        for i in 0..4_096 {
            tree = forest.insert(tree, &order(i).to_be_bytes(), Content::Digest([0; 32]));
        }
        forest.check(tree).unwrap();
        let label = order(1_000).to_be_bytes();
        let witness = forest.reveal(tree, &[&label], &mut |_, _| Witness::Pruned([0; 32]));
        assert!(depth(&witness) <= 18, "1.44 · 12 and the label");
    }
}

fn depth(witness: &Witness) -> usize {
    match witness {
        Witness::Fork(left, right) => 1 + depth(left).max(depth(right)),
        Witness::Labeled(_, content) => 1 + depth(content),
        _ => 0,
    }
}

#[test]
fn a_path_is_an_array_of_texts() {
    let long = "x".repeat(300);
    let path = [
        "http_expr",
        "a".repeat(64).as_str(),
        "",
        long.as_str(),
        "<$>",
    ]
    .map(str::to_owned);
    let segments: Vec<&str> = path.iter().map(String::as_str).collect();
    let read: Vec<String> = serde_cbor::from_slice(&path_to_cbor(&segments)).unwrap();
    assert_eq!(read, path);
}

#[test]
fn what_is_not_understood_is_refused_and_left_alone() {
    for (byte, error) in [
        (0, OpenError::Foreign),
        (3, OpenError::Version { found: b'x' }),
    ] {
        let memory = VectorMemory::default();
        drop(Forest::init(memory.clone()).unwrap());
        memory.write(byte, b"x");
        let before = memory.borrow().clone();
        assert_eq!(Forest::init(memory.clone()).err(), Some(error));
        assert_eq!(*memory.borrow(), before);
    }
}

/// The layout as it was when the golden file was committed: a change to it is a new layout version.
/// `UPDATE_GOLDEN=1` writes it anew.
#[test]
fn the_layout_is_the_committed_one() {
    let memory = VectorMemory::default();
    let mut forest = Forest::init(memory.clone()).unwrap();
    let digest = |n: u8| -> Hash { [n; 32] };
    let mut inner = NONE;
    for i in 0..10u8 {
        inner = forest.insert(inner, &[i.wrapping_mul(57); 32], Content::Digest(digest(i)));
    }
    inner = forest.remove(inner, &[57; 32]);
    inner = forest.remove(inner, &[114; 32]);
    let top = forest.insert(NONE, b"accessor", Content::Tree(inner));
    forest.set_top(top);
    let found = memory.borrow();
    let len = found
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/nodes.bin");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found[..len]).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert!(golden == found[..len], "{} differs", path.display());
}

/// A memory of so many pages, and no more.
#[derive(Clone)]
struct Small(VectorMemory, u64);

impl Memory for Small {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn grow(&self, pages: u64) -> i64 {
        match self.size() + pages > self.1 {
            true => -1,
            false => self.0.grow(pages),
        }
    }

    fn read(&self, offset: u64, dst: &mut [u8]) {
        self.0.read(offset, dst);
    }

    fn write(&self, offset: u64, src: &[u8]) {
        self.0.write(offset, src);
    }
}

#[test]
fn what_was_reserved_can_be_inserted_and_the_rest_is_refused() {
    // A page has room for 454 nodes.
    for (pages, room) in [(1, 454), (2, 909)] {
        let memory = Small(VectorMemory::default(), pages);
        let mut forest = Forest::init(memory.clone()).unwrap();
        let mut tree = NONE;
        let mut inserted = 0u32;
        while forest.reserve(INSERT_NODES_MAX) == Ok(()) {
            let content = Content::Digest(leaf(b"there"));
            tree = forest.insert(tree, &inserted.to_be_bytes(), content);
            inserted += 1;
        }
        let (digest, nodes) = (forest.digest(tree), forest.len());
        assert!(room - nodes < u64::from(INSERT_NODES_MAX), "{nodes} nodes");
        assert_eq!(forest.reserve(u32::MAX), Err(Full));
        assert_eq!((forest.digest(tree), forest.len()), (digest, nodes));
        forest.check(tree).unwrap();
        // What is freed can be used again.
        tree = forest.remove(tree, &0u32.to_be_bytes());
        assert_eq!(forest.reserve(INSERT_NODES_MAX), Ok(()));
        tree = forest.insert(tree, b"last", Content::Digest(leaf(b"there")));
        forest.check(tree).unwrap();
        assert_eq!(memory.size(), pages);
    }
}

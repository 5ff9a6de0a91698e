//! The hashes of a hash tree's nodes, as the interface specification defines them under "Certificate": each
//! kind of node has a prefix of its own, so that none can be taken for another.

use sha2::{Digest, Sha256};

/// SHA-256.
pub type Hash = [u8; 32];

const FORK: &[u8] = b"\x10ic-hashtree-fork";
const LABELED: &[u8] = b"\x13ic-hashtree-labeled";
const LEAF: &[u8] = b"\x10ic-hashtree-leaf";
const EMPTY: &[u8] = b"\x11ic-hashtree-empty";

/// Of the node above two others.
pub fn fork(left: &Hash, right: &Hash) -> Hash {
    of(&[FORK, left, right])
}

/// Of a label above a node.
pub fn labeled(label: &[u8], content: &Hash) -> Hash {
    of(&[LABELED, label, content])
}

/// Of a value.
pub fn leaf(value: &[u8]) -> Hash {
    of(&[LEAF, value])
}

/// Of a tree without nodes.
pub fn empty() -> Hash {
    of(&[EMPTY])
}

fn of(parts: &[&[u8]]) -> Hash {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

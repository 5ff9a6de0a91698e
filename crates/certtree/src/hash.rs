//! The hashes of a hash tree's nodes, as the interface specification defines them under "Certificate": each
//! kind of node has a prefix of its own, so that none can be taken for another.

use openstorage_sha256::sha256;

/// SHA-256.
pub type Hash = [u8; 32];

const FORK: &[u8] = b"\x10ic-hashtree-fork";
const LABELED: &[u8] = b"\x13ic-hashtree-labeled";
const LEAF: &[u8] = b"\x10ic-hashtree-leaf";
const EMPTY: &[u8] = b"\x11ic-hashtree-empty";

/// Of the node above two others.
pub fn fork(left: &Hash, right: &Hash) -> Hash {
    sha256(&[FORK, left, right])
}

/// Of a label above a node.
pub fn labeled(label: &[u8], content: &Hash) -> Hash {
    sha256(&[LABELED, label, content])
}

/// Of a value.
pub fn leaf(value: &[u8]) -> Hash {
    sha256(&[LEAF, value])
}

/// Of a tree without nodes.
pub fn empty() -> Hash {
    sha256(&[EMPTY])
}

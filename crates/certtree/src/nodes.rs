//! The table of nodes: one record of 144 bytes for each, found by its number without a search.
//!
//! # Byte map, version 1
//!
//! Numbers are little-endian.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 3 | magic `OSH` |
//! | 3 | 1 | layout version: 1 |
//! | 4 | 4 | records in the table |
//! | 8 | 4 | the first free record; 0 where none is free |
//! | 12 | 4 | records in use |
//! | 16 | 4 | the tree at the top; 0 for none |
//! | 20 | 44 | reserved, zero |
//! | 64 | 144 each | the records, numbered from 1 |
//!
//! A record:
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 1 | 0 free, 1 fork, 2 leaf |
//! | 1 | 1 | length of the label |
//! | 2 | 1 each | fork: height of the left and of the right child |
//! | 4 | 4 | fork: left child. Leaf: the tree under the label; 0 for a digest. Free: the next free record |
//! | 8 | 4 | fork: right child |
//! | 12 | 4 | reserved, zero |
//! | 16 | 32 | fork: digest of the left child. Leaf: digest of the content |
//! | 48 | 32 | fork: digest of the right child. Leaf: the note |
//! | 80 | 64 | leaf: its label. Fork: a label that is above all on the left and not above any on the right |

use ic_stable_structures::Memory;

use crate::{OpenError, hash::Hash};

const MAGIC: &[u8; 3] = b"OSH";
const VERSION: u8 = 1;
const HEADER_BYTES: u64 = 64;
const RECORD_BYTES: usize = 144;
const PAGE: u64 = 65_536;
const LABEL_AT: usize = 80;

/// Bytes of a label: as many as a SHA-256 has in hexadecimal.
pub const LABEL_BYTES_MAX: usize = RECORD_BYTES - LABEL_AT;

/// Bytes of a note.
pub const NOTE_BYTES: usize = 32;

/// What is kept beside a label and is no part of any digest.
pub type Note = [u8; NOTE_BYTES];

const FREE: u8 = 0;
const FORK: u8 = 1;
const LEAF: u8 = 2;

/// A label, at its fixed place.
#[derive(Clone, Copy)]
pub struct Label {
    len: u8,
    bytes: [u8; LABEL_BYTES_MAX],
}

impl Label {
    /// # Panics
    /// For one that is too long.
    pub fn new(label: &[u8]) -> Self {
        let mut bytes = [0; LABEL_BYTES_MAX];
        bytes[..label.len()].copy_from_slice(label);
        let len = label.len() as u8;
        Self { len, bytes }
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A child as its fork knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    pub node: u32,
    /// Forks on the longest way down.
    pub height: u8,
    pub digest: Hash,
}

#[derive(Clone, Copy)]
pub enum Node {
    Fork {
        /// Left and right.
        children: [Child; 2],
        /// Above all labels on the left, not above any on the right.
        bound: Label,
    },
    Leaf {
        label: Label,
        /// The tree under the label; 0 for a digest.
        tree: u32,
        /// Of the content.
        digest: Hash,
        note: Note,
    },
}

impl Node {
    fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let label = match self {
            Self::Fork { children, bound } => {
                bytes[0] = FORK;
                for (side, child) in children.iter().enumerate() {
                    bytes[2 + side] = child.height;
                    bytes[4 + 4 * side..][..4].copy_from_slice(&child.node.to_le_bytes());
                    bytes[16 + 32 * side..][..32].copy_from_slice(&child.digest);
                }
                bound
            }
            Self::Leaf {
                label,
                tree,
                digest,
                note,
            } => {
                bytes[0] = LEAF;
                bytes[4..8].copy_from_slice(&tree.to_le_bytes());
                bytes[16..48].copy_from_slice(&digest);
                bytes[48..80].copy_from_slice(&note);
                label
            }
        };
        bytes[1] = label.len;
        bytes[LABEL_AT..].copy_from_slice(&label.bytes);
        bytes
    }

    fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Self {
        let digest = |side: usize| bytes[16 + 32 * side..][..32].try_into().expect("32 bytes");
        let label = Label {
            len: bytes[1].min(LABEL_BYTES_MAX as u8),
            bytes: bytes[LABEL_AT..].try_into().expect("64 bytes"),
        };
        match bytes[0] {
            FORK => Self::Fork {
                children: [0, 1].map(|side| Child {
                    node: u32_at(bytes, 4 + 4 * side),
                    height: bytes[2 + side],
                    digest: digest(side),
                }),
                bound: label,
            },
            kind => {
                assert_eq!(kind, LEAF, "only nodes in use are read");
                Self::Leaf {
                    label,
                    tree: u32_at(bytes, 4),
                    digest: digest(0),
                    note: digest(1),
                }
            }
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

/// The table, with its header at hand.
pub struct Nodes<M: Memory> {
    memory: M,
    count: u32,
    first_free: u32,
    used: u32,
    top: u32,
}

impl<M: Memory> Nodes<M> {
    /// A new table, or the one that is in `memory`.
    pub fn open(memory: M) -> Result<Self, OpenError> {
        let mut nodes = Self {
            memory,
            count: 0,
            first_free: 0,
            used: 0,
            top: 0,
        };
        if nodes.memory.size() == 0 {
            if nodes.memory.grow(1) < 0 {
                return Err(OpenError::Full);
            }
            nodes.save();
            return Ok(nodes);
        }
        let mut header = [0; HEADER_BYTES as usize];
        nodes.memory.read(0, &mut header);
        if header[..3] != MAGIC[..] {
            return Err(OpenError::Foreign);
        }
        if header[3] != VERSION {
            return Err(OpenError::Version { found: header[3] });
        }
        nodes.count = u32_at(&header, 4);
        nodes.first_free = u32_at(&header, 8);
        nodes.used = u32_at(&header, 12);
        nodes.top = u32_at(&header, 16);
        Ok(nodes)
    }

    fn save(&self) {
        let mut header = [0; HEADER_BYTES as usize];
        header[..3].copy_from_slice(MAGIC);
        header[3] = VERSION;
        let numbers = [self.count, self.first_free, self.used, self.top];
        for (place, number) in header[4..].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.memory.write(0, &header);
    }

    pub fn top(&self) -> u32 {
        self.top
    }

    pub fn set_top(&mut self, top: u32) {
        if self.top != top {
            self.top = top;
            self.save();
        }
    }

    /// Nodes in use.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// A node in use.
    pub fn get(&self, node: u32) -> Node {
        Node::from_bytes(&self.read(node))
    }

    /// Writes a node in use.
    pub fn set(&mut self, node: u32, content: Node) {
        self.memory.write(place(node), &content.to_bytes());
    }

    /// A number for a new node: a free one, else the one behind the last.
    ///
    /// # Panics
    /// Where memory does not grow, as the maps of `ic-stable-structures` do: in a canister the message is
    /// undone.
    pub fn add(&mut self, content: Node) -> u32 {
        let node = match self.first_free {
            0 => {
                let node = self.count + 1;
                let missing = place(node + 1)
                    .div_ceil(PAGE)
                    .saturating_sub(self.memory.size());
                let grown = missing == 0 || self.memory.grow(missing) >= 0;
                assert!(grown, "the memory of the hash trees does not grow");
                self.count = node;
                node
            }
            free => {
                self.first_free = u32_at(&self.read(free), 4);
                free
            }
        };
        self.used += 1;
        self.save();
        self.set(node, content);
        node
    }

    /// Frees a node in use.
    pub fn remove(&mut self, node: u32) {
        let mut free = [0; RECORD_BYTES];
        free[0] = FREE;
        free[4..8].copy_from_slice(&self.first_free.to_le_bytes());
        self.memory.write(place(node), &free);
        self.first_free = node;
        self.used -= 1;
        self.save();
    }

    /// Whether the chain of free records has all of them.
    pub fn chain_is_whole(&self) -> bool {
        let (mut free, mut next) = (0, self.first_free);
        while next != 0 {
            let bytes = self.read(next);
            if bytes[0] != FREE || free == self.count {
                return false;
            }
            free += 1;
            next = u32_at(&bytes, 4);
        }
        free + self.used == self.count
    }

    fn read(&self, node: u32) -> [u8; RECORD_BYTES] {
        debug_assert!(node > 0 && node <= self.count, "no such node");
        let mut bytes = [0; RECORD_BYTES];
        self.memory.read(place(node), &mut bytes);
        bytes
    }
}

fn place(node: u32) -> u64 {
    HEADER_BYTES + u64::from(node - 1) * RECORD_BYTES as u64
}

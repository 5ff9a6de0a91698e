//! A tree of which parts are left out.

use crate::hash::{self, Hash};

/// What is shown of a hash tree. Parts that are not shown stand there as their digest, so that the whole
/// keeps its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Witness {
    Empty,
    Fork(Box<Witness>, Box<Witness>),
    Labeled(Vec<u8>, Box<Witness>),
    Leaf(Vec<u8>),
    /// Left out; its digest.
    Pruned(Hash),
}

/// CBOR tag 55799: what follows is CBOR.
const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];
/// Major types of CBOR, in the three high bits.
const BYTES: u8 = 2 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;

impl Witness {
    pub fn fork(left: Self, right: Self) -> Self {
        Self::Fork(Box::new(left), Box::new(right))
    }

    pub fn labeled(label: &[u8], content: Self) -> Self {
        Self::Labeled(label.to_vec(), Box::new(content))
    }

    /// The same as that of the tree that it shows.
    pub fn digest(&self) -> Hash {
        match self {
            Self::Empty => hash::empty(),
            Self::Fork(left, right) => hash::fork(&left.digest(), &right.digest()),
            Self::Labeled(label, content) => hash::labeled(label, &content.digest()),
            Self::Leaf(value) => hash::leaf(value),
            Self::Pruned(digest) => *digest,
        }
    }

    /// As certificates write trees: each node an array of its kind's number and its parts.
    pub fn to_cbor(&self) -> Vec<u8> {
        let mut cbor = SELF_DESCRIBED.to_vec();
        self.write(&mut cbor);
        cbor
    }

    fn write(&self, cbor: &mut Vec<u8>) {
        match self {
            Self::Empty => cbor.extend([ARRAY | 1, 0]),
            Self::Fork(left, right) => {
                cbor.extend([ARRAY | 3, 1]);
                left.write(cbor);
                right.write(cbor);
            }
            Self::Labeled(label, content) => {
                cbor.extend([ARRAY | 3, 2]);
                write_string(cbor, BYTES, label);
                content.write(cbor);
            }
            Self::Leaf(value) => {
                cbor.extend([ARRAY | 2, 3]);
                write_string(cbor, BYTES, value);
            }
            Self::Pruned(digest) => {
                cbor.extend([ARRAY | 2, 4]);
                write_string(cbor, BYTES, digest);
            }
        }
    }
}

/// Where in a tree something stands, as `IC-Certificate` headers write it: an array of texts.
pub fn path_to_cbor(segments: &[&str]) -> Vec<u8> {
    let mut cbor = SELF_DESCRIBED.to_vec();
    write_head(&mut cbor, ARRAY, segments.len());
    for segment in segments {
        write_string(&mut cbor, TEXT, segment.as_bytes());
    }
    cbor
}

fn write_string(cbor: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    write_head(cbor, kind, bytes.len());
    cbor.extend_from_slice(bytes);
}

/// Kind and length, in as few bytes as they need.
fn write_head(cbor: &mut Vec<u8>, kind: u8, len: usize) {
    match len {
        0..24 => cbor.push(kind | len as u8),
        24..0x100 => cbor.extend([kind | 24, len as u8]),
        0x100..0x1_0000 => {
            cbor.push(kind | 25);
            cbor.extend((len as u16).to_be_bytes());
        }
        _ => {
            cbor.push(kind | 26);
            cbor.extend((len as u32).to_be_bytes());
        }
    }
}

//! Hash trees in stable memory, as the Internet Computer's certificates have them: labelled, sorted, and with
//! witnesses that show some labels and hide all others.
//!
//! A [`Forest`] keeps many trees in one memory. Each maps labels to contents: to a digest of something that
//! is kept elsewhere, or to another tree of the forest. The trees are balanced and the hash of every node is
//! stored, so a change and a witness touch one path (about 1.44 · log₂ n forks at the very most), and after
//! an upgrade everything is there.
//!
//! | module | what |
//! | --- | --- |
//! | `forest` | [`Forest`]: insert, remove, reveal |
//! | `nodes` | the table of nodes, byte by byte |
//! | `hash` | the hashes of the interface specification |
//! | `witness` | [`Witness`]: a tree of which parts are left out, and its CBOR |
//!
//! ```
//! use ic_stable_structures::VectorMemory;
//! use openstorage_certtree::{Content, Forest, NONE, Witness, leaf};
//!
//! let mut forest = Forest::init(VectorMemory::default()).unwrap();
//! let mut tree = NONE;
//! for name in ["a", "b", "c"] {
//!     tree = forest.insert(tree, name.as_bytes(), Content::Digest(leaf(b"there")));
//! }
//! let shown = forest.reveal(tree, &[b"b"], &mut |_, _| Witness::Leaf(b"there".to_vec()));
//! assert_eq!(shown.digest(), forest.digest(tree));
//! ```

mod forest;
mod hash;
mod nodes;
mod witness;

use std::fmt;

pub use forest::{Content, Forest, NONE, Tree};
pub use hash::{Hash, fork, labeled, leaf};
pub use nodes::{LABEL_BYTES_MAX, NOTE_BYTES, Note};
pub use witness::{Witness, path_to_cbor};

/// Why a forest cannot be opened. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// The memory holds something else.
    Foreign,
    /// A layout of another version than this code knows.
    Version { found: u8 },
    /// The memory does not grow.
    Full,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => write!(f, "the memory holds something else than hash trees"),
            Self::Version { found } => write!(f, "unknown layout version {found} of hash trees"),
            Self::Full => write!(f, "the memory does not grow"),
        }
    }
}

impl std::error::Error for OpenError {}

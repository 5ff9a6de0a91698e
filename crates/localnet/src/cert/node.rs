//! A labelled tree that can show some of its paths.

use ic_certification::{AsHashTree, HashTree, RbTree, leaf, pruned};

/// A labelled tree. Its digest is that of the Internet Computer's hash trees.
#[derive(Debug)]
pub enum Node {
    Leaf(Vec<u8>),
    Branch(RbTree<Vec<u8>, Node>),
    /// Only the digest is kept; what is beneath can be shown by whoever has it.
    Sealed([u8; 32]),
}

impl Node {
    pub fn leaf(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Leaf(bytes.into())
    }

    /// A branch of children with different labels.
    pub fn branch<L: Into<Vec<u8>>>(children: impl IntoIterator<Item = (L, Node)>) -> Self {
        let mut branch = RbTree::new();
        for (label, child) in children {
            branch.insert(label.into(), child);
        }
        Self::Branch(branch)
    }

    /// The part of the tree that shows what is at a path, whole: the value or subtree, or the proof
    /// that there is none. Everything else is pruned.
    pub fn witness(&self, path: &[impl AsRef<[u8]>]) -> HashTree {
        match (self, path) {
            (Self::Branch(branch), [label, rest @ ..]) => {
                branch.nested_witness(label.as_ref(), |child| child.witness(rest))
            }
            // A leaf in the middle of a path shows that nothing is beneath it.
            _ => self.as_hash_tree(),
        }
    }
}

impl AsHashTree for Node {
    fn root_hash(&self) -> [u8; 32] {
        match self {
            Self::Leaf(bytes) => bytes.root_hash(),
            Self::Branch(branch) => branch.root_hash(),
            Self::Sealed(digest) => *digest,
        }
    }

    fn as_hash_tree(&self) -> HashTree {
        match self {
            Self::Leaf(bytes) => leaf(bytes.clone()),
            Self::Branch(branch) => branch.as_hash_tree(),
            Self::Sealed(digest) => pruned(*digest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ic_certification::{LookupResult, merge_hash_trees};

    fn tree() -> Node {
        Node::branch([
            ("a", Node::leaf("1")),
            (
                "b",
                Node::branch([("x", Node::leaf("2")), ("z", Node::leaf("3"))]),
            ),
            ("d", Node::leaf("4")),
        ])
    }

    #[test]
    fn a_witness_shows_its_path_and_nothing_else() {
        let tree = tree();
        let witness = tree.witness(&["b", "x"]);
        assert_eq!(witness.digest(), tree.root_hash());
        assert_eq!(
            witness.lookup_path(["b", "x"]),
            LookupResult::Found(b"2".as_slice())
        );
        assert_eq!(witness.lookup_path(["b", "z"]), LookupResult::Unknown);
        assert_eq!(witness.lookup_path(["a"]), LookupResult::Unknown);
    }

    #[test]
    fn what_is_not_there_is_proven_absent() {
        let tree = tree();
        for path in [&["c"][..], &["b", "y"], &["0"], &["e", "f"], &["a", "b"]] {
            let witness = tree.witness(path);
            assert_eq!(witness.digest(), tree.root_hash());
            assert_eq!(witness.lookup_path(path), LookupResult::Absent, "{path:?}");
        }
    }

    #[test]
    fn views_of_one_tree_can_be_merged() {
        let tree = tree();
        let both = merge_hash_trees(tree.witness(&["b", "z"]), tree.witness(&["c"]));
        assert_eq!(both.digest(), tree.root_hash());
        assert_eq!(
            both.lookup_path(["b", "z"]),
            LookupResult::Found(b"3".as_slice())
        );
        assert_eq!(both.lookup_path(["c"]), LookupResult::Absent);
        assert_eq!(both.lookup_path(["b", "x"]), LookupResult::Unknown);
    }
}

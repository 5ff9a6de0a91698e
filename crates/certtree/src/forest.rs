//! Trees of labels, balanced, with all hashes stored.
//!
//! Labels stand in the leaves only, and a fork is balanced as in an AVL tree: the heights of its children
//! differ by at most one. So each step up costs one hash, and nobody who chooses the labels can make a
//! tree deep.

use std::cmp::Ordering;

use ic_stable_structures::Memory;

use crate::{
    OpenError,
    hash::{self, Hash},
    nodes::{Child, Label, NOTE_BYTES, Node, Nodes, Note},
    witness::Witness,
};

/// A tree of a forest: the number of its root. A change gives the tree a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tree(pub u32);

/// The tree without labels.
pub const NONE: Tree = Tree(0);

/// What is under a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Something that is kept elsewhere.
    Digest(Hash),
    /// Another tree of the forest. It is not watched: when it changes, it has to be inserted again.
    Tree(Tree),
}

/// Trees in one memory.
pub struct Forest<M: Memory> {
    nodes: Nodes<M>,
    /// The tree that was changed last: what is asked next is mostly its digest.
    latest: Option<Child>,
}

/// What is left of a tree without the label.
enum Taken {
    /// It was not there; nothing has changed.
    Nothing,
    /// The rest.
    Left(Option<Child>),
}

impl<M: Memory> Forest<M> {
    /// A new forest, or the one that is in `memory` already. What is not understood is refused before
    /// anything is written.
    pub fn init(memory: M) -> Result<Self, OpenError> {
        Ok(Self {
            nodes: Nodes::open(memory)?,
            latest: None,
        })
    }

    /// The tree that was last [set](Self::set_top) here: the way to all others.
    pub fn top(&self) -> Tree {
        Tree(self.nodes.top())
    }

    pub fn set_top(&mut self, tree: Tree) {
        self.nodes.set_top(tree.0);
    }

    /// Nodes of all trees.
    pub fn len(&self) -> u64 {
        self.nodes.used().into()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn digest(&self, tree: Tree) -> Hash {
        match tree {
            NONE => hash::empty(),
            Tree(root) => match self.latest {
                Some(latest) if latest.node == root => latest.digest,
                _ => self.child(root).digest,
            },
        }
    }

    /// Puts `content` under a label of at most 64 bytes, in place of what is there. The tree that comes back
    /// takes the place of `tree`.
    ///
    /// # Panics
    /// For a longer label, and where memory does not grow.
    #[must_use]
    pub fn insert(&mut self, tree: Tree, label: &[u8], content: Content) -> Tree {
        self.insert_with(tree, label, content, [0; NOTE_BYTES])
    }

    /// As [`Forest::insert`], with a note beside the content, which is no part of any digest.
    #[must_use]
    pub fn insert_with(&mut self, tree: Tree, label: &[u8], content: Content, note: Note) -> Tree {
        let (tree_below, digest) = match content {
            Content::Digest(digest) => (0, digest),
            Content::Tree(tree) => (tree.0, self.digest(tree)),
        };
        let label = Label::new(label);
        let leaf = Node::Leaf {
            label,
            tree: tree_below,
            digest,
            note,
        };
        let top = match tree {
            NONE => self.plant(&label, leaf),
            Tree(root) => self.put(root, None, &label, leaf),
        };
        self.latest = Some(top);
        Tree(top.node)
    }

    /// A leaf with a number of its own.
    fn plant(&mut self, label: &Label, leaf: Node) -> Child {
        let node = self.nodes.add(leaf);
        leaf_child(node, label, &leaf)
    }

    /// `known` is what the fork above knows of the node.
    fn put(&mut self, at: u32, known: Option<Child>, label: &Label, leaf: Node) -> Child {
        let node = self.nodes.get(at);
        match node {
            Node::Leaf { label: found, .. } => {
                let order = label.as_slice().cmp(found.as_slice());
                if order == Ordering::Equal {
                    self.nodes.set(at, leaf);
                    return leaf_child(at, label, &leaf);
                }
                let old = known.unwrap_or_else(|| leaf_child(at, &found, &node));
                let new = self.plant(label, leaf);
                let (children, bound) = match order {
                    Ordering::Less => ([new, old], found),
                    _ => ([old, new], *label),
                };
                let fork = Node::Fork { children, bound };
                let node = self.nodes.add(fork);
                fork_child(node, &children)
            }
            Node::Fork {
                mut children,
                bound,
            } => {
                let side = side(label.as_slice(), &bound);
                let child = children[side];
                children[side] = self.put(child.node, Some(child), label, leaf);
                self.balance(at, children, bound)
            }
        }
    }

    /// Takes a label away; what it led to stays where it is. The tree that comes back takes the place of
    /// `tree`.
    #[must_use]
    pub fn remove(&mut self, tree: Tree, label: &[u8]) -> Tree {
        if tree == NONE {
            return NONE;
        }
        match self.take(tree.0, label) {
            Taken::Nothing => tree,
            Taken::Left(rest) => {
                self.latest = rest;
                rest.map_or(NONE, |rest| Tree(rest.node))
            }
        }
    }

    fn take(&mut self, at: u32, label: &[u8]) -> Taken {
        match self.nodes.get(at) {
            Node::Leaf { label: found, .. } if found.as_slice() == label => {
                self.nodes.remove(at);
                Taken::Left(None)
            }
            Node::Leaf { .. } => Taken::Nothing,
            Node::Fork {
                mut children,
                bound,
            } => {
                let side = side(label, &bound);
                let rest = match self.take(children[side].node, label) {
                    Taken::Nothing => return Taken::Nothing,
                    Taken::Left(None) => {
                        self.nodes.remove(at);
                        children[1 - side]
                    }
                    Taken::Left(Some(rest)) => {
                        children[side] = rest;
                        self.balance(at, children, bound)
                    }
                };
                Taken::Left(Some(rest))
            }
        }
    }

    /// Writes a fork, one of whose children has become higher or lower by one; where it leans over, its
    /// nodes are turned.
    fn balance(&mut self, at: u32, mut children: [Child; 2], bound: Label) -> Child {
        let [left, right] = children.map(|child| child.height);
        let heavy = match (left > right + 1, right > left + 1) {
            (true, _) => 0,
            (_, true) => 1,
            _ => return self.set_fork(at, children, bound),
        };
        let light = 1 - heavy;
        let below = children[heavy].node;
        let (mut inner, inner_bound) = self.fork(below);
        if inner[heavy].height < inner[light].height {
            let lowest = inner[light].node;
            let (mut middle, middle_bound) = self.fork(lowest);
            inner[light] = middle[heavy];
            middle[heavy] = self.set_fork(below, inner, inner_bound);
            children[heavy] = middle[light];
            middle[light] = self.set_fork(at, children, bound);
            return self.set_fork(lowest, middle, middle_bound);
        }
        children[heavy] = inner[light];
        inner[light] = self.set_fork(at, children, bound);
        self.set_fork(below, inner, inner_bound)
    }

    fn set_fork(&mut self, at: u32, children: [Child; 2], bound: Label) -> Child {
        self.nodes.set(at, Node::Fork { children, bound });
        fork_child(at, &children)
    }

    fn fork(&self, node: u32) -> ([Child; 2], Label) {
        match self.nodes.get(node) {
            Node::Fork { children, bound } => (children, bound),
            Node::Leaf { .. } => unreachable!("the higher child of a fork that leans is a fork"),
        }
    }

    fn child(&self, node: u32) -> Child {
        let content = self.nodes.get(node);
        match &content {
            Node::Fork { children, .. } => fork_child(node, children),
            Node::Leaf { label, .. } => leaf_child(node, label, &content),
        }
    }

    /// Frees all nodes of a tree, but not those of trees under its labels.
    pub fn clear(&mut self, tree: Tree) {
        self.latest = None;
        let mut left: Vec<u32> = (tree != NONE).then_some(tree.0).into_iter().collect();
        while let Some(node) = left.pop() {
            if let Node::Fork { children, .. } = self.nodes.get(node) {
                left.extend(children.map(|child| child.node));
            }
            self.nodes.remove(node);
        }
    }

    pub fn get(&self, tree: Tree, label: &[u8]) -> Option<Content> {
        let (content, _) = self.find(tree, label)?;
        Some(content)
    }

    /// The note beside what is under a label; zeros where it was inserted without one.
    pub fn note(&self, tree: Tree, label: &[u8]) -> Option<Note> {
        let (_, note) = self.find(tree, label)?;
        Some(note)
    }

    fn find(&self, tree: Tree, label: &[u8]) -> Option<(Content, Note)> {
        let mut at = (tree != NONE).then_some(tree.0)?;
        loop {
            match self.nodes.get(at) {
                Node::Fork { children, bound } => at = children[side(label, &bound)].node,
                Node::Leaf {
                    label: found,
                    tree,
                    digest,
                    note,
                } => return (found.as_slice() == label).then(|| (content(tree, digest), note)),
            }
        }
    }

    /// The first labels of a tree with their notes, in order, at most `max`.
    pub fn first(&self, tree: Tree, max: usize) -> Vec<(Vec<u8>, Note)> {
        let mut found = vec![];
        // Subtrees that follow, the next one last: no more than the tree is high.
        let mut left: Vec<u32> = (tree != NONE).then_some(tree.0).into_iter().collect();
        while found.len() < max
            && let Some(node) = left.pop()
        {
            match self.nodes.get(node) {
                Node::Fork {
                    children: [low, high],
                    ..
                } => left.extend([high.node, low.node]),
                Node::Leaf { label, note, .. } => found.push((label.as_slice().to_vec(), note)),
            }
        }
        found
    }

    /// The labels next below and next above one that is not there.
    pub fn neighbours(&self, tree: Tree, label: &[u8]) -> [Option<Vec<u8>>; 2] {
        // The subtrees that lie nearest on either side of the way down.
        let mut beside = [None; 2];
        let mut at = tree.0;
        if tree == NONE {
            return [None, None];
        }
        while let Node::Fork { children, bound } = self.nodes.get(at) {
            let side = side(label, &bound);
            beside[1 - side] = Some(children[1 - side].node);
            at = children[side].node;
        }
        let end = self.end(at, 0);
        match end.as_slice().cmp(label) {
            Ordering::Less => beside[0] = Some(at),
            Ordering::Greater => beside[1] = Some(at),
            Ordering::Equal => {}
        }
        let [below, above] = beside;
        [
            below.map(|node| self.end(node, 1)),
            above.map(|node| self.end(node, 0)),
        ]
    }

    /// The label at one end of a subtree: 0 for the lowest, 1 for the highest.
    fn end(&self, mut node: u32, side: usize) -> Vec<u8> {
        loop {
            match self.nodes.get(node) {
                Node::Fork { children, .. } => node = children[side].node,
                Node::Leaf { label, .. } => return label.as_slice().to_vec(),
            }
        }
    }

    /// A witness of the tree with the given labels, which must be sorted; `show` says what is to be seen
    /// under each. All others are hidden, also those that are given and not there.
    pub fn reveal(
        &self,
        tree: Tree,
        labels: &[&[u8]],
        show: &mut impl FnMut(&[u8], Content) -> Witness,
    ) -> Witness {
        match tree {
            NONE => Witness::Empty,
            Tree(root) => self.reveal_node(root, labels, show),
        }
    }

    fn reveal_node(
        &self,
        at: u32,
        labels: &[&[u8]],
        show: &mut impl FnMut(&[u8], Content) -> Witness,
    ) -> Witness {
        match self.nodes.get(at) {
            Node::Fork { children, bound } => {
                let middle = labels.partition_point(|label| side(label, &bound) == 0);
                let (left, right) = labels.split_at(middle);
                let [left, right] = [(left, children[0]), (right, children[1])].map(
                    |(labels, child)| match labels {
                        [] => Witness::Pruned(child.digest),
                        labels => self.reveal_node(child.node, labels, show),
                    },
                );
                Witness::fork(left, right)
            }
            Node::Leaf {
                label,
                tree,
                digest,
                ..
            } => {
                let label = label.as_slice();
                match labels.contains(&label) {
                    true => Witness::labeled(label, show(label, content(tree, digest))),
                    false => Witness::Pruned(hash::labeled(label, &digest)),
                }
            }
        }
    }

    /// Looks at a whole tree. `Err` says what is wrong with it.
    pub fn check(&self, tree: Tree) -> Result<(), &'static str> {
        if tree == NONE {
            return Ok(());
        }
        let (mut last, mut bounds) = (None, vec![]);
        self.check_node(&self.child(tree.0), &mut last, &mut bounds)
    }

    fn check_node(
        &self,
        known: &Child,
        last: &mut Option<Vec<u8>>,
        bounds: &mut Vec<Vec<u8>>,
    ) -> Result<(), &'static str> {
        if self.child(known.node) != *known {
            return Err("a fork does not know the height or the digest of its child");
        }
        match self.nodes.get(known.node) {
            Node::Fork { children, bound } => {
                let [left, right] = children;
                if left.height.abs_diff(right.height) > 1 {
                    return Err("a fork leans over");
                }
                self.check_node(&left, last, bounds)?;
                if last.as_deref().is_some_and(|last| last >= bound.as_slice()) {
                    return Err("a label on the left is not below the bound");
                }
                bounds.push(bound.as_slice().to_vec());
                self.check_node(&right, last, bounds)
            }
            Node::Leaf { label, .. } => {
                let label = label.as_slice();
                if last.as_deref().is_some_and(|last| last >= label) {
                    return Err("labels are not sorted");
                }
                if bounds.iter().any(|bound| bound.as_slice() > label) {
                    return Err("a label on the right is below the bound");
                }
                *last = Some(label.to_vec());
                Ok(())
            }
        }
    }

    /// Whether every node is either in use or in the chain of free ones.
    pub fn chain_is_whole(&self) -> bool {
        self.nodes.chain_is_whole()
    }
}

/// On which side of a fork a label stands.
fn side(label: &[u8], bound: &Label) -> usize {
    usize::from(label >= bound.as_slice())
}

fn content(tree: u32, digest: Hash) -> Content {
    match tree {
        0 => Content::Digest(digest),
        tree => Content::Tree(Tree(tree)),
    }
}

fn fork_child(node: u32, children: &[Child; 2]) -> Child {
    let [left, right] = children;
    Child {
        node,
        height: left.height.max(right.height) + 1,
        digest: hash::fork(&left.digest, &right.digest),
    }
}

fn leaf_child(node: u32, label: &Label, leaf: &Node) -> Child {
    let Node::Leaf { digest, .. } = leaf else {
        unreachable!("only leaves are planted");
    };
    Child {
        node,
        height: 0,
        digest: hash::labeled(label.as_slice(), digest),
    }
}

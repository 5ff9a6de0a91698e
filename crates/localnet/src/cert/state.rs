//! The certified state of one subnet.

use candid::Principal;
use ic_certification::{
    AsHashTree, HashTree, Label, RbTree, fork, labeled, leaf, merge_hash_trees, pruned,
};

use super::Node;

/// Labels from the root down.
pub type Path = Vec<Label>;

/// The labels at the root, in their order.
const CANISTER: &str = "canister";
const CANISTER_RANGES: &str = "canister_ranges";
const REQUEST_STATUS: &str = "request_status";
const SUBNET: &str = "subnet";
const TIME: &str = "time";

/// What is certified of a canister. Its custom sections follow from its module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub controllers: Vec<Principal>,
    /// The module's hash, the time at which it came, and the certified data; none in a canister without code.
    pub code: Option<([u8; 32], u64, Vec<u8>)>,
}

/// A part of the state of which only the digest is kept here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Canister(Principal),
    /// A message by its request id.
    Request([u8; 32]),
}

#[derive(Debug)]
struct Known {
    digest: [u8; 32],
    facts: Facts,
}

impl AsHashTree for Known {
    fn root_hash(&self) -> [u8; 32] {
        self.digest
    }

    fn as_hash_tree(&self) -> HashTree {
        pruned(self.digest)
    }
}

/// Canisters and messages are digests in authenticated trees, so that a change costs the logarithm of
/// their number and a proof of one does not look at the others.
#[derive(Debug)]
pub struct State {
    time_ns: u64,
    canisters: RbTree<Principal, Known>,
    requests: RbTree<[u8; 32], Node>,
    /// What is known of all subnets.
    subnets: Node,
    ranges: Node,
}

impl Default for State {
    fn default() -> Self {
        Self {
            time_ns: 0,
            canisters: RbTree::new(),
            requests: RbTree::new(),
            subnets: Node::Branch(RbTree::new()),
            ranges: Node::Branch(RbTree::new()),
        }
    }
}

impl State {
    pub fn set_time(&mut self, time_ns: u64) {
        self.time_ns = time_ns;
    }

    /// What stands under `/subnet` and under `/canister_ranges`.
    pub fn set_subnets(&mut self, subnets: Node, ranges: Node) {
        self.subnets = subnets;
        self.ranges = ranges;
    }

    pub fn canister(&self, id: &Principal) -> Option<&Facts> {
        self.canisters.get(id.as_slice()).map(|known| &known.facts)
    }

    /// Replaces what is known of a canister. `node` is its whole tree.
    pub fn put_canister(&mut self, id: Principal, facts: Facts, node: &Node) {
        let digest = node.root_hash();
        self.canisters.insert(id, Known { digest, facts });
    }

    pub fn drop_canister(&mut self, id: &Principal) {
        self.canisters.delete(id.as_slice());
    }

    /// Replaces what is known of a message. `node` is its whole tree.
    pub fn put_request(&mut self, id: [u8; 32], node: &Node) {
        self.requests.insert(id, Node::Sealed(node.root_hash()));
    }

    pub fn drop_request(&mut self, id: &[u8; 32]) {
        self.requests.delete(id);
    }

    /// A view of the state that shows the time and these paths, each with what is there or with the proof
    /// that nothing is. `reveal` gives the whole tree of a part that is asked for.
    pub fn view(&self, paths: &[Path], reveal: &dyn Fn(Part) -> Node) -> HashTree {
        let mut view = View::hidden(self);
        for path in paths {
            let [first, rest @ ..] = path.as_slice() else {
                continue;
            };
            // Time is always shown, and so are the root's labels, which prove all others absent.
            match first.as_bytes() {
                label if label == CANISTER.as_bytes() => {
                    view.canisters.show(self.canister_view(rest, reveal));
                }
                label if label == REQUEST_STATUS.as_bytes() => {
                    view.requests.show(self.request_view(rest, reveal));
                }
                label if label == SUBNET.as_bytes() => {
                    view.subnets.show(self.subnets.witness(rest))
                }
                label if label == CANISTER_RANGES.as_bytes() => {
                    view.ranges.show(self.ranges.witness(rest));
                }
                _ => {}
            }
        }
        view.into_tree()
    }

    fn canister_view(&self, path: &[Label], reveal: &dyn Fn(Part) -> Node) -> HashTree {
        let [id, rest @ ..] = path else {
            return self.canisters.keys();
        };
        self.canisters.nested_witness(id.as_bytes(), |known| {
            match Principal::try_from_slice(id.as_bytes()) {
                Ok(id) => reveal(Part::Canister(id)).witness(rest),
                Err(_) => known.as_hash_tree(),
            }
        })
    }

    fn request_view(&self, path: &[Label], reveal: &dyn Fn(Part) -> Node) -> HashTree {
        let [id, rest @ ..] = path else {
            return self.requests.keys();
        };
        self.requests
            .nested_witness(id.as_bytes(), |sealed| match id.as_bytes().try_into() {
                Ok(id) => reveal(Part::Request(id)).witness(rest),
                Err(_) => sealed.as_hash_tree(),
            })
    }

    /// What the root subnet signs for another: its key and its canisters, in both forms that verifiers
    /// look for.
    pub fn delegation_view(&self, subnet: &Principal) -> HashTree {
        let id = subnet.as_slice();
        let mut view = View::hidden(self);
        view.subnets
            .show(self.subnets.witness(&[id, b"public_key"]));
        view.subnets
            .show(self.subnets.witness(&[id, b"canister_ranges"]));
        view.ranges.show(self.ranges.witness(&[id]));
        view.into_tree()
    }
}

/// One part of a view, which shows more and more.
struct Shown(HashTree);

impl Shown {
    fn show(&mut self, more: HashTree) {
        let shown = std::mem::replace(&mut self.0, pruned([0; 32]));
        self.0 = merge_hash_trees(shown, more);
    }
}

/// A view under construction: the root's parts, each shown as far as was asked.
struct View {
    canisters: Shown,
    ranges: Shown,
    requests: Shown,
    subnets: Shown,
    time: HashTree,
}

impl View {
    fn hidden(state: &State) -> Self {
        let hidden = |digest| Shown(pruned::<[u8; 32]>(digest));
        Self {
            canisters: hidden(state.canisters.root_hash()),
            ranges: hidden(state.ranges.root_hash()),
            requests: hidden(state.requests.root_hash()),
            subnets: hidden(state.subnets.root_hash()),
            time: leaf(natural(state.time_ns)),
        }
    }

    fn into_tree(self) -> HashTree {
        let left = fork(
            labeled(CANISTER, self.canisters.0),
            labeled(CANISTER_RANGES, self.ranges.0),
        );
        let right = fork(labeled(SUBNET, self.subnets.0), labeled(TIME, self.time));
        fork(left, fork(labeled(REQUEST_STATUS, self.requests.0), right))
    }
}

/// A number as the certified state has it.
pub fn natural(number: u64) -> Vec<u8> {
    let mut bytes = vec![];
    leb128::write::unsigned(&mut bytes, number).expect("a vector takes everything");
    bytes
}

//! The network's state as it is certified. Nothing is hashed or signed before somebody asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use candid::Principal;
use ic_certification::{AsHashTree, Label};
use ic_transport_types::SubnetMetrics;
use pocket_ic::common::rest::SubnetKind;

use super::{MessageStatus, Network, Subnet, canister::Canister, history::Entry};
use crate::cert::{Certifier, Facts, Node, Part, Path, SubnetKeys, cbor, natural};

/// Subnets have their canister ranges in shards of so many ranges; there are never more than two.
const RANGES_PER_SHARD: usize = 5;

pub struct Certified {
    certifier: Certifier,
    /// The round, the time and the cycles burned that the certified states show; none until somebody asks.
    shown: Option<(u64, u64, u128)>,
    /// The digest of the custom sections, by the module's hash.
    metadata: BTreeMap<[u8; 32], [u8; 32]>,
    /// Certificates of canisters' data in this round.
    data: BTreeMap<Principal, Vec<u8>>,
    /// Canisters that may be other than what is shown of them.
    touched: BTreeSet<Principal>,
    /// Of the canisters that are shown: the place of their subnet, and their bytes.
    held: BTreeMap<Principal, (usize, u64)>,
    /// Of each subnet: how many canisters are shown, and their bytes.
    totals: Vec<(u64, u64)>,
}

impl Certified {
    pub fn new(keys: Arc<[SubnetKeys]>) -> Self {
        Self {
            totals: vec![(0, 0); keys.len()],
            certifier: Certifier::new(keys),
            shown: None,
            metadata: BTreeMap::new(),
            data: BTreeMap::new(),
            touched: BTreeSet::new(),
            held: BTreeMap::new(),
        }
    }

    /// A canister came, changed or went: it is looked at again when somebody asks.
    pub fn touch(&mut self, id: &Principal) {
        self.touched.insert(*id);
    }

    /// Notes where a canister is and how large, or that it is gone.
    fn hold(&mut self, id: Principal, now: Option<(usize, u64)>) {
        let before = match now {
            Some(now) => self.held.insert(id, now),
            None => self.held.remove(&id),
        };
        if let Some((subnet, bytes)) = before {
            let (count, total) = &mut self.totals[subnet];
            (*count, *total) = (*count - 1, *total - bytes);
        }
        if let Some((subnet, bytes)) = now {
            let (count, total) = &mut self.totals[subnet];
            (*count, *total) = (*count + 1, *total + bytes);
        }
    }

    pub fn keys(&self) -> &Arc<[SubnetKeys]> {
        self.certifier.keys()
    }
}

impl Network {
    /// A certificate, in CBOR, of the subnet that answers for `effective`, which shows these paths: each
    /// with what is there, or with the proof that nothing is. Who may see what is not asked here.
    pub fn certificate(&mut self, effective: &Principal, paths: &[Path]) -> Vec<u8> {
        self.show_present();
        let subnet = self.index(&self.route(Some(effective)).id);
        let Self {
            certified,
            canisters,
            history,
            time_ns,
            ..
        } = self;
        let reveal = |part| match part {
            Part::Canister(id) => canisters
                .get(&id)
                .map_or_else(nothing, |canister| canister_node(canister, metadata)),
            Part::Request(id) => history.get(&id).map_or_else(nothing, message_node),
        };
        certified
            .certifier
            .certificate(subnet, *time_ns, paths, &reveal)
    }

    /// For `data_certificate`. None where there is no such canister or its code never asks.
    pub(super) fn data_certificate(&mut self, id: &Principal) -> Option<Vec<u8>> {
        let machine = self.canisters.get(id)?.machine.as_ref()?;
        if !machine.module().asks_for_certificate() {
            return None;
        }
        self.show_present();
        if let Some(certificate) = self.certified.data.get(id) {
            return Some(certificate.clone());
        }
        let path: Path = vec![
            "canister".into(),
            Label::from_bytes(id.as_slice()),
            "certified_data".into(),
        ];
        let certificate = self.certificate(id, &[path]);
        self.certified.data.insert(*id, certificate.clone());
        Some(certificate)
    }

    fn index(&self, subnet: &Principal) -> usize {
        let mut subnets = self.subnets.iter();
        subnets.position(|other| other.id == *subnet).unwrap_or(0)
    }

    /// Brings the certified states up to now.
    fn show_present(&mut self) {
        self.show_messages();
        let now = (self.round, self.time_ns, self.burned);
        if self.certified.shown == Some(now) && self.certified.touched.is_empty() {
            return;
        }
        self.certified.shown = Some(now);
        self.certified.data.clear();
        self.show_canisters();
        for index in 0..self.subnets.len() {
            let (subnets, ranges) = (self.subnets_node(index), self.ranges_node());
            let state = &mut self.certified.certifier.states()[index];
            state.set_time(self.time_ns);
            state.set_subnets(subnets, ranges);
        }
    }

    fn show_messages(&mut self) {
        let changed = self.history.take_changed();
        if changed.is_empty() {
            return;
        }
        for (id, entry) in changed {
            let mut subnets = self.subnets.iter();
            for state in self.certified.certifier.states() {
                let here = subnets.next().map(|subnet| subnet.id);
                match entry {
                    Some(entry) if here == Some(entry.subnet) => {
                        state.put_request(id, &message_node(entry));
                    }
                    Some(_) => {}
                    None => state.drop_request(&id),
                }
            }
        }
        // The root changed, so certificates of it did.
        self.certified.data.clear();
    }

    /// Looks at the canisters that were touched, and at no others.
    fn show_canisters(&mut self) {
        for id in std::mem::take(&mut self.certified.touched) {
            let Self {
                certified,
                canisters,
                subnets,
                ..
            } = self;
            let now = canisters.get(&id).and_then(|canister| {
                let mut places = subnets.iter();
                let place = places.position(|subnet| subnet.id == canister.subnet)?;
                Some((place, state_bytes(canister)))
            });
            let before = certified.held.get(&id).map(|(place, _)| *place);
            if let Some(place) = before.filter(|place| now.map(|(now, _)| now) != Some(*place)) {
                certified.certifier.states()[place].drop_canister(&id);
            }
            certified.hold(id, now);
            let (Some((place, _)), Some(canister)) = (now, canisters.get(&id)) else {
                continue;
            };
            let facts = facts(canister);
            let state = &mut certified.certifier.states()[place];
            if state.canister(&id) != Some(&facts) {
                let sealed =
                    |canister: &Canister| sealed_metadata(&mut certified.metadata, canister);
                let node = canister_node(canister, sealed);
                state.put_canister(id, facts, &node);
            }
        }
    }

    /// What stands under `/subnet` in the state of one of the subnets: of all, keys and ranges and
    /// nodes; of itself, figures too.
    fn subnets_node(&self, own: usize) -> Node {
        let subnet_node = |(index, subnet): (usize, &Subnet)| {
            let keys = &self.keys()[index];
            let node = Node::branch([("public_key", Node::leaf(keys.node_public.clone()))]);
            let mut children = vec![
                (
                    "canister_ranges",
                    Node::Leaf(cbor(&self.canister_ranges(subnet))),
                ),
                ("node", Node::branch([(keys.node().as_slice(), node)])),
                ("public_key", Node::leaf(keys.public.clone())),
                ("type", Node::leaf(kind_name(subnet.kind))),
            ];
            if index == own {
                children.push(("metrics", Node::Leaf(self.metrics(index))));
            }
            (subnet.id.as_slice().to_vec(), Node::branch(children))
        };
        Node::branch(self.subnets.iter().enumerate().map(subnet_node))
    }

    fn ranges_node(&self) -> Node {
        let shards = |subnet: &Subnet| {
            let ranges = self.canister_ranges(subnet);
            let shards = ranges.chunks(RANGES_PER_SHARD).map(|shard| {
                let (first, _) = shard[0];
                (first.as_slice().to_vec(), Node::Leaf(cbor(&shard)))
            });
            (subnet.id.as_slice().to_vec(), Node::branch(shards))
        };
        Node::branch(self.subnets.iter().map(shards))
    }

    /// In CBOR, with numbers for names, as the Internet Computer has it.
    fn metrics(&self, index: usize) -> Vec<u8> {
        let (canisters, bytes) = self.certified.totals[index];
        let subnet = &self.subnets[index];
        let metrics = SubnetMetrics {
            num_canisters: canisters,
            canister_state_bytes: bytes,
            consumed_cycles_total: subnet.consumed,
            update_transactions_total: subnet.executions,
        };
        serde_cbor::ser::to_vec_packed(&metrics).expect("figures have a CBOR form")
    }
}

fn nothing() -> Node {
    Node::branch::<&str>([])
}

fn facts(canister: &Canister) -> Facts {
    Facts {
        controllers: canister.controllers.iter().copied().collect(),
        code: canister.machine.as_ref().map(|machine| {
            let data = canister.certified_data.clone();
            (machine.module().hash(), canister.installed_ns, data)
        }),
    }
}

/// What stands under `/canister/<id>`.
fn canister_node(canister: &Canister, metadata: impl FnOnce(&Canister) -> Option<Node>) -> Node {
    let controllers: Vec<_> = canister.controllers.iter().collect();
    let created = Node::Leaf(natural(canister.created_ns));
    let mut children = vec![
        ("canister_creation_timestamp", created),
        ("controllers", Node::Leaf(cbor(&controllers))),
    ];
    if let Some(machine) = &canister.machine {
        children.push((
            "certified_data",
            Node::leaf(canister.certified_data.clone()),
        ));
        let installed = Node::Leaf(natural(canister.installed_ns));
        children.push(("last_install_timestamp", installed));
        children.push(("module_hash", Node::leaf(machine.module().hash())));
    }
    children.extend(metadata(canister).map(|node| ("metadata", node)));
    Node::branch(children)
}

/// The custom sections; none where there are none.
fn metadata(canister: &Canister) -> Option<Node> {
    let module = canister.machine.as_ref()?.module();
    let mut sections = module.all_metadata().peekable();
    sections.peek()?;
    Some(Node::branch(
        sections.map(|(name, bytes)| (name, Node::leaf(bytes))),
    ))
}

/// The same, of which only the digest is known: the sections may be large, and many canisters have the
/// same.
fn sealed_metadata(known: &mut BTreeMap<[u8; 32], [u8; 32]>, canister: &Canister) -> Option<Node> {
    let hash = canister.machine.as_ref()?.module().hash();
    if let Some(digest) = known.get(&hash) {
        return Some(Node::Sealed(*digest));
    }
    let digest = metadata(canister)?.root_hash();
    known.insert(hash, digest);
    Some(Node::Sealed(digest))
}

/// What stands under `/request_status/<id>`.
fn message_node(entry: &Entry) -> Node {
    let status = |word: &str| ("status", Node::leaf(word));
    match &entry.status {
        MessageStatus::Received => Node::branch([status("received")]),
        MessageStatus::Processing => Node::branch([status("processing")]),
        MessageStatus::Done => Node::branch([status("done")]),
        MessageStatus::Answered(Ok(reply)) => {
            Node::branch([("reply", Node::leaf(reply.clone())), status("replied")])
        }
        MessageStatus::Answered(Err(reject)) => Node::branch([
            ("error_code", Node::leaf(reject.error_code_text())),
            // A reject code is less than 128, so its LEB128 form is the number itself.
            ("reject_code", Node::leaf([reject.code as u8])),
            ("reject_message", Node::leaf(reject.message.as_str())),
            status("rejected"),
        ]),
    }
}

/// Memories and code.
pub(super) fn state_bytes(canister: &Canister) -> u64 {
    match canister.machine {
        Some(_) => canister.machine_bytes() + canister.wasm_bytes,
        None => 0,
    }
}

/// The subnet's kind as agents know it.
fn kind_name(kind: SubnetKind) -> &'static str {
    match kind {
        SubnetKind::Application => "application",
        SubnetKind::VerifiedApplication => "verified_application",
        SubnetKind::CloudEngine => "cloud_engine",
        _ => "system",
    }
}

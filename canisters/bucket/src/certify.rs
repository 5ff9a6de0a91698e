//! The tree behind what a gateway verifies. Its labels are the segments of URLs:
//!
//! ```text
//! http_expr
//! ├─ {accessor} ── {blob} ── <$> ─┬─ method and answer ─┬─ GET ─── first answer
//! │             │                 │                     └─ HEAD ── answer
//! │             │                 └─ answer only ── "" ── the blob's: 304, 416, parts after the first
//! │             └─ <*> ── answer only ── "" ── 404
//! ├─ m ── <*> ── nothing
//! └─ logs, metrics, status ── <$> ── nothing
//! ```
//!
//! The trees of accessors, and of the parts of blobs that have several, lie in one forest; the rest of a
//! blob's branch is computed when it is needed. Where an accessor has several references to a blob, each has a first
//! answer and one to HEAD of its own, and all of them stand there: the canister chooses, by the token. An answer of 404
//! shows the ids of the blobs beside the one that is missing, and so goes only to whoever may know them.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use candid::Principal;
use ic_stable_structures::StableBTreeMap;
use openstorage_certtree::{
    Content, Forest, Full, Hash, INSERT_NODES_MAX, NONE, NOTE_BYTES, Note, Tree, Witness, labeled,
    path_to_cbor,
};
use openstorage_sha256::{Sha256, sha256};
use openstorage_types::{BlobId, chunk_count, chunk_len, limits::CHUNK_BYTES};

use crate::{
    Bucket, Stored,
    answers::{Field, Shapes, pair},
    memory::{self, Memories, Memory},
    number_at,
    references::{PRINCIPAL_BYTES, Reference, References, principal_at, principal_bytes},
};

const TOP: &str = "http_expr";
const EXACT: &str = "<$>";
const ANY: &str = "<*>";
/// Paths that say themselves that nothing is certified under them.
pub const OPERATORS: [&str; 3] = ["logs", "metrics", "status"];
/// Above exact ranges of blobs, which are not certified either.
pub const RANGES: &str = "m";

/// What a request is answered with.
#[derive(Debug, Clone, Copy)]
pub enum Shown {
    First,
    Head,
    Unchanged,
    Unsatisfiable,
    /// The index of a part after the first.
    Part(u32),
}

/// How an accessor sees a blob.
pub struct View<'a> {
    /// The user to whom the reference belongs.
    pub owner: Principal,
    pub reference: &'a Reference,
    pub stored: &'a Stored,
}

/// The note beside a blob in the tree of an accessor: the owner of the reference by which it is seen.
fn note(owner: &Principal) -> Note {
    let mut note = [0; NOTE_BYTES];
    note[..PRINCIPAL_BYTES].copy_from_slice(&principal_bytes(owner));
    note
}

pub struct Certify {
    pub shapes: Shapes,
    forest: Forest<Memory>,
    /// (slot, index) to: for the first part of several, the SHA-256 of its bytes, as its answer differs from
    /// reference to reference; for the others the hash of their answer.
    parts: StableBTreeMap<(u64, u32), Hash, Memory>,
    /// Slot to the tree of a blob's own answers, where it has several parts.
    trees: StableBTreeMap<u64, u32, Memory>,
    /// Accessor and blob to the trees of the answers to GET and to HEAD, where there are several references. The note
    /// beside an answer is how many of them are shown so.
    shared: StableBTreeMap<Pair, (u32, u32), Memory>,
}

/// An accessor and a blob.
type Pair = [u8; PRINCIPAL_BYTES + 32];

fn pair_of(accessor: &Principal, blob: &BlobId) -> Pair {
    let mut pair = [0; size_of::<Pair>()];
    pair[..PRINCIPAL_BYTES].copy_from_slice(&principal_bytes(accessor));
    pair[PRINCIPAL_BYTES..].copy_from_slice(&blob.0);
    pair
}

/// How many references are shown so.
fn count_at(note: Option<Note>) -> u64 {
    note.map_or(0, |note| number_at(&note, 0))
}

impl Certify {
    /// `is_strict` must be what it was when the memory was new.
    ///
    /// # Panics
    /// When the memory holds something else, or a layout that this code does not know.
    pub fn open(memories: &Memories, is_strict: bool) -> Self {
        let forest = Forest::init(memories.get(memory::CERTIFIED));
        let mut certify = Self {
            shapes: Shapes::new(is_strict),
            forest: forest.unwrap_or_else(|error| panic!("{error}")),
            parts: StableBTreeMap::init(memories.get(memory::PARTS)),
            trees: StableBTreeMap::init(memories.get(memory::PART_TREES)),
            shared: StableBTreeMap::init(memories.get(memory::SHARED_ANSWERS)),
        };
        if certify.forest.top() == NONE {
            let nothing = labeled(certify.shapes.nothing(), certify.shapes.leaf());
            let ranges = (RANGES, labeled(ANY.as_bytes(), &nothing));
            let exact = labeled(EXACT.as_bytes(), &nothing);
            let fixed = OPERATORS.map(|name| (name, exact)).into_iter();
            let top = fixed.chain([ranges]).fold(NONE, |top, (name, digest)| {
                let content = Content::Digest(digest);
                certify.forest.insert(top, name.as_bytes(), content)
            });
            certify.forest.set_top(top);
        }
        certify
    }

    /// What the subnet is to certify.
    pub fn root(&self) -> Hash {
        labeled(TOP.as_bytes(), &self.forest.digest(self.forest.top()))
    }

    /// Makes sure of the memory for all that one message adds: a chunk, the end of its upload, and the blob under so
    /// many accessors. Without it what follows could end in the middle, by a trap.
    pub fn reserve(&mut self, accessors: usize) -> Result<(), Full> {
        const OF_A_BLOB: u32 = 3;
        // The accessor, its 404 and the blob; or the accessor, the blob, and two answers of two references.
        const OF_AN_ACCESSOR: u32 = 6;
        let accessors = u32::try_from(accessors).map_err(|_| Full)?;
        let inserted = OF_A_BLOB + accessors.saturating_mul(OF_AN_ACCESSOR);
        self.forest
            .reserve(inserted.saturating_mul(INSERT_NODES_MAX))
    }

    /// The bytes of a chunk have come in, of a blob that has several.
    pub fn chunk(&mut self, slot: u64, blob: &BlobId, size: u64, index: u32, bytes: &[u8]) {
        if self.parts.contains_key(&(slot, index)) {
            return;
        }
        let body = sha256(&[bytes]);
        if index == 0 {
            self.parts.insert((slot, index), body);
            return;
        }
        let hash = self.shapes.part(blob, size, index).hash(&body);
        self.parts.insert((slot, index), hash);
        self.answer_with(slot, &hash);
    }

    /// All chunks of a blob of several are in.
    pub fn complete(&mut self, slot: u64, blob: &BlobId, size: u64) {
        let unchanged = self.shapes.unchanged_hash(self.shapes.tag(blob));
        self.answer_with(slot, &unchanged);
        let unsatisfiable = self.shapes.unsatisfiable_hash(blob, size);
        self.answer_with(slot, &unsatisfiable);
    }

    fn answer_with(&mut self, slot: u64, hash: &Hash) {
        let tree = self.tree(slot);
        let content = Content::Digest(*self.shapes.leaf());
        let tree_after = self.forest.insert(tree, hash, content);
        if tree_after != tree {
            self.trees.insert(slot, tree_after.0);
        }
    }

    fn tree(&self, slot: u64) -> Tree {
        self.trees.get(&slot).map_or(NONE, Tree)
    }

    /// The slot's blob is gone, or never came to be.
    pub fn drop_slot(&mut self, slot: u64) {
        let Some(tree) = self.trees.remove(&slot) else {
            // A single chunk, or the first of several alone.
            self.parts.remove(&(slot, 0));
            return;
        };
        self.forest.clear(Tree(tree));
        let parts: Vec<_> = self
            .parts
            .keys_range((slot, 0)..=(slot, u32::MAX))
            .collect();
        for part in parts {
            self.parts.remove(&part);
        }
    }

    /// An accessor has one more reference to a blob than the one by which it is seen, or `first` and one more. What
    /// that makes of the accessor's tree is for [`Certify::set`].
    pub fn share(
        &mut self,
        accessor: &Principal,
        blob: &BlobId,
        stored: &Stored,
        [first, new]: [&Reference; 2],
    ) {
        let pair = pair_of(accessor, blob);
        let known = self.shared.get(&pair);
        let new_here = [first, new].into_iter().skip(known.is_some().into());
        let (get, head) = known.unwrap_or((NONE.0, NONE.0));
        let mut trees = [Tree(get), Tree(head)];
        for reference in new_here {
            let answers = self.answers(blob, stored, reference);
            for (tree, answer) in trees.iter_mut().zip(&answers) {
                let count = count_at(self.forest.note(*tree, answer)) + 1;
                *tree = self.put_answer(*tree, answer, count);
            }
        }
        self.shared.insert(pair, (trees[0].0, trees[1].0));
    }

    /// An accessor that had several references to a blob has one less; `is_alone` where there is one left. What that
    /// makes of the accessor's tree is for [`Certify::set`].
    pub fn unshare(
        &mut self,
        accessor: &Principal,
        blob: &BlobId,
        stored: &Stored,
        gone: &Reference,
        is_alone: bool,
    ) {
        let pair = pair_of(accessor, blob);
        let Some((get, head)) = self.shared.get(&pair) else {
            return;
        };
        if is_alone {
            self.shared.remove(&pair);
            for tree in [get, head] {
                self.forest.clear(Tree(tree));
            }
            return;
        }
        let answers = self.answers(blob, stored, gone);
        let [get, head] = [(get, answers[0]), (head, answers[1])].map(|(tree, answer)| {
            let tree = Tree(tree);
            match count_at(self.forest.note(tree, &answer)) {
                ..=1 => self.forest.remove(tree, &answer),
                count => self.put_answer(tree, &answer, count - 1),
            }
        });
        self.shared.insert(pair, (get.0, head.0));
    }

    fn put_answer(&mut self, tree: Tree, answer: &Hash, count: u64) -> Tree {
        let mut note = [0; NOTE_BYTES];
        note[..8].copy_from_slice(&count.to_le_bytes());
        let leaf = Content::Digest(*self.shapes.leaf());
        self.forest.insert_with(tree, answer, leaf, note)
    }

    /// How an accessor sees a blob has changed; none where it sees it no more.
    pub fn set(&mut self, accessor: &Principal, blob: &BlobId, seen: Option<View>) {
        let (top, name) = (self.forest.top(), accessor.to_text());
        let known = self.accessor(top, &name);
        let label = blob.to_string();
        let tree = match seen {
            Some(View {
                owner,
                reference,
                stored,
            }) => {
                let branch = self.branch(accessor, blob, stored, reference).digest();
                let tree = match known {
                    NONE => self.forest.insert(NONE, ANY.as_bytes(), self.missing()),
                    known => known,
                };
                let content = Content::Digest(labeled(EXACT.as_bytes(), &branch));
                let (label, note) = (label.as_bytes(), note(&owner));
                self.forest.insert_with(tree, label, content, note)
            }
            None => {
                let rest = self.forest.remove(known, label.as_bytes());
                match self.is_only_missing(rest) {
                    true => self.forest.remove(rest, ANY.as_bytes()),
                    false => rest,
                }
            }
        };
        let top = match tree {
            NONE => self.forest.remove(top, name.as_bytes()),
            tree => self
                .forest
                .insert(top, name.as_bytes(), Content::Tree(tree)),
        };
        self.forest.set_top(top);
    }

    /// Whether an accessor sees a blob: the trees hold just those.
    pub fn shows(&self, accessor: &Principal, blob: &BlobId) -> bool {
        let tree = self.accessor(self.forest.top(), &accessor.to_text());
        let label = blob.to_string();
        self.forest.get(tree, label.as_bytes()).is_some()
    }

    /// The owner of the reference by which an accessor sees a blob. None where it does not.
    pub fn owner(&self, accessor: &Principal, blob: &BlobId) -> Option<Principal> {
        let tree = self.accessor(self.forest.top(), &accessor.to_text());
        let note = self.forest.note(tree, blob.to_string().as_bytes())?;
        Some(principal_at(&note))
    }

    /// Blobs that an accessor sees, each with the owner of the reference by which it does: the first `max`.
    pub fn seen(&self, accessor: &Principal, max: usize) -> Vec<(BlobId, Principal)> {
        let tree = self.accessor(self.forest.top(), &accessor.to_text());
        let labels = self.forest.first(tree, max.saturating_add(1)).into_iter();
        labels
            .filter_map(|(label, note)| {
                let blob = std::str::from_utf8(&label).ok()?.parse().ok()?;
                Some((blob, principal_at(&note)))
            })
            .take(max)
            .collect()
    }

    fn accessor(&self, top: Tree, name: &str) -> Tree {
        match self.forest.get(top, name.as_bytes()) {
            Some(Content::Tree(tree)) => tree,
            _ => NONE,
        }
    }

    /// Whether nothing is left of an accessor's tree but its 404.
    fn is_only_missing(&self, tree: Tree) -> bool {
        let lone = |side: &Option<Vec<u8>>| side.is_none();
        // Its neighbours are those of a label next to it.
        let [below, above] = self.forest.neighbours(tree, b"<*>\0");
        lone(&above) && below.as_deref() == Some(ANY.as_bytes()) && {
            let [below, _] = self.forest.neighbours(tree, b"<*");
            lone(&below)
        }
    }

    fn missing(&self) -> Content {
        let answer = self.shapes.answer(&self.shapes.missing_hash());
        Content::Digest(labeled(self.shapes.answer_only(), &labeled(b"", &answer)))
    }

    /// Hashes of the answers to GET and HEAD about a blob as a reference shows it.
    fn answers(&self, blob: &BlobId, stored: &Stored, seen: &Reference) -> [Hash; 2] {
        self.answers_tagged(&self.shapes.tag_hashed(blob), blob, stored, seen)
    }

    fn answers_tagged(
        &self,
        tag: &Field,
        blob: &BlobId,
        stored: &Stored,
        seen: &Reference,
    ) -> [Hash; 2] {
        let several = chunk_count(stored.size) > 1;
        // The id of a blob of one part is the SHA-256 of that part.
        let first = several.then(|| self.parts.get(&(stored.slot, 0))).flatten();
        let body = first.unwrap_or(blob.0);
        self.shapes.first_hashes(tag, stored.size, seen, &body)
    }

    /// All that is certified of a blob that an accessor sees, and of it what a reference shows.
    fn branch(
        &self,
        accessor: &Principal,
        blob: &BlobId,
        stored: &Stored,
        seen: &Reference,
    ) -> Branch<'_> {
        let tag = self.shapes.tag_hashed(blob);
        let answers = self.answers_tagged(&tag, blob, stored, seen);
        let own = match chunk_count(stored.size) > 1 {
            true => self.forest.digest(self.tree(stored.slot)),
            false => self.shapes.answer(&self.shapes.unchanged_hash(tag)),
        };
        let shared = match self.shared.is_empty() {
            true => None,
            false => self.shared.get(&pair_of(accessor, blob)),
        };
        Branch {
            certify: self,
            answers,
            shared: shared.map(|(get, head)| [get, head].map(Tree)),
            own,
        }
    }

    /// The `IC-Certificate` header of an answer about a blob that the accessor sees.
    pub fn prove(
        &self,
        certificate: &[u8],
        accessor: &Principal,
        blob: &BlobId,
        (seen, stored): (&Reference, &Stored),
        shown: Shown,
    ) -> String {
        let branch = self.branch(accessor, blob, stored, seen);
        let leaf = || Witness::Leaf(vec![]);
        let content = match shown {
            Shown::First => branch.reveal_request(0),
            Shown::Head => branch.reveal_request(1),
            Shown::Unchanged | Shown::Unsatisfiable | Shown::Part(_) => {
                let hash = match shown {
                    Shown::Part(index) => self.parts.get(&(stored.slot, index)).unwrap_or_default(),
                    Shown::Unsatisfiable => self.shapes.unsatisfiable_hash(blob, stored.size),
                    _ => self.shapes.unchanged_hash(self.shapes.tag(blob)),
                };
                let own = match self.tree(stored.slot) {
                    NONE => Witness::labeled(&hash, leaf()),
                    tree => self.forest.reveal(tree, &[&hash], &mut |_, _| leaf()),
                };
                branch.reveal_own(own)
            }
        };
        let content = Witness::labeled(EXACT.as_bytes(), content);
        let (name, label) = (accessor.to_text(), blob.to_string());
        let mut content = Some(content);
        let witness = self.reveal_in(&name, |tree| {
            self.forest.reveal(tree, &[label.as_bytes()], &mut |_, _| {
                content.take().unwrap_or(Witness::Empty)
            })
        });
        header(certificate, &witness, &[TOP, &name, &label, EXACT])
    }

    /// The header of a 404; none where the accessor sees nothing here at all. The witness shows the blobs
    /// beside the one that is not there, each of which must be `known`, with the owner of the reference by which the
    /// accessor sees it.
    pub fn prove_missing(
        &self,
        certificate: &[u8],
        accessor: &Principal,
        blob: &BlobId,
        known: impl Fn(&BlobId, &Principal) -> bool,
    ) -> Option<String> {
        let name = accessor.to_text();
        let tree = self.accessor(self.forest.top(), &name);
        if tree == NONE {
            return None;
        }
        // Neither the blob nor a directory of that name stands there.
        let mut labels = vec![ANY.as_bytes().to_vec()];
        for absent in [blob.to_string().as_bytes(), b""] {
            labels.extend(self.forest.neighbours(tree, absent).into_iter().flatten());
        }
        labels.sort_unstable();
        labels.dedup();
        let is_known = |label: &Vec<u8>| {
            let blob = std::str::from_utf8(label).ok()?.parse().ok()?;
            let note = self.forest.note(tree, label)?;
            Some(known(&blob, &principal_at(&note)))
        };
        if !labels.iter().all(|label| is_known(label).unwrap_or(true)) {
            return None;
        }
        let labels: Vec<&[u8]> = labels.iter().map(Vec::as_slice).collect();
        let hash = self.shapes.missing_hash();
        let witness = self.reveal_in(&name, |tree| {
            self.forest
                .reveal(tree, &labels, &mut |label, content| match (
                    label == ANY.as_bytes(),
                    content,
                ) {
                    (true, _) => {
                        let leaf = Witness::labeled(&hash, Witness::Leaf(vec![]));
                        let answers = Witness::labeled(b"", leaf);
                        Witness::labeled(self.shapes.answer_only(), answers)
                    }
                    (false, Content::Digest(digest)) => Witness::Pruned(digest),
                    (false, Content::Tree(tree)) => Witness::Pruned(self.forest.digest(tree)),
                })
        });
        Some(header(certificate, &witness, &[TOP, &name, ANY]))
    }

    /// The header of an answer that is not certified, under one of the names that say so.
    pub fn prove_nothing(&self, certificate: &[u8], name: &str) -> String {
        let end = match name {
            RANGES => ANY,
            _ => EXACT,
        };
        let shown = || {
            let nothing = Witness::labeled(self.shapes.nothing(), Witness::Leaf(vec![]));
            Witness::labeled(end.as_bytes(), nothing)
        };
        let top = self.forest.top();
        let witness = self
            .forest
            .reveal(top, &[name.as_bytes()], &mut |_, _| shown());
        let witness = Witness::labeled(TOP.as_bytes(), witness);
        header(certificate, &witness, &[TOP, name, end])
    }

    /// Compares all that is certified with what it is about: every reference, every part of every slot, and the nodes
    /// of all trees, of which none may be left over. `slots` has those of stored blobs and of uploads, each with its
    /// blob, the size, and whether it is stored; `part` gives the SHA-256 of a part.
    ///
    /// # Errors
    /// With what is wrong. For tests: it looks at everything.
    pub fn audit(
        &self,
        references: &References,
        slots: &BTreeMap<u64, (BlobId, u64, bool)>,
        stored: impl Fn(&BlobId) -> Option<Stored>,
        part: impl Fn(u64, u32, u64) -> Option<Hash>,
    ) -> Result<(), &'static str> {
        let holds = |is_so: bool, wrong| if is_so { Ok(()) } else { Err(wrong) };
        let mut nodes = 0;
        let mut labels = |tree: Tree| {
            self.forest.check(tree)?;
            let labels = self.forest.first(tree, usize::MAX);
            nodes += (2 * labels.len() as u64).saturating_sub(1);
            Ok::<_, &'static str>(labels)
        };
        holds(self.forest.chain_is_whole(), "a node of the trees is lost")?;
        let shown = references.shown();
        let mut several = 0;
        let mut waiting = 0;
        let mut accessors = BTreeMap::<_, Vec<_>>::new();
        for ((accessor, blob), all) in &shown {
            let stored = stored(blob).ok_or("a reference to no blob")?;
            let (owner, first) = &all[0];
            let pair = pair_of(accessor, blob);
            let shared = self.shared.get(&pair);
            holds(
                shared.is_some() == (all.len() > 1),
                "answers that several references share",
            )?;
            if let Some((get, head)) = shared {
                several += 1;
                waiting += all.len() as u64 - 1;
                let mut counts = [BTreeMap::<Hash, u64>::new(), BTreeMap::new()];
                for (_, reference) in all {
                    let answers = self.answers(blob, &stored, reference);
                    for (counts, answer) in counts.iter_mut().zip(answers) {
                        *counts.entry(answer).or_default() += 1;
                    }
                }
                for (tree, counts) in [get, head].into_iter().zip(counts) {
                    let found = labels(Tree(tree))?.into_iter();
                    let found = found.map(|(label, note)| (label, count_at(Some(note))));
                    let counted = counts.into_iter().map(|(hash, n)| (hash.to_vec(), n));
                    holds(found.eq(counted), "an answer of several references")?;
                }
                let order = references.waiting(blob, accessor).map(|(owner, _)| owner);
                let later = all[1..].iter().map(|(owner, _)| *owner);
                holds(order.eq(later), "references that wait")?;
            }
            let branch = self.branch(accessor, blob, &stored, first).digest();
            let content = Content::Digest(labeled(EXACT.as_bytes(), &branch));
            let tree = self.accessor(self.forest.top(), &accessor.to_text());
            let label = blob.to_string();
            let kept = self.forest.get(tree, label.as_bytes());
            holds(kept == Some(content), "what an accessor sees of a blob")?;
            let kept = self.forest.note(tree, label.as_bytes());
            holds(kept == Some(note(owner)), "the oldest reference")?;
            accessors.entry(accessor.to_text()).or_default().push(label);
        }
        holds(several == self.shared.len(), "answers that nobody shares")?;
        holds(
            waiting == references.waiting_count(),
            "references that wait for nothing",
        )?;
        let mut top: Vec<_> = OPERATORS.iter().map(|name| name.to_string()).collect();
        top.push(RANGES.into());
        for (accessor, blobs) in &mut accessors {
            blobs.push(ANY.into());
            blobs.sort();
            let tree = self.accessor(self.forest.top(), accessor);
            let found = labels(tree)?.into_iter().map(|(label, _)| label);
            holds(
                found.eq(blobs.iter().map(|blob| blob.as_bytes().to_vec())),
                "blobs of an accessor",
            )?;
            let missing = self.forest.get(tree, ANY.as_bytes());
            holds(
                missing == Some(self.missing()),
                "the answer of what is missing",
            )?;
            top.push(accessor.clone());
        }
        top.sort();
        let found = labels(self.forest.top())?
            .into_iter()
            .map(|(label, _)| label);
        holds(
            found.eq(top.into_iter().map(String::into_bytes)),
            "the accessors",
        )?;
        let (mut parts, mut trees) = (0, 0);
        for (slot, (blob, size, is_stored)) in slots {
            let count = chunk_count(*size);
            if count < 2 {
                continue;
            }
            let mut own = vec![];
            for index in 0..u32::try_from(count).unwrap_or(u32::MAX) {
                let Some(kept) = self.parts.get(&(*slot, index)) else {
                    holds(!is_stored, "a part of a blob is missing")?;
                    continue;
                };
                parts += 1;
                // Of an upload the bytes lie here and there.
                match part(*slot, index, *size) {
                    None => holds(!is_stored, "a part without bytes")?,
                    Some(body) if index == 0 => holds(kept == body, "a first part")?,
                    Some(body) => {
                        let expected = self.shapes.part(blob, *size, index).hash(&body);
                        holds(kept == expected, "a part")?;
                    }
                }
                own.extend((index > 0).then_some(kept.to_vec()));
            }
            if *is_stored {
                own.push(self.shapes.unchanged_hash(self.shapes.tag(blob)).to_vec());
                own.push(self.shapes.unsatisfiable_hash(blob, *size).to_vec());
            }
            own.sort();
            let found = labels(self.tree(*slot))?
                .into_iter()
                .map(|(label, _)| label);
            trees += u64::from(!own.is_empty());
            holds(found.eq(own), "a blob's own answers")?;
        }
        holds(parts == self.parts.len(), "a part of no blob")?;
        holds(trees == self.trees.len(), "the parts' tree of no blob")?;
        holds(nodes == self.forest.len(), "nodes of no tree")
    }

    /// A witness of what `reveal` makes of an accessor's tree.
    fn reveal_in(&self, name: &str, mut reveal: impl FnMut(Tree) -> Witness) -> Witness {
        let top = self.forest.top();
        let witness =
            self.forest
                .reveal(top, &[name.as_bytes()], &mut |_, content| match content {
                    Content::Tree(tree) => reveal(tree),
                    Content::Digest(digest) => Witness::Pruned(digest),
                });
        Witness::labeled(TOP.as_bytes(), witness)
    }
}

impl Bucket {
    /// Compares all that is certified with references, blobs and uploads.
    ///
    /// # Errors
    /// With what is wrong. For tests: it looks at everything.
    pub(crate) fn audit_certified(&self) -> Result<(), &'static str> {
        let blobs = self.blobs.iter().filter_map(|entry| {
            let (blob, slot) = (BlobId(*entry.key()), entry.value());
            Some((slot, (blob, self.in_slot(slot)?.size, true)))
        });
        let uploads = self.uploads.all().filter_map(|(_, blob, session)| {
            Some((session.phase.slot()?, (blob, session.size, false)))
        });
        let slots = blobs.chain(uploads).collect();
        let part = |slot, index: u32, size| {
            let from = u64::from(index) * CHUNK_BYTES;
            let len = chunk_len(size, index.into())?;
            let mut hash = Sha256::new();
            self.store
                .read(slot, from, len, |bytes| hash.update(bytes))?;
            Some(hash.finalize())
        };
        self.certify
            .audit(&self.references, &slots, |blob| self.stored(blob), part)
    }
}

/// What is certified of a blob under one accessor.
struct Branch<'a> {
    certify: &'a Certify,
    /// Hashes of the answers to GET and HEAD that one reference has.
    answers: [Hash; 2],
    /// The trees in which they stand where there are several.
    shared: Option<[Tree; 2]>,
    /// Digest of the blob's own answers.
    own: Hash,
}

impl Branch<'_> {
    /// Digest of all answers to GET (0) or HEAD (1).
    fn answers_to(&self, which: usize) -> Hash {
        match self.shared {
            None => self.certify.shapes.answer(&self.answers[which]),
            Some(trees) => self.certify.forest.digest(trees[which]),
        }
    }

    fn requests(&self) -> Hash {
        let [get, head] = self.certify.shapes.requests();
        pair((get, self.answers_to(0)), (head, self.answers_to(1)))
    }

    fn digest(&self) -> Hash {
        pair(
            (self.certify.shapes.with_method(), self.requests()),
            (self.certify.shapes.answer_only(), labeled(b"", &self.own)),
        )
    }

    /// Shows the answer to GET (0) or HEAD (1).
    fn reveal_request(&self, which: usize) -> Witness {
        let requests = self.certify.shapes.requests();
        let (shown, hidden) = (requests[which], requests[1 - which]);
        let hash = &self.answers[which];
        let leaf = || Witness::Leaf(vec![]);
        let answer = match self.shared {
            None => Witness::labeled(hash, leaf()),
            Some(trees) => {
                let forest = &self.certify.forest;
                forest.reveal(trees[which], &[hash], &mut |_, _| leaf())
            }
        };
        let other = self.answers_to(1 - which);
        let requests = in_order(
            (shown, Witness::labeled(shown, answer)),
            (hidden, Witness::Pruned(labeled(hidden, &other))),
        );
        let expression = self.certify.shapes.with_method();
        let own = labeled(self.certify.shapes.answer_only(), &labeled(b"", &self.own));
        in_order(
            (expression, Witness::labeled(expression, requests)),
            (self.certify.shapes.answer_only(), Witness::Pruned(own)),
        )
    }

    /// Shows one of the blob's own answers.
    fn reveal_own(&self, own: Witness) -> Witness {
        let expression = self.certify.shapes.answer_only();
        let shown = Witness::labeled(expression, Witness::labeled(b"", own));
        let hidden = labeled(self.certify.shapes.with_method(), &self.requests());
        in_order(
            (expression, shown),
            (self.certify.shapes.with_method(), Witness::Pruned(hidden)),
        )
    }
}

fn in_order(first: (&Hash, Witness), second: (&Hash, Witness)) -> Witness {
    match first.0 < second.0 {
        true => Witness::fork(first.1, second.1),
        false => Witness::fork(second.1, first.1),
    }
}

fn header(certificate: &[u8], witness: &Witness, path: &[&str]) -> String {
    let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
    format!(
        "certificate=:{}:, tree=:{}:, expr_path=:{}:, version=2",
        base64(certificate),
        base64(&witness.to_cbor()),
        base64(&path_to_cbor(path)),
    )
}

#[cfg(test)]
mod tests {
    use ic_stable_structures::DefaultMemoryImpl;
    use openstorage_types::bucket::InitArgs;

    use super::*;
    use crate::references::Named;

    /// What an audit is for: each table knows something that another does not.
    #[test]
    fn an_audit_sees_what_does_not_fit() {
        let own = Principal::from_slice(&[1]);
        let init = InitArgs {
            index: own,
            bytes_max: None,
            strict_cache: None,
        };
        let open = || Bucket::open(DefaultMemoryImpl::default(), own, Some(init.clone()));
        let (blob, size) = (BlobId([7; 32]), 2 * CHUNK_BYTES);
        let changes: [fn(&mut Bucket, BlobId, Principal, u64); 5] = [
            |bucket, blob, own, _| {
                let named = Named {
                    accessor_id: own,
                    mime_type: "a/b".into(),
                    name: None,
                };
                bucket.references.add(&blob, own, &named, 0, 0);
            },
            |bucket, blob, own, size| {
                let (slot, references) = (1, 1);
                let stored = Stored {
                    slot,
                    size,
                    references,
                };
                let reference = &Reference::new("a/b", None);
                let view = View {
                    owner: own,
                    reference,
                    stored: &stored,
                };
                bucket.certify.set(&own, &blob, Some(view));
            },
            |bucket, blob, own, _| bucket.references.queue(&blob, own, &own, 1),
            |bucket, blob, _, size| bucket.certify.chunk(1, &blob, size, 1, b"part"),
            |bucket, _, own, _| {
                let pair = pair_of(&own, &BlobId([8; 32]));
                bucket.certify.shared.insert(pair, (0, 0));
            },
        ];
        assert_eq!(open().audit_certified(), Ok(()));
        for (n, change) in changes.into_iter().enumerate() {
            let mut bucket = open();
            change(&mut bucket, blob, own, size);
            assert!(bucket.audit_certified().is_err(), "change {n}");
        }
    }
}

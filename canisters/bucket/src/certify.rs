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
//! blob's branch is computed when it is needed. An answer of 404 shows the ids of the two blobs beside the
//! one that is missing, and so goes only to whoever may read all that the accessor sees.

use base64::{Engine, engine::general_purpose::STANDARD};
use candid::Principal;
use ic_stable_structures::StableBTreeMap;
use openstorage_certtree::{
    Content, Forest, Full, Hash, INSERT_NODES_MAX, NONE, NOTE_BYTES, Note, Tree, Witness, labeled,
    path_to_cbor,
};
use openstorage_sha256::sha256;
use openstorage_types::{BlobId, chunk_count};

use crate::{
    Stored,
    answers::{Head, Shapes, is_played, pair},
    memory::{self, Memories, Memory},
    references::{PRINCIPAL_BYTES, Reference, principal_at, principal_bytes},
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
    /// Slot to the type of the parts after the first, where they have one: what its first bytes came as.
    types: StableBTreeMap<u64, String, Memory>,
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
            types: StableBTreeMap::init(memories.get(memory::PART_TYPES)),
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
        // The accessor, its 404 and the blob.
        const OF_AN_ACCESSOR: u32 = 3;
        let accessors = u32::try_from(accessors).map_err(|_| Full)?;
        let inserted = OF_A_BLOB + accessors.saturating_mul(OF_AN_ACCESSOR);
        self.forest
            .reserve(inserted.saturating_mul(INSERT_NODES_MAX))
    }

    /// The bytes of a chunk have come in, of a blob that has several.
    pub fn chunk(
        &mut self,
        slot: u64,
        blob: &BlobId,
        size: u64,
        index: u32,
        (mime_type, bytes): (&str, &[u8]),
    ) {
        if self.parts.contains_key(&(slot, index)) {
            return;
        }
        // What is hashed already keeps its form.
        let all = (slot, 0)..=(slot, u32::MAX);
        if is_played(mime_type) && self.parts.keys_range(all).next().is_none() {
            self.types.insert(slot, mime_type.to_owned());
        }
        let body = sha256(&[bytes]);
        if index == 0 {
            self.parts.insert((slot, index), body);
            return;
        }
        let hash = self.part(slot, blob, size, index).hash(&body);
        self.parts.insert((slot, index), hash);
        self.answer_with(slot, &hash);
    }

    /// The part of a blob, after the first, as it is answered.
    pub fn part(&self, slot: u64, blob: &BlobId, size: u64, index: u32) -> Head {
        self.shapes.part(blob, size, index, self.types.get(&slot))
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
            if self.parts.remove(&(slot, 0)).is_some() {
                self.types.remove(&slot);
            }
            return;
        };
        self.types.remove(&slot);
        self.forest.clear(Tree(tree));
        let parts: Vec<_> = self
            .parts
            .keys_range((slot, 0)..=(slot, u32::MAX))
            .collect();
        for part in parts {
            self.parts.remove(&part);
        }
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
                let branch = self.branch(blob, stored, reference).digest();
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

    /// All that is certified of a blob as a reference shows it.
    fn branch(&self, blob: &BlobId, stored: &Stored, seen: &Reference) -> Branch<'_> {
        let several = chunk_count(stored.size) > 1;
        // The id of a blob of one part is the SHA-256 of that part.
        let first = several.then(|| self.parts.get(&(stored.slot, 0))).flatten();
        let body = first.unwrap_or(blob.0);
        let tag = self.shapes.tag_hashed(blob);
        let answers = self.shapes.first_hashes(&tag, stored.size, seen, &body);
        let own = match several {
            true => self.forest.digest(self.tree(stored.slot)),
            false => self.shapes.answer(&self.shapes.unchanged_hash(tag)),
        };
        Branch {
            shapes: &self.shapes,
            answers,
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
        let branch = self.branch(blob, stored, seen);
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
    /// beside the one that is not there.
    pub fn prove_missing(
        &self,
        certificate: &[u8],
        accessor: &Principal,
        blob: &BlobId,
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

/// What is certified of a blob under one reference.
struct Branch<'a> {
    shapes: &'a Shapes,
    /// Hashes of the answers to GET and HEAD.
    answers: [Hash; 2],
    /// Digest of the blob's own answers.
    own: Hash,
}

impl Branch<'_> {
    fn requests(&self) -> Hash {
        let [get, head] = self.shapes.requests();
        let [first, second] = self.answers.map(|hash| self.shapes.answer(&hash));
        pair((get, first), (head, second))
    }

    fn digest(&self) -> Hash {
        pair(
            (self.shapes.with_method(), self.requests()),
            (self.shapes.answer_only(), labeled(b"", &self.own)),
        )
    }

    /// Shows the answer to GET (0) or HEAD (1).
    fn reveal_request(&self, which: usize) -> Witness {
        let requests = self.shapes.requests();
        let (shown, hidden) = (requests[which], requests[1 - which]);
        let answer = Witness::labeled(&self.answers[which], Witness::Leaf(vec![]));
        let other = self.shapes.answer(&self.answers[1 - which]);
        let requests = in_order(
            (shown, Witness::labeled(shown, answer)),
            (hidden, Witness::Pruned(labeled(hidden, &other))),
        );
        let expression = self.shapes.with_method();
        let own = labeled(self.shapes.answer_only(), &labeled(b"", &self.own));
        in_order(
            (expression, Witness::labeled(expression, requests)),
            (self.shapes.answer_only(), Witness::Pruned(own)),
        )
    }

    /// Shows one of the blob's own answers.
    fn reveal_own(&self, own: Witness) -> Witness {
        let expression = self.shapes.answer_only();
        let shown = Witness::labeled(expression, Witness::labeled(b"", own));
        let hidden = labeled(self.shapes.with_method(), &self.requests());
        in_order(
            (expression, shown),
            (self.shapes.with_method(), Witness::Pruned(hidden)),
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

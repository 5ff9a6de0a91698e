//! One run: steps under faults, and rests without.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use candid::Principal;

use crate::{
    Base, Violation,
    blobs::{self, Blob},
    clients::{Pending, Upload},
    dice::Dice,
    foreign::Foreign,
    model::{Model, Ref},
    probes::Read,
    procedures::{Procedure, Taken},
    pulse::Pulse,
    rest::Seen,
    stage::{Room, Stage, USERS, operator, user},
    trouble,
};

/// Executions that a failure's log ends with.
const EXECUTIONS_KEPT: usize = 1_000;

/// How long a run is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Steps in all. Each does a few things, lets a few rounds pass, and looks at everything.
    pub steps: usize,
    /// Steps between two rests.
    pub rest_every: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            steps: 120,
            rest_every: 40,
        }
    }
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub steps: usize,
    /// Update calls that canisters took.
    pub calls: usize,
    /// Uploads that ended with the answer that the blob is stored.
    pub stored: usize,
    /// Blobs read back through the chat's tokens, at rest or not.
    pub reads: usize,
    /// Faults that struck.
    pub faults: usize,
    pub upgrades: usize,
    pub restored: usize,
    /// References that are certain at the last rest.
    pub references: usize,
    /// SHA-256 of the network's state at the end.
    pub digest: [u8; 32],
}

impl Summary {
    /// Both together.
    pub fn and(self, other: &Self) -> Self {
        Self {
            steps: self.steps + other.steps,
            calls: self.calls + other.calls,
            stored: self.stored + other.stored,
            reads: self.reads + other.reads,
            faults: self.faults + other.faults,
            upgrades: self.upgrades + other.upgrades,
            restored: self.restored + other.restored,
            references: self.references + other.references,
            digest: other.digest,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps, {} calls, {} uploads stored, {} reads, {} faults, {} upgrades, {} snapshots restored",
            self.steps,
            self.calls,
            self.stored,
            self.reads,
            self.faults,
            self.upgrades,
            self.restored
        )
    }
}

/// A run in which something did not hold.
#[derive(Debug, Clone)]
pub struct Failure {
    pub seed: u64,
    pub step: usize,
    pub violation: Violation,
    /// What was done, answered and decided, line by line.
    pub log: Vec<String>,
}

/// The state of a run.
pub(crate) struct Run<'a> {
    pub base: &'a Base,
    pub stage: Stage,
    pub dice: Dice,
    pub blobs: Vec<Blob>,
    pub model: Model,
    pub rooms: Vec<Room>,
    /// Of every room that there ever was.
    pub accessors: BTreeSet<Principal>,
    /// The types and names with which each reference was asked for.
    pub types: BTreeMap<Ref, BTreeSet<(String, Option<String>)>>,
    /// Up to which change the feed was followed, and the references that there are by it.
    pub feed_until: u64,
    pub followed: BTreeSet<Ref>,
    pub foreign: Foreign,
    /// What an answer has shown not to hold.
    pub broken: Option<Violation>,
    /// Calls that are not answered yet.
    pub pending: Vec<Pending>,
    pub uploads: Vec<Upload>,
    pub procedures: Vec<Procedure>,
    /// The snapshots that can be restored.
    pub snapshots: BTreeMap<Principal, Taken>,
    /// Every bucket that the index has ever named, without those that are lost.
    pub known: BTreeSet<Principal>,
    /// Buckets without code and memory.
    pub lost: BTreeSet<Principal>,
    /// Users to whom the chat may give a limit of its own at any time until the next rest.
    pub chat_limits: BTreeSet<Principal>,
    /// The highest limit that may have been in force since the last pulse.
    pub ceilings: BTreeMap<Principal, u64>,
    /// A snapshot was restored since the last rest: what was promised since it was taken may be exceeded.
    pub is_loose: bool,
    /// The index was restored since the last rest: it may believe older keys of the chat than the chat uses, until
    /// that has them confirmed.
    pub forgot_keys: bool,
    /// A canister was restored, and has run no message since: it finds out with the next.
    pub just_restored: bool,
    /// The chat was restored or begun anew: its rooms have to be looked up.
    pub forgot_rooms: bool,
    pub pulse: Pulse,
    pub seen: Seen,
    /// The index has the code of one version further.
    pub is_next: bool,
    pub retired: usize,
    /// The chat was told to draw a new key.
    pub is_rotated: bool,
    /// A read that was right at some rest.
    pub old_read: Option<Read>,
    pub step: usize,
    pub summary: Summary,
    pub log: Vec<String>,
    /// Decisions of the network that are in the log already.
    decided: usize,
}

/// Does the run of a seed.
pub fn run(base: &Base, seed: u64, options: &Options) -> Result<Summary, Box<Failure>> {
    let mut dice = Dice::new(seed);
    let mut run = Run {
        stage: base.stage(),
        blobs: blobs::of(&mut dice),
        dice,
        base,
        model: Model::default(),
        rooms: base.rooms.clone(),
        accessors: base.rooms.iter().map(|room| room.accessor).collect(),
        types: BTreeMap::new(),
        foreign: Foreign::default(),
        feed_until: 0,
        followed: BTreeSet::new(),
        broken: None,
        pending: vec![],
        uploads: vec![],
        procedures: vec![],
        snapshots: BTreeMap::new(),
        known: BTreeSet::new(),
        lost: BTreeSet::new(),
        chat_limits: BTreeSet::new(),
        ceilings: BTreeMap::new(),
        is_loose: false,
        forgot_keys: false,
        just_restored: false,
        forgot_rooms: false,
        pulse: Pulse::default(),
        seen: Seen::default(),
        is_next: false,
        retired: 0,
        is_rotated: false,
        old_read: None,
        step: 0,
        summary: Summary::default(),
        log: vec![],
        decided: 0,
    };
    match run.all(options) {
        Ok(()) => {
            run.summary.steps = run.step;
            run.summary.digest = run.stage.network.digest();
            Ok(run.summary)
        }
        Err(violation) => {
            run.note_decisions();
            run.note_accounts();
            Err(Box::new(Failure {
                seed,
                step: run.step,
                violation,
                log: run.log,
            }))
        }
    }
}

impl Run<'_> {
    fn all(&mut self, options: &Options) -> Result<(), Violation> {
        self.stage.network.keep_accounts(EXECUTIONS_KEPT);
        self.begin();
        while self.step < options.steps {
            let plan = trouble::plan(&mut self.dice, self.stage.index);
            self.note(format!("faults: {plan:?}"));
            self.set_faults(plan);
            let rest = self.step + options.rest_every.max(1);
            while self.step < rest.min(options.steps) {
                self.step += 1;
                self.one_step()?;
            }
            self.rest()?;
        }
        self.end()
    }

    fn one_step(&mut self) -> Result<(), Violation> {
        for _ in 0..1 + self.dice.below(3) {
            if self.dice.one_in(5) {
                self.operate();
            } else {
                self.use_it()?;
            }
        }
        let jump = self.dice.below(1_000);
        let ms = match jump {
            0..=1 => self.jump(25 * 3_600_000),
            2..=7 => self.jump(3_700_000),
            8..=60 => self.dice.below(60_000) as u64,
            _ => self.dice.below(1_500) as u64,
        };
        for round in 0..1 + self.dice.below(4) {
            self.stage.pass(if round == 0 { ms } else { 1 });
            self.collect();
        }
        self.note_decisions();
        self.check_pulse()
    }

    /// A long time passes: nobody runs out of cycles by that alone.
    fn jump(&mut self, ms: u64) -> u64 {
        self.note(format!("{} minutes pass", ms / 60_000));
        self.refill();
        ms
    }

    pub fn set_faults(&mut self, plan: openstorage_localnet::network::Plan) {
        self.note_decisions();
        self.summary.faults += self.stage.network.fault_log().len();
        let set = self.stage.network.set_faults(plan);
        set.expect("the simulation's plans can be followed");
        self.decided = 0;
    }

    /// The latest executions, and what canisters say of themselves.
    fn note_accounts(&mut self) {
        let lines: Vec<_> = self
            .stage
            .network
            .accounts(0, EXECUTIONS_KEPT)
            .accounts
            .iter()
            .map(|it| {
                let (round, kind, method) = (it.round, it.kind, &it.method);
                let (who, by) = (self.name(&it.canister), self.name(&it.caller));
                let failure = it.failure.as_deref().unwrap_or("");
                format!("round {round}: {who} runs {kind:?} {method} for {by} {failure}")
            })
            .collect();
        self.log.extend(lines);
        let own = [self.stage.index, self.stage.chat];
        for canister in self.known.clone().into_iter().chain(own) {
            let name = self.name(&canister);
            for page in ["/status", "/logs"] {
                let text = self.stage.page(canister, page).unwrap_or_else(|why| why);
                self.log.push(format!("{page} of {name}:\n{text}"));
            }
            let printed = self.stage.printed(canister).join("\n");
            self.log.push(format!("printed by {name}:\n{printed}"));
        }
    }

    /// What the log calls somebody.
    pub fn name(&self, id: &Principal) -> String {
        let user = (0..=USERS).find(|n| user(*n) == *id);
        let room = self.rooms.iter().position(|room| room.accessor == *id);
        let bucket = self.known.iter().position(|bucket| bucket == id);
        match (user, room, bucket) {
            _ if *id == self.stage.index => "index".into(),
            _ if *id == self.stage.chat => "chat".into(),
            _ if *id == operator() => "operator".into(),
            (Some(n), ..) => format!("user {n}"),
            (_, Some(n), _) => format!("room {n}"),
            (.., Some(_)) => format!("bucket {}", &id.to_text()[..5]),
            _ => id.to_text(),
        }
    }

    pub fn note(&mut self, line: impl fmt::Display) {
        let (step, ms) = (self.step, self.stage.now_ms());
        self.log.push(format!("{step:>4} {ms} {line}"));
    }

    fn note_decisions(&mut self) {
        let new: Vec<_> = self.stage.network.fault_log()[self.decided..]
            .iter()
            .map(|decision| {
                let whose = decision.canister.map(|id| self.name(&id));
                let (site, number, fault) = (decision.site, decision.number, &decision.fault);
                let round = decision.round;
                format!("     round {round}, {site:?} {number} of {whose:?}: {fault:?}")
            })
            .collect();
        self.decided += new.len();
        self.log.extend(new);
    }
}

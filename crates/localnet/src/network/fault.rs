//! Faults on purpose: by an explicit plan, by a seed, or both. Every decision is logged, and the log is
//! itself a plan: a run with the same inputs and the log instead of the seed is the same run.
//!
//! Decisions are made at four sites, each of which counts its events from 1: a request about to leave
//! its caller, an execution about to begin, an answer about to leave its callee, a round about to begin.
//!
//! ```
//! use openstorage_localnet::network::{Fault, Plan, Rule, Seeded, Site};
//! // The second call of `push_chunk` that anybody makes is lost; every hundredth execution or so runs
//! // out of instructions.
//! let plan = Plan {
//!     rules: vec![Rule {
//!         method: Some("push_chunk".into()),
//!         ..Rule::new(Site::Request, 2, Fault::Reject)
//!     }],
//!     seeded: Some(Seeded {
//!         seed: 7,
//!         per_million: 10_000,
//!         faults: vec![Fault::Trap { instructions: 50_000 }],
//!     }),
//! };
//! assert!(plan.check().is_ok());
//! ```

use std::collections::BTreeMap;

use candid::Principal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::Network;

/// Rules in a plan with conditions; each is looked at on each event of its site.
pub const CONDITIONS_MAX: usize = 1_000;
/// Rules and decisions altogether. When so many decisions are logged, none is made any more, so that the
/// log stays a complete plan.
pub const RULES_MAX: usize = 100_000;
/// The longest delay or halt, in rounds.
pub const ROUNDS_MAX: u64 = 1_000;

/// Where a fault can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// A call leaves its caller. The rule's canister is the callee.
    Request,
    /// Code is about to run: update, callback, task. The rule's canister runs it.
    Execution,
    /// An answer leaves the callee. The rule's canister is the caller, who gets it; there is no method.
    Answer,
    /// A round begins. There is neither canister nor method.
    Round,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Request: not delivered, and the caller is told so by a transient reject (IC0201).
    Reject,
    /// Request of a bounded call: not delivered, and the caller is told that nobody knows (IC0601). The
    /// cycles attached are lost.
    TimeOutBefore,
    /// Request of a bounded call: not delivered; the caller hears so when its deadline has passed.
    Lose,
    /// Request or answer: takes so many rounds more. What follows between the same two canisters does not
    /// overtake it.
    Delay { rounds: u64 },
    /// Execution: it may run so many instructions.
    Trap { instructions: u64 },
    /// Execution: neither heap nor stable memory can grow.
    NoGrowth,
    /// Execution: every call that it makes is refused as if the queue were full.
    QueueFull,
    /// Before the execution: what the canister has more than `leave` cycles is burned.
    DrainCycles { leave: u128 },
    /// Answer to a bounded call: executed, but the caller is told that nobody knows (IC0601). Cycles that
    /// came back are lost.
    TimeOutAfter,
    /// Before the answer arrives: the caller is told to stop, as by a controller. It still gets the answer.
    StopCaller,
    /// Before the answer arrives: the caller is upgraded to the code that it has, with no arguments in Candid. One
    /// that traps changes nothing.
    UpgradeCaller,
    /// Round: the subnet of that place runs nothing for so many rounds.
    HaltSubnet { subnet: usize, rounds: u64 },
    /// Round: the network is saved, dropped, and loaded again.
    Restart,
}

/// One fault, at one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub site: Site,
    /// Counts only events of this canister.
    #[serde(default)]
    pub canister: Option<Principal>,
    /// Counts only events of this method.
    #[serde(default)]
    pub method: Option<String>,
    /// At the n-th of those events since the plan was set, from 1.
    pub nth: u64,
    pub fault: Fault,
}

/// Faults by chance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seeded {
    pub seed: u64,
    /// How many of a million events are struck.
    pub per_million: u32,
    /// With which faults: each event with one of those that can strike there.
    pub faults: Vec<Fault>,
}

/// What shall go wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    #[serde(default)]
    pub rules: Vec<Rule>,
    #[serde(default)]
    pub seeded: Option<Seeded>,
}

/// A fault that struck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub site: Site,
    /// Which of the site's events since the plan was set.
    pub number: u64,
    pub round: u64,
    /// None for rounds.
    pub canister: Option<Principal>,
    pub fault: Fault,
}

/// Why a plan is not followed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    #[error("{0:?} cannot strike at {1:?}")]
    Site(Fault, Site),
    #[error("{rules} rules are more than {max}")]
    TooManyRules { rules: usize, max: usize },
    #[error("{rounds} rounds are more than {ROUNDS_MAX}")]
    Rounds { rounds: u64 },
}

impl Fault {
    /// Whether it can strike there.
    fn fits(&self, site: Site) -> bool {
        match self {
            Self::Reject | Self::TimeOutBefore | Self::Lose => site == Site::Request,
            Self::Delay { .. } => matches!(site, Site::Request | Site::Answer),
            Self::Trap { .. } | Self::NoGrowth | Self::QueueFull | Self::DrainCycles { .. } => {
                site == Site::Execution
            }
            Self::TimeOutAfter | Self::StopCaller | Self::UpgradeCaller => site == Site::Answer,
            Self::HaltSubnet { .. } | Self::Restart => site == Site::Round,
        }
    }

    /// Whether it can strike only calls that wait with a bound: the others are answered truly, once.
    fn needs_bound(&self) -> bool {
        matches!(self, Self::TimeOutBefore | Self::TimeOutAfter | Self::Lose)
    }

    fn rounds(&self) -> u64 {
        match self {
            Self::Delay { rounds } | Self::HaltSubnet { rounds, .. } => *rounds,
            _ => 0,
        }
    }
}

impl Rule {
    /// At the n-th event of the site, of whatever canister and method.
    pub fn new(site: Site, nth: u64, fault: Fault) -> Self {
        Self {
            site,
            canister: None,
            method: None,
            nth,
            fault,
        }
    }
}

impl From<&Decision> for Rule {
    fn from(decision: &Decision) -> Self {
        Self::new(decision.site, decision.number, decision.fault.clone())
    }
}

impl Plan {
    /// The plan that repeats what was logged.
    pub fn replay(log: &[Decision]) -> Self {
        Self {
            rules: log.iter().map(Rule::from).collect(),
            seeded: None,
        }
    }

    /// Whether the plan can be followed.
    pub fn check(&self) -> Result<(), PlanError> {
        let conditions = self.rules.iter().filter(|rule| !rule.is_exact()).count();
        for (rules, max) in [
            (self.rules.len(), RULES_MAX),
            (conditions, CONDITIONS_MAX),
            (self.faults().count() - self.rules.len(), CONDITIONS_MAX),
        ] {
            if rules > max {
                return Err(PlanError::TooManyRules { rules, max });
            }
        }
        if let Some(rule) = self.rules.iter().find(|rule| !rule.fault.fits(rule.site)) {
            return Err(PlanError::Site(rule.fault.clone(), rule.site));
        }
        match self.faults().map(Fault::rounds).max() {
            Some(rounds) if rounds > ROUNDS_MAX => Err(PlanError::Rounds { rounds }),
            _ => Ok(()),
        }
    }

    fn faults(&self) -> impl Iterator<Item = &Fault> {
        let seeded = self.seeded.iter().flat_map(|seeded| &seeded.faults);
        self.rules.iter().map(|rule| &rule.fault).chain(seeded)
    }
}

impl Rule {
    fn is_exact(&self) -> bool {
        self.canister.is_none() && self.method.is_none()
    }
}

/// What is about to happen.
pub(super) struct Event<'a> {
    pub site: Site,
    pub canister: Option<Principal>,
    pub method: &'a str,
    /// Of a call with a bounded wait.
    pub bounded: bool,
}

/// A plan that is followed, and what it has done.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Faults {
    exact: BTreeMap<(Site, u64), Fault>,
    /// With how often their condition was met.
    conditions: Vec<(Rule, u64)>,
    seeded: Option<Seeded>,
    /// Events so far.
    counts: BTreeMap<Site, u64>,
    log: Vec<Decision>,
}

impl Faults {
    fn new(plan: Plan) -> Self {
        let (exact, conditions): (Vec<_>, Vec<_>) =
            plan.rules.into_iter().partition(Rule::is_exact);
        Self {
            exact: exact
                .into_iter()
                .map(|rule| ((rule.site, rule.nth), rule.fault))
                .collect(),
            conditions: conditions.into_iter().map(|rule| (rule, 0)).collect(),
            seeded: plan.seeded,
            ..Self::default()
        }
    }

    fn decide(&mut self, event: &Event, round: u64) -> Option<Fault> {
        let number = self.counts.entry(event.site).or_default();
        *number += 1;
        let number = *number;
        let mut struck = self.exact.get(&(event.site, number)).cloned();
        for (rule, met) in &mut self.conditions {
            let here = rule.site == event.site
                && rule.canister.is_none_or(|id| Some(id) == event.canister)
                && rule.method.as_ref().is_none_or(|name| name == event.method);
            *met += u64::from(here);
            if here && *met == rule.nth {
                struck = struck.or_else(|| Some(rule.fault.clone()));
            }
        }
        let fault = struck
            .or_else(|| self.seeded.as_ref()?.draw(event, number))
            .filter(|fault| event.bounded || !fault.needs_bound())?;
        if self.log.len() >= RULES_MAX {
            return None;
        }
        self.log.push(Decision {
            site: event.site,
            number,
            round,
            canister: event.canister,
            fault: fault.clone(),
        });
        Some(fault)
    }
}

impl Seeded {
    /// A function of seed, site and number alone, so that one decision does not move the others.
    fn draw(&self, event: &Event, number: u64) -> Option<Fault> {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_le_bytes());
        hash.update([event.site as u8]);
        hash.update(number.to_le_bytes());
        let drawn: [u8; 32] = hash.finalize().into();
        let part = |from: usize| u64::from_le_bytes(drawn[from..from + 8].try_into().expect("8"));
        if part(0) % 1_000_000 >= u64::from(self.per_million) {
            return None;
        }
        let possible: Vec<_> = self
            .faults
            .iter()
            .filter(|fault| fault.fits(event.site) && (event.bounded || !fault.needs_bound()))
            .collect();
        let place = part(8).checked_rem(possible.len() as u64)?;
        Some(possible[place as usize].clone())
    }
}

impl Network {
    /// Follows this plan from now on, instead of the one before, with an empty log; an empty plan ends
    /// all faults.
    pub fn set_faults(&mut self, plan: Plan) -> Result<(), PlanError> {
        plan.check()?;
        self.faults = Faults::new(plan);
        Ok(())
    }

    /// What struck since the plan was set.
    pub fn fault_log(&self) -> &[Decision] {
        &self.faults.log
    }

    pub(super) fn decide(&mut self, event: Event) -> Option<Fault> {
        self.faults.decide(&event, self.round)
    }
}

//! Rows of the index's own jobs that are set aside, since every message about them has trapped. The others go on, and
//! an upgrade gives each another turn.

use candid::{CandidType, Principal};
use ic_stable_structures::StableBTreeMap;
use openstorage_canister::Row;
use serde::{Deserialize, Serialize};

use crate::{Index, agenda::Job, forget::Forgetting, memory::Memory};

/// Rows that are set aside, at most; beyond that a job waits instead.
const SET_ASIDE_MAX: u64 = 1_000;

/// What a slice of a job is about. Other jobs name that themselves.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum JobRow {
    /// What is swept, and whose.
    Sweep(u8, Principal),
    /// A lost bucket, and how far it is forgotten.
    Forget(Principal, Forgetting),
    Issuer(Principal),
}

pub(crate) struct Asides {
    rows: StableBTreeMap<u64, Row<JobRow>, Memory>,
}

impl Asides {
    pub fn init(memory: Memory) -> Self {
        Self {
            rows: StableBTreeMap::init(memory),
        }
    }

    pub fn len(&self) -> u64 {
        self.rows.len()
    }
}

impl Index {
    /// What a job's next slice is about, where its name does not say.
    pub fn next_row(&self, job: Job) -> Option<JobRow> {
        match job {
            Job::Sweep => {
                let (what, whose) = self.sweeps.next()?;
                Some(JobRow::Sweep(what, whose))
            }
            Job::Forget => {
                let (bucket, Row(place)) = self.forgetting.first_key_value()?;
                Some(JobRow::Forget(bucket, place))
            }
            Job::DeriveKeys => self.issuers.next_derived().map(JobRow::Issuer),
            _ => None,
        }
    }

    /// Takes a row out of its job's way. False where that cannot be: the job waits.
    pub fn set_aside(&mut self, row: JobRow, now_ms: u64) -> bool {
        if self.asides.len() >= SET_ASIDE_MAX {
            return false;
        }
        let job = match &row {
            JobRow::Sweep(what, whose) => {
                self.sweeps.skip(*what, *whose);
                "sweep"
            }
            JobRow::Forget(bucket, _) => {
                self.forgetting.remove(bucket);
                "forget"
            }
            JobRow::Issuer(issuer) => {
                self.issuers.skip_derived(*issuer);
                "derive"
            }
        };
        let last = self.asides.rows.last_key_value();
        let number = last.map_or(1, |(last, _)| last + 1);
        self.asides.rows.insert(number, Row(row));
        let text = format!(
            "alarm: every message about a row of the job {job} has trapped; it is set aside, number {number}"
        );
        self.note(now_ms, &text);
        true
    }

    /// Work on a row has ended well.
    pub fn worked(&mut self, row: &JobRow) {
        let rows = self.asides.rows.iter();
        let known = rows
            .map(|entry| (*entry.key(), entry.value().0))
            .find(|(_, aside)| aside.is_about(row));
        if let Some((number, _)) = known {
            self.asides.rows.remove(&number);
        }
    }

    /// Other code may be able to do what the code before could not.
    pub(crate) fn bring_back(&mut self) {
        let rows: Vec<_> = self
            .asides
            .rows
            .iter()
            .map(|entry| entry.value().0)
            .collect();
        for row in rows {
            match row {
                JobRow::Sweep(what, whose) => self.sweeps.again(what, whose),
                JobRow::Forget(bucket, place) => {
                    self.forgetting.insert(bucket, Row(place));
                }
                // It is shared with the next key again.
                JobRow::Issuer(_) => {}
            }
        }
    }
}

impl JobRow {
    /// Further slices of the same work are about the same.
    fn is_about(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Forget(one, _), Self::Forget(other, _)) => one == other,
            _ => self == other,
        }
    }
}

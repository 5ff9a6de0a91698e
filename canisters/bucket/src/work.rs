//! What the bucket does by itself: which jobs there are, what each is about, and the rows that are set aside since
//! every message about them has trapped.

use std::fmt;

use candid::{CandidType, Principal};
use ic_stable_structures::StableBTreeMap;
use openstorage_canister::Row;
use openstorage_types::{
    BlobId,
    bucket::{SetAside, SetAsideError},
};
use serde::{Deserialize, Serialize};

use crate::{Bucket, Now, memory::Memory};

/// Rows that are set aside, at most; beyond that a job waits instead.
const SET_ASIDE_MAX: u64 = 1_000;

/// Rows that a slice of a job takes on, where no message has trapped on one of them.
const ROWS_PER_SLICE: usize = 100;
pub(crate) const ISSUERS_PER_SLICE: usize = 20;

/// A kind of work, of which one piece is under way at a time.
#[derive(
    CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum Job {
    /// Draws a key.
    Draw,
    /// Tells the index what is new.
    Tell,
    /// Hashes uploads whose chunks are all in.
    Verify,
    /// Computes what a new key shares with issuers.
    Derive,
    /// Removes the references of deleted accessors.
    DeleteAccessors,
    /// Removes what deleted users have.
    DeleteUsers,
    /// Drops uploads in which nothing has arrived for long.
    Expire,
    /// Gives back leases of which nothing was used for long.
    GiveBack,
}

/// Lanes are in the order of the jobs.
const _: () = assert!(matches!(Job::ALL[Job::Tell.lane()], Job::Tell));

impl Job {
    pub const ALL: [Self; 8] = [
        Self::Draw,
        Self::Tell,
        Self::Verify,
        Self::Derive,
        Self::DeleteAccessors,
        Self::DeleteUsers,
        Self::Expire,
        Self::GiveBack,
    ];

    /// Its lane.
    pub const fn lane(self) -> usize {
        self as usize
    }

    /// It calls another canister, and its work is done in the message of the answer anyway.
    pub fn calls(self) -> bool {
        matches!(self, Self::Draw | Self::Tell)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Draw => "draw",
            Self::Tell => "tell",
            Self::Verify => "verify",
            Self::Derive => "derive",
            Self::DeleteAccessors => "delete_accessors",
            Self::DeleteUsers => "delete_users",
            Self::Expire => "expire",
            Self::GiveBack => "give_back",
        }
    }
}

/// What a piece of work is about.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkRow {
    Upload(Principal, BlobId),
    Issuer(Principal),
    Accessor(Principal),
    User(Principal),
    /// An upload, a grave or a failure that is to be looked at at this time.
    Due(u64, Principal, BlobId),
    /// A lease that may be idle at this time.
    Lease(u64, Principal),
    /// An event's place in the log.
    Event(u64),
    /// What the index has answered.
    Answer,
}

impl fmt::Display for WorkRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upload(user, blob) => write!(f, "upload {user} {blob}"),
            Self::Issuer(issuer) => write!(f, "issuer {issuer}"),
            Self::Accessor(accessor) => write!(f, "accessor {accessor}"),
            Self::User(user) => write!(f, "user {user}"),
            Self::Due(at_ms, user, blob) => write!(f, "due {at_ms} {user} {blob}"),
            Self::Lease(at_ms, user) => write!(f, "lease {at_ms} {user}"),
            Self::Event(seq) => write!(f, "event {seq}"),
            Self::Answer => write!(f, "answer"),
        }
    }
}

/// What is kept of a row that is set aside.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone)]
struct Aside {
    job: Job,
    row: WorkRow,
    /// Milliseconds since 1970.
    at_ms: u64,
    /// Of an event, which is told as nothing: what it said.
    event: Option<(u16, serde_bytes::ByteBuf)>,
}

/// Rows that are set aside, in the order in which they were.
pub(crate) struct Asides {
    rows: StableBTreeMap<u64, Row<Aside>, Memory>,
}

impl Asides {
    pub fn open(memory: Memory) -> Self {
        Self {
            rows: StableBTreeMap::init(memory),
        }
    }

    pub fn count(&self) -> u64 {
        self.rows.len()
    }

    /// Whether a row about this upload is set aside.
    pub fn has_upload(&self, user: &Principal, blob: &BlobId) -> bool {
        self.rows.iter().any(|entry| match entry.value().0.row {
            WorkRow::Upload(whose, what) | WorkRow::Due(_, whose, what) => {
                whose == *user && what == *blob
            }
            _ => false,
        })
    }

    fn find(&self, job: Job, row: &WorkRow) -> Option<u64> {
        let entries = self
            .rows
            .iter()
            .map(|entry| (*entry.key(), entry.value().0));
        let mut known = entries.filter(|(_, aside)| aside.job == job && aside.row == *row);
        known.next().map(|(number, _)| number)
    }
}

impl Bucket {
    /// When a job has something to do, in milliseconds since 1970: 0 for at once.
    pub fn due_ms(&self, job: Job) -> Option<u64> {
        let at_once = |is_due: bool| is_due.then_some(0);
        match job {
            Job::Draw => Some(self.secret_due_ms()),
            Job::Tell => at_once(self.has_news()),
            Job::Verify => at_once(self.is_verifying()),
            Job::Derive => at_once(self.is_deriving()),
            Job::DeleteAccessors => at_once(self.is_deleting()),
            Job::DeleteUsers => at_once(self.is_deleting_users()),
            Job::Expire => self.next_expiry_ms(),
            Job::GiveBack => self.next_idle_ms(),
        }
    }

    /// What a job's next piece of work is about first.
    pub fn next_row(&self, job: Job) -> Option<WorkRow> {
        match job {
            Job::Draw => None,
            Job::Tell => self.next_event().map(WorkRow::Event),
            Job::Verify => {
                let (user, blob) = self.uploads.next_verifying()?;
                Some(WorkRow::Upload(user, blob))
            }
            Job::Derive => self.access.next_derived().map(WorkRow::Issuer),
            Job::DeleteAccessors => {
                let (accessor, ()) = self.deletions.first_key_value()?;
                Some(WorkRow::Accessor(accessor))
            }
            Job::DeleteUsers => self.accounts.next_dying().map(WorkRow::User),
            Job::Expire => {
                let (due_ms, user, blob) = self.uploads.next_due()?;
                Some(WorkRow::Due(due_ms, user, blob))
            }
            Job::GiveBack => {
                let (due_ms, user) = self.accounts.next_idle()?;
                Some(WorkRow::Lease(due_ms, user))
            }
        }
    }

    /// Does a slice of a job that calls nobody. `is_suspect`: a message has trapped, so this one is about one row
    /// alone, where the job has many.
    pub fn work(&mut self, job: Job, is_suspect: bool, now: Now) {
        self.trap_on_purpose(job, self.next_row(job).as_ref());
        let rows = if is_suspect { 1 } else { ROWS_PER_SLICE };
        match job {
            Job::Draw | Job::Tell => {}
            Job::Verify => {
                self.verify_slice(now, rows);
            }
            Job::Derive => self.derive_issuers(if is_suspect { 1 } else { ISSUERS_PER_SLICE }),
            Job::DeleteAccessors => self.delete_slice(now),
            Job::DeleteUsers => self.delete_user_slice(now),
            Job::Expire => self.expire(now, rows),
            Job::GiveBack => self.give_back_idle(now, rows),
        }
    }

    /// Takes a row out of its job's way. It is listed until its work is done after all: an upgrade brings it back
    /// once. False where there is no such row, or are too many: then the job waits.
    pub fn set_aside(&mut self, job: Job, row: &WorkRow, now: Now) -> bool {
        let known = self.asides.find(job, row);
        if known.is_none() && self.asides.count() >= SET_ASIDE_MAX {
            return false;
        }
        let mut event = None;
        match (job, row) {
            (Job::Verify, WorkRow::Upload(user, blob)) => self.uploads.skip_verifying(user, blob),
            (Job::Derive, WorkRow::Issuer(issuer)) => self.access.skip_derived(*issuer),
            (Job::DeleteAccessors, WorkRow::Accessor(accessor)) => {
                self.deletions.remove(accessor);
            }
            (Job::DeleteUsers, WorkRow::User(user)) => self.accounts.skip_dying(*user),
            (Job::Expire, WorkRow::Due(due_ms, user, blob)) => {
                self.uploads.skip_due(*due_ms, user, blob);
            }
            (Job::GiveBack, WorkRow::Lease(due_ms, user)) => {
                self.accounts.skip_idle(*due_ms, user);
            }
            // Told as nothing already: what traps is something else.
            (Job::Tell, WorkRow::Event(_)) if known.is_some() => return false,
            (Job::Tell, WorkRow::Event(seq)) => {
                event = self.log.blank(*seq).map(|it| (it.kind, it.bytes));
            }
            _ => return false,
        }
        let number = known.unwrap_or_else(|| {
            let last = self.asides.rows.last_key_value();
            last.map_or(1, |(last, _)| last + 1)
        });
        let aside = Aside {
            job,
            row: row.clone(),
            at_ms: now.ms,
            event,
        };
        self.asides.rows.insert(number, Row(aside));
        self.report_due = true;
        let name = job.name();
        let text = format!(
            "alarm: every message about a row of the job {name} has trapped; it is set aside, number {number}"
        );
        self.note(now.ms, &text);
        true
    }

    pub(crate) fn set_aside_count(&self) -> u32 {
        u32::try_from(self.asides.count()).unwrap_or(u32::MAX)
    }

    /// Notes how long some job has waited, with the one that tells the index and without it.
    pub fn observe_work(&mut self, overdue_ms: (u64, u64)) {
        self.overdue_ms = overdue_ms;
    }

    /// Work on a row has ended well. An event that is set aside is told as nothing, and stays listed with what it said.
    pub fn worked(&mut self, job: Job, row: Option<&WorkRow>) {
        if self.asides.rows.is_empty() || job == Job::Tell {
            return;
        }
        if let Some(number) = row.and_then(|row| self.asides.find(job, row)) {
            self.asides.rows.remove(&number);
            self.report_due = true;
        }
    }

    /// Other code may be able to do what the code before could not: each row that is set aside gets its turn again.
    pub fn bring_back(&mut self) {
        let rows: Vec<_> = self
            .asides
            .rows
            .iter()
            .map(|entry| (*entry.key(), entry.value().0))
            .collect();
        for (number, Aside { job, row, .. }) in rows {
            let is_there = match (job, row) {
                (Job::Verify, WorkRow::Upload(user, blob)) => {
                    self.uploads.verify_again(&user, &blob)
                }
                (Job::DeleteAccessors, WorkRow::Accessor(accessor)) => {
                    self.deletions.insert(accessor, ());
                    true
                }
                (Job::DeleteUsers, WorkRow::User(user)) => self.accounts.die_again(user),
                (Job::Expire, WorkRow::Due(due_ms, user, blob)) => {
                    self.uploads.look_again(due_ms, user, &blob);
                    true
                }
                (Job::GiveBack, WorkRow::Lease(due_ms, user)) => {
                    self.accounts.look_again(due_ms, user);
                    true
                }
                // What an issuer shares with the newest key is computed again with the next one, and an event is told
                // with the state, should the index ask for it.
                _ => true,
            };
            if !is_there {
                self.asides.rows.remove(&number);
            }
        }
    }

    /// Rows that are set aside, for controllers: the first 1,000, which are all.
    pub fn list_set_aside(&self, is_controller: bool) -> Result<Vec<SetAside>, SetAsideError> {
        if !is_controller {
            return Err(SetAsideError::NotAuthorized);
        }
        let rows = self.asides.rows.iter();
        Ok(rows
            .map(|entry| {
                let (
                    number,
                    Aside {
                        job,
                        row,
                        at_ms,
                        event,
                    },
                ) = (*entry.key(), entry.value().0);
                SetAside {
                    number,
                    job: job.name().into(),
                    row: row.to_string(),
                    at_ms,
                    event: event.map(|(_, bytes)| bytes),
                }
            })
            .collect())
    }

    /// In builds for tests a job may trap whenever it comes to a row; with an event, until it is told as nothing.
    pub fn trap_on_purpose(&self, job: Job, row: Option<&WorkRow>) {
        #[cfg(feature = "mutants")]
        if let Some(trap) = &self.config.get().0.trap
            && trap.job == job.name()
            && !row.is_some_and(|row| job == Job::Tell && self.asides.find(job, row).is_some())
            && trap.row.as_ref().is_none_or(|wanted| {
                row.is_some_and(|row| row.to_string().contains(wanted.as_str()))
            })
        {
            panic!("the job {} traps on purpose", trap.job);
        }
        #[cfg(not(feature = "mutants"))]
        let _ = (job, row);
    }
}

//! What a bucket has to be told, and up to where it has been told everything.
//!
//! A bucket first gets the whole state in key order, page by page, then the shared log from the place
//! that was noted before the first page. Rows that change meanwhile come twice; every event says how
//! something is, so that does no harm. Whenever a bucket answers with a place that the index cannot
//! explain (either side was restored from a snapshot), or it is too far behind for the log to wait, it
//! gets the whole state again, from wherever it stands.
//!
//! A bucket's place is its own: its sequence numbers go on from page to page and into the log, whose
//! numbers are others. The cursor holds both.

use candid::{CandidType, Principal, encode_one};
use openstorage_channel::Log;
use openstorage_types::{
    channel::{
        AccessorDeleted, Event, EventsArgs, EventsOk, IssuerRemoved, IssuerUpserted, PublicKey,
        Stamp, UserUpserted, kind,
    },
    limits::EVENTS_PER_BATCH_MAX,
};
use serde::{Deserialize, Serialize};

use crate::{Index, memory::Memory, users::User};

/// A bucket that is further behind gets the whole state, when it is there again, and the log need not
/// be kept for it.
pub const BEHIND_EVENTS_MAX: u64 = 100_000;

/// Up to where a bucket has been told everything.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The bucket's own place in what it was sent.
    pub at: Stamp,
    pub next: Next,
}

/// What it gets next.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Next {
    /// The whole state, from its beginning.
    #[default]
    Start,
    /// The state after a row, then the log after a stamp. All of the state's events bear one version.
    State {
        after: Row,
        version: u64,
        log: Stamp,
    },
    /// The log after this stamp.
    Log(Stamp),
}

/// A row of the state, in the order in which it is told.
#[derive(
    CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum Row {
    Issuer(Principal),
    DeletedAccessor(Principal),
    User(Principal),
}

impl Row {
    /// Before every row: no row's principal is the empty one.
    const FIRST: Self = Self::Issuer(Principal::management_canister());
}

/// A batch on its way to a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    pub bucket: Principal,
    pub args: EventsArgs,
    /// Where the bucket stood, and of the state the rows that are on the way.
    cursor: Cursor,
    rows: Vec<Row>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The cursor has moved, or there was nothing to move it.
    Taken,
    /// The bucket took nothing, or stands elsewhere: send again, but not at once.
    Refused,
}

/// An event in Candid.
pub(crate) fn bytes(event: &impl CandidType) -> Vec<u8> {
    encode_one(event).expect("our own types encode")
}

pub(crate) fn user_event(user: Principal, row: &User) -> (u16, Vec<u8>) {
    let event = UserUpserted {
        user,
        incarnation: row.incarnation,
        byte_limit: row.byte_limit,
    };
    (kind::USER_UPSERTED, bytes(&event))
}

/// No key means that the issuer is removed.
pub(crate) fn issuer_event(issuer: Principal, key: Option<PublicKey>) -> (u16, Vec<u8>) {
    match key {
        Some(key) => (
            kind::ISSUER_UPSERTED,
            bytes(&IssuerUpserted { issuer, key }),
        ),
        None => (kind::ISSUER_REMOVED, bytes(&IssuerRemoved { issuer })),
    }
}

pub(crate) fn deletion_event(accessor_id: Principal) -> (u16, Vec<u8>) {
    (
        kind::ACCESSOR_DELETED,
        bytes(&AccessorDeleted { accessor_id }),
    )
}

impl Index {
    /// Whether a bucket has to be told something, or has yet to tell its key.
    pub(crate) fn has_news_for(&self, bucket: &Principal) -> bool {
        self.buckets.get(bucket).is_some_and(|row| {
            row.installed
                && (row.report.key.is_none() || row.cursor.next != Next::Log(self.log.last()))
        })
    }

    /// The next batch for a bucket; none when it knows everything. An empty one asks a bucket for its
    /// key. `version` is the canister's.
    pub fn next_batch(&mut self, bucket: Principal, version: u64) -> Option<Sending> {
        let mut row = self
            .buckets
            .get(&bucket)
            .filter(|row| row.installed)?
            .clone();
        let (events, rows) = loop {
            match row.cursor.next {
                Next::Start => {
                    row.cursor.next = Next::State {
                        after: Row::FIRST,
                        version,
                        log: self.log.last(),
                    }
                }
                Next::State {
                    after,
                    version,
                    log,
                } => {
                    let page = self.state_after(after, version);
                    if !page.0.is_empty() {
                        break page;
                    }
                    row.cursor.next = Next::Log(log);
                }
                Next::Log(log) => match self.log.batch_after(log) {
                    Ok(batch) => break (batch.events, Vec::new()),
                    Err(_) => row.cursor.next = Next::Start,
                },
            }
        };
        let cursor = row.cursor;
        let nothing = events.is_empty() && row.report.key.is_some();
        self.buckets.set(bucket, row);
        (!nothing).then(|| Sending {
            bucket,
            args: EventsArgs {
                from_stamp: cursor.at,
                events,
                counters: Vec::new(),
                report: None,
            },
            cursor,
            rows,
        })
    }

    /// A page of the state: a thousand events of less than 200 bytes each.
    fn state_after(&self, after: Row, version: u64) -> (Vec<Event>, Vec<Row>) {
        let none = Principal::management_canister();
        let issuers = match after {
            Row::Issuer(after) => Some(after),
            _ => None,
        };
        let deleted = match after {
            Row::Issuer(_) => Some(none),
            Row::DeletedAccessor(after) => Some(after),
            Row::User(_) => None,
        };
        let users = match after {
            Row::User(after) => after,
            _ => none,
        };
        let issuers = issuers
            .into_iter()
            .flat_map(|after| self.issuers.after(after))
            .map(|(issuer, key)| (Row::Issuer(issuer), issuer_event(issuer, key)));
        let deleted = deleted
            .into_iter()
            .flat_map(|after| self.issuers.deleted_after(after))
            .map(|accessor| (Row::DeletedAccessor(accessor), deletion_event(accessor)));
        let users = self
            .users
            .after(users)
            .map(|(user, row)| (Row::User(user), user_event(user, &row)));
        issuers
            .chain(deleted)
            .chain(users)
            .take(EVENTS_PER_BATCH_MAX)
            .map(|(row, (kind, bytes))| {
                let event = Event {
                    version,
                    kind,
                    bytes: bytes.into(),
                };
                (event, row)
            })
            .unzip()
    }

    /// Moves a bucket's cursor to where its answer says it stands, and drops what nobody needs.
    pub fn batch_answered(&mut self, sending: &Sending, answer: EventsOk) -> Sent {
        let Some(mut row) = self.buckets.get(&sending.bucket).cloned() else {
            return Sent::Refused;
        };
        row.take_report(answer.report);
        let mut sent = Sent::Refused;
        if row.cursor == sending.cursor {
            (row.cursor.next, sent) = sending.next(answer.stamp);
            row.cursor.at = answer.stamp;
        }
        self.buckets.set(sending.bucket, row);
        self.compact();
        sent
    }

    /// Drops the events that every bucket has. Whoever is too far behind is waited for no longer.
    fn compact(&mut self) {
        let rows: Vec<_> = self
            .buckets
            .iter()
            .map(|(bucket, row)| (*bucket, row.cursor))
            .collect();
        let mut needed = self.log.last();
        for (bucket, cursor) in rows {
            let (Next::State { log, .. } | Next::Log(log)) = cursor.next else {
                continue;
            };
            if self.log.behind(log) <= BEHIND_EVENTS_MAX {
                needed = needed.min(log);
            } else if let Some(mut row) = self.buckets.get(&bucket).cloned() {
                row.cursor.next = Next::Start;
                self.buckets.set(bucket, row);
            }
        }
        self.log.drop_until(needed);
    }

    /// How many events a bucket has yet to acknowledge; of the state, at most so many.
    pub(crate) fn events_behind(&self, next: Next) -> u64 {
        let state = self.issuers.state_len() + self.users.len();
        match next {
            Next::Start => state,
            Next::State { log, .. } => state + self.log.behind(log),
            Next::Log(log) => self.log.behind(log),
        }
    }
}

impl Sending {
    /// What comes after a bucket's answer.
    fn next(&self, answer: Stamp) -> (Next, Sent) {
        let events = &self.args.events;
        let from = self.args.from_stamp;
        let taken = answer.seq.checked_sub(from.seq);
        match taken.and_then(|taken| usize::try_from(taken).ok()) {
            Some(0) if answer == from => {
                let sent = if events.is_empty() {
                    Sent::Taken
                } else {
                    Sent::Refused
                };
                (self.cursor.next, sent)
            }
            Some(taken @ 1..)
                if taken <= events.len() && events[taken - 1].version == answer.version =>
            {
                let next = match self.cursor.next {
                    Next::State { version, log, .. } => Next::State {
                        after: self.rows[taken - 1],
                        version,
                        log,
                    },
                    Next::Log(log) => Next::Log(Stamp {
                        seq: log.seq + taken as u64,
                        version: answer.version,
                    }),
                    Next::Start => Next::Start,
                };
                (next, Sent::Taken)
            }
            _ => (Next::Start, Sent::Refused),
        }
    }
}

/// The shared log, in which everything stands that buckets have to know.
pub(crate) type SharedLog = Log<Memory>;

//! What buckets have to be told: each event of the shared log once, or the whole state.

use candid::{CandidType, Principal, encode_one};
use openstorage_channel::Log;
pub use openstorage_channel::Sent;
use openstorage_types::{
    channel::{
        AccessorDeleted, Counters, EventsArgs, EventsOk, IssuerRemoved, IssuerUpserted, Revoked,
        Stamp, StateRow, UserDeleted, UserUpserted, kind,
    },
    limits::{BEHIND_EVENTS_MAX, EVENTS_PER_BATCH_MAX},
};
use serde::{Deserialize, Serialize};

use crate::{
    Index,
    buckets::{Bucket, Doubt},
    memory::Memory,
    users::User,
};

/// Up to where a bucket has been told everything.
pub type Cursor = openstorage_channel::Cursor<StateKey>;

/// The shared log, in which everything stands that buckets have to know.
pub(crate) type SharedLog = Log<Memory>;

/// A row of the state, in the order in which it is told.
#[derive(
    CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum StateKey {
    Issuer(Principal),
    DeletedAccessor(Principal),
    /// Of an accessor, and the user or the management canister for everybody.
    Revocation(Principal, Principal),
    User(Principal),
}

/// A batch on its way to a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    pub bucket: Principal,
    pub args: EventsArgs,
    told: openstorage_channel::Sending<StateKey>,
}

/// An event in Candid.
fn bytes(event: &impl CandidType) -> Vec<u8> {
    encode_one(event).expect("our own types encode")
}

/// `counters` are those in the bucket that is told, and stand in a state only.
pub(crate) fn user_event(
    user: Principal,
    row: &User,
    counters: Option<Counters>,
) -> (u16, Vec<u8>) {
    let incarnation = row.incarnation;
    if row.deleted {
        let event = UserDeleted { user, incarnation };
        return (kind::USER_DELETED, bytes(&event));
    }
    let event = UserUpserted {
        user,
        incarnation,
        byte_limit: row.pool.byte_limit,
        counters,
        gone: Some(row.gone),
    };
    (kind::USER_UPSERTED, bytes(&event))
}

/// Nothing told means that the issuer is removed.
pub(crate) fn issuer_event(issuer: Principal, told: Option<IssuerUpserted>) -> (u16, Vec<u8>) {
    match told {
        Some(told) => (kind::ISSUER_UPSERTED, bytes(&told)),
        None => (kind::ISSUER_REMOVED, bytes(&IssuerRemoved { issuer })),
    }
}

pub(crate) fn deletion_event(accessor_id: Principal) -> (u16, Vec<u8>) {
    (
        kind::ACCESSOR_DELETED,
        bytes(&AccessorDeleted { accessor_id }),
    )
}

pub(crate) fn revocation_event(revoked: &Revoked) -> (u16, Vec<u8>) {
    (kind::REVOKED, bytes(revoked))
}

impl Index {
    /// Whether a bucket has to be told something, or has yet to tell its key or what it remembers.
    pub(crate) fn has_news_for(&self, bucket: &Principal, row: &Bucket) -> bool {
        row.installed
            && (row.report.key.is_none()
                || row.doubt != Doubt::None
                || row.cursor.has_news(&self.log)
                || self.to_ask.contains(bucket))
    }

    /// The next batch for a bucket; none when it knows everything. An empty one asks a bucket for its
    /// report. `version` is the canister's.
    pub fn next_batch(&mut self, bucket: Principal, version: u64) -> Option<Sending> {
        self.buckets.begins_to_hear(bucket);
        let row = self.buckets.get(&bucket).filter(|row| row.installed)?;
        let mut row = row.clone();
        let peer = row.report.version.unwrap_or(1);
        let mut told = row.cursor.next_batch(
            &self.log,
            version,
            EVENTS_PER_BATCH_MAX,
            |kind| kind::since(kind) <= peer,
            |after| self.state_after(bucket, after.copied()),
        );
        let asks =
            row.report.key.is_none() || row.doubt != Doubt::None || self.to_ask.contains(&bucket);
        let heard = row.heard;
        self.buckets.set(bucket, row);
        (asks || !told.events.is_empty()).then(|| Sending {
            bucket,
            args: EventsArgs {
                from_stamp: told.from_stamp,
                events: std::mem::take(&mut told.events),
                counters: Vec::new(),
                report: None,
                heard,
                version,
            },
            told,
        })
    }

    /// The state that a bucket has to know, from the first row after `after`.
    fn state_after(
        &self,
        bucket: Principal,
        after: Option<StateKey>,
    ) -> impl Iterator<Item = (StateKey, StateRow)> {
        use StateKey::*;
        // Before every row: no row's principal is the empty one.
        let none = Principal::management_canister();
        let after = after.unwrap_or(Issuer(none));
        let issuers = match after {
            Issuer(after) => Some(after),
            _ => None,
        };
        let deleted = match after {
            Issuer(_) => Some(none),
            DeletedAccessor(after) => Some(after),
            _ => None,
        };
        let revoked = match after {
            Issuer(_) | DeletedAccessor(_) => Some((none, none)),
            Revocation(accessor, user) => Some((accessor, user)),
            User(_) => None,
        };
        let users = match after {
            User(after) => after,
            _ => none,
        };
        let issuers = issuers
            .into_iter()
            .flat_map(|after| self.issuers.after(after))
            .map(|(issuer, told)| (Issuer(issuer), issuer_event(issuer, told)));
        let deleted = deleted
            .into_iter()
            .flat_map(|after| self.issuers.deleted_after(after))
            .map(|accessor| (DeletedAccessor(accessor), deletion_event(accessor)));
        let revoked = revoked
            .into_iter()
            .flat_map(|after| self.revocations.after(after))
            .map(|((accessor, user), row)| (Revocation(accessor, user), revocation_event(&row)));
        let users = self.users.after(users).map(move |(user, row)| {
            let counters = self.users.counters(user, row.incarnation, bucket);
            let counters = (counters != Counters::default()).then_some(counters);
            (User(user), user_event(user, &row, counters))
        });
        issuers
            .chain(deleted)
            .chain(revoked)
            .chain(users)
            .map(|(key, (kind, bytes))| {
                let bytes = bytes.into();
                (key, StateRow { kind, bytes })
            })
    }

    /// Moves a bucket's cursor to where its answer says it stands, and drops what nobody needs.
    pub fn batch_answered(&mut self, sending: &Sending, answer: EventsOk) -> Sent {
        let Some(mut row) = self.buckets.get(&sending.bucket).cloned() else {
            return Sent::Refused;
        };
        self.to_ask.remove(&sending.bucket);
        Self::look_if_restored(&mut row, answer.stamp, answer.report.as_ref());
        let sent = row.cursor.answered(&sending.told, answer.stamp);
        self.take_report(&mut row, answer.report);
        self.buckets.set(sending.bucket, row);
        self.answers += 1;
        if self.answers >= self.buckets.len() {
            self.compact(EVENTS_PER_BATCH_MAX * self.answers);
            self.answers = 0;
        }
        sent
    }

    /// Drops the events that every bucket has, `max` of them at most. Whoever is too far behind is waited
    /// for no longer. Looks at every bucket, so it runs once for as many answers as there are buckets.
    fn compact(&mut self, max: usize) {
        let places: Vec<_> = self
            .buckets
            .iter()
            .filter_map(|(bucket, row)| Some((*bucket, row.cursor.needs()?)))
            .collect();
        let mut needed = self.log.last();
        for (bucket, place) in places {
            if self.log.behind(place) <= BEHIND_EVENTS_MAX {
                needed = needed.min(place);
            } else if let Some(mut row) = self.buckets.get(&bucket).cloned() {
                row.cursor.start_over();
                self.buckets.set(bucket, row);
            }
        }
        self.log.drop_until(needed, max);
    }

    /// How many events a bucket has yet to acknowledge; of the state, at most so many.
    pub(crate) fn events_behind(&self, cursor: &Cursor) -> u64 {
        let state = self.issuers.state_len() + self.revocations.len() + self.users.len();
        let log = |place: Stamp| self.log.behind(place);
        match cursor.needs() {
            Some(place) if cursor.is_in_log() => log(place),
            place => state + place.map_or(0, log),
        }
    }

    /// Events that are kept because some bucket may need them.
    pub fn log_len(&self) -> u64 {
        self.log.len()
    }
}

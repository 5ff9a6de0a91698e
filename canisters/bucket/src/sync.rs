//! Events to and from the index.

use candid::{CandidType, Principal, decode_one, encode_one};
use openstorage_channel::{Cursor, Sending, check_size, unseen};
use openstorage_types::{
    BlobId,
    bucket::VERSION,
    channel::{
        AccessorDeleted, BlobHeld, BucketReport, Counters, Event, EventsArgs, EventsError,
        EventsOk, IssuerRemoved, IssuerUpserted, Reference, Revoked, Stamp, StatePage, StateRow,
        UserDeleted, kind,
    },
    limits::{BEHIND_EVENTS_MAX, CHUNK_BYTES, EVENTS_PER_BATCH_MAX, ISSUERS_PER_BATCH_MAX},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use openstorage_canister::Row;

use crate::{Bucket, Now, mutants::Mutant};

/// Events that nobody needs any more go a few at a time, and faster than others come.
const DROPPED_PER_EVENT: usize = 2;

/// A row of this bucket's state, in the order in which the index is told.
#[derive(
    CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum StateKey {
    /// A user that is gone, with what came before it: an index that has forgotten that must not take it in.
    Gone(Principal),
    User(Principal),
    Blob(BlobId),
    DeletedAccessor(Principal),
}

/// Places in two streams.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Default)]
pub struct Cursors {
    /// In the index's: applied here.
    received: Stamp,
    /// In this bucket's.
    sent: Cursor<StateKey>,
}

/// A batch on its way to the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub args: EventsArgs,
    told: Sending<StateKey>,
}

/// A row of a state, in Candid.
fn row(kind: u16, event: &impl CandidType) -> StateRow {
    let bytes = encode_one(event).expect("our own types encode");
    StateRow {
        kind,
        bytes: bytes.into(),
    }
}

impl Bucket {
    /// Tells the index of a reference that came or went, when its turn comes. An index that is away for too long is
    /// told the whole state when it is back: what it has missed is not kept.
    pub(crate) fn tell(&mut self, kind: u16, reference: &Reference, now: Now) {
        self.log.append(now.version, kind, reference.to_bytes());
        let needed = self.cursors.get().0.sent.needs();
        if needed.is_some_and(|place| self.log.behind(place) > BEHIND_EVENTS_MAX) {
            let mut cursors = self.cursors.get().0.clone();
            cursors.sent.start_over();
            self.cursors.set(Row(cursors));
        }
        if self.cursors.get().0.sent.needs().is_none() {
            self.log.drop_until(self.log.last(), DROPPED_PER_EVENT);
        }
    }

    /// Notes the canister's version, in every message that changes something. True when a snapshot may have
    /// been restored.
    pub fn observe(&mut self, version: u64) -> bool {
        let is_gap = self.watch.note(version);
        if is_gap {
            self.accounts.doubt();
            let mut cursors = self.cursors.get().0.clone();
            cursors.sent.doubt();
            // Leases, limits and deletions may be forgotten: the index tells its whole state again.
            cursors.received = Stamp::default();
            self.cursors.set(Row(cursors));
            self.report_due = true;
        }
        is_gap
    }

    /// The index was at this version when it sent what has arrived.
    pub(crate) fn saw_index(&mut self, version: u64) {
        if version > *self.index_version.get() {
            self.index_version.set(version);
        }
    }

    /// What the index sends: each event is applied once, also when a batch comes twice.
    pub fn receive(
        &mut self,
        caller: &Principal,
        args: &EventsArgs,
        now: Now,
    ) -> Result<EventsOk, EventsError> {
        if *caller != self.index() {
            return Err(EventsError::NotAuthorized);
        }
        check_size(args)?;
        self.saw_index(args.version);
        let mut cursors = self.cursors.get().0.clone();
        let mut new = unseen(cursors.received, args.from_stamp, &args.events);
        // So many issuers, and what follows with the next batch.
        let mut issuers = 0;
        let end = new.events.iter().position(|event| {
            issuers += usize::from(event.kind == kind::ISSUER_UPSERTED);
            issuers > ISSUERS_PER_BATCH_MAX
        });
        if let Some(end) = end {
            new.events = &new.events[..end];
            new.stamp = Stamp {
                seq: cursors.received.seq + end as u64,
                version: new.events[end - 1].version,
            };
        }
        for event in new.events {
            if self.apply(event, now).is_none() {
                self.count(|totals| totals.events_skipped += 1);
            }
        }
        // An index that stands elsewhere is told whatever it lacks.
        self.report_due |= args.heard != cursors.sent.at;
        if cursors.received != new.stamp {
            cursors.received = new.stamp;
            self.cursors.set(Row(cursors));
        }
        Ok(EventsOk {
            stamp: new.stamp,
            report: Some(self.report()),
            counters: vec![],
            version: now.version,
        })
    }

    fn apply(&mut self, event: &Event, now: Now) -> Option<()> {
        if event.kind != kind::STATE_PAGE {
            return self.apply_row(event.kind, &event.bytes, now);
        }
        let page: StatePage = decode_one(&event.bytes).ok()?;
        for row in page.rows {
            if self.apply_row(row.kind, &row.bytes, now).is_none() {
                self.count(|totals| totals.events_skipped += 1);
            }
        }
        Some(())
    }

    /// None for what this version does not understand: it is counted and skipped, never in the way of
    /// what follows.
    fn apply_row(&mut self, kind: u16, bytes: &[u8], now: Now) -> Option<()> {
        fn read<T: CandidType + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
            decode_one(bytes).ok()
        }
        match kind {
            kind::NOTHING => {}
            kind::USER_UPSERTED => {
                let event: openstorage_types::channel::UserUpserted = read(bytes)?;
                let learned = self.accounts.learn(&event, now.ms);
                self.settle(&event.user, learned, now);
            }
            kind::USER_DELETED => {
                let UserDeleted { user, incarnation } = read(bytes)?;
                self.delete_user(user, incarnation);
            }
            kind::ISSUER_UPSERTED => {
                let told: IssuerUpserted = read(bytes)?;
                self.access.trust(told);
            }
            kind::ISSUER_REMOVED => {
                let IssuerRemoved { issuer } = read(bytes)?;
                self.access.distrust(&issuer);
            }
            kind::ACCESSOR_DELETED => self.delete_accessor(read(bytes)?),
            kind::REVOKED => {
                let revoked: Revoked = read(bytes)?;
                if !self.is_mutant(Mutant::RevocationIgnored) {
                    self.access.revoke(&revoked, now.ms);
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether there is something that the index has not heard.
    pub fn has_news(&self) -> bool {
        self.report_due
            || self.is_room_news()
            || self.cursors.get().0.sent.has_news(&self.log)
            || self.accounts.has_unsent()
    }

    /// What the index ought to hear next; none where it has heard everything.
    pub fn next_batch(&mut self, version: u64) -> Option<Outgoing> {
        self.next_batch_of(version, EVENTS_PER_BATCH_MAX)
    }

    /// The same, with `max` events and counters at most.
    pub fn next_batch_of(&mut self, version: u64, max: usize) -> Option<Outgoing> {
        if !self.has_news() {
            return None;
        }
        let mut cursors = self.cursors.get().0.clone();
        // An index is upgraded before its buckets: it knows every kind.
        let mut told = cursors.sent.next_batch(
            &self.log,
            version,
            max,
            |_| true,
            |after| self.state_after(after.copied()),
        );
        let args = EventsArgs {
            from_stamp: told.from_stamp,
            events: std::mem::take(&mut told.events),
            counters: self.accounts.unsent(max),
            report: Some(BucketReport {
                overdue_ms: Some(self.overdue_ms.1),
                ..self.report()
            }),
            heard: cursors.received,
            version,
        };
        self.cursors.set(Row(cursors));
        Some(Outgoing { args, told })
    }

    /// The state that the index has to know, from the first row after `after`: the deletions that an index restored
    /// from a snapshot has forgotten, users' counters, and blobs.
    fn state_after(&self, after: Option<StateKey>) -> impl Iterator<Item = (StateKey, StateRow)> {
        use StateKey::*;
        use std::ops::Bound::{Excluded, Unbounded};
        let none = Principal::management_canister();
        let gone = match after {
            None => Some(none),
            Some(Gone(after)) => Some(after),
            _ => None,
        };
        let users = match after {
            None | Some(Gone(_)) => Some(none),
            Some(User(after)) => Some(after),
            _ => None,
        };
        let blobs = match after {
            None | Some(Gone(_) | User(_)) => Some(Unbounded),
            Some(Blob(after)) => Some(Excluded(after.0)),
            _ => None,
        };
        let deleted = match after {
            Some(DeletedAccessor(after)) => after,
            _ => none,
        };
        let users = users
            .into_iter()
            .flat_map(|after| self.accounts.after(after))
            .map(|told| (User(told.user), row(kind::USER_HELD, &told)));
        let blobs = blobs
            .into_iter()
            .flat_map(|after| self.blobs.range((after, Unbounded)))
            .map(|entry| {
                let held = BlobHeld {
                    blob_id: BlobId(*entry.key()),
                    size: self.store.size(entry.value()).unwrap_or(0),
                };
                let row = StateRow {
                    kind: kind::BLOB_HELD,
                    bytes: held.to_bytes().into(),
                };
                (Blob(held.blob_id), row)
            });
        let gone = gone
            .into_iter()
            .flat_map(|after| self.accounts.gone_after(after))
            .map(|gone| (Gone(gone.user), row(kind::USER_DELETED, &gone)));
        let deleted = self
            .accessors_deleted
            .range((Excluded(deleted), Unbounded))
            .map(|entry| {
                let accessor_id = *entry.key();
                let event = AccessorDeleted { accessor_id };
                (
                    DeletedAccessor(accessor_id),
                    row(kind::ACCESSOR_DELETED, &event),
                )
            });
        gone.chain(users).chain(blobs).chain(deleted)
    }

    /// The index's answer to a batch.
    pub fn acknowledged(&mut self, sent: &Outgoing, answer: &EventsOk, now: Now) {
        self.saw_index(answer.version);
        self.accounts.sent(&sent.args.counters);
        for known in &answer.counters {
            if known.counters == Counters::default() {
                self.delete_user(known.user, known.incarnation);
            } else {
                self.reconcile(known, now);
            }
        }
        // A key that came about or was revoked while the batch was under way is still to be told.
        let report = sent.args.report.as_ref();
        let told = report.map(|report| (report.key, report.oldest_key_version));
        let keys = &self.access.audience.keys;
        self.report_due = told != Some((keys.public(), keys.oldest_version()));
        self.told_free = report.map(|report| report.bytes_free);
        let mut cursors = self.cursors.get().0.clone();
        cursors.sent.answered(&sent.told, answer.stamp);
        if let Some(place) = cursors.sent.needs() {
            self.log.drop_until(place, EVENTS_PER_BATCH_MAX);
        }
        self.cursors.set(Row(cursors));
    }

    /// An upload found no room: the index is to know at once what there is.
    pub(crate) fn report_room(&mut self) {
        self.report_due |= self.told_free != Some(self.bytes_free());
    }

    /// Whether there is much more room, or much less, than the index was told last: an eighth, and a chunk at least.
    /// It names no bucket then that answers `BucketFull`, and makes another in time.
    fn is_room_news(&self) -> bool {
        let free = self.bytes_free();
        let told = self.told_free;
        told.is_some_and(|told| told.abs_diff(free) >= (told / 8).max(CHUNK_BYTES))
    }

    fn report(&self) -> BucketReport {
        BucketReport {
            bytes_used: self.totals().bytes_stored + self.totals().bytes_reserved,
            bytes_free: self.bytes_free(),
            key: self.access.audience.keys.public(),
            oldest_key_version: self.access.audience.keys.oldest_version(),
            version: Some(VERSION),
            index_version: *self.index_version.get(),
            cycles: Some(self.cycles()),
            set_aside: Some(self.set_aside_count()),
            overdue_ms: Some(self.overdue_ms.0),
        }
    }

    /// The place in the log of the first event that the index ought to hear next.
    pub(crate) fn next_event(&self) -> Option<u64> {
        let cursors = &self.cursors.get().0;
        let place = cursors.sent.needs().filter(|_| cursors.sent.is_in_log())?;
        (place != self.log.last()).then_some(place.seq + 1)
    }

    pub(crate) fn events_unsent(&self) -> u64 {
        match self.cursors.get().0.sent.needs() {
            Some(place) => self.log.behind(place),
            None => self.log.len(),
        }
    }
}

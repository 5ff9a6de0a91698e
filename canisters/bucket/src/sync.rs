//! Events to and from the index.

use candid::{CandidType, Principal, decode_one, encode_one};
use openstorage_channel::unseen;
use openstorage_types::{
    bucket::VERSION,
    channel::{
        BucketReport, Event, EventsArgs, EventsError, EventsOk, IssuerRemoved, IssuerUpserted,
        Stamp, UserUpserted, kind,
    },
    limits::{EVENT_BATCH_BYTES_MAX, EVENTS_PER_BATCH_MAX},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use openstorage_canister::Row;

use crate::{Bucket, Now};

/// Places in two logs.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, Default)]
pub struct Cursors {
    /// In the index's: applied here.
    received: Stamp,
    /// In this bucket's: the index has it.
    acknowledged: Stamp,
}

impl Bucket {
    /// Tells the index something, when its turn comes.
    pub(crate) fn tell<T: CandidType>(&mut self, kind: u16, event: &T, now: Now) {
        let bytes = encode_one(event).expect("an event has a Candid form");
        self.log.append(now.version, kind, bytes);
    }

    /// What the index sends: each event is applied once, also when a batch comes twice.
    pub fn receive(
        &mut self,
        caller: &Principal,
        args: &EventsArgs,
    ) -> Result<EventsOk, EventsError> {
        if *caller != self.index() {
            return Err(EventsError::NotAuthorized);
        }
        let bytes: usize = args.events.iter().map(|event| event.bytes.len()).sum();
        if args.events.len() > EVENTS_PER_BATCH_MAX || bytes > EVENT_BATCH_BYTES_MAX {
            return Err(EventsError::BatchTooLarge {
                events_max: EVENTS_PER_BATCH_MAX as u32,
                bytes_max: EVENT_BATCH_BYTES_MAX as u64,
            });
        }
        let cursors = self.cursors.get().0;
        let new = unseen(cursors.received, args.from_stamp, &args.events);
        for event in new.events {
            if self.apply(event).is_none() {
                self.count(|totals| totals.events_skipped += 1);
            }
        }
        self.cursors.set(Row(Cursors {
            received: new.stamp,
            ..cursors
        }));
        Ok(EventsOk {
            stamp: new.stamp,
            report: Some(self.report()),
        })
    }

    /// None for what this version does not understand: it is counted and skipped, never in the way of
    /// what follows.
    fn apply(&mut self, event: &Event) -> Option<()> {
        fn read<T: CandidType + DeserializeOwned>(event: &Event) -> Option<T> {
            decode_one(&event.bytes).ok()
        }
        match event.kind {
            kind::USER_UPSERTED => {
                let UserUpserted {
                    user, incarnation, ..
                } = read(event)?;
                self.accounts.learn(user, incarnation);
            }
            kind::ISSUER_UPSERTED => {
                let IssuerUpserted { issuer, key } = read(event)?;
                self.access.trust(issuer, key);
            }
            kind::ISSUER_REMOVED => {
                let IssuerRemoved { issuer } = read(event)?;
                self.access.distrust(&issuer);
            }
            kind::ACCESSOR_DELETED => self.delete_accessor(read(event)?),
            _ => return None,
        }
        Some(())
    }

    /// Whether there is something that the index has not heard.
    pub fn has_news(&self) -> bool {
        self.report_due || self.events_unsent() > 0 || self.accounts.has_unsent()
    }

    /// What the index ought to hear next; none where it has heard everything.
    pub fn next_batch(&self) -> Option<EventsArgs> {
        if !self.has_news() {
            return None;
        }
        let acknowledged = self.cursors.get().0.acknowledged;
        let batch = self.log.batch_after(acknowledged).ok()?;
        Some(EventsArgs {
            from_stamp: batch.from_stamp,
            events: batch.events,
            counters: self.accounts.unsent(EVENTS_PER_BATCH_MAX),
            report: Some(self.report()),
        })
    }

    /// The index's answer to a batch.
    pub fn acknowledged(&mut self, sent: &EventsArgs, answer: &EventsOk) {
        self.accounts.sent(&sent.counters);
        // A key that came about while the batch was under way is still to be told.
        let told = sent.report.as_ref().and_then(|report| report.key);
        self.report_due = told != self.access.public();
        if self.log.knows(answer.stamp) {
            let cursors = self.cursors.get().0;
            self.cursors.set(Row(Cursors {
                acknowledged: answer.stamp,
                ..cursors
            }));
            self.log.drop_until(answer.stamp);
        }
    }

    fn report(&self) -> BucketReport {
        BucketReport {
            bytes_used: self.totals().bytes_stored + self.totals().bytes_reserved,
            bytes_free: self.bytes_free(),
            key: self.access.public(),
            version: Some(VERSION),
            cycles: Some(self.cycles()),
        }
    }

    pub(crate) fn events_unsent(&self) -> u64 {
        self.log.behind(self.cursors.get().0.acknowledged)
    }
}

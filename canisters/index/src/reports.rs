//! What buckets tell: events, counters, their whole state, and how they are.

use candid::{CandidType, Principal};
use openstorage_channel::{check_size, unseen};
use openstorage_types::{
    channel::{
        AccessorDeleted, BlobHeld, Counters, Event, EventsArgs, EventsError, EventsOk, Reference,
        StatePage, UserCounters, kind,
    },
    index::ChangeKind,
    limits::{DECODE_SKIP_MAX, DECODE_WORK_MAX},
};
use serde::de::DeserializeOwned;

use crate::{
    Context, Index,
    buckets::{Bucket, Doubt},
    mutants::Mutant,
};

impl Index {
    /// Applies what is new of a bucket's batch. Hearing it again changes nothing.
    pub fn events(
        &mut self,
        context: &Context,
        args: &EventsArgs,
    ) -> Result<EventsOk, EventsError> {
        let bucket = context.caller;
        let Some(mut row) = self.buckets.get(&bucket).cloned() else {
            return Err(EventsError::NotAuthorized);
        };
        check_size(args)?;
        Self::look_if_restored(&mut row, args.heard, args.report.as_ref());
        // Whoever speaks can be spoken to.
        self.send_succeeded(&bucket);
        self.take_report(&mut row, args.report.clone());
        let mut counters = Vec::new();
        let new = unseen(row.heard, args.from_stamp, &args.events);
        for event in new.events {
            if self
                .apply(context, &mut row, event, &mut counters)
                .is_none()
            {
                self.events_skipped += 1;
            }
        }
        let may_adopt = row.doubt == Doubt::None;
        for told in &args.counters {
            self.hear_back(context, bucket, told, may_adopt, &mut counters);
        }
        row.heard = new.stamp;
        // It stands before where it has been told everything: an answer of it was faster than this, or it
        // was restored from a snapshot.
        if args.heard.seq <= row.cursor.at.seq && args.heard != row.cursor.at {
            self.to_ask.insert(bucket);
        }
        self.buckets.set(bucket, row);
        self.heard_from(bucket, context.now_ms);
        Ok(EventsOk {
            stamp: new.stamp,
            report: None,
            counters,
            version: context.version,
        })
    }

    /// None for an event that is not understood: it is counted, and no obstacle to those after it.
    fn apply(
        &mut self,
        context: &Context,
        row: &mut Bucket,
        event: &Event,
        counters: &mut Vec<UserCounters>,
    ) -> Option<()> {
        let bucket = context.caller;
        match event.kind {
            kind::NOTHING => {}
            kind::BLOB_REFERENCE_ADDED => {
                let added = Reference::from_bytes(&event.bytes)?;
                self.blobs
                    .add(&added.blob_id, bucket, added.size, row.generation);
                let what = match added.with_blob {
                    true => ChangeKind::Added,
                    false => ChangeKind::Referenced,
                };
                self.feed.push(context, what, bucket, added);
            }
            kind::BLOB_REFERENCE_REMOVED => {
                let removed = Reference::from_bytes(&event.bytes)?;
                let what = match removed.with_blob {
                    true => ChangeKind::Deleted,
                    false => ChangeKind::Unreferenced,
                };
                if removed.with_blob && !self.is_mutant(Mutant::HomeKept) {
                    self.blobs.remove(&removed.blob_id, bucket);
                }
                if !self.is_mutant(Mutant::FeedRowLost) {
                    self.feed.push(context, what, bucket, removed);
                }
            }
            kind::STATE_PAGE => {
                let page: StatePage = decode(&event.bytes)?;
                self.apply_page(context, row, &page, counters);
            }
            _ => return None,
        }
        Some(())
    }

    /// Part of a bucket's whole state. What it does not name by the end it does not have.
    fn apply_page(
        &mut self,
        context: &Context,
        row: &mut Bucket,
        page: &StatePage,
        counters: &mut Vec<UserCounters>,
    ) {
        let bucket = context.caller;
        if page.first {
            // One that tells its state anew has changes that were never told one by one.
            if row.generation > 0 {
                self.feed.gap(context);
            }
            row.generation += 1;
        }
        for state in &page.rows {
            match state.kind {
                kind::USER_HELD => match decode(&state.bytes) {
                    Some(told) => self.hear_back(context, bucket, &told, true, counters),
                    None => self.events_skipped += 1,
                },
                kind::USER_DELETED => match decode(&state.bytes) {
                    Some(gone) => self.hear_gone(context, &gone),
                    None => self.events_skipped += 1,
                },
                kind::ACCESSOR_DELETED => match decode(&state.bytes) {
                    Some(AccessorDeleted { accessor_id }) => {
                        self.forget_accessor(context, accessor_id);
                    }
                    None => self.events_skipped += 1,
                },
                kind::BLOB_HELD => match BlobHeld::from_bytes(&state.bytes) {
                    Some(BlobHeld { blob_id, size }) => {
                        self.blobs.add(&blob_id, bucket, size, row.generation);
                    }
                    None => self.events_skipped += 1,
                },
                _ => self.events_skipped += 1,
            }
        }
        if page.last {
            self.sweeps.homes_of(bucket);
            row.doubt = Doubt::None;
        }
    }

    /// Takes a bucket's word about a user, and answers with what the index knows where that is more, and
    /// with zeros where the user is gone: a bucket takes silence for consent.
    fn hear_back(
        &mut self,
        context: &Context,
        bucket: Principal,
        told: &UserCounters,
        may_adopt: bool,
        answer: &mut Vec<UserCounters>,
    ) {
        self.hear_if(context, bucket, told, may_adopt);
        let UserCounters {
            user, incarnation, ..
        } = *told;
        let row = self.users.get(&user);
        let is_gone = self.users.is_gone(&user, incarnation);
        let counters = match row.filter(|row| row.incarnation >= incarnation) {
            _ if is_gone => Counters::default(),
            Some(row) => self.users.counters(user, row.incarnation, bucket),
            // It is believed with the bucket's state.
            None => return,
        };
        if is_gone || counters != told.counters {
            answer.push(UserCounters { counters, ..*told });
        }
    }
}

fn decode<T: CandidType + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut config = candid::DecoderConfig::new();
    config
        .set_decoding_quota(DECODE_WORK_MAX)
        .set_skipping_quota(DECODE_SKIP_MAX);
    let (event,) = candid::utils::decode_args_with_config(bytes, &config).ok()?;
    Some(event)
}

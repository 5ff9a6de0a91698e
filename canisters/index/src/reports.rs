//! What buckets tell: events, counters, and how they are.

use candid::{CandidType, Principal};
use openstorage_channel::unseen;
use openstorage_types::{
    channel::{
        BlobReferenceAdded, BlobReferenceRemoved, Event, EventsArgs, EventsError, EventsOk, kind,
    },
    limits::{DECODE_SKIP_MAX, DECODE_WORK_MAX, EVENT_BATCH_BYTES_MAX, EVENTS_PER_BATCH_MAX},
};
use serde::de::DeserializeOwned;

use crate::{Context, Index};

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
        let bytes: usize = args.events.iter().map(|event| event.bytes.len()).sum();
        if args.events.len() > EVENTS_PER_BATCH_MAX
            || args.counters.len() > EVENTS_PER_BATCH_MAX
            || bytes > EVENT_BATCH_BYTES_MAX
        {
            return Err(EventsError::BatchTooLarge {
                events_max: EVENTS_PER_BATCH_MAX as u32,
                bytes_max: EVENT_BATCH_BYTES_MAX as u64,
            });
        }
        let new = unseen(row.heard, args.from_stamp, &args.events);
        for event in new.events {
            if self.apply(bucket, event).is_none() {
                self.events_skipped += 1;
            }
        }
        for counters in &args.counters {
            self.users.merge(bucket, counters, context.now_ms);
        }
        row.heard = new.stamp;
        row.take_report(args.report.clone());
        self.buckets.set(bucket, row);
        Ok(EventsOk {
            stamp: new.stamp,
            report: None,
        })
    }

    /// None for an event that is not understood: it is counted, and no obstacle to those after it.
    fn apply(&mut self, bucket: Principal, event: &Event) -> Option<()> {
        match event.kind {
            kind::BLOB_REFERENCE_ADDED => {
                let added: BlobReferenceAdded = decode(&event.bytes)?;
                self.blobs.add(&added.blob_id, bucket, added.size);
            }
            kind::BLOB_REFERENCE_REMOVED => {
                let removed: BlobReferenceRemoved = decode(&event.bytes)?;
                if removed.blob_gone {
                    self.blobs.remove(&removed.blob_id, bucket);
                }
            }
            _ => return None,
        }
        Some(())
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

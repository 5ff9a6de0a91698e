//! An ordered stream of events from one canister to another, each applied exactly once, over calls that
//! may fail, time out with an unknown outcome, arrive twice, or be cut by an upgrade.
//!
//! The sender appends to a [`Log`] in stable memory and sends what lies after the place it believes the
//! receiver to be at. The receiver keeps one [`Stamp`], applies what [`unseen`] gives it, moves the stamp
//! in the same message, and answers with it. The sender moves its cursor to the answer and drops what
//! nobody needs any more. Whatever is lost or repeated, the answer's stamp says where to go on.
//!
//! One log may have many receivers, each with a cursor of its own: memory grows with events and
//! receivers, not with their product.
//!
//! ```
//! use ic_stable_structures::VectorMemory;
//! use openstorage_channel::{Log, unseen};
//! use openstorage_types::channel::Stamp;
//!
//! let mut log = Log::init(VectorMemory::default(), VectorMemory::default());
//! log.append(7, 1, b"hello".to_vec());
//! let receiver = Stamp::default();
//!
//! let batch = log.batch_after(receiver).unwrap();
//! let new = unseen(receiver, batch.from_stamp, &batch.events);
//! assert_eq!((new.events.len(), new.stamp), (1, log.last()));
//! // The same batch again brings nothing.
//! assert!(unseen(new.stamp, batch.from_stamp, &batch.events).events.is_empty());
//! ```

mod log;

pub use log::{Batch, Log, UnknownStamp};

use openstorage_types::channel::{Event, Stamp};

/// What a receiver has to apply of a batch, and the stamp to keep once it has.
#[derive(Debug, PartialEq, Eq)]
pub struct Unseen<'a> {
    pub events: &'a [Event],
    pub stamp: Stamp,
}

/// The part of a batch that a receiver standing at `own` has not applied yet. Nothing, when the batch
/// does not join on to it: then the answer, `own`, tells the sender where to go on.
pub fn unseen(own: Stamp, from: Stamp, events: &[Event]) -> Unseen<'_> {
    let nothing = Unseen {
        events: &[],
        stamp: own,
    };
    let Some(have) = own
        .seq
        .checked_sub(from.seq)
        .and_then(|have| usize::try_from(have).ok())
    else {
        return nothing;
    };
    if have > events.len() {
        return nothing;
    }
    let version_there = if have == 0 {
        from.version
    } else {
        events[have - 1].version
    };
    if version_there != own.version {
        return nothing;
    }
    let new = &events[have..];
    match new.last() {
        None => nothing,
        Some(last) => Unseen {
            events: new,
            stamp: Stamp {
                seq: own.seq + new.len() as u64,
                version: last.version,
            },
        },
    }
}

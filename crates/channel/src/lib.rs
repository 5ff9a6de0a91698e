//! An ordered stream of events from one canister to another, each applied exactly once, over calls that
//! may fail, time out with an unknown outcome, arrive twice, or be cut by an upgrade.
//!
//! The sender appends to a [`Log`] in stable memory, and keeps a [`Cursor`] for each receiver. A receiver
//! keeps one [`Stamp`], applies what [`unseen`] gives it, moves the stamp in the same message, and answers
//! with it. The sender moves its cursor to the answer and drops what nobody needs any more. Whatever is
//! lost or repeated, the answer says where to go on.
//!
//! One log may have many receivers: memory grows with events and receivers, not with their product. A
//! receiver that stands where the log does not reach (it is new, or was away for too long, or either side
//! was restored from a snapshot) gets the whole state, page by page, then the log. [`Watch`] notices a
//! restored snapshot before the peer does.
//!
//! What has to be kept is the sender's log and cursors and the receiver's stamp, all in stable memory. One
//! batch is in flight for each receiver at a time; a second would do no harm.
//!
//! ```
//! use ic_stable_structures::VectorMemory;
//! use openstorage_channel::{Cursor, Log, unseen};
//! use openstorage_types::channel::Stamp;
//!
//! let mut log = Log::init(VectorMemory::default(), VectorMemory::default());
//! // The receiver's, and the sender's for it. There is no state to tell.
//! let mut own = Stamp::default();
//! let mut cursor: Cursor<u8> = Cursor::default();
//! for (version, event) in [(1, None), (2, Some("hello"))] {
//!     for event in event {
//!         log.append(version, 7, event.into());
//!     }
//!     let sending = cursor.next_batch(&log, version, 1_000, |_| true, |_| std::iter::empty());
//!     let new = unseen(own, sending.from_stamp, &sending.events);
//!     // First the (empty) state, then the event.
//!     assert_eq!(new.events.len(), 1);
//!     own = new.stamp;
//!     cursor.answered(&sending, own);
//! }
//! assert!(!cursor.has_news(&log));
//! ```

mod cursor;
mod log;
mod watch;

pub use cursor::{Cursor, Next, Sending, Sent, Telling};
pub use log::{Batch, Log, UnknownStamp};
pub use watch::Watch;

use openstorage_types::{
    channel::{Event, EventsArgs, EventsError, Stamp},
    limits::{EVENT_BATCH_BYTES_MAX, EVENTS_PER_BATCH_MAX},
};

/// Whether a batch is of a size that is looked at.
pub fn check_size(args: &EventsArgs) -> Result<(), EventsError> {
    let bytes: usize = args.events.iter().map(|event| event.bytes.len()).sum();
    let is_small = args.events.len() <= EVENTS_PER_BATCH_MAX
        && args.counters.len() <= EVENTS_PER_BATCH_MAX
        && bytes <= EVENT_BATCH_BYTES_MAX;
    is_small.then_some(()).ok_or(EventsError::BatchTooLarge {
        events_max: EVENTS_PER_BATCH_MAX as u32,
        bytes_max: EVENT_BATCH_BYTES_MAX as u64,
    })
}

/// A stamp that no sender has: whoever answers it is told the whole state.
pub fn lost(own: Stamp) -> Stamp {
    Stamp {
        version: u64::MAX,
        ..own
    }
}

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

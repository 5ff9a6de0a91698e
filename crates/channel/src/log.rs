//! The sender's events in stable memory, from the oldest that somebody still needs.
//!
//! Two memories. In the first a `StableBTreeMap` from sequence number to event:
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 8 | the sender's canister version when the event was appended |
//! | 8 | 2 | kind |
//! | 10 | the rest | the event |
//!
//! In the second a `StableCell` with the two ends, 64 bytes:
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 3 | magic `OCL` |
//! | 3 | 1 | layout version, 1 |
//! | 4 | 4 | reserved, 0 |
//! | 8 | 16 | the place before the oldest event: sequence number, version |
//! | 24 | 16 | the place after the newest event, likewise |
//! | 40 | 24 | reserved, 0 |
//!
//! Numbers are little-endian.

use std::borrow::Cow;

use ic_stable_structures::{Memory, StableBTreeMap, StableCell, Storable, storable::Bound};
use openstorage_types::{
    channel::{Event, Stamp, kind},
    limits::{EVENT_BATCH_BYTES_MAX, EVENT_BYTES_MAX, EVENTS_PER_BATCH_MAX},
};

/// A stamp that is no place in this log: before its oldest event, after its newest, or of a history that
/// was rolled back. Both sides have to compare their whole state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownStamp;

/// Events to send, and the place before the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub from_stamp: Stamp,
    pub events: Vec<Event>,
}

/// Events in order of their appending. Takes two memories: one for the events, one for the two ends.
pub struct Log<M: Memory> {
    events: StableBTreeMap<u64, Stored, M>,
    ends: StableCell<Ends, M>,
}

impl<M: Memory> Log<M> {
    pub fn init(events: M, ends: M) -> Self {
        Self {
            events: StableBTreeMap::init(events),
            ends: StableCell::init(ends, Ends::default()),
        }
    }

    /// Appends an event, stamped with the canister version of the message that does so. Returns its
    /// place.
    ///
    /// # Panics
    /// When the event is longer than [`EVENT_BYTES_MAX`]: whoever makes events bounds them.
    pub fn append(&mut self, version: u64, kind: u16, bytes: Vec<u8>) -> Stamp {
        assert!(
            bytes.len() <= EVENT_BYTES_MAX,
            "an event has at most {EVENT_BYTES_MAX} bytes"
        );
        let Ends { first, last } = *self.ends.get();
        let stamp = Stamp {
            seq: last.seq + 1,
            version,
        };
        self.events.insert(
            stamp.seq,
            Stored(Event {
                version,
                kind,
                bytes: bytes.into(),
            }),
        );
        self.ends.set(Ends { first, last: stamp });
        stamp
    }

    /// The place after the newest event.
    pub fn last(&self) -> Stamp {
        self.ends.get().last
    }

    /// Events in the log.
    pub fn len(&self) -> u64 {
        self.events.len()
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// How many events lie after `stamp`.
    pub fn behind(&self, stamp: Stamp) -> u64 {
        self.last().seq.saturating_sub(stamp.seq)
    }

    /// Whether `stamp` is a place in this log.
    pub fn knows(&self, stamp: Stamp) -> bool {
        let Ends { first, last } = *self.ends.get();
        stamp == first
            || stamp == last
            || self
                .events
                .get(&stamp.seq)
                .is_some_and(|stored| stored.0.version == stamp.version)
    }

    /// Makes an event one that says nothing. What it said; none where it is not there.
    pub fn blank(&mut self, seq: u64) -> Option<Event> {
        let Stored(event) = self.events.get(&seq)?;
        let blank = Event {
            version: event.version,
            kind: kind::NOTHING,
            bytes: vec![].into(),
        };
        self.events.insert(seq, Stored(blank));
        Some(event)
    }

    /// The next events after `stamp`: at most `max`, 1,000 and 1 MB of them; none at the end of the log.
    pub fn batch_after(&self, stamp: Stamp, max: usize) -> Result<Batch, UnknownStamp> {
        if !self.knows(stamp) {
            return Err(UnknownStamp);
        }
        let mut bytes = 0;
        let events = self
            .events
            .range(stamp.seq + 1..)
            .take(max.min(EVENTS_PER_BATCH_MAX))
            .map(|entry| entry.value().0)
            .take_while(|event| {
                bytes += event.bytes.len();
                bytes <= EVENT_BATCH_BYTES_MAX
            })
            .collect();
        Ok(Batch {
            from_stamp: stamp,
            events,
        })
    }

    /// Drops the events up to `stamp`, which every receiver has acknowledged; at most `max` of them, so
    /// that a long log is dropped over several calls. Unknown stamps drop nothing.
    pub fn drop_until(&mut self, stamp: Stamp, max: usize) {
        if !self.knows(stamp) {
            return;
        }
        let Ends { first, last } = *self.ends.get();
        let mut oldest = first;
        for seq in (first.seq + 1..=stamp.seq).take(max) {
            if let Some(Stored(event)) = self.events.remove(&seq) {
                oldest = Stamp {
                    seq,
                    version: event.version,
                };
            }
        }
        self.ends.set(Ends {
            first: oldest,
            last,
        });
    }
}

/// The place before the oldest event and the place after the newest.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    first: Stamp,
    last: Stamp,
}

const MAGIC: &[u8; 3] = b"OCL";
const LAYOUT_VERSION: u8 = 1;
const ENDS_BYTES: usize = 64;

impl Storable for Ends {
    const BOUND: Bound = Bound::Bounded {
        max_size: ENDS_BYTES as u32,
        is_fixed_size: true,
    };

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; ENDS_BYTES];
        bytes[..3].copy_from_slice(MAGIC);
        bytes[3] = LAYOUT_VERSION;
        let numbers = [
            self.first.seq,
            self.first.version,
            self.last.seq,
            self.last.version,
        ];
        bytes[8..40].copy_from_slice(&numbers.map(u64::to_le_bytes).concat());
        bytes.into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    /// # Panics
    /// When the memory holds something else, or a layout of a later version.
    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        assert_eq!(&bytes[..3], MAGIC, "this memory holds no log");
        assert_eq!(bytes[3], LAYOUT_VERSION, "the log's layout is another's");
        let stamp = |at: usize| {
            let number =
                |at: usize| u64::from_le_bytes(bytes[at..][..8].try_into().expect("8 bytes"));
            Stamp {
                seq: number(at),
                version: number(at + 8),
            }
        };
        Self {
            first: stamp(8),
            last: stamp(24),
        }
    }
}

#[derive(Debug, Clone)]
struct Stored(Event);

impl Storable for Stored {
    const BOUND: Bound = Bound::Unbounded;

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        let Event {
            version,
            kind,
            bytes,
        } = &self.0;
        [&version.to_le_bytes()[..], &kind.to_le_bytes(), bytes]
            .concat()
            .into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        Self(Event {
            version: u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")),
            kind: u16::from_le_bytes(bytes[8..10].try_into().expect("2 bytes")),
            bytes: bytes[10..].to_vec().into(),
        })
    }
}

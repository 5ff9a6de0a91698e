//! Where one receiver stands in what its sender has to tell it, and what it gets next.
//!
//! A receiver that is new, or stands where the sender does not know, first gets the sender's whole state
//! in key order, page by page, then the log from the place that was noted before the first page. Rows
//! that change meanwhile come twice; every event says how something is, so that does no harm.
//!
//! A receiver's place is its own: its sequence numbers go on from page to page and into the log, whose
//! numbers are others. The cursor holds both.

use candid::{CandidType, encode_one};
use ic_stable_structures::Memory;
use openstorage_types::{
    channel::{Event, Stamp, StatePage, StateRow, kind},
    limits::{EVENTS_PER_BATCH_MAX, STATE_PAGE_BYTES_MAX},
};
use serde::{Deserialize, Serialize};

use crate::Log;

/// Up to where a receiver has been told everything. `K` is the key of the state's rows.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Cursor<K> {
    /// The receiver's own place in what it was sent.
    pub at: Stamp,
    pub next: Next<K>,
}

/// What a receiver gets next.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum Next<K> {
    /// The whole state, from its beginning.
    Start,
    State(Telling<K>),
    /// The log after this place in it.
    Log(Stamp),
}

/// The state is being told.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Telling<K> {
    /// The last row that the receiver has; none before the first.
    after: Option<K>,
    /// Where the log goes on afterwards.
    log: Stamp,
    /// The page that was sent and not answered. It is sent again over the same rows and under the same
    /// version, or a receiver that has it would not know it again.
    page: Option<Page<K>>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
struct Page<K> {
    /// Its last row; none for the last page.
    until: Option<K>,
    version: u64,
}

/// A batch on its way, and where its receiver stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending<K> {
    pub from_stamp: Stamp,
    /// May be taken out: for the answer only their versions are needed.
    pub events: Vec<Event>,
    versions: Vec<u64>,
    cursor: Cursor<K>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The receiver has taken some of it, or there was nothing to take.
    Taken,
    /// The receiver took nothing, or stands elsewhere: send again, but not at once.
    Refused,
}

impl<K> Default for Cursor<K> {
    fn default() -> Self {
        Self {
            at: Stamp::default(),
            next: Next::Start,
        }
    }
}

impl<K: Clone + Ord> Cursor<K> {
    /// Whether there is something to tell.
    pub fn has_news<M: Memory>(&self, log: &Log<M>) -> bool {
        !matches!(&self.next, Next::Log(place) if *place == log.last())
    }

    /// The place in the log from which this receiver needs it; none where it has to get the state first.
    pub fn needs(&self) -> Option<Stamp> {
        match &self.next {
            Next::Start => None,
            Next::State(telling) => Some(telling.log),
            Next::Log(place) => Some(*place),
        }
    }

    /// Whether the receiver has the whole state.
    pub fn is_in_log(&self) -> bool {
        matches!(self.next, Next::Log(_))
    }

    /// The log is not kept for this receiver any more: it gets the state.
    pub fn start_over(&mut self) {
        self.next = Next::Start;
    }

    /// The sender may have been restored from a snapshot ([`Watch`](crate::Watch)): a page may have been
    /// sent again since with rows that are forgotten now, so it is not taken for the one on record.
    pub fn doubt(&mut self) {
        if matches!(self.next, Next::State(_)) {
            self.next = Next::Start;
        }
    }

    /// The next batch; without events when the receiver knows everything. `version` is the sender's own, `max` how many
    /// events of the log it may hold.
    /// `knows` says which kinds the receiver understands; an event of another kind is sent as nothing.
    /// `rows` gives the state's rows in key order, from the first after a key.
    pub fn next_batch<M: Memory, R: Iterator<Item = (K, StateRow)>>(
        &mut self,
        log: &Log<M>,
        version: u64,
        max: usize,
        knows: impl Fn(u16) -> bool,
        rows: impl Fn(Option<&K>) -> R,
    ) -> Sending<K> {
        if let Next::Log(place) = &self.next
            && !log.knows(*place)
        {
            self.next = Next::Start;
        }
        if matches!(self.next, Next::Start) {
            self.next = Next::State(Telling {
                after: None,
                log: log.last(),
                page: None,
            });
        }
        let mut events = match &mut self.next {
            Next::State(telling) => vec![telling.next_page(version, rows)],
            Next::Log(place) => log
                .batch_after(*place, max)
                .map_or_else(|_| vec![], |b| b.events),
            Next::Start => unreachable!("it was replaced above"),
        };
        for event in &mut events {
            if !knows(event.kind) {
                event.kind = kind::NOTHING;
                event.bytes.clear();
            }
        }
        Sending {
            from_stamp: self.at,
            versions: events.iter().map(|event| event.version).collect(),
            events,
            cursor: self.clone(),
        }
    }

    /// Moves to where the receiver says it stands.
    pub fn answered(&mut self, sending: &Sending<K>, answer: Stamp) -> Sent {
        if *self != sending.cursor {
            return Sent::Refused;
        }
        let from = sending.from_stamp;
        self.at = answer;
        if answer == from {
            return if sending.versions.is_empty() {
                Sent::Taken
            } else {
                Sent::Refused
            };
        }
        let taken = answer.seq.checked_sub(from.seq);
        let last = taken
            .and_then(|taken| usize::try_from(taken.checked_sub(1)?).ok())
            .and_then(|last| sending.versions.get(last));
        if last.is_none_or(|version| *version != answer.version) {
            self.next = Next::Start;
            return Sent::Refused;
        }
        self.next = match &sending.cursor.next {
            Next::State(telling) => telling.page_taken(),
            Next::Log(place) => Next::Log(Stamp {
                seq: place.seq + (answer.seq - from.seq),
                version: answer.version,
            }),
            Next::Start => Next::Start,
        };
        Sent::Taken
    }
}

impl<K: Clone + Ord> Telling<K> {
    fn next_page<R: Iterator<Item = (K, StateRow)>>(
        &mut self,
        version: u64,
        rows: impl Fn(Option<&K>) -> R,
    ) -> Event {
        let after = self.after.as_ref();
        let again = self.page.take().map(|page| {
            let filled = Filled::new(rows(after), page.until.as_ref());
            (filled, page)
        });
        // So many rows may have come between that they fit no page any more: then it is another page.
        let (filled, page) = again
            .filter(|(filled, _)| filled.is_all)
            .unwrap_or_else(|| {
                let filled = Filled::new(rows(after), None);
                let until = filled.last.clone().filter(|_| !filled.is_all);
                (filled, Page { until, version })
            });
        let event = StatePage {
            first: after.is_none(),
            rows: filled.rows,
            last: page.until.is_none(),
        };
        let version = page.version;
        self.page = Some(page);
        Event {
            version,
            kind: kind::STATE_PAGE,
            bytes: encode_one(event).expect("a page has a Candid form").into(),
        }
    }

    /// What comes after the page that was sent.
    fn page_taken(&self) -> Next<K> {
        match self.page.as_ref().and_then(|page| page.until.clone()) {
            None => Next::Log(self.log),
            Some(until) => Next::State(Self {
                after: Some(until),
                log: self.log,
                page: None,
            }),
        }
    }
}

/// As many rows as fit a page.
struct Filled<K> {
    rows: Vec<StateRow>,
    last: Option<K>,
    /// No row was left out.
    is_all: bool,
}

impl<K: Clone + Ord> Filled<K> {
    fn new(rows: impl Iterator<Item = (K, StateRow)>, until: Option<&K>) -> Self {
        let mut filled = Self {
            rows: vec![],
            last: None,
            is_all: true,
        };
        let mut bytes = 0;
        for (key, row) in rows.take_while(|(key, _)| until.is_none_or(|until| key <= until)) {
            // Kind and length come on top.
            bytes += row.bytes.len() + 8 + kind::weight(row.kind);
            let is_full = bytes > STATE_PAGE_BYTES_MAX && !filled.rows.is_empty();
            if filled.rows.len() == EVENTS_PER_BATCH_MAX || is_full {
                filled.is_all = false;
                break;
            }
            filled.rows.push(row);
            filled.last = Some(key);
        }
        filled
    }
}

//! Whatever happens to the messages and to either side, the receiver applies every event once and in
//! order, and ends with what the sender has.

use std::collections::BTreeMap;

use candid::decode_one;
use ic_stable_structures::VectorMemory;
use openstorage_channel::{Cursor, Log, Sending, UnknownStamp, unseen};
use openstorage_types::{
    channel::{Event, Stamp, StatePage, StateRow, kind},
    limits::{EVENT_BATCH_BYTES_MAX, EVENT_BYTES_MAX, EVENTS_PER_BATCH_MAX, STATE_PAGE_BYTES_MAX},
};
use proptest::prelude::*;

const SET: u16 = 7;

/// Keys and the number of the event that set them last.
type Map = BTreeMap<u8, u64>;

/// The sender's stable memory, and its heap.
#[derive(Default)]
struct Sender {
    log: (VectorMemory, VectorMemory),
    map: Map,
    cursor: Cursor<u8>,
}

#[derive(Debug, Clone, Default)]
struct Receiver {
    stamp: Stamp,
    map: Map,
    /// Events out of the log, in the order in which they were applied.
    applied: Vec<u64>,
}

fn copy(memory: &VectorMemory) -> VectorMemory {
    let bytes = memory.borrow().clone();
    std::rc::Rc::new(std::cell::RefCell::new(bytes))
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        Self {
            log: (copy(&self.log.0), copy(&self.log.1)),
            map: self.map.clone(),
            cursor: self.cursor.clone(),
        }
    }
}

/// What a batch that was sent may still do: its answer is awaited, or it is only a copy on the way.
type Flying = Sending<u8>;

#[derive(Clone, Default)]
struct World {
    sender: Sender,
    receiver: Receiver,
    /// The one call under way; its answer, once it was executed.
    call: Option<(Flying, Option<Stamp>)>,
    /// A batch whose call is over for the sender, and that may still arrive.
    late: Option<Flying>,
    /// Never rolls back.
    version: u64,
    events: u64,
    snapshots: (Option<Sender>, Option<Receiver>),
    sender_restored: bool,
    receiver_restored: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Set(u8),
    Unset(u8),
    Send,
    /// The call arrives.
    Execute,
    /// The sender gets the answer.
    Answer,
    /// The sender gets none. Whether the call was or will be executed nobody tells.
    Lose,
    /// A batch that was given up arrives after all, or again.
    Late,
    Compact,
    /// The sender stops waiting for answers, and keeps what is in stable memory.
    UpgradeSender,
    SnapshotSender,
    RestoreSender,
    SnapshotReceiver,
    RestoreReceiver,
}

impl World {
    fn log(&self) -> Log<VectorMemory> {
        Log::init(self.sender.log.0.clone(), self.sender.log.1.clone())
    }

    fn set(&mut self, key: u8) {
        self.events += 1;
        let event = [&[key][..], &self.events.to_le_bytes()].concat();
        self.log().append(self.version, SET, event);
        self.sender.map.insert(key, self.events);
    }

    fn send(&mut self) -> Flying {
        let log = self.log();
        let map = &self.sender.map;
        self.sender.cursor.next_batch(
            &log,
            self.version,
            1_000,
            |_| true,
            |after| {
                let after = after.copied();
                map.iter()
                    .filter(move |(key, _)| after.is_none_or(|after| **key > after))
                    .map(|(key, number)| (*key, row(*key, *number)))
            },
        )
    }

    fn execute(&mut self, flying: &Flying) -> Stamp {
        let receiver = &mut self.receiver;
        let new = unseen(receiver.stamp, flying.from_stamp, &flying.events);
        for event in new.events {
            match event.kind {
                kind::STATE_PAGE => {
                    let page: StatePage = decode_one(&event.bytes).unwrap();
                    for row in page.rows {
                        let (key, number) = read(&row.bytes);
                        receiver.map.insert(key, number);
                    }
                }
                _ => {
                    let (key, number) = read(&event.bytes);
                    receiver.map.insert(key, number);
                    receiver.applied.push(number);
                }
            }
        }
        receiver.stamp = new.stamp;
        receiver.stamp
    }

    fn take(&mut self, step: Step) {
        // One message, or one change by an operator.
        self.version += 1;
        match step {
            Step::Set(key) => self.set(key),
            Step::Unset(key) => {
                self.sender.map.remove(&key);
            }
            Step::Send => {
                if self.call.is_none() {
                    self.call = Some((self.send(), None));
                }
            }
            Step::Execute => {
                if let Some((flying, None)) = self.call.clone() {
                    let stamp = self.execute(&flying);
                    self.call = Some((flying, Some(stamp)));
                }
            }
            Step::Answer => {
                if let Some((flying, Some(stamp))) = self.call.take() {
                    self.sender.cursor.answered(&flying, stamp);
                }
            }
            Step::Lose | Step::UpgradeSender => {
                if let Some((flying, _)) = self.call.take() {
                    self.late = Some(flying);
                }
            }
            Step::Late => {
                if let Some(flying) = self.late.clone() {
                    self.execute(&flying);
                }
            }
            Step::Compact => {
                if let Some(needed) = self.sender.cursor.needs() {
                    self.log().drop_until(needed, 1_000);
                }
            }
            Step::SnapshotSender => self.snapshots.0 = Some(self.sender.clone()),
            Step::RestoreSender => {
                if let Some(sender) = self.snapshots.0.clone() {
                    self.sender = sender;
                    self.sender.cursor.doubt();
                    self.call = None;
                    self.sender_restored = true;
                }
            }
            Step::SnapshotReceiver => self.snapshots.1 = Some(self.receiver.clone()),
            Step::RestoreReceiver => {
                if let Some(receiver) = self.snapshots.1.clone() {
                    self.receiver = receiver;
                    self.receiver_restored = true;
                }
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        let applied = &self.receiver.applied;
        if !applied.is_sorted_by(|a, b| a < b) {
            return Err(format!("applied twice or out of order: {applied:?}"));
        }
        Ok(())
    }

    /// When calls work again: the receiver has what the sender has. What only a restored sender has
    /// forgotten stays.
    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..20 {
            self.take(Step::Lose);
            self.late = None;
            for step in [Step::Send, Step::Execute, Step::Answer] {
                self.take(step);
                self.check()?;
            }
        }
        let log = self.log();
        if self.sender.cursor.has_news(&log) {
            return Err(format!("not settled: {:?}", self.sender.cursor));
        }
        let receiver = &self.receiver.map;
        let missing: Vec<_> = self
            .sender
            .map
            .iter()
            .filter(|(key, number)| receiver.get(key) != Some(number))
            .collect();
        if !missing.is_empty() {
            return Err(format!("{missing:?} is not in {receiver:?}"));
        }
        if !self.sender_restored && !self.receiver_restored {
            let applied = &self.receiver.applied;
            if applied.windows(2).any(|pair| pair[0] + 1 != pair[1]) {
                return Err(format!("a gap in {:?}", self.receiver.applied));
            }
        }
        Ok(())
    }
}

fn row(key: u8, number: u64) -> StateRow {
    StateRow {
        kind: SET,
        bytes: [&[key][..], &number.to_le_bytes()].concat().into(),
    }
}

fn read(bytes: &[u8]) -> (u8, u64) {
    (bytes[0], u64::from_le_bytes(bytes[1..].try_into().unwrap()))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4u8).prop_map(Step::Set),
        1 => (0..4u8).prop_map(Step::Unset),
        8 => Just(Step::Send),
        8 => Just(Step::Execute),
        8 => Just(Step::Answer),
        2 => Just(Step::Lose),
        2 => Just(Step::Late),
        2 => Just(Step::Compact),
        1 => Just(Step::UpgradeSender),
        1 => Just(Step::SnapshotSender),
        1 => Just(Step::RestoreSender),
        1 => Just(Step::SnapshotReceiver),
        1 => Just(Step::RestoreReceiver),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn every_event_is_applied_once_and_in_order(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::default();
        for step in steps {
            world.take(step);
            world.check().map_err(TestCaseError::fail)?;
        }
        world.settle().map_err(TestCaseError::fail)?;
    }
}

/// Takes every sequence of `depth` of the steps.
fn every_sequence(world: &World, steps: &[Step], depth: usize, path: &mut Vec<Step>) -> usize {
    let mut settled = world.clone();
    if let Err(problem) = settled.settle() {
        panic!("after {path:?}: {problem}");
    }
    if depth == 0 {
        return 1;
    }
    let mut count = 0;
    for step in steps {
        let mut next = world.clone();
        next.take(*step);
        path.push(*step);
        if let Err(problem) = next.check() {
            panic!("after {path:?}: {problem}");
        }
        count += every_sequence(&next, steps, depth - 1, path);
        path.pop();
    }
    count
}

/// A receiver that stands in the middle of the log, and one that is being told the state.
fn beginnings() -> [World; 2] {
    let mut fresh = World::default();
    for step in [
        Step::Set(1),
        Step::Set(2),
        Step::SnapshotSender,
        Step::SnapshotReceiver,
        Step::Set(3),
    ] {
        fresh.take(step);
    }
    let mut standing = fresh.clone();
    for step in [
        Step::Send,
        Step::Execute,
        Step::Answer,
        Step::Set(1),
        Step::Send,
    ] {
        standing.take(step);
    }
    [fresh, standing]
}

/// A page of the state that was sent, changed, and sent again in a history that a restored sender has
/// forgotten was taken for the one on its record.
#[test]
fn a_page_of_a_forgotten_history_is_not_taken_for_another() {
    use Step::*;
    let mut world = World::default();
    for step in [
        Set(1),
        Send,
        SnapshotSender,
        UpgradeSender,
        Set(1),
        Send,
        Execute,
        RestoreSender,
    ] {
        world.take(step);
    }
    world.settle().unwrap();
}

fn depth() -> usize {
    if std::env::var_os("OPENSTORAGE_FULL").is_some() {
        6
    } else {
        4
    }
}

#[test]
fn every_short_interleaving_of_lost_late_and_repeated_calls_ends_well() {
    let steps = [
        Step::Set(2),
        Step::Unset(2),
        Step::Send,
        Step::Execute,
        Step::Answer,
        Step::Lose,
        Step::Late,
        Step::Compact,
    ];
    for world in beginnings() {
        let count = every_sequence(&world, &steps, depth(), &mut vec![]);
        assert_eq!(count, steps.len().pow(depth() as u32));
    }
}

#[test]
fn every_short_interleaving_with_restored_snapshots_ends_well() {
    let steps = [
        Step::Set(2),
        Step::Send,
        Step::Execute,
        Step::Answer,
        Step::Lose,
        Step::Late,
        Step::SnapshotSender,
        Step::RestoreSender,
        Step::SnapshotReceiver,
        Step::RestoreReceiver,
    ];
    for world in beginnings() {
        every_sequence(&world, &steps, depth(), &mut vec![]);
    }
}

fn log() -> Log<VectorMemory> {
    Log::init(VectorMemory::default(), VectorMemory::default())
}

#[test]
fn a_stream_that_was_rolled_back_is_noticed() {
    let mut log = log();
    let stamp = log.append(5, 1, vec![]);
    let after_restore = Stamp {
        version: 9,
        ..stamp
    };
    assert!(log.knows(stamp) && !log.knows(after_restore));
    assert_eq!(log.batch_after(after_restore, 1_000), Err(UnknownStamp));
    assert_eq!(
        log.batch_after(Stamp { seq: 2, version: 5 }, 1_000),
        Err(UnknownStamp)
    );
    // The receiver of another history takes nothing and says where it stands.
    let batch = log.batch_after(Stamp::default(), 1_000).unwrap();
    let new = unseen(after_restore, batch.from_stamp, &batch.events);
    assert_eq!((new.events.len(), new.stamp), (0, after_restore));
}

#[test]
fn a_batch_is_bounded_in_events_and_bytes() {
    let mut many = log();
    for _ in 0..EVENTS_PER_BATCH_MAX + 1 {
        many.append(1, 1, vec![0]);
    }
    assert_eq!(
        many.batch_after(Stamp::default(), usize::MAX)
            .unwrap()
            .events
            .len(),
        EVENTS_PER_BATCH_MAX
    );

    let mut large = log();
    for _ in 0..300 {
        large.append(1, 1, vec![0; EVENT_BYTES_MAX]);
    }
    let batch = large.batch_after(Stamp::default(), usize::MAX).unwrap();
    assert_eq!(batch.events.len(), EVENT_BATCH_BYTES_MAX / EVENT_BYTES_MAX);
}

/// Sends until the receiver has the whole state; the pages and their sizes.
fn told(rows: &BTreeMap<u32, StateRow>) -> Vec<(StatePage, usize)> {
    let log = log();
    let (mut cursor, mut own, mut pages) = (Cursor::default(), Stamp::default(), vec![]);
    for version in 1.. {
        let sending = cursor.next_batch(
            &log,
            version,
            1_000,
            |_| true,
            |after: Option<&u32>| {
                let from = after.map_or(0, |after| after + 1);
                rows.range(from..).map(|(key, row)| (*key, row.clone()))
            },
        );
        let Some(Event { bytes, .. }) = sending.events.first() else {
            break;
        };
        pages.push((decode_one(bytes).unwrap(), bytes.len()));
        own = unseen(own, sending.from_stamp, &sending.events).stamp;
        cursor.answered(&sending, own);
    }
    pages
}

#[test]
fn a_state_is_told_in_bounded_pages_with_a_beginning_and_an_end() {
    let nothing = told(&BTreeMap::new());
    assert_eq!(nothing.len(), 1);
    assert!(nothing[0].0.first && nothing[0].0.last && nothing[0].0.rows.is_empty());
    for (count, bytes) in [
        (2 * EVENTS_PER_BATCH_MAX as u32 + 5, 1),
        (700, EVENT_BYTES_MAX),
    ] {
        let row = |_| StateRow {
            kind: SET,
            bytes: vec![0; bytes].into(),
        };
        let rows = (0..count).map(|key| (key, row(key))).collect();
        let pages = told(&rows);
        let total: usize = pages.iter().map(|(page, _)| page.rows.len()).sum();
        assert_eq!(total, count as usize);
        for (i, (page, bytes)) in pages.iter().enumerate() {
            assert!(page.rows.len() <= EVENTS_PER_BATCH_MAX);
            assert!(*bytes <= EVENT_BATCH_BYTES_MAX);
            assert_eq!((page.first, page.last), (i == 0, i + 1 == pages.len()));
        }
        assert!(
            pages.len()
                <= 2 + count as usize * (bytes + 8)
                    / STATE_PAGE_BYTES_MAX.min(EVENTS_PER_BATCH_MAX * (bytes + 8))
        );
    }
}

#[test]
fn a_kind_that_the_receiver_does_not_know_is_sent_as_nothing() {
    let mut log = log();
    let mut cursor: Cursor<u8> = Cursor::default();
    let state = cursor.next_batch(&log, 1, 1_000, |_| true, |_| std::iter::empty());
    let own = unseen(Stamp::default(), state.from_stamp, &state.events).stamp;
    cursor.answered(&state, own);
    log.append(2, SET, b"old".to_vec());
    log.append(2, SET + 1, b"new".to_vec());
    let sending = cursor.next_batch(&log, 3, 1_000, |kind| kind <= SET, |_| std::iter::empty());
    assert_eq!(&sending.events[0].bytes[..], b"old");
    assert_eq!(
        (sending.events[1].kind, sending.events[1].bytes.len()),
        (kind::NOTHING, 0)
    );
    let own = unseen(own, sending.from_stamp, &sending.events).stamp;
    cursor.answered(&sending, own);
    assert!(!cursor.has_news(&log));
}

/// Three events, of which the first is dropped.
fn sample(events: &VectorMemory, ends: &VectorMemory) -> Log<VectorMemory> {
    let mut log = Log::init(events.clone(), ends.clone());
    for version in 1..=3 {
        log.append(version * 10, 4, vec![version as u8; 5]);
    }
    log.drop_until(
        Stamp {
            seq: 1,
            version: 10,
        },
        1_000,
    );
    log
}

#[test]
fn a_log_is_found_again_in_its_memories() {
    let (events, ends) = (VectorMemory::default(), VectorMemory::default());
    let log = sample(&events, &ends);
    let place = Stamp {
        seq: 1,
        version: 10,
    };
    let batch = log.batch_after(place, 1_000).unwrap();
    let again = Log::init(events, ends);
    assert_eq!(again.batch_after(place, 1_000), Ok(batch));
    assert_eq!(
        (again.len(), again.last()),
        (
            2,
            Stamp {
                seq: 3,
                version: 30
            }
        )
    );
}

/// Memories that an earlier version wrote are read as they were meant, and written the same. A change of
/// the layout needs a new version, and new files beside the old ones.
#[test]
fn the_layout_is_that_of_the_golden_files() {
    let golden = |name: &str| {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name)
    };
    let trimmed = |memory: &VectorMemory| {
        let bytes = memory.borrow();
        let len = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        bytes[..len].to_vec()
    };
    let (events, ends) = (VectorMemory::default(), VectorMemory::default());
    sample(&events, &ends);
    let mut read = vec![];
    for (memory, name) in [(&events, "log_v1.events.bin"), (&ends, "log_v1.ends.bin")] {
        if std::env::var_os("OPENSTORAGE_WRITE_GOLDEN").is_some() {
            std::fs::write(golden(name), trimmed(memory)).unwrap();
        }
        let mut bytes = std::fs::read(golden(name)).unwrap();
        assert!(bytes == trimmed(memory), "{name} is another");
        bytes.resize(bytes.len().next_multiple_of(65_536), 0);
        read.push(std::rc::Rc::new(std::cell::RefCell::new(bytes)));
    }
    let log: Log<VectorMemory> = Log::init(read[0].clone(), read[1].clone());
    let events = log
        .batch_after(
            Stamp {
                seq: 1,
                version: 10,
            },
            1_000,
        )
        .unwrap()
        .events;
    assert_eq!(events.len(), 2);
    assert_eq!(
        (events[1].version, events[1].kind, &events[1].bytes[..]),
        (30, 4, &[3; 5][..])
    );
}

#[test]
#[should_panic = "another's"]
fn a_layout_of_a_later_version_is_refused() {
    let (events, ends) = (VectorMemory::default(), VectorMemory::default());
    sample(&events, &ends);
    let at = ends
        .borrow()
        .windows(4)
        .position(|bytes| bytes == b"OCL\x01")
        .unwrap();
    ends.borrow_mut()[at + 3] = 2;
    Log::<VectorMemory>::init(events, ends);
}

/// What cannot be told is told as nothing, so that what follows arrives.
#[test]
fn a_blank_event_keeps_its_place() {
    let mut log = log();
    for (version, text) in [(1, "one"), (2, "two"), (3, "three")] {
        log.append(version, SET, text.into());
    }
    let said = log.blank(2).expect("it is there");
    assert_eq!((said.kind, &said.bytes[..]), (SET, &b"two"[..]));
    assert_eq!(log.blank(9), None);
    let batch = log.batch_after(Stamp::default(), 2).unwrap();
    let kinds: Vec<_> = batch.events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [SET, kind::NOTHING]);
    assert_eq!(
        (batch.events[1].version, batch.events[1].bytes.len()),
        (2, 0)
    );
}

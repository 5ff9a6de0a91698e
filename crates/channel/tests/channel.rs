//! Whatever happens to the messages, the receiver applies every event once and in order.

use ic_stable_structures::VectorMemory;
use openstorage_channel::{Batch, Log, UnknownStamp, unseen};
use openstorage_types::{
    channel::Stamp,
    limits::{EVENT_BATCH_BYTES_MAX, EVENT_BYTES_MAX, EVENTS_PER_BATCH_MAX},
};
use proptest::prelude::*;

fn log() -> Log<VectorMemory> {
    Log::init(VectorMemory::default(), VectorMemory::default())
}

/// One receiver and what the sender believes of it.
#[derive(Default)]
struct Receiver {
    stamp: Stamp,
    applied: Vec<Vec<u8>>,
    /// The sender's cursor for it.
    cursor: Stamp,
    /// Batches on their way that may arrive late or again.
    wire: Vec<Batch>,
}

impl Receiver {
    fn deliver(&mut self, batch: &Batch) -> Stamp {
        let new = unseen(self.stamp, batch.from_stamp, &batch.events);
        self.applied
            .extend(new.events.iter().map(|event| event.bytes.to_vec()));
        self.stamp = new.stamp;
        self.stamp
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append,
    /// The batch is on the wire; nothing has arrived yet.
    Send(usize),
    /// A batch on the wire arrives and stays there, to arrive again; the answer arrives or is lost.
    Arrive {
        receiver: usize,
        which: usize,
        answered: bool,
    },
    Drop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Append),
        3 => (0..3usize).prop_map(Step::Send),
        4 => (0..3usize, any::<usize>(), any::<bool>())
            .prop_map(|(receiver, which, answered)| Step::Arrive { receiver, which, answered }),
        1 => Just(Step::Drop),
    ]
}

proptest! {
    #[test]
    fn every_event_is_applied_once_and_in_order(steps in prop::collection::vec(step(), 0..200)) {
        let mut log = log();
        let mut receivers: [Receiver; 3] = Default::default();
        let mut sent = vec![];
        for (version, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append => {
                    let bytes = sent.len().to_string().into_bytes();
                    log.append(version as u64, 1, bytes.clone());
                    sent.push(bytes);
                }
                Step::Send(i) => {
                    let batch = log.batch_after(receivers[i].cursor).unwrap();
                    receivers[i].wire.push(batch);
                }
                Step::Arrive { receiver, which, answered } => {
                    let receiver = &mut receivers[receiver];
                    if !receiver.wire.is_empty() {
                        let batch = receiver.wire[which % receiver.wire.len()].clone();
                        let stamp = receiver.deliver(&batch);
                        if answered && log.knows(stamp) {
                            receiver.cursor = stamp;
                        }
                    }
                }
                Step::Drop => {
                    let oldest = receivers.iter().map(|receiver| receiver.cursor).min().unwrap();
                    log.drop_until(oldest);
                }
            }
            for receiver in &receivers {
                prop_assert_eq!(&receiver.applied[..], &sent[..receiver.applied.len()]);
            }
        }
        // When calls work again, everybody gets everything.
        for receiver in &mut receivers {
            while receiver.cursor != log.last() {
                let batch = log.batch_after(receiver.cursor).unwrap();
                receiver.cursor = receiver.deliver(&batch);
            }
            prop_assert_eq!(&receiver.applied, &sent);
        }
        log.drop_until(log.last());
        prop_assert!(log.is_empty());
    }
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
    assert_eq!(log.batch_after(after_restore), Err(UnknownStamp));
    assert_eq!(
        log.batch_after(Stamp { seq: 2, version: 5 }),
        Err(UnknownStamp)
    );
    // The receiver of another history takes nothing and says where it stands.
    let batch = log.batch_after(Stamp::default()).unwrap();
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
        many.batch_after(Stamp::default()).unwrap().events.len(),
        EVENTS_PER_BATCH_MAX
    );

    let mut large = log();
    for _ in 0..300 {
        large.append(1, 1, vec![0; EVENT_BYTES_MAX]);
    }
    let batch = large.batch_after(Stamp::default()).unwrap();
    assert_eq!(batch.events.len(), EVENT_BATCH_BYTES_MAX / EVENT_BYTES_MAX);
}

#[test]
fn a_log_is_found_again_in_its_memories() {
    let (events, ends) = (VectorMemory::default(), VectorMemory::default());
    let mut log = Log::init(events.clone(), ends.clone());
    for version in 1..=3 {
        log.append(version, 4, vec![version as u8]);
    }
    log.drop_until(Stamp { seq: 1, version: 1 });
    let batch = log.batch_after(Stamp { seq: 1, version: 1 }).unwrap();
    let again = Log::init(events, ends);
    assert_eq!(again.batch_after(Stamp { seq: 1, version: 1 }), Ok(batch));
    assert_eq!(
        (again.len(), again.last()),
        (2, Stamp { seq: 3, version: 3 })
    );
}

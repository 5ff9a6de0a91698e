//! What became of messages from outside.
//!
//! A message stays known while it may be sent again and for five minutes after its answer, so that a
//! copy of it is answered and not executed. Messages that came without an expiry (nobody can send those
//! again) stay until room is needed.

use std::collections::{BTreeMap, BTreeSet};

use candid::Principal;
use pocket_ic::ErrorCode;
use serde::{Deserialize, Serialize};

use super::{MessageId, Reject};

/// How long an answer stays known, in the network's time, as on the Internet Computer.
const KEPT_NS: u64 = 300_000_000_000;
/// Answers kept altogether; the oldest go first.
const KEPT_BYTES_MAX: usize = 1 << 30;
/// What an entry takes besides its answer, about.
const ENTRY_BYTES: usize = 256;
/// Messages that wait to be executed, and their bytes, altogether; more are not taken.
const WAITING_MAX: u64 = 100_000;
const WAITING_BYTES_MAX: u64 = 1 << 30;

/// Where a message stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Received,
    Processing,
    Answered(Result<Vec<u8>, Reject>),
    /// It was answered; the answer went to make room.
    Done,
}

/// A message from outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    pub sender: Principal,
    /// The canister that was called, or the management canister.
    pub canister: Principal,
    /// The subnet that took it.
    pub subnet: Principal,
    pub status: Status,
    /// The last moment at which the message may be sent; none for one that cannot be sent again.
    pub expiry_ns: Option<u64>,
    /// Whether the certified state has it.
    #[serde(skip)]
    sealed: bool,
    /// Its place in the order of answers; 0 until it is answered.
    order: u64,
    /// Of its method and argument.
    bytes: u64,
}

/// Messages by their ids.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct History {
    entries: BTreeMap<MessageId, Entry>,
    /// Those whose answer is kept, in the order in which they were answered.
    answered: BTreeMap<u64, MessageId>,
    answered_bytes: usize,
    /// Messages that nobody began to execute, and their bytes.
    waiting: u64,
    waiting_bytes: u64,
    last_order: u64,
    /// When which message is forgotten.
    forgotten_ns: BTreeSet<(u64, MessageId)>,
    /// What the certified state does not know yet.
    #[serde(skip)]
    changed: BTreeSet<MessageId>,
}

impl History {
    pub fn get(&self, id: &MessageId) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// The certified state is a new one: it knows nothing.
    pub(super) fn forget_certified(&mut self) {
        self.changed = self.entries.keys().copied().collect();
        for entry in self.entries.values_mut() {
            entry.sealed = false;
        }
    }

    /// Whether there is room for one more message of so many bytes.
    pub(super) fn check_room(&self, bytes: u64) -> Result<(), Reject> {
        let full = self.waiting >= WAITING_MAX
            || self.waiting_bytes.saturating_add(bytes) > WAITING_BYTES_MAX;
        if full {
            let (count, waiting_bytes) = (self.waiting, self.waiting_bytes);
            return Err(Reject::new(
                ErrorCode::IngressHistoryFull,
                format!(
                    "{count} messages of {waiting_bytes} bytes wait to be executed; at most {WAITING_MAX} of {WAITING_BYTES_MAX} bytes may"
                ),
            ));
        }
        Ok(())
    }

    /// A message that is not known yet, of so many bytes.
    pub(super) fn receive(
        &mut self,
        id: MessageId,
        sender: Principal,
        canister: Principal,
        subnet: Principal,
        expiry_ns: Option<u64>,
        bytes: u64,
    ) {
        self.waiting += 1;
        self.waiting_bytes += bytes;
        let entry = Entry {
            sender,
            canister,
            subnet,
            status: Status::Received,
            expiry_ns,
            sealed: false,
            order: 0,
            bytes,
        };
        self.entries.insert(id, entry);
        self.changed.insert(id);
    }

    /// The message is being executed.
    pub(super) fn begin(&mut self, id: &MessageId) {
        if let Some(entry) = self.entries.get_mut(id)
            && entry.status == Status::Received
        {
            self.waiting -= 1;
            self.waiting_bytes -= entry.bytes;
            entry.status = Status::Processing;
            self.changed.insert(*id);
        }
    }

    pub(super) fn answer(&mut self, id: MessageId, result: Result<Vec<u8>, Reject>, now_ns: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.status == Status::Received {
            self.waiting -= 1;
            self.waiting_bytes -= entry.bytes;
        }
        self.answered_bytes += bytes(&result);
        entry.status = Status::Answered(result);
        self.last_order += 1;
        entry.order = self.last_order;
        self.answered.insert(entry.order, id);
        if let Some(expiry_ns) = entry.expiry_ns {
            let forgotten_ns = expiry_ns.max(now_ns.saturating_add(KEPT_NS));
            self.forgotten_ns.insert((forgotten_ns, id));
        }
        self.changed.insert(id);
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.answered_bytes > KEPT_BYTES_MAX {
            let Some((_, id)) = self.answered.pop_first() else {
                return;
            };
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            if let Status::Answered(result) = std::mem::replace(&mut entry.status, Status::Done) {
                self.answered_bytes -= bytes(&result);
            }
            self.changed.insert(id);
            if entry.expiry_ns.is_none() {
                self.remove(&id);
            }
        }
    }

    /// Forgets what was answered long ago.
    pub(super) fn forget(&mut self, now_ns: u64) {
        while let Some((forgotten_ns, id)) = self.forgotten_ns.first().copied()
            && forgotten_ns < now_ns
        {
            self.forgotten_ns.pop_first();
            self.remove(&id);
        }
    }

    fn remove(&mut self, id: &MessageId) {
        let Some(entry) = self.entries.remove(id) else {
            return;
        };
        if let Status::Answered(result) = &entry.status {
            self.answered_bytes -= bytes(result);
            self.answered.remove(&entry.order);
        }
        if entry.sealed {
            self.changed.insert(*id);
        } else {
            self.changed.remove(id);
        }
    }

    /// Messages that changed since this was asked last; without an entry, if they were forgotten.
    pub(super) fn take_changed(&mut self) -> Vec<(MessageId, Option<&Entry>)> {
        let changed = std::mem::take(&mut self.changed);
        for id in &changed {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.sealed = true;
            }
        }
        changed
            .into_iter()
            .map(|id| (id, self.entries.get(&id)))
            .collect()
    }
}

fn bytes(result: &Result<Vec<u8>, Reject>) -> usize {
    let answer = match result {
        Ok(reply) => reply.len(),
        Err(reject) => reject.message.len(),
    };
    answer + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANYBODY: Principal = Principal::anonymous();

    fn receive(history: &mut History, id: u8, expiry_ns: Option<u64>) {
        history.receive([id; 32], ANYBODY, ANYBODY, ANYBODY, expiry_ns, 1);
    }

    #[test]
    fn an_answer_is_forgotten_when_its_message_cannot_come_again() {
        let mut history = History::default();
        receive(&mut history, 1, Some(10));
        receive(&mut history, 2, Some(2 * KEPT_NS));
        receive(&mut history, 3, None);
        for id in 1..=3 {
            history.answer([id; 32], Ok(vec![id]), 5);
        }
        history.forget(KEPT_NS + 5);
        assert!(history.get(&[1; 32]).is_some());
        history.forget(KEPT_NS + 6);
        assert!(history.get(&[1; 32]).is_none() && history.get(&[2; 32]).is_some());
        history.forget(u64::MAX);
        assert!(history.get(&[2; 32]).is_none() && history.get(&[3; 32]).is_some());
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_in_bytes() {
        let mut history = History::default();
        assert!(history.check_room(WAITING_BYTES_MAX).is_ok());
        assert!(history.check_room(WAITING_BYTES_MAX + 1).is_err());
        receive(&mut history, 1, None);
        let full = history.check_room(WAITING_BYTES_MAX).unwrap_err();
        assert_eq!(full.error_code, ErrorCode::IngressHistoryFull);
        history.begin(&[1; 32]);
        assert!(history.check_room(WAITING_BYTES_MAX).is_ok());
        history.answer([1; 32], Ok(vec![]), 0);
        assert_eq!((history.waiting, history.waiting_bytes), (0, 0));
        history.waiting = WAITING_MAX;
        assert!(history.check_room(0).is_err());
    }

    #[test]
    fn the_oldest_answers_make_room() {
        let mut history = History::default();
        for id in 1..=3 {
            receive(&mut history, id, (id == 1).then_some(1_000));
            history.answer([id; 32], Ok(vec![0; KEPT_BYTES_MAX / 2]), 0);
        }
        assert_eq!(history.get(&[1; 32]).unwrap().status, Status::Done);
        assert!(history.get(&[2; 32]).is_none());
        assert!(matches!(
            history.get(&[3; 32]).unwrap().status,
            Status::Answered(Ok(_))
        ));
        assert!(history.answered_bytes <= KEPT_BYTES_MAX);
        history.forget(u64::MAX);
        assert!(history.get(&[1; 32]).is_none());
        assert_eq!(history.answered.len(), 1);
    }

    #[test]
    fn the_certified_state_hears_of_every_change_once() {
        let mut history = History::default();
        receive(&mut history, 1, Some(0));
        receive(&mut history, 2, Some(0));
        let ids = |history: &mut History| {
            let changed = history.take_changed();
            changed
                .iter()
                .map(|(id, entry)| (id[0], entry.is_some()))
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&mut history), [(1, true), (2, true)]);
        receive(&mut history, 3, Some(0));
        for id in [1, 3] {
            history.answer([id; 32], Ok(vec![]), 0);
        }
        // Message 3 comes and goes before anybody looks.
        history.forget(u64::MAX);
        assert_eq!(ids(&mut history), [(1, false)]);
    }
}

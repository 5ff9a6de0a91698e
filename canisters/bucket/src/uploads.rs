//! Uploads under way, and why some are gone.

use candid::{CandidType, Principal};
use ic_stable_structures::StableBTreeMap;
use openstorage_types::{
    BlobId,
    bucket::GoneReason,
    limits::{GONE_KEPT_MS, HOUR_MS, POSSESSION_FAILURES_MAX, UPLOAD_IDLE_MS},
};
use serde::{Deserialize, Serialize};

use crate::{
    memory::{self, Memories, Memory},
    references::Named,
};
use openstorage_canister::Row;

/// Names an upload: user and blob.
type Key = (Principal, [u8; 32]);

const DAY_MS: u64 = 24 * HOUR_MS;

/// One user's upload of one blob.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub size: u64,
    /// Where the chunks go. None while the user only proves that it has a blob which is stored already.
    pub slot: Option<u64>,
    /// Chunks that the user has shown of a stored blob.
    pub shown: Vec<u32>,
    pub accessors: Vec<Named>,
    pub touched_ms: u64,
    /// All chunks are in; the hash is not known yet.
    pub verifying: bool,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    pub reason: GoneReason,
    pub size: u64,
    at_ms: u64,
}

/// Wrong chunks shown for a stored blob.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy)]
struct Failures {
    since_ms: u64,
    count: u32,
}

pub struct Uploads {
    sessions: StableBTreeMap<Key, Row<Session>, Memory>,
    gone: StableBTreeMap<Key, Row<Gone>, Memory>,
    failures: StableBTreeMap<Key, Row<Failures>, Memory>,
    /// When to look at an upload, a grave or a failure again. What is not due then is put back.
    due: StableBTreeMap<(u64, Principal, [u8; 32]), (), Memory>,
    /// Sessions whose hash goes on by timer.
    verifying: StableBTreeMap<Key, (), Memory>,
}

impl Uploads {
    pub fn open(memories: &Memories) -> Self {
        Self {
            sessions: StableBTreeMap::init(memories.get(memory::SESSIONS)),
            gone: StableBTreeMap::init(memories.get(memory::GONE)),
            failures: StableBTreeMap::init(memories.get(memory::FAILURES)),
            due: StableBTreeMap::init(memories.get(memory::DUE)),
            verifying: StableBTreeMap::init(memories.get(memory::VERIFYING)),
        }
    }

    pub fn count(&self) -> u64 {
        self.sessions.len()
    }

    pub fn get(&self, user: &Principal, blob: &BlobId) -> Option<Session> {
        self.sessions.get(&(*user, blob.0)).map(|row| row.0)
    }

    /// All of them: user, blob, session.
    pub fn all(&self) -> impl Iterator<Item = (Principal, BlobId, Session)> {
        self.sessions.iter().map(|entry| {
            let (user, blob) = *entry.key();
            (user, BlobId(blob), entry.value().0)
        })
    }

    /// Bytes of a user's uploads.
    pub fn bytes_of(&self, user: &Principal) -> u64 {
        let range = (*user, [0; 32])..=(*user, [u8::MAX; 32]);
        let entries = self.sessions.range(range);
        entries.map(|entry| entry.value().0.size).sum()
    }

    /// The first of a user's uploads.
    pub fn first_of(&self, user: &Principal) -> Option<(BlobId, Session)> {
        let range = (*user, [0; 32])..=(*user, [u8::MAX; 32]);
        let entry = self.sessions.range(range).next()?;
        Some((BlobId(entry.key().1), entry.value().0))
    }

    pub fn put(&mut self, user: &Principal, blob: &BlobId, session: Session) {
        let key = (*user, blob.0);
        if session.verifying {
            self.verifying.insert(key, ());
        }
        let due_ms = session.touched_ms + UPLOAD_IDLE_MS;
        if self.sessions.insert(key, Row(session)).is_none() {
            self.gone.remove(&key);
            self.due.insert((due_ms, *user, blob.0), ());
        }
    }

    pub fn remove(&mut self, user: &Principal, blob: &BlobId) -> Option<Session> {
        let key = (*user, blob.0);
        self.verifying.remove(&key);
        self.sessions.remove(&key).map(|row| row.0)
    }

    /// Some upload whose hash is not known yet.
    pub fn next_verifying(&self) -> Option<(Principal, BlobId)> {
        self.verifying
            .first_key_value()
            .map(|((user, blob), ())| (user, BlobId(blob)))
    }

    pub fn bury(
        &mut self,
        user: &Principal,
        blob: &BlobId,
        reason: GoneReason,
        size: u64,
        now_ms: u64,
    ) {
        let gone = Gone {
            reason,
            size,
            at_ms: now_ms,
        };
        self.gone.insert((*user, blob.0), Row(gone));
        self.due.insert((now_ms + GONE_KEPT_MS, *user, blob.0), ());
    }

    /// The upload was begun again and has come to an end: why it was gone before does not matter.
    pub fn forget(&mut self, user: &Principal, blob: &BlobId) {
        if !self.gone.is_empty() {
            self.gone.remove(&(*user, blob.0));
        }
    }

    pub fn gone(&self, user: &Principal, blob: &BlobId) -> Option<Gone> {
        self.gone.get(&(*user, blob.0)).map(|row| row.0)
    }

    /// Wrong chunks that the user may still show for this blob today.
    pub fn attempts_left(&self, user: &Principal, blob: &BlobId, now_ms: u64) -> u32 {
        let failures = self.failures.get(&(*user, blob.0)).map(|row| row.0);
        let recent = failures.filter(|failures| now_ms < failures.since_ms + DAY_MS);
        POSSESSION_FAILURES_MAX.saturating_sub(recent.map_or(0, |failures| failures.count))
    }

    pub fn failed(&mut self, user: &Principal, blob: &BlobId, now_ms: u64) {
        let key = (*user, blob.0);
        let recent = self
            .failures
            .get(&key)
            .map(|row| row.0)
            .filter(|failures| now_ms < failures.since_ms + DAY_MS);
        let failures = match recent {
            Some(Failures { since_ms, count }) => Failures {
                since_ms,
                count: count + 1,
            },
            None => {
                self.due.insert((now_ms + DAY_MS, *user, blob.0), ());
                Failures {
                    since_ms: now_ms,
                    count: 1,
                }
            }
        };
        self.failures.insert(key, Row(failures));
    }

    /// When the next upload, grave or failure is to be looked at.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.first_key_value().map(|((due_ms, ..), ())| due_ms)
    }

    /// Forgets what has lapsed, for at most `max` uploads. Returns the sessions that have been idle for
    /// too long: they are still there.
    pub fn lapse(&mut self, now_ms: u64, max: usize) -> Vec<(Principal, BlobId)> {
        let mut idle = vec![];
        for _ in 0..max {
            let Some((key @ (due_ms, user, id), ())) = self.due.first_key_value() else {
                break;
            };
            if due_ms > now_ms {
                break;
            }
            self.due.remove(&key);
            let blob = BlobId(id);
            if self
                .gone(&user, &blob)
                .is_some_and(|gone| gone.at_ms + GONE_KEPT_MS <= now_ms)
            {
                self.gone.remove(&(user, id));
            }
            let failures = self.failures.get(&(user, id)).map(|row| row.0);
            if failures.is_some_and(|failures| failures.since_ms + DAY_MS <= now_ms) {
                self.failures.remove(&(user, id));
            }
            if let Some(session) = self.get(&user, &blob) {
                let session_due_ms = session.touched_ms + UPLOAD_IDLE_MS;
                if session_due_ms > now_ms || session.verifying {
                    let again_ms = session_due_ms.max(now_ms + HOUR_MS);
                    self.due.insert((again_ms, user, id), ());
                } else {
                    idle.push((user, blob));
                }
            }
        }
        idle
    }
}

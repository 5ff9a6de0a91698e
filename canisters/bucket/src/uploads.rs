//! Uploads under way, and why some are gone.

use std::ops::RangeInclusive;

use candid::{CandidType, Principal};
use ic_stable_structures::StableBTreeMap;
use openstorage_types::{
    BlobId,
    bucket::GoneReason,
    limits::{
        GONE_KEPT_MS, GONE_UPLOADS_MAX, HOUR_MS, POSSESSION_FAILED_BLOBS_MAX,
        POSSESSION_FAILURES_MAX, UPLOAD_IDLE_MS,
    },
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

fn all_of(user: &Principal) -> RangeInclusive<Key> {
    (*user, [0; 32])..=(*user, [u8::MAX; 32])
}

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
    /// When it is looked at next; none before it is kept, and in rows of before that was noted.
    due_ms: Option<u64>,
}

impl Session {
    /// An upload that begins.
    pub fn new(size: u64, now_ms: u64) -> Self {
        Self {
            size,
            slot: None,
            shown: vec![],
            accessors: vec![],
            touched_ms: now_ms,
            verifying: false,
            due_ms: None,
        }
    }
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
    /// When to look at an upload, a grave or a failure again; no two of one upload and time. What is not due then is
    /// put back.
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
        let entries = self.sessions.range(all_of(user));
        entries.map(|entry| entry.value().0.size).sum()
    }

    /// The first of a user's uploads.
    pub fn first_of(&self, user: &Principal) -> Option<(BlobId, Session)> {
        let entry = self.sessions.range(all_of(user)).next()?;
        Some((BlobId(entry.key().1), entry.value().0))
    }

    pub fn put(&mut self, user: &Principal, blob: &BlobId, mut session: Session) {
        let key = (*user, blob.0);
        if session.verifying {
            self.verifying.insert(key, ());
        }
        if session.due_ms.is_none() {
            self.forget(user, blob);
            let due_ms = session.touched_ms + UPLOAD_IDLE_MS;
            session.due_ms = Some(due_ms);
            self.due.insert((due_ms, *user, blob.0), ());
        }
        self.sessions.insert(key, Row(session));
    }

    pub fn remove(&mut self, user: &Principal, blob: &BlobId) -> Option<Session> {
        let key = (*user, blob.0);
        self.verifying.remove(&key);
        let session = self.sessions.remove(&key)?.0;
        if let Some(due_ms) = session.due_ms {
            self.is_due_no_more(due_ms, key);
        }
        Some(session)
    }

    /// An upload or its grave need not be looked at then; wrong chunks that are to be forgotten at that time may.
    fn is_due_no_more(&mut self, due_ms: u64, key: Key) {
        let failures = self.failures.get(&key);
        if failures.is_none_or(|row| row.0.since_ms + DAY_MS != due_ms) {
            self.due.remove(&(due_ms, key.0, key.1));
        }
    }

    /// Some upload whose hash is not known yet.
    pub fn next_verifying(&self) -> Option<(Principal, BlobId)> {
        self.verifying
            .first_key_value()
            .map(|((user, blob), ())| (user, BlobId(blob)))
    }

    /// An upload's hash does not go on by timer.
    pub fn skip_verifying(&mut self, user: &Principal, blob: &BlobId) {
        self.verifying.remove(&(*user, blob.0));
    }

    /// It does after all. False where there is no such upload.
    pub fn verify_again(&mut self, user: &Principal, blob: &BlobId) -> bool {
        let is_verifying = self
            .get(user, blob)
            .is_some_and(|session| session.verifying);
        if is_verifying {
            self.verifying.insert((*user, blob.0), ());
        }
        is_verifying
    }

    pub fn bury(
        &mut self,
        user: &Principal,
        blob: &BlobId,
        reason: GoneReason,
        size: u64,
        now_ms: u64,
    ) {
        self.forget(user, blob);
        self.make_room(user);
        let gone = Gone {
            reason,
            size,
            at_ms: now_ms,
        };
        self.gone.insert((*user, blob.0), Row(gone));
        self.due.insert((now_ms + GONE_KEPT_MS, *user, blob.0), ());
    }

    /// Forgets the user's oldest grave where there are as many as are kept.
    fn make_room(&mut self, user: &Principal) {
        let graves = all_of(user);
        if self.gone.keys_range(graves.clone()).count() < GONE_UPLOADS_MAX {
            return;
        }
        let graves = self.gone.range(graves);
        let oldest = graves.min_by_key(|entry| entry.value().0.at_ms);
        if let Some(blob) = oldest.map(|entry| BlobId(entry.key().1)) {
            self.forget(user, &blob);
        }
    }

    /// The upload has begun again: why it was gone before does not matter.
    pub fn forget(&mut self, user: &Principal, blob: &BlobId) {
        if self.gone.is_empty() {
            return;
        }
        let key = (*user, blob.0);
        if let Some(Row(gone)) = self.gone.remove(&key) {
            self.is_due_no_more(gone.at_ms + GONE_KEPT_MS, key);
        }
    }

    pub fn gone(&self, user: &Principal, blob: &BlobId) -> Option<Gone> {
        self.gone.get(&(*user, blob.0)).map(|row| row.0)
    }

    /// Wrong chunks that the user may still show for this blob today.
    pub fn attempts_left(&self, user: &Principal, blob: &BlobId, now_ms: u64) -> u32 {
        if self.failures.is_empty() {
            return POSSESSION_FAILURES_MAX;
        }
        match self.failures.get(&(*user, blob.0)).map(|row| row.0) {
            Some(failures) if now_ms < failures.since_ms + DAY_MS => {
                POSSESSION_FAILURES_MAX.saturating_sub(failures.count)
            }
            Some(_) => POSSESSION_FAILURES_MAX,
            None => {
                let blobs = self.failures.keys_range(all_of(user)).count();
                match blobs < POSSESSION_FAILED_BLOBS_MAX {
                    true => POSSESSION_FAILURES_MAX,
                    false => 0,
                }
            }
        }
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

    /// What is to be looked at next, and when.
    pub fn next_due(&self) -> Option<(u64, Principal, BlobId)> {
        let ((due_ms, user, id), ()) = self.due.first_key_value()?;
        Some((due_ms, user, BlobId(id)))
    }

    /// An upload is not looked at then.
    pub fn skip_due(&mut self, due_ms: u64, user: &Principal, blob: &BlobId) {
        self.due.remove(&(due_ms, *user, blob.0));
    }

    /// It is after all.
    pub fn look_again(&mut self, due_ms: u64, user: Principal, blob: &BlobId) {
        self.due.insert((due_ms, user, blob.0), ());
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
            let session = self.get(&user, &blob);
            // One that is due at another time has a row of its own.
            let session = session.filter(|it| it.due_ms.is_none_or(|at_ms| at_ms == due_ms));
            if let Some(mut session) = session {
                let session_due_ms = session.touched_ms + UPLOAD_IDLE_MS;
                if session_due_ms > now_ms || session.verifying {
                    let again_ms = session_due_ms.max(now_ms + HOUR_MS);
                    self.due.insert((again_ms, user, id), ());
                    session.due_ms = Some(again_ms);
                    self.sessions.insert((user, id), Row(session));
                } else {
                    idle.push((user, blob));
                }
            }
        }
        idle
    }
}

//! Uploads under way, and why some are gone.

use std::ops::RangeInclusive;

use candid::{CandidType, Principal};
use ic_stable_structures::StableBTreeMap;
use openstorage_types::{
    BlobId,
    bucket::GoneReason,
    limits::{
        GONE_KEPT_MS, GONE_UPLOADS_MAX, HOUR_MS, POSSESSION_DRAWS_MAX, POSSESSION_FAILED_BLOBS_MAX,
        POSSESSION_FAILURES_MAX, UPLOAD_IDLE_MS, charge, upload_life_ms,
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

/// What an upload is about now.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Chunks come in, to this slot of the store.
    Open { slot: u64 },
    /// All chunks are in; the hash is not known yet.
    Verifying { slot: u64 },
    /// The blob is stored already, and the user shows that it has it too: these chunks are needed, those were shown.
    Showing { needed: Vec<u32>, shown: Vec<u32> },
}

impl Phase {
    /// Where the chunks go, if they go anywhere.
    pub fn slot(&self) -> Option<u64> {
        match self {
            Self::Open { slot } | Self::Verifying { slot } => Some(*slot),
            Self::Showing { .. } => None,
        }
    }

    pub fn is_verifying(&self) -> bool {
        matches!(self, Self::Verifying { .. })
    }
}

/// One user's upload of one blob of several chunks.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub size: u64,
    pub phase: Phase,
    pub accessors: Vec<Named>,
    pub began_ms: u64,
    /// When the last new chunk came.
    pub touched_ms: u64,
    /// Bytes of the bucket that it holds: what has arrived, and what is promised to the rest.
    pub room: u64,
    /// When it is looked at next; none before it is kept.
    pub due_ms: Option<u64>,
}

impl Session {
    /// An upload that begins.
    pub fn new(size: u64, phase: Phase, accessors: Vec<Named>, now_ms: u64) -> Self {
        Self {
            size,
            phase,
            accessors,
            began_ms: now_ms,
            touched_ms: now_ms,
            room: 0,
            due_ms: None,
        }
    }

    /// Bytes of the user's allowance that it holds: what its references will take.
    pub fn charge(&self) -> u64 {
        charge(self.size, self.accessors.len() as u64)
    }

    /// When it is dropped if nothing comes until then, where so many bytes of it have arrived.
    pub fn expires_ms(&self, arrived: u64) -> u64 {
        let idle_ms = self.touched_ms + UPLOAD_IDLE_MS;
        idle_ms.min(self.began_ms.saturating_add(upload_life_ms(arrived)))
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
    /// Sessions that are verifying: their hash goes on by timer. What fits no such session is removed when its turn
    /// comes.
    verifying: StableBTreeMap<Key, (), Memory>,
    /// The one that had its turn last. Forgotten in an upgrade.
    latest: Option<Key>,
    /// Blob to: since when (milliseconds since 1970) how often chunks of it were drawn for somebody who has not shown
    /// all of them. It goes with the blob.
    draws: StableBTreeMap<[u8; 32], (u64, u32), Memory>,
}

impl Uploads {
    pub fn open(memories: &Memories) -> Self {
        Self {
            sessions: StableBTreeMap::init(memories.get(memory::SESSIONS)),
            gone: StableBTreeMap::init(memories.get(memory::GONE)),
            failures: StableBTreeMap::init(memories.get(memory::FAILURES)),
            due: StableBTreeMap::init(memories.get(memory::DUE)),
            verifying: StableBTreeMap::init(memories.get(memory::VERIFYING)),
            latest: None,
            draws: StableBTreeMap::init(memories.get(memory::DRAWS)),
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

    /// A user's, in order of their blobs' ids, from the first after `after`.
    pub fn of_user(
        &self,
        user: &Principal,
        after: Option<&BlobId>,
    ) -> impl Iterator<Item = (BlobId, Session)> {
        use std::ops::Bound::{Excluded, Included};
        let (first, last) = all_of(user).into_inner();
        let first = after.map_or(Included(first), |after| Excluded((*user, after.0)));
        let sessions = self.sessions.range((first, Included(last)));
        sessions.map(|entry| (BlobId(entry.key().1), entry.value().0))
    }

    /// Bytes of its allowance that a user's uploads hold.
    pub fn bytes_of(&self, user: &Principal) -> u64 {
        let sessions = self.of_user(user, None);
        sessions.map(|(_, session)| session.charge()).sum()
    }

    /// The first of a user's uploads.
    pub fn first_of(&self, user: &Principal) -> Option<(BlobId, Session)> {
        let entry = self.sessions.range(all_of(user)).next()?;
        Some((BlobId(entry.key().1), entry.value().0))
    }

    pub fn put(&mut self, user: &Principal, blob: &BlobId, mut session: Session) {
        let key = (*user, blob.0);
        match session.phase.is_verifying() {
            true => self.verifying.insert(key, ()),
            false => self.verifying.remove(&key),
        };
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

    /// The upload whose hash goes on next: each has its turn.
    pub fn next_verifying(&self) -> Option<(Principal, BlobId)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.latest.map_or(Unbounded, Excluded);
        let next = self.verifying.keys_range((after, Unbounded)).next();
        let first = || self.verifying.first_key_value().map(|(key, ())| key);
        let (user, blob) = next.or_else(first)?;
        Some((user, BlobId(blob)))
    }

    /// It has had its turn.
    pub fn had_turn(&mut self, user: &Principal, blob: &BlobId) {
        self.latest = Some((*user, blob.0));
    }

    /// It has no turn any more.
    pub fn skip_verifying(&mut self, user: &Principal, blob: &BlobId) {
        self.verifying.remove(&(*user, blob.0));
    }

    /// Users and blobs that have turns, in key order.
    pub fn verifying(&self) -> impl Iterator<Item = (Principal, BlobId)> {
        self.verifying
            .keys()
            .map(|(user, blob)| (user, BlobId(blob)))
    }

    /// Whether chunks of a stored blob may be drawn for somebody who is to show them. Who has some of its bytes could
    /// have them drawn under many names, until they are those.
    pub fn may_draw(&self, blob: &BlobId, now_ms: u64) -> bool {
        if self.draws.is_empty() {
            return true;
        }
        let draws = self.draws.get(&blob.0);
        draws.is_none_or(|(since_ms, count)| {
            count < POSSESSION_DRAWS_MAX || since_ms + DAY_MS <= now_ms
        })
    }

    pub fn drawn(&mut self, blob: &BlobId, now_ms: u64) {
        let draws = self.draws.get(&blob.0);
        let recent = draws.filter(|(since_ms, _)| now_ms < since_ms + DAY_MS);
        let (since_ms, count) = recent.unwrap_or((now_ms, 0));
        self.draws
            .insert(blob.0, (since_ms, count.saturating_add(1)));
    }

    /// Somebody has shown all that was drawn.
    pub fn proved(&mut self, blob: &BlobId) {
        match self.draws.get(&blob.0) {
            Some((_, 0 | 1)) => self.forget_draws(blob),
            Some((since_ms, count)) => {
                self.draws.insert(blob.0, (since_ms, count - 1));
            }
            None => {}
        }
    }

    /// The blob is gone.
    pub fn forget_draws(&mut self, blob: &BlobId) {
        if !self.draws.is_empty() {
            self.draws.remove(&blob.0);
        }
    }

    /// Blobs of which chunks were drawn.
    pub fn drawn_blobs(&self) -> impl Iterator<Item = BlobId> {
        self.draws.keys().map(BlobId)
    }

    /// It has turns after all. False where there is no such upload.
    pub fn verify_again(&mut self, user: &Principal, blob: &BlobId) -> bool {
        let session = self.get(user, blob);
        let is_verifying = session.is_some_and(|session| session.phase.is_verifying());
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

    /// When the next upload, grave or failure is to be looked at, and whose.
    pub fn next_due(&self) -> Option<(u64, Principal, BlobId)> {
        let ((due_ms, user, blob), ()) = self.due.first_key_value()?;
        Some((due_ms, user, BlobId(blob)))
    }

    /// An upload is not looked at then.
    pub fn skip_due(&mut self, due_ms: u64, user: &Principal, blob: &BlobId) {
        self.due.remove(&(due_ms, *user, blob.0));
    }

    /// It is after all.
    pub fn look_again(&mut self, due_ms: u64, user: Principal, blob: &BlobId) {
        self.due.insert((due_ms, user, blob.0), ());
    }

    /// Looks at one that is due, and forgets what of it has lapsed. Returns the session if it has to go; it is still
    /// there. `expires_ms` says when a session ends.
    pub fn lapse(
        &mut self,
        (due_ms, user, blob): (u64, Principal, BlobId),
        now_ms: u64,
        expires_ms: impl FnOnce(&Session) -> u64,
    ) -> Option<Session> {
        let key = (user, blob.0);
        self.due.remove(&(due_ms, user, blob.0));
        if self
            .gone(&user, &blob)
            .is_some_and(|gone| gone.at_ms + GONE_KEPT_MS <= now_ms)
        {
            self.gone.remove(&key);
        }
        let failures = self.failures.get(&key).map(|row| row.0);
        if failures.is_some_and(|failures| failures.since_ms + DAY_MS <= now_ms) {
            self.failures.remove(&key);
        }
        let session = self.get(&user, &blob);
        // One that is due at another time has a row of its own.
        let mut session = session.filter(|it| it.due_ms.is_none_or(|at_ms| at_ms == due_ms))?;
        let expires_ms = expires_ms(&session);
        // One that has its turns ends by itself.
        if expires_ms <= now_ms && !self.verifying.contains_key(&key) {
            return Some(session);
        }
        let again_ms = expires_ms.max(now_ms + HOUR_MS);
        self.due.insert((again_ms, user, blob.0), ());
        session.due_ms = Some(again_ms);
        self.sessions.insert(key, Row(session));
        None
    }

    /// A row of one of the tables that fits no other, or lacks one; none where all fit together. `is_aside` says of
    /// which uploads some job has set a row aside.
    pub fn contradiction(
        &self,
        is_aside: impl Fn(&Principal, &BlobId) -> bool,
    ) -> Option<(&'static str, Principal, BlobId)> {
        let told = |what, key: &Key| Some((what, key.0, BlobId(key.1)));
        for entry in self.sessions.iter() {
            let (key, session) = (*entry.key(), entry.value().0);
            if is_aside(&key.0, &BlobId(key.1)) {
                continue;
            }
            let is_due = |at_ms| self.due.contains_key(&(at_ms, key.0, key.1));
            if !session.due_ms.is_some_and(is_due) {
                return told("an upload is looked at by nobody", &key);
            }
            if session.phase.is_verifying() != self.verifying.contains_key(&key) {
                return told("turns and phase of an upload disagree", &key);
            }
        }
        for entry in self.verifying.iter() {
            if !self.sessions.contains_key(entry.key()) {
                return told("no upload has this turn", entry.key());
            }
        }
        for entry in self.gone.iter() {
            let (key, at_ms) = (*entry.key(), entry.value().0.at_ms);
            if !self.due.contains_key(&(at_ms + GONE_KEPT_MS, key.0, key.1)) {
                return told("a grave stays for ever", &key);
            }
        }
        for entry in self.failures.iter() {
            let (key, since_ms) = (*entry.key(), entry.value().0.since_ms);
            if !self.due.contains_key(&(since_ms + DAY_MS, key.0, key.1)) {
                return told("failures are remembered for ever", &key);
            }
        }
        for entry in self.due.iter() {
            let (at_ms, user, blob) = *entry.key();
            let key = (user, blob);
            let of_session = self.sessions.get(&key).and_then(|row| row.0.due_ms);
            let of_grave = self.gone.get(&key).map(|row| row.0.at_ms + GONE_KEPT_MS);
            let of_failures = self.failures.get(&key).map(|row| row.0.since_ms + DAY_MS);
            if ![of_session, of_grave, of_failures].contains(&Some(at_ms)) {
                return told("nothing is due", &key);
            }
        }
        None
    }
}

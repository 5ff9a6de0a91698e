//! Short of a user's allowance, the index asks every bucket that holds some of it to give back what it
//! does not need, and refuses only once each has answered, or cannot be reached.
//!
//! Rounds are not kept over an upgrade: whoever asks again begins another.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
};

use candid::Principal;

/// A bucket that failed to answer so often in one round cannot be reached.
const FAILURES_MAX: u32 = 3;
/// Between two attempts at one bucket.
const RETRY_MS: u64 = 1_000;
/// A round is over after so long, whoever has not come back.
const ROUND_MS: u64 = 60_000;
/// A user's rounds begin at least so long after each other: a user at its limit cannot keep all buckets
/// busy.
const ROUND_PAUSE_MS: u64 = 5_000;
/// Users for whom rounds are under way at once.
const ROUNDS_MAX: usize = 10_000;

struct Round {
    since_ms: u64,
    /// Buckets that have not answered yet: failures, and when to try again.
    waiting: BTreeMap<Principal, (u32, u64)>,
    unreachable: Option<Principal>,
    /// Buckets that were told to ask again, and have not done so since the round was complete.
    askers: BTreeSet<Principal>,
}

/// What a bucket is told that asks for more than the pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Others have not answered yet.
    Wait,
    /// Every holder has answered since the bucket asked first, but for this one.
    Refuse { unreachable: Option<Principal> },
}

#[derive(Default)]
pub struct Recalls {
    rounds: BTreeMap<Principal, Round>,
    /// For whom a bucket was asked last: it is the others' turn.
    latest: Option<Principal>,
}

impl Recalls {
    /// Whether others want some of this user's pool.
    pub fn is_contended(&self, user: &Principal, now_ms: u64) -> bool {
        let round = self.rounds.get(user);
        round.is_some_and(|round| now_ms < round.since_ms + ROUND_MS)
    }

    /// `asker` wants more of `user`'s allowance than there is in the pool. `holders` are the other buckets
    /// that hold some of it.
    pub fn short(
        &mut self,
        user: Principal,
        asker: Principal,
        holders: impl FnOnce() -> Vec<Principal>,
        now_ms: u64,
    ) -> Verdict {
        // Who asked before the last round was complete is content with any later one.
        let mut askers = BTreeSet::from([asker]);
        if let Some(round) = self.rounds.get_mut(&user) {
            if now_ms >= round.since_ms + ROUND_MS {
                self.rounds.remove(&user);
            } else if !round.waiting.is_empty() {
                round.askers.insert(asker);
                return Verdict::Wait;
            } else if round.askers.remove(&asker) {
                let unreachable = round.unreachable;
                return Verdict::Refuse { unreachable };
            } else if now_ms < round.since_ms + ROUND_PAUSE_MS {
                return Verdict::Wait;
            } else {
                askers.append(&mut round.askers);
                self.rounds.remove(&user);
            }
        }
        let holders = holders();
        if holders.is_empty() {
            return Verdict::Refuse { unreachable: None };
        }
        if self.rounds.len() >= ROUNDS_MAX {
            self.rounds
                .retain(|_, round| now_ms < round.since_ms + ROUND_MS);
        }
        if self.rounds.len() < ROUNDS_MAX {
            let round = Round {
                since_ms: now_ms,
                waiting: holders.into_iter().map(|holder| (holder, (0, 0))).collect(),
                unreachable: None,
                askers,
            };
            self.rounds.insert(user, round);
        }
        Verdict::Wait
    }

    /// Whom to ask: (user, bucket), and from when on.
    pub fn due(&self) -> impl Iterator<Item = (Principal, Principal, u64)> {
        let latest = self.latest.unwrap_or(Principal::management_canister());
        let others = self.rounds.range((Excluded(latest), Unbounded));
        let rounds = others.chain(self.rounds.range(..=latest));
        rounds.flat_map(|(user, round)| {
            let waiting = round.waiting.iter();
            waiting.map(|(bucket, (_, due_ms))| (*user, *bucket, *due_ms))
        })
    }

    /// A bucket is about to be asked.
    pub fn begun(&mut self, user: Principal) {
        self.latest = Some(user);
    }

    /// A bucket has given back what it could.
    pub fn answered(&mut self, user: &Principal, bucket: &Principal) {
        if let Some(round) = self.rounds.get_mut(user) {
            round.waiting.remove(bucket);
        }
    }

    pub fn failed(&mut self, user: &Principal, bucket: &Principal, now_ms: u64) {
        let Some(round) = self.rounds.get_mut(user) else {
            return;
        };
        if let Some((failures, due_ms)) = round.waiting.get_mut(bucket) {
            *failures += 1;
            *due_ms = now_ms + RETRY_MS;
            if *failures >= FAILURES_MAX {
                round.waiting.remove(bucket);
                round.unreachable = Some(*bucket);
            }
        }
    }

    /// The user is gone, or has another limit.
    pub fn forget(&mut self, user: &Principal) {
        self.rounds.remove(user);
    }
}

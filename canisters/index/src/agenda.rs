//! What the index does without being asked: draw its keys, make buckets, tell them the news, recall
//! leases, sweep.

use std::collections::BTreeSet;

use candid::Principal;

use crate::Index;

/// Batches on their way at once. Each holds up to 1 MB.
pub const SENDS_MAX: usize = 16;

/// Recalls on their way at once.
const RECALLS_MAX: usize = 32;

/// A job of which one is done at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    DrawSecret,
    /// Computes what a new key shares with some issuers.
    DeriveKeys,
    MakeBucket,
    /// Puts a bucket's code in, checks it, replaces it.
    Upkeep(Principal),
    /// Looks after a bucket's cycles.
    TopUp(Principal),
    /// Forgets a lost bucket.
    Forget,
    Send(Principal),
    /// Asks a bucket to give back what it does not need: of a user, the bucket.
    Recall(Principal, Principal),
    /// Removes some rows that are of no use any more.
    Sweep,
    /// Has a bucket count anew.
    Audit(Principal),
    /// Looks whose an issuer is.
    CheckIssuer(Principal),
    /// Looks whether a canister may become a bucket.
    AddBucket(Principal),
}

/// Jobs that run at once, whatever they are: each has one call under way, and each call holds back about
/// 42 G cycles for its answer.
pub const CALLS_MAX: usize = 50;

/// What to begin now, and when to look again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agenda {
    pub jobs: Vec<Job>,
    /// Milliseconds since 1970; none when nothing waits for a time.
    pub next_ms: Option<u64>,
}

impl Index {
    /// What is to be done, besides the jobs that are running. Every update asks: it walks all buckets, and looks
    /// nothing up of those that want nothing.
    pub fn agenda(&self, now_ms: u64, running: &BTreeSet<Job>) -> Agenda {
        let mut agenda = Agenda::default();
        let mut add = |job: Job, due_ms: u64| {
            if running.contains(&job) {
                return;
            }
            if due_ms <= now_ms {
                agenda.jobs.push(job);
            } else {
                agenda.next_ms = Some(agenda.next_ms.map_or(due_ms, |next| next.min(due_ms)));
            }
        };
        add(Job::DrawSecret, self.secret_due_ms());
        if self.is_deriving() {
            add(Job::DeriveKeys, now_ms);
        }
        for (job, due_ms) in self.fleet_jobs(now_ms) {
            add(job, due_ms);
        }
        let sending = running
            .iter()
            .filter(|job| matches!(job, Job::Send(_)))
            .count();
        let mut free = SENDS_MAX.saturating_sub(sending);
        for (bucket, row) in self.buckets.in_turn() {
            if free == 0 {
                break;
            }
            if row.is_up() && self.has_news_for(bucket, row) {
                let backoff = self.send_backoffs.get(bucket);
                let due_ms = backoff.map_or(0, |backoff| backoff.due_ms);
                add(Job::Send(*bucket), due_ms);
                free -= usize::from(due_ms <= now_ms && !running.contains(&Job::Send(*bucket)));
            }
        }
        let recalling = running
            .iter()
            .filter(|job| matches!(job, Job::Recall(..)))
            .count();
        let mut free = RECALLS_MAX.saturating_sub(recalling);
        for (user, bucket, due_ms) in self.recalls.due() {
            if free == 0 {
                break;
            }
            if self.is_back_soon(&bucket) {
                continue;
            }
            let job = Job::Recall(user, bucket);
            add(job, due_ms);
            free -= usize::from(due_ms <= now_ms && !running.contains(&job));
        }
        if !self.sweeps.is_empty() {
            add(Job::Sweep, now_ms);
        }
        // Then they are asked, like those to whom there is something to tell.
        let silence_ms = self.health.next_due_ms();
        agenda.next_ms = agenda.next_ms.into_iter().chain(silence_ms).min();
        agenda
            .jobs
            .truncate(CALLS_MAX.saturating_sub(running.len()));
        agenda
    }

    /// A bucket took what it was sent, or has said something itself.
    pub fn send_succeeded(&mut self, bucket: &Principal) {
        self.send_backoffs.remove(bucket);
    }

    /// A bucket did not answer, or not as hoped.
    pub fn send_failed(&mut self, bucket: Principal, now_ms: u64) {
        self.send_backoffs.entry(bucket).or_default().fail(now_ms);
    }
}

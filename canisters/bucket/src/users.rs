//! What the index says of users, and what it brings about here: leases, recalls, and deletions that take
//! all a user has along.

use candid::Principal;
use openstorage_types::{
    bucket::{EnsureRegisteredError, GoneReason},
    channel::{LeaseArgs, LeaseOk, RecallArgs, RecallError, UserCounters},
    chunk_count,
    index::Allowance,
};

use crate::{
    Bucket, Now, Stop,
    accounts::{Account, Learned, Unready},
    mutants::Mutant,
    push::CHUNKS_PER_TURN,
};

/// Uploads and references of a deleted user that are removed in one turn.
const REMOVED_PER_TURN: usize = 300;

/// An error that says why a user may do nothing now.
pub(crate) trait NotNow {
    fn not_registered() -> Self;
    fn retry(ms: u64) -> Self;
}

macro_rules! not_now {
    ($($error:ty),*) => {$(
        impl NotNow for $error {
            fn not_registered() -> Self {
                Self::NotRegistered
            }

            fn retry(ms: u64) -> Self {
                Self::Retry { ms }
            }
        }
    )*};
}

not_now!(
    openstorage_types::bucket::PushChunkError,
    openstorage_types::bucket::AddBlobReferenceError,
    EnsureRegisteredError
);

impl Bucket {
    /// The account of a caller that may do something that counts.
    pub(crate) fn admit_user<E: NotNow>(&self, user: &Principal) -> Result<Account, Stop<E>> {
        self.accounts.admit(user).map_err(|unready| match unready {
            Unready::NotRegistered => E::not_registered().into(),
            Unready::Retry { ms } => E::retry(ms).into(),
            Unready::Confirm(question) => Stop::Lease(question),
        })
    }

    /// What to ask the index about a caller that is unknown here; none where it is known.
    pub fn ensure_registered(
        &self,
        caller: &Principal,
    ) -> Result<Option<LeaseArgs>, EnsureRegisteredError> {
        if *caller == Principal::anonymous() {
            return Err(EnsureRegisteredError::NotAuthorized);
        }
        match self.accounts.admit(caller) {
            Ok(_) => Ok(None),
            Err(Unready::NotRegistered) => Ok(self.accounts.shortage(caller, 0)),
            Err(Unready::Retry { ms }) => Err(EnsureRegisteredError::Retry { ms }),
            Err(Unready::Confirm(question)) => Ok(Some(question)),
        }
    }

    /// The index is about to be asked. True where [`Bucket::refused`] has something to take back.
    pub fn asks(&mut self, question: &LeaseArgs) -> bool {
        self.accounts.asked(&question.user)
    }

    /// The question is over, whatever became of it: the last step, after the answer was taken in.
    pub fn ask_is_over(&mut self, user: &Principal) {
        self.accounts.ask_is_over(user);
    }

    /// The index has heard the question and granted nothing.
    pub fn refused(&mut self, question: &LeaseArgs) {
        self.accounts.agreed(&question.user, &question.counters);
    }

    /// What a refusal of the index says, with what the user's open uploads hold in this bucket.
    pub fn exceeded(&self, user: &Principal, allowance: Allowance) -> Allowance {
        let account = self.accounts.get(user);
        let reserved = account.map_or(0, |account| account.escrow.reserved);
        Allowance {
            bytes_reserved: allowance.bytes_reserved.saturating_add(reserved),
            ..allowance
        }
    }

    /// The index has answered a [`LeaseArgs`].
    pub fn leased(&mut self, user: Principal, answer: &LeaseOk, now: Now) {
        self.saw_index(answer.version);
        let learned = self.accounts.leased(user, answer, now.ms);
        self.settle(&user, learned, now);
    }

    /// The index wants back what of a user's lease is not reserved.
    pub fn recall(
        &mut self,
        caller: &Principal,
        args: &RecallArgs,
        now: Now,
    ) -> Result<UserCounters, RecallError> {
        if *caller != self.index() {
            return Err(RecallError::NotAuthorized);
        }
        self.saw_index(args.version);
        let known = UserCounters {
            user: args.user,
            incarnation: args.incarnation,
            counters: args.counters,
        };
        self.reconcile(&known, now);
        self.accounts
            .recall(&args.user, args.incarnation)
            .ok_or(RecallError::NotRegistered)
    }

    /// What the index knows of a user, where it is more.
    pub(crate) fn reconcile(&mut self, known: &UserCounters, now: Now) {
        let learned = self.accounts.reconcile(known, now.ms);
        self.settle(&known.user, learned, now);
    }

    /// Uploads that a restored snapshot brought back and that no lease covers any more are dropped.
    pub(crate) fn settle(&mut self, user: &Principal, learned: Learned, now: Now) {
        let mut excess = learned.excess;
        while excess > 0 {
            let Some((blob, session)) = self.uploads.first_of(user) else {
                return;
            };
            excess = excess.saturating_sub(session.charge());
            self.drop_upload(user, &blob, GoneReason::Aborted, now);
        }
    }

    /// The index has this user no more, in no incarnation up to this one: what it has here goes, slice by
    /// slice.
    pub(crate) fn delete_user(&mut self, user: Principal, incarnation: u64) {
        if !self.is_mutant(Mutant::DeletionDropped) {
            self.accounts.delete(user, incarnation);
        }
    }

    /// Removes some of what a deleted user has.
    pub fn delete_user_slice(&mut self, now: Now) {
        let Some(user) = self.accounts.next_dying() else {
            return;
        };
        let mut chunks = 0;
        for _ in 0..REMOVED_PER_TURN {
            if let Some((blob, session)) = self.uploads.first_of(&user) {
                chunks += chunk_count(session.size);
                self.drop_upload(&user, &blob, GoneReason::UserDeleted, now);
            } else if let Some((blob, accessor)) = self.references.first_of(&user) {
                chunks += self.chunks_of(&blob);
                self.unrefer(&blob, &user, &accessor, now);
            } else {
                self.accounts.died(&user);
                return;
            }
            if chunks >= CHUNKS_PER_TURN {
                return;
            }
        }
    }

    pub fn is_deleting_users(&self) -> bool {
        self.accounts.next_dying().is_some()
    }

    /// When [`Bucket::give_back_idle`] has something to do.
    pub fn next_idle_ms(&self) -> Option<u64> {
        self.accounts.next_idle_ms()
    }

    /// Gives back some of the leases of which nothing was used for long, looking at `max` of them at most.
    pub fn give_back_idle(&mut self, now: Now, max: usize) {
        if !self.is_mutant(Mutant::LeaseKept) {
            self.accounts.give_back_idle(now.ms, max);
        }
    }
}

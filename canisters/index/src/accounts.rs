//! The calls about users, and the leases of their allowances.

use candid::Principal;
use openstorage_types::{
    channel::{LeaseArgs, LeaseError, LeaseOk, RecallArgs, RecallError, UserCounters, UserDeleted},
    index::{Allowance, UserArgs, UserError, UserInfo},
    limits::PAGE_ROWS_MAX,
};

use crate::{
    Context, Index,
    buckets::Doubt,
    mutants::Mutant,
    recalls::Verdict,
    sync::user_event,
    users::{Heard, User},
};

/// When to ask again for a lease that is pending.
const LEASE_RETRY_MS: u64 = 1_000;

impl Index {
    /// Registers a user, or sets the limit of one that is registered. By an admin it lets issuers change it later.
    pub fn register_user(&mut self, context: &Context, args: &UserArgs) -> Result<(), UserError> {
        if !self.is_service(context) {
            return Err(UserError::NotAuthorized);
        }
        self.set_limit(context, args, false)
    }

    /// `fixed`: no issuer changes it later.
    fn set_limit(
        &mut self,
        context: &Context,
        args: &UserArgs,
        fixed: bool,
    ) -> Result<(), UserError> {
        if [Principal::anonymous(), Principal::management_canister()].contains(&args.user) {
            return Err(UserError::InvalidUser);
        }
        if let Some(byte_limit) = self.users.fixed_limit(&args.user)
            && !self.is_admin(context)
        {
            return Err(UserError::SetByAdmin { byte_limit });
        }
        let row = self
            .users
            .upsert(args.user, args.byte_limit, fixed, context.version);
        if let Some(row) = row {
            self.recalls.forget(&args.user);
            self.tell(context, user_event(args.user, &row, None));
        }
        Ok(())
    }

    /// Sets the limit of a user. A lower one deletes nothing: it takes back what is leased and not
    /// reserved, with the sync, and nothing more is granted until the user stores less. What an admin sets, no issuer
    /// changes.
    pub fn update_user(&mut self, context: &Context, args: &UserArgs) -> Result<(), UserError> {
        if !self.is_service(context) {
            return Err(UserError::NotAuthorized);
        }
        if self.users.get(&args.user).is_none() {
            return Err(UserError::NotRegistered);
        }
        self.set_limit(context, args, self.is_admin(context))
    }

    /// Deletes a user and, with the sync, all it stores. Deleting it again is no error. Whom an admin deletes, no
    /// issuer registers again.
    pub fn delete_user(&mut self, context: &Context, user: Principal) -> Result<(), UserError> {
        if !self.is_service(context) {
            return Err(UserError::NotAuthorized);
        }
        if !self.users.knows(&user) {
            return Err(UserError::NotRegistered);
        }
        let is_unsure = self.has_doubts();
        let fixed = self.is_admin(context);
        if let Some(row) = self.users.delete(user, fixed, context.version, is_unsure) {
            self.recalls.forget(&user);
            self.sweeps.leases_of(user);
            if !self.is_mutant(Mutant::DeletionUntold) {
                self.tell(context, user_event(user, &row, None));
            }
        }
        Ok(())
    }

    /// A user sees itself; admins and issuers see all.
    pub fn user(&self, context: &Context, user: Option<Principal>) -> Result<UserInfo, UserError> {
        let user = user.unwrap_or(context.caller);
        if user != context.caller && !self.is_service(context) {
            return Err(UserError::NotAuthorized);
        }
        let row = self.users.get(&user).ok_or(UserError::NotRegistered)?;
        Ok(row.info())
    }

    /// The buckets in which a user has, or had, something.
    pub fn my_buckets(&self, user: Principal) -> Vec<Principal> {
        self.users.buckets_of(user)
    }

    /// A bucket needs more of a user's allowance, or asks who the user is.
    pub fn lease(&mut self, context: &Context, args: &LeaseArgs) -> Result<LeaseOk, LeaseError> {
        let bucket = context.caller;
        let Some(doubt) = self.buckets.get(&bucket).map(|row| row.doubt) else {
            return Err(LeaseError::NotAuthorized);
        };
        if let Some(incarnation) = args.incarnation {
            let told = UserCounters {
                user: args.user,
                incarnation,
                counters: args.counters,
            };
            self.hear(context, bucket, &told);
        }
        let retry_ms = LEASE_RETRY_MS;
        let Some(row) = self.users.get(&args.user) else {
            // What the bucket knows may be forgotten here.
            let is_doubted = doubt != Doubt::None && args.incarnation.is_some();
            return Err(match is_doubted {
                true => LeaseError::Pending { retry_ms },
                false => LeaseError::NotRegistered,
            });
        };
        // Who has been registered anew meanwhile: the bucket has to learn of that first.
        let is_same = args.incarnation.is_none_or(|told| told == row.incarnation);
        let wanted = if is_same { args.wanted } else { 0 };
        if wanted > 0 && self.is_doubting() {
            return Err(LeaseError::Pending { retry_ms });
        }
        let known = if is_same {
            args.counters.granted
        } else {
            u64::MAX
        };
        let contended = self.recalls.is_contended(&args.user, context.now_ms);
        let (row, counters, granted) = self
            .users
            .grant(args.user, bucket, known, wanted, contended)
            .ok_or(LeaseError::NotRegistered)?;
        if !granted {
            return Err(self.refusal(context, args, &row, counters.lease()));
        }
        Ok(LeaseOk {
            incarnation: row.incarnation,
            byte_limit: row.pool.byte_limit,
            counters,
            gone: Some(row.gone),
            version: context.version,
        })
    }

    /// Why a bucket gets nothing now.
    fn refusal(
        &mut self,
        context: &Context,
        args: &LeaseArgs,
        row: &User,
        leased_here: u64,
    ) -> LeaseError {
        let asker = context.caller;
        let others = || {
            let holders = self.users.holders(args.user, row.incarnation).into_iter();
            holders.filter(|bucket| *bucket != asker).collect()
        };
        let verdict = if args.wanted > row.pool.byte_limit {
            Verdict::Refuse { unreachable: None }
        } else {
            self.recalls.short(args.user, asker, others, context.now_ms)
        };
        match verdict {
            Verdict::Wait => LeaseError::Pending {
                retry_ms: LEASE_RETRY_MS,
            },
            Verdict::Refuse { unreachable } => {
                let leased_elsewhere = row.pool.leased.saturating_sub(leased_here);
                LeaseError::AllowanceExceeded(Allowance {
                    byte_limit: row.pool.byte_limit,
                    bytes_used: row.pool.used,
                    // The bucket adds what it holds itself.
                    bytes_reserved: leased_elsewhere,
                    leased_elsewhere,
                    unreachable,
                })
            }
        }
    }

    /// A bucket speaks of a user. One that a restored index does not know is taken in again: what is
    /// absent here is not deleted there. But first the bucket has to say what else is forgotten: its state begins with
    /// deletions.
    pub(crate) fn hear(&mut self, context: &Context, bucket: Principal, told: &UserCounters) {
        let row = self.buckets.get(&bucket);
        let may_adopt = row.is_some_and(|row| row.doubt == Doubt::None);
        self.hear_if(context, bucket, told, may_adopt);
    }

    pub(crate) fn hear_if(
        &mut self,
        context: &Context,
        bucket: Principal,
        told: &UserCounters,
        may_adopt: bool,
    ) {
        if let Heard::Adopted(row) = self.users.hear(bucket, told, may_adopt) {
            self.users_adopted += 1;
            self.sweeps.leases_of(told.user);
            self.tell(context, user_event(told.user, &row, None));
        }
    }

    /// A bucket has deleted a user. Only the index can have told it so: one that does not know was restored
    /// from a snapshot of before, and deletes the user again.
    pub(crate) fn hear_gone(&mut self, context: &Context, gone: &UserDeleted) {
        if let Some(row) = self.users.bury(gone.user, gone.incarnation) {
            self.recalls.forget(&gone.user);
            self.sweeps.leases_of(gone.user);
            self.tell(context, user_event(gone.user, &row, None));
        }
    }

    /// What to ask a bucket of a user; none when that is settled.
    pub fn recall(
        &mut self,
        user: Principal,
        bucket: Principal,
        version: u64,
    ) -> Option<RecallArgs> {
        self.recalls.begun(user);
        let row = self.users.get(&user);
        let Some(row) = row.filter(|_| self.buckets.get(&bucket).is_some()) else {
            self.recalls.answered(&user, &bucket);
            return None;
        };
        Some(RecallArgs {
            user,
            incarnation: row.incarnation,
            counters: self.users.counters(user, row.incarnation, bucket),
            version,
        })
    }

    /// What a bucket answered to [`RecallArgs`]; none when it did not.
    pub fn recalled(
        &mut self,
        context: &Context,
        (user, bucket): (Principal, Principal),
        answer: Option<Result<UserCounters, RecallError>>,
    ) {
        // It may have been forgotten meanwhile, with all it said.
        let answer = answer.filter(|_| self.buckets.get(&bucket).is_some());
        match answer {
            None | Some(Err(RecallError::NotAuthorized)) => {
                self.recalls.failed(&user, &bucket, context.now_ms);
                return;
            }
            // It has yet to hear of the user: whatever was leased to it is in its counters here.
            Some(Err(RecallError::NotRegistered)) => {}
            Some(Ok(told)) if told.user == user => self.hear(context, bucket, &told),
            Some(Ok(_)) => {}
        }
        self.recalls.answered(&user, &bucket);
    }
}

/// The answers to a batch: one for each of the first 1,000 rows. What has no answer was not looked at.
pub fn batch<T>(
    rows: &[T],
    mut one: impl FnMut(&T) -> Result<(), UserError>,
) -> Vec<Result<(), UserError>> {
    rows.iter()
        .take(PAGE_ROWS_MAX as usize)
        .map(&mut one)
        .collect()
}

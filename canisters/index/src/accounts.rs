//! The calls about users.

use candid::Principal;
use openstorage_types::{
    channel::{LeaseArgs, LeaseError, LeaseOk},
    index::{UserArgs, UserError, UserInfo},
    limits::PAGE_ROWS_MAX,
};

use crate::{Context, Index, sync::user_event};

impl Index {
    /// Registers a user, or sets the limit of one that is registered.
    pub fn register_user(&mut self, context: &Context, args: &UserArgs) -> Result<(), UserError> {
        if !self.is_service(context) {
            return Err(UserError::NotAuthorized);
        }
        if [Principal::anonymous(), Principal::management_canister()].contains(&args.user) {
            return Err(UserError::InvalidUser);
        }
        if let Some(row) = self.users.upsert(args.user, args.byte_limit) {
            self.tell(context, user_event(args.user, &row));
        }
        Ok(())
    }

    /// An answer for each row, of the first 1,000 rows: what has no answer was not looked at.
    pub fn register_users(
        &mut self,
        context: &Context,
        rows: &[UserArgs],
    ) -> Vec<Result<(), UserError>> {
        rows.iter()
            .take(PAGE_ROWS_MAX as usize)
            .map(|args| self.register_user(context, args))
            .collect()
    }

    pub fn update_user(&mut self, context: &Context, args: &UserArgs) -> Result<(), UserError> {
        if !self.is_service(context) {
            return Err(UserError::NotAuthorized);
        }
        if self.users.get(&args.user).is_none() {
            return Err(UserError::NotRegistered);
        }
        self.register_user(context, args)
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

    /// A bucket needs more of a user's allowance, or asks who the user is.
    pub fn lease(&mut self, context: &Context, args: &LeaseArgs) -> Result<LeaseOk, LeaseError> {
        if self.buckets.get(&context.caller).is_none() {
            return Err(LeaseError::NotAuthorized);
        }
        self.users.lease(context.caller, args, context.now_ms)
    }
}

//! Calls to the index.

use candid::Principal;
use openstorage_types::index::*;

use crate::Setup;

pub fn allocated_bucket(
    setup: &Setup,
    caller: Principal,
    args: AllocatedBucketArgs,
) -> Result<AllocatedBucketOk, AllocatedBucketError> {
    setup.ask(setup.index, caller, "allocated_bucket", (args,))
}

pub fn register_user(setup: &Setup, caller: Principal, args: UserArgs) -> Result<(), UserError> {
    setup.call(setup.index, caller, "register_user", (args,))
}

pub fn update_user(setup: &Setup, caller: Principal, args: UserArgs) -> Result<(), UserError> {
    setup.call(setup.index, caller, "update_user", (args,))
}

pub fn user(setup: &Setup, user: Principal) -> Result<UserInfo, UserError> {
    setup.ask(setup.index, user, "user", (None::<Principal>,))
}

pub fn issuers(setup: &Setup) -> Vec<Issuer> {
    setup.ask(setup.index, crate::operator(), "issuers", ())
}

pub fn status(setup: &Setup) -> IndexStatus {
    setup.ask(setup.index, crate::operator(), "status", ())
}

pub fn delete_chat(
    setup: &Setup,
    caller: Principal,
    args: DeleteChatArgs,
) -> Result<(), DeleteChatError> {
    setup.call(setup.index, caller, "delete_chat", (args,))
}

pub fn delete_user(setup: &Setup, caller: Principal, user: Principal) -> Result<(), UserError> {
    setup.call(setup.index, caller, "delete_user", (user,))
}

pub fn register_users(
    setup: &Setup,
    caller: Principal,
    rows: Vec<UserArgs>,
) -> Vec<Result<(), UserError>> {
    setup.call(setup.index, caller, "register_users", (rows,))
}

pub fn events(setup: &Setup, caller: Principal, args: FeedArgs) -> Result<FeedPage, FeedError> {
    setup.ask(setup.index, caller, "events", (args,))
}

pub fn audit(setup: &Setup, args: AuditArgs) -> Result<AuditOk, AuditError> {
    setup.call(setup.index, crate::operator(), "audit", (args,))
}

/// Users whose figures disagree, over all buckets and pages.
pub fn differences(setup: &Setup) -> Vec<AuditDifference> {
    let mut differences = vec![];
    for bucket in status(setup).buckets {
        let mut after = None;
        loop {
            let bucket = bucket.bucket;
            let page = audit(setup, AuditArgs { bucket, after }).expect("the bucket counts");
            differences.extend(page.differences);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    differences
}

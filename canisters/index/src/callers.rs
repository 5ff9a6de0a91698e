//! Who may usefully call what: everything else is turned away before it is executed, and costs nothing. Canisters call
//! without being asked.

use candid::Principal;

use crate::{Context, Index};

/// Who may call a method by an ingress message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// Users that are registered.
    Users,
    /// Admins, and issuers that are no canisters.
    Services,
    Admins,
}

/// Every method that changes something and that others than canisters call.
pub const METHODS: [(&str, Callers); 18] = [
    ("delete_chat", Callers::Users),
    ("register_user", Callers::Services),
    ("register_users", Callers::Services),
    ("update_user", Callers::Services),
    ("update_users", Callers::Services),
    ("delete_user", Callers::Services),
    ("delete_users", Callers::Services),
    ("register_issuer", Callers::Services),
    ("remove_issuer", Callers::Services),
    ("revoke_issuer_key", Callers::Services),
    ("rotate_key", Callers::Admins),
    ("revoke_key", Callers::Admins),
    ("audit", Callers::Admins),
    ("add_bucket", Callers::Admins),
    ("set_bucket_full", Callers::Admins),
    ("retire_bucket", Callers::Admins),
    ("forget_bucket", Callers::Admins),
    ("upgrade_buckets", Callers::Admins),
];

impl Index {
    /// Whether the caller is one of those.
    pub fn is_one_of(&self, callers: Callers, context: &Context) -> bool {
        let caller = context.caller;
        let is_somebody = caller != Principal::anonymous();
        is_somebody
            && match callers {
                Callers::Users => self.users.get(&caller).is_some(),
                Callers::Services => self.is_service(context),
                Callers::Admins => self.is_admin(context),
            }
    }
}

//! Who may usefully call what: everything else is turned away before it is executed, and costs nothing.

use candid::Principal;
use openstorage_canister::audience::Wanted;
use openstorage_tokens::Scope;
use openstorage_types::bucket::RemoveBlobReferenceArgs;

use crate::{Bucket, Now};

/// Who may call a method by an ingress message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// Users whom the bucket knows, with chunks.
    Uploaders,
    /// Users whom the bucket knows.
    Users,
    /// Those, and whoever has a token for it.
    Bearers,
    /// Everybody but the anonymous principal: it has to say nothing.
    Anybody,
    /// Gateways, which call as nobody, for what a query has told them to ask again.
    Gateways,
    Controllers,
}

/// Every method that changes something and that others than canisters call.
pub const METHODS: [(&str, Callers); 10] = [
    ("push_chunk", Callers::Uploaders),
    ("upload_chunk", Callers::Uploaders),
    ("abort_upload", Callers::Users),
    ("add_blob_reference", Callers::Users),
    ("remove_blob_reference", Callers::Bearers),
    ("delete_blob", Callers::Bearers),
    ("ensure_registered", Callers::Anybody),
    ("http_request_update", Callers::Gateways),
    ("rotate_key", Callers::Controllers),
    ("revoke_key", Callers::Controllers),
];

impl Bucket {
    /// Whether the caller has a token for this removal.
    pub fn opens_removal(
        &self,
        caller: &Principal,
        args: &RemoveBlobReferenceArgs,
        now: Now,
    ) -> bool {
        let wanted = Wanted {
            scope: Scope::DELETE_REFERENCE.with(Scope::BOUND_TO_BLOB),
            accessor: args.accessor_id,
            blob: args.blob_id,
            owner: Some(args.owner),
        };
        let claims = args
            .token
            .as_deref()
            .and_then(|token| self.access.check(token, &wanted, now.ms).ok());
        claims.is_some_and(|claims| claims.principal == *caller)
    }
}

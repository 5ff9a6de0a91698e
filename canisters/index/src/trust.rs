//! The calls about issuers, keys and deleted accessors.

use candid::Principal;
use openstorage_types::{
    channel::{PublicKey, RevokeKeyError, RotateKeyError},
    index::{
        BucketKey, BucketKeysArgs, BucketKeysError, DeleteChatArgs, DeleteChatError, Issuer,
        IssuerError, RegisterIssuerArgs, RegisterIssuerOk, RevokeIssuerKeyArgs,
    },
    limits::PAGE_ROWS_MAX,
};

use crate::{
    Context, Index,
    backoff::Backoff,
    sync::{deletion_event, issuer_event},
};

/// What has to happen before an issuer is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registration {
    /// Nothing more: it is.
    Done(RegisterIssuerOk),
    /// The caller has to belong to the index's own people: look whether it [does](is_of), then call
    /// [`Index::trust_issuer`].
    CheckOrigin(Principal),
}

/// What the system shows of a canister that wants to be an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub controllers: Vec<Principal>,
    /// Who put in what it runs now; none where that is not on record any more.
    pub deployed_by: Option<Principal>,
}

impl Index {
    /// Registers the caller, or for an admin whomever it names: under its first key, under the next version of
    /// its key, or under another of the same version, where the canister has been made anew.
    pub fn register_issuer(
        &mut self,
        context: &Context,
        args: &RegisterIssuerArgs,
    ) -> Result<Registration, IssuerError> {
        let issuer = args.issuer.unwrap_or(context.caller);
        let is_admin = self.is_admin(context);
        if !is_admin && (issuer != context.caller || !is_canister(&issuer)) {
            return Err(IssuerError::NotAuthorized);
        }
        if !is_admin && self.issuers.is_banned(&issuer) {
            return Err(IssuerError::NotAuthorized);
        }
        let index_key = self.public_key().ok_or(IssuerError::KeysNotReady)?;
        let known = self.issuers.key(&issuer);
        if known == Some(args.key) {
            let ok = RegisterIssuerOk {
                index_key,
                oldest_version: self.issuers.oldest_version(&issuer, context.now_ms),
            };
            return Ok(Registration::Done(ok));
        }
        self.issuers.check_version(&issuer, args.key.version)?;
        // Who is trusted may rotate its key, whoever controls it by now.
        let rotates = known.is_some_and(|known| known.version < args.key.version);
        if is_admin || rotates {
            return self
                .trust_issuer(context, issuer, args.key)
                .map(Registration::Done);
        }
        Ok(Registration::CheckOrigin(issuer))
    }

    /// Trusts an issuer whose right to that has been checked. An admin may have banned it meanwhile.
    pub fn trust_issuer(
        &mut self,
        context: &Context,
        issuer: Principal,
        key: PublicKey,
    ) -> Result<RegisterIssuerOk, IssuerError> {
        if !self.is_admin(context) && self.issuers.is_banned(&issuer) {
            return Err(IssuerError::NotAuthorized);
        }
        let index_key = self.public_key().ok_or(IssuerError::KeysNotReady)?;
        if self.issuers.key(&issuer) != Some(key) {
            self.issuers.insert(issuer, key, context.now_ms)?;
            self.tell(context, issuer_event(issuer, self.issuers.told(&issuer)));
        }
        Ok(RegisterIssuerOk {
            index_key,
            oldest_version: self.issuers.oldest_version(&issuer, context.now_ms),
        })
    }

    /// Believes an issuer's tokens no longer. By an admin, or by the issuer itself; whom an admin has removed
    /// only an admin registers again.
    pub fn remove_issuer(
        &mut self,
        context: &Context,
        issuer: Principal,
    ) -> Result<(), IssuerError> {
        let is_admin = self.is_admin(context);
        if !is_admin && issuer != context.caller {
            return Err(IssuerError::NotAuthorized);
        }
        if self.issuers.remove(issuer, is_admin) {
            self.tell(context, issuer_event(issuer, None));
        }
        Ok(())
    }

    /// Believes no token under a replaced version of an issuer's key any more. By an admin, or by the issuer
    /// itself; revoking it again is no error.
    pub fn revoke_issuer_key(
        &mut self,
        context: &Context,
        args: &RevokeIssuerKeyArgs,
    ) -> Result<(), RevokeKeyError> {
        let issuer = args.issuer.unwrap_or(context.caller);
        if !self.is_admin(context) && issuer != context.caller {
            return Err(RevokeKeyError::NotAuthorized);
        }
        if self.issuers.revoke_key(issuer, args.version)? {
            self.tell(context, issuer_event(issuer, self.issuers.told(&issuer)));
        }
        Ok(())
    }

    /// The index's own, for tokens that it checks; none until one is drawn.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.issuers.audience.keys.public()
    }

    /// The first 1,000.
    pub fn issuers(&self) -> Vec<Issuer> {
        self.issuers
            .after(Principal::management_canister())
            .filter_map(|(issuer, told)| {
                let key = told?.key;
                Some(Issuer { issuer, key })
            })
            .take(PAGE_ROWS_MAX as usize)
            .collect()
    }

    /// The key that a bucket has published. It is public: everybody may ask.
    pub fn bucket_keys(&self, args: &BucketKeysArgs) -> Result<BucketKey, BucketKeysError> {
        let bucket = self.buckets.get(&args.bucket);
        let report = &bucket.ok_or(BucketKeysError::NotFound)?.report;
        let key = report.key.ok_or(BucketKeysError::KeysNotReady)?;
        Ok(BucketKey {
            version: key.version,
            bytes: key.bytes,
            oldest_version: report.oldest_key_version,
        })
    }

    /// Deletes a chat's accessor in every bucket, for ever. Deleting it again is no error.
    pub fn delete_chat(
        &mut self,
        context: &Context,
        args: &DeleteChatArgs,
    ) -> Result<(), DeleteChatError> {
        let principal = self
            .issuers
            .check_deletion(args.chat_id, &args.token, context.now_ms)
            .map_err(DeleteChatError::InvalidToken)?;
        if principal != context.caller {
            return Err(DeleteChatError::NotAuthorized);
        }
        self.forget_accessor(context, args.chat_id);
        Ok(())
    }

    /// For good, in every bucket. One of these may be the first to speak of it: the index may have been
    /// restored from a snapshot of before.
    pub(crate) fn forget_accessor(&mut self, context: &Context, accessor: Principal) {
        if self.issuers.delete_accessor(accessor, context.now_ms) {
            self.tell(context, deletion_event(accessor));
        }
    }

    /// When 32 random bytes are needed for a new key, in milliseconds since 1970; 0 for at once.
    pub fn secret_due_ms(&self) -> u64 {
        let due_ms = self.issuers.audience.keys.due_ms();
        due_ms.max(self.secret_backoff.due_ms)
    }

    /// 32 random bytes for the key that is due; later ones are of no use.
    pub fn set_secret(&mut self, random: [u8; 32], now_ms: u64) {
        self.secret_backoff = Backoff::default();
        if self.issuers.audience.keys.add(random, now_ms) {
            self.derive_slice();
        }
    }

    pub fn secret_failed(&mut self, now_ms: u64) {
        self.secret_backoff.fail(now_ms);
    }

    /// A new key is not told before all issuers share one with it.
    pub fn is_deriving(&self) -> bool {
        self.issuers.audience.is_deriving()
    }

    /// Computes some of what a new key shares with issuers.
    pub fn derive_slice(&mut self) {
        self.issuers.derive_slice();
    }

    /// A new key is drawn soon, by an admin's wish; issuers hear of it when they register again, and tokens under
    /// the one before are believed until the last of them has lapsed.
    pub fn rotate_key(&mut self, context: &Context) -> Result<(), RotateKeyError> {
        if !self.is_admin(context) {
            return Err(RotateKeyError::NotAuthorized);
        }
        self.issuers.audience.keys.want(context.now_ms)
    }

    /// Tokens under a replaced version of the index's key are believed no longer, by an admin's wish.
    pub fn revoke_key(&mut self, context: &Context, version: u16) -> Result<(), RevokeKeyError> {
        if !self.is_admin(context) {
            return Err(RevokeKeyError::NotAuthorized);
        }
        self.issuers.audience.keys.revoke(version)
    }
}

/// Whether a canister belongs to the people who are `ours`: nobody else controls it (but itself), and one of them
/// put in what it runs. That one of them is among its controllers says nothing: strangers name whom they like,
/// and may even hand a canister over, with their code in it. Nor that everybody is, anonymously.
pub fn is_of(issuer: &Principal, origin: &Origin, ours: &[Principal]) -> bool {
    let is_ours = |it: &Principal| *it != Principal::anonymous() && ours.contains(it);
    let mut controllers = origin.controllers.iter();
    controllers.all(|it| it == issuer || is_ours(it))
        && origin.deployed_by.as_ref().is_some_and(is_ours)
}

/// Ids of canisters end in 1, as the Internet Computer's interface specification has it.
pub(crate) fn is_canister(principal: &Principal) -> bool {
    principal.as_slice().last() == Some(&1)
}

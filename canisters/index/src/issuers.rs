//! Issuers: canisters whose tokens are believed, and the accessors that are deleted for good.

use candid::{CandidType, Principal};
use ic_stable_structures::{StableBTreeMap, StableCell};
use openstorage_canister::Row;
use openstorage_tokens::{Expect, InvalidKey, Pair, PairKey, Scope, SecretKey, TokenError, parse};
use openstorage_types::{BlobId, bucket::TokenProblem, channel::PublicKey};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::memory::Memory;

/// Every canister has one key so far.
pub const KEY_VERSION: u16 = 1;

/// An issuer's public key, and the key that the index shares with it. A removed issuer's row stays, so
/// that a bucket that is told the whole state anew hears of the removal.
#[derive(CandidType, Serialize, Deserialize, Clone)]
struct Known {
    key: PublicKey,
    pair: ByteArray<64>,
    trusted: bool,
}

pub struct Issuers {
    /// 32 bytes; nothing until they are drawn.
    secret: StableCell<Vec<u8>, Memory>,
    rows: StableBTreeMap<Principal, Row<Known>, Memory>,
    /// Accessor → when it was deleted, milliseconds since 1970.
    deleted: StableBTreeMap<Principal, u64, Memory>,
}

impl Issuers {
    pub fn init(secret: Memory, rows: Memory, deleted: Memory) -> Self {
        Self {
            secret: StableCell::init(secret, Vec::new()),
            rows: StableBTreeMap::init(rows),
            deleted: StableBTreeMap::init(deleted),
        }
    }

    fn secret(&self) -> Option<SecretKey> {
        let bytes = self.secret.get().as_slice().try_into().ok()?;
        Some(SecretKey::from_bytes(bytes))
    }

    /// Keeps the secret, unless there is one: keys that others have computed from it must go on.
    pub fn set_secret(&mut self, bytes: [u8; 32]) {
        if self.secret.get().is_empty() {
            self.secret.set(bytes.to_vec());
        }
    }

    /// None until the secret is drawn.
    pub fn public_key(&self) -> Option<PublicKey> {
        Some(PublicKey {
            version: KEY_VERSION,
            bytes: BlobId(self.secret()?.public()),
        })
    }

    fn trusted(&self, issuer: &Principal) -> Option<Known> {
        let row = self.rows.get(issuer)?.0;
        row.trusted.then_some(row)
    }

    pub fn contains(&self, issuer: &Principal) -> bool {
        self.trusted(issuer).is_some()
    }

    pub fn key(&self, issuer: &Principal) -> Option<PublicKey> {
        Some(self.trusted(issuer)?.key)
    }

    /// Rows of the state: issuers, removed ones too, and deleted accessors.
    pub fn state_len(&self) -> u64 {
        self.rows.len() + self.deleted.len()
    }

    /// Trusts `issuer`. Costs several million instructions.
    ///
    /// # Panics
    /// Before the secret is drawn.
    pub fn insert(
        &mut self,
        own: Principal,
        issuer: Principal,
        key: PublicKey,
    ) -> Result<(), InvalidKey> {
        let pair = Pair {
            issuer,
            issuer_key_version: key.version,
            audience: own,
            audience_key_version: KEY_VERSION,
        };
        let secret = self.secret().expect("the secret is drawn");
        let pair = secret.pair(&key.bytes.0, &pair)?.to_bytes().into();
        let row = Known {
            key,
            pair,
            trusted: true,
        };
        self.rows.insert(issuer, Row(row));
        Ok(())
    }

    /// False when it was not trusted anyway.
    pub fn remove(&mut self, issuer: Principal) -> bool {
        let Some(row) = self.trusted(&issuer) else {
            return false;
        };
        let trusted = false;
        self.rows.insert(issuer, Row(Known { trusted, ..row }));
        true
    }

    /// Issuers in key order, from the first after `after`; of removed ones the principal only.
    pub fn after(&self, after: Principal) -> impl Iterator<Item = (Principal, Option<PublicKey>)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.rows.range((Excluded(after), Unbounded)).map(|entry| {
            let row = entry.value().0;
            (*entry.key(), row.trusted.then_some(row.key))
        })
    }

    /// To whom an issuer has granted to delete `accessor`.
    pub fn check_deletion(
        &self,
        own: Principal,
        accessor: Principal,
        token: &str,
        now_ms: u64,
    ) -> Result<Principal, TokenProblem> {
        if self.secret.get().is_empty() {
            return Err(TokenProblem::KeysNotReady);
        }
        let token = parse(token).map_err(problem)?;
        let issuer = token.issuer_for(&accessor).map_err(problem)?;
        let row = self.trusted(&issuer).ok_or(TokenProblem::UnknownIssuer)?;
        if (token.issuer_key_version(), token.audience_key_version())
            != (row.key.version, KEY_VERSION)
        {
            return Err(TokenProblem::UnknownIssuer);
        }
        let expect = Expect {
            audience: own,
            accessor,
            blob: [0; 32],
            owner: None,
            scope: Scope::DELETE_ACCESSOR,
            now_ms,
        };
        let claims = token
            .check(&PairKey::from_bytes(&row.pair), &expect)
            .map_err(problem)?;
        Ok(claims.principal)
    }

    /// False when it was deleted before.
    pub fn delete_accessor(&mut self, accessor: Principal, now_ms: u64) -> bool {
        let new = !self.deleted.contains_key(&accessor);
        if new {
            self.deleted.insert(accessor, now_ms);
        }
        new
    }

    /// Deleted accessors in key order, from the first after `after`.
    pub fn deleted_after(&self, after: Principal) -> impl Iterator<Item = Principal> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.deleted
            .range((Excluded(after), Unbounded))
            .map(|entry| *entry.key())
    }
}

fn problem(error: TokenError) -> TokenProblem {
    match error {
        TokenError::Malformed => TokenProblem::Malformed,
        TokenError::OtherAccessor | TokenError::OtherScope | TokenError::NotAuthentic => {
            TokenProblem::NotAuthentic
        }
        TokenError::Expired => TokenProblem::Expired,
        TokenError::InvalidTimes => TokenProblem::InvalidTimes,
    }
}

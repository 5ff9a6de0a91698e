//! Issuers: canisters whose tokens are believed, and the accessors that are deleted for good.

use candid::{CandidType, Principal};
use ic_stable_structures::{StableBTreeMap, StableCell};
use openstorage_canister::Row;
use openstorage_tokens::{
    Expect, InvalidKey, PAIR_KEY_BYTES, Pair, PairKey, Scope, SecretKey, TokenError, parse,
};
use openstorage_types::{
    BlobId,
    bucket::TokenProblem,
    channel::{IssuerUpserted, OldKey, PublicKey, RevokeKeyError},
    index::IssuerError,
    limits::{KEY_OVERLAP_MS, KEY_VERSIONS_MAX},
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::memory::Memory;

/// The only version of the index's own key. It checks nothing but deletions of accessors, whose tokens live
/// for an hour.
const KEY_VERSION: u16 = 1;

/// An issuer's newest public key, and the key that the index shares with it. A removed issuer's row stays, so
/// that a bucket that is told the whole state anew hears of the removal.
#[derive(CandidType, Serialize, Deserialize, Clone)]
struct Known {
    key: PublicKey,
    pair: ByteArray<PAIR_KEY_BYTES>,
    trusted: bool,
    /// Replaced keys, oldest first; also lapsed ones, until there is a next. None in rows of before there
    /// were any.
    older: Option<Vec<Older>>,
    /// Removed by an admin: it does not come back by itself. None in rows of before there was a ban.
    banned: Option<bool>,
}

#[derive(CandidType, Serialize, Deserialize, Clone)]
struct Older {
    known: OldKey,
    pair: ByteArray<PAIR_KEY_BYTES>,
}

impl Known {
    /// Replaced keys whose tokens are still believed.
    fn living(&self, now_ms: u64) -> impl Iterator<Item = &Older> {
        let older = self.older.iter().flatten();
        older.filter(move |older| now_ms < older.known.until_ms)
    }

    /// What the index shares with a version of the key.
    fn pair(&self, version: u16, now_ms: u64) -> Option<&ByteArray<PAIR_KEY_BYTES>> {
        if version == self.key.version {
            return Some(&self.pair);
        }
        let mut older = self.living(now_ms);
        let older = older.find(|older| older.known.key.version == version)?;
        Some(&older.pair)
    }

    fn told(&self, issuer: Principal) -> IssuerUpserted {
        let older = self.older.iter().flatten();
        let older: Vec<_> = older.map(|older| older.known).collect();
        IssuerUpserted {
            issuer,
            key: self.key,
            older: (!older.is_empty()).then_some(older),
        }
    }
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

    pub fn has_secret(&self) -> bool {
        !self.secret.get().is_empty()
    }

    /// None until the secret is drawn. Computed from it: which is dear.
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

    /// Whether a key of `version` may be an issuer's: its first, the next, or another of the newest version.
    pub fn check_version(&self, issuer: &Principal, version: u16) -> Result<(), IssuerError> {
        let newest = self.rows.get(issuer).map_or(0, |row| row.0.key.version);
        let expected = newest.saturating_add(1);
        if version != 0 && [newest, expected].contains(&version) {
            return Ok(());
        }
        Err(IssuerError::InvalidKeyVersion { expected })
    }

    /// What buckets have to believe of an issuer.
    pub fn told(&self, issuer: &Principal) -> Option<IssuerUpserted> {
        Some(self.trusted(issuer)?.told(*issuer))
    }

    /// Rows of the state: issuers, removed ones too, and deleted accessors.
    pub fn state_len(&self) -> u64 {
        self.rows.len() + self.deleted.len()
    }

    /// Trusts `issuer` under `key`. A key of the next version replaces the one before, whose tokens are believed
    /// for a while; one of the same version takes its place. Costs several million instructions.
    ///
    /// # Panics
    /// Before the secret is drawn.
    pub fn insert(
        &mut self,
        own: Principal,
        issuer: Principal,
        key: PublicKey,
        now_ms: u64,
    ) -> Result<(), IssuerError> {
        self.check_version(&issuer, key.version)?;
        let older = self.older_beside(&issuer, key.version, now_ms)?;
        let pair = Pair {
            issuer,
            issuer_key_version: key.version,
            audience: own,
            audience_key_version: KEY_VERSION,
        };
        let secret = self.secret().expect("the secret is drawn");
        let pair = secret.pair(&key.bytes.0, &pair);
        let pair = pair.map_err(|InvalidKey| IssuerError::InvalidKey)?;
        let row = Known {
            key,
            pair: pair.to_bytes().into(),
            trusted: true,
            older: (!older.is_empty()).then_some(older),
            banned: None,
        };
        self.rows.insert(issuer, Row(row));
        Ok(())
    }

    /// The replaced keys that count beside a new one of `version`.
    fn older_beside(
        &self,
        issuer: &Principal,
        version: u16,
        now_ms: u64,
    ) -> Result<Vec<Older>, IssuerError> {
        // Whoever was removed begins anew.
        let Some(row) = self.trusted(issuer) else {
            return Ok(vec![]);
        };
        let mut older: Vec<_> = row.living(now_ms).cloned().collect();
        if version != row.key.version {
            let until_ms = now_ms + KEY_OVERLAP_MS;
            let known = OldKey {
                key: row.key,
                until_ms,
            };
            let pair = row.pair;
            older.push(Older { known, pair });
        }
        if older.len() >= KEY_VERSIONS_MAX {
            return Err(IssuerError::TooManyKeyVersions {
                max: KEY_VERSIONS_MAX as u32,
                ms: older[0].known.until_ms,
            });
        }
        Ok(older)
    }

    /// Tokens under a replaced key are believed no longer. False when they were not anyway.
    pub fn revoke_key(&mut self, issuer: Principal, version: u16) -> Result<bool, RevokeKeyError> {
        let mut row = self.trusted(&issuer).ok_or(RevokeKeyError::NotFound)?;
        let newest = row.key.version;
        if version >= newest {
            return Err(RevokeKeyError::CurrentKey { version: newest });
        }
        let older = row.older.get_or_insert_default();
        let before = older.len();
        older.retain(|older| older.known.key.version != version);
        let changed = older.len() < before;
        if changed {
            self.rows.insert(issuer, Row(row));
        }
        Ok(changed)
    }

    /// Whether only an admin may register it again.
    pub fn is_banned(&self, issuer: &Principal) -> bool {
        let row = self.rows.get(issuer);
        row.is_some_and(|row| row.0.banned == Some(true))
    }

    /// False when it was not trusted anyway. An issuer that removed itself may be banned all the same.
    pub fn remove(&mut self, issuer: Principal, bans: bool) -> bool {
        let Some(Row(mut row)) = self.rows.get(&issuer) else {
            return false;
        };
        let was_trusted = std::mem::take(&mut row.trusted);
        if bans {
            row.banned = Some(true);
        }
        self.rows.insert(issuer, Row(row));
        was_trusted
    }

    /// Issuers in key order, from the first after `after`; of removed ones the principal only.
    pub fn after(
        &self,
        after: Principal,
    ) -> impl Iterator<Item = (Principal, Option<IssuerUpserted>)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.rows.range((Excluded(after), Unbounded)).map(|entry| {
            let (issuer, row) = (*entry.key(), entry.value().0);
            (issuer, row.trusted.then(|| row.told(issuer)))
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
        let pair = row
            .pair(token.issuer_key_version(), now_ms)
            .filter(|_| token.audience_key_version() == KEY_VERSION)
            .ok_or(TokenProblem::UnknownIssuer)?;
        let expect = Expect {
            audience: own,
            accessor,
            blob: [0; 32],
            owner: None,
            scope: Scope::DELETE_ACCESSOR,
            now_ms,
        };
        let claims = token
            .check(&PairKey::from_bytes(pair), &expect)
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

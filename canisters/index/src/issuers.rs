//! Issuers: canisters whose tokens are believed, and the accessors that are deleted for good.

use std::ops::Bound::{Excluded, Unbounded};

use candid::{CandidType, Principal};
use ic_stable_structures::StableBTreeMap;
use openstorage_canister::{
    Row,
    audience::{Audience, Wanted},
};
use openstorage_tokens::{InvalidKey, Scope};
use openstorage_types::{
    BlobId,
    bucket::TokenProblem,
    channel::{IssuerUpserted, OldKey, PublicKey, RevokeKeyError},
    index::IssuerError,
    limits::{CLOCK_SKEW_MS, KEY_OVERLAP_MS, KEY_VERSIONS_MAX, READ_TOKEN_LIFE_MS},
};
use serde::{Deserialize, Serialize};

use crate::memory::Memory;

/// Issuers with which a new key is shared in one message.
const ISSUERS_PER_SLICE: usize = 20;

/// An issuer's keys. A removed issuer's row stays, so that a bucket that is told the whole state anew hears of the
/// removal.
#[derive(CandidType, Serialize, Deserialize, Clone)]
struct Known {
    /// The newest.
    key: PublicKey,
    trusted: bool,
    /// Replaced keys, oldest first; also lapsed ones, until there is a next. None in rows of before there
    /// were any.
    older: Option<Vec<OldKey>>,
    /// Removed by an admin: it does not come back by itself. None in rows of before there was a ban.
    banned: Option<bool>,
}

impl Known {
    fn told(self, issuer: Principal) -> IssuerUpserted {
        IssuerUpserted {
            issuer,
            key: self.key,
            older: self.older.filter(|older| !older.is_empty()),
        }
    }
}

pub struct Issuers {
    /// The index checks nothing but deletions of accessors, whose tokens live for an hour.
    pub audience: Audience<Memory>,
    rows: StableBTreeMap<Principal, Row<Known>, Memory>,
    /// Accessor → when it was deleted, milliseconds since 1970.
    deleted: StableBTreeMap<Principal, u64, Memory>,
}

impl Issuers {
    pub fn init(audience: Audience<Memory>, rows: Memory, deleted: Memory) -> Self {
        Self {
            audience,
            rows: StableBTreeMap::init(rows),
            deleted: StableBTreeMap::init(deleted),
        }
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

    /// The oldest version under which a token that is issued now opens for its whole life.
    pub fn oldest_version(&self, issuer: &Principal, now_ms: u64) -> Option<u16> {
        let row = self.trusted(issuer)?;
        let lapses_ms = now_ms + READ_TOKEN_LIFE_MS + CLOCK_SKEW_MS;
        let older = row.older.iter().flatten();
        let older = older.filter(|older| lapses_ms <= older.until_ms);
        let versions = older.map(|older| older.key.version);
        versions.chain([row.key.version]).min()
    }

    /// Whether a key of `version` may be an issuer's: its first, the next, or another of the newest version. Of one that
    /// was removed only the next: tokens that were sealed before stay closed.
    pub fn check_version(&self, issuer: &Principal, version: u16) -> Result<(), IssuerError> {
        let row = self.rows.get(issuer);
        let is_removed = row.as_ref().is_some_and(|row| !row.0.trusted);
        let newest = row.map_or(0, |row| row.0.key.version);
        let expected = newest.saturating_add(1);
        let is_newest = version == newest && !is_removed;
        if version != 0 && (version == expected || is_newest) {
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
    pub fn insert(
        &mut self,
        issuer: Principal,
        key: PublicKey,
        now_ms: u64,
    ) -> Result<(), IssuerError> {
        self.check_version(&issuer, key.version)?;
        // Whoever was removed begins anew.
        let before = self.trusted(&issuer);
        let older = match &before {
            Some(before) => older_beside(before, key.version, now_ms)?,
            None => vec![],
        };
        let row = Known {
            key,
            trusted: true,
            older: Some(older),
            banned: None,
        };
        let before = before.map(|before| before.told(issuer));
        let believed = self
            .audience
            .believe(&row.clone().told(issuer), before.as_ref());
        believed.map_err(|InvalidKey| IssuerError::InvalidKey)?;
        self.rows.insert(issuer, Row(row));
        Ok(())
    }

    /// Tokens under a replaced key are believed no longer. False when they were not anyway.
    pub fn revoke_key(&mut self, issuer: Principal, version: u16) -> Result<bool, RevokeKeyError> {
        let mut row = self.trusted(&issuer).ok_or(RevokeKeyError::NotFound)?;
        let newest = row.key.version;
        if version >= newest {
            return Err(RevokeKeyError::CurrentKey { version: newest });
        }
        let before = row.clone().told(issuer);
        let older = row.older.get_or_insert_default();
        older.retain(|older| older.key.version != version);
        let told = row.clone().told(issuer);
        let changed = told != before;
        if changed {
            // With keys that are believed one can be shared.
            let _ = self.audience.believe(&told, Some(&before));
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
        self.audience.forget(issuer);
        was_trusted
    }

    /// The issuer with which the newest key is shared next.
    pub fn next_derived(&self) -> Option<Principal> {
        let until = self.audience.keys.derived_until()?;
        self.after(until)
            .find_map(|(issuer, told)| told.map(|_| issuer))
    }

    /// Shares nothing with an issuer under the newest key.
    pub fn skip_derived(&mut self, issuer: Principal) {
        self.audience.keys.set_derived_until(Some(issuer));
    }

    /// Computes some of what the index's newest key shares with issuers.
    pub fn derive_slice(&mut self) {
        let rows = &self.rows;
        self.audience.derive_slice(ISSUERS_PER_SLICE, |after| {
            let rows = rows.range((Excluded(after), Unbounded));
            rows.filter_map(|entry| told(*entry.key(), entry.value().0))
        });
    }

    /// Issuers in key order, from the first after `after`; of removed ones the principal only.
    pub fn after(
        &self,
        after: Principal,
    ) -> impl Iterator<Item = (Principal, Option<IssuerUpserted>)> {
        self.rows.range((Excluded(after), Unbounded)).map(|entry| {
            let issuer = *entry.key();
            (issuer, told(issuer, entry.value().0))
        })
    }

    /// To whom an issuer has granted to delete `accessor`.
    pub fn check_deletion(
        &self,
        accessor: Principal,
        token: &str,
        now_ms: u64,
    ) -> Result<Principal, TokenProblem> {
        let wanted = Wanted {
            scope: Scope::DELETE_ACCESSOR,
            accessor,
            blob: BlobId([0; 32]),
            owner: None,
        };
        Ok(self.audience.check(token, &wanted, now_ms)?.principal)
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
        self.deleted
            .range((Excluded(after), Unbounded))
            .map(|entry| *entry.key())
    }
}

/// What buckets have to believe of an issuer; nothing where it was removed.
fn told(issuer: Principal, row: Known) -> Option<IssuerUpserted> {
    row.trusted.then(|| row.told(issuer))
}

/// The replaced keys that count beside a new one of `version`.
fn older_beside(row: &Known, version: u16, now_ms: u64) -> Result<Vec<OldKey>, IssuerError> {
    let older = row.older.iter().flatten().copied();
    let mut older: Vec<_> = older.filter(|older| now_ms < older.until_ms).collect();
    if version != row.key.version {
        let until_ms = now_ms + KEY_OVERLAP_MS;
        older.push(OldKey {
            key: row.key,
            until_ms,
        });
    }
    if older.len() >= KEY_VERSIONS_MAX {
        return Err(IssuerError::TooManyKeyVersions {
            max: KEY_VERSIONS_MAX as u32,
            ms: older[0].until_ms,
            oldest: Some(older[0].key.version),
        });
    }
    Ok(older)
}

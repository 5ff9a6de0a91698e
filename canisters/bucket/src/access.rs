//! Who may do what with a token: the issuers that the index trusts, and the tokens that were taken back.

use std::ops::Bound::{Excluded, Unbounded};

use candid::{CandidType, Principal};
use ic_stable_structures::StableBTreeMap;
use openstorage_canister::{
    Row,
    audience::{Audience, Wanted},
};
use openstorage_tokens::Claims;
use openstorage_types::{
    BlobId,
    bucket::TokenProblem,
    channel::{IssuerUpserted, OldKey, PublicKey, Revoked},
    limits::REVOCATIONS_MAX,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::memory::{self, Memories, Memory};

/// The keys of an issuer that are believed.
#[derive(CandidType, Serialize, Deserialize)]
struct Issuer {
    /// The newest.
    key: PublicKey,
    older: Option<Vec<OldKey>>,
}

impl Issuer {
    fn told(self, issuer: Principal) -> IssuerUpserted {
        let Self { key, older } = self;
        IssuerUpserted { issuer, key, older }
    }
}

pub struct Access {
    pub audience: Audience<Memory>,
    issuers: StableBTreeMap<Principal, Row<Issuer>, Memory>,
    /// (accessor, user or everybody) → the earliest issue time that is believed, and when that is
    /// forgotten, in milliseconds since 1970.
    revocations: StableBTreeMap<(Principal, Principal), (u64, u64), Memory>,
}

/// Stands for everybody.
const ALL: Principal = Principal::management_canister();

impl Access {
    pub fn open(memories: &Memories, own: Principal) -> Self {
        let [keys, pairs] = [memory::KEYS, memory::PAIRS].map(|id| memories.get(id));
        Self {
            audience: Audience::open(keys, pairs, own),
            issuers: StableBTreeMap::init(memories.get(memory::ISSUERS)),
            revocations: StableBTreeMap::init(memories.get(memory::REVOCATIONS)),
        }
    }

    /// Believes tokens of an issuer under the keys that are told, and under no other. Costs several million
    /// instructions for each that is new.
    pub fn trust(&mut self, told: IssuerUpserted) {
        let issuer = told.issuer;
        let before = self.issuers.get(&issuer).map(|row| row.0.told(issuer));
        if self.audience.believe(&told, before.as_ref()).is_err() {
            return self.distrust(&issuer);
        }
        let IssuerUpserted { key, older, .. } = told;
        self.issuers.insert(issuer, Row(Issuer { key, older }));
    }

    pub fn distrust(&mut self, issuer: &Principal) {
        self.issuers.remove(issuer);
        self.audience.forget(*issuer);
    }

    /// Computes some of what the bucket's newest key shares with issuers. True when it has just become the key
    /// that issuers are told.
    pub fn derive_slice(&mut self, max: usize) -> bool {
        let issuers = &self.issuers;
        self.audience.derive_slice(max, |after| {
            let issuers = issuers.range((Excluded(after), Unbounded));
            issuers.map(|entry| entry.value().0.told(*entry.key()))
        })
    }

    /// The issuer with which the newest key is shared next.
    pub fn next_derived(&self) -> Option<Principal> {
        let until = self.audience.keys.derived_until()?;
        let mut issuers = self.issuers.keys_range((Excluded(until), Unbounded));
        issuers.next()
    }

    /// Shares nothing with an issuer under the newest key.
    pub fn skip_derived(&mut self, issuer: Principal) {
        self.audience.keys.set_derived_until(Some(issuer));
    }

    /// Believes no token of before any more. The index keeps the list short; what has lapsed goes when it
    /// is full.
    pub fn revoke(&mut self, revoked: &Revoked, now_ms: u64) {
        if self.revocations.len() >= u64::from(REVOCATIONS_MAX) {
            let rows = self.revocations.iter();
            let lapsed: Vec<_> = rows
                .filter(|entry| entry.value().1 <= now_ms)
                .map(|entry| *entry.key())
                .collect();
            for key in lapsed {
                self.revocations.remove(&key);
            }
        }
        let key = (revoked.accessor_id, revoked.user.unwrap_or(ALL));
        let known = self.revocations.get(&key);
        if revoked.until_ms > now_ms && known.is_none_or(|(min, _)| min < revoked.min_iat_ms) {
            self.revocations
                .insert(key, (revoked.min_iat_ms, revoked.until_ms));
        }
    }

    fn is_revoked(&self, accessor: Principal, claims: &Claims) -> bool {
        [claims.principal, ALL].into_iter().any(|user| {
            let row = self.revocations.get(&(accessor, user));
            row.is_some_and(|(min_iat_ms, _)| claims.iat_ms < min_iat_ms)
        })
    }

    /// What a token says, if it gives what is wanted and was not taken back.
    pub fn check(&self, text: &str, wanted: &Wanted, now_ms: u64) -> Result<Claims, TokenProblem> {
        let claims = self.audience.check(text, wanted, now_ms)?;
        if !self.revocations.is_empty() && self.is_revoked(wanted.accessor, &claims) {
            return Err(TokenProblem::Revoked);
        }
        Ok(claims)
    }

    /// The chunks of a stored blob that `caller` must show to prove that it has the bytes: at most
    /// `max` different indexes below `count`, drawn for this moment, unknown beforehand to anybody
    /// without this bucket's newest secret. None until one is drawn.
    pub fn challenge(
        &self,
        blob: &BlobId,
        caller: &Principal,
        now_ms: u64,
        count: u64,
        max: u64,
    ) -> Option<Vec<u32>> {
        let secret = self.audience.keys.all().last()?.secret_bytes();
        let mut indexes = std::collections::BTreeSet::new();
        let mut round = 0u64;
        while (indexes.len() as u64) < count.min(max) {
            let digest: [u8; 32] = Sha256::new()
                .chain_update(b"possession")
                .chain_update(secret)
                .chain_update(blob.0)
                .chain_update(caller.as_slice())
                .chain_update(now_ms.to_be_bytes())
                .chain_update(round.to_be_bytes())
                .finalize()
                .into();
            let number = u64::from_be_bytes(digest[..8].try_into().expect("8 bytes"));
            indexes.insert(u32::try_from(number % count).expect("a chunk index is a nat32"));
            round += 1;
        }
        Some(indexes.into_iter().collect())
    }
}

//! Who may do what with a token: the issuers that the index trusts, and what the bucket shares with each.

use std::ops::Bound::{Excluded, Unbounded};

use candid::{CandidType, Principal};
use ic_stable_structures::StableBTreeMap;
use openstorage_tokens::{Claims, Expect, PAIR_KEY_BYTES, Pair, PairKey, Scope, TokenError, parse};
use openstorage_types::{
    BlobId,
    bucket::TokenProblem,
    channel::{IssuerUpserted, OldKey, PublicKey, Revoked},
    limits::REVOCATIONS_MAX,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    keys::{Keys, OwnKey},
    memory::{self, Memories, Memory},
};
use openstorage_canister::Row;

/// Issuers whose shared keys are computed in one message: each costs some 4 M instructions for each version
/// of the issuer's key.
const ISSUERS_PER_SLICE: usize = 20;

/// The keys of an issuer that are believed.
#[derive(CandidType, Serialize, Deserialize)]
struct Issuer {
    /// The newest.
    key: PublicKey,
    older: Option<Vec<OldKey>>,
}

impl Issuer {
    /// Each with the time from which it is refused.
    fn keys(&self) -> impl Iterator<Item = (PublicKey, u64)> {
        let older = self.older.iter().flatten();
        let older = older.map(|old| (old.key, old.until_ms));
        older.chain([(self.key, u64::MAX)])
    }
}

/// The versions of an issuer's key and of the bucket's, as part of a key in stable memory.
const fn versions(issuer: u16, own: u16) -> u32 {
    (issuer as u32) << 16 | own as u32
}

pub struct Access {
    /// This bucket.
    own: Principal,
    pub keys: Keys,
    issuers: StableBTreeMap<Principal, Row<Issuer>, Memory>,
    /// (issuer, [`versions`]) → when the issuer's version lapses, milliseconds since 1970, and the
    /// [`PairKey`]. None for a key with which none can be shared.
    pairs: StableBTreeMap<(Principal, u32), (u64, [u8; PAIR_KEY_BYTES]), Memory>,
    /// (accessor, user or everybody) → the earliest issue time that is believed, and when that is
    /// forgotten, in milliseconds since 1970.
    revocations: StableBTreeMap<(Principal, Principal), (u64, u64), Memory>,
}

/// Stands for everybody.
const ALL: Principal = Principal::management_canister();

impl Access {
    pub fn open(memories: &Memories, own: Principal) -> Self {
        Self {
            own,
            keys: Keys::open(memories.get(memory::KEYS)),
            issuers: StableBTreeMap::init(memories.get(memory::ISSUERS)),
            pairs: StableBTreeMap::init(memories.get(memory::PAIRS)),
            revocations: StableBTreeMap::init(memories.get(memory::REVOCATIONS)),
        }
    }

    pub fn own(&self) -> Principal {
        self.own
    }

    /// Believes tokens of an issuer under the keys that are told, and under no other. Costs several million
    /// instructions for each that is new.
    pub fn trust(&mut self, told: IssuerUpserted) {
        let IssuerUpserted { issuer, key, older } = told;
        let row = Issuer { key, older };
        // Another key may have come under the same version.
        if let Some(known) = self.issuers.get(&issuer) {
            for (key, _) in known.0.keys() {
                if row.keys().all(|(new, _)| new != key) {
                    self.forget_pairs(issuer, |version, _| version == key.version);
                }
            }
        }
        self.issuers.insert(issuer, Row(row));
        self.derive(issuer);
    }

    pub fn distrust(&mut self, issuer: &Principal) {
        self.issuers.remove(issuer);
        self.forget_pairs(*issuer, |_, _| true);
    }

    /// Computes what is missing of what the bucket shares with an issuer, and drops what is of no use.
    fn derive(&mut self, issuer: Principal) {
        let Some(Row(row)) = self.issuers.get(&issuer) else {
            return;
        };
        let own: Vec<_> = self.keys.all().to_vec();
        let is_own = |version: u16| own.iter().any(|key| key.version == version);
        self.forget_pairs(issuer, |_, version| !is_own(version));
        for (key, until_ms) in row.keys() {
            for own_key in &own {
                let at = (issuer, versions(key.version, own_key.version));
                let known = self.pairs.get(&at).map(|(_, pair)| pair);
                if let Some(pair) = known.or_else(|| self.shared(issuer, &key, own_key)) {
                    self.pairs.insert(at, (until_ms, pair));
                }
            }
        }
    }

    fn shared(
        &self,
        issuer: Principal,
        key: &PublicKey,
        own: &OwnKey,
    ) -> Option<[u8; PAIR_KEY_BYTES]> {
        let pair = Pair {
            issuer,
            issuer_key_version: key.version,
            audience: self.own,
            audience_key_version: own.version,
        };
        let shared = own.secret().pair(&key.bytes.0, &pair).ok()?;
        Some(shared.to_bytes())
    }

    /// Drops pairs by the versions of the issuer's key and the bucket's.
    fn forget_pairs(&mut self, issuer: Principal, is_useless: impl Fn(u16, u16) -> bool) {
        let all = (issuer, 0)..=(issuer, u32::MAX);
        let useless: Vec<_> = self
            .pairs
            .keys_range(all)
            .filter(|(_, versions)| is_useless((versions >> 16) as u16, *versions as u16))
            .collect();
        for at in useless {
            self.pairs.remove(&at);
        }
    }

    /// Computes some of what the bucket's newest key shares with issuers. True when it has just become the key
    /// that issuers are told.
    pub fn derive_slice(&mut self) -> bool {
        let Some(after) = self.keys.derived_until() else {
            return false;
        };
        let next = self.issuers.keys_range((Excluded(after), Unbounded));
        let next: Vec<_> = next.take(ISSUERS_PER_SLICE).collect();
        for issuer in &next {
            self.derive(*issuer);
        }
        let is_done = next.len() < ISSUERS_PER_SLICE;
        self.keys
            .set_derived_until(next.last().copied().filter(|_| !is_done));
        is_done
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

    /// What a token says, if it gives `scope` on `blob` (and `owner`'s reference to it) as `accessor`
    /// sees it.
    pub fn check(&self, text: &str, wanted: &Wanted, now_ms: u64) -> Result<Claims, TokenProblem> {
        if self.keys.is_empty() {
            return Err(TokenProblem::KeysNotReady);
        }
        let token = parse(text).map_err(problem)?;
        let issuer = token.issuer_for(&wanted.accessor).map_err(problem)?;
        let own_version = token.audience_key_version();
        let at = (issuer, versions(token.issuer_key_version(), own_version));
        let (_, pair) = Some(at)
            .filter(|_| self.keys.is_living(own_version, now_ms))
            .and_then(|at| self.pairs.get(&at))
            .filter(|(until_ms, _)| now_ms < *until_ms)
            .ok_or(TokenProblem::UnknownIssuer)?;
        let expect = Expect {
            audience: self.own,
            accessor: wanted.accessor,
            blob: wanted.blob.0,
            owner: wanted.owner,
            scope: wanted.scope,
            now_ms,
        };
        let claims = token
            .check(&PairKey::from_bytes(&pair), &expect)
            .map_err(problem)?;
        // Taken back: as good as lapsed.
        if !self.revocations.is_empty() && self.is_revoked(wanted.accessor, &claims) {
            return Err(TokenProblem::Expired);
        }
        Ok(claims)
    }

    /// The chunks of a stored blob that `caller` must show to prove that it has the bytes: at most
    /// `max` different indexes below `count`, the same at each asking, unknown beforehand to anybody
    /// without this bucket's newest secret. None until one is drawn.
    pub fn challenge(
        &self,
        blob: &BlobId,
        caller: &Principal,
        count: u64,
        max: u64,
    ) -> Option<Vec<u32>> {
        let secret = self.keys.all().last()?.secret_bytes();
        let mut indexes = std::collections::BTreeSet::new();
        let mut round = 0u64;
        while (indexes.len() as u64) < count.min(max) {
            let digest: [u8; 32] = Sha256::new()
                .chain_update(b"possession")
                .chain_update(secret)
                .chain_update(blob.0)
                .chain_update(caller.as_slice())
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

/// What a token is needed for.
pub struct Wanted {
    pub scope: Scope,
    pub accessor: Principal,
    pub blob: BlobId,
    pub owner: Option<Principal>,
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

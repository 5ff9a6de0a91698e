//! Who may do what with a token: the bucket's secret and the issuers that the index trusts.

use candid::{CandidType, Principal};
use ic_stable_structures::{StableBTreeMap, StableCell};
use openstorage_tokens::{Claims, Expect, Pair, PairKey, Scope, SecretKey, TokenError, parse};
use openstorage_types::{
    BlobId,
    bucket::TokenProblem,
    channel::{PublicKey, Revoked},
    limits::REVOCATIONS_MAX,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use crate::memory::{self, Memories, Memory};
use openstorage_canister::Row;

/// The only version of the bucket's own key.
const KEY_VERSION: u16 = 1;

#[derive(CandidType, Serialize, Deserialize)]
struct Issuer {
    key: PublicKey,
    /// What this bucket shares with the issuer: the 64 bytes of a [`PairKey`]. None until the bucket has
    /// a secret, and for a key with which none can be shared.
    pair: Option<ByteBuf>,
}

pub struct Access {
    /// This bucket.
    own: Principal,
    secret: StableCell<Option<[u8; 32]>, Memory>,
    issuers: StableBTreeMap<Principal, Row<Issuer>, Memory>,
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
            secret: StableCell::init(memories.get(memory::SECRET), None),
            issuers: StableBTreeMap::init(memories.get(memory::ISSUERS)),
            revocations: StableBTreeMap::init(memories.get(memory::REVOCATIONS)),
        }
    }

    pub fn own(&self) -> Principal {
        self.own
    }

    pub fn has_secret(&self) -> bool {
        self.secret.get().is_some()
    }

    /// The first secret stays: tokens and peers rely on it.
    pub fn set_secret(&mut self, random: [u8; 32]) {
        if self.has_secret() {
            return;
        }
        self.secret.set(Some(random));
        // Issuers that came before the secret. There are as many as there are apps on this storage.
        let waiting: Vec<_> = self
            .issuers
            .iter()
            .map(|entry| (*entry.key(), entry.value().0.key))
            .collect();
        for (issuer, key) in waiting {
            self.trust(issuer, key);
        }
    }

    /// None until the secret is drawn.
    pub fn public(&self) -> Option<PublicKey> {
        let secret = SecretKey::from_bytes((*self.secret.get())?);
        Some(PublicKey {
            version: KEY_VERSION,
            bytes: BlobId(secret.public()),
        })
    }

    pub fn trust(&mut self, issuer: Principal, key: PublicKey) {
        let pair = self.secret.get().and_then(|secret| {
            let pair = self.pair(issuer, key.version);
            let shared = SecretKey::from_bytes(secret).pair(&key.bytes.0, &pair);
            shared
                .ok()
                .map(|shared| ByteBuf::from(shared.to_bytes().to_vec()))
        });
        self.issuers.insert(issuer, Row(Issuer { key, pair }));
    }

    pub fn distrust(&mut self, issuer: &Principal) {
        self.issuers.remove(issuer);
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

    fn pair(&self, issuer: Principal, issuer_key_version: u16) -> Pair {
        Pair {
            issuer,
            issuer_key_version,
            audience: self.own,
            audience_key_version: KEY_VERSION,
        }
    }

    /// What a token says, if it gives `scope` on `blob` (and `owner`'s reference to it) as `accessor`
    /// sees it.
    pub fn check(&self, text: &str, wanted: &Wanted, now_ms: u64) -> Result<Claims, TokenProblem> {
        if !self.has_secret() {
            return Err(TokenProblem::KeysNotReady);
        }
        let token = parse(text).map_err(problem)?;
        let issuer = token.issuer_for(&wanted.accessor).map_err(problem)?;
        let row = self
            .issuers
            .get(&issuer)
            .ok_or(TokenProblem::UnknownIssuer)?
            .0;
        let versions = (token.issuer_key_version(), token.audience_key_version());
        if versions != (row.key.version, KEY_VERSION) {
            return Err(TokenProblem::UnknownIssuer);
        }
        let pair = row
            .pair
            .and_then(|bytes| <[u8; 64]>::try_from(bytes.as_slice()).ok());
        let key = PairKey::from_bytes(&pair.ok_or(TokenProblem::UnknownIssuer)?);
        let expect = Expect {
            audience: self.own,
            accessor: wanted.accessor,
            blob: wanted.blob.0,
            owner: wanted.owner,
            scope: wanted.scope,
            now_ms,
        };
        let claims = token.check(&key, &expect).map_err(problem)?;
        // Taken back: as good as lapsed.
        if !self.revocations.is_empty() && self.is_revoked(wanted.accessor, &claims) {
            return Err(TokenProblem::Expired);
        }
        Ok(claims)
    }

    /// The chunks of a stored blob that `caller` must show to prove that it has the bytes: at most
    /// `max` different indexes below `count`, the same at each asking, unknown beforehand to anybody
    /// without this bucket's secret. None until the secret is drawn.
    pub fn challenge(
        &self,
        blob: &BlobId,
        caller: &Principal,
        count: u64,
        max: u64,
    ) -> Option<Vec<u32>> {
        let secret = self.secret.get().as_ref()?;
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

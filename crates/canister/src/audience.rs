//! Who checks tokens: a canister with keys of its own, and with what it shares under each of them with the issuers
//! that it believes.

use std::iter::once;

use candid::Principal;
use ic_stable_structures::{Memory, StableBTreeMap};
use openstorage_tokens::{Claims, Expect, InvalidKey, PAIR_KEY_BYTES, Pair, PairKey, Scope, parse};
use openstorage_types::{
    BlobId,
    bucket::TokenProblem,
    channel::{IssuerUpserted, PublicKey},
};

use crate::keys::{Keys, OwnKey};

/// The versions of an issuer's key and of the audience's, as part of a key in stable memory.
const fn versions(issuer: u16, own: u16) -> u32 {
    (issuer as u32) << 16 | own as u32
}

/// When an issuer's version lapses, milliseconds since 1970, and the [`PairKey`].
type Shared = (u64, [u8; PAIR_KEY_BYTES]);

/// Keeps its keys, and what it shares with issuers, in stable memory.
pub struct Audience<M: Memory> {
    /// This canister.
    own: Principal,
    pub keys: Keys<M>,
    /// By issuer and [`versions`].
    pairs: StableBTreeMap<(Principal, u32), Shared, M>,
}

/// What a token is needed for.
pub struct Wanted {
    pub scope: Scope,
    pub accessor: Principal,
    pub blob: BlobId,
    pub owner: Option<Principal>,
}

impl<M: Memory> Audience<M> {
    pub fn open(keys: M, pairs: M, own: Principal) -> Self {
        Self {
            own,
            keys: Keys::open(keys),
            pairs: StableBTreeMap::init(pairs),
        }
    }

    pub fn own(&self) -> Principal {
        self.own
    }

    /// Believes tokens of an issuer under the keys that are told, and under no other; `before` is what was told of it
    /// last. Costs several million instructions for each key that is new.
    ///
    /// # Errors
    /// Where none can be shared with one of the keys. Then nothing has changed.
    pub fn believe(
        &mut self,
        told: &IssuerUpserted,
        before: Option<&IssuerUpserted>,
    ) -> Result<(), InvalidKey> {
        let issuer = told.issuer;
        let mut pairs = vec![];
        for (key, until_ms) in keys(told) {
            // Another key may have come under the same version.
            let is_known = before.is_some_and(|before| keys(before).any(|(known, _)| known == key));
            for own in self.keys.all() {
                let at = (issuer, versions(key.version, own.version));
                let known = is_known.then(|| self.pairs.get(&at)).flatten();
                let pair = match known {
                    Some((_, pair)) => pair,
                    None => self.shared(issuer, &key, own)?,
                };
                pairs.push((at, (until_ms, pair)));
            }
        }
        self.forget(issuer);
        for (at, shared) in pairs {
            self.pairs.insert(at, shared);
        }
        Ok(())
    }

    /// Believes no token of an issuer.
    pub fn forget(&mut self, issuer: Principal) {
        let all = (issuer, 0)..=(issuer, u32::MAX);
        let useless: Vec<_> = self.pairs.keys_range(all).collect();
        for at in useless {
            self.pairs.remove(&at);
        }
    }

    fn shared(
        &self,
        issuer: Principal,
        key: &PublicKey,
        own: &OwnKey,
    ) -> Result<[u8; PAIR_KEY_BYTES], InvalidKey> {
        let pair = Pair {
            issuer,
            issuer_key_version: key.version,
            audience: self.own,
            audience_key_version: own.version,
        };
        Ok(own.secret().pair(&key.bytes.0, &pair)?.to_bytes())
    }

    /// The newest key is not told before all issuers share one with it.
    pub fn is_deriving(&self) -> bool {
        self.keys.derived_until().is_some()
    }

    /// Computes some of what the newest key shares with issuers, `max` of them at most: each costs some 4 M
    /// instructions for each version of the issuer's key. `after` gives those that are believed, in their order, from the
    /// first after one. True when it has just become the key that issuers are told.
    pub fn derive_slice<I>(&mut self, max: usize, after: impl FnOnce(Principal) -> I) -> bool
    where
        I: Iterator<Item = IssuerUpserted>,
    {
        let Some(until) = self.keys.derived_until() else {
            return false;
        };
        let next: Vec<_> = after(until).take(max).collect();
        for issuer in &next {
            // With keys that are believed one can be shared.
            let _ = self.believe(issuer, Some(issuer));
        }
        let is_done = next.len() < max;
        let last = next.last().map(|last| last.issuer);
        self.keys.set_derived_until(last.filter(|_| !is_done));
        is_done
    }

    /// What a token says, if it gives what is wanted.
    pub fn check(&self, text: &str, wanted: &Wanted, now_ms: u64) -> Result<Claims, TokenProblem> {
        if self.keys.is_empty() {
            return Err(TokenProblem::KeysNotReady);
        }
        let token = parse(text)?;
        let issuer = token.issuer_for(&wanted.accessor)?;
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
        Ok(token.check(&PairKey::from_bytes(&pair), &expect)?)
    }
}

/// The keys of an issuer that are told, each with the time from which it is refused.
fn keys(told: &IssuerUpserted) -> impl Iterator<Item = (PublicKey, u64)> {
    let older = told.older.iter().flatten();
    let older = older.map(|old| (old.key, old.until_ms));
    older.chain(once((told.key, u64::MAX)))
}

//! The chat's secret, and the keys it shares with the index and with buckets.

use candid::Principal;
use ic_stable_structures::{StableBTreeMap, StableCell};
use openstorage_tokens::{Grant, Pair, PairKey, SecretKey, issue};
use openstorage_types::channel::PublicKey;

use crate::memory::{self, Manager, Memory};

/// The only version of the chat's own key.
const VERSION: u16 = 1;

/// The peer's key version, and the [`PairKey`] shared with it.
type Shared = (u16, [u8; 64]);

pub struct Keys {
    /// This canister: the issuer.
    own: Principal,
    secret: StableCell<Option<[u8; 32]>, Memory>,
    index: StableCell<Option<Shared>, Memory>,
    buckets: StableBTreeMap<Principal, Shared, Memory>,
    /// Buckets of the index whose key is not known yet.
    awaited: StableBTreeMap<Principal, (), Memory>,
    /// The awaited bucket that was asked for last, so that one without a key holds up no other.
    asked: Principal,
}

impl Keys {
    pub fn open(manager: &Manager, own: Principal) -> Self {
        Self {
            own,
            secret: StableCell::init(manager.get(memory::SECRET), None),
            index: StableCell::init(manager.get(memory::INDEX_KEY), None),
            buckets: StableBTreeMap::init(manager.get(memory::BUCKET_KEYS)),
            awaited: StableBTreeMap::init(manager.get(memory::BUCKETS_AWAITED)),
            asked: Principal::management_canister(),
        }
    }

    /// None until the secret is drawn.
    pub fn public(&self) -> Option<PublicKey> {
        let secret = SecretKey::from_bytes((*self.secret.get())?);
        Some(PublicKey {
            version: VERSION,
            bytes: openstorage_types::BlobId(secret.public()),
        })
    }

    pub fn has_secret(&self) -> bool {
        self.secret.get().is_some()
    }

    pub fn has_index_key(&self) -> bool {
        self.index.get().is_some()
    }

    /// The first secret stays: tokens and peers rely on it.
    pub fn set_secret(&mut self, random: [u8; 32]) {
        if !self.has_secret() {
            self.secret.set(Some(random));
        }
    }

    /// Tells whether a key could be computed.
    pub fn set_index_key(&mut self, index: Principal, key: &PublicKey) -> bool {
        let shared = self.shared(index, key);
        let usable = shared.is_some();
        if usable {
            self.index.set(shared);
        }
        usable
    }

    /// The bucket is the index's; its key may still be missing.
    pub fn knows(&self, bucket: &Principal) -> bool {
        self.buckets.contains_key(bucket) || self.awaited.contains_key(bucket)
    }

    /// Takes in a bucket of the index. Without a usable key it is awaited. Tells whether the key is
    /// there now.
    pub fn set_bucket_key(&mut self, bucket: Principal, key: Option<&PublicKey>) -> bool {
        match key.and_then(|key| self.shared(bucket, key)) {
            Some(shared) => {
                self.awaited.remove(&bucket);
                self.buckets.insert(bucket, shared);
            }
            None if !self.buckets.contains_key(&bucket) => {
                self.awaited.insert(bucket, ());
            }
            None => {}
        }
        self.buckets.contains_key(&bucket)
    }

    /// The index does not know the bucket any more.
    pub fn forget_awaited(&mut self, bucket: &Principal) {
        self.awaited.remove(bucket);
    }

    pub fn any_awaited(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// The next bucket whose key is to be asked for, in turns.
    pub fn next_awaited(&mut self) -> Option<Principal> {
        let after = (
            std::ops::Bound::Excluded(self.asked),
            std::ops::Bound::Unbounded,
        );
        let next = self.awaited.keys_range(after).next();
        self.asked = next.or_else(|| self.awaited.keys().next())?;
        Some(self.asked)
    }

    /// A token for `bucket`; none while its key is missing.
    pub fn for_bucket(&self, bucket: Principal, grant: &Grant) -> Option<String> {
        self.token(bucket, self.buckets.get(&bucket)?, grant)
    }

    /// A token for the index; none while its key is missing.
    pub fn for_index(&self, index: Principal, grant: &Grant) -> Option<String> {
        self.token(index, (*self.index.get())?, grant)
    }

    fn token(&self, audience: Principal, shared: Shared, grant: &Grant) -> Option<String> {
        let (version, key) = shared;
        let key = PairKey::from_bytes(&key);
        issue(&key, &self.pair(audience, version), grant).ok()
    }

    fn shared(&self, peer: Principal, key: &PublicKey) -> Option<Shared> {
        let secret = SecretKey::from_bytes((*self.secret.get())?);
        let pair = self.pair(peer, key.version);
        let shared = secret.pair(&key.bytes.0, &pair).ok()?;
        Some((key.version, shared.to_bytes()))
    }

    fn pair(&self, audience: Principal, audience_key_version: u16) -> Pair {
        Pair {
            issuer: self.own,
            issuer_key_version: VERSION,
            audience,
            audience_key_version,
        }
    }
}

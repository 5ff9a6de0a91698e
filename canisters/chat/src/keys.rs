//! What the chat seals tokens with: keys of its own, and what it shares under each with the index and with
//! buckets.
//!
//! A new key of the chat, or of a bucket, is used from the start of a read token's next window: URLs stay the
//! same for hours, and by then everybody knows the key. A version that is revoked is replaced at once.

use std::{
    borrow::Cow,
    ops::Bound::{Excluded, Unbounded},
};

use candid::{CandidType, Principal};
use ic_stable_structures::{StableBTreeMap, StableCell, Storable, storable::Bound};
use openstorage_canister::Row;
use openstorage_tokens::{Grant, PAIR_KEY_BYTES, Pair, PairKey, SecretKey, issue};
use openstorage_types::{
    BlobId,
    channel::{PublicKey, RevokeKeyError, RotateKeyError},
    index::{BucketKey, RegisterIssuerOk},
    limits::{
        CLOCK_SKEW_MS, KEY_HEARD_MS, KEY_LIFE_MS, KEY_OVERLAP_MS, KEY_REFRESH_MS,
        READ_TOKEN_LIFE_MS, READ_TOKEN_WINDOW_MS,
    },
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::memory::{self, Manager, Memory};

/// A bucket that had no usable key is asked for again after so long.
const AWAITED_MS: u64 = 1_000;

/// After it was told, a bucket's key is good for tokens for so long at least, whenever it is replaced: the last of
/// them has its whole life.
const TOLD_MS: u64 = KEY_OVERLAP_MS - READ_TOKEN_LIFE_MS - CLOCK_SKEW_MS;

/// Buckets for which keys are computed in one message: some 4 M instructions for each, and as much again for
/// each key that is about to be replaced.
const BUCKETS_PER_SLICE: usize = 20;

/// Versions of the chat's own key that it seals with: the newest, and while that is not used yet the one before.
const OWN_MAX: usize = 2;

/// One version of the chat's key. Times are in milliseconds since 1970.
#[derive(CandidType, Serialize, Deserialize, Clone)]
struct OwnKey {
    version: u16,
    secret: ByteArray<32>,
    public: ByteArray<32>,
    drawn_ms: u64,
    /// Tokens that are issued from then on are sealed with it; none until the index trusts it.
    from_ms: Option<u64>,
    /// What it shares with the index, and the key of the index for which that holds.
    index: Option<(PublicKey, ByteArray<PAIR_KEY_BYTES>)>,
}

impl OwnKey {
    fn public(&self) -> PublicKey {
        PublicKey {
            version: self.version,
            bytes: BlobId(*self.public),
        }
    }

    fn shared(
        &self,
        own: Principal,
        peer: Principal,
        key: &PublicKey,
    ) -> Option<[u8; PAIR_KEY_BYTES]> {
        let pair = self.pair(own, peer, key.version);
        let secret = SecretKey::from_bytes(*self.secret);
        Some(secret.pair(&key.bytes.0, &pair).ok()?.to_bytes())
    }

    fn pair(&self, own: Principal, audience: Principal, audience_key_version: u16) -> Pair {
        Pair {
            issuer: own,
            issuer_key_version: self.version,
            audience,
            audience_key_version,
        }
    }
}

#[derive(CandidType, Serialize, Deserialize, Clone, Default)]
struct Ring {
    /// At most [`OWN_MAX`], the newest last.
    keys: Vec<OwnKey>,
    /// The lowest version that the next key may have: the index may have seen versions that are forgotten here.
    next_version: u16,
    /// A new key is to be drawn before its time.
    wanted: bool,
    /// Replaced versions of which the index has yet to hear that they are revoked.
    revoked: Vec<u16>,
    /// When the index has confirmed the newest key last.
    confirmed_ms: u64,
    /// Buckets up to this one share a key with the newest version; none when all do.
    derived_until: Option<Principal>,
}

/// What the chat knows of a bucket.
#[derive(CandidType, Serialize, Deserialize, Clone)]
struct Bucket {
    /// None until the bucket has one.
    key: Option<PublicKey>,
    /// Tokens that are issued from then on are sealed for that key.
    from_ms: u64,
    /// The key before, until then.
    before: Option<PublicKey>,
    /// When the index is asked again.
    due_ms: u64,
    /// When the index has told `key` last; none in rows of before that was noted.
    told_ms: Option<u64>,
}

/// What the chat shares with a bucket under one version of its own key and one of the bucket's.
struct SharedKey {
    own_version: u16,
    bucket_version: u16,
    /// Tokens that are issued before are sealed for the bucket's key before.
    from_ms: u64,
    key: [u8; PAIR_KEY_BYTES],
}

/// Up to four records of 108 bytes: two versions of 2 bytes, a time of 8, all little-endian, and a [`PairKey`].
struct SharedKeys(Vec<SharedKey>);

const SHARED_KEY_BYTES: usize = 12 + PAIR_KEY_BYTES;
const SHARED_KEYS_MAX: usize = 2 * OWN_MAX;

impl Storable for SharedKeys {
    const BOUND: Bound = Bound::Bounded {
        max_size: (SHARED_KEYS_MAX * SHARED_KEY_BYTES) as u32,
        is_fixed_size: false,
    };

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        let mut bytes = Vec::with_capacity(self.0.len() * SHARED_KEY_BYTES);
        for shared in &self.0 {
            bytes.extend(shared.own_version.to_le_bytes());
            bytes.extend(shared.bucket_version.to_le_bytes());
            bytes.extend(shared.from_ms.to_le_bytes());
            bytes.extend(shared.key);
        }
        bytes.into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        let records = bytes.as_chunks::<SHARED_KEY_BYTES>().0;
        let number = |bytes: &[u8]| u16::from_le_bytes(bytes.try_into().expect("2 bytes"));
        Self(
            records
                .iter()
                .map(|record| SharedKey {
                    own_version: number(&record[..2]),
                    bucket_version: number(&record[2..4]),
                    from_ms: u64::from_le_bytes(record[4..12].try_into().expect("8 bytes")),
                    key: record[12..].try_into().expect("the key's bytes"),
                })
                .collect(),
        )
    }
}

pub struct Keys {
    /// This canister: the issuer.
    own: Principal,
    /// Read from memory once.
    ring: StableCell<Row<Ring>, Memory>,
    buckets: StableBTreeMap<Principal, Row<Bucket>, Memory>,
    shared: StableBTreeMap<Principal, SharedKeys, Memory>,
    /// (when, bucket): whose keys the index is to be asked for next.
    due: StableBTreeMap<(u64, Principal), (), Memory>,
}

/// The start of the first window of read tokens by which what is told now has been heard.
fn next_window(now_ms: u64) -> u64 {
    (now_ms + KEY_HEARD_MS).next_multiple_of(READ_TOKEN_WINDOW_MS)
}

impl Keys {
    pub fn open(manager: &Manager, own: Principal) -> Self {
        Self {
            own,
            ring: StableCell::init(manager.get(memory::OWN_KEYS), Row(Ring::default())),
            buckets: StableBTreeMap::init(manager.get(memory::BUCKETS)),
            shared: StableBTreeMap::init(manager.get(memory::SHARED_KEYS)),
            due: StableBTreeMap::init(manager.get(memory::BUCKETS_DUE)),
        }
    }

    fn ring(&self) -> &Ring {
        &self.ring.get().0
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Ring) -> T) -> T {
        let mut ring = self.ring().clone();
        let done = change(&mut ring);
        self.ring.set(Row(ring));
        done
    }

    // The chat's own key.

    /// The newest; none until one is drawn.
    pub fn public(&self) -> Option<PublicKey> {
        Some(self.ring().keys.last()?.public())
    }

    /// The index trusts the chat under some key.
    pub fn is_trusted(&self) -> bool {
        self.ring().keys.iter().any(|key| key.from_ms.is_some())
    }

    /// The newest key is not the index's yet.
    pub fn is_unconfirmed(&self) -> bool {
        let newest = self.ring().keys.last();
        newest.is_some_and(|key| key.from_ms.is_none())
    }

    /// When a key is to be drawn: 0 for at once.
    pub fn draw_due_ms(&self) -> u64 {
        let ring = self.ring();
        match ring.keys.last() {
            None => 0,
            // One after the other.
            Some(newest) => newest.from_ms.map_or(u64::MAX, |from_ms| {
                let want_ms = match ring.wanted {
                    true => 0,
                    false => newest.drawn_ms + KEY_LIFE_MS,
                };
                match ring.keys.len() < OWN_MAX {
                    true => want_ms,
                    false => want_ms.max(from_ms),
                }
            }),
        }
    }

    /// When the index is to confirm the newest key again: it may have been restored from a snapshot.
    pub fn confirm_due_ms(&self) -> u64 {
        match self.is_unconfirmed() {
            true => 0,
            false => self.ring().confirmed_ms + KEY_REFRESH_MS,
        }
    }

    /// A version that the index has to revoke. It does so only once it knows the one that has replaced it.
    pub fn to_revoke(&self) -> Option<u16> {
        let ring = self.ring();
        let newest = ring.keys.last();
        let known = newest.map_or(0, |newest| match newest.from_ms {
            Some(_) => newest.version,
            // Versions rise by one.
            None => newest.version.saturating_sub(1),
        });
        let mut revoked = ring.revoked.iter().copied();
        revoked.find(|version| *version < known)
    }

    /// A controller wants a new key. Wanting one that is about to be drawn is no error.
    pub fn want(&mut self, now_ms: u64) -> Result<(), RotateKeyError> {
        let ring = self.ring();
        let used_ms = ring.keys.last().and_then(|newest| newest.from_ms);
        if let Some(ms) = used_ms.filter(|ms| ring.keys.len() >= OWN_MAX && now_ms < *ms) {
            let max = OWN_MAX as u32;
            return Err(RotateKeyError::TooManyKeyVersions { max, ms });
        }
        self.change(|ring| ring.wanted = true);
        Ok(())
    }

    /// Takes 32 random bytes for the next version, where one is due: the same question may be answered twice.
    pub fn add(&mut self, random: [u8; 32], now_ms: u64) {
        if now_ms < self.draw_due_ms() {
            return;
        }
        let public = SecretKey::from_bytes(random).public();
        self.change(|ring| {
            // Of those before, the one in use stays until the new one is.
            let first = ring.keys.len().saturating_sub(1);
            ring.keys.drain(..first);
            let above = ring
                .keys
                .last()
                .map_or(1, |key| key.version.wrapping_add(1));
            let version = ring.next_version.max(above).max(1);
            ring.keys.push(OwnKey {
                version,
                secret: random.into(),
                public: public.into(),
                drawn_ms: now_ms,
                from_ms: None,
                index: None,
            });
            ring.next_version = 0;
            ring.wanted = false;
        });
    }

    /// The index trusts `key`, and has told its own, and which versions of the chat's are believed. False when that is of
    /// no use: tokens cannot be issued.
    pub fn confirmed(
        &mut self,
        index: Principal,
        key: &PublicKey,
        told: &RegisterIssuerOk,
        now_ms: u64,
    ) -> bool {
        let own = self.own;
        let index_key = &told.index_key;
        let Some(newest) = self.ring().keys.last().filter(|own| own.public() == *key) else {
            // It is about a key that has been replaced since: ask again.
            return true;
        };
        let shared = match &newest.index {
            Some((known, shared)) if known == index_key => Some(*shared),
            _ => newest.shared(own, index, index_key).map(ByteArray::from),
        };
        let Some(shared) = shared else {
            return false;
        };
        let is_new = newest.from_ms.is_none();
        let oldest = told.oldest_version.unwrap_or(0).min(key.version);
        self.change(|ring| {
            ring.keys.retain(|key| key.version >= oldest);
            let is_only = ring.keys.len() == 1;
            if let Some(newest) = ring.keys.last_mut() {
                newest.index = Some((*index_key, shared));
                // Nothing else is left to seal with, or all of this window's tokens are sealed with the version before.
                newest.from_ms = match newest.from_ms {
                    _ if is_only => Some(0),
                    None => Some(next_window(now_ms)),
                    known => known,
                };
            }
            ring.confirmed_ms = now_ms;
            if is_new {
                ring.derived_until = Some(Principal::management_canister());
            }
        });
        true
    }

    /// The index has known other keys of the chat than the chat remembers: one of the two was made anew, or
    /// restored from a snapshot. Versions from `expected` on are the chat's alone: nobody believes tokens under
    /// them, and the next key is used at once where no other is left.
    pub fn renumber(&mut self, expected: u16) {
        self.change(|ring| {
            let mut newest = ring.keys.pop_if(|newest| newest.from_ms.is_none());
            ring.keys.retain(|key| key.version < expected);
            match &mut newest {
                Some(newest) => {
                    newest.version = expected;
                    newest.index = None;
                }
                None => {
                    ring.next_version = expected;
                    ring.wanted = true;
                }
            }
            ring.keys.extend(newest);
        });
    }

    /// The index believes as many versions as it may, of which `oldest` goes first. Where none of them is left here, they
    /// are of a chat that was made anew or restored: it gives one up rather than wait two days for its next key.
    pub fn make_room(&mut self, oldest: u16) {
        self.change(|ring| {
            ring.keys
                .retain(|key| key.from_ms.is_none() || key.version >= oldest);
            if ring.keys.iter().all(|key| key.from_ms.is_none()) && !ring.revoked.contains(&oldest)
            {
                ring.revoked.push(oldest);
            }
        });
    }

    /// Tokens under a replaced version are no longer issued, and the index is to hear that they are not to be
    /// believed. Revoking one again is no error.
    pub fn revoke(&mut self, version: u16) -> Result<(), RevokeKeyError> {
        let newest = self.public().map_or(0, |key| key.version);
        if version >= newest {
            return Err(RevokeKeyError::CurrentKey { version: newest });
        }
        self.change(|ring| {
            ring.keys.retain(|key| key.version != version);
            // Nothing else is left to issue with: URLs change at once.
            if let [newest] = &mut ring.keys[..] {
                newest.from_ms = newest.from_ms.map(|_| 0);
            }
            if !ring.revoked.contains(&version) {
                ring.revoked.push(version);
            }
        });
        Ok(())
    }

    /// The index has heard that a version is revoked.
    pub fn revoked(&mut self, version: u16) {
        self.change(|ring| ring.revoked.retain(|revoked| *revoked != version));
    }

    // The keys of buckets.

    /// The bucket is the index's; its key may still be missing.
    pub fn knows(&self, bucket: &Principal) -> bool {
        self.buckets.contains_key(bucket)
    }

    /// Takes in a bucket of the index. Without a usable key it is awaited. Tells whether the key is
    /// there now.
    pub fn set_bucket_key(
        &mut self,
        bucket: Principal,
        told: Option<&BucketKey>,
        now_ms: u64,
    ) -> bool {
        let known = self.buckets.get(&bucket).map(|row| row.0);
        let told = told.filter(|told| self.can_share(bucket, &told.public()));
        let (key, from_ms, before) = match (&known, told) {
            (Some(known), None) => (known.key, known.from_ms, known.before),
            (None, None) => (None, 0, None),
            (known, Some(told)) => {
                let (from_ms, before) = self.take_over(known.as_ref(), told, now_ms);
                (Some(told.public()), from_ms, before)
            }
        };
        let due_ms = now_ms
            + match key.is_some() {
                true => KEY_REFRESH_MS,
                false => AWAITED_MS,
            };
        let is_same = known
            .as_ref()
            .is_some_and(|known| (known.key, known.before) == (key, before));
        let told_ms = match told {
            Some(_) => Some(now_ms),
            None => known.as_ref().and_then(|known| known.told_ms),
        };
        if let Some(known) = known {
            self.due.remove(&(known.due_ms, bucket));
        }
        self.due.insert((due_ms, bucket), ());
        let row = Bucket {
            key,
            from_ms,
            before,
            due_ms,
            told_ms,
        };
        self.buckets.insert(bucket, Row(row));
        if !is_same {
            self.derive(bucket);
        }
        key.is_some()
    }

    /// From when on a key that is told is used, and which one until then.
    fn take_over(
        &self,
        known: Option<&Bucket>,
        told: &BucketKey,
        now_ms: u64,
    ) -> (u64, Option<PublicKey>) {
        let Some(known) = known else {
            return (0, None);
        };
        let is_known = known.key == Some(told.public());
        let before = if is_known { known.before } else { known.key };
        // A lower version than before is of a bucket that was restored from a snapshot.
        let oldest = told.oldest_version.unwrap_or(0);
        let before = before.filter(|key| (oldest..told.version).contains(&key.version));
        match (before, is_known) {
            (None, _) => (0, None),
            (Some(_), true) if known.from_ms <= now_ms => (0, None),
            (Some(_), true) => (known.from_ms, before),
            (Some(_), false) => {
                let from_ms = next_window(now_ms);
                // Not told for long, the chat does not know how long ago the key before was replaced.
                match known.told_ms.is_none_or(|ms| from_ms <= ms + TOLD_MS) {
                    true => (from_ms, before),
                    false => (0, None),
                }
            }
        }
    }

    /// False for a key whose points are of small order.
    fn can_share(&self, bucket: Principal, key: &PublicKey) -> bool {
        let newest = self.ring().keys.last();
        newest.is_none_or(|own| own.shared(self.own, bucket, key).is_some())
    }

    /// Computes what the chat shares with a bucket.
    fn derive(&mut self, bucket: Principal) {
        let Some(Row(row)) = self.buckets.get(&bucket) else {
            return;
        };
        let mut shared = vec![];
        for own in &self.ring().keys {
            let keys = [(row.before, 0), (row.key, row.from_ms)];
            for (key, from_ms) in keys {
                let Some(key) = key else { continue };
                shared.extend(own.shared(self.own, bucket, &key).map(|bytes| SharedKey {
                    own_version: own.version,
                    bucket_version: key.version,
                    from_ms,
                    key: bytes,
                }));
            }
        }
        self.shared.insert(bucket, SharedKeys(shared));
    }

    /// Buckets do not share a key with the chat's newest version yet.
    pub fn is_deriving(&self) -> bool {
        self.ring().derived_until.is_some()
    }

    /// Computes some of what a new key shares with buckets.
    pub fn derive_slice(&mut self) {
        let Some(after) = self.ring().derived_until else {
            return;
        };
        let next = self.buckets.keys_range((Excluded(after), Unbounded));
        let next: Vec<_> = next.take(BUCKETS_PER_SLICE).collect();
        for bucket in &next {
            self.derive(*bucket);
        }
        let is_done = next.len() < BUCKETS_PER_SLICE;
        let until = next.last().copied().filter(|_| !is_done);
        self.change(|ring| ring.derived_until = until);
    }

    /// The index does not know the bucket. One whose key the chat has stays: the index may have been restored
    /// from a snapshot.
    pub fn not_found(&mut self, bucket: Principal, now_ms: u64) {
        let Some(Row(known)) = self.buckets.get(&bucket) else {
            return;
        };
        if known.key.is_some() {
            self.set_bucket_key(bucket, None, now_ms);
        } else {
            self.due.remove(&(known.due_ms, bucket));
            self.buckets.remove(&bucket);
        }
    }

    /// A bucket's key is asked for an hour later.
    pub fn postpone(&mut self, bucket: Principal, now_ms: u64) {
        let Some(Row(mut known)) = self.buckets.get(&bucket) else {
            return;
        };
        self.due.remove(&(known.due_ms, bucket));
        known.due_ms = now_ms + KEY_REFRESH_MS;
        self.due.insert((known.due_ms, bucket), ());
        self.buckets.insert(bucket, Row(known));
    }

    /// The bucket whose key is to be asked for next, and when.
    pub fn next_due(&self) -> Option<(u64, Principal)> {
        self.due.first_key_value().map(|(due, ())| due)
    }

    // Tokens.

    /// A token for `bucket`; none while a key is missing.
    pub fn for_bucket(&self, bucket: Principal, grant: &Grant) -> Option<String> {
        let shared = self.shared.get(&bucket)?.0;
        let is_used = |from_ms: u64| from_ms <= grant.iat_ms;
        let own = self.ring().keys.iter().rev();
        let own = own.filter(|own| own.from_ms.is_some_and(is_used));
        let mut usable = own.filter_map(|own| {
            let mut shared = shared.iter().rev();
            let shared = shared
                .find(|shared| shared.own_version == own.version && is_used(shared.from_ms))?;
            Some((own, shared))
        });
        let (own, shared) = usable.next()?;
        let pair = own.pair(self.own, bucket, shared.bucket_version);
        issue(&PairKey::from_bytes(&shared.key), &pair, grant).ok()
    }

    /// A token for the index; none while its key is missing. The index knows a new key of the chat at once.
    pub fn for_index(&self, index: Principal, grant: &Grant) -> Option<String> {
        let mut keys = self.ring().keys.iter().rev();
        let (own, (index_key, shared)) = keys
            .find_map(|own| Some((own, own.index.as_ref().filter(|_| own.from_ms.is_some())?)))?;
        let pair = own.pair(self.own, index, index_key.version);
        issue(&PairKey::from_bytes(shared), &pair, grant).ok()
    }
}

//! The keys of a canister that checks tokens. The newest is the one that issuers are told; tokens under replaced
//! ones are believed until the last of them has lapsed, or the version is revoked.

use candid::{CandidType, Principal};
use ic_stable_structures::{Memory, StableCell};
use openstorage_tokens::SecretKey;
use openstorage_types::{
    BlobId,
    channel::{PublicKey, RevokeKeyError, RotateKeyError},
    limits::{KEY_LIFE_MS, KEY_OVERLAP_MS, KEY_VERSIONS_MAX},
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::Row;

/// One version of the key.
#[derive(CandidType, Serialize, Deserialize, Clone)]
pub struct OwnKey {
    pub version: u16,
    secret: ByteArray<32>,
    public: ByteArray<32>,
    /// Milliseconds since 1970, as all times.
    drawn_ms: u64,
    /// From then on its tokens are refused; none for the newest.
    until_ms: Option<u64>,
}

impl OwnKey {
    pub(crate) fn secret(&self) -> SecretKey {
        SecretKey::from_bytes(*self.secret)
    }

    pub fn secret_bytes(&self) -> &[u8; 32] {
        &self.secret
    }

    fn public(&self) -> PublicKey {
        PublicKey {
            version: self.version,
            bytes: BlobId(*self.public),
        }
    }

    fn is_living(&self, now_ms: u64) -> bool {
        self.until_ms.is_none_or(|until_ms| now_ms < until_ms)
    }
}

#[derive(CandidType, Serialize, Deserialize, Clone, Default)]
struct Ring {
    /// At most [`KEY_VERSIONS_MAX`], the newest last.
    keys: Vec<OwnKey>,
    /// A controller wants another.
    wanted: bool,
    /// Issuers up to this one share a key with the newest version; none when all do. Until then issuers are
    /// told the version before.
    derived_until: Option<Principal>,
}

/// Read from memory once: each check of a token looks here.
pub struct Keys<M: Memory>(StableCell<Row<Ring>, M>);

impl<M: Memory> Keys<M> {
    pub fn open(memory: M) -> Self {
        Self(StableCell::init(memory, Row(Ring::default())))
    }

    fn ring(&self) -> &Ring {
        &self.0.get().0
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Ring) -> T) -> T {
        let mut ring = self.ring().clone();
        let done = change(&mut ring);
        self.0.set(Row(ring));
        done
    }

    pub fn is_empty(&self) -> bool {
        self.ring().keys.is_empty()
    }

    /// Every version that is there, the newest last; some may have lapsed.
    pub fn all(&self) -> &[OwnKey] {
        &self.ring().keys
    }

    /// Tokens under this version are believed.
    pub fn is_living(&self, version: u16, now_ms: u64) -> bool {
        let mut keys = self.ring().keys.iter().rev();
        keys.find(|key| key.version == version)
            .is_some_and(|key| key.is_living(now_ms))
    }

    /// The newest key, once every issuer that was known when it was drawn can use it.
    pub fn public(&self) -> Option<PublicKey> {
        let ring = self.ring();
        let told = ring.keys.len() - usize::from(ring.derived_until.is_some() && !self.is_empty());
        Some(ring.keys[..told].last()?.public())
    }

    /// Tokens under older versions are refused.
    pub fn oldest_version(&self) -> Option<u16> {
        Some(self.ring().keys.first()?.version)
    }

    /// When a key is to be drawn: 0 for at once. One after the other: not before issuers are told the one before.
    pub fn due_ms(&self) -> u64 {
        let ring = self.ring();
        let (Some(oldest), Some(newest)) = (ring.keys.first(), ring.keys.last()) else {
            return 0;
        };
        if ring.derived_until.is_some() {
            return u64::MAX;
        }
        let room_ms = match ring.keys.len() < KEY_VERSIONS_MAX {
            true => 0,
            false => oldest.until_ms.unwrap_or(0),
        };
        let want_ms = match ring.wanted {
            true => 0,
            false => newest.drawn_ms + KEY_LIFE_MS,
        };
        room_ms.max(want_ms)
    }

    /// A controller wants a new key. Wanting one that is about to be drawn is no error.
    pub fn want(&mut self, now_ms: u64) -> Result<(), RotateKeyError> {
        let living = self.all().iter().filter(|key| key.is_living(now_ms));
        if living.count() >= KEY_VERSIONS_MAX {
            return Err(RotateKeyError::TooManyKeyVersions {
                max: KEY_VERSIONS_MAX as u32,
                ms: self.all()[0].until_ms.unwrap_or(now_ms),
            });
        }
        self.change(|ring| ring.wanted = true);
        Ok(())
    }

    /// Takes 32 random bytes for the next version; false when none is due, since the same question may be
    /// answered twice.
    pub fn add(&mut self, random: [u8; 32], now_ms: u64) -> bool {
        if now_ms < self.due_ms() {
            return false;
        }
        let newest = self.all().last().map_or(0, |key| key.version);
        let Some(version) = newest.checked_add(1) else {
            return false;
        };
        let public = SecretKey::from_bytes(random).public();
        self.change(|ring| {
            ring.keys.retain(|key| key.is_living(now_ms));
            if let Some(replaced) = ring.keys.last_mut() {
                replaced.until_ms = Some(now_ms + KEY_OVERLAP_MS);
            }
            ring.keys.push(OwnKey {
                version,
                secret: random.into(),
                public: public.into(),
                drawn_ms: now_ms,
                until_ms: None,
            });
            ring.wanted = false;
            ring.derived_until = Some(Principal::management_canister());
        });
        true
    }

    /// Tokens under a replaced version are believed no longer. Revoking one that is not there is no error.
    pub fn revoke(&mut self, version: u16) -> Result<(), RevokeKeyError> {
        // Issuers still use what they are told.
        let newest = self.public().map_or(0, |key| key.version);
        if version >= newest {
            return Err(RevokeKeyError::CurrentKey { version: newest });
        }
        self.change(|ring| ring.keys.retain(|key| key.version != version));
        Ok(())
    }

    /// The last issuer that shares a key with the newest version, while there are others left.
    pub fn derived_until(&self) -> Option<Principal> {
        self.ring().derived_until
    }

    pub fn set_derived_until(&mut self, issuer: Option<Principal>) {
        self.change(|ring| ring.derived_until = issuer);
    }
}

//! Tokens that are believed no longer, until they would have lapsed anyway.

use candid::Principal;
use ic_stable_structures::StableBTreeMap;
use openstorage_tokens::derived_accessor;
use openstorage_types::{
    channel::Revoked,
    index::{RevokeArgs, RevokeError},
    limits::{CLOCK_SKEW_MS, DERIVED_NAME_BYTES_MAX, READ_TOKEN_LIFE_MS, REVOCATIONS_MAX},
};

use crate::{Context, Index, memory::Memory, sync::revocation_event};

/// No token of before lives longer than this after the time from which tokens are believed.
const KEPT_MS: u64 = READ_TOKEN_LIFE_MS + CLOCK_SKEW_MS;

/// Stands for everybody.
const ALL: Principal = Principal::management_canister();

pub struct Revocations {
    /// (accessor, user) → the earliest issue time that is believed, milliseconds since 1970.
    rows: StableBTreeMap<(Principal, Principal), u64, Memory>,
}

impl Revocations {
    pub fn init(rows: Memory) -> Self {
        Self {
            rows: StableBTreeMap::init(rows),
        }
    }

    pub fn len(&self) -> u64 {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// In key order, from the first after `after`.
    pub fn after(
        &self,
        after: (Principal, Principal),
    ) -> impl Iterator<Item = ((Principal, Principal), Revoked)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.rows
            .range((Excluded(after), Unbounded))
            .map(|entry| (*entry.key(), revoked(*entry.key(), entry.value())))
    }

    /// Drops what has lapsed. Returns when the first of the others does.
    fn lapse(&mut self, now_ms: u64) -> u64 {
        let lapsed = |min_iat_ms: u64| min_iat_ms + KEPT_MS <= now_ms;
        let rows = self.rows.iter().map(|entry| (*entry.key(), entry.value()));
        let (old, others): (Vec<_>, Vec<_>) = rows.partition(|(_, min)| lapsed(*min));
        for (key, _) in old {
            self.rows.remove(&key);
        }
        let first = others.into_iter().map(|(_, min)| min).min();
        first.map_or(now_ms, |min| min + KEPT_MS)
    }
}

fn revoked((accessor_id, user): (Principal, Principal), min_iat_ms: u64) -> Revoked {
    Revoked {
        accessor_id,
        user: (user != ALL).then_some(user),
        min_iat_ms,
        until_ms: min_iat_ms + KEPT_MS,
    }
}

impl Index {
    /// An issuer takes back tokens that it has issued. Taking them back again is no error.
    pub fn revoke(&mut self, context: &Context, args: &RevokeArgs) -> Result<(), RevokeError> {
        if !self.issuers.contains(&context.caller) {
            return Err(RevokeError::NotAuthorized);
        }
        let accessor = match &args.dn {
            None => context.caller,
            Some(dn) if dn.len() <= DERIVED_NAME_BYTES_MAX => derived_accessor(&context.caller, dn),
            Some(_) => {
                let max = DERIVED_NAME_BYTES_MAX as u32;
                return Err(RevokeError::InvalidName { max });
            }
        };
        let now_ms = context.now_ms;
        let earliest_ms = now_ms.saturating_sub(KEPT_MS);
        if !(earliest_ms..=now_ms + CLOCK_SKEW_MS).contains(&args.min_iat_ms) {
            return Err(RevokeError::InvalidTime {
                now_ms,
                earliest_ms,
            });
        }
        let key = (accessor, args.user.unwrap_or(ALL));
        let known = self.revocations.rows.get(&key);
        if known.is_some_and(|known| known >= args.min_iat_ms) {
            return Ok(());
        }
        if known.is_none() && self.revocations.len() >= u64::from(REVOCATIONS_MAX) {
            let ms = self.revocations.lapse(now_ms);
            if self.revocations.len() >= u64::from(REVOCATIONS_MAX) {
                let max = REVOCATIONS_MAX;
                return Err(RevokeError::TooManyRevocations { max, ms });
            }
        }
        self.revocations.rows.insert(key, args.min_iat_ms);
        self.tell(context, revocation_event(&revoked(key, args.min_iat_ms)));
        Ok(())
    }
}

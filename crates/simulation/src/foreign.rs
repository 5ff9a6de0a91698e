//! Another app: a canister that is trusted as an issuer and does what it is told, and so calls what only canisters may.

use std::collections::BTreeMap;

use candid::{Principal, decode_one, encode_one};
use openstorage_localnet::network::Reject;
use openstorage_tokens::{Grant, Pair, Scope, SecretKey, derived_accessor, issue};
use openstorage_types::{
    BlobId,
    bucket::{BucketStatus, ReadChunkArgs, ReadChunkError, ReadChunkOk},
    channel::{EventsArgs, EventsError, EventsOk, PublicKey, Stamp},
    index::{RevokeArgs, RevokeError},
    limits::{CLOCK_SKEW_MS, READ_TOKEN_LIFE_MS},
};
use openstorage_universal::{Call, Program};

use crate::{Violation, clients::Op, ensure, model::Fact, run::Run, stage::operator};

/// The rooms of the app: names of its accessors.
const ROOMS: [&[u8]; 2] = [b"one", b"two"];
/// Longer than a message takes that revokes.
const SECOND_MS: u64 = 1_000;

fn secret() -> SecretKey {
    SecretKey::from_bytes([77; 32])
}

pub fn key() -> PublicKey {
    PublicKey {
        version: 1,
        bytes: BlobId(secret().public()),
    }
}

/// What the app made sure of.
#[derive(Default)]
pub struct Foreign {
    /// (room, user) → tokens that were issued before are not believed.
    revoked: BTreeMap<(usize, Principal), u64>,
}

impl Foreign {
    /// The index may have forgotten some.
    pub fn forget(&mut self) {
        self.revoked.clear();
    }
}

impl Run<'_> {
    /// The accessors of the app.
    pub fn foreign_rooms(&self) -> impl Iterator<Item = Principal> {
        let app = self.stage.foreign;
        ROOMS
            .into_iter()
            .map(move |name| derived_accessor(&app, name))
    }

    /// The app takes back a user's tokens for a room; or calls a bucket as if it were the index.
    pub fn foreign_calls(&mut self) {
        let (app, index) = (self.stage.foreign, self.stage.index);
        let user = self.any_user();
        let (callee, method, arg, op) = match self.dice.one_in(3) {
            true => {
                let args = EventsArgs {
                    from_stamp: Stamp::default(),
                    events: vec![],
                    counters: vec![],
                    report: None,
                    heard: Stamp::default(),
                    version: u64::MAX / 2,
                };
                (
                    self.any_bucket(),
                    "c2c_events",
                    encode_one(args),
                    Op::Forged,
                )
            }
            false => {
                let room = self.dice.below(ROOMS.len());
                let min_iat_ms = self.stage.now_ms();
                let args = RevokeArgs {
                    dn: Some(ROOMS[room].to_vec().into()),
                    user: Some(user),
                    min_iat_ms,
                };
                let op = Op::Revoke {
                    room,
                    user,
                    min_iat_ms,
                };
                (index, "c2c_revoke", encode_one(args), op)
            }
        };
        let arg = arg.expect("arguments have a Candid form");
        let call = Call::new(callee.as_slice(), method)
            .payload(arg)
            .on_reply(Program::new().arg().append().answer());
        let program = Program::new().call(call);
        self.send_raw(app, user, "update", program.bytes().to_vec(), op);
    }

    pub fn revoked(&mut self, room: usize, user: Principal, min_iat_ms: u64, reply: &[u8]) {
        let answer: Result<Result<(), RevokeError>, _> = decode_one(reply);
        if let Ok(Ok(())) = answer {
            let known = self.foreign.revoked.entry((room, user)).or_default();
            *known = min_iat_ms.max(*known);
        }
    }

    pub fn forged(&mut self, reply: &[u8]) -> Option<String> {
        let answer: Result<Result<EventsOk, EventsError>, _> = decode_one(reply);
        let is_refused = matches!(answer, Ok(Err(EventsError::NotAuthorized)));
        (!is_refused).then(|| format!("a stranger's events: {answer:?}"))
    }

    /// At rest: tokens that were taken back open nothing, later ones do.
    pub fn check_revocations(&mut self) -> Result<(), Violation> {
        for ((room, user), min_iat_ms) in self.foreign.revoked.clone() {
            let accessor = derived_accessor(&self.stage.foreign, ROOMS[room]);
            let of_room = self
                .model
                .refs()
                .find(|(it, fact)| it.3 == accessor && *fact == Fact::Present)
                .map(|(it, _)| (it.0, it.1));
            let Some((bucket, blob)) = of_room else {
                continue;
            };
            let now_ms = self.stage.now_ms();
            for (iat_ms, is_good) in [
                (min_iat_ms.saturating_sub(SECOND_MS), false),
                (now_ms, now_ms > min_iat_ms),
            ] {
                if iat_ms + READ_TOKEN_LIFE_MS <= now_ms + CLOCK_SKEW_MS {
                    continue;
                }
                let answer = self.foreign_read(bucket, blob, room, user, iat_ms)?;
                let is_right = match (&answer, is_good) {
                    (Ok(Ok(_)), true) => true,
                    (Ok(Err(ReadChunkError::InvalidToken(_))), false) => true,
                    (_, is_good) => is_good && now_ms <= min_iat_ms,
                };
                ensure(is_right, 14, || {
                    format!(
                        "tokens of {user} for {accessor} in {bucket} are believed from {min_iat_ms}, and one of {iat_ms}: {answer:?}"
                    )
                })?;
            }
        }
        Ok(())
    }

    fn foreign_read(
        &mut self,
        bucket: Principal,
        blob: usize,
        room: usize,
        user: Principal,
        iat_ms: u64,
    ) -> Result<Result<Result<ReadChunkOk, ReadChunkError>, Reject>, Violation> {
        let status: Result<BucketStatus, Reject> = self.stage.ask(bucket, operator(), "status", ());
        let Ok(Some(key)) = status.map(|status| status.key) else {
            return Err(Violation::new(12, format!("bucket {bucket} has no key")));
        };
        let pair = Pair {
            issuer: self.stage.foreign,
            issuer_key_version: 1,
            audience: bucket,
            audience_key_version: key.version,
        };
        let shared = secret().pair(&key.bytes.0, &pair);
        let grant = Grant {
            scope: Scope::READ,
            dn: Some(ROOMS[room]),
            blob: None,
            owner: None,
            principal: user,
            iat_ms,
            exp_ms: iat_ms + READ_TOKEN_LIFE_MS,
        };
        let token = shared.ok().and_then(|key| issue(&key, &pair, &grant).ok());
        let args = ReadChunkArgs {
            blob_id: self.blobs[blob].id,
            accessor_id: derived_accessor(&self.stage.foreign, ROOMS[room]),
            token: token.unwrap_or_default(),
            chunk_index: 0,
        };
        Ok(self.stage.ask(bucket, user, "read_chunk", (args,)))
    }
}

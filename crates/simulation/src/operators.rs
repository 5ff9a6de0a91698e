//! What operators do.

use std::collections::BTreeSet;

use candid::Principal;
use openstorage_types::index::{IndexStatus, SetBucketFullArgs, UserArgs};

use crate::{
    clients::Op,
    procedures::{Code, Stage},
    run::Run,
    stage::operator,
};

/// Cycles that nobody runs out of in a day.
const PLENTY: u128 = 200_000_000_000_000;

#[derive(Clone, Copy)]
enum Deed {
    Limit,
    DeleteUser,
    TopUp,
    Upgrade,
    Restart,
    Snapshot,
    Restore,
    Reinstall,
    SetFull,
    Retire,
    UpgradeBuckets,
    Audit,
    RotateKey,
    Next,
    Lose,
}

const DEEDS: [(u32, Deed); 15] = [
    (20, Deed::Limit),
    (5, Deed::DeleteUser),
    (10, Deed::TopUp),
    (14, Deed::Upgrade),
    (5, Deed::Restart),
    (7, Deed::Snapshot),
    (4, Deed::Restore),
    (1, Deed::Reinstall),
    (6, Deed::SetFull),
    (1, Deed::Retire),
    (3, Deed::UpgradeBuckets),
    (4, Deed::Audit),
    (3, Deed::RotateKey),
    (1, Deed::Next),
    (1, Deed::Lose),
];

/// Limits that bind, and such that do not.
const LIMITS: [u64; 8] = [
    0,
    100_000,
    1_000_000,
    3_000_000,
    6_000_000,
    12_000_000,
    40_000_000,
    1_000_000_000,
];

impl Run<'_> {
    /// Before the first step: some users have limits that they will reach.
    pub fn begin(&mut self) {
        self.known.extend(
            self.stage
                .status()
                .into_iter()
                .flat_map(|status| status.buckets.into_iter().map(|info| info.bucket)),
        );
        for _ in 0..3 {
            self.set_limit();
        }
    }

    /// Some operator does something.
    pub fn operate(&mut self) {
        match self.dice.weighted(&DEEDS) {
            Some(Deed::Limit) | None => self.set_limit(),
            Some(Deed::DeleteUser) => self.delete_user(),
            Some(Deed::TopUp) => self.refill(),
            Some(Deed::Upgrade) => self.upgrade_one(),
            Some(Deed::Restart) => {
                let canister = self.any_canister();
                self.begin_procedure(canister, Stage::Stop);
            }
            // A bucket that gets older code back with its memory has it until the index's daily look.
            Some(Deed::Snapshot) if self.is_next => {}
            Some(Deed::Snapshot) => {
                let canister = self.any_canister();
                self.begin_procedure(canister, Stage::Take);
            }
            Some(Deed::Restore) => {
                // Nor does a snapshot come back while the index goes to the next version.
                let is_rolling = self.is_doing(Stage::Upgrade(Code::IndexNext));
                let taken: Vec<_> = match is_rolling {
                    true => vec![],
                    false => self.snapshots.keys().copied().collect(),
                };
                if let Some(canister) = self.dice.pick(&taken) {
                    self.begin_procedure(canister, Stage::Load);
                }
            }
            Some(Deed::Reinstall) => {
                let chat = self.stage.chat;
                self.begin_procedure(chat, Stage::Reinstall);
            }
            Some(Deed::SetFull) => {
                let (bucket, full) = (self.any_bucket(), self.dice.one_in(3));
                let args = SetBucketFullArgs { bucket, full };
                self.order("set_bucket_full", (args,));
            }
            Some(Deed::Retire) => {
                // Some must be left.
                if self.retired == 0 {
                    self.retired += 1;
                    let bucket = self.any_bucket();
                    self.order("retire_bucket", (bucket,));
                }
            }
            Some(Deed::UpgradeBuckets) => self.order("upgrade_buckets", ()),
            Some(Deed::Audit) => {
                let bucket = self.any_bucket();
                let args = openstorage_types::index::AuditArgs {
                    bucket,
                    after: None,
                };
                self.order("audit", (args,));
            }
            Some(Deed::RotateKey) => {
                let canister = match self.dice.below(4) {
                    0 | 2 => self.stage.chat,
                    1 => self.stage.index,
                    _ => self.any_bucket(),
                };
                // Restored, it would not know the key any more that the chat uses.
                if !self.snapshots.contains_key(&canister) {
                    self.is_rotated |= canister == self.stage.chat;
                    self.send(canister, operator(), "rotate_key", (), |_| Op::Other);
                }
            }
            Some(Deed::Lose) => {
                // Some must be left.
                if self.lost.is_empty() && self.known.len() > 2 {
                    let bucket = self.any_bucket();
                    self.begin_procedure(bucket, Stage::Uninstall);
                }
            }
            Some(Deed::Next) => {
                let index = self.stage.index;
                let may = self.base.wasms.index_next.is_some() && !self.is_doing(Stage::Load);
                // A bucket that a restored index has forgotten is added before the roll: later its code is unknown.
                let status = self.stage.status();
                let names = |status: IndexStatus| {
                    let named = status.buckets.iter().map(|info| info.bucket);
                    named.collect::<BTreeSet<_>>().is_superset(&self.known)
                };
                if !self.is_next && may && status.is_some_and(names) {
                    self.begin_procedure(index, Stage::Upgrade(Code::IndexNext));
                }
            }
        }
    }

    /// A call to the index.
    pub fn order<A: candid::utils::ArgumentEncoder + Clone>(&mut self, method: &str, args: A) {
        self.send(self.stage.index, operator(), method, args, |_| Op::Other);
    }

    /// A bucket is given up.
    pub fn give_up(&mut self, bucket: Principal) {
        self.order("retire_bucket", (bucket,));
        self.order("forget_bucket", (bucket,));
    }

    /// Registers a user with a limit, or changes its limit.
    fn set_limit(&mut self) {
        let user = self.any_user();
        let byte_limit = LIMITS[self.dice.below(LIMITS.len())];
        let args = UserArgs { user, byte_limit };
        let name = self.name(&user);
        self.note(format!("the limit of {name} is to be {byte_limit}"));
        self.send(
            self.stage.index,
            operator(),
            "register_user",
            (args,),
            |run| {
                let ceiling = run.ceilings.entry(user).or_default();
                *ceiling = byte_limit.max(*ceiling);
                Op::Limit { user, byte_limit }
            },
        );
    }

    fn delete_user(&mut self) {
        let user = self.any_user();
        let name = self.name(&user);
        self.note(format!("{name} is to be deleted"));
        self.send(
            self.stage.index,
            operator(),
            "delete_user",
            (user,),
            |run| Op::DeleteUser {
                user,
                sent: run.model.deletion_sent(user),
            },
        );
    }

    fn upgrade_one(&mut self) {
        let canister = self.any_canister();
        let code = if self.dice.one_in(8) {
            Code::Truncated
        } else if canister == self.stage.index {
            Code::Index
        } else if canister == self.stage.chat {
            Code::Chat
        } else {
            Code::Bucket
        };
        // What is further already is not to go back: such an upgrade is refused, and that is tried too.
        self.begin_procedure(canister, Stage::Upgrade(code));
    }

    fn any_canister(&mut self) -> Principal {
        match self.dice.below(6) {
            0 => self.stage.chat,
            _ => self.index_or_bucket(),
        }
    }

    fn index_or_bucket(&mut self) -> Principal {
        match self.dice.one_in(3) {
            true => self.stage.index,
            false => self.any_bucket(),
        }
    }

    /// All canisters have plenty of cycles.
    pub fn refill(&mut self) {
        let known = self.known.iter().copied();
        let all: Vec<_> = known
            .chain([self.stage.index, self.stage.chat, self.stage.foreign])
            .collect();
        for canister in all {
            let has = self.stage.network.cycles(&canister).unwrap_or(PLENTY);
            let lacks = PLENTY.saturating_sub(has);
            self.stage.network.add_cycles(&canister, lacks);
        }
    }
}

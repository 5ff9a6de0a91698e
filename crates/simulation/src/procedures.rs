//! What an operator does in several calls: stop a canister, do something to it, start it.

use candid::{Principal, decode_one, encode_one};
use ic_management_canister_types::{
    CanisterIdRecord, CanisterInstallMode, InstallCodeArgs, LoadCanisterSnapshotArgs, Snapshot,
    TakeCanisterSnapshotArgs,
};
use openstorage_localnet::network::{MessageId, Reject};

use crate::{
    model::Then,
    run::Run,
    stage::{USERS, chat_init, user},
};

/// One call of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Stop,
    Upgrade(Code),
    /// The chat begins anew, and remembers nothing.
    Reinstall,
    Take,
    Load,
    /// A bucket's code and memory are gone.
    Uninstall,
    Start,
}

/// Which Wasm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Index,
    IndexNext,
    Bucket,
    Chat,
    /// Half of one: it is refused, and everything stays as it is.
    Truncated,
}

/// Stop, something, start.
pub struct Procedure {
    pub canister: Principal,
    what: Stage,
    now: Stage,
    waits_for: Option<MessageId>,
}

/// A snapshot, and what was certain when it was taken.
#[derive(Clone)]
pub struct Taken {
    id: Vec<u8>,
    then: Then,
}

impl Run<'_> {
    /// Begins to stop a canister, do `what`, and start it. One procedure for a canister at a time. Some upgrades come
    /// without the stop.
    pub fn begin_procedure(&mut self, canister: Principal, what: Stage) {
        if self.procedures.iter().any(|it| it.canister == canister) {
            return;
        }
        let is_upgrade = matches!(what, Stage::Upgrade(_));
        let now = match is_upgrade && self.dice.one_in(3) {
            true => what,
            false => Stage::Stop,
        };
        let name = self.name(&canister);
        self.note(format!("operator: {what:?} of {name}, {now:?} first"));
        self.procedures.push(Procedure {
            canister,
            what,
            now,
            waits_for: None,
        });
    }

    /// Whether this is being done to some canister.
    pub fn is_doing(&self, what: Stage) -> bool {
        self.procedures.iter().any(|it| it.what == what)
    }

    /// Goes on with each as far as it can.
    pub fn collect_procedures(&mut self) {
        let all = std::mem::take(&mut self.procedures);
        let left: Vec<_> = all.into_iter().filter_map(|it| self.go_on(it)).collect();
        self.procedures.extend(left);
    }

    fn go_on(&mut self, mut procedure: Procedure) -> Option<Procedure> {
        if let Some(id) = procedure.waits_for {
            let Some(Some(answer)) = self.stage.network.ingress_status(&id) else {
                return Some(procedure);
            };
            let answer = answer.clone();
            procedure.waits_for = None;
            let is_ok = answer.is_ok();
            if let Err(reject) = &answer {
                let name = self.name(&procedure.canister);
                let (now, why) = (procedure.now, &reject.message);
                self.note(format!("operator: {now:?} of {name} failed: {why}"));
            }
            self.done(&procedure, answer);
            procedure.now = match procedure.now {
                Stage::Stop if is_ok && procedure.what != Stage::Stop => procedure.what,
                Stage::Start if is_ok => return None,
                _ => Stage::Start,
            };
        }
        procedure.waits_for = self.perform(procedure.canister, procedure.now).ok();
        Some(procedure)
    }

    fn perform(&mut self, canister_id: Principal, stage: Stage) -> Result<MessageId, Reject> {
        let record = CanisterIdRecord { canister_id };
        let stage_of = &mut self.stage;
        match stage {
            Stage::Stop => stage_of.manage(canister_id, "stop_canister", &record),
            Stage::Start => stage_of.manage(canister_id, "start_canister", &record),
            Stage::Upgrade(code) => {
                let wasms = &self.base.wasms;
                let wasm: &[u8] = match code {
                    Code::Index => &wasms.index,
                    Code::IndexNext => wasms.index_next.as_ref().unwrap_or(&wasms.index),
                    Code::Bucket => &wasms.bucket,
                    Code::Chat => &wasms.chat,
                    Code::Truncated => &wasms.bucket[..wasms.bucket.len() / 2],
                };
                let args = InstallCodeArgs {
                    mode: CanisterInstallMode::Upgrade(None),
                    canister_id,
                    wasm_module: wasm.to_vec(),
                    arg: encode_one(None::<()>).expect("nothing has a Candid form"),
                    sender_canister_version: None,
                };
                stage_of.manage(canister_id, "install_code", &args)
            }
            Stage::Reinstall => {
                let index = stage_of.index;
                let args = InstallCodeArgs {
                    mode: CanisterInstallMode::Reinstall,
                    canister_id,
                    wasm_module: self.base.wasms.chat.clone(),
                    arg: chat_init(index),
                    sender_canister_version: None,
                };
                stage_of.manage(canister_id, "install_code", &args)
            }
            Stage::Uninstall => stage_of.manage(canister_id, "uninstall_code", &record),
            Stage::Take => {
                let args = TakeCanisterSnapshotArgs {
                    canister_id,
                    replace_snapshot: self.snapshots.get(&canister_id).map(|it| it.id.clone()),
                    uninstall_code: None,
                    sender_canister_version: None,
                };
                stage_of.manage(canister_id, "take_canister_snapshot", &args)
            }
            Stage::Load => {
                let taken = self.snapshots.get(&canister_id);
                let args = LoadCanisterSnapshotArgs {
                    canister_id,
                    snapshot_id: taken.map(|it| it.id.clone()).unwrap_or_default(),
                    sender_canister_version: None,
                };
                stage_of.manage(canister_id, "load_canister_snapshot", &args)
            }
        }
    }

    /// For a snapshot the canister is stopped: nothing has happened in it since.
    fn done(&mut self, procedure: &Procedure, answer: Result<Vec<u8>, Reject>) {
        let (canister, Ok(reply)) = (procedure.canister, answer) else {
            return;
        };
        match procedure.now {
            Stage::Upgrade(code) => {
                self.summary.upgrades += 1;
                if code == Code::IndexNext {
                    self.is_next = true;
                    // They hold older code, which is never to come back.
                    self.snapshots.clear();
                }
            }
            Stage::Take if self.is_next => {}
            Stage::Take => {
                let snapshot: Snapshot = decode_one(&reply).expect("a snapshot is described");
                let then = self.model.remember(canister);
                let id = snapshot.id;
                self.snapshots.insert(canister, Taken { id, then });
            }
            Stage::Load => {
                let Some(taken) = self.snapshots.get(&canister).cloned() else {
                    return;
                };
                self.summary.restored += 1;
                self.just_restored = true;
                self.is_loose = true;
                self.pulse.forget(canister);
                if canister == self.stage.chat {
                    self.chat_forgot();
                } else if canister == self.stage.index {
                    self.forgot_keys = true;
                    self.foreign.forget();
                    self.model.index_restored(taken.then.at());
                } else {
                    self.model.restored(canister, &taken.then);
                }
                let name = self.name(&canister);
                self.note(format!("{name} is restored"));
            }
            Stage::Reinstall => {
                // What it was before is not to come back: its key is another.
                self.snapshots.remove(&canister);
                self.chat_forgot();
            }
            Stage::Uninstall => {
                self.snapshots.remove(&canister);
                self.pulse.lost(canister);
                self.old_read.take_if(|read| read.bucket == canister);
                self.model.lost(canister);
                self.known.remove(&canister);
                self.lost.insert(canister);
                // Else the index finds out by itself, and operators see to it when they look.
                if self.dice.one_in(2) {
                    self.give_up(canister);
                }
            }
            Stage::Stop | Stage::Start => {}
        }
    }

    /// The chat has forgotten some of its users, rooms and keys.
    fn chat_forgot(&mut self) {
        self.forgot_keys = true;
        self.forgot_rooms = true;
        self.old_read = None;
        self.chat_limits.extend((0..USERS).map(user));
    }
}

//! A management canister that does what it is told, but for the call at which a test lets it fail.

use std::collections::{BTreeMap, BTreeSet};

use candid::Principal;
use data_bucket_index::{
    Moment,
    agenda::{Agenda, Job},
    calls::{Answer, Call, Failure, Look, Outcome},
};
use openstorage_types::{
    BlobId,
    bucket::{self, BucketStatus},
    index::BucketState,
    limits::HOUR_MS,
};

use super::{WASM, World, canister, own};

pub const T: u128 = 1_000_000_000_000;

/// What may become of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Refused; later it may go well.
    Passing,
    /// Refused.
    Final,
    /// Done, and nobody knows.
    DoneUnknown,
    /// Not done, and nobody knows.
    UndoneUnknown,
    /// Done; the index is upgraded before the answer, which reaches nobody.
    DoneUpgraded,
    /// Not done; the rest as before.
    UndoneUpgraded,
}

impl Fault {
    pub const ALL: [Self; 6] = [
        Self::Passing,
        Self::Final,
        Self::DoneUnknown,
        Self::UndoneUnknown,
        Self::DoneUpgraded,
        Self::UndoneUpgraded,
    ];
}

#[derive(Debug, Clone)]
pub struct Canister {
    pub running: bool,
    pub module: Option<BlobId>,
    pub version: u32,
    pub controllers: Vec<Principal>,
    pub balance: u128,
    pub idle_per_day: u128,
    pub closed: bool,
    /// Its `post_upgrade` traps.
    pub breaks: bool,
    /// It answers the health check wrongly.
    pub is_ill: bool,
}

impl Canister {
    pub fn empty() -> Self {
        Self {
            running: true,
            module: None,
            version: 0,
            controllers: vec![own()],
            balance: 2 * T,
            idle_per_day: 0,
            closed: false,
            breaks: false,
            is_ill: false,
        }
    }

    pub fn bucket(module: BlobId) -> Self {
        Self {
            module: Some(module),
            version: bucket::VERSION,
            ..Self::empty()
        }
    }
}

#[derive(Debug, Default)]
pub struct Cloud {
    pub canisters: BTreeMap<Principal, Canister>,
    pub calls: Vec<Call>,
    /// What becomes of the n-th call.
    pub fault: Option<(usize, Fault)>,
    /// Most that were stopped at the same time.
    pub stopped_max: usize,
    pub deposited: u128,
}

impl Cloud {
    pub fn look(&self, id: &Principal) -> Option<Look> {
        let it = self.canisters.get(id)?;
        Some(Look {
            running: it.running,
            module: it.module,
            controllers: it.controllers.clone(),
            balance: it.balance,
            freezing_at: it.idle_per_day * 30,
            idle_per_day: it.idle_per_day,
        })
    }

    /// None when the index was upgraded before the answer.
    fn perform(&mut self, call: &Call) -> Option<Outcome> {
        self.calls.push(call.clone());
        let number = self.calls.len() - 1;
        let fault = self.fault.filter(|(at, _)| *at == number).map(|it| it.1);
        let text = || "the test's fault".to_string();
        let undone = |passing| {
            Some(Err(Failure::Rejected {
                passing,
                text: text(),
            }))
        };
        match fault {
            None => Some(self.act(call)),
            Some(Fault::Passing) => undone(true),
            Some(Fault::Final) => undone(false),
            Some(Fault::UndoneUnknown) => Some(Err(Failure::Unknown(text()))),
            Some(Fault::DoneUnknown) => {
                let _ = self.act(call);
                Some(Err(Failure::Unknown(text())))
            }
            Some(Fault::DoneUpgraded) => {
                let _ = self.act(call);
                None
            }
            Some(Fault::UndoneUpgraded) => None,
        }
    }

    fn act(&mut self, call: &Call) -> Outcome {
        let reject = |text: &str| {
            Err(Failure::Rejected {
                passing: false,
                text: text.into(),
            })
        };
        if let Call::OwnControllers = call {
            return Ok(Answer::Controllers(vec![super::operator(), own()]));
        }
        if let Call::Create {
            controllers,
            cycles,
        } = call
        {
            let id = canister(100 + self.canisters.len() as u8);
            let new = Canister {
                controllers: controllers.clone(),
                balance: *cycles,
                ..Canister::empty()
            };
            self.canisters.insert(id, new);
            return Ok(Answer::Created(id));
        }
        let (Call::Look(id)
        | Call::Stop(id)
        | Call::Start(id)
        | Call::Ask(id)
        | Call::Install { bucket: id, .. }
        | Call::Upgrade { bucket: id, .. }
        | Call::SetClosed { bucket: id, .. }
        | Call::Deposit { bucket: id, .. }) = call
        else {
            unreachable!("the others are above")
        };
        let look = self.look(id);
        let Some(it) = self.canisters.get_mut(id) else {
            return reject("no such canister");
        };
        match call {
            Call::Look(_) => return Ok(Answer::Seen(look.expect("it is there"))),
            Call::Stop(_) => it.running = false,
            Call::Start(_) => it.running = true,
            Call::Install { .. } if it.module.is_some() => return reject("not empty"),
            Call::Upgrade { .. } if it.running => panic!("{id} is upgraded while it runs"),
            Call::Upgrade { .. } if it.breaks => return reject("post_upgrade trapped"),
            Call::Install { .. } | Call::Upgrade { .. } => {
                it.module = Some(WASM);
                it.version = bucket::VERSION;
            }
            Call::Ask(_) | Call::SetClosed { .. } if !it.running => return reject("stopped"),
            Call::Ask(_) => {
                return Ok(Answer::Told(BucketStatus {
                    index: if it.is_ill { *id } else { own() },
                    version: it.version,
                    closed: it.closed,
                    ..status()
                }));
            }
            Call::SetClosed { closed, .. } => it.closed = *closed,
            Call::Deposit { cycles, .. } => {
                it.balance += cycles;
                self.deposited += cycles;
            }
            _ => {}
        }
        let stopped = self.canisters.values().filter(|it| !it.running).count();
        self.stopped_max = self.stopped_max.max(stopped);
        Ok(Answer::Done)
    }

    pub fn count(&self, is: impl Fn(&Call) -> bool) -> usize {
        self.calls.iter().filter(|call| is(call)).count()
    }
}

pub fn status() -> BucketStatus {
    BucketStatus {
        index: own(),
        blobs: 0,
        references: 0,
        open_uploads: 0,
        bytes_stored: 0,
        bytes_reserved: 0,
        bytes_free: 0,
        events_unsent: 0,
        key: None,
        version: 0,
        closed: false,
        set_aside: None,
        overdue_ms: None,
    }
}

impl World {
    /// Runs the fleet's jobs until nothing is due within half an hour. Jobs that are due together run
    /// together.
    pub fn settle(&mut self, cloud: &mut Cloud) {
        self.settle_with(cloud, |world| world.moment());
    }

    pub fn settle_with(&mut self, cloud: &mut Cloud, moment: impl Fn(&Self) -> Moment) {
        for _ in 0..500 {
            self.index.notice_silence(self.now_ms);
            let Agenda { jobs, next_ms } = self.index.agenda(self.now_ms, &BTreeSet::new());
            let jobs: Vec<_> = jobs.into_iter().filter(of_fleet).collect();
            let mut under_way = Vec::new();
            for job in jobs {
                let moment = moment(self);
                if let Job::Forget = job {
                    self.index.forget_slice(self.now_ms);
                    under_way.push(None);
                } else if let Some(call) = self.index.begin(job, &moment) {
                    under_way.push(Some((job, call)));
                }
            }
            if under_way.is_empty() {
                match next_ms {
                    Some(next_ms) if next_ms < self.now_ms + HOUR_MS / 2 => self.now_ms = next_ms,
                    _ => return,
                }
            }
            for (job, call) in under_way.into_iter().flatten() {
                match cloud.perform(&call) {
                    Some(outcome) => {
                        let moment = moment(self);
                        self.index.end(job, &call, outcome, &moment);
                    }
                    None => {
                        // The other answers of this round reach nobody either.
                        self.upgrade();
                        break;
                    }
                }
                self.check(cloud);
            }
            self.let_buckets_answer(cloud);
        }
        panic!("the fleet does not come to rest");
    }

    /// A bucket that runs says how it is when it is asked.
    fn let_buckets_answer(&mut self, cloud: &Cloud) {
        for info in self.index.buckets() {
            let canister = cloud.canisters.get(&info.bucket);
            let runs = canister.is_some_and(|it| it.running && it.module.is_some());
            if runs && info.trouble.is_some() {
                self.index.heard_from(info.bucket, self.now_ms);
            }
        }
    }

    /// Nothing is allocated to a bucket that does not run the expected code.
    fn check(&self, cloud: &Cloud) {
        for info in self.index.buckets() {
            if info.state == BucketState::Active
                && let Some(it) = cloud.canisters.get(&info.bucket)
            {
                assert!(it.running && it.module.is_some(), "{info:?} {it:?}");
            }
        }
    }
}

fn of_fleet(job: &Job) -> bool {
    matches!(
        job,
        Job::MakeBucket | Job::Upkeep(_) | Job::TopUp(_) | Job::Forget
    )
}

//! Canisters come, stop, start and go; their settings and cycles.

use std::collections::{BTreeMap, BTreeSet};

use candid::{Nat, Principal};
use ic_management_canister_types::{
    CanisterIdRecord, CanisterSettings, ChangeDetails, ControllersChangeRecord, CreateCanisterArgs,
    CreationRecord, ProvisionalCreateCanisterWithCyclesArgs, ProvisionalTopUpCanisterArgs,
    UpdateSettingsArgs,
};
use pocket_ic::ErrorCode;
use sha2::{Digest, Sha256};

use super::{Done, Managed, cycles::PLAYED, encode, nothing};
use crate::{
    fees::Fees,
    network::{
        Network, Reject,
        call::Request,
        canister::{Canister, Status, Waiting},
        money::Use,
        settings::{self, Settings},
    },
};

/// What a canister gets that is created without an amount.
const CYCLES_DEFAULT: u128 = 100_000_000_000_000;
/// What all canisters of a subnet may set aside and use together, as on the Internet Computer.
const SUBNET_BYTES_MAX: u64 = 2 << 40;

/// A canister that is to be.
pub(super) struct Wanted {
    /// Where; none for where the request says.
    pub subnet: Option<Principal>,
    pub settings: Option<CanisterSettings>,
    pub balance: u128,
    pub specified: Option<Principal>,
    pub sender_version: Option<u64>,
}

impl Network {
    pub(super) fn create(&mut self, request: &Request, (args,): (CreateCanisterArgs,)) -> Managed {
        let subnet = &self.subnets[self.subnet_for(request, None)];
        let fee = subnet.fees.create_canister();
        if request.cycles < fee {
            return Err(Reject::new(
                ErrorCode::InsufficientCyclesForCreateCanister,
                format!(
                    "Creating a canister requires a fee of {fee} that is deducted from the canister's initial balance but only {} cycles were received with the create_canister request.",
                    request.cycles
                ),
            ));
        }
        let wanted = Wanted {
            subnet: None,
            settings: args.settings,
            balance: request.cycles - fee,
            specified: None,
            sender_version: args.sender_canister_version,
        };
        let id = self.make(request, wanted)?;
        self.consume(&id, Use::Creation, fee);
        Ok(Done::Reply {
            bytes: encode(&CanisterIdRecord { canister_id: id }),
            cycles_kept: request.cycles,
        })
    }

    pub(super) fn provisional_create(
        &mut self,
        request: &Request,
        (args,): (ProvisionalCreateCanisterWithCyclesArgs,),
    ) -> Managed {
        let balance = args
            .amount
            .as_ref()
            .map_or(Ok(CYCLES_DEFAULT), |amount| figure("amount", amount))?;
        let balance = self.mintable(balance);
        let wanted = Wanted {
            subnet: None,
            settings: args.settings,
            balance,
            specified: args.specified_id,
            sender_version: args.sender_canister_version,
        };
        let id = self.make(request, wanted)?;
        self.mint(balance);
        super::reply(&CanisterIdRecord { canister_id: id })
    }

    pub(super) fn provisional_top_up(
        &mut self,
        (args,): (ProvisionalTopUpCanisterArgs,),
    ) -> Managed {
        let amount = figure("amount", &args.amount)?;
        self.existing(&args.canister_id)?;
        self.add_cycles(&args.canister_id, amount);
        nothing()
    }

    pub(super) fn make(&mut self, request: &Request, wanted: Wanted) -> Result<Principal, Reject> {
        let Wanted {
            specified, balance, ..
        } = wanted;
        let subnet = self.subnet_for(request, specified.or(wanted.subnet).as_ref());
        let settings = wanted.settings.unwrap_or_default();
        let mut canister = Canister::new(
            self.subnets[subnet].id,
            BTreeSet::from([request.caller]),
            balance,
            self.time_ns,
        );
        self.change(&mut canister, &settings)?;
        let (canisters, plays) = (&self.canisters, self.plays_cycles);
        let taken = |id: &Principal| canisters.contains_key(id) || (plays && PLAYED.contains(id));
        let id = match specified {
            Some(id) if taken(&id) => {
                return Err(Reject::new(
                    ErrorCode::CanisterAlreadyInstalled,
                    format!("there is a canister {id} already"),
                ));
            }
            Some(id) => id,
            None => self.subnets[subnet].next_id(taken).ok_or_else(|| {
                Reject::new(
                    ErrorCode::MaxNumberOfCanistersReached,
                    "the subnet has no canister id left",
                )
            })?,
        };
        let details = CreationRecord {
            controllers: canister.controllers.iter().copied().collect(),
            environment_variables_hash: settings
                .environment_variables
                .map(|_| hash_of(&canister.settings.environment)),
        };
        let details = ChangeDetails::Creation(details);
        canister.record(self.time_ns, request, wanted.sender_version, details);
        self.canisters.insert(id, canister);
        self.certified.touch(&id);
        self.note_memory(&id);
        Ok(id)
    }

    /// The subnet that was asked for, or holds the id which was; else the one that was named, or holds the id
    /// that was named, or is the caller's; else the default.
    fn subnet_for(&self, request: &Request, specified: Option<&Principal>) -> usize {
        let named = |name: &Principal| {
            self.subnets
                .iter()
                .position(|subnet| !subnet.deleted && (subnet.id == *name || subnet.holds(name)))
        };
        let default = self.default_subnet().id;
        specified
            .or(request.subnet.as_ref())
            .and_then(named)
            .or_else(|| self.subnets.iter().position(|subnet| subnet.id == default))
            .unwrap_or(0)
    }

    pub(super) fn update_settings(
        &mut self,
        request: &Request,
        (args,): (UpdateSettingsArgs,),
    ) -> Managed {
        let (id, time_ns) = (args.canister_id, self.time_ns);
        self.controlled(&id, &request.caller)?;
        let mut canister = self
            .canisters
            .remove(&id)
            .ok_or_else(|| Reject::not_found(&id))?;
        let applied = self.change(&mut canister, &args.settings);
        if applied.is_ok() {
            canister.version += 1;
            canister.bound_log();
            if args.settings.controllers.is_some() {
                let controllers = canister.controllers.iter().copied().collect();
                let details = ControllersChangeRecord { controllers };
                let details = ChangeDetails::ControllersChange(details);
                canister.record(time_ns, request, args.sender_canister_version, details);
            }
        }
        self.canisters.insert(id, canister);
        applied?;
        self.certified.touch(&id);
        self.note_memory(&id);
        nothing()
    }

    pub(super) fn start(&mut self, caller: &Principal, id: Principal) -> Managed {
        let canister = self.administered(&id, caller)?;
        canister.version += 1;
        let subnet = Some(canister.subnet);
        if let Status::Stopping(waiting) = std::mem::replace(&mut canister.status, Status::Running)
        {
            self.stopping.remove(&id);
            self.cancel_stops(waiting, subnet);
        }
        nothing()
    }

    /// Answered at the end of the round in which nothing is outstanding any more.
    pub(super) fn stop(&mut self, request: &Request, id: Principal) -> Managed {
        let waiting = Waiting {
            origin: request.origin,
            cycles: request.cycles,
            since_ns: self.time_ns,
        };
        let canister = self.administered(&id, &request.caller)?;
        canister.version += 1;
        match &mut canister.status {
            Status::Running => {
                canister.status = Status::Stopping(vec![waiting]);
                self.stopping.insert(id);
                Ok(Done::Later)
            }
            Status::Stopping(others) => {
                others.push(waiting);
                Ok(Done::Later)
            }
            Status::Stopped => nothing(),
        }
    }

    pub(super) fn delete(&mut self, caller: &Principal, id: Principal) -> Managed {
        let canister = self.administered(&id, caller)?;
        if !matches!(canister.status, Status::Stopped) {
            return Err(Reject::new(
                ErrorCode::CanisterNotStopped,
                format!("Canister {id} must be stopped before it is deleted."),
            ));
        }
        self.remove_canister(&id);
        nothing()
    }

    pub(super) fn deposit(&mut self, request: &Request, id: Principal) -> Managed {
        let canister = self.existing(&id)?;
        canister.balance = canister.balance.saturating_add(request.cycles);
        Ok(Done::Reply {
            bytes: super::empty_reply(),
            cycles_kept: request.cycles,
        })
    }
}

impl Network {
    /// All of the settings or none. The canister is not among the network's while it is changed.
    fn change(&self, canister: &mut Canister, wanted: &CanisterSettings) -> Result<(), Reject> {
        let new = canister.settings.with(wanted)?;
        let controllers = settings::controllers(wanted)?;
        let fees = self.fees(&canister.subnet);
        let before = std::mem::replace(&mut canister.settings, new);
        if let Err(reject) = self.check_allocations(canister, &before, &fees) {
            canister.settings = before;
            return Err(reject);
        }
        if let Some(controllers) = controllers {
            canister.controllers = controllers;
        }
        Ok(())
    }

    /// Whether a canister may set aside more than before: it must be able to keep that, and its subnet must
    /// have it.
    fn check_allocations(
        &self,
        canister: &Canister,
        before: &Settings,
        fees: &Fees,
    ) -> Result<(), Reject> {
        let now = &canister.settings;
        let missing = canister.frozen(fees).saturating_sub(canister.balance);
        let more = |code, what: &str, figure: String| {
            let text = format!(
                "Cannot increase {what} to {figure} due to insufficient cycles. At least {missing} additional cycles are required."
            );
            Err(Reject::new(code, text))
        };
        if now.compute_percent > before.compute_percent && missing > 0 {
            let code = ErrorCode::InsufficientCyclesInComputeAllocation;
            return more(
                code,
                "compute allocation",
                format!("{}%", now.compute_percent),
            );
        }
        if now.memory_allocation <= before.memory_allocation {
            return Ok(());
        }
        let others = self
            .canisters
            .values()
            .filter(|other| other.subnet == canister.subnet);
        let taken = others
            .map(|other| other.keep().paid_bytes(other.machine_bytes()))
            .fold(0, u64::saturating_add);
        let (wanted, left) = (
            now.memory_allocation,
            SUBNET_BYTES_MAX.saturating_sub(taken),
        );
        if wanted > left {
            return Err(Reject::new(
                ErrorCode::SubnetOversubscribed,
                format!(
                    "Canister requested {wanted} bytes of memory but only {left} bytes are available in the subnet."
                ),
            ));
        }
        if missing > 0 {
            let code = ErrorCode::InsufficientCyclesInMemoryAllocation;
            return more(code, "memory allocation", wanted.to_string());
        }
        Ok(())
    }
}

/// The hash of a map of texts (interface specification, "Representation-independent hashing of structured
/// data").
fn hash_of(texts: &BTreeMap<String, String>) -> Vec<u8> {
    let mut pairs: Vec<_> = texts
        .iter()
        .map(|(name, value)| [Sha256::digest(name), Sha256::digest(value)].concat())
        .collect();
    pairs.sort();
    Sha256::digest(pairs.concat()).to_vec()
}

fn figure(name: &str, value: &Nat) -> Result<u128, Reject> {
    u128::try_from(&value.0).map_err(|_| {
        Reject::new(
            ErrorCode::InvalidManagementPayload,
            format!("{name} is larger than 2^128: {value}"),
        )
    })
}

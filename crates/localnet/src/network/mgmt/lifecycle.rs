//! Canisters come, stop, start and go; their settings and cycles.

use std::collections::BTreeSet;

use candid::{Nat, Principal};
use ic_management_canister_types::{
    CanisterIdRecord, CanisterSettings, ChangeDetails, ControllersChangeRecord, CreateCanisterArgs,
    CreationRecord, LogVisibility, ProvisionalCreateCanisterWithCyclesArgs,
    ProvisionalTopUpCanisterArgs, UpdateSettingsArgs,
};
use pocket_ic::ErrorCode;

use super::{Done, Managed, encode, nothing, only_canisters};
use crate::network::{
    Network, Reject,
    call::Request,
    canister::{Canister, Settings, Status, Waiting},
};

/// What a canister gets that is created without an amount.
const CYCLES_DEFAULT: u128 = 100_000_000_000_000;
/// A compute allocation is a part of a processor, in percent.
const COMPUTE_PERCENT_MAX: u128 = 100;
const CONTROLLERS_MAX: usize = 10;

impl Network {
    pub(super) fn create(&mut self, request: &Request, (args,): (CreateCanisterArgs,)) -> Managed {
        only_canisters(request)?;
        let fee = self
            .fees(&self.subnets[self.subnet_for(request, None)].id)
            .create_canister();
        if request.cycles < fee {
            return Err(Reject::new(
                ErrorCode::InsufficientCyclesForCreateCanister,
                format!(
                    "Creating a canister requires a fee of {fee} that is deducted from the canister's initial balance but only {} cycles were received with the create_canister request.",
                    request.cycles
                ),
            ));
        }
        let balance = request.cycles - fee;
        let id = self.make(request, args.settings, balance, None)?;
        self.burn(fee);
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
        let id = self.make(request, args.settings, balance, args.specified_id)?;
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

    fn make(
        &mut self,
        request: &Request,
        settings: Option<CanisterSettings>,
        balance: u128,
        specified: Option<Principal>,
    ) -> Result<Principal, Reject> {
        let subnet = self.subnet_for(request, specified.as_ref());
        let settings = settings.unwrap_or_default();
        let mut canister = Canister::new(
            self.subnets[subnet].id,
            BTreeSet::from([request.caller]),
            balance,
            self.time_ns,
        );
        apply(&mut canister, &settings)?;
        let canisters = &self.canisters;
        let id = match specified {
            Some(id) if canisters.contains_key(&id) => {
                return Err(Reject::new(
                    ErrorCode::CanisterAlreadyInstalled,
                    format!("there is a canister {id} already"),
                ));
            }
            Some(id) => id,
            None => self.subnets[subnet]
                .next_id(|id| canisters.contains_key(id))
                .ok_or_else(|| {
                    Reject::new(
                        ErrorCode::MaxNumberOfCanistersReached,
                        "the subnet has no canister id left",
                    )
                })?,
        };
        let details = CreationRecord {
            controllers: canister.controllers.iter().copied().collect(),
            environment_variables_hash: None,
        };
        canister.record(self.time_ns, request, ChangeDetails::Creation(details));
        self.canisters.insert(id, canister);
        Ok(id)
    }

    /// The subnet that holds the id which was asked for; else the one that was named, or holds the id
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
        let time_ns = self.time_ns;
        let canister = self.controlled(&args.canister_id, &request.caller)?;
        apply(canister, &args.settings)?;
        canister.version += 1;
        if args.settings.controllers.is_some() {
            let controllers = canister.controllers.iter().copied().collect();
            canister.record(
                time_ns,
                request,
                ChangeDetails::ControllersChange(ControllersChangeRecord { controllers }),
            );
        }
        nothing()
    }

    pub(super) fn start(&mut self, caller: &Principal, id: Principal) -> Managed {
        let canister = self.controlled(&id, caller)?;
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
        let canister = self.controlled(&id, &request.caller)?;
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
        let canister = self.controlled(&id, caller)?;
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
        only_canisters(request)?;
        let canister = self.existing(&id)?;
        canister.balance = canister.balance.saturating_add(request.cycles);
        Ok(Done::Reply {
            bytes: super::empty_reply(),
            cycles_kept: request.cycles,
        })
    }
}

/// All of the settings or none.
fn apply(canister: &mut Canister, wanted: &CanisterSettings) -> Result<(), Reject> {
    let mut settings = canister.settings.clone();
    let Settings {
        compute_allocation,
        memory_allocation,
        freezing_threshold,
        reserved_cycles_limit,
        wasm_memory_limit,
        wasm_memory_threshold,
        ..
    } = &mut settings;
    for (name, field, value) in [
        (
            "compute_allocation",
            compute_allocation,
            &wanted.compute_allocation,
        ),
        (
            "memory_allocation",
            memory_allocation,
            &wanted.memory_allocation,
        ),
        (
            "freezing_threshold",
            freezing_threshold,
            &wanted.freezing_threshold,
        ),
        (
            "reserved_cycles_limit",
            reserved_cycles_limit,
            &wanted.reserved_cycles_limit,
        ),
        (
            "wasm_memory_limit",
            wasm_memory_limit,
            &wanted.wasm_memory_limit,
        ),
        (
            "wasm_memory_threshold",
            wasm_memory_threshold,
            &wanted.wasm_memory_threshold,
        ),
    ] {
        if let Some(value) = value {
            *field = figure(name, value)?;
        }
    }
    match &wanted.log_visibility {
        None => {}
        Some(LogVisibility::AllowedViewers(_)) => {
            return Err(Reject::new(
                ErrorCode::InvalidManagementPayload,
                "this network knows the log visibilities 'controllers' and 'public'",
            ));
        }
        Some(visibility) => settings.logs_public = *visibility == LogVisibility::Public,
    }
    check(&settings, wanted)?;
    canister.settings = settings;
    if let Some(controllers) = &wanted.controllers {
        canister.controllers = controllers.iter().copied().collect();
    }
    if let Some(variables) = &wanted.environment_variables {
        canister.environment = variables
            .iter()
            .map(|variable| (variable.name.clone(), variable.value.clone()))
            .collect();
    }
    Ok(())
}

/// What is larger than it may be.
fn check(settings: &Settings, wanted: &CanisterSettings) -> Result<(), Reject> {
    if settings.compute_allocation > COMPUTE_PERCENT_MAX {
        return Err(Reject::new(
            ErrorCode::InvalidManagementPayload,
            format!(
                "a compute allocation is at most {COMPUTE_PERCENT_MAX} percent, not {}",
                settings.compute_allocation
            ),
        ));
    }
    if wanted
        .controllers
        .as_ref()
        .is_some_and(|controllers| controllers.len() > CONTROLLERS_MAX)
    {
        return Err(Reject::new(
            ErrorCode::InvalidManagementPayload,
            format!("a canister has at most {CONTROLLERS_MAX} controllers"),
        ));
    }
    Ok(())
}

fn figure(name: &str, value: &Nat) -> Result<u128, Reject> {
    u128::try_from(&value.0).map_err(|_| {
        Reject::new(
            ErrorCode::InvalidManagementPayload,
            format!("{name} is larger than 2^128: {value}"),
        )
    })
}

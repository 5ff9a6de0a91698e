//! What the controllers of a canister set, within the interface specification's bounds.

use std::collections::{BTreeMap, BTreeSet};

use candid::{Nat, Principal};
use ic_management_canister_types::{
    CanisterSettings, DefiniteCanisterSettings, EnvironmentVariable, LogVisibility,
    SnapshotVisibility, StatusVisibility,
};
use pocket_ic::ErrorCode;
use serde::{Deserialize, Serialize};

use super::{Reject, canister::Canister};

/// A compute allocation is a part of a processor, in percent.
const COMPUTE_PERCENT_MAX: u128 = 100;
const HEAP_BYTES_MAX: u128 = 1 << 48;
const CONTROLLERS_MAX: usize = 10;
const VIEWERS_MAX: usize = 10;
/// Source of these: the replica's `execution_environment` configuration.
const VARIABLES_MAX: usize = 20;
const VARIABLE_NAME_BYTES_MAX: usize = 128;
const VARIABLE_VALUE_BYTES_MAX: usize = 128;
const LOG_BYTES_DEFAULT: u64 = 4_096;
const LOG_BYTES_MAX: u128 = 2 << 20;

/// Who may look at something of a canister, besides its controllers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Visibility {
    #[default]
    Controllers,
    Public,
    Viewers(BTreeSet<Principal>),
}

/// All settings but the controllers. Nothing is ever reserved, so the limit of that is only shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub compute_percent: u64,
    pub memory_allocation: u64,
    pub freezing_threshold_s: u64,
    pub reserved_cycles_limit: u128,
    /// Calls of other canisters with fewer cycles attached are rejected.
    pub call_cycles_min: u128,
    /// 0 where there is none.
    pub wasm_memory_limit: u64,
    pub wasm_memory_threshold: u64,
    pub log_memory_limit: u64,
    pub log_visibility: Visibility,
    pub snapshot_visibility: Visibility,
    pub status_visibility: Visibility,
    pub environment: BTreeMap<String, String>,
}

impl Default for Settings {
    /// The Internet Computer's defaults.
    fn default() -> Self {
        Self {
            compute_percent: 0,
            memory_allocation: 0,
            freezing_threshold_s: 2_592_000,
            reserved_cycles_limit: 5_000_000_000_000,
            call_cycles_min: 0,
            wasm_memory_limit: 3 << 30,
            wasm_memory_threshold: 0,
            log_memory_limit: LOG_BYTES_DEFAULT,
            log_visibility: Visibility::default(),
            snapshot_visibility: Visibility::default(),
            status_visibility: Visibility::default(),
            environment: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// These settings with what is wanted.
    pub fn with(&self, wanted: &CanisterSettings) -> Result<Self, Reject> {
        let mut new = self.clone();
        let u64_max = u128::from(u64::MAX);
        let bounded = |name: &str, value: &Option<Nat>, max: u128, into: &mut u64| {
            if let Some(value) = value {
                // Every bound is within 64 bits.
                *into = u64::try_from(within(name, value, max)?).unwrap_or(u64::MAX);
            }
            Ok(())
        };
        bounded(
            "ComputeAllocation",
            &wanted.compute_allocation,
            COMPUTE_PERCENT_MAX,
            &mut new.compute_percent,
        )?;
        bounded(
            "MemoryAllocation",
            &wanted.memory_allocation,
            u64_max,
            &mut new.memory_allocation,
        )?;
        bounded(
            "Freezing threshold",
            &wanted.freezing_threshold,
            u64_max,
            &mut new.freezing_threshold_s,
        )?;
        bounded(
            "Wasm memory limit",
            &wanted.wasm_memory_limit,
            HEAP_BYTES_MAX,
            &mut new.wasm_memory_limit,
        )?;
        bounded(
            "Wasm memory threshold",
            &wanted.wasm_memory_threshold,
            HEAP_BYTES_MAX,
            &mut new.wasm_memory_threshold,
        )?;
        bounded(
            "Log memory limit",
            &wanted.log_memory_limit,
            LOG_BYTES_MAX,
            &mut new.log_memory_limit,
        )?;
        if let Some(limit) = &wanted.reserved_cycles_limit {
            new.reserved_cycles_limit = within("Reserved cycles limit", limit, u128::MAX)?;
        }
        if let Some(cycles) = &wanted.minimum_incoming_canister_call_cycles {
            let name = "Minimum of incoming calls' cycles";
            new.call_cycles_min = within(name, cycles, u128::MAX)?;
        }
        if let Some(visibility) = &wanted.log_visibility {
            new.log_visibility = visible(visibility.clone())?;
        }
        if let Some(visibility) = &wanted.snapshot_visibility {
            new.snapshot_visibility = visible(visibility.clone())?;
        }
        if let Some(visibility) = &wanted.status_visibility {
            new.status_visibility = visible(visibility.clone())?;
        }
        if let Some(variables) = &wanted.environment_variables {
            new.environment = environment(variables)?;
        }
        Ok(new)
    }

    /// As `canister_status` shows them.
    pub fn shown(&self, controllers: &BTreeSet<Principal>) -> DefiniteCanisterSettings {
        DefiniteCanisterSettings {
            controllers: controllers.iter().copied().collect(),
            compute_allocation: self.compute_percent.into(),
            memory_allocation: self.memory_allocation.into(),
            freezing_threshold: self.freezing_threshold_s.into(),
            reserved_cycles_limit: self.reserved_cycles_limit.into(),
            minimum_incoming_canister_call_cycles: self.call_cycles_min.into(),
            log_visibility: self.log_visibility.clone().into(),
            log_memory_limit: self.log_memory_limit.into(),
            snapshot_visibility: self.snapshot_visibility.clone().into(),
            status_visibility: self.status_visibility.clone().into(),
            wasm_memory_limit: self.wasm_memory_limit.into(),
            wasm_memory_threshold: self.wasm_memory_threshold.into(),
            environment_variables: self
                .environment
                .iter()
                .map(|(name, value)| EnvironmentVariable {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect(),
        }
    }
}

/// The controllers that are wanted, if any are.
pub fn controllers(wanted: &CanisterSettings) -> Result<Option<BTreeSet<Principal>>, Reject> {
    let Some(controllers) = &wanted.controllers else {
        return Ok(None);
    };
    if controllers.len() > CONTROLLERS_MAX {
        let count = controllers.len();
        return Err(payload(format!(
            "a canister has at most {CONTROLLERS_MAX} controllers, not {count}"
        )));
    }
    Ok(Some(controllers.iter().copied().collect()))
}

impl Canister {
    /// Whether something of the canister that is so visible is so to `caller`.
    pub fn shows(&self, visibility: &Visibility, caller: &Principal) -> bool {
        self.controllers.contains(caller)
            || match visibility {
                Visibility::Controllers => false,
                Visibility::Public => true,
                Visibility::Viewers(viewers) => viewers.contains(caller),
            }
    }
}

fn within(name: &str, value: &Nat, max: u128) -> Result<u128, Reject> {
    let figure = u128::try_from(&value.0).ok();
    figure.filter(|figure| *figure <= max).ok_or_else(|| {
        let text = format!("{name} expected to be in the range [0..{max}], got {value}");
        Reject::new(ErrorCode::CanisterContractViolation, text)
    })
}

/// Refuses a list of viewers that is too long.
fn visible(visibility: impl Into<Visibility>) -> Result<Visibility, Reject> {
    let visibility = visibility.into();
    match &visibility {
        Visibility::Viewers(viewers) if viewers.len() > VIEWERS_MAX => Err(payload(format!(
            "at most {VIEWERS_MAX} principals are allowed to look, not {}",
            viewers.len()
        ))),
        _ => Ok(visibility),
    }
}

fn environment(variables: &[EnvironmentVariable]) -> Result<BTreeMap<String, String>, Reject> {
    if variables.len() > VARIABLES_MAX {
        return Err(payload(format!(
            "Too many environment variables: {} (max: {VARIABLES_MAX})",
            variables.len()
        )));
    }
    let mut environment = BTreeMap::new();
    for EnvironmentVariable { name, value } in variables {
        for (what, text, max) in [
            ("name", name, VARIABLE_NAME_BYTES_MAX),
            ("value", value, VARIABLE_VALUE_BYTES_MAX),
        ] {
            if text.len() > max {
                return Err(payload(format!(
                    "Environment variable {what} \"{text}\" exceeds the maximum allowed length of {max}."
                )));
            }
        }
        if environment.insert(name.clone(), value.clone()).is_some() {
            return Err(payload(
                "Duplicate environment variables are not allowed".into(),
            ));
        }
    }
    Ok(environment)
}

fn payload(text: String) -> Reject {
    Reject::new(ErrorCode::InvalidManagementPayload, text)
}

/// The specification has a type of its own for each thing that may be visible, all of one shape.
macro_rules! same_shape {
    ($($theirs:ident)*) => {$(
        impl From<$theirs> for Visibility {
            fn from(theirs: $theirs) -> Self {
                match theirs {
                    $theirs::Controllers => Self::Controllers,
                    $theirs::Public => Self::Public,
                    $theirs::AllowedViewers(viewers) => Self::Viewers(viewers.into_iter().collect()),
                }
            }
        }

        impl From<Visibility> for $theirs {
            fn from(visibility: Visibility) -> Self {
                match visibility {
                    Visibility::Controllers => Self::Controllers,
                    Visibility::Public => Self::Public,
                    Visibility::Viewers(viewers) => Self::AllowedViewers(viewers.into_iter().collect()),
                }
            }
        }
    )*};
}

same_shape!(LogVisibility SnapshotVisibility StatusVisibility);

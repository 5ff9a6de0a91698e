//! Why a message was not executed or not answered: the Internet Computer's codes and texts.

use candid::Principal;
use pocket_ic::{ErrorCode, RejectCode};
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::machine::Trap;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    pub code: RejectCode,
    pub error_code: ErrorCode,
    pub message: String,
}

impl Reject {
    /// The reject code follows from the error code's hundreds.
    pub fn new(error_code: ErrorCode, message: impl Into<String>) -> Self {
        let code = match error_code as u64 / 100 {
            1 => RejectCode::SysFatal,
            2 => RejectCode::SysTransient,
            3 => RejectCode::DestinationInvalid,
            4 => RejectCode::CanisterReject,
            5 => RejectCode::CanisterError,
            _ => RejectCode::SysUnknown,
        };
        Self {
            code,
            error_code,
            message: message.into(),
        }
    }

    /// The error code as agents show it: `IC0536`.
    pub fn error_code_text(&self) -> String {
        format!("IC{:04}", self.error_code as u64)
    }

    /// How canisters read it: errors of the network's own begin with their code, as on the Internet
    /// Computer; what a canister says is left as it is.
    pub fn text_for_canisters(self) -> String {
        match self.error_code {
            ErrorCode::CanisterRejectedMessage | ErrorCode::DeadlineExpired => self.message,
            _ => format!("{}: {}", self.error_code_text(), self.message),
        }
    }

    pub fn not_found(canister: &Principal) -> Self {
        Self::new(
            ErrorCode::CanisterNotFound,
            format!("Canister {canister} not found"),
        )
    }

    pub fn no_module(canister: &Principal) -> Self {
        Self::new(
            ErrorCode::CanisterWasmModuleNotFound,
            format!(
                "Error from Canister {canister}: Attempted to execute a message on canister {canister}, but the canister contains no Wasm module"
            ),
        )
    }

    pub fn no_method(canister: &Principal, kind: &str, method: &str) -> Self {
        Self::new(
            ErrorCode::CanisterMethodNotFound,
            format!("Error from Canister {canister}: Canister has no {kind} method '{method}'."),
        )
    }

    /// A composite query that is called as an update, or by an update.
    pub fn composite() -> Self {
        Self::new(
            ErrorCode::CompositeQueryCalledInReplicatedMode,
            "Composite query cannot be called in replicated mode",
        )
    }

    pub fn stopped(canister: &Principal) -> Self {
        Self::new(
            ErrorCode::CanisterStopped,
            format!(
                "Canister {canister} is stopped and therefore does not have a CallContextManager"
            ),
        )
    }

    pub fn stopping(canister: &Principal) -> Self {
        Self::new(
            ErrorCode::CanisterStopping,
            format!("Canister {canister} is stopping"),
        )
    }

    pub fn no_reply(canister: &Principal) -> Self {
        Self::new(
            ErrorCode::CanisterDidNotReply,
            format!("Error from Canister {canister}: Canister did not reply to the call"),
        )
    }

    /// `missing` cycles more would do.
    pub fn out_of_cycles(canister: &Principal, missing: u128) -> Self {
        Self::new(
            ErrorCode::CanisterOutOfCycles,
            format!(
                "Canister {canister} is out of cycles: please top up the canister with at least {missing} additional cycles"
            ),
        )
    }

    /// The management canister's work would take `bytes`; with `missing` cycles more, they could be kept.
    pub fn growth(bytes: u64, missing: u128) -> Self {
        let trap = Trap::MemoryGrowth { bytes, missing };
        Self::new(ErrorCode::InsufficientCyclesInMemoryGrow, trap.to_string())
    }

    pub fn frozen(canister: &Principal) -> Self {
        Self::new(
            ErrorCode::CanisterOutOfCycles,
            format!(
                "Canister {canister} is unable to process query calls because it's frozen. Please top up the canister with cycles and try again."
            ),
        )
    }

    /// A call brings fewer cycles than the callee's setting asks for.
    pub fn too_few_cycles(callee: &Principal, settings: &Settings) -> Self {
        Self::new(
            ErrorCode::InsufficientCyclesInCall,
            format!(
                "Canister {callee} takes calls of other canisters with at least {} cycles",
                settings.call_cycles_min
            ),
        )
    }

    /// The callee has no room now; it was not executed.
    pub fn transient(callee: &Principal) -> Self {
        Self::new(
            ErrorCode::CanisterQueueFull,
            format!("Canister {callee}: the message was not delivered; try again"),
        )
    }

    pub fn too_large(what: &str, bytes: usize, max: usize) -> Self {
        Self::new(
            ErrorCode::CanisterRejectedMessage,
            format!("{what} for another subnet has at most {max} bytes, not {bytes}"),
        )
    }

    pub fn deadline() -> Self {
        Self::new(ErrorCode::DeadlineExpired, "Call deadline has expired.")
    }

    pub fn refused(canister: &Principal) -> Self {
        Self::new(
            ErrorCode::CanisterRejectedMessage,
            format!("Error from Canister {canister}: Canister rejected the message"),
        )
    }

    pub fn not_controller(canister: &Principal, caller: &Principal) -> Self {
        Self::new(
            ErrorCode::CanisterInvalidController,
            format!(
                "Only controllers of canister {canister} can call ic00 method; {caller} is none of them"
            ),
        )
    }

    /// A canister that tells the management canister another version than it has.
    pub fn sender_version(said: u64, is: u64) -> Self {
        Self::new(
            ErrorCode::CanisterContractViolation,
            format!(
                "Management canister call payload includes sender canister version {said} that does not match the actual sender canister version {is}."
            ),
        )
    }

    pub fn no_status(canister: &Principal, caller: &Principal) -> Self {
        Self::new(
            ErrorCode::CanisterStatusAccessDenied,
            format!("Caller {caller} is not allowed to access the status of canister {canister}"),
        )
    }

    pub fn payload(method: &str, error: impl std::fmt::Display) -> Self {
        Self::new(
            ErrorCode::InvalidManagementPayload,
            format!("Error decoding the argument of {method}: {error}"),
        )
    }

    pub fn trapped(canister: &Principal, trap: &Trap) -> Self {
        let error_code = match trap {
            Trap::CalledTrap(_) => ErrorCode::CanisterCalledTrap,
            Trap::Wasm(_) => ErrorCode::CanisterTrapped,
            Trap::Contract(_) => ErrorCode::CanisterContractViolation,
            Trap::InstructionLimit { .. } => ErrorCode::CanisterInstructionLimitExceeded,
            Trap::MethodNotFound { .. } => ErrorCode::CanisterMethodNotFound,
            Trap::StableAccessLimit { .. } => ErrorCode::CanisterMemoryAccessLimitExceeded,
            Trap::MemoryGrowth { .. } => ErrorCode::InsufficientCyclesInMemoryGrow,
            Trap::WasmMemoryLimit { .. } => ErrorCode::CanisterWasmMemoryLimitExceeded,
        };
        Self::new(
            error_code,
            format!("Error from Canister {canister}: {trap}"),
        )
    }
}

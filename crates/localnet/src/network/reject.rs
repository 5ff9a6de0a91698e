//! Why a message was not executed or not answered: the Internet Computer's codes and texts.

use candid::Principal;
use pocket_ic::{ErrorCode, RejectCode};

use crate::machine::Trap;

#[derive(Debug, Clone, PartialEq, Eq)]
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
        };
        Self::new(
            error_code,
            format!("Error from Canister {canister}: {trap}"),
        )
    }
}

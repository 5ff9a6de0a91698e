//! Messages on their way.

use candid::Principal;

use super::{MessageId, Reject};
use crate::machine::Response;

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Ingress(MessageId),
    /// A call of that number.
    Call(u64),
}

/// A call to a canister or to the management canister.
pub struct Request {
    pub origin: Origin,
    pub caller: Principal,
    pub callee: Principal,
    pub method: String,
    pub arg: Vec<u8>,
    pub cycles: u128,
    /// 0 where there is none.
    pub deadline_ns: u64,
    /// Where a management call goes; for ingress the effective canister or subnet.
    pub subnet: Option<Principal>,
}

/// An answer that reached the caller's subnet.
pub struct Delivery {
    pub call: u64,
    pub response: Response,
    pub cycles_refunded: u128,
}

impl From<Reject> for Response {
    fn from(reject: Reject) -> Self {
        Self::Reject {
            code: reject.code as u32,
            message: reject.message,
        }
    }
}

//! Messages on their way.

use candid::Principal;
use serde::{Deserialize, Serialize};

use super::{MessageId, Reject};
use crate::machine::{Closure, Response, SenderInfo};

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    Ingress(MessageId),
    /// A call of that number.
    Call(u64),
}

/// A call to a canister or to the management canister.
#[derive(Serialize, Deserialize)]
pub struct Request {
    pub origin: Origin,
    pub caller: Principal,
    /// Only of ingress.
    pub sender_info: Option<SenderInfo>,
    pub callee: Principal,
    pub method: String,
    #[serde(with = "serde_bytes")]
    pub arg: Vec<u8>,
    pub cycles: u128,
    /// 0 where there is none.
    pub deadline_ns: u64,
    /// Where a management call goes; for ingress the effective canister or subnet.
    pub subnet: Option<Principal>,
    /// The number of the execution that made the call; 0 for ingress.
    pub parent: u64,
}

/// A call that was made and not answered.
#[derive(Serialize, Deserialize)]
pub struct Outstanding {
    pub context: u64,
    pub caller: Principal,
    pub callee: Principal,
    pub on_reply: Closure,
    pub on_reject: Closure,
    pub on_cleanup: Option<Closure>,
    /// 0 for a call that waits without bound.
    pub deadline_ns: u64,
    /// Cycles paid ahead for the callback, and for the way of the answer.
    pub callback_prepaid: u128,
    pub response_prepaid: u128,
    /// The number of the execution that made the call.
    pub parent: u64,
}

/// An answer that reached its caller. The call is over: nothing else will answer it.
#[derive(Serialize, Deserialize)]
pub struct Delivery {
    pub call: Outstanding,
    pub response: Response,
    pub cycles_refunded: u128,
    /// The number of the execution that answered; where none did, of the one that called.
    pub parent: u64,
}

/// Something that goes from subnet to subnet.
#[derive(Serialize, Deserialize)]
pub enum Stream {
    Request(Request),
    Answer(Answer),
}

/// The answer to a call, on its way.
#[derive(Serialize, Deserialize)]
pub struct Answer {
    pub call: u64,
    pub response: Response,
    pub cycles_refunded: u128,
    /// The subnet that answers; none where nobody does.
    pub from: Option<Principal>,
    /// 0 where no execution answered.
    pub parent: u64,
}

impl Request {
    /// What is paid for: method name and argument.
    pub fn bytes(&self) -> u64 {
        (self.method.len() + self.arg.len()) as u64
    }
}

impl Response {
    /// Bytes that are paid for.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Reply(bytes) => bytes.len() as u64,
            Self::Reject { message, .. } => message.len() as u64,
        }
    }
}

impl From<Reject> for Response {
    fn from(reject: Reject) -> Self {
        Self::Reject {
            code: reject.code as u32,
            message: reject.text_for_canisters(),
        }
    }
}

//! Everything from outside that can change a network, as values: to be logged, sent and done again. The
//! same inputs give the same network.

use candid::Principal;
use serde::{Deserialize, Serialize};

use super::{Ingress, MessageId, Network, Plan, PlanError, Reject, StillRunning, TimeGoesBack};
use crate::machine::StableMemory;

/// One thing that is done to a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// [`Network::submit`].
    Submit(Ingress),
    /// [`Network::submit_as`].
    SubmitAs {
        id: MessageId,
        expiry_ns: u64,
        ingress: Ingress,
    },
    /// [`Network::tick`].
    Tick,
    /// [`Network::await_ingress`].
    Await(MessageId),
    /// [`Network::set_time`].
    SetTime(u64),
    /// [`Network::add_cycles`].
    AddCycles { canister: Principal, cycles: u128 },
    /// [`Network::set_stable_memory`].
    SetStableMemory {
        canister: Principal,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// [`Network::delete_subnet`].
    DeleteSubnet(Principal),
    /// [`Network::set_faults`].
    SetFaults(Plan),
    /// [`Network::keep_accounts`]: changes what can be read, and nothing else.
    KeepAccounts(usize),
}

/// What an input gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Done,
    Submitted(Result<MessageId, Reject>),
    Answered(Result<Result<Vec<u8>, Reject>, StillRunning>),
    SetTime(Result<(), TimeGoesBack>),
    /// The new balance; none where there is no such canister.
    Cycles(Option<u128>),
    /// Whether there was something to do it to.
    Found(bool),
    Faults(Result<(), PlanError>),
}

impl Network {
    /// Does one thing. Everything that changes a network from outside is one of these; queries and other
    /// looks change nothing (a query adds to the accounts, where they are kept).
    pub fn apply(&mut self, input: Input) -> Output {
        match input {
            Input::Submit(ingress) => Output::Submitted(self.submit(ingress)),
            Input::SubmitAs {
                id,
                expiry_ns,
                ingress,
            } => Output::Submitted(self.submit_as(id, expiry_ns, ingress).map(|()| id)),
            Input::Tick => {
                self.tick();
                Output::Done
            }
            Input::Await(id) => Output::Answered(self.await_ingress(&id)),
            Input::SetTime(time_ns) => Output::SetTime(self.set_time(time_ns)),
            Input::AddCycles { canister, cycles } => {
                Output::Cycles(self.add_cycles(&canister, cycles))
            }
            Input::SetStableMemory { canister, bytes } => {
                let memory = StableMemory::from_bytes(&bytes);
                Output::Found(self.set_stable_memory(&canister, memory))
            }
            Input::DeleteSubnet(subnet) => Output::Found(self.delete_subnet(&subnet)),
            Input::SetFaults(plan) => Output::Faults(self.set_faults(plan)),
            Input::KeepAccounts(capacity) => {
                self.keep_accounts(capacity);
                Output::Done
            }
        }
    }
}

//! One message: the checks before, the run, and what follows from it.

use candid::Principal;

use super::{
    Network, Reject, Stream,
    call::{Delivery, Origin, Request},
    canister::{Canister, Context, Outstanding, Status},
};
use crate::{
    fees::{self, Fees},
    machine::{self, Entry, Outcome, Response},
};

/// Limits of the Internet Computer, in instructions.
pub const UPDATE_INSTRUCTIONS: u64 = 40_000_000_000;
pub const QUERY_INSTRUCTIONS: u64 = 5_000_000_000;
pub const INSPECT_INSTRUCTIONS: u64 = 200_000_000;
pub const INSTALL_INSTRUCTIONS: u64 = 300_000_000_000;

/// Nothing is charged yet.
const FREE: Fees = Fees {
    nodes: fees::REFERENCE_NODES,
    schedule: fees::CostSchedule::Free,
};

/// A bounded wait is never longer.
const WAIT_S_MAX: u32 = 300;
/// Bytes that cross from one subnet to another.
const CROSS_SUBNET_BYTES_MAX: usize = 2 << 20;

/// What an execution needs to know besides its canister.
#[derive(Clone, Copy)]
pub(super) struct Circumstances<'a> {
    pub id: Principal,
    pub caller: Principal,
    pub time_ns: u64,
    pub root_key: &'a [u8],
    pub cycles_available: u128,
    pub deadline_ns: u64,
    pub answered: bool,
    pub instructions_max: u64,
    pub instructions_before: u64,
}

impl<'a> Circumstances<'a> {
    pub fn new(
        id: Principal,
        caller: Principal,
        time_ns: u64,
        instructions_max: u64,
        root_key: &'a [u8],
    ) -> Self {
        Self {
            id,
            caller,
            time_ns,
            root_key,
            cycles_available: 0,
            deadline_ns: 0,
            answered: false,
            instructions_max,
            instructions_before: 0,
        }
    }
}

/// Runs `work` with the machine's view of the canister. None where there is no code.
pub(super) fn with_machine<T>(
    canister: &mut Canister,
    circumstances: Circumstances,
    work: impl FnOnce(&mut machine::Machine, &machine::Context) -> T,
) -> Option<T> {
    let mut machine = canister.machine.take()?;
    let result = work(&mut machine, &view(canister, circumstances));
    canister.machine = Some(machine);
    Some(result)
}

/// The world as the canister may see it.
pub(super) fn view<'a>(canister: &'a Canister, of: Circumstances<'a>) -> machine::Context<'a> {
    machine::Context {
        canister_id: of.id,
        subnet_id: canister.subnet,
        caller: of.caller,
        controllers: &canister.controllers,
        environment: &canister.environment,
        root_key: of.root_key,
        time_ns: of.time_ns,
        timer_ns: canister.timer_ns,
        canister_version: canister.version,
        status: canister.status_code(),
        balance: canister.balance,
        liquid_balance: canister.balance,
        fees: &FREE,
        growth_bytes_max: u64::MAX,
        cycles_available: of.cycles_available,
        deadline_ns: of.deadline_ns,
        answered: of.answered,
        certificate: None,
        calls_outstanding: &canister.outstanding,
        instructions_max: of.instructions_max,
        instructions_before: of.instructions_before,
    }
}

impl Network {
    /// Puts a request where it will be executed.
    pub(super) fn enqueue(&mut self, request: Request) {
        if request.callee == Principal::management_canister() {
            self.management.push_back(request);
        } else if let Some(callee) = self.canisters.get_mut(&request.callee) {
            callee.requests.push_back(request);
        } else {
            let reject = Reject::not_found(&request.callee);
            self.refuse(request, reject);
        }
    }

    pub(super) fn refuse(&mut self, request: Request, reject: Reject) {
        let subnet = self.subnet_of_origin(request.origin);
        self.answer(request.origin, subnet, Err(reject), request.cycles);
    }

    fn subnet_of_origin(&self, origin: Origin) -> Principal {
        let caller = match origin {
            Origin::Call(call) => self.calls.get(&call).map(|call| call.caller),
            Origin::Ingress(_) => None,
        };
        caller
            .and_then(|caller| self.subnet_of(&caller))
            .unwrap_or(Principal::management_canister())
    }

    pub(super) fn run_request(&mut self, request: Request) {
        let id = request.callee;
        let Some(canister) = self.canisters.get_mut(&id) else {
            return self.refuse(request, Reject::not_found(&id));
        };
        let refusal = match canister.status {
            Status::Stopped => Some(Reject::stopped(&id)),
            Status::Stopping(_) => Some(Reject::stopping(&id)),
            Status::Running if canister.machine.is_none() => Some(Reject::no_module(&id)),
            Status::Running => None,
        };
        if let Some(reject) = refusal {
            return self.refuse(request, reject);
        }
        if let Origin::Ingress(id) = &request.origin {
            self.history.begin(id);
        }
        let Request {
            origin,
            caller,
            method,
            arg,
            cycles,
            deadline_ns,
            ..
        } = request;
        let entry = if canister.exports(&format!("canister_query {method}")) {
            Entry::ReplicatedQuery { method, arg }
        } else {
            Entry::Update { method, arg }
        };
        let context = Context {
            canister: id,
            origin: Some(origin),
            caller,
            cycles_available: cycles,
            deadline_ns,
            calls_outstanding: 0,
            instructions: 0,
        };
        self.run_in_context(context, entry);
    }

    /// A timer or a heartbeat.
    pub(super) fn run_task(&mut self, id: &Principal, entry: Entry) {
        let context = Context {
            canister: *id,
            origin: None,
            caller: Principal::management_canister(),
            cycles_available: 0,
            deadline_ns: 0,
            calls_outstanding: 0,
            instructions: 0,
        };
        self.run_in_context(context, entry);
    }

    fn run_in_context(&mut self, context: Context, entry: Entry) {
        let number = self.new_id();
        self.contexts.insert(number, context);
        let outcome = self.run_entry(number, entry);
        if let Some(outcome) = outcome {
            self.conclude(number, outcome);
        }
    }

    /// Runs an entry point in a context and keeps what it did to its canister. None where the canister
    /// is gone.
    fn run_entry(&mut self, number: u64, entry: Entry) -> Option<Outcome> {
        let time_ns = self.time_ns;
        let context = self.contexts.get_mut(&number)?;
        let canister = self.canisters.get_mut(&context.canister)?;
        let circumstances = Circumstances {
            cycles_available: context.cycles_available,
            deadline_ns: context.deadline_ns,
            answered: context.origin.is_none(),
            instructions_before: context.instructions,
            ..Circumstances::new(
                context.canister,
                context.caller,
                time_ns,
                UPDATE_INSTRUCTIONS,
                &self.root_key,
            )
        };
        let mut outcome = with_machine(canister, circumstances, |machine, view| {
            machine.run(entry, view)
        })?;
        context.instructions += outcome.instructions;
        canister.log(std::mem::take(&mut outcome.logs));
        if outcome.result.is_ok() {
            canister.version += 1;
            canister.balance = outcome.balance;
            context.cycles_available -= outcome.cycles_accepted;
            if let Some(data) = outcome.certified_data.take() {
                canister.certified_data = data;
            }
            if let Some(timer_ns) = outcome.timer_ns {
                canister.timer_ns = timer_ns;
            }
        }
        Some(outcome)
    }

    /// Sends what the execution asked for, and answers the context when there is reason to.
    fn conclude(&mut self, number: u64, outcome: Outcome) {
        let Some(context) = self.contexts.get(&number) else {
            return;
        };
        let id = context.canister;
        let failure = match outcome.result {
            Ok(()) => {
                for call in outcome.calls {
                    self.send(number, id, call);
                }
                if let Some(response) = outcome.response {
                    self.answer_context(number, response);
                }
                Reject::no_reply(&id)
            }
            Err(machine::Trap::MethodNotFound { method }) => {
                Reject::no_method(&id, "update", &method)
            }
            Err(trap) => Reject::trapped(&id, &trap),
        };
        if self
            .contexts
            .get(&number)
            .is_some_and(|context| context.calls_outstanding == 0)
        {
            // Nothing can answer any more.
            self.reject_context(number, failure);
            self.contexts.remove(&number);
        }
    }

    fn answer_context(&mut self, number: u64, response: Response) {
        let Some(context) = self.contexts.get_mut(&number) else {
            return;
        };
        let (id, refund) = (
            context.canister,
            std::mem::take(&mut context.cycles_available),
        );
        let Some(origin) = context.origin.take() else {
            return;
        };
        let Some(subnet) = self.subnet_of(&id) else {
            return;
        };
        let result = match response {
            Response::Reply(bytes) => Ok(bytes),
            Response::Reject { message, .. } => Err(Reject::new(
                pocket_ic::ErrorCode::CanisterRejectedMessage,
                message,
            )),
        };
        self.answer(origin, subnet, result, refund);
    }

    /// Rejects whoever waits for the context, if anybody does.
    pub(super) fn reject_context(&mut self, number: u64, reject: Reject) {
        let Some(context) = self.contexts.get_mut(&number) else {
            return;
        };
        let (id, refund) = (
            context.canister,
            std::mem::take(&mut context.cycles_available),
        );
        let Some(origin) = context.origin.take() else {
            return;
        };
        let subnet = self
            .subnet_of(&id)
            .unwrap_or(Principal::management_canister());
        self.answer(origin, subnet, Err(reject), refund);
    }

    fn send(&mut self, context: u64, caller: Principal, call: machine::Call) {
        let number = self.new_id();
        let deadline_ns = call.timeout_s.map_or(0, |timeout_s| {
            self.time_ns + u64::from(timeout_s.min(WAIT_S_MAX)) * 1_000_000_000
        });
        let machine::Call {
            callee,
            method,
            arg,
            cycles,
            on_reply,
            on_reject,
            on_cleanup,
            ..
        } = call;
        self.calls.insert(
            number,
            Outstanding {
                context,
                caller,
                callee,
                on_reply,
                on_reject,
                on_cleanup,
                deadline_ns,
            },
        );
        let Some(canister) = self.canisters.get_mut(&caller) else {
            return;
        };
        *canister.outstanding.entry(callee).or_default() += 1;
        let subnet = canister.subnet;
        if let Some(context) = self.contexts.get_mut(&context) {
            context.calls_outstanding += 1;
        }
        let request = Request {
            origin: Origin::Call(number),
            caller,
            callee,
            method,
            arg,
            cycles,
            deadline_ns,
            subnet: Some(subnet),
        };
        match self.subnet_of(&callee) {
            Some(other) if other != subnet && request.arg.len() > CROSS_SUBNET_BYTES_MAX => {
                let reject = Reject::new(
                    pocket_ic::ErrorCode::CanisterRejectedMessage,
                    format!(
                        "an argument for another subnet has at most {CROSS_SUBNET_BYTES_MAX} bytes"
                    ),
                );
                self.refuse(request, reject);
            }
            Some(other) if other != subnet => {
                self.streams
                    .push_back((self.round + 1, Stream::Request(request)));
            }
            _ => self.enqueue(request),
        }
    }

    /// Runs the callback of a call that was answered.
    pub(super) fn run_callback(&mut self, delivery: Delivery) {
        // Answered twice: by its deadline and then in truth.
        let Some(call) = self.calls.remove(&delivery.call) else {
            return;
        };
        if let Some(canister) = self.canisters.get_mut(&call.caller) {
            canister.balance += delivery.cycles_refunded;
            if let Some(count) = canister.outstanding.get_mut(&call.callee) {
                *count -= 1;
                if *count == 0 {
                    canister.outstanding.remove(&call.callee);
                }
            }
        }
        let Some(context) = self.contexts.get_mut(&call.context) else {
            return;
        };
        context.calls_outstanding -= 1;
        let closure = match delivery.response {
            Response::Reply(_) => call.on_reply,
            Response::Reject { .. } => call.on_reject,
        };
        let entry = Entry::Callback {
            closure,
            response: delivery.response,
            cycles_refunded: delivery.cycles_refunded,
        };
        let Some(outcome) = self.run_entry(call.context, entry) else {
            self.contexts.remove(&call.context);
            return;
        };
        if let (Err(_), Some(closure)) = (&outcome.result, call.on_cleanup) {
            // In a transaction of its own; if it traps too, there is nothing more to do.
            self.run_entry(call.context, Entry::Cleanup { closure });
        }
        self.conclude(call.context, outcome);
    }
}

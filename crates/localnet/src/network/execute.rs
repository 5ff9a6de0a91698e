//! One execution: what it is paid with, the run, and what it leaves behind.

use candid::Principal;

use super::{
    Network, Reject,
    account::{self, Account, Kind},
    call::{Answer, Delivery, Origin, Request},
    canister::{Canister, Context, Status},
    fault::{Event, Fault, Site},
};
use crate::{
    fees::Fees,
    machine::{self, Entry, Outcome, Response},
};

/// Limits of the Internet Computer, in instructions.
pub const UPDATE_INSTRUCTIONS: u64 = crate::fees::MESSAGE_INSTRUCTIONS_MAX;
pub const QUERY_INSTRUCTIONS: u64 = 5_000_000_000;
pub const INSPECT_INSTRUCTIONS: u64 = 200_000_000;
pub const INSTALL_INSTRUCTIONS: u64 = 300_000_000_000;
/// Of a callback's instructions, one in so many is kept for its clean-up where it has one.
const CLEANUP_PART: u64 = 20;

/// What an execution needs to know besides its canister.
#[derive(Clone, Copy)]
pub(super) struct Circumstances<'a> {
    pub id: Principal,
    pub caller: Principal,
    pub time_ns: u64,
    pub root_key: &'a [u8],
    pub fees: &'a Fees,
    pub cycles_available: u128,
    pub deadline_ns: u64,
    pub answered: bool,
    pub instructions_max: u64,
    pub instructions_before: u64,
    pub growth_bytes_max: u64,
    pub queues_full: bool,
}

impl<'a> Circumstances<'a> {
    pub fn new(
        id: Principal,
        caller: Principal,
        time_ns: u64,
        instructions_max: u64,
        root_key: &'a [u8],
        fees: &'a Fees,
    ) -> Self {
        Self {
            id,
            caller,
            time_ns,
            root_key,
            fees,
            cycles_available: 0,
            deadline_ns: 0,
            answered: false,
            instructions_max,
            instructions_before: 0,
            growth_bytes_max: u64::MAX,
            queues_full: false,
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
    // What a canister must keep depends on its memory, which is in the machine.
    let memory = machine.heap_bytes() + machine.stable().size_pages() * machine::STABLE_PAGE_BYTES;
    let frozen = canister.frozen_with(memory, circumstances.fees);
    let result = work(&mut machine, &view(canister, circumstances, frozen));
    canister.machine = Some(machine);
    Some(result)
}

/// The world as the canister may see it. It keeps `frozen` cycles.
pub(super) fn view<'a>(
    canister: &'a Canister,
    of: Circumstances<'a>,
    frozen: u128,
) -> machine::Context<'a> {
    machine::Context {
        canister_id: of.id,
        subnet_id: canister.subnet,
        caller: of.caller,
        caller_info: None,
        controllers: &canister.controllers,
        environment: &canister.environment,
        root_key: of.root_key,
        time_ns: of.time_ns,
        timer_ns: canister.timer_ns,
        canister_version: canister.version,
        status: canister.status_code(),
        balance: canister.balance,
        liquid_balance: canister.balance.saturating_sub(frozen),
        fees: of.fees,
        queues_full: of.queues_full,
        growth_bytes_max: of.growth_bytes_max,
        heap_bytes_max: u64::try_from(canister.settings.wasm_memory_limit).unwrap_or(u64::MAX),
        cycles_available: of.cycles_available,
        deadline_ns: of.deadline_ns,
        answered: of.answered,
        certificate: None,
        calls_outstanding: &canister.outstanding,
        instructions_max: of.instructions_max,
        instructions_before: of.instructions_before,
    }
}

/// One execution to be done in a context, and the cycles that were taken for it.
struct Run {
    entry: Entry,
    kind: Kind,
    method: String,
    /// For so many instructions.
    prepaid: u128,
    instructions: u64,
    /// It may run so many of them.
    instructions_max: u64,
    bytes_in: u64,
    parent: u64,
    call: u64,
}

impl Network {
    pub(super) fn run_request(&mut self, request: Request) {
        let id = request.callee;
        if request.deadline_ns != 0 && request.deadline_ns <= self.time_ns {
            // The caller has been told that nobody knows; its cycles are lost.
            return self.burn(request.cycles);
        }
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
        let fault = self.strike_execution(&id, &request.method);
        let prepaid = match self.prepay(&id) {
            Ok(prepaid) => prepaid,
            Err(reject) => return self.refuse(request, reject),
        };
        let kind = match &request.origin {
            Origin::Ingress(message) => {
                self.history.begin(message);
                Kind::Ingress
            }
            Origin::Call(_) => Kind::Call,
        };
        let bytes_in = request.bytes();
        let Request {
            origin,
            caller,
            method,
            arg,
            cycles,
            deadline_ns,
            parent,
            ..
        } = request;
        let name = method.clone();
        let entry = if self.canisters[&id].exports(&format!("canister_query {method}")) {
            Entry::ReplicatedQuery { method, arg }
        } else {
            Entry::Update { method, arg }
        };
        let context = Context {
            cycles_available: cycles,
            deadline_ns,
            ..Context::new(id, Some(origin), caller)
        };
        let run = Run {
            bytes_in,
            parent,
            ..Run::new(entry, kind, name, prepaid)
        };
        self.run_in_context(context, run, fault);
    }

    /// A timer or a heartbeat. Not run where the canister cannot pay.
    pub(super) fn run_task(&mut self, id: &Principal, entry: Entry, kind: Kind) {
        let fault = self.strike_execution(id, "");
        if let Ok(prepaid) = self.prepay(id) {
            let context = Context::new(*id, None, Principal::management_canister());
            self.run_in_context(
                context,
                Run::new(entry, kind, String::new(), prepaid),
                fault,
            );
        }
    }

    /// Takes the price of the longest execution there can be.
    fn prepay(&mut self, id: &Principal) -> Result<u128, Reject> {
        let canister = self
            .canisters
            .get_mut(id)
            .ok_or_else(|| Reject::not_found(id))?;
        let mut subnets = self.subnets.iter();
        let fees = subnets
            .find(|subnet| subnet.id == canister.subnet)
            .map(|subnet| subnet.fees)
            .unwrap_or_default();
        let price = fees.execution(UPDATE_INSTRUCTIONS);
        canister.pay(id, price, &fees)?;
        Ok(price)
    }

    fn run_in_context(&mut self, context: Context, run: Run, fault: Option<Fault>) {
        let number = self.open_context(context);
        if let Some((outcome, account)) = self.run_entry(number, run, fault) {
            self.conclude(number, outcome, account);
        }
    }

    /// Runs an entry point in a context and keeps what it did to its canister. Gives the number of its
    /// account. None where the canister is gone or has no code.
    fn run_entry(&mut self, number: u64, run: Run, fault: Option<Fault>) -> Option<(Outcome, u64)> {
        let context = self.contexts.get_mut(&number)?;
        let (id, caller) = (context.canister, context.caller);
        let canister = self.canisters.get_mut(&id)?;
        let mut subnets = self.subnets.iter();
        let fees = subnets
            .find(|subnet| subnet.id == canister.subnet)
            .map(|subnet| subnet.fees)
            .unwrap_or_default();
        let mut circumstances = Circumstances {
            cycles_available: context.cycles_available,
            deadline_ns: context.deadline_ns,
            answered: context.origin.is_none(),
            instructions_before: context.instructions,
            ..Circumstances::new(
                id,
                caller,
                self.time_ns,
                run.instructions_max,
                &self.root_key,
                &fees,
            )
        };
        match fault {
            Some(Fault::Trap { instructions }) => {
                circumstances.instructions_max = instructions.min(run.instructions_max);
            }
            Some(Fault::NoGrowth) => circumstances.growth_bytes_max = 0,
            Some(Fault::QueueFull) => circumstances.queues_full = true,
            _ => {}
        }
        let Run {
            entry,
            kind,
            method,
            prepaid,
            instructions,
            bytes_in,
            parent,
            call,
            ..
        } = run;
        let Some(mut outcome) = with_machine(canister, circumstances, |machine, view| {
            machine.run(entry, view)
        }) else {
            self.burn(prepaid);
            return None;
        };
        let used = outcome.usage.instructions;
        context.instructions += used;
        canister.log(std::mem::take(&mut outcome.logs));
        let refund = fees
            .instructions(instructions.saturating_sub(used))
            .min(prepaid);
        let mut burned = prepaid - refund;
        let mut timer_ns = None;
        if outcome.result.is_ok() {
            canister.version += 1;
            canister.balance = outcome.balance;
            burned += outcome.cycles_burned;
            context.cycles_available -= outcome.cycles_accepted;
            if let Some(data) = outcome.certified_data.take() {
                canister.certified_data = data;
            }
            timer_ns = outcome.timer_ns;
        }
        canister.balance += refund;
        let account = Account {
            seq: self.accounts.next(),
            parent,
            call,
            round: self.round,
            time_ns: self.time_ns,
            subnet: canister.subnet,
            canister: id,
            caller,
            kind,
            method,
            usage: outcome.usage,
            cycles_prepaid: prepaid,
            cycles_refunded: refund,
            cycles_accepted: outcome.cycles_accepted,
            bytes_in,
            bytes_out: outcome.response.as_ref().map_or(0, Response::bytes),
            calls: outcome.calls.len() as u64,
            failure: account::failure(&outcome.result),
        };
        let seq = account.seq;
        self.accounts.keep(account);
        self.burn(burned);
        self.spent += used;
        if let Some(timer_ns) = timer_ns {
            self.set_timer(&id, timer_ns);
        }
        Some((outcome, seq))
    }

    /// Sends what the execution asked for, and answers the context when there is reason to.
    fn conclude(&mut self, number: u64, outcome: Outcome, account: u64) {
        let Some(context) = self.contexts.get(&number) else {
            return;
        };
        let id = context.canister;
        let failure = match outcome.result {
            Ok(()) => {
                for call in outcome.calls {
                    self.send(number, id, call, account);
                }
                if let Some(response) = outcome.response {
                    self.answer_context(number, response, account);
                }
                Reject::no_reply(&id)
            }
            Err(machine::Trap::MethodNotFound { method }) => {
                Reject::no_method(&id, "update", &method)
            }
            Err(trap) => Reject::trapped(&id, &trap),
        };
        let over = |context: &Context| context.calls_outstanding == 0;
        if self.contexts.get(&number).is_some_and(over) {
            // Nothing can answer any more.
            self.reject_context(number, failure, account);
            self.close_context(number);
        }
    }

    fn answer_context(&mut self, number: u64, response: Response, account: u64) {
        let result = match response {
            Response::Reply(bytes) => Ok(bytes),
            Response::Reject { message, .. } => Err(Reject::new(
                pocket_ic::ErrorCode::CanisterRejectedMessage,
                message,
            )),
        };
        self.settle_context(number, result, account);
    }

    /// Rejects whoever waits for the context, if anybody does.
    pub(super) fn reject_context(&mut self, number: u64, reject: Reject, account: u64) {
        self.settle_context(number, Err(reject), account);
    }

    fn settle_context(&mut self, number: u64, result: Result<Vec<u8>, Reject>, account: u64) {
        let Some(context) = self.contexts.get_mut(&number) else {
            return;
        };
        let refund = std::mem::take(&mut context.cycles_available);
        let id = context.canister;
        match context.origin.take() {
            Some(origin) => {
                let subnet = self.subnet_of(&id);
                self.answer(origin, subnet, result, refund, account);
            }
            // Nobody can have attached cycles to a task, and an answered context has given them back.
            None => self.burn(refund),
        }
    }

    /// Runs the callback of a call that was answered, and its clean-up if it traps.
    pub(super) fn run_callback(&mut self, delivery: Delivery) {
        let Delivery {
            call,
            response,
            cycles_refunded,
            parent,
        } = delivery;
        let id = call.caller;
        let fees = self.subnet_of(&id).map(|subnet| self.fees(&subnet));
        let fees = fees.unwrap_or_default();
        let bytes_in = response.bytes();
        let carried = fees.response(bytes_in).min(call.response_prepaid);
        self.burn(carried);
        let Some(canister) = self.canisters.get_mut(&id) else {
            return self
                .burn(cycles_refunded + call.callback_prepaid + call.response_prepaid - carried);
        };
        canister.balance += cycles_refunded + call.response_prepaid - carried;
        canister.forget_call(&call.callee);
        let open = self.contexts.get_mut(&call.context);
        let Some(context) = open.filter(|_| canister.machine.is_some()) else {
            // Uninstalled in the meantime: nothing runs, the base fee is due.
            let due = fees.execution(0).min(call.callback_prepaid);
            canister.balance += call.callback_prepaid - due;
            return self.burn(due);
        };
        context.calls_outstanding -= 1;
        let (closure, reject_code, kind) = match response {
            Response::Reply(_) => (call.on_reply, 0, Kind::ReplyCallback),
            Response::Reject { code, .. } => (call.on_reject, code, Kind::RejectCallback),
        };
        let kept = match call.on_cleanup {
            Some(_) => UPDATE_INSTRUCTIONS / CLEANUP_PART,
            None => 0,
        };
        let run = |entry, kind, prepaid, instructions, instructions_max| Run {
            prepaid,
            instructions,
            instructions_max,
            bytes_in,
            parent,
            call: call.parent,
            ..Run::new(entry, kind, String::new(), 0)
        };
        let entry = Entry::Callback {
            closure,
            response,
            cycles_refunded,
        };
        let fault = self.strike_execution(&id, "");
        let callback = run(
            entry,
            kind,
            call.callback_prepaid,
            UPDATE_INSTRUCTIONS,
            UPDATE_INSTRUCTIONS - kept,
        );
        let Some((outcome, account)) = self.run_entry(call.context, callback, fault) else {
            return self.close_context(call.context);
        };
        if let (Err(_), Some(closure)) = (&outcome.result, call.on_cleanup) {
            // In a transaction of its own; if it traps too, there is nothing more to do. It is paid with
            // what the callback did not use, which was just paid back.
            let left = UPDATE_INSTRUCTIONS - outcome.usage.instructions.min(UPDATE_INSTRUCTIONS);
            let price = fees.instructions(left);
            if let Some(canister) = self.canisters.get_mut(&id) {
                let prepaid = price.min(canister.balance);
                canister.balance -= prepaid;
                let entry = Entry::Cleanup {
                    closure,
                    reject_code,
                };
                self.run_entry(
                    call.context,
                    run(entry, Kind::Cleanup, prepaid, left, left),
                    None,
                );
            }
        }
        self.conclude(call.context, outcome, account);
    }

    /// The fault, if any, that strikes an execution; what comes before it is done here.
    fn strike_execution(&mut self, id: &Principal, method: &str) -> Option<Fault> {
        let fault = self.decide(Event {
            site: Site::Execution,
            canister: Some(*id),
            method,
            bounded: false,
        });
        if let (Some(Fault::DrainCycles { leave }), Some(canister)) =
            (&fault, self.canisters.get_mut(id))
        {
            let drained = canister.balance.saturating_sub(*leave);
            canister.balance -= drained;
            self.burn(drained);
        }
        fault
    }

    pub(super) fn refuse(&mut self, request: Request, reject: Reject) {
        let subnet = self.subnet_of(&request.callee);
        self.answer(request.origin, subnet, Err(reject), request.cycles, 0);
    }

    /// Sends an answer to whoever waits for it. Ingress gets it at once, a caller on the same subnet in
    /// the same round, one elsewhere after the latency. An answer from nowhere is at the caller's.
    pub(super) fn answer(
        &mut self,
        origin: Origin,
        from_subnet: Option<Principal>,
        result: Result<Vec<u8>, Reject>,
        refund: u128,
        account: u64,
    ) {
        match origin {
            Origin::Ingress(id) => {
                self.history.answer(id, result, self.time_ns);
                self.burn(refund);
            }
            Origin::Call(call) => {
                let response = match result {
                    Ok(bytes) => Response::Reply(bytes),
                    Err(reject) => reject.into(),
                };
                let answer = Answer {
                    call,
                    response,
                    cycles_refunded: refund,
                    parent: account,
                };
                self.send_answer(answer, from_subnet);
            }
        }
    }
}

impl Run {
    /// An execution whose longest run is paid for.
    fn new(entry: Entry, kind: Kind, method: String, prepaid: u128) -> Self {
        Self {
            entry,
            kind,
            method,
            prepaid,
            instructions: UPDATE_INSTRUCTIONS,
            instructions_max: UPDATE_INSTRUCTIONS,
            bytes_in: 0,
            parent: 0,
            call: 0,
        }
    }
}

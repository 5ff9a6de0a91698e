//! One execution: what it is paid with, the run, and what it leaves behind.

use candid::Principal;

use super::{
    Network, Reject, Subnet,
    account::{Account, Kind},
    call::{Origin, Request},
    canister::{Canister, Context, Status},
    fault::{Event, Fault, Site},
    money::Use,
};
use crate::{
    fees::Fees,
    machine::{self, Entry, Outcome, SenderInfo},
};

/// Limits of the Internet Computer, in instructions.
pub const UPDATE_INSTRUCTIONS: u64 = crate::fees::MESSAGE_INSTRUCTIONS_MAX;
pub const QUERY_INSTRUCTIONS: u64 = 5_000_000_000;
pub const INSPECT_INSTRUCTIONS: u64 = 200_000_000;
pub const INSTALL_INSTRUCTIONS: u64 = 300_000_000_000;

/// What an execution needs to know besides its canister.
#[derive(Clone, Copy)]
pub(super) struct Circumstances<'a> {
    pub id: Principal,
    pub caller: Principal,
    pub sender_info: Option<&'a SenderInfo>,
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
            sender_info: None,
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

    /// The same with what a fault takes away.
    fn under(self, fault: Option<Fault>) -> Self {
        match fault {
            Some(Fault::Trap { instructions }) => Self {
                instructions_max: instructions.min(self.instructions_max),
                ..self
            },
            Some(Fault::NoGrowth) => Self {
                growth_bytes_max: 0,
                ..self
            },
            Some(Fault::QueueFull) => Self {
                queues_full: true,
                ..self
            },
            _ => self,
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
        sender_info: of.sender_info,
        controllers: &canister.controllers,
        environment: &canister.settings.environment,
        root_key: of.root_key,
        time_ns: of.time_ns,
        timer_ns: canister.timer_ns,
        canister_version: canister.version,
        status: canister.status_code(),
        balance: canister.balance,
        keep: canister.keep(),
        fees: of.fees,
        queues_full: of.queues_full,
        growth_bytes_max: of.growth_bytes_max,
        heap_bytes_max: canister.settings.wasm_memory_limit,
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
pub(super) struct Run {
    pub kind: Kind,
    pub method: String,
    /// For so many instructions.
    pub prepaid: u128,
    pub instructions: u64,
    /// It may run so many of them.
    pub instructions_max: u64,
    pub bytes_in: u64,
    pub parent: u64,
    pub call: u64,
}

impl Network {
    pub(super) fn run_request(&mut self, request: Request) {
        let id = request.callee;
        if request.deadline_ns != 0 && request.deadline_ns <= self.time_ns {
            // The caller has been told that nobody knows; its cycles are lost.
            let subnet = self.route(Some(&id)).id;
            return self.lose(Some(subnet), request.cycles);
        }
        let Some(canister) = self.canisters.get_mut(&id) else {
            return self.refuse(request, Reject::not_found(&id));
        };
        let refusal = match canister.status {
            Status::Stopped => Some(Reject::stopped(&id)),
            Status::Stopping(_) => Some(Reject::stopping(&id)),
            Status::Running if canister.machine.is_none() => Some(Reject::no_module(&id)),
            Status::Running
                if canister.exports(&format!("canister_composite_query {}", request.method)) =>
            {
                Some(Reject::composite())
            }
            Status::Running => None,
        };
        let too_few = matches!(request.origin, Origin::Call(_))
            && request.caller != id
            && request.cycles < canister.settings.call_cycles_min;
        let too_few = too_few.then(|| Reject::too_few_cycles(&id, &canister.settings));
        if let Some(reject) = refusal.or(too_few) {
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
            sender_info,
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
            sender_info,
            cycles_available: cycles,
            deadline_ns,
            ..Context::new(id, Some(origin), caller)
        };
        let run = Run {
            bytes_in,
            parent,
            ..Run::new(kind, name, prepaid)
        };
        self.run_in_context(context, entry, run, fault);
    }

    /// A timer or a heartbeat. Not run where the canister cannot pay.
    pub(super) fn run_task(&mut self, id: &Principal, entry: Entry, kind: Kind) {
        let fault = self.strike_execution(id, "");
        if let Ok(prepaid) = self.prepay(id) {
            let context = Context::new(*id, None, Principal::management_canister());
            self.run_in_context(
                context,
                entry,
                Run::new(kind, String::new(), prepaid),
                fault,
            );
        }
    }

    /// Takes the price of the longest execution there can be.
    fn prepay(&mut self, id: &Principal) -> Result<u128, Reject> {
        let fees = self.fees_of(id);
        let price = fees.execution(UPDATE_INSTRUCTIONS);
        let canister = self.canisters.get_mut(id);
        canister
            .ok_or_else(|| Reject::not_found(id))?
            .pay(id, price, &fees)?;
        Ok(price)
    }

    fn run_in_context(&mut self, context: Context, entry: Entry, run: Run, fault: Option<Fault>) {
        let number = self.open_context(context);
        if let Some((outcome, account)) = self.run_entry(number, entry, run, fault) {
            self.conclude(number, outcome, account);
        }
    }

    /// Runs an entry point in a context and keeps what it did to its canister. Gives the number of its
    /// account. None where the canister is gone or has no code.
    pub(super) fn run_entry(
        &mut self,
        number: u64,
        entry: Entry,
        run: Run,
        fault: Option<Fault>,
    ) -> Option<(Outcome, u64)> {
        let id = self.contexts.get(&number)?.canister;
        let fees = self.fees_of(&id);
        let context = self.contexts.get_mut(&number)?;
        let canister = self.canisters.get_mut(&id)?;
        let circumstances = Circumstances {
            sender_info: context.sender_info.as_ref(),
            cycles_available: context.cycles_available,
            deadline_ns: context.deadline_ns,
            answered: context.origin.is_none(),
            instructions_before: context.instructions,
            ..Circumstances::new(
                id,
                context.caller,
                self.time_ns,
                run.instructions_max,
                &self.root_key,
                &fees,
            )
        };
        let is_query = matches!(entry, Entry::ReplicatedQuery { .. });
        let ran = with_machine(canister, circumstances.under(fault), |machine, view| {
            machine.run(entry, view)
        });
        let Some(mut outcome) = ran else {
            self.consume(&id, Use::Instructions, run.prepaid);
            return None;
        };
        let used = outcome.usage.instructions;
        context.instructions += used;
        canister.log(std::mem::take(&mut outcome.logs));
        let refund = fees
            .instructions(run.instructions.saturating_sub(used))
            .min(run.prepaid);
        let mut burned = 0;
        let mut timer_ns = None;
        if outcome.result.is_ok() {
            canister.version += u64::from(!is_query);
            canister.balance = outcome.balance;
            burned = outcome.cycles_burned;
            context.cycles_available -= outcome.cycles_accepted;
            if let Some(data) = outcome.certified_data.take() {
                canister.certified_data = data;
            }
            self.certified.touch(&id);
            timer_ns = outcome.timer_ns;
        }
        canister.balance += refund;
        let caller = context.caller;
        self.consume(&id, Use::Instructions, run.prepaid - refund);
        self.consume(&id, Use::Burned, burned);
        // A clean-up is a part of its callback.
        if run.kind != Kind::Cleanup {
            self.count_execution(&id);
        }
        self.count_instructions(&id, used);
        self.note_memory(&id);
        self.spent += used;
        if let Some(timer_ns) = timer_ns {
            self.set_timer(&id, timer_ns);
        }
        let account = self.keep_account(id, caller, run, &outcome, refund);
        Some((outcome, account))
    }

    /// A message was executed on the subnet of a canister, or on that subnet.
    pub(super) fn count_execution(&mut self, id: &Principal) {
        if let Some(subnet) = self.subnet_mut(id) {
            subnet.executions += 1;
        }
    }

    /// A canister, on its subnet, used so many instructions.
    pub(super) fn count_instructions(&mut self, id: &Principal, used: u64) {
        if let Some(subnet) = self.subnet_mut(id) {
            subnet.instructions = subnet.instructions.saturating_add(used);
        }
    }

    fn subnet_mut(&mut self, id: &Principal) -> Option<&mut Subnet> {
        let subnet = self.subnet_of(id);
        let subnet = subnet.unwrap_or_else(|| self.route(Some(id)).id);
        self.subnets.iter_mut().find(|other| other.id == subnet)
    }

    fn keep_account(
        &mut self,
        canister: Principal,
        caller: Principal,
        run: Run,
        outcome: &Outcome,
        cycles_refunded: u128,
    ) -> u64 {
        let id = self.accounts.next();
        let account = Account {
            id,
            parent: run.parent,
            call: run.call,
            cycles_prepaid: run.prepaid,
            cycles_refunded,
            bytes_in: run.bytes_in,
            ..self.account_of(canister, caller, run.kind, run.method, outcome)
        };
        self.accounts.keep(account);
        id
    }

    /// The fault, if any, that strikes an execution; what comes before it is done here.
    pub(super) fn strike_execution(&mut self, id: &Principal, method: &str) -> Option<Fault> {
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
            let subnet = canister.subnet;
            self.lose(Some(subnet), drained);
        }
        fault
    }
}

impl Run {
    /// An execution whose longest run is paid for.
    pub fn new(kind: Kind, method: String, prepaid: u128) -> Self {
        Self {
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

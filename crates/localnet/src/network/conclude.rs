//! What follows from an execution: its calls, its answer, and later the callbacks.

use candid::Principal;

use super::{
    Network, Reject,
    account::Kind,
    call::{Answer, Delivery, Origin, Request},
    canister::Context,
    execute::{Run, UPDATE_INSTRUCTIONS},
    money::Use,
};
use crate::machine::{self, Entry, Outcome, Response};

/// Of a callback's instructions, so many are kept for its clean-up where it has one.
const CLEANUP_INSTRUCTIONS: u64 = UPDATE_INSTRUCTIONS / 20;

impl Network {
    /// Sends what the execution asked for, and answers the context when there is reason to.
    pub(super) fn conclude(&mut self, number: u64, outcome: Outcome, account: u64) {
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
        let origin = context.origin.take();
        let subnet = self.subnet_of(&id);
        match origin {
            Some(origin) => {
                self.answer(origin, subnet, result, refund, account);
            }
            // Nobody can have attached cycles to a task, and an answered context has given them back.
            None => self.lose(subnet, refund),
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
        let fees = self.fees_of(&id);
        let bytes_in = response.bytes();
        let carried = fees.response(bytes_in).min(call.response_prepaid);
        self.consume(&id, Use::Transmission, carried);
        let Some(canister) = self.canisters.get_mut(&id) else {
            let lost = cycles_refunded + call.callback_prepaid + call.response_prepaid - carried;
            let subnet = self.route(Some(&id)).id;
            return self.lose(Some(subnet), lost);
        };
        canister.balance += cycles_refunded + call.response_prepaid - carried;
        canister.forget_call(&call.callee);
        let open = self.contexts.get_mut(&call.context);
        let Some(context) = open.filter(|_| canister.machine.is_some()) else {
            // Uninstalled in the meantime: nothing runs, the base fee is due.
            let due = fees.execution(0).min(call.callback_prepaid);
            canister.balance += call.callback_prepaid - due;
            return self.consume(&id, Use::Instructions, due);
        };
        context.calls_outstanding -= 1;
        let (closure, reject_code, kind) = match response {
            Response::Reply(_) => (call.on_reply, 0, Kind::ReplyCallback),
            Response::Reject { code, .. } => (call.on_reject, code, Kind::RejectCallback),
        };
        let run = |kind, prepaid, instructions, instructions_max| Run {
            instructions,
            instructions_max,
            bytes_in,
            parent,
            call: call.parent,
            ..Run::new(kind, String::new(), prepaid)
        };
        let kept = call.on_cleanup.map_or(0, |_| CLEANUP_INSTRUCTIONS);
        let most = UPDATE_INSTRUCTIONS - kept;
        let callback = run(kind, call.callback_prepaid, UPDATE_INSTRUCTIONS, most);
        let entry = Entry::Callback {
            closure,
            response,
            cycles_refunded,
        };
        let fault = self.strike_execution(&id, "");
        let Some((outcome, account)) = self.run_entry(call.context, entry, callback, fault) else {
            return self.close_context(call.context);
        };
        if let (Err(_), Some(closure)) = (&outcome.result, call.on_cleanup) {
            // In a transaction of its own; if it traps too, there is nothing more to do. It is paid with
            // what the callback did not use, which was just paid back.
            let left = UPDATE_INSTRUCTIONS.saturating_sub(outcome.usage.instructions);
            let entry = Entry::Cleanup {
                closure,
                reject_code,
            };
            if let Some(canister) = self.canisters.get_mut(&id) {
                let prepaid = fees.instructions(left).min(canister.balance);
                canister.balance -= prepaid;
                let cleanup = run(Kind::Cleanup, prepaid, left, left);
                self.run_entry(call.context, entry, cleanup, None);
            }
        }
        self.conclude(call.context, outcome, account);
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
                self.lose(from_subnet, refund);
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
                    from: from_subnet,
                    parent: account,
                };
                self.send_answer(answer);
            }
        }
    }
}

//! Requests and answers on their ways: on one subnet at once, across subnets after the latency.

use std::collections::VecDeque;

use candid::{CandidType, Principal};
use serde::Deserialize;

use super::{
    Network, Reject,
    call::{Answer, Delivery, Origin, Outstanding, Request, Stream},
    fault::{Event, Fault, Site},
    money::Use,
};
use crate::{
    bounded::decode_part,
    machine::{self, Response},
};

/// A bounded wait is never longer.
const WAIT_S_MAX: u32 = 300;
/// Methods of the management canister to which a canister may tell its version.
const NAMES_SENDER: [&str; 8] = [
    "create_canister",
    "update_settings",
    "install_code",
    "install_chunked_code",
    "uninstall_code",
    "provisional_create_canister_with_cycles",
    "take_canister_snapshot",
    "load_canister_snapshot",
];
/// Bytes that cross from one subnet to another.
const CROSS_SUBNET_BYTES_MAX: usize = 2 << 20;

impl Network {
    /// Puts a request where it will be executed.
    pub(super) fn enqueue(&mut self, request: Request) {
        if request.callee == Principal::management_canister() || self.plays(&request.callee) {
            self.management.push_back(request);
        } else if let Some(callee) = self.canisters.get_mut(&request.callee) {
            let id = request.callee;
            callee.requests.push_back(request);
            self.active.insert(id);
        } else {
            let reject = Reject::not_found(&request.callee);
            self.refuse(request, reject);
        }
    }

    /// Makes a call whose price is paid.
    pub(super) fn send(
        &mut self,
        context: u64,
        caller: Principal,
        call: machine::Call,
        parent: u64,
    ) {
        let Some(subnet) = self.subnet_of(&caller) else {
            return;
        };
        let fees = self.fees(&subnet);
        let number = self.new_id();
        let deadline_ns = call.timeout_s.map_or(0, |timeout_s| {
            self.time_ns + u64::from(timeout_s.min(WAIT_S_MAX)) * 1_000_000_000
        });
        let request = Request {
            origin: Origin::Call(number),
            caller,
            sender_info: None,
            callee: call.callee,
            method: call.method,
            arg: call.arg,
            cycles: call.cycles,
            deadline_ns,
            subnet: Some(subnet),
            parent,
        };
        self.consume(&caller, Use::Transmission, fees.request(request.bytes()));
        let outstanding = Outstanding {
            context,
            caller,
            callee: call.callee,
            on_reply: call.on_reply,
            on_reject: call.on_reject,
            on_cleanup: call.on_cleanup,
            deadline_ns,
            callback_prepaid: fees.callback_max(),
            response_prepaid: fees.response_max(),
            parent,
        };
        if deadline_ns != 0 {
            self.deadlines.insert((deadline_ns, number));
        }
        self.calls.insert(number, outstanding);
        if let Some(canister) = self.canisters.get_mut(&caller) {
            *canister.outstanding.entry(call.callee).or_default() += 1;
        }
        if let Some(context) = self.contexts.get_mut(&context) {
            context.calls_outstanding += 1;
        }
        match self.check_sender_version(&request) {
            Ok(()) => self.send_request(request, subnet),
            Err(reject) => self.refuse(request, reject),
        }
    }

    /// What a canister tells the management canister of its own version must be so (interface specification,
    /// "Message execution"). The message that made the call has already raised it.
    fn check_sender_version(&self, request: &Request) -> Result<(), Reject> {
        #[derive(CandidType, Deserialize)]
        struct Sent {
            sender_canister_version: Option<u64>,
        }
        let named = request.callee == Principal::management_canister()
            && NAMES_SENDER.contains(&request.method.as_str());
        let caller = self.canisters.get(&request.caller).filter(|_| named);
        // An argument that cannot be read is refused where it is looked at.
        let sent = caller.and_then(|_| decode_part::<Sent>(&request.arg).ok());
        let said = sent.and_then(|sent| sent.sender_canister_version);
        let is = caller.map_or(0, |caller| caller.version.saturating_sub(1));
        match said {
            Some(said) if said != is => Err(Reject::sender_version(said, is)),
            _ => Ok(()),
        }
    }

    fn send_request(&mut self, request: Request, from: Principal) {
        let fault = self.decide(Event {
            site: Site::Request,
            canister: Some(request.callee),
            method: &request.method,
            bounded: request.deadline_ns != 0,
        });
        let mut delay = 0;
        match fault {
            Some(Fault::Reject) => {
                let reject = Reject::transient(&request.callee);
                return self.refuse(request, reject);
            }
            Some(Fault::TimeOutBefore) => {
                let cycles = request.cycles;
                self.refuse(
                    Request {
                        cycles: 0,
                        ..request
                    },
                    Reject::deadline(),
                );
                return self.lose(Some(from), cycles);
            }
            Some(Fault::Lose) => return self.lose(Some(from), request.cycles),
            Some(Fault::Delay { rounds }) => delay = rounds,
            _ => {}
        }
        let to = self.subnet_of(&request.callee);
        let crosses = to.is_some_and(|to| to != from);
        if crosses && request.arg.len() > CROSS_SUBNET_BYTES_MAX {
            let bytes = request.arg.len();
            let reject = Reject::too_large("an argument", bytes, CROSS_SUBNET_BYTES_MAX);
            return self.refuse(request, reject);
        }
        let pair = (request.caller, request.callee);
        match self.arrival(pair, crosses, delay) {
            Some(round) => self.put_on_way(round, Stream::Request(request)),
            None => self.enqueue(request),
        }
    }

    pub(super) fn send_answer(&mut self, mut answer: Answer) {
        let from = answer.from;
        // The caller of a bounded wait may have given up; then nobody gets answer or cycles.
        let Some(call) = self.calls.get(&answer.call) else {
            return self.lose(from, answer.cycles_refunded);
        };
        let (caller, callee, bounded) = (call.caller, call.callee, call.deadline_ns != 0);
        let to = self.subnet_of(&caller);
        let crosses = from.is_some_and(|from| to.is_some_and(|to| to != from));
        if crosses && answer.response.bytes() > CROSS_SUBNET_BYTES_MAX as u64 {
            let bytes = answer.response.bytes() as usize;
            answer.response = Reject::too_large("a reply", bytes, CROSS_SUBNET_BYTES_MAX).into();
        }
        let fault = self.decide(Event {
            site: Site::Answer,
            canister: Some(caller),
            method: "",
            bounded,
        });
        let mut delay = 0;
        match fault {
            Some(Fault::TimeOutAfter) => {
                self.lose(from, std::mem::take(&mut answer.cycles_refunded));
                answer.response = Reject::deadline().into();
            }
            Some(Fault::Delay { rounds }) => delay = rounds,
            Some(Fault::StopCaller) => self.stop_by_fault(&caller),
            Some(Fault::UpgradeCaller) => self.upgrade_by_fault(&caller),
            _ => {}
        }
        match self.arrival((callee, caller), crosses, delay) {
            Some(round) => self.put_on_way(round, Stream::Answer(answer)),
            None => self.deliver(answer),
        }
    }

    /// The round in which a message between two canisters arrives; none for at once. Nothing overtakes
    /// what was delayed before it between the same two.
    fn arrival(&mut self, pair: (Principal, Principal), crosses: bool, delay: u64) -> Option<u64> {
        let latency = if crosses { self.latency_rounds } else { 0 };
        let mut round = self.round + latency + delay;
        if let Some(before) = self.delayed.get(&pair) {
            round = round.max(*before);
        }
        if delay > 0 {
            self.delayed.insert(pair, round);
        }
        (round > self.round).then_some(round)
    }

    fn put_on_way(&mut self, round: u64, stream: Stream) {
        self.streams.entry(round).or_default().push_back(stream);
    }

    /// What is due arrives.
    pub(super) fn arrive(&mut self) {
        while let Some(entry) = self.streams.first_entry()
            && *entry.key() <= self.round
        {
            let arrived: VecDeque<_> = entry.remove();
            for stream in arrived {
                match stream {
                    Stream::Request(request) => self.enqueue(request),
                    Stream::Answer(answer) => self.deliver(answer),
                }
            }
        }
        let round = self.round;
        self.delayed.retain(|_, until| *until > round);
    }

    /// Gives an answer to the caller; from here on the call is over.
    pub(super) fn deliver(&mut self, answer: Answer) {
        let Answer {
            call,
            response,
            cycles_refunded,
            from,
            parent,
        } = answer;
        let Some(call) = self.take_call(call) else {
            return self.lose(from, cycles_refunded);
        };
        let caller = call.caller;
        match self.canisters.get_mut(&caller) {
            Some(canister) => {
                let parent = if parent == 0 { call.parent } else { parent };
                canister.responses.push_back(Delivery {
                    call,
                    response,
                    cycles_refunded,
                    parent,
                });
                self.active.insert(caller);
            }
            None => {
                let paid = call.callback_prepaid + call.response_prepaid;
                self.lose(from, cycles_refunded + paid);
            }
        }
    }

    fn take_call(&mut self, number: u64) -> Option<Outstanding> {
        let call = self.calls.remove(&number)?;
        self.deadlines.remove(&(call.deadline_ns, number));
        Some(call)
    }

    /// A call whose caller is gone.
    pub(super) fn give_up_call(&mut self, number: u64) {
        if let Some(call) = self.take_call(number) {
            let subnet = self.route(Some(&call.caller)).id;
            self.lose(Some(subnet), call.callback_prepaid + call.response_prepaid);
        }
    }

    /// Calls whose deadline has passed are answered with a reject of unknown outcome.
    pub(super) fn expire(&mut self) {
        while let Some((deadline_ns, call)) = self.deadlines.first().copied()
            && deadline_ns <= self.time_ns
        {
            self.deadlines.pop_first();
            let response: Response = Reject::deadline().into();
            self.deliver(Answer {
                call,
                response,
                cycles_refunded: 0,
                from: None,
                parent: 0,
            });
        }
    }
}

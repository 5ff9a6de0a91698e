//! Queries: answered at once, outside of any round; they change nothing and cost nothing.

use std::collections::VecDeque;

use candid::Principal;
use pocket_ic::ErrorCode;

use super::{
    Ingress, Network, Reject,
    account::{Account, Kind},
    canister::Status,
    execute::{Circumstances, QUERY_INSTRUCTIONS, with_machine},
};
use crate::machine::{self, Call, Entry, Outcome, Response, Scratch, SenderInfo, Trap};

/// How deep composite queries may call others.
const DEPTH_MAX: usize = 6;

/// One query of a graph.
struct Query {
    caller: Principal,
    sender_info: Option<SenderInfo>,
    id: Principal,
    method: String,
    arg: Vec<u8>,
    certificate: Option<Vec<u8>>,
}

/// The graph so far.
struct Graph {
    subnet: Principal,
    /// The canister that was asked from outside: its queries in the graph have a certificate, but for callbacks.
    root: Principal,
    certificate: Option<Vec<u8>>,
    instructions_left: u64,
}

impl Network {
    /// A query: answered at once, outside of any round; it changes nothing.
    pub fn query(
        &mut self,
        sender: Principal,
        id: Principal,
        method: &str,
        arg: Vec<u8>,
    ) -> Result<Vec<u8>, Reject> {
        self.query_as(Ingress {
            sender,
            sender_info: None,
            canister: id,
            method: method.into(),
            arg,
            effective: None,
        })
    }

    /// The same for a query that brings more than its sender.
    pub fn query_as(&mut self, query: Ingress) -> Result<Vec<u8>, Reject> {
        let Ingress {
            sender,
            sender_info,
            canister: id,
            method,
            arg,
            effective,
        } = query;
        if id == Principal::management_canister() {
            let subnet = self.route(effective.as_ref()).id;
            return self.manage_query(&subnet, sender, &method, &arg);
        }
        if self.plays(&id) {
            return self.play_query(&id, &method);
        }
        let certificate = self.data_certificate(&id);
        let query = Query {
            caller: sender,
            sender_info,
            id,
            method,
            arg,
            certificate: certificate.clone(),
        };
        let subnet = self.subnet_of(&id).ok_or_else(|| Reject::not_found(&id))?;
        let mut graph = Graph {
            subnet,
            root: id,
            certificate,
            instructions_left: QUERY_INSTRUCTIONS,
        };
        self.run_query(query, 0, &mut graph)
    }

    fn run_query(
        &mut self,
        query: Query,
        depth: usize,
        graph: &mut Graph,
    ) -> Result<Vec<u8>, Reject> {
        let id = query.id;
        if depth > DEPTH_MAX {
            return Err(Reject::new(
                ErrorCode::QueryCallGraphTooDeep,
                format!("composite queries call others at most {DEPTH_MAX} deep"),
            ));
        }
        if id == Principal::management_canister() {
            return self.manage_query_on(&graph.subnet, query.caller, &query.method, &query.arg);
        }
        let canister = self
            .canisters
            .get(&id)
            .filter(|canister| canister.subnet == graph.subnet)
            .ok_or_else(|| Reject::not_found(&id))?;
        match canister.status {
            Status::Running => {}
            Status::Stopping(_) => return Err(Reject::stopping(&id)),
            Status::Stopped => return Err(Reject::stopped(&id)),
        }
        if canister.machine.is_none() {
            return Err(Reject::no_module(&id));
        }
        if canister.frozen(&self.fees(&canister.subnet)) > canister.balance {
            return Err(Reject::frozen(&id));
        }
        if canister.exports(&format!("canister_composite_query {}", query.method)) {
            return self.run_composite(query, depth, graph);
        }
        let entry = Entry::Query {
            method: query.method.clone(),
            arg: query.arg.clone(),
        };
        let outcome = self.run_part(&query, entry, Kind::Query, None, 0, graph)?;
        graph.spend(&outcome);
        answer(&id, outcome)
    }

    /// A composite query: it runs, then the queries it calls, each with its callback, then those that the
    /// callbacks call.
    fn run_composite(
        &mut self,
        query: Query,
        depth: usize,
        graph: &mut Graph,
    ) -> Result<Vec<u8>, Reject> {
        let id = query.id;
        let mut scratch = Scratch::default();
        let mut calls = VecDeque::new();
        let mut used = 0;
        let entry = Entry::CompositeQuery {
            method: query.method.clone(),
            arg: query.arg.clone(),
        };
        let kind = Kind::CompositeQuery;
        let mut outcome = self.run_part(&query, entry, kind, Some(&mut scratch), used, graph)?;
        let query = Query {
            certificate: None,
            ..query
        };
        loop {
            graph.spend(&outcome);
            used += outcome.usage.instructions;
            calls.extend(std::mem::take(&mut outcome.calls));
            // An answer is final, and so is a trap: nothing of what was done is kept anyway, so there is nothing to
            // clean up.
            if outcome.response.is_some() || outcome.result.is_err() {
                return answer(&id, outcome);
            }
            let Some(call) = calls.pop_front() else {
                return answer(&id, outcome);
            };
            if graph.instructions_left == 0 {
                return Err(Reject::new(
                    ErrorCode::QueryCallGraphTotalInstructionLimitExceeded,
                    format!(
                        "the queries of one graph run at most {QUERY_INSTRUCTIONS} instructions altogether"
                    ),
                ));
            }
            let Call {
                callee,
                method,
                arg,
                on_reply,
                on_reject,
                ..
            } = call;
            let called = Query {
                caller: id,
                sender_info: None,
                id: callee,
                method,
                arg,
                certificate: graph.certificate.clone().filter(|_| callee == graph.root),
            };
            let (closure, response) = match self.run_query(called, depth + 1, graph) {
                Ok(reply) => (on_reply, Response::Reply(reply)),
                Err(reject) => (on_reject, reject.into()),
            };
            let entry = Entry::CompositeCallback { closure, response };
            outcome = self.run_part(&query, entry, kind, Some(&mut scratch), used, graph)?;
        }
    }

    fn run_part(
        &mut self,
        query: &Query,
        entry: Entry,
        kind: Kind,
        scratch: Option<&mut Scratch>,
        instructions_before: u64,
        graph: &Graph,
    ) -> Result<Outcome, Reject> {
        let id = query.id;
        let fees = self.fees(&graph.subnet);
        let canister = self
            .canisters
            .get_mut(&id)
            .ok_or_else(|| Reject::not_found(&id))?;
        let circumstances = Circumstances {
            sender_info: query.sender_info.as_ref(),
            instructions_before,
            ..Circumstances::new(
                id,
                query.caller,
                self.time_ns,
                graph.instructions_left,
                &self.root_key,
                &fees,
            )
        };
        let outcome = with_machine(canister, circumstances, |machine, view| {
            let view = machine::Context {
                certificate: query.certificate.as_deref(),
                ..*view
            };
            match scratch {
                Some(scratch) => machine.run_composite(scratch, entry, &view),
                None => machine.run(entry, &view),
            }
        })
        .ok_or_else(|| Reject::no_module(&id))?;
        if self.accounts.on() {
            self.keep_query(query, kind, &outcome);
        }
        Ok(outcome)
    }

    fn keep_query(&mut self, query: &Query, kind: Kind, outcome: &Outcome) {
        let (id, method) = (query.id, query.method.clone());
        let account = Account {
            bytes_in: (query.method.len() + query.arg.len()) as u64,
            ..self.account_of(id, query.caller, kind, method, outcome)
        };
        self.accounts.keep(account);
    }
}

impl Graph {
    fn spend(&mut self, outcome: &Outcome) {
        self.instructions_left = self
            .instructions_left
            .saturating_sub(outcome.usage.instructions);
    }
}

fn answer(id: &Principal, outcome: Outcome) -> Result<Vec<u8>, Reject> {
    match (outcome.result, outcome.response) {
        (Ok(()), Some(Response::Reply(bytes))) => Ok(bytes),
        (Ok(()), Some(Response::Reject { message, .. })) => {
            Err(Reject::new(ErrorCode::CanisterRejectedMessage, message))
        }
        (Ok(()), None) => Err(Reject::no_reply(id)),
        (Err(Trap::MethodNotFound { method }), _) => Err(Reject::no_method(id, "query", &method)),
        (Err(trap), _) => Err(Reject::trapped(id, &trap)),
    }
}

//! An account for every execution: what it used, what it cost, what came of it, and what it came from.

use std::collections::VecDeque;

use candid::Principal;
use serde::{Deserialize, Serialize};

use super::Network;
use crate::machine::{Outcome, Response, Usage};

/// The most accounts that are kept at once.
pub const ACCOUNTS_MAX: usize = 1_000_000;

/// What was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An update, or a query called as one, from outside.
    Ingress,
    /// The same from a canister.
    Call,
    ReplyCallback,
    RejectCallback,
    Cleanup,
    Timer,
    Heartbeat,
    /// `canister_on_low_wasm_memory`.
    LowWasmMemory,
    /// Not part of any round; free.
    Query,
    CompositeQuery,
    /// `canister_init`, first or again.
    Install,
    /// From `canister_pre_upgrade` to `canister_post_upgrade`.
    Upgrade,
}

/// One execution. Everything but queries and what was refused before it began has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The place among the accounts kept: counts from 1, without gaps.
    pub seq: u64,
    /// The number of the execution, from 1; 0 for queries, which leave no trace.
    pub id: u64,
    /// The execution that sent the message; for callbacks the one that answered. 0 for ingress, queries
    /// and tasks.
    pub parent: u64,
    /// For callbacks and clean-ups, the execution that made the call; else 0.
    pub call: u64,
    pub round: u64,
    pub time_ns: u64,
    pub subnet: Principal,
    pub canister: Principal,
    pub caller: Principal,
    pub kind: Kind,
    /// Empty for callbacks and tasks.
    pub method: String,
    /// Instructions, and the pages of 4 KiB and bytes that were touched.
    pub usage: Usage,
    /// Cycles paid ahead.
    pub cycles_prepaid: u128,
    /// Of those, what came back. The difference is what the execution cost.
    pub cycles_refunded: u128,
    /// Accepted from the message.
    pub cycles_accepted: u128,
    /// Argument or answer.
    pub bytes_in: u64,
    /// Reply or reject message; 0 where it did not answer.
    pub bytes_out: u64,
    /// Calls made.
    pub calls: u64,
    /// None if it went well, else why not.
    pub failure: Option<String>,
}

/// The latest accounts. Whether they are kept or not changes nothing else.
#[derive(Default, Serialize, Deserialize)]
pub struct Accounts {
    /// How many executions there were.
    executions: u64,
    /// How many accounts were kept.
    count: u64,
    capacity: usize,
    kept: VecDeque<Account>,
}

/// Some of the accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub accounts: Vec<Account>,
    /// Where to go on; the same as asked for if there are no newer ones.
    pub next: u64,
    /// Accounts between the place asked for and the first one here that are not kept any more.
    pub missed: u64,
}

impl Accounts {
    /// The number of a new execution.
    pub fn next(&mut self) -> u64 {
        self.executions += 1;
        self.executions
    }

    pub fn on(&self) -> bool {
        self.capacity > 0
    }

    pub fn keep(&mut self, account: Account) {
        if self.capacity == 0 {
            return;
        }
        self.count += 1;
        if self.kept.len() == self.capacity {
            self.kept.pop_front();
        }
        self.kept.push_back(Account {
            seq: self.count,
            ..account
        });
    }

    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity.min(ACCOUNTS_MAX);
        let over = self.kept.len().saturating_sub(self.capacity);
        self.kept.drain(..over);
    }

    /// At most `max` accounts after the one of number `after`.
    pub fn page(&self, after: u64, max: usize) -> Page {
        let start = self.kept.partition_point(|account| account.seq <= after);
        let accounts: Vec<_> = self.kept.iter().skip(start).take(max).cloned().collect();
        let next = accounts.last().map_or(after, |account| account.seq);
        let missed = accounts
            .first()
            .map_or(0, |account| account.seq - after.min(account.seq - 1) - 1);
        Page {
            accounts,
            next,
            missed,
        }
    }
}

impl Network {
    /// Keeps the latest `capacity` accounts from now on, at most [`ACCOUNTS_MAX`]; 0, as at first, keeps
    /// none.
    pub fn keep_accounts(&mut self, capacity: usize) {
        self.accounts.set_capacity(capacity);
    }

    /// At most `max` accounts, in their order, that come after the one of number `after`; 0 is before the
    /// first.
    pub fn accounts(&self, after: u64, max: usize) -> Page {
        self.accounts.page(after, max)
    }

    /// An account of an execution that is over: without numbers, parents, cycles and argument.
    pub(super) fn account_of(
        &self,
        canister: Principal,
        caller: Principal,
        kind: Kind,
        method: String,
        outcome: &Outcome,
    ) -> Account {
        Account {
            seq: 0,
            id: 0,
            parent: 0,
            call: 0,
            round: self.round,
            time_ns: self.time_ns,
            subnet: self.subnet_of(&canister).unwrap_or(canister),
            canister,
            caller,
            kind,
            method,
            usage: outcome.usage,
            cycles_prepaid: 0,
            cycles_refunded: 0,
            cycles_accepted: outcome.cycles_accepted,
            bytes_in: 0,
            bytes_out: outcome.response.as_ref().map_or(0, Response::bytes),
            calls: outcome.calls.len() as u64,
            failure: outcome.result.as_ref().err().map(ToString::to_string),
        }
    }
}

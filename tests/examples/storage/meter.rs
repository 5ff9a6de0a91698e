//! The accounts that the local network keeps of every execution.

use std::collections::BTreeSet;

use candid::Principal;
use integration_tests::Setup;
use serde::Deserialize;
use tokio::runtime::Runtime;

/// Accounts kept at once; a figure needs a few hundred.
const ACCOUNTS_MAX: usize = 100_000;

/// What one execution used. Of the network's account only what the figures need.
#[derive(Debug, Clone, Deserialize)]
pub struct Account {
    pub id: u64,
    /// Of a callback, the account of the execution that made the call.
    pub call: u64,
    pub canister: Principal,
    pub kind: String,
    pub method: String,
    pub usage: Usage,
    pub failure: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Usage {
    pub instructions: u64,
}

#[derive(Deserialize)]
struct Page {
    accounts: Vec<Account>,
    next: u64,
}

/// Reads accounts from where it read last.
pub struct Meter {
    runtime: Runtime,
    client: reqwest::Client,
    route: String,
    after: u64,
}

impl Meter {
    /// Accounts are kept from now on.
    ///
    /// # Panics
    /// When the network keeps none: only the project's own does.
    pub fn new(setup: &Setup) -> Self {
        let pic = &setup.pic;
        let mut meter = Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be started"),
            client: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client can be made"),
            route: format!(
                "{}instances/{}/accounts",
                pic.get_server_url(),
                pic.instance_id()
            ),
            after: 0,
        };
        let keep = serde_json::json!({ "capacity": ACCOUNTS_MAX });
        let request = meter.client.post(&meter.route).json(&keep);
        let status = meter
            .runtime
            .block_on(request.send())
            .expect("the network is there")
            .status();
        assert!(
            status.is_success(),
            "this network keeps no accounts: {status}"
        );
        meter.read();
        meter
    }

    /// The accounts since the last reading. None of them failed.
    pub fn read(&mut self) -> Vec<Account> {
        let mut accounts: Vec<Account> = vec![];
        loop {
            let request = self
                .client
                .get(format!("{}?after={}", self.route, self.after));
            let page: Page = self
                .runtime
                .block_on(async { request.send().await?.error_for_status()?.json().await })
                .expect("the network tells its accounts");
            if page.accounts.is_empty() {
                break;
            }
            self.after = page.next;
            accounts.extend(page.accounts);
        }
        for account in &accounts {
            assert!(account.failure.is_none(), "{account:?}");
        }
        accounts
    }

    /// What `work` used, all of it.
    pub fn of<T>(&mut self, work: impl FnOnce() -> T) -> (T, Vec<Account>) {
        self.read();
        let done = work();
        (done, self.read())
    }
}

/// Instructions of all these but queries.
pub fn of_updates(accounts: &[Account]) -> u64 {
    let updates = accounts.iter().filter(|account| account.kind != "query");
    updates.map(|account| account.usage.instructions).sum()
}

/// Instructions of the messages `method` to `canister`, with the callbacks of the calls that they made.
pub fn of_method(accounts: &[Account], canister: Principal, method: &str) -> u64 {
    let mut ids = BTreeSet::new();
    let mut instructions = 0;
    for account in accounts
        .iter()
        .filter(|account| account.canister == canister)
    {
        let is_callback = account.call > 0 && ids.contains(&account.call);
        if account.method == method || is_callback {
            ids.insert(account.id);
            instructions += account.usage.instructions;
        }
    }
    instructions
}

//! A blob's journey as one page: every execution's account, drawn and as a table.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};
use candid::Principal;
use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};

/// The page; it holds `@TRACE@` where the accounts go.
const PAGE: &str = include_str!("trace.html");

/// Accounts that the network keeps: those of a file of several gigabytes.
const ACCOUNTS_MAX: usize = 100_000;

/// The demo's network has one instance.
const ROUTE: &str = "instances/0/accounts";

/// An account as the local network tells it; what the page does not show is left out.
#[derive(Debug, Deserialize)]
struct Account {
    id: u64,
    /// Of a callback, the account of the execution that answered; none of the management canister's.
    parent: u64,
    /// Of a callback, the account of the execution that made the call.
    call: u64,
    round: u64,
    canister: Principal,
    caller: Principal,
    kind: String,
    method: String,
    usage: Usage,
    cycles_prepaid: u128,
    cycles_refunded: u128,
    bytes_in: u64,
    bytes_out: u64,
    failure: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    instructions: u64,
    heap_pages_dirtied: u64,
    stable_pages_dirtied: u64,
}

#[derive(Deserialize)]
struct Answer {
    accounts: Vec<Account>,
    next: u64,
}

/// A line of the page.
#[derive(Serialize)]
struct Line {
    id: u64,
    parent: Option<u64>,
    call: Option<u64>,
    round: u64,
    canister: String,
    caller: String,
    kind: String,
    method: String,
    instructions: u64,
    cycles: u64,
    bytes_in: u64,
    bytes_out: u64,
    heap_pages: u64,
    stable_pages: u64,
    failed: bool,
    outcome: String,
}

impl From<Account> for Line {
    fn from(account: Account) -> Self {
        let cycles = account
            .cycles_prepaid
            .saturating_sub(account.cycles_refunded);
        Self {
            id: account.id,
            parent: some(account.parent),
            call: some(account.call),
            round: account.round,
            canister: account.canister.to_text(),
            caller: account.caller.to_text(),
            kind: account.kind.replace('_', " "),
            method: account.method,
            instructions: account.usage.instructions,
            cycles: u64::try_from(cycles).unwrap_or(u64::MAX),
            bytes_in: account.bytes_in,
            bytes_out: account.bytes_out,
            heap_pages: account.usage.heap_pages_dirtied,
            stable_pages: account.usage.stable_pages_dirtied,
            failed: account.failure.is_some(),
            outcome: account.failure.unwrap_or_else(|| "ok".into()),
        }
    }
}

/// Accounts count from 1.
fn some(id: u64) -> Option<u64> {
    (id > 0).then_some(id)
}

/// What the page says of the file, and the names of those who take part, in the order in which they are
/// drawn.
pub struct Story<'a> {
    pub file: &'a str,
    pub size: u64,
    pub blob_id: &'a str,
    pub names: &'a [(Principal, &'a str)],
}

/// Lets the network of `server` keep accounts from now on.
///
/// # Errors
/// When that network keeps none: only the project's own does.
pub async fn start(server: &Url) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let keep = serde_json::json!({ "capacity": ACCOUNTS_MAX });
    let answer = client.post(server.join(ROUTE)?).json(&keep).send().await?;
    match answer.status() {
        StatusCode::OK => Ok(()),
        StatusCode::NOT_FOUND => bail!(
            "this network keeps no accounts, so there is nothing to trace: unset POCKET_IC_BIN, so \
             that the project's own network is used"
        ),
        status => bail!("the network keeps no accounts: it answers {status}"),
    }
}

/// Writes the page of everything since [`start`].
pub async fn write(server: &Url, path: &Path, story: &Story<'_>) -> Result<()> {
    let page = page(&read(server).await?, story)?;
    fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
}

async fn read(server: &Url) -> Result<Vec<Line>> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let (mut lines, mut after) = (vec![], 0);
    loop {
        let mut url = server.join(ROUTE)?;
        url.set_query(Some(&format!("after={after}")));
        let answer = client.get(url).send().await?.error_for_status()?;
        let Answer { accounts, next } = answer.json().await?;
        if accounts.is_empty() {
            return Ok(lines);
        }
        lines.extend(accounts.into_iter().map(Line::from));
        after = next;
    }
}

fn page(lines: &[Line], story: &Story) -> Result<String> {
    let names: BTreeMap<_, _> = story
        .names
        .iter()
        .map(|(id, name)| (id.to_text(), *name))
        .collect();
    let order: Vec<_> = story.names.iter().map(|(id, _)| id.to_text()).collect();
    let trace = serde_json::json!({
        "file": story.file,
        "size": story.size,
        "blob_id": story.blob_id,
        "names": names,
        "order": order,
        "accounts": lines,
    });
    // Inside a script element only `<` could end it.
    let json = serde_json::to_string(&trace)?.replace('<', "\\u003c");
    Ok(PAGE.replacen("@TRACE@", &json, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_break_out_of_the_page() {
        let story = Story {
            file: "</script><script>alert(1)</script>",
            size: 1,
            blob_id: "00",
            names: &[(Principal::anonymous(), "user")],
        };
        let page = page(&[], &story).unwrap();
        assert!(!page.contains("alert(1)</script>") && !page.contains("@TRACE@"));
        assert!(page.contains("\\u003c/script>"));
    }
}

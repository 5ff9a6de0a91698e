//! The simulation: the deployed canisters under random workloads and faults.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::canisters;
use crate::tools;
use crate::workspace::Workspace;

/// Which seeds were run, of what, and which of them broke.
const LEDGER: &str = "docs/simulated-seeds.md";

/// The commit that is checked out, and whether anything was changed since.
fn commit(workspace: &Workspace) -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .current_dir(&workspace.root)
            .args(args)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let of = ["canisters", "crates"];
    let changed = git(&["status", "--porcelain", "--", of[0], of[1]]);
    let suffix = if changed.is_some_and(|changed| changed.is_empty()) {
        ""
    } else {
        ", changed"
    };
    match git(&["rev-parse", "--short=7", "HEAD"]) {
        Some(commit) => format!("{commit}{suffix}"),
        None => "unknown".into(),
    }
}

/// Builds what is needed and hands `words` on. Fails as the program does: 1 where a seed failed, 2 where
/// the words are not understood.
pub fn run(workspace: &Workspace, words: &[OsString]) -> Result<ExitCode> {
    let canisters = canisters::build(workspace)?;
    canisters::build_next(workspace)?;
    if words.iter().any(|word| word == "--mutant") {
        canisters::build_mutant(workspace)?;
    }
    let out = workspace.target.join("simulation");
    let cache = out.join("compiled");
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let status = Command::new(tools::build_simulation(workspace)?)
        .arg("--wasm-dir")
        .arg(&canisters.dir)
        .arg("--compile-cache")
        .arg(cache)
        .arg("--out")
        .arg(out)
        .arg("--ledger")
        .arg(workspace.root.join(LEDGER))
        .arg("--commit")
        .arg(commit(workspace))
        .args(words)
        .status()
        .context("the simulation could not be started")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

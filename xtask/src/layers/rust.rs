//! Every Rust test, in one call of cargo: one build, and one set of features.

use anyhow::Result;

use super::Bench;
use crate::{canisters, tools::SERVER_VARIABLE};

/// Tells the tests that deploy canisters where their Wasm lies.
pub const WASM_DIR: &str = "OPENSTORAGE_WASM_DIR";

/// Keeps a test's server from writing to our pipe. It outlives the test by a minute, and as long as it
/// holds the pipe, the layer's output has no end.
const MUTE_SERVER: &str = "POCKET_IC_MUTE_SERVER";

/// The test programs of `tests/`.
const INTEGRATION: [&str; 17] = [
    "accounts",
    "buckets",
    "callers",
    "client",
    "conformance",
    "hash",
    "http",
    "jobs",
    "journey",
    "keys",
    "large",
    "refusals",
    "secrets",
    "site",
    "snapshots",
    "upgrades",
    "uploads",
];

/// All of them.
pub fn all(bench: &mut Bench) -> Result<()> {
    test(bench, &[])
}

/// Those of `tests/` alone. They are picked by name from the whole workspace, not by package: another
/// choice of packages is another choice of features, and builds everything once more.
pub fn integration(bench: &mut Bench) -> Result<()> {
    let args = INTEGRATION.map(|name| ["--test", name]);
    test(bench, args.as_flattened())
}

fn test(bench: &mut Bench, args: &[&str]) -> Result<()> {
    let canisters = bench.canisters()?;
    canisters::build_next(bench.workspace)?;
    canisters::build_mutant(bench.workspace)?;
    let tools = bench.tools()?;
    let mut command = bench
        .workspace
        .cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    command.args(args);
    command.env(WASM_DIR, &canisters.dir);
    command.env(SERVER_VARIABLE, tools.network());
    command.env(MUTE_SERVER, "1");
    bench.count(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_integration_test_is_forgotten() {
        let dir = crate::workspace::root().join("tests/tests");
        let mut found: Vec<String> = std::fs::read_dir(dir)
            .expect("lists the integration tests")
            .map(|entry| entry.expect("reads an entry").path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "rs"))
            .map(|path| path.file_stem().expect("has a name").display().to_string())
            .collect();
        found.sort();
        assert_eq!(found, INTEGRATION);
    }
}

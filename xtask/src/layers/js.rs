//! What runs in Node: the JavaScript library's tests, and those of the JavaScript agent.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Result, bail};

use super::Bench;
use super::rust::WASM_DIR;
use crate::tools::SERVER_VARIABLE;
use crate::workspace::Workspace;

/// The oldest major version of Node that the library supports.
const NODE_MAJOR_MIN: u32 = 20;

const NPM: &str = if cfg!(windows) { "npm.cmd" } else { "npm" };

/// `npm test` checks the types and builds the library first. Its tests deploy the canisters. The page that
/// the chat embeds must be what `web/` builds from the library.
pub fn run(bench: &mut Bench) -> Result<()> {
    let test = library(bench, &["test"])?;
    bench.count(test)?;
    let same = command(bench.workspace, "web", &["run", "same"])?;
    bench.count(same)
}

/// An npm command in the library's package, which finds the canisters and the network built.
pub fn library(bench: &mut Bench, words: &[&str]) -> Result<Command> {
    let canisters = bench.canisters()?;
    let tools = bench.tools()?;
    let mut command = command(bench.workspace, "js-lib", words)?;
    command.env(WASM_DIR, &canisters.dir);
    command.env(SERVER_VARIABLE, tools.network());
    Ok(command)
}

/// The official JavaScript agent against the local network.
pub fn agents(bench: &mut Bench) -> Result<()> {
    let tools = bench.tools()?;
    let mut test = command(bench.workspace, "crates/localnet/tests/js", &["test"])?;
    test.env(SERVER_VARIABLE, tools.network());
    bench.count(test)
}

/// An npm command in a package of ours, with the packages that its lock file names.
pub fn command(workspace: &Workspace, package: &str, words: &[&str]) -> Result<Command> {
    require_node()?;
    let package = workspace.root.join(package);
    if packages_outdated(&package) {
        let status = npm(&package, &["ci"]).status()?;
        if !status.success() {
            bail!("`npm ci` in {} failed ({status})", package.display());
        }
    }
    Ok(npm(&package, words))
}

fn npm(package: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(NPM);
    command.args(words).current_dir(package);
    command
}

fn require_node() -> Result<()> {
    let advice = format!(
        "install Node {NODE_MAJOR_MIN} or newer, which brings npm, from https://nodejs.org"
    );
    let Ok(output) = Command::new("node").arg("--version").output() else {
        bail!("the JavaScript tests need Node, and there is none: {advice}");
    };
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if major(&version).is_none_or(|major| major < NODE_MAJOR_MIN) {
        bail!("the JavaScript tests do not run on Node {version}: {advice}");
    }
    if Command::new(NPM).arg("--version").output().is_err() {
        bail!("the JavaScript tests need npm, and there is none: {advice}");
    }
    Ok(())
}

/// 20 of `v20.11.1`.
fn major(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// Whether the packages installed are older than the lock file, or missing. npm leaves a lock file of
/// its own where it has installed them.
fn packages_outdated(package: &Path) -> bool {
    let installed = changed(&package.join("node_modules/.package-lock.json"));
    let wanted = changed(&package.join("package-lock.json"));
    installed.is_none() || installed < wanted
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_node_are_read() {
        assert_eq!(major("v20.11.1"), Some(20));
        assert_eq!(major("v9.0.0"), Some(9));
        assert_eq!(major(""), None);
        assert_eq!(major("nodeless"), None);
    }

    #[test]
    fn packages_are_outdated_where_none_are() {
        assert!(packages_outdated(Path::new("/nowhere")));
    }
}

//! The host programs: the command line `ostore` and the local network's server.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// Names the network's server to whatever uses the `pocket-ic` crate.
pub const SERVER_VARIABLE: &str = "POCKET_IC_BIN";

/// The programs of one build.
#[derive(Debug, Clone)]
pub struct Tools {
    pub ostore: PathBuf,
    pub server: PathBuf,
    /// The bench of the local network.
    pub speed: PathBuf,
}

/// What cargo is told to select, whatever it is to make: see [`build`].
const WHOLE: [&str; 5] = [
    "--workspace",
    "--bin",
    "ostore",
    "--bin",
    "pocket-ic-server",
];

impl Tools {
    /// The network to run on: what the user set, else ours. Absolute, since tests run in directories of
    /// their own.
    pub fn network(&self) -> PathBuf {
        std::env::var_os(SERVER_VARIABLE)
            .and_then(|server| std::path::absolute(server).ok())
            .unwrap_or_else(|| self.server.clone())
    }
}

/// Builds the programs exactly as `cargo test --workspace` does, so that demo and tests compile the
/// Wasm engine once between them.
///
/// Cargo gives a crate the features that all selected packages ask for. `--package ostore` alone
/// selects fewer than the tests do, and another set of features is another build of everything above
/// it. So the whole workspace is selected, with only these two programs to make. Tests also bring
/// the features of dev-dependencies, which cargo leaves out unless a test or an example is asked for:
/// here the bench of the network.
pub fn build(workspace: &Workspace) -> Result<Tools> {
    eprintln!("building ostore and pocket-ic-server (the first time compiles a Wasm engine)");
    let args = [&WHOLE[..], &["--example", "speed"]].concat();
    let mut programs = workspace.build(&args, &[])?;
    let mut program = |name: &str| {
        programs
            .remove(name)
            .with_context(|| format!("cargo named no program {name}"))
    };
    Ok(Tools {
        ostore: program("ostore")?,
        server: program("pocket-ic-server")?,
        speed: program("speed")?,
    })
}

/// Builds the simulation, with the same features.
pub fn build_simulation(workspace: &Workspace) -> Result<PathBuf> {
    let args = [&WHOLE[..], &["--bin", "simulate", "--example", "speed"]].concat();
    let mut programs = workspace.build(&args, &[])?;
    let name = "simulate";
    programs.remove(name).context("cargo named no simulation")
}

/// Builds the bench of the canisters, with the same features.
pub fn build_storage_bench(workspace: &Workspace) -> Result<PathBuf> {
    let args = [&WHOLE[..], &["--example", "storage"]].concat();
    let mut programs = workspace.build(&args, &[])?;
    programs.remove("storage").context("cargo named no bench")
}

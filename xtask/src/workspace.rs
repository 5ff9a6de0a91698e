//! Where things lie, and how cargo is called.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The checkout and the directory that cargo builds to.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The directory of the topmost `Cargo.toml`, absolute.
    pub root: PathBuf,
    /// `target`, or what `CARGO_TARGET_DIR` or cargo's configuration put in its place, absolute.
    pub target: PathBuf,
}

impl Workspace {
    /// Asks cargo. Fails when cargo cannot read the workspace.
    pub fn find() -> Result<Self> {
        let root = root();
        let output = Command::new(cargo_program())
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(&root)
            .stderr(Stdio::inherit())
            .output()
            .context("cargo could not be started")?;
        if !output.status.success() {
            bail!("`cargo metadata` failed; its messages are above");
        }
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let target = metadata["target_directory"]
            .as_str()
            .context("`cargo metadata` named no target directory")?;
        Ok(Self {
            root,
            target: target.into(),
        })
    }

    /// Cargo, in the checkout, with `args`.
    pub fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(cargo_program());
        command.args(args).current_dir(&self.root);
        command
    }

    /// Runs `cargo build` with `args` and `env`, its progress on stderr. Answers the programs built,
    /// by the names of their targets.
    pub fn build(&self, args: &[&str], env: &[(&str, &Path)]) -> Result<BTreeMap<String, PathBuf>> {
        let output = self
            .cargo(&["build", "--locked"])
            .args(args)
            .arg("--message-format=json-render-diagnostics")
            .envs(env.iter().copied())
            .stderr(Stdio::inherit())
            .output()
            .context("cargo could not be started")?;
        if !output.status.success() {
            bail!(
                "`cargo build --locked {}` failed; its messages are above",
                args.join(" ")
            );
        }
        Ok(executables(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// The checkout: as cargo says when it runs this program, else where this program was compiled. Two
/// checkouts that share a target directory may share this program too, so cargo's word comes first.
pub fn root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    xtask.parent().unwrap_or(&xtask).to_owned()
}

/// The cargo that runs this program, so that nested calls use the same toolchain.
fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The programs named in cargo's JSON messages, one message a line.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?;
            let path = message["executable"].as_str()?;
            Some((name.to_owned(), PathBuf::from(path)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_cargos_messages() {
        let messages = r#"
            {"reason":"compiler-artifact","target":{"name":"a_library"},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"ostore"},"executable":"/t/debug/ostore"}
            {"reason":"build-finished","success":true}
        "#;
        let expected = [("ostore".to_owned(), PathBuf::from("/t/debug/ostore"))];
        assert_eq!(executables(messages), BTreeMap::from(expected));
    }

    #[test]
    fn the_root_is_the_checkout() {
        assert!(root().join("dfx.json").is_file());
    }
}

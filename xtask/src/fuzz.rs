//! Fuzzing: libFuzzer, guided by what the code under test has reached, against one target of `crates/fuzz`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::Workspace;

/// What the compiler adds so that libFuzzer sees edges and comparisons. They are plain LLVM passes, which
/// stable compilers have too; an address sanitizer is left out, since none of this code is `unsafe`.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// A token has 192 characters at most, a URL that is looked at some more.
const INPUT_BYTES_MAX: usize = 1024;

/// Runs the target `name` for `minutes`, and then adds to its corpus what reaches something new.
pub fn run(workspace: &Workspace, name: &str, minutes: u32) -> Result<()> {
    let crate_dir = workspace.root.join("crates/fuzz");
    ensure!(
        crate_dir.join(format!("targets/{name}.rs")).is_file(),
        "there is no target `{name}`: crates/fuzz/targets has one file for each"
    );
    let program = build(workspace, name)?;
    let corpus = crate_dir.join("corpus").join(name);
    let found = workspace.target.join("fuzz/found").join(name);
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&found)?;

    let mut fuzz = Command::new(&program);
    fuzz.args([&found, &corpus])
        .arg(format!("-max_total_time={}", u64::from(minutes) * 60))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!(
            "-artifact_prefix={}/broken-{name}-",
            crate_dir.display()
        ))
        .arg("-print_final_stats=1");
    let status = fuzz.status().context("the fuzzer could not be started")?;
    if !status.success() {
        bail!(
            "a promise of `{name}` is broken: the input lies in {}. Mend it, and move the input to {}",
            crate_dir.display(),
            corpus.display()
        );
    }
    let mut merge = Command::new(&program);
    merge.arg("-merge=1").args([&corpus, &found]);
    let merged = merge.output().context("the corpus could not be merged")?;
    ensure!(merged.status.success(), "the corpus could not be merged");
    println!("{}: {} inputs kept", name, fs::read_dir(&corpus)?.count());
    Ok(())
}

/// Into a target directory of its own: other flags are another build of everything.
fn build(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let host = host()?;
    let target = workspace.target.join("fuzz");
    let program = format!("fuzz-{name}");
    let mut cargo = workspace.cargo(&["build", "--locked", "--package", "openstorage-fuzz"]);
    cargo
        .args(["--features", "engine", "--bin", &program])
        // Naming a target keeps the flags away from build scripts.
        .args(["--target", &host])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", COVERAGE);
    let status = cargo.status().context("cargo could not be started")?;
    ensure!(status.success(), "`{program}` could not be built");
    Ok(target.join(host).join("debug").join(program))
}

/// The compiler's own platform.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc named no host")?.to_owned())
}

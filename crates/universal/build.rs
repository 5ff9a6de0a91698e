//! Compiles `src/canister.rs` to Wasm, with and without a heartbeat: one file, no dependencies, so that the
//! compiler alone is enough.

use std::{env, path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=src/canister.rs");
    println!("cargo::rerun-if-changed=src/op.rs");
    println!("cargo::rustc-check-cfg=cfg(heartbeat)");
    compile("universal.wasm", &[]);
    compile("universal_heartbeat.wasm", &["--cfg", "heartbeat"]);
}

fn compile(name: &str, flags: &[&str]) {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join(name);
    let status = Command::new(env::var_os("RUSTC").expect("cargo sets it"))
        .args([
            "src/canister.rs",
            "--crate-name",
            "universal",
            "--edition",
            "2024",
        ])
        .args([
            "--crate-type",
            "cdylib",
            "--target",
            "wasm32-unknown-unknown",
        ])
        .args([
            "-C",
            "opt-level=s",
            "-C",
            "panic=abort",
            "-C",
            "strip=symbols",
        ])
        .args(["--check-cfg", "cfg(heartbeat)"])
        .args(flags)
        .arg("-o")
        .arg(&out)
        .status()
        .expect("rustc runs");
    assert!(
        status.success(),
        "the universal canister does not compile; `rustup target add wasm32-unknown-unknown` if the target is missing"
    );
}

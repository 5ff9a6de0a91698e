//! Programs that tests need and that may not be there: Debian's packages, where one may install them.

use std::process::Command;

use anyhow::{Result, bail};

use super::Bench;

/// Set by whatever must not go on without them.
const CI: &str = "CI";

/// Installs what the run may install. Whether it worked shows in that it is there.
pub fn install(packages: &[&str]) {
    let id = Command::new("id").arg("-u").output();
    let is_root = id.is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    if !is_root || Command::new("apt-get").arg("--version").output().is_err() {
        return;
    }
    println!("installing from Debian: {}", packages.join(" "));
    let install = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    for args in [&["update"][..], &install] {
        let status = Command::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status();
        if !status.is_ok_and(|status| status.success()) {
            println!("`apt-get {}` failed", args.join(" "));
        }
    }
}

/// Something is missing and cannot be had: a failure where [`CI`] is set, else a layer without tests.
pub fn without(bench: &mut Bench, what: &str, advice: &str) -> Result<()> {
    if std::env::var_os(CI).is_some() {
        bail!("these tests need {what}, which is not there: {advice}");
    }
    println!("*** NOTHING WAS TESTED: there is no {what}. {advice} ***");
    bench.tally.ignored += 1;
    Ok(())
}

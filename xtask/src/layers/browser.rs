//! The JavaScript library in a real Chromium.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use super::{Bench, js};

/// Names the browser to the tests. Where it is not set, [`PLACES`] are looked through.
pub const BROWSER_VARIABLE: &str = "CHROMIUM_BIN";

/// Set by whatever must not go on without a browser.
const CI: &str = "CI";

const PLACES: [&str; 4] = [
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/// Runs the tests in one worker: each page's network is its own, the processor is not.
pub fn run(bench: &mut Bench) -> Result<()> {
    let Some(browser) = find_or_install() else {
        return without(bench);
    };
    let mut test = js::library(bench, &["run", "test:browser"])?;
    test.env(BROWSER_VARIABLE, browser);
    bench.count(test)
}

/// A Chromium that is there, or that could be had.
pub fn find_or_install() -> Option<PathBuf> {
    find().or_else(|| {
        install();
        find()
    })
}

fn find() -> Option<PathBuf> {
    let named = std::env::var_os(BROWSER_VARIABLE).map(PathBuf::from);
    named
        .into_iter()
        .chain(PLACES.map(PathBuf::from))
        .find(|path| path.is_file())
}

/// From Debian's packages, where one may. Whether it worked shows in that it is there.
fn install() {
    let id = Command::new("id").arg("-u").output();
    let is_root = id.is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    if !is_root || Command::new("apt-get").arg("--version").output().is_err() {
        return;
    }
    println!("browser: there is no Chromium: installing Debian's");
    for args in [&["update"][..], &["install", "--yes", "chromium"]] {
        let status = Command::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status();
        if !status.is_ok_and(|status| status.success()) {
            println!("browser: `apt-get {}` failed", args.join(" "));
        }
    }
}

/// There is no browser and none can be had.
fn without(bench: &mut Bench) -> Result<()> {
    let advice = format!("install Chromium, or set {BROWSER_VARIABLE} to one");
    if std::env::var_os(CI).is_some() {
        bail!("the tests in a browser need Chromium, and there is none: {advice}");
    }
    println!("*** NOTHING WAS TESTED IN A BROWSER: there is no Chromium. {advice} ***");
    bench.tally.ignored += 1;
    Ok(())
}

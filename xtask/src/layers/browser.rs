//! The JavaScript library in a real Chromium.

use std::path::PathBuf;

use anyhow::Result;

use super::{Bench, debian, js};

/// Names the browser to the tests. Where it is not set, [`PLACES`] are looked through.
pub const BROWSER_VARIABLE: &str = "CHROMIUM_BIN";

const PLACES: [&str; 4] = [
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/// Runs the tests in one worker: each page's network is its own, the processor is not.
pub fn run(bench: &mut Bench) -> Result<()> {
    let Some(browser) = find_or_install() else {
        let advice = format!("install Chromium, or set {BROWSER_VARIABLE} to one");
        return debian::without(bench, "Chromium", &advice);
    };
    let mut test = js::library(bench, &["run", "test:browser"])?;
    test.env(BROWSER_VARIABLE, browser);
    bench.count(test)
}

/// A Chromium that is there, or that could be had.
pub fn find_or_install() -> Option<PathBuf> {
    find().or_else(|| {
        debian::install(&["chromium"]);
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

//! What storing costs, counted by the local network: `cargo xtask bench --only storage`.
//!
//! The canisters are those that are deployed; every figure is a sum of the accounts that the network keeps
//! of each execution. Figures with many blobs start from memory that the canisters' own cores have filled
//! natively (`grown`), so that many blobs need no messages. The thousand buckets are a thousand canisters.
//!
//! Prints tables, and last one JSON object. With `--out DIR` it also writes `storage.md`, `storage.json` and
//! the plots there, and says what has changed since they were written last. `--blobs N` ends the growth
//! there instead of at 1,000,000, which are filled natively within minutes.

mod access;
mod figures;
mod fleet;
mod meter;
mod plot;
mod scale;
mod single;

use std::path::PathBuf;

use figures::Report;

/// Sizes at which the cost of each call is taken: blobs of one user, and as many users.
const SIZES: [u64; 5] = [10, 1_000, 10_000, 100_000, 1_000_000];

fn main() {
    let (out, blobs_max) = arguments();
    let mut report = Report::default();
    single::measure(&mut report);
    access::measure(&mut report);
    let sizes = SIZES.into_iter().filter(|size| *size <= blobs_max);
    scale::measure(&mut report, sizes.collect());
    fleet::measure(&mut report);
    print!("{}", report.tables(out.as_deref()));
    if let Some(out) = out {
        report.write(&out);
    }
    println!("{}", report.json());
}

fn arguments() -> (Option<PathBuf>, u64) {
    let (mut out, mut blobs_max) = (None, 1_000_000);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next();
        match (word.as_str(), value) {
            ("--out", Some(dir)) => out = Some(dir.into()),
            ("--blobs", Some(count)) => blobs_max = count.parse().expect("--blobs takes a number"),
            _ => panic!("the words are --out DIR and --blobs N, not {word}"),
        }
    }
    (out, blobs_max)
}

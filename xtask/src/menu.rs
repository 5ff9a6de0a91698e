//! The text of `cargo xtask` alone.

use crate::{bench, layers};

const COMMANDS: &str = "\
cargo xtask demo [FILE]    build everything, store FILE (a picture if none is named) and serve it
            --once         leave when it is stored and checked
            --json         say the outcome as one JSON object, the last line
            --port N       serve on this port
            --trace PAGE   draw the journey, message by message, on this page (HTML)
cargo xtask build          build the canisters to target/canisters/*.wasm.gz
cargo xtask test           run every test
            --full         try everything of which else samples are tried; takes minutes more
            --only NAME    run one layer; may be given more than once
            --list         name the layers
cargo xtask bench          measure, and print a table
            --only NAME    run one layer; may be given more than once
            --json         say the figures as one JSON object, the last line
cargo xtask fuzz NAME      look for inputs that break a promise of a parser
            --minutes N    for so long (1)
cargo xtask simulate       run the canisters under random workloads and faults, and look at what must hold
            --seed S       this seed, and no other
            --seeds N      so many, from 1 or --seed on (20), or those of a range: A..B
            --steps N      steps of each
            --minutes M    begin seeds for so long
            --mutant N     with the N-th bug planted on purpose, which must be found
cargo xtask server-path    build the local network's server and print its path as the last line

Layers of the test run:
";

/// All commands and all layers.
pub fn text() -> String {
    let mut text = COMMANDS.to_owned();
    for line in layers().lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str("\nLayers of the benches:\n");
    for layer in &bench::ALL {
        text.push_str(&format!("  {:<12} {}\n", layer.name, layer.about));
    }
    text
}

/// One line for each test layer.
pub fn layers() -> String {
    let mut lines = String::new();
    for layer in &layers::ALL {
        lines.push_str(&format!("{:<12} {}\n", layer.name, layer.about));
    }
    lines
}

//! The one menu of the project: `cargo xtask` builds, shows and tests it.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `args` | the words of the command line, as a command |
//! | `menu` | the text of `cargo xtask` alone |
//! | `workspace` | where things lie, and how cargo is called |
//! | `canisters` | the canisters as gzipped Wasm |
//! | `section` | a custom section of a Wasm module |
//! | `tools` | the host programs: the command line and the local network |
//! | `demo` | the demo of the README |
//! | `bench` | the benches, in layers |
//! | `fuzz` | the parsers that face strangers, under libFuzzer |
//! | `simulate` | the canisters under random workloads and faults |
//! | `layers` | the layers of the test run, one file each |
//! | `report` | what a test run says at its end |

mod args;
mod bench;
mod canisters;
mod demo;
mod fuzz;
mod layers;
mod menu;
mod report;
mod section;
mod simulate;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use args::Command;
use workspace::Workspace;

/// The command line was not understood.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(command) => run(command).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }),
        Err(sentence) => {
            eprintln!("error: {sentence}\n\n{}", menu::text());
            ExitCode::from(USAGE)
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Menu => print!("{}", menu::text()),
        Command::ListLayers => print!("{}", menu::layers()),
        Command::Build => {
            let built = canisters::build(&Workspace::find()?)?;
            print!("{}", built.summary());
        }
        Command::ServerPath => {
            let tools = tools::build(&Workspace::find()?)?;
            println!("{}", tools.server.display());
        }
        Command::Demo(args) => return demo::run(&args),
        Command::Fuzz { target, minutes } => fuzz::run(&Workspace::find()?, &target, minutes)?,
        Command::Simulate(words) => return simulate::run(&Workspace::find()?, &words),
        Command::Bench { only, json } => bench::run(&Workspace::find()?, &only, json)?,
        Command::Test { only, full } => return layers::run(&Workspace::find()?, &only, full),
    }
    Ok(ExitCode::SUCCESS)
}

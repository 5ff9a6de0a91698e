//! The layers of the test run, one file each for those that take more than a line.

pub mod browser;
mod debian;
mod demo;
pub mod js;
mod players;
pub mod rust;

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::canisters::{self, Canisters};
use crate::report::{self, Outcome, Tally};
use crate::tools::{self, Tools};
use crate::workspace::Workspace;

/// One layer of the test run.
pub struct Layer {
    pub name: &'static str,
    pub about: &'static str,
    /// Whether a full run has it. The others are parts of a layer that it has.
    full: bool,
    run: fn(&mut Bench) -> Result<()>,
}

/// In the order of the run: what fails soonest comes first.
pub const ALL: [Layer; 10] = [
    Layer {
        name: "fmt",
        about: "all Rust is formatted",
        full: true,
        run: |bench| bench.cargo(&["fmt", "--all", "--check"]),
    },
    Layer {
        name: "canisters",
        about: "the canisters compile to Wasm",
        full: true,
        run: canisters,
    },
    Layer {
        name: "clippy",
        about: "the compiler and clippy have no warning",
        full: true,
        run: clippy,
    },
    Layer {
        name: "rust",
        about: "every Rust test: units, properties, golden files, docs, integration",
        full: true,
        run: rust::all,
    },
    Layer {
        name: "integration",
        about: "of `rust`, those of the deployed canisters on a network (tests/)",
        full: false,
        run: rust::integration,
    },
    Layer {
        name: "js",
        about: "the JavaScript library: types, build, tests in Node",
        full: true,
        run: js::run,
    },
    Layer {
        name: "agents",
        about: "the official JavaScript agent against the local network",
        full: true,
        run: js::agents,
    },
    Layer {
        name: "browser",
        about: "the JavaScript library's plain page in a real Chromium",
        full: true,
        run: browser::run,
    },
    Layer {
        name: "players",
        about: "films, sounds and files in three browsers' engines, and by the tools that people have",
        full: true,
        run: players::run,
    },
    Layer {
        name: "demo",
        about: "the demo with files of many sizes, and what it must refuse",
        full: true,
        run: demo::run,
    },
];

/// Tells tests to try everything of which they else try samples.
const FULL: &str = "OPENSTORAGE_FULL";

/// Runs the layers named in `only`, in the order of [`ALL`], or the full run when none is named. All
/// run, whatever fails; the exit code says whether something did. `full` is for tests that else try
/// samples.
pub fn run(workspace: &Workspace, only: &[String], full: bool) -> Result<ExitCode> {
    let mut bench = Bench::new(workspace, full);
    let mut outcomes = Vec::new();
    for layer in chosen(only) {
        println!("\n== {}: {}", layer.name, layer.about);
        let start = Instant::now();
        bench.tally = Tally::default();
        let failure = (layer.run)(&mut bench)
            .err()
            .map(|error| format!("{error:#}"));
        let time = start.elapsed();
        match &failure {
            None => println!("== {}: ok, {:.1} s", layer.name, time.as_secs_f64()),
            Some(why) => println!("== {}: FAILED, {why}", layer.name),
        }
        outcomes.push(Outcome {
            layer: layer.name,
            time,
            tally: bench.tally,
            failure,
        });
    }
    print!("\n{}", report::text(&outcomes));
    let failed = outcomes.iter().any(|outcome| outcome.failure.is_some());
    Ok(ExitCode::from(u8::from(failed)))
}

fn chosen(only: &[String]) -> impl Iterator<Item = &'static Layer> {
    ALL.iter().filter(move |layer| match only {
        [] => layer.full,
        names => names.iter().any(|name| name == layer.name),
    })
}

fn canisters(bench: &mut Bench) -> Result<()> {
    let built = bench.canisters()?;
    print!("{}", built.summary());
    Ok(())
}

fn clippy(bench: &mut Bench) -> Result<()> {
    bench.cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ])
}

/// What the layers of one run share: things built once, and the count of tests.
pub struct Bench<'a> {
    workspace: &'a Workspace,
    full: bool,
    /// The tests of the layer that runs now.
    tally: Tally,
    canisters: Option<Result<Canisters, String>>,
    tools: Option<Result<Tools, String>>,
}

impl<'a> Bench<'a> {
    fn new(workspace: &'a Workspace, full: bool) -> Self {
        Self {
            workspace,
            full,
            tally: Tally::default(),
            canisters: None,
            tools: None,
        }
    }

    /// The canisters, built by the first layer that asks.
    fn canisters(&mut self) -> Result<Canisters> {
        once(&mut self.canisters, || canisters::build(self.workspace))
    }

    /// The host programs, built by the first layer that asks.
    fn tools(&mut self) -> Result<Tools> {
        once(&mut self.tools, || tools::build(self.workspace))
    }

    fn cargo(&mut self, args: &[&str]) -> Result<()> {
        let command = self.workspace.cargo(args);
        self.count(command)
    }

    /// Runs `command`, shows what it prints, and counts the tests in it.
    fn count(&mut self, mut command: Command) -> Result<()> {
        let name = line_of(&command);
        if self.full {
            command.env(FULL, "1");
        }
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{name}` could not be started"))?;
        let output = child.stdout.take().context("a pipe was asked for")?;
        for line in BufReader::new(output).split(b'\n') {
            let mut line = line?;
            self.tally.count(&String::from_utf8_lossy(&line));
            line.push(b'\n');
            io::stdout().write_all(&line)?;
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("`{name}` failed ({status})");
        }
        Ok(())
    }
}

/// Does `make` once. Whoever asks again gets the same answer, a failure too.
fn once<T: Clone>(
    slot: &mut Option<Result<T, String>>,
    make: impl FnOnce() -> Result<T>,
) -> Result<T> {
    slot.get_or_insert_with(|| make().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

/// A command as one would type it.
fn line_of(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_stem().unwrap_or(program.as_os_str());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(only: &[&str]) -> Vec<&'static str> {
        let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
        chosen(&only).map(|layer| layer.name).collect()
    }

    #[test]
    fn a_full_run_has_every_layer_but_parts_of_others() {
        assert_eq!(
            names(&[]),
            [
                "fmt",
                "canisters",
                "clippy",
                "rust",
                "js",
                "agents",
                "browser",
                "players",
                "demo"
            ]
        );
    }

    #[test]
    fn layers_run_in_the_order_of_the_menu() {
        assert_eq!(names(&["js", "integration", "js"]), ["integration", "js"]);
    }

    #[test]
    fn what_failed_once_is_not_tried_again() {
        let mut slot = None;
        let first = once::<()>(&mut slot, || bail!("no compiler"));
        let again = once(&mut slot, || Ok(()));
        assert_eq!(first.map_err(|e| e.to_string()), Err("no compiler".into()));
        assert_eq!(again.map_err(|e| e.to_string()), Err("no compiler".into()));
    }

    #[test]
    fn a_command_is_shown_as_typed() {
        let mut command = Command::new("/somewhere/bin/cargo");
        command.args(["fmt", "--all"]);
        assert_eq!(line_of(&command), "cargo fmt --all");
    }
}

//! The benches, in layers like the tests: each prints a table for people and ends with one JSON object.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::canisters;
use crate::layers::{browser, js, rust::WASM_DIR};
use crate::tools::{self, SERVER_VARIABLE, Tools};
use crate::workspace::Workspace;

/// Keeps the measured server from writing to our pipe.
const MUTE_SERVER: &str = "POCKET_IC_MUTE_SERVER";

/// How much dearer a figure may be than the committed one. Counts do not vary: a difference is a change of code.
const TOLERANCE: f64 = 0.02;

/// One layer of the benches.
pub struct Layer {
    pub name: &'static str,
    pub about: &'static str,
    /// The committed figures that a run is held against, less being better. None where figures are times, which
    /// vary with the machine.
    committed: Option<&'static str>,
    /// The program that measures, built where it has to be.
    command: fn(&Workspace, &Tools) -> Result<Command>,
}

/// In the order of the run.
pub const ALL: [Layer; 3] = [
    Layer {
        name: "localnet",
        about: "the local network's messages a second, and 100 MB of chunks through its server",
        committed: None,
        command: |_, tools| Ok(Command::new(&tools.speed)),
    },
    Layer {
        name: "storage",
        about: "instructions and bytes of the deployed canisters, up to 1,000,000 blobs; writes docs/figures, fails where they grew by over 2 %",
        committed: Some("docs/figures/storage.json"),
        command: storage,
    },
    Layer {
        name: "js",
        about: "the JavaScript library against the bare agent, its memory, the page's thread; writes docs/figures",
        committed: None,
        command: javascript,
    },
];

/// The figures are those of the local network: no other counts for us.
fn storage(workspace: &Workspace, _: &Tools) -> Result<Command> {
    let canisters = canisters::build(workspace)?;
    let mut command = Command::new(tools::build_storage_bench(workspace)?);
    command.env(WASM_DIR, &canisters.dir);
    command
        .arg("--out")
        .arg(workspace.root.join("docs/figures"));
    Ok(command)
}

/// In Node and in Chromium: a figure that cannot be measured is no figure, so both must be there.
fn javascript(workspace: &Workspace, _: &Tools) -> Result<Command> {
    let browser = browser::find_or_install().with_context(|| {
        let variable = browser::BROWSER_VARIABLE;
        format!("the bench needs Chromium: install it, or set {variable} to one")
    })?;
    let canisters = canisters::build(workspace)?;
    let words = ["run", "bench", "--", "--json", "--out"];
    let mut command = js::command(workspace, "js-lib", &words)?;
    command.arg(workspace.root.join("docs/figures"));
    command.env(WASM_DIR, &canisters.dir);
    command.env(browser::BROWSER_VARIABLE, browser);
    Ok(command)
}

/// Runs the layers named in `only`, or all when none is named. `json` says the figures of all of them as
/// one object, the last line.
///
/// # Errors
/// When a bench fails; and, after all of them, when a figure is dearer than the committed one by over 2 %.
pub fn run(workspace: &Workspace, only: &[String], json: bool) -> Result<()> {
    let tools = tools::build(workspace)?;
    let mut figures = Map::new();
    let mut dearer = Vec::new();
    for layer in ALL.iter().filter(|layer| chosen(only, layer.name)) {
        println!("\n== {}: {}", layer.name, layer.about);
        let mut command = (layer.command)(workspace, &tools)?;
        command.env(SERVER_VARIABLE, tools.network());
        command.env(MUTE_SERVER, "1");
        let before = layer.committed.map(|path| workspace.root.join(path));
        let before = before.map_or_else(|| Ok(Map::new()), |path| read(&path))?;
        let now = measure(command).with_context(|| format!("bench {}", layer.name))?;
        dearer.extend(regressions(&before, &now));
        figures.extend(now);
    }
    if json {
        println!("{}", Value::Object(figures));
    }
    if !dearer.is_empty() {
        bail!("dearer than committed by over 2 %:\n{}", dearer.join("\n"));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON object", path.display()))
}

/// A line for each figure that is dearer now than before. One that is new, or was not measured, is none.
fn regressions(before: &Map<String, Value>, now: &Map<String, Value>) -> Vec<String> {
    let figure =
        |figures: &Map<String, Value>, name: &str| figures.get(name).and_then(Value::as_f64);
    let line = |name: &String| {
        let (before, now) = (figure(before, name)?, figure(now, name)?);
        let is_dearer = now > before * (1.0 + TOLERANCE);
        is_dearer.then(|| format!("  {name}: {now}, was {before}"))
    };
    before.keys().filter_map(line).collect()
}

fn chosen(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|chosen| chosen == name)
}

/// Shows what the program prints as it comes, but for its last line: that is the figures.
fn measure(mut command: Command) -> Result<Map<String, Value>> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("it could not be started")?;
    let output = child.stdout.take().context("a pipe was asked for")?;
    let mut last = String::new();
    for line in BufReader::new(output).lines() {
        if !last.is_empty() {
            println!("{last}");
        }
        last = line?;
    }
    let status = child.wait()?;
    if !status.success() {
        println!("{last}");
        bail!("it failed ({status})");
    }
    serde_json::from_str(&last).context("its last line is no JSON object")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Map<String, Value>> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        measure(command)
    }

    #[test]
    fn figures_are_the_last_line_of_a_program_that_succeeds() {
        let figures = shell(r#"echo table; echo '{"a": 1}'"#).expect("it measures");
        assert_eq!(figures["a"], 1);
        assert!(shell(r#"echo '{"a": 1}'; exit 3"#).is_err());
        assert!(shell("echo table").is_err());
    }

    #[test]
    fn a_figure_that_grew_by_over_two_percent_is_a_regression() {
        let figures = |text| serde_json::from_str(text).expect("an object");
        let before = figures(r#"{"push": 100.0, "delete": 50.0, "gone": 1.0}"#);
        let same = figures(r#"{"push": 102.0, "delete": 49.0, "new": 1e9}"#);
        assert!(regressions(&before, &same).is_empty());
        let worse = figures(r#"{"push": 102.1, "delete": 50.0}"#);
        assert_eq!(regressions(&before, &worse), ["  push: 102.1, was 100"]);
    }
}

//! The demo of the README: one file stored on a local network, checked, and served.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::args::DemoArgs;
use crate::canisters::{self, Canisters};
use crate::tools::{self, SERVER_VARIABLE, Tools};
use crate::workspace::{self, Workspace};

/// What is stored when no file is named.
const PICTURE: &str = "assets/lighthouse.jpg";

/// Builds all that is missing and hands over to `ostore demo`. What can be refused without building
/// is refused first. All that is said here goes to stderr: stdout belongs to the outcome.
pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    let outcome = build_and_hand_over(args);
    if let Err(error) = &outcome
        && args.json
    {
        // The outcome, in the shape in which `ostore demo` tells of its own failures.
        let error = format!("{error:#}");
        println!("{}", serde_json::json!({ "ok": false, "error": error }));
    }
    outcome
}

fn build_and_hand_over(args: &DemoArgs) -> Result<ExitCode> {
    let file = args.file.clone().unwrap_or_else(picture);
    check_file(&file)?;
    args.port.map_or(Ok(()), check_port)?;

    let workspace = Workspace::find()?;
    let canisters = canisters::build(&workspace)?;
    let tools = tools::build(&workspace)?;
    hand_over(command(&tools, &canisters, &file, args))
}

/// The picture that the project ships.
pub fn picture() -> PathBuf {
    workspace::root().join(PICTURE)
}

fn check_file(path: &Path) -> Result<()> {
    let shown = path.display();
    match File::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => bail!("{shown} is not a file: name a file to store"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("there is no file {shown}: name one that exists")
        }
        Err(error) => Err(error).context(format!("cannot read {shown}")),
    }
}

fn check_port(port: u16) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(error).context(format!(
            "cannot serve on port {port}: name another one with --port, or none for any free one"
        )),
    }
}

fn command(tools: &Tools, canisters: &Canisters, file: &Path, args: &DemoArgs) -> Command {
    let mut command = Command::new(&tools.ostore);
    command.env(SERVER_VARIABLE, tools.network());
    command.arg("demo").arg("--wasm-dir").arg(&canisters.dir);
    if args.once {
        command.arg("--once");
    }
    if args.json {
        command.arg("--json");
    }
    if let Some(port) = args.port {
        command.arg("--port").arg(port.to_string());
    }
    if let Some(page) = &args.trace {
        command.arg("--trace").arg(page);
    }
    command.arg("--").arg(file);
    command
}

/// Becomes `command`, so that Ctrl-C, signals and exit codes are its own.
#[cfg(unix)]
fn hand_over(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    Err(command.exec()).context(format!("cannot start {:?}", command.get_program()))
}

/// Waits for `command` and passes its exit code on.
#[cfg(not(unix))]
fn hand_over(mut command: Command) -> Result<ExitCode> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_there() {
        check_file(&picture()).expect("is a file");
    }

    #[test]
    fn a_missing_file_and_a_directory_are_refused_by_name() {
        let missing = check_file(Path::new("no/such.jpg")).expect_err("is missing");
        assert!(missing.to_string().contains("no/such.jpg"), "{missing}");
        let directory = check_file(&workspace::root()).expect_err("is a directory");
        assert!(directory.to_string().contains("not a file"), "{directory}");
    }

    #[test]
    fn a_taken_port_is_refused_by_number() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
        let port = taken.local_addr().expect("is bound").port();
        let refusal = check_port(port).expect_err("is taken");
        assert!(refusal.to_string().contains(&port.to_string()), "{refusal}");
    }
}

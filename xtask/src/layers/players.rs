//! Films, sounds and files by the players and tools that people have: three engines of browsers, and what fetches,
//! copies and reads on a command line.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Bench, browser, debian, js};
use crate::workspace::Workspace;

/// Names the Python that has the readers' packages to the tests.
const PYTHON: &str = "PLAYERS_PYTHON";

/// A program, and Debian's package that has it.
const PROGRAMS: [(&str, &str); 10] = [
    ("firefox-esr", "firefox-esr"),
    ("WebKitWebDriver", "webkit2gtk-driver"),
    ("Xvfb", "xvfb"),
    ("ffmpeg", "ffmpeg"),
    ("curl", "curl"),
    ("wget", "wget"),
    ("aria2c", "aria2"),
    ("pdftotext", "poppler-utils"),
    ("qpdf", "qpdf"),
    ("python3", "python3"),
];

/// What has no program of its own: the codecs of WebKit, as files below `gstreamer-1.0`, and a part of Python.
const CODECS: [(&str, &str); 3] = [
    ("libgstlibav.so", "gstreamer1.0-libav"),
    ("libgstisomp4.so", "gstreamer1.0-plugins-good"),
    ("libgstopusparse.so", "gstreamer1.0-plugins-bad"),
];
const PYTHON_PARTS: &str = "python3-venv";

const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/gstreamer-1.0",
    "/usr/lib/aarch64-linux-gnu/gstreamer-1.0",
];

pub fn run(bench: &mut Bench) -> Result<()> {
    let chromium = browser::find_or_install();
    let missing = missing();
    if !missing.is_empty() {
        debian::install(&[&missing[..], &[PYTHON_PARTS]].concat());
    }
    let missing = self::missing().join(", ");
    let (Some(chromium), "") = (chromium, &*missing) else {
        let advice = format!("install Chromium and {missing}, as Debian names them");
        return debian::without(bench, "player or tool of some kind", &advice);
    };
    let python = readers(bench.workspace)?;
    let mut test = js::library(bench, &["run", "test:players"])?;
    test.env(browser::BROWSER_VARIABLE, chromium);
    test.env(PYTHON, python);
    bench.count(test)
}

/// The packages of what is not there.
fn missing() -> Vec<&'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    let has = |name: &str| dirs.iter().any(|dir| dir.join(name).is_file());
    let has_codec = |name: &str| {
        LIBRARIES
            .iter()
            .any(|dir| Path::new(dir).join(name).is_file())
    };
    let programs = PROGRAMS.iter().filter(|(program, _)| !has(program));
    let codecs = CODECS.iter().filter(|(file, _)| !has_codec(file));
    programs
        .chain(codecs)
        .map(|(_, package)| *package)
        .collect()
}

/// A Python with the packages of `requirements.txt`, made anew when that file has changed.
fn readers(workspace: &Workspace) -> Result<PathBuf> {
    let wanted = workspace.root.join("js-lib/test/players/requirements.txt");
    let wanted = fs::read_to_string(wanted)?;
    let dir = workspace.target.join("players-python");
    let python = dir.join("bin/python");
    let record = dir.join("requirements.txt");
    if fs::read_to_string(&record).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    println!("installing Python's readers to {}", dir.display());
    let make = ["-m", "venv", "--clear"];
    succeed(Command::new("python3").args(make).arg(&dir))?;
    let packages = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    succeed(Command::new(&python).args(packages).args(wanted.lines()))?;
    fs::write(record, wanted)?;
    Ok(python)
}

fn succeed(command: &mut Command) -> Result<()> {
    let line = super::line_of(command);
    let status = command
        .status()
        .with_context(|| format!("`{line}` could not be started"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

//! The demo of the README, run as a user runs it: files of many sizes, and what it must refuse.

#[cfg(unix)]
mod serving;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Bench;
use crate::canisters::hex;
use crate::demo;

/// Nothing; the least; a full chunk and one byte more; enough to need every chunk in flight.
const SIZES: [u64; 5] = [0, 1, 2_000_000, 2_000_001, 100_000_000];

/// Bytes read, or made, at a time.
const BLOCK_BYTES: usize = 1 << 16;

/// Runs every case, whatever fails; each counts as one test.
pub fn run(bench: &mut Bench) -> Result<()> {
    // Built in sight, so that the demos below are quick and can be quiet.
    bench.canisters()?;
    bench.tools()?;
    let scratch = Scratch::new(&bench.workspace.target)?;

    bench.case("the picture", || stores(None));
    for bytes in SIZES {
        bench.case(&format!("{bytes} bytes"), || {
            let path = scratch.dir.join(format!("{bytes}.bin"));
            fill(&path, bytes)?;
            stores(Some(&path))
        });
    }
    // Elsewhere there is no `kill` to send a Ctrl-C with.
    #[cfg(unix)]
    bench.case("Ctrl-C in the middle of an upload", || {
        serving::interrupted_in_the_middle(&scratch)
    });
    #[cfg(unix)]
    bench.case("serving, another demo beside it, Ctrl-C", || {
        serving::until_interrupted(&scratch)
    });
    bench.case("the journey is drawn", || draws(&scratch));
    bench.case("a missing file is refused", refuses_missing_file);
    bench.case("a taken port is refused", refuses_taken_port);

    match bench.tally.failed {
        0 => Ok(()),
        failed => bail!("{failed} demos went wrong"),
    }
}

impl Bench<'_> {
    fn case(&mut self, name: &str, case: impl FnOnce() -> Result<()>) {
        match case() {
            Ok(()) => {
                println!("demo: {name} ... ok");
                self.tally.passed += 1;
            }
            Err(error) => {
                println!("demo: {name} ... FAILED: {error:#}");
                self.tally.failed += 1;
            }
        }
    }
}

/// Stores a file, the picture if none is named, and compares what was served with what lies on disk.
fn stores(path: Option<&Path>) -> Result<()> {
    let args: Vec<&OsStr> = path.iter().map(|path| path.as_os_str()).collect();
    let output = once(&args)?;
    ensure!(
        output.status.success(),
        "the demo failed ({}): {}",
        output.status,
        said(&output)
    );
    let picture = demo::picture();
    check(&output, path.unwrap_or(&picture))
}

/// The last line of stdout tells of exactly the file at `path`.
fn check(output: &Output, path: &Path) -> Result<()> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let line = stdout.lines().next_back().unwrap_or_default();
    let report: Value = serde_json::from_str(line)
        .with_context(|| format!("the last line is not a JSON object: {line:?}"))?;
    let (bytes, sha256) = digest(path)?;
    ensure!(report["ok"] == true, "it is not ok: {line}");
    ensure!(report["size"] == bytes, "not {bytes} bytes: {line}");
    ensure!(report["blob_id"] == sha256, "not the id {sha256}: {line}");
    ensure!(
        report["sha256_served"] == sha256,
        "other bytes were served than {sha256}: {line}"
    );
    for name in ["bucket", "index", "chat", "url"] {
        ensure!(
            report[name].as_str().is_some_and(|text| !text.is_empty()),
            "no {name}: {line}"
        );
    }
    ensure!(report["upload_ms"].is_u64(), "no upload_ms: {line}");
    Ok(())
}

/// The page tells of the messages that a journey has.
fn draws(scratch: &Scratch) -> Result<()> {
    let page = scratch.dir.join("journey.html");
    let output = once(&[OsStr::new("--trace"), page.as_os_str()])?;
    ensure!(
        output.status.success(),
        "the demo failed ({}): {}",
        output.status,
        said(&output)
    );
    let text = fs::read_to_string(&page).context("there is no page")?;
    for method in ["push_chunk", "c2c_lease", "send_message", "http_request"] {
        let wanted = format!("\"method\":\"{method}\"");
        ensure!(text.contains(&wanted), "the page tells of no {method}");
    }
    Ok(())
}

fn refuses_missing_file() -> Result<()> {
    refuses(&["no/such/picture.jpg"], "no/such/picture.jpg")
}

fn refuses_taken_port() -> Result<()> {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = taken.local_addr()?.port().to_string();
    refuses(&["--port", &port], &port)
}

/// The demo fails with a sentence that names `culprit`.
fn refuses(args: &[&str], culprit: &str) -> Result<()> {
    let output = once(args)?;
    let said = said(&output);
    ensure!(!output.status.success(), "it went well: {said}");
    ensure!(said.contains(culprit), "{culprit} is not named: {said}");
    ensure!(!said.contains("panicked"), "it panicked: {said}");
    Ok(())
}

/// `cargo xtask demo --once --json` with `args`.
fn once<S: AsRef<OsStr>>(args: &[S]) -> Result<Output> {
    let xtask = std::env::current_exe()?;
    Command::new(xtask)
        .args(["demo", "--once", "--json"])
        .args(args)
        .output()
        .context("the demo could not be started")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// The size of a file and its SHA-256 in hex.
fn digest(path: &Path) -> Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok((bytes, hex(&hash.finalize())));
        }
        hash.update(&block[..read]);
        bytes += read as u64;
    }
}

/// Writes a file of `bytes` pseudo-random bytes, the same ones every time.
fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(BLOCK_BYTES, File::create(path)?);
    let mut state = bytes;
    let mut left = bytes;
    while left > 0 {
        let word = random(&mut state).to_le_bytes();
        let len = left.min(word.len() as u64);
        file.write_all(&word[..len as usize])?;
        left -= len;
    }
    file.flush()
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A directory for the files of one run, removed at its end.
struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn new(target: &Path) -> Result<Self> {
        let dir = target.join(format!("demo-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { dir })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left lies in the target directory, which anyone may delete.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_made_to_size_and_measured() {
        let scratch = Scratch::new(&std::env::temp_dir()).expect("makes a directory");
        let path = scratch.dir.join("file");
        fill(&path, 0).expect("writes");
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(&path).expect("reads"), (0, nothing.into()));

        fill(&path, 200_003).expect("writes");
        assert_eq!(digest(&path).expect("reads").0, 200_003);
    }
}

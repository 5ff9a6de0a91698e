//! Ctrl-C: in the middle of an upload, and while a demo serves with another one beside it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Scratch, digest, fill, stores};
use crate::canisters::hex;
use crate::demo::picture;

/// Far more than a demo needs to say something or to leave; only a demo that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between two looks at what a demo has said.
const PAUSE: Duration = Duration::from_millis(20);

/// What the demo says when a quarter of a large file is up.
const UPLOADING: &str = "uploading ";

/// Bytes of a file whose upload takes long enough to be interrupted.
const INTERRUPTED_BYTES: u64 = 300_000_000;

/// A demo that is interrupted while it uploads says so in a word and leaves with the code of shells.
pub fn interrupted_in_the_middle(scratch: &Scratch) -> Result<()> {
    let path = scratch.dir.join("interrupted.bin");
    fill(&path, INTERRUPTED_BYTES)?;
    let log = scratch.dir.join("interrupted.log");
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let mut demo = Demo::start(&log, Some(&path))?;
    let start = Instant::now();
    while !said().contains(UPLOADING) {
        ensure!(start.elapsed() < PATIENCE, "no upload in: {}", said());
        thread::sleep(PAUSE);
    }
    let status = demo.interrupt()?;
    let said = said();
    ensure!(status.code() == Some(130), "it ended with {status}: {said}");
    ensure!(said.trim_end().ends_with("interrupted"), "it said: {said}");
    ensure!(!said.contains("panicked"), "it panicked: {said}");
    Ok(())
}

/// The demo serves what it stored, lets another one run beside it, and leaves nothing behind when it
/// is interrupted.
pub fn until_interrupted(scratch: &Scratch) -> Result<()> {
    let log = scratch.dir.join("serving.log");
    let mut demo = Demo::start(&log, None)?;
    serve(&mut demo).with_context(|| {
        let said = fs::read_to_string(&log).unwrap_or_default();
        format!("it said: {}", said.trim())
    })
}

fn serve(demo: &mut Demo) -> Result<()> {
    let url = demo.url()?;
    let url = Url::parse(&url)?;
    let (_, sha256) = digest(&picture())?;
    let body = url.get()?;
    ensure!(
        hex(&Sha256::digest(&body)) == sha256,
        "it serves {} other bytes",
        body.len()
    );

    stores(None).context("a second demo beside it")?;
    ensure!(url.get()? == body, "the second demo disturbed the first");

    let status = demo.interrupt()?;
    ensure!(
        status.success(),
        "Ctrl-C is its end, not a failure: {status}"
    );
    ensure!(
        url.connect().is_err(),
        "port {} is still served after Ctrl-C",
        url.port
    );
    Ok(())
}

/// `cargo xtask demo --json`, ended at the latest when this is dropped.
struct Demo {
    child: Child,
    /// The lines of its stdout.
    lines: Receiver<String>,
}

impl Demo {
    /// Stores the picture, or another file.
    fn start(log: &Path, file: Option<&Path>) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["demo", "--json"])
            .args(file)
            .stdout(Stdio::piped())
            .stderr(File::create(log)?)
            .spawn()
            .context("the demo could not be started")?;
        let stdout = child.stdout.take().context("a pipe was asked for")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// Waits until it says where it serves.
    fn url(&self) -> Result<String> {
        loop {
            let line = match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => bail!("it does not say where it serves"),
                Err(RecvTimeoutError::Disconnected) => bail!("it left instead of serving"),
            };
            let report = serde_json::from_str::<Value>(&line).unwrap_or_default();
            if let Some(url) = report["url"].as_str() {
                return Ok(url.to_owned());
            }
        }
    }

    /// Ctrl-C, and waits until nobody holds its stdout any more: not it, and no child of its.
    fn interrupt(&mut self) -> Result<ExitStatus> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status()?;
        ensure!(sent.success(), "it had left before Ctrl-C");
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("it stays in spite of Ctrl-C"),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(self.child.wait()?)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Both fail when it has left already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An `http` URL of this machine.
struct Url<'a> {
    authority: &'a str,
    port: u16,
    path: &'a str,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Result<Self> {
        let parts = url.strip_prefix("http://").and_then(|rest| {
            let (authority, path) = rest.split_at(rest.find('/')?);
            let port = authority.rsplit_once(':')?.1.parse().ok()?;
            Some(Self {
                authority,
                port,
                path,
            })
        });
        parts.with_context(|| format!("{url} is not http://HOST:PORT/PATH"))
    }

    /// By address: `x.localhost` has no other one, but only browsers are sure to know.
    fn connect(&self) -> std::io::Result<TcpStream> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The body of the answer to a GET. HTTP/1.0, so that the body is all that follows the headers.
    fn get(&self) -> Result<Vec<u8>> {
        let mut stream = self.connect()?;
        let (path, host) = (self.path, self.authority);
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .context("the answer has no end of headers")?;
        let status = String::from_utf8_lossy(&answer[..end]);
        let status = status.lines().next().unwrap_or_default();
        ensure!(
            status.split(' ').nth(1) == Some("200"),
            "it answers {status}"
        );
        Ok(answer.split_off(end + 4))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let url = Url::parse("http://aaaaa-aa.localhost:8080/a/b?token=c").expect("is a URL");
        assert_eq!(url.authority, "aaaaa-aa.localhost:8080");
        assert_eq!((url.port, url.path), (8080, "/a/b?token=c"));
        for wrong in ["https://a:1/", "http://a/", "http://a:1", "http://a:b/"] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }

    /// Answers one GET with `answer`, and says what is read from it.
    fn get(answer: &'static [u8]) -> Result<Vec<u8>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let server = thread::spawn(move || -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            for line in BufReader::new(stream.try_clone()?).lines() {
                if line?.is_empty() {
                    break;
                }
            }
            stream.write_all(answer)
        });
        let url = format!("http://a.localhost:{port}/");
        let body = Url::parse(&url)?.get();
        server.join().expect("the server does not panic")?;
        body
    }

    #[test]
    fn a_body_is_all_that_follows_the_headers() {
        let body = get(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\none\r\n\r\ntwo").expect("is fine");
        assert_eq!(body, b"one\r\n\r\ntwo");
        let refusal = get(b"HTTP/1.1 404 Not Found\r\n\r\nno").expect_err("is refused");
        assert!(refusal.to_string().contains("404"), "{refusal}");
    }
}

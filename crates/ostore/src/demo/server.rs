//! The local network's process.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use reqwest::Url;
use tempfile::TempDir;
use tokio::time::sleep;

/// Names the server's program, as for everything that uses the `pocket-ic` crate.
const VARIABLE: &str = "POCKET_IC_BIN";

/// How long the server may take to say its port.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// The server ends by itself after so many seconds without a word from here.
const TTL_SECONDS: u64 = 60;

/// How often it hears one.
const PULSE: Duration = Duration::from_secs(10);

/// A server that ends with this.
pub struct Server {
    child: Child,
    url: Url,
    /// Holds the file in which the server says its port.
    _dir: TempDir,
}

impl Server {
    /// Starts the program that `POCKET_IC_BIN` names.
    pub async fn start() -> Result<Self> {
        let program = program()?;
        let dir = tempfile::tempdir().context("cannot make a temporary folder")?;
        let port_file = dir.path().join("port");
        let mut command = Command::new(&program);
        command
            .arg("--port-file")
            .arg(&port_file)
            .args(["--ttl", &TTL_SECONDS.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // Ctrl-C is ours: we end the server when we are done with it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut server = Self {
            child,
            url: Url::parse("http://127.0.0.1")?,
            _dir: dir,
        };
        let port = server.port(&port_file).await?;
        server.url = Url::parse(&format!("http://127.0.0.1:{port}/"))?;
        Ok(server)
    }

    pub fn url(&self) -> Url {
        self.url.clone()
    }

    /// Waits for a whole line in the port file.
    async fn port(&mut self, file: &std::path::Path) -> Result<u16> {
        let start = Instant::now();
        while start.elapsed() < START_PATIENCE {
            match fs::read_to_string(file) {
                Ok(text) if text.ends_with('\n') => {
                    return text
                        .trim()
                        .parse()
                        .context("the local network says no port");
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("cannot read the local network's port"),
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the local network ended at once ({status})");
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!(
            "the local network did not start within {} s",
            START_PATIENCE.as_secs()
        )
    }

    /// Keeps the server awake; returns when it does not answer any more.
    pub async fn watch(&self) -> Result<()> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let status = self.url.join("status")?;
        loop {
            sleep(PULSE).await;
            client
                .get(status.clone())
                .send()
                .await
                .context("the local network has ended")?;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Result<PathBuf> {
    let program = std::env::var_os(VARIABLE).map(PathBuf::from).with_context(|| {
        format!(
            "{VARIABLE} does not name the local network's server: run `cargo xtask demo`, which does, or \
             set it to what `cargo xtask server-path` prints last"
        )
    })?;
    if !program.is_file() {
        bail!(
            "{VARIABLE} names {}, which is no file: `cargo xtask server-path` builds a server",
            program.display()
        );
    }
    Ok(program)
}

/// Whether the gateway can have the port.
pub fn check_port(port: Option<u16>) -> Result<()> {
    let Some(port) = port else { return Ok(()) };
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map(drop)
        .with_context(|| {
            format!("cannot serve on port {port}: name another one with --port, or none for any free one")
        })
}

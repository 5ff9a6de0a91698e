//! `pocket-ic-server`: the local network under the flags that PocketIC's clients start a server with.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow};
use clap::Parser;
use openstorage_localnet::rest;
use tokio::signal::unix::{SignalKind, signal};

/// How long executions may go on and states may take to be kept when the server ends.
const END_MAX: Duration = Duration::from_secs(120);

/// A local Internet Computer that speaks the PocketIC protocol.
#[derive(Parser)]
#[command(name = "pocket-ic-server", version = rest::VERSION)]
struct Flags {
    /// The address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    ip_addr: IpAddr,
    /// The port to listen on; 0 means any.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Write the port to this file. If the file is there already, another server serves and this one ends.
    #[arg(long)]
    port_file: Option<PathBuf>,
    /// End after so many seconds without a request.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    ttl: u64,
    /// End after so many seconds, whatever happens.
    #[arg(long, value_name = "SECONDS")]
    hard_ttl: Option<u64>,
    /// Serve one network on this port, for command lines and browsers, until the server is told to end.
    #[arg(long, value_name = "PORT", conflicts_with = "ttl")]
    live: Option<u16>,
    /// Keep that network in this folder, and go on with what is there.
    #[arg(long, value_name = "DIR", requires = "live")]
    state_dir: Option<PathBuf>,
    /// Keep compiled modules in this folder [default: a folder in the user's cache].
    #[arg(long, value_name = "DIR")]
    compile_cache: Option<PathBuf>,
    /// Accepted for the clients' sake: this server writes no log.
    #[arg(long)]
    log_levels: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    match flags.port_file.as_deref().map(PortFile::create) {
        None => run(flags, None).await,
        Some(Ok(file)) => run(flags, Some(file)).await,
        Some(Err(error)) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Some(Err(error)) => Err(error).context("cannot create the port file"),
    }
}

/// The file that tells others the port. It is removed with this.
struct PortFile {
    file: File,
    path: PathBuf,
}

impl PortFile {
    /// Fails if the file is there already.
    fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::create_new(path)?,
            path: path.to_owned(),
        })
    }
}

impl Drop for PortFile {
    fn drop(&mut self) {
        // Somebody may have removed it before; then there is nothing left to do.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves until time is up or a signal comes.
async fn run(flags: Flags, mut port_file: Option<PortFile>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let address = SocketAddr::new(flags.ip_addr, flags.port);
    let running = rest::serve(rest::Config {
        address,
        ttl: flags.live.is_none().then(|| Duration::from_secs(flags.ttl)),
        compile_cache: flags.compile_cache.or_else(user_cache),
    })
    .await
    .with_context(|| format!("cannot listen on {address}"))?;
    println!("listening on {}", running.address());
    if let Some(port) = flags.live {
        let live = rest::Live {
            address: SocketAddr::new(flags.ip_addr, port),
            state_dir: flags.state_dir,
        };
        let port = running
            .make_live(live)
            .await
            .map_err(|error| anyhow!(error))?;
        println!(
            "a network is live at http://{}",
            SocketAddr::new(flags.ip_addr, port)
        );
    }
    if let Some(PortFile { file, .. }) = &mut port_file {
        file.write_all(format!("{}\n", running.address().port()).as_bytes())
            .context("cannot write the port file")?;
    }
    let hard_end = async {
        match flags.hard_ttl {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = running.expired() => {}
        () = hard_end => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Whoever cannot wait asks once more: what was acknowledged is on disk anyway.
    tokio::select! {
        () = running.stop() => Ok(()),
        _ = terminate.recv() => Err(anyhow!("ended before every state was kept")),
        _ = interrupt.recv() => Err(anyhow!("ended before every state was kept")),
        () = tokio::time::sleep(END_MAX) => Err(anyhow!("an execution went on for too long to end in order")),
    }
}

/// Only the user may write there: what it holds is executed. None where the user has no home.
fn user_cache() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    Some(cache.join("openstorage-localnet"))
}

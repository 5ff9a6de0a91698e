//! Listeners that can be told to stop, and the measure of how busy a server is.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{Router, serve::ListenerExt};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// How long connections may finish what they do when their listener stops.
const FINISH_MAX: Duration = Duration::from_secs(3);

/// A router that is being served. Dropping it stops it, too, without waiting.
pub struct Listening {
    /// Where it really listens: the port is known here even if any was asked for.
    pub address: SocketAddr,
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Listening {
    /// Fails if the address is taken, or not this machine's.
    pub async fn start(address: SocketAddr, router: Router) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (stop, mut stopped) = watch::channel(());
        // Small answers leave at once. Where that cannot be set, they are only later.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
            // An error means that the sender is gone: that stops the listener as well.
            let _ = stopped.changed().await;
        });
        let task = tokio::spawn(async move {
            // Never fails: errors of single connections are dealt with inside.
            let _ = serving.await;
        });
        Ok(Self {
            address,
            stop,
            task,
        })
    }

    /// Frees the port and lets connections finish, if they do so soon.
    pub async fn stop(self) {
        let Self { stop, mut task, .. } = self;
        drop(stop);
        if tokio::time::timeout(FINISH_MAX, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// Counts requests that are being worked on, and remembers when there was one last.
pub struct Activity {
    state: Mutex<(usize, Instant)>,
}

/// One request that is being worked on, until this is dropped.
pub struct Busy(Arc<Activity>);

impl Activity {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new((0, Instant::now())),
        })
    }

    pub fn begin(self: &Arc<Self>) -> Busy {
        locked(&self.state).0 += 1;
        Busy(Arc::clone(self))
    }

    /// How long nothing was asked; zero while something is being answered.
    pub fn idle(&self) -> Duration {
        match *locked(&self.state) {
            (0, last) => last.elapsed(),
            _ => Duration::ZERO,
        }
    }

    /// Returns once nothing was asked for so long.
    pub async fn idle_for(&self, ttl: Duration) {
        /// While a request is being answered nothing tells when it ends, so look again after that.
        const LOOK_AGAIN: Duration = Duration::from_millis(100);
        loop {
            let idle = self.idle();
            if idle >= ttl {
                return;
            }
            tokio::time::sleep((ttl - idle).max(LOOK_AGAIN)).await;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = locked(&self.0.state);
        state.0 -= 1;
        state.1 = Instant::now();
    }
}

/// Nothing here leaves a value half changed, so a panic elsewhere does not spoil it.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

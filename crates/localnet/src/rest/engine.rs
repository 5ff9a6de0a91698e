//! The thread that owns an instance's network. Handlers send it closures and await their results, so
//! that executing Wasm never holds up the server.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel},
    time::{Duration, Instant, SystemTime},
};

use candid::Principal;
use tokio::sync::oneshot;

use crate::{
    cert::Path,
    network::{Config, MessageId, Network, Reject},
};

/// Compiling and running Wasm nests deeper than a thread's usual stack allows.
const STACK_BYTES: usize = 16 << 20;
/// The pause between two rounds of automatic progress while canisters have something to do.
const PAUSE_BUSY: Duration = Duration::from_millis(1);
/// The same while they have not: how late a timer may fire.
const PAUSE_IDLE: Duration = Duration::from_millis(20);
/// How long a message may take under automatic progress until its caller is told so.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Where the state has what became of a message.
fn request_status(message: &MessageId) -> Path {
    vec!["request_status".into(), message.into()]
}

/// A canister's answer to an update or query.
pub type Answer = Result<Vec<u8>, Reject>;

type Job = Box<dyn FnOnce(&mut Engine) + Send>;

/// The instance was deleted, or its engine panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the instance is gone")]
pub struct Gone;

/// Why there is no answer to a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("there is no message {}", hex::encode(.0))]
    Unknown(MessageId),
    #[error("the message was not answered within {0} rounds")]
    Rounds(usize),
    #[error("the message was not answered within {} seconds", WAIT_MAX.as_secs())]
    Seconds,
}

/// Whoever asked for the outcome of a message of another sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message was not sent by this caller")]
pub struct NotTheSender;

/// Progress is automatic already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("automatic progress is enabled already")]
pub struct AlreadyInProgress;

/// Automatic progress: rounds by themselves, at the time of the wall clock.
struct Progress {
    /// Replaces the usual pauses between rounds; never shorter than the shortest of them.
    delay: Option<Duration>,
    last_round: Instant,
}

/// Somebody who waits for a message under automatic progress.
struct Waiter {
    message: MessageId,
    since: Instant,
    answer: oneshot::Sender<Result<Answer, NoAnswer>>,
}

/// Somebody who wants a certificate once a message is answered, however that comes about.
struct Watcher {
    message: MessageId,
    /// The canister or subnet whose certificate it shall be.
    effective: Principal,
    certificate: oneshot::Sender<Vec<u8>>,
}

/// What the thread owns.
pub struct Engine {
    pub network: Network,
    progress: Option<Progress>,
    waiters: Vec<Waiter>,
    watchers: Vec<Watcher>,
}

impl Engine {
    /// The outcome of a message so far; none while it runs and for unknown ones. If a caller is named,
    /// it must be the message's sender.
    pub fn status(
        &self,
        message: &MessageId,
        caller: Option<Principal>,
    ) -> Result<Option<Answer>, NotTheSender> {
        match (self.network.message(message), caller) {
            (Some(entry), Some(caller)) if entry.sender != caller => Err(NotTheSender),
            _ => Ok(self.network.ingress_status(message).flatten().cloned()),
        }
    }

    /// Starts automatic progress; the first round has run when this returns.
    pub fn start_progress(&mut self, delay: Option<Duration>) -> Result<(), AlreadyInProgress> {
        if self.progress.is_some() {
            return Err(AlreadyInProgress);
        }
        self.progress = Some(Progress {
            delay,
            last_round: Instant::now(),
        });
        self.round();
        Ok(())
    }

    pub fn stop_progress(&mut self) {
        self.progress = None;
    }

    pub fn in_progress(&self) -> bool {
        self.progress.is_some()
    }

    /// Answers now, by running rounds; under automatic progress later, so that others are served in the
    /// meantime and time passes.
    fn wait(&mut self, message: MessageId, answer: oneshot::Sender<Result<Answer, NoAnswer>>) {
        if self.network.ingress_status(&message).is_none() {
            // A send fails if the one who asked has left: then nobody needs the answer.
            let _ = answer.send(Err(NoAnswer::Unknown(message)));
        } else if self.progress.is_some() {
            self.waiters.push(Waiter {
                message,
                since: Instant::now(),
                answer,
            });
        } else {
            let _ = answer.send(self.run_to_answer(&message));
        }
    }

    fn run_to_answer(&mut self, message: &MessageId) -> Result<Answer, NoAnswer> {
        self.network
            .await_ingress(message)
            .map_err(|running| NoAnswer::Rounds(running.rounds))
    }

    /// One round of automatic progress.
    fn round(&mut self) {
        // A clock that stands behind the network's time (somebody set it ahead) waits for it.
        let _ = self.network.set_time(wall_clock_ns());
        self.network.tick();
        if let Some(progress) = &mut self.progress {
            progress.last_round = Instant::now();
        }
    }

    /// The time until the next round is due; none without automatic progress.
    fn pause(&self) -> Option<Duration> {
        let progress = self.progress.as_ref()?;
        let pause = match progress.delay {
            Some(delay) => delay.max(PAUSE_BUSY),
            None if self.network.has_work() => PAUSE_BUSY,
            None => PAUSE_IDLE,
        };
        Some(pause.saturating_sub(progress.last_round.elapsed()))
    }

    /// Answers those whose message is answered or who waited too long; everybody, if progress was
    /// stopped while they waited.
    fn settle(&mut self) {
        for waiter in std::mem::take(&mut self.waiters) {
            let done = match self.network.ingress_status(&waiter.message).flatten() {
                Some(answer) => Some(Ok(answer.clone())),
                None if self.progress.is_none() => Some(self.run_to_answer(&waiter.message)),
                None if waiter.since.elapsed() > WAIT_MAX => Some(Err(NoAnswer::Seconds)),
                None => None,
            };
            match done {
                Some(done) => drop(waiter.answer.send(done)),
                None => self.waiters.push(waiter),
            }
        }
        for watcher in std::mem::take(&mut self.watchers) {
            let running = self.network.ingress_status(&watcher.message) == Some(None);
            if !running {
                let certificate = self
                    .network
                    .certificate(&watcher.effective, &[request_status(&watcher.message)]);
                let _ = watcher.certificate.send(certificate);
            } else if !watcher.certificate.is_closed() {
                self.watchers.push(watcher);
            }
        }
    }

    /// Works until nobody can send jobs any more.
    fn run(mut self, jobs: Receiver<Job>) {
        loop {
            let job = match self.pause() {
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                // A round that is due goes first, so that many requests cannot hold progress up.
                Some(Duration::ZERO) => Err(RecvTimeoutError::Timeout),
                Some(pause) => jobs.recv_timeout(pause),
            };
            match job {
                Ok(job) => job(&mut self),
                Err(RecvTimeoutError::Timeout) => {
                    self.round();
                    // One job between two rounds, however short the pause.
                    match jobs.try_recv() {
                        Ok(job) => job(&mut self),
                        Err(TryRecvError::Empty) => {}
                        Err(TryRecvError::Disconnected) => return,
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.settle();
        }
    }
}

/// Gives jobs to an engine. The engine ends with its last handle.
#[derive(Clone)]
pub struct Handle {
    jobs: Sender<Job>,
}

impl Handle {
    /// Starts an engine with a network of its own.
    pub fn start(config: Config) -> std::io::Result<Self> {
        let (jobs, receiver) = channel();
        std::thread::Builder::new()
            .name("engine".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // Made here because a network need not be able to change threads.
                let engine = Engine {
                    network: Network::new(config),
                    progress: None,
                    waiters: vec![],
                    watchers: vec![],
                };
                engine.run(receiver);
            })?;
        Ok(Self { jobs })
    }

    /// Runs a job between two others and gives its result.
    pub async fn run<T, F>(&self, job: F) -> Result<T, Gone>
    where
        T: Send + 'static,
        F: FnOnce(&mut Engine) -> T + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        self.send(move |engine| {
            let _ = answer.send(job(engine));
        })?;
        result.await.map_err(|_| Gone)
    }

    /// The answer to a message.
    pub async fn answer(&self, message: MessageId) -> Result<Result<Answer, NoAnswer>, Gone> {
        let (answer, result) = oneshot::channel();
        self.send(move |engine| engine.wait(message, answer))?;
        result.await.map_err(|_| Gone)
    }

    /// The certificate of a message's answer, once there is one. It runs no rounds: where time stands
    /// still, somebody else has to.
    pub async fn certificate(
        &self,
        message: MessageId,
        effective: Principal,
    ) -> Result<Vec<u8>, Gone> {
        let (certificate, result) = oneshot::channel();
        self.send(move |engine| {
            engine.watchers.push(Watcher {
                message,
                effective,
                certificate,
            });
        })?;
        result.await.map_err(|_| Gone)
    }

    fn send(&self, job: impl FnOnce(&mut Engine) + Send + 'static) -> Result<(), Gone> {
        self.jobs.send(Box::new(job)).map_err(|_| Gone)
    }
}

/// Nanoseconds since 1970.
fn wall_clock_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

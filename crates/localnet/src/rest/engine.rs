//! The thread that owns an instance's network. Handlers send it closures and await their results, so
//! that executing Wasm never holds up the server.

use std::{
    io,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel},
    time::{Duration, Instant, SystemTime},
};

use candid::Principal;
use tokio::sync::oneshot;

use crate::{
    cert::Path,
    network::{Config, MessageId, Reject},
    persist::{Kept, OpenError},
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
type Reply = Box<dyn FnOnce() + Send>;

/// Replies that share one sync, at most, while more jobs are waiting.
const REPLIES_MAX: usize = 64;

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
#[error("The user tries to access Request ID not signed by the caller.")]
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
    pub network: Kept,
    /// What to tell once it is kept.
    replies: Vec<Reply>,
    progress: Option<Progress>,
    waiters: Vec<Waiter>,
    watchers: Vec<Watcher>,
    ended: bool,
}

impl Engine {
    fn new(network: Kept) -> Self {
        Self {
            network,
            replies: vec![],
            progress: None,
            waiters: vec![],
            watchers: vec![],
            ended: false,
        }
    }

    /// The outcome of a message so far; none while it runs and for unknown ones. If a caller is named,
    /// only the message's sender learns the outcome.
    pub fn status(
        &self,
        message: &MessageId,
        caller: Option<Principal>,
    ) -> Result<Option<Answer>, NotTheSender> {
        let outcome = self.network.ingress_status(message).flatten();
        match (self.network.message(message), caller) {
            (Some(entry), Some(caller)) if outcome.is_some() && entry.sender != caller => {
                Err(NotTheSender)
            }
            _ => Ok(outcome.cloned()),
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
            self.reply(answer, Err(NoAnswer::Unknown(message)));
        } else if self.progress.is_some() {
            self.waiters.push(Waiter {
                message,
                since: Instant::now(),
                answer,
            });
        } else {
            let result = self.run_to_answer(&message);
            self.reply(answer, result);
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
                Some(done) => self.reply(waiter.answer, done),
                None => self.waiters.push(waiter),
            }
        }
        for watcher in std::mem::take(&mut self.watchers) {
            let running = self.network.ingress_status(&watcher.message) == Some(None);
            if !running {
                let certificate = self
                    .network
                    .certificate(&watcher.effective, &[request_status(&watcher.message)]);
                self.reply(watcher.certificate, certificate);
            } else if !watcher.certificate.is_closed() {
                self.watchers.push(watcher);
            }
        }
    }

    /// Answers once everything that was done so far is kept.
    fn reply<T: Send + 'static>(&mut self, to: oneshot::Sender<T>, with: T) {
        // A send fails if the one who asked has left: then nobody needs the answer.
        self.replies.push(Box::new(move || drop(to.send(with))));
    }

    /// Keeps what was done, then tells those who wait for it.
    fn keep(&mut self) -> io::Result<()> {
        if !self.replies.is_empty() {
            self.network.sync()?;
            self.replies.drain(..).for_each(|reply| reply());
        }
        Ok(())
    }

    /// Works until it is told to end, or nobody can send jobs any more. What cannot be kept is not
    /// acknowledged: then the instance ends.
    fn run(mut self, jobs: Receiver<Job>) {
        let ended = self
            .work(&jobs)
            .and_then(|()| self.network.checkpoint())
            .and_then(|()| self.keep());
        if let Err(error) = ended {
            eprintln!("an instance's state cannot be kept, so it ends: {error}");
        }
    }

    fn work(&mut self, jobs: &Receiver<Job>) -> io::Result<()> {
        let mut next = None;
        while !self.ended {
            let job = match self.pause() {
                pause if next.is_some() && pause != Some(Duration::ZERO) => {
                    next.take().ok_or(RecvTimeoutError::Timeout)
                }
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                // A round that is due goes first, so that many requests cannot hold progress up.
                Some(Duration::ZERO) => Err(RecvTimeoutError::Timeout),
                Some(pause) => jobs.recv_timeout(pause),
            };
            match job {
                Ok(job) => job(self),
                Err(RecvTimeoutError::Timeout) => {
                    self.round();
                    // One job between two rounds, however short the pause.
                    match next.take().map_or_else(|| jobs.try_recv(), Ok) {
                        Ok(job) => job(self),
                        Err(TryRecvError::Empty) => {}
                        Err(TryRecvError::Disconnected) => break,
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.settle();
            // Those who wait share one sync, as long as there is more to do at once.
            next = jobs.try_recv().ok();
            if !self.ended && (next.is_none() || self.replies.len() >= REPLIES_MAX) {
                self.keep()?;
            }
        }
        Ok(())
    }
}

/// Gives jobs to an engine. The engine ends with its last handle.
#[derive(Clone)]
pub struct Handle {
    jobs: Sender<Job>,
}

impl Handle {
    /// Starts an engine with a network of its own, kept in `folder` if one is given.
    pub async fn start(config: Config, folder: Option<PathBuf>) -> Result<Self, OpenError> {
        let (jobs, receiver) = channel();
        let (opened, result) = oneshot::channel();
        std::thread::Builder::new()
            .name("engine".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // Made here because a network need not be able to change threads.
                let network = match folder {
                    Some(folder) => Kept::open(&folder, config),
                    None => Ok(Kept::in_memory(config)),
                };
                match network {
                    Ok(network) => {
                        let _ = opened.send(Ok(()));
                        Engine::new(network).run(receiver);
                    }
                    Err(error) => drop(opened.send(Err(error))),
                }
            })?;
        let gone = |_| OpenError::Io(io::Error::other("the network could not be made"));
        result.await.map_err(gone)??;
        Ok(Self { jobs })
    }

    /// Ends the engine; its state is kept when this returns.
    pub async fn end(&self) {
        // It has ended already if this fails.
        let (kept, ended) = oneshot::channel::<()>();
        let end = self.send(move |engine| {
            engine.ended = true;
            engine.reply(kept, ());
        });
        if end.is_ok() {
            let _ = ended.await;
        }
    }

    /// Runs a job between two others and gives its result.
    pub async fn run<T, F>(&self, job: F) -> Result<T, Gone>
    where
        T: Send + 'static,
        F: FnOnce(&mut Engine) -> T + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        self.send(move |engine| {
            let result = job(engine);
            engine.reply(answer, result);
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

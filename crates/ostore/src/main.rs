//! `ostore`: the OpenStorage command line.
//!
//! | file | what |
//! | --- | --- |
//! | `hash` | the id of a file |
//! | `demo` | a file's whole trip on a local network |
//! | `why` | why a blob's URL does not open |
//! | `progress` | steps and bars on stderr |
//! | `web` | HTTP as a browser does it |
//!
//! Results go to stdout, everything else to stderr. The exit code is 0 when all went well, 1 when
//! something failed, 2 for words that were not understood, 130 after Ctrl-C in the middle.

mod demo;
mod hash;
mod progress;
mod web;
mod why;

use std::{pin::pin, process::ExitCode};

use clap::{Parser, Subcommand};
use futures_util::FutureExt as _;

/// Ended by Ctrl-C: 128 + SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;

/// The OpenStorage command line.
#[derive(Parser)]
#[command(name = "ostore", version, arg_required_else_help = true)]
struct Menu {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Store a file on a local network, through the real canisters, check it, and serve it.
    Demo(demo::Args),
    /// Print the blob id of a file: the SHA-256 of its bytes.
    Hash(hash::Args),
    /// Say in a sentence why a blob's URL does not open, and how to repair it.
    Why(why::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let menu = Menu::parse();
    let work = async {
        match menu.command {
            Command::Demo(args) => demo::run(args).await,
            Command::Hash(args) => hash::run(args).await,
            Command::Why(args) => why::run(args).await,
        }
    };
    // What is dropped here cleans up after itself.
    match unless(interrupted(), work).await {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
        // Its end, however the two were told of it.
        None if demo::is_serving() => ExitCode::SUCCESS,
        None => {
            eprintln!("interrupted");
            ExitCode::from(INTERRUPTED)
        }
    }
}

/// What comes of `work`, or none if it was interrupted. Work that waits for the interruption itself has the first
/// word, also where it was not over yet when it was last looked at, a moment before.
async fn unless<T>(
    interruption: impl Future<Output = ()>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => Some(done),
        () = interruption => work.now_or_never(),
    }
}

/// Ends on Ctrl-C, and where there are signals on SIGTERM: on one that comes after this call, however much later
/// what it returns is first looked at.
pub fn interrupted() -> impl Future<Output = ()> {
    #[cfg(unix)]
    let signals = {
        use tokio::signal::unix::{SignalKind, signal};
        [SignalKind::terminate(), SignalKind::interrupt()].map(signal)
    };
    async move {
        #[cfg(unix)]
        if let [Ok(mut terminate), Ok(mut interrupt)] = signals {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
            }
        }
        // An error means that there is nothing to wait for.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        future::{pending, poll_fn, ready},
        task::Poll,
    };

    use super::*;

    #[tokio::test]
    async fn work_that_waits_for_the_interruption_ends_by_it() {
        let interrupted = Cell::new(false);
        let waits = poll_fn(|_| match interrupted.get() {
            true => Poll::Ready("done"),
            false => Poll::Pending,
        });
        // It comes after the work was looked at.
        let interruption = poll_fn(|_| {
            interrupted.set(true);
            Poll::Ready(())
        });
        assert_eq!(unless(interruption, waits).await, Some("done"));
    }

    #[tokio::test]
    async fn other_work_is_given_up() {
        assert_eq!(unless(ready(()), pending::<()>()).await, None);
        assert_eq!(unless(pending(), ready(1)).await, Some(1));
    }
}

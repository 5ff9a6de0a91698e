//! `ostore`: the OpenStorage command line.
//!
//! | file | what |
//! | --- | --- |
//! | `hash` | the id of a file |
//! | `demo` | a file's whole trip on a local network |
//! | `why` | why a blob's URL does not open |
//! | `uploads` | what is unfinished, and giving it up |
//! | `progress` | steps and bars on stderr |
//! | `web` | HTTP as a browser does it |
//!
//! Results go to stdout, everything else to stderr. The exit code is 0 when all went well, 1 when
//! something failed, 2 for words that were not understood, 130 after Ctrl-C in the middle.

mod demo;
mod hash;
mod progress;
mod uploads;
mod web;
mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// List one user's unfinished uploads in all buckets, and give them up.
    Uploads(uploads::Args),
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
            Command::Uploads(args) => uploads::run(args).await,
            Command::Why(args) => why::run(args).await,
        }
    };
    tokio::select! {
        done = work => match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
        // What is dropped here cleans up after itself.
        () = interrupted() => {
            if demo::is_serving() {
                return ExitCode::SUCCESS;
            }
            eprintln!("interrupted");
            ExitCode::from(INTERRUPTED)
        }
    }
}

/// Returns on Ctrl-C, and where there are signals on SIGTERM.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => return,
                // An error means that there is nothing to wait for.
                Ok(()) = tokio::signal::ctrl_c() => return,
            }
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

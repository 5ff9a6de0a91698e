//! Steps and bars on stderr: on a terminal they move, elsewhere they are lines.

use std::{
    io::{IsTerminal as _, stderr},
    sync::Mutex,
};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use openstorage_client::{Phase, Progress};

/// Where stderr is no terminal, a long work is told in so many lines.
const LINES: u64 = 4;

/// Says what is being done now.
pub fn step(what: &str) {
    eprintln!("{what}");
}

/// The progress of one file: a bar for each phase of it.
pub struct Bar {
    shown: Mutex<Option<Shown>>,
}

struct Shown {
    phase: Phase,
    bar: ProgressBar,
    /// Of [`LINES`], those that were said.
    lines: u64,
}

impl Bar {
    pub fn new() -> Self {
        Self {
            shown: Mutex::new(None),
        }
    }

    /// Shows how far it has come.
    pub fn show(&self, progress: Progress) {
        // Somebody panicked while showing: not a reason to stop the work.
        let Ok(mut slot) = self.shown.lock() else {
            return;
        };
        let Progress {
            phase,
            bytes_done,
            bytes_total,
        } = progress;
        match &mut *slot {
            Some(shown) if shown.phase == phase => shown.advance(bytes_done, bytes_total),
            other => {
                if let Some(shown) = other.take() {
                    shown.bar.finish_and_clear();
                }
                other
                    .insert(Shown::new(phase, bytes_total))
                    .advance(bytes_done, bytes_total);
            }
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Ok(mut slot) = self.shown.lock()
            && let Some(shown) = slot.take()
        {
            shown.bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Shown {
    fn new(phase: Phase, bytes_total: u64) -> Self {
        let bar = ProgressBar::new(bytes_total).with_style(style());
        bar.set_message(verb(phase));
        Self {
            phase,
            bar,
            lines: 0,
        }
    }

    fn advance(&mut self, bytes_done: u64, bytes_total: u64) {
        self.bar.set_position(bytes_done);
        if stderr().is_terminal() {
            return;
        }
        let line = (bytes_done * LINES)
            .checked_div(bytes_total)
            .unwrap_or(LINES);
        if line > self.lines {
            self.lines = line;
            eprintln!(
                "{} {} of {}",
                verb(self.phase),
                HumanBytes(bytes_done),
                HumanBytes(bytes_total)
            );
        }
    }
}

fn verb(phase: Phase) -> &'static str {
    match phase {
        Phase::Hashing => "hashing",
        Phase::Uploading => "uploading",
        Phase::Verifying => "verifying",
        Phase::Downloading => "fetching",
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{msg:>9} [{bar:32}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .progress_chars("=> ")
}

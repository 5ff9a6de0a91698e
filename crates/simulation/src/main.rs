//! `cargo xtask simulate`: runs seeds, shows how far it is, and says how to repeat the one that fails.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use openstorage_simulation::{Base, Failure, Options, Summary, Violation, run};

/// Runs the deployed canisters under random workloads and faults.
#[derive(Parser)]
struct Flags {
    /// The first seed, and the only one unless --seeds or --minutes says more.
    #[arg(long)]
    seed: Option<u64>,
    /// So many seeds, or those of a range, as 7000..8000 [default: 20, or 1 with --seed].
    #[arg(long, value_parser = Seeds::read)]
    seeds: Option<Seeds>,
    /// No further seed is begun after so long.
    #[arg(long)]
    minutes: Option<u64>,
    /// Steps of each run.
    #[arg(long, default_value_t = Options::default().steps)]
    steps: usize,
    /// With this bug planted on purpose: see canisters/bucket/src/mutants.rs.
    #[arg(long)]
    mutant: Option<u32>,
    /// Go on where a seed fails.
    #[arg(long)]
    keep_going: bool,
    /// Runs at once [default: as many as there are cores].
    #[arg(long)]
    threads: Option<usize>,
    /// Where the built canisters lie.
    #[arg(long)]
    wasm_dir: PathBuf,
    /// Keep compiled modules here.
    #[arg(long)]
    compile_cache: Option<PathBuf>,
    /// Where the log of a failing seed goes.
    #[arg(long)]
    out: PathBuf,
    /// A line is added to this file that says which seeds were run, and how they ended; not with --seed alone.
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// What the ledger says was run.
    #[arg(long, default_value = "unknown")]
    commit: String,
}

/// How many seeds, or which.
#[derive(Clone)]
enum Seeds {
    Count(u64),
    Range(Range<u64>),
}

impl Seeds {
    fn read(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
        match text.split_once("..") {
            None => number(text).map(Self::Count),
            Some((from, to)) => Ok(Self::Range(number(from)?..number(to)?)),
        }
    }
}

impl Flags {
    /// The first seed, and the one after the last.
    fn range(&self) -> Range<u64> {
        let first = self.seed.unwrap_or(1);
        let count = match &self.seeds {
            Some(Seeds::Range(range)) => return range.clone(),
            Some(Seeds::Count(count)) => *count,
            None if self.minutes.is_some() => u64::MAX,
            None if self.seed.is_some() => 1,
            None => 20,
        };
        first..first.saturating_add(count)
    }
}

/// What all runs share.
struct Progress {
    next: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
    so_far: Mutex<(Summary, Vec<Failure>)>,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let base = match Base::deploy(
        &flags.wasm_dir,
        flags.compile_cache.as_deref(),
        flags.mutant,
    ) {
        Ok(base) => base,
        Err(error) => {
            eprintln!("error: the canisters are not built: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Range {
        start: first,
        end: last,
    } = flags.range();
    let seeds = last.saturating_sub(first);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = flags.threads.unwrap_or(cores).min(seeds as usize).max(1);
    let progress = Progress {
        next: AtomicU64::new(first),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        so_far: Mutex::default(),
    };
    let start = Instant::now();
    let end = flags
        .minutes
        .map(|minutes| Duration::from_secs(60 * minutes));
    let options = Options {
        steps: flags.steps,
        ..Options::default()
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    while !progress.stop.load(Ordering::Relaxed)
                        && end.is_none_or(|end| start.elapsed() < end)
                    {
                        let seed = progress.next.fetch_add(1, Ordering::Relaxed);
                        if seed >= last {
                            break;
                        }
                        one(&base, seed, &options, &progress, &flags);
                    }
                })
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(Duration::from_millis(200));
            show(&progress, start);
        }
    });
    eprintln!();
    let (summary, failures) = progress
        .so_far
        .into_inner()
        .expect("no run panics holding it");
    let done = progress.done.into_inner();
    for failure in &failures {
        tell(failure, &shrunk(&base, failure, &options), &flags);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} of {done} seeds from {first} on hold, in {seconds:.0} s: {summary}",
        done - failures.len() as u64,
    );
    let is_kept = seeds > 1 && flags.mutant.is_none();
    if let Some(ledger) = flags.ledger.as_ref().filter(|_| is_kept)
        && let Err(error) = note(ledger, &flags, first..first + done, &failures)
    {
        eprintln!("error: {} could not be written: {error}", ledger.display());
    }
    ExitCode::from(u8::from(!failures.is_empty()))
}

/// Adds what was run to the ledger.
fn note(ledger: &Path, flags: &Flags, seeds: Range<u64>, failures: &[Failure]) -> io::Result<()> {
    let mut broken: Vec<_> = failures.iter().map(|failure| failure.seed).collect();
    broken.sort_unstable();
    let verdict = match broken.is_empty() {
        true => "none".to_owned(),
        false => broken
            .iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(" "),
    };
    let (commit, steps) = (&flags.commit, flags.steps);
    let (first, last) = (seeds.start, seeds.end.saturating_sub(1));
    let mut file = OpenOptions::new().append(true).create(true).open(ledger)?;
    writeln!(file, "| {commit} | {steps} | {first}-{last} | {verdict} |")
}

/// A run; a panic in it is a failure too.
fn tried(base: &Base, seed: u64, options: &Options) -> Result<Summary, Box<Failure>> {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(base, seed, options)));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| Some((*panic.downcast_ref::<&str>()?).to_owned()));
        Err(Box::new(Failure {
            seed,
            step: 0,
            violation: Violation {
                invariant: 29,
                what: text.unwrap_or_default(),
            },
            log: vec![],
        }))
    })
}

/// The failure of the shortest run of the same seed that bisection finds: with fewer steps, everything up to
/// there is the same, and then it comes to rest.
fn shrunk(base: &Base, failure: &Failure, options: &Options) -> Failure {
    let (mut holds, mut shortest) = (0, failure.clone());
    while holds + 1 < shortest.step {
        let steps = (holds + shortest.step) / 2;
        let options = Options {
            steps,
            ..options.clone()
        };
        match tried(base, failure.seed, &options) {
            Err(shorter) => shortest = *shorter,
            Ok(_) => holds = steps,
        }
    }
    shortest
}

fn one(base: &Base, seed: u64, options: &Options, progress: &Progress, flags: &Flags) {
    let outcome = tried(base, seed, options);
    progress.done.fetch_add(1, Ordering::Relaxed);
    let mut so_far = progress.so_far.lock().expect("no run panics holding it");
    match outcome {
        Ok(summary) => so_far.0 = so_far.0.and(&summary),
        Err(failure) => {
            // To find the shortest run takes longer than this one took.
            let Failure {
                step, violation, ..
            } = &*failure;
            eprintln!("\rseed {seed}, step {step}: {violation}");
            if let Err(error) = keep_log(&failure, &flags.out) {
                eprintln!("error: its log could not be written: {error}");
            }
            so_far.1.push(*failure);
            progress.stop.store(!flags.keep_going, Ordering::Relaxed);
        }
    }
}

fn show(progress: &Progress, start: Instant) {
    let (done, seconds) = (
        progress.done.load(Ordering::Relaxed),
        start.elapsed().as_secs(),
    );
    let failed = progress.so_far.lock().map_or(0, |so_far| so_far.1.len());
    eprint!("\r{done} seeds, {failed} failed, {seconds} s ");
    let _ = std::io::stderr().flush();
}

/// Writes the log of a run that failed; the one of a longer run of the same seed goes.
fn keep_log(failure: &Failure, out: &Path) -> io::Result<PathBuf> {
    let path = out.join(format!("seed-{}.log", failure.seed));
    fs::create_dir_all(out)?;
    fs::write(&path, failure.log.join("\n") + "\n")?;
    Ok(path)
}

/// What broke, how it breaks soonest, where the log of that is, and how to see it again.
fn tell(failure: &Failure, shortest: &Failure, flags: &Flags) {
    let Failure {
        seed,
        step,
        violation,
        ..
    } = shortest;
    println!("seed {seed}, step {}: {}", failure.step, failure.violation);
    println!("  with {step} steps: {violation}");
    match keep_log(shortest, &flags.out) {
        Ok(path) => println!("  its log: {}", path.display()),
        Err(error) => println!("  its log could not be written: {error}"),
    }
    // A panic has no step.
    let steps = if *step == 0 { flags.steps } else { *step };
    let mutant = flags.mutant.map(|mutant| format!(" --mutant {mutant}"));
    let mutant = mutant.unwrap_or_default();
    println!("  again: cargo xtask simulate --seed {seed} --steps {steps}{mutant}");
}

//! What a test run says at its end.

use std::fmt::Write as _;
use std::time::Duration;

/// Tests counted from what test runners print.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
}

impl Tally {
    /// Counts a line if it is a runner's summary, of `cargo test` or of `node --test`:
    ///
    /// ```text
    /// test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s
    /// # pass 12
    /// ```
    pub fn count(&mut self, line: &str) {
        if let Some(figures) = line.trim().strip_prefix("test result: ") {
            for figure in figures.split([';', '.']) {
                match figure.trim().split_once(' ') {
                    Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                    Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                    Some((number, "ignored")) => self.ignored += number.parse().unwrap_or(0),
                    _ => {}
                }
            }
            return;
        }
        // Node writes `#` to a file or pipe and `ℹ` to a terminal, newer versions always the latter.
        let figure = line.strip_prefix("# ").or(line.strip_prefix("ℹ "));
        match figure.and_then(|figure| figure.trim().split_once(' ')) {
            Some(("pass", number)) => self.passed += number.parse().unwrap_or(0),
            Some(("fail", number)) => self.failed += number.parse().unwrap_or(0),
            Some(("skipped" | "todo", number)) => self.ignored += number.parse().unwrap_or(0),
            _ => {}
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// How one layer went.
#[derive(Debug)]
pub struct Outcome {
    pub layer: &'static str,
    pub time: Duration,
    pub tally: Tally,
    /// Why it failed, in a sentence.
    pub failure: Option<String>,
}

/// The table of all layers and, when something failed, what to do about it.
pub fn text(outcomes: &[Outcome]) -> String {
    let mut text = format!("{:<12} {:>8}  {:>6}  result\n", "layer", "seconds", "tests");
    let mut total = Tally::default();
    let mut time = Duration::ZERO;
    for outcome in outcomes {
        let result = if outcome.failure.is_none() {
            "ok"
        } else {
            "FAILED"
        };
        row(
            &mut text,
            outcome.layer,
            outcome.time,
            outcome.tally,
            result,
        );
        total.add(outcome.tally);
        time += outcome.time;
    }
    let failures: Vec<&Outcome> = outcomes.iter().filter(|o| o.failure.is_some()).collect();
    let result = if failures.is_empty() { "ok" } else { "FAILED" };
    row(&mut text, "total", time, total, result);
    let Tally {
        passed,
        failed,
        ignored,
    } = total;
    let _ = writeln!(
        text,
        "\n{passed} tests passed, {failed} failed, {ignored} ignored"
    );
    for outcome in failures {
        let layer = outcome.layer;
        let why = outcome.failure.as_deref().unwrap_or_default();
        let _ = writeln!(
            text,
            "{layer} failed: {why}\n  again: cargo xtask test --only {layer}"
        );
    }
    text
}

fn row(text: &mut String, name: &str, time: Duration, tally: Tally, result: &str) {
    let seconds = time.as_secs_f64();
    let tests = tally.passed + tally.failed;
    let _ = writeln!(text, "{name:<12} {seconds:>8.1}  {tests:>6}  {result}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_runners_are_counted() {
        let mut tally = Tally::default();
        for line in [
            "running 13 tests",
            "test a ... ok",
            "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.02s",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 1.50s",
            "# tests 7",
            "# pass 5",
            "# fail 2",
            "# skipped 1",
            "ℹ pass 4",
            "# Subtest: pass 9",
        ] {
            tally.count(line);
        }
        let expected = Tally {
            passed: 24,
            failed: 3,
            ignored: 3,
        };
        assert_eq!(tally, expected);
    }

    #[test]
    fn a_failing_layer_is_named_with_its_command() {
        let outcomes = [
            Outcome {
                layer: "fmt",
                time: Duration::from_millis(1_500),
                tally: Tally::default(),
                failure: None,
            },
            Outcome {
                layer: "js",
                time: Duration::from_secs(2),
                tally: Tally {
                    passed: 4,
                    failed: 1,
                    ignored: 0,
                },
                failure: Some("`npm test` failed".into()),
            },
        ];
        let text = text(&outcomes);
        assert!(
            text.contains("fmt               1.5       0  ok\n"),
            "{text}"
        );
        assert!(
            text.contains("total             3.5       5  FAILED\n"),
            "{text}"
        );
        assert!(text.contains("js failed: `npm test` failed"), "{text}");
        assert!(text.contains("cargo xtask test --only js"), "{text}");
        assert!(!text.contains("--only fmt"), "{text}");
    }
}

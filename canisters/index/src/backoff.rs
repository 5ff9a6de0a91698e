//! When to try again what has failed.

const FIRST_MS: u64 = 1_000;
const LAST_MS: u64 = 600_000;

/// Failures in a row, and when to try again. Not kept over an upgrade: after it everything is tried at
/// once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    failures: u32,
    /// Milliseconds since 1970.
    pub due_ms: u64,
}

impl Backoff {
    /// In a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A second after the first failure, twice as long after each further one, at most ten minutes.
    pub fn fail(&mut self, now_ms: u64) {
        let wait_ms = FIRST_MS
            .saturating_mul(1 << self.failures.min(30))
            .min(LAST_MS);
        self.failures += 1;
        self.due_ms = now_ms + wait_ms;
    }
}

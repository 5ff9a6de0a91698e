//! How many chunks are on their way at once.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// Chunks of one blob that are on their way at the same time, at most.
pub const CHUNKS_IN_FLIGHT: usize = 8;

/// A chunk may take so long: networks take no message that is older than some minutes, and chunks that share a slow line
/// would all become so.
const CHUNK_MAX: Duration = Duration::from_secs(30);

/// As many chunks at once as the line carries: one more after each that was quick, half of them after one that was lost.
pub(crate) struct Pace(AtomicUsize);

impl Pace {
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(2))
    }

    pub(crate) fn limit(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A chunk has arrived.
    pub(crate) fn arrived(&self, took: Duration) {
        let limit = self.limit();
        self.set(if took < CHUNK_MAX {
            limit + 1
        } else {
            limit / 2
        });
    }

    /// A chunk has not arrived, and nobody has said why.
    pub(crate) fn lost(&self) {
        self.set(self.limit() / 2);
    }

    fn set(&self, limit: usize) {
        self.0
            .store(limit.clamp(1, CHUNKS_IN_FLIGHT), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_line_gets_more_chunks_and_a_slow_one_goes_down_to_one() {
        let pace = Pace::new();
        for _ in 0..20 {
            pace.arrived(Duration::from_secs(2));
        }
        assert_eq!(pace.limit(), CHUNKS_IN_FLIGHT);
        for _ in 0..5 {
            pace.arrived(Duration::from_secs(160));
        }
        assert_eq!(pace.limit(), 1);
        pace.lost();
        assert_eq!(pace.limit(), 1);
    }
}

//! When to try again, and when to give up.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Error;

/// The first wait; each one after it is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Patience with one piece of work. Progress renews it.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    limit: Duration,
    deadline: Instant,
    wait: Duration,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            deadline: Instant::now() + limit,
            wait: FIRST_WAIT,
        }
    }

    /// Something went well: the clock starts again.
    pub(crate) fn renew(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Waits, longer each time, and at least `asked` where a canister has asked for that.
    ///
    /// # Errors
    /// [`Error::GaveUp`] once the time is up, with what `last` tells.
    pub(crate) async fn pause(
        &mut self,
        asked: Option<Duration>,
        last: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        if Instant::now() >= self.deadline {
            return Err(Error::GaveUp {
                seconds: self.limit.as_secs(),
                last: last(),
            });
        }
        let wait = self.wait.max(asked.unwrap_or_default());
        self.wait = (self.wait * 2).min(WAIT_MAX);
        // Up to a quarter more, so that calls that failed together are not repeated together.
        sleep(wait + jitter(wait / 4)).await;
        Ok(())
    }
}

/// Up to `max`, different for callers that began together.
fn jitter(max: Duration) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(0u8);
    max.mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn patience_ends_and_tells_the_last_answer() {
        let mut patience = Patience::new(Duration::ZERO);
        let error = patience.pause(None, || "busy".into()).await.unwrap_err();
        assert!(
            matches!(&error, Error::GaveUp { last, .. } if last == "busy"),
            "{error}"
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn waits_grow_and_progress_makes_them_short_again() {
        let mut patience = Patience::new(Duration::from_secs(60));
        patience.pause(None, String::new).await.unwrap();
        assert_eq!(patience.wait, 2 * FIRST_WAIT);
        patience.renew();
        assert_eq!(patience.wait, FIRST_WAIT);
    }

    #[test]
    fn jitter_stays_below_its_bound() {
        let max = Duration::from_millis(100);
        assert!((0..100).all(|_| jitter(max) <= max));
    }
}

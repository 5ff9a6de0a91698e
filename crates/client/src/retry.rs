//! When to try again, and when to give up.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Error;

/// The first wait; each one after it is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// A canister that asks for more is asked again after this.
const ASKED_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long something is tried again without any progress, unless the caller says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Patience with one piece of work: begins with the first thing that goes wrong. Progress renews it.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    limit: Duration,
    deadline: Option<Instant>,
    wait: Duration,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            deadline: None,
            wait: FIRST_WAIT,
        }
    }

    /// Something went well: whatever goes wrong next is the first.
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
        let now = Instant::now();
        let deadline = *self.deadline.get_or_insert(now + self.limit);
        if now >= deadline {
            return Err(Error::GaveUp {
                seconds: self.limit.as_secs(),
                last: last(),
            });
        }
        let wanted = self.wait.max(asked.unwrap_or_default().min(ASKED_WAIT_MAX));
        self.wait = (self.wait * 2).min(WAIT_MAX);
        // Up to a quarter more, so that calls that failed together are not repeated together. Not beyond the
        // deadline: the last try is made there.
        sleep((wanted + jitter(wanted / 4)).min(deadline - now)).await;
        Ok(())
    }
}

/// What `call` brings, made again while it fails in a way that may pass.
///
/// # Errors
/// [`Error::GaveUp`] after `limit` without an answer; what `call` fails with.
pub(crate) async fn again<A, F: Future<Output = Result<A, Error>>>(
    limit: Duration,
    mut call: impl FnMut() -> F,
) -> Result<A, Error> {
    let mut patience = Patience::new(limit);
    loop {
        match call().await {
            Err(error) if error.is_transient() => {
                patience.pause(None, || error.to_string()).await?
            }
            answer => return answer,
        }
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

    #[tokio::test(flavor = "current_thread")]
    async fn patience_begins_with_the_first_failure_and_again_after_progress() {
        let mut patience = Patience::new(Duration::from_secs(60));
        assert_eq!(patience.deadline, None);
        patience.pause(None, String::new).await.unwrap();
        let deadline = patience.deadline;
        assert!(deadline.is_some());
        patience.pause(None, String::new).await.unwrap();
        assert_eq!(patience.deadline, deadline);
        patience.renew();
        assert_eq!(patience.deadline, None);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_last_try_is_made_at_the_deadline_however_long_a_canister_asks_for() {
        let began = Instant::now();
        let mut patience = Patience::new(Duration::from_millis(70));
        let asked = Some(Duration::MAX);
        patience.pause(asked, String::new).await.unwrap();
        patience.pause(asked, String::new).await.unwrap_err();
        assert!(began.elapsed() < ASKED_WAIT_MAX);
    }

    #[test]
    fn waits_are_those_of_the_table_of_all_clients() {
        let table = include_str!("../../../tests/conformance/calls.json");
        let table: serde_json::Value = serde_json::from_str(table).unwrap();
        let ms = |time: Duration| time.as_millis() as u64;
        let waits = serde_json::json!({
            "first_ms": ms(FIRST_WAIT),
            "max_ms": ms(WAIT_MAX),
            "asked_max_ms": ms(ASKED_WAIT_MAX),
            "patience_ms": ms(PATIENCE),
        });
        assert_eq!(table["waits"], waits);
    }

    #[test]
    fn jitter_stays_below_its_bound() {
        let max = Duration::from_millis(100);
        assert!((0..100).all(|_| jitter(max) <= max));
    }
}

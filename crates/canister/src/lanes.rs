//! What a canister does by itself, in lanes: kinds of work of which one piece each is under way at a time, so that one
//! that fails holds up no other.
//!
//! A trap undoes all that its message did, and a timer whose message traps is spent. So work that may trap is done in
//! the message of an answer: where that traps, the clean-up that the system runs afterwards counts the trap here, and
//! sets the timer again. Which row the work was about has been noted in the message before. A row on which
//! [`TRAPS_MAX`] messages have trapped is to be set aside, and the others go on.
//!
//! ```
//! use openstorage_canister::lanes::{Ended, Lanes, TRAPS_MAX};
//!
//! let mut lanes: Lanes<&str, 2> = Lanes::default();
//! let at_once = |_: usize| Some(0);
//! for trap in 0..TRAPS_MAX {
//!     let (lane, _) = lanes.next(trap as u64 * 60_000, at_once).unwrap();
//!     lanes.begin(0);
//!     assert_eq!(lanes.takes(0, Some("row")), trap);
//!     lanes.end(0, Ended::Trapped, trap as u64 * 60_000);
//!     // The other lane is due as before.
//!     assert_eq!(lanes.next(0, at_once).unwrap().0, 1);
//! }
//! lanes.begin(0);
//! assert_eq!(lanes.takes(0, Some("row")), TRAPS_MAX);
//! assert_eq!(lanes.takes(0, Some("other")), 0);
//! ```

/// Messages that may trap on one row; then it is set aside.
pub const TRAPS_MAX: u32 = 3;

/// The first wait after a failure. Each further one is twice as long, up to a minute.
const BACK_OFF_MIN_MS: u64 = 1_000;
const BACK_OFF_MAX_MS: u64 = 60_000;

/// How long no work is begun in the timer's own message, after a timer was lost.
const CAREFUL_MS: u64 = 600_000;

/// Rows of one lane whose traps are counted at the same time.
const ROWS_MAX: usize = 8;

/// After failures in a row, when to try again.
#[derive(Debug, Clone, Copy, Default)]
pub struct BackOff {
    wait_ms: u64,
    due_ms: u64,
}

impl BackOff {
    /// Not before this time, in milliseconds since 1970; 0 where the last try has succeeded.
    pub fn due_ms(&self) -> u64 {
        self.due_ms
    }

    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub fn failed(&mut self, now_ms: u64) {
        self.wait_ms = (self.wait_ms * 2).clamp(BACK_OFF_MIN_MS, BACK_OFF_MAX_MS);
        self.due_ms = now_ms + self.wait_ms;
    }
}

/// How a piece of work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// It is still to be done.
    Failed,
    /// Its message has trapped.
    Trapped,
}

/// `R` names a row, `N` is the number of lanes. Kept in the heap: an upgrade forgets it, like the timer itself.
pub struct Lanes<R, const N: usize> {
    lanes: [Lane<R>; N],
    /// The lane that was begun last: among those that are due the others come first.
    latest: usize,
    careful_until_ms: u64,
}

struct Lane<R> {
    busy: bool,
    back_off: BackOff,
    /// What the work under way is about.
    row: Option<R>,
    /// Rows, and none for work about no row, on which messages have trapped.
    traps: Vec<(Option<R>, u32)>,
    /// Since when there is something to do and nothing of it was done.
    waits_since_ms: Option<u64>,
}

impl<R> Default for Lane<R> {
    fn default() -> Self {
        Self {
            busy: false,
            back_off: BackOff::default(),
            row: None,
            traps: vec![],
            waits_since_ms: None,
        }
    }
}

impl<R, const N: usize> Default for Lanes<R, N> {
    fn default() -> Self {
        Self {
            lanes: std::array::from_fn(|_| Lane::default()),
            latest: 0,
            careful_until_ms: 0,
        }
    }
}

impl<R: PartialEq, const N: usize> Lanes<R, N> {
    /// The lane that is due next, and when, in milliseconds since 1970; none where nothing is to be done but what is
    /// under way. `due_ms` says when a lane has something to do.
    pub fn next(
        &mut self,
        now_ms: u64,
        due_ms: impl Fn(usize) -> Option<u64>,
    ) -> Option<(usize, u64)> {
        let mut next: Option<(usize, u64)> = None;
        for n in 1..=N {
            let at = (self.latest + n) % N;
            let lane = &mut self.lanes[at];
            let Some(wanted_ms) = due_ms(at) else {
                lane.waits_since_ms = None;
                if !lane.busy {
                    lane.traps.clear();
                }
                continue;
            };
            if wanted_ms <= now_ms {
                lane.waits_since_ms.get_or_insert(now_ms);
            } else {
                lane.waits_since_ms = None;
            }
            let due_ms = wanted_ms.max(lane.back_off.due_ms()).max(now_ms);
            if !lane.busy && next.is_none_or(|(_, next_ms)| due_ms < next_ms) {
                next = Some((at, due_ms));
            }
        }
        next
    }

    /// Whether a lane could begin with work that is due.
    pub fn is_free(&self, lane: usize, now_ms: u64) -> bool {
        let lane = &self.lanes[lane];
        !lane.busy && lane.back_off.due_ms() <= now_ms
    }

    /// Work of a lane is under way, until [`Lanes::end`].
    pub fn begin(&mut self, lane: usize) {
        self.latest = lane;
        self.lanes[lane].busy = true;
        self.lanes[lane].row = None;
    }

    /// What the work under way is about. To be called in an earlier message than the one that does it. Tells how many
    /// messages have trapped on that.
    pub fn takes(&mut self, lane: usize, row: Option<R>) -> u32 {
        let lane = &mut self.lanes[lane];
        let known = lane.traps.iter().find(|(trapped, _)| *trapped == row);
        let traps = known.map_or(0, |(_, traps)| *traps);
        lane.row = row;
        traps
    }

    pub fn end(&mut self, lane: usize, ended: Ended, now_ms: u64) {
        let lane = &mut self.lanes[lane];
        lane.busy = false;
        let row = lane.row.take();
        match ended {
            Ended::Done => {
                lane.back_off.succeeded();
                lane.waits_since_ms = None;
                // Rows are taken in order: the one that trapped is the first no more.
                lane.traps.clear();
            }
            Ended::Failed => lane.back_off.failed(now_ms),
            Ended::Trapped => {
                lane.back_off.failed(now_ms);
                match lane.traps.iter_mut().find(|(trapped, _)| *trapped == row) {
                    Some((_, traps)) => *traps += 1,
                    None => {
                        if lane.traps.len() == ROWS_MAX {
                            lane.traps.remove(0);
                        }
                        lane.traps.push((row, 1));
                    }
                }
            }
        }
    }

    /// When the lane's next try is due, after failures.
    pub fn back_off_ms(&self, lane: usize) -> u64 {
        self.lanes[lane].back_off.due_ms()
    }

    /// Messages have trapped on some row of the lane, and none of it was done since.
    pub fn is_suspect(&self, lane: usize) -> bool {
        !self.lanes[lane].traps.is_empty()
    }

    /// The timer was lost: its message may have trapped. For a while all work is done in messages of answers.
    pub fn be_careful(&mut self, now_ms: u64) {
        self.careful_until_ms = now_ms + CAREFUL_MS;
    }

    pub fn is_careful(&self, now_ms: u64) -> bool {
        now_ms < self.careful_until_ms
    }

    /// Some other lane has work under way, or work that waits to be begun.
    pub fn has_others(&self, lane: usize) -> bool {
        let mut others = self.lanes.iter().enumerate();
        others.any(|(at, other)| at != lane && (other.busy || other.waits_since_ms.is_some()))
    }

    /// How long the lane that waits longest has waited without anything of its work done.
    pub fn overdue_ms(&self, now_ms: u64, counts: impl Fn(usize) -> bool) -> u64 {
        let lanes = self.lanes.iter().enumerate();
        let waits = lanes.filter(|(at, _)| counts(*at));
        let since_ms = waits.filter_map(|(_, lane)| lane.waits_since_ms).min();
        since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALWAYS: fn(usize) -> Option<u64> = |_| Some(0);

    #[test]
    fn waits_double_up_to_a_minute() {
        let now_ms = 1_700_000_000_000;
        let mut back_off = BackOff::default();
        assert_eq!(back_off.due_ms(), 0);
        let waits: Vec<_> = (0..8)
            .map(|_| {
                back_off.failed(now_ms);
                (back_off.due_ms() - now_ms) / 1_000
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        back_off.succeeded();
        assert_eq!(back_off.due_ms(), 0);
    }

    #[test]
    fn lanes_take_turns_and_one_that_fails_waits_alone() {
        let mut lanes: Lanes<u8, 3> = Lanes::default();
        let mut order = vec![];
        for _ in 0..4 {
            let (lane, due_ms) = lanes.next(1_000, ALWAYS).unwrap();
            assert_eq!(due_ms, 1_000);
            order.push(lane);
            lanes.begin(lane);
            let ended = if lane == 2 {
                Ended::Failed
            } else {
                Ended::Done
            };
            lanes.end(lane, ended, 1_000);
        }
        assert_eq!(order, [1, 2, 0, 1]);
        // The one that failed is next when its wait is over.
        lanes.begin(0);
        lanes.begin(1);
        assert_eq!(lanes.next(1_000, ALWAYS), Some((2, 2_000)));
    }

    #[test]
    fn only_work_that_is_done_ends_the_waiting() {
        let mut lanes: Lanes<u8, 2> = Lanes::default();
        lanes.next(1_000, ALWAYS);
        lanes.begin(0);
        lanes.end(0, Ended::Trapped, 5_000);
        lanes.begin(1);
        lanes.end(1, Ended::Done, 5_000);
        lanes.next(9_000, ALWAYS);
        assert_eq!(lanes.overdue_ms(9_000, |_| true), 8_000);
        assert_eq!(lanes.overdue_ms(9_000, |lane| lane == 1), 0);
        assert!(lanes.is_suspect(0) && !lanes.is_suspect(1));
        // Nothing to do any more.
        lanes.next(9_000, |_| None);
        assert_eq!(lanes.overdue_ms(9_000, |_| true), 0);
    }

    #[test]
    fn traps_are_counted_by_row_and_forgotten_with_success() {
        let mut lanes: Lanes<u8, 1> = Lanes::default();
        for (row, traps) in [(Some(1), 0), (None, 0), (Some(1), 1), (Some(1), 2)] {
            lanes.begin(0);
            assert_eq!(lanes.takes(0, row), traps);
            lanes.end(0, Ended::Trapped, 0);
        }
        assert!(lanes.is_suspect(0));
        lanes.begin(0);
        lanes.takes(0, Some(1));
        lanes.end(0, Ended::Done, 0);
        assert!(!lanes.is_suspect(0));
    }
}

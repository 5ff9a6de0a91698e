//! The system's timer of a canister: one, in the past when it goes off, and spent by going off. It is spent too
//! where its message traps, or finds no cycles to pay for it. So what is remembered here, in the heap, is only
//! believed as long as it lies ahead.
//!
//! A canister's `canister_global_timer` calls [`over`] first, and ends with [`arm`]; so does every message that may
//! have made work. All of it happens in the timer's own message, never in a call of the canister to itself: there is no
//! answer to come that an upgrade could meet, but those that [`outstanding`](crate::outstanding) counts.

use std::cell::Cell;

const NS_PER_MS: u64 = 1_000_000;

/// So late a timer's message is not by itself, not on a busy subnet either: it has trapped, or could not be paid for.
const LOST_NS: u64 = 60_000 * NS_PER_MS;

thread_local! {
    /// What the system's timer was last set to, in nanoseconds since 1970.
    static SET_NS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Has the timer go off at `due_ms` (milliseconds since 1970), or in the next round where that is past. `now_ns` is the
/// message's time in nanoseconds since 1970, `set` the system's `global_timer_set`. Whether it was called: not where
/// the timer goes off by then anyway.
///
/// ```
/// use openstorage_canister::timer;
///
/// let set = |at_ns: u64| at_ns; // in a canister: ic_cdk::api::global_timer_set
/// assert!(timer::arm(2_000, 1_000_000_000, set));
/// assert!(!timer::arm(3_000, 1_000_000_000, set));
/// ```
pub fn arm(due_ms: u64, now_ns: u64, set: impl FnOnce(u64) -> u64) -> bool {
    let due_ns = due_ms.saturating_mul(NS_PER_MS).max(now_ns);
    let is_armed = SET_NS
        .get()
        .is_some_and(|at_ns| (now_ns..=due_ns).contains(&at_ns));
    if !is_armed {
        set(due_ns);
        SET_NS.set(Some(due_ns));
    }
    !is_armed
}

/// The timer goes off in the next round, set by a message of this one: nothing can be due before.
pub fn is_next(now_ns: u64) -> bool {
    SET_NS.get() == Some(now_ns)
}

/// The timer should have gone off long ago: its message has trapped, could not be paid for, or was refused while the
/// canister was stopped.
pub fn is_lost(now_ns: u64) -> bool {
    SET_NS
        .get()
        .is_some_and(|at_ns| at_ns.saturating_add(LOST_NS) < now_ns)
}

/// The timer is not set: it has gone off, or what is remembered came back with a snapshot.
pub fn over() {
    SET_NS.set(None);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: u64 = 1_700_000_000_000_000_007;
    const NOW_MS: u64 = NOW_NS / NS_PER_MS;

    /// What the system was told, if anything.
    fn told(due_ms: u64, now_ns: u64) -> Option<u64> {
        let told = Cell::new(None);
        let is_set = arm(due_ms, now_ns, |at_ns| {
            told.set(Some(at_ns));
            0
        });
        assert_eq!(is_set, told.get().is_some());
        told.get()
    }

    #[test]
    fn it_is_set_for_the_earliest() {
        let (first, second) = (NOW_MS + 1_000, NOW_MS + 2_000);
        assert_eq!(told(second, NOW_NS), Some(second * NS_PER_MS));
        assert_eq!(told(second, NOW_NS + 1), None);
        assert_eq!(told(first, NOW_NS + 1), Some(first * NS_PER_MS));
        assert_eq!(told(second, NOW_NS + 2), None);
        over();
        assert_eq!(told(second, NOW_NS + 3), Some(second * NS_PER_MS));
    }

    #[test]
    fn what_is_due_already_comes_in_the_next_round() {
        assert!(!is_next(NOW_NS));
        // A 0 would be no timer at all.
        assert_eq!(told(0, NOW_NS), Some(NOW_NS));
        assert!(is_next(NOW_NS));
        assert_eq!(told(NOW_MS + 1, NOW_NS), None);
        assert_eq!(told(u64::MAX, NOW_NS), None);
        over();
        assert_eq!(told(u64::MAX, NOW_NS), Some(u64::MAX));
    }

    /// Its message has trapped, or could not be paid for.
    #[test]
    fn a_timer_in_the_past_is_set_again() {
        assert_eq!(told(NOW_MS, NOW_NS), Some(NOW_NS));
        assert!(!is_next(NOW_NS + 1));
        assert!(!is_lost(NOW_NS + LOST_NS) && is_lost(NOW_NS + LOST_NS + 1));
        let later = NOW_MS + 60_000;
        assert_eq!(told(later, NOW_NS + 1), Some(later * NS_PER_MS));
    }
}

//! Calls under way, counted. A canister that is upgraded before they are answered would get the answers
//! in code that did not make the calls: its `pre_upgrade` asks here first.

use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u32> = const { Cell::new(0) };
}

/// A call under way: to be held from before the call until after its answer. Ends when it is dropped,
/// also when the code after the answer traps: the cleanup that follows drops it.
#[derive(Debug)]
#[must_use = "the call counts as long as this lives"]
pub struct Outstanding(());

/// Counts one more.
pub fn begin() -> Outstanding {
    COUNT.set(COUNT.get() + 1);
    Outstanding(())
}

/// Calls under way. Constant cost.
pub fn count() -> u32 {
    COUNT.get()
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        COUNT.set(COUNT.get() - 1);
    }
}

/// What `pre_upgrade` traps with while calls are under way; none when the upgrade may go on. A stopped
/// canister has no calls, whatever is counted: a snapshot that was taken during a call counts it for ever.
pub fn objection(canister: &candid::Principal, is_stopped: bool) -> Option<String> {
    let count = count();
    (count > 0 && !is_stopped).then(|| {
        format!(
            "{canister} has {count} calls under way, and their answers must not arrive in other code: \
             stop it, upgrade it, start it (dfx canister stop {canister}; dfx deploy; \
             dfx canister start {canister})"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_until_it_is_dropped() {
        let own = candid::Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(objection(&own, false), None);
        let first = begin();
        let second = begin();
        drop(first);
        let text = objection(&own, false).expect("one is under way");
        assert_eq!(objection(&own, true), None);
        assert!(text.contains(&format!("dfx canister stop {own}")), "{text}");
        drop(second);
        assert_eq!((count(), objection(&own, false)), (0, None));
    }
}

//! How often something may be done: so many times in a window, which begins with the first of them.

use candid::CandidType;
use openstorage_types::chat::ChatError;
use serde::Deserialize;

#[derive(CandidType, Deserialize, Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Window {
    /// Milliseconds since 1970.
    began_ms: u64,
    count: u32,
}

impl Window {
    /// The window with one more in it.
    ///
    /// # Errors
    /// [`ChatError::TooOften`]: there are `max` already; it says when the window is over.
    pub fn with_one_more(self, now_ms: u64, length_ms: u64, max: u32) -> Result<Self, ChatError> {
        let end_ms = self.began_ms.saturating_add(length_ms);
        if now_ms >= end_ms {
            let (began_ms, count) = (now_ms, 1);
            return Ok(Self { began_ms, count });
        }
        if self.count >= max {
            let ms = end_ms - now_ms;
            return Err(ChatError::TooOften { max, ms });
        }
        let count = self.count + 1;
        Ok(Self { count, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_takes_so_many_and_the_next_one_as_many_again() {
        let (length_ms, max) = (1_000, 2);
        let mut window = Window::default();
        for now_ms in [5_000, 5_999] {
            window = window.with_one_more(now_ms, length_ms, max).unwrap();
        }
        let refused = window.with_one_more(5_999, length_ms, max);
        assert_eq!(refused, Err(ChatError::TooOften { max, ms: 1 }));
        for now_ms in [6_000, 6_001] {
            window = window.with_one_more(now_ms, length_ms, max).unwrap();
        }
        assert!(window.with_one_more(6_999, length_ms, max).is_err());
    }
}

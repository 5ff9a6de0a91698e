//! What a canister has done of late, for operators: lines of text in stable memory, the newest
//! [`LINES_MAX`] of them. Whoever writes a line leaves out secrets and users.

use candid::CandidType;
use ic_stable_structures::{Memory, StableBTreeMap};
use serde::{Deserialize, Serialize};

use crate::Row;

/// Lines that are kept.
pub const LINES_MAX: u64 = 1_000;

/// Bytes of a line's text; the rest is cut off.
pub const LINE_BYTES_MAX: usize = 400;

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub text: String,
}

pub struct Lines<M: Memory> {
    rows: StableBTreeMap<u64, Row<Line>, M>,
}

impl<M: Memory> Lines<M> {
    pub fn init(memory: M) -> Self {
        Self {
            rows: StableBTreeMap::init(memory),
        }
    }

    /// Writes a line, and drops the oldest where there are too many. A line break becomes a space.
    pub fn write(&mut self, at_ms: u64, text: &str) {
        let mut end = text.len().min(LINE_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text[..end].replace(['\n', '\r'], " ");
        let number = self.rows.last_key_value().map_or(0, |(last, _)| last + 1);
        self.rows.insert(number, Row(Line { at_ms, text }));
        while self.rows.len() > LINES_MAX {
            self.rows.pop_first();
        }
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Line> {
        self.rows.iter().map(|entry| entry.value().0)
    }

    /// One line each: milliseconds since 1970, a space, the text.
    pub fn page(&self) -> String {
        self.iter().fold(String::new(), |mut page, line| {
            page.push_str(&format!("{} {}\n", line.at_ms, line.text));
            page
        })
    }
}

#[cfg(test)]
mod tests {
    use ic_stable_structures::VectorMemory;

    use super::*;

    #[test]
    fn the_newest_lines_stay_and_outlive_an_upgrade() {
        let memory = VectorMemory::default();
        let mut lines = Lines::init(memory.clone());
        for i in 0..LINES_MAX + 2 {
            lines.write(i, &format!("line {i}"));
        }
        let lines = Lines::init(memory);
        let all: Vec<_> = lines.iter().collect();
        assert_eq!(all.len() as u64, LINES_MAX);
        assert_eq!((all[0].at_ms, all[0].text.as_str()), (2, "line 2"));
        assert!(lines.page().ends_with("1001 line 1001\n"));
    }

    #[test]
    fn a_line_is_short_and_one_line() {
        let mut lines = Lines::init(VectorMemory::default());
        lines.write(0, &format!("a\nb{}", "é".repeat(LINE_BYTES_MAX)));
        let text = lines.iter().next().expect("there is one").text;
        assert!(text.starts_with("a b") && text.len() <= LINE_BYTES_MAX);
    }
}

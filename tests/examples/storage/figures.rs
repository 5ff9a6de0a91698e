//! What was measured: tables for people, JSON for programs.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use serde_json::{Map, Value, json};

use crate::plot;

const JSON: &str = "storage.json";

/// What a figure ought to be.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    None,
    /// At most `goal`; less than `floor` cannot be done.
    AtMost {
        goal: f64,
        floor: f64,
    },
}

impl Goal {
    pub fn at_most(goal: f64, floor: f64) -> Self {
        Self::AtMost { goal, floor }
    }
}

struct Figure {
    key: &'static str,
    what: &'static str,
    value: f64,
    goal: Goal,
}

/// Instructions by the number of blobs, for each call.
pub type Scale = BTreeMap<&'static str, Vec<(u64, f64)>>;

#[derive(Default)]
pub struct Report {
    figures: Vec<Figure>,
    scale: Scale,
}

impl Report {
    pub fn figure(&mut self, key: &'static str, what: &'static str, value: f64, goal: Goal) {
        self.figures.push(Figure {
            key,
            what,
            value,
            goal,
        });
    }

    /// What a call costs beside `blobs` others.
    pub fn at(&mut self, blobs: u64, call: &'static str, instructions: f64) {
        self.scale
            .entry(call)
            .or_default()
            .push((blobs, instructions));
    }

    /// A figure that is a point of the scale; left out where that was not measured.
    pub fn take_from_scale(
        &mut self,
        key: &'static str,
        what: &'static str,
        call: &str,
        blobs: u64,
        goal: Goal,
    ) {
        let points = self.scale.get(call).into_iter().flatten();
        let point = points.copied().find(|(size, _)| *size == blobs);
        if let Some((_, value)) = point {
            self.figure(key, what, value, goal);
        }
    }

    pub fn json(&self) -> Value {
        let rows = self.figures.iter();
        let rows = rows.map(|figure| (figure.key.to_owned(), json!(rounded(figure.value))));
        Value::Object(rows.collect())
    }

    /// Markdown, which is readable on a terminal too. What stood in `out` is compared with.
    pub fn tables(&self, out: Option<&Path>) -> String {
        let old: Map<String, Value> = out
            .and_then(|out| fs::read_to_string(out.join(JSON)).ok())
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        let mut text = self.figures_table();
        for figure in &self.figures {
            let before = old.get(figure.key).and_then(Value::as_f64);
            let change = before.map_or(0.0, |before| figure.value / before - 1.0);
            if change.abs() > 0.001 {
                let _ = writeln!(text, "{}: {:+.1} %", figure.key, change * 100.0);
            }
        }
        text.push('\n');
        text + &self.scale_table()
    }

    fn figures_table(&self) -> String {
        let mut text =
            String::from("| figure | measured | goal | floor |\n| --- | ---: | ---: | ---: |\n");
        for Figure {
            key,
            what,
            value,
            goal,
        } in &self.figures
        {
            let (goal, floor) = match goal {
                Goal::None => (String::new(), String::new()),
                Goal::AtMost { goal, floor } => (shown(*goal), shown(*floor)),
            };
            let value = shown(*value);
            let _ = writeln!(text, "| {what} (`{key}`) | {value} | {goal} | {floor} |");
        }
        text
    }

    fn scale_table(&self) -> String {
        let points = self.scale.values().flatten();
        let mut sizes: Vec<_> = points.map(|(size, _)| *size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let mut text = String::from("| instructions beside so many blobs and users |");
        for size in &sizes {
            let _ = write!(text, " {} |", shown(*size as f64));
        }
        text.push_str("\n| --- |");
        text.push_str(&" ---: |".repeat(sizes.len()));
        text.push('\n');
        for (call, points) in &self.scale {
            let _ = write!(text, "| {call} |");
            for size in &sizes {
                let point = points.iter().find(|(at, _)| at == size);
                let value = point.map_or_else(String::new, |(_, value)| shown(*value));
                let _ = write!(text, " {value} |");
            }
            text.push('\n');
        }
        text
    }

    /// # Panics
    /// When the files cannot be written.
    pub fn write(&self, out: &Path) {
        fs::create_dir_all(out).expect("the folder can be made");
        let page = format!(
            "# What storing costs\n\n`cargo xtask bench --only storage` writes this page. Instructions are as the \
             local network counts them: Wasm, System API, bytes, dirty pages.\n\n{}\n![Instructions of each call, \
             by the number of blobs](storage-scale.svg)\n\n{}\nThe blobs belong to one user, and there are as many \
             users as blobs. `sync of a user` is everything that one `update_user` brings about in index and bucket.\n",
            self.figures_table(),
            self.scale_table()
        );
        let json = serde_json::to_string_pretty(&self.json()).expect("it is plain data");
        for (name, text) in [
            ("storage.md", page),
            (JSON, json + "\n"),
            ("storage-scale.svg", plot::lines(&self.scale)),
        ] {
            fs::write(out.join(name), text).expect("the file can be written");
        }
    }
}

/// To four digits that count, below a hundred to two places.
fn rounded(value: f64) -> f64 {
    if value < 1_000.0 {
        (value * 1_000.0).round() / 1_000.0
    } else {
        value.round()
    }
}

fn shown(value: f64) -> String {
    if value < 1_000.0 && value.fract() != 0.0 {
        return format!("{value:.3}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

//! What was measured: tables for people, JSON for programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

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

/// Instructions by the number of something, for each call.
pub struct Scale {
    /// What there is ever more of.
    pub of: &'static str,
    pub calls: BTreeMap<&'static str, Vec<(u64, f64)>>,
}

impl Scale {
    fn new(of: &'static str) -> Self {
        Self {
            of,
            calls: BTreeMap::new(),
        }
    }

    /// What a call costs beside so many.
    pub fn at(&mut self, size: u64, call: &'static str, instructions: f64) {
        let points = self.calls.entry(call).or_default();
        points.push((size, instructions));
    }

    fn table(&self) -> String {
        let points = self.calls.values().flatten();
        let sizes: BTreeSet<_> = points.map(|(size, _)| *size).collect();
        let mut text = format!("| instructions beside so many {} |", self.of);
        for size in &sizes {
            let _ = write!(text, " {} |", shown(*size as f64));
        }
        text.push_str("\n| --- |");
        text.push_str(&" ---: |".repeat(sizes.len()));
        text.push('\n');
        for (call, points) in &self.calls {
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
}

pub struct Report {
    figures: Vec<Figure>,
    pub by_blobs: Scale,
    pub by_buckets: Scale,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            figures: vec![],
            by_blobs: Scale::new("blobs and users"),
            by_buckets: Scale::new("buckets"),
        }
    }
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

    /// A figure that is a point of the scale by blobs; left out where that was not measured.
    pub fn take_from_scale(
        &mut self,
        key: &'static str,
        what: &'static str,
        call: &str,
        blobs: u64,
        goal: Goal,
    ) {
        let points = self.by_blobs.calls.get(call).into_iter().flatten();
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
        format!(
            "{text}\n{}\n{}",
            self.by_blobs.table(),
            self.by_buckets.table()
        )
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

    /// # Panics
    /// When the files cannot be written.
    pub fn write(&self, out: &Path) {
        fs::create_dir_all(out).expect("the folder can be made");
        let page = format!(
            "# What storing costs\n\n`cargo xtask bench --only storage` writes this page. Instructions are as the \
             local network counts them: Wasm, System API, bytes, dirty pages.\n\n{}\n![Instructions of each call, \
             by the number of blobs](storage-scale.svg)\n\n{}\nThe blobs belong to one user, and there are as many \
             users as blobs. `sync of a user` is everything that one `update_user` brings about in index and bucket.\n\
             \n![Instructions of the index's calls, by the number of buckets](storage-buckets.svg)\n\n{}\nThe buckets \
             are all active, which a fleet that fills one after the other never is. Each user that is new or changed \
             is told to every bucket: `sync of a user, a bucket` is a bucket's share of that, in index and bucket.\n",
            self.figures_table(),
            self.by_blobs.table(),
            self.by_buckets.table()
        );
        let json = serde_json::to_string_pretty(&self.json()).expect("it is plain data");
        for (name, text) in [
            ("storage.md", page),
            (JSON, json + "\n"),
            ("storage-scale.svg", plot::lines(&self.by_blobs)),
            ("storage-buckets.svg", plot::lines(&self.by_buckets)),
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

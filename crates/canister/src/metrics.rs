//! A page of figures as Prometheus reads it: text format 0.0.4, with HELP and TYPE for each.

use std::fmt::Display;

/// The content type of such a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// A page under construction. Every name begins with the same prefix.
///
/// ```
/// let mut page = openstorage_canister::metrics::Page::new("app");
/// page.gauge("users", "Registered users.", 3);
/// page.gauges("room_bytes", "Room of each.", "bucket", [("a", 1), ("b", 2)]);
/// assert!(page.text().ends_with("app_room_bytes{bucket=\"b\"} 2\n"));
/// ```
pub struct Page {
    prefix: &'static str,
    text: String,
}

impl Page {
    pub fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            text: String::new(),
        }
    }

    /// A figure that rises and falls.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "gauge");
        self.line(name, "", &value);
    }

    /// A figure that only rises.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "counter");
        self.line(name, "", &value);
    }

    /// One figure for each of several things, told apart by `label`. Its values are ids or words of our
    /// own: they need no escape.
    pub fn gauges<L: Display, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) {
        self.head(name, help, "gauge");
        for (of, value) in values {
            self.line(name, &format!("{{{label}=\"{of}\"}}"), &value);
        }
    }

    pub fn text(self) -> String {
        self.text
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let prefix = self.prefix;
        let head = format!("# HELP {prefix}_{name} {help}\n# TYPE {prefix}_{name} {kind}\n");
        self.text.push_str(&head);
    }

    fn line(&mut self, name: &str, labels: &str, value: &dyn Display) {
        let prefix = self.prefix;
        let line = format!("{prefix}_{name}{labels} {value}\n");
        self.text.push_str(&line);
    }
}

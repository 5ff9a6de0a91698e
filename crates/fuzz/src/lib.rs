//! What no input may do to the parsers that face strangers: each function takes any bytes, and panics when
//! one of its promises is broken.
//!
//! `cargo xtask fuzz NAME` looks for such bytes, guided by the code they reach; what it keeps lies in
//! `corpus/NAME` and is tried again by every test run (`tests/corpora.rs`).

mod gateway;
mod request;
mod token;

pub use gateway::gateway;
pub use request::{file_name, if_none_match, path, query, range};
pub use token::token;

/// A promise about any input.
pub type Target = fn(&[u8]);

/// Every target by the name of its program and corpus.
pub const ALL: [(&str, Target); 7] = [
    ("file_name", file_name),
    ("gateway", gateway),
    ("if_none_match", if_none_match),
    ("path", path),
    ("query", query),
    ("range", range),
    ("token", token),
];

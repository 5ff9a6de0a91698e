//! A small, deterministic Internet Computer.

pub mod machine;

//! A small, deterministic Internet Computer.

pub mod machine;
pub mod network;
pub mod rest;

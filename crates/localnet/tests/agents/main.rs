//! The Rust agent against this server, with all of its verification on.

mod clients;
mod identities;
mod state;
mod support;
mod trust;

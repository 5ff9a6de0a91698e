//! The Rust agent against this server, with all of its verification on.

mod clients;
mod gateway;
mod identities;
mod state;
mod support;
mod trust;

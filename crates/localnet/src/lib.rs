//! A small, deterministic Internet Computer, for tests and for trying things out.
//!
//! It runs canisters' Wasm in `wasmtime` under the System API, delivers their calls, answers as the
//! management canister does, and speaks the PocketIC server's protocol, so that the official
//! [`pocket-ic`](https://docs.rs/pocket-ic) crate drives it unmodified:
//!
//! ```sh
//! POCKET_IC_BIN=$(cargo xtask server-path | tail -1) cargo test
//! ```
//!
//! | module | what | knows |
//! | --- | --- | --- |
//! | [`fees`] | what things cost, in cycles | nothing |
//! | [`machine`] | one canister: its Wasm, heap and stable memory, one message at a time | [`fees`] |
//! | [`cert`] | certificates: keys, the certified state's tree, signatures | nothing of canisters |
//! | [`envelope`] | agents' requests, and who signed them | nothing of canisters |
//! | [`network`] | many canisters on subnets: calls, cycles, time, the management canister | [`machine`] |
//! | [`persist`] | a network on disk: checkpoints, and a journal of inputs | [`network`] |
//! | [`rest`] | the server: PocketIC's routes, and gateways for browsers | [`network`] |
//!
//! What holds:
//!
//! - **A trap takes everything back** that its message did to heap, stable memory, globals and timers, and
//!   gives the cycles back that it accepted or attached.
//! - **Every call is answered once**: by the callee, or for it with the reject code that the Internet
//!   Computer gives (no such canister, no such method, trapped, stopped, no reply, deadline passed).
//! - **The same seed and calls give the same state**, `raw_rand` and canister ids included. Time stands
//!   still unless it is moved or automatic progress is on.
//! - **An upgrade keeps stable memory**, or, when it fails, everything.
//!
//! What it has not (outgoing HTTP, threshold signatures, Bitcoin) is refused with a sentence that says so.
//! `docs/local-network.md` has the whole list.

mod bounded;
pub mod cert;
pub mod envelope;
pub mod fees;
pub mod machine;
pub mod network;
pub mod persist;
pub mod rest;

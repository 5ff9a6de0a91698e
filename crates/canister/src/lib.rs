//! What every canister of the project needs at its border and in its memory.
//!
//! | module | what |
//! | --- | --- |
//! | [`audience`] | whose tokens are believed, and their check |
//! | [`keys`] | the versions of the key under which they are sealed |
//! | [`argument`] | arguments decoded within a budget |
//! | [`reply`] | replies, encoded at little cost or appended from stable memory |
//! | [`row`] | values kept in stable memory as Candid |
//! | [`outstanding`] | calls under way, counted for `pre_upgrade` |
//! | [`lanes`] | what a canister does by itself, with a net under it |
//! | [`timer`] | the system's timer, set for what is due first |
//! | [`lines`] | the last lines for operators, in stable memory |
//! | [`metrics`] | figures as Prometheus reads them |

pub mod argument;
pub mod audience;
pub mod keys;
pub mod lanes;
pub mod lines;
pub mod metrics;
pub mod outstanding;
pub mod reply;
pub mod row;
pub mod timer;

pub use argument::{decode, expect_short};
pub use reply::{before_blob, encode, encode_value, write_length};
pub use row::Row;

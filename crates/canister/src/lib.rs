//! What every canister of the project needs at its border and in its memory.
//!
//! | module | what |
//! | --- | --- |
//! | [`argument`] | arguments decoded within a budget |
//! | [`row`] | values kept in stable memory as Candid |

pub mod argument;
pub mod row;

pub use argument::decode;
pub use row::Row;

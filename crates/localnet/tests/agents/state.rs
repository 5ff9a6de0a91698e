//! Reads of the certified state.

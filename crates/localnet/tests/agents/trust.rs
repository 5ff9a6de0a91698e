//! What is not as it should be is refused.

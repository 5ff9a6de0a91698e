//! Certificates: what lets a client believe a network without trusting the server in between.
//!
//! | module | what |
//! | --- | --- |
//! | `keys` | each subnet's BLS key and its node's Ed25519 key, from the network's seed |
//! | `node` | a labelled tree that can show some of its paths and prove others absent |
//! | `state` | one subnet's certified state: canisters, messages, subnets, time |
//! | `certificate` | a signed tree, with a delegation where the root subnet did not sign itself |
//!
//! The format is the Internet Computer's ([interface specification, "Certification"][spec]), so agents
//! verify it unmodified. One key signs for a whole subnet: to whoever verifies, a threshold signature
//! and a plain one look the same.
//!
//! The keys follow from the seed, which everybody knows. A certificate shows that an answer came
//! unchanged from *a* network of that seed; it protects nothing that is worth protecting.
//!
//! [spec]: https://internetcomputer.org/docs/references/ic-interface-spec#certification

mod certificate;
mod keys;
mod node;
mod state;

pub use certificate::{Certifier, cbor};
pub use keys::SubnetKeys;
pub use node::Node;
pub use state::{Facts, Part, Path, State, natural};

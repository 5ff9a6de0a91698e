//! Certificates: views of a state with the signature that makes them believable.

use std::sync::Arc;

use ic_certification::{Certificate, Delegation, HashTree};
use serde::Serialize;

use super::{Node, Part, Path, State, SubnetKeys};

/// How old a delegation may get, in the network's time, before the root subnet signs another. Verifiers
/// accept a month.
const DELEGATION_AGE_MAX_NS: u64 = 3_600_000_000_000;

/// CBOR with the tag that says so, as the Internet Computer sends it.
///
/// # Panics
/// Where the value has no CBOR form.
pub fn cbor<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![];
    let mut serializer = serde_cbor::Serializer::new(&mut bytes);
    serializer
        .self_describe()
        .and_then(|()| value.serialize(&mut serializer))
        .expect("the value has a CBOR form");
    bytes
}

/// The state of every subnet and what it takes to sign it. The first subnet is the root.
pub struct Certifier {
    keys: Arc<[SubnetKeys]>,
    states: Vec<State>,
    /// The last signature of each subnet, with what it signs: many views of one state share it.
    signatures: Vec<Option<([u8; 32], Vec<u8>)>>,
    /// The last delegation to each subnet, with the time at which it was signed.
    delegations: Vec<Option<(u64, Delegation)>>,
}

impl Certifier {
    pub fn new(keys: Arc<[SubnetKeys]>) -> Self {
        Self {
            states: keys.iter().map(|_| State::default()).collect(),
            signatures: vec![None; keys.len()],
            delegations: vec![None; keys.len()],
            keys,
        }
    }

    pub fn keys(&self) -> &Arc<[SubnetKeys]> {
        &self.keys
    }

    pub fn states(&mut self) -> &mut [State] {
        &mut self.states
    }

    /// A certificate of a subnet, in CBOR, that shows these paths.
    pub fn certificate(
        &mut self,
        subnet: usize,
        time_ns: u64,
        paths: &[Path],
        reveal: &dyn Fn(Part) -> Node,
    ) -> Vec<u8> {
        let delegation = (subnet != 0).then(|| self.delegation(subnet, time_ns));
        let tree = self.states[subnet].view(paths, reveal);
        self.signed(subnet, tree, delegation)
    }

    fn delegation(&mut self, subnet: usize, time_ns: u64) -> Delegation {
        if let Some((signed_ns, delegation)) = &self.delegations[subnet]
            && time_ns.saturating_sub(*signed_ns) <= DELEGATION_AGE_MAX_NS
        {
            return delegation.clone();
        }
        let id = self.keys[subnet].subnet();
        let view = self.states[0].delegation_view(&id);
        let delegation = Delegation {
            subnet_id: id.as_slice().to_vec(),
            certificate: self.signed(0, view, None),
        };
        self.delegations[subnet] = Some((time_ns, delegation.clone()));
        delegation
    }

    fn signed(&mut self, subnet: usize, tree: HashTree, delegation: Option<Delegation>) -> Vec<u8> {
        let root = tree.digest();
        let signature = match &self.signatures[subnet] {
            Some((signed, signature)) if *signed == root => signature.clone(),
            _ => {
                let signature = self.keys[subnet].sign_state(&root);
                self.signatures[subnet] = Some((root, signature.clone()));
                signature
            }
        };
        cbor(&Certificate {
            tree,
            signature,
            delegation,
        })
    }
}

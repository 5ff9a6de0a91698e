//! Subnets, their ids, and the canister ids they hand out.

use std::collections::BTreeSet;

use candid::Principal;
pub use pocket_ic::common::rest::SubnetKind;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    cert::SubnetKeys,
    fees::{CostSchedule, Fees},
};

/// Canister ids of one subnet.
const IDS_PER_SUBNET: u64 = 1 << 20;

/// One subnet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subnet {
    pub id: Principal,
    pub kind: SubnetKind,
    pub seed: [u8; 32],
    pub fees: Fees,
    /// They may do with canisters here what controllers may, but for their code and settings, and make new
    /// ones.
    pub admins: BTreeSet<Principal>,
    /// It runs no message before this round.
    pub(super) halted_until: u64,
    /// It was deleted, with everything on it.
    pub deleted: bool,
    /// Cycles that are gone on it, ever. The sum over all subnets is [`super::Money::burned`].
    pub consumed: u128,
    /// Messages that were executed on it, ever: calls, callbacks, tasks, and what the management canister
    /// did.
    pub executions: u64,
    /// What those used.
    pub instructions: u64,
    first: u64,
    next: u64,
}

impl Subnet {
    /// The id follows from the subnet's public key.
    pub(super) fn new(index: u64, kind: SubnetKind, keys: &SubnetKeys) -> Self {
        let seed: [u8; 32] =
            Sha256::digest([b"subnet".as_slice(), &index.to_be_bytes()].concat()).into();
        let first = index * IDS_PER_SUBNET;
        Self {
            id: keys.subnet(),
            kind,
            seed,
            fees: fees_of(kind),
            admins: BTreeSet::new(),
            halted_until: 0,
            deleted: false,
            consumed: 0,
            executions: 0,
            instructions: 0,
            first,
            next: first,
        }
    }

    /// The first and the last canister id of the subnet.
    pub fn canister_range(&self) -> (Principal, Principal) {
        (
            canister_id(self.first),
            canister_id(self.first + IDS_PER_SUBNET - 1),
        )
    }

    /// All canister ids that no subnet's range has, if there are `subnets` of them.
    pub(super) fn unclaimed(subnets: u64) -> (Principal, Principal) {
        (canister_id(subnets * IDS_PER_SUBNET), canister_id(u64::MAX))
    }

    pub fn holds(&self, canister: &Principal) -> bool {
        let (first, last) = self.canister_range();
        canister.as_slice().len() == first.as_slice().len()
            && first <= *canister
            && *canister <= last
    }

    /// Ids are never handed out twice. `taken` are those that somebody asked for by name.
    pub(super) fn next_id(&mut self, taken: impl Fn(&Principal) -> bool) -> Option<Principal> {
        while self.next < self.first + IDS_PER_SUBNET {
            let id = canister_id(self.next);
            self.next += 1;
            if !taken(&id) {
                return Some(id);
            }
        }
        None
    }
}

/// What a subnet of that kind charges, unless it is told otherwise.
pub fn fees_of(kind: SubnetKind) -> Fees {
    let nodes = match kind {
        SubnetKind::Fiduciary | SubnetKind::SNS => 34,
        _ => crate::fees::REFERENCE_NODES,
    };
    let schedule = match kind {
        SubnetKind::NNS | SubnetKind::System | SubnetKind::Bitcoin | SubnetKind::II => {
            CostSchedule::System
        }
        SubnetKind::CloudEngine => CostSchedule::Free,
        _ => CostSchedule::Normal,
    };
    Fees { nodes, schedule }
}

/// The id that the subnet hands out after that one. None where that is no id of a canister.
pub fn next_canister_id(id: &Principal) -> Option<Principal> {
    let number = id.as_slice().strip_suffix(&[1, 1])?.try_into().ok()?;
    Some(canister_id(u64::from_be_bytes(number).checked_add(1)?))
}

/// Eight bytes of number, then 1, 1: the form of canister ids on the Internet Computer.
fn canister_id(number: u64) -> Principal {
    let mut id = [1; 10];
    id[..8].copy_from_slice(&number.to_be_bytes());
    Principal::from_slice(&id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_canister_is_the_first_of_the_internet_computer() {
        let subnet = |index, kind| Subnet::new(index, kind, &SubnetKeys::new(0, index));
        let mut subnet_0 = subnet(0, SubnetKind::Application);
        let first = subnet_0.next_id(|_| false).unwrap();
        assert_eq!(first.to_text(), "rwlgt-iiaaa-aaaaa-aaaaa-cai");
        assert!(subnet_0.holds(&first) && !subnet(1, SubnetKind::System).holds(&first));
        assert!(!subnet_0.holds(&Principal::anonymous()));
    }
}

//! What others may look at without changing anything.

use std::sync::Arc;

use candid::Principal;

use super::{Network, Subnet};
use crate::{cert::SubnetKeys, machine::MetadataVisibility};

impl Network {
    /// The keys of all subnets, in their order. The first subnet is the root.
    pub fn keys(&self) -> &Arc<[SubnetKeys]> {
        self.certified.keys()
    }

    /// The canister ids for which a subnet answers, there or not, in their order. The default subnet has
    /// all those, too, that are in no subnet's own range.
    pub fn canister_ranges(&self, subnet: &Subnet) -> Vec<(Principal, Principal)> {
        let mut ranges = vec![subnet.canister_range()];
        if subnet.id == self.default_subnet().id {
            ranges.push(Subnet::unclaimed(self.subnets.len() as u64));
        }
        ranges
    }

    /// The subnet that answers for an effective canister or subnet id: the one of that id, else the one
    /// in whose ranges it lies. Ids that cannot be a canister's go to the root, whose signature is
    /// believed for every id; none at all goes to the default.
    pub fn route(&self, effective: Option<&Principal>) -> &Subnet {
        let Some(id) = effective else {
            return self.default_subnet();
        };
        if *id == Principal::management_canister() {
            return &self.subnets[0];
        }
        self.subnets
            .iter()
            .find(|subnet| subnet.id == *id || subnet.holds(id))
            .unwrap_or_else(|| self.default_subnet())
    }

    /// Whether a canister has a custom section of that name, and who may read it.
    pub fn metadata_visibility(
        &self,
        canister: &Principal,
        name: &str,
    ) -> Option<MetadataVisibility> {
        let machine = self.canisters.get(canister)?.machine.as_ref()?;
        let (visibility, _) = machine.module().metadata(name)?;
        Some(visibility)
    }
}

//! What can be learnt of a subnet.

use candid::{Nat, Principal};
use ic_management_canister_types::{
    CanisterIdRange, ListCanistersResult, NodeMetrics, NodeMetricsHistoryArgs,
    NodeMetricsHistoryRecord, SubnetInfoArgs, SubnetInfoResult, SubnetMetricsArgs,
    SubnetMetricsResult,
};
use pocket_ic::ErrorCode;

use super::{Managed, reply};
use crate::network::{Network, Reject, Subnet, certified::state_bytes, subnet::next_canister_id};

/// Days of which the metrics of nodes are kept, as on the Internet Computer.
const DAYS_MAX: usize = 60;
const DAY_NS: u64 = 86_400_000_000_000;
/// In which a subnet's instructions are told.
const MILLION: u64 = 1_000_000;

impl Network {
    /// The version is this network's own; it has one registry.
    pub(super) fn subnet_info(&self, (args,): (SubnetInfoArgs,)) -> Managed {
        self.subnet_named(&args.subnet_id)?;
        reply(&SubnetInfoResult {
            replica_version: env!("CARGO_PKG_VERSION").into(),
            registry_version: 1,
        })
    }

    /// A block is a round. All figures are those of now.
    pub(super) fn subnet_metrics(&self, (args,): (SubnetMetricsArgs,)) -> Managed {
        let subnet = self.subnet_named(&args.subnet_id)?;
        let canisters = self
            .canisters
            .values()
            .filter(|canister| canister.subnet == subnet.id);
        let (count, bytes) = canisters.fold((0_u64, 0), |(count, bytes), canister| {
            (count + 1, bytes + state_bytes(canister))
        });
        reply(&SubnetMetricsResult {
            block_height: self.round.into(),
            num_canisters: count.into(),
            canister_state_bytes: bytes.into(),
            consumed_cycles_total: subnet.consumed.into(),
            update_transactions_total: subnet.executions.into(),
            million_round_instructions_total: Nat::from(subnet.instructions.div_ceil(MILLION)),
        })
    }

    /// A subnet's only node has made a block in every round; no block ever failed.
    pub(super) fn node_metrics_history(&self, (args,): (NodeMetricsHistoryArgs,)) -> Managed {
        let id = self.subnet_named(&args.subnet_id)?.id;
        let mut keys = self.keys().iter();
        let node_id = keys
            .find(|keys| keys.subnet() == id)
            .map_or(id, |keys| keys.node());
        let days = self.days.iter();
        let history: Vec<_> = days
            .filter(|(time_ns, _)| *time_ns >= args.start_at_timestamp_nanos)
            .map(|(time_ns, rounds)| NodeMetricsHistoryRecord {
                timestamp_nanos: *time_ns,
                node_metrics: vec![NodeMetrics {
                    node_id,
                    num_blocks_proposed_total: *rounds,
                    num_block_failures_total: 0,
                }],
            })
            .collect();
        reply(&history)
    }

    /// Once on every day, how many rounds there have been.
    pub(in crate::network) fn note_day(&mut self) {
        let day = |time_ns: u64| time_ns / DAY_NS;
        let noted = self.days.back().map(|(time_ns, _)| day(*time_ns));
        if noted == Some(day(self.time_ns)) {
            return;
        }
        self.days.push_back((self.time_ns, self.round));
        if self.days.len() > DAYS_MAX {
            self.days.pop_front();
        }
    }

    /// The canisters of a subnet, for its admins.
    pub(super) fn list_canisters(&self, caller: &Principal, subnet: &Principal) -> Managed {
        let subnet = self.subnet_named(subnet)?;
        if !subnet.admins.contains(caller) {
            return Err(Reject::new(
                ErrorCode::CanisterRejectedMessage,
                format!("{caller} is no admin of the subnet {}", subnet.id),
            ));
        }
        let mut canisters: Vec<CanisterIdRange> = vec![];
        for (id, canister) in &self.canisters {
            if canister.subnet != subnet.id {
                continue;
            }
            match canisters.last_mut() {
                Some(range) if next_canister_id(&range.end) == Some(*id) => range.end = *id,
                _ => canisters.push(CanisterIdRange {
                    start: *id,
                    end: *id,
                }),
            }
        }
        reply(&ListCanistersResult { canisters })
    }

    fn subnet_named(&self, id: &Principal) -> Result<&Subnet, Reject> {
        let mut subnets = self.subnets.iter();
        subnets.find(|subnet| subnet.id == *id).ok_or_else(|| {
            Reject::new(
                ErrorCode::CanisterRejectedMessage,
                format!("there is no subnet {id}"),
            )
        })
    }
}

//! What things cost, in cycles: the Internet Computer's prices for a subnet of 13 nodes, scaled by the
//! size of the subnet at hand. Pure figures; who pays when is `network`'s business.
//!
//! Source: the public table of cycle costs and the replica's `cycles_account_manager` (application
//! subnet). Every price is `reference price × nodes / 13`, rounded down, as there.

use serde::{Deserialize, Serialize};

/// The size of subnet that the prices below are made for.
pub const REFERENCE_NODES: u32 = 13;
/// The largest payload of a call; its answer's transmission is prepaid as if it had that size.
pub const RESPONSE_BYTES_MAX: u64 = 2 << 20;
/// The instructions that may run in one message, prepaid before it begins.
pub const MESSAGE_INSTRUCTIONS_MAX: u64 = 40_000_000_000;
/// The answer of an outgoing HTTP request where nothing smaller was asked for.
pub const HTTP_RESPONSE_BYTES_MAX: u64 = 2_000_000;
/// Rates of idle canisters are for a day.
pub const SECONDS_PER_DAY: u64 = 86_400;

const GIB: u128 = 1 << 30;
const INGRESS: u128 = 1_200_000;
const INGRESS_BYTE: u128 = 2_000;
const EXECUTION: u128 = 5_000_000;
const INSTRUCTION: u128 = 1;
const CALL: u128 = 260_000;
const CALL_BYTE: u128 = 1_000;
const CREATE_CANISTER: u128 = 500_000_000_000;
const STORAGE_GIB_SECOND: u128 = 127_000;
const COMPUTE_PERCENT_SECOND: u128 = 10_000_000;
const SIGNATURE: u128 = 10_000_000_000;
const HTTP_NODE: u128 = 3_000_000;
const HTTP_NODE_NODE: u128 = 60_000;
const HTTP_REQUEST_BYTE: u128 = 400;
const HTTP_RESPONSE_BYTE: u128 = 800;

/// Who pays on a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CostSchedule {
    /// Canisters pay for everything.
    Normal,
    /// Canisters pay for nothing but signatures: the subnets of the system.
    System,
    /// Canisters pay for nothing: rented subnets.
    Free,
}

/// What an outgoing HTTP request uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HttpUsage {
    pub request_bytes: u64,
    pub roundtrip_ms: u64,
    /// Of the answer, before the canister transforms it.
    pub raw_response_bytes: u64,
    pub transformed_response_bytes: u64,
    pub transform_instructions: u64,
}

/// The prices of one subnet.
///
/// ```
/// use openstorage_localnet::fees::Fees;
/// let fees = Fees::default();
/// assert_eq!(fees.execution(1_000), 5_001_000);
/// assert_eq!(fees.ingress(100), 1_400_000);
/// // Half as much again for half as many nodes again.
/// assert_eq!(Fees { nodes: 26, ..fees }.create_canister(), 2 * fees.create_canister());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fees {
    pub nodes: u32,
    pub schedule: CostSchedule,
}

impl Default for Fees {
    /// An application subnet of 13 nodes.
    fn default() -> Self {
        Self {
            nodes: REFERENCE_NODES,
            schedule: CostSchedule::Normal,
        }
    }
}

impl Fees {
    /// What the receiver pays for a message from outside, by its size.
    pub fn ingress(&self, bytes: u64) -> u128 {
        self.scaled(INGRESS) + self.scaled(INGRESS_BYTE) * u128::from(bytes)
    }

    /// An update, a replicated query, a callback, a task, an installation: so much to begin, and so much
    /// an instruction.
    pub fn execution(&self, instructions: u64) -> u128 {
        self.scaled(EXECUTION + INSTRUCTION * u128::from(instructions))
    }

    /// What is paid back of [`Fees::execution`] for instructions that were not run; also what work of the
    /// management canister costs, which has no base.
    pub fn instructions(&self, instructions: u64) -> u128 {
        self.scaled(INSTRUCTION * u128::from(instructions))
    }

    /// Sends a request of so many bytes: method name and argument.
    pub fn request(&self, bytes: u64) -> u128 {
        self.scaled(CALL) + self.response(bytes)
    }

    /// Receives an answer of so many bytes; paid by the caller.
    pub fn response(&self, bytes: u64) -> u128 {
        self.scaled(CALL_BYTE * u128::from(bytes))
    }

    /// Prepaid by the caller for the answer's way: the largest there can be.
    pub fn response_max(&self) -> u128 {
        self.response(RESPONSE_BYTES_MAX)
    }

    /// Prepaid by the caller for its callback: the longest there can be.
    pub fn callback_max(&self) -> u128 {
        self.execution(MESSAGE_INSTRUCTIONS_MAX)
    }

    /// Everything that must be liquid to make a call with a request of so many bytes, besides the cycles
    /// attached: `cost_call` of the System API.
    pub fn call(&self, bytes: u64) -> u128 {
        self.request(bytes) + self.response_max() + self.callback_max()
    }

    pub fn create_canister(&self) -> u128 {
        self.scaled(CREATE_CANISTER)
    }

    /// An outgoing HTTP request; without a limit the answer is taken to have 2 MB. Grows with the square
    /// of the subnet's size, so the reference size plays no part.
    pub fn http_request(&self, request_bytes: u64, response_bytes_max: Option<u64>) -> u128 {
        if self.schedule != CostSchedule::Normal {
            return 0;
        }
        let nodes = u128::from(self.nodes);
        let response = u128::from(response_bytes_max.unwrap_or(HTTP_RESPONSE_BYTES_MAX));
        (HTTP_NODE
            + HTTP_NODE_NODE * nodes
            + HTTP_REQUEST_BYTE * u128::from(request_bytes)
            + HTTP_RESPONSE_BYTE * response)
            * nodes
    }

    /// An outgoing HTTP request by the second way to price it: what it uses, not what it may use.
    pub fn http_request_v2(&self, usage: HttpUsage) -> u128 {
        if self.schedule != CostSchedule::Normal {
            return 0;
        }
        let nodes = u128::from(self.nodes);
        let wide = |figure: u64| u128::from(figure);
        (1_000_000
            + 140_000 * nodes
            + 800 * nodes * nodes
            + 50 * wide(usage.request_bytes)
            + 50 * wide(usage.raw_response_bytes)
            + 300 * wide(usage.roundtrip_ms)
            + wide(usage.transform_instructions) / 13
            + (10 * nodes + 650) * wide(usage.transformed_response_bytes))
            * nodes
    }

    /// A threshold signature (ECDSA, Schnorr) or a derived key (vetKD) made on this subnet.
    pub fn signature(&self) -> u128 {
        match self.schedule {
            CostSchedule::Free => 0,
            CostSchedule::Normal | CostSchedule::System => {
                SIGNATURE * u128::from(self.nodes) / u128::from(REFERENCE_NODES)
            }
        }
    }

    /// Memory of so many bytes for so long.
    pub fn storage(&self, bytes: u64, seconds: u64) -> u128 {
        self.scaled(u128::from(bytes) * STORAGE_GIB_SECOND * u128::from(seconds) / GIB)
    }

    /// A compute allocation of so many percent for so long.
    pub fn compute(&self, percent: u64, seconds: u64) -> u128 {
        self.scaled(COMPUTE_PERCENT_SECOND * u128::from(percent) * u128::from(seconds))
    }

    /// What a canister pays a day that does nothing.
    pub fn idle_per_day(&self, bytes: u64, compute_percent: u64) -> u128 {
        self.storage(bytes, SECONDS_PER_DAY) + self.compute(compute_percent, SECONDS_PER_DAY)
    }

    /// What may not be spent on execution or calls, so that the canister lives for `threshold_s` more
    /// seconds; `reserved` cycles pay for that first.
    pub fn freezing_limit(&self, idle_per_day: u128, threshold_s: u64, reserved: u128) -> u128 {
        (idle_per_day.saturating_mul(u128::from(threshold_s)) / u128::from(SECONDS_PER_DAY))
            .saturating_sub(reserved)
    }

    fn scaled(&self, price: u128) -> u128 {
        match self.schedule {
            CostSchedule::Normal => {
                price.saturating_mul(u128::from(self.nodes)) / u128::from(REFERENCE_NODES)
            }
            CostSchedule::System | CostSchedule::Free => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirteen_nodes_cost_what_the_public_table_says() {
        let fees = Fees::default();
        assert_eq!(fees.callback_max(), 40_005_000_000);
        assert_eq!(fees.request(10), 270_000);
        assert_eq!(fees.response_max(), 2_097_152_000);
        assert_eq!(fees.call(10), 270_000 + 2_097_152_000 + 40_005_000_000);
        assert_eq!(fees.storage(1 << 30, 10), 1_270_000);
        assert_eq!(fees.compute(1, 1), 10_000_000);
        assert_eq!(fees.http_request(0, Some(0)), 49_140_000);
        assert_eq!(fees.signature(), 10_000_000_000);
        // 1 GiB for the default threshold of 30 days.
        let idle = fees.idle_per_day(1 << 30, 0);
        assert_eq!(idle, 10_972_800_000);
        assert_eq!(fees.freezing_limit(idle, 30 * 86_400, 0), 30 * idle);
        assert_eq!(fees.freezing_limit(idle, 86_400, 2 * idle), 0);
    }

    #[test]
    fn larger_subnets_cost_more_and_those_of_the_system_nothing_but_signatures() {
        let large = Fees {
            nodes: 34,
            ..Fees::default()
        };
        assert_eq!(large.execution(0), 13_076_923);
        assert_eq!(large.signature(), 26_153_846_153);
        let system = Fees {
            schedule: CostSchedule::System,
            ..large
        };
        assert_eq!((system.call(1 << 20), system.create_canister()), (0, 0));
        assert_eq!(system.signature(), large.signature());
        let free = Fees {
            schedule: CostSchedule::Free,
            ..large
        };
        assert_eq!((free.signature(), free.http_request(1, None)), (0, 0));
    }
}

//! The faults of a run: which of them, and how often.

use candid::Principal;
use openstorage_localnet::network::{Fault, Plan, Rule, Seeded, Site};

use crate::dice::Dice;

/// What an index asks of the management canister to make and keep a bucket.
const OF_BUCKETS: [&str; 6] = [
    "create_canister",
    "install_code",
    "start_canister",
    "stop_canister",
    "canister_status",
    "deposit_cycles",
];

/// What goes wrong until the next rest.
pub fn plan(dice: &mut Dice, index: Principal) -> Plan {
    if dice.one_in(6) {
        return Plan::default();
    }
    let all = [
        Fault::Reject,
        Fault::TimeOutBefore,
        Fault::Lose,
        Fault::TimeOutAfter,
        Fault::Delay {
            rounds: 1 + dice.below(6) as u64,
        },
        Fault::Trap {
            instructions: [20_000, 200_000, 2_000_000][dice.below(3)],
        },
        Fault::Trap {
            instructions: 1 + dice.below(500_000) as u64,
        },
        Fault::DrainCycles {
            leave: 5_000_000_000 + dice.below(50) as u128 * 1_000_000_000,
        },
        Fault::QueueFull,
        Fault::StopCaller,
        Fault::UpgradeCaller,
        Fault::HaltSubnet {
            subnet: dice.below(3),
            rounds: 1 + dice.below(3) as u64,
        },
    ];
    let mut faults: Vec<_> = all.into_iter().filter(|_| dice.one_in(2)).collect();
    if dice.one_in(8) {
        faults.push(Fault::Restart);
    }
    Plan {
        rules: rules(dice, index),
        seeded: Some(Seeded {
            seed: dice.number(),
            per_million: [5_000, 20_000, 60_000][dice.below(3)],
            faults,
        }),
    }
}

/// The making of a bucket is cut at some call, or at an answer to the index.
fn rules(dice: &mut Dice, index: Principal) -> Vec<Rule> {
    let mut rules = vec![];
    if dice.one_in(2) {
        rules.push(Rule {
            canister: Some(Principal::management_canister()),
            method: dice.pick(&OF_BUCKETS).map(Into::into),
            ..Rule::new(Site::Request, 1 + dice.below(2) as u64, Fault::Reject)
        });
    }
    if dice.one_in(4) {
        rules.push(Rule {
            canister: Some(index),
            ..Rule::new(Site::Answer, 1 + dice.below(60) as u64, Fault::StopCaller)
        });
    }
    rules
}

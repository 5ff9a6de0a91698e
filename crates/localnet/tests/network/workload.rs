//! A long random workload: cycles always add up, the same seed gives the same state in every process,
//! and a network that was saved and loaded goes on as if nothing had happened.

use std::process::Command;

use candid::{Encode, Principal};
use ic_certification::{Certificate, Label, LookupResult};
use ic_management_canister_types::{
    CanisterIdRecord, CanisterInstallMode, InstallCodeArgs, TakeCanisterSnapshotArgs,
};
use openstorage_localnet::network::{Ingress, Input, Network, Output, Saved};

use crate::bench::{Bench, OWNER, forward, wasm};

const CANISTERS: usize = 6;
const STEPS: u64 = 400;

/// A generator of numbers that is the same everywhere.
pub struct Dice(pub u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Six canisters on two subnets.
pub fn canisters(bench: &mut Bench) -> Vec<Principal> {
    (0..CANISTERS)
        .map(|index| bench.canister(index % 2))
        .collect()
}

/// What happens at random: calls of every kind and outcome, rounds, time, management.
pub fn inputs(seed: u64, canisters: &[Principal], now_ns: u64) -> Vec<Input> {
    let mut dice = Dice(seed);
    let mut time_ns = now_ns;
    let mut inputs = vec![];
    for _ in 0..STEPS {
        let canister = canisters[dice.below(CANISTERS as u64) as usize];
        let callee = canisters[dice.below(CANISTERS as u64) as usize];
        let input = match dice.below(20) {
            0..=8 => {
                let methods = [
                    "bump", "accept", "die", "silent", "say_no", "keep", "no_such",
                ];
                let method = methods[dice.below(7) as usize];
                let arg = (dice.below(1_000_000) as u32).to_le_bytes();
                let (flags, cycles) = (dice.below(4) as u8, dice.below(2_000_000) as u32);
                submit(
                    canister,
                    "call",
                    forward(callee, flags, cycles, method, &arg),
                )
            }
            9 => submit(canister, "keep", vec![dice.below(256) as u8]),
            10 => submit(
                canister,
                "burn",
                (dice.below(1 << 20) as u32).to_le_bytes().to_vec(),
            ),
            11 => submit(
                canister,
                "at",
                (time_ns + dice.below(1 << 34)).to_le_bytes().to_vec(),
            ),
            12 => {
                time_ns += dice.below(20_000_000_000);
                Input::SetTime(time_ns)
            }
            13 => Input::AddCycles {
                canister,
                cycles: u128::from(dice.below(1 << 40)),
            },
            14 => managed(&mut dice, canister),
            _ => Input::Tick,
        };
        inputs.push(input);
        // Rounds that pass by themselves.
        time_ns += 1;
    }
    inputs.extend((0..20).map(|_| Input::Tick));
    inputs
}

fn submit(canister: Principal, method: &str, arg: Vec<u8>) -> Input {
    Input::Submit(Ingress {
        sender: OWNER,
        sender_info: None,
        canister,
        method: method.into(),
        arg,
        effective: Some(canister),
    })
}

fn managed(dice: &mut Dice, canister: Principal) -> Input {
    let record = Encode!(&CanisterIdRecord {
        canister_id: canister
    });
    let (method, arg) = match dice.below(5) {
        0 => ("stop_canister", record),
        1 | 2 => ("start_canister", record),
        3 => (
            "install_code",
            Encode!(&InstallCodeArgs {
                mode: CanisterInstallMode::Upgrade(None),
                canister_id: canister,
                wasm_module: wasm(),
                arg: vec![],
                sender_canister_version: None,
            }),
        ),
        _ => (
            "take_canister_snapshot",
            Encode!(&TakeCanisterSnapshotArgs {
                canister_id: canister,
                replace_snapshot: None,
                uninstall_code: None,
                sender_canister_version: None,
            }),
        ),
    };
    match submit(Principal::management_canister(), method, arg.unwrap()) {
        Input::Submit(ingress) => Input::Submit(Ingress {
            effective: Some(canister),
            ..ingress
        }),
        other => other,
    }
}

pub fn balanced(network: &Network) {
    let money = network.money();
    assert_eq!(
        money.minted,
        money.burned + money.balances + money.in_flight,
        "{money:?}"
    );
    let consumed = network.subnets().iter().map(|subnet| subnet.consumed);
    assert_eq!(consumed.sum::<u128>(), money.burned);
}

fn run(seed: u64) -> Bench {
    let mut bench = Bench::paid();
    let canisters = canisters(&mut bench);
    for input in inputs(seed, &canisters, bench.0.time_ns()) {
        bench.0.apply(input);
    }
    bench
}

fn digest(seed: u64) -> String {
    run(seed)
        .0
        .digest()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn cycles_add_up_after_every_input() {
    let mut bench = Bench::paid();
    let canisters = canisters(&mut bench);
    bench.0.keep_accounts(10_000);
    let mut taken = 0;
    for input in inputs(3, &canisters, bench.0.time_ns()) {
        taken += matches!(bench.0.apply(input), Output::Submitted(Ok(_))) as usize;
        balanced(&bench.0);
    }
    // The workload does something: most messages are let in, of every kind some.
    let accounts = bench.0.accounts(0, 10_000).accounts;
    let failed = accounts.iter().filter(|it| it.failure.is_some()).count();
    assert!(
        taken > 100 && accounts.len() > 300,
        "{taken}, {}",
        accounts.len()
    );
    assert!(failed > 20, "{failed}");
    let money = bench.0.money();
    let parked: u128 = money.in_flight;
    assert!(money.burned > 0 && parked < money.minted);
}

/// What is certified of each subnet: its metrics, as they are shown. What is shown of every canister has
/// the digest that is certified of it.
fn certified(network: &mut Network, canisters: &[Principal]) -> Vec<Vec<u8>> {
    let subnets: Vec<_> = network.subnets().iter().map(|subnet| subnet.id).collect();
    let mut tree = |subnet: &Principal, paths: &[Vec<Label>]| {
        let bytes = network.certificate(subnet, paths);
        let certificate: Certificate = serde_cbor::from_slice(&bytes).unwrap();
        certificate.tree
    };
    let metrics = subnets.iter().map(|subnet| {
        let metrics = [b"subnet", subnet.as_slice(), b"metrics"];
        let mut paths: Vec<Vec<Label>> = vec![metrics.map(Label::from_bytes).to_vec()];
        for canister in canisters {
            for what in [b"module_hash".as_slice(), b"controllers"] {
                let path = [b"canister", canister.as_slice(), what];
                paths.push(path.map(Label::from_bytes).to_vec());
            }
        }
        let shown = tree(subnet, &paths);
        assert_eq!(shown.digest(), tree(subnet, &[]).digest());
        match shown.lookup_path(metrics) {
            LookupResult::Found(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        }
    });
    metrics.collect()
}

/// A network that looks at what changed since it was asked last shows what one shows that looks at all.
#[test]
fn a_certified_state_that_grew_is_the_one_that_is_made_anew() {
    let mut bench = Bench::paid();
    let canisters = canisters(&mut bench);
    let compare = |network: &mut Network, when: &str| {
        let grown = certified(network, &canisters);
        let mut anew = Network::load(network.save(), None).unwrap();
        assert_eq!(grown, certified(&mut anew, &canisters), "{when}");
    };
    let inputs = inputs(9, &canisters, bench.0.time_ns());
    for (step, input) in inputs.into_iter().enumerate() {
        bench.0.apply(input);
        if step % 7 == 0 {
            certified(&mut bench.0, &canisters);
        }
        if step % 70 == 0 {
            compare(&mut bench.0, &format!("step {step}"));
        }
    }
    let lost = bench.0.subnets()[1].id;
    assert!(bench.0.delete_subnet(&lost));
    compare(&mut bench.0, "without a subnet");
}

#[test]
fn another_seed_gives_another_state() {
    assert_ne!(digest(1), digest(2));
}

/// Prints what other processes compare.
#[test]
fn prints_its_digest() {
    println!("digest={}", digest(1));
}

#[test]
fn the_same_seed_gives_the_same_state_in_every_process() {
    let here = format!("digest={}", digest(1));
    for _ in 0..2 {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "workload::prints_its_digest", "--nocapture"])
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains(&here), "{here} is not in {printed}");
    }
}

#[test]
fn a_saved_network_goes_on_as_if_nothing_had_happened() {
    let expected = run(5).0.digest();
    let mut bench = Bench::paid();
    let canisters = canisters(&mut bench);
    let inputs = inputs(5, &canisters, bench.0.time_ns());
    let mut messages = 0;
    for (step, input) in inputs.into_iter().enumerate() {
        bench.0.apply(input);
        if step % 60 == 17 {
            messages += bench.0.has_work() as usize;
            let before = bench.0.digest();
            let bytes = postcard::to_stdvec(&bench.0.save()).unwrap();
            let saved: Saved = postcard::from_bytes(&bytes).unwrap();
            bench.0 = Network::load(saved, None).unwrap();
            assert_eq!(bench.0.digest(), before, "step {step}");
            balanced(&bench.0);
        }
    }
    assert!(
        messages > 0,
        "it was never saved with messages on their way"
    );
    assert_eq!(bench.0.digest(), expected);
}

#[test]
fn what_is_damaged_is_not_loaded() {
    let mut bench = Bench::paid();
    bench.canister(0);
    let saved = bench.0.save();
    let mut cut = saved.clone();
    cut.state.truncate(cut.state.len() / 2);
    assert!(Network::load(cut, None).is_err());
    let mut bare = saved;
    bare.modules.clear();
    assert!(Network::load(bare, None).is_err());
}

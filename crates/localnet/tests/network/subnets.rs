//! Several subnets: latency, limits of size, and one that is lost.

use openstorage_localnet::network::{Config, Ingress, SubnetKind};

use crate::bench::{Bench, FREE, OWNER, forward};

#[test]
fn a_message_takes_as_many_rounds_as_the_latency_says() {
    for (latency_rounds, rounds) in [(0, 1), (1, 3), (5, 11)] {
        let mut bench = Bench::with(Config {
            subnets: vec![SubnetKind::Application; 2],
            fees: vec![FREE; 2],
            latency_rounds,
            ..Config::default()
        });
        let (caller, callee) = (bench.canister(0), bench.canister(1));
        let id = bench
            .0
            .submit(Ingress {
                sender: OWNER,
                sender_info: None,
                canister: caller,
                method: "call".into(),
                arg: forward(callee, 0, 0, "bump", &[]),
                effective: None,
            })
            .unwrap();
        let mut taken = 0;
        while bench.0.ingress_status(&id) == Some(None) {
            bench.0.tick();
            taken += 1;
        }
        assert_eq!(taken, rounds, "latency {latency_rounds}");
    }
}

#[test]
fn two_mebibytes_cross_and_no_more() {
    let mut bench = Bench::new();
    let (caller, near, far) = (bench.canister(0), bench.canister(0), bench.canister(1));
    let mut ask = |callee, bytes: usize| {
        let arg = forward(callee, 0, 0, "bump", &vec![0; bytes]);
        bench.call(caller, "call", &arg).unwrap()
    };
    let most = 2 << 20;
    let reply = ask(far, most + 1);
    let text = String::from_utf8_lossy(&reply[2..]).into_owned();
    assert_eq!(reply[..2], [b'E', 4]);
    assert!(text.contains("2097152 bytes, not 2097153"), "{text}");
    assert_eq!(ask(far, most)[..2], [b'R', 1]);
    assert_eq!(ask(near, most + 1)[..2], [b'R', 1]);
}

#[test]
fn a_lost_subnet_answers_nobody_and_loses_no_cycle_unseen() {
    let mut bench = Bench::paid();
    let (caller, callee) = (bench.canister(0), bench.canister(1));
    let lost = bench.0.subnets()[1].id;
    assert!(bench.0.delete_subnet(&lost));
    assert!(!bench.0.delete_subnet(&lost));
    let reply = bench
        .call(caller, "call", &forward(callee, 0, 7, "bump", &[]))
        .unwrap();
    assert_eq!(reply[..2], [b'E', 3]);
    let last = bench.0.subnets()[0].id;
    assert!(!bench.0.delete_subnet(&last));
    let money = bench.0.money();
    assert_eq!(
        money.minted,
        money.burned + money.balances + money.in_flight
    );
}

//! What canisters that do nothing cost.

use std::time::Instant;

use openstorage_localnet::network::Network;

use super::{Report, canister, update};

/// Networks of so many canisters with code, of which one is called.
const SIZES: [usize; 3] = [10, 100, 1_000];
const SECOND_NS: u64 = 1_000_000_000;
const ROUNDS: usize = 200;
const RUNS: usize = 5;

/// How many times longer each thing takes with 1,000 canisters than with 10.
pub fn measure(report: &mut Report) {
    let mut figures = vec![];
    for size in SIZES {
        let mut network = Network::new(Default::default());
        let canisters: Vec<_> = (0..size).map(|_| canister(&mut network)).collect();
        let called = canisters[size / 2];
        let path = vec!["time".into()];
        let round = best(|| network.tick());
        let certified = best(|| {
            update(&mut network, called, None, "bump", vec![]);
            network.certificate(&called, std::slice::from_ref(&path));
        });
        let rent = best(|| {
            let later = network.time_ns() + 10 * SECOND_NS;
            network.set_time(later).expect("time goes on");
            network.tick();
        });
        println!(
            "  {size:>5} canisters {:>10.2} µs a round {:>10.2} µs an update with its certificate {:>10.2} µs ten seconds",
            round * 1e6,
            certified * 1e6,
            rent * 1e6
        );
        figures.push([round, certified, rent]);
    }
    let names = ["idle_round", "idle_certified", "idle_ten_seconds"];
    for (index, name) in names.into_iter().enumerate() {
        let ratio = figures[figures.len() - 1][index] / figures[0][index];
        report.insert(
            format!("localnet_{name}_1000_by_10"),
            (ratio * 10.0).round() / 10.0,
        );
    }
}

/// The best of several runs, in seconds for each time.
fn best(mut work: impl FnMut()) -> f64 {
    (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..ROUNDS {
                work();
            }
            start.elapsed().as_secs_f64() / ROUNDS as f64
        })
        .fold(f64::INFINITY, f64::min)
}

//! Composite queries.

use pocket_ic::ErrorCode;

use crate::bench::{Bench, OWNER, forward};

#[test]
fn a_composite_query_asks_others_on_its_subnet_and_changes_nothing() {
    let mut bench = Bench::paid();
    let (one, two, far) = (bench.canister(0), bench.canister(0), bench.canister(1));
    bench.call(two, "bump", &[]).unwrap();
    let before = bench.0.digest();
    let ask = |bench: &mut Bench, callee, method: &str, arg: &[u8]| {
        bench
            .0
            .query(OWNER, one, "ask", forward(callee, 0, 0, method, arg))
    };
    assert_eq!(ask(&mut bench, two, "count", &[]).unwrap(), b"R\x01");
    let inner = forward(two, 0, 0, "count", &[]);
    assert_eq!(ask(&mut bench, two, "ask", &inner).unwrap(), b"RR\x01");
    let reply = ask(&mut bench, far, "count", &[]).unwrap();
    assert_eq!(reply[..2], [b'E', 3]);
    let reply = ask(&mut bench, two, "bump", &[]).unwrap();
    assert_eq!(reply[..2], [b'E', 5]);
    assert_eq!(bench.0.digest(), before);
    // As an update it cannot be called.
    assert!(bench.call(one, "ask", &inner).is_err());
}

#[test]
fn a_graph_of_queries_is_six_deep_at_most() {
    let mut bench = Bench::paid();
    let id = bench.canister(0);
    let nested = |depth: usize| {
        (1..depth).fold(forward(id, 0, 0, "count", &[]), |arg, _| {
            forward(id, 0, 0, "ask", &arg)
        })
    };
    let reply = bench.0.query(OWNER, id, "ask", nested(6)).unwrap();
    assert_eq!(reply, b"RRRRRR\0");
    let reply = bench.0.query(OWNER, id, "ask", nested(7)).unwrap();
    let text = String::from_utf8_lossy(&reply).into_owned();
    assert!(text.contains("at most 6"), "{text}");
    let reject = bench.0.query(OWNER, id, "no_such", vec![]).unwrap_err();
    assert_eq!(reject.error_code, ErrorCode::CanisterMethodNotFound);
}

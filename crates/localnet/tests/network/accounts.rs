//! An account for every execution, with where it came from.

use candid::Nat;
use ic_management_canister_types::{CanisterInstallMode, CanisterSettings, UpdateSettingsArgs};
use openstorage_localnet::network::AccountKind::{
    self, Call, Cleanup, Ingress, Query, ReplyCallback,
};

use crate::bench::{Bench, forward};

#[test]
fn every_execution_has_an_account_with_its_parent() {
    let mut bench = Bench::paid();
    let (caller, callee) = (bench.canister(0), bench.canister(1));
    bench.0.keep_accounts(100);
    // The callback traps, so the clean-up runs.
    bench
        .call(caller, "call", &forward(callee, 1, 0, "keep", &[9]))
        .unwrap_err();
    bench.count(callee);
    let page = bench.0.accounts(0, 100);
    let kinds: Vec<AccountKind> = page.accounts.iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [Ingress, Call, ReplyCallback, Cleanup, Query]);
    let [first, second, third, fourth, query] = &page.accounts[..] else {
        panic!("five accounts");
    };
    assert_eq!(
        (first.parent, second.parent, third.parent, third.call),
        (0, first.id, second.id, first.id)
    );
    assert_eq!((fourth.parent, fourth.call), (second.id, first.id));
    assert_eq!((first.canister, second.canister), (caller, callee));
    assert_eq!((first.calls, second.bytes_out, second.bytes_in), (1, 1, 5));
    assert_eq!(second.usage.stable_pages_dirtied, 1);
    assert_eq!(second.usage.stable_bytes_written, 1);
    assert!(second.usage.instructions > 0 && second.failure.is_none());
    assert!(third.failure.as_deref().unwrap().contains("as asked"));
    assert!(second.round > first.round && second.subnet != first.subnet);
    assert_eq!((query.cycles_prepaid, query.method.as_str()), (0, "count"));
    assert_eq!((query.id, query.seq), (0, fourth.seq + 1));
}

#[test]
fn a_cursor_goes_on_and_tells_what_it_missed() {
    let mut bench = Bench::paid();
    let id = bench.canister(0);
    bench.call(id, "bump", &[]).unwrap();
    assert!(bench.0.accounts(0, 10).accounts.is_empty());
    bench.0.keep_accounts(3);
    for _ in 0..5 {
        bench.call(id, "bump", &[]).unwrap();
    }
    let page = bench.0.accounts(0, 2);
    // Two of the five are not there any more.
    assert_eq!((page.accounts.len(), page.missed), (2, 2));
    let rest = bench.0.accounts(page.next, 10);
    assert_eq!((rest.accounts.len(), rest.missed), (1, 0));
    assert_eq!(bench.0.accounts(rest.next, 10).next, rest.next);
    bench.0.keep_accounts(0);
    assert!(bench.0.accounts(0, 10).accounts.is_empty());
}

#[test]
fn what_runs_on_low_memory_has_an_account() {
    let mut bench = Bench::paid();
    let id = bench.create(0);
    let hook = r#"(module (memory 1) (func (export "canister_on_low_wasm_memory")))"#;
    let code = wat::parse_str(hook).unwrap();
    bench
        .install(id, CanisterInstallMode::Install, code)
        .unwrap();
    bench.0.keep_accounts(10);
    let settings = CanisterSettings {
        wasm_memory_threshold: Some(Nat::from(1u64 << 40)),
        ..Default::default()
    };
    let args = UpdateSettingsArgs {
        canister_id: id,
        settings,
        sender_canister_version: None,
    };
    bench.manage("update_settings", &args).unwrap();
    for _ in 0..3 {
        bench.0.tick();
    }
    let accounts = bench.0.accounts(0, 10).accounts;
    let [account] = accounts.as_slice() else {
        panic!("{accounts:?}");
    };
    assert_eq!(account.kind, AccountKind::LowWasmMemory);
    assert_eq!((account.canister, &account.failure), (id, &None));
    // As the page of a trace knows it.
    let kind = serde_json::to_value(account.kind).unwrap();
    assert_eq!(kind, "low_wasm_memory");
    assert!(!bench.0.has_work());
}

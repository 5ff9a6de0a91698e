//! Snapshots.

use candid::Encode;
use ic_management_canister_types::{
    CanisterIdRecord, DeleteCanisterSnapshotArgs, LoadCanisterSnapshotArgs, Snapshot,
    TakeCanisterSnapshotArgs,
};
use openstorage_localnet::network::Network;
use pocket_ic::ErrorCode;

use crate::bench::{Bench, OWNER};

#[test]
fn a_snapshot_brings_everything_back_but_the_version() {
    let mut bench = Bench::paid();
    let id = bench.canister(0);
    bench.call(id, "keep", &[42]).unwrap();
    bench.call(id, "bump", &[]).unwrap();
    let take = TakeCanisterSnapshotArgs {
        canister_id: id,
        replace_snapshot: None,
        uninstall_code: None,
        sender_canister_version: None,
    };
    let taken = bench.manage("take_canister_snapshot", &take).unwrap();
    let taken: Snapshot = candid::decode_one(&taken).unwrap();
    bench.call(id, "keep", &[43]).unwrap();
    bench.call(id, "bump", &[]).unwrap();
    let version = bench.status(id).version;
    let load = LoadCanisterSnapshotArgs {
        canister_id: id,
        snapshot_id: taken.id.clone(),
        sender_canister_version: None,
    };
    bench.manage("load_canister_snapshot", &load).unwrap();
    assert_eq!(bench.count(id), 1);
    assert_eq!(bench.0.query(OWNER, id, "kept", vec![]).unwrap(), [42]);
    assert_eq!(bench.status(id).version, version + 1);

    let saved = bench.0.save();
    let loaded = Network::load(saved, None).unwrap();
    assert_eq!(loaded.digest(), bench.0.digest());

    let record = CanisterIdRecord { canister_id: id };
    let list = bench.manage("list_canister_snapshots", &record).unwrap();
    let list: Vec<Snapshot> = candid::decode_one(&list).unwrap();
    assert_eq!(list, std::slice::from_ref(&taken));
    assert_eq!(
        bench.status(id).memory_metrics.snapshots_size,
        taken.total_size
    );

    let delete = DeleteCanisterSnapshotArgs {
        canister_id: id,
        snapshot_id: taken.id,
    };
    bench.manage("delete_canister_snapshot", &delete).unwrap();
    let again = bench.manage("delete_canister_snapshot", &delete);
    assert_eq!(
        again.unwrap_err().error_code,
        ErrorCode::CanisterSnapshotNotFound
    );
    let stranger = bench.call_as(
        candid::Principal::anonymous(),
        candid::Principal::management_canister(),
        "take_canister_snapshot",
        Encode!(&take).unwrap(),
        None,
    );
    assert_eq!(
        stranger.unwrap_err().error_code,
        ErrorCode::CanisterInvalidController
    );
}

#[test]
fn a_canister_has_ten_snapshots_at_most() {
    let mut bench = Bench::paid();
    let id = bench.canister(0);
    let mut take = TakeCanisterSnapshotArgs {
        canister_id: id,
        replace_snapshot: None,
        uninstall_code: None,
        sender_canister_version: None,
    };
    let mut last = None;
    for _ in 0..10 {
        let taken = bench.manage("take_canister_snapshot", &take).unwrap();
        last = Some(candid::decode_one::<Snapshot>(&taken).unwrap().id);
    }
    assert!(bench.manage("take_canister_snapshot", &take).is_err());
    take.replace_snapshot = last;
    assert!(bench.manage("take_canister_snapshot", &take).is_ok());
}

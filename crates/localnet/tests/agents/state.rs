//! Reads of the certified state.

use candid::Principal;
use ic_agent::{Agent, AgentError, agent::EffectiveId, hash_tree::Label, identity::BasicIdentity};
use ic_certification::{Certificate, LookupResult};
use sha2::{Digest, Sha256};

use crate::support::{Bench, code};

fn controller() -> BasicIdentity {
    BasicIdentity::from_raw_key(&[3; 32])
}

/// A canister that `controller` controls, and an agent of his.
async fn controlled(bench: &Bench) -> Agent {
    use ic_agent::Identity;
    let controllers = vec![Principal::anonymous(), controller().sender().unwrap()];
    bench
        .pic
        .set_controllers(bench.canister, None, controllers)
        .await
        .unwrap();
    bench.agent(controller()).await
}

#[tokio::test]
async fn what_a_canister_is_can_be_read() {
    let bench = Bench::start().await;
    let agent = controlled(&bench).await;
    let id = bench.canister;
    let hash = agent.read_state_canister_module_hash(id).await.unwrap();
    assert_eq!(hash, Sha256::digest(code()).to_vec());
    let mut controllers = agent.read_state_canister_controllers(id).await.unwrap();
    controllers.sort();
    assert_eq!(controllers, bench.pic.get_controllers(id).await);
    let candid = agent.read_state_canister_metadata(id, "candid:service");
    assert_eq!(candid.await.unwrap(), b"service : {}");

    let secret = agent.read_state_canister_metadata(id, "secret");
    assert_eq!(secret.await.unwrap(), b"for controllers");
    let stranger = bench.agent(BasicIdentity::from_raw_key(&[4; 32])).await;
    let secret = stranger.read_state_canister_metadata(id, "secret").await;
    assert!(
        matches!(&secret, Err(AgentError::HttpError(error)) if error.status == 403),
        "{secret:?}"
    );
}

/// When a canister was created, and when its code came: once more with each installation, no more when it is
/// gone.
#[tokio::test]
async fn a_canister_tells_its_times() {
    let bench = Bench::start().await;
    let agent = bench.anonymous().await;
    let id = bench.canister;
    let read = async |what: &str| {
        let path = [b"canister", id.as_slice(), what.as_bytes()].map(Label::from_bytes);
        let certificate = agent.read_state_raw(vec![path.to_vec()], EffectiveId::Canister(id));
        let certificate = certificate.await.unwrap();
        match certificate.tree.lookup_path(&path) {
            LookupResult::Found(mut bytes) => Some(leb128::read::unsigned(&mut bytes).unwrap()),
            LookupResult::Absent => None,
            other => panic!("{what}: {other:?}"),
        }
    };
    let now = bench.pic.get_time().await.as_nanos_since_unix_epoch();
    let created = read("canister_creation_timestamp").await.unwrap();
    let installed = read("last_install_timestamp").await.unwrap();
    assert!(created <= installed && installed <= now);
    let upgraded = bench.pic.upgrade_canister(id, code(), vec![], None);
    upgraded.await.unwrap();
    assert!(read("last_install_timestamp").await.unwrap() > installed);
    bench.pic.uninstall_canister(id, None).await.unwrap();
    assert_eq!(read("last_install_timestamp").await, None);
    assert_eq!(read("canister_creation_timestamp").await, Some(created));
}

#[tokio::test]
async fn what_is_not_there_is_proven_absent() {
    for bench in [Bench::start().await, Bench::alone().await] {
        let agent = bench.anonymous().await;
        let empty = bench.pic.create_canister().await;
        let nowhere = Principal::from_text("um5iw-rqaaa-aaaaq-qaaba-cai").unwrap();
        let absent = |result: Result<Vec<u8>, AgentError>| {
            assert!(
                matches!(result, Err(AgentError::LookupPathAbsent(_))),
                "{result:?}"
            );
        };
        absent(agent.read_state_canister_module_hash(empty).await);
        absent(agent.read_state_canister_module_hash(nowhere).await);
        absent(
            agent
                .read_state_canister_metadata(bench.canister, "enhanced-orthogonal-persistence")
                .await,
        );
        absent(
            agent
                .read_state_canister_metadata(empty, "candid:service")
                .await,
        );
        let management = Principal::management_canister();
        absent(
            agent
                .read_state_canister_metadata(management, "candid:service")
                .await,
        );
        let path = vec!["api_boundary_nodes".into()];
        let certificate = agent.read_state_raw(vec![path], bench.canister).await;
        let shown = certificate.unwrap();
        assert_eq!(
            shown.tree.lookup_path(["api_boundary_nodes"]),
            LookupResult::Absent
        );
    }
}

#[tokio::test]
async fn subnets_answer_for_every_canister_id() {
    for bench in [Bench::start().await, Bench::alone().await] {
        let agent = bench.anonymous().await;
        for id in [
            "rwlgt-iiaaa-aaaaa-aaaaa-cai",
            "rkp4c-7iaaa-aaaaa-aaaca-cai",
            "um5iw-rqaaa-aaaaq-qaaba-cai",
            "q6cfj-fyaaa-aaaar-qb77q-cai",
        ] {
            let id = Principal::from_text(id).unwrap();
            let subnet = agent.fetch_subnet_by_canister(&id).await.unwrap();
            assert!(subnet.contains_canister(&id));
            assert_eq!(subnet.iter_nodes().count(), 1);
            let topology = bench.pic.topology().await;
            assert!(topology.subnet_configs.contains_key(&subnet.id()));
        }
        for (subnet, _) in bench.pic.topology().await.subnet_configs {
            let metrics = agent.read_state_subnet_metrics(subnet).await.unwrap();
            let expected = bench.pic.get_subnet_metrics(subnet).await.unwrap();
            assert_eq!(metrics.num_canisters, expected.num_canisters);
            assert!(agent.fetch_subnet_by_id(&subnet).await.is_ok());
            let ranges = agent.read_state_subnet_canister_ranges(subnet).await;
            assert!(!ranges.unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn a_subnet_certifies_what_it_executed_and_what_that_cost() {
    let bench = Bench::start().await;
    let agent = bench.anonymous().await;
    let subnet = bench.pic.get_subnet(bench.canister).await.unwrap();
    let before = agent.read_state_subnet_metrics(subnet).await.unwrap();
    let bump = agent.update(&bench.canister, "bump");
    bump.call_and_wait().await.unwrap();
    let after = agent.read_state_subnet_metrics(subnet).await.unwrap();
    assert_eq!(
        after.update_transactions_total,
        before.update_transactions_total + 1
    );
    // At least the message from outside and the execution's base.
    let cost = after.consumed_cycles_total - before.consumed_cycles_total;
    assert!((6_200_000..60_000_000).contains(&cost), "{cost}");
    assert_eq!(after.num_canisters, 1);
    assert!(after.canister_state_bytes >= 65_536);
}

#[tokio::test]
async fn the_status_of_a_message_is_for_its_sender() {
    let bench = Bench::start().await;
    let agent = bench.agent(controller()).await;
    let signed = agent.update(&bench.canister, "bump").sign().unwrap();
    agent
        .update_signed(bench.canister, signed.signed_update)
        .await
        .unwrap();
    let id = signed.request_id;
    let status = agent.request_status_raw(&id, bench.canister).await;
    assert!(status.is_ok(), "{status:?}");
    let stranger = bench.anonymous().await;
    let status = stranger.request_status_raw(&id, bench.canister).await;
    assert!(
        matches!(&status, Err(AgentError::HttpError(error)) if error.status == 403),
        "{status:?}"
    );
}

#[tokio::test]
async fn only_some_paths_may_be_read() {
    let bench = Bench::start().await;
    let agent = bench.anonymous().await;
    let id: Label<Vec<u8>> = bench.canister.as_slice().into();
    let subnet: Label<Vec<u8>> = bench
        .pic
        .get_subnet(bench.canister)
        .await
        .unwrap()
        .as_slice()
        .into();
    let other: Label<Vec<u8>> = [9u8; 10].as_slice().into();
    let message = |byte| Label::from([byte; 32]);
    for (paths, expected) in [
        (vec![vec!["canister".into()]], 404),
        (vec![vec![]], 404),
        (
            vec![vec!["canister".into(), id, "certified_data".into()]],
            404,
        ),
        (
            vec![vec!["canister".into(), other, "module_hash".into()]],
            400,
        ),
        (vec![vec!["request_status".into()]], 400),
        (
            vec![
                vec!["request_status".into(), message(1)],
                vec!["request_status".into(), message(2)],
            ],
            400,
        ),
        (vec![vec!["subnet".into(), subnet, "metrics".into()]], 404),
        (vec![vec!["time".into()]; 1_001], 400),
        (vec![vec!["time".into(); 128]], 400),
    ] {
        let read = agent.read_state_raw(paths.clone(), bench.canister).await;
        assert!(
            matches!(&read, Err(AgentError::HttpError(error)) if error.status == expected),
            "{paths:?}: {read:?}"
        );
    }
}

#[tokio::test]
async fn certified_data_comes_with_its_certificate() {
    for bench in [Bench::start().await, Bench::alone().await] {
        let agent = bench.anonymous().await;
        let id = bench.canister;
        let certified = async || {
            let bytes = agent.query(&id, "certificate").call().await.unwrap();
            let certificate: Certificate = serde_cbor::from_slice(&bytes).unwrap();
            agent
                .verify(&certificate, EffectiveId::Canister(id))
                .unwrap();
            let path = [b"canister", id.as_slice(), b"certified_data"];
            match certificate.tree.lookup_path(path) {
                LookupResult::Found(data) => data.to_vec(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(certified().await, b"");
        for data in [[1; 32], [2; 32]] {
            let kept = agent.update(&id, "keep").with_arg(data);
            kept.call_and_wait().await.unwrap();
            assert_eq!(certified().await, data);
        }
        // Only what is agreed on sees the root key: a query called as an update.
        let root_key = agent.update(&id, "root_key").call_and_wait().await.unwrap();
        assert_eq!(root_key, agent.read_root_key());
    }
}

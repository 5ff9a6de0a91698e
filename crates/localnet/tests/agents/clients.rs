//! What the command-line clients do to deploy a canister, message by message.

use candid::{Encode, Principal};
use ic_agent::{AgentError, identity::BasicIdentity};
use ic_utils::{
    call::AsyncCall,
    interfaces::{
        ManagementCanister,
        management_canister::{
            CanisterStatusType,
            builders::{CanisterInstallMode, EnvironmentVariable},
        },
    },
};
use sha2::{Digest, Sha256};

use crate::support::{Bench, code};

/// Where those clients send the creation of a canister when nobody says where.
const EFFECTIVE: &str = "rwlgt-iiaaa-aaaaa-aaaaa-cai";

fn developer() -> BasicIdentity {
    BasicIdentity::from_raw_key(&[11; 32])
}

#[tokio::test]
async fn a_canister_is_made_installed_watched_and_deleted() {
    for bench in [Bench::start().await, Bench::alone().await] {
        let agent = bench.agent(developer()).await;
        let management = ManagementCanister::create(&agent);
        let effective = Principal::from_text(EFFECTIVE).unwrap();
        let (id,) = management
            .create_canister()
            .as_provisional_create_with_amount(Some(3_000_000_000_000))
            .with_effective_canister_id(effective)
            .call_and_wait()
            .await
            .unwrap();
        management
            .update_settings(&id)
            .with_environment_variables(vec![EnvironmentVariable {
                name: "PUBLIC_CANISTER_ID:alpha".into(),
                value: id.to_text(),
            }])
            .call_and_wait()
            .await
            .unwrap();
        for mode in [CanisterInstallMode::Install, CanisterInstallMode::Reinstall] {
            management
                .install_code(&id, &code())
                .with_mode(mode)
                .with_raw_arg(Encode!().unwrap())
                .call_and_wait()
                .await
                .unwrap();
        }
        let hash = Sha256::digest(code()).to_vec();
        assert_eq!(
            agent.read_state_canister_module_hash(id).await.unwrap(),
            hash
        );

        let (status,) = management.canister_status(&id).call().await.unwrap();
        let (updated,) = management
            .canister_status(&id)
            .as_update()
            .call()
            .await
            .unwrap();
        for status in [status, updated] {
            assert_eq!(status.status, CanisterStatusType::Running);
            assert_eq!(status.module_hash, Some(hash.clone()));
            let variables = status.settings.environment_variables;
            assert_eq!(variables.len(), 1, "{variables:?}");
        }
        management.stop_canister(&id).call_and_wait().await.unwrap();
        let stopped = agent.query(&id, "count").call().await;
        assert!(format!("{stopped:?}").contains("IC0508"), "{stopped:?}");
        management
            .start_canister(&id)
            .call_and_wait()
            .await
            .unwrap();
        management
            .uninstall_code(&id)
            .call_and_wait()
            .await
            .unwrap();
        management.stop_canister(&id).call_and_wait().await.unwrap();
        management
            .delete_canister(&id)
            .call_and_wait()
            .await
            .unwrap();
        let gone = agent.read_state_canister_module_hash(id).await;
        assert!(
            matches!(gone, Err(AgentError::LookupPathAbsent(_))),
            "{gone:?}"
        );
    }
}

#[tokio::test]
async fn a_large_module_is_installed_in_chunks() {
    let bench = Bench::start().await;
    let agent = bench.agent(developer()).await;
    let management = ManagementCanister::create(&agent);
    let (id,) = management
        .create_canister()
        .as_provisional_create_with_amount(None)
        .with_effective_canister_id(Principal::from_text(EFFECTIVE).unwrap())
        .call_and_wait()
        .await
        .unwrap();
    // A custom section that no message can carry: its id, its length in LEB128, its name's length.
    let padding = vec![0; 3 << 20];
    let length: [u8; 4] = [0x81, 0x80, 0xc0, 0x01];
    let wasm = [&code()[..], &[0], &length, &[0], &padding].concat();
    management
        .install(&id, &wasm)
        .with_raw_arg(Encode!().unwrap())
        .call_and_wait()
        .await
        .unwrap();
    let hash = agent.read_state_canister_module_hash(id).await.unwrap();
    assert_eq!(hash, Sha256::digest(&wasm).to_vec());
}

/// One client asks every canister for its page, to learn by the error code whether it has one.
#[tokio::test]
async fn a_missing_method_has_its_own_error_code() {
    let bench = Bench::start().await;
    let agent = bench.anonymous().await;
    let asked = agent
        .query(&bench.canister, "http_request_of_another_name")
        .with_arg(Encode!().unwrap())
        .call()
        .await;
    let Err(AgentError::UncertifiedReject { reject, .. }) = asked else {
        panic!("{asked:?}");
    };
    assert_eq!(reject.error_code.as_deref(), Some("IC0536"));
}

/// Calls of the management canister's own id, which is the empty principal, and of a subnet.
#[tokio::test]
async fn canisters_are_made_without_naming_one() {
    for bench in [Bench::start().await, Bench::alone().await] {
        let agent = bench.agent(developer()).await;
        let management = Principal::management_canister();
        let made = agent
            .update(&management, "provisional_create_canister_with_cycles")
            .with_effective_canister_id(management)
            .with_arg(Encode!(&Nothing {}).unwrap())
            .call_and_wait()
            .await;
        assert!(made.is_ok(), "{made:?}");
        let subnet = bench.pic.get_subnet(bench.canister).await.unwrap();
        let (id,) = ManagementCanister::create(&agent)
            .create_canister()
            .as_provisional_create_with_amount(None)
            .with_effective_subnet_id(subnet)
            .call_and_wait()
            .await
            .unwrap();
        assert_eq!(bench.pic.get_subnet(id).await, Some(subnet));
    }
}

#[derive(candid::CandidType)]
struct Nothing {}

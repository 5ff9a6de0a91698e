//! What the command-line clients do to deploy a canister, message by message.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use candid::{CandidType, Decode, Encode, Nat, Principal};
use ic_agent::{Agent, AgentError, identity::BasicIdentity};
use ic_management_canister_types::CanisterSettings;
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
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::support::{Bench, agent, code};

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

#[derive(CandidType)]
struct Nothing {}

/// The cycles ledger's and the cycles minting canister's interfaces, as far as command lines need them.
#[derive(CandidType)]
struct CreateCanisterArgs {
    from_subaccount: Option<Vec<u8>>,
    created_at_time: Option<u64>,
    amount: Nat,
    creation_args: Option<CreationArgs>,
}

#[derive(CandidType)]
struct CreationArgs {
    subnet_selection: Option<SubnetSelection>,
    settings: Option<CanisterSettings>,
}

#[derive(CandidType)]
enum SubnetSelection {
    Filter { subnet_type: Option<String> },
    Subnet { subnet: Principal },
}

#[derive(CandidType, Deserialize, Debug)]
enum Created {
    Ok {
        block_id: Nat,
        canister_id: Principal,
    },
    Err(NotCreated),
}

#[derive(CandidType, Deserialize, Debug)]
enum NotCreated {
    FailedToCreate { error: String },
    InsufficientFunds { balance: Nat },
    TemporarilyUnavailable,
}

#[derive(CandidType)]
struct WithdrawArgs {
    amount: Nat,
    from_subaccount: Option<Vec<u8>>,
    to: Principal,
    created_at_time: Option<u64>,
}

#[derive(CandidType, Deserialize, Debug)]
enum NotWithdrawn {
    InsufficientFunds { balance: Nat },
    InvalidReceiver { receiver: Principal },
}

fn ledger() -> Principal {
    Principal::from_text("um5iw-rqaaa-aaaaq-qaaba-cai").unwrap()
}

async fn create_by_ledger(agent: &Agent, creation_args: Option<CreationArgs>) -> Created {
    let args = CreateCanisterArgs {
        from_subaccount: None,
        created_at_time: None,
        amount: 2_000_000_000_000_u64.into(),
        creation_args,
    };
    let call = agent.update(&ledger(), "create_canister");
    let call = call.with_arg(Encode!(&args).unwrap());
    let answer = call.call_and_wait().await.unwrap();
    Decode!(&answer, Created).unwrap()
}

/// What `icp deploy` asks before anything else: a subnet of the one canister, a new canister there of the
/// other, and more cycles later.
#[tokio::test]
async fn a_command_line_gets_subnets_and_cycles() {
    let bench = Bench::with_cycles().await;
    let agent = bench.agent(developer()).await;
    let minting = Principal::from_text("rkp4c-7iaaa-aaaaa-aaaca-cai").unwrap();
    let asked = agent.query(&minting, "get_default_subnets");
    let answer = asked.with_arg(Encode!(&()).unwrap()).call().await.unwrap();
    let subnets = Decode!(&answer, Vec<Principal>).unwrap();
    assert_eq!(
        subnets,
        [bench.pic.get_subnet(bench.canister).await.unwrap()]
    );

    let create = |args| create_by_ledger(&agent, args);
    // Six, so that one of them would have the id of the cycles minting canister.
    for _ in 0..6 {
        let settings = CanisterSettings {
            freezing_threshold: Some(7_u8.into()),
            ..Default::default()
        };
        let subnet = subnets[0];
        let made = create(Some(CreationArgs {
            subnet_selection: Some(SubnetSelection::Subnet { subnet }),
            settings: Some(settings),
        }));
        let Created::Ok { canister_id, .. } = made.await else {
            panic!("it is not created");
        };
        let me = agent.get_principal().unwrap();
        let status = bench.pic.canister_status(canister_id, Some(me)).await;
        let status = status.unwrap();
        assert_eq!(status.settings.controllers, [me]);
        assert_eq!(status.settings.freezing_threshold, Nat::from(7_u8));
        // Asking for the status has been paid.
        let before = bench.pic.cycle_balance(canister_id).await;
        assert!((1_999_000_000_000..2_000_000_000_000).contains(&before));
        let args = WithdrawArgs {
            amount: 5_u8.into(),
            from_subaccount: None,
            to: canister_id,
            created_at_time: None,
        };
        let withdraw = agent.update(&ledger(), "withdraw");
        let withdraw = withdraw.with_arg(Encode!(&args).unwrap());
        let answer = withdraw.call_and_wait().await.unwrap();
        Decode!(&answer, Result<Nat, NotWithdrawn>)
            .unwrap()
            .unwrap();
        let balance = bench.pic.cycle_balance(canister_id).await;
        assert_eq!(balance, before + 5);
    }
    let failed = create(Some(CreationArgs {
        subnet_selection: Some(SubnetSelection::Subnet { subnet: minting }),
        settings: None,
    }));
    assert!(matches!(
        failed.await,
        Created::Err(NotCreated::FailedToCreate { .. })
    ));
    let kind = SubnetSelection::Filter { subnet_type: None };
    let made = create(Some(CreationArgs {
        subnet_selection: Some(kind),
        settings: None,
    }));
    assert!(matches!(made.await, Created::Ok { .. }));
    // Other networks have no such canisters.
    let alone = Bench::alone().await;
    let asked = alone.anonymous().await;
    let asked = asked.query(&minting, "get_default_subnets").call().await;
    let Err(AgentError::UncertifiedReject { reject, .. }) = &asked else {
        panic!("{asked:?}");
    };
    assert_eq!(reject.error_code.as_deref(), Some("IC0301"));
}

/// A server that is started for one network: agents find it on its port, and the next server goes on with it.
#[tokio::test]
async fn a_live_network_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut made = None;
    for _ in 0..2 {
        let mut server = Command::new(env!("CARGO_BIN_EXE_pocket-ic-server"))
            .args(["--live", "0", "--state-dir"])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let url = lines.find_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("a network is live at ")
                .map(str::to_owned)
        });
        let agent = agent(&url.unwrap(), developer());
        agent.fetch_root_key().await.unwrap();
        match made {
            None => {
                let Created::Ok { canister_id, .. } = create_by_ledger(&agent, None).await else {
                    panic!("it is not created");
                };
                made = Some(canister_id);
            }
            Some(id) => {
                let controllers = agent.read_state_canister_controllers(id).await;
                assert_eq!(controllers.unwrap(), [agent.get_principal().unwrap()]);
            }
        }
        server.kill().unwrap();
        server.wait().unwrap();
    }
}

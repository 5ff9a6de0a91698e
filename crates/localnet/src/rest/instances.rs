//! Instances are made, listed and deleted.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use candid::Principal;
use pocket_ic::common::rest::{
    CanisterCyclesCostSchedule, CanisterIdRange, CreateInstanceResponse, ExtendedSubnetConfigSet,
    HttpGatewayBackend, HttpGatewayConfig, IcpFeatures, InitialTime, InstanceConfig, SubnetConfig,
    SubnetInstructionConfig, SubnetSpec, Topology,
};

use super::{
    engine::{Engine, Gone, Handle},
    gateway,
    server::{Instance, Server},
    shapes::{ApiError, Json, Reply},
    update,
};
use crate::{
    fees::{CostSchedule, Fees},
    network::{Config, Subnet, SubnetKind, TIME_START_NS, fees_of},
};

/// Every instance draws the same random numbers, so that a test can be run again.
const SEED: u64 = 0;

pub async fn create(
    State(server): State<Arc<Server>>,
    Json(config): Json<InstanceConfig>,
) -> (StatusCode, Json<CreateInstanceResponse>) {
    match try_create(&server, config).await {
        Ok(created) => (StatusCode::CREATED, Json(created)),
        Err(message) => (
            StatusCode::BAD_REQUEST,
            Json(CreateInstanceResponse::Error { message }),
        ),
    }
}

/// Makes an instance; the error is a sentence for whoever asked.
pub async fn try_create(
    server: &Arc<Server>,
    config: InstanceConfig,
) -> Result<CreateInstanceResponse, String> {
    check(&config)?;
    let specs = specs(&config.subnet_config_set);
    let time_ns = match &config.initial_time {
        // As PocketIC has it, the first moment is the one after.
        Some(InitialTime::Timestamp(time)) => time.nanos_since_epoch + 1,
        Some(InitialTime::AutoProgress(_)) | None => TIME_START_NS,
    };
    let new = Config {
        subnets: specs.iter().map(|(kind, _)| *kind).collect(),
        fees: specs.iter().map(fees).collect(),
        admins: specs.iter().map(admins).collect(),
        plays_cycles: plays_cycles(&config),
        seed: SEED,
        time_ns,
        compile_cache: server.compile_cache.clone(),
        ..Config::default()
    };
    let folder = config.state_dir.clone();
    let engine = Handle::start(new, folder)
        .await
        .map_err(|error| error.to_string())?;
    let gone = |gone: Gone| gone.to_string();
    let (topology, keys) = engine
        .run(|engine| (topology(engine), Arc::clone(engine.network.keys())))
        .await
        .map_err(gone)?;
    if let Some(InitialTime::AutoProgress(progress)) = config.initial_time {
        let delay = progress.artificial_delay_ms.map(Duration::from_millis);
        engine
            .run(move |engine| engine.start_progress(delay))
            .await
            .map_err(gone)?
            .map_err(|error| error.to_string())?;
    }
    let instance_id = server.add_instance(Instance {
        engine,
        topology: Arc::new(topology.clone()),
        keys,
        trusts_envelopes: config.disable_ingress_validation == Some(true),
    });
    let http_gateway_info = match config.http_gateway_config {
        None => None,
        Some(gateway) => {
            let created = gateway::start(
                server,
                HttpGatewayConfig {
                    ip_addr: gateway.ip_addr,
                    port: gateway.port,
                    forward_to: HttpGatewayBackend::PocketIcInstance(instance_id),
                    domains: gateway.domains,
                    https_config: gateway.https_config,
                    domain_custom_provider_local_file: gateway.domain_custom_provider_local_file,
                },
            )
            .await;
            if created.is_err() {
                server.delete_instance(instance_id).await;
            }
            Some(created?)
        }
    };
    Ok(CreateInstanceResponse::Created {
        instance_id,
        topology,
        http_gateway_info,
    })
}

/// Refuses what this network cannot be. Left out on purpose: flags that only loosen limits which it
/// does not have (`icp_config`) and `log_level`.
fn check(config: &InstanceConfig) -> Result<(), String> {
    if config.state_dir.is_none() {
        config.subnet_config_set.validate()?;
    }
    let refused = [
        (
            config.icp_features.as_ref().is_some_and(|features| {
                let served = IcpFeatures {
                    cycles_minting: features.cycles_minting.clone(),
                    cycles_token: features.cycles_token.clone(),
                    ..IcpFeatures::default()
                };
                *features != served
            }),
            "of the Internet Computer's own canisters (`icp_features`), only `cycles_minting` and `cycles_token` are played here",
        ),
        (
            config.bitcoind_addr.is_some() || config.dogecoind_addr.is_some(),
            "there is no Bitcoin or Dogecoin here",
        ),
        (
            config.mainnet_nns_subnet_id == Some(true),
            "the mainnet's NNS subnet id is not served",
        ),
    ];
    if let Some((_, reason)) = refused.into_iter().find(|(applies, _)| *applies) {
        return Err(reason.into());
    }
    if let Some(InitialTime::Timestamp(time)) = &config.initial_time {
        update::check_time(time).map_err(|error| error.message)?;
        if time.nanos_since_epoch < TIME_START_NS - 1 {
            return Err(format!(
                "The initial timestamp (unix timestamp in nanoseconds) must be no earlier than {} (provided {}).",
                TIME_START_NS - 1,
                time.nanos_since_epoch
            ));
        }
    }
    for (kind, spec) in specs(&config.subnet_config_set) {
        if spec.get_state_path().is_some() || !spec.is_supported() {
            return Err(format!(
                "the {kind:?} subnet cannot be loaded alone: only a whole network is kept, in `state_dir`"
            ));
        }
        if spec.get_instruction_config() != SubnetInstructionConfig::Production {
            return Err(format!(
                "the {kind:?} subnet cannot have other instruction limits than in production"
            ));
        }
    }
    Ok(())
}

/// A subnet that is free asks for nothing; any other for what its kind asks.
fn fees((kind, spec): &(SubnetKind, SubnetSpec)) -> Fees {
    let fees = fees_of(*kind);
    match spec.get_cost_schedule() {
        CanisterCyclesCostSchedule::Free => Fees {
            schedule: CostSchedule::Free,
            ..fees
        },
        CanisterCyclesCostSchedule::Normal => fees,
    }
}

fn admins((_, spec): &(SubnetKind, SubnetSpec)) -> BTreeSet<Principal> {
    spec.get_subnet_admins().into_iter().flatten().collect()
}

/// Either of the two features brings both canisters.
fn plays_cycles(config: &InstanceConfig) -> bool {
    config.icp_features.as_ref().is_some_and(|features| {
        features.cycles_minting.is_some() || features.cycles_token.is_some()
    })
}

/// All subnets in the order of their canister ids.
fn specs(set: &ExtendedSubnetConfigSet) -> Vec<(SubnetKind, SubnetSpec)> {
    let named = [
        (SubnetKind::NNS, &set.nns),
        (SubnetKind::SNS, &set.sns),
        (SubnetKind::II, &set.ii),
        (SubnetKind::Fiduciary, &set.fiduciary),
        (SubnetKind::Bitcoin, &set.bitcoin),
        (SubnetKind::TestThresholdKeys, &set.test_threshold_keys),
    ]
    .into_iter()
    .flat_map(|(kind, spec)| spec.iter().map(move |spec| (kind, spec)));
    let unnamed = [
        (SubnetKind::System, &set.system),
        (SubnetKind::Application, &set.application),
        (SubnetKind::CloudEngine, &set.cloud_engine),
        (SubnetKind::VerifiedApplication, &set.verified_application),
    ]
    .into_iter()
    .flat_map(|(kind, specs)| specs.iter().map(move |spec| (kind, spec)));
    named
        .chain(unnamed)
        .map(|(kind, spec)| (kind, spec.clone()))
        .collect()
}

fn topology(engine: &Engine) -> Topology {
    let config = |subnet: &Subnet| {
        let ranges = engine.network.canister_ranges(subnet);
        let config = SubnetConfig {
            subnet_kind: subnet.kind,
            subnet_admins: (!subnet.admins.is_empty())
                .then(|| subnet.admins.iter().copied().map(Into::into).collect()),
            cost_schedule: match subnet.fees.schedule {
                CostSchedule::Free => CanisterCyclesCostSchedule::Free,
                CostSchedule::Normal | CostSchedule::System => CanisterCyclesCostSchedule::Normal,
            },
            subnet_seed: subnet.seed,
            instruction_config: SubnetInstructionConfig::Production,
            canister_ranges: ranges
                .into_iter()
                .map(|(start, end)| CanisterIdRange {
                    start: start.into(),
                    end: end.into(),
                })
                .collect(),
        };
        (subnet.id, config)
    };
    let (first, _) = engine.network.default_subnet().canister_range();
    Topology {
        subnet_configs: engine.network.subnets().iter().map(config).collect(),
        default_effective_canister_id: first.into(),
    }
}

pub async fn list(State(server): State<Arc<Server>>) -> Json<Vec<&'static str>> {
    let word = |there| if there { "Available" } else { "Deleted" };
    Json(server.instances().into_iter().map(word).collect())
}

pub async fn delete(State(server): State<Arc<Server>>, Path(id): Path<usize>) -> Reply<()> {
    if server.delete_instance(id).await {
        Ok(Json(()))
    } else {
        Err(ApiError::not_found(format!("there is no instance {id}")))
    }
}

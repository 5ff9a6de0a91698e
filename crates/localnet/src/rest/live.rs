//! One network for the whole life of a server: for command lines and browsers, which make none themselves.

use std::{net::SocketAddr, path::PathBuf};

use pocket_ic::common::rest::{
    AutoProgressConfig, CreateInstanceResponse, ExtendedSubnetConfigSet, IcpFeatures,
    IcpFeaturesConfig, InitialTime, InstanceConfig, InstanceHttpGatewayConfig, SubnetSpec,
};

use super::{Running, instances};

/// A network that follows the wall clock.
#[derive(Debug, Clone)]
pub struct Live {
    /// Where its gateway listens. Port 0 means any.
    pub address: SocketAddr,
    /// A folder that it is kept in between servers.
    pub state_dir: Option<PathBuf>,
}

impl Running {
    /// Makes such a network: one application subnet, and the canisters that command lines get cycles from. Gives
    /// the gateway's port; the error is a sentence.
    pub async fn make_live(&self, live: Live) -> Result<u16, String> {
        let config = InstanceConfig {
            subnet_config_set: ExtendedSubnetConfigSet {
                application: vec![SubnetSpec::default()],
                ..ExtendedSubnetConfigSet::default()
            },
            http_gateway_config: Some(InstanceHttpGatewayConfig {
                ip_addr: Some(live.address.ip().to_string()),
                port: Some(live.address.port()),
                domains: None,
                https_config: None,
                domain_custom_provider_local_file: None,
            }),
            state_dir: live.state_dir,
            icp_features: Some(IcpFeatures {
                cycles_minting: Some(IcpFeaturesConfig::DefaultConfig),
                cycles_token: Some(IcpFeaturesConfig::DefaultConfig),
                ..IcpFeatures::default()
            }),
            initial_time: Some(InitialTime::AutoProgress(AutoProgressConfig {
                artificial_delay_ms: None,
            })),
            ..InstanceConfig::default()
        };
        match instances::try_create(&self.server, config).await? {
            CreateInstanceResponse::Created {
                http_gateway_info: Some(gateway),
                ..
            } => Ok(gateway.port),
            CreateInstanceResponse::Created { .. } => Err("the network has no gateway".into()),
            CreateInstanceResponse::Error { message } => Err(message),
        }
    }
}

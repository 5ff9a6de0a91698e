//! A network with a gateway, a canister, and agents for it.

use std::sync::Arc;

use candid::Principal;
use ic_agent::{Agent, Identity, identity::AnonymousIdentity};
use openstorage_localnet::rest::{self, Config, Running};
use pocket_ic::{
    PocketIcBuilder,
    common::rest::{IcpFeatures, IcpFeaturesConfig, SubnetConfigSet},
    nonblocking::PocketIc,
};

/// What the canister does; the same in the JavaScript agent's tests.
const CANISTER: &str = include_str!("canister.wat");
/// Custom sections that agents can read.
const METADATA: &str = r#"
  (@custom "icp:public candid:service" "service : {}")
  (@custom "icp:private secret" "for controllers"))
"#;

/// A server with one instance that follows the wall clock.
pub struct Bench {
    pub pic: PocketIc,
    /// Where agents go.
    pub url: String,
    /// A canister of the test's code, controlled by the anonymous principal.
    pub canister: Principal,
    _server: Running,
}

impl Bench {
    /// With an NNS subnet, which is the root, and the canister on an application subnet, whose key the
    /// root delegates to.
    pub async fn start() -> Self {
        let subnets = SubnetConfigSet {
            nns: true,
            application: 1,
            ..Default::default()
        };
        Self::with(PocketIcBuilder::new_with_config(subnets)).await
    }

    /// With one subnet, which is its own root.
    pub async fn alone() -> Self {
        Self::with(PocketIcBuilder::new().with_application_subnet()).await
    }

    /// The same with the canisters that command lines get cycles from.
    pub async fn with_cycles() -> Self {
        let features = IcpFeatures {
            cycles_minting: Some(IcpFeaturesConfig::DefaultConfig),
            cycles_token: Some(IcpFeaturesConfig::DefaultConfig),
            ..Default::default()
        };
        let builder = PocketIcBuilder::new().with_application_subnet();
        Self::with(builder.with_icp_features(features)).await
    }

    async fn with(builder: PocketIcBuilder) -> Self {
        let server = rest::serve(Config {
            address: ([127, 0, 0, 1], 0).into(),
            ttl: None,
            compile_cache: None,
        })
        .await
        .unwrap();
        let url = format!("http://{}/", server.address());
        let mut pic = builder
            .with_server_url(url.parse().unwrap())
            .build_async()
            .await;
        let canister = pic.create_canister().await;
        pic.add_cycles(canister, 10_000_000_000_000).await;
        pic.install_canister(canister, code(), vec![], None).await;
        let url = pic.make_live(None).await.to_string();
        Self {
            pic,
            url,
            canister,
            _server: server,
        }
    }

    /// An agent that has fetched the root key.
    pub async fn agent(&self, identity: impl Identity + 'static) -> Agent {
        let agent = agent(&self.url, identity);
        agent.fetch_root_key().await.unwrap();
        agent
    }

    pub async fn anonymous(&self) -> Agent {
        self.agent(AnonymousIdentity).await
    }

    pub async fn count(&self) -> u32 {
        let anonymous = Principal::anonymous();
        let bytes = self
            .pic
            .query_call(self.canister, anonymous, "count", vec![])
            .await
            .unwrap();
        candid::decode_one(&bytes).unwrap()
    }
}

pub fn code() -> Vec<u8> {
    let open = CANISTER.trim_end().strip_suffix(')').unwrap();
    wat::parse_str(format!("{open}{METADATA}")).unwrap()
}

/// An agent that believes in the mainnet's root key until it is told another.
pub fn agent(url: &str, identity: impl Identity + 'static) -> Agent {
    Agent::builder()
        .with_url(url)
        .with_arc_identity(Arc::new(identity))
        .with_verify_query_signatures(true)
        .build()
        .unwrap()
}

/// Posts an envelope by hand; the status and the body.
pub async fn post(url: &str, path: &str, envelope: Vec<u8>) -> (u16, Vec<u8>) {
    let response = reqwest::Client::new()
        .post(format!("{url}{path}"))
        .header("content-type", "application/cbor")
        .body(envelope)
        .send()
        .await
        .unwrap();
    let status = response.status().as_u16();
    (status, response.bytes().await.unwrap().to_vec())
}

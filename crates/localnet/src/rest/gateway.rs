//! HTTP gateways: ports on which an instance's canisters answer browsers.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::{FromRequestParts, Path, State},
    http::{Method, StatusCode, Uri, request::Parts},
    routing::get,
};
use candid::Principal;
use pocket_ic::common::rest::{
    CreateHttpGatewayResponse, HttpGatewayBackend, HttpGatewayConfig, HttpGatewayInfo, InstanceId,
    Topology,
};

use super::{
    api,
    listen::{Activity, Listening},
    relay,
    server::{Instance, Server},
    shapes::{ApiError, Json, Reply},
    unserved,
};

/// A gateway that listens.
pub struct Gateway {
    pub instance: InstanceId,
    pub listening: Listening,
}

/// What a gateway's handlers know.
pub struct Gate {
    pub instance: Instance,
    /// Hosts under which canisters are addressed as `CANISTER.DOMAIN` and `CANISTER.raw.DOMAIN`.
    pub domains: Vec<String>,
    pub activity: Arc<Activity>,
}

pub async fn create(
    State(server): State<Arc<Server>>,
    Json(config): Json<HttpGatewayConfig>,
) -> (StatusCode, Json<CreateHttpGatewayResponse>) {
    match start(&server, config).await {
        Ok(info) => (
            StatusCode::CREATED,
            Json(CreateHttpGatewayResponse::Created(info)),
        ),
        Err(message) => (
            StatusCode::BAD_REQUEST,
            Json(CreateHttpGatewayResponse::Error { message }),
        ),
    }
}

/// Starts a gateway; the error is a sentence for whoever asked.
pub async fn start(
    server: &Arc<Server>,
    config: HttpGatewayConfig,
) -> Result<HttpGatewayInfo, String> {
    let HttpGatewayBackend::PocketIcInstance(id) = config.forward_to else {
        return Err("a gateway to another server is not served".into());
    };
    if config.https_config.is_some() || config.domain_custom_provider_local_file.is_some() {
        return Err("a gateway speaks plain HTTP only, without custom domains".into());
    }
    let instance = server
        .instance(id)
        .ok_or_else(|| format!("there is no instance {id}"))?;
    let ip = match &config.ip_addr {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(text) => text
            .parse()
            .map_err(|_| format!("{text} is no IP address"))?,
    };
    let address = SocketAddr::new(ip, config.port.unwrap_or(0));
    let gate = Arc::new(Gate {
        instance,
        domains: config
            .domains
            .unwrap_or_else(|| vec!["localhost".to_owned()]),
        activity: Arc::clone(&server.activity),
    });
    let listening = Listening::start(address, router(gate))
        .await
        .map_err(|error| format!("the gateway cannot listen on {address}: {error}"))?;
    let port = listening.address.port();
    let instance_id = server.add_gateway(Gateway {
        instance: id,
        listening,
    });
    Ok(HttpGatewayInfo { instance_id, port })
}

pub async fn stop(State(server): State<Arc<Server>>, Path(id): Path<usize>) -> Reply<()> {
    if server.stop_gateway(id).await {
        Ok(Json(()))
    } else {
        Err(ApiError::not_found(format!("there is no gateway {id}")))
    }
}

fn router(gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/_/topology", get(topology))
        .merge(api::routes())
        .route("/api/{*rest}", axum::routing::any(no_api))
        .fallback(relay::handle)
        .with_state(gate)
}

async fn topology(State(gate): State<Arc<Gate>>) -> Json<Topology> {
    Json(gate.instance.topology.as_ref().clone())
}

/// A route that agents do not know either.
async fn no_api(method: Method, uri: Uri) -> ApiError {
    unserved(method, uri).await
}

/// The instance that a gateway is for.
impl FromRequestParts<Arc<Gate>> for Instance {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, gate: &Arc<Gate>) -> Result<Self, Infallible> {
        Ok(gate.instance.clone())
    }
}

impl Gate {
    /// The canister that a request means: by its host, else by `canisterId` in its query.
    pub fn canister(&self, host: Option<&str>, query: Option<&str>) -> Option<Principal> {
        let by_host = host.and_then(|host| self.of_host(host));
        by_host.or_else(|| {
            query?
                .split('&')
                .find_map(|pair| pair.strip_prefix("canisterId="))
                .and_then(|text| Principal::from_text(text).ok())
        })
    }

    fn of_host(&self, host: &str) -> Option<Principal> {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        self.domains.iter().find_map(|domain| {
            let label = name.strip_suffix(domain.as_str())?.strip_suffix('.')?;
            let label = label.strip_suffix(".raw").unwrap_or(label);
            Principal::from_text(label).ok()
        })
    }
}

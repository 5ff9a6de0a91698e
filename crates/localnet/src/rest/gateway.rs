//! HTTP gateways: ports on which an instance's canisters answer browsers.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, Path, Request, State},
    http::{Method, StatusCode, Uri, request::Parts},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
    routing::get,
};
use candid::Principal;
use http_body_util::BodyExt;
use ic_http_gateway::{HttpGatewayClient, HttpGatewayClientArgs};
use pocket_ic::common::rest::{
    CreateHttpGatewayResponse, HttpGatewayBackend, HttpGatewayConfig, HttpGatewayDetails,
    HttpGatewayInfo, InstanceId, Topology,
};

use super::{
    api, cors,
    listen::{Activity, Listening},
    loopback, relay,
    server::{Instance, Server},
    shapes::{ApiError, Json, Reply},
    unserved,
};

/// A gateway that listens.
pub struct Gateway {
    pub instance: InstanceId,
    /// As they were asked for.
    domains: Option<Vec<String>>,
    pub listening: Listening,
}

impl Gateway {
    fn details(&self, id: usize) -> HttpGatewayDetails {
        HttpGatewayDetails {
            instance_id: id,
            port: self.listening.address.port(),
            forward_to: HttpGatewayBackend::PocketIcInstance(self.instance),
            domains: self.domains.clone(),
            https_config: None,
        }
    }
}

/// What a gateway's handlers know.
pub struct Gate {
    pub instance: Instance,
    /// Hosts under which canisters are addressed as `CANISTER.DOMAIN` and `CANISTER.raw.DOMAIN`.
    pub domains: Vec<String>,
    /// Verifies what canisters answer.
    pub verifying: HttpGatewayClient,
    /// Takes it as it is.
    pub raw: HttpGatewayClient,
    activity: Arc<Activity>,
}

/// What a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub canister: Principal,
    /// The answer is not to be verified.
    pub raw: bool,
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
    let client = |verifying| {
        let agent = loopback::agent(&instance, verifying)
            .map_err(|error| format!("the gateway has no agent: {error}"))?;
        Ok::<_, String>(HttpGatewayClient::new(HttpGatewayClientArgs { agent }))
    };
    let gate = Arc::new(Gate {
        verifying: client(true)?,
        raw: client(false)?,
        instance,
        domains: config
            .domains
            .clone()
            .unwrap_or_else(|| vec!["localhost".to_owned()]),
        activity: Arc::clone(&server.activity),
    });
    let listening = Listening::start(address, router(gate))
        .await
        .map_err(|error| format!("the gateway cannot listen on {address}: {error}"))?;
    let port = listening.address.port();
    let instance_id = server.add_gateway(Gateway {
        instance: id,
        domains: config.domains,
        listening,
    });
    Ok(HttpGatewayInfo { instance_id, port })
}

pub async fn list(State(server): State<Arc<Server>>) -> Json<Vec<HttpGatewayDetails>> {
    Json(server.gateways(|id, gateway| gateway.details(id)))
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
        .merge(api::routes().with_state(gate.instance.clone()))
        .route("/api/{*rest}", axum::routing::any(no_api))
        .fallback(relay::handle)
        .layer(from_fn_with_state(Arc::clone(&gate), count))
        .layer(from_fn(cors::open_to_all))
        .with_state(gate)
}

/// Counts a request, until its whole body is sent, as work in progress.
async fn count(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let busy = gate.activity.begin();
    next.run(request).await.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &busy;
            frame
        }))
    })
}

async fn topology(State(gate): State<Arc<Gate>>) -> Json<Topology> {
    Json(gate.instance.topology.as_ref().clone())
}

/// A route that agents do not know either.
async fn no_api(method: Method, uri: Uri) -> ApiError {
    unserved(method, uri).await
}

/// The instance that a router is for.
impl FromRequestParts<Self> for Instance {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, instance: &Self) -> Result<Self, Infallible> {
        Ok(instance.clone())
    }
}

impl Gate {
    /// The canister that a request means: by its host, else by `canisterId` in its query.
    pub fn target(&self, host: Option<&str>, query: Option<&str>) -> Option<Target> {
        let label = host.and_then(|host| self.label(host)).unwrap_or_default();
        let (name, raw) = match label.strip_suffix("raw") {
            Some("") => ("", true),
            Some(name) if name.ends_with('.') => (name.trim_end_matches('.'), true),
            _ => (label, false),
        };
        let by_query = || {
            query?
                .split('&')
                .find_map(|pair| pair.strip_prefix("canisterId="))
                .and_then(|text| Principal::from_text(text).ok())
        };
        let canister = Principal::from_text(name).ok().or_else(by_query)?;
        Some(Target { canister, raw })
    }

    /// What stands before the gateway's own domain in a host; nothing where that is the host.
    fn label<'a>(&self, host: &'a str) -> Option<&'a str> {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        self.domains
            .iter()
            .find_map(|domain| name.strip_suffix(domain.as_str())?.strip_suffix('.'))
    }
}

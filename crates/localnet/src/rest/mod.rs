//! The PocketIC protocol over HTTP, for the official clients, and HTTP gateways for browsers.
//!
//! | module | what |
//! | --- | --- |
//! | `engine` | the thread that owns an instance's network |
//! | `server` | what the server keeps: instances, gateways, blobs |
//! | `api` | the Internet Computer's HTTP interface, for agents |
//! | `instances`, `read`, `update`, `blobs`, `snapshots` | the protocol's routes |
//! | `call` | updates and queries, decoded while they arrive |
//! | `accounts`, `faults` | routes of our own: what executions cost, and what shall go wrong |
//! | `verify` | signatures of canisters, for whoever asks |
//! | `live` | one network for the server's whole life |
//! | `shapes` | JSON, errors, ids |
//! | `gateway`, `relay`, `loopback` | gateways, one request through them, their agent |
//! | `cors` | who may ask gateways: every origin |
//! | `listen` | listeners that stop, and when to stop |
//! | `memory` | what the process does with freed memory |
//!
//! Every request is answered when its work is done; nothing is polled. Not served, and said so with
//! status 404: outgoing HTTP.

mod accounts;
mod api;
mod blobs;
mod call;
mod cors;
mod engine;
mod faults;
mod gateway;
mod instances;
mod listen;
mod live;
mod loopback;
mod memory;
mod read;
mod relay;
mod server;
mod shapes;
mod snapshots;
mod update;
mod verify;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{Method, Uri},
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::{get, post},
};

use listen::Listening;
pub use live::Live;
use server::Server;
use shapes::ApiError;

/// The protocol's version, as `--version` prints it.
pub const VERSION: &str = "16.1.0";

/// The most bytes that one request may bring, other than blobs.
const BODY_BYTES_MAX: usize = 64 << 20;

/// How to serve.
#[derive(Debug, Clone)]
pub struct Config {
    /// Port 0 means any.
    pub address: SocketAddr,
    /// The server ends itself when nothing was asked for so long; never, if none.
    pub ttl: Option<Duration>,
    /// A folder in which machine code is kept between processes.
    pub compile_cache: Option<PathBuf>,
}

/// A server that runs. Dropping it ends it, too.
pub struct Running {
    listening: Listening,
    server: Arc<Server>,
    ttl: Option<Duration>,
}

/// Starts a server; it listens when this returns. Fails if the address is taken.
pub async fn serve(config: Config) -> io::Result<Running> {
    memory::keep_freed();
    let server = Arc::new(Server::new(config.compile_cache));
    let listening = Listening::start(config.address, router(Arc::clone(&server))).await?;
    Ok(Running {
        listening,
        server,
        ttl: config.ttl,
    })
}

impl Running {
    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.listening.address
    }

    /// Returns when the server has been idle for its time to live; never, if it has none.
    pub async fn expired(&self) {
        match self.ttl {
            Some(ttl) => self.server.activity.idle_for(ttl).await,
            None => std::future::pending().await,
        }
    }

    /// Stops gateways, instances and the server.
    pub async fn stop(self) {
        for id in 0..self.server.instances().len() {
            self.server.delete_instance(id).await;
        }
        self.listening.stop().await;
    }
}

fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/status", get(|| async {}))
        .route("/blobstore/", post(blobs::store))
        .route("/verify_signature", post(verify::verify_signature))
        .route("/instances", get(instances::list).post(instances::create))
        .route("/instances/{id}", axum::routing::delete(instances::delete))
        .route("/instances/{id}/", axum::routing::delete(instances::delete))
        .nest("/instances/{id}", instance_routes())
        .route("/http_gateway", get(gateway::list).post(gateway::create))
        .route("/http_gateway/{id}/stop", post(gateway::stop))
        .fallback(unserved)
        .method_not_allowed_fallback(unserved)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(&server), count))
        .with_state(server)
}

fn instance_routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/_/topology", get(read::topology))
        .route("/read/topology", get(read::topology))
        .route("/read/get_time", get(read::get_time))
        .route("/read/get_canister_http", get(read::get_canister_http))
        .route("/read/query", post(read::query))
        .route("/read/ingress_status", post(read::ingress_status))
        .route("/read/get_controllers", post(read::get_controllers))
        .route("/read/get_cycles", post(read::get_cycles))
        .route("/read/get_stable_memory", post(read::get_stable_memory))
        .route("/read/get_subnet", post(read::get_subnet))
        .route("/read/pub_key", post(read::pub_key))
        .route("/accounts", get(accounts::read).post(accounts::keep))
        .route("/faults", get(faults::log).post(faults::set))
        .route("/update/delete_subnet", post(faults::delete_subnet))
        .route("/update/tick", post(update::tick))
        .route("/update/set_time", post(update::set_time))
        .route(
            "/update/set_certified_time",
            post(update::set_certified_time),
        )
        .route("/update/submit_ingress_message", post(update::submit))
        .route("/update/await_ingress_message", post(update::await_ingress))
        .route("/update/add_cycles", post(update::add_cycles))
        .route("/update/set_stable_memory", post(update::set_stable_memory))
        .route(
            "/update/canister_snapshot_download",
            post(snapshots::download),
        )
        .route("/update/canister_snapshot_upload", post(snapshots::upload))
        .route(
            "/auto_progress",
            get(update::auto_progress_enabled).post(update::auto_progress),
        )
        .route("/stop_progress", post(update::stop_progress))
        .merge(api::routes())
}

/// What this server has no answer to.
async fn unserved(method: Method, uri: Uri) -> ApiError {
    ApiError::not_found(format!("{method} {} is not served here", uri.path()))
}

/// Counts a request as work in progress, for the time to live.
async fn count(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let _busy = server.activity.begin();
    next.run(request).await
}

//! An agent for an instance of this process, without a connection: how a gateway asks it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{Request, Response},
};
use ic_gateway_agent::{Agent, AgentError, agent::HttpService};
use tower::ServiceExt;

use super::{api, server::Instance};

/// More than any answer has.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The routes for agents, as if they were a server.
struct Loopback(Router);

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loopback")
    }
}

#[async_trait]
impl HttpService for Loopback {
    async fn call<'a>(
        &'a self,
        request: &'a (dyn Fn() -> Result<Request<Bytes>, AgentError> + Send + Sync),
        _max_retries: usize,
        _size_limit: Option<usize>,
    ) -> Result<Response<Bytes>, AgentError> {
        let request = request()?.map(Body::from);
        // Never fails: the routes answer everything.
        let Ok(response) = self.0.clone().oneshot(request).await;
        let (head, body) = response.into_parts();
        let body = to_bytes(body, ANSWER_BYTES_MAX)
            .await
            .map_err(|error| AgentError::InvalidHttpResponse(error.to_string()))?;
        Ok(Response::from_parts(head, body))
    }
}

/// An anonymous agent that believes in the instance's root key.
///
/// `verifying`: whether it checks nodes' signatures under queries, which a network whose clock stands
/// still cannot give for the present.
pub fn agent(instance: &Instance, verifying: bool) -> Result<Agent, AgentError> {
    let routes = api::routes().with_state(instance.clone());
    let agent = Agent::builder()
        .with_url("http://localhost/")
        .with_arc_http_middleware(Arc::new(Loopback(routes)))
        .with_verify_query_signatures(verifying)
        .build()?;
    agent.set_root_key(instance.keys[0].public.clone());
    Ok(agent)
}

//! Calls through an agent: the Internet Computer, or any network that speaks its HTTP interface.

use candid::Principal;
use ic_agent::{Agent, AgentError};

use crate::transport::{CallError, CallErrorKind, Transport};

/// Calls as the agent's identity. Answers are verified: updates by their certificates, queries by the
/// signatures of the nodes that gave them.
#[derive(Clone)]
pub struct AgentTransport {
    agent: Agent,
}

impl AgentTransport {
    /// The agent must know the network's root key: it is the Internet Computer's, unless
    /// [`Agent::fetch_root_key`] has asked a network of one's own.
    pub fn new(agent: Agent) -> Self {
        Self { agent }
    }

    /// For the network at `url`, as nobody: good for queries that anyone may ask. The root key is asked
    /// for where `url` is on this machine (`localhost`), and nowhere else.
    ///
    /// # Errors
    /// When `url` is none, or the network on this machine does not answer.
    pub async fn anonymous(url: &str) -> Result<Self, CallError> {
        let agent = Agent::builder().with_url(url).build()?;
        if is_local(url) {
            agent.fetch_root_key().await?;
        }
        Ok(Self::new(agent))
    }
}

/// Whether a URL is on this machine, where a network has a root key of its own.
fn is_local(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host.split(['/', ':', '?']).next().unwrap_or_default();
    host == "localhost" || host.ends_with(".localhost") || host == "127.0.0.1"
}

impl Transport for AgentTransport {
    async fn query(
        &self,
        canister: Principal,
        method: &str,
        arg: Vec<u8>,
    ) -> Result<Vec<u8>, CallError> {
        let call = self.agent.query(&canister, method).with_arg(arg);
        Ok(call.call().await?)
    }

    async fn update(
        &self,
        canister: Principal,
        method: &str,
        arg: Vec<u8>,
    ) -> Result<Vec<u8>, CallError> {
        let call = self.agent.update(&canister, method).with_arg(arg);
        Ok(call.call_and_wait().await?)
    }
}

impl From<AgentError> for CallError {
    fn from(error: AgentError) -> Self {
        let kind = match &error {
            AgentError::CertifiedReject { reject, .. }
            | AgentError::UncertifiedReject { reject, .. } => {
                let error_code = reject.error_code.as_deref().unwrap_or_default();
                CallErrorKind::of_reject(reject.reject_code as u64, error_code)
            }
            // Nothing came back: calls of this protocol may be made again.
            AgentError::TransportError(_)
            | AgentError::TimeoutWaitingForResponse()
            | AgentError::CertificateOutdated(_) => CallErrorKind::Transient,
            AgentError::SigningError(_) => CallErrorKind::Denied,
            AgentError::HttpError(answer) => {
                CallErrorKind::of_http(answer.status, &String::from_utf8_lossy(&answer.content))
            }
            _ => CallErrorKind::Final,
        };
        // Agents wrap what the connection said in errors that do not repeat it.
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Self { kind, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked_for_its_root_key() {
        for url in [
            "http://localhost:8080",
            "http://a.localhost/x",
            "http://127.0.0.1:1/",
        ] {
            assert!(is_local(url), "{url}");
        }
        for url in [
            "https://icp0.io",
            "https://localhost.icp0.io",
            "https://x.io/?localhost",
        ] {
            assert!(!is_local(url), "{url}");
        }
    }
}

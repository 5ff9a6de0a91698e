//! Calls through an agent: the Internet Computer, or any network that speaks its HTTP interface.

use candid::Principal;
use ic_agent::{
    Agent, AgentError,
    agent::AgentBuilder,
    identity::{BasicIdentity, Secp256k1Identity},
};

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
        Self::connected(url, Agent::builder()).await
    }

    /// As [`AgentTransport::anonymous`], as the identity in a PEM file: an Ed25519 or a secp256k1 key, as `dfx` and `icp`
    /// export them.
    ///
    /// # Errors
    /// As there; for a text that is no such key.
    pub async fn signed(url: &str, pem: &[u8]) -> Result<Self, CallError> {
        let builder = match (
            BasicIdentity::from_pem(pem),
            Secp256k1Identity::from_pem(pem),
        ) {
            (Ok(identity), _) => Agent::builder().with_identity(identity),
            (_, Ok(identity)) => Agent::builder().with_identity(identity),
            (Err(error), _) => {
                return Err(CallError {
                    kind: CallErrorKind::Final,
                    message: format!("this is no Ed25519 or secp256k1 key in PEM: {error}"),
                });
            }
        };
        Self::connected(url, builder).await
    }

    async fn connected(url: &str, builder: AgentBuilder) -> Result<Self, CallError> {
        let agent = builder.with_url(url).build()?;
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
        let message = match &error {
            AgentError::HttpError(answer) => http_message(answer.status, &answer.content),
            _ => whole_message(&error),
        };
        Self { kind, message }
    }
}

/// Agents wrap what the connection said in errors that do not repeat it.
fn whole_message(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    message
}

/// What a network said in place of an answer, in one line that a log can hold.
fn http_message(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(BODY_CHARS_MAX) {
        _ if line.is_empty() => format!("HTTP status {status}"),
        Some((end, _)) => format!("HTTP status {status}: {} …", &line[..end]),
        None => format!("HTTP status {status}: {line}"),
    }
}

/// Characters of an HTTP answer's body that an error keeps.
const BODY_CHARS_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_network_says_is_kept_in_one_line_of_bounded_length() {
        assert_eq!(http_message(404, b""), "HTTP status 404");
        assert_eq!(
            http_message(400, b"too\n  large\n"),
            "HTTP status 400: too large"
        );
        let long = http_message(400, "é".repeat(5_000).as_bytes());
        assert_eq!(long, format!("HTTP status 400: {} …", "é".repeat(500)));
    }

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

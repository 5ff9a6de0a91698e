//! Calls through a PocketIC server: the project's local network, or any other that speaks its protocol.

use std::sync::Arc;

use candid::Principal;
use pocket_ic::{RejectResponse, nonblocking::PocketIc};
use tokio::task::JoinSet;

use crate::transport::{CallError, CallErrorKind, Transport};

/// Calls as `caller` on one instance of a PocketIC server.
#[derive(Clone)]
pub struct PocketTransport {
    pic: Arc<PocketIc>,
    caller: Principal,
}

impl PocketTransport {
    /// Needs the tokio runtime with several threads: the `pocket-ic` crate blocks one while it waits.
    pub fn new(pic: Arc<PocketIc>, caller: Principal) -> Self {
        Self { pic, caller }
    }
}

impl Transport for PocketTransport {
    async fn query(
        &self,
        canister: Principal,
        method: &str,
        arg: Vec<u8>,
    ) -> Result<Vec<u8>, CallError> {
        let (pic, caller, method) = (self.pic.clone(), self.caller, method.to_owned());
        apart(async move { pic.query_call(canister, caller, &method, arg).await }).await
    }

    async fn update(
        &self,
        canister: Principal,
        method: &str,
        arg: Vec<u8>,
    ) -> Result<Vec<u8>, CallError> {
        let (pic, caller, method) = (self.pic.clone(), self.caller, method.to_owned());
        apart(async move { pic.update_call(canister, caller, &method, arg).await }).await
    }
}

/// Runs a call in a task of its own, which ends when nobody waits for it any more: the crate's waiting
/// holds up nobody else, and where it panics, as it does when the server is gone, there is an error
/// instead.
async fn apart(
    call: impl Future<Output = Result<Vec<u8>, RejectResponse>> + Send + 'static,
) -> Result<Vec<u8>, CallError> {
    let mut task = JoinSet::new();
    task.spawn(call);
    match task.join_next().await {
        Some(Ok(answer)) => answer.map_err(CallError::from),
        _ => Err(CallError {
            kind: CallErrorKind::Final,
            message: "the network's server does not answer any more".into(),
        }),
    }
}

impl From<RejectResponse> for CallError {
    fn from(reject: RejectResponse) -> Self {
        let error_code = format!("IC{:04}", reject.error_code as u64);
        let kind = CallErrorKind::of_reject(reject.reject_code as u64, &error_code);
        Self {
            kind,
            message: reject.to_string(),
        }
    }
}

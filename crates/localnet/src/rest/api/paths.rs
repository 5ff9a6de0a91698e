//! Who may read what of the certified state (interface specification, "Request: Read state").

use axum::http::StatusCode;
use candid::Principal;
use ic_certification::Label;

use super::Refusal;
use crate::{
    cert::Path,
    envelope::Request,
    machine::MetadataVisibility,
    network::{MessageId, Network},
};

const PATHS_MAX: usize = 1_000;
const LABELS_MAX: usize = 127;
/// What stands under `/request_status/<id>`.
const OF_MESSAGES: [&[u8]; 5] = [
    b"status",
    b"reply",
    b"reject_code",
    b"reject_message",
    b"error_code",
];
/// What stands under `/canister/<id>` for everybody.
const OF_CANISTERS: [&[u8]; 4] = [
    b"canister_creation_timestamp",
    b"controllers",
    b"last_install_timestamp",
    b"module_hash",
];
/// What stands under `/subnet/<id>`, but for `metrics`, which are read through the subnet's own route.
const OF_SUBNETS: [&[u8]; 3] = [b"public_key", b"canister_ranges", b"type"];

/// What the URL names.
#[derive(Debug, Clone, Copy)]
pub enum Scope {
    Canister(Principal),
    Subnet(Principal),
}

impl Scope {
    pub fn effective(&self) -> Principal {
        match self {
            Self::Canister(id) | Self::Subnet(id) => *id,
        }
    }
}

/// All paths must be ones that this sender may read here.
pub fn check(
    network: &Network,
    request: &Request,
    scope: Scope,
    paths: &[Path],
) -> Result<(), Refusal> {
    if paths.len() > PATHS_MAX {
        return Err(Refusal::bad(format!(
            "the request has {} paths; {PATHS_MAX} are the most",
            paths.len()
        )));
    }
    let mut message = None;
    for path in paths {
        if path.len() > LABELS_MAX {
            return Err(Refusal::bad(format!(
                "a path has {} labels; {LABELS_MAX} are the most",
                path.len()
            )));
        }
        let labels: Vec<&[u8]> = path.iter().map(Label::as_bytes).collect();
        match labels.as_slice() {
            [b"time"] | [b"subnet"] | [b"subnet", _] => {}
            [b"subnet", _, what] if OF_SUBNETS.contains(what) => {}
            [b"subnet", _, b"metrics"] if matches!(scope, Scope::Subnet(_)) => {}
            [b"subnet", _, b"node"]
            | [b"subnet", _, b"node", _]
            | [b"subnet", _, b"node", _, b"public_key"] => {}
            [b"canister_ranges", _] | [b"canister_ranges", _, _] => {}
            [b"api_boundary_nodes", ..] => {}
            [b"canister", id, rest @ ..] => check_canister(network, request, scope, id, rest)?,
            [b"request_status", id, rest @ ..] if message.is_none_or(|one| one == *id) => {
                message = Some(*id);
                check_message(network, request, id, rest)?;
            }
            [b"request_status", ..] => {
                return Err(Refusal::bad("one request reads the status of one message"));
            }
            _ => return Err(no_such_path()),
        }
    }
    Ok(())
}

fn no_such_path() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "Invalid path requested.")
}

fn forbidden(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, message)
}

/// Most is everybody's to read, private custom sections only the
/// controllers'.
fn check_canister(
    network: &Network,
    request: &Request,
    scope: Scope,
    id: &[u8],
    rest: &[&[u8]],
) -> Result<(), Refusal> {
    let canister = Principal::try_from_slice(id)
        .map_err(|error| Refusal::bad(format!("a path has a canister id that is none: {error}")))?;
    match scope {
        Scope::Canister(effective) if effective == canister => {}
        Scope::Canister(effective) => {
            return Err(Refusal::bad(format!(
                "Effective canister id in URL {effective} does not match requested canister id: {canister}."
            )));
        }
        Scope::Subnet(_) => return Err(no_such_path()),
    }
    match rest {
        [what] if OF_CANISTERS.contains(what) => Ok(()),
        [b"metadata", name] => {
            let name = std::str::from_utf8(name)
                .map_err(|_| Refusal::bad("the name of a custom section is not UTF-8"))?;
            let private =
                network.metadata_visibility(&canister, name) == Some(MetadataVisibility::Private);
            let controls = || {
                network
                    .controllers(&canister)
                    .is_some_and(|controllers| controllers.contains(&request.sender()))
            };
            if private && !controls() {
                return Err(forbidden(format!(
                    "Custom section {name:.100} can only be requested by the controllers of the canister."
                )));
            }
            Ok(request.check_target(&canister)?)
        }
        _ => Err(no_such_path()),
    }
}

/// A message's status is for its sender only.
fn check_message(
    network: &Network,
    request: &Request,
    id: &[u8],
    rest: &[&[u8]],
) -> Result<(), Refusal> {
    match rest {
        [] => {}
        [what] if OF_MESSAGES.contains(what) => {}
        _ => return Err(no_such_path()),
    }
    let id: &MessageId = id
        .try_into()
        .map_err(|_| Refusal::bad(format!("a request id has 32 bytes, not {}", id.len())))?;
    let Some(entry) = network.message(id) else {
        return Ok(());
    };
    if entry.sender != request.sender() {
        return Err(forbidden(
            "The user tries to access Request ID not signed by the caller.",
        ));
    }
    request
        .check_target(&entry.canister)
        .map_err(|error| forbidden(error.to_string()))
}

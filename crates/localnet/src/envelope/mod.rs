//! What agents send: a request in an envelope that shows who sends it.
//!
//! Pure: bytes come in, a request whose sender is proven comes out, or the reason why not. The time is
//! checked apart, by [`Request::check_time`], because only the network knows it.

mod signature;
mod webauthn;

pub use signature::verify_canister_signature;

use std::collections::BTreeSet;

use candid::Principal;
use ic_transport_types::{
    DelegationPermissions, Envelope, EnvelopeContent, SenderInfo, SignedDelegation,
};

/// The Internet Computer's limits on an envelope.
const DELEGATIONS_MAX: usize = 20;
const TARGETS_MAX: usize = 1_000;
const NONCE_BYTES_MAX: usize = 32;
/// A request is valid for so long at most, and clocks may differ by so much.
const EXPIRY_MAX_NS: u64 = 300_000_000_000;
const DRIFT_NS: u64 = 30_000_000_000;

/// Why an envelope is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("the request is not CBOR of the envelope's form: {0}")]
    Malformed(String),
    #[error("the nonce has {0} bytes; {NONCE_BYTES_MAX} are the most")]
    NonceTooLong(usize),
    #[error("an anonymous request has neither key nor signature nor delegations")]
    SignedAnonymous,
    #[error("a request of {0} needs sender_pubkey and sender_sig")]
    Unsigned(Principal),
    #[error("the sender {sender} does not belong to the public key, which is that of {owner}")]
    WrongSender { sender: Principal, owner: Principal },
    #[error("there are {0} delegations; {DELEGATIONS_MAX} are the most")]
    TooManyDelegations(usize),
    #[error("a delegation has {0} targets; {TARGETS_MAX} are the most")]
    TooManyTargets(usize),
    #[error("the delegations go in a circle")]
    DelegationCycle,
    #[error("Invalid signature: delegation {index}: {reason}")]
    Delegation { index: usize, reason: String },
    #[error("Invalid signature: {0}")]
    Signature(String),
    #[error("Invalid sender_info: {0}")]
    SenderInfo(String),
    #[error("the delegations do not allow requests to canister {0}")]
    NotATarget(Principal),
    #[error("the delegations allow queries only")]
    QueriesOnly,
    #[error(
        "Invalid request expiry: the time is {now_ns} ns and the request's ingress_expiry {expiry_ns} ns; it must lie at most {EXPIRY_MAX_NS} ns in the future and not in the past"
    )]
    Expiry { now_ns: u64, expiry_ns: u64 },
    #[error(
        "Invalid delegation expiry: the time is {now_ns} ns, a delegation ended at {expiry_ns} ns"
    )]
    DelegationExpired { now_ns: u64, expiry_ns: u64 },
}

/// A request whose sender is known for sure.
#[derive(Debug)]
pub struct Request {
    pub content: EnvelopeContent,
    /// The hash of the content, independent of its encoding.
    pub id: [u8; 32],
    /// The first moment at which a delegation is over; none without delegations.
    delegation_expiry_ns: Option<u64>,
    /// The canisters to which the delegations restrict requests; none where they do not.
    targets: Option<BTreeSet<Principal>>,
    queries_only: bool,
    trusted: bool,
}

impl Request {
    /// Opens an envelope and checks who signed it. `root_key` is the network's, in DER: canisters sign
    /// by its certificates. A `trusted` envelope is believed as it is.
    pub fn open(bytes: &[u8], root_key: &[u8], trusted: bool) -> Result<Self, EnvelopeError> {
        let envelope: Envelope = serde_cbor::from_slice(bytes)
            .map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
        check_form(&envelope.content)?;
        let delegations = envelope.sender_delegation.as_deref().unwrap_or_default();
        if delegations.len() > DELEGATIONS_MAX {
            return Err(EnvelopeError::TooManyDelegations(delegations.len()));
        }
        let id = *envelope.content.to_request_id();
        if !trusted {
            authenticate(&envelope, &id, delegations, root_key)?;
        }
        let delegated = delegations.iter().map(|signed| &signed.delegation);
        Ok(Self {
            id,
            delegation_expiry_ns: delegated.clone().map(|it| it.expiration).min(),
            targets: delegated
                .clone()
                .filter_map(|it| it.targets.as_ref())
                .map(|targets| targets.iter().copied().collect::<BTreeSet<_>>())
                .reduce(|one, other| one.intersection(&other).copied().collect()),
            queries_only: delegated
                .clone()
                .any(|it| matches!(it.permissions, Some(DelegationPermissions::Queries))),
            content: envelope.content.into_owned(),
            trusted,
        })
    }

    pub fn sender(&self) -> Principal {
        *self.content.sender()
    }

    /// Whether the request may be made now. Anonymous queries and reads show nobody's identity and may be
    /// repeated by everybody, so theirs is not asked for.
    pub fn check_time(&self, now_ns: u64) -> Result<(), EnvelopeError> {
        let is_call = matches!(self.content, EnvelopeContent::Call { .. });
        if self.trusted || (!is_call && self.sender() == Principal::anonymous()) {
            return Ok(());
        }
        let expiry_ns = self.content.ingress_expiry();
        let latest_ns = now_ns.saturating_add(EXPIRY_MAX_NS + DRIFT_NS);
        if !(now_ns..=latest_ns).contains(&expiry_ns) {
            return Err(EnvelopeError::Expiry { now_ns, expiry_ns });
        }
        match self.delegation_expiry_ns {
            Some(expiry_ns) if expiry_ns < now_ns => {
                Err(EnvelopeError::DelegationExpired { now_ns, expiry_ns })
            }
            _ => Ok(()),
        }
    }

    /// Whether the delegations allow requests to a canister.
    pub fn check_target(&self, canister: &Principal) -> Result<(), EnvelopeError> {
        match &self.targets {
            Some(targets) if !targets.contains(canister) => {
                Err(EnvelopeError::NotATarget(*canister))
            }
            _ => Ok(()),
        }
    }

    /// Whether the delegations allow more than looking.
    pub fn check_may_change(&self) -> Result<(), EnvelopeError> {
        if self.queries_only {
            Err(EnvelopeError::QueriesOnly)
        } else {
            Ok(())
        }
    }
}

fn check_form(content: &EnvelopeContent) -> Result<(), EnvelopeError> {
    match content {
        EnvelopeContent::Call { nonce, .. } | EnvelopeContent::Query { nonce, .. } => {
            let nonce_bytes = nonce.as_ref().map_or(0, Vec::len);
            if nonce_bytes > NONCE_BYTES_MAX {
                return Err(EnvelopeError::NonceTooLong(nonce_bytes));
            }
            Ok(())
        }
        EnvelopeContent::ReadState { .. } => Ok(()),
    }
}

/// Follows the signatures from the sender's key to the request.
fn authenticate(
    envelope: &Envelope,
    id: &[u8; 32],
    delegations: &[SignedDelegation],
    root_key: &[u8],
) -> Result<(), EnvelopeError> {
    let sender = *envelope.content.sender();
    let said = sender_info(&envelope.content);
    if sender == Principal::anonymous() {
        if said.is_some() {
            return Err(EnvelopeError::SenderInfo("nobody sends it".into()));
        }
        let bare = envelope.sender_pubkey.is_none()
            && envelope.sender_sig.is_none()
            && delegations.is_empty();
        return if bare {
            Ok(())
        } else {
            Err(EnvelopeError::SignedAnonymous)
        };
    }
    let (Some(mut key), Some(sender_sig)) = (
        envelope.sender_pubkey.as_deref(),
        envelope.sender_sig.as_deref(),
    ) else {
        return Err(EnvelopeError::Unsigned(sender));
    };
    let owner = Principal::self_authenticating(key);
    if owner != sender {
        return Err(EnvelopeError::WrongSender { sender, owner });
    }
    if let Some(said) = said {
        check_sender_info(said, key, root_key).map_err(EnvelopeError::SenderInfo)?;
    }
    let mut seen = BTreeSet::from([key]);
    for (index, signed) in delegations.iter().enumerate() {
        let targets = signed.delegation.targets.as_ref().map_or(0, Vec::len);
        if targets > TARGETS_MAX {
            return Err(EnvelopeError::TooManyTargets(targets));
        }
        signature::verify(
            key,
            &signed.delegation.signable(),
            &signed.signature,
            root_key,
        )
        .map_err(|reason| EnvelopeError::Delegation { index, reason })?;
        key = &signed.delegation.pubkey;
        if !seen.insert(key) {
            return Err(EnvelopeError::DelegationCycle);
        }
    }
    let message = [b"\x0Aic-request".as_slice(), id].concat();
    signature::verify(key, &message, sender_sig, root_key).map_err(EnvelopeError::Signature)
}

/// What comes with a request that a canister says of its sender.
fn sender_info(content: &EnvelopeContent) -> Option<&SenderInfo> {
    match content {
        EnvelopeContent::Call { sender_info, .. } | EnvelopeContent::Query { sender_info, .. } => {
            sender_info.as_ref()
        }
        EnvelopeContent::ReadState { .. } => None,
    }
}

/// The canister whose key the sender's is signed it with that key.
fn check_sender_info(said: &SenderInfo, key: &[u8], root_key: &[u8]) -> Result<(), String> {
    let canister = signature::signing_canister(key)
        .ok_or("sender_pubkey is not the key of a canister's signatures")?;
    if canister != said.signer {
        return Err("its signer is not the canister of sender_pubkey".into());
    }
    let message = [b"\x0Eic-sender-info".as_slice(), &said.info].concat();
    signature::verify(key, &message, &said.sig, root_key)
}

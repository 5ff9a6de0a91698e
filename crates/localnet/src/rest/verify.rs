//! Verifying signatures of canisters, for whoever asks: `/verify_signature`.

use pocket_ic::common::rest::RawVerifyCanisterSigArg;

use super::shapes::{ApiError, Json, Reply};
use crate::envelope::verify_canister_signature;

/// The error says why the signature is not that of this key, a canister's, under this root.
pub async fn verify_signature(
    Json(asked): Json<RawVerifyCanisterSigArg>,
) -> Reply<Result<(), String>> {
    let RawVerifyCanisterSigArg {
        msg,
        sig,
        pubkey,
        root_pubkey,
    } = asked;
    // It takes some milliseconds, so it happens where nobody else waits for it.
    let verifying = tokio::task::spawn_blocking(move || {
        verify_canister_signature(&pubkey, &msg, &sig, &root_pubkey)
    });
    Ok(Json(verifying.await.map_err(ApiError::bad)?))
}

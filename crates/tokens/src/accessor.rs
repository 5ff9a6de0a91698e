//! The accessors an issuer may speak for: itself, and the ids derived from it.

use candid::Principal;
use sha2::{Digest, Sha224};

/// The derived id of `issuer` for the name `dn`: `SHA-224(len(issuer) ‖ issuer ‖ dn) ‖ 0x03`, as the
/// Internet Computer's interface specification defines it. Nobody else can have a principal of that
/// form, so whoever knows issuer and name can check the id without any state.
pub fn derived_accessor(issuer: &Principal, dn: &[u8]) -> Principal {
    let mut hash = Sha224::new();
    hash.update([issuer.as_slice().len() as u8]);
    hash.update(issuer.as_slice());
    hash.update(dn);
    let mut id = [3; 29];
    id[..28].copy_from_slice(&hash.finalize());
    Principal::from_slice(&id)
}

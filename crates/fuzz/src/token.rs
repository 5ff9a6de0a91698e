//! Tokens.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use candid::Principal;
use openstorage_tokens::{
    Claims, Expect, Grant, Pair, PairKey, Scope, derived_accessor, issue, parse,
};

const NOW: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;
const BLOB: [u8; 32] = [7; 32];
const DERIVED_NAME: &[u8] = b"chat 1";

/// The first byte says how the rest is read.
///
/// - even: as a token's text; odd: as its bytes. No such token may be authentic, but for those that
///   [`issue`] gives, and what is authentic has one text only.
/// - from 128: as changes to a token that was granted: pairs of place and mask. Not one may pass.
pub fn token(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else {
        return;
    };
    if *how >= 128 {
        return changed(usize::from(*how), rest);
    }
    let text = match how % 2 {
        0 => String::from_utf8_lossy(rest).into_owned(),
        _ => URL_SAFE_NO_PAD.encode(rest),
    };
    for grant in grants() {
        if let Some(claims) = checked(&text, &grant) {
            assert_eq!(text, again(&grant, &claims), "a second text of one token");
        }
    }
}

fn changed(which: usize, changes: &[u8]) {
    let grants = grants();
    let grant = &grants[which % grants.len()];
    let good = issue(&key(), &pair(), grant).expect("a grant of the right form");
    let mut bytes = URL_SAFE_NO_PAD.decode(&good).expect("it is a token");
    let len = bytes.len();
    for change in changes.chunks_exact(2) {
        bytes[usize::from(change[0]) % len] ^= change[1];
    }
    let text = URL_SAFE_NO_PAD.encode(bytes);
    let passes = checked(&text, grant).is_some();
    assert_eq!(passes, text == good, "{text} was never issued");
}

/// What a checker that expects `grant` reads in `text`.
fn checked(text: &str, grant: &Grant) -> Option<Claims> {
    let rights = [Scope::READ, Scope::DELETE_REFERENCE, Scope::DELETE_ACCESSOR];
    let right = rights
        .into_iter()
        .find(|right| grant.scope.contains(*right))?;
    let expect = Expect {
        audience: pair().audience,
        accessor: accessor(grant),
        blob: BLOB,
        owner: grant.owner,
        scope: right,
        now_ms: NOW,
    };
    let token = parse(text).ok()?;
    token.check(&key(), &expect).ok()
}

/// The one text of a token that says `claims`.
fn again(grant: &Grant, claims: &Claims) -> String {
    let grant = Grant {
        principal: claims.principal,
        iat_ms: claims.iat_ms,
        exp_ms: claims.exp_ms,
        ..*grant
    };
    issue(&key(), &pair(), &grant).expect("it was granted before")
}

fn accessor(grant: &Grant) -> Principal {
    let issuer = pair().issuer;
    grant.dn.map_or(issuer, |dn| derived_accessor(&issuer, dn))
}

fn grants() -> [Grant<'static>; 4] {
    let read = Grant {
        scope: Scope::READ,
        dn: None,
        blob: None,
        owner: None,
        principal: Principal::self_authenticating([3]),
        iat_ms: NOW - HOUR,
        exp_ms: NOW + HOUR,
    };
    let derived = Grant {
        dn: Some(DERIVED_NAME),
        ..read
    };
    let delete = Grant {
        scope: Scope::DELETE_REFERENCE.with(Scope::BOUND_TO_BLOB),
        blob: Some(BLOB),
        owner: Some(Principal::self_authenticating([4])),
        iat_ms: NOW,
        ..derived
    };
    let delete_accessor = Grant {
        scope: Scope::DELETE_ACCESSOR,
        iat_ms: NOW,
        ..derived
    };
    [read, derived, delete, delete_accessor]
}

fn pair() -> Pair {
    Pair {
        issuer: Principal::self_authenticating([1]),
        issuer_key_version: 1,
        audience: Principal::self_authenticating([2]),
        audience_key_version: 1,
    }
}

/// Computed once: a fuzzer asks millions of times.
fn key() -> PairKey {
    PairKey::from_bytes(&[5; 96])
}

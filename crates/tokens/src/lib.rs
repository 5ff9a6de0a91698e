//! OS1 access tokens: an issuer (an app's canister) tells an audience (a bucket, or the index) that a
//! principal may do something to what an accessor can see.
//!
//! The principal and the times travel encrypted; the rest stands in the clear and is authenticated.
//! Issuing needs no randomness, so a query can do it, and the same grant always gives the same token.
//!
//! | module | what |
//! | --- | --- |
//! | [`keys`] | X25519 secrets, and the key that a pair of canisters shares |
//! | [`token`] | the bytes of a token: [`issue`], [`parse`], [`Token::check`] |
//! | [`accessor`] | the accessors an issuer may speak for |
//!
//! ```
//! use candid::Principal;
//! use openstorage_tokens::*;
//!
//! let (chat, bucket) = (Principal::from_slice(&[1]), Principal::from_slice(&[2]));
//! let (chat_secret, bucket_secret) = (SecretKey::from_bytes([3; 32]), SecretKey::from_bytes([4; 32]));
//! let pair = Pair { issuer: chat, issuer_key_version: 1, audience: bucket, audience_key_version: 1 };
//!
//! // Both sides compute the same key, each from its own secret and the other's public key.
//! let chat_key = chat_secret.pair(&bucket_secret.public(), &pair).unwrap();
//! let bucket_key = bucket_secret.pair(&chat_secret.public(), &pair).unwrap();
//!
//! let user = Principal::from_slice(&[5]);
//! let grant = Grant { scope: Scope::READ, dn: None, blob: None, owner: None, principal: user, iat_ms: 0, exp_ms: 1_000 };
//! let text = issue(&chat_key, &pair, &grant).unwrap();
//!
//! let expect = Expect { audience: bucket, accessor: chat, blob: [0; 32], owner: None, scope: Scope::READ, now_ms: 10 };
//! let claims = parse(&text).unwrap().check(&bucket_key, &expect).unwrap();
//! assert_eq!(claims.principal, user);
//! ```

pub mod accessor;
pub mod keys;
mod mac;
pub mod token;

pub use accessor::derived_accessor;
pub use keys::{InvalidKey, PAIR_KEY_BYTES, Pair, PairKey, SecretKey};
pub use token::{
    Claims, Expect, Grant, InvalidGrant, Scope, Token, TokenError, issue, parse, read_times,
};

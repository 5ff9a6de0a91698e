//! The bytes of a token.
//!
//! Text: base64url (RFC 4648 §5) without padding, canonical, at most 192 characters. Bytes, numbers
//! big-endian:
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 1 | version: 1 (the accessor is the issuer) or 2 (the accessor is derived from the issuer) |
//! | 1 | 1 | scope: the bits of [`Scope`] |
//! | 2 | 2 | the issuer's key version |
//! | 4 | 2 | the audience's key version |
//! | 6 | 1 + n | version 2 only: length and bytes of the issuer (n ≤ 29) |
//! |  | 1 + d | version 2 only: length and bytes of the derived name `dn` (d ≤ 16) |
//! |  | 24 | nonce |
//! |  | 12 + p + 16 | XChaCha20-Poly1305 of the claims, with its tag |
//!
//! Claims: issue time (6 bytes, ms since 1970), expiry (6 bytes), then the principal (p ≤ 29).
//!
//! Associated data: each of these with its length (4 bytes) before it: the clear bytes before the nonce;
//! the audience; the accessor; the blob id where the scope is bound to a blob, else nothing; the owner
//! where the scope deletes a reference, else nothing.
//!
//! Keys, from the X25519 secret that issuer and audience share: `root = HKDF-SHA-256(shared, no salt,
//! "os1" ‖ len(audience) ‖ audience ‖ len(issuer) ‖ issuer ‖ issuer key version ‖ audience key version)`,
//! 32 bytes; the sealing key is `HMAC-SHA-256(root, "enc")`, the nonce key `HMAC-SHA-256(root, "nonce")`.
//!
//! `nonce = HMAC-SHA-256(nonce key, associated data ‖ claims)[..24]`, and whoever checks computes it
//! anew. A nonce of the claims alone would come twice under different associated data, and two such
//! tokens would let their bearer forge any.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use candid::Principal;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use openstorage_types::{
    bucket::TokenProblem,
    limits::{
        CLOCK_SKEW_MS, DELETE_TOKEN_LIFE_MS, DERIVED_NAME_BYTES_MAX, READ_TOKEN_LIFE_MS,
        READ_TOKEN_WINDOW_MS, TOKEN_CHARS_MAX,
    },
};

use crate::{
    accessor::derived_accessor,
    keys::{Pair, PairKey},
};

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const TIMES_BYTES: usize = 12;
const PRINCIPAL_BYTES_MAX: usize = 29;
/// A time has 48 bits: until the year 10889.
const TIME_MAX_MS: u64 = (1 << 48) - 1;

/// What a token allows: a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope(u8);

impl Scope {
    pub const READ: Self = Self(1);
    /// Of one owner to one blob; a token with it must be bound to the blob.
    pub const DELETE_REFERENCE: Self = Self(2);
    pub const DELETE_ACCESSOR: Self = Self(4);
    /// The token is for one blob only.
    pub const BOUND_TO_BLOB: Self = Self(8);

    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// None for unknown bits, no right at all, or a delete that is not bound to a blob.
    const fn from_bits(bits: u8) -> Option<Self> {
        let scope = Self(bits);
        let rights = bits & !Self::BOUND_TO_BLOB.0;
        let known = bits & !15 == 0;
        let bound = !scope.contains(Self::DELETE_REFERENCE) || scope.contains(Self::BOUND_TO_BLOB);
        if known && rights != 0 && bound {
            Some(scope)
        } else {
            None
        }
    }

    /// The longest that a token of this scope may live.
    const fn life_max_ms(self) -> u64 {
        if self.0 & !Self::BOUND_TO_BLOB.0 == Self::READ.0 {
            READ_TOKEN_LIFE_MS
        } else {
            DELETE_TOKEN_LIFE_MS
        }
    }
}

/// What an issuer grants.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    pub scope: Scope,
    /// The name of a derived accessor; none where the accessor is the issuer itself.
    pub dn: Option<&'a [u8]>,
    /// Needed iff the scope is bound to a blob.
    pub blob: Option<[u8; 32]>,
    /// Of the reference that may be deleted; needed iff the scope says so.
    pub owner: Option<Principal>,
    /// To whom.
    pub principal: Principal,
    /// Issue time, milliseconds since 1970.
    pub iat_ms: u64,
    /// First moment at which the token opens nothing any more.
    pub exp_ms: u64,
}

/// A grant that no token can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidGrant {
    /// Blob or owner do not fit the scope.
    Scope,
    /// The derived name is longer than 16 bytes.
    DerivedName,
    /// Expiry before issue, a longer life than the scope may have, or beyond 48 bits.
    Times,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// Not the form of a token.
    Malformed,
    /// The accessor is neither the token's issuer nor derived from it.
    OtherAccessor,
    /// The token's scope does not contain the right that is needed.
    OtherScope,
    /// Not sealed by the issuer for this audience, accessor, blob and owner.
    NotAuthentic,
    Expired,
    /// Issued in the future, or with a longer life than its scope may have.
    InvalidTimes,
}

/// As it is told to callers: nobody learns for what else a token is good.
impl From<TokenError> for TokenProblem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Malformed => Self::Malformed,
            TokenError::OtherAccessor | TokenError::OtherScope | TokenError::NotAuthentic => {
                Self::NotAuthentic
            }
            TokenError::Expired => Self::Expired,
            TokenError::InvalidTimes => Self::InvalidTimes,
        }
    }
}

/// A token as it can be read without keys. Nothing in it is to be believed before [`Token::check`].
#[derive(Debug, Clone)]
pub struct Token {
    scope: Scope,
    issuer_key_version: u16,
    audience_key_version: u16,
    /// In version 2: the issuer, and the accessor that is derived from it and the name.
    derived: Option<(Principal, Principal)>,
    bytes: Vec<u8>,
    nonce_at: usize,
}

/// What the checker knows and the token must fit.
#[derive(Debug, Clone, Copy)]
pub struct Expect {
    /// The checker itself.
    pub audience: Principal,
    pub accessor: Principal,
    /// The blob in question; looked at only where the token is bound to one.
    pub blob: [u8; 32],
    /// The owner of the reference in question; looked at only where the token deletes one.
    pub owner: Option<Principal>,
    /// The right that is needed.
    pub scope: Scope,
    pub now_ms: u64,
}

/// What a valid token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    pub scope: Scope,
    pub principal: Principal,
    pub iat_ms: u64,
    pub exp_ms: u64,
}

/// Issue time and expiry of a read token asked for now: the start of the window of six hours, or just
/// after the user's last revocation, and 24 hours later. So a page that asks again gets the same URL.
pub fn read_times(now_ms: u64, min_iat_ms: u64) -> (u64, u64) {
    let window = now_ms - now_ms % READ_TOKEN_WINDOW_MS;
    let iat = if min_iat_ms >= window {
        min_iat_ms + 1
    } else {
        window
    };
    (iat, iat + READ_TOKEN_LIFE_MS)
}

/// Seals `grant` for `pair`. The same grant gives the same token.
pub fn issue(key: &PairKey, pair: &Pair, grant: &Grant) -> Result<String, InvalidGrant> {
    let scope = Scope::from_bits(grant.scope.0).ok_or(InvalidGrant::Scope)?;
    if scope.contains(Scope::BOUND_TO_BLOB) != grant.blob.is_some()
        || scope.contains(Scope::DELETE_REFERENCE) != grant.owner.is_some()
    {
        return Err(InvalidGrant::Scope);
    }
    let life = grant
        .exp_ms
        .checked_sub(grant.iat_ms)
        .ok_or(InvalidGrant::Times)?;
    if grant.exp_ms > TIME_MAX_MS || life > scope.life_max_ms() {
        return Err(InvalidGrant::Times);
    }

    let mut bytes = Vec::with_capacity(TOKEN_CHARS_MAX / 4 * 3);
    bytes.extend([if grant.dn.is_some() { 2 } else { 1 }, scope.0]);
    bytes.extend_from_slice(&pair.issuer_key_version.to_be_bytes());
    bytes.extend_from_slice(&pair.audience_key_version.to_be_bytes());
    let accessor = match grant.dn {
        None => pair.issuer,
        Some(dn) if dn.len() > DERIVED_NAME_BYTES_MAX => return Err(InvalidGrant::DerivedName),
        Some(dn) => {
            for part in [pair.issuer.as_slice(), dn] {
                bytes.push(part.len() as u8);
                bytes.extend_from_slice(part);
            }
            derived_accessor(&pair.issuer, dn)
        }
    };
    let mut claims = Vec::with_capacity(TIMES_BYTES + PRINCIPAL_BYTES_MAX);
    claims.extend_from_slice(&grant.iat_ms.to_be_bytes()[2..]);
    claims.extend_from_slice(&grant.exp_ms.to_be_bytes()[2..]);
    claims.extend_from_slice(grant.principal.as_slice());

    let mut aad = associated_data(
        &bytes,
        &pair.audience,
        &accessor,
        grant.blob.as_ref(),
        grant.owner.as_ref(),
    );
    let nonce = nonce(key, &mut aad, &claims);
    let sealed = XChaCha20Poly1305::new(&key.seal.into())
        .encrypt(
            &XNonce::from(nonce),
            Payload {
                msg: &claims,
                aad: &aad,
            },
        )
        .expect("claims are far below the cipher's limit");
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(&sealed);
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Reads the clear part of a token.
pub fn parse(text: &str) -> Result<Token, TokenError> {
    if text.len() > TOKEN_CHARS_MAX {
        return Err(TokenError::Malformed);
    }
    // The engine refuses padding, white space and trailing bits that are not zero.
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| TokenError::Malformed)?;
    parse_bytes(bytes).ok_or(TokenError::Malformed)
}

fn parse_bytes(bytes: Vec<u8>) -> Option<Token> {
    let mut rest = Reader(&bytes);
    let version = rest.byte()?;
    let scope = Scope::from_bits(rest.byte()?)?;
    let issuer_key_version = u16::from_be_bytes(rest.take(2)?.try_into().ok()?);
    let audience_key_version = u16::from_be_bytes(rest.take(2)?.try_into().ok()?);
    let derived = match version {
        1 => None,
        2 => {
            let issuer = rest.with_length(PRINCIPAL_BYTES_MAX)?;
            let dn = rest.with_length(DERIVED_NAME_BYTES_MAX)?;
            let issuer = Principal::from_slice(issuer);
            Some((issuer, derived_accessor(&issuer, dn)))
        }
        _ => return None,
    };
    let nonce_at = bytes.len() - rest.0.len();
    let sealed = rest
        .0
        .len()
        .checked_sub(NONCE_BYTES + TIMES_BYTES + TAG_BYTES)?;
    if sealed > PRINCIPAL_BYTES_MAX {
        return None;
    }
    Some(Token {
        scope,
        issuer_key_version,
        audience_key_version,
        derived,
        bytes,
        nonce_at,
    })
}

impl Token {
    pub fn scope(&self) -> Scope {
        self.scope
    }

    pub fn issuer_key_version(&self) -> u16 {
        self.issuer_key_version
    }

    pub fn audience_key_version(&self) -> u16 {
        self.audience_key_version
    }

    /// Whose key must have sealed the token if it is to speak for `accessor`.
    pub fn issuer_for(&self, accessor: &Principal) -> Result<Principal, TokenError> {
        match &self.derived {
            None => Ok(*accessor),
            Some((issuer, derived)) if derived == accessor => Ok(*issuer),
            Some(_) => Err(TokenError::OtherAccessor),
        }
    }

    /// What the token says, if it was sealed with `key` for exactly what is expected and is in time.
    /// `key` is the one that the audience shares with [`Token::issuer_for`] under the token's key
    /// versions.
    pub fn check(&self, key: &PairKey, expect: &Expect) -> Result<Claims, TokenError> {
        self.issuer_for(&expect.accessor)?;
        if !self.scope.contains(expect.scope) {
            return Err(TokenError::OtherScope);
        }
        let blob = self
            .scope
            .contains(Scope::BOUND_TO_BLOB)
            .then_some(&expect.blob);
        let owner = match (self.scope.contains(Scope::DELETE_REFERENCE), &expect.owner) {
            (false, _) => None,
            (true, Some(owner)) => Some(owner),
            (true, None) => return Err(TokenError::NotAuthentic),
        };
        let (clear, rest) = self.bytes.split_at(self.nonce_at);
        let (nonce_bytes, sealed) = rest.split_at(NONCE_BYTES);
        let mut aad = associated_data(clear, &expect.audience, &expect.accessor, blob, owner);
        let sent = XNonce::try_from(nonce_bytes).expect("24 bytes");
        let claims = XChaCha20Poly1305::new(&key.seal.into())
            .decrypt(
                &sent,
                Payload {
                    msg: sealed,
                    aad: &aad,
                },
            )
            .map_err(|_| TokenError::NotAuthentic)?;
        // Both are known to whoever could seal: nothing secret is compared here.
        if nonce(key, &mut aad, &claims) != nonce_bytes {
            return Err(TokenError::NotAuthentic);
        }
        let time = |at: usize| {
            claims[at..at + 6]
                .iter()
                .fold(0, |time, byte| time << 8 | u64::from(*byte))
        };
        let (iat_ms, exp_ms) = (time(0), time(6));
        if iat_ms > expect.now_ms + CLOCK_SKEW_MS
            || exp_ms.saturating_sub(iat_ms) > self.scope.life_max_ms()
        {
            return Err(TokenError::InvalidTimes);
        }
        if exp_ms <= expect.now_ms {
            return Err(TokenError::Expired);
        }
        Ok(Claims {
            scope: self.scope,
            principal: Principal::from_slice(&claims[TIMES_BYTES..]),
            iat_ms,
            exp_ms,
        })
    }
}

fn associated_data(
    clear: &[u8],
    audience: &Principal,
    accessor: &Principal,
    blob: Option<&[u8; 32]>,
    owner: Option<&Principal>,
) -> Vec<u8> {
    let blob = blob.map_or(&[][..], |blob| blob);
    let owner = owner.map_or(&[][..], |owner| owner.as_slice());
    // The claims follow, when the nonce is computed.
    let claims = TIMES_BYTES + PRINCIPAL_BYTES_MAX;
    let mut data = Vec::with_capacity(clear.len() + 3 * PRINCIPAL_BYTES_MAX + 52 + claims);
    for part in [clear, audience.as_slice(), accessor.as_slice(), blob, owner] {
        data.extend_from_slice(&(part.len() as u32).to_be_bytes());
        data.extend_from_slice(part);
    }
    data
}

/// Leaves the associated data as it was.
fn nonce(key: &PairKey, aad: &mut Vec<u8>, claims: &[u8]) -> [u8; NONCE_BYTES] {
    let len = aad.len();
    aad.extend_from_slice(claims);
    let nonce = key.nonce.of(aad);
    aad.truncate(len);
    nonce[..NONCE_BYTES].try_into().expect("24 of 32 bytes")
}

/// Takes bytes from the front, never more than there are.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn with_length(&mut self, max: usize) -> Option<&'a [u8]> {
        let len = usize::from(self.byte()?);
        if len <= max { self.take(len) } else { None }
    }
}

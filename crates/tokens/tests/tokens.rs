//! What a token must survive, and what it must not.

use candid::Principal;
use openstorage_tokens::*;
use openstorage_types::limits::{CLOCK_SKEW_MS, HOUR_MS, READ_TOKEN_LIFE_MS, TOKEN_CHARS_MAX};
use proptest::prelude::*;

const NOW: u64 = 1_700_000_000_000;

fn principal(n: u8) -> Principal {
    Principal::self_authenticating([n])
}

fn pair() -> Pair {
    Pair {
        issuer: principal(1),
        issuer_key_version: 1,
        audience: principal(2),
        audience_key_version: 1,
    }
}

fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn key() -> PairKey {
    secret(1).pair(&secret(2).public(), &pair()).unwrap()
}

fn read_grant(dn: Option<&[u8]>) -> Grant<'_> {
    let (iat_ms, exp_ms) = read_times(NOW, 0);
    Grant {
        scope: Scope::READ,
        dn,
        blob: None,
        owner: None,
        principal: principal(3),
        iat_ms,
        exp_ms,
    }
}

fn delete_grant(dn: Option<&[u8]>) -> Grant<'_> {
    Grant {
        scope: Scope::DELETE_REFERENCE.with(Scope::BOUND_TO_BLOB),
        dn,
        blob: Some([7; 32]),
        owner: Some(principal(4)),
        principal: principal(3),
        iat_ms: NOW,
        exp_ms: NOW + HOUR_MS,
    }
}

fn expect(grant: &Grant) -> Expect {
    let rights = [Scope::READ, Scope::DELETE_REFERENCE, Scope::DELETE_ACCESSOR];
    Expect {
        audience: pair().audience,
        accessor: grant
            .dn
            .map_or(pair().issuer, |dn| derived_accessor(&pair().issuer, dn)),
        blob: grant.blob.unwrap_or([9; 32]),
        owner: grant.owner,
        scope: rights
            .into_iter()
            .find(|right| grant.scope.contains(*right))
            .unwrap(),
        now_ms: NOW,
    }
}

fn check(text: &str, expect: &Expect) -> Result<Claims, TokenError> {
    parse(text)?.check(&key(), expect)
}

#[test]
fn both_sides_of_a_pair_have_one_key_and_no_other_pair_has_it() {
    assert_eq!(key(), secret(2).pair(&secret(1).public(), &pair()).unwrap());
    for other in [
        Pair {
            issuer: principal(8),
            ..pair()
        },
        Pair {
            audience: principal(8),
            ..pair()
        },
        Pair {
            issuer_key_version: 2,
            ..pair()
        },
        Pair {
            audience_key_version: 2,
            ..pair()
        },
    ] {
        assert_ne!(key(), secret(1).pair(&secret(2).public(), &other).unwrap());
    }
    assert_eq!(secret(1).pair(&[0; 32], &pair()), Err(InvalidKey));
    assert_eq!(PairKey::from_bytes(&key().to_bytes()), key());
}

#[test]
fn a_token_says_what_was_granted_and_always_reads_the_same() {
    for grant in [
        read_grant(None),
        read_grant(Some(b"12345678")),
        delete_grant(None),
        delete_grant(Some(&[0; 16])),
    ] {
        let text = issue(&key(), &pair(), &grant).unwrap();
        assert!(text.len() <= TOKEN_CHARS_MAX, "{} characters", text.len());
        assert_eq!(text, issue(&key(), &pair(), &grant).unwrap());
        let claims = check(&text, &expect(&grant)).unwrap();
        assert_eq!(
            claims,
            Claims {
                scope: grant.scope,
                principal: grant.principal,
                iat_ms: grant.iat_ms,
                exp_ms: grant.exp_ms
            }
        );
    }
}

#[test]
fn a_token_opens_nothing_else() {
    use TokenError::*;
    for dn in [None, Some(&b"room"[..])] {
        let grant = delete_grant(dn);
        let text = issue(&key(), &pair(), &grant).unwrap();
        let right = expect(&grant);
        let wrong_accessor = if dn.is_some() {
            OtherAccessor
        } else {
            NotAuthentic
        };
        assert_eq!(
            check(
                &text,
                &Expect {
                    accessor: principal(9),
                    ..right
                }
            ),
            Err(wrong_accessor)
        );
        assert_eq!(
            check(
                &text,
                &Expect {
                    audience: principal(9),
                    ..right
                }
            ),
            Err(NotAuthentic)
        );
        assert_eq!(
            check(
                &text,
                &Expect {
                    blob: [8; 32],
                    ..right
                }
            ),
            Err(NotAuthentic)
        );
        assert_eq!(
            check(
                &text,
                &Expect {
                    owner: Some(principal(9)),
                    ..right
                }
            ),
            Err(NotAuthentic)
        );
        assert_eq!(
            check(
                &text,
                &Expect {
                    owner: None,
                    ..right
                }
            ),
            Err(NotAuthentic)
        );
        assert_eq!(
            check(
                &text,
                &Expect {
                    scope: Scope::READ,
                    ..right
                }
            ),
            Err(OtherScope)
        );
        assert_eq!(
            check(
                &text,
                &Expect {
                    now_ms: grant.exp_ms - 1,
                    ..right
                }
            )
            .map(|_| ()),
            Ok(())
        );
        assert_eq!(
            check(
                &text,
                &Expect {
                    now_ms: grant.exp_ms,
                    ..right
                }
            ),
            Err(Expired)
        );
        assert_eq!(
            check(
                &text,
                &Expect {
                    now_ms: grant.iat_ms - CLOCK_SKEW_MS,
                    ..right
                }
            )
            .map(|_| ()),
            Ok(())
        );
        assert_eq!(
            check(
                &text,
                &Expect {
                    now_ms: grant.iat_ms - CLOCK_SKEW_MS - 1,
                    ..right
                }
            ),
            Err(InvalidTimes)
        );
        let other = secret(3).pair(&secret(2).public(), &pair()).unwrap();
        assert_eq!(
            parse(&text).unwrap().check(&other, &right),
            Err(NotAuthentic)
        );
    }
}

#[test]
fn every_single_changed_bit_is_noticed() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    for grant in [read_grant(None), delete_grant(Some(b"room"))] {
        let bytes = URL_SAFE_NO_PAD
            .decode(issue(&key(), &pair(), &grant).unwrap())
            .unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(
                check(&URL_SAFE_NO_PAD.encode(changed), &expect(&grant)).is_err(),
                "bit {bit}"
            );
        }
        for len in 0..bytes.len() {
            assert!(
                check(&URL_SAFE_NO_PAD.encode(&bytes[..len]), &expect(&grant)).is_err(),
                "{len} bytes"
            );
        }
    }
}

#[test]
fn only_the_canonical_text_is_a_token() {
    let grant = read_grant(Some(b"1234567"));
    let text = issue(&key(), &pair(), &grant).unwrap();
    assert!(
        !text.len().is_multiple_of(4),
        "this token's last character has spare bits"
    );
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (head, last) = text.split_at(text.len() - 1);
    for c in alphabet.chars().filter(|c| !last.contains(*c)) {
        assert!(
            check(&format!("{head}{c}"), &expect(&grant)).is_err(),
            "{c}"
        );
    }
    for junk in [
        format!("{text}="),
        format!(" {text}"),
        format!("{text}\n"),
        "A".repeat(65_536),
        String::new(),
    ] {
        assert!(matches!(parse(&junk), Err(TokenError::Malformed)));
    }
}

#[test]
fn what_no_token_may_carry_is_not_issued() {
    let issue = |grant: &Grant| issue(&key(), &pair(), grant).map(|_| ());
    let read = read_grant(None);
    let delete = delete_grant(None);
    assert_eq!(
        issue(&Grant {
            exp_ms: read.iat_ms - 1,
            ..read
        }),
        Err(InvalidGrant::Times)
    );
    assert_eq!(
        issue(&Grant {
            exp_ms: read.exp_ms + 1,
            ..read
        }),
        Err(InvalidGrant::Times)
    );
    assert_eq!(
        issue(&Grant {
            exp_ms: delete.exp_ms + 1,
            ..delete
        }),
        Err(InvalidGrant::Times)
    );
    assert_eq!(
        issue(&Grant {
            iat_ms: 1 << 48,
            exp_ms: 1 << 48,
            ..read
        }),
        Err(InvalidGrant::Times)
    );
    assert_eq!(
        issue(&Grant {
            blob: None,
            ..delete
        }),
        Err(InvalidGrant::Scope)
    );
    assert_eq!(
        issue(&Grant {
            owner: None,
            ..delete
        }),
        Err(InvalidGrant::Scope)
    );
    assert_eq!(
        issue(&Grant {
            scope: Scope::DELETE_REFERENCE,
            blob: None,
            ..delete
        }),
        Err(InvalidGrant::Scope)
    );
    assert_eq!(
        issue(&Grant {
            scope: Scope::BOUND_TO_BLOB,
            owner: None,
            ..delete
        }),
        Err(InvalidGrant::Scope)
    );
    assert_eq!(
        issue(&Grant {
            blob: Some([0; 32]),
            ..read
        }),
        Err(InvalidGrant::Scope)
    );
    assert_eq!(
        issue(&Grant {
            dn: Some(&[0; 17]),
            ..read
        }),
        Err(InvalidGrant::DerivedName)
    );
}

#[test]
fn a_read_token_stays_the_same_for_a_window_and_lives_18_hours_at_least() {
    let window = NOW - NOW % (6 * HOUR_MS);
    assert_eq!(
        read_times(window, 0),
        read_times(window + 6 * HOUR_MS - 1, 0)
    );
    let (iat, exp) = read_times(window + 6 * HOUR_MS - 1, 0);
    assert!(exp - (window + 6 * HOUR_MS - 1) >= 18 * HOUR_MS && exp - iat == READ_TOKEN_LIFE_MS);
    assert_eq!(
        read_times(NOW, NOW),
        (NOW + 1, NOW + 1 + READ_TOKEN_LIFE_MS)
    );
}

/// A second implementation must print the same tokens from the same keys and grants.
#[test]
fn the_committed_vectors_hold() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("vectors.json")).unwrap();
    let hex = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
    for vector in vectors.as_array().unwrap() {
        let principal = |name: &str| Principal::from_text(vector[name].as_str().unwrap()).unwrap();
        let secret = |name: &str| SecretKey::from_bytes(hex(&vector[name]).try_into().unwrap());
        let pair = Pair {
            issuer: principal("issuer"),
            issuer_key_version: vector["issuer_key_version"].as_u64().unwrap() as u16,
            audience: principal("audience"),
            audience_key_version: vector["audience_key_version"].as_u64().unwrap() as u16,
        };
        let key = secret("issuer_secret")
            .pair(&secret("audience_secret").public(), &pair)
            .unwrap();
        let dn = vector["dn"].as_str().map(|dn| hex::decode(dn).unwrap());
        let bits = vector["scope"].as_u64().unwrap();
        let all = [
            Scope::READ,
            Scope::DELETE_REFERENCE,
            Scope::DELETE_ACCESSOR,
            Scope::BOUND_TO_BLOB,
        ];
        let scope = all
            .into_iter()
            .enumerate()
            .filter(|(i, _)| bits >> i & 1 == 1)
            .map(|(_, scope)| scope);
        let grant = Grant {
            scope: scope.reduce(Scope::with).unwrap(),
            dn: dn.as_deref(),
            blob: vector["blob"]
                .as_str()
                .map(|blob| hex::decode(blob).unwrap().try_into().unwrap()),
            owner: vector["owner"].as_str().map(|_| principal("owner")),
            principal: principal("principal"),
            iat_ms: vector["iat_ms"].as_u64().unwrap(),
            exp_ms: vector["exp_ms"].as_u64().unwrap(),
        };
        assert_eq!(
            issue(&key, &pair, &grant).unwrap(),
            vector["token"].as_str().unwrap()
        );
    }
}

proptest! {
    #[test]
    fn no_text_brings_the_parser_down(text in ".{0,220}", bytes in prop::collection::vec(any::<u8>(), 0..160)) {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        for text in [text, URL_SAFE_NO_PAD.encode(bytes)] {
            if let Ok(token) = parse(&text) {
                prop_assert!(token.check(&key(), &expect(&read_grant(None))).is_err());
            }
        }
    }
}

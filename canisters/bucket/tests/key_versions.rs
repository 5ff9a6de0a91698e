//! Keys of the bucket and of issuers: which tokens are believed when there are several.

mod support;

use openstorage_tokens::{Grant, Pair, Scope, SecretKey, issue};
use openstorage_types::{
    BlobId,
    bucket::{ReadChunkArgs, ReadChunkError, TokenProblem},
    channel::{
        IssuerRemoved, IssuerUpserted, OldKey, PublicKey, RevokeKeyError, RotateKeyError, kind,
    },
    limits::{HOUR_MS, KEY_LIFE_MS, KEY_OVERLAP_MS},
};
use support::*;

/// A secret of its own for each version.
fn secret(of: u8, version: u16) -> [u8; 32] {
    [of + version as u8; 32]
}

const ISSUER: u8 = 100;
const BUCKET: u8 = 200;

fn issuer_key(version: u16) -> PublicKey {
    PublicKey {
        version,
        bytes: BlobId(SecretKey::from_bytes(secret(ISSUER, version)).public()),
    }
}

/// The index tells of an issuer's keys, the newest first.
fn trust(world: &mut World, newest: u16, older: &[(u16, u64)]) {
    let older = older.iter().map(|(version, until_ms)| OldKey {
        key: issuer_key(*version),
        until_ms: *until_ms,
    });
    let told = IssuerUpserted {
        issuer: chat(),
        key: issuer_key(newest),
        older: Some(older.collect()),
    };
    world.tell(kind::ISSUER_UPSERTED, &told);
}

/// What becomes of a token that was issued just now under these versions.
fn open(world: &World, issuer: u16, own_version: u16) -> Result<(), TokenProblem> {
    let pair = Pair {
        issuer: chat(),
        issuer_key_version: issuer,
        audience: own(),
        audience_key_version: own_version,
    };
    let public = SecretKey::from_bytes(secret(BUCKET, own_version)).public();
    let key = SecretKey::from_bytes(secret(ISSUER, issuer));
    let key = key.pair(&public, &pair).expect("a shared key");
    let grant = Grant {
        scope: Scope::READ,
        dn: None,
        blob: None,
        owner: None,
        principal: alice(),
        iat_ms: world.now.ms,
        exp_ms: world.now.ms + HOUR_MS,
    };
    let args = ReadChunkArgs {
        blob_id: blob_id(b"nothing"),
        accessor_id: chat(),
        token: issue(&key, &pair, &grant).expect("a valid grant"),
        chunk_index: 0,
    };
    match world.bucket.read_chunk(&alice(), &args, world.now) {
        Err(ReadChunkError::NotFound) => Ok(()),
        Err(ReadChunkError::InvalidToken(problem)) => Err(problem),
        other => panic!("{other:?}"),
    }
}

fn with_keys() -> World {
    let mut world = World::empty(None);
    world.bucket.set_secret(secret(BUCKET, 1), world.now);
    trust(&mut world, 1, &[]);
    world
}

const REFUSED: Result<(), TokenProblem> = Err(TokenProblem::UnknownIssuer);

#[test]
fn a_replaced_key_of_an_issuer_is_believed_until_it_lapses_or_is_revoked() {
    let mut world = with_keys();
    assert_eq!((open(&world, 1, 1), open(&world, 2, 1)), (Ok(()), REFUSED));
    let until_ms = world.now.ms + 1_000;
    trust(&mut world, 2, &[(1, until_ms)]);
    for _ in 0..2 {
        assert_eq!((open(&world, 1, 1), open(&world, 2, 1)), (Ok(()), Ok(())));
        world.upgrade();
    }
    world.pass(1_000);
    assert_eq!((open(&world, 1, 1), open(&world, 2, 1)), (REFUSED, Ok(())));
    trust(&mut world, 3, &[(2, until_ms + 1_000)]);
    assert_eq!((open(&world, 2, 1), open(&world, 3, 1)), (Ok(()), Ok(())));
    trust(&mut world, 3, &[]);
    world.upgrade();
    assert_eq!((open(&world, 2, 1), open(&world, 3, 1)), (REFUSED, Ok(())));
    let issuer = chat();
    world.tell(kind::ISSUER_REMOVED, &IssuerRemoved { issuer });
    assert_eq!(open(&world, 3, 1), REFUSED);
}

#[test]
fn another_key_of_the_same_version_takes_the_place_of_the_one_before() {
    let mut world = with_keys();
    let told = IssuerUpserted {
        issuer: chat(),
        key: PublicKey {
            version: 1,
            ..issuer_key(9)
        },
        older: None,
    };
    world.tell(kind::ISSUER_UPSERTED, &told);
    assert_eq!(open(&world, 1, 1), Err(TokenProblem::NotAuthentic));
}

#[test]
fn a_replaced_key_of_the_bucket_is_believed_until_it_lapses_or_is_revoked() {
    let mut world = with_keys();
    let refused = world.bucket.rotate_key(false, world.now);
    assert_eq!(refused, Err(RotateKeyError::NotAuthorized));
    // Bytes that nobody has asked for change nothing.
    world.bucket.set_secret(secret(BUCKET, 2), world.now);
    assert_eq!(open(&world, 1, 2), REFUSED);
    world.bucket.rotate_key(true, world.now).unwrap();
    world.upgrade();
    assert_eq!(world.bucket.secret_due_ms(), 0);
    world.drain();
    world.bucket.set_secret(secret(BUCKET, 2), world.now);
    let report = world.bucket.next_batch(2).expect("a report").args.report;
    let report = report.expect("a bucket reports");
    assert_eq!(report.key, world.bucket.status().key);
    assert_eq!(report.key.map(|key| key.version), Some(2));
    assert_eq!(report.oldest_key_version, Some(1));
    assert_eq!((open(&world, 1, 1), open(&world, 1, 2)), (Ok(()), Ok(())));
    world.pass(KEY_OVERLAP_MS - 1);
    assert_eq!(open(&world, 1, 1), Ok(()));
    world.pass(1);
    assert_eq!((open(&world, 1, 1), open(&world, 1, 2)), (REFUSED, Ok(())));

    world.bucket.rotate_key(true, world.now).unwrap();
    world.bucket.set_secret(secret(BUCKET, 3), world.now);
    assert_eq!((open(&world, 1, 2), open(&world, 1, 3)), (Ok(()), Ok(())));
    let refused = world.bucket.revoke_key(false, 2);
    assert_eq!(refused, Err(RevokeKeyError::NotAuthorized));
    let refused = world.bucket.revoke_key(true, 3);
    assert_eq!(refused, Err(RevokeKeyError::CurrentKey { version: 3 }));
    world.drain();
    for _ in 0..2 {
        world.bucket.revoke_key(true, 2).unwrap();
        assert_eq!((open(&world, 1, 2), open(&world, 1, 3)), (REFUSED, Ok(())));
        world.upgrade();
    }
    let report = world.bucket.next_batch(3).expect("a report").args.report;
    assert_eq!(
        report.expect("a bucket reports").oldest_key_version,
        Some(3)
    );
}

#[test]
fn a_new_key_is_told_when_every_issuer_can_use_it_and_versions_are_few() {
    let mut world = with_keys();
    for n in 0..50 {
        let told = IssuerUpserted {
            issuer: principal(n),
            key: issuer_key(1),
            older: None,
        };
        world.tell(kind::ISSUER_UPSERTED, &told);
    }
    let version = |world: &World| world.bucket.status().key.map(|key| key.version);
    world.bucket.rotate_key(true, world.now).unwrap();
    world.bucket.set_secret(secret(BUCKET, 2), world.now);
    let mut slices = 0;
    while world.bucket.is_deriving() {
        assert_eq!(version(&world), Some(1));
        world.upgrade();
        world.bucket.derive_slice();
        slices += 1;
    }
    assert_eq!((version(&world), slices), (Some(2), 2));
    assert_eq!(open(&world, 1, 2), Ok(()));

    world.bucket.rotate_key(true, world.now).unwrap();
    world.bucket.set_secret(secret(BUCKET, 3), world.now);
    let max = 3;
    let ms = world.now.ms + KEY_OVERLAP_MS;
    let too_many = world.bucket.rotate_key(true, world.now);
    assert_eq!(
        too_many,
        Err(RotateKeyError::TooManyKeyVersions { max, ms })
    );
    // One after the other.
    assert_eq!(world.bucket.secret_due_ms(), u64::MAX);
    while world.bucket.is_deriving() {
        world.bucket.derive_slice();
    }
    assert_eq!(world.bucket.secret_due_ms(), world.now.ms + KEY_LIFE_MS);
}

//! Issuers: whose tokens are believed, and what they may delete.

mod support;

use std::collections::BTreeSet;

use candid::Principal;
use data_bucket_index::Context;
use data_bucket_index::agenda::Job;
use data_bucket_index::trust::{Origin, Registration, is_of};
use openstorage_tokens::derived_accessor;
use openstorage_types::{
    BlobId,
    bucket::TokenProblem,
    channel::{
        AccessorDeleted, IssuerUpserted, OldKey, PublicKey, RevokeKeyError, RotateKeyError, kind,
    },
    index::{
        BucketKey, BucketKeysArgs, BucketKeysError, DeleteChatArgs, DeleteChatError, Issuer,
        IssuerError, RegisterIssuerArgs, RevokeIssuerKeyArgs,
    },
    limits::{HOUR_MS, KEY_LIFE_MS, KEY_OVERLAP_MS, READ_TOKEN_LIFE_MS},
};
use support::*;

const ROOM: &[u8] = b"room 1";

fn with_secret() -> World {
    let mut world = World::empty();
    world.index.set_secret(SECRET, START_MS);
    world
}

#[test]
fn a_canister_registers_itself_once_its_controllers_are_checked() {
    let mut world = with_secret();
    let context = world.context(chat());
    assert_eq!(
        world.index.register_issuer(&context, &registration()),
        Ok(Registration::CheckOrigin(chat()))
    );
    assert!(world.index.issuers().is_empty(), "not before the check");
    let ok = world
        .index
        .trust_issuer(&context, chat(), chat_key())
        .unwrap();
    assert_eq!(
        world.index.register_issuer(&context, &registration()),
        Ok(Registration::Done(ok)),
        "again needs no check"
    );
    world.upgrade();
    let known = Issuer {
        issuer: chat(),
        key: chat_key(),
    };
    assert_eq!(world.index.issuers(), [known]);
}

#[test]
fn who_may_not_register_an_issuer_is_refused() {
    let mut world = with_secret();
    let for_chat = RegisterIssuerArgs {
        issuer: Some(chat()),
        key: chat_key(),
    };
    let person = world.context(alice());
    assert_eq!(
        world.index.register_issuer(&person, &registration()),
        Err(IssuerError::NotAuthorized)
    );
    let other = world.context(canister(51));
    assert_eq!(
        world.index.register_issuer(&other, &for_chat),
        Err(IssuerError::NotAuthorized)
    );
    let admin = world.context(admin());
    let done = world.index.register_issuer(&admin, &for_chat);
    assert!(matches!(done, Ok(Registration::Done(_))), "{done:?}");
}

#[test]
fn a_key_must_be_one_and_of_the_first_version() {
    let mut world = World::empty();
    let context = world.context(operator());
    let with_key = |version, bytes| RegisterIssuerArgs {
        issuer: Some(chat()),
        key: PublicKey {
            version,
            bytes: BlobId(bytes),
        },
    };
    let good = chat_key().bytes.0;
    assert_eq!(
        world.index.register_issuer(&context, &with_key(1, good)),
        Err(IssuerError::KeysNotReady)
    );
    world.index.set_secret(SECRET, START_MS);
    assert_eq!(
        world.index.register_issuer(&context, &with_key(2, good)),
        Err(IssuerError::InvalidKeyVersion { expected: 1 })
    );
    assert_eq!(
        world.index.register_issuer(&context, &with_key(1, [0; 32])),
        Err(IssuerError::InvalidKey)
    );
    assert!(world.index.issuers().is_empty());
}

#[test]
fn an_issuer_is_removed_by_itself_or_an_admin() {
    let mut world = World::new(0);
    let person = world.context(alice());
    assert_eq!(
        world.index.remove_issuer(&person, chat()),
        Err(IssuerError::NotAuthorized)
    );
    let itself = world.context(chat());
    for _ in 0..2 {
        assert_eq!(world.index.remove_issuer(&itself, chat()), Ok(()));
    }
    assert!(world.index.issuers().is_empty());
    assert!(!world.index.is_service(&itself));
    world.trust_chat_under(2);
    let admin = world.context(admin());
    assert_eq!(world.index.remove_issuer(&admin, chat()), Ok(()));
    assert!(world.index.issuers().is_empty());
}

/// An issuer registers itself every hour. Whom an admin has removed stays out, also one that was being looked at
/// meanwhile, or had removed itself before.
#[test]
fn whom_an_admin_removed_only_an_admin_registers_again() {
    let mut world = World::new(0);
    let (itself, admin) = (world.context(chat()), world.context(admin()));
    world.index.remove_issuer(&itself, chat()).unwrap();
    // What was sealed before stays closed: the key of before does not come back.
    let expected = IssuerError::InvalidKeyVersion { expected: 2 };
    let same = world.index.register_issuer(&itself, &registration());
    assert_eq!(same, Err(expected));
    let key = PublicKey {
        version: 2,
        ..chat_key()
    };
    let next = RegisterIssuerArgs { issuer: None, key };
    assert_eq!(
        world.index.register_issuer(&itself, &next),
        Ok(Registration::CheckOrigin(chat())),
        "who went by itself comes back"
    );
    world.index.remove_issuer(&admin, chat()).unwrap();
    world.upgrade();
    let refused = Err(IssuerError::NotAuthorized);
    let looked_at = world.index.trust_issuer(&itself, chat(), key);
    assert_eq!(looked_at, refused);
    let again = world.index.register_issuer(&itself, &next);
    assert_eq!(again, Err(IssuerError::NotAuthorized));
    let by_admin = RegisterIssuerArgs {
        issuer: Some(chat()),
        key,
    };
    world.index.register_issuer(&admin, &by_admin).unwrap();
    let again = world.index.register_issuer(&itself, &next);
    assert_eq!(oldest(again), Some(2), "it seals with the new key alone");
}

/// The oldest version with which an issuer that is trusted may seal.
fn oldest(answer: Result<Registration, IssuerError>) -> Option<u16> {
    match answer {
        Ok(Registration::Done(ok)) => ok.oldest_version,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_canister_is_whose_it_is_alone_and_who_put_its_code_in() {
    let nobody = Principal::anonymous();
    let ours = [operator(), admin(), nobody];
    let is_ours = |controllers: &[Principal], deployed_by: Option<Principal>| {
        let controllers = controllers.to_vec();
        let origin = Origin {
            controllers,
            deployed_by,
        };
        is_of(&chat(), &origin, &ours)
    };
    assert!(is_ours(&[operator()], Some(operator())));
    assert!(is_ours(&[admin(), chat()], Some(operator())));
    // Anybody may name our operator as a controller beside itself, or hand a canister over with its own code.
    assert!(!is_ours(&[operator(), alice()], Some(operator())));
    assert!(!is_ours(&[operator()], Some(alice())));
    assert!(!is_ours(&[operator()], Some(chat())));
    assert!(!is_ours(&[operator()], None));
    assert!(!is_ours(&[alice()], Some(alice())));
    assert!(!is_ours(&[nobody], Some(nobody)));
}

fn deletion(world: &World, user: Principal) -> DeleteChatArgs {
    DeleteChatArgs {
        chat_id: derived_accessor(&chat(), ROOM),
        token: world.deletion_token(user, ROOM),
    }
}

#[test]
fn a_chat_is_deleted_once_by_the_bearer_of_its_token() {
    let mut world = World::new(1);
    world.drain(canister(1));
    let args = deletion(&world, alice());
    let thief = world.context(principal(2));
    assert_eq!(
        world.index.delete_chat(&thief, &args),
        Err(DeleteChatError::NotAuthorized)
    );
    let context = world.context(alice());
    for _ in 0..3 {
        assert_eq!(world.index.delete_chat(&context, &args), Ok(()));
        world.upgrade();
    }
    let events = world.drain(canister(1));
    let deleted = AccessorDeleted {
        accessor_id: args.chat_id,
    };
    let expected = flat(&[event(kind::ACCESSOR_DELETED, &deleted)]);
    assert_eq!(events, expected, "buckets hear of it once");
}

#[test]
fn a_deletion_token_is_for_its_chat_and_its_hour() {
    let mut world = World::new(0);
    let context = world.context(alice());
    let good = deletion(&world, alice());
    let problem = |world: &mut World, args: &DeleteChatArgs| {
        let now = data_bucket_index::Context {
            now_ms: world.now_ms,
            ..context
        };
        match world.index.delete_chat(&now, args) {
            Err(DeleteChatError::InvalidToken(problem)) => problem,
            other => panic!("{other:?}"),
        }
    };
    let mut other = good.clone();
    other.chat_id = derived_accessor(&chat(), b"room 2");
    assert_eq!(problem(&mut world, &other), TokenProblem::NotAuthentic);
    let mut broken = good.clone();
    broken.token.truncate(20);
    assert_eq!(problem(&mut world, &broken), TokenProblem::Malformed);
    world.now_ms += HOUR_MS;
    assert_eq!(problem(&mut world, &good), TokenProblem::Expired);
    world.now_ms -= HOUR_MS;
    let itself = world.context(chat());
    world.index.remove_issuer(&itself, chat()).unwrap();
    assert_eq!(problem(&mut world, &good), TokenProblem::UnknownIssuer);
    let mut bare = World::empty();
    assert_eq!(problem(&mut bare, &good), TokenProblem::KeysNotReady);
}

#[test]
fn a_buckets_key_is_told_once_it_has_reported_it() {
    let mut world = World::new(1);
    let ask = |world: &World, n| {
        world.index.bucket_keys(&BucketKeysArgs {
            bucket: canister(n),
        })
    };
    assert_eq!(ask(&world, 9), Err(BucketKeysError::NotFound));
    assert_eq!(ask(&world, 1), Err(BucketKeysError::KeysNotReady));
    world.report(canister(1), 0, BUCKET_BYTES);
    world.upgrade();
    let expected = BucketKey {
        version: 1,
        bytes: chat_key().bytes,
        oldest_version: Some(1),
    };
    assert_eq!(ask(&world, 1), Ok(expected));
}

/// Another key of the chat.
fn chat_key_of(version: u16) -> RegisterIssuerArgs {
    let secret = openstorage_tokens::SecretKey::from_bytes([version as u8; 32]);
    let bytes = BlobId(secret.public());
    let key = PublicKey { version, bytes };
    RegisterIssuerArgs { issuer: None, key }
}

#[test]
fn an_issuer_replaces_its_key_and_buckets_hear_of_all_that_count() {
    let mut world = World::new(1);
    world.drain(canister(1));
    let itself = world.context(chat());
    let second = chat_key_of(2);
    // It is trusted: its controllers are not looked at again.
    let done = world.index.register_issuer(&itself, &second);
    assert_eq!(oldest(done), Some(1));
    world.upgrade();
    let done = world.index.register_issuer(&itself, &second);
    assert_eq!(oldest(done), Some(1));
    // Soon a token under the first key would not open for its whole life.
    let later = Context {
        now_ms: itself.now_ms + KEY_OVERLAP_MS - READ_TOKEN_LIFE_MS,
        ..itself
    };
    let done = world.index.register_issuer(&later, &second);
    assert_eq!(oldest(done), Some(2));
    let old = OldKey {
        key: chat_key(),
        until_ms: itself.now_ms + KEY_OVERLAP_MS,
    };
    let told = IssuerUpserted {
        issuer: chat(),
        key: second.key,
        older: Some(vec![old]),
    };
    let expected = flat(&[event(kind::ISSUER_UPSERTED, &told)]);
    assert_eq!(world.drain(canister(1)), expected);
    // The first key, and one that skips a version, are not taken.
    for key in [registration(), chat_key_of(4)] {
        assert_eq!(
            world.index.register_issuer(&itself, &key),
            Err(IssuerError::InvalidKeyVersion { expected: 3 })
        );
    }
    // Another key of the newest version is of a canister that was made anew: its controllers count.
    let mut other = chat_key_of(9);
    other.key.version = 2;
    assert_eq!(
        world.index.register_issuer(&itself, &other),
        Ok(Registration::CheckOrigin(chat()))
    );

    let third = chat_key_of(3);
    world.index.register_issuer(&itself, &third).unwrap();
    let max = 3;
    let ms = itself.now_ms + KEY_OVERLAP_MS;
    assert_eq!(
        world.index.register_issuer(&itself, &chat_key_of(4)),
        Err(IssuerError::TooManyKeyVersions {
            max,
            ms,
            oldest: Some(1)
        })
    );
    world.drain(canister(1));
    let revoke = |world: &mut World, caller, version| {
        let context = world.context(caller);
        let issuer = Some(chat());
        let args = RevokeIssuerKeyArgs { issuer, version };
        world.index.revoke_issuer_key(&context, &args)
    };
    let refused = revoke(&mut world, alice(), 1);
    assert_eq!(refused, Err(RevokeKeyError::NotAuthorized));
    let refused = revoke(&mut world, chat(), 3);
    assert_eq!(refused, Err(RevokeKeyError::CurrentKey { version: 3 }));
    for version in [1, 1, 2] {
        assert_eq!(revoke(&mut world, admin(), version), Ok(()));
    }
    let events = world.drain(canister(1));
    assert_eq!(events.len(), 2, "buckets hear of each once");
    let told = IssuerUpserted {
        issuer: chat(),
        key: third.key,
        older: None,
    };
    assert_eq!(events[1], flat(&[event(kind::ISSUER_UPSERTED, &told)])[0]);
}

/// What the index says to a token that deletes a room, sealed for a version of its key.
fn delete_under(world: &mut World, version: u16) -> Result<(), TokenProblem> {
    delete_between(world, (1, version))
}

/// With a token under these versions of the chat's key and the index's.
fn delete_between(world: &mut World, versions: (u16, u16)) -> Result<(), TokenProblem> {
    let context = world.context(alice());
    let args = DeleteChatArgs {
        chat_id: derived_accessor(&chat(), ROOM),
        token: world.deletion_token_under(alice(), ROOM, versions),
    };
    match world.index.delete_chat(&context, &args) {
        Ok(()) => Ok(()),
        Err(DeleteChatError::InvalidToken(problem)) => Err(problem),
        Err(error) => panic!("{error:?}"),
    }
}

const REFUSED: Result<(), TokenProblem> = Err(TokenProblem::UnknownIssuer);

/// The version that issuers are told.
fn told(world: &World) -> Option<u16> {
    world.index.status().key.map(|key| key.version)
}

fn rotate(world: &mut World) {
    let context = world.context(admin());
    world.index.rotate_key(&context).expect("the admin may");
}

#[test]
fn a_replaced_key_of_the_index_is_believed_until_it_lapses_or_is_revoked() {
    let mut world = World::new(0);
    let stranger = world.context(alice());
    let refused = world.index.rotate_key(&stranger);
    assert_eq!(refused, Err(RotateKeyError::NotAuthorized));
    // Bytes that nobody has asked for change nothing.
    world.index.set_secret(secret(2), world.now_ms);
    assert_eq!(delete_under(&mut world, 2), REFUSED);
    rotate(&mut world);
    world.upgrade();
    assert_eq!(world.index.secret_due_ms(), 0);
    world.index.set_secret(secret(2), world.now_ms);
    assert_eq!(world.trust_chat().index_key.version, 2);
    for _ in 0..2 {
        assert_eq!(delete_under(&mut world, 1), Ok(()));
        assert_eq!(delete_under(&mut world, 2), Ok(()));
        world.upgrade();
    }
    world.now_ms += KEY_OVERLAP_MS - 1;
    assert_eq!(delete_under(&mut world, 1), Ok(()));
    world.now_ms += 1;
    assert_eq!(delete_under(&mut world, 1), REFUSED);
    assert_eq!(delete_under(&mut world, 2), Ok(()));

    rotate(&mut world);
    world.index.set_secret(secret(3), world.now_ms);
    assert_eq!(delete_under(&mut world, 2), Ok(()));
    let refused = world.index.revoke_key(&stranger, 2);
    assert_eq!(refused, Err(RevokeKeyError::NotAuthorized));
    let admin = world.context(admin());
    let refused = world.index.revoke_key(&admin, 3);
    assert_eq!(refused, Err(RevokeKeyError::CurrentKey { version: 3 }));
    for _ in 0..2 {
        assert_eq!(world.index.revoke_key(&admin, 2), Ok(()));
        assert_eq!(delete_under(&mut world, 2), REFUSED);
        assert_eq!(delete_under(&mut world, 3), Ok(()));
        world.upgrade();
    }
    // A month later there is a new one anyway.
    let due_ms = world.now_ms + KEY_LIFE_MS;
    assert_eq!(world.index.secret_due_ms(), due_ms);
}

#[test]
fn a_new_key_of_the_index_is_told_when_every_issuer_can_use_it() {
    let mut world = World::new(0);
    let context = world.context(operator());
    for n in 51..=100 {
        let trusted = world.index.trust_issuer(&context, canister(n), chat_key());
        trusted.expect("the operator may");
    }
    rotate(&mut world);
    world.index.set_secret(secret(2), world.now_ms);
    // Another is wanted, and waits.
    rotate(&mut world);
    let mut slices = 0;
    while world.index.is_deriving() {
        assert_eq!(told(&world), Some(1));
        world.index.set_secret(secret(3), world.now_ms);
        let jobs = world.index.agenda(world.now_ms, &BTreeSet::new()).jobs;
        assert!(jobs.contains(&Job::DeriveKeys) && !jobs.contains(&Job::DrawSecret));
        world.upgrade();
        world.index.derive_slice();
        slices += 1;
    }
    assert_eq!((told(&world), slices), (Some(2), 2));
    assert_eq!(delete_under(&mut world, 2), Ok(()));
    let jobs = world.index.agenda(world.now_ms, &BTreeSet::new()).jobs;
    assert!(jobs.contains(&Job::DrawSecret) && !jobs.contains(&Job::DeriveKeys));
    world.index.set_secret(secret(3), world.now_ms);
    while world.index.is_deriving() {
        world.index.derive_slice();
    }
    assert_eq!(told(&world), Some(3));
    let context = world.context(admin());
    let (max, ms) = (3, world.now_ms + KEY_OVERLAP_MS);
    assert_eq!(
        world.index.rotate_key(&context),
        Err(RotateKeyError::TooManyKeyVersions { max, ms })
    );
    // Who comes now shares one with every version.
    let again = world.context(operator());
    assert_eq!(world.index.remove_issuer(&again, chat()), Ok(()));
    assert_eq!(world.trust_chat_under(2).index_key.version, 3);
    for version in 1..=3 {
        assert_eq!(delete_between(&mut world, (2, version)), Ok(()));
        assert_eq!(delete_between(&mut world, (1, version)), REFUSED);
    }
    // Nothing is left of an issuer that is removed, under any version.
    assert_eq!(world.index.remove_issuer(&context, chat()), Ok(()));
    for version in 1..=3 {
        assert_eq!(delete_between(&mut world, (2, version)), REFUSED);
    }
}

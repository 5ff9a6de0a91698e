//! References: who may make and remove them, and that a blob lives as long as it has one.

mod support;

use candid::Principal;
use data_bucket::Stop;
use openstorage_types::{
    BlobReference,
    bucket::{
        AddBlobReferenceArgs, AddBlobReferenceError, MyBlobsArgs, PushChunkError,
        RemoveBlobReferenceArgs, RemoveBlobReferenceError, TokenProblem,
    },
    channel::{self, Counters, LeaseOk, kind},
    limits::{
        BYTES_PER_REFERENCE, HOUR_MS, NAME_BYTES_MAX, PAGE_ROWS_MAX, REFERENCE_BYTES_MIN,
        REFERENCES_MIN, charge, references_max,
    },
};
use support::*;

fn forward(token: String, data: &[u8], to: Principal) -> AddBlobReferenceArgs {
    AddBlobReferenceArgs {
        blob_id: blob_id(data),
        accessor_ids: vec![to],
        mime_type: "image/gif".into(),
        name: None,
        from_accessor: chat(),
        token,
    }
}

fn removal(data: &[u8], owner: Principal, token: Option<String>) -> RemoveBlobReferenceArgs {
    RemoveBlobReferenceArgs {
        blob_id: blob_id(data),
        accessor_id: chat(),
        owner,
        token,
    }
}

#[test]
fn whoever_may_read_a_blob_may_forward_it_and_pays_for_it() {
    let mut world = World::new();
    let data = bytes(3_000_000, 3);
    world.upload(alice(), &data);
    let args = forward(world.read_token(bob()), &data, principal(50));
    let (now, bucket) = (world.now, &mut world.bucket);

    let thief = bucket.add_blob_reference(alice(), &args, now);
    assert_eq!(thief, Err(AddBlobReferenceError::NotAuthorized.into()));
    let given = bucket.add_blob_reference(bob(), &args, now);
    let reference = BlobReference {
        blob_id: blob_id(&data),
        bucket: own(),
        size: 3_000_000,
        mime_type: "image/gif".into(),
    };
    assert_eq!(given, Ok(reference.clone()));
    assert_eq!(
        bucket.add_blob_reference(bob(), &args, now),
        Ok(reference),
        "again is no error"
    );
    assert_eq!(world.figures(), [1, 2, 0, 3_000_000, 0]);
    assert_eq!(world.charged(bob()), Some(3_000_000));
}

#[test]
fn a_forward_that_breaks_a_rule_is_told_which() {
    let mut world = World::new();
    let data = bytes(300, 3);
    world.upload(alice(), &data);
    let args = forward(world.read_token(bob()), &data, principal(50));
    let now = world.now;
    let mut refusal = |caller, change: &dyn Fn(&mut AddBlobReferenceArgs)| {
        let mut args = args.clone();
        change(&mut args);
        match world.bucket.add_blob_reference(caller, &args, now) {
            Err(Stop::Error(error)) => error,
            other => panic!("no refusal: {other:?}"),
        }
    };
    use AddBlobReferenceError::*;
    assert_eq!(refusal(Principal::anonymous(), &|_| {}), NotAuthorized);
    assert_eq!(refusal(principal(99), &|_| {}), NotRegistered);
    assert_eq!(
        refusal(bob(), &|args| args.accessor_ids.clear()),
        InvalidAccessors { max: 32 }
    );
    assert_eq!(
        refusal(bob(), &|args| args.mime_type.clear()),
        InvalidMimeType { max: 127 }
    );
    let name = "x".repeat(NAME_BYTES_MAX + 1);
    let max = NAME_BYTES_MAX as u32;
    assert_eq!(
        refusal(bob(), &|args| args.name = Some(name.clone())),
        InvalidName { max }
    );
    assert_eq!(
        refusal(bob(), &|args| args.token.clear()),
        InvalidToken(TokenProblem::Malformed)
    );
    // The chat's token says nothing about what others see.
    assert_eq!(
        refusal(bob(), &|args| args.from_accessor = principal(51)),
        InvalidToken(TokenProblem::UnknownIssuer)
    );
    assert_eq!(refusal(bob(), &|args| args.blob_id.0[0] ^= 1), NotFound);
    let deleted = channel::AccessorDeleted {
        accessor_id: principal(50),
    };
    world.tell(kind::ACCESSOR_DELETED, &deleted);
    let gone = world.bucket.add_blob_reference(bob(), &args, now);
    assert_eq!(
        gone,
        Err(AccessorDeleted {
            accessor_id: principal(50)
        }
        .into())
    );
}

#[test]
fn a_forward_beyond_the_lease_asks_the_index_first() {
    let mut world = World::empty(None);
    world.bucket.set_secret(SECRET, world.now);
    world.lease(alice(), 2_000);
    world.lease(bob(), 10);
    world.tell(
        kind::ISSUER_UPSERTED,
        &channel::IssuerUpserted {
            issuer: chat(),
            key: chat_key(),
            older: None,
        },
    );
    let data = bytes(300, 3);
    world.upload(alice(), &data);
    let args = forward(world.read_token(bob()), &data, principal(50));
    match world.bucket.add_blob_reference(bob(), &args, world.now) {
        Err(Stop::Lease(lease)) => {
            assert_eq!((lease.user, lease.wanted), (bob(), charge(300, 1) - 10))
        }
        other => panic!("no shortage: {other:?}"),
    }
    assert_eq!(world.figures(), [1, 1, 0, 300, 0]);
}

#[test]
fn the_last_reference_takes_the_blob_along() {
    let mut world = World::new();
    let data = bytes(3_000_000, 3);
    world.upload(alice(), &data);
    world.upload(bob(), &data);
    let now = world.now;
    for _ in 0..2 {
        // Removing what is not there is no error.
        world
            .bucket
            .remove_blob_reference(alice(), &removal(&data, alice(), None), now)
            .unwrap();
        assert_eq!(world.figures(), [1, 1, 0, 3_000_000, 0]);
        assert_eq!(world.charged(alice()), Some(0));
    }
    world
        .bucket
        .remove_blob_reference(bob(), &removal(&data, bob(), None), now)
        .unwrap();
    assert_eq!(world.figures(), [0; 5]);
    // A new life, with the same bytes.
    world.upload(alice(), &data);
    assert_eq!(world.figures(), [1, 1, 0, 3_000_000, 0]);
}

#[test]
fn others_delete_with_a_token_for_exactly_this_reference() {
    let mut world = World::new();
    let data = bytes(300, 3);
    let id = world.upload(alice(), &data);
    world.pass(HOUR_MS);
    let now = world.now;
    let token = world.delete_token(bob(), alice(), id);
    let mut remove = |caller, owner, token: Option<String>| {
        let args = removal(&data, owner, token);
        world.bucket.remove_blob_reference(caller, &args, now)
    };
    use RemoveBlobReferenceError::*;
    assert_eq!(
        remove(Principal::anonymous(), alice(), Some(token.clone())),
        Err(NotAuthorized)
    );
    assert_eq!(remove(bob(), alice(), None), Err(NotAuthorized));
    assert_eq!(
        remove(principal(3), alice(), Some(token.clone())),
        Err(NotAuthorized)
    );
    assert_eq!(
        remove(bob(), principal(3), Some(token.clone())),
        Err(InvalidToken(TokenProblem::NotAuthentic))
    );
    assert_eq!(remove(bob(), alice(), Some(token)), Ok(()));
    assert_eq!(world.figures(), [0; 5]);
}

#[test]
fn a_read_token_deletes_nothing() {
    let mut world = World::new();
    let data = bytes(300, 3);
    world.upload(alice(), &data);
    let args = removal(&data, alice(), Some(world.read_token(bob())));
    assert_eq!(
        world.bucket.remove_blob_reference(bob(), &args, world.now),
        Err(RemoveBlobReferenceError::InvalidToken(
            TokenProblem::NotAuthentic
        ))
    );
}

#[test]
fn an_old_delete_token_does_not_kill_a_new_reference() {
    let mut world = World::new();
    let data = bytes(300, 3);
    let id = world.upload(alice(), &data);
    let token = world.delete_token(bob(), alice(), id);
    let args = removal(&data, alice(), Some(token));
    world
        .bucket
        .remove_blob_reference(bob(), &args, world.now)
        .unwrap();
    world.pass(1);
    world.upload(alice(), &data);
    assert_eq!(
        world.bucket.remove_blob_reference(bob(), &args, world.now),
        Err(RemoveBlobReferenceError::TokenOlderThanReference)
    );
}

#[test]
fn a_deleted_accessor_loses_all_in_slices_and_never_gets_anything_again() {
    let mut world = World::new();
    const BLOBS: u64 = 1_200;
    for i in 0..BLOBS {
        world.upload(alice(), &i.to_be_bytes());
    }
    let deleted = channel::AccessorDeleted {
        accessor_id: chat(),
    };
    world.tell(kind::ACCESSOR_DELETED, &deleted);
    let mut slices = 0;
    while world.bucket.is_deleting() {
        world.bucket.delete_slice(world.now);
        world.upgrade();
        slices += 1;
    }
    assert_eq!(world.figures(), [0; 5]);
    assert_eq!(slices, 3, "of 500 references each");
    assert_eq!(
        world.refusal(alice(), &chunk(&[1], 0)),
        PushChunkError::AccessorDeleted {
            accessor_id: chat()
        }
    );
}

#[test]
fn an_upload_for_an_accessor_that_goes_meanwhile_is_dropped_at_its_end() {
    let mut world = World::new();
    let data = bytes(3_000_000, 3);
    world.push(alice(), &chunk(&data, 0)).unwrap();
    let deleted = channel::AccessorDeleted {
        accessor_id: chat(),
    };
    world.tell(kind::ACCESSOR_DELETED, &deleted);
    let mut last = chunk(&data, 1);
    last.accessor_ids = vec![principal(50)];
    // Another accessor lives: the upload is worth something.
    world.push(alice(), &last).unwrap();
    assert_eq!(world.figures(), [1, 1, 0, 3_000_000, 0]);
    let info = world.bucket.blob_info(&alice(), &blob_id(&data)).unwrap();
    assert_eq!(info.references[0].accessor_id, principal(50));
}

#[test]
fn a_user_sees_its_own_blobs_page_by_page() {
    let mut world = World::new();
    let mut ids: Vec<_> = (0..5u8).map(|i| world.upload(alice(), &[i])).collect();
    world.upload(bob(), &[0]);
    ids.sort();
    let page = |after, limit| -> Vec<_> {
        let args = MyBlobsArgs { after, limit };
        let page = world.bucket.my_blobs(&alice(), &args);
        page.into_iter().map(|info| info.blob_id).collect()
    };
    assert_eq!(page(None, 3), ids[..3]);
    assert_eq!(page(Some(ids[2]), 3), ids[3..]);
    assert!(page(Some(ids[4]), 3).is_empty());
    assert!(page(None, 0).is_empty());
    let info = world.bucket.blob_info(&alice(), &ids[0]).unwrap();
    assert_eq!((info.size, info.references.len()), (1, 1));
    assert_eq!(info.references[0].created_ms, START_MS);
}

/// How many references there may be follows from the limit, whatever was leased before it was lowered.
#[test]
fn a_user_has_as_many_references_as_its_limit_allows() {
    let mut world = World::new();
    let byte_limit = 5 * BYTES_PER_REFERENCE;
    let answer = LeaseOk {
        incarnation: 1,
        byte_limit,
        counters: Counters {
            granted: 1_000_000_000,
            ..Counters::default()
        },
        gone: None,
        version: 5,
    };
    world.bucket.leased(alice(), &answer, world.now);
    let max = references_max(byte_limit);
    assert_eq!(max, REFERENCES_MIN + 5);
    let accessor = |n: u64| Principal::self_authenticating(n.to_le_bytes());
    let push = |world: &mut World, accessors: Vec<Principal>| {
        let mut args = chunk(&[], 0);
        args.accessor_ids = accessors;
        world.push(alice(), &args)
    };
    for n in 0..max - 1 {
        push(&mut world, vec![accessor(n)]).unwrap();
    }
    let last = accessor(max - 1);
    let refused = Err(PushChunkError::TooManyReferences { max }.into());
    assert_eq!(push(&mut world, vec![last, accessor(max)]), refused);
    // What is there already, or named twice, counts once.
    push(&mut world, vec![accessor(0), last, last]).unwrap();
    world.upgrade();
    push(&mut world, vec![accessor(0)]).unwrap();
    assert_eq!(push(&mut world, vec![accessor(max)]), refused);
    assert_eq!(world.figures()[1], max);
    let gone = RemoveBlobReferenceArgs {
        accessor_id: accessor(1),
        ..removal(&[], alice(), None)
    };
    world
        .bucket
        .remove_blob_reference(alice(), &gone, world.now)
        .unwrap();
    push(&mut world, vec![chat()]).unwrap();
    let args = forward(world.read_token(alice()), &[], accessor(max));
    let refused = world.bucket.add_blob_reference(alice(), &args, world.now);
    assert_eq!(
        refused,
        Err(AddBlobReferenceError::TooManyReferences { max }.into())
    );
    // Others are not concerned.
    let mut args = chunk(&[], 0);
    args.accessor_ids = vec![accessor(max)];
    world.push(bob(), &args).unwrap();
    // Of one blob's references an answer has the first thousand.
    let info = world.bucket.blob_info(&alice(), &blob_id(&[])).unwrap();
    assert_eq!(info.references.len(), PAGE_ROWS_MAX as usize);
}

/// Each reference has its price, the empty blob's too; what a user is charged does not depend on the order in which
/// they came and go, and all of it comes back.
#[test]
fn references_have_a_price() {
    let mut world = World::new();
    let accessor = |n: u8| principal(100 + n);
    let small = [
        (vec![], REFERENCE_BYTES_MIN),
        (bytes(10, 1), REFERENCE_BYTES_MIN),
        (bytes(5_000, 2), 5_000),
    ];
    let mut charged = 0;
    for (data, first) in &small {
        world.upload(alice(), data);
        charged += first;
        assert_eq!(world.charged(alice()), Some(charged));
        // Three more, one of which is there and one named twice.
        let mut more = chunk(data, 0);
        more.accessor_ids = vec![chat(), accessor(1), accessor(1), accessor(2)];
        world.push(alice(), &more).unwrap();
        charged += 2 * REFERENCE_BYTES_MIN;
        let args = forward(world.read_token(alice()), data, accessor(3));
        let given = world.bucket.add_blob_reference(alice(), &args, world.now);
        assert!(given.is_ok());
        charged += REFERENCE_BYTES_MIN;
        assert_eq!(world.charged(alice()), Some(charged));
        assert_eq!(
            charge(data.len() as u64, 4),
            first + 3 * REFERENCE_BYTES_MIN
        );
        world.audit();
    }
    for (data, _) in &small {
        for accessor_id in [chat(), accessor(2), accessor(1), accessor(3)] {
            let args = RemoveBlobReferenceArgs {
                accessor_id,
                ..removal(data, alice(), None)
            };
            world
                .bucket
                .remove_blob_reference(alice(), &args, world.now)
                .unwrap();
            world.audit();
        }
    }
    assert_eq!(world.charged(alice()), Some(0));
    assert_eq!(world.figures(), [0; 5]);
}

/// The empty blob for many accessors: the lease is short before the feed is full of them.
#[test]
fn references_to_the_empty_blob_are_paid_for() {
    let mut world = World::empty(None);
    world.bucket.set_secret(SECRET, world.now);
    world.lease(alice(), 3 * REFERENCE_BYTES_MIN);
    let mut args = chunk(&[], 0);
    args.accessor_ids = (0..4)
        .map(principal)
        .map(Principal::self_authenticating)
        .collect();
    let lease = world.shortage(alice(), &args);
    assert_eq!(lease.wanted, REFERENCE_BYTES_MIN);
    args.accessor_ids.pop();
    world.push(alice(), &args).unwrap();
    args.accessor_ids = vec![chat()];
    assert_eq!(world.shortage(alice(), &args).wanted, REFERENCE_BYTES_MIN);
    world.audit();
}

//! Bad inputs: each has its typed answer, and leaves nothing behind.

use candid::{Encode, Principal, decode_one, encode_one};
use integration_tests::{
    Setup, blob_id, bucket, bytes, chat, chunk, index, no_growth, operator, user,
};
use openstorage_types::{
    BlobId,
    bucket::*,
    channel::PublicKey,
    index::{
        AllocatedBucketArgs, AllocatedBucketError, InitArgs as IndexInit, IssuerError,
        RegisterIssuerArgs, RegisterIssuerOk, UserArgs,
    },
    limits::{ACCESSORS_MAX, BLOB_BYTES_MAX, CHAT_PREMIUM_USER_BYTES, CHAT_USER_BYTES},
};
use openstorage_universal::{Call, Program, WASM};

#[test]
fn a_push_that_breaks_a_rule_is_told_which() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    bucket::ensure_registered(&setup, setup.bucket, alice).unwrap();
    let small = bytes(100, 1);
    let large = bytes(4_000_001, 2);
    let accessor = room.accessor_id;
    let push = |args| bucket::push_chunk(&setup, setup.bucket, alice, args);

    let args = chunk(&small, 0, accessor);
    setup.turned_away(setup.bucket, user(9), "push_chunk", (args,));
    assert_eq!(
        bucket::ensure_registered(&setup, setup.bucket, user(9)),
        Err(EnsureRegisteredError::NotRegistered)
    );

    let with = |change: &dyn Fn(&mut PushChunkArgs)| {
        let mut args = chunk(&large, 0, accessor);
        change(&mut args);
        push(args).unwrap_err()
    };
    use PushChunkError::*;
    assert_eq!(
        with(&|args| args.size = u64::MAX),
        BlobTooLarge {
            max: BLOB_BYTES_MAX
        }
    );
    assert_eq!(
        with(&|args| args.chunk_index = 3),
        InvalidChunkIndex { count: 3 }
    );
    assert_eq!(
        with(&|args| args.bytes.truncate(5)),
        InvalidChunkLength {
            expected: 2_000_000
        }
    );
    assert_eq!(
        with(&|args| args.accessor_ids.clear()),
        InvalidAccessors { max: 32 }
    );
    assert_eq!(
        with(&|args| args.accessor_ids = (0..33).map(user).collect()),
        InvalidAccessors { max: 32 }
    );
    assert_eq!(
        with(&|args| args.accessor_ids.push(Principal::anonymous())),
        InvalidAccessors { max: 32 }
    );
    assert_eq!(
        with(&|args| args.accessor_ids.push(Principal::management_canister())),
        InvalidAccessors { max: 32 }
    );
    assert_eq!(
        with(&|args| args.mime_type = "image/png\r\nX: y".into()),
        InvalidMimeType { max: 127 }
    );
    assert_eq!(
        with(&|args| args.name = Some("x".repeat(1_025))),
        InvalidName { max: 1_024 }
    );
    assert_eq!(bucket::status(&setup, setup.bucket).open_uploads, 0);

    push(chunk(&large, 0, accessor)).unwrap();
    assert_eq!(
        with(&|args| args.size -= 1),
        SessionMismatch {
            size: large.len() as u64
        }
    );
    assert_eq!(with(&|args| args.bytes[7] ^= 1), ChunkConflict);
    push(chunk(&large, 0, accessor)).expect("the same chunk again is no error");
    bucket::abort_upload(
        &setup,
        setup.bucket,
        alice,
        UploadArgs {
            blob_id: blob_id(&large),
        },
    )
    .unwrap();
    let status = bucket::status(&setup, setup.bucket);
    assert_eq!(
        (
            status.open_uploads,
            status.bytes_reserved,
            status.bytes_stored
        ),
        (0, 0, 0)
    );
}

#[test]
fn bytes_that_do_not_hash_to_their_name_leave_nothing() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    bucket::ensure_registered(&setup, setup.bucket, alice).unwrap();
    let data = bytes(3_000_000, 1);
    let claimed = BlobId([7; 32]);
    let push = |i| {
        let args = PushChunkArgs {
            blob_id: claimed,
            ..chunk(&data, i, room.accessor_id)
        };
        bucket::push_chunk(&setup, setup.bucket, alice, args)
    };
    assert!(push(1).is_ok());
    assert_eq!(
        push(0),
        Err(PushChunkError::HashMismatch {
            actual: blob_id(&data)
        })
    );
    let status =
        bucket::upload_status(&setup, setup.bucket, alice, UploadArgs { blob_id: claimed })
            .unwrap();
    assert_eq!(status.state, UploadState::Gone(GoneReason::HashMismatch));
    let status = bucket::status(&setup, setup.bucket);
    assert_eq!(
        (
            status.blobs,
            status.open_uploads,
            status.bytes_stored,
            status.bytes_reserved
        ),
        (0, 0, 0, 0)
    );
    setup.upload(alice, &data, room.accessor_id);
}

#[test]
fn nobody_stores_beyond_its_allowance_and_premium_raises_it() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    bucket::ensure_registered(&setup, setup.bucket, alice).unwrap();
    assert_eq!(
        index::user(&setup, alice).unwrap().byte_limit,
        CHAT_USER_BYTES
    );
    let first = PushChunkArgs {
        size: CHAT_USER_BYTES + 1,
        ..chunk(&bytes(2_000_000, 1), 0, room.accessor_id)
    };
    let Err(PushChunkError::AllowanceExceeded(allowance)) =
        bucket::push_chunk(&setup, setup.bucket, alice, first.clone())
    else {
        panic!("one byte more than the allowance is refused");
    };
    assert_eq!(
        (allowance.byte_limit, allowance.bytes_used),
        (CHAT_USER_BYTES, 0)
    );
    let asked = AllocatedBucketArgs {
        blob_id: first.blob_id,
        size: first.size,
        exclude: vec![],
    };
    assert_eq!(
        index::allocated_bucket(&setup, alice, asked.clone()),
        Err(AllocatedBucketError::AllowanceExceeded {
            byte_limit: CHAT_USER_BYTES
        })
    );

    chat::set_premium(&setup, alice, true).unwrap();
    setup.settle("premium has reached the index", |setup| {
        (index::user(setup, alice).unwrap().byte_limit == CHAT_PREMIUM_USER_BYTES).then_some(())
    });
    index::allocated_bucket(&setup, alice, asked).unwrap();
    bucket::push_chunk(&setup, setup.bucket, alice, first).unwrap();
    let used = index::user(&setup, alice).unwrap();
    assert!(used.bytes_leased > CHAT_USER_BYTES && used.bytes_leased <= CHAT_PREMIUM_USER_BYTES);
}

#[test]
fn a_hash_alone_opens_nothing() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    let (bob, other) = setup.user_with_chat(2);
    let data = bytes(13_000_000, 1);
    setup.upload(alice, &data, room.accessor_id);
    bucket::ensure_registered(&setup, setup.bucket, bob).unwrap();

    let mut forged = chunk(&data, 0, other.accessor_id);
    forged.bytes.fill(0);
    // Which chunks are wanted is told to nobody who has shown none.
    for index in [0, 6] {
        forged.chunk_index = index;
        let bytes = chunk(&data, index.into(), other.accessor_id).bytes;
        forged.bytes.resize(bytes.len(), 0);
        let refused = bucket::push_chunk(&setup, setup.bucket, bob, forged.clone());
        let attempts_left = if index == 0 { 9 } else { 8 };
        assert_eq!(
            refused,
            Err(PushChunkError::ChunkMismatch { attempts_left })
        );
    }
    assert_eq!(bucket::status(&setup, setup.bucket).open_uploads, 0);
    assert!(
        bucket::blob_info(
            &setup,
            setup.bucket,
            bob,
            UploadArgs {
                blob_id: blob_id(&data)
            }
        )
        .is_err()
    );

    // With the bytes it takes all of seven chunks.
    for index in (0..7).rev() {
        let args = chunk(&data, index, other.accessor_id);
        let pushed = bucket::push_chunk(&setup, setup.bucket, bob, args).unwrap();
        assert_eq!(pushed.state == UploadState::Stored, index == 0);
        assert_eq!(u64::from(pushed.missing_count), index);
    }
    let info = bucket::blob_info(
        &setup,
        setup.bucket,
        bob,
        UploadArgs {
            blob_id: blob_id(&data),
        },
    )
    .unwrap();
    assert_eq!(info.references.len(), 1);
    assert_eq!(bucket::status(&setup, setup.bucket).blobs, 1);
}

#[test]
fn only_the_right_token_opens_a_blob() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    let (bob, other) = setup.user_with_chat(2);
    let reference = setup.upload(alice, &bytes(5_000, 1), room.accessor_id);
    let hers = chat::post(&setup, alice, room.chat_id, &reference);
    let (_, token) = chat::access(&setup, alice, room.chat_id, hers);
    let his = chat::post(&setup, bob, other.chat_id, &reference);
    let (_, foreign) = chat::access(&setup, bob, other.chat_id, his);

    let path = format!("/{}/{}", room.accessor_id, reference.blob_id);
    let get = |url: &str| bucket::get(&setup, setup.bucket, url, &[]);
    assert_eq!(get(&format!("{path}?token={token}")).status_code, 200);
    let refused = get(&path);
    assert_eq!(refused.status_code, 401);
    let endless = format!("{path}?token={}", "A".repeat(65_536));
    assert_eq!(get(&endless).status_code, 431);
    let last = if token.ends_with('A') { 'B' } else { 'A' };
    for url in [
        format!("{path}?token="),
        format!("{path}?token={foreign}"),
        format!("{path}?token={}{last}", &token[..token.len() - 1]),
        format!("{path}?token={}", &token[1..]),
        format!("{path}?token={token}&token={token}"),
        format!("/{}/{}?token={token}", other.accessor_id, reference.blob_id),
        format!(
            "/{}/{}?token={token}",
            room.accessor_id,
            reference.blob_id.to_string().to_uppercase()
        ),
        format!(
            "/../{}/{}?token={token}",
            room.accessor_id, reference.blob_id
        ),
        "/".into(),
        "/%00".into(),
        "//".into(),
    ] {
        assert_eq!(get(&url), refused, "{}", &url[..url.len().min(200)]);
    }
    // Whoever may see the accessor learns that it has no such blob; nobody else does.
    let nothing = format!("/{}/{}?token={token}", room.accessor_id, BlobId([1; 32]));
    assert_eq!(get(&nothing).status_code, 404);
    assert_eq!(
        bucket::request(
            &setup,
            setup.bucket,
            "POST",
            &format!("{path}?token={token}"),
            &[]
        )
        .status_code,
        405
    );

    // In a call, the token's principal must be the caller.
    let args = ReadChunkArgs {
        blob_id: reference.blob_id,
        accessor_id: room.accessor_id,
        token,
        chunk_index: 0,
    };
    assert_eq!(
        bucket::read_chunk(&setup, setup.bucket, bob, args.clone()),
        Err(ReadChunkError::NotAuthorized)
    );
    assert!(bucket::read_chunk(&setup, setup.bucket, alice, args).is_ok());

    // A day later it opens nothing.
    let url = format!(
        "{path}?token={}",
        chat::access(&setup, alice, room.chat_id, hers).1
    );
    setup
        .pic
        .advance_time(std::time::Duration::from_secs(24 * 3_600));
    setup.pic.tick();
    assert_eq!(get(&url).status_code, 401);
}

#[test]
fn strangers_register_nobody_and_send_no_events() {
    let setup = Setup::new();
    let mallory = user(9);
    let args = UserArgs {
        user: mallory,
        byte_limit: 1,
    };
    for method in ["register_user", "update_user"] {
        setup.turned_away(setup.index, mallory, method, (args.clone(),));
    }
    assert_eq!(
        index::allocated_bucket(
            &setup,
            mallory,
            AllocatedBucketArgs {
                blob_id: BlobId([0; 32]),
                size: 1,
                exclude: vec![]
            }
        ),
        Err(AllocatedBucketError::NotRegistered)
    );
    for (canister, method) in [
        (setup.bucket, "c2c_events"),
        (setup.index, "c2c_events"),
        (setup.index, "c2c_lease"),
    ] {
        let junk = setup
            .pic
            .update_call(canister, mallory, method, vec![0; 100]);
        assert!(junk.is_err(), "{method} took junk from a stranger");
    }
    // Two megabytes from nobody known are not even executed.
    let junk = setup
        .pic
        .submit_call(setup.bucket, mallory, "push_chunk", vec![0; 2_000_000]);
    assert!(junk.is_err());
}

/// Memory is wanted for the certificates' tree before anything else is done: a push that names many accessors is
/// refused where one that names a single one still finds room.
#[test]
fn a_push_for_which_the_tree_has_no_room_changes_nothing() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    setup.upload(alice, b"first", room.accessor_id);
    let push = |args: &PushChunkArgs| {
        let args = encode_one(args).unwrap();
        let answer = setup
            .pic
            .update_call(setup.bucket, alice, "push_chunk", args);
        // Where another table has to grow, the message traps, and is undone.
        answer.map(|bytes| decode_one::<Result<PushChunkOk, PushChunkError>>(&bytes).unwrap())
    };
    let figures = || {
        let status = bucket::status(&setup, setup.bucket);
        (status.blobs, status.references, status.bytes_stored)
    };
    let accessors: Vec<_> = (0..ACCESSORS_MAX as u64).map(|n| user(100 + n)).collect();
    for n in 0..30 {
        let data = bytes(100, n);
        let one = chunk(&data, 0, room.accessor_id);
        let many = PushChunkArgs {
            accessor_ids: accessors.clone(),
            ..one.clone()
        };
        let before = figures();
        no_growth(&setup, setup.bucket, "push_chunk");
        if push(&many) == Ok(Err(PushChunkError::StorageFull)) {
            assert_eq!(figures(), before);
            no_growth(&setup, setup.bucket, "push_chunk");
            assert!(matches!(push(&one), Ok(Ok(_))), "there is room for one");
            assert!(matches!(push(&many), Ok(Ok(_))), "memory grows again");
            let (blobs, references, bytes) = before;
            let expected = (blobs + 1, references + 33, bytes + 100);
            assert_eq!(figures(), expected);
            return;
        }
        assert!(matches!(push(&many), Ok(Ok(_))));
    }
    panic!("the tree never needed memory");
}

/// Anybody may name the operator as a controller of its own canister too, or hand it over with its code in it: by that it
/// would set the limits of all users, and delete them.
#[test]
fn a_strangers_canister_becomes_no_issuer_whoever_controls_it() {
    let setup = Setup::new();
    let (pic, mallory) = (&setup.pic, user(9));
    let canister = pic.create_canister_with_settings(Some(mallory), None);
    pic.add_cycles(canister, 100_000_000_000_000);
    let nothing = Program::new().bytes().to_vec();
    pic.install_canister(canister, WASM.to_vec(), nothing.clone(), Some(mallory));
    let register = || -> Result<RegisterIssuerOk, IssuerError> {
        let bytes = BlobId([9; 32]);
        let key = PublicKey { version: 1, bytes };
        let args = RegisterIssuerArgs { issuer: None, key };
        let call = Call::new(setup.index, "register_issuer").payload(Encode!(&args).unwrap());
        let program = Program::new().call(call).bytes().to_vec();
        let answer = pic.update_call(canister, mallory, "update", program);
        decode_one(&answer.expect("the index answers")).unwrap()
    };
    let refused = Err(IssuerError::NotAuthorized);
    assert_eq!(register(), refused);
    for controllers in [vec![mallory, operator()], vec![operator()]] {
        pic.set_controllers(canister, Some(mallory), controllers)
            .unwrap();
        assert_eq!(register(), refused);
    }
    // What the operator has put in is the operator's, until the operator says otherwise.
    pic.upgrade_canister(canister, WASM.to_vec(), nothing, Some(operator()))
        .unwrap();
    register().unwrap();
    let removed: Result<(), IssuerError> =
        setup.call(setup.index, operator(), "remove_issuer", (canister,));
    removed.unwrap();
    assert_eq!(register(), refused);
}

/// Strangers are made for nothing. However many ask a bucket who they are, its users get their allowance. The index is on
/// another subnet: its answers take a while.
#[test]
fn strangers_keep_no_user_waiting() {
    let setup = Setup::on(2, IndexInit::default());
    let pic = &setup.pic;
    let own_subnet = pic.get_subnet(setup.index);
    let mut subnets = pic.topology().get_app_subnets().into_iter();
    let other = subnets.find(|id| Some(*id) != own_subnet).unwrap();
    let far = pic.create_canister_on_subnet(Some(operator()), None, other);
    pic.add_cycles(far, 100_000_000_000_000);
    let controllers = vec![operator(), setup.index];
    pic.set_controllers(far, Some(operator()), controllers)
        .unwrap();
    index::add_bucket(&setup, operator(), far).unwrap();
    setup.settle("the bucket is active", |setup| {
        setup.active_buckets().contains(&far).then_some(())
    });
    let (alice, room) = setup.user_with_chat(1);
    bucket::ensure_registered(&setup, far, alice).unwrap();
    let submit = |caller, method, args| {
        let call = pic.submit_call(far, caller, method, args);
        call.expect("it is let in")
    };
    let nothing = Encode!().unwrap();
    let strangers: Vec<_> = (0..150)
        .map(|n| submit(user(1_000 + n), "ensure_registered", nothing.clone()))
        .collect();
    pic.tick();
    let push = Encode!(&chunk(&bytes(100, 1), 0, room.accessor_id)).unwrap();
    let push = submit(alice, "push_chunk", push);
    let pushed = pic.await_call(push).expect("it is answered");
    let pushed: Result<PushChunkOk, PushChunkError> = decode_one(&pushed).unwrap();
    assert_eq!(pushed.map(|ok| ok.state), Ok(UploadState::Stored));
    for stranger in strangers {
        pic.await_call(stranger).expect("it is answered");
    }
}

/// Of an interface, but for those that browsers ask by gateways, whose requests may be long.
fn methods_with_arguments(interface: &str) -> Vec<&str> {
    let (_, service) = interface.split_once("\nservice").expect("there is one");
    let methods = service.lines().filter_map(|line| {
        let (method, signature) = line.trim().split_once(" : (")?;
        let is_asked = !signature.starts_with(')') && !method.starts_with("http_request");
        is_asked.then_some(method)
    });
    let methods: Vec<_> = methods.collect();
    assert!(methods.len() > 10, "the interface is written another way");
    methods
}

/// Canisters can send 2 MB to any method, and pass no `inspect_message`: of those who are not known here nothing so long is
/// read. That is no message of which an index would think that a snapshot was restored.
#[test]
fn what_is_long_and_of_an_unknown_canister_is_not_read() {
    let setup = Setup::new();
    let pic = &setup.pic;
    let canister = pic.create_canister_with_settings(Some(operator()), None);
    pic.add_cycles(canister, 100_000_000_000_000);
    let nothing = Program::new().bytes().to_vec();
    pic.install_canister(canister, WASM.to_vec(), nothing, Some(operator()));
    let send = |callee: Principal, method: &str, len| {
        let call = Call::new(callee, method).payload(vec![0; len]);
        let program = Program::new().call(call).bytes().to_vec();
        let rejected = pic.update_call(canister, user(9), "update", program);
        rejected.expect_err("it is turned away").to_string()
    };
    let interfaces = [
        (
            setup.index,
            include_str!("../../canisters/index/data_bucket_index.did"),
        ),
        (
            setup.bucket,
            include_str!("../../canisters/bucket/data_bucket.did"),
        ),
        (setup.chat, include_str!("../../canisters/chat/chat.did")),
    ];
    for (callee, interface) in interfaces {
        for method in methods_with_arguments(interface) {
            let short = send(callee, method, 100);
            assert!(short.contains("cannot be decoded"), "{method}: {short}");
            let long = send(callee, method, 1_900_000);
            assert!(
                long.contains("a caller who is not known"),
                "{method}: {long}"
            );
        }
    }
    let page = bucket::get(&setup, setup.index, "/metrics", &[]);
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let line = "openstorage_index_suspected_restorations";
    let suspected = page.lines().find(|it| it.starts_with(line));
    assert!(
        suspected.is_some_and(|it| it.ends_with(" 0")),
        "{suspected:?}"
    );
}

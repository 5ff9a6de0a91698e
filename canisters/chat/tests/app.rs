//! The chat's core, with an index and a bucket played by the test.

use candid::Principal;
use chat::{
    App, OpenError,
    chats::Random,
    users::USERS_PER_CALL_MAX,
    work::{Lane, REMOVAL_ROWS_MAX, Work},
};
use ic_stable_structures::DefaultMemoryImpl;
use openstorage_tokens::{Expect, Pair, PairKey, Scope, SecretKey, TokenError, parse};
use openstorage_types::{
    BlobId, BlobReference,
    channel::{PublicKey, RevokeKeyError, RotateKeyError},
    chat::*,
    index::{BucketKey, BucketKeysError, IssuerError, RegisterIssuerOk, UserArgs, UserError},
    limits::*,
};

const NOW_MS: u64 = 1_700_000_000_000;

fn principal(n: u8) -> Principal {
    Principal::from_slice(&[n; 10])
}

fn own() -> Principal {
    principal(200)
}

fn index() -> Principal {
    principal(201)
}

fn bucket() -> Principal {
    principal(202)
}

/// The secret of the index or of a bucket.
fn secret_of(peer: Principal) -> SecretKey {
    SecretKey::from_bytes([peer.as_slice()[0]; 32])
}

fn key_of(peer: Principal) -> PublicKey {
    PublicKey {
        version: 1,
        bytes: BlobId(secret_of(peer).public()),
    }
}

/// The same, as the index tells it of a bucket.
fn told_of(peer: Principal) -> BucketKey {
    BucketKey {
        version: 1,
        bytes: key_of(peer).bytes,
        oldest_version: Some(1),
    }
}

/// The key that `peer` computes from the chat's public key.
fn shared(app: &App, peer: Principal) -> PairKey {
    let pair = Pair {
        issuer: own(),
        issuer_key_version: 1,
        audience: peer,
        audience_key_version: 1,
    };
    let key = app.public_key().unwrap();
    secret_of(peer).pair(&key.bytes.0, &pair).unwrap()
}

fn empty() -> App {
    App::open(DefaultMemoryImpl::default(), own(), Some(index())).unwrap()
}

fn set_up(app: &mut App) {
    assert_eq!(app.next_work(Lane::Setup, NOW_MS), Some(Work::DrawSecret));
    app.secret_drawn([7; 32], NOW_MS);
    let key = app.public_key().unwrap();
    assert!(app.issuer_registered(&key, &registered(), NOW_MS));
    assert_eq!(app.next_work(Lane::Setup, NOW_MS), None);
}

/// What the index answers an issuer that it trusts.
fn registered() -> Result<RegisterIssuerOk, IssuerError> {
    Ok(RegisterIssuerOk {
        index_key: key_of(index()),
        oldest_version: Some(1),
    })
}

/// A chat of user 1, with user 2 in it, in an app that knows the bucket.
fn with_chat() -> (App, ChatInfo) {
    let mut app = empty();
    set_up(&mut app);
    app.learn_bucket(bucket(), Some(Ok(told_of(bucket()))), NOW_MS)
        .unwrap();
    for n in 1..=3 {
        app.register(principal(n), NOW_MS).unwrap();
    }
    let room = create(&mut app, 1, "tea").unwrap();
    let room = join(&mut app, 2, &room).unwrap();
    (app, room)
}

fn create(app: &mut App, n: u8, name: &str) -> Result<ChatInfo, ChatError> {
    create_as(app, n, name, (&Random([5; 32]), 0), NOW_MS)
}

/// With these random bytes, at this version of the canister.
fn create_as(
    app: &mut App,
    n: u8,
    name: &str,
    (random, version): (&Random, u64),
    now_ms: u64,
) -> Result<ChatInfo, ChatError> {
    let name = name.into();
    let args = CreateChatArgs { name };
    app.check_new_chat(principal(n), &args, now_ms)?;
    app.create_chat(principal(n), args, random, version, now_ms)
}

/// By the invite that `room` has.
fn join(app: &mut App, n: u8, room: &ChatInfo) -> Result<ChatInfo, ChatError> {
    let args = JoinArgs {
        chat_id: room.chat_id,
        invite: room.invite.clone(),
    };
    app.join_chat(principal(n), &args)
}

fn reference() -> BlobReference {
    BlobReference {
        blob_id: BlobId([9; 32]),
        bucket: bucket(),
        size: 5,
        mime_type: "image/png".into(),
    }
}

fn send(app: &mut App, n: u8, chat_id: u64, blob: Option<BlobReference>) -> Result<u64, ChatError> {
    let args = SendMessageArgs {
        chat_id,
        text: "hello".into(),
        blob,
        name: None,
        preview: None,
    };
    let sent = app.send_message(principal(n), args, 0, NOW_MS)?;
    Ok(sent.message_id)
}

fn delete(
    app: &mut App,
    n: u8,
    chat_id: u64,
    message_id: u64,
) -> Result<DeleteMessageOk, ChatError> {
    let args = DeleteMessageArgs {
        chat_id,
        message_id,
    };
    app.delete_message(principal(n), args, NOW_MS)
}

fn read(
    app: &App,
    n: u8,
    chat_id: u64,
    after: Option<u64>,
    limit: u32,
) -> Result<Vec<Message>, ChatError> {
    let args = MessagesArgs {
        chat_id,
        after,
        before: None,
        limit,
    };
    app.messages(principal(n), &args, NOW_MS)
}

fn expect(audience: Principal, accessor: Principal, scope: Scope) -> Expect {
    Expect {
        audience,
        accessor,
        blob: reference().blob_id.0,
        owner: Some(principal(2)),
        scope,
        now_ms: NOW_MS,
    }
}

#[test]
fn a_member_gets_a_token_that_the_bucket_believes() {
    let (mut app, room) = with_chat();
    let sent = send(&mut app, 2, room.chat_id, Some(reference())).unwrap();

    let seen = read(&app, 1, room.chat_id, None, 10).unwrap();
    assert_eq!((seen.len(), seen[0].message_id), (1, sent));
    let access = seen[0].blob.clone().unwrap();
    assert_eq!(
        (&access.reference, access.accessor_id),
        (&reference(), room.accessor_id)
    );
    let token = parse(&access.token.unwrap()).unwrap();
    let key = shared(&app, bucket());
    let expected = expect(bucket(), room.accessor_id, Scope::READ);
    let claims = token.check(&key, &expected).unwrap();
    assert_eq!(claims.principal, principal(1));
    // It opens nothing else.
    let other = create_as(&mut app, 1, "other", (&Random([6; 32]), 0), NOW_MS).unwrap();
    let elsewhere = expect(bucket(), other.accessor_id, Scope::READ);
    assert_eq!(
        token.check(&key, &elsewhere),
        Err(TokenError::OtherAccessor)
    );
    let more = expect(bucket(), room.accessor_id, Scope::DELETE_REFERENCE);
    assert_eq!(token.check(&key, &more), Err(TokenError::OtherScope));
    // The same token comes again within its window.
    assert_eq!(read(&app, 1, room.chat_id, None, 10).unwrap(), seen);
}

#[test]
fn strangers_read_and_change_nothing() {
    let (mut app, room) = with_chat();
    let ChatInfo { chat_id, .. } = room;
    let sent = send(&mut app, 1, chat_id, None).unwrap();

    for (n, error) in [(3, ChatError::NotMember), (4, ChatError::NotRegistered)] {
        assert_eq!(read(&app, n, chat_id, None, 10), Err(error.clone()));
        assert_eq!(send(&mut app, n, chat_id, None), Err(error.clone()));
        let left = app.leave_chat(principal(n), ChatArgs { chat_id });
        assert_eq!(left, Err(error));
    }
    for n in [2, 3] {
        let refused = delete(&mut app, n, chat_id, sent);
        assert_eq!(refused, Err(ChatError::NotAuthorized));
        let refused = app.delete_chat(principal(n), ChatArgs { chat_id }, NOW_MS);
        assert_eq!(refused, Err(ChatError::NotAuthorized));
    }
    let nobody = Principal::anonymous();
    assert_eq!(app.register(nobody, NOW_MS), Err(ChatError::NotAuthorized));
    assert_eq!(app.me(nobody), Err(ChatError::NotAuthorized));
    assert_eq!(app.chats(nobody), []);
}

#[test]
fn what_was_left_during_a_call_is_left() {
    let (mut app, room) = with_chat();
    let ChatInfo { chat_id, .. } = room;
    let mut blob = reference();
    blob.bucket = principal(203);
    let args = SendMessageArgs {
        chat_id,
        text: String::new(),
        blob: Some(blob.clone()),
        name: None,
        preview: None,
    };
    app.check_message(principal(2), &args).unwrap();
    assert_eq!(app.unknown_bucket(args.blob.as_ref()), Some(blob.bucket));
    // While the index is asked, the member leaves.
    app.leave_chat(principal(2), ChatArgs { chat_id }).unwrap();
    app.learn_bucket(blob.bucket, Some(Ok(told_of(blob.bucket))), NOW_MS)
        .unwrap();
    let sent = app.send_message(principal(2), args, 0, NOW_MS);
    assert_eq!(sent, Err(ChatError::NotMember));
}

#[test]
fn a_bucket_must_be_the_indexs() {
    let (mut app, room) = with_chat();
    let mut blob = reference();
    blob.bucket = principal(203);
    let refused = app.learn_bucket(blob.bucket, Some(Err(BucketKeysError::NotFound)), NOW_MS);
    assert_eq!(refused, Err(ChatError::UnknownBucket));
    let unheard = app.learn_bucket(blob.bucket, None, NOW_MS);
    assert!(matches!(unheard, Err(ChatError::Retry { .. })));
    let sent = send(&mut app, 1, room.chat_id, Some(blob.clone()));
    assert_eq!(sent, Err(ChatError::UnknownBucket));
    let avatar = SetAvatarArgs { blob: Some(blob) };
    let refused = app.set_avatar(principal(1), avatar);
    assert_eq!(refused, Err(ChatError::UnknownBucket));
    assert!(app.next_work(Lane::Buckets, NOW_MS).is_none());
}

#[test]
fn a_key_that_is_late_holds_up_neither_the_message_nor_other_keys() {
    let (mut app, room) = with_chat();
    let late = [principal(203), principal(204)];
    for bucket in late {
        app.learn_bucket(bucket, Some(Err(BucketKeysError::KeysNotReady)), NOW_MS)
            .unwrap();
    }
    let mut blob = reference();
    blob.bucket = late[1];
    let sent = send(&mut app, 2, room.chat_id, Some(blob)).unwrap();
    let token = |app: &App| {
        let seen = read(app, 1, room.chat_id, None, 10).unwrap();
        seen[0].blob.clone().unwrap().token
    };
    assert_eq!(token(&app), None);
    assert!(matches!(
        delete(&mut app, 2, room.chat_id, sent),
        Ok(DeleteMessageOk::Retry { .. })
    ));

    for (bucket, seconds) in [(late[0], 1), (late[1], 1), (late[0], 2)] {
        let now_ms = NOW_MS + 1_000 * seconds;
        let work = app.next_work(Lane::Buckets, now_ms);
        assert_eq!(work, Some(Work::AskBucketKey(bucket)));
        assert!(!app.bucket_key_came(bucket, &Err(BucketKeysError::KeysNotReady), now_ms));
    }
    // A key with which nothing can be shared is none.
    let weak = BucketKey {
        bytes: BlobId([0; 32]),
        ..told_of(late[1])
    };
    assert!(!app.bucket_key_came(late[1], &Ok(weak), NOW_MS));
    assert!(app.bucket_key_came(late[1], &Ok(told_of(late[1])), NOW_MS));
    assert!(app.bucket_key_came(late[0], &Err(BucketKeysError::NotFound), NOW_MS));
    assert!(app.next_work(Lane::Buckets, NOW_MS).is_none());
    assert!(matches!(
        delete(&mut app, 2, room.chat_id, sent),
        Ok(DeleteMessageOk::Delete { .. })
    ));
}

#[test]
fn the_last_message_that_shows_a_blob_brings_the_delete_token() {
    let (mut app, room) = with_chat();
    let ChatInfo { chat_id, .. } = room;
    let blob = Some(reference());
    let first = send(&mut app, 2, chat_id, blob.clone()).unwrap();
    let second = send(&mut app, 2, chat_id, blob.clone()).unwrap();
    // Another sender's reference is another one.
    send(&mut app, 1, chat_id, blob).unwrap();
    let plain = send(&mut app, 2, chat_id, None).unwrap();

    let nothing = Ok(DeleteMessageOk::Nothing);
    assert_eq!(delete(&mut app, 2, chat_id, plain), nothing);
    assert_eq!(delete(&mut app, 2, chat_id, first), nothing);
    assert_eq!(delete(&mut app, 2, chat_id, first), nothing);
    // The chat's owner may delete what others sent; the token is for the owner, the reference theirs.
    for (n, repeated) in [(1, false), (1, true), (2, true)] {
        let answer = delete(&mut app, n, chat_id, second).unwrap();
        let DeleteMessageOk::Delete {
            blob_id,
            owner,
            token,
            accessor_id,
            ..
        } = answer
        else {
            panic!("{answer:?}, repeated: {repeated}")
        };
        assert_eq!((blob_id, owner), (reference().blob_id, principal(2)));
        let expected = expect(bucket(), accessor_id, Scope::DELETE_REFERENCE);
        let token = parse(&token).unwrap();
        let claims = token.check(&shared(&app, bucket()), &expected).unwrap();
        assert_eq!(claims.principal, principal(n));
    }

    let seen = read(&app, 1, chat_id, None, 10).unwrap();
    let deleted: Vec<_> = seen.iter().map(|message| message.deleted).collect();
    assert_eq!(deleted, [true, true, false, true]);
    assert!(seen[0].text.is_empty() && seen[0].blob.is_none());
    assert_eq!(app.chats(principal(1))[0].messages, 1);
    // Shown anew, the reference must stay.
    send(&mut app, 2, chat_id, Some(reference())).unwrap();
    assert_eq!(delete(&mut app, 2, chat_id, second), nothing);
    let missing = delete(&mut app, 1, chat_id, 99);
    assert_eq!(missing, Err(ChatError::MessageNotFound));
}

#[test]
fn a_deleted_chat_goes_in_slices_and_its_token_can_be_had_again() {
    let (mut app, room) = with_chat();
    let ChatInfo { chat_id, .. } = room;
    for _ in 0..2 * REMOVAL_ROWS_MAX + 1 {
        send(&mut app, 2, chat_id, Some(reference())).unwrap();
    }
    let kept = create(&mut app, 2, "kept").unwrap();
    send(&mut app, 2, kept.chat_id, Some(reference())).unwrap();

    let mut slices = 0;
    for _ in 0..2 {
        let answer = app
            .delete_chat(principal(1), ChatArgs { chat_id }, NOW_MS)
            .unwrap();
        let DeleteChatOk::Delete { chat_id, token, .. } = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(chat_id, room.accessor_id);
        let expected = expect(index(), chat_id, Scope::DELETE_ACCESSOR);
        let token = parse(&token).unwrap();
        let claims = token.check(&shared(&app, index()), &expected).unwrap();
        assert_eq!(claims.principal, principal(1));
        while let Some(Work::RemoveSlice(chat)) = app.next_work(Lane::Removal, NOW_MS) {
            app.remove_slice(chat);
            slices += 1;
        }
    }
    assert_eq!(slices, 4);
    assert_eq!(
        send(&mut app, 2, chat_id, None),
        Err(ChatError::ChatDeleted)
    );
    // Strangers do not learn that it was there.
    assert_eq!(join(&mut app, 3, &room), Err(ChatError::InvalidInvite));
    assert_eq!(app.chats(principal(1)), []);
    assert_eq!(app.chats(principal(2)).len(), 1);
    assert_eq!(read(&app, 2, kept.chat_id, None, 10).unwrap().len(), 1);
    // An id never comes again.
    let next = create(&mut app, 1, "next").unwrap();
    assert!(next.chat_id > kept.chat_id);
}

#[test]
fn a_chat_can_be_deleted_before_the_index_has_a_key() {
    let mut app = empty();
    app.register(principal(1), NOW_MS).unwrap();
    let ChatInfo { chat_id, .. } = create(&mut app, 1, "tea").unwrap();
    let ask = |app: &mut App| app.delete_chat(principal(1), ChatArgs { chat_id }, NOW_MS);
    assert!(matches!(ask(&mut app), Ok(DeleteChatOk::Retry { .. })));
    set_up(&mut app);
    assert!(matches!(ask(&mut app), Ok(DeleteChatOk::Delete { .. })));
}

#[test]
fn users_stay_pending_until_the_index_has_their_latest_limit() {
    let mut app = empty();
    app.register(principal(1), NOW_MS).unwrap();
    // The index takes users only from issuers.
    assert!(app.next_work(Lane::Users, NOW_MS).is_none());
    app.secret_drawn([7; 32], NOW_MS);
    let key = app.public_key().unwrap();
    let refused = Err(IssuerError::NotAuthorized);
    assert!(!app.issuer_registered(&key, &refused, NOW_MS));
    assert!(matches!(
        app.next_work(Lane::Setup, NOW_MS),
        Some(Work::RegisterIssuer(_))
    ));
    assert!(app.issuer_registered(&key, &registered(), NOW_MS));

    let users = |byte_limit| {
        vec![UserArgs {
            user: principal(1),
            byte_limit,
        }]
    };
    let small = users(CHAT_USER_BYTES);
    let work = app.next_work(Lane::Users, NOW_MS);
    assert_eq!(work, Some(Work::RegisterUsers(small.clone())));
    assert!(!app.users_registered(&small, &[Err(UserError::NotAuthorized)], NOW_MS));
    assert!(!app.users_registered(&small, &[], NOW_MS));
    // The user pays while the index is told of the small limit.
    let premium = app.set_premium(principal(1), true).unwrap();
    assert_eq!(
        (premium.byte_limit, premium.confirmed),
        (CHAT_PREMIUM_USER_BYTES, false)
    );
    assert!(app.users_registered(&small, &[Ok(())], NOW_MS));
    assert!(!app.me(principal(1)).unwrap().confirmed);
    let large = users(CHAT_PREMIUM_USER_BYTES);
    let work = app.next_work(Lane::Users, NOW_MS);
    assert_eq!(work, Some(Work::RegisterUsers(large.clone())));
    assert!(app.users_registered(&large, &[Ok(())], NOW_MS));
    assert!(app.me(principal(1)).unwrap().confirmed);
    assert!(app.next_work(Lane::Users, NOW_MS).is_none());
    // Registering again, and the same choice again, make no work.
    app.register(principal(1), NOW_MS).unwrap();
    app.set_premium(principal(1), true).unwrap();
    assert!(app.next_work(Lane::Users, NOW_MS).is_none());
}

#[test]
fn many_users_are_told_in_batches() {
    let mut app = empty();
    set_up(&mut app);
    for n in 0..=USERS_PER_CALL_MAX as u8 {
        app.register(principal(n), NOW_MS).unwrap();
    }
    let mut batches = Vec::new();
    while let Some(Work::RegisterUsers(users)) = app.next_work(Lane::Users, NOW_MS) {
        assert!(app.users_registered(&users, &vec![Ok(()); users.len()], NOW_MS));
        batches.push(users.len());
    }
    assert_eq!(batches, [USERS_PER_CALL_MAX, 1]);
}

#[test]
fn every_input_has_a_bound() {
    let (mut app, room) = with_chat();
    let ChatInfo { chat_id, .. } = room;
    let check = |text: String, blob: Option<BlobReference>| {
        let args = SendMessageArgs {
            chat_id,
            text,
            blob,
            name: None,
            preview: None,
        };
        app.check_message(principal(1), &args)
    };
    let long = |max: usize| Err(ChatError::TextTooLong { max: max as u32 });
    let max = MESSAGE_TEXT_BYTES_MAX;
    assert_eq!(check("x".repeat(max), None), Ok(()));
    assert_eq!(check("x".repeat(max + 1), None), long(max));
    assert_eq!(check(String::new(), None), Err(ChatError::EmptyMessage));
    assert_eq!(check(String::new(), Some(reference())), Ok(()));
    let typed = |mime_type: &str| BlobReference {
        mime_type: mime_type.into(),
        ..reference()
    };
    for good in [
        "text/plain; charset=utf-8",
        "image/svg+xml",
        " a/b",
        "a/b;\r\nc",
    ] {
        assert_eq!(check(String::new(), Some(typed(good))), Ok(()), "{good}");
    }
    let long_type = format!("a/{}", "b".repeat(MIME_TYPE_BYTES_MAX - 1));
    for bad in ["", "image", "/", "a/", "a/b/c", &long_type] {
        let checked = check(String::new(), Some(typed(bad)));
        assert_eq!(checked, Err(ChatError::InvalidReference), "{bad:?}");
    }
    let size = BLOB_BYTES_MAX + 1;
    let huge = BlobReference {
        size,
        ..reference()
    };
    let checked = check(String::new(), Some(huge));
    assert_eq!(checked, Err(ChatError::InvalidReference));

    let max = CHAT_NAME_BYTES_MAX;
    let created = create(&mut app, 1, &"x".repeat(max + 1));
    assert_eq!(created.map(|_| ()), long(max));
    let max = CHATS_PER_USER_MAX;
    let mut today_ms = NOW_MS;
    for made in 0..max {
        if made % CHATS_PER_DAY_MAX == 0 && made > 0 {
            let refused = create_as(&mut app, 3, "", (&Random([5; 32]), 0), today_ms);
            let (max, ms) = (CHATS_PER_DAY_MAX, 24 * HOUR_MS);
            assert_eq!(refused, Err(ChatError::TooOften { max, ms }));
            today_ms += ms;
        }
        create_as(&mut app, 3, "", (&Random([5; 32]), 0), today_ms).unwrap();
    }
    let refused = Err(ChatError::TooManyChats { max });
    assert_eq!(create(&mut app, 3, ""), refused);
    assert_eq!(join(&mut app, 3, &room), refused);
}

#[test]
fn what_comes_after_a_restored_snapshot_has_no_id_of_before() {
    let (mut app, room) = with_chat();
    let ChatInfo { chat_id, .. } = room;
    let first = send(&mut app, 1, chat_id, None).unwrap();
    assert_eq!(first, 1);
    // The state is of before, the canister's version is not.
    let version = 1_000;
    let args = SendMessageArgs {
        chat_id,
        text: "after".into(),
        blob: None,
        name: None,
        preview: None,
    };
    let sent = app.send_message(principal(1), args, version, NOW_MS);
    assert_eq!(sent.unwrap().message_id, version);
    assert_eq!(send(&mut app, 1, chat_id, None), Ok(version + 1));
    // Random bytes make the accessor, whatever the id.
    let made = [5, 6].map(|seed| {
        let random = Random([seed; 32]);
        create_as(&mut app, 1, "", (&random, version), NOW_MS).unwrap()
    });
    assert_eq!(made[0].chat_id, version);
    assert_eq!(made[0].accessor_id, room.accessor_id);
    assert_ne!(made[1].accessor_id, room.accessor_id);
}

#[test]
fn a_chat_is_joined_by_its_invite_alone_until_that_is_replaced() {
    let (mut app, room) = with_chat();
    let ChatInfo { chat_id, .. } = room;
    assert_eq!(room.invite.len(), 32);
    let with = |invite: &str, chat_id: u64| ChatInfo {
        invite: invite.into(),
        chat_id,
        ..room.clone()
    };
    for wrong in [
        with("", chat_id),
        with(&"0".repeat(32), chat_id),
        with(&room.invite, chat_id + 1),
    ] {
        assert_eq!(join(&mut app, 3, &wrong), Err(ChatError::InvalidInvite));
    }
    let random = Random([9; 32]);
    let args = ChatArgs { chat_id };
    for n in [2, 3] {
        let refused = app.replace_invite(principal(n), &args, &random);
        assert!(refused.is_err() && app.check_invite(principal(n), &args).is_err());
    }
    app.check_invite(principal(1), &args).unwrap();
    let renewed = app.replace_invite(principal(1), &args, &random).unwrap();
    assert_ne!(renewed.invite, room.invite);
    assert_eq!(renewed.accessor_id, room.accessor_id);
    assert_eq!(join(&mut app, 3, &room), Err(ChatError::InvalidInvite));
    // Members stay, and see the new one.
    assert_eq!(app.chats(principal(2))[0].invite, renewed.invite);
    app.set_name(principal(3), "Grace".into()).unwrap();
    join(&mut app, 3, &renewed).unwrap();

    let listed = |n: u8, after: Option<u8>, limit| {
        let after = after.map(principal);
        let args = MembersArgs {
            chat_id,
            after,
            limit,
        };
        let members = app.members(principal(n), &args)?;
        Ok(members
            .into_iter()
            .map(|member| (member.user, member.name))
            .collect())
    };
    let expected: Vec<_> = [(1, None), (2, None), (3, Some("Grace".to_string()))]
        .map(|(n, name)| (principal(n), name))
        .into();
    assert_eq!(listed(2, None, 10), Ok(expected.clone()));
    assert_eq!(listed(2, None, 1), Ok(expected[..1].to_vec()));
    assert_eq!(listed(2, Some(1), 10), Ok(expected[1..].to_vec()));
    assert_eq!(listed(2, Some(3), 10), Ok(vec![]));
    assert_eq!(listed(4, None, 10), Err(ChatError::NotRegistered));
}

#[test]
fn a_users_messages_are_bounded_and_what_is_deleted_makes_room() {
    let (mut app, room) = with_chat();
    let ChatInfo { chat_id, .. } = room;
    let max = MESSAGES_PER_USER_BYTES_MAX;
    let text = "x".repeat(MESSAGE_TEXT_BYTES_MAX);
    let say = |app: &mut App, chat_id: u64| {
        let args = SendMessageArgs {
            chat_id,
            text: text.clone(),
            blob: None,
            name: None,
            preview: None,
        };
        app.send_message(principal(1), args, 0, NOW_MS)
    };
    let each = MESSAGE_ROW_BYTES + text.len() as u64;
    let all = max / each;
    for _ in 0..all {
        say(&mut app, chat_id).unwrap();
    }
    let refused = Err(ChatError::TooManyMessages { max });
    assert_eq!(say(&mut app, chat_id), refused);
    // Others write on.
    send(&mut app, 2, chat_id, None).unwrap();
    // Whoever deletes it: it counts for its sender.
    for _ in 0..2 {
        delete(&mut app, 1, chat_id, 1).unwrap();
    }
    say(&mut app, chat_id).unwrap();
    assert_eq!(say(&mut app, chat_id), refused);
    // A deleted chat gives back all of it.
    app.delete_chat(principal(1), ChatArgs { chat_id }, NOW_MS)
        .unwrap();
    while let Some(Work::RemoveSlice(chat)) = app.next_work(Lane::Removal, NOW_MS) {
        app.remove_slice(chat);
    }
    let next = create(&mut app, 1, "next").unwrap();
    for _ in 0..100 {
        say(&mut app, next.chat_id).unwrap();
    }
}

#[test]
fn names_that_come_too_often_are_told_when_to_come_again_and_then_turned_away() {
    let mut app = empty();
    let max = REGISTRATIONS_PER_MINUTE_MAX;
    let name = |n: u32| Principal::from_slice(&n.to_be_bytes());
    for n in 0..max {
        assert!(app.may_register(NOW_MS));
        app.register(name(n), NOW_MS).unwrap();
    }
    let later_ms = NOW_MS + 59_000;
    for n in 0..max {
        assert!(app.may_register(later_ms));
        let refused = app.register(name(max + n), later_ms);
        assert_eq!(refused, Err(ChatError::TooOften { max, ms: 1_000 }));
    }
    assert!(!app.may_register(later_ms));
    // Who is known is asked no more of.
    app.register(name(0), later_ms).unwrap();
    let next_ms = NOW_MS + 60_000;
    assert!(app.may_register(next_ms));
    app.register(name(max), next_ms).unwrap();
}

#[test]
fn what_the_indexs_admins_have_set_counts_until_they_let_go_of_it() {
    let mut app = empty();
    set_up(&mut app);
    app.register(principal(1), NOW_MS).unwrap();
    let told = |app: &App, now_ms| match app.next_work(Lane::Users, now_ms) {
        Some(Work::RegisterUsers(users)) => Some(users),
        _ => None,
    };
    let users = told(&app, NOW_MS).unwrap();
    assert!(app.users_registered(&users, &[Ok(())], NOW_MS));
    // A number, and none at all: the user was deleted.
    for byte_limit in [5_000_000, 0] {
        let premium = byte_limit > 0;
        app.set_premium(principal(1), premium).unwrap();
        let users = told(&app, NOW_MS).unwrap();
        let answer = Err(UserError::SetByAdmin { byte_limit });
        assert!(app.users_registered(&users, &[answer], NOW_MS));
        let me = app.me(principal(1)).unwrap();
        assert_eq!(
            (me.byte_limit, me.confirmed, me.set_by_admin),
            (byte_limit, true, true)
        );
        assert_eq!(told(&app, NOW_MS), None);
    }
    // The index is asked again where the user wants something, and now and then where it comes.
    app.register(principal(1), NOW_MS + USER_REFRESH_MS - 1)
        .unwrap();
    assert_eq!(told(&app, NOW_MS), None);
    let later_ms = NOW_MS + USER_REFRESH_MS;
    app.register(principal(1), later_ms).unwrap();
    let users = told(&app, later_ms).unwrap();
    assert!(app.users_registered(&users, &[Ok(())], later_ms));
    let me = app.me(principal(1)).unwrap();
    assert_eq!(
        (me.byte_limit, me.confirmed, me.set_by_admin),
        (CHAT_USER_BYTES, true, false)
    );
    assert_eq!(told(&app, later_ms), None);
}

#[test]
fn the_page_is_served_at_origins_that_internet_identity_accepts() {
    let mut app = empty();
    for bad in [
        "",
        "https://",
        "https://localhost",
        "http://chat.example.org",
        "https://chat.example.org/",
        "https://Chat.example.org",
        "https://chat..org",
        "https://chat.example.org:8080",
        "https://a.b\"",
    ] {
        let origin = bad.to_string();
        let refused = Err(OpenError::InvalidOrigin {
            origin: origin.clone(),
        });
        assert_eq!(app.serve_at(vec![origin]), refused);
    }
    let origins: Vec<_> = (0..=PAGE_ORIGINS_MAX)
        .map(|n| format!("https://chat{n}.example.org"))
        .collect();
    let max = PAGE_ORIGINS_MAX;
    let refused = app.serve_at(origins.clone());
    assert_eq!(refused, Err(OpenError::TooManyOrigins { max }));
    app.serve_at(origins[..max].to_vec()).unwrap();
}

#[test]
fn pages_follow_each_other_and_fit_an_answer() {
    let (mut app, room) = with_chat();
    let ChatInfo { chat_id, .. } = room;
    let text = "x".repeat(MESSAGE_TEXT_BYTES_MAX);
    for _ in 0..150 {
        let (text, blob) = (text.clone(), Some(reference()));
        let args = SendMessageArgs {
            chat_id,
            text,
            blob,
            name: None,
            preview: None,
        };
        app.send_message(principal(1), args, 0, NOW_MS).unwrap();
    }
    let (mut after, mut ids, mut pages) = (None, Vec::new(), 0);
    loop {
        let page = read(&app, 2, chat_id, after, u32::MAX).unwrap();
        if page.is_empty() {
            break;
        }
        assert!(candid::encode_one(&page).unwrap().len() <= MESSAGES_PAGE_BYTES_MAX);
        ids.extend(page.iter().map(|message| message.message_id));
        after = ids.last().copied();
        pages += 1;
    }
    assert_eq!((ids.len(), pages), (150, 2));
    assert!(ids.is_sorted());
    assert_eq!(read(&app, 2, chat_id, None, 7).unwrap().len(), 7);
    assert_eq!(read(&app, 2, chat_id, None, 0).unwrap().len(), 1);
    assert_eq!(read(&app, 2, chat_id, Some(u64::MAX), 7).unwrap(), []);
}

#[test]
fn an_avatar_is_visible_to_every_user() {
    let (mut app, _) = with_chat();
    let avatar = SetAvatarArgs {
        blob: Some(reference()),
    };
    app.set_avatar(principal(1), avatar).unwrap();
    let seen = app.profile(principal(3), principal(1), NOW_MS).unwrap();
    let access = seen.avatar.unwrap();
    assert_eq!(access.accessor_id, own());
    let token = parse(&access.token.unwrap()).unwrap();
    let expected = expect(bucket(), own(), Scope::READ);
    let claims = token.check(&shared(&app, bucket()), &expected).unwrap();
    assert_eq!(claims.principal, principal(3));

    app.set_avatar(principal(1), SetAvatarArgs { blob: None })
        .unwrap();
    let seen = app.profile(principal(3), principal(1), NOW_MS).unwrap();
    assert_eq!(seen.avatar, None);
    let unknown = app.profile(principal(3), principal(9), NOW_MS);
    assert_eq!(unknown, Err(ChatError::UserNotFound));
}

#[test]
fn an_upgrade_forgets_nothing() {
    let memory = DefaultMemoryImpl::default();
    let nothing = App::open(memory.clone(), own(), None).err();
    assert_eq!(nothing, Some(OpenError::NoIndex));

    let memory = DefaultMemoryImpl::default();
    let mut app = App::open(memory.clone(), own(), Some(index())).unwrap();
    set_up(&mut app);
    app.learn_bucket(bucket(), Some(Ok(told_of(bucket()))), NOW_MS)
        .unwrap();
    let late = principal(203);
    app.learn_bucket(late, Some(Err(BucketKeysError::KeysNotReady)), NOW_MS)
        .unwrap();
    app.register(principal(1), NOW_MS).unwrap();
    let ChatInfo { chat_id, .. } = create(&mut app, 1, "tea").unwrap();
    let gone = create(&mut app, 1, "gone").unwrap();
    send(&mut app, 1, chat_id, Some(reference())).unwrap();
    let args = ChatArgs {
        chat_id: gone.chat_id,
    };
    app.delete_chat(principal(1), args, NOW_MS).unwrap();
    let (key, seen) = (app.public_key(), read(&app, 1, chat_id, None, 10));
    drop(app);

    let mut app = App::open(memory.clone(), own(), None).unwrap();
    assert_eq!(
        (app.public_key(), read(&app, 1, chat_id, None, 10)),
        (key, seen)
    );
    let later_ms = NOW_MS + 1_000;
    let lanes = Lane::ALL.into_iter();
    let lanes: Vec<_> = lanes
        .filter(|lane| app.next_work(*lane, later_ms).is_some())
        .collect();
    let expected = [Lane::Users, Lane::Buckets, Lane::Derivation, Lane::Removal];
    assert_eq!(lanes, expected);
    // A secret drawn twice, by a call that was under way, does not replace the first.
    app.secret_drawn([8; 32], NOW_MS);
    assert_eq!(app.public_key(), key);
    let other = App::open(memory, own(), Some(principal(5))).err();
    assert_eq!(other, Some(OpenError::OtherIndex { index: index() }));
}

/// What the bucket reads in the token of a message, if it was sealed under these versions.
fn opened(app: &App, chat_id: u64, now_ms: u64, versions: (u16, u16)) -> Option<u64> {
    let args = MessagesArgs {
        chat_id,
        after: None,
        before: None,
        limit: 1,
    };
    let seen = app.messages(principal(1), &args, now_ms).unwrap();
    let token = parse(&seen[0].blob.clone()?.token?).unwrap();
    let told = (token.issuer_key_version(), token.audience_key_version());
    (told == versions).then_some(now_ms)
}

#[test]
fn a_new_key_is_used_from_the_next_window_on_and_at_once_when_the_old_is_revoked() {
    let (mut app, room) = with_chat();
    let ChatInfo { chat_id, .. } = room;
    send(&mut app, 1, chat_id, Some(reference())).unwrap();
    let refused = app.rotate_key(false, NOW_MS);
    assert_eq!(refused, Err(RotateKeyError::NotAuthorized));
    app.rotate_key(true, NOW_MS).unwrap();
    assert_eq!(app.next_work(Lane::Setup, NOW_MS), Some(Work::DrawSecret));
    app.secret_drawn([8; 32], NOW_MS);
    let key = app.public_key().unwrap();
    assert_eq!(key.version, 2);
    // Until the index and the buckets know it, and the window is over, URLs stay as they are.
    let window_ms = NOW_MS.next_multiple_of(READ_TOKEN_WINDOW_MS);
    for now_ms in [NOW_MS, window_ms] {
        assert_eq!(opened(&app, chat_id, now_ms, (1, 1)), Some(now_ms));
    }
    assert!(app.issuer_registered(&key, &registered(), NOW_MS));
    assert_eq!(
        app.next_work(Lane::Derivation, NOW_MS),
        Some(Work::DeriveKeys)
    );
    app.derive_keys();
    assert_eq!(app.next_work(Lane::Derivation, NOW_MS), None);
    let last_ms = window_ms - 1;
    assert_eq!(opened(&app, chat_id, last_ms, (1, 1)), Some(last_ms));
    assert_eq!(opened(&app, chat_id, window_ms, (2, 1)), Some(window_ms));
    let early = app.rotate_key(true, NOW_MS);
    let max = 2;
    let ms = window_ms;
    assert_eq!(early, Err(RotateKeyError::TooManyKeyVersions { max, ms }));

    let current = RevokeKeyError::CurrentKey { version: 2 };
    assert_eq!(app.revoke_key(true, 2), Err(current));
    assert_eq!(app.revoke_key(false, 1), Err(RevokeKeyError::NotAuthorized));
    app.revoke_key(true, 1).unwrap();
    assert_eq!(opened(&app, chat_id, NOW_MS, (2, 1)), Some(NOW_MS));
    let work = app.next_work(Lane::Setup, NOW_MS);
    assert!(matches!(work, Some(Work::RevokeIssuerKey(args)) if args.version == 1));
    app.issuer_key_revoked(1, &Ok(()));
    assert_eq!(app.next_work(Lane::Setup, NOW_MS), None);
    // A month later there is a new one anyway.
    let later_ms = NOW_MS + KEY_LIFE_MS;
    assert_eq!(app.next_work(Lane::Setup, later_ms), Some(Work::DrawSecret));
}

#[test]
fn a_buckets_new_key_is_used_from_the_next_window_on_and_at_once_when_the_old_is_refused() {
    let (mut app, room) = with_chat();
    let ChatInfo { chat_id, .. } = room;
    send(&mut app, 1, chat_id, Some(reference())).unwrap();
    assert_eq!(app.next_work(Lane::Buckets, NOW_MS), None);
    let later_ms = NOW_MS + KEY_REFRESH_MS;
    let work = app.next_work(Lane::Buckets, later_ms);
    assert_eq!(work, Some(Work::AskBucketKey(bucket())));
    let told = |version, oldest| BucketKey {
        version,
        bytes: BlobId(SecretKey::from_bytes([version as u8; 32]).public()),
        oldest_version: Some(oldest),
    };
    app.bucket_key_came(bucket(), &Ok(told(2, 1)), later_ms);
    let window_ms = later_ms.next_multiple_of(READ_TOKEN_WINDOW_MS);
    assert_eq!(opened(&app, chat_id, later_ms, (1, 1)), Some(later_ms));
    assert_eq!(opened(&app, chat_id, window_ms, (1, 2)), Some(window_ms));
    app.bucket_key_came(bucket(), &Ok(told(2, 2)), later_ms);
    assert_eq!(opened(&app, chat_id, later_ms, (1, 2)), Some(later_ms));
    // A bucket that was restored from a snapshot has its old key again.
    app.bucket_key_came(bucket(), &Ok(told(1, 1)), later_ms);
    assert_eq!(opened(&app, chat_id, later_ms, (1, 1)), Some(later_ms));
    // One that the index does not know any more, or not yet again, is kept.
    app.bucket_key_came(bucket(), &Err(BucketKeysError::NotFound), later_ms);
    assert_eq!(opened(&app, chat_id, later_ms, (1, 1)), Some(later_ms));
}

/// The chat was away for days, and the bucket's key was replaced meanwhile: nobody knows when, and the bucket may refuse
/// the old one by now.
#[test]
fn a_buckets_new_key_is_used_at_once_when_the_old_was_not_heard_of_for_long() {
    let told = |version| BucketKey {
        version,
        bytes: BlobId(SecretKey::from_bytes([version as u8; 32]).public()),
        oldest_version: Some(1),
    };
    let asked_at = |later_ms: u64| {
        let (mut app, room) = with_chat();
        let ChatInfo { chat_id, .. } = room;
        send(&mut app, 1, chat_id, Some(reference())).unwrap();
        let now_ms = NOW_MS + later_ms;
        app.bucket_key_came(bucket(), &Ok(told(2)), now_ms);
        [(1, 1), (1, 2)].map(|versions| opened(&app, chat_id, now_ms, versions).is_some())
    };
    assert_eq!(asked_at(KEY_REFRESH_MS), [true, false]);
    // A token under the old one might not open for all its life.
    assert_eq!(asked_at(KEY_OVERLAP_MS - READ_TOKEN_LIFE_MS), [false, true]);
    assert_eq!(asked_at(KEY_OVERLAP_MS), [false, true]);
}

/// The index was restored from a snapshot of before two rotations: nobody believes the version in use any more, so
/// the next one is not put off to the next window.
#[test]
fn versions_that_the_index_has_forgotten_are_used_no_more() {
    let (mut app, room) = with_chat();
    let ChatInfo { chat_id, .. } = room;
    send(&mut app, 1, chat_id, Some(reference())).unwrap();
    let rotate = |app: &mut App, secret, now_ms| {
        app.secret_drawn([secret; 32], now_ms);
        let key = app.public_key().unwrap();
        assert!(app.issuer_registered(&key, &registered(), now_ms));
        while app.next_work(Lane::Derivation, now_ms).is_some() {
            app.derive_keys();
        }
        key
    };
    app.rotate_key(true, NOW_MS).unwrap();
    rotate(&mut app, 8, NOW_MS);
    let now_ms = NOW_MS.next_multiple_of(READ_TOKEN_WINDOW_MS);
    app.rotate_key(true, now_ms).unwrap();
    let newest = rotate(&mut app, 9, now_ms);
    assert_eq!(opened(&app, chat_id, now_ms, (2, 1)), Some(now_ms));
    let forgotten = IssuerError::InvalidKeyVersion { expected: 2 };
    assert!(!app.issuer_registered(&newest, &Err(forgotten), now_ms));
    assert_eq!(app.next_work(Lane::Setup, now_ms), Some(Work::DrawSecret));
    assert_eq!(rotate(&mut app, 10, now_ms).version, 2);
    assert_eq!(opened(&app, chat_id, now_ms, (2, 1)), Some(now_ms));
}

/// An admin has withdrawn its trust in the chat and given it back: nobody believes the version in use any more, so the
/// next one is not put off to the next window.
#[test]
fn a_chat_that_is_trusted_again_seals_with_its_next_key_at_once() {
    let (mut app, room) = with_chat();
    let ChatInfo { chat_id, .. } = room;
    send(&mut app, 1, chat_id, Some(reference())).unwrap();
    let key = app.public_key().unwrap();
    let begins_anew = IssuerError::InvalidKeyVersion { expected: 2 };
    assert!(!app.issuer_registered(&key, &Err(begins_anew), NOW_MS));
    app.secret_drawn([8; 32], NOW_MS);
    let key = app.public_key().unwrap();
    let told = registered().map(|ok| RegisterIssuerOk {
        oldest_version: Some(2),
        ..ok
    });
    assert!(app.issuer_registered(&key, &told, NOW_MS));
    app.derive_keys();
    assert_eq!(opened(&app, chat_id, NOW_MS, (2, 1)), Some(NOW_MS));
}

/// The index believes three keys of the chat of before, and has no room for another for two days.
#[test]
fn a_chat_that_was_made_anew_gives_up_the_oldest_of_too_many_keys() {
    let mut app = empty();
    app.secret_drawn([7; 32], NOW_MS);
    let first = app.public_key().unwrap();
    let expected = IssuerError::InvalidKeyVersion { expected: 4 };
    assert!(!app.issuer_registered(&first, &Err(expected), NOW_MS));
    let key = app.public_key().unwrap();
    let full = Err(IssuerError::TooManyKeyVersions {
        max: 3,
        ms: NOW_MS + KEY_OVERLAP_MS,
        oldest: Some(1),
    });
    assert!(!app.issuer_registered(&key, &full, NOW_MS));
    let work = app.next_work(Lane::Setup, NOW_MS);
    assert!(matches!(work, Some(Work::RevokeIssuerKey(args)) if args.version == 1));
    app.issuer_key_revoked(1, &Ok(()));
    let work = app.next_work(Lane::Setup, NOW_MS);
    assert!(matches!(work, Some(Work::RegisterIssuer(args)) if args.key == key));
    assert!(app.issuer_registered(&key, &registered(), NOW_MS));

    // One whose key is among them has something to seal with, and waits.
    let (mut app, _) = with_chat();
    app.rotate_key(true, NOW_MS).unwrap();
    app.secret_drawn([8; 32], NOW_MS);
    let key = app.public_key().unwrap();
    assert!(!app.issuer_registered(&key, &full, NOW_MS));
    let work = app.next_work(Lane::Setup, NOW_MS);
    assert!(matches!(work, Some(Work::RegisterIssuer(args)) if args.key == key));
}

#[test]
fn a_chat_that_was_made_anew_takes_the_version_that_the_index_expects() {
    let mut app = empty();
    app.secret_drawn([7; 32], NOW_MS);
    let first = app.public_key().unwrap();
    let expected = IssuerError::InvalidKeyVersion { expected: 5 };
    assert!(!app.issuer_registered(&first, &Err(expected.clone()), NOW_MS));
    let key = app.public_key().unwrap();
    assert_eq!((key.version, key.bytes), (5, first.bytes));
    assert!(app.issuer_registered(&key, &registered(), NOW_MS));
    // And one that was restored from a snapshot, which the index finds out when it confirms the key again.
    let later_ms = NOW_MS + KEY_REFRESH_MS;
    let work = app.next_work(Lane::Setup, later_ms);
    assert!(matches!(work, Some(Work::RegisterIssuer(_))));
    let expected = IssuerError::InvalidKeyVersion { expected: 8 };
    assert!(!app.issuer_registered(&key, &Err(expected), later_ms));
    assert_eq!(app.next_work(Lane::Setup, later_ms), Some(Work::DrawSecret));
    app.secret_drawn([8; 32], later_ms);
    assert_eq!(app.public_key().unwrap().version, 8);
}

#[test]
fn types_and_names_are_kept_as_the_bucket_keeps_them() {
    let (mut app, room) = with_chat();
    let ChatInfo { chat_id, .. } = room;
    let mut kept = |mime_type: &str, name: &str| {
        let blob = BlobReference {
            mime_type: mime_type.into(),
            ..reference()
        };
        let args = SendMessageArgs {
            chat_id,
            text: String::new(),
            blob: Some(blob),
            name: Some(name.into()),
            preview: None,
        };
        app.check_message(principal(1), &args)?;
        let sent = app.send_message(principal(1), args, 0, NOW_MS)?;
        let seen = read(&app, 1, chat_id, Some(sent.message_id - 1), 1)?;
        let message = &seen[0];
        let mime_type = message.blob.clone().unwrap().reference.mime_type;
        Ok::<_, ChatError>((mime_type, message.name.clone().unwrap()))
    };
    let plain = Ok(("video/mp4".to_string(), ".._a_gpj.exe".to_string()));
    assert_eq!(kept("VIDEO/MP4; codecs=x", "../a\u{202e}gpj.exe"), plain);
    let (_, long) = kept("image/png", &format!("{}.png", "\u{5b57}".repeat(84))).unwrap();
    assert!(long.len() <= 255 && long.ends_with(".png"), "{long}");
    let max = NAME_BYTES_MAX as u32;
    let refused = Err(ChatError::InvalidName { max });
    assert_eq!(kept("image/png", &"x".repeat(NAME_BYTES_MAX + 1)), refused);
    assert_eq!(kept("image/png", ""), refused);
}

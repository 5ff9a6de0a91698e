//! Keys are replaced and taken back while everybody goes on reading, whatever is upgraded in between.

use std::time::Duration;

use candid::Principal;
use integration_tests::{Setup, bucket, bytes, chat, index, operator, user};
use openstorage_tokens::parse;
use openstorage_types::{
    BlobId, BlobReference,
    bucket::{ReadChunkArgs, ReadChunkError, TokenProblem},
    channel::{PublicKey, RevokeKeyError, RotateKeyError},
    chat::{CreateChatArgs, DeleteChatOk},
    index::{DeleteChatArgs, DeleteChatError, RevokeIssuerKeyArgs},
    limits::{HOUR_MS, KEY_LIFE_MS, KEY_REFRESH_MS, READ_TOKEN_LIFE_MS, READ_TOKEN_WINDOW_MS},
};

/// A picture in a chat, and who sees it.
struct Room {
    setup: Setup,
    alice: Principal,
    chat_id: u64,
    accessor: Principal,
    message: u64,
    picture: BlobReference,
}

impl Room {
    fn new() -> Self {
        let setup = Setup::new();
        let (alice, room) = setup.user_with_chat(1);
        let picture = setup.upload(alice, &bytes(1_000, 1), room.accessor_id);
        let message = chat::post(&setup, alice, room.chat_id, &picture);
        let room = Self {
            setup,
            alice,
            chat_id: room.chat_id,
            accessor: room.accessor_id,
            message,
            picture,
        };
        // Just after the start of a window: a new key is not in use for nearly six hours.
        room.pass_windows(1);
        room
    }

    fn token(&self) -> String {
        chat::access(&self.setup, self.alice, self.chat_id, self.message).1
    }

    /// What the bucket says to a token, over HTTP and in a call.
    fn open(&self, token: &str) -> Result<(), TokenProblem> {
        let BlobReference {
            blob_id, bucket, ..
        } = self.picture;
        let args = ReadChunkArgs {
            blob_id,
            accessor_id: self.accessor,
            token: token.into(),
            chunk_index: 0,
        };
        let read = bucket::read_chunk(&self.setup, bucket, self.alice, args);
        let url = format!("/{}/{blob_id}?token={token}", self.accessor);
        let status = bucket::get(&self.setup, bucket, &url, &[]).status_code;
        assert_eq!(status, if read.is_ok() { 200 } else { 401 });
        match read {
            Ok(_) => Ok(()),
            Err(ReadChunkError::InvalidToken(problem)) => Err(problem),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn now_ms(&self) -> u64 {
        self.setup.pic.get_time().as_nanos_since_unix_epoch() / 1_000_000
    }

    fn pass(&self, ms: u64) {
        self.setup.pic.advance_time(Duration::from_millis(ms));
        // What has become due is begun and answered.
        (0..10).for_each(|_| self.setup.pic.tick());
    }

    /// Until a second after the start of the next window, or of a later one.
    fn pass_windows(&self, windows: u64) {
        let now_ms = self.now_ms();
        let start_ms = (now_ms + 1).next_multiple_of(READ_TOKEN_WINDOW_MS);
        let later_ms = (windows - 1) * READ_TOKEN_WINDOW_MS;
        self.pass(start_ms + later_ms + 1_000 - now_ms);
    }

    fn rotate(&self, canister: Principal) -> Result<(), RotateKeyError> {
        self.setup.call(canister, operator(), "rotate_key", ())
    }

    fn revoke(&self, canister: Principal, version: u16) -> Result<(), RevokeKeyError> {
        self.setup
            .call(canister, operator(), "revoke_key", (version,))
    }

    fn chat_key(&self) -> Option<PublicKey> {
        let Setup { chat, .. } = self.setup;
        self.setup.ask(chat, operator(), "public_key", ())
    }

    /// The index, and so every bucket in a moment, believes that version of the chat's key.
    fn settle_issuer(&self, version: u16) {
        let what = format!("the index knows version {version} of the chat's key");
        self.setup.settle(&what, |setup| {
            (index::issuers(setup)[0].key.version == version).then_some(())
        });
        self.setup.rest();
    }

    /// The bucket has that version of its key, and has told the index.
    fn settle_bucket(&self, version: u16) {
        let what = format!("the bucket has version {version} of its key");
        self.setup.settle(&what, |setup| {
            let key = bucket::status(setup, setup.bucket).key?;
            (key.version == version).then_some(())
        });
        self.pass(1_000);
    }

    /// The index tells that version of its key.
    fn settle_index(&self, version: u16) {
        let what = format!("the index has version {version} of its key");
        self.setup.settle(&what, |setup| {
            (index::status(setup).key?.version == version).then_some(())
        });
    }

    /// The chat deletes another room of alice's: what she has to show to the index.
    fn deletion(&self) -> DeleteChatArgs {
        let (setup, name) = (&self.setup, "soon gone".into());
        let room = chat::create_chat(setup, self.alice, CreateChatArgs { name });
        let chat_id = room.expect("there may be many").chat_id;
        match chat::delete_chat(setup, self.alice, chat_id) {
            Ok(DeleteChatOk::Delete { chat_id, token, .. }) => DeleteChatArgs { chat_id, token },
            other => panic!("{other:?}"),
        }
    }

    fn delete(&self, args: &DeleteChatArgs) -> Result<(), TokenProblem> {
        match index::delete_chat(&self.setup, self.alice, args.clone()) {
            Ok(()) => Ok(()),
            Err(DeleteChatError::InvalidToken(problem)) => Err(problem),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Versions of the chat's key and of the index's, under which the token is sealed.
    fn versions(args: &DeleteChatArgs) -> (u16, u16) {
        let token = parse(&args.token).expect("a token");
        (token.issuer_key_version(), token.audience_key_version())
    }

    fn upgrade_all(&self) {
        let Setup {
            index,
            bucket,
            chat,
            ..
        } = self.setup;
        for (canister, name) in [(chat, "chat"), (index, "index"), (bucket, "bucket")] {
            self.setup.upgrade(canister, name).expect(name);
        }
    }
}

#[test]
fn a_chats_key_is_replaced_while_old_urls_go_on_opening() {
    let room = Room::new();
    let first = room.token();
    room.rotate(room.setup.chat).unwrap();
    // The wish, the drawn key and what is derived from it each outlive an upgrade.
    room.upgrade_all();
    room.setup.settle("the chat has a second key", |_| {
        (room.chat_key()?.version == 2).then_some(())
    });
    room.upgrade_all();
    room.settle_issuer(2);
    room.upgrade_all();
    room.setup.pic.tick();
    assert_eq!(room.token(), first, "URLs stay for hours");
    assert_eq!(room.open(&first), Ok(()));

    room.pass_windows(1);
    let second = room.token();
    assert_ne!(second, first);
    assert_eq!((room.open(&first), room.open(&second)), (Ok(()), Ok(())));
    room.upgrade_all();
    assert_eq!((room.open(&first), room.open(&second)), (Ok(()), Ok(())));
    // The old token opens for as long as it was to live: its day began with the window before.
    room.pass(READ_TOKEN_LIFE_MS - READ_TOKEN_WINDOW_MS - 60_000);
    assert_eq!(room.open(&first), Ok(()));
    room.pass(60_000);
    let open = (room.open(&first), room.open(&second));
    assert_eq!(open, (Err(TokenProblem::Expired), Ok(())));
}

#[test]
fn a_version_of_a_chats_key_that_is_revoked_opens_nothing() {
    let room = Room::new();
    let Setup { chat, index, .. } = room.setup;
    let first = room.token();
    let current = RevokeKeyError::CurrentKey { version: 1 };
    assert_eq!(room.revoke(chat, 1), Err(current));
    room.rotate(chat).unwrap();
    room.settle_issuer(2);
    assert_eq!(room.open(&first), Ok(()));
    room.revoke(chat, 1).unwrap();
    // Issued at once under the new key, and the bucket hears of both keys in a moment, upgrade or not.
    let second = room.token();
    assert_ne!(second, first);
    room.upgrade_all();
    room.setup.settle("the bucket refuses the old key", |_| {
        (room.open(&first) == Err(TokenProblem::UnknownIssuer)).then_some(())
    });
    assert_eq!(room.open(&second), Ok(()));
    room.upgrade_all();
    let open = (room.open(&first), room.open(&second));
    assert_eq!(open, (Err(TokenProblem::UnknownIssuer), Ok(())));
    assert_eq!(room.token(), second);

    // An admin of the index can do the same where the app does not.
    room.rotate(chat).unwrap();
    room.settle_issuer(3);
    let args = |version| RevokeIssuerKeyArgs {
        issuer: Some(chat),
        version,
    };
    let ask = |caller, version| -> Result<(), RevokeKeyError> {
        room.setup
            .call(index, caller, "revoke_issuer_key", (args(version),))
    };
    room.setup
        .turned_away(index, user(1), "revoke_issuer_key", (args(2),));
    let current = RevokeKeyError::CurrentKey { version: 3 };
    assert_eq!(ask(operator(), 3), Err(current));
    assert_eq!(ask(operator(), 2), Ok(()));
    room.setup.settle("the bucket refuses that key too", |_| {
        (room.open(&second) == Err(TokenProblem::UnknownIssuer)).then_some(())
    });
}

#[test]
fn a_buckets_key_is_replaced_and_revoked() {
    let room = Room::new();
    let bucket = room.setup.bucket;
    let first = room.token();
    room.rotate(bucket).unwrap();
    room.upgrade_all();
    room.settle_bucket(2);
    room.upgrade_all();
    assert_eq!(room.open(&first), Ok(()));
    // Within an hour the chat has heard of the new key; it seals for it from the next window on.
    room.pass(KEY_REFRESH_MS);
    assert_eq!(room.token(), first, "URLs stay for hours");
    room.pass_windows(1);
    let second = room.token();
    assert_ne!(second, first);
    assert_eq!((room.open(&first), room.open(&second)), (Ok(()), Ok(())));

    let current = RevokeKeyError::CurrentKey { version: 2 };
    assert_eq!(room.revoke(bucket, 2), Err(current));
    room.revoke(bucket, 1).unwrap();
    for _ in 0..2 {
        let open = (room.open(&first), room.open(&second));
        assert_eq!(open, (Err(TokenProblem::UnknownIssuer), Ok(())));
        room.upgrade_all();
    }

    // A chat that still seals for a revoked version goes over to the new one as soon as it hears.
    room.rotate(bucket).unwrap();
    room.settle_bucket(3);
    room.revoke(bucket, 2).unwrap();
    room.pass(1_000);
    assert_eq!(room.open(&room.token()), Err(TokenProblem::UnknownIssuer));
    room.pass(KEY_REFRESH_MS);
    assert_eq!(room.open(&room.token()), Ok(()));
}

#[test]
fn an_indexs_key_is_replaced_and_revoked_while_chats_go_on_being_deleted() {
    let room = Room::new();
    let Setup { chat, index, .. } = room.setup;
    let delete_another = |versions| {
        let args = room.deletion();
        assert_eq!(Room::versions(&args), versions);
        assert_eq!(room.delete(&args), Ok(()));
    };
    delete_another((1, 1));
    room.rotate(index).unwrap();
    // The wish, the drawn key and what the chat shares under it each outlive an upgrade.
    room.upgrade_all();
    room.settle_index(2);
    room.upgrade_all();
    delete_another((1, 1));
    let old = room.deletion();
    // Within an hour the chat has heard of the new key, and seals for it at once.
    room.pass(KEY_REFRESH_MS - 60_000);
    delete_another((1, 1));
    room.pass(60_000);
    delete_another((1, 2));
    room.upgrade_all();
    delete_another((1, 2));
    // The chat's own key turns meanwhile.
    room.rotate(chat).unwrap();
    room.settle_issuer(2);
    delete_another((2, 2));
    assert_eq!(room.delete(&old), Err(TokenProblem::Expired));

    let current = RevokeKeyError::CurrentKey { version: 2 };
    assert_eq!(room.revoke(index, 2), Err(current));
    room.rotate(index).unwrap();
    room.settle_index(3);
    let old = room.deletion();
    assert_eq!(Room::versions(&old), (2, 2));
    room.revoke(index, 2).unwrap();
    for _ in 0..2 {
        assert_eq!(room.delete(&old), Err(TokenProblem::UnknownIssuer));
        room.upgrade_all();
    }
    room.pass(KEY_REFRESH_MS);
    delete_another((2, 3));
}

#[test]
fn an_index_that_was_restored_from_a_snapshot_and_a_chat_agree_on_a_key_again() {
    let room = Room::new();
    let Setup { index, .. } = room.setup;
    let (pic, sender) = (&room.setup.pic, Some(operator()));
    pic.stop_canister(index, sender).unwrap();
    let snapshot = pic.take_canister_snapshot(index, sender, None).unwrap();
    pic.start_canister(index, sender).unwrap();
    room.rotate(index).unwrap();
    room.settle_index(2);
    room.pass(KEY_REFRESH_MS);
    let forgotten = room.deletion();
    assert_eq!(Room::versions(&forgotten), (1, 2));
    pic.stop_canister(index, sender).unwrap();
    pic.load_canister_snapshot(index, sender, snapshot.id)
        .unwrap();
    pic.start_canister(index, sender).unwrap();

    assert_eq!(room.delete(&forgotten), Err(TokenProblem::UnknownIssuer));
    room.pass(KEY_REFRESH_MS);
    let known = room.deletion();
    assert_eq!(Room::versions(&known), (1, 1));
    assert_eq!(room.delete(&known), Ok(()));
    // Another key comes under the version that was forgotten.
    room.rotate(index).unwrap();
    room.settle_index(2);
    assert_eq!(room.delete(&forgotten), Err(TokenProblem::NotAuthentic));
    room.pass(KEY_REFRESH_MS);
    let new = room.deletion();
    assert_eq!(Room::versions(&new), (1, 2));
    assert_eq!(room.delete(&new), Ok(()));
    assert_eq!(room.open(&room.token()), Ok(()));
}

#[test]
fn only_controllers_replace_keys_and_not_too_many() {
    let room = Room::new();
    let Setup {
        chat,
        bucket,
        index,
        ..
    } = room.setup;
    for canister in [chat, bucket, index] {
        let alice = room.alice;
        room.setup.turned_away(canister, alice, "rotate_key", ());
        room.setup
            .turned_away(canister, alice, "revoke_key", (1_u16,));
    }
    let token = room.token();
    for version in 2..=3 {
        room.rotate(bucket).unwrap();
        room.settle_bucket(version);
    }
    let too_many = room.rotate(bucket);
    assert!(
        matches!(too_many, Err(RotateKeyError::TooManyKeyVersions { max: 3, ms }) if ms > room.now_ms()),
        "{too_many:?}"
    );
    assert_eq!(room.open(&token), Ok(()));
    room.revoke(bucket, 2).unwrap();
    room.rotate(bucket).unwrap();
    room.settle_bucket(4);
    assert_eq!(room.open(&token), Ok(()));
}

#[test]
fn every_key_is_replaced_after_a_month() {
    let room = Room::new();
    let bucket = room.setup.bucket;
    let key = |room: &Room| -> Option<BlobId> {
        let key = bucket::status(&room.setup, bucket).key?;
        (key.version == 2).then_some(key.bytes)
    };
    // Keys were drawn before the first window that the room saw begin.
    let early_ms = READ_TOKEN_WINDOW_MS + HOUR_MS;
    room.pass(KEY_LIFE_MS - early_ms);
    assert_eq!((key(&room), room.chat_key().unwrap().version), (None, 1));
    assert_eq!(index::status(&room.setup).key.unwrap().version, 1);
    assert_eq!(room.open(&room.token()), Ok(()));
    room.pass(early_ms);
    room.setup.settle("all have new keys", |setup| {
        key(&room)?;
        let versions = [room.chat_key()?, index::status(setup).key?].map(|key| key.version);
        (versions == [2, 2]).then_some(())
    });
    for _ in 0..3 {
        assert_eq!(room.open(&room.token()), Ok(()));
        room.pass_windows(1);
    }
}

#[test]
fn a_chat_that_was_restored_from_a_snapshot_takes_another_key() {
    let room = Room::new();
    let Setup { chat, .. } = room.setup;
    let (pic, sender) = (&room.setup.pic, Some(operator()));
    pic.stop_canister(chat, sender).unwrap();
    let snapshot = pic.take_canister_snapshot(chat, sender, None).unwrap();
    pic.start_canister(chat, sender).unwrap();
    room.rotate(chat).unwrap();
    room.settle_issuer(2);
    pic.stop_canister(chat, sender).unwrap();
    pic.load_canister_snapshot(chat, sender, snapshot.id)
        .unwrap();
    pic.start_canister(chat, sender).unwrap();

    // The first key is a replaced one, and still believed. Within an hour the index tells that there were others.
    assert_eq!(room.chat_key().unwrap().version, 1);
    assert_eq!(room.open(&room.token()), Ok(()));
    chat::register(&room.setup, room.alice).unwrap();
    room.pass(KEY_REFRESH_MS);
    room.settle_issuer(3);
    for _ in 0..3 {
        assert_eq!(room.open(&room.token()), Ok(()));
        room.pass_windows(1);
    }
}

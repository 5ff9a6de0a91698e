//! Who may call what: all that nobody may usefully call is turned away before it is executed, and what strangers may call
//! is bounded.

use candid::{Encode, Principal, decode_one, encode_one};
use integration_tests::{
    SMALL_BUCKET_BYTES, Setup, blob_id, bucket, bytes, chat, chunk, index, operator, user,
};
use openstorage_types::{
    BlobId,
    bucket::*,
    channel::PublicKey,
    http::HttpRequest,
    index::{InitArgs as IndexInit, *},
    limits::FEED_OWNER_CHANGES_MAX,
};
use openstorage_universal::{Call, Program, WASM};
use serde::Deserialize;

/// Who calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Nobody,
    Stranger,
    User,
    Operator,
}

const ALL: [Who; 4] = [Who::Nobody, Who::Stranger, Who::User, Who::Operator];

/// Of each method that changes something: who is let in with it.
const BUCKET: [(&str, &[Who]); 10] = [
    ("push_chunk", &[Who::User]),
    ("upload_chunk", &[Who::User]),
    ("abort_upload", &[Who::User]),
    ("add_blob_reference", &[Who::User]),
    ("remove_blob_reference", &[Who::User]),
    ("delete_blob", &[Who::User]),
    (
        "ensure_registered",
        &[Who::Stranger, Who::User, Who::Operator],
    ),
    // Only for what a query has told to ask again.
    ("http_request_update", &[]),
    ("rotate_key", &[Who::Operator]),
    ("revoke_key", &[Who::Operator]),
];

const INDEX: [(&str, &[Who]); 18] = [
    ("delete_chat", &[Who::User]),
    ("register_user", &[Who::Operator]),
    ("register_users", &[Who::Operator]),
    ("update_user", &[Who::Operator]),
    ("update_users", &[Who::Operator]),
    ("delete_user", &[Who::Operator]),
    ("delete_users", &[Who::Operator]),
    ("register_issuer", &[Who::Operator]),
    ("remove_issuer", &[Who::Operator]),
    ("revoke_issuer_key", &[Who::Operator]),
    ("rotate_key", &[Who::Operator]),
    ("revoke_key", &[Who::Operator]),
    ("audit", &[Who::Operator]),
    ("add_bucket", &[Who::Operator]),
    ("set_bucket_full", &[Who::Operator]),
    ("retire_bucket", &[Who::Operator]),
    ("forget_bucket", &[Who::Operator]),
    ("upgrade_buckets", &[Who::Operator]),
];

/// Of the chat: by strangers, and by controllers. All else is users'.
const CHAT: [(&str, &[Who]); 3] = [
    ("register", &[Who::Stranger, Who::User, Who::Operator]),
    ("rotate_key", &[Who::Operator]),
    ("revoke_key", &[Who::Operator]),
];

/// The methods of an interface.
fn methods(interface: &str) -> Vec<&str> {
    let (_, service) = interface.split_once("\nservice").expect("there is one");
    let methods = service.lines().filter_map(|line| {
        let (method, _) = line.trim().split_once(" : (")?;
        (!method.is_empty() && !line.trim().starts_with("//")).then_some(method)
    });
    let methods: Vec<_> = methods.collect();
    assert!(methods.len() > 10, "the interface is written another way");
    methods
}

/// A canister's name and id, its interface, and who is let in with which method.
type Interface<'a> = (&'a str, Principal, &'a str, &'a [(&'a str, &'a [Who])]);

/// Each method of each canister, by each kind of caller. Canisters are not asked at the door, so that nothing they send
/// may cost much: the instructions of the most expensive refusal are printed and bounded.
#[test]
fn only_who_may_usefully_call_a_method_is_let_in() {
    let setup = Setup::new();
    let (alice, _) = setup.user_with_chat(1);
    bucket::ensure_registered(&setup, setup.bucket, alice).unwrap();
    let canisters: [Interface; 3] = [
        (
            "bucket",
            setup.bucket,
            include_str!("../../canisters/bucket/data_bucket.did"),
            &BUCKET,
        ),
        (
            "index",
            setup.index,
            include_str!("../../canisters/index/data_bucket_index.did"),
            &INDEX,
        ),
        (
            "chat",
            setup.chat,
            include_str!("../../canisters/chat/chat.did"),
            &CHAT,
        ),
    ];
    let mut wrong = vec![];
    for (name, canister, interface, table) in canisters {
        let (_, service) = interface.split_once("\nservice").unwrap();
        for method in methods(interface) {
            let line = service
                .lines()
                .find(|line| line.trim().starts_with(&format!("{method} : (")));
            let is_query = line.unwrap().trim_end().ends_with("query;");
            let known = table.iter().find(|(known, _)| *known == method);
            let expected: &[Who] = match known {
                Some((_, who)) => who,
                None if is_query || method.starts_with("c2c_") => &[],
                None if name == "chat" => &[Who::User],
                None => panic!("{name}.{method} stands in no table"),
            };
            for who in ALL {
                let caller = match who {
                    Who::Nobody => Principal::anonymous(),
                    Who::Stranger => user(9),
                    Who::User => alice,
                    Who::Operator => operator(),
                };
                // Nothing is executed: what is in stays a message on its way.
                let nothing = Encode!().unwrap();
                let submitted = setup.pic.submit_call(canister, caller, method, nothing);
                let is_in = submitted.is_ok();
                println!(
                    "{name}.{method} by {who:?}: {}",
                    if is_in { "in" } else { "out" }
                );
                if is_in != expected.contains(&who) {
                    wrong.push(format!("{name}.{method} by {who:?}: in is {is_in}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[derive(Deserialize)]
struct Page {
    accounts: Vec<Account>,
    next: u64,
}

#[derive(Deserialize)]
struct Account {
    canister: Principal,
    kind: String,
    method: String,
    usage: Usage,
}

#[derive(Deserialize)]
struct Usage {
    instructions: u64,
}

/// What each execution used since `after`, as the local network accounts for it.
fn accounts(setup: &Setup, after: &mut u64) -> Vec<Account> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let pic = &setup.pic;
    let route = format!(
        "{}instances/{}/accounts",
        pic.get_server_url(),
        pic.instance_id()
    );
    runtime.block_on(async {
        if *after == 0 {
            let keep = serde_json::json!({ "capacity": 100_000 });
            client.post(&route).json(&keep).send().await.unwrap();
        }
        let mut all = vec![];
        loop {
            let url = format!("{route}?after={after}");
            let page: Page = client.get(url).send().await.unwrap().json().await.unwrap();
            if page.accounts.is_empty() {
                return all;
            }
            *after = page.next;
            all.extend(page.accounts);
        }
    })
}

/// 4 KiB that claim to be millions of values, to every method of the three canisters, by a canister that passes no
/// `inspect_message`.
#[test]
fn a_bomb_of_a_foreign_canister_costs_little() {
    let setup = Setup::new();
    let pic = &setup.pic;
    let canister = pic.create_canister_with_settings(Some(operator()), None);
    pic.add_cycles(canister, 100_000_000_000_000);
    let nothing = Program::new().bytes().to_vec();
    pic.install_canister(canister, WASM.to_vec(), nothing, Some(operator()));
    // A vector of 2³² nulls, and one of vectors of records of them, up to 4 KiB.
    let nulls = b"DIDL\x01\x6d\x7f\x01\x00\xff\xff\xff\xff\x0f".to_vec();
    let mut nested = b"DIDL\x02\x6d\x01\x6d\x7f\x01\x00\x80\x20".to_vec();
    while nested.len() < 4_000 {
        nested.extend(b"\xff\xff\xff\xff\x0f");
    }
    for _ in 0..30 {
        pic.tick();
    }
    let mut after = 0;
    accounts(&setup, &mut after);
    let mut most = 0;
    for (callee, interface) in [
        (
            setup.index,
            include_str!("../../canisters/index/data_bucket_index.did"),
        ),
        (
            setup.bucket,
            include_str!("../../canisters/bucket/data_bucket.did"),
        ),
        (setup.chat, include_str!("../../canisters/chat/chat.did")),
    ] {
        for method in methods(interface) {
            for bomb in [&nulls, &nested] {
                let call = Call::new(callee, method).payload(bomb.clone());
                let program = Program::new().call(call).bytes().to_vec();
                let _ = pic.update_call(canister, user(9), "update", program);
            }
        }
        for account in accounts(&setup, &mut after) {
            if account.canister == callee && account.kind != "query" {
                let Usage { instructions } = account.usage;
                println!(
                    "{} {}: {instructions} instructions",
                    account.kind, account.method
                );
                if account.method != "audit" {
                    most = most.max(instructions);
                }
            }
        }
    }
    println!("at most {most} instructions");
    assert!(most < 2_000_000, "{most} instructions");
}

/// A bucket that has no more cycles than new ones get. However many strangers ask it in every round who they are, its users
/// get their allowance at the first try.
#[test]
fn strangers_keep_no_user_of_a_poor_bucket_waiting() {
    let setup = Setup::new();
    // The index has made it, with what it gives to each.
    let (pic, poor) = (&setup.pic, setup.bucket);
    let users: Vec<_> = (1..9).map(|n| setup.user_with_chat(n)).collect();
    for (user, _) in &users {
        bucket::ensure_registered(&setup, poor, *user).unwrap();
    }
    let cycles = pic.cycle_balance(poor);
    println!("the bucket has {cycles} cycles");
    assert!(cycles < 2_000_000_000_000);
    let nothing = Encode!().unwrap();
    let mut strangers = vec![];
    for (round, (user_id, room)) in users.iter().enumerate() {
        for n in 0..60 {
            let stranger = user(10_000 + 100 * round as u64 + n);
            let asked = pic.submit_call(poor, stranger, "ensure_registered", nothing.clone());
            strangers.push(asked.expect("it is let in"));
        }
        pic.tick();
        let args = chunk(&bytes(100, round as u64), 0, room.accessor_id);
        let pushed = bucket::push_chunk(&setup, poor, *user_id, args);
        assert_eq!(pushed.map(|ok| ok.state), Ok(UploadState::Stored));
    }
    let mut answers = [0; 2];
    for stranger in strangers {
        let answer = pic.await_call(stranger).expect("it is answered");
        let answer: Result<(), EnsureRegisteredError> = decode_one(&answer).unwrap();
        match answer {
            Err(EnsureRegisteredError::NotRegistered) => answers[0] += 1,
            Err(EnsureRegisteredError::Retry { .. }) => answers[1] += 1,
            answer => panic!("{answer:?}"),
        }
    }
    let [unknown, later] = answers;
    println!("{unknown} strangers were unknown, {later} were to ask later");
    assert!(unknown > 0);
    // One who is unknown is not asked about again at once.
    let stranger = user(20_000);
    let ask = || bucket::ensure_registered(&setup, poor, stranger);
    assert_eq!(ask(), Err(EnsureRegisteredError::NotRegistered));
    let mut after = 0;
    accounts(&setup, &mut after);
    assert_eq!(ask(), Err(EnsureRegisteredError::NotRegistered));
    let asked = accounts(&setup, &mut after);
    let is_asked = |it: &Account| it.canister == setup.index && it.method == "c2c_lease";
    assert!(!asked.iter().any(is_asked), "the index was asked again");
    // Whom the index registers meanwhile it tells of.
    let args = UserArgs {
        user: stranger,
        byte_limit: 1_000,
    };
    index::register_user(&setup, operator(), args).unwrap();
    setup.settle("the bucket knows", |_| ask().is_ok().then_some(()));
}

/// Queries burn the canister's cycles where they are called as updates.
#[test]
fn no_query_is_let_in_as_an_update() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    let data = bytes(1_000_000, 1);
    let blob = setup.upload(alice, &data, room.accessor_id);
    let message = chat::post(&setup, alice, room.chat_id, &blob);
    let (_, token) = chat::access(&setup, alice, room.chat_id, message);
    let url = format!("/{}/{}?token={token}", room.accessor_id, blob.blob_id);
    assert_eq!(
        bucket::get(&setup, setup.bucket, &url, &[]).status_code,
        200
    );
    let request = HttpRequest {
        method: "GET".into(),
        url,
        headers: vec![],
        body: Default::default(),
        certificate_version: Some(2),
    };
    let request = encode_one(request).unwrap();
    let balance = setup.pic.cycle_balance(setup.bucket);
    for caller in [Principal::anonymous(), user(9), alice] {
        for method in ["http_request", "http_request_update"] {
            let call = setup
                .pic
                .submit_call(setup.bucket, caller, method, request.clone());
            call.expect_err("it is turned away");
        }
    }
    assert_eq!(setup.pic.cycle_balance(setup.bucket), balance);
}

#[test]
fn strangers_are_shown_no_buckets() {
    let setup = Setup::new();
    let (alice, _) = setup.user_with_chat(1);
    for caller in [Principal::anonymous(), user(9), alice] {
        let status: IndexStatus = setup.ask(setup.index, caller, "status", ());
        assert!(status.buckets.is_empty(), "{status:?}");
        assert!(status.users > 0 && status.key.is_some());
        let refused: Result<Vec<BucketInfo>, FleetError> =
            setup.ask(setup.index, caller, "buckets", ());
        assert_eq!(refused, Err(FleetError::NotAuthorized));
    }
    assert_eq!(index::status(&setup).buckets.len(), 1);
}

/// What was sealed before the removal stays closed.
#[test]
fn an_issuer_that_was_removed_comes_back_with_another_key_only() {
    let setup = Setup::new();
    let issuer = user(700);
    let register = |version, secret: u8| {
        let public = openstorage_tokens::SecretKey::from_bytes([secret; 32]).public();
        let bytes = BlobId(public);
        let key = PublicKey { version, bytes };
        let args = RegisterIssuerArgs {
            issuer: Some(issuer),
            key,
        };
        let answer: Result<RegisterIssuerOk, IssuerError> =
            setup.call(setup.index, operator(), "register_issuer", (args,));
        answer.map(|_| ())
    };
    register(1, 1).unwrap();
    register(1, 1).unwrap();
    let removed: Result<(), IssuerError> =
        setup.call(setup.index, operator(), "remove_issuer", (issuer,));
    removed.unwrap();
    assert_eq!(
        register(1, 1),
        Err(IssuerError::InvalidKeyVersion { expected: 2 })
    );
    assert_eq!(
        register(1, 2),
        Err(IssuerError::InvalidKeyVersion { expected: 2 })
    );
    register(2, 2).unwrap();
}

fn snapshot(setup: &Setup, canister: Principal) -> Vec<u8> {
    let (pic, sender) = (&setup.pic, Some(operator()));
    pic.stop_canister(canister, sender).unwrap();
    let snapshot = pic.take_canister_snapshot(canister, sender, None).unwrap();
    pic.start_canister(canister, sender).unwrap();
    snapshot.id
}

/// However little the index has done since the snapshot was taken.
#[test]
fn an_index_that_forgot_one_grant_grants_it_to_nobody_else() {
    let init = IndexInit {
        bucket_bytes_max: Some(SMALL_BUCKET_BYTES),
        ..IndexInit::default()
    };
    let setup = Setup::with(init).with_buckets(2);
    let [one, two] = setup.active_buckets()[..] else {
        panic!("two buckets");
    };
    let (alice, room) = setup.user_with_chat(1);
    let args = UserArgs {
        user: alice,
        byte_limit: 24_000_000,
    };
    index::update_user(&setup, operator(), args).unwrap();
    for bucket in [one, two] {
        bucket::ensure_registered(&setup, bucket, alice).unwrap();
    }
    setup.rest();
    let earlier = snapshot(&setup, setup.index);
    setup.rest();
    let first = |size: u64, seed| PushChunkArgs {
        size,
        ..chunk(&bytes(2_000_000, seed), 0, room.accessor_id)
    };
    // An index that was stopped asks its buckets first, and grants nothing until then.
    let push = |bucket, args: PushChunkArgs| {
        for _ in 0..100 {
            let answer = bucket::push_chunk(&setup, bucket, alice, args.clone());
            if !matches!(answer, Err(PushChunkError::Retry { .. })) {
                return answer;
            }
            setup.pic.advance_time(std::time::Duration::from_secs(1));
            setup.pic.tick();
        }
        panic!("never decided");
    };
    // It promises 15 MB.
    push(two, first(15_000_000, 2)).unwrap();
    // Loaded while it runs, so that nothing else changes it.
    let (pic, sender) = (&setup.pic, Some(operator()));
    if pic
        .load_canister_snapshot(setup.index, sender, earlier.clone())
        .is_err()
    {
        pic.stop_canister(setup.index, sender).unwrap();
        pic.load_canister_snapshot(setup.index, sender, earlier)
            .unwrap();
        pic.start_canister(setup.index, sender).unwrap();
    }
    let answer = push(one, first(20_000_000, 4));
    let Err(PushChunkError::AllowanceExceeded(allowance)) = answer else {
        panic!("35 MB are promised of 24: {answer:?}");
    };
    assert_eq!(allowance.leased_elsewhere, 15_000_000);
}

/// One user's changes push nobody else's out of the feed.
#[test]
fn the_feed_keeps_a_share_for_each_owner() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    let (bob, _) = setup.user_with_chat(2);
    let first = setup.upload(alice, &bytes(100, 1), room.accessor_id);
    let count = FEED_OWNER_CHANGES_MAX + 100;
    integration_tests::grown::grow(&setup, bob, room.accessor_id, 0, count);
    let page = |caller, owner| {
        let args = FeedArgs {
            after: 0,
            limit: 1,
            owner,
        };
        index::events(&setup, caller, args).unwrap()
    };
    let of_alice = page(alice, None);
    assert_eq!(of_alice.changes[0].blob_id, first.blob_id);
    assert_eq!(of_alice.changes[0].blob_id, blob_id(&bytes(100, 1)));
    let of_bob = page(bob, None);
    assert!(of_bob.forgotten_until > 0 && of_bob.forgotten_until < of_bob.changes[0].id);
    assert!(of_alice.forgotten_until < of_bob.forgotten_until);
    // Whoever follows everybody's changes and has read less far has missed some.
    let of_all = page(operator(), None);
    assert_eq!(of_all.changes[0].blob_id, first.blob_id);
    assert_eq!(of_all.forgotten_until, of_bob.forgotten_until);
}

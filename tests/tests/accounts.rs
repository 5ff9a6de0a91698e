//! Allowances and deletions over several buckets: nothing is promised twice, nothing is lost, nothing
//! deleted comes back.

use candid::{Encode, Principal, decode_one};
use integration_tests::{
    SMALL_BUCKET_BYTES, Setup, blob_id, bucket, bytes, chat, chunk, index, operator, user,
};
use openstorage_types::{
    bucket::*,
    index::{ChangeKind, FeedArgs, FeedError, InitArgs, UserArgs, UserError},
    limits::{CHAT_PREMIUM_USER_BYTES, CHAT_USER_BYTES, CHUNK_BYTES, PAGE_ROWS_MAX, charge},
};
use pocket_ic::common::rest::RawMessageId;

fn small_buckets(count: usize) -> Setup {
    let init = InitArgs {
        bucket_bytes_max: Some(SMALL_BUCKET_BYTES),
        ..InitArgs::default()
    };
    Setup::with(init).with_buckets(count)
}

fn set_limit(setup: &Setup, user: Principal, byte_limit: u64) {
    index::update_user(setup, operator(), UserArgs { user, byte_limit }).unwrap();
}

/// The first chunk of a blob of `size` bytes.
fn first_chunk(size: u64, seed: u64, accessor: Principal) -> PushChunkArgs {
    let data = bytes(size.min(CHUNK_BYTES), seed);
    PushChunkArgs {
        size,
        ..chunk(&data, 0, accessor)
    }
}

/// Pushes all at once, and again whatever is told to come later, until each is decided.
fn push_all(
    setup: &Setup,
    user: Principal,
    pushes: &[(Principal, PushChunkArgs)],
) -> Vec<Result<PushChunkOk, PushChunkError>> {
    let mut answers: Vec<Option<_>> = vec![None; pushes.len()];
    for _ in 0..100 {
        let calls: Vec<(usize, RawMessageId)> = pushes
            .iter()
            .enumerate()
            .filter(|(i, _)| answers[*i].is_none())
            .map(|(i, (bucket, args))| {
                let arg = Encode!(args).unwrap();
                let call = setup.pic.submit_call(*bucket, user, "push_chunk", arg);
                (i, call.unwrap())
            })
            .collect();
        for (i, call) in calls {
            let bytes = setup.pic.await_call(call).unwrap();
            let answer: Result<PushChunkOk, PushChunkError> = decode_one(&bytes).unwrap();
            if !matches!(answer, Err(PushChunkError::Retry { .. })) {
                answers[i] = Some(answer);
            }
        }
        if let Some(all) = answers.iter().cloned().collect() {
            return all;
        }
        setup.pic.advance_time(std::time::Duration::from_secs(1));
        setup.pic.tick();
    }
    panic!("some are never decided: {answers:?}");
}

#[test]
fn of_parallel_uploads_that_total_one_byte_too_many_exactly_one_is_refused() {
    let setup = small_buckets(3);
    let buckets = setup.active_buckets();
    let (alice, room) = setup.user_with_chat(1);
    let count = 9;
    let limit = 9 * 500_000;
    set_limit(&setup, alice, limit);
    let pushes: Vec<_> = (0..count)
        .map(|i| {
            let bucket = buckets[i as usize % buckets.len()];
            let size = 500_000 + u64::from(i == 0);
            (bucket, first_chunk(size, i, room.accessor_id))
        })
        .collect();
    for bucket in &buckets {
        bucket::ensure_registered(&setup, *bucket, alice).unwrap();
    }
    let answers = push_all(&setup, alice, &pushes);
    let refused: Vec<_> = answers.iter().filter_map(|a| a.as_ref().err()).collect();
    let [PushChunkError::AllowanceExceeded(allowance)] = refused[..] else {
        panic!("{answers:?}");
    };
    assert_eq!((allowance.byte_limit, allowance.unreachable), (limit, None));
    setup.rest();
    let info = index::user(&setup, alice).unwrap();
    let stored = pushes
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| answer.is_ok());
    assert_eq!(
        info.bytes_used,
        stored.map(|((_, args), _)| args.size).sum::<u64>()
    );
    assert!(info.bytes_used + info.bytes_leased <= limit);
}

#[test]
fn what_another_bucket_does_not_need_is_called_back() {
    let setup = small_buckets(2);
    let [one, two] = setup.active_buckets()[..] else {
        panic!("two buckets");
    };
    let (alice, room) = setup.user_with_chat(1);
    let limit = 24_000_000;
    set_limit(&setup, alice, limit);
    for bucket in [one, two] {
        bucket::ensure_registered(&setup, bucket, alice).unwrap();
    }
    // A small picture, for which the bucket leases more than it needs.
    let picture = first_chunk(2_000, 1, room.accessor_id);
    bucket::push_chunk(&setup, one, alice, picture).unwrap();
    let leased = index::user(&setup, alice).unwrap().bytes_leased;
    assert!(leased > 1_000_000, "{leased}");
    // One byte more than there is; then all that there is.
    let large = first_chunk(limit - 1_999, 2, room.accessor_id);
    let Err(PushChunkError::AllowanceExceeded(allowance)) =
        &push_all(&setup, alice, &[(two, large)])[0]
    else {
        panic!("it is too much");
    };
    assert_eq!(
        (allowance.bytes_used, allowance.leased_elsewhere),
        (2_000, 0)
    );
    let large = first_chunk(limit - 2_000, 2, room.accessor_id);
    push_all(&setup, alice, &[(two, large)])[0]
        .as_ref()
        .unwrap();
    setup.rest();
    let info = index::user(&setup, alice).unwrap();
    assert_eq!((info.bytes_used, info.bytes_leased), (2_000, limit - 2_000));
}

#[test]
fn a_lowered_limit_takes_back_leases_and_a_raised_one_gives_more() {
    let setup = small_buckets(2);
    let buckets = setup.active_buckets();
    let (alice, room) = setup.user_with_chat(1);
    let data = bytes(3_000, 1);
    for bucket in &buckets {
        bucket::ensure_registered(&setup, *bucket, alice).unwrap();
    }
    bucket::push_chunk(&setup, buckets[0], alice, chunk(&data, 0, room.accessor_id)).unwrap();
    let open = first_chunk(5_000_000, 2, room.accessor_id);
    bucket::push_chunk(&setup, buckets[1], alice, open.clone()).unwrap();
    set_limit(&setup, alice, 1_000);
    setup.settle("only what is reserved is still leased", |setup| {
        let info = index::user(setup, alice).unwrap();
        ((info.bytes_used, info.bytes_leased) == (3_000, 5_000_000)).then_some(())
    });
    // What is stored stays, what was begun goes on, and nothing new begins.
    bucket::push_chunk(&setup, buckets[1], alice, open).unwrap();
    let next = [(buckets[0], first_chunk(10, 3, room.accessor_id))];
    assert!(matches!(
        push_all(&setup, alice, &next)[0],
        Err(PushChunkError::AllowanceExceeded(_))
    ));
    set_limit(&setup, alice, 10_000_000);
    push_all(&setup, alice, &next)[0].as_ref().unwrap();
    setup.rest();
}

#[test]
fn a_user_deleted_during_its_upload_leaves_nothing_and_comes_back_as_another() {
    let setup = small_buckets(2);
    let buckets = setup.active_buckets();
    let (alice, room) = setup.user_with_chat(1);
    let stored = bytes(3_000, 1);
    let open = bytes(CHUNK_BYTES + 5, 2);
    let before: Vec<_> = buckets.iter().map(|b| bucket::status(&setup, *b)).collect();
    for bucket in &buckets {
        bucket::ensure_registered(&setup, *bucket, alice).unwrap();
        for data in [&stored, &open] {
            let args = chunk(data, 0, room.accessor_id);
            bucket::push_chunk(&setup, *bucket, alice, args).unwrap();
        }
    }
    setup.turned_away(setup.index, user(9), "delete_user", (alice,));
    for _ in 0..2 {
        index::delete_user(&setup, operator(), alice).unwrap();
    }
    let last = chunk(&open, 1, room.accessor_id);
    for (bucket, before) in buckets.iter().zip(&before) {
        setup.settle("the bucket has removed everything", |setup| {
            let status = bucket::status(setup, *bucket);
            (status.blobs == before.blobs && status.open_uploads == before.open_uploads)
                .then_some(())
        });
        let blob_id = blob_id(&open);
        let status = bucket::upload_status(&setup, *bucket, alice, UploadArgs { blob_id });
        let gone = UploadState::Gone(GoneReason::UserDeleted);
        assert_eq!(status.unwrap().state, gone);
        setup.turned_away(*bucket, alice, "push_chunk", (last.clone(),));
    }
    assert_eq!(index::user(&setup, alice), Err(UserError::NotRegistered));

    let byte_limit = 10_000_000;
    let user = alice;
    index::register_user(&setup, operator(), UserArgs { user, byte_limit }).unwrap();
    for bucket in &buckets {
        bucket::ensure_registered(&setup, *bucket, alice).unwrap();
    }
    let again = [(buckets[0], chunk(&stored, 0, room.accessor_id))];
    push_all(&setup, alice, &again)[0].as_ref().unwrap();
    setup.rest();
    assert_eq!(index::user(&setup, alice).unwrap().bytes_used, 3_000);
    assert_eq!(bucket::status(&setup, buckets[1]).blobs, before[1].blobs);
}

#[test]
fn an_upgrade_in_the_middle_of_the_sync_loses_nothing() {
    let setup = small_buckets(2);
    let buckets = setup.active_buckets();
    let rows = |page: u64| {
        (0..u64::from(PAGE_ROWS_MAX))
            .map(|n| UserArgs {
                user: user(10_000 * page + n),
                byte_limit: 1_000_000,
            })
            .collect::<Vec<_>>()
    };
    let mut registered = 0;
    for page in 1..=3 {
        let answers = index::register_users(&setup, operator(), rows(page));
        registered += answers.iter().filter(|answer| answer.is_ok()).count();
        match page {
            1 => setup.upgrade(setup.index, "index").unwrap(),
            2 => {
                setup.pic.tick();
                let arg = Encode!(&None::<openstorage_types::bucket::InitArgs>).unwrap();
                let sender = Some(operator());
                setup.pic.stop_canister(buckets[0], sender).unwrap();
                setup.pic.tick();
                let wasm = integration_tests::wasm("bucket");
                setup
                    .pic
                    .upgrade_canister(buckets[0], wasm, arg, sender)
                    .unwrap();
                setup.pic.start_canister(buckets[0], sender).unwrap();
            }
            _ => {}
        }
    }
    assert_eq!(registered, 3_000);
    setup.rest();
    // The last of them is known everywhere without being asked about.
    let (_, room) = setup.user_with_chat(1);
    let last = user(30_000 + u64::from(PAGE_ROWS_MAX) - 1);
    let pushes: Vec<_> = buckets
        .iter()
        .enumerate()
        .map(|(i, bucket)| (*bucket, first_chunk(10, i as u64, room.accessor_id)))
        .collect();
    for answer in push_all(&setup, last, &pushes) {
        answer.unwrap();
    }
    setup.rest();
    let used = index::user(&setup, last).unwrap().bytes_used;
    assert_eq!(used, 2 * charge(10, 1));
}

#[test]
fn the_feed_tells_what_changed_and_shows_each_user_its_own() {
    let setup = Setup::new();
    let (alice, room) = setup.user_with_chat(1);
    let (bob, other) = setup.user_with_chat(2);
    let data = bytes(1_000, 1);
    setup.upload(alice, &data, room.accessor_id);
    setup.upload(bob, &data, other.accessor_id);
    for (owner, accessor_id) in [(alice, room.accessor_id), (bob, other.accessor_id)] {
        let args = RemoveBlobReferenceArgs {
            blob_id: blob_id(&data),
            accessor_id,
            owner,
            token: None,
        };
        bucket::delete_blob(&setup, setup.bucket, owner, args).unwrap();
    }
    let read = |caller, after, owner| {
        let limit = 1_000;
        index::events(
            &setup,
            caller,
            FeedArgs {
                after,
                limit,
                owner,
            },
        )
    };
    let all = setup.settle("the feed is complete", |_| {
        let page = read(operator(), 0, None).unwrap();
        (page.changes.len() == 4).then_some(page.changes)
    });
    use ChangeKind::*;
    let what: Vec<_> = all
        .iter()
        .map(|change| (change.what, change.owner))
        .collect();
    assert_eq!(
        what,
        [
            (Added, alice),
            (Referenced, bob),
            (Unreferenced, alice),
            (Deleted, bob)
        ]
    );
    let own = read(bob, 0, None).unwrap().changes;
    assert_eq!(own, [all[1], all[3]]);
    assert_eq!(read(bob, all[1].id, Some(bob)).unwrap().changes, [all[3]]);
    assert_eq!(read(bob, 0, Some(alice)), Err(FeedError::NotAuthorized));
}

/// An admin takes a user's allowance away, and then the user; the user asks the chat for more.
#[test]
fn what_an_admin_has_set_or_deleted_no_user_gets_back_from_the_app() {
    let setup = Setup::new();
    let (alice, _) = setup.user_with_chat(1);
    // The chat hears of it when it tells the index, and says so.
    let asked = |premium| {
        chat::set_premium(&setup, alice, premium).unwrap();
        setup.settle("the chat has heard from the index", |setup| {
            let me = chat::me(setup, alice).unwrap();
            me.confirmed.then_some((me.byte_limit, me.set_by_admin))
        })
    };
    let limit = |setup: &Setup| index::user(setup, alice).map(|info| info.byte_limit);
    for byte_limit in [0, 5_000_000] {
        set_limit(&setup, alice, byte_limit);
        for premium in [true, false, true] {
            assert_eq!(asked(premium), (byte_limit, true));
            assert_eq!(limit(&setup), Ok(byte_limit));
        }
    }
    // The admin lets go of it, and the app decides again.
    let user_args = UserArgs {
        user: alice,
        byte_limit: CHAT_USER_BYTES,
    };
    index::register_user(&setup, operator(), user_args.clone()).unwrap();
    assert_eq!(asked(true), (CHAT_PREMIUM_USER_BYTES, false));
    assert_eq!(limit(&setup), Ok(CHAT_PREMIUM_USER_BYTES));
    assert_eq!(asked(false), (CHAT_USER_BYTES, false));

    index::delete_user(&setup, operator(), alice).unwrap();
    for premium in [true, false] {
        assert_eq!(asked(premium), (0, true));
        assert_eq!(limit(&setup), Err(UserError::NotRegistered));
    }
    setup.rest();
    index::register_user(&setup, operator(), user_args).unwrap();
    assert_eq!(asked(true), (CHAT_PREMIUM_USER_BYTES, false));
    assert_eq!(limit(&setup), Ok(CHAT_PREMIUM_USER_BYTES));
}

//! The entry points of the index. They gather what the system knows, and delegate.

mod jobs;
mod management;

use std::cell::RefCell;

use candid::{CandidType, Principal, candid_method};
use data_bucket_index::{
    Context, Index,
    accounts::batch,
    callers::{self, Callers},
    page::Gauges,
    trust::{Registration, is_of},
};
use ic_cdk::{api::CanisterStatusCode, futures::internals::in_executor_context};
use ic_cdk_macros::{init, inspect_message, post_upgrade, pre_upgrade, query, update};
use ic_stable_structures::DefaultMemoryImpl;
use openstorage_canister::{expect_short, outstanding};
use openstorage_types::{
    BlobId,
    channel::{
        EventsArgs, EventsError, EventsOk, LeaseArgs, LeaseError, LeaseOk, RevokeKeyError,
        RotateKeyError,
    },
    http::{HttpRequest, HttpResponse},
    index::{self, *},
    limits::UNKNOWN_CALLER_BYTES_MAX,
};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// The gzipped Wasm of the buckets; empty when none was named to the build.
static BUCKET_WASM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bucket.wasm.gz"));

thread_local! {
    static INDEX: RefCell<Index> = RefCell::new(open());
}

fn open() -> Index {
    let own = ic_cdk::api::canister_self();
    Index::open(DefaultMemoryImpl::default(), own, bucket_wasm_hash())
}

fn bucket_wasm_hash() -> Option<BlobId> {
    (!BUCKET_WASM.is_empty()).then(|| BlobId(Sha256::digest(BUCKET_WASM).into()))
}

fn read<T>(f: impl FnOnce(&Index) -> T) -> T {
    INDEX.with_borrow(f)
}

fn write<T>(f: impl FnOnce(&mut Index) -> T) -> T {
    let version = ic_cdk::api::canister_version();
    if INDEX.with_borrow_mut(|index| index.observe(version)) {
        jobs::forget();
    }
    INDEX.with_borrow_mut(f)
}

/// Runs an update, and whatever has become due by it.
fn act<T>(f: impl FnOnce(&mut Index, &Context) -> T) -> T {
    let context = context();
    let answer = write(|index| f(index, &context));
    jobs::wake();
    answer
}

fn now_ms() -> u64 {
    ic_cdk::api::time() / 1_000_000
}

fn context() -> Context {
    context_of(ic_cdk::api::msg_caller())
}

/// As if that canister had called.
fn context_of(caller: Principal) -> Context {
    Context {
        own: ic_cdk::api::canister_self(),
        caller,
        is_controller: ic_cdk::api::is_controller(&caller),
        now_ms: now_ms(),
        version: ic_cdk::api::canister_version(),
    }
}

fn decode<T: CandidType + DeserializeOwned>(bytes: Vec<u8>) -> T {
    openstorage_canister::decode(&bytes, 0)
}

fn encode<T: CandidType + 'static>(reply: T) -> Vec<u8> {
    openstorage_canister::encode(&reply)
}

#[init]
fn init(args: Option<InitArgs>) {
    configure(args);
}

#[post_upgrade]
fn post_upgrade(args: Option<InitArgs>) {
    configure(args);
}

/// Without arguments an upgraded index stays as it was.
fn configure(args: Option<InitArgs>) {
    write(|index| {
        index.take_over();
        args.iter().for_each(|args| index.configure(args));
    });
    jobs::wake();
}

/// Answers to calls under way would land in other code than the one that made them.
#[pre_upgrade]
fn pre_upgrade() {
    let is_stopped = ic_cdk::api::canister_status() == CanisterStatusCode::Stopped;
    if let Some(objection) = outstanding::objection(&ic_cdk::api::canister_self(), is_stopped) {
        ic_cdk::trap(objection);
    }
}

#[unsafe(export_name = "canister_global_timer")]
extern "C" fn canister_global_timer() {
    in_executor_context(jobs::turn);
}

/// Not run for calls between canisters and for queries: the methods check again.
#[inspect_message]
fn inspect() {
    let context = context();
    let method = ic_cdk::api::msg_method_name();
    let known = callers::METHODS.iter().find(|(name, _)| *name == method);
    let may_call = |callers| read(|index| index.is_one_of(callers, &context));
    let is_small = ic0::msg_arg_data_size() <= UNKNOWN_CALLER_BYTES_MAX;
    if known
        .is_some_and(|(_, callers)| (is_small || *callers != Callers::Users) && may_call(*callers))
    {
        ic_cdk::api::accept_message();
    }
}

/// Calls of canisters do not pass [`inspect`].
fn is_welcome() -> Result<(), String> {
    expect_short(ic0::msg_arg_data_size(), || {
        read(|index| index.knows(&context()))
    });
    Ok(())
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn register_user(args: UserArgs) -> Result<(), UserError> {
    act(|index, context| index.register_user(context, &args))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn register_users(rows: Vec<UserArgs>) -> Vec<Result<(), UserError>> {
    act(|index, context| batch(&rows, |args| index.register_user(context, args)))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn update_user(args: UserArgs) -> Result<(), UserError> {
    act(|index, context| index.update_user(context, &args))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn update_users(rows: Vec<UserArgs>) -> Vec<Result<(), UserError>> {
    act(|index, context| batch(&rows, |args| index.update_user(context, args)))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn delete_user(user: Principal) -> Result<(), UserError> {
    act(|index, context| index.delete_user(context, user))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn delete_users(users: Vec<Principal>) -> Vec<Result<(), UserError>> {
    act(|index, context| batch(&users, |user| index.delete_user(context, *user)))
}

#[candid_method(query)]
#[query(hidden = true, guard = "is_welcome", decode_with = "decode")]
fn events(args: FeedArgs) -> Result<FeedPage, FeedError> {
    read(|index| index.feed(&context(), &args))
}

#[candid_method(query)]
#[query(hidden = true, guard = "is_welcome", decode_with = "decode")]
fn user(user: Option<Principal>) -> Result<UserInfo, UserError> {
    read(|index| index.user(&context(), user))
}

#[query]
fn my_buckets() -> Vec<Principal> {
    read(|index| index.my_buckets(ic_cdk::api::msg_caller()))
}

#[candid_method(query)]
#[query(hidden = true, guard = "is_welcome", decode_with = "decode")]
fn allocated_bucket(args: AllocatedBucketArgs) -> Result<AllocatedBucketOk, AllocatedBucketError> {
    read(|index| index.allocated_bucket(&context(), &args))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn delete_chat(args: DeleteChatArgs) -> Result<(), DeleteChatError> {
    act(|index, context| index.delete_chat(context, &args))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
async fn register_issuer(args: RegisterIssuerArgs) -> Result<RegisterIssuerOk, IssuerError> {
    let context = context();
    match act(|index, context| index.register_issuer(context, &args))? {
        Registration::Done(ok) => Ok(ok),
        Registration::CheckOrigin(issuer) => {
            let (origin, ours) = jobs::look_at_issuer(issuer).await?;
            if !is_of(&issuer, &origin, &ours) {
                return Err(IssuerError::NotAuthorized);
            }
            let context = Context {
                now_ms: now_ms(),
                version: ic_cdk::api::canister_version(),
                ..context
            };
            let answer = write(|index| index.trust_issuer(&context, issuer, args.key));
            jobs::wake();
            answer
        }
    }
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn remove_issuer(issuer: Principal) -> Result<(), IssuerError> {
    act(|index, context| index.remove_issuer(context, issuer))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn c2c_revoke(args: RevokeArgs) -> Result<(), RevokeError> {
    act(|index, context| index.revoke(context, &args))
}

#[query]
fn issuers() -> Vec<Issuer> {
    read(Index::issuers)
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn revoke_issuer_key(args: RevokeIssuerKeyArgs) -> Result<(), RevokeKeyError> {
    act(|index, context| index.revoke_issuer_key(context, &args))
}

#[update]
fn rotate_key() -> Result<(), RotateKeyError> {
    act(|index, context| index.rotate_key(context))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn revoke_key(version: u16) -> Result<(), RevokeKeyError> {
    act(|index, context| index.revoke_key(context, version))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn c2c_bucket_keys(args: BucketKeysArgs) -> Result<BucketKey, BucketKeysError> {
    act(|index, _| index.bucket_keys(&args))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn c2c_events(args: EventsArgs) -> Result<EventsOk, EventsError> {
    act(|index, context| index.events(context, &args))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn c2c_lease(args: LeaseArgs) -> Result<LeaseOk, LeaseError> {
    act(|index, context| index.lease(context, &args))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
async fn audit(args: index::AuditArgs) -> Result<AuditOk, AuditError> {
    act(|index, context| index.may_audit(context, &args))?;
    let page = jobs::audit(&args).await?;
    Ok(write(|index| index.audited(&args, page)))
}

/// The canister calls this itself, so that what follows is done in a message of its own. A query: it changes nothing,
/// whoever calls it.
#[query]
fn c2c_nothing() {}

#[query]
fn buckets() -> Result<Vec<BucketInfo>, FleetError> {
    read(|index| index.list_buckets(&context()))
}

#[candid_method(query)]
#[query(hidden = true, guard = "is_welcome", decode_with = "decode")]
fn bucket(bucket: Principal) -> Result<BucketInfo, FleetError> {
    read(|index| index.bucket(&context(), bucket))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
async fn add_bucket(bucket: Principal) -> Result<BucketInfo, FleetError> {
    let context = context();
    match act(|index, context| index.add_bucket(context, bucket))? {
        Some(info) => Ok(info),
        None => {
            let (look, controllers) = jobs::look_at(bucket).await?;
            let context = Context {
                now_ms: now_ms(),
                version: ic_cdk::api::canister_version(),
                ..context
            };
            let answer = write(|index| index.adopt(&context, bucket, &look, controllers));
            jobs::wake();
            answer
        }
    }
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn set_bucket_full(args: SetBucketFullArgs) -> Result<BucketInfo, FleetError> {
    act(|index, context| index.set_bucket_full(context, &args))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn retire_bucket(bucket: Principal) -> Result<BucketInfo, FleetError> {
    act(|index, context| index.retire_bucket(context, bucket))
}

#[candid_method(update)]
#[update(hidden = true, guard = "is_welcome", decode_with = "decode", encode_with = "encode")]
fn forget_bucket(bucket: Principal) -> Result<(), FleetError> {
    act(|index, context| index.forget_bucket(context, bucket))
}

#[update]
fn upgrade_buckets() -> Result<RollStatus, FleetError> {
    act(|index, context| index.upgrade_buckets(context))
}

#[query]
fn status() -> IndexStatus {
    read(|index| index.status_for(&context()))
}

#[candid_method(query)]
#[query(hidden = true, decode_with = "decode")]
fn http_request(request: HttpRequest) -> HttpResponse {
    let gauges = Gauges {
        cycles: ic_cdk::api::canister_cycle_balance(),
        liquid_cycles: ic_cdk::api::canister_liquid_cycle_balance(),
        stable_bytes: ic_cdk::api::stable_size() * 65_536,
        calls: outstanding::count(),
        trapped_jobs: jobs::trapped(),
        now_ms: now_ms(),
    };
    read(|index| index.http(&request, &gauges))
}

fn main() {}

#[cfg(test)]
mod tests {
    use super::*;
    use candid_parser::utils::{CandidSource, service_equal};

    #[test]
    fn the_did_file_says_what_the_code_says() {
        candid::export_service!();
        let code = __export_service();
        let file = include_str!("../data_bucket_index.did");
        if let Err(error) = service_equal(CandidSource::Text(&code), CandidSource::Text(file)) {
            panic!("{error}\nthe code says:\n{code}");
        }
    }

    /// A method that is not in the table can be called by canisters alone.
    #[test]
    fn the_table_of_callers_names_every_method() {
        let file = include_str!("../data_bucket_index.did");
        let (types, actor) = CandidSource::Text(file).load().unwrap();
        let actor = actor.expect("there is a service");
        let methods = types.as_service(&actor).unwrap().iter();
        let changes = |kind| !types.as_func(kind).unwrap().is_query();
        let mut updates: Vec<_> = methods
            .filter(|(name, kind)| changes(kind) && !name.starts_with("c2c_"))
            .map(|(name, _)| name.as_str())
            .collect();
        let mut table = callers::METHODS.map(|(name, _)| name);
        updates.sort();
        table.sort();
        assert_eq!(updates, table);
    }
}

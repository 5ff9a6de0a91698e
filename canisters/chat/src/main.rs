//! The entry points: they find out who calls and when, and leave the rest to the core.

mod timers;

use std::cell::RefCell;

use candid::{CandidType, Principal, candid_method};
use chat::{App, RETRY_MS, chats::Random};
use ic_cdk::{
    api::{CanisterStatusCode, canister_self, canister_version, msg_caller, time},
    futures::internals::in_executor_context,
};
use ic_cdk_macros::{init, inspect_message, post_upgrade, pre_upgrade, query, update};
use ic_stable_structures::DefaultMemoryImpl;
use openstorage_canister::{expect_short, outstanding};
use openstorage_types::{
    BlobReference,
    channel::{PublicKey, RevokeKeyError, RotateKeyError},
    chat::*,
    http::{HttpRequest, HttpResponse},
    limits::{MESSAGE_TEXT_BYTES_MAX, PREVIEW_BYTES_MAX, UNKNOWN_CALLER_BYTES_MAX},
};
use serde::de::DeserializeOwned;

thread_local! {
    static APP: RefCell<Option<App>> = const { RefCell::new(None) };
}

/// The state, for as long as `act` runs: never across an await.
fn with<T>(act: impl FnOnce(&mut App) -> T) -> T {
    APP.with_borrow_mut(|app| act(app.as_mut().expect("opened by init or post_upgrade")))
}

/// An update: changes the state, then sees to the work that this made.
fn change<T>(act: impl FnOnce(&mut App) -> T) -> T {
    timers::observe();
    let answer = with(act);
    timers::arm();
    answer
}

fn now_ms() -> u64 {
    time() / 1_000_000
}

fn open(args: Option<InitArgs>) {
    let (index, origins) = args.map(|args| (args.index, args.origins)).unzip();
    let opened = App::open(DefaultMemoryImpl::default(), canister_self(), index);
    let opened = opened.and_then(|mut app| {
        origins
            .flatten()
            .map_or(Ok(()), |origins| app.serve_at(origins))?;
        Ok(app)
    });
    match opened {
        Ok(app) => {
            ic_cdk::api::certified_data_set(app.certified_data());
            APP.set(Some(app));
        }
        Err(error) => ic_cdk::trap(format!("{error:?}")),
    }
    timers::arm();
}

fn decode<T: CandidType + DeserializeOwned>(bytes: Vec<u8>) -> T {
    openstorage_canister::decode(&bytes, 0)
}

#[init]
fn init(args: InitArgs) {
    open(Some(args));
}

/// Answers to calls under way would land in other code than the one that made them.
#[pre_upgrade]
fn pre_upgrade() {
    let is_stopped = ic_cdk::api::canister_status() == CanisterStatusCode::Stopped;
    if let Some(objection) = outstanding::objection(&canister_self(), is_stopped) {
        ic_cdk::trap(objection);
    }
}

#[post_upgrade]
fn post_upgrade(args: Option<InitArgs>) {
    open(args);
}

#[unsafe(export_name = "canister_global_timer")]
extern "C" fn canister_global_timer() {
    in_executor_context(timers::turn);
}

/// Turns away, before they are executed, messages that could only be refused. The core checks again:
/// calls of other canisters do not come this way.
#[inspect_message]
fn inspect_message() {
    let caller = msg_caller();
    let method = ic_cdk::api::msg_method_name();
    let len = ic0::msg_arg_data_size();
    let known = METHODS.iter().find(|(name, _)| *name == method);
    let may_call = known.is_some_and(|(_, callers)| match callers {
        Callers::Anybody => {
            caller != Principal::anonymous()
                && len <= NOTHING_BYTES_MAX
                && with(|app| app.is_registered(caller) || app.may_register(now_ms()))
        }
        Callers::Users => len <= MESSAGE_BYTES_MAX && with(|app| app.is_registered(caller)),
        Callers::Controllers => {
            len <= UNKNOWN_CALLER_BYTES_MAX && ic_cdk::api::is_controller(&caller)
        }
    });
    if may_call {
        ic_cdk::api::accept_message();
    }
}

/// Who may call a method by an ingress message.
#[derive(Clone, Copy)]
enum Callers {
    Users,
    /// Everybody but the anonymous principal: it has to say nothing.
    Anybody,
    Controllers,
}

/// Every method that changes something.
const METHODS: [(&str, Callers); 13] = [
    ("register", Callers::Anybody),
    ("set_premium", Callers::Users),
    ("set_name", Callers::Users),
    ("set_avatar", Callers::Users),
    ("create_chat", Callers::Users),
    ("join_chat", Callers::Users),
    ("leave_chat", Callers::Users),
    ("replace_invite", Callers::Users),
    ("delete_chat", Callers::Users),
    ("send_message", Callers::Users),
    ("delete_message", Callers::Users),
    ("rotate_key", Callers::Controllers),
    ("revoke_key", Callers::Controllers),
];

/// Bytes of an argument that says nothing, as any client writes it.
const NOTHING_BYTES_MAX: usize = 64;

/// Bytes of the longest argument, a message with a preview.
const MESSAGE_BYTES_MAX: usize =
    MESSAGE_TEXT_BYTES_MAX + PREVIEW_BYTES_MAX + UNKNOWN_CALLER_BYTES_MAX;

/// Calls of canisters do not pass `inspect_message`.
fn is_welcome() -> Result<(), String> {
    expect_short(ic0::msg_arg_data_size(), || {
        with(|app| app.is_registered(msg_caller()))
    });
    Ok(())
}

// Where an argument is decoded with quotas, ic_cdk takes it for bytes: such a method is hidden from it
// and shown to Candid here.

#[update]
fn register() -> Result<RegisterOk, ChatError> {
    change(|app| app.register(msg_caller(), now_ms()))
}

#[update(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(update)]
fn set_premium(premium: bool) -> Result<RegisterOk, ChatError> {
    change(|app| app.set_premium(msg_caller(), premium))
}

#[query]
fn me() -> Result<RegisterOk, ChatError> {
    with(|app| app.me(msg_caller()))
}

#[update(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(update)]
fn set_name(name: String) -> Result<(), ChatError> {
    change(|app| app.set_name(msg_caller(), name))
}

#[update(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(update)]
async fn set_avatar(args: SetAvatarArgs) -> Result<(), ChatError> {
    let caller = msg_caller();
    timers::observe();
    with(|app| app.check_avatar(caller, &args))?;
    learn_bucket(args.blob.as_ref()).await?;
    change(|app| app.set_avatar(caller, args))
}

#[query(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(query)]
fn profile(user: Principal) -> Result<Profile, ChatError> {
    with(|app| app.profile(msg_caller(), user, now_ms()))
}

#[update(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(update)]
async fn create_chat(args: CreateChatArgs) -> Result<ChatInfo, ChatError> {
    let caller = msg_caller();
    timers::observe();
    with(|app| app.check_new_chat(caller, &args, now_ms()))?;
    let random = random().await?;
    change(|app| app.create_chat(caller, args, &random, canister_version(), now_ms()))
}

#[update(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(update)]
fn join_chat(args: JoinArgs) -> Result<ChatInfo, ChatError> {
    change(|app| app.join_chat(msg_caller(), &args))
}

#[update(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(update)]
async fn replace_invite(args: ChatArgs) -> Result<ChatInfo, ChatError> {
    let caller = msg_caller();
    timers::observe();
    with(|app| app.check_invite(caller, &args))?;
    let random = random().await?;
    change(|app| app.replace_invite(caller, &args, &random))
}

#[query(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(query)]
fn members(args: MembersArgs) -> Result<Vec<Member>, ChatError> {
    with(|app| app.members(msg_caller(), &args))
}

#[update(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(update)]
fn leave_chat(args: ChatArgs) -> Result<(), ChatError> {
    change(|app| app.leave_chat(msg_caller(), args))
}

#[update(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(update)]
fn delete_chat(args: ChatArgs) -> Result<DeleteChatOk, ChatError> {
    change(|app| app.delete_chat(msg_caller(), args, now_ms()))
}

#[query]
fn chats() -> Vec<ChatInfo> {
    with(|app| app.chats(msg_caller()))
}

#[update(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(update)]
async fn send_message(args: SendMessageArgs) -> Result<SendMessageOk, ChatError> {
    let caller = msg_caller();
    timers::observe();
    with(|app| app.check_message(caller, &args))?;
    learn_bucket(args.blob.as_ref()).await?;
    change(|app| app.send_message(caller, args, canister_version(), now_ms()))
}

#[query(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(query)]
fn messages(args: MessagesArgs) -> Result<Vec<Message>, ChatError> {
    with(|app| app.messages(msg_caller(), &args, now_ms()))
}

#[update(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(update)]
fn delete_message(args: DeleteMessageArgs) -> Result<DeleteMessageOk, ChatError> {
    change(|app| app.delete_message(msg_caller(), args, now_ms()))
}

#[query]
fn public_key() -> Option<PublicKey> {
    with(|app| app.public_key())
}

#[update]
fn rotate_key() -> Result<(), RotateKeyError> {
    let is_controller = ic_cdk::api::is_controller(&msg_caller());
    change(|app| app.rotate_key(is_controller, now_ms()))
}

#[update(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(update)]
fn revoke_key(version: u16) -> Result<(), RevokeKeyError> {
    let is_controller = ic_cdk::api::is_controller(&msg_caller());
    change(|app| app.revoke_key(is_controller, version))
}

#[query(decode_with = "decode", hidden = true)]
#[candid_method(query)]
fn http_request(request: HttpRequest) -> HttpResponse {
    let cycles = ic_cdk::api::canister_cycle_balance();
    let certificate = ic_cdk::api::data_certificate();
    with(|app| app.http(&request, cycles, certificate.as_deref()))
}

/// Random bytes that nobody else has seen.
async fn random() -> Result<Random, ChatError> {
    let random = timers::random().await.ok();
    let random = random.and_then(|random| random.try_into().ok());
    let ms = RETRY_MS;
    random.map(Random).ok_or(ChatError::Retry { ms })
}
/// The canister calls this itself, so that what follows is done in a message of its own. A query: it changes nothing,
/// whoever calls it.
#[query]
fn c2c_nothing() {}

/// Asks the index about the reference's bucket where no reference named it before.
async fn learn_bucket(blob: Option<&BlobReference>) -> Result<(), ChatError> {
    match with(|app| app.unknown_bucket(blob)) {
        None => Ok(()),
        Some(bucket) => {
            let answer = timers::ask_bucket_key(bucket).await;
            change(|app| app.learn_bucket(bucket, answer, now_ms()))
        }
    }
}

candid::export_service!();

fn main() {}

#[cfg(test)]
mod tests {
    use candid_parser::utils::{CandidSource, service_equal};

    #[test]
    fn the_did_file_says_what_the_code_does() {
        let code = super::__export_service();
        let file = include_str!("../chat.did");
        service_equal(CandidSource::Text(&code), CandidSource::Text(file))
            .unwrap_or_else(|error| panic!("{error}\nthe code says:\n{code}"));
    }

    /// A method that is not in the table can be called by canisters alone.
    #[test]
    fn the_table_of_callers_names_every_method() {
        let file = include_str!("../chat.did");
        let (types, actor) = CandidSource::Text(file).load().unwrap();
        let actor = actor.expect("there is a service");
        let methods = types.as_service(&actor).unwrap().iter();
        let changes = |kind| !types.as_func(kind).unwrap().is_query();
        let mut updates: Vec<_> = methods
            .filter(|(name, kind)| changes(kind) && !name.starts_with("c2c_"))
            .map(|(name, _)| name.as_str())
            .collect();
        let mut table = super::METHODS.map(|(name, _)| name);
        updates.sort();
        table.sort();
        assert_eq!(updates, table);
    }
}

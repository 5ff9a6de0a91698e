//! Entry points of a bucket. All they do is to hand the message to the core, and to make the calls that
//! the core asks for.

mod jobs;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    marker::PhantomData,
};

use candid::{CandidType, Principal, candid_method};
use data_bucket::{
    Answer, Bucket, Chunk, Now, Stop,
    callers::{self, Callers},
    gateway::{self, REQUEST_BYTES_MAX, Unread},
};
use ic_cdk::{
    api::{
        CanisterStatusCode, canister_self, canister_version, certified_data_set, data_certificate,
        msg_caller, time,
    },
    call::Call,
    futures::{internals::in_executor_context, is_recovering_from_trap},
};
use ic_cdk_macros::{init, inspect_message, post_upgrade, pre_upgrade, query, update};
use ic_stable_structures::DefaultMemoryImpl;
use openstorage_canister::{before_blob, expect_short, outstanding};
use openstorage_types::{
    BlobReference,
    bucket::*,
    channel::{
        AuditArgs, AuditPage, AuditPageError, EventsArgs, EventsError, EventsOk, LeaseArgs,
        LeaseError, LeaseOk, RecallArgs, RecallError, RevokeKeyError, RotateKeyError, UserCounters,
    },
    http::{
        HttpRequest, StreamedResponse, StreamingCallback, StreamingPiece, StreamingStrategy,
        StreamingToken,
    },
    index::Allowance,
    limits::{INGRESS_BYTES_MAX, UNKNOWN_CALLER_BYTES_MAX},
};
use serde::de::DeserializeOwned;

/// Callers whom the index may be asked about at the same time.
const LEASES_IN_FLIGHT_MAX: usize = 100;
/// As long as so many strangers are asked about, no other is: there are as many of those as somebody likes, and they
/// must not keep users waiting who need allowance.
const STRANGERS_IN_FLIGHT_MAX: usize = 10;
/// Nor may what they hold back be more than this part of the cycles that the bucket may spend: users' calls need them.
const STRANGERS_SHARE: u128 = 8;
/// Cycles that a call holds back for the message of its answer, about.
const CALL_CYCLES: u128 = 42_000_000_000;
/// A caller whom the index does not know is not asked about again for so long: who registers meanwhile is told to the
/// bucket by the index.
const UNKNOWN_MS: u64 = 10_000;
/// Such callers that are remembered.
const UNKNOWN_MAX: usize = 1_000;
/// Bytes of an argument that says nothing, as any client writes it.
const NOTHING_BYTES_MAX: usize = 64;
/// What a caller waits while a request for allowance is on its way, or after one that failed.
const LEASE_RETRY_MS: u64 = 500;

thread_local! {
    static BUCKET: RefCell<Option<Bucket>> = const { RefCell::new(None) };
    /// Users for whom the index is being asked, and whether they are strangers. An upgrade forgets them together with
    /// the calls.
    static LEASES: RefCell<BTreeMap<Principal, bool>> = const { RefCell::new(BTreeMap::new()) };
    /// Callers whom the index does not know, and until when that is believed. The first lapses first.
    static UNKNOWN: RefCell<VecDeque<(Principal, u64)>> = const { RefCell::new(VecDeque::new()) };
    /// What the subnet was told to certify. An upgrade forgets it here and there.
    static CERTIFIED: Cell<Option<[u8; 32]>> = const { Cell::new(None) };
}

/// The one bucket of this canister.
pub(crate) fn with<T>(work: impl FnOnce(&mut Bucket) -> T) -> T {
    BUCKET.with_borrow_mut(|bucket| {
        let open = || Bucket::open(DefaultMemoryImpl::default(), canister_self(), None);
        work(bucket.get_or_insert_with(open))
    })
}

/// As [`with`], in a message that may change something: a restored snapshot is noticed.
pub(crate) fn update<T>(work: impl FnOnce(&mut Bucket) -> T) -> T {
    let is_gap = with(|bucket| bucket.observe(canister_version()));
    if is_gap {
        // A snapshot holds the heap too, with timers and calls that are over.
        LEASES.take();
        UNKNOWN.take();
        jobs::forget();
    }
    let (done, root) = with(|bucket| (work(bucket), bucket.certified()));
    if CERTIFIED.replace(Some(root)) != Some(root) {
        certified_data_set(root);
    }
    done
}

pub(crate) fn now() -> Now {
    Now {
        ms: time() / 1_000_000,
        version: canister_version(),
    }
}

/// Batches of events are as long as chunks.
fn decode<T: CandidType + DeserializeOwned>(bytes: Vec<u8>) -> T {
    openstorage_canister::decode(&bytes, INGRESS_BYTES_MAX as usize)
}

fn encode<T: CandidType + 'static>(reply: T) -> Vec<u8> {
    openstorage_canister::encode(&reply)
}

/// The HTTP request that came in; none where it is longer than any that is looked at.
fn http_argument() -> Option<HttpRequest> {
    let len = ic0::msg_arg_data_size();
    if len > REQUEST_BYTES_MAX {
        return gateway::read_long(len, argument_at).ok();
    }
    let bytes = argument();
    match gateway::read(&bytes) {
        Ok(request) => Some(request),
        Err(Unread::TooLong) => None,
        Err(Unread::OtherForm) => Some(decode(bytes)),
    }
}

/// Notes the cycles that reports tell of.
pub(crate) fn observe_cycles() {
    let (balance, liquid) = (
        ic_cdk::api::canister_cycle_balance(),
        ic_cdk::api::canister_liquid_cycle_balance(),
    );
    with(|bucket| bucket.observe_cycles(now().ms, balance, liquid));
}

#[init]
fn init(args: InitArgs) {
    open(Some(args));
}

#[post_upgrade]
fn post_upgrade(args: Option<InitArgs>) {
    open(args);
}

/// Answers to calls under way would land in other code than the one that made them.
#[pre_upgrade]
fn pre_upgrade() {
    let is_stopped = ic_cdk::api::canister_status() == CanisterStatusCode::Stopped;
    if let Some(objection) = outstanding::objection(&canister_self(), is_stopped) {
        ic_cdk::trap(objection);
    }
}

fn open(args: Option<InitArgs>) {
    let mut bucket = Bucket::open(DefaultMemoryImpl::default(), canister_self(), args);
    bucket.bring_back();
    bucket.note(now().ms, &format!("version {VERSION} begins"));
    BUCKET.set(Some(bucket));
    update(|_| ());
    prepare_replies();
    jobs::wake();
}

#[unsafe(export_name = "canister_global_timer")]
extern "C" fn canister_global_timer() {
    in_executor_context(jobs::turn);
}

/// What queries answer with: what a query keeps is lost. And the answer to a deletion.
fn prepare_replies() {
    openstorage_canister::encode(&ReadChunkAnswer::Ok(ReadChunkOk {
        bytes: vec![].into(),
        mime_type: String::new(),
        size: 0,
    }));
    openstorage_canister::encode(&Ok::<(), RemoveBlobReferenceError>(()));
}

#[inspect_message]
fn inspect_message() {
    let method = ic_cdk::api::msg_method_name();
    let known = callers::METHODS.iter().find(|(name, _)| *name == method);
    if known.is_some_and(|(_, callers)| may_call(*callers)) {
        ic_cdk::api::accept_message();
    }
}

/// Whether the message's caller is one of those, with an argument of a size that they may need.
fn may_call(callers: Callers) -> bool {
    let caller = msg_caller();
    let len = ic0::msg_arg_data_size();
    if callers == Callers::Gateways {
        let is_upgraded = |request| with(|bucket| bucket.is_upgraded(&request, now()));
        return caller == Principal::anonymous() && http_argument().is_some_and(is_upgraded);
    }
    let is_known = || with(|bucket| bucket.knows(&caller));
    if caller == Principal::anonymous() {
        return false;
    }
    if callers == Callers::Uploaders {
        return is_known();
    }
    if len > UNKNOWN_CALLER_BYTES_MAX {
        return false;
    }
    match callers {
        Callers::Users => is_known(),
        Callers::Bearers => {
            is_known() || with(|bucket| bucket.opens_removal(&caller, &decode(argument()), now()))
        }
        Callers::Anybody => len <= NOTHING_BYTES_MAX,
        Callers::Controllers => ic_cdk::api::is_controller(&caller),
        Callers::Uploaders | Callers::Gateways => false,
    }
}

/// Calls of canisters do not pass `inspect_message`.
fn is_welcome() -> Result<(), String> {
    expect_short(ic0::msg_arg_data_size(), || {
        let caller = msg_caller();
        with(|bucket| bucket.index() == caller || bucket.knows(&caller))
    });
    Ok(())
}

// Where an argument is decoded within a budget, ic_cdk takes it for bytes: such a method is hidden from it
// and shown to Candid here.

/// The bytes of a chunk come on top of the budget; they are written to their place from where they arrived.
#[update(guard = "is_welcome", encode_with = "encode", hidden = true)]
async fn push_chunk() -> Result<PushChunkOk, PushChunkError> {
    let argument = argument();
    let args: Chunk = openstorage_canister::decode(&argument, INGRESS_BYTES_MAX as usize);
    let caller = msg_caller();
    let answer = with_allowance(caller, |bucket| bucket.push_chunk(caller, &args, now()));
    answer.await.unwrap_or_else(|failed| {
        Err(match failed {
            LeaseFailed::Retry { ms } => PushChunkError::Retry { ms },
            LeaseFailed::NotRegistered => PushChunkError::NotRegistered,
            LeaseFailed::Exceeded(allowance) => PushChunkError::AllowanceExceeded(allowance),
        })
    })
}

/// Another name for `push_chunk`.
#[update(guard = "is_welcome", encode_with = "encode", hidden = true)]
async fn upload_chunk() -> Result<PushChunkOk, PushChunkError> {
    push_chunk().await
}

/// The message's argument. What `ic_cdk` reads it into is filled with zeros first: one instruction more for
/// each byte.
fn argument() -> Vec<u8> {
    argument_at(0, ic0::msg_arg_data_size())
}

/// `len` bytes of it.
fn argument_at(at: usize, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    ic0::msg_arg_data_copy_uninit(&mut bytes.spare_capacity_mut()[..len], at);
    // SAFETY: so many were just written.
    unsafe { bytes.set_len(len) };
    bytes
}

#[query(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(query)]
fn upload_status(args: UploadArgs) -> Result<UploadStatus, UploadError> {
    with(|bucket| bucket.upload_status(&msg_caller(), &args.blob_id, now()))
}

#[query(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(query)]
fn my_uploads(args: MyUploadsArgs) -> Vec<OpenUpload> {
    with(|bucket| bucket.my_uploads(&msg_caller(), &args))
}

#[update(guard = "is_welcome", decode_with = "decode", encode_with = "encode", hidden = true)]
#[candid_method(update)]
fn abort_upload(args: UploadArgs) -> Result<(), UploadError> {
    let aborted = update(|bucket| bucket.abort_upload(&msg_caller(), &args.blob_id, now()));
    jobs::wake();
    aborted
}

#[update]
async fn ensure_registered() -> Result<(), EnsureRegisteredError> {
    let caller = msg_caller();
    match update(|bucket| bucket.ensure_registered(&caller))? {
        None => Ok(()),
        Some(_) if is_unknown(&caller) => Err(EnsureRegisteredError::NotRegistered),
        Some(lease) => ask_for(lease).await.map_err(|failed| match failed {
            LeaseFailed::NotRegistered => EnsureRegisteredError::NotRegistered,
            LeaseFailed::Retry { ms } => EnsureRegisteredError::Retry { ms },
            // Nothing was wanted.
            LeaseFailed::Exceeded(_) => EnsureRegisteredError::Retry { ms: LEASE_RETRY_MS },
        }),
    }
}

#[update(guard = "is_welcome", decode_with = "decode", encode_with = "encode", hidden = true)]
#[candid_method(update)]
async fn add_blob_reference(
    args: AddBlobReferenceArgs,
) -> Result<BlobReference, AddBlobReferenceError> {
    let caller = msg_caller();
    let answer = with_allowance(caller, |bucket| {
        bucket.add_blob_reference(caller, &args, now())
    });
    answer.await.unwrap_or_else(|failed| {
        Err(match failed {
            LeaseFailed::Retry { ms } => AddBlobReferenceError::Retry { ms },
            LeaseFailed::NotRegistered => AddBlobReferenceError::NotRegistered,
            LeaseFailed::Exceeded(allowance) => AddBlobReferenceError::AllowanceExceeded(allowance),
        })
    })
}

#[update(guard = "is_welcome", decode_with = "decode", encode_with = "encode", hidden = true)]
#[candid_method(update)]
fn remove_blob_reference(args: RemoveBlobReferenceArgs) -> Result<(), RemoveBlobReferenceError> {
    let removed = update(|bucket| bucket.remove_blob_reference(msg_caller(), &args, now()));
    jobs::wake();
    removed
}

/// Another name for `remove_blob_reference`.
#[update(guard = "is_welcome", decode_with = "decode", encode_with = "encode", hidden = true)]
#[candid_method(update)]
fn delete_blob(args: RemoveBlobReferenceArgs) -> Result<(), RemoveBlobReferenceError> {
    remove_blob_reference(args)
}

#[query(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(query)]
fn blob_info(args: UploadArgs) -> Result<BlobInfo, UploadError> {
    with(|bucket| bucket.blob_info(&msg_caller(), &args.blob_id))
}

#[query(guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(query)]
fn my_blobs(args: MyBlobsArgs) -> Vec<BlobInfo> {
    with(|bucket| bucket.my_blobs(&msg_caller(), &args))
}

type ReadChunkAnswer = Result<ReadChunkOk, ReadChunkError>;

/// A byte of a reply costs 50 instructions; gathering it first, and encoding it, would cost four more.
#[query(manual_reply = true, guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(query)]
fn read_chunk(args: ReadChunkArgs) -> PhantomData<ReadChunkAnswer> {
    with(
        |bucket| match bucket.open_chunk(&msg_caller(), &args, now()) {
            Ok((answer, part)) => {
                let head = before_blob(&ReadChunkAnswer::Ok(answer), part.len);
                ic0::msg_reply_data_append(&head);
                bucket.read_part(&part, ic0::msg_reply_data_append);
            }
            Err(error) => {
                let answer = openstorage_canister::encode(&ReadChunkAnswer::Err(error));
                ic0::msg_reply_data_append(&answer);
            }
        },
    );
    ic0::msg_reply();
    PhantomData
}

/// As [`read_chunk`], the bytes come straight from where they lie.
#[query(manual_reply = true, hidden = true)]
fn http_request() -> PhantomData<StreamedResponse> {
    with(|bucket| answer_http(bucket, data_certificate()));
    PhantomData
}

/// The same by an update, for what a query cannot prove.
#[update(manual_reply = true, hidden = true)]
fn http_request_update() -> PhantomData<StreamedResponse> {
    update(|bucket| answer_http(bucket, None));
    PhantomData
}

fn answer_http(bucket: &Bucket, certificate: Option<Vec<u8>>) {
    let answer = |request| bucket.http_request(&request, certificate.as_deref(), now());
    let Answer {
        response,
        part,
        next,
        upgrade,
    } = http_argument().map_or_else(Answer::too_long, answer);
    let len = part.map_or(0, |part| part.len);
    let strategy = next.map(|token| StreamingStrategy::Callback {
        callback: StreamingCallback::new(canister_self(), "http_request_streaming_callback".into()),
        token,
    });
    let (head, tail) = gateway::write(&response, len, upgrade, strategy.as_ref());
    ic0::msg_reply_data_append(&head);
    if let Some(part) = part {
        bucket.read_part(&part, ic0::msg_reply_data_append);
    }
    ic0::msg_reply_data_append(&tail);
    ic0::msg_reply();
}

/// The rest of an answer, piece by piece.
#[query(manual_reply = true, guard = "is_welcome", decode_with = "decode", hidden = true)]
#[candid_method(query)]
fn http_request_streaming_callback(token: StreamingToken) -> PhantomData<StreamingPiece> {
    with(|bucket| match bucket.stream(token, now()) {
        Some((part, token)) => {
            let len = part.map_or(0, |part| part.len);
            let body = vec![].into();
            let head = before_blob(&StreamingPiece { body, token }, len);
            ic0::msg_reply_data_append(&head);
            if let Some(part) = part {
                bucket.read_part(&part, ic0::msg_reply_data_append);
            }
            ic0::msg_reply();
        }
        None => ic_cdk::api::msg_reject("The token opens this blob no longer."),
    });
    PhantomData
}

#[query]
fn status() -> BucketStatus {
    with(|bucket| bucket.status())
}

#[query]
fn set_aside() -> Result<Vec<SetAside>, SetAsideError> {
    let is_controller = ic_cdk::api::is_controller(&msg_caller());
    with(|bucket| bucket.list_set_aside(is_controller))
}

#[update]
fn rotate_key() -> Result<(), RotateKeyError> {
    let is_controller = ic_cdk::api::is_controller(&msg_caller());
    let answer = update(|bucket| bucket.rotate_key(is_controller, now()));
    jobs::wake();
    answer
}

#[update(guard = "is_welcome", decode_with = "decode", encode_with = "encode", hidden = true)]
#[candid_method(update)]
fn revoke_key(version: u16) -> Result<(), RevokeKeyError> {
    let is_controller = ic_cdk::api::is_controller(&msg_caller());
    let answer = update(|bucket| bucket.revoke_key(is_controller, version));
    jobs::wake();
    answer
}

#[update(guard = "is_welcome", decode_with = "decode", encode_with = "encode", hidden = true)]
#[candid_method(update)]
fn c2c_set_closed(closed: bool) -> Result<(), SetClosedError> {
    let answer = update(|bucket| bucket.set_closed(&msg_caller(), closed, now()));
    jobs::wake();
    answer
}

#[update(guard = "is_welcome", decode_with = "decode", encode_with = "encode", hidden = true)]
#[candid_method(update)]
fn c2c_events(args: EventsArgs) -> Result<EventsOk, EventsError> {
    observe_cycles();
    jobs::observe();
    let answer = update(|bucket| bucket.receive(&msg_caller(), &args, now()));
    jobs::wake();
    answer
}

#[update(guard = "is_welcome", decode_with = "decode", encode_with = "encode", hidden = true)]
#[candid_method(update)]
fn c2c_recall(args: RecallArgs) -> Result<UserCounters, RecallError> {
    let answer = update(|bucket| bucket.recall(&msg_caller(), &args, now()));
    jobs::wake();
    answer
}

#[update(guard = "is_welcome", decode_with = "decode", encode_with = "encode", hidden = true)]
#[candid_method(update)]
fn c2c_audit(args: AuditArgs) -> Result<AuditPage, AuditPageError> {
    update(|bucket| bucket.audit(&msg_caller(), &args))
}

/// The canister calls this itself, so that what follows is done in a message of its own. A query: it changes nothing,
/// whoever calls it.
#[query]
fn c2c_nothing() {}

/// Why the index gave no allowance.
enum LeaseFailed {
    Retry { ms: u64 },
    NotRegistered,
    Exceeded(Allowance),
}

/// Does the work; where allowance is missing, asks the index for it and does it once more. By then
/// everything may have changed, so the work looks everything up anew.
async fn with_allowance<T, E>(
    caller: Principal,
    work: impl Fn(&mut Bucket) -> Result<T, Stop<E>>,
) -> Result<Result<T, E>, LeaseFailed> {
    let mut asked = false;
    loop {
        match update(&work) {
            Ok(done) => {
                jobs::wake();
                return Ok(Ok(done));
            }
            Err(Stop::Error(error)) => {
                jobs::wake();
                return Ok(Err(error));
            }
            // Another call of this user has taken what was leased meanwhile.
            Err(Stop::Lease(_)) if asked => {
                return Err(LeaseFailed::Retry { ms: LEASE_RETRY_MS });
            }
            Err(Stop::Lease(lease)) => {
                debug_assert_eq!(lease.user, caller);
                ask_for(lease).await?;
                asked = true;
            }
        }
    }
}

async fn ask_for(lease: LeaseArgs) -> Result<(), LeaseFailed> {
    let asked = ask(lease).await;
    if asked.is_err() {
        // The index may have granted all the same: it hears what is known here.
        jobs::wake();
    }
    asked
}

async fn ask(lease: LeaseArgs) -> Result<(), LeaseFailed> {
    let user = lease.user;
    let retry = LeaseFailed::Retry { ms: LEASE_RETRY_MS };
    let Some(_in_flight) = InFlight::begin(user) else {
        return Err(retry);
    };
    let index = with(|bucket| bucket.index());
    let is_noted = update(|bucket| bucket.asks(&lease));
    let _outstanding = outstanding::begin();
    let reply = Call::bounded_wait(index, "c2c_lease")
        .with_arg(&lease)
        .await;
    let answer = reply
        .ok()
        .and_then(|reply| reply.candid::<Result<LeaseOk, LeaseError>>().ok());
    // A snapshot that was restored meanwhile is noticed first.
    update(|bucket| match &answer {
        Some(Ok(granted)) => bucket.leased(user, granted, now()),
        Some(Err(_)) if is_noted => bucket.refused(&lease),
        _ => {}
    });
    match answer {
        Some(Ok(_)) => Ok(()),
        Some(Err(LeaseError::NotRegistered)) => {
            if with(|bucket| !bucket.knows(&user)) {
                note_unknown(user);
            }
            Err(LeaseFailed::NotRegistered)
        }
        Some(Err(LeaseError::Pending { retry_ms: ms })) => Err(LeaseFailed::Retry { ms }),
        Some(Err(LeaseError::AllowanceExceeded(allowance))) => {
            let allowance = with(|bucket| bucket.exceeded(&user, allowance));
            Err(LeaseFailed::Exceeded(allowance))
        }
        Some(Err(LeaseError::NotAuthorized)) | None => Err(retry),
    }
}

/// Whether the index did not know this caller a moment ago.
fn is_unknown(caller: &Principal) -> bool {
    let now_ms = now().ms;
    UNKNOWN.with_borrow_mut(|unknown| {
        while unknown
            .front()
            .is_some_and(|(_, until_ms)| *until_ms <= now_ms)
        {
            unknown.pop_front();
        }
        unknown.iter().any(|(known, _)| known == caller)
    })
}

fn note_unknown(caller: Principal) {
    let until_ms = now().ms + UNKNOWN_MS;
    UNKNOWN.with_borrow_mut(|unknown| {
        if unknown.len() == UNKNOWN_MAX {
            unknown.pop_front();
        }
        unknown.push_back((caller, until_ms));
    });
}

/// One request for each user; ends with the call, whatever becomes of it.
struct InFlight(Principal);

impl InFlight {
    fn begin(user: Principal) -> Option<Self> {
        let is_stranger = with(|bucket| !bucket.knows(&user));
        let calls = ic_cdk::api::canister_liquid_cycle_balance() / CALL_CYCLES;
        LEASES.with_borrow_mut(|leases| {
            let strangers = leases.values().filter(|is_stranger| **is_stranger).count();
            let is_crowded = is_stranger
                && (strangers >= STRANGERS_IN_FLIGHT_MAX
                    || strangers as u128 >= calls / STRANGERS_SHARE);
            if is_crowded || leases.len() >= LEASES_IN_FLIGHT_MAX || leases.contains_key(&user) {
                return None;
            }
            leases.insert(user, is_stranger);
            Some(Self(user))
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        LEASES.with_borrow_mut(|leases| leases.remove(&self.0));
        with(|bucket| bucket.ask_is_over(&self.0));
        if is_recovering_from_trap() {
            jobs::wake();
        }
    }
}

fn main() {}

/// As Candid sees the methods that read their argument themselves.
#[cfg(test)]
#[allow(dead_code, reason = "only the signatures are read")]
mod interface {
    use super::*;

    #[candid_method(update)]
    fn push_chunk(_: PushChunkArgs) -> Result<PushChunkOk, PushChunkError> {
        unreachable!("nobody calls it")
    }

    #[candid_method(update)]
    fn upload_chunk(_: PushChunkArgs) -> Result<PushChunkOk, PushChunkError> {
        unreachable!("nobody calls it")
    }

    #[candid_method(query)]
    fn http_request(_: HttpRequest) -> StreamedResponse {
        unreachable!("nobody calls it")
    }

    #[candid_method(update)]
    fn http_request_update(_: HttpRequest) -> StreamedResponse {
        unreachable!("nobody calls it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candid::encode_one;
    use candid_parser::utils::{CandidSource, service_equal};

    #[test]
    fn the_did_file_says_what_the_code_says() {
        candid::export_service!();
        let code = __export_service();
        let file = include_str!("../data_bucket.did");
        if let Err(error) = service_equal(CandidSource::Text(&code), CandidSource::Text(file)) {
            panic!("{error}\nthe code says:\n{code}");
        }
    }

    /// A method that is not in the table can be called by canisters alone.
    #[test]
    fn the_table_of_callers_names_every_method() {
        let file = include_str!("../data_bucket.did");
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
    /// What is appended piece by piece is what Candid would have written.
    #[test]
    fn a_chunk_is_the_last_thing_in_its_answer() {
        for len in [0, 1, 127, 128, 70_000] {
            let answer = |bytes: Vec<u8>| {
                ReadChunkAnswer::Ok(ReadChunkOk {
                    bytes: bytes.into(),
                    size: 300,
                    mime_type: "image/png".into(),
                })
            };
            let bytes = vec![7; len];
            let mut reply = before_blob(&answer(vec![]), len as u64);
            reply.extend_from_slice(&bytes);
            assert_eq!(reply, encode_one(answer(bytes)).unwrap());
        }
    }
}

//! The network with the canisters deployed, and how they are called.

use std::{cell::RefCell, collections::BTreeMap, fs, io, path::Path, rc::Rc, sync::Arc};

use candid::{
    CandidType, Nat, Principal, decode_one, encode_args, encode_one, utils::ArgumentEncoder,
};
use chat::App;
use data_bucket::Bucket;
use data_bucket_index::Index;
use ic_management_canister_types::{
    CanisterIdRecord, CanisterInstallMode, CanisterSettings, FetchCanisterLogsArgs,
    FetchCanisterLogsResult, InstallCodeArgs, ProvisionalCreateCanisterWithCyclesArgs,
};
use ic_stable_structures::VectorMemory;
use openstorage_localnet::{
    machine::{Compiler, Copied},
    network::{Config, Ingress, MessageId, Network, Reject, Saved, SubnetKind},
};
use openstorage_types::{
    chat::{ChatError, ChatInfo, CreateChatArgs, InitArgs as ChatInit, JoinArgs, RegisterOk},
    http::{HttpRequest, HttpResponse},
    index::{
        BucketInfo, BucketState, FleetError, IndexStatus, InitArgs as IndexInit, Issuer,
        IssuerError, RegisterIssuerArgs, RegisterIssuerOk,
    },
};
use serde::de::DeserializeOwned;

use crate::foreign;

/// So many users there are; the last is a member of no room but its own.
pub const USERS: usize = 5;
/// Subnets: the index with the buckets that it makes, a bucket made by hand, the chat and another bucket.
const SUBNETS: usize = 3;
const CYCLES: u128 = 200_000_000_000_000;
/// Buckets so small that some fill up in a run.
const BUCKET_BYTES: u64 = 24_000_000;
/// Where the version stands that wrote a bucket's memory: at the beginning of some page, after the head of a
/// `StableCell` and these bytes.
const PAGE_BYTES: usize = 65_536;
const CELL_BYTES: usize = 8;
const BUCKET_MAGIC: [u8; 8] = *b"OSBUCKET";
/// Rounds that an answer may take where nothing goes wrong.
const ROUNDS_MAX: usize = 400;
const ROUND_MS: u64 = 100;

/// The built canisters.
#[derive(Clone)]
pub struct Wasms {
    pub index: Vec<u8>,
    pub bucket: Vec<u8>,
    pub chat: Vec<u8>,
    /// One version further, where it is built.
    pub index_next: Option<Vec<u8>>,
}

/// The initial arguments of an index whose buckets have a bug on purpose.
#[derive(CandidType)]
struct MutantInit {
    admins: Vec<Principal>,
    bucket_bytes_max: Option<u64>,
    mutant: Option<u32>,
}

impl Wasms {
    /// Of the folder that `cargo xtask build` fills.
    fn read(folder: &Path, is_mutant: bool) -> io::Result<Self> {
        let read = |name: &str| fs::read(folder.join(format!("{name}.wasm.gz")));
        let kind = if is_mutant { "-mutant" } else { "" };
        Ok(Self {
            index: read(&format!("index{kind}"))?,
            bucket: read(&format!("bucket{kind}"))?,
            chat: read("chat")?,
            // It has no bugs on purpose.
            index_next: read("index-next").ok().filter(|_| !is_mutant),
        })
    }
}

/// A chat of the chat canister.
#[derive(Debug, Clone)]
pub struct Room {
    pub chat_id: u64,
    pub accessor: Principal,
    pub invite: String,
    /// Its owner first.
    pub members: Vec<Principal>,
}

/// Everything deployed, before anything is stored: what every run begins with.
pub struct Base {
    saved: Saved,
    compiler: Arc<Compiler>,
    pub(crate) wasms: Wasms,
    pub(crate) index: Principal,
    pub(crate) chat: Principal,
    foreign: Principal,
    pub(crate) rooms: Vec<Room>,
}

/// A network with the canisters on it.
pub struct Stage {
    pub network: Network,
    pub index: Principal,
    pub chat: Principal,
    /// Another app.
    pub foreign: Principal,
    images: BTreeMap<Principal, Image>,
    /// The chat, opened, and how often its memory had changed by then: to open it takes long.
    opened_chat: Option<(u64, App)>,
}

/// A canister's stable memory, copied.
#[derive(Default)]
struct Image {
    copied: Copied,
    bytes: VectorMemory,
    /// How often it has changed.
    changes: u64,
}

/// Who deploys: controller of everything but for the network.
pub fn operator() -> Principal {
    Principal::self_authenticating("operator")
}

/// The argument that the chat is installed with.
pub fn chat_init(index: Principal) -> Vec<u8> {
    encode_one(ChatInit {
        index,
        origins: None,
    })
    .expect("arguments have a Candid form")
}

/// The n-th user.
pub fn user(n: usize) -> Principal {
    Principal::self_authenticating(format!("user {n}"))
}

impl Base {
    /// Deploys the canisters of `folder`, with the bug of that number where one is named. Machine code is kept
    /// in `compile_cache` between processes.
    ///
    /// # Errors
    /// When a canister is not built.
    ///
    /// # Panics
    /// When the canisters do not come up on a network without faults.
    pub fn deploy(
        folder: &Path,
        compile_cache: Option<&Path>,
        mutant: Option<u32>,
    ) -> io::Result<Self> {
        let wasms = Wasms::read(folder, mutant.is_some())?;
        let compiler = Arc::new(Compiler::new(compile_cache));
        let config = Config {
            subnets: vec![SubnetKind::Application; SUBNETS],
            ..Config::default()
        };
        let mut stage = Stage {
            network: Network::with_compiler(config, Arc::clone(&compiler)),
            index: Principal::anonymous(),
            chat: Principal::anonymous(),
            foreign: Principal::anonymous(),
            images: BTreeMap::new(),
            opened_chat: None,
        };
        stage.index = stage.create(0, vec![operator()]);
        stage.chat = stage.create(2, vec![operator()]);
        let (index, chat) = (stage.index, stage.chat);
        let bucket_bytes_max = Some(BUCKET_BYTES);
        let arg = match mutant {
            None => encode_one(Some(IndexInit {
                bucket_bytes_max,
                ..IndexInit::default()
            })),
            Some(_) => encode_one(Some(MutantInit {
                admins: vec![],
                bucket_bytes_max,
                mutant,
            })),
        };
        let arg = arg.expect("arguments have a Candid form");
        stage.install(index, &wasms.index, arg);
        stage.install(chat, &wasms.chat, chat_init(index));
        stage.until("the index trusts the chat", |stage| {
            let issuers: Vec<Issuer> = stage.ask(index, operator(), "issuers", ()).ok()?;
            (!issuers.is_empty()).then_some(())
        });
        for subnet in [1, 2] {
            let bucket = stage.create(subnet, vec![operator(), index]);
            let added: Result<BucketInfo, FleetError> =
                stage.call(index, operator(), "add_bucket", (bucket,));
            added.expect("the bucket is taken in");
        }
        stage.until("three buckets are active", |stage| {
            let buckets = stage.status()?.buckets;
            let active = |info: &&BucketInfo| info.state == BucketState::Active;
            (buckets.iter().filter(active).count() >= 3).then_some(())
        });
        stage.foreign = stage.create(1, vec![operator()]);
        let foreign = stage.foreign;
        stage.install(foreign, openstorage_universal::WASM, vec![]);
        let args = RegisterIssuerArgs {
            issuer: Some(foreign),
            key: foreign::key(),
        };
        let trusted: Result<RegisterIssuerOk, IssuerError> =
            stage.call(index, operator(), "register_issuer", (args,));
        trusted.expect("the operator says who is trusted");
        let rooms = stage.people();
        Ok(Self {
            saved: stage.network.save(),
            compiler,
            wasms,
            index,
            chat,
            foreign: stage.foreign,
            rooms,
        })
    }

    /// A copy to run on.
    pub fn stage(&self) -> Stage {
        let network = Network::load_with(Arc::clone(&self.compiler), self.saved.clone());
        Stage {
            network: network.expect("what was saved can be loaded"),
            index: self.index,
            chat: self.chat,
            foreign: self.foreign,
            images: BTreeMap::new(),
            opened_chat: None,
        }
    }
}

impl Stage {
    /// Registers the users, and makes a room of each, with members.
    fn people(&mut self) -> Vec<Room> {
        let chat = self.chat;
        for n in 0..USERS {
            let known: Result<RegisterOk, ChatError> = self.call(chat, user(n), "register", ());
            known.expect("the chat registers everybody");
        }
        let rooms = (0..USERS)
            .map(|n| {
                let args = CreateChatArgs {
                    name: format!("room {n}"),
                };
                let info: Result<ChatInfo, ChatError> =
                    self.call(chat, user(n), "create_chat", (args,));
                let info = info.expect("a registered user makes chats");
                let members: Vec<_> = [n, (n + 1) % (USERS - 1), (n + 2) % (USERS - 1)]
                    .into_iter()
                    .take(if n < USERS - 1 { 3 } else { 1 })
                    .map(user)
                    .collect();
                for member in &members[1..] {
                    let args = JoinArgs {
                        chat_id: info.chat_id,
                        invite: info.invite.clone(),
                    };
                    let joined: Result<ChatInfo, ChatError> =
                        self.call(chat, *member, "join_chat", (args,));
                    joined.expect("whoever has the invite joins");
                }
                Room {
                    chat_id: info.chat_id,
                    accessor: info.accessor_id,
                    invite: info.invite,
                    members,
                }
            })
            .collect();
        self.until("all users are confirmed", |stage| {
            let confirmed = |n| {
                let me: Result<RegisterOk, ChatError> = stage.ask(chat, user(n), "me", ()).ok()?;
                Some(me.is_ok_and(|me| me.confirmed))
            };
            let mut confirmed = confirmed;
            (0..USERS).all(|n| confirmed(n) == Some(true)).then_some(())
        });
        rooms
    }

    fn create(&mut self, subnet: usize, controllers: Vec<Principal>) -> Principal {
        let args = ProvisionalCreateCanisterWithCyclesArgs {
            amount: Some(Nat::from(CYCLES)),
            settings: Some(CanisterSettings {
                controllers: Some(controllers),
                ..CanisterSettings::default()
            }),
            ..ProvisionalCreateCanisterWithCyclesArgs::default()
        };
        let effective = self.network.subnets()[subnet].id;
        let method = "provisional_create_canister_with_cycles";
        let sent = self.manage(effective, method, &args);
        let created: CanisterIdRecord = self.answer(sent, method);
        created.canister_id
    }

    fn install(&mut self, canister: Principal, wasm: &[u8], arg: Vec<u8>) {
        let args = InstallCodeArgs {
            mode: CanisterInstallMode::Install,
            canister_id: canister,
            wasm_module: wasm.to_vec(),
            arg,
            sender_canister_version: None,
        };
        let id = self.manage(canister, "install_code", &args);
        let id = id.expect("the management canister takes messages");
        let installed = self.wait(&id, "install_code");
        installed.unwrap_or_else(|reject| panic!("the Wasm is not installed: {}", reject.message));
    }

    /// The operator's call to the management canister about `effective`.
    pub fn manage(
        &mut self,
        effective: Principal,
        method: &str,
        args: &impl CandidType,
    ) -> Result<MessageId, Reject> {
        self.network.submit(Ingress {
            sender: operator(),
            sender_info: None,
            canister: Principal::management_canister(),
            method: method.into(),
            arg: encode_one(args).expect("arguments have a Candid form"),
            effective: Some(effective),
        })
    }

    /// Sends an update call.
    pub fn send(
        &mut self,
        canister: Principal,
        sender: Principal,
        method: &str,
        args: impl ArgumentEncoder,
    ) -> Result<MessageId, Reject> {
        let arg = encode_args(args).expect("arguments have a Candid form");
        self.send_raw(canister, sender, method, arg)
    }

    /// Sends an update call with an argument in whatever form.
    pub fn send_raw(
        &mut self,
        canister: Principal,
        sender: Principal,
        method: &str,
        arg: Vec<u8>,
    ) -> Result<MessageId, Reject> {
        self.network.submit(Ingress {
            sender,
            sender_info: None,
            canister,
            method: method.into(),
            arg,
            effective: None,
        })
    }

    /// An update call on a network without faults, and its answer.
    ///
    /// # Panics
    /// When it is rejected.
    pub fn call<T: CandidType + DeserializeOwned>(
        &mut self,
        canister: Principal,
        sender: Principal,
        method: &str,
        args: impl ArgumentEncoder,
    ) -> T {
        let sent = self.send(canister, sender, method, args);
        self.answer(sent, method)
    }

    fn answer<T: CandidType + DeserializeOwned>(
        &mut self,
        sent: Result<MessageId, Reject>,
        method: &str,
    ) -> T {
        let reply = sent.and_then(|id| self.wait(&id, method));
        let reply = reply.unwrap_or_else(|reject| panic!("{method}: {}", reject.message));
        decode_one(&reply).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Runs rounds until a message is answered.
    pub fn wait(&mut self, id: &MessageId, method: &str) -> Result<Vec<u8>, Reject> {
        for _ in 0..ROUNDS_MAX {
            if let Some(Some(answer)) = self.network.ingress_status(id) {
                return answer.clone();
            }
            self.pass(ROUND_MS);
        }
        panic!("{method} is not answered after {ROUNDS_MAX} rounds")
    }

    /// Runs rounds until something is seen.
    ///
    /// # Panics
    /// When that takes too many.
    pub fn until<T>(&mut self, what: &str, mut seen: impl FnMut(&mut Self) -> Option<T>) -> T {
        for _ in 0..ROUNDS_MAX {
            if let Some(value) = seen(self) {
                return value;
            }
            self.pass(ROUND_MS);
        }
        panic!("after {ROUNDS_MAX} rounds still not so: {what}")
    }

    /// A query.
    pub fn ask<T: CandidType + DeserializeOwned>(
        &mut self,
        canister: Principal,
        sender: Principal,
        method: &str,
        args: impl ArgumentEncoder,
    ) -> Result<T, Reject> {
        let arg = encode_args(args).expect("arguments have a Candid form");
        let reply = self.network.query(sender, canister, method, arg)?;
        Ok(decode_one(&reply).unwrap_or_else(|error| panic!("{method}: {error}")))
    }

    /// A page that a canister shows to anybody.
    pub fn page(&mut self, canister: Principal, url: &str) -> Result<String, String> {
        let request = HttpRequest {
            method: "GET".into(),
            url: url.into(),
            headers: vec![],
            body: vec![].into(),
            certificate_version: Some(2),
        };
        let anybody = Principal::anonymous();
        let answer = self.ask(canister, anybody, "http_request", (request,));
        let answer: HttpResponse = answer.map_err(|reject| reject.message)?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// The latest lines that a canister has printed.
    pub fn printed(&mut self, canister: Principal) -> Vec<String> {
        let args = FetchCanisterLogsArgs {
            canister_id: canister,
            filter: None,
        };
        let management = Principal::management_canister();
        let answer: Result<FetchCanisterLogsResult, _> =
            self.ask(management, operator(), "fetch_canister_logs", (args,));
        let lines = answer.map(|logs| logs.canister_log_records);
        lines
            .unwrap_or_default()
            .iter()
            .map(|line| String::from_utf8_lossy(&line.content).into_owned())
            .collect()
    }

    /// What the index says of itself; none while it cannot answer.
    pub fn status(&mut self) -> Option<IndexStatus> {
        self.ask(self.index, operator(), "status", ()).ok()
    }

    /// So much time, and one round.
    pub fn pass(&mut self, ms: u64) {
        let later = self.network.time_ns() + ms * 1_000_000;
        self.network
            .set_time(later)
            .expect("time only goes forward");
        self.network.tick();
    }

    pub fn now_ms(&self) -> u64 {
        self.network.time_ns() / 1_000_000
    }

    /// How often a canister's memory has changed, of those times that were looked; none where there is no code in it.
    pub fn changes(&mut self, id: Principal) -> Option<u64> {
        let image = self.images.entry(id).or_default();
        let mut bytes = image.bytes.borrow_mut();
        let changed = self
            .network
            .copy_stable_memory(&id, &mut image.copied, &mut bytes);
        if changed? {
            image.changes += 1;
            is_of_this_version(&mut bytes);
        }
        Some(image.changes)
    }

    /// A bucket as it is, opened, to be looked at only; none where there is no code in it.
    pub fn bucket(&mut self, id: Principal) -> Option<Bucket> {
        Some(Bucket::open(self.image(id)?, id, None))
    }

    /// The index likewise.
    pub fn index_image(&mut self) -> Option<Index> {
        Some(Index::open(self.image(self.index)?, self.index, None))
    }

    /// The chat likewise.
    pub fn chat_image(&mut self) -> Option<&App> {
        let changes = self.changes(self.chat)?;
        if self.opened_chat.as_ref().map(|(of, _)| *of) != Some(changes) {
            let image = self.image(self.chat)?;
            let len = image.borrow().len();
            let app = App::open(Rc::clone(&image), self.chat, None).ok()?;
            if image.borrow().len() != len {
                // One of another build lacks memories, which are made when it is opened: the next copy begins anew.
                let seen = self.images.get_mut(&self.chat)?;
                (seen.copied, seen.bytes) = Default::default();
            }
            self.opened_chat = Some((changes, app));
        }
        self.opened_chat.as_ref().map(|(_, app)| app)
    }

    /// A copy of a bucket, to be changed.
    pub fn bucket_copy(&mut self, id: Principal) -> Option<Bucket> {
        Some(Bucket::open(copy(&self.image(id)?), id, None))
    }

    /// A copy of the index, to be changed.
    pub fn index_copy(&mut self) -> Option<Index> {
        Some(Index::open(
            copy(&self.image(self.index)?),
            self.index,
            None,
        ))
    }

    fn image(&mut self, id: Principal) -> Option<VectorMemory> {
        self.changes(id)?;
        Some(Rc::clone(&self.images.get(&id)?.bytes))
    }
}

fn copy(memory: &VectorMemory) -> VectorMemory {
    Rc::new(RefCell::new(memory.borrow().clone()))
}

/// The core here is of this version, which has the memory of the next one, and would not open it.
fn is_of_this_version(bytes: &mut [u8]) {
    for page in bytes.chunks_exact_mut(PAGE_BYTES) {
        if let Some((found, rest)) = page[CELL_BYTES..].split_first_chunk_mut()
            && *found == BUCKET_MAGIC
        {
            rest[..4].copy_from_slice(&openstorage_types::bucket::VERSION.to_le_bytes());
        }
    }
}

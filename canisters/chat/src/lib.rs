//! The example app: a chat whose messages show blobs.
//!
//! The core knows no `ic_cdk`: caller and time come in as arguments, and what is to be asked of other
//! canisters goes out as [`Work`] or as [`App::unknown_bucket`], whose answers come back in. A bucket
//! never asks the chat; it believes the chat's tokens.
//!
//! | module | what |
//! | --- | --- |
//! | [`users`] | who has registered, with which limit, and whether the index knows |
//! | [`chats`] | chats and their members |
//! | [`messages`] | messages and the blobs they show |
//! | [`keys`] | the secret, and the keys shared with index and buckets |
//! | [`work`] | what the chat does by itself |
//! | [`windows`] | how often something may be done |
//! | [`site`] | the page that browsers get: the app in `web/`, certified |
//! | [`page`] | figures for operators |
//! | [`memory`] | where all of it is stored |

pub mod chats;
pub mod keys;
pub mod memory;
pub mod messages;
pub mod page;
pub mod site;
pub mod users;
pub mod windows;
pub mod work;

mod answers;

use candid::Principal;
use ic_stable_structures::{DefaultMemoryImpl, StableCell};
use openstorage_canister::{Row, lines::Lines};
use openstorage_channel::Watch;
use openstorage_types::{
    BlobReference,
    channel::{PublicKey, RevokeKeyError, RotateKeyError},
    chat::*,
    index::{
        BucketKey, BucketKeysError, IssuerError, RegisterIssuerArgs, RegisterIssuerOk,
        RevokeIssuerKeyArgs, UserArgs, UserError,
    },
    limits::PAGE_ORIGINS_MAX,
};

use crate::{
    chats::{Chat, Chats, Random, fresh_id},
    keys::Keys,
    memory::{Manager, Memory},
    messages::{Message as MessageRow, Messages},
    site::Site,
    users::Users,
    work::{Lane, LaneRow, REMOVAL_ROWS_MAX, Work},
};

/// What the front end is told to wait before it asks again.
pub const RETRY_MS: u64 = 1_000;

/// The whole state.
pub struct App {
    /// This canister.
    own: Principal,
    index: Principal,
    keys: Keys,
    users: Users,
    chats: Chats,
    messages: Messages,
    lines: Lines<Memory>,
    watch: Watch<Memory>,
    /// Where else the page is served.
    origins: StableCell<Row<Vec<String>>, Memory>,
    site: Site,
}

/// Why a state cannot be opened.
#[derive(Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Nothing was installed here.
    NoIndex,
    /// A chat keeps its index: users, buckets and keys are known there.
    OtherIndex {
        index: Principal,
    },
    /// It is none that Internet Identity accepts: `https://` and a name, in lower case, without a path.
    InvalidOrigin {
        origin: String,
    },
    TooManyOrigins {
        max: usize,
    },
}

impl App {
    /// The state in `memory`. `index` is needed the first time; later it must be the same.
    pub fn open(
        memory: DefaultMemoryImpl,
        own: Principal,
        index: Option<Principal>,
    ) -> Result<Self, OpenError> {
        let manager = Manager::init(memory);
        let cell: StableCell<Option<Principal>, Memory> =
            StableCell::init(manager.get(memory::INDEX), index);
        let kept = (*cell.get()).ok_or(OpenError::NoIndex)?;
        if index.is_some_and(|index| index != kept) {
            return Err(OpenError::OtherIndex { index: kept });
        }
        let origins = StableCell::init(manager.get(memory::ORIGINS), Row(Vec::new()));
        let mut chats = Chats::open(&manager);
        chats.bring_back();
        Ok(Self {
            site: Site::new(own, kept, &origins.get().0),
            origins,
            own,
            index: kept,
            keys: Keys::open(&manager, own),
            users: Users::open(&manager),
            chats,
            messages: Messages::open(&manager),
            lines: Lines::init(manager.get(memory::LINES)),
            watch: Watch::init(manager.get(memory::WATCH)),
        })
    }

    /// The page is served at these origins too. To be called before anything is certified.
    pub fn serve_at(&mut self, origins: Vec<String>) -> Result<(), OpenError> {
        let max = PAGE_ORIGINS_MAX;
        if origins.len() > max {
            return Err(OpenError::TooManyOrigins { max });
        }
        if let Some(origin) = origins.iter().find(|origin| !site::is_origin(origin)) {
            let origin = origin.clone();
            return Err(OpenError::InvalidOrigin { origin });
        }
        self.site = Site::new(self.own, self.index, &origins);
        self.origins.set(Row(origins));
        Ok(())
    }

    pub fn index(&self) -> Principal {
        self.index
    }

    /// The key under which the index and its buckets check this chat's tokens, once it is drawn.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.keys.public()
    }

    /// What the canister has certified, so that gateways believe its page.
    pub fn certified_data(&self) -> [u8; 32] {
        self.site.root_hash()
    }

    /// Notes the canister's version. True when a snapshot may have been restored.
    pub fn observe(&mut self, version: u64) -> bool {
        self.watch.note(version)
    }

    // Users.

    pub fn is_registered(&self, caller: Principal) -> bool {
        self.users.check(&caller).is_ok()
    }

    /// Whether a message of somebody unknown is worth being executed.
    pub fn may_register(&self, now_ms: u64) -> bool {
        self.users.may_register(now_ms)
    }

    pub fn register(&mut self, caller: Principal, now_ms: u64) -> Result<RegisterOk, ChatError> {
        if caller == Principal::anonymous() || caller == Principal::management_canister() {
            return Err(ChatError::NotAuthorized);
        }
        self.users.register(caller, now_ms)
    }

    /// Anyone may go premium: this is an example. Where the index's admins have set the limit, it stays.
    pub fn set_premium(
        &mut self,
        caller: Principal,
        premium: bool,
    ) -> Result<RegisterOk, ChatError> {
        self.check(caller)?;
        self.users.set_premium(caller, premium)
    }

    pub fn me(&self, caller: Principal) -> Result<RegisterOk, ChatError> {
        self.check(caller)?;
        self.users.me(&caller)
    }

    /// An empty name is none.
    pub fn set_name(&mut self, caller: Principal, name: String) -> Result<(), ChatError> {
        self.check(caller)?;
        self.users.set_name(caller, name)
    }

    /// The bucket of an avatar must be known: see [`App::unknown_bucket`].
    pub fn set_avatar(&mut self, caller: Principal, args: SetAvatarArgs) -> Result<(), ChatError> {
        self.check_avatar(caller, &args)?;
        self.check_bucket(args.blob.as_ref())?;
        self.users
            .set_avatar(caller, args.blob.map(messages::plain))
    }

    /// What can be checked of an avatar before its bucket is.
    pub fn check_avatar(&self, caller: Principal, args: &SetAvatarArgs) -> Result<(), ChatError> {
        self.check(caller)?;
        args.blob.as_ref().map_or(Ok(()), messages::check_reference)
    }

    // Chats.

    /// What can be checked of a new chat before random bytes are drawn for it.
    pub fn check_new_chat(
        &self,
        caller: Principal,
        args: &CreateChatArgs,
        now_ms: u64,
    ) -> Result<(), ChatError> {
        self.check(caller)?;
        self.chats.check_new(caller, &args.name)?;
        self.users.check_new_chat(&caller, now_ms).map(|_| ())
    }

    /// `random` is drawn for this chat, `version` the canister's.
    pub fn create_chat(
        &mut self,
        caller: Principal,
        args: CreateChatArgs,
        random: &Random,
        version: u64,
        now_ms: u64,
    ) -> Result<ChatInfo, ChatError> {
        self.check(caller)?;
        let chats_made = self.users.check_new_chat(&caller, now_ms)?;
        let (chat_id, chat) = self.chats.create(caller, args.name, random, version)?;
        self.users.chat_made(caller, chats_made);
        Ok(self.chat_info(chat_id, chat))
    }

    /// Whoever has a chat's invite may join.
    pub fn join_chat(&mut self, caller: Principal, args: &JoinArgs) -> Result<ChatInfo, ChatError> {
        self.check(caller)?;
        let chat = self.chats.join(args.chat_id, &args.invite, caller)?;
        Ok(self.chat_info(args.chat_id, chat))
    }

    /// What can be checked before random bytes are drawn for an invite.
    pub fn check_invite(&self, caller: Principal, args: &ChatArgs) -> Result<(), ChatError> {
        self.check(caller)?;
        self.chats.owned(args.chat_id, caller).map(|_| ())
    }

    /// Only the owner may. The invite of before opens the chat no more; members stay.
    pub fn replace_invite(
        &mut self,
        caller: Principal,
        args: &ChatArgs,
        random: &Random,
    ) -> Result<ChatInfo, ChatError> {
        self.check(caller)?;
        let chat = self.chats.replace_invite(args.chat_id, caller, random)?;
        Ok(self.chat_info(args.chat_id, chat))
    }

    /// Who is in a chat, for its members.
    pub fn members(&self, caller: Principal, args: &MembersArgs) -> Result<Vec<Member>, ChatError> {
        self.check(caller)?;
        self.chats.get_for(args.chat_id, caller)?;
        let members = self.chats.members(args.chat_id, args.after, args.limit);
        let named = |user| Member {
            user,
            name: self.users.get(&user).and_then(|row| row.name),
        };
        Ok(members.into_iter().map(named).collect())
    }

    pub fn leave_chat(&mut self, caller: Principal, args: ChatArgs) -> Result<(), ChatError> {
        self.check(caller)?;
        self.chats.leave(args.chat_id, caller)
    }

    /// The caller's chats.
    pub fn chats(&self, caller: Principal) -> Vec<ChatInfo> {
        let chats = self.chats.of(caller);
        chats
            .filter_map(|chat_id| {
                let chat = self.chats.get(chat_id).ok()?;
                Some(self.chat_info(chat_id, chat))
            })
            .collect()
    }

    /// Only the owner may. The chat is gone for its members at once, what belongs to it goes in slices.
    pub fn delete_chat(
        &mut self,
        caller: Principal,
        args: ChatArgs,
        now_ms: u64,
    ) -> Result<DeleteChatOk, ChatError> {
        self.check(caller)?;
        let chat = self.chats.delete(args.chat_id, caller)?;
        Ok(self.delete_chat_answer(caller, &chat, now_ms))
    }

    // Messages.

    /// What can be checked of a message before its bucket is.
    pub fn check_message(
        &self,
        caller: Principal,
        args: &SendMessageArgs,
    ) -> Result<(), ChatError> {
        self.check(caller)?;
        messages::check(args)?;
        self.chats.get_for(args.chat_id, caller).map(|_| ())
    }

    /// The bucket that the index must be asked about before this reference can be taken.
    pub fn unknown_bucket(&self, blob: Option<&BlobReference>) -> Option<Principal> {
        let bucket = blob?.bucket;
        (!self.keys.knows(&bucket)).then_some(bucket)
    }

    /// The bucket must be known. Everything is checked, also what was checked before the index was
    /// asked: chat and membership may have gone since. `version` is the canister's: a snapshot that is restored takes
    /// messages back, and whoever has seen them must not find others under their ids.
    pub fn send_message(
        &mut self,
        caller: Principal,
        args: SendMessageArgs,
        version: u64,
        now_ms: u64,
    ) -> Result<SendMessageOk, ChatError> {
        self.check_message(caller, &args)?;
        self.check_bucket(args.blob.as_ref())?;
        let mut chat = self.chats.get_for(args.chat_id, caller)?;
        let message_id = fresh_id(version, chat.next_message_id);
        let message = MessageRow {
            sender: caller,
            sent_ms: now_ms,
            text: args.text,
            blob: args.blob.map(messages::plain),
            name: messages::plain_name(args.name),
            preview: args.preview,
            deleted: false,
        };
        self.users.message_sent(caller, message.counted_bytes())?;
        chat.next_message_id = message_id + 1;
        chat.messages += 1;
        self.chats.put(args.chat_id, chat);
        self.messages.add(args.chat_id, message_id, message);
        Ok(SendMessageOk { message_id })
    }

    /// The author may, also after leaving, and the chat's owner. Repeatable.
    pub fn delete_message(
        &mut self,
        caller: Principal,
        args: DeleteMessageArgs,
        now_ms: u64,
    ) -> Result<DeleteMessageOk, ChatError> {
        self.check(caller)?;
        let DeleteMessageArgs {
            chat_id,
            message_id,
        } = args;
        let mut chat = self.chats.get(chat_id)?;
        let message = self.messages.get(chat_id, message_id)?;
        if caller != message.sender && caller != chat.owner {
            return Err(ChatError::NotAuthorized);
        }
        let sender = message.sender;
        if let Some(freed) = self.messages.delete(chat_id, message_id, message) {
            self.users.messages_gone(sender, freed);
            chat.messages -= 1;
            self.chats.put(chat_id, chat);
        }
        let (chat, message) = (
            self.chats.get(chat_id)?,
            self.messages.get(chat_id, message_id)?,
        );
        Ok(self.delete_message_answer(caller, (chat_id, &chat), message, now_ms))
    }

    // What other canisters answered.

    /// Takes in what the index says about a bucket that a caller named.
    pub fn learn_bucket(
        &mut self,
        bucket: Principal,
        answer: Option<Result<BucketKey, BucketKeysError>>,
        now_ms: u64,
    ) -> Result<(), ChatError> {
        match answer {
            Some(Ok(key)) => self.keys.set_bucket_key(bucket, Some(&key), now_ms),
            Some(Err(BucketKeysError::KeysNotReady)) => {
                self.keys.set_bucket_key(bucket, None, now_ms)
            }
            Some(Err(BucketKeysError::NotFound)) => return Err(ChatError::UnknownBucket),
            None => return Err(ChatError::Retry { ms: RETRY_MS }),
        };
        Ok(())
    }

    /// The next step in `lane`, if it is time for one.
    pub fn next_work(&self, lane: Lane, now_ms: u64) -> Option<Work> {
        self.due_ms(lane).filter(|due_ms| *due_ms <= now_ms)?;
        match lane {
            Lane::Setup => self.next_setup(now_ms),
            Lane::Users => Some(Work::RegisterUsers(self.users.pending())),
            Lane::Buckets => {
                let (_, bucket) = self.keys.next_due()?;
                Some(Work::AskBucketKey(bucket))
            }
            Lane::Derivation => Some(Work::DeriveKeys),
            Lane::Removal => self.chats.next_removal().map(Work::RemoveSlice),
        }
    }

    /// What the next step in `lane` is about, where there are several.
    pub fn next_row(&self, lane: Lane) -> Option<LaneRow> {
        match lane {
            Lane::Removal => self.chats.next_removal().map(LaneRow::Chat),
            Lane::Buckets => {
                let (_, bucket) = self.keys.next_due()?;
                Some(LaneRow::Bucket(bucket))
            }
            Lane::Setup | Lane::Users | Lane::Derivation => None,
        }
    }

    /// Every message about a row has trapped: it is taken out of the others' way.
    pub fn set_aside(&mut self, row: LaneRow, now_ms: u64) {
        match row {
            LaneRow::Chat(chat_id) => self.chats.set_aside(chat_id),
            LaneRow::Bucket(bucket) => self.keys.postpone(bucket, now_ms),
        }
        let text = format!("alarm: every message about {row:?} has trapped; it is set aside");
        self.note(now_ms, &text);
    }

    fn next_setup(&self, now_ms: u64) -> Option<Work> {
        let key = self
            .keys
            .public()
            .filter(|_| now_ms < self.keys.draw_due_ms());
        let Some(key) = key else {
            return Some(Work::DrawSecret);
        };
        let issuer = None;
        Some(match self.keys.to_revoke() {
            Some(version) => Work::RevokeIssuerKey(RevokeIssuerKeyArgs { issuer, version }),
            None => Work::RegisterIssuer(RegisterIssuerArgs { issuer, key }),
        })
    }

    /// When there is something to do in `lane`, in milliseconds since 1970: 0 for at once. Before the index
    /// trusts the chat it takes no users.
    pub fn due_ms(&self, lane: Lane) -> Option<u64> {
        let at_once = |is_due: bool| is_due.then_some(0);
        match lane {
            Lane::Setup if self.keys.to_revoke().is_some() => Some(0),
            Lane::Setup => Some(self.keys.draw_due_ms().min(self.keys.confirm_due_ms())),
            Lane::Users => at_once(self.keys.is_trusted() && self.users.any_pending()),
            Lane::Buckets => {
                let (due_ms, _) = self.keys.next_due()?;
                self.keys.public().map(|_| due_ms)
            }
            Lane::Derivation => at_once(self.keys.is_deriving()),
            Lane::Removal => at_once(self.chats.next_removal().is_some()),
        }
    }

    pub fn secret_drawn(&mut self, random: [u8; 32], now_ms: u64) {
        self.keys.add(random, now_ms);
    }

    /// What the index has said to `key`. Tells whether the chat is trusted under it, or need not be.
    pub fn issuer_registered(
        &mut self,
        key: &PublicKey,
        answer: &Result<RegisterIssuerOk, IssuerError>,
        now_ms: u64,
    ) -> bool {
        match answer {
            Ok(ok) => self.keys.confirmed(self.index, key, ok, now_ms),
            Err(IssuerError::InvalidKeyVersion { expected }) => {
                self.keys.renumber(*expected);
                false
            }
            Err(IssuerError::TooManyKeyVersions {
                oldest: Some(oldest),
                ..
            }) => {
                self.keys.make_room(*oldest);
                false
            }
            Err(_) => false,
        }
    }

    /// What the index has said to the revocation of a version. There is nothing left to do about one that it
    /// does not know.
    pub fn issuer_key_revoked(&mut self, version: u16, _answer: &Result<(), RevokeKeyError>) {
        self.keys.revoked(version);
    }

    /// A new key of the chat is drawn soon, by a controller's wish. It is used from the next window of read
    /// tokens; tokens under the one before are believed until the last of them has lapsed.
    pub fn rotate_key(&mut self, is_controller: bool, now_ms: u64) -> Result<(), RotateKeyError> {
        if !is_controller {
            return Err(RotateKeyError::NotAuthorized);
        }
        self.keys.want(now_ms)
    }

    /// Tokens under a replaced version of the chat's key are believed no longer, by a controller's wish: as soon
    /// as the buckets have heard of it.
    pub fn revoke_key(&mut self, is_controller: bool, version: u16) -> Result<(), RevokeKeyError> {
        if !is_controller {
            return Err(RevokeKeyError::NotAuthorized);
        }
        self.keys.revoke(version)
    }

    /// Computes a bounded part of what a new key shares with buckets.
    pub fn derive_keys(&mut self) {
        self.keys.derive_slice();
    }

    /// Tells whether all were taken.
    pub fn users_registered(
        &mut self,
        sent: &[UserArgs],
        answers: &[Result<(), UserError>],
        now_ms: u64,
    ) -> bool {
        self.users.confirm(sent, answers, now_ms)
    }

    /// Tells whether there was a key in it, or there will be none.
    pub fn bucket_key_came(
        &mut self,
        bucket: Principal,
        answer: &Result<BucketKey, BucketKeysError>,
        now_ms: u64,
    ) -> bool {
        match answer {
            Ok(key) => self.keys.set_bucket_key(bucket, Some(key), now_ms),
            Err(BucketKeysError::KeysNotReady) => self.keys.set_bucket_key(bucket, None, now_ms),
            Err(BucketKeysError::NotFound) => {
                self.keys.not_found(bucket, now_ms);
                true
            }
        }
    }

    /// Removes a bounded part of what belonged to a deleted chat.
    pub fn remove_slice(&mut self, chat_id: u64) {
        let messages = self.messages.remove(chat_id, REMOVAL_ROWS_MAX);
        for (sender, bytes) in messages.bytes {
            self.users.messages_gone(sender, bytes);
        }
        let members = self
            .chats
            .remove_members(chat_id, REMOVAL_ROWS_MAX - messages.rows);
        if messages.rows + members == 0 {
            self.chats.removed(chat_id);
        }
    }

    fn check(&self, caller: Principal) -> Result<(), ChatError> {
        if caller == Principal::anonymous() {
            return Err(ChatError::NotAuthorized);
        }
        self.users.check(&caller)
    }

    fn check_bucket(&self, blob: Option<&BlobReference>) -> Result<(), ChatError> {
        match self.unknown_bucket(blob) {
            Some(_) => Err(ChatError::UnknownBucket),
            None => Ok(()),
        }
    }

    fn chat_info(&self, chat_id: u64, chat: Chat) -> ChatInfo {
        ChatInfo {
            chat_id,
            invite: chat.invite_text(),
            accessor_id: self.accessor(&chat),
            name: chat.name,
            owner: chat.owner,
            members: chat.members,
            messages: chat.messages,
        }
    }
}

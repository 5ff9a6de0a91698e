//! What users do, and what the answers mean.

use std::collections::BTreeSet;

use candid::{CandidType, Principal, decode_one};
use openstorage_localnet::network::{MessageId, Reject};
use openstorage_types::{
    BlobReference,
    bucket::*,
    chat::{
        ChatArgs, ChatError, ChatInfo, CreateChatArgs, DeleteChatOk, DeleteMessageArgs,
        DeleteMessageOk, JoinArgs, Message, MessagesArgs, SendMessageArgs,
    },
    index::{
        AllocatedBucketArgs, AllocatedBucketError, AllocatedBucketOk, DeleteChatArgs,
        DeleteChatError,
    },
};
use serde::de::DeserializeOwned;

use crate::{
    Violation, blobs, ensure,
    model::{self, Added, Fact, Mark, Ref},
    run::Run,
    stage::{Room, USERS, user},
};

/// What blobs are uploaded and forwarded as: shown, played, and neither.
const TYPES: [&str; 5] = [
    "image/png",
    "video/mp4",
    "text/plain; charset=utf-8",
    "text/html",
    "application/octet-stream",
];
const NAMES: [Option<&str>; 4] = [None, None, Some("a picture.png"), Some("\u{fc}ber.txt")];
/// One in so many answers is not heard.
const UNHEARD: usize = 60;
const ROOMS_MAX: usize = 9;
/// Uploads under way at once, of all users.
const UPLOADS_MAX: usize = 8;

/// A call that is not answered yet.
pub struct Pending {
    pub id: MessageId,
    pub op: Op,
    /// For the log.
    pub what: String,
}

/// What a call was for.
#[derive(Clone)]
pub enum Op {
    Push {
        upload: u64,
        chunk: u32,
        mark: Mark,
        /// The client does not have the blob.
        is_thief: bool,
    },
    /// By this user.
    CreateRoom(Principal),
    /// A user joins the room of that accessor.
    JoinRoom(Principal, Principal),
    EnsureRegistered,
    Add(Mark),
    Remove(Mark),
    /// Of an owner, at the index.
    DeleteUser {
        user: Principal,
        sent: u64,
    },
    /// Of an accessor, at the index.
    DeleteAccessor {
        accessor: Principal,
        sent: u64,
    },
    Limit {
        user: Principal,
        byte_limit: u64,
    },
    DeleteMessage(Principal),
    DeleteRoom(Principal),
    /// By the other app.
    Revoke {
        room: usize,
        user: Principal,
        min_iat_ms: u64,
    },
    /// What must be refused.
    Forged,
    /// Nothing follows from the answer.
    Other,
}

/// A client that sends a blob.
#[derive(Clone)]
pub struct Upload {
    number: u64,
    user: Principal,
    blob: usize,
    bucket: Principal,
    accessors: Vec<Principal>,
    mime_type: &'static str,
    name: Option<&'static str>,
    /// Chunks to send, in any order.
    wanted: Vec<u32>,
}

/// What a user may do next.
#[derive(Clone, Copy)]
enum Deed {
    Begin,
    Send,
    Abort,
    Delete,
    Forward,
    Post,
    Read,
    DeleteMessage,
    CreateRoom,
    JoinRoom,
    DeleteRoom,
    Premium,
    EnsureRegistered,
    Intrude,
}

const DEEDS: [(u32, Deed); 14] = [
    (18, Deed::Begin),
    (40, Deed::Send),
    (2, Deed::Abort),
    (9, Deed::Delete),
    (7, Deed::Forward),
    (8, Deed::Post),
    (10, Deed::Read),
    (4, Deed::DeleteMessage),
    (1, Deed::CreateRoom),
    (1, Deed::JoinRoom),
    (1, Deed::DeleteRoom),
    (1, Deed::Premium),
    (3, Deed::EnsureRegistered),
    (3, Deed::Intrude),
];

impl Run<'_> {
    /// Some user does something.
    pub fn use_it(&mut self) -> Result<(), Violation> {
        match self.dice.weighted(&DEEDS) {
            Some(Deed::Begin) => self.begin_upload(),
            Some(Deed::Send) => self.send_chunks(),
            Some(Deed::Abort) => self.abort(),
            Some(Deed::Delete) => self.delete_reference(),
            Some(Deed::Forward) => self.forward(),
            Some(Deed::Post) => self.post(),
            Some(Deed::Read) => return self.read_something(),
            Some(Deed::DeleteMessage) => self.delete_message(),
            Some(Deed::CreateRoom) => self.create_room(),
            Some(Deed::JoinRoom) => self.join_room(),
            Some(Deed::Intrude) => self.intrude(),
            Some(Deed::DeleteRoom) => self.delete_room(),
            Some(Deed::Premium) => self.go_premium(),
            Some(Deed::EnsureRegistered) | None => {
                let (user, bucket) = (self.any_user(), self.any_bucket());
                self.ensure_registered(user, bucket);
            }
        }
        Ok(())
    }

    pub fn any_user(&mut self) -> Principal {
        user(self.dice.below(USERS))
    }

    pub fn any_bucket(&mut self) -> Principal {
        let known: Vec<_> = self.known.iter().copied().collect();
        self.dice.pick(&known).unwrap_or(self.stage.index)
    }

    /// Sends a call; a client that hears nothing, or cannot wait, sends it once more.
    pub fn send<A: candid::utils::ArgumentEncoder + Clone>(
        &mut self,
        canister: Principal,
        sender: Principal,
        method: &str,
        args: A,
        op: impl FnOnce(&mut Self) -> Op,
    ) {
        let what = format!(
            "{method} by {} at {}",
            self.name(&sender),
            self.name(&canister)
        );
        match self.stage.send(canister, sender, method, args) {
            Ok(id) => {
                self.summary.calls += 1;
                let op = op(self);
                self.note(format!("-> {what}"));
                self.pending.push(Pending { id, op, what });
            }
            Err(reject) => self.note(format!("-- {what} is not taken: {}", reject.message)),
        }
    }

    /// Sends a message that is no Candid.
    pub fn send_raw(
        &mut self,
        canister: Principal,
        sender: Principal,
        method: &str,
        arg: Vec<u8>,
        op: Op,
    ) {
        let what = format!(
            "{method} by {} at {}",
            self.name(&sender),
            self.name(&canister)
        );
        if let Ok(id) = self.stage.send_raw(canister, sender, method, arg) {
            self.note(format!("-> {what}"));
            self.pending.push(Pending { id, op, what });
        }
    }

    fn begin_upload(&mut self) {
        if self.uploads.len() >= UPLOADS_MAX {
            return self.send_chunks();
        }
        let user = self.any_user();
        // Mostly a small one: what is hashed takes time.
        let blob = match self.dice.one_in(7) {
            true => blobs::SMALL + self.dice.below(self.blobs.len() - blobs::SMALL),
            false => self.dice.below(blobs::SMALL),
        };
        let exclude = match self.dice.one_in(4) {
            true => vec![self.any_bucket()],
            false => vec![],
        };
        let args = AllocatedBucketArgs {
            blob_id: self.blobs[blob].id,
            size: self.blobs[blob].size(),
            exclude,
        };
        let index = self.stage.index;
        let allocated: Result<Result<AllocatedBucketOk, AllocatedBucketError>, Reject> =
            self.stage.ask(index, user, "allocated_bucket", (args,));
        let bucket = match allocated {
            Ok(Ok(ok)) => ok.bucket,
            // Clients do not always know better.
            _ if self.dice.one_in(3) => self.any_bucket(),
            _ => return,
        };
        if self.lost.contains(&bucket) {
            // The index may not have noticed yet. There is nobody to send it to.
            return;
        }
        self.known.insert(bucket);
        let number = self.model.moment();
        let accessors = self.some_accessors();
        let mut wanted: Vec<_> = (0..self.blobs[blob].chunks()).collect();
        // In any order: often backwards, when nothing can be verified before the first is there.
        match self.dice.below(3) {
            0 => wanted.reverse(),
            1 => {
                let by = self.dice.below(wanted.len());
                wanted.rotate_left(by);
            }
            _ => {
                for place in (1..wanted.len()).rev() {
                    wanted.swap(place, self.dice.below(place + 1));
                }
            }
        }
        let mime_type = TYPES[self.dice.below(TYPES.len())];
        let name = NAMES[self.dice.below(NAMES.len())];
        let names: Vec<_> = accessors.iter().map(|it| self.name(it)).collect();
        let (by, to) = (self.name(&user), self.name(&bucket));
        self.note(format!(
            "upload {number}: blob {blob} by {by} to {to} for {names:?}"
        ));
        self.uploads.push(Upload {
            number,
            user,
            blob,
            bucket,
            accessors,
            mime_type,
            name,
            wanted,
        });
        self.send_chunks_of(self.uploads.len() - 1);
    }

    /// One to three, each once: rooms, and somebody who is none.
    fn some_accessors(&mut self) -> Vec<Principal> {
        let mut all: Vec<_> = self.rooms.iter().map(|room| room.accessor).collect();
        all.extend(self.foreign_rooms());
        let count = 1 + self.dice.below(3);
        let mut some = vec![];
        for _ in 0..count.min(all.len()) {
            let drawn = self.dice.below(all.len());
            some.push(all.swap_remove(drawn));
        }
        some
    }

    fn send_chunks(&mut self) {
        if !self.uploads.is_empty() {
            let drawn = self.dice.below(self.uploads.len());
            self.send_chunks_of(drawn);
        }
    }

    /// Some of the chunks that are to be sent, or once more one that is in; at times the wrong bytes.
    fn send_chunks_of(&mut self, place: usize) {
        let upload = self.uploads[place].clone();
        let blob = &self.blobs[upload.blob];
        let mut chunks = upload.wanted.clone();
        if chunks.is_empty() || self.dice.one_in(8) {
            chunks.push(self.dice.below(blob.chunks() as usize) as u32);
        }
        let keep = 1 + self.dice.below(chunks.len());
        chunks.truncate(keep);
        for chunk in chunks {
            let mut bytes = self.blobs[upload.blob].chunk(chunk).to_vec();
            // Of a blob that it does not have a client may know some chunks.
            let is_wrong = match self.is_thief(&upload.user, upload.blob) {
                true => chunk == 0 || self.dice.one_in(2),
                false => self.dice.one_in(25),
            };
            if is_wrong && let Some(byte) = bytes.first_mut() {
                *byte ^= 1;
            }
            self.push(&upload, chunk, bytes);
        }
    }

    fn push(&mut self, upload: &Upload, chunk: u32, bytes: Vec<u8>) {
        let blob = &self.blobs[upload.blob];
        let args = PushChunkArgs {
            blob_id: blob.id,
            size: blob.size(),
            mime_type: upload.mime_type.into(),
            name: upload.name.map(Into::into),
            chunk_index: chunk,
            bytes: bytes.into(),
            accessor_ids: upload.accessors.clone(),
        };
        let refs = self.refs_of(upload);
        self.asked(&refs, upload.mime_type, upload.name);
        let is_thief = self.is_thief(&upload.user, upload.blob);
        let number = upload.number;
        // A client that is impatient sends the same twice.
        for _ in 0..1 + usize::from(self.dice.one_in(10)) {
            let refs = refs.clone();
            self.send(
                upload.bucket,
                upload.user,
                "push_chunk",
                (args.clone(),),
                |run| Op::Push {
                    upload: number,
                    chunk,
                    mark: run.model.add_sent(&refs),
                    is_thief,
                },
            );
        }
    }

    /// The last user has only every other blob, and tries to get the others.
    pub fn is_thief(&self, user: &Principal, blob: usize) -> bool {
        *user == crate::stage::user(USERS - 1) && blob % 2 == 1
    }

    /// Somebody asked for these references, of this type and name.
    fn asked(&mut self, refs: &[Ref], mime_type: &str, name: Option<&str>) {
        for it in refs {
            let asked = self.types.entry(*it).or_default();
            asked.insert((mime_type.to_owned(), name.map(str::to_owned)));
        }
    }

    fn refs_of(&self, upload: &Upload) -> Vec<Ref> {
        let accessors = upload.accessors.iter();
        accessors
            .map(|accessor| (upload.bucket, upload.blob, upload.user, *accessor))
            .collect()
    }

    pub fn ensure_registered(&mut self, user: Principal, bucket: Principal) {
        self.send(bucket, user, "ensure_registered", (), |_| {
            Op::EnsureRegistered
        });
    }

    fn abort(&mut self) {
        if let Some(upload) = self.dice.pick(&self.uploads.clone()) {
            let blob_id = self.blobs[upload.blob].id;
            let args = UploadArgs { blob_id };
            self.send(upload.bucket, upload.user, "abort_upload", (args,), |_| {
                Op::Other
            });
            self.uploads.retain(|it| it.number != upload.number);
        }
    }

    /// An owner removes a reference that is there, or may be.
    fn delete_reference(&mut self) {
        let refs: Vec<_> = self
            .model
            .refs()
            .filter(|(_, fact)| matches!(fact, Fact::Present | Fact::Unknown))
            .map(|(it, _)| *it)
            .collect();
        if let Some(it) = self.dice.pick(&refs) {
            self.remove(it, it.2, None);
        }
    }

    pub fn remove(&mut self, it: Ref, sender: Principal, token: Option<String>) {
        let (bucket, blob, owner, accessor_id) = it;
        self.note(format!("the reference {} is to go", model::name(&it)));
        let args = RemoveBlobReferenceArgs {
            blob_id: self.blobs[blob].id,
            accessor_id,
            owner,
            token,
        };
        self.send(bucket, sender, "delete_blob", (args,), |run| {
            Op::Remove(run.model.remove_sent(it))
        });
    }

    /// A message with a blob that a member of a room sees, and the room's accessor.
    pub fn some_message(&mut self) -> Option<(Principal, Message)> {
        let room = self.dice.pick(&self.rooms.clone())?;
        let member = self.dice.pick(&room.members)?;
        let messages = self.messages(member, room.chat_id)?;
        let with_blob: Vec<_> = messages
            .into_iter()
            .filter(|message| message.blob.is_some())
            .collect();
        Some((member, self.dice.pick(&with_blob)?))
    }

    pub fn messages(&mut self, member: Principal, chat_id: u64) -> Option<Vec<Message>> {
        let args = MessagesArgs {
            chat_id,
            after: None,
            before: None,
            limit: 100,
        };
        let chat = self.stage.chat;
        let messages: Result<Result<Vec<Message>, ChatError>, _> =
            self.stage.ask(chat, member, "messages", (args,));
        messages.ok()?.ok()
    }

    /// A member gives a blob that it sees to others.
    fn forward(&mut self) {
        let Some((member, message)) = self.some_message() else {
            return;
        };
        let Some(access) = message.blob else { return };
        let (Some(token), Some(blob)) = (access.token, self.blob_of(&access.reference)) else {
            return;
        };
        if self.is_thief(&member, blob) {
            return;
        }
        let bucket = access.reference.bucket;
        let accessor_ids = self.some_accessors();
        let mime_type = TYPES[self.dice.below(TYPES.len())];
        let name = NAMES[self.dice.below(NAMES.len())];
        let refs: Vec<_> = accessor_ids
            .iter()
            .map(|accessor| (bucket, blob, member, *accessor))
            .collect();
        let args = AddBlobReferenceArgs {
            blob_id: access.reference.blob_id,
            accessor_ids,
            mime_type: mime_type.into(),
            name: name.map(Into::into),
            from_accessor: access.accessor_id,
            token,
        };
        self.asked(&refs, mime_type, name);
        self.send(bucket, member, "add_blob_reference", (args,), |run| {
            Op::Add(run.model.add_sent(&refs))
        });
    }

    pub fn blob_of(&self, reference: &BlobReference) -> Option<usize> {
        self.blobs
            .iter()
            .position(|blob| blob.id == reference.blob_id)
    }

    /// An owner shows what it has in the room that it is for.
    fn post(&mut self) {
        let Some((bucket, blob, owner, accessor)) = self.some_present() else {
            return;
        };
        let mut rooms = self.rooms.iter();
        let Some(room) = rooms.find(|room| room.accessor == accessor) else {
            return;
        };
        let args = SendMessageArgs {
            chat_id: room.chat_id,
            text: String::new(),
            blob: Some(BlobReference {
                blob_id: self.blobs[blob].id,
                bucket,
                size: self.blobs[blob].size(),
                mime_type: TYPES[0].into(),
            }),
            name: None,
            preview: None,
        };
        self.send(self.stage.chat, owner, "send_message", (args,), |_| {
            Op::Other
        });
    }

    /// What a token opens is what was stored; where nothing was, there is nothing.
    fn read_something(&mut self) -> Result<(), Violation> {
        let Some((member, message)) = self.some_message() else {
            return Ok(());
        };
        self.read(member, &message, false)
    }

    /// `is_rest`: nothing is under way, and no answer may be put off.
    pub fn read(
        &mut self,
        member: Principal,
        message: &Message,
        is_rest: bool,
    ) -> Result<(), Violation> {
        let Some(access) = &message.blob else {
            return Ok(());
        };
        if self.lost.contains(&access.reference.bucket) {
            return Ok(());
        }
        let (Some(token), Some(blob)) = (&access.token, self.blob_of(&access.reference)) else {
            return ensure(!is_rest, 12, || format!("no token for {access:?} at rest"));
        };
        let (bucket, accessor) = (access.reference.bucket, access.accessor_id);
        let facts: Vec<_> = self
            .model
            .refs()
            .filter(|(it, _)| (it.0, it.1, it.3) == (bucket, blob, accessor))
            .map(|(_, fact)| fact)
            .collect();
        let is_there = facts.contains(&Fact::Present);
        let is_gone = facts.iter().all(|fact| *fact == Fact::Absent);
        for chunk_index in 0..self.blobs[blob].chunks() {
            let args = ReadChunkArgs {
                blob_id: self.blobs[blob].id,
                accessor_id: accessor,
                token: token.clone(),
                chunk_index,
            };
            let answer: Result<Result<ReadChunkOk, ReadChunkError>, Reject> =
                self.stage.ask(bucket, member, "read_chunk", (args,));
            let what = || format!("blob {blob} in {bucket} for {accessor}: {answer:?}, {facts:?}");
            match &answer {
                Ok(Ok(ok)) => {
                    let is_same = ok.bytes == self.blobs[blob].chunk(chunk_index);
                    ensure(is_same && ok.size == self.blobs[blob].size(), 1, what)?;
                    let own = (bucket, blob, member, accessor);
                    self.check_type(own, &ok.mime_type, is_rest)?;
                    ensure(!is_gone, 14, what)?;
                    self.summary.reads += 1;
                }
                Ok(Err(ReadChunkError::NotFound)) => ensure(!is_there, 1, what)?,
                // A bucket may not have heard of the chat yet.
                Ok(Err(ReadChunkError::InvalidToken(_))) | Err(_) => ensure(!is_rest, 13, what)?,
                Ok(Err(_)) => return Err(Violation::new(13, what())),
            }
        }
        Ok(())
    }

    /// Who has a reference sees its type, whatever others say; everybody sees that of some reference.
    fn check_type(&self, own: Ref, shown: &str, is_rest: bool) -> Result<(), Violation> {
        let is_of = |asked: &BTreeSet<(String, Option<String>)>| {
            asked.iter().any(|(it, _)| plain(it) == plain(shown))
        };
        let (bucket, blob, _, accessor) = own;
        let is_own = is_rest
            && self
                .model
                .refs()
                .any(|(it, fact)| *it == own && fact == Fact::Present);
        let is_right = match is_own {
            true => self.types.get(&own).is_some_and(is_of),
            false => self
                .types
                .iter()
                .any(|(it, asked)| (it.0, it.1, it.3) == (bucket, blob, accessor) && is_of(asked)),
        };
        ensure(is_right, 13, || {
            format!("blob {blob} in {bucket} is shown to {} as {shown}", own.2)
        })
    }

    /// An author, or the owner of the room, deletes a message: the answer says what is to be deleted with it.
    fn delete_message(&mut self) {
        let Some(room) = self.dice.pick(&self.rooms.clone()) else {
            return;
        };
        let owner = room.members[0];
        let messages = self.messages(owner, room.chat_id).unwrap_or_default();
        let Some(message) = self.dice.pick(&messages) else {
            return;
        };
        let sender = match self.dice.one_in(2) {
            true => owner,
            false => message.sender,
        };
        let args = DeleteMessageArgs {
            chat_id: room.chat_id,
            message_id: message.message_id,
        };
        self.send(self.stage.chat, sender, "delete_message", (args,), |_| {
            Op::DeleteMessage(sender)
        });
    }

    fn create_room(&mut self) {
        if self.rooms.len() >= ROOMS_MAX {
            return;
        }
        let user = self.any_user();
        let args = CreateChatArgs {
            name: "another room".into(),
        };
        self.send(self.stage.chat, user, "create_chat", (args,), |_| {
            Op::CreateRoom(user)
        });
    }

    fn join_room(&mut self) {
        let Some(room) = self.dice.pick(&self.rooms) else {
            return;
        };
        let user = self.any_user();
        let args = JoinArgs {
            chat_id: room.chat_id,
            invite: room.invite,
        };
        self.send(self.stage.chat, user, "join_chat", (args,), |_| {
            Op::JoinRoom(user, room.accessor)
        });
    }

    /// Somebody whom nobody knows, or who is not whom it claims to be.
    fn intrude(&mut self) {
        let stranger = Principal::self_authenticating(self.dice.below(1_000).to_le_bytes());
        let bucket = self.any_bucket();
        match self.dice.below(6) {
            4 | 5 => self.foreign_calls(),
            0 => self.ensure_registered(stranger, bucket),
            1 => {
                let blob = &self.blobs[self.dice.below(self.blobs.len())];
                let args = PushChunkArgs {
                    blob_id: blob.id,
                    size: blob.size(),
                    mime_type: TYPES[0].into(),
                    name: None,
                    chunk_index: 0,
                    bytes: blob.chunk(0).to_vec().into(),
                    accessor_ids: vec![stranger],
                };
                self.send(bucket, stranger, "push_chunk", (args,), |_| Op::Other);
            }
            2 => self.send(
                self.stage.index,
                stranger,
                "delete_user",
                (user(0),),
                |_| Op::Other,
            ),
            _ => {
                if let Some((bucket, blob, owner, accessor_id)) = self.some_present() {
                    let args = RemoveBlobReferenceArgs {
                        blob_id: self.blobs[blob].id,
                        accessor_id,
                        owner,
                        token: None,
                    };
                    self.send(bucket, stranger, "delete_blob", (args,), |_| Op::Other);
                }
            }
        }
    }

    /// Rooms of all but two users may go.
    fn delete_room(&mut self) {
        let place = 2 + self.dice.below(USERS - 2);
        let Some(room) = self.rooms.get(place).cloned() else {
            return;
        };
        let (owner, chat_id) = (room.members[0], room.chat_id);
        self.send(
            self.stage.chat,
            owner,
            "delete_chat",
            (ChatArgs { chat_id },),
            |_| Op::DeleteRoom(owner),
        );
    }

    fn go_premium(&mut self) {
        let (user, premium) = (self.any_user(), self.dice.one_in(2));
        self.send(self.stage.chat, user, "set_premium", (premium,), |run| {
            run.chat_limits.insert(user);
            Op::Other
        });
    }

    /// Takes the answers that have come.
    pub fn collect(&mut self) {
        let mut left = vec![];
        for pending in std::mem::take(&mut self.pending) {
            let answer = match self.stage.network.ingress_status(&pending.id) {
                // The client waits no longer, though it was done.
                Some(Some(_)) if self.dice.one_in(UNHEARD) => Err("nobody has heard it".into()),
                Some(Some(answer)) => answer
                    .clone()
                    .map_err(|reject| format!("{}: {}", reject.error_code_text(), reject.message)),
                _ => {
                    left.push(pending);
                    continue;
                }
            };
            self.answered(pending, answer);
        }
        self.pending.extend(left);
        self.collect_procedures();
    }

    fn answered(&mut self, pending: Pending, answer: Result<Vec<u8>, String>) {
        let what = &pending.what;
        match pending.op {
            Op::Push {
                upload,
                chunk,
                mark,
                is_thief,
            } => {
                // A bucket turns chunks away of whom it does not know.
                let is_turned_away = |reject: &String| reject.starts_with("IC0406");
                let answer = match answer {
                    Err(reject) if is_turned_away(&reject) => {
                        self.note(format!("<- {what}: turned away"));
                        Some(Err(PushChunkError::NotRegistered))
                    }
                    answer => self.understand::<Result<PushChunkOk, PushChunkError>>(what, answer),
                };
                let is_stored = matches!(&answer, Some(Ok(ok)) if ok.state == UploadState::Stored);
                if is_stored && is_thief {
                    self.breaks(13, format!("{what} without the bytes: {answer:?}"));
                }
                let added = match &answer {
                    Some(Ok(ok)) if ok.state == UploadState::Stored => Added::Acknowledged,
                    Some(Ok(ok)) if ok.state == UploadState::Open => Added::No,
                    Some(Err(_)) => Added::No,
                    _ => Added::Perhaps,
                };
                self.model.add_done(&mark, added);
                self.summary.stored += usize::from(is_stored);
                self.pushed(upload, chunk, answer);
            }
            Op::Add(mark) => {
                type Answer = Result<BlobReference, AddBlobReferenceError>;
                let answer = self.understand::<Answer>(what, answer);
                let added = match answer {
                    Some(Ok(_)) => Added::Acknowledged,
                    Some(Err(_)) => Added::No,
                    None => Added::Perhaps,
                };
                self.model.add_done(&mark, added);
            }
            Op::Remove(mark) => {
                type Answer = Result<(), RemoveBlobReferenceError>;
                let answer = self.understand::<Answer>(what, answer);
                self.model
                    .remove_done(&mark, matches!(answer, Some(Ok(()))));
            }
            Op::DeleteUser { user, sent } => {
                type Answer = Result<(), openstorage_types::index::UserError>;
                if let Some(Ok(())) = self.understand::<Answer>(what, answer) {
                    self.model.deletion_done(user, sent, false);
                }
            }
            Op::DeleteAccessor { accessor, sent } => {
                type Answer = Result<(), DeleteChatError>;
                if let Some(Ok(())) = self.understand::<Answer>(what, answer) {
                    self.model.deletion_done(accessor, sent, true);
                }
            }
            Op::DeleteMessage(sender) => {
                type Answer = Result<DeleteMessageOk, ChatError>;
                if let Some(Ok(ok)) = self.understand::<Answer>(what, answer) {
                    self.message_deleted(sender, ok);
                }
            }
            Op::DeleteRoom(owner) => {
                type Answer = Result<DeleteChatOk, ChatError>;
                if let Some(Ok(DeleteChatOk::Delete {
                    chat_id,
                    index,
                    token,
                })) = self.understand::<Answer>(what, answer)
                {
                    let args = DeleteChatArgs { chat_id, token };
                    self.send(index, owner, "delete_chat", (args,), |run| {
                        Op::DeleteAccessor {
                            accessor: chat_id,
                            sent: run.model.deletion_sent(chat_id),
                        }
                    });
                }
            }
            Op::CreateRoom(owner) => {
                if let Some(Ok(info)) = self.understand::<Result<ChatInfo, ChatError>>(what, answer)
                {
                    self.room_created(owner, &info);
                }
            }
            Op::JoinRoom(user, accessor) => {
                if let Some(Ok(_)) = self.understand::<Result<ChatInfo, ChatError>>(what, answer) {
                    let mut rooms = self.rooms.iter_mut();
                    if let Some(room) = rooms.find(|room| room.accessor == accessor)
                        && !room.members.contains(&user)
                    {
                        room.members.push(user);
                    }
                }
            }
            Op::EnsureRegistered => {
                self.understand::<Result<(), EnsureRegisteredError>>(what, answer);
            }
            Op::Revoke {
                room,
                user,
                min_iat_ms,
            } => {
                if let Ok(reply) = answer {
                    self.revoked(room, user, min_iat_ms, &reply);
                }
            }
            Op::Forged => {
                let wrong = answer.ok().and_then(|reply| self.forged(&reply));
                if let Some(what) = wrong {
                    self.breaks(13, what);
                }
            }
            Op::Limit { .. } | Op::Other => {
                let text = match answer {
                    Ok(reply) => format!("{} bytes", reply.len()),
                    Err(why) => why,
                };
                self.note(format!("<- {what}: {text}"));
            }
        }
    }

    /// The answer, in the log; none where the call was rejected, so that nobody knows what it did.
    fn understand<T: CandidType + DeserializeOwned + std::fmt::Debug>(
        &mut self,
        what: &str,
        answer: Result<Vec<u8>, String>,
    ) -> Option<T> {
        match answer {
            Ok(reply) => {
                let answer: T = decode_one(&reply).expect("canisters answer in their interface");
                self.note(format!("<- {what}: {answer:?}"));
                Some(answer)
            }
            Err(why) => {
                self.note(format!("<- {what}: rejected, {why}"));
                None
            }
        }
    }

    /// What a client does with the answer to a chunk.
    fn pushed(
        &mut self,
        number: u64,
        chunk: u32,
        answer: Option<Result<PushChunkOk, PushChunkError>>,
    ) {
        let mut uploads = self.uploads.iter_mut();
        let Some(upload) = uploads.find(|upload| upload.number == number) else {
            return;
        };
        let (user, bucket) = (upload.user, upload.bucket);
        let is_over = match answer {
            Some(Ok(ok)) => {
                upload.wanted.retain(|wanted| *wanted != chunk);
                matches!(ok.state, UploadState::Stored | UploadState::Gone(_))
            }
            Some(Err(PushChunkError::ChunkNeeded { indexes })) => {
                upload.wanted = indexes;
                false
            }
            Some(Err(PushChunkError::NotRegistered)) => {
                self.ensure_registered(user, bucket);
                false
            }
            // Not now, or nobody knows: the client tries again.
            Some(Err(PushChunkError::Retry { .. } | PushChunkError::StorageFull)) | None => false,
            Some(Err(_)) => true,
        };
        if is_over {
            self.uploads.retain(|upload| upload.number != number);
        }
    }

    /// What belongs to a room is the room's for ever: no two have the same accessor, whatever the chat has forgotten.
    fn room_created(&mut self, owner: Principal, info: &ChatInfo) {
        if !self.accessors.insert(info.accessor_id) {
            self.breaks(
                13,
                format!("a new room has the accessor of an earlier one: {info:?}"),
            );
        }
        self.rooms.push(Room {
            chat_id: info.chat_id,
            accessor: info.accessor_id,
            invite: info.invite.clone(),
            members: vec![owner],
        });
    }

    /// Asks the chat which rooms there are: it may have forgotten some, and has others back.
    pub fn look_at_rooms(&mut self) {
        let chat = self.stage.chat;
        let mut rooms: Vec<Room> = vec![];
        for user in (0..USERS).map(user) {
            let Ok(infos) = self.stage.ask::<Vec<ChatInfo>>(chat, user, "chats", ()) else {
                return;
            };
            for info in infos {
                let place = rooms.iter().position(|room| room.chat_id == info.chat_id);
                let place = place.unwrap_or_else(|| {
                    rooms.push(Room {
                        chat_id: info.chat_id,
                        accessor: info.accessor_id,
                        invite: info.invite,
                        members: vec![info.owner],
                    });
                    rooms.len() - 1
                });
                let members = &mut rooms[place].members;
                if !members.contains(&user) {
                    members.push(user);
                }
            }
        }
        self.accessors
            .extend(rooms.iter().map(|room| room.accessor));
        self.rooms = rooms;
    }

    /// Notes that something does not hold, where it cannot be said at once.
    fn breaks(&mut self, invariant: u8, what: String) {
        self.broken.get_or_insert(Violation { invariant, what });
    }

    fn message_deleted(&mut self, sender: Principal, ok: DeleteMessageOk) {
        let DeleteMessageOk::Delete {
            blob_id,
            bucket,
            accessor_id,
            owner,
            token,
        } = ok
        else {
            return;
        };
        let mut blobs = self.blobs.iter();
        if let Some(blob) = blobs.position(|blob| blob.id == blob_id) {
            self.remove((bucket, blob, owner, accessor_id), sender, Some(token));
        }
    }
}

/// A type as it may be written in several ways: buckets keep no parameters.
pub fn plain(mime_type: &str) -> String {
    let essence = mime_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

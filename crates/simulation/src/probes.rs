//! What nobody may do, tried at rest; what may be repeated, repeated; and what is to be found, looked for.

use std::collections::BTreeMap;

use candid::{CandidType, Principal};
use ic_management_canister_types::{CanisterIdRecord, CanisterStatusResult};
use openstorage_localnet::network::Reject;
use openstorage_types::{
    BlobId, BlobReference,
    bucket::*,
    channel::{PublicKey, RotateKeyError},
    chat::{BlobAccess, Message},
    http::{HttpRequest, HttpResponse},
    index::{
        AllocatedBucketArgs, AllocatedBucketError, AllocatedBucketOk, BucketInfo, DeleteChatArgs,
        DeleteChatError, FleetError, IssuerError, RegisterIssuerArgs, RegisterIssuerOk, UserArgs,
        UserError, UserInfo,
    },
};
use serde::de::DeserializeOwned;

use crate::{
    Violation, ensure,
    model::{Fact, Ref},
    rest::{Held, Holding},
    run::Run,
    stage::{USERS, operator, user},
};

/// A read that was right once.
#[derive(Debug, Clone)]
pub struct Read {
    at_ms: u64,
    member: Principal,
    pub bucket: Principal,
    args: ReadChunkArgs,
}

/// The chat has drawn another key by then.
const KEY_SECONDS: usize = 60;
/// Longer than any token lives.
const LAPSED_MS: u64 = openstorage_types::limits::READ_TOKEN_LIFE_MS;

impl Run<'_> {
    /// Every bucket has the expected code and controllers, and every stored blob is found.
    pub fn check_fleet(&mut self) -> Result<(), Violation> {
        let Some(status) = self.stage.status() else {
            return Err(Violation::new(12, "the index does not answer"));
        };
        let mut expected = vec![operator(), self.stage.index];
        expected.sort();
        for info in &status.buckets {
            let id = info.bucket;
            let mut controllers = self.stage.network.controllers(&id).unwrap_or_default();
            controllers.sort();
            ensure(controllers == expected, 23, || {
                format!("bucket {id} is controlled by {controllers:?}")
            })?;
            let record = CanisterIdRecord { canister_id: id };
            let sent = self.stage.manage(id, "canister_status", &record);
            let reply = sent.and_then(|id| self.stage.wait(&id, "canister_status"));
            let reply = reply.map_err(|reject| Violation::new(12, reject.message))?;
            let seen: CanisterStatusResult =
                candid::decode_one(&reply).expect("the management canister answers");
            let hash = seen.module_hash.unwrap_or_default();
            ensure(hash == status.roll.module_hash.0, 23, || {
                format!("bucket {id} has the module {}", hex::encode(&hash))
            })?;
        }
        self.check_allocation()
    }

    fn check_allocation(&mut self) -> Result<(), Violation> {
        let mut at: BTreeMap<usize, Vec<Principal>> = BTreeMap::new();
        for ((bucket, blob, ..), fact) in self.model.refs() {
            if fact == Fact::Present {
                at.entry(*blob).or_default().push(*bucket);
            }
        }
        let index = self.stage.index;
        for (place, buckets) in at {
            let size = self.blobs[place].size();
            let may_ask = |run: &mut Self, n| {
                let info: Result<Result<UserInfo, UserError>, _> =
                    run.stage.ask(index, user(n), "user", (None::<Principal>,));
                matches!(info, Ok(Ok(info)) if info.byte_limit >= size)
            };
            let Some(n) = (0..USERS).find(|n| may_ask(self, *n)) else {
                continue;
            };
            let args = AllocatedBucketArgs {
                blob_id: self.blobs[place].id,
                size,
                exclude: vec![],
            };
            let answer: Result<Result<AllocatedBucketOk, AllocatedBucketError>, Reject> =
                self.stage.ask(index, user(n), "allocated_bucket", (args,));
            let is_right =
                matches!(&answer, Ok(Ok(ok)) if ok.stored && buckets.contains(&ok.bucket));
            ensure(is_right, 3, || {
                format!("blob {place} is in {buckets:?}, and the index answers {answer:?}")
            })?;
        }
        Ok(())
    }

    /// Members read all that their rooms show.
    pub fn check_reads(&mut self) -> Result<(), Violation> {
        for room in self.rooms.clone() {
            let member = room.members[0];
            for message in self.messages(member, room.chat_id).unwrap_or_default() {
                self.read(member, &message, true)?;
            }
        }
        Ok(())
    }

    /// Nothing of this changes what there is.
    pub fn probe(&mut self, before: &Held) -> Result<(), Violation> {
        self.bad_calls()?;
        self.repeated_calls()?;
        self.forbidden_reads()?;
        self.collect();
        for (id, holding) in before {
            let Holding { inventory, users } = &**holding;
            let Some(bucket) = self.stage.bucket(*id) else {
                return Err(Violation::new(28, format!("bucket {id} has lost its code")));
            };
            let now = bucket.inventory();
            let now = now.map_err(|error| Violation::new(28, error.to_string()))?;
            ensure(now == *inventory, 28, || {
                format!("bucket {id} had {inventory:?}, and now {now:?}")
            })?;
            let figures = |users: &[openstorage_types::channel::AuditedUser]| -> Vec<_> {
                let of = users.iter();
                of.map(|it| (it.kept.user, it.kept.counters.used(), it.reserved))
                    .collect()
            };
            let (was, is) = (figures(users), figures(&crate::pulse::users_of(&bucket)));
            ensure(was.iter().all(|it| is.contains(it)), 28, || {
                format!("bucket {id} counted {was:?}, and now {is:?}")
            })?;
        }
        // A chat whose newest key is not in use yet draws no other.
        if self.dice.one_in(6) && !self.is_rotated {
            self.revoke()?;
        }
        Ok(())
    }

    /// A call that must be refused: by its answer, or before it is executed.
    fn refused<T, E>(
        &mut self,
        canister: Principal,
        sender: Principal,
        method: &str,
        args: impl candid::utils::ArgumentEncoder,
    ) -> Result<(), Violation>
    where
        T: CandidType + DeserializeOwned + std::fmt::Debug,
        E: CandidType + DeserializeOwned + std::fmt::Debug,
    {
        let Ok(id) = self.stage.send(canister, sender, method, args) else {
            return Ok(());
        };
        let what = |answer: &dyn std::fmt::Debug| format!("{method} by {sender}: {answer:?}");
        match self.stage.wait(&id, method) {
            Ok(reply) => {
                let answer: Result<T, E> =
                    candid::decode_one(&reply).expect("canisters answer in their interface");
                ensure(answer.is_err(), 28, || what(&answer))
            }
            Err(reject) => Err(Violation::new(28, what(&reject))),
        }
    }

    fn bad_calls(&mut self) -> Result<(), Violation> {
        let bucket = self.any_bucket();
        let index = self.stage.index;
        let (someone, other) = (self.any_user(), user(USERS));
        let accessor = self.some_accessor();
        let good = PushChunkArgs {
            blob_id: BlobId([7; 32]),
            size: 3,
            mime_type: "image/png".into(),
            name: None,
            chunk_index: 0,
            bytes: vec![1, 2, 3].into(),
            accessor_ids: vec![accessor],
        };
        let mut bad = vec![good.clone(); 5];
        bad[0].chunk_index = 1;
        bad[1].bytes = vec![1, 2].into();
        bad[2].size = u64::MAX;
        bad[3].accessor_ids = vec![Principal::anonymous()];
        bad[4].mime_type = "no type".into();
        for args in bad {
            self.refused::<PushChunkOk, PushChunkError>(bucket, someone, "push_chunk", (args,))?;
        }
        self.refused::<PushChunkOk, PushChunkError>(bucket, other, "push_chunk", (good,))?;
        if let Some((bucket, blob, owner, accessor_id)) = self.some_present() {
            let args = RemoveBlobReferenceArgs {
                blob_id: self.blobs[blob].id,
                accessor_id,
                owner,
                token: None,
            };
            type Error = RemoveBlobReferenceError;
            self.refused::<(), Error>(bucket, other, "delete_blob", (args.clone(),))?;
            let args = RemoveBlobReferenceArgs {
                token: Some("OS1.nothing".into()),
                ..args
            };
            self.refused::<(), Error>(bucket, other, "delete_blob", (args,))?;
            let args = AddBlobReferenceArgs {
                blob_id: self.blobs[blob].id,
                accessor_ids: vec![accessor],
                mime_type: "image/png".into(),
                name: None,
                from_accessor: accessor_id,
                token: "OS1.nothing".into(),
            };
            type Added = AddBlobReferenceError;
            self.refused::<BlobReference, Added>(bucket, owner, "add_blob_reference", (args,))?;
        }
        let args = UserArgs {
            user: someone,
            byte_limit: u64::MAX,
        };
        self.refused::<(), UserError>(index, someone, "register_user", (args,))?;
        self.refused::<(), UserError>(index, someone, "delete_user", (other,))?;
        self.refused::<BucketInfo, FleetError>(index, someone, "retire_bucket", (bucket,))?;
        let args = DeleteChatArgs {
            chat_id: accessor,
            token: "OS1.nothing".into(),
        };
        self.refused::<(), DeleteChatError>(index, someone, "delete_chat", (args,))
    }

    fn some_accessor(&mut self) -> Principal {
        let rooms: Vec<_> = self.rooms.iter().map(|room| room.accessor).collect();
        let nobody = Principal::self_authenticating("nobody");
        self.dice.pick(&rooms).unwrap_or(nobody)
    }

    /// One of the references that are certain to be there.
    pub(crate) fn some_present(&mut self) -> Option<Ref> {
        let refs: Vec<_> = self
            .model
            .refs()
            .filter(|(_, fact)| *fact == Fact::Present)
            .map(|(it, _)| *it)
            .collect();
        self.dice.pick(&refs)
    }

    /// What was done and acknowledged is acknowledged once more.
    fn repeated_calls(&mut self) -> Result<(), Violation> {
        if let Some((bucket, blob, owner, accessor)) = self.some_present() {
            let args = PushChunkArgs {
                blob_id: self.blobs[blob].id,
                size: self.blobs[blob].size(),
                mime_type: "image/png".into(),
                name: None,
                chunk_index: 0,
                bytes: self.blobs[blob].chunk(0).to_vec().into(),
                accessor_ids: vec![accessor],
            };
            let answer: Result<PushChunkOk, PushChunkError> =
                self.stage.call(bucket, owner, "push_chunk", (args,));
            let is_same = matches!(&answer, Ok(ok) if ok.state == UploadState::Stored);
            ensure(is_same, 9, || {
                format!("blob {blob}, stored in {bucket} by {owner}, is pushed again: {answer:?}")
            })?;
        }
        let absent: Vec<_> = self
            .model
            .refs()
            .filter(|(_, fact)| *fact == Fact::Absent)
            .map(|(it, _)| *it)
            .collect();
        if let Some((bucket, blob, owner, accessor_id)) = self.dice.pick(&absent) {
            let args = RemoveBlobReferenceArgs {
                blob_id: self.blobs[blob].id,
                accessor_id,
                owner,
                token: None,
            };
            type Error = RemoveBlobReferenceError;
            // A bucket turns away whom it does not know: a user who was deleted, or whom it has forgotten.
            let image = self.stage.bucket(bucket);
            if !image.is_some_and(|image| image.knows(&owner)) {
                return self.refused::<(), Error>(bucket, owner, "delete_blob", (args,));
            }
            let answer: Result<(), Error> = self.stage.call(bucket, owner, "delete_blob", (args,));
            ensure(answer == Ok(()), 9, || {
                format!("a reference that is gone is deleted again: {answer:?}")
            })?;
        }
        Ok(())
    }

    /// Some message whose blob a member can read.
    fn some_read(&mut self) -> Option<(Message, BlobAccess, Read)> {
        for _ in 0..10 {
            let Some((member, message)) = self.some_message() else {
                continue;
            };
            let access = message.blob.clone()?;
            let args = ReadChunkArgs {
                blob_id: access.reference.blob_id,
                accessor_id: access.accessor_id,
                token: access.token.clone().unwrap_or_default(),
                chunk_index: 0,
            };
            let read = Read {
                at_ms: self.stage.now_ms(),
                member,
                bucket: access.reference.bucket,
                args,
            };
            if matches!(self.try_read(&read), Ok(Ok(_))) {
                return Some((message, access, read));
            }
        }
        None
    }

    fn try_read(&mut self, read: &Read) -> Result<Result<ReadChunkOk, ReadChunkError>, Reject> {
        let args = (read.args.clone(),);
        self.stage.ask(read.bucket, read.member, "read_chunk", args)
    }

    /// What a token does not open.
    fn forbidden_reads(&mut self) -> Result<(), Violation> {
        let now_ms = self.stage.now_ms();
        if let Some(old) = self.old_read.clone()
            && now_ms > old.at_ms + LAPSED_MS
        {
            self.must_not_read("a lapsed token", &old)?;
        }
        let Some((_, access, read)) = self.some_read() else {
            return Ok(());
        };
        self.old_read = Some(read.clone());
        let with = |change: &dyn Fn(&mut Read)| {
            let mut read = read.clone();
            change(&mut read);
            read
        };
        let stranger = with(&|read| read.member = user(USERS));
        self.must_not_read("another's token", &stranger)?;
        let other = self.some_accessor();
        if other != access.accessor_id {
            let elsewhere = with(&|read| read.args.accessor_id = other);
            self.must_not_read("a token for another accessor", &elsewhere)?;
        }
        let at = self.dice.below(read.args.token.len());
        let flipped = with(&|read| {
            let token = &mut read.args.token;
            let new = if token.as_bytes()[at] == b'A' {
                "B"
            } else {
                "A"
            };
            token.replace_range(at..=at, new);
        });
        self.must_not_read("a changed token", &flipped)?;
        self.read_by_browser(&read)
    }

    fn must_not_read(&mut self, what: &str, read: &Read) -> Result<(), Violation> {
        let answer = self.try_read(read);
        let is_refused = matches!(
            answer,
            Ok(Err(
                ReadChunkError::NotAuthorized | ReadChunkError::InvalidToken(_)
            ))
        );
        ensure(is_refused, 13, || {
            format!("{what} opens {read:?}: {answer:?}")
        })
    }

    /// The same over HTTP, with the token and without.
    fn read_by_browser(&mut self, read: &Read) -> Result<(), Violation> {
        let ReadChunkArgs {
            blob_id,
            accessor_id,
            token,
            ..
        } = &read.args;
        for (query, statuses) in [
            (format!("?token={token}"), [200, 206]),
            (String::new(), [401, 503]),
        ] {
            let request = HttpRequest {
                method: "GET".into(),
                url: format!("/{accessor_id}/{blob_id}{query}"),
                headers: vec![],
                body: vec![].into(),
                certificate_version: Some(2),
            };
            let anybody = Principal::anonymous();
            let answer: Result<HttpResponse, Reject> =
                self.stage
                    .ask(read.bucket, anybody, "http_request", (request,));
            let status = answer.as_ref().map_or(0, |answer| answer.status_code);
            ensure(statuses.contains(&status), 13, || {
                format!("{read:?} over HTTP, {query:?}: status {status}")
            })?;
        }
        Ok(())
    }

    /// The index trusts the chat no more, and then again.
    fn revoke(&mut self) -> Result<(), Violation> {
        let (index, chat) = (self.stage.index, self.stage.chat);
        let Some((_, _, read)) = self.some_read() else {
            return Ok(());
        };
        self.note("the chat is trusted no more");
        let removed: Result<(), IssuerError> =
            self.stage.call(index, operator(), "remove_issuer", (chat,));
        ensure(removed.is_ok(), 9, || format!("remove_issuer: {removed:?}"))?;
        self.told()?;
        self.must_not_read("a token of an issuer that is not trusted", &read)?;
        // It comes back with another key only: what was issued under this one stays worth nothing.
        let old = self.chat_key()?;
        let again = self.trust(old);
        ensure(again.is_err(), 13, || {
            format!("a removed key is taken: {again:?}")
        })?;
        let wanted: Result<(), RotateKeyError> =
            self.stage.call(chat, operator(), "rotate_key", ());
        ensure(wanted.is_ok(), 9, || format!("rotate_key: {wanted:?}"))?;
        self.is_rotated = true;
        let mut new = old;
        for _ in 0..KEY_SECONDS {
            self.stage.pass(1_000);
            new = self.chat_key()?;
            if new.version != old.version {
                break;
            }
        }
        let trusted = self.trust(new);
        ensure(trusted.is_ok(), 9, || {
            format!("register_issuer: {trusted:?}")
        })?;
        self.told()?;
        self.must_not_read("a token of before its issuer was removed", &read)?;
        // What the chat issues from now on opens at once.
        self.check_reads()
    }

    fn chat_key(&mut self) -> Result<PublicKey, Violation> {
        let chat = self.stage.chat;
        let key: Result<Option<PublicKey>, Reject> =
            self.stage.ask(chat, operator(), "public_key", ());
        let no_key = || Violation::new(16, "the chat has lost its key");
        key.ok().flatten().ok_or_else(no_key)
    }

    fn trust(&mut self, key: PublicKey) -> Result<RegisterIssuerOk, IssuerError> {
        let (index, issuer) = (self.stage.index, Some(self.stage.chat));
        let args = RegisterIssuerArgs { issuer, key };
        self.stage
            .call(index, operator(), "register_issuer", (args,))
    }
}

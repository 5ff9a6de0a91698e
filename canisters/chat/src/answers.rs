//! Answers that carry tokens: what is shown, and what is left to delete elsewhere.

use std::collections::BTreeMap;

use candid::Principal;
use openstorage_tokens::{Grant, Scope, derived_accessor, read_times};
use openstorage_types::{BlobReference, chat::*, limits::DELETE_TOKEN_LIFE_MS};

use crate::{App, RETRY_MS, chats::Chat, messages::Message as MessageRow};

impl App {
    /// What the blobs of a chat are made visible to.
    pub fn accessor(&self, chat: &Chat) -> Principal {
        derived_accessor(&self.own, &*chat.derived_name)
    }

    /// Messages of a chat, for one of its members; each blob comes with a token for the caller.
    pub fn messages(
        &self,
        caller: Principal,
        args: &MessagesArgs,
        now_ms: u64,
    ) -> Result<Vec<Message>, ChatError> {
        self.check(caller)?;
        let chat = self.chats.get_for(args.chat_id, caller)?;
        let accessor_id = self.accessor(&chat);
        // The same token opens all that the chat can see in a bucket.
        let mut tokens: BTreeMap<Principal, Option<String>> = BTreeMap::new();
        let page = self.messages.page(args);
        Ok(page
            .into_iter()
            .map(|(message_id, row)| {
                let blob = row.blob.filter(|_| !row.deleted).map(|reference| {
                    let token = tokens
                        .entry(reference.bucket)
                        .or_insert_with_key(|bucket| {
                            self.read_token(*bucket, Some(&*chat.derived_name), caller, now_ms)
                        })
                        .clone();
                    BlobAccess {
                        reference,
                        accessor_id,
                        token,
                    }
                });
                Message {
                    message_id,
                    sender: row.sender,
                    sent_ms: row.sent_ms,
                    text: row.text,
                    blob,
                    name: row.name,
                    preview: row.preview,
                    deleted: row.deleted,
                }
            })
            .collect())
    }

    /// A user, for any other. The avatar's accessor is the app itself.
    pub fn profile(
        &self,
        caller: Principal,
        user: Principal,
        now_ms: u64,
    ) -> Result<Profile, ChatError> {
        self.check(caller)?;
        let row = self.users.get(&user).ok_or(ChatError::UserNotFound)?;
        Ok(Profile {
            user,
            name: row.name,
            premium: row.premium,
            avatar: row.avatar.map(|reference: BlobReference| BlobAccess {
                accessor_id: self.own,
                token: self.read_token(reference.bucket, None, caller, now_ms),
                reference,
            }),
        })
    }

    /// What remains to be done about the blob of a deleted message: the reference of its sender goes
    /// with the last message that shows it.
    pub(crate) fn delete_message_answer(
        &self,
        caller: Principal,
        (chat_id, chat): (u64, &Chat),
        message: MessageRow,
        now_ms: u64,
    ) -> DeleteMessageOk {
        let is_shown = self.messages.shows(chat_id, &message);
        let Some(blob) = message.blob.filter(|_| !is_shown) else {
            return DeleteMessageOk::Nothing;
        };
        let grant = Grant {
            scope: Scope::DELETE_REFERENCE.with(Scope::BOUND_TO_BLOB),
            dn: Some(&*chat.derived_name),
            blob: Some(blob.blob_id.0),
            owner: Some(message.sender),
            principal: caller,
            iat_ms: now_ms,
            exp_ms: now_ms + DELETE_TOKEN_LIFE_MS,
        };
        match self.keys.for_bucket(blob.bucket, &grant) {
            None => DeleteMessageOk::Retry { ms: RETRY_MS },
            Some(token) => DeleteMessageOk::Delete {
                blob_id: blob.blob_id,
                bucket: blob.bucket,
                accessor_id: self.accessor(chat),
                owner: message.sender,
                token,
            },
        }
    }

    pub(crate) fn delete_chat_answer(
        &self,
        caller: Principal,
        chat: &Chat,
        now_ms: u64,
    ) -> DeleteChatOk {
        let grant = Grant {
            scope: Scope::DELETE_ACCESSOR,
            dn: Some(&*chat.derived_name),
            blob: None,
            owner: None,
            principal: caller,
            iat_ms: now_ms,
            exp_ms: now_ms + DELETE_TOKEN_LIFE_MS,
        };
        match self.keys.for_index(self.index, &grant) {
            None => DeleteChatOk::Retry { ms: RETRY_MS },
            Some(token) => DeleteChatOk::Delete {
                chat_id: self.accessor(chat),
                index: self.index,
                token,
            },
        }
    }

    fn read_token(
        &self,
        bucket: Principal,
        dn: Option<&[u8]>,
        principal: Principal,
        now_ms: u64,
    ) -> Option<String> {
        let (iat_ms, exp_ms) = read_times(now_ms, 0);
        let grant = Grant {
            scope: Scope::READ,
            dn,
            blob: None,
            owner: None,
            principal,
            iat_ms,
            exp_ms,
        };
        self.keys.for_bucket(bucket, &grant)
    }
}

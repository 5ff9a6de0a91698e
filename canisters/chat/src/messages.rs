//! Messages, and how often each blob is shown by them.

use std::collections::BTreeMap;

use candid::{CandidType, Principal};
use ic_stable_structures::StableBTreeMap;
use openstorage_types::{
    BlobReference,
    chat::{ChatError, MessagesArgs, SendMessageArgs},
    file_name,
    limits::{
        BLOB_BYTES_MAX, MESSAGE_ROW_BYTES, MESSAGE_TEXT_BYTES_MAX, MESSAGES_PAGE_BYTES_MAX,
        NAME_BYTES_MAX, PAGE_ROWS_MAX, PREVIEW_BYTES_MAX,
    },
    mime_type,
};
use serde::Deserialize;
use serde_bytes::ByteBuf;

use crate::{
    chats::LAST_PRINCIPAL,
    memory::{self, Manager, Memory},
};
use openstorage_canister::Row;

/// What an answer needs for a message besides its text, at most: principals, MIME type, a token.
const MESSAGE_BYTES: usize = 640;

#[derive(CandidType, Deserialize)]
pub struct Message {
    pub sender: Principal,
    /// Milliseconds since 1970.
    pub sent_ms: u64,
    /// Empty once deleted.
    pub text: String,
    /// Stays when the message is deleted: until the chat goes, a token to delete it can be had again.
    pub blob: Option<BlobReference>,
    /// The blob's file name; none once deleted.
    pub name: Option<String>,
    /// A tiny picture of the blob; none once deleted.
    pub preview: Option<ByteBuf>,
    pub deleted: bool,
}

impl Message {
    /// Bytes of text, file name and preview.
    fn text_bytes(&self) -> usize {
        let name = self.name.as_ref().map_or(0, String::len);
        let preview = self.preview.as_ref().map_or(0, |preview| preview.len());
        self.text.len() + name + preview
    }

    /// Bytes of an answer, about.
    fn answer_bytes(&self) -> usize {
        MESSAGE_BYTES + self.text_bytes()
    }

    /// Bytes that count for its sender.
    pub fn counted_bytes(&self) -> u64 {
        MESSAGE_ROW_BYTES + self.text_bytes() as u64
    }
}

/// Rows of a chat that were removed.
#[derive(Default)]
pub struct Removed {
    pub rows: usize,
    /// Bytes that no longer count for these senders.
    pub bytes: BTreeMap<Principal, u64>,
}

/// A reference as a bucket counts it: accessor and owner, here as (chat, sender), and the blob there.
type Shown = ((u64, Principal), (Principal, [u8; 32]));

pub struct Messages {
    /// Chat, message.
    rows: StableBTreeMap<(u64, u64), Row<Message>, Memory>,
    /// How many messages show the reference; never 0.
    shown: StableBTreeMap<Shown, u64, Memory>,
}

/// What a message may hold.
pub fn check(args: &SendMessageArgs) -> Result<(), ChatError> {
    let SendMessageArgs {
        text,
        blob,
        name,
        preview,
        ..
    } = args;
    if text.len() > MESSAGE_TEXT_BYTES_MAX {
        return Err(ChatError::TextTooLong {
            max: MESSAGE_TEXT_BYTES_MAX as u32,
        });
    }
    if text.is_empty() && blob.is_none() {
        return Err(ChatError::EmptyMessage);
    }
    let names_nothing =
        |name: &String| blob.is_none() || !(1..=NAME_BYTES_MAX).contains(&name.len());
    if name.as_ref().is_some_and(names_nothing) {
        return Err(ChatError::InvalidName {
            max: NAME_BYTES_MAX as u32,
        });
    }
    let is_no_preview = |preview: &ByteBuf| blob.is_none() || preview.len() > PREVIEW_BYTES_MAX;
    if preview.as_ref().is_some_and(is_no_preview) {
        return Err(ChatError::InvalidPreview {
            max: PREVIEW_BYTES_MAX as u32,
        });
    }
    blob.as_ref().map_or(Ok(()), check_reference)
}

/// The form of a reference; whether its bucket is one is another question.
pub fn check_reference(blob: &BlobReference) -> Result<(), ChatError> {
    if mime_type(&blob.mime_type).is_some() && blob.size <= BLOB_BYTES_MAX {
        Ok(())
    } else {
        Err(ChatError::InvalidReference)
    }
}

/// A reference as it is kept: its type in lower case, without parameters. Size and type are what the sender says; the
/// bucket serves its own.
pub fn plain(blob: BlobReference) -> BlobReference {
    let mime_type = mime_type(&blob.mime_type).map(|plain| plain.into_owned());
    BlobReference {
        mime_type: mime_type.unwrap_or_default(),
        ..blob
    }
}

/// A file name as it is kept: as in the bucket.
pub fn plain_name(name: Option<String>) -> Option<String> {
    name.as_deref()
        .and_then(file_name)
        .map(|name| name.into_owned())
}

impl Messages {
    pub fn count(&self) -> u64 {
        self.rows.len()
    }

    pub fn open(manager: &Manager) -> Self {
        Self {
            rows: StableBTreeMap::init(manager.get(memory::MESSAGES)),
            shown: StableBTreeMap::init(manager.get(memory::BLOBS_SHOWN)),
        }
    }

    pub fn get(&self, chat_id: u64, message_id: u64) -> Result<Message, ChatError> {
        let row = self.rows.get(&(chat_id, message_id));
        Ok(row.ok_or(ChatError::MessageNotFound)?.0)
    }

    pub fn add(&mut self, chat_id: u64, message_id: u64, message: Message) {
        if let Some(key) = shown_key(chat_id, &message) {
            let count = self.shown.get(&key).unwrap_or(0);
            self.shown.insert(key, count + 1);
        }
        self.rows.insert((chat_id, message_id), Row(message));
    }

    /// Leaves a mark in the message's place. The bytes that no longer count for its sender; none where it was deleted
    /// before.
    pub fn delete(&mut self, chat_id: u64, message_id: u64, mut message: Message) -> Option<u64> {
        if message.deleted {
            return None;
        }
        let before = message.counted_bytes();
        if let Some(key) = shown_key(chat_id, &message) {
            match self.shown.get(&key) {
                Some(count) if count > 1 => self.shown.insert(key, count - 1),
                _ => self.shown.remove(&key),
            };
        }
        message.text.clear();
        message.name = None;
        message.preview = None;
        message.deleted = true;
        let freed = before - message.counted_bytes();
        self.rows.insert((chat_id, message_id), Row(message));
        Some(freed)
    }

    /// Whether a message of the chat shows the reference that `message` has, or had.
    pub fn shows(&self, chat_id: u64, message: &Message) -> bool {
        shown_key(chat_id, message).is_some_and(|key| self.shown.contains_key(&key))
    }

    /// The messages after `after`, or the last ones before `before`: at most as many as asked for, and no
    /// more than an answer can carry. The oldest comes first.
    pub fn page(&self, args: &MessagesArgs) -> Vec<(u64, Message)> {
        let MessagesArgs {
            chat_id,
            after,
            before,
            limit,
        } = *args;
        let limit = limit.clamp(1, PAGE_ROWS_MAX) as usize;
        let first = after.map_or(Some(0), |after| after.checked_add(1));
        let end = before.unwrap_or(u64::MAX);
        let Some(first) = first.filter(|first| *first < end) else {
            return Vec::new();
        };
        let rows = self.rows.range((chat_id, first)..(chat_id, end));
        let rows = rows.map(|entry| (entry.key().1, entry.value().0));
        match before {
            None => fitting(rows.take(limit)),
            Some(_) => {
                let mut page = fitting(rows.rev().take(limit));
                page.reverse();
                page
            }
        }
    }

    /// Removes at most `max` rows of a chat.
    pub fn remove(&mut self, chat_id: u64, max: usize) -> Removed {
        let mut removed = Removed::default();
        let all = (chat_id, 0)..=(chat_id, u64::MAX);
        let rows: Vec<_> = self.rows.keys_range(all).take(max).collect();
        for key in &rows {
            if let Some(Row(message)) = self.rows.remove(key) {
                *removed.bytes.entry(message.sender).or_default() += message.counted_bytes();
            }
        }
        let first = Principal::management_canister();
        let all = ((chat_id, first), (first, [0; 32]))
            ..=((chat_id, LAST_PRINCIPAL), (LAST_PRINCIPAL, [u8::MAX; 32]));
        let left = max - rows.len();
        let shown: Vec<_> = self.shown.keys_range(all).take(left).collect();
        shown.iter().for_each(|key| {
            self.shown.remove(key);
        });
        removed.rows = rows.len() + shown.len();
        removed
    }
}

/// The first of `rows`, and as many more as an answer can carry.
fn fitting(rows: impl Iterator<Item = (u64, Message)>) -> Vec<(u64, Message)> {
    let mut bytes = 0;
    rows.take_while(|(_, message)| {
        let is_first = bytes == 0;
        bytes += message.answer_bytes();
        is_first || bytes <= MESSAGES_PAGE_BYTES_MAX
    })
    .collect()
}

fn shown_key(chat_id: u64, message: &Message) -> Option<Shown> {
    let blob = message.blob.as_ref()?;
    Some(((chat_id, message.sender), (blob.bucket, blob.blob_id.0)))
}

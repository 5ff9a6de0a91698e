//! The calls of the chat: a small but real app on top of the storage.

use candid::{CandidType, Principal};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{BlobId, BlobReference};

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct InitArgs {
    pub index: Principal,
    /// Origins besides the canister's own at which the page is served: `https://chat.example.org`. Internet Identity
    /// knows the same user at all of them. At most [`crate::limits::PAGE_ORIGINS_MAX`]; none keeps those of before.
    pub origins: Option<Vec<String>>,
}

/// Errors of every call of the chat.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum ChatError {
    /// Anonymous, or not allowed to do this.
    NotAuthorized,
    /// Call `register` first.
    NotRegistered,
    ChatNotFound,
    MessageNotFound,
    ChatDeleted,
    NotMember,
    /// In bytes.
    TextTooLong {
        max: u32,
    },
    /// A message needs a text or a blob.
    EmptyMessage,
    /// Its MIME type is not `type/subtype`, or its size is beyond what can be stored.
    InvalidReference,
    /// The reference names a canister that is no bucket of the index.
    UnknownBucket,
    /// The index could not be asked about the bucket; nothing has changed.
    Retry {
        ms: u64,
    },
    /// The caller is a member of so many chats already.
    TooManyChats {
        max: u32,
    },
    UserNotFound,
    /// A file name has 1 to `max` bytes in UTF-8, and belongs to a blob. It is kept as the bucket keeps it: see
    /// [`crate::file_name`].
    InvalidName {
        max: u32,
    },
    /// A preview has at most `max` bytes, and belongs to a blob.
    InvalidPreview {
        max: u32,
    },
    /// It opens no chat: it was replaced, or its chat was deleted. A member can give a valid one.
    InvalidInvite,
    /// The caller's messages take `max` bytes of the chat already. Deleting some makes room.
    TooManyMessages {
        max: u64,
    },
    /// It was done `max` times of late; in `ms` it can be done again.
    TooOften {
        max: u32,
        ms: u64,
    },
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct RegisterOk {
    pub premium: bool,
    pub byte_limit: u64,
    /// The index has confirmed the user with this limit. Until then the chat keeps trying by itself.
    pub confirmed: bool,
    /// The index's admins have set the limit, or have deleted the user (then it is 0): `premium` does not change it.
    pub set_by_admin: bool,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct CreateChatArgs {
    pub name: String,
}

/// A chat, as its members see it.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct ChatInfo {
    pub chat_id: u64,
    pub name: String,
    pub owner: Principal,
    /// What its blobs are made visible to: the `accessor_id` of uploads for this chat.
    pub accessor_id: Principal,
    pub members: u64,
    pub messages: u64,
    /// Whoever has it may join: 128 random bits in hexadecimal digits. The owner can replace it.
    pub invite: String,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct JoinArgs {
    pub chat_id: u64,
    /// As in [`ChatInfo::invite`].
    pub invite: String,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct MembersArgs {
    pub chat_id: u64,
    /// Members that come after this one; none means from the first.
    pub after: Option<Principal>,
    /// From 1 to 1,000.
    pub limit: u32,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub user: Principal,
    /// What the user is to be called.
    pub name: Option<String>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct SendMessageArgs {
    pub chat_id: u64,
    pub text: String,
    pub blob: Option<BlobReference>,
    /// The blob's file name.
    pub name: Option<String>,
    /// A tiny picture that is seen until the blob's bytes have come: a file inside the record.
    pub preview: Option<ByteBuf>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct SendMessageOk {
    pub message_id: u64,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct MessagesArgs {
    pub chat_id: u64,
    /// Messages with a higher id; none means from the first.
    pub after: Option<u64>,
    /// Messages with a lower id, and of these the last ones; none means from the first on. The highest
    /// number there is asks for the newest page. Pages begin with their oldest message all the same.
    pub before: Option<u64>,
    /// From 1 to 1,000. A page ends sooner where its texts are long, but never before its first message:
    /// an empty page is the end.
    pub limit: u32,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub message_id: u64,
    pub sender: Principal,
    /// Milliseconds since 1970.
    pub sent_ms: u64,
    pub text: String,
    pub blob: Option<BlobAccess>,
    pub name: Option<String>,
    pub preview: Option<ByteBuf>,
    pub deleted: bool,
}

/// A blob and what opens it.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct BlobAccess {
    pub reference: BlobReference,
    pub accessor_id: Principal,
    /// For the caller; the URL is `https://{bucket}.{gateway}/{accessor_id}/{blob_id}?token={token}`.
    /// None while the chat fetches the bucket's key: ask again.
    pub token: Option<String>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct DeleteMessageArgs {
    pub chat_id: u64,
    pub message_id: u64,
}

/// What is left to do after a message was deleted. Repeatable: a deleted message answers again, with a
/// fresh token.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum DeleteMessageOk {
    /// It had no blob, or another message of the chat by the same sender still shows it.
    Nothing,
    /// Call `delete_blob` on `bucket`.
    Delete {
        blob_id: BlobId,
        bucket: Principal,
        accessor_id: Principal,
        owner: Principal,
        token: String,
    },
    /// The bucket's key is not here yet; ask again.
    Retry { ms: u64 },
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct ChatArgs {
    pub chat_id: u64,
}

/// What is left to do after a chat was deleted. Repeatable, as for messages.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum DeleteChatOk {
    /// Call `delete_chat` on `index`.
    Delete {
        chat_id: Principal,
        index: Principal,
        token: String,
    },
    /// The index's key is not here yet; ask again.
    Retry { ms: u64 },
}

/// A user's avatar is visible to every user of the app: its accessor is the chat canister itself.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct SetAvatarArgs {
    pub blob: Option<BlobReference>,
}

#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub user: Principal,
    /// What the user is to be called.
    pub name: Option<String>,
    pub premium: bool,
    pub avatar: Option<BlobAccess>,
}

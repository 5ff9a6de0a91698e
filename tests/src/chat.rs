//! Calls to the chat.

use candid::Principal;
use openstorage_types::{BlobReference, chat::*};

use crate::Setup;

pub fn register(setup: &Setup, caller: Principal) -> Result<RegisterOk, ChatError> {
    setup.call(setup.chat, caller, "register", ())
}

pub fn me(setup: &Setup, caller: Principal) -> Result<RegisterOk, ChatError> {
    setup.ask(setup.chat, caller, "me", ())
}

pub fn set_premium(
    setup: &Setup,
    caller: Principal,
    premium: bool,
) -> Result<RegisterOk, ChatError> {
    setup.call(setup.chat, caller, "set_premium", (premium,))
}

pub fn create_chat(
    setup: &Setup,
    caller: Principal,
    args: CreateChatArgs,
) -> Result<ChatInfo, ChatError> {
    setup.call(setup.chat, caller, "create_chat", (args,))
}

/// Says something in a room.
pub fn say(setup: &Setup, caller: Principal, chat_id: u64, text: &str) -> Result<u64, ChatError> {
    let args = SendMessageArgs {
        chat_id,
        text: text.into(),
        blob: None,
        name: None,
        preview: None,
    };
    let sent: Result<SendMessageOk, ChatError> =
        setup.call(setup.chat, caller, "send_message", (args,));
    Ok(sent?.message_id)
}

/// The caller's rooms.
pub fn chats(setup: &Setup, caller: Principal) -> Vec<ChatInfo> {
    setup.ask(setup.chat, caller, "chats", ())
}

pub fn members(setup: &Setup, caller: Principal, chat_id: u64) -> Result<Vec<Member>, ChatError> {
    let args = MembersArgs {
        chat_id,
        after: None,
        limit: 1_000,
    };
    setup.ask(setup.chat, caller, "members", (args,))
}

pub fn replace_invite(
    setup: &Setup,
    caller: Principal,
    chat_id: u64,
) -> Result<ChatInfo, ChatError> {
    setup.call(
        setup.chat,
        caller,
        "replace_invite",
        (ChatArgs { chat_id },),
    )
}

/// By the invite of a room.
pub fn join_chat(setup: &Setup, caller: Principal, room: &ChatInfo) -> Result<ChatInfo, ChatError> {
    let args = JoinArgs {
        chat_id: room.chat_id,
        invite: room.invite.clone(),
    };
    setup.call(setup.chat, caller, "join_chat", (args,))
}

/// Posts a blob without a text.
pub fn post(setup: &Setup, caller: Principal, chat_id: u64, blob: &BlobReference) -> u64 {
    let args = SendMessageArgs {
        chat_id,
        text: String::new(),
        blob: Some(blob.clone()),
        name: None,
        preview: None,
    };
    let sent: Result<SendMessageOk, ChatError> =
        setup.call(setup.chat, caller, "send_message", (args,));
    sent.expect("the message is taken").message_id
}

pub fn messages(setup: &Setup, caller: Principal, chat_id: u64) -> Result<Vec<Message>, ChatError> {
    setup.ask(
        setup.chat,
        caller,
        "messages",
        (MessagesArgs {
            chat_id,
            after: None,
            before: None,
            limit: 100,
        },),
    )
}

/// What opens the blob of a message, once the chat has the bucket's key.
pub fn access(
    setup: &Setup,
    caller: Principal,
    chat_id: u64,
    message_id: u64,
) -> (BlobAccess, String) {
    setup.settle("the chat issues a token", |setup| {
        let messages = messages(setup, caller, chat_id).unwrap();
        let access = messages
            .into_iter()
            .find(|message| message.message_id == message_id)?
            .blob?;
        let token = access.token.clone()?;
        Some((access, token))
    })
}

pub fn delete_message(
    setup: &Setup,
    caller: Principal,
    chat_id: u64,
    message_id: u64,
) -> Result<DeleteMessageOk, ChatError> {
    setup.call(
        setup.chat,
        caller,
        "delete_message",
        (DeleteMessageArgs {
            chat_id,
            message_id,
        },),
    )
}

pub fn delete_chat(
    setup: &Setup,
    caller: Principal,
    chat_id: u64,
) -> Result<DeleteChatOk, ChatError> {
    setup.call(setup.chat, caller, "delete_chat", (ChatArgs { chat_id },))
}

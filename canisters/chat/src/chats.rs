//! Chats and who is in them.

use candid::{CandidType, Principal};
use ic_stable_structures::StableBTreeMap;
use openstorage_types::{
    chat::ChatError,
    limits::{CHAT_NAME_BYTES_MAX, CHATS_PER_USER_MAX, PAGE_ROWS_MAX},
};
use serde::Deserialize;
use serde_bytes::ByteArray;
use std::ops::Bound::{Excluded, Unbounded};

use crate::memory::{self, Manager, Memory};
use openstorage_canister::Row;

#[derive(CandidType, Deserialize)]
pub struct Chat {
    pub name: String,
    pub owner: Principal,
    pub members: u64,
    /// Without the deleted ones.
    pub messages: u64,
    /// No message has this id or a higher one.
    pub next_message_id: u64,
    /// Stays for good: whoever asks again gets the same answer.
    pub deleted: bool,
    /// What its accessor id is made of, besides the canister's own.
    pub derived_name: ByteArray<DERIVED_NAME_BYTES>,
    pub invite: ByteArray<INVITE_BYTES>,
}

/// Random bytes of a derived name. Of a million chats two have the same with a chance of one in forty millions; each byte
/// more is one more in every token.
const DERIVED_NAME_BYTES: usize = 8;

/// Random bytes of an invite: nobody guesses it.
const INVITE_BYTES: usize = 16;

/// Random bytes for a new chat, drawn by the management canister for this chat alone. Nothing that is kept here would
/// do: a snapshot that is restored, or an installation anew, takes it back, and a later chat's accessor would be an
/// earlier one's, with all that its members may still read.
pub struct Random(pub [u8; 32]);

impl Random {
    fn derived_name(&self) -> ByteArray<DERIVED_NAME_BYTES> {
        ByteArray::new(self.0.as_chunks().0[0])
    }

    fn invite(&self) -> ByteArray<INVITE_BYTES> {
        ByteArray::new(self.0.as_chunks().0[1])
    }
}

impl Chat {
    /// In hexadecimal digits, as members hand it on.
    pub fn invite_text(&self) -> String {
        let digits = self.invite.iter().map(|byte| format!("{byte:02x}"));
        digits.collect()
    }
}

/// An id that no row has had before: the canister's version, which the system raises with every message and takes back
/// neither with a snapshot nor with an installation anew.
pub fn fresh_id(version: u64, next: u64) -> u64 {
    version.max(next)
}

pub struct Chats {
    rows: StableBTreeMap<u64, Row<Chat>, Memory>,
    /// Chat, member.
    members: StableBTreeMap<(u64, Principal), (), Memory>,
    /// The same the other way round.
    memberships: StableBTreeMap<(Principal, u64), (), Memory>,
    /// Deleted chats whose members and messages are still here.
    in_removal: StableBTreeMap<u64, (), Memory>,
    /// Those of which every message about the removal has trapped.
    set_aside: StableBTreeMap<u64, (), Memory>,
}

impl Chats {
    /// Deleted ones included: their rows stay.
    pub fn count(&self) -> u64 {
        self.rows.len()
    }

    pub fn open(manager: &Manager) -> Self {
        Self {
            rows: StableBTreeMap::init(manager.get(memory::CHATS)),
            members: StableBTreeMap::init(manager.get(memory::MEMBERS)),
            memberships: StableBTreeMap::init(manager.get(memory::MEMBERSHIPS)),
            in_removal: StableBTreeMap::init(manager.get(memory::CHATS_IN_REMOVAL)),
            set_aside: StableBTreeMap::init(manager.get(memory::CHATS_SET_ASIDE)),
        }
    }

    /// Also a deleted one.
    pub fn any(&self, chat_id: u64) -> Result<Chat, ChatError> {
        let row = self.rows.get(&chat_id).ok_or(ChatError::ChatNotFound)?;
        Ok(row.0)
    }

    pub fn get(&self, chat_id: u64) -> Result<Chat, ChatError> {
        let chat = self.any(chat_id)?;
        if chat.deleted {
            return Err(ChatError::ChatDeleted);
        }
        Ok(chat)
    }

    /// The chat, for one of its members.
    pub fn get_for(&self, chat_id: u64, user: Principal) -> Result<Chat, ChatError> {
        let chat = self.get(chat_id)?;
        if !self.members.contains_key(&(chat_id, user)) {
            return Err(ChatError::NotMember);
        }
        Ok(chat)
    }

    pub fn put(&mut self, chat_id: u64, chat: Chat) {
        self.rows.insert(chat_id, Row(chat));
    }

    /// The ids of the chats that `user` is in, lowest first.
    pub fn of(&self, user: Principal) -> impl Iterator<Item = u64> + '_ {
        self.memberships
            .keys_range((user, 0)..=(user, u64::MAX))
            .map(|(_, chat_id)| chat_id)
    }

    /// What can be checked before random bytes are drawn.
    pub fn check_new(&self, owner: Principal, name: &str) -> Result<(), ChatError> {
        if name.len() > CHAT_NAME_BYTES_MAX {
            return Err(ChatError::TextTooLong {
                max: CHAT_NAME_BYTES_MAX as u32,
            });
        }
        self.check_memberships(owner)
    }

    /// `version` is the canister's.
    pub fn create(
        &mut self,
        owner: Principal,
        name: String,
        random: &Random,
        version: u64,
    ) -> Result<(u64, Chat), ChatError> {
        self.check_new(owner, &name)?;
        let next = self.rows.last_key_value().map_or(1, |(last, _)| last + 1);
        let chat_id = fresh_id(version, next);
        let chat = Chat {
            name,
            owner,
            members: 0,
            messages: 0,
            next_message_id: 1,
            deleted: false,
            derived_name: random.derived_name(),
            invite: random.invite(),
        };
        let chat = self.add_member(chat_id, chat, owner)?;
        Ok((chat_id, chat))
    }

    /// Repeatable. Strangers learn nothing of chats: neither which there are nor which there were.
    pub fn join(&mut self, chat_id: u64, invite: &str, user: Principal) -> Result<Chat, ChatError> {
        let chat = self.get(chat_id).map_err(|_| ChatError::InvalidInvite)?;
        if self.members.contains_key(&(chat_id, user)) {
            return Ok(chat);
        }
        if chat.invite_text() != invite {
            return Err(ChatError::InvalidInvite);
        }
        self.add_member(chat_id, chat, user)
    }

    /// The invite of before opens the chat no more. Only the owner may do this.
    pub fn replace_invite(
        &mut self,
        chat_id: u64,
        user: Principal,
        random: &Random,
    ) -> Result<Chat, ChatError> {
        let mut chat = self.owned(chat_id, user)?;
        chat.invite = random.invite();
        self.put(chat_id, chat);
        self.get(chat_id)
    }

    /// The chat, for its owner.
    pub fn owned(&self, chat_id: u64, user: Principal) -> Result<Chat, ChatError> {
        let chat = self.get_for(chat_id, user)?;
        if chat.owner == user {
            Ok(chat)
        } else {
            Err(ChatError::NotAuthorized)
        }
    }

    /// Members of a chat in the order of their principals.
    pub fn members(&self, chat_id: u64, after: Option<Principal>, limit: u32) -> Vec<Principal> {
        let first = match after {
            Some(after) => Excluded((chat_id, after)),
            None => Excluded((chat_id, Principal::management_canister())),
        };
        let rows = self.members.keys_range((first, Unbounded));
        rows.take_while(|(chat, _)| *chat == chat_id)
            .take(limit.clamp(1, PAGE_ROWS_MAX) as usize)
            .map(|(_, user)| user)
            .collect()
    }

    fn check_memberships(&self, user: Principal) -> Result<(), ChatError> {
        let max = CHATS_PER_USER_MAX;
        if self.of(user).take(max as usize).count() == max as usize {
            return Err(ChatError::TooManyChats { max });
        }
        Ok(())
    }

    fn add_member(
        &mut self,
        chat_id: u64,
        mut chat: Chat,
        user: Principal,
    ) -> Result<Chat, ChatError> {
        self.check_memberships(user)?;
        self.members.insert((chat_id, user), ());
        self.memberships.insert((user, chat_id), ());
        chat.members += 1;
        self.put(chat_id, chat);
        self.get(chat_id)
    }

    /// The owner stays until it deletes the chat.
    pub fn leave(&mut self, chat_id: u64, user: Principal) -> Result<(), ChatError> {
        let mut chat = self.get_for(chat_id, user)?;
        if chat.owner == user {
            return Err(ChatError::NotAuthorized);
        }
        self.members.remove(&(chat_id, user));
        self.memberships.remove(&(user, chat_id));
        chat.members -= 1;
        self.put(chat_id, chat);
        Ok(())
    }

    /// Only the owner may. Repeatable; what belongs to the chat goes with [`Chats::remove_members`].
    pub fn delete(&mut self, chat_id: u64, user: Principal) -> Result<Chat, ChatError> {
        let mut chat = self.any(chat_id)?;
        if chat.owner != user {
            return Err(ChatError::NotAuthorized);
        }
        if !chat.deleted {
            chat.deleted = true;
            chat.name.clear();
            self.put(chat_id, chat);
            self.in_removal.insert(chat_id, ());
        }
        self.any(chat_id)
    }

    /// A deleted chat that still has members or messages.
    pub fn next_removal(&self) -> Option<u64> {
        self.in_removal.keys().next()
    }

    /// Removes at most `max` members; tells how many.
    pub fn remove_members(&mut self, chat_id: u64, max: usize) -> usize {
        let all = (chat_id, Principal::management_canister())..=(chat_id, LAST_PRINCIPAL);
        let keys: Vec<_> = self.members.keys_range(all).take(max).collect();
        for (_, user) in &keys {
            self.members.remove(&(chat_id, *user));
            self.memberships.remove(&(*user, chat_id));
        }
        keys.len()
    }

    pub fn removed(&mut self, chat_id: u64) {
        self.in_removal.remove(&chat_id);
        self.set_aside.remove(&chat_id);
    }

    /// Every message about the chat's removal has trapped: it is out of the others' way until an upgrade.
    pub fn set_aside(&mut self, chat_id: u64) {
        self.in_removal.remove(&chat_id);
        self.set_aside.insert(chat_id, ());
    }

    /// Chats that are set aside.
    pub fn count_set_aside(&self) -> u64 {
        self.set_aside.len()
    }

    /// Other code may be able to remove what the code before could not.
    pub fn bring_back(&mut self) {
        let set_aside: Vec<_> = self.set_aside.keys().collect();
        for chat_id in set_aside {
            self.in_removal.insert(chat_id, ());
        }
    }
}

/// No principal comes after this one.
pub const LAST_PRINCIPAL: Principal = Principal::from_slice(&[u8::MAX; 29]);

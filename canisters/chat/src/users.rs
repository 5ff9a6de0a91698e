//! The app's users, and which of them the index has yet to hear of.

use candid::{CandidType, Principal};
use ic_stable_structures::{StableBTreeMap, StableCell};
use openstorage_types::{
    BlobReference,
    chat::{ChatError, RegisterOk},
    index::{UserArgs, UserError},
    limits::{
        CHAT_PREMIUM_USER_BYTES, CHAT_USER_BYTES, CHATS_PER_DAY_MAX, HOUR_MS,
        MESSAGES_PER_USER_BYTES_MAX, REGISTRATIONS_PER_MINUTE_MAX, USER_NAME_BYTES_MAX,
        USER_REFRESH_MS,
    },
};
use serde::Deserialize;

use crate::{
    memory::{self, Manager, Memory},
    windows::Window,
};
use openstorage_canister::Row;

/// Users that one call to the index registers.
pub const USERS_PER_CALL_MAX: usize = 100;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * HOUR_MS;

#[derive(CandidType, Deserialize)]
pub struct User {
    pub premium: bool,
    /// What the app gives.
    pub byte_limit: u64,
    /// What the index's admins have set in its place.
    pub admins_limit: Option<u64>,
    /// The index has acknowledged `byte_limit`, or has told the admins'.
    pub confirmed: bool,
    /// When the index has done so last, in milliseconds since 1970.
    pub confirmed_ms: u64,
    /// What the user's messages take.
    pub message_bytes: u64,
    /// Chats that the user has made today.
    pub chats_made: Window,
    pub avatar: Option<BlobReference>,
    /// What the user is to be called.
    pub name: Option<String>,
}

impl User {
    fn answer(&self) -> RegisterOk {
        RegisterOk {
            premium: self.premium,
            byte_limit: self.admins_limit.unwrap_or(self.byte_limit),
            confirmed: self.confirmed,
            set_by_admin: self.admins_limit.is_some(),
        }
    }
}

pub struct Users {
    rows: StableBTreeMap<Principal, Row<User>, Memory>,
    /// The users of whom the index is to be told: all that are not confirmed, and some that were long ago.
    pending: StableBTreeMap<Principal, (), Memory>,
    /// Names that came new in the last minute, those that were refused too.
    registrations: StableCell<Row<Window>, Memory>,
}

impl Users {
    pub fn open(manager: &Manager) -> Self {
        Self {
            rows: StableBTreeMap::init(manager.get(memory::USERS)),
            pending: StableBTreeMap::init(manager.get(memory::USERS_PENDING)),
            registrations: StableCell::init(
                manager.get(memory::REGISTRATIONS),
                Row(Window::default()),
            ),
        }
    }

    pub fn count(&self) -> u64 {
        self.rows.len()
    }

    /// Those of whom the index is to be told.
    pub fn count_pending(&self) -> u64 {
        self.pending.len()
    }

    pub fn get(&self, user: &Principal) -> Option<User> {
        self.rows.get(user).map(|row| row.0)
    }

    /// Whether `user` has registered.
    pub fn check(&self, user: &Principal) -> Result<(), ChatError> {
        if self.rows.contains_key(user) {
            Ok(())
        } else {
            Err(ChatError::NotRegistered)
        }
    }

    pub fn me(&self, user: &Principal) -> Result<RegisterOk, ChatError> {
        let row = self.get(user).ok_or(ChatError::NotRegistered)?;
        Ok(row.answer())
    }

    /// Whether a message of somebody unknown is worth being executed: twice as many as there may be register or hear
    /// when to try again, the others are turned away.
    pub fn may_register(&self, now_ms: u64) -> bool {
        let Row(window) = self.registrations.get();
        let max = 2 * REGISTRATIONS_PER_MINUTE_MAX;
        window.with_one_more(now_ms, MINUTE_MS, max).is_ok()
    }

    /// Repeatable: a user who is there already stays as it is, and the index is told of it again now and then.
    pub fn register(&mut self, user: Principal, now_ms: u64) -> Result<RegisterOk, ChatError> {
        if let Some(row) = self.get(&user) {
            if now_ms >= row.confirmed_ms + USER_REFRESH_MS {
                self.pending.insert(user, ());
            }
            return Ok(row.answer());
        }
        let Row(window) = *self.registrations.get();
        let max = REGISTRATIONS_PER_MINUTE_MAX;
        let taken = window.with_one_more(now_ms, MINUTE_MS, max);
        let counted = match taken {
            Ok(window) => Ok(window),
            Err(_) => window.with_one_more(now_ms, MINUTE_MS, 2 * max),
        };
        if let Ok(window) = counted {
            self.registrations.set(Row(window));
        }
        taken?;
        let row = User {
            premium: false,
            byte_limit: CHAT_USER_BYTES,
            admins_limit: None,
            confirmed: false,
            confirmed_ms: 0,
            message_bytes: 0,
            chats_made: Window::default(),
            avatar: None,
            name: None,
        };
        let answer = row.answer();
        self.rows.insert(user, Row(row));
        self.pending.insert(user, ());
        Ok(answer)
    }

    /// Whether `user` may make another chat.
    pub fn check_new_chat(&self, user: &Principal, now_ms: u64) -> Result<Window, ChatError> {
        let row = self.get(user).ok_or(ChatError::NotRegistered)?;
        row.chats_made
            .with_one_more(now_ms, DAY_MS, CHATS_PER_DAY_MAX)
    }

    pub fn chat_made(&mut self, user: Principal, chats_made: Window) {
        if let Some(row) = self.get(&user) {
            self.rows.insert(user, Row(User { chats_made, ..row }));
        }
    }

    /// A message of so many bytes is there.
    pub fn message_sent(&mut self, user: Principal, bytes: u64) -> Result<(), ChatError> {
        let mut row = self.get(&user).ok_or(ChatError::NotRegistered)?;
        let max = MESSAGES_PER_USER_BYTES_MAX;
        if row.message_bytes + bytes > max {
            return Err(ChatError::TooManyMessages { max });
        }
        row.message_bytes += bytes;
        self.rows.insert(user, Row(row));
        Ok(())
    }

    /// So many bytes of a user's messages are gone.
    pub fn messages_gone(&mut self, user: Principal, bytes: u64) {
        if let Some(mut row) = self.get(&user) {
            row.message_bytes = row.message_bytes.saturating_sub(bytes);
            self.rows.insert(user, Row(row));
        }
    }

    pub fn set_premium(&mut self, user: Principal, premium: bool) -> Result<RegisterOk, ChatError> {
        let mut row = self.get(&user).ok_or(ChatError::NotRegistered)?;
        // Admins may have let go of the limit since.
        if row.premium != premium || row.admins_limit.is_some() {
            row.premium = premium;
            row.byte_limit = if premium {
                CHAT_PREMIUM_USER_BYTES
            } else {
                CHAT_USER_BYTES
            };
            row.confirmed = false;
            self.pending.insert(user, ());
        }
        let answer = row.answer();
        self.rows.insert(user, Row(row));
        Ok(answer)
    }

    pub fn set_avatar(
        &mut self,
        user: Principal,
        avatar: Option<BlobReference>,
    ) -> Result<(), ChatError> {
        let mut row = self.get(&user).ok_or(ChatError::NotRegistered)?;
        row.avatar = avatar;
        self.rows.insert(user, Row(row));
        Ok(())
    }

    pub fn set_name(&mut self, user: Principal, name: String) -> Result<(), ChatError> {
        let mut row = self.get(&user).ok_or(ChatError::NotRegistered)?;
        if name.len() > USER_NAME_BYTES_MAX {
            return Err(ChatError::TextTooLong {
                max: USER_NAME_BYTES_MAX as u32,
            });
        }
        row.name = Some(name).filter(|name| !name.is_empty());
        self.rows.insert(user, Row(row));
        Ok(())
    }

    pub fn any_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What the index is to be told next.
    pub fn pending(&self) -> Vec<UserArgs> {
        self.pending
            .keys()
            .take(USERS_PER_CALL_MAX)
            .filter_map(|user| {
                let byte_limit = self.get(&user)?.byte_limit;
                Some(UserArgs { user, byte_limit })
            })
            .collect()
    }

    /// Takes in the index's answers to `sent`, one each. A user whose limit has changed since it was
    /// sent stays pending. Where the index's admins have set a limit, that counts. Tells whether all were taken.
    pub fn confirm(
        &mut self,
        sent: &[UserArgs],
        answers: &[Result<(), UserError>],
        now_ms: u64,
    ) -> bool {
        let mut taken = 0;
        for (sent, answer) in sent.iter().zip(answers) {
            let admins_limit = match answer {
                Ok(()) => None,
                Err(UserError::SetByAdmin { byte_limit }) => Some(*byte_limit),
                Err(_) => continue,
            };
            taken += 1;
            let Some(mut row) = self.get(&sent.user) else {
                continue;
            };
            if row.byte_limit == sent.byte_limit {
                row.admins_limit = admins_limit;
                row.confirmed = true;
                row.confirmed_ms = now_ms;
                self.rows.insert(sent.user, Row(row));
                self.pending.remove(&sent.user);
            }
        }
        taken == sent.len()
    }
}

//! The app's users, and which of them the index has yet to hear of.

use candid::{CandidType, Principal};
use ic_stable_structures::StableBTreeMap;
use openstorage_types::{
    BlobReference,
    chat::{ChatError, RegisterOk},
    index::{UserArgs, UserError},
    limits::{CHAT_PREMIUM_USER_BYTES, CHAT_USER_BYTES, USER_NAME_BYTES_MAX},
};
use serde::Deserialize;

use crate::memory::{self, Manager, Memory};
use openstorage_canister::Row;

/// Users that one call to the index registers.
pub const USERS_PER_CALL_MAX: usize = 100;

#[derive(CandidType, Deserialize)]
pub struct User {
    pub premium: bool,
    pub byte_limit: u64,
    /// The index has acknowledged `byte_limit`.
    pub confirmed: bool,
    pub avatar: Option<BlobReference>,
    /// What the user is to be called.
    pub name: Option<String>,
}

impl User {
    fn answer(&self) -> RegisterOk {
        RegisterOk {
            premium: self.premium,
            byte_limit: self.byte_limit,
            confirmed: self.confirmed,
        }
    }
}

pub struct Users {
    rows: StableBTreeMap<Principal, Row<User>, Memory>,
    /// Exactly the users that are not confirmed.
    pending: StableBTreeMap<Principal, (), Memory>,
}

impl Users {
    pub fn open(manager: &Manager) -> Self {
        Self {
            rows: StableBTreeMap::init(manager.get(memory::USERS)),
            pending: StableBTreeMap::init(manager.get(memory::USERS_PENDING)),
        }
    }

    pub fn count(&self) -> u64 {
        self.rows.len()
    }

    /// Those that the index has not confirmed yet.
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

    /// Repeatable: a user who is there already stays as it is.
    pub fn register(&mut self, user: Principal) -> RegisterOk {
        let row = self.get(&user).unwrap_or_else(|| {
            self.pending.insert(user, ());
            User {
                premium: false,
                byte_limit: CHAT_USER_BYTES,
                confirmed: false,
                avatar: None,
                name: None,
            }
        });
        let answer = row.answer();
        self.rows.insert(user, Row(row));
        answer
    }

    pub fn set_premium(&mut self, user: Principal, premium: bool) -> Result<RegisterOk, ChatError> {
        let mut row = self.get(&user).ok_or(ChatError::NotRegistered)?;
        if row.premium != premium {
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
    /// sent stays pending. Tells whether all were taken.
    pub fn confirm(&mut self, sent: &[UserArgs], answers: &[Result<(), UserError>]) -> bool {
        for (sent, answer) in sent.iter().zip(answers) {
            let Some(mut row) = self.get(&sent.user) else {
                continue;
            };
            if answer.is_ok() && row.byte_limit == sent.byte_limit {
                row.confirmed = true;
                self.rows.insert(sent.user, Row(row));
                self.pending.remove(&sent.user);
            }
        }
        answers.len() == sent.len() && answers.iter().all(Result::is_ok)
    }
}

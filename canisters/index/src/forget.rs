//! A lost bucket is forgotten: its homes of blobs, and what its users stored and were promised there. Leases
//! are in the order of users, so all of them are walked, a slice a message.

use candid::{CandidType, Principal};
use openstorage_canister::Row;
use serde::{Deserialize, Serialize};

use crate::Index;

/// Rows that one message looks at.
pub const SLICE_ROWS: usize = 2_000;

/// How far a bucket is forgotten.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forgetting {
    /// The homes of blobs are removed.
    #[default]
    Homes,
    /// Then the accounts of users: up to and with this user's.
    Accounts { after: Principal },
}

impl Index {
    pub(crate) fn is_forgetting(&self) -> bool {
        !self.forgetting.is_empty()
    }

    /// A bucket of that id is being forgotten.
    pub(crate) fn forgets(&self, bucket: &Principal) -> bool {
        self.forgetting.contains_key(bucket)
    }

    /// Goes on forgetting: at most [`SLICE_ROWS`] rows, and those of one blob or user more.
    pub fn forget_slice(&mut self, now_ms: u64) {
        let Some((bucket, Row(place))) = self.forgetting.first_key_value() else {
            return;
        };
        let next = match place {
            Forgetting::Homes if self.blobs.forget(bucket, SLICE_ROWS) => {
                Some(Forgetting::Accounts {
                    after: Principal::management_canister(),
                })
            }
            Forgetting::Homes => Some(Forgetting::Homes),
            Forgetting::Accounts { after } => self
                .users
                .forget(bucket, after)
                .map(|after| Forgetting::Accounts { after }),
        };
        match next {
            Some(place) => {
                self.forgetting.insert(bucket, Row(place));
            }
            None => {
                self.forgetting.remove(&bucket);
                self.note(now_ms, &format!("bucket {bucket} is forgotten"));
            }
        }
    }
}

//! A lost bucket is forgotten: its homes of blobs, and what its users stored and were promised there. The
//! tables are in another order, so all rows are walked, a slice a message.

use candid::{CandidType, Principal};
use openstorage_canister::Row;
use serde::{Deserialize, Serialize};

use crate::Index;

/// Rows that one message looks at.
pub const SLICE_ROWS: usize = 2_000;

/// How far a bucket is forgotten.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forgetting {
    /// The homes of blobs are walked: up to and with this blob's.
    Homes { after: serde_bytes::ByteArray<32> },
    /// Then the accounts of users: up to and with this user's.
    Accounts { after: Principal },
    #[default]
    Start,
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
        let after_homes = |after: Option<[u8; 32]>| match after {
            Some(after) => Some(Forgetting::Homes {
                after: after.into(),
            }),
            None => Some(Forgetting::Accounts {
                after: Principal::management_canister(),
            }),
        };
        let next = match place {
            Forgetting::Start => after_homes(self.blobs.forget(bucket, None)),
            Forgetting::Homes { after } => {
                after_homes(self.blobs.forget(bucket, Some(after.into_array())))
            }
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

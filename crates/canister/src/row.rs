//! Rows in stable memory are Candid: a field that a later version adds as an option reads as none in
//! the rows that are there already.

use std::borrow::Cow;

use candid::{CandidType, decode_one, encode_one};
use ic_stable_structures::{Storable, storable::Bound};
use serde::de::DeserializeOwned;

/// A value that is stored as Candid. Reading it costs a decoding: for rows that are read one at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<T>(pub T);

impl<T: CandidType + DeserializeOwned> Storable for Row<T> {
    fn to_bytes(&self) -> Cow<'_, [u8]> {
        encode_one(&self.0).expect("a row has a Candid form").into()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<[u8]>) -> Self {
        Self(decode_one(&bytes).expect("rows are written here only"))
    }

    const BOUND: Bound = Bound::Unbounded;
}

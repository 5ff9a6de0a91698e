//! The caller's unfinished uploads, as the buckets have them.

use candid::Principal;
use futures_util::{StreamExt as _, stream};
use openstorage_types::bucket::{MyUploadsArgs, OpenUpload};

use crate::{
    Client, Error, Transport,
    retry::{PATIENCE, again},
};

/// Buckets that are asked at the same time.
const ASKED_MAX: usize = 8;
/// More than a bucket lets one user have open.
const LIMIT: u32 = 1_000;

/// The unfinished uploads of one caller.
#[derive(Debug, Default)]
pub struct Unfinished {
    /// Each with the bucket that has it.
    pub uploads: Vec<(Principal, OpenUpload)>,
    /// Buckets that did not answer: what they have is not listed.
    pub unreachable: Vec<(Principal, Error)>,
}

impl<T: Transport> Client<T> {
    /// The caller's unfinished uploads in all buckets, from whatever machine they were begun, with what each holds of
    /// the allowance. [`Client::discard`] gives one up.
    ///
    /// # Errors
    /// [`Error`], where the index does not say in which buckets the caller has something.
    pub async fn unfinished(&self) -> Result<Unfinished, Error> {
        let ask = || self.query::<Vec<Principal>>(self.index, "my_buckets", ());
        let buckets = again(PATIENCE, ask).await?;
        let asked = stream::iter(buckets).map(|bucket| async move {
            let args = MyUploadsArgs {
                after: None,
                limit: LIMIT,
            };
            let ask = || self.query::<Vec<OpenUpload>>(bucket, "my_uploads", (args.clone(),));
            (bucket, again(PATIENCE, ask).await)
        });
        let mut found = Unfinished::default();
        let mut answers = asked.buffer_unordered(ASKED_MAX);
        while let Some((bucket, answer)) = answers.next().await {
            match answer {
                Ok(uploads) => found
                    .uploads
                    .extend(uploads.into_iter().map(|upload| (bucket, upload))),
                Err(error) => found.unreachable.push((bucket, error)),
            }
        }
        found
            .uploads
            .sort_by_key(|(bucket, upload)| (*bucket, upload.blob_id));
        Ok(found)
    }
}

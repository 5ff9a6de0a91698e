//! Which bucket a blob goes to.

use openstorage_types::{
    index::{AllocatedBucketArgs, AllocatedBucketError, AllocatedBucketOk},
    limits::{BLOB_BYTES_MAX, CHUNK_BYTES, EXCLUDE_MAX},
};

use crate::{Context, Index};

impl Index {
    /// The bucket that has the blob and is well; else the one that shall have it. Registered users learn by this
    /// whether somebody stores a blob of that hash, and nothing else of it.
    pub fn allocated_bucket(
        &self,
        context: &Context,
        args: &AllocatedBucketArgs,
    ) -> Result<AllocatedBucketOk, AllocatedBucketError> {
        let user = self
            .users
            .get(&context.caller)
            .ok_or(AllocatedBucketError::NotRegistered)?;
        if args.size > BLOB_BYTES_MAX {
            return Err(AllocatedBucketError::BlobTooLarge {
                max: BLOB_BYTES_MAX,
            });
        }
        if args.size > user.pool.byte_limit {
            return Err(AllocatedBucketError::AllowanceExceeded {
                byte_limit: user.pool.byte_limit,
            });
        }
        if args.exclude.len() > EXCLUDE_MAX {
            return Err(AllocatedBucketError::InvalidExclude {
                max: EXCLUDE_MAX as u32,
            });
        }
        // One in trouble is of no use now: a further copy goes elsewhere.
        let is_well = |it: &_| self.buckets.get(it).is_some() && self.buckets.trouble(it).is_none();
        let home = self
            .blobs
            .homes(&args.blob_id)
            .find(|bucket| !args.exclude.contains(bucket) && is_well(bucket));
        let bucket = home
            .or_else(|| {
                self.buckets
                    .for_new(&args.blob_id, args.size, &args.exclude)
            })
            .ok_or(AllocatedBucketError::NoActiveBucket)?;
        Ok(AllocatedBucketOk {
            bucket,
            chunk_bytes: CHUNK_BYTES,
            stored: home.is_some(),
        })
    }
}

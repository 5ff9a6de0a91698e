//! A user's allowance in escrow: bytes that the index leases to buckets, so that uploads to many buckets
//! at once cannot exceed one limit while no bucket waits for another.
//!
//! For each user and bucket there are four [`Counters`] that only grow. The index writes `granted`, the
//! bucket the other three; each sends them as they stand and merges what it hears by maximum. So a lost,
//! repeated or overtaken message does no harm.
//!
//! | | formula |
//! | --- | --- |
//! | stored | `used = spent − freed` |
//! | promised to the bucket | `lease = granted − spent − returned` |
//! | what of the limit the bucket takes | `held = used + lease` |
//! | what may still be granted | `pool = limit − Σ held` |
//!
//! Why that keeps the promise: of a bucket's counters the index has older values than the bucket, and
//! `held = granted − freed − returned` only falls between two grants. What the index counts is never
//! less than what is, so a grant out of the pool that it sees fits into the pool that there is.
//!
//! The index keeps a [`Pool`] for each user, a bucket an [`Account`] for each of its users. Both are pure.
//!
//! ```
//! use openstorage_escrow::{Account, Pool};
//! use openstorage_types::channel::Counters;
//!
//! let mut pool = Pool::new(100_000_000);
//! let mut at_index = Counters::default();
//! let mut account = Account::default();
//!
//! let wanted = account.shortage(5_000_000);
//! pool.grant(&mut at_index, account.counters.granted, wanted, false).unwrap();
//! account.granted(at_index.granted);
//! account.reserve(5_000_000).unwrap();
//! account.release(5_000_000);
//! account.spend(5_000_000);
//!
//! pool.hear(&mut at_index, &account.counters);
//! assert_eq!((pool.used, pool.leased), (5_000_000, 0));
//! ```

mod account;
mod pool;

pub use account::{Account, Short};
pub use openstorage_types::channel::Counters;
pub use pool::Pool;

//! Every bound of the system, once. The asserts at the end prove that they fit together.
//!
//! Units stand last in a name. A limit that the Internet Computer sets says so.

/// Bytes in every chunk but a blob's last. Ingress messages carry up to 2 MiB (2,097,152 bytes), so
/// 97,152 bytes are left for the other arguments; two messages fill 95 % of a 4 MiB block, where
/// chunks of 1 MiB fill 75 %.
pub const CHUNK_BYTES: u64 = 2_000_000;

/// The largest blob: 100 GB, half of a bucket.
pub const BLOB_BYTES_MAX: u64 = 100_000_000_000;

/// A bucket takes no new blob that would bring it above this: snapshots and migration of a canister
/// stay practical. The Internet Computer allows 500 GiB.
pub const BUCKET_BYTES_MAX: u64 = 200 * GIB;

/// Accessors that one upload may name.
pub const ACCESSORS_MAX: usize = 32;

/// Bytes of a MIME type, and of one with its parameters as callers give it.
pub const MIME_TYPE_BYTES_MAX: usize = 127;
pub const MIME_TYPE_GIVEN_BYTES_MAX: usize = 1_024;

/// Bytes of a file name in UTF-8 as callers give it: 255 characters of 4 bytes, the longest name of any file system.
pub const NAME_BYTES_MAX: usize = 1_024;

/// Bytes of a file name as it is stored; a longer one is shortened, its extension kept.
pub const NAME_STORED_BYTES_MAX: usize = 255;

/// What each reference of a user takes of its allowance at least: a row in the bucket, a leaf of the certificate's tree,
/// and an event in the index.
pub const REFERENCE_BYTES_MIN: u64 = 1_024;

/// What of its allowance a user's references to one blob take: the blob's bytes once, and [`REFERENCE_BYTES_MIN`] at
/// least for each reference.
///
/// ```
/// use openstorage_types::limits::charge;
/// assert_eq!((charge(0, 1), charge(5_000, 1), charge(5_000, 3)), (1_024, 5_000, 7_048));
/// assert_eq!(charge(5_000, 0), 0);
/// ```
pub const fn charge(size: u64, references: u64) -> u64 {
    if references == 0 {
        return 0;
    }
    let first = if size < REFERENCE_BYTES_MIN {
        REFERENCE_BYTES_MIN
    } else {
        size
    };
    first + (references - 1) * REFERENCE_BYTES_MIN
}

/// References that one user may have in one bucket whatever its limit, and bytes of the limit for each one more. A
/// reference takes some of the bucket's memory besides the bytes of its blob, which may be few, or charged already.
pub const REFERENCES_MIN: u64 = 1_000;
pub const BYTES_PER_REFERENCE: u64 = 1_024;

/// References that a user with this limit may have in one bucket.
pub const fn references_max(byte_limit: u64) -> u64 {
    REFERENCES_MIN + byte_limit / BYTES_PER_REFERENCE
}

/// Uploads that one user may have open in one bucket.
pub const OPEN_UPLOADS_MAX: u32 = 256;

/// Uploads of one user of which a bucket remembers why they are gone: the newest.
pub const GONE_UPLOADS_MAX: usize = 256;

/// An open upload in which no new chunk arrived for so long is dropped.
pub const UPLOAD_IDLE_MS: u64 = 24 * HOUR_MS;

/// After its first day an open upload lives as long as so many bytes of it have arrived for each day: a chunk puts its
/// end off by 29 minutes. A line of 10 kbit/s brings more.
pub const UPLOAD_BYTES_PER_DAY: u64 = 100_000_000;

/// How long an upload of which so much has arrived may take in all.
pub const fn upload_life_ms(bytes_arrived: u64) -> u64 {
    UPLOAD_IDLE_MS + bytes_arrived.saturating_mul(24 * HOUR_MS) / UPLOAD_BYTES_PER_DAY
}

/// How long a bucket remembers why an upload is gone.
pub const GONE_KEPT_MS: u64 = 24 * HOUR_MS;

/// Chunks of a stored blob that a second uploader must show, at most. Who has half of a blob has all of them with a
/// probability of 2⁻²⁴.
pub const POSSESSION_CHUNKS_MAX: u64 = 24;

/// So often in a day chunks are drawn for one blob for somebody who then does not show all of them. After that
/// uploaders push the whole blob.
pub const POSSESSION_DRAWS_MAX: u32 = 100;

/// Wrong bytes that a caller may show for one blob in a day before it is refused.
pub const POSSESSION_FAILURES_MAX: u32 = 10;

/// Blobs for which a caller may show wrong bytes in a day.
pub const POSSESSION_FAILED_BLOBS_MAX: usize = 256;

/// A bucket leases at least so much of a user's allowance at once, where there is so much: the small
/// pictures after the first never wait for the index.
pub const LEASE_BYTES_MIN: u64 = 4 * MIB;

/// A grant that would leave less than this in a user's pool is of exactly the size asked for.
pub const POOL_LOW_BYTES: u64 = 16 * MIB;

/// Events in one `c2c_events` batch.
pub const EVENTS_PER_BATCH_MAX: usize = 1_000;

/// Bytes of the events of one `c2c_events` batch.
pub const EVENT_BATCH_BYTES_MAX: usize = 1_000_000;

/// Bytes of the rows in one page of a state, which is one event of a batch.
pub const STATE_PAGE_BYTES_MAX: usize = 900_000;

/// A receiver that is further behind than this is waited for no longer: it gets the whole state when it
/// is there again, and the log need not be kept for it.
pub const BEHIND_EVENTS_MAX: u64 = 100_000;

/// Bytes of one event in a log.
pub const EVENT_BYTES_MAX: usize = 4_096;

/// Changes of files that the index's feed keeps.
pub const FEED_CHANGES_MAX: u64 = 1_000_000;

/// Changes of one owner's files that the feed keeps: a hundred owners at least share it, and none pushes all the others'
/// changes out.
pub const FEED_OWNER_CHANGES_MAX: u64 = 10_000;

/// Issuers that one message makes a bucket believe: each costs some 2 M instructions for each pair of its up to three
/// keys and the bucket's.
pub const ISSUERS_PER_BATCH_MAX: usize = 50;

/// Revocations in force at one time, of all issuers.
pub const REVOCATIONS_MAX: u32 = 10_000;

/// A lease of which nothing was used for so long goes back to the index.
pub const LEASE_IDLE_MS: u64 = HOUR_MS;

/// Rows (users and their blobs) that a bucket counts for one page of an audit.
pub const AUDIT_ROWS_MAX: usize = 2_000;

/// Rows in one page of a list.
pub const PAGE_ROWS_MAX: u32 = 1_000;

/// Buckets that one question for a bucket may exclude.
pub const EXCLUDE_MAX: usize = 32;

/// Arguments of an unknown caller above this are turned away before they are executed.
pub const UNKNOWN_CALLER_BYTES_MAX: usize = 4 * 1024;

/// Work that a Candid decoder may do for one call, in its own units (about one a byte), besides the
/// bytes of a chunk: a small message that claims to hold 2·10⁸ values costs no more than this.
pub const DECODE_WORK_MAX: usize = 10_000_000;

/// Work that a Candid decoder may do for any call, and for each byte of its argument besides: what honest messages need
/// is a part of it, and a bomb of 4 KiB costs some 300,000 instructions.
pub const DECODE_WORK_MIN: usize = 100_000;
pub const DECODE_WORK_PER_BYTE: usize = 40;

/// Work that a Candid decoder may do on values nobody asked for.
pub const DECODE_SKIP_MAX: usize = 10_000;

/// Bytes of a chat's name, of a user's, and of a message's text.
pub const CHAT_NAME_BYTES_MAX: usize = 100;
pub const USER_NAME_BYTES_MAX: usize = 100;
pub const MESSAGE_TEXT_BYTES_MAX: usize = 10_000;

/// Bytes of a picture's preview, which travels in its message: a picture of some 24 pixels.
pub const PREVIEW_BYTES_MAX: usize = 1_024;

/// Chats that one user may be a member of: they are listed in one page.
pub const CHATS_PER_USER_MAX: u32 = PAGE_ROWS_MAX;

/// Rooms that one user may make in a day: of a deleted one a row stays, so that its deletion can be repeated.
pub const CHATS_PER_DAY_MAX: u32 = 100;

/// Bytes that the messages of one user may take in the chat. Each counts [`MESSAGE_ROW_BYTES`] besides its text, file
/// name and preview; a deleted one counts no more than that, and nothing once its chat is deleted.
pub const MESSAGES_PER_USER_BYTES_MAX: u64 = 64 * MIB;

/// What a message takes besides its texts: principals, a reference, places in two trees.
pub const MESSAGE_ROW_BYTES: u64 = 256;

/// Users that the chat registers in a minute, whoever they are: names cost nothing, and each is work for the chat, the
/// index and buckets.
pub const REGISTRATIONS_PER_MINUTE_MAX: u32 = 300;

/// The chat tells the index again of a user that comes, if it was told so long ago: the index may have been restored
/// from a snapshot since, and an admin may have changed the limit.
pub const USER_REFRESH_MS: u64 = HOUR_MS;

/// Further origins at which the chat's page is the same app to Internet Identity: as many as that accepts.
pub const PAGE_ORIGINS_MAX: usize = 10;

/// Bytes of an origin: a scheme, and a name of at most 253 bytes.
pub const ORIGIN_BYTES_MAX: usize = 264;

/// Bytes of a page of messages, about: an answer may have 2 MiB.
pub const MESSAGES_PAGE_BYTES_MAX: usize = 1_000_000;

/// The bytes a user of the chat may store, without and with premium.
pub const CHAT_USER_BYTES: u64 = GIB;
pub const CHAT_PREMIUM_USER_BYTES: u64 = 10 * GIB;

/// A read token begins at the start of such a window, so that a page that asks again gets the same
/// URL and caches hit.
pub const READ_TOKEN_WINDOW_MS: u64 = 6 * HOUR_MS;

/// A read token's life, from the start of its window: each has at least 18 h to live.
pub const READ_TOKEN_LIFE_MS: u64 = 24 * HOUR_MS;

/// The life of a token that deletes.
pub const DELETE_TOKEN_LIFE_MS: u64 = HOUR_MS;

/// How far in the future a token's issue time may lie: canisters on two subnets have two clocks.
pub const CLOCK_SKEW_MS: u64 = 60_000;

/// A canister draws a new key after so long, if nobody has it do so earlier.
pub const KEY_LIFE_MS: u64 = 30 * 24 * HOUR_MS;

/// How long tokens of a replaced key are believed: a day in which everybody hears of the new key and begins to
/// use it, and the life of the last token of the old one.
pub const KEY_OVERLAP_MS: u64 = 2 * READ_TOKEN_LIFE_MS;

/// Versions of one canister's key whose tokens are believed at one time: the newest, and replaced ones.
pub const KEY_VERSIONS_MAX: usize = 3;

/// An issuer asks so often whether the keys of buckets, and what the index knows of its own, are as before.
pub const KEY_REFRESH_MS: u64 = HOUR_MS;

/// By then every bucket that can be reached has heard of an issuer's new key.
pub const KEY_HEARD_MS: u64 = 10 * 60_000;

/// Characters of a token.
pub const TOKEN_CHARS_MAX: usize = 192;

/// Bytes of a derived accessor's name within its issuer.
pub const DERIVED_NAME_BYTES_MAX: usize = 16;

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;
pub const HOUR_MS: u64 = 3_600_000;

/// Set by the Internet Computer: bytes of an ingress message.
pub const INGRESS_BYTES_MAX: u64 = 2 * MIB;

const _: () = {
    // A chunk and its longest other arguments fit one message.
    let accessors = ACCESSORS_MAX * 30;
    let others = accessors + MIME_TYPE_GIVEN_BYTES_MAX + NAME_BYTES_MAX + 1_024;
    assert!(CHUNK_BYTES + others as u64 <= INGRESS_BYTES_MAX);
    // A chunk index fits a nat32.
    assert!(BLOB_BYTES_MAX / CHUNK_BYTES < u32::MAX as u64);
    assert!(BLOB_BYTES_MAX <= BUCKET_BYTES_MAX);
    // A batch holds at least one event, whatever its size.
    assert!(EVENT_BYTES_MAX <= EVENT_BATCH_BYTES_MAX);
    // So does a page of a state, with what Candid adds to it.
    assert!(EVENT_BYTES_MAX < STATE_PAGE_BYTES_MAX);
    assert!(STATE_PAGE_BYTES_MAX + 8 * EVENTS_PER_BATCH_MAX + 1_000 <= EVENT_BATCH_BYTES_MAX);
    assert!(LEASE_BYTES_MIN >= CHUNK_BYTES && LEASE_BYTES_MIN <= POOL_LOW_BYTES);
    // A cached page's URL outlives the window in which it stays the same.
    assert!(READ_TOKEN_LIFE_MS > READ_TOKEN_WINDOW_MS);
    // The last token of a replaced key lapses before the key does: an issuer hears late, and goes on with the
    // old key until the next window.
    let heard_ms = KEY_REFRESH_MS + KEY_HEARD_MS + READ_TOKEN_WINDOW_MS;
    assert!(heard_ms + READ_TOKEN_LIFE_MS + CLOCK_SKEW_MS <= KEY_OVERLAP_MS);
    assert!(KEY_OVERLAP_MS < KEY_LIFE_MS && KEY_VERSIONS_MAX >= 2);
    // What an upload needs to know stays until its tokens have lapsed.
    assert!(GONE_KEPT_MS >= UPLOAD_IDLE_MS);
};

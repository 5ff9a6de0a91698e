//! The deployed Wasm hashes as everybody does: its compression function is compiled for canisters only.

use integration_tests::{Setup, bucket, bytes, chunk};
use openstorage_types::{bucket::UploadState, chunk_count, limits::CHUNK_BYTES};

/// Ids are computed here with `sha2`; the bucket takes nothing whose hash it finds to be another.
#[test]
fn blobs_of_every_length_are_what_their_ids_say() {
    let setup = Setup::new();
    let (user, room) = setup.user_with_chat(1);
    // All places where a block or its padding may end; a part, several, and ends within a block.
    let lengths = (0..=130).chain([
        1_000,
        65_537,
        CHUNK_BYTES - 1,
        CHUNK_BYTES,
        CHUNK_BYTES + 1,
        2 * CHUNK_BYTES + 33,
    ]);
    for length in lengths {
        let data = bytes(length, length);
        let count = chunk_count(length);
        for index in 0..count {
            let args = chunk(&data, index, room.accessor_id);
            let pushed = bucket::push_chunk(&setup, setup.bucket, user, args);
            let pushed = pushed.unwrap_or_else(|error| panic!("{length} bytes: {error:?}"));
            assert_eq!(pushed.state == UploadState::Stored, index + 1 == count);
        }
    }
}

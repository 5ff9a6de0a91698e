//! Embeds the bucket's Wasm, so that installing an index is enough to have buckets.
//!
//! `OPENSTORAGE_BUCKET_WASM` names the gzipped Wasm. Without it an empty file is embedded: such an index
//! passes its own tests but can create no bucket, and its `status` says so.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=OPENSTORAGE_BUCKET_WASM");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let embedded = out.join("bucket.wasm.gz");
    let written = match env::var_os("OPENSTORAGE_BUCKET_WASM") {
        None => fs::write(&embedded, []),
        Some(path) => {
            println!("cargo:rerun-if-changed={}", path.display());
            fs::copy(&path, &embedded).map(|_| ())
        }
    };
    written.expect("OPENSTORAGE_BUCKET_WASM names a file that can be read");
}

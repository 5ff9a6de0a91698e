//! The blob over HTTP, as a browser gets it.

use anyhow::{Context, Result, ensure};
use candid::Principal;
use openstorage_client::{OnProgress, Phase, Progress};
use openstorage_types::{BlobId, BlobReference};
use reqwest::Url;
use sha2::{Digest, Sha256};

use crate::web;

/// Where a browser finds the blob, and the gateway verifies what the bucket answers.
pub fn url(reference: &BlobReference, accessor_id: Principal, token: &str, port: u16) -> String {
    let BlobReference {
        bucket, blob_id, ..
    } = reference;
    format!("http://{bucket}.localhost:{port}/{accessor_id}/{blob_id}?token={token}")
}

/// The SHA-256 of what a GET answers; the bytes are not kept.
///
/// # Errors
/// Anything but 200 with `size` bytes.
pub async fn over_http(url: &str, size: u64, on_progress: OnProgress<'_>) -> Result<BlobId> {
    let parsed = Url::parse(url)?;
    let client = web::client(&parsed)?;
    let failed = || format!("cannot fetch {url}");
    let mut response = client
        .get(parsed.clone())
        .send()
        .await
        .with_context(failed)?;
    ensure!(
        response.status() == reqwest::StatusCode::OK,
        "{url} answers {}",
        response.status()
    );
    let mut hash = Sha256::new();
    let mut bytes_done = 0;
    while let Some(bytes) = response.chunk().await.with_context(failed)? {
        hash.update(&bytes);
        bytes_done += bytes.len() as u64;
        on_progress(Progress {
            phase: Phase::Downloading,
            bytes_done,
            bytes_total: size,
        });
    }
    ensure!(
        bytes_done == size,
        "{url} serves {bytes_done} bytes, not {size}"
    );
    Ok(BlobId(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_bucket_accessor_blob_and_token() {
        let reference = BlobReference {
            blob_id: BlobId([0xab; 32]),
            bucket: Principal::management_canister(),
            size: 0,
            mime_type: "image/png".into(),
        };
        let url = url(&reference, Principal::anonymous(), "OS1.x", 8080);
        let id = "ab".repeat(32);
        assert_eq!(
            url,
            format!("http://aaaaa-aa.localhost:8080/2vxsx-fae/{id}?token=OS1.x")
        );
    }
}

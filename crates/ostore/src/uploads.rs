//! `ostore uploads`: what a user has begun and not finished, from whatever device, and what it holds of the allowance.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use candid::Principal;
use openstorage_client::{AgentTransport, Client};
use openstorage_types::{BlobId, bucket::OpenUpload};
use serde_json::json;

#[derive(clap::Args)]
pub struct Args {
    /// Where calls go, for instance `https://icp-api.io` or `http://localhost:4943`.
    #[arg(long)]
    network: String,
    /// The index's canister id.
    #[arg(long)]
    index: Principal,
    /// A PEM file with the user's key.
    #[arg(long)]
    identity: PathBuf,
    /// Give up the upload of this blob id; may be repeated.
    #[arg(long, value_name = "BLOB")]
    discard: Vec<BlobId>,
    /// Give up all of them.
    #[arg(long, conflicts_with = "discard")]
    discard_all: bool,
    /// Say it as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Prints a line for each upload; those that are given up are so when it ends.
pub async fn run(args: Args) -> Result<()> {
    let key = std::fs::read(&args.identity)
        .with_context(|| format!("cannot read {}", args.identity.display()))?;
    let transport = AgentTransport::signed(&args.network, &key)
        .await
        .with_context(|| format!("cannot call {}", args.network))?;
    let client = Client::new(transport, args.index);
    let found = client.unfinished().await?;
    let is_wanted =
        |upload: &OpenUpload| args.discard_all || args.discard.contains(&upload.blob_id);
    let mut listed = vec![];
    for (bucket, upload) in &found.uploads {
        let discarded = is_wanted(upload);
        if discarded {
            client.discard(*bucket, upload.blob_id).await?;
        }
        let OpenUpload {
            blob_id,
            size,
            bytes_arrived,
            bytes_reserved,
            ..
        } = upload;
        if !args.json {
            let end = if discarded { ", given up" } else { "" };
            println!(
                "{blob_id} in {bucket}: {bytes_arrived} of {size} bytes, holds {bytes_reserved}{end}"
            );
        }
        listed.push(json!({
            "blob_id": blob_id.to_string(),
            "bucket": bucket.to_text(),
            "size": size,
            "bytes_arrived": bytes_arrived,
            "bytes_reserved": bytes_reserved,
            "discarded": discarded,
        }));
    }
    if args.json {
        println!("{}", json!({ "uploads": listed }));
    } else if listed.is_empty() {
        println!("nothing is unfinished");
    }
    for (bucket, error) in &found.unreachable {
        eprintln!("the bucket {bucket} did not say what is unfinished in it: {error}");
    }
    let is_there = |id: &BlobId| {
        found
            .uploads
            .iter()
            .any(|(_, upload)| upload.blob_id == *id)
    };
    let unknown: Vec<String> = args
        .discard
        .iter()
        .filter(|id| !is_there(id))
        .map(BlobId::to_string)
        .collect();
    ensure!(
        unknown.is_empty(),
        "there is no unfinished upload of {}",
        unknown.join(", ")
    );
    ensure!(found.unreachable.is_empty(), "some buckets did not answer");
    Ok(())
}

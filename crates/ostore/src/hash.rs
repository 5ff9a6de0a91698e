//! `ostore hash FILE`: the id of a file.

use std::{path::PathBuf, sync::Arc};

use anyhow::Result;
use openstorage_client::{FileSource, hash};

use crate::progress::Bar;

#[derive(clap::Args)]
pub struct Args {
    /// The file to read.
    file: PathBuf,
}

/// Prints the blob id and the file's name, as `sha256sum` does.
pub async fn run(args: Args) -> Result<()> {
    let source = Arc::new(FileSource::open(&args.file)?);
    let bar = Bar::new();
    let blob_id = hash(source, &|progress| bar.show(progress)).await?;
    bar.clear();
    println!("{blob_id}  {}", args.file.display());
    Ok(())
}

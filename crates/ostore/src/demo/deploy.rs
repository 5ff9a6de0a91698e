//! Index and chat on a network, and the bucket that the index makes.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use candid::{Principal, encode_one};
use openstorage_client::{PocketTransport, Transport as _};
use openstorage_types::{
    chat::InitArgs as ChatInit,
    index::{BucketState, IndexStatus, InitArgs as IndexInit},
};
use pocket_ic::nonblocking::PocketIc;
use std::sync::Arc;
use tokio::time::sleep;

use crate::progress::step;

/// Given to index and chat; the index passes some on to its buckets.
const CYCLES: u128 = 100_000_000_000_000;

/// How long the index may take to have a bucket.
const PATIENCE: Duration = Duration::from_secs(60);

/// The canisters that an operator deploys. The bucket's Wasm lies in the index's.
pub struct Wasms {
    index: Vec<u8>,
    chat: Vec<u8>,
}

impl Wasms {
    /// Reads `index.wasm.gz` and `chat.wasm.gz`.
    pub fn read(dir: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).with_context(|| {
                format!(
                    "cannot read {}: `cargo xtask build` makes it",
                    path.display()
                )
            })
        };
        Ok(Self {
            index: read("index.wasm.gz")?,
            chat: read("chat.wasm.gz")?,
        })
    }
}

pub struct Deployed {
    pub index: Principal,
    pub chat: Principal,
}

/// Controls index and chat.
pub fn operator() -> Principal {
    Principal::self_authenticating("the demo's operator")
}

/// Installs both and waits until the index has a bucket that takes blobs.
pub async fn deploy(pic: &Arc<PocketIc>, wasms: &Wasms) -> Result<Deployed> {
    step("deploying index and chat");
    let operator = operator();
    let index_args = encode_one(Some(IndexInit::default()))?;
    let index = install(pic, operator, &wasms.index, index_args).await;
    let chat_args = encode_one(ChatInit {
        index,
        origins: None,
    })?;
    let chat = install(pic, operator, &wasms.chat, chat_args).await;

    step("waiting for the index's first bucket");
    let transport = PocketTransport::new(pic.clone(), operator);
    let start = Instant::now();
    loop {
        let answer = transport
            .query(index, "status", candid::encode_args(())?)
            .await?;
        let status: IndexStatus = candid::decode_one(&answer)?;
        if status
            .buckets
            .iter()
            .any(|bucket| bucket.state == BucketState::Active)
        {
            return Ok(Deployed { index, chat });
        }
        if start.elapsed() > PATIENCE {
            let why = status.last_creation_error.unwrap_or("no reason".into());
            bail!(
                "the index has no bucket after {} s and gives as reason: {why}",
                PATIENCE.as_secs()
            );
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn install(pic: &PocketIc, operator: Principal, wasm: &[u8], args: Vec<u8>) -> Principal {
    let canister = pic
        .create_canister_with_settings(Some(operator), None)
        .await;
    pic.add_cycles(canister, CYCLES).await;
    pic.install_canister(canister, wasm.to_vec(), args, Some(operator))
        .await;
    canister
}

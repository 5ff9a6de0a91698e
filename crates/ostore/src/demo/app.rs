//! What a user of the chat does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use candid::{CandidType, Principal, utils::ArgumentEncoder};
use openstorage_client::{PocketTransport, Transport as _};
use openstorage_types::{
    BlobReference,
    chat::{
        BlobAccess, ChatError, ChatInfo, CreateChatArgs, Message, MessagesArgs, RegisterOk,
        SendMessageArgs, SendMessageOk,
    },
};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

/// How long index and buckets may take to settle something with the chat.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// The chat canister, as one user calls it.
pub struct App {
    transport: PocketTransport,
    chat: Principal,
}

impl App {
    pub fn new(transport: PocketTransport, chat: Principal) -> Self {
        Self { transport, chat }
    }

    /// Registers the user and waits until the index has confirmed the allowance.
    pub async fn register(&self, premium: bool) -> Result<()> {
        self.update::<RegisterOk>("register", ()).await?;
        if premium {
            self.update::<RegisterOk>("set_premium", (true,)).await?;
        }
        let start = Instant::now();
        while !self.query::<RegisterOk>("me", ()).await?.confirmed {
            pause(start, "the index has not confirmed the user").await?;
        }
        Ok(())
    }

    pub async fn create_chat(&self, name: &str) -> Result<ChatInfo> {
        let name = name.to_owned();
        self.update("create_chat", (CreateChatArgs { name },)).await
    }

    /// Posts a blob; what opens it, once the chat has the bucket's key.
    pub async fn post(&self, chat_id: u64, blob: &BlobReference) -> Result<BlobAccess> {
        let message = SendMessageArgs {
            chat_id,
            text: String::new(),
            blob: Some(blob.clone()),
            name: None,
            preview: None,
        };
        let start = Instant::now();
        let sent: SendMessageOk = loop {
            match self.call("send_message", (message.clone(),)).await? {
                Ok(sent) => break sent,
                Err(ChatError::Retry { .. }) => {
                    pause(start, "the chat cannot ask the index about the bucket").await?;
                }
                Err(error) => bail!("the chat refuses send_message: {error:?}"),
            }
        };
        loop {
            let args = MessagesArgs {
                chat_id,
                after: sent.message_id.checked_sub(1),
                before: None,
                limit: 1,
            };
            let page: Vec<Message> = self.query("messages", (args,)).await?;
            let blob = page.into_iter().next().and_then(|message| message.blob);
            let access = blob.context("the message has lost its blob")?;
            if access.token.is_some() {
                return Ok(access);
            }
            pause(start, "the chat has not got the bucket's key").await?;
        }
    }

    /// An update call, until it is answered with `Ok`.
    async fn update<T: CandidType + DeserializeOwned>(
        &self,
        method: &str,
        args: impl ArgumentEncoder,
    ) -> Result<T> {
        let answer: Result<T, ChatError> = self.call(method, args).await?;
        answer.map_err(|error| anyhow!("the chat refuses {method}: {error:?}"))
    }

    async fn call<T: CandidType + DeserializeOwned>(
        &self,
        method: &str,
        args: impl ArgumentEncoder,
    ) -> Result<Result<T, ChatError>> {
        let args = candid::encode_args(args)?;
        let answer = self.transport.update(self.chat, method, args).await?;
        Ok(candid::decode_one(&answer)?)
    }

    async fn query<T: CandidType + DeserializeOwned>(
        &self,
        method: &str,
        args: impl ArgumentEncoder,
    ) -> Result<T> {
        let args = candid::encode_args(args)?;
        let answer = self.transport.query(self.chat, method, args).await?;
        let answer: Result<T, ChatError> = candid::decode_one(&answer)?;
        answer.map_err(|error| anyhow!("the chat refuses {method}: {error:?}"))
    }
}

async fn pause(start: Instant, what: &str) -> Result<()> {
    if start.elapsed() > PATIENCE {
        bail!("{what} after {} s", PATIENCE.as_secs());
    }
    sleep(PAUSE).await;
    Ok(())
}

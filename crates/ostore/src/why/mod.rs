//! `ostore why URL`: why a blob's URL does not open, and what to do.
//!
//! Over HTTP a bucket says the same to every stranger. In calls it says more: the reason why a token opens
//! nothing. So the token is shown to it in a call, `read_chunk`, as nobody: a token that is good is
//! refused there too, but for the caller's sake.

mod link;

use anyhow::{Context, Result};
use candid::{decode_one, encode_one};
use openstorage_client::{AgentTransport, Transport};
use openstorage_types::bucket::{ReadChunkArgs, ReadChunkError, ReadChunkOk, TokenProblem};
use reqwest::{StatusCode, Url, header::RANGE};
use serde::Serialize;

use crate::web;
use link::Link;

const AGAIN: &str =
    "ask the app for a new URL: with each message it hands out one that lives for a day";

#[derive(clap::Args)]
pub struct Args {
    /// The whole URL, with its token.
    url: String,
    /// The `Range` header that was sent along, for instance `bytes=2000000-`.
    #[arg(long)]
    range: Option<String>,
    /// Say it as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What became of a request, and why.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The HTTP status that the bucket answers; none where the URL reaches no bucket.
    pub status: Option<u16>,
    pub because: String,
    pub repair: String,
}

impl Verdict {
    fn new(status: u16, because: impl Into<String>, repair: impl Into<String>) -> Self {
        Self {
            status: Some(status),
            because: because.into(),
            repair: repair.into(),
        }
    }

    fn no_url(because: String) -> Self {
        let repair =
            "copy the whole URL: http(s)://{bucket}.{gateway}/{accessor_id}/{blob_id}?token=…";
        Self {
            status: None,
            because,
            repair: repair.into(),
        }
    }

    fn form(because: String) -> Self {
        let repair =
            "build URLs with the library's `url()`, from the reference as the app stored it";
        Self::new(401, because, repair)
    }

    fn token(because: String) -> Self {
        Self::new(401, because, AGAIN)
    }
}

/// Prints one sentence: the status, the reason, the repair.
pub async fn run(args: Args) -> Result<()> {
    let verdict = match Link::parse(&args.url) {
        Err(verdict) => verdict,
        Ok(link) => judge(&args, &link).await?,
    };
    if args.json {
        println!("{}", serde_json::to_string(&verdict)?);
        return Ok(());
    }
    let status = verdict
        .status
        .map_or(String::new(), |status| format!("{status}: "));
    println!("{status}{}; {}.", verdict.because, verdict.repair);
    Ok(())
}

async fn judge(args: &Args, link: &Link) -> Result<Verdict> {
    if let Some(verdict) = refused(link).await? {
        return Ok(verdict);
    }
    let url = Url::parse(&args.url)?;
    let client = web::client(&url)?;
    // The head is enough, but for a range: only a GET has one.
    let request = match &args.range {
        None => client.head(url),
        Some(range) => client.get(url).header(RANGE, range),
    };
    let answer = request
        .send()
        .await
        .with_context(|| format!("cannot reach {}", args.url))?;
    let size = answer.headers().get("content-range");
    let size = size.and_then(|size| size.to_str().ok()).unwrap_or("?");
    Ok(opened(answer.status(), size))
}

/// What the bucket has against the token.
async fn refused(link: &Link) -> Result<Option<Verdict>> {
    let unreachable = || format!("cannot ask the bucket {} at {}", link.bucket, link.network);
    let transport = AgentTransport::anonymous(&link.network)
        .await
        .with_context(unreachable)?;
    let args = ReadChunkArgs {
        blob_id: link.blob_id,
        accessor_id: link.accessor_id,
        token: link.token.clone(),
        chunk_index: 0,
    };
    let answer = transport
        .query(link.bucket, "read_chunk", encode_one(args)?)
        .await
        .with_context(unreachable)?;
    let answer: Result<ReadChunkOk, ReadChunkError> = decode_one(&answer)
        .with_context(|| format!("{} is no bucket of this version", link.bucket))?;
    Ok(match answer {
        Err(ReadChunkError::InvalidToken(problem)) => Some(of_token(problem)),
        // A good token, whoever it is for.
        Err(ReadChunkError::NotAuthorized | ReadChunkError::NotFound)
        | Err(ReadChunkError::InvalidChunkIndex { .. })
        | Ok(_) => None,
    })
}

fn of_token(problem: TokenProblem) -> Verdict {
    let (because, repair) = match problem {
        TokenProblem::Malformed => (
            "the token is cut off or changed: it has not a token's form",
            "copy the whole URL, up to its last character",
        ),
        TokenProblem::NotAuthentic => (
            "the token was not issued for this bucket, accessor and blob",
            "use each token with the message that it came with; it opens no other accessor or bucket",
        ),
        TokenProblem::UnknownIssuer => (
            "the bucket does not trust the token's issuer, or not this version of its key",
            "register the app with the index (register_issuer), and wait until the bucket has heard of it, some seconds",
        ),
        TokenProblem::Expired => ("the token has lapsed", AGAIN),
        TokenProblem::Revoked => ("the token was taken back", AGAIN),
        TokenProblem::InvalidTimes => (
            "the token is from the future, or is to live longer than tokens may",
            "mend the issuer: a read token lives for 24 hours from the moment it is issued",
        ),
        TokenProblem::KeysNotReady => (
            "the bucket is new and has no key yet",
            "try again in some seconds",
        ),
    };
    Verdict::new(401, because, repair)
}

/// What a good token leads to.
fn opened(status: StatusCode, content_range: &str) -> Verdict {
    match status.as_u16() {
        404 => Verdict::new(
            404,
            "the token is good, but its accessor has no such blob in this bucket: nobody added the reference, or the last one was removed",
            "ask the app for its messages anew; if the blob is still named there, its owner has to upload it again",
        ),
        416 => Verdict::new(
            416,
            format!("nothing of the blob lies in the range ({content_range})"),
            "ask for a range that begins below the size: `bytes=n-`, `bytes=n-m` or `bytes=-n`",
        ),
        413 => Verdict::new(
            413,
            "the token is good, but the blob has more parts than a gateway joins",
            "put /m in front of the path, ask for a range of bytes, or download it by the library or `ostore`, which verify it",
        ),
        200 | 206 | 304 => Verdict::new(
            status.as_u16(),
            "the URL opens",
            "there is nothing to repair",
        ),
        other => Verdict::new(
            other,
            "the token is good, but the gateway answers something else",
            "look at the bucket's /logs, and whether it is running",
        ),
    }
}

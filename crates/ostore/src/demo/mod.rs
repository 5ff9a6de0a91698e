//! `ostore demo`: a file's whole trip on a local network, through the real canisters.
//!
//! | file | what |
//! | --- | --- |
//! | `server` | the local network's process |
//! | `deploy` | index and chat, and the bucket that the index makes |
//! | `app` | what a user of the chat does |
//! | `fetch` | the blob over HTTP, and by `read_chunk` |
//! | `report` | the outcome, as JSON or as text |
//! | `trace` | the journey as a page |

mod app;
mod deploy;
mod fetch;
mod report;
mod server;
mod trace;

use std::{
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, Result, anyhow, ensure};
use candid::Principal;
use futures_util::FutureExt as _;
use openstorage_client::{Blob, Client, FileSource, PocketTransport, Source as _, Upload};
use openstorage_types::{
    is_file_name,
    limits::{CHAT_USER_BYTES, CHUNK_BYTES},
};
use pocket_ic::{PocketIcBuilder, nonblocking::PocketIc};

use crate::progress::{Bar, step};
use app::App;
use deploy::Deployed;
use report::Report;
use server::Server;

#[derive(clap::Args)]
pub struct Args {
    /// The folder that holds index.wasm.gz and chat.wasm.gz.
    #[arg(long, value_name = "DIR")]
    wasm_dir: PathBuf,
    /// Leave when the file is stored and checked, instead of serving it until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// Print the outcome as one JSON object, the last line of stdout.
    #[arg(long)]
    json: bool,
    /// Serve on this port [default: any free one].
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Write the blob's journey, message by message, to this page.
    #[arg(long, value_name = "PAGE")]
    trace: Option<PathBuf>,
    /// The file to store.
    file: PathBuf,
}

/// Runs the demo. The outcome goes to stdout, a failed one too where JSON is asked for.
pub async fn run(args: Args) -> Result<()> {
    let json = args.json;
    // The network's client panics when the server does not answer as it should; there is still an
    // outcome to tell then.
    let outcome = match AssertUnwindSafe(demo(args)).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow!("the local network failed, as said above")),
    };
    if let Err(error) = &outcome
        && json
    {
        println!("{}", report::failure(error));
    }
    outcome
}

async fn demo(args: Args) -> Result<()> {
    let source = FileSource::open(&args.file)?;
    let wasms = deploy::Wasms::read(&args.wasm_dir)?;
    server::check_port(args.port)?;

    step("starting the local network");
    let server = Server::start().await?;
    let mut pic = PocketIcBuilder::new()
        .with_server_url(server.url())
        .with_application_subnet()
        .build_async()
        .await;
    if args.trace.is_some() {
        trace::start(&server.url()).await?;
    }
    let gateway = pic.make_live(args.port).await;
    let port = gateway.port().context("the gateway says no port")?;

    let report = store_and_check(&args, source, &wasms, Arc::new(pic), port).await?;
    if let Some(page) = &args.trace {
        step("drawing its journey");
        let story = trace::Story {
            file: &args.file.to_string_lossy(),
            size: report.size,
            blob_id: &report.blob_id,
            names: &participants(&report)?,
        };
        trace::write(&server.url(), page, &story).await?;
        step(&format!("drawn in {}", page.display()));
    }
    SERVING.store(!args.once, Ordering::Relaxed);
    println!("{}", report.text(args.json));
    if args.once {
        return Ok(());
    }
    step("serving it until Ctrl-C");
    server.watch().await
}

/// Everything is done but to serve.
static SERVING: AtomicBool = AtomicBool::new(false);

/// Whether Ctrl-C is what the demo waits for, and no failure.
pub fn is_serving() -> bool {
    SERVING.load(Ordering::Relaxed)
}

fn user() -> Principal {
    Principal::self_authenticating("the demo's user")
}

/// Who takes part, in the order in which they are drawn.
fn participants(report: &Report) -> Result<[(Principal, &'static str); 7]> {
    Ok([
        (deploy::operator(), "operator"),
        (user(), "user"),
        (Principal::anonymous(), "browser"),
        (Principal::from_text(&report.chat)?, "chat"),
        (Principal::from_text(&report.index)?, "index"),
        (Principal::from_text(&report.bucket)?, "bucket"),
        (Principal::management_canister(), "management"),
    ])
}

/// The trip itself.
async fn store_and_check(
    args: &Args,
    source: FileSource,
    wasms: &deploy::Wasms,
    pic: Arc<PocketIc>,
    port: u16,
) -> Result<Report> {
    let size = source.size();
    let Deployed { index, chat } = deploy::deploy(&pic, wasms).await?;

    step("registering a user, who creates a chat");
    let user = user();
    let transport = PocketTransport::new(pic, user);
    let app = App::new(transport.clone(), chat);
    app.register(size > CHAT_USER_BYTES).await?;
    let room = app.create_chat("demo").await?;

    let client = Client::new(transport, index);
    let upload = Upload {
        name: source
            .name()
            .filter(|name| is_file_name(name))
            .map(Into::into),
        ..Upload::new(mime_type(&args.file), vec![room.accessor_id])
    };
    let bar = Bar::new();
    let start = Instant::now();
    let reference = client
        .upload(source, &upload, &|progress| bar.show(progress))
        .await?;
    let upload_ms = start.elapsed().as_millis() as u64;
    bar.clear();

    step("posting it in the chat");
    let access = app.post(room.chat_id, &reference).await?;
    let token = access.token.context("the chat gave no token")?;
    let url = fetch::url(&reference, access.accessor_id, &token, port);

    step("fetching it back with the chat's token");
    let bar = Bar::new();
    let sha256_served = fetch::over_http(&url, size, &|progress| bar.show(progress)).await?;
    ensure!(
        sha256_served == reference.blob_id,
        "{url} serves other bytes: their SHA-256 is {sha256_served}, not {}",
        reference.blob_id
    );
    bar.clear();
    if size > CHUNK_BYTES {
        // Nothing vouches yet for what HTTP serves in parts. Calls are checked here, chunk by chunk.
        step("reading it chunk by chunk too");
        let blob = Blob {
            reference: reference.clone(),
            accessor_id: access.accessor_id,
            token,
        };
        let bar = Bar::new();
        client
            .download(&blob, &mut std::io::sink(), &|progress| bar.show(progress))
            .await?;
    }

    Ok(Report {
        ok: true,
        blob_id: reference.blob_id.to_string(),
        size,
        bucket: reference.bucket.to_text(),
        index: index.to_text(),
        chat: chat.to_text(),
        url,
        page: format!(
            "http://{chat}.localhost:{port}/#/room/{}/{}",
            room.chat_id, room.invite
        ),
        sha256_served: sha256_served.to_string(),
        upload_ms,
    })
}

/// What the file's name says that it is.
fn mime_type(path: &std::path::Path) -> String {
    mime_guess::from_path(path)
        .first_or_octet_stream()
        .essence_str()
        .to_owned()
}

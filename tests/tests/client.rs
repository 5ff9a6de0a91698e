//! The Rust client against the deployed canisters.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::SystemTime,
};

use candid::Principal;
use integration_tests::{MIME_TYPE, Setup, bucket, bytes, chat, chunk, user};
use openstorage_client::{
    Blob, CallError, Client, Error, Phase, PocketTransport, Progress, Transport, Upload,
};
use openstorage_types::{
    BlobId, BlobReference,
    bucket::{PushChunkError, ReadChunkError, UploadArgs},
    index::{AllocatedBucketError, InitArgs},
    limits::POSSESSION_CHUNKS_MAX,
};
use pocket_ic::{PocketIcBuilder, nonblocking::PocketIc};
use tokio::runtime::Runtime;

/// A deployed system that runs by itself, as a client finds it.
struct Live {
    setup: Setup,
    runtime: Runtime,
    pic: Arc<PocketIc>,
}

impl Live {
    fn new() -> Self {
        Self::with(InitArgs::default())
    }

    fn with(init: InitArgs) -> Self {
        let pic = PocketIcBuilder::new().with_application_subnet().build();
        // Before anything is stored: storage is charged for the years up to now, too.
        pic.set_time(SystemTime::now().into());
        let setup = Setup::deploy(pic, init);
        setup.pic.auto_progress();
        let (url, id) = (setup.pic.get_server_url(), setup.pic.instance_id());
        Self {
            pic: Arc::new(PocketIc::new_from_existing_instance(url, id, None)),
            runtime: Runtime::new().unwrap(),
            setup,
        }
    }

    fn client(&self, caller: Principal) -> Client<PocketTransport> {
        Client::new(
            PocketTransport::new(self.pic.clone(), caller),
            self.setup.index,
        )
    }

    fn upload(
        &self,
        caller: Principal,
        data: &[u8],
        accessor: Principal,
    ) -> Result<BlobReference, Error> {
        let upload = Upload::new(MIME_TYPE, vec![accessor]);
        let client = self.client(caller);
        self.runtime
            .block_on(client.upload(data.to_vec(), &upload, &|_| {}))
    }

    /// A posted blob, with the token that opens it for `caller`.
    fn posted(&self, caller: Principal, chat_id: u64, reference: &BlobReference) -> Blob {
        let message = chat::post(&self.setup, caller, chat_id, reference);
        let (access, token) = chat::access(&self.setup, caller, chat_id, message);
        Blob {
            reference: reference.clone(),
            accessor_id: access.accessor_id,
            token,
        }
    }

    fn download(&self, caller: Principal, blob: &Blob) -> Result<Vec<u8>, Error> {
        let mut out = vec![];
        let client = self.client(caller);
        self.runtime
            .block_on(client.download(blob, &mut out, &|_| {}))?;
        Ok(out)
    }
}

/// Counts the chunks that go through.
struct Counting {
    inner: PocketTransport,
    pushes: Arc<AtomicU32>,
}

impl Transport for Counting {
    async fn query(&self, to: Principal, method: &str, arg: Vec<u8>) -> Result<Vec<u8>, CallError> {
        self.inner.query(to, method, arg).await
    }

    async fn update(
        &self,
        to: Principal,
        method: &str,
        arg: Vec<u8>,
    ) -> Result<Vec<u8>, CallError> {
        if method == "push_chunk" {
            self.pushes.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.update(to, method, arg).await
    }
}

#[test]
fn what_goes_up_comes_down() {
    let live = Live::new();
    let (alice, room) = live.setup.user_with_chat(1);
    for size in [0, 1, 2_000_000, 2_000_001, 25_000_000] {
        let data = bytes(size, size);
        let reference = live.upload(alice, &data, room.accessor_id).unwrap();
        assert_eq!(reference.size, size);
        let blob = live.posted(alice, room.chat_id, &reference);
        assert!(
            live.download(alice, &blob).unwrap() == data,
            "{size} bytes differ"
        );
    }
}

#[test]
fn an_interrupted_upload_goes_on_where_it_was() {
    let live = Live::new();
    let (alice, room) = live.setup.user_with_chat(1);
    let data = bytes(13_000_000, 1);
    bucket::ensure_registered(&live.setup, live.setup.bucket, alice).unwrap();
    for index in [5, 1] {
        let args = chunk(&data, index, room.accessor_id);
        bucket::push_chunk(&live.setup, live.setup.bucket, alice, args).unwrap();
    }

    let told = Mutex::new(vec![]);
    let pushes = Arc::new(AtomicU32::new(0));
    let transport = Counting {
        inner: PocketTransport::new(live.pic.clone(), alice),
        pushes: pushes.clone(),
    };
    let client = Client::new(transport, live.setup.index);
    let upload = Upload::new(MIME_TYPE, vec![room.accessor_id]);
    live.runtime
        .block_on(client.upload(data.clone(), &upload, &|progress| {
            told.lock().unwrap().push(progress);
        }))
        .unwrap();
    assert_eq!(pushes.load(Ordering::Relaxed), 5, "of seven chunks");
    let told = told.into_inner().unwrap();
    let uploading = |progress: &&Progress| progress.phase == Phase::Uploading;
    assert_eq!(
        told.iter().find(uploading).unwrap().bytes_done,
        4_000_000,
        "two chunks were in"
    );
    assert_eq!(
        told.iter().rfind(uploading).unwrap().bytes_done,
        data.len() as u64
    );
}

#[test]
fn a_second_uploader_shows_a_bounded_number_of_chunks() {
    let live = Live::new();
    let (alice, room) = live.setup.user_with_chat(1);
    let (bob, other) = live.setup.user_with_chat(2);
    let data = bytes(70_000_000, 1);
    let first = live.upload(alice, &data, room.accessor_id).unwrap();

    let pushes = Arc::new(AtomicU32::new(0));
    let transport = Counting {
        inner: PocketTransport::new(live.pic.clone(), bob),
        pushes: pushes.clone(),
    };
    let client = Client::new(transport, live.setup.index);
    let upload = Upload::new(MIME_TYPE, vec![other.accessor_id]);
    let second = live
        .runtime
        .block_on(client.upload(data.clone(), &upload, &|_| {}))
        .unwrap();
    assert_eq!(second, first);
    // The chunk that it begins with, and those that are drawn for it then.
    let pushes = pushes.load(Ordering::Relaxed);
    let max = 1 + POSSESSION_CHUNKS_MAX as u32;
    assert!((max - 1..=max).contains(&pushes), "{pushes} of 35 chunks");
    let blob = live.posted(bob, other.chat_id, &second);
    assert!(live.download(bob, &blob).unwrap() == data);
}

#[test]
fn a_full_bucket_is_passed_over() {
    let live = Live::with(InitArgs {
        bucket_bytes_max: Some(5_000_000),
        ..InitArgs::default()
    });
    let (alice, room) = live.setup.user_with_chat(1);
    let first = live
        .upload(alice, &bytes(3_000_000, 1), room.accessor_id)
        .unwrap();
    let second = live
        .upload(alice, &bytes(3_000_000, 2), room.accessor_id)
        .unwrap();
    assert_ne!(first.bucket, second.bucket);
}

#[test]
fn refusals_say_what_is_wrong() {
    let live = Live::new();
    let (alice, room) = live.setup.user_with_chat(1);
    let data = bytes(10, 1);

    let stranger = live.upload(user(9), &data, room.accessor_id).unwrap_err();
    assert!(
        matches!(
            stranger,
            Error::Allocation(AllocatedBucketError::NotRegistered)
        ),
        "{stranger}"
    );
    let nobody = live
        .upload(alice, &data, Principal::anonymous())
        .unwrap_err();
    let invalid = PushChunkError::InvalidAccessors { max: 32 };
    assert!(
        matches!(&nobody, Error::Push { error, .. } if *error == invalid),
        "{nobody}"
    );

    let reference = live.upload(alice, &data, room.accessor_id).unwrap();
    let blob = live.posted(alice, room.chat_id, &reference);
    let thief = live.download(user(9), &blob).unwrap_err();
    assert!(
        matches!(
            thief,
            Error::Read {
                error: ReadChunkError::NotAuthorized,
                ..
            }
        ),
        "{thief}"
    );
    let mut larger = blob.clone();
    larger.reference.size += 1;
    let error = live.download(alice, &larger).unwrap_err();
    assert!(matches!(error, Error::WrongBytes { .. }), "{error}");
    let mut other = blob;
    other.reference.blob_id = BlobId([1; 32]);
    let error = live.download(alice, &other).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Read {
                error: ReadChunkError::NotFound,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_dropped_upload_leaves_something_to_go_on_with() {
    let live = Live::new();
    let (alice, room) = live.setup.user_with_chat(1);
    let data = bytes(60_000_000, 1);
    let upload = Upload::new(MIME_TYPE, vec![room.accessor_id]);
    let client = live.client(alice);
    let (some, enough) = (AtomicU32::new(0), tokio::sync::Notify::new());
    let on_progress = |progress: Progress| {
        if progress.phase == Phase::Uploading && some.fetch_add(1, Ordering::Relaxed) == 5 {
            enough.notify_one();
        }
    };
    live.runtime.block_on(async {
        tokio::select! {
            _ = client.upload(data.clone(), &upload, &on_progress) => panic!("it was to be interrupted"),
            () = enough.notified() => {}
        }
    });
    let args = UploadArgs {
        blob_id: integration_tests::blob_id(&data),
    };
    let status = bucket::upload_status(&live.setup, live.setup.bucket, alice, args).unwrap();
    assert!(!status.missing.is_empty());
    live.upload(alice, &data, room.accessor_id).unwrap();
}

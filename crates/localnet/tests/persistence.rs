//! State on disk: what was acknowledged outlives the process, however it ends.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use candid::{Encode, Principal};
use ic_management_canister_types::{CanisterInstallMode, InstallCodeArgs};
use openstorage_localnet::{
    machine::{STABLE_PAGE_BYTES, StableMemory},
    network::{Config, Ingress, SubnetKind},
    persist::{Kept, OpenError},
};
use pocket_ic::{PocketIc, PocketIcBuilder};
use reqwest::Url;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Counts in a global, in the heap and in stable memory, and answers the three; a timer counts too. `grow`
/// grows both memories and writes to their ends.
const COUNTER: &str = r#"(module
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
  (import "ic0" "stable64_size" (func $size (result i64)))
  (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
  (import "ic0" "stable64_read" (func $read (param i64 i64 i64)))
  (import "ic0" "time" (func $time (result i64)))
  (import "ic0" "global_timer_set" (func $timer_set (param i64) (result i64)))
  (memory 1)
  (global $count (mut i64) (i64.const 0))
  (func $bump
    (global.set $count (i64.add (global.get $count) (i64.const 1)))
    (i64.store (i32.const 40000) (i64.add (i64.load (i32.const 40000)) (i64.const 1)))
    (call $read (i64.const 0) (i64.const 100) (i64.const 8))
    (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1)))
    (call $write (i64.const 100) (i64.const 0) (i64.const 8)))
  (func $answer
    (i64.store (i32.const 8) (global.get $count))
    (call $append (i32.const 8) (i32.const 8))
    (call $append (i32.const 40000) (i32.const 8))
    (call $read (i64.const 16) (i64.const 100) (i64.const 8))
    (call $append (i32.const 16) (i32.const 8))
    (call $reply))
  (func (export "canister_init") (drop (call $grow (i64.const 1))))
  (func (export "canister_global_timer") (call $bump))
  (func (export "canister_query counts") (call $answer))
  (func (export "canister_update bump") (call $bump) (call $answer))
  (func (export "canister_update later")
    (drop (call $timer_set (i64.add (call $time) (i64.const 3)))) (call $answer))
  (func (export "canister_update grow")
    (drop (memory.grow (i32.const 3)))
    (drop (call $grow (i64.const 20)))
    (i64.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 8)) (i64.const 77))
    (call $write (i64.sub (i64.mul (call $size) (i64.const 65536)) (i64.const 8)) (i64.const 0) (i64.const 8))
    (call $answer)))"#;

fn code() -> Vec<u8> {
    wat::parse_str(COUNTER).unwrap()
}

/// The three counts of an answer.
fn counts(answer: &[u8]) -> [u64; 3] {
    let number = |at: usize| u64::from_le_bytes(answer[at..at + 8].try_into().unwrap());
    [number(0), number(8), number(16)]
}

mod in_process {
    use super::*;

    const USER: Principal = Principal::anonymous();

    fn open(folder: &Path) -> Kept {
        Kept::open(folder, Config::default()).expect("the folder opens")
    }

    fn call(network: &mut Kept, canister: Principal, method: &str, arg: Vec<u8>) -> Vec<u8> {
        let ingress = Ingress {
            sender: USER,
            sender_info: None,
            canister,
            method: method.into(),
            arg,
            effective: None,
        };
        let id = network.submit(ingress).unwrap();
        network.await_ingress(&id).unwrap().unwrap()
    }

    fn manage(network: &mut Kept, method: &str, arg: Vec<u8>) -> Vec<u8> {
        call(network, Principal::management_canister(), method, arg)
    }

    fn create(network: &mut Kept) -> Principal {
        #[derive(candid::CandidType)]
        struct Args {
            amount: Option<candid::Nat>,
        }
        #[derive(candid::CandidType, serde::Deserialize)]
        struct Created {
            canister_id: Principal,
        }
        let args = Encode!(&Args { amount: None }).unwrap();
        let reply = manage(network, "provisional_create_canister_with_cycles", args);
        candid::decode_one::<Created>(&reply).unwrap().canister_id
    }

    fn install(network: &mut Kept, canister_id: Principal, mode: CanisterInstallMode) {
        let args = InstallCodeArgs {
            mode,
            canister_id,
            wasm_module: code(),
            arg: vec![],
            sender_canister_version: None,
        };
        manage(network, "install_code", Encode!(&args).unwrap());
    }

    /// A process that is killed leaves the folder as it was synced last; here that is a value that is
    /// forgotten, lock and all but for the file that the system closes.
    fn reopen(network: Kept, folder: &Path) -> Kept {
        drop(network);
        open(folder)
    }

    #[test]
    fn a_network_goes_on_as_if_nothing_had_happened_wherever_it_is_cut() {
        let (kept, reference) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // The other one is never closed.
        let mut networks = [open(kept.path()), open(reference.path())];
        let canisters: Vec<_> = networks
            .iter_mut()
            .map(|network| {
                [(); 2].map(|()| {
                    let canister = create(network);
                    install(network, canister, CanisterInstallMode::Install);
                    canister
                })
            })
            .collect();
        assert_eq!(canisters[0], canisters[1]);
        let [one, two] = canisters[0];

        for step in 0_u64..120 {
            for network in &mut networks {
                match step % 12 {
                    0 | 3 | 7 => drop(call(network, one, "bump", vec![])),
                    1 => drop(call(network, two, "later", vec![])),
                    2 => drop(call(network, two, "grow", vec![])),
                    4 => network.set_time(network.time_ns() + 1_000_000_000).unwrap(),
                    5 => network.tick(),
                    6 => drop(network.add_cycles(&one, 5)),
                    8 if step % 24 == 8 => install(network, two, CanisterInstallMode::Reinstall),
                    9 if step % 48 == 9 => assert!(
                        network.set_stable_memory(&one, StableMemory::from_bytes(&[9; 70_000]))
                    ),
                    // Left unanswered, to be taken up after a restart.
                    10 => {
                        let ingress = Ingress {
                            sender: USER,
                            sender_info: None,
                            canister: two,
                            method: "bump".into(),
                            arg: vec![],
                            effective: None,
                        };
                        network.submit(ingress).unwrap();
                    }
                    _ => drop(call(network, two, "bump", vec![])),
                }
                network.sync().unwrap();
            }
            if step % 5 == 0 {
                networks[0].checkpoint().unwrap();
            }
            if step % 3 == 0 {
                let [cut, whole] = networks;
                networks = [reopen(cut, kept.path()), whole];
            }
            let [cut, whole] = &networks;
            assert_eq!(cut.digest(), whole.digest(), "step {step}");
        }
    }

    #[test]
    fn an_image_too_long_for_the_journal_is_kept_with_what_came_before_and_after() {
        let folder = tempfile::tempdir().unwrap();
        let mut network = open(folder.path());
        let canister = create(&mut network);
        install(&mut network, canister, CanisterInstallMode::Install);
        call(&mut network, canister, "bump", vec![]);
        let pages = (257 << 20) / STABLE_PAGE_BYTES;
        let page = vec![5; 4096];
        let image = [(0, page.as_slice()), (16 * pages - 1, &page)].into_iter();
        let image = StableMemory::from_pages(pages, image).unwrap();
        assert!(network.set_stable_memory(&canister, image));
        call(&mut network, canister, "bump", vec![]);
        network.sync().unwrap();
        let before = network.digest();
        let network = reopen(network, folder.path());
        assert_eq!(network.digest(), before);
        let stable = network.stable_memory(&canister).unwrap();
        assert_eq!(stable.len() as u64, pages * STABLE_PAGE_BYTES);
        assert_eq!((stable[99], stable[stable.len() - 1]), (5, 5));
    }

    #[test]
    fn a_checkpoint_writes_what_changed_and_page_files_stay_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let mut network = open(folder.path());
        let canister = create(&mut network);
        install(&mut network, canister, CanisterInstallMode::Install);
        let bytes: Vec<u8> = (0..8_000_000_u32).map(|i| (i / 7) as u8).collect();
        network.set_stable_memory(&canister, StableMemory::from_bytes(&bytes));
        network.checkpoint().unwrap();
        let size = |network: &mut Kept| {
            network.checkpoint().unwrap();
            let files = fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
            files
                .map(|file| file.metadata().unwrap().len())
                .sum::<u64>()
        };
        let before = size(&mut network);
        call(&mut network, canister, "bump", vec![]);
        let grown = size(&mut network) - before;
        assert!(grown < 300_000, "one small change took {grown} bytes");
        for _ in 0..200 {
            call(&mut network, canister, "bump", vec![]);
            network.checkpoint().unwrap();
        }
        let after = size(&mut network);
        assert!(
            after < 3 * before,
            "{after} bytes of files for {before} of state"
        );
        let [global, heap, stable] = counts(&call(&mut network, canister, "bump", vec![]));
        assert_eq!((global, heap), (202, 202));
        assert_eq!(stable.wrapping_sub(counts_at_start(&bytes)), 202);
    }

    fn counts_at_start(stable: &[u8]) -> u64 {
        u64::from_le_bytes(stable[100..108].try_into().unwrap())
    }

    #[test]
    fn a_folder_is_refused_for_other_subnets_and_for_none_at_first() {
        let folder = tempfile::tempdir().unwrap();
        let with = |subnets: Vec<SubnetKind>| {
            let config = Config {
                subnets,
                ..Config::default()
            };
            Kept::open(folder.path(), config)
        };
        assert!(matches!(with(vec![]), Err(OpenError::NoSubnets)));
        drop(with(vec![SubnetKind::NNS, SubnetKind::Application]).unwrap());
        assert_eq!(with(vec![]).unwrap().subnets().len(), 2);
        assert!(matches!(
            with(vec![SubnetKind::System]),
            Err(OpenError::Subnets { .. })
        ));
    }
}

/// What does not happen within this time does not happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again, for as long as there is patience; none where nothing came of it.
fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        match look() {
            None if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(2)),
            found => return found,
        }
    }
}

/// A server process, killed when this is dropped.
struct Server {
    child: Child,
    url: Url,
    _files: TempDir,
}

impl Server {
    fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let port_file = files.path().join("port");
        let child = Command::new(env!("CARGO_BIN_EXE_pocket-ic-server"))
            .arg("--port-file")
            .arg(&port_file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // From here on the process ends with the test, whatever happens.
        let mut server = Self {
            child,
            url: "http://127.0.0.1/".parse().unwrap(),
            _files: files,
        };
        let port = wait_for(|| {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("the server ended before it told its port: {status}");
            }
            let text = fs::read_to_string(&port_file).ok()?;
            text.ends_with('\n').then(|| text.trim().parse().unwrap())
        });
        let port = port.expect("the server tells its port");
        server.url.set_port(Some(port)).unwrap();
        server
    }

    fn instance(&self, state: &Path) -> PocketIc {
        PocketIcBuilder::new()
            .with_server_url(self.url.clone())
            .with_state_dir(state.to_owned())
            .with_application_subnet()
            .build()
    }

    /// SIGKILL: nothing of the process runs any more.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends updates until the server is gone; counts those that were sent and keeps the highest count that
/// was acknowledged.
async fn load(url: Url, canister: Principal, sent: Arc<AtomicU64>, acknowledged: Arc<AtomicU64>) {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
    let call = json!({
        "sender": base64(Principal::anonymous().as_slice()),
        "canister_id": base64(canister.as_slice()),
        "effective_principal": "None",
        "method": "bump",
        "payload": base64(&[]),
    });
    let post = async |route: &str, body: &Value| -> reqwest::Result<Value> {
        let route = url.join(&format!("instances/0/update/{route}")).unwrap();
        client.post(route).json(body).send().await?.json().await
    };
    loop {
        sent.fetch_add(1, Ordering::SeqCst);
        let Ok(submitted) = post("submit_ingress_message", &call).await else {
            return;
        };
        let Ok(answer) = post("await_ingress_message", &submitted["Ok"]).await else {
            return;
        };
        let answer = STANDARD
            .decode(answer["Ok"].as_str().expect("a reply"))
            .unwrap();
        acknowledged.fetch_max(counts(&answer)[0], Ordering::SeqCst);
    }
}

/// The story: a developer's machine loses power, or somebody kills the server, while a page uploads. Every
/// chunk whose push was answered has to be there afterwards.
#[test]
fn killed_twenty_times_under_load_nothing_acknowledged_is_lost() {
    const KILLS: u64 = 20;
    const CLIENTS: usize = 8;
    let state = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut server = Server::start();
    let pic = server.instance(state.path());
    let canister = pic.create_canister();
    pic.add_cycles(canister, 1_000_000_000_000_000);
    pic.install_canister(canister, code(), vec![], None);
    std::mem::forget(pic);

    let sent = Arc::new(AtomicU64::new(0));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut random = 7_u64;
    for kill in 1..=KILLS {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (sent, acknowledged) = (Arc::clone(&sent), Arc::clone(&acknowledged));
                runtime.spawn(load(server.url.clone(), canister, sent, acknowledged))
            })
            .collect();
        let before = acknowledged.load(Ordering::SeqCst);
        wait_for(|| (acknowledged.load(Ordering::SeqCst) >= before + 5).then_some(()))
            .unwrap_or_else(|| panic!("nothing is acknowledged before kill {kill}"));
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        std::thread::sleep(Duration::from_millis((random >> 33) % 150));
        server.kill();
        for client in clients {
            runtime
                .block_on(async { tokio::time::timeout(PATIENCE, client).await })
                .expect("a client notices that the server is gone")
                .unwrap();
        }

        server = Server::start();
        let pic = server.instance(state.path());
        let answer = pic.query_call(canister, Principal::anonymous(), "counts", vec![]);
        let [global, heap, stable] = counts(&answer.unwrap());
        assert_eq!((global, heap), (stable, stable), "after kill {kill}");
        let (acknowledged, sent) = (
            acknowledged.load(Ordering::SeqCst),
            sent.load(Ordering::SeqCst),
        );
        assert!(
            (acknowledged..=sent).contains(&global),
            "after kill {kill}: {global} were counted, {acknowledged} acknowledged, {sent} sent"
        );
        std::mem::forget(pic);
    }
    println!(
        "{KILLS} kills, {} acknowledged, {} sent",
        acknowledged.load(Ordering::SeqCst),
        sent.load(Ordering::SeqCst)
    );
}

#[test]
fn an_instance_that_is_deleted_and_opened_again_has_its_state() {
    let state = tempfile::tempdir().unwrap();
    let server = Server::start();
    let pic = server.instance(state.path());
    let canister = pic.create_canister();
    pic.add_cycles(canister, 1_000_000_000_000_000);
    pic.install_canister(canister, code(), vec![], None);
    for _ in 0..3 {
        pic.update_call(canister, Principal::anonymous(), "bump", vec![])
            .unwrap();
    }
    let time = pic.get_time();
    drop(pic);
    // Nothing is left to do again: the checkpoint has it all.
    let journals: Vec<_> = fs::read_dir(state.path())
        .unwrap()
        .map(Result::unwrap)
        .filter(|file| file.file_name().to_string_lossy().starts_with("journal-"))
        .map(|file| file.metadata().unwrap().len())
        .collect();
    assert_eq!(journals, [8]);

    let pic = PocketIcBuilder::new()
        .with_server_url(server.url.clone())
        .with_state_dir(state.path().to_owned())
        .build();
    assert_eq!(pic.get_time(), time);
    let answer = pic.query_call(canister, Principal::anonymous(), "counts", vec![]);
    assert_eq!(counts(&answer.unwrap()), [3, 3, 3]);
}

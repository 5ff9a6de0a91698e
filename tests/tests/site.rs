//! The chat's page: `dfx.json` deploys it, and every answer verifies as gateways verify it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use candid::Principal;
use candid_parser::{
    parse_idl_args,
    utils::{CandidSource, instantiate_candid},
};
use integration_tests::{Setup, exchange::Exchange, index, operator, wasm};
use openstorage_types::chat::InitArgs;
use pocket_ic::{PocketIc, PocketIcBuilder};
use serde_json::{Value, json};

const GZIP: (&str, &str) = ("Accept-Encoding", "br;q=1.0, gzip;q=0.8");

const ORIGINS: &str = "/.well-known/ii-alternative-origins";
const DOMAINS: &str = "/.well-known/ic-domains";

/// Only a network with an NNS has a root key.
fn network() -> PocketIc {
    let builder = PocketIcBuilder::new().with_nns_subnet();
    builder.with_application_subnet().build()
}

fn deployed() -> Setup {
    Setup::deploy(network(), Default::default())
}

fn ask(setup: &Setup, method: &'static str, url: &str, headers: &[(&str, &str)]) -> Exchange {
    Exchange::of(setup, setup.chat, method, url, headers)
}

fn get(setup: &Setup, url: &str) -> Exchange {
    ask(setup, "GET", url, &[])
}

/// The paths of all that the page is made of, as the page names them.
fn paths(setup: &Setup) -> Vec<String> {
    let page = get(setup, "/");
    let html = String::from_utf8(page.answer.body.into_vec()).expect("HTML");
    let named = html.split('"').filter(|text| text.starts_with('/'));
    let mut paths: Vec<String> = named.map(String::from).collect();
    assert_eq!(paths.len(), 3, "an icon, a style and a script: {html}");
    paths.extend(["/", "/env.json", ORIGINS, DOMAINS].map(String::from));
    paths
}

#[test]
fn every_file_verifies_plain_and_gzipped_and_with_nothing_changed() {
    let setup = deployed();
    let mut gzipped = 0;
    for path in paths(&setup) {
        for headers in [&[][..], &[GZIP]] {
            let exchange = ask(&setup, "GET", &path, headers);
            assert_eq!(exchange.answer.status_code, 200, "{path}");
            exchange.assert_certified(&setup);
            exchange.assert_no_change_passes(&setup);
            let coding = exchange.answer.header("content-encoding");
            let is_packed = exchange.answer.body.starts_with(&[0x1f, 0x8b]);
            assert_eq!(coding == Some("gzip"), is_packed, "{path}");
            gzipped += usize::from(is_packed);
            assert!(!is_packed || !headers.is_empty(), "{path}: nobody asked");
        }
    }
    assert!(gzipped >= 3, "page, style and script are shorter gzipped");
}

#[test]
fn a_head_request_and_a_conditional_one_get_what_a_gateway_can_verify() {
    let setup = deployed();
    for path in paths(&setup) {
        let whole = get(&setup, &path);
        // A gateway drops the body of the answer to HEAD, having verified it.
        for (method, headers) in [
            ("HEAD", &[][..]),
            ("GET", &[("If-None-Match", "*")]),
            ("GET", &[("Range", "bytes=1-2")]),
        ] {
            let exchange = ask(&setup, method, &path, headers);
            assert_eq!(exchange.answer.status_code, 200, "{method} {path}");
            assert_eq!(exchange.answer.body, whole.answer.body, "{method} {path}");
            exchange.assert_certified(&setup);
        }
        // What follows the path changes nothing, nor does another way to write it.
        let encoded = path.replacen("e", "%65", 1);
        for url in [
            format!("{path}?canisterId=x&y=%00"),
            format!("/{path}"),
            encoded,
        ] {
            let same = get(&setup, &url);
            assert_eq!(same.answer.body, whole.answer.body, "{url}");
            same.assert_certified(&setup);
        }
    }
}

#[test]
fn a_path_that_is_not_there_gets_a_404_that_verifies() {
    let setup = deployed();
    let page = get(&setup, "/");
    for path in [
        "/nothing",
        "/index.html",
        "/assets",
        "/assets/",
        "/assets/main.js",
        "/env.json/",
        "/env.json/more",
        "/status/",
        "/a/b/c/d/e/f",
        "/%2e%2e/env.json",
        "//nothing",
        "/a%20b",
        "/a//b/",
        "/%C3%BC",
        "/%E2%9C%93?q",
    ] {
        let exchange = get(&setup, path);
        assert_eq!(exchange.answer.status_code, 404, "{path}");
        exchange.assert_certified(&setup);
        exchange.assert_no_change_passes(&setup);
        // A node cannot show the page there, nor hide the page behind this answer.
        let mut shown = exchange.clone();
        shown.answer = page.answer.clone();
        shown.assert_refused(&setup, "the page in its place");
        let mut hidden = page.clone();
        hidden.answer = exchange.answer;
        hidden.assert_refused(&setup, "a 404 in its place");
    }
}

#[test]
fn no_file_passes_for_another_and_nothing_for_the_operators_pages_proof() {
    let setup = deployed();
    let files: Vec<Exchange> = paths(&setup).iter().map(|path| get(&setup, path)).collect();
    for one in &files {
        for other in files.iter().filter(|other| other.url != one.url) {
            let mut swapped = one.clone();
            swapped.answer = other.answer.clone();
            swapped.assert_refused(&setup, &format!("the answer of {}", other.url));
        }
    }
    for url in ["/status", "/metrics", "/logs"] {
        let open = get(&setup, url);
        let info = open
            .verify(&setup)
            .expect("a proof that nothing is certified");
        assert!(info.response.is_none(), "{url} says that it is certified");
        let mut swapped = files[0].clone();
        swapped.answer = open.answer;
        swapped.assert_refused(&setup, &format!("the proof of {url}"));
    }
    let posted = ask(&setup, "POST", "/", &[]);
    assert_eq!(posted.answer.status_code, 405);
}

#[test]
fn the_page_verifies_after_an_upgrade_and_names_its_canisters() {
    let setup = deployed();
    let names = |setup: &Setup| -> Value {
        let env = get(setup, "/env.json");
        env.assert_certified(setup);
        serde_json::from_slice(&env.answer.body).expect("JSON")
    };
    let expected =
        json!({ "index": setup.index.to_text(), "chat": setup.chat.to_text(), "origins": [] });
    assert_eq!(names(&setup), expected);
    setup.upgrade(setup.chat, "chat").unwrap();
    setup.pic.tick();
    assert_eq!(names(&setup), expected);
    get(&setup, "/").assert_certified(&setup);
}

// dfx itself is no part of the tests: what it does with a custom canister is played here, in its order.

/// `dfx.json`, and where it lies.
struct Project {
    root: PathBuf,
    /// By name, which is the order in which dfx installs.
    canisters: BTreeMap<String, Value>,
}

impl Project {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = fs::read(root.join("dfx.json")).expect("is there");
        let mut config: Value = serde_json::from_slice(&text).expect("JSON");
        let canisters = serde_json::from_value(config["canisters"].take()).expect("by name");
        // What `cargo xtask build` makes, which the tests are run after.
        fs::create_dir_all(root.join("target/canisters")).expect("can be made");
        Self { root, canisters }
    }

    /// Runs what builds `name` besides the Wasm, with the variables that dfx sets.
    fn build(&self, name: &str, ids: &BTreeMap<String, Principal>) {
        let steps = match &self.canisters[name]["build"] {
            Value::String(step) => vec![step.clone()],
            steps => serde_json::from_value(steps.clone()).expect("commands"),
        };
        assert_eq!(steps[0], "cargo xtask build");
        for step in &steps[1..] {
            let variables = ids.iter().map(|(name, id)| {
                let name = name.replace('-', "_").to_uppercase();
                (format!("CANISTER_ID_{name}"), id.to_text())
            });
            let mut shell = Command::new("sh");
            shell.args(["-c", step]).current_dir(&self.root);
            let status = shell.envs(variables).status().expect("a shell");
            assert!(status.success(), "{step}");
        }
    }

    /// The Wasm of `name`, and the argument that it is installed with: text, typed by the interface.
    fn installation(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let canister = &self.canisters[name];
        let text = |key: &str| canister[key].as_str();
        let file = text("wasm").and_then(|path| path.strip_prefix("target/canisters/"));
        let file = file.and_then(|file| file.strip_suffix(".wasm.gz"));
        let argument = match (text("init_arg"), text("init_arg_file")) {
            (Some(argument), None) => argument.to_string(),
            (None, Some(file)) => fs::read_to_string(self.root.join(file)).expect("was written"),
            other => panic!("{name}: dfx asks for an argument, or refuses two: {other:?}"),
        };
        let interface = self.root.join(text("candid").expect("an interface"));
        let (types, (env, _)) = instantiate_candid(CandidSource::File(&interface)).unwrap();
        let argument = parse_idl_args(&argument).expect("Candid");
        let bytes = argument.to_bytes_with_types(&env, &types).expect("fits");
        (wasm(file.expect("a built canister")), bytes)
    }
}

#[test]
fn a_plain_dfx_deploy_ends_in_a_working_page_and_may_be_repeated() {
    let project = Project::read();
    let pic = network();
    let sender = Some(operator());
    let ids: BTreeMap<String, Principal> = project
        .canisters
        .keys()
        .map(|name| {
            let id = pic.create_canister_with_settings(sender, None);
            pic.add_cycles(id, 100_000_000_000_000);
            (name.clone(), id)
        })
        .collect();
    for name in ids.keys() {
        project.build(name, &ids);
    }
    for (name, id) in &ids {
        let (wasm, argument) = project.installation(name);
        pic.install_canister(*id, wasm, argument, sender);
    }
    let mut setup = Setup {
        pic,
        index: ids["data_bucket_index"],
        bucket: Principal::anonymous(),
        chat: ids["chat"],
    };
    setup.bucket = setup.settle("index and chat have found each other", |setup| {
        let is_trusted = !index::issuers(setup).is_empty();
        setup
            .active_buckets()
            .first()
            .copied()
            .filter(|_| is_trusted)
    });
    let shows_the_page = || {
        let page = get(&setup, "/");
        page.assert_certified(&setup);
        let html = String::from_utf8_lossy(&page.answer.body);
        assert!(html.contains("<title>OpenStorage Chat</title>"), "{html}");
    };
    shows_the_page();
    // A user gets all the way.
    let (alice, room) = setup.user_with_chat(1);
    setup.upload(alice, b"the first file", room.accessor_id);

    setup.pic.stop_canister(setup.chat, sender).unwrap();
    let (wasm, argument) = project.installation("chat");
    let upgraded = setup
        .pic
        .upgrade_canister(setup.chat, wasm, argument, sender);
    upgraded.expect("the same argument again");
    setup.pic.start_canister(setup.chat, sender).unwrap();
    setup.pic.tick();
    shows_the_page();
}

/// Internet Identity gives a user one principal at all origins that the canister names, and reads the list from a page
/// of its own.
#[test]
fn further_origins_of_the_page_are_told_certified_and_stay_over_upgrades() {
    let setup = deployed();
    let text = |path: &str| {
        let exchange = get(&setup, path);
        exchange.assert_certified(&setup);
        let body = exchange.answer.body.clone().into_vec();
        (exchange, String::from_utf8(body).unwrap())
    };
    assert_eq!(text(ORIGINS).1, "{\"alternativeOrigins\":[]}\n");
    assert_eq!(text(DOMAINS).1, "");
    let name = "chat.example.org";
    let origin = format!("https://{name}");
    let upgrade = |origins: Option<Vec<String>>| {
        let index = setup.index;
        let arg = candid::encode_one(Some(InitArgs { index, origins })).unwrap();
        let (pic, sender) = (&setup.pic, Some(operator()));
        pic.stop_canister(setup.chat, sender).unwrap();
        let upgraded = pic.upgrade_canister(setup.chat, wasm("chat"), arg, sender);
        pic.start_canister(setup.chat, sender).unwrap();
        upgraded
    };
    assert!(upgrade(Some(vec!["http://chat.example.org".into()])).is_err());
    for origins in [Some(vec![origin.clone()]), None] {
        upgrade(origins).unwrap();
        let (exchange, list) = text(ORIGINS);
        assert_eq!(
            exchange.answer.header("content-type"),
            Some("application/json")
        );
        assert_eq!(
            exchange.answer.header("access-control-allow-origin"),
            Some("*")
        );
        let list: Value = serde_json::from_str(&list).unwrap();
        assert_eq!(list, json!({ "alternativeOrigins": [origin] }));
        let env: Value = serde_json::from_str(&text("/env.json").1).unwrap();
        assert_eq!(env["origins"], json!([origin]));
        assert_eq!(text(DOMAINS).1, format!("{name}\n"));
    }
    upgrade(Some(vec![])).unwrap();
    assert_eq!(text(ORIGINS).1, "{\"alternativeOrigins\":[]}\n");
}

//! A network with a gateway, a canister, and agents for it.

use std::sync::Arc;

use candid::Principal;
use ic_agent::{Agent, Identity, identity::AnonymousIdentity};
use openstorage_localnet::rest::{self, Config, Running};
use pocket_ic::{PocketIcBuilder, common::rest::SubnetConfigSet, nonblocking::PocketIc};

/// Counts, tells its caller, keeps and certifies 32 bytes, and fails in the ways a canister can.
const CANISTER: &str = r#"
(module
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "msg_caller_size" (func $caller_size (result i32)))
  (import "ic0" "msg_caller_copy" (func $caller_copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reject" (func $reject (param i32 i32)))
  (import "ic0" "certified_data_set" (func $certify (param i32 i32)))
  (import "ic0" "data_certificate_present" (func $has_certificate (result i32)))
  (import "ic0" "data_certificate_size" (func $certificate_size (result i32)))
  (import "ic0" "data_certificate_copy" (func $certificate_copy (param i32 i32 i32)))
  (import "ic0" "root_key_size" (func $root_key_size (result i32)))
  (import "ic0" "root_key_copy" (func $root_key_copy (param i32 i32 i32)))
  (import "ic0" "trap" (func $trap (param i32 i32)))
  (memory 4)
  (data (i32.const 8) "as asked")
  (func $answer (call $append (i32.const 0) (i32.const 4)) (call $reply))
  (func $tell_caller
    (call $caller_copy (i32.const 64) (i32.const 0) (call $caller_size))
    (call $append (i32.const 64) (call $caller_size))
    (call $reply))
  (func (export "canister_query count") (call $answer))
  (func (export "canister_update bump")
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    (call $answer))
  (func (export "canister_query caller") (call $tell_caller))
  (func (export "canister_update caller_of_update") (call $tell_caller))
  (func (export "canister_update no") (call $reject (i32.const 8) (i32.const 8)))
  (func (export "canister_update die") (call $trap (i32.const 8) (i32.const 8)))
  (func (export "canister_query refuse") (call $reject (i32.const 8) (i32.const 8)))
  (func (export "canister_update keep")
    (call $arg_copy (i32.const 128) (i32.const 0) (call $arg_size))
    (call $certify (i32.const 128) (call $arg_size))
    (call $reply))
  (func (export "canister_query certificate")
    (if (i32.eqz (call $has_certificate)) (then (call $trap (i32.const 8) (i32.const 8))))
    (call $certificate_copy (i32.const 1024) (i32.const 0) (call $certificate_size))
    (call $append (i32.const 1024) (call $certificate_size))
    (call $reply))
  (func (export "canister_query root_key")
    (call $root_key_copy (i32.const 1024) (i32.const 0) (call $root_key_size))
    (call $append (i32.const 1024) (call $root_key_size))
    (call $reply))
  (@custom "icp:public candid:service" "service : {}")
  (@custom "icp:private secret" "for controllers"))
"#;

/// A server with one instance that follows the wall clock.
pub struct Bench {
    pub pic: PocketIc,
    /// Where agents go.
    pub url: String,
    /// A canister of the test's code, controlled by the anonymous principal.
    pub canister: Principal,
    _server: Running,
}

impl Bench {
    /// With an NNS subnet, which is the root, and the canister on an application subnet, whose key the
    /// root delegates to.
    pub async fn start() -> Self {
        Self::with(SubnetConfigSet {
            nns: true,
            application: 1,
            ..Default::default()
        })
        .await
    }

    /// With one subnet, which is its own root.
    pub async fn alone() -> Self {
        Self::with(SubnetConfigSet {
            application: 1,
            ..Default::default()
        })
        .await
    }

    async fn with(subnets: SubnetConfigSet) -> Self {
        let server = rest::serve(Config {
            address: ([127, 0, 0, 1], 0).into(),
            ttl: None,
            compile_cache: None,
        })
        .await
        .unwrap();
        let url = format!("http://{}/", server.address());
        let mut pic = PocketIcBuilder::new_with_config(subnets)
            .with_server_url(url.parse().unwrap())
            .build_async()
            .await;
        let canister = pic.create_canister().await;
        pic.add_cycles(canister, 10_000_000_000_000).await;
        pic.install_canister(canister, code(), vec![], None).await;
        let url = pic.make_live(None).await.to_string();
        Self {
            pic,
            url,
            canister,
            _server: server,
        }
    }

    /// An agent that has fetched the root key.
    pub async fn agent(&self, identity: impl Identity + 'static) -> Agent {
        let agent = agent(&self.url, identity);
        agent.fetch_root_key().await.unwrap();
        agent
    }

    pub async fn anonymous(&self) -> Agent {
        self.agent(AnonymousIdentity).await
    }

    pub async fn count(&self) -> u32 {
        let anonymous = Principal::anonymous();
        let bytes = self
            .pic
            .query_call(self.canister, anonymous, "count", vec![])
            .await
            .unwrap();
        u32::from_le_bytes(bytes.try_into().unwrap())
    }
}

pub fn code() -> Vec<u8> {
    wat::parse_str(CANISTER).unwrap()
}

/// An agent that believes in the mainnet's root key until it is told another.
pub fn agent(url: &str, identity: impl Identity + 'static) -> Agent {
    Agent::builder()
        .with_url(url)
        .with_arc_identity(Arc::new(identity))
        .with_verify_query_signatures(true)
        .build()
        .unwrap()
}

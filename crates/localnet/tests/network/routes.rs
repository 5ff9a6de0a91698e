//! The routes that the official client does not know.

use std::time::Duration;

use openstorage_localnet::rest::{self, Config};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn accounts_and_faults_go_over_http() {
    let running = rest::serve(Config {
        address: ([127, 0, 0, 1], 0).into(),
        ttl: Some(Duration::from_secs(60)),
        compile_cache: None,
    })
    .await
    .unwrap();
    let base = format!("http://{}", running.address());
    let client = Client::new();
    let post = async |path: &str, body: Value| {
        let request = client.post(format!("{base}{path}")).body(body.to_string());
        let request = request.header("content-type", "application/json");
        request.send().await.unwrap()
    };
    let get = async |path: &str| -> Value {
        let answer = client.get(format!("{base}{path}")).send().await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    };
    let spec = json!({"state_config": "New", "instruction_config": "Production", "subnet_admins": null, "cost_schedule": "Normal"});
    let instance = json!({
        "subnet_config_set": {
            "nns": null, "sns": null, "ii": null, "fiduciary": null, "bitcoin": null,
            "test_threshold_keys": null, "system": [], "application": [spec], "cloud_engine": [],
            "verified_application": []
        },
        "http_gateway_config": null, "state_dir": null, "icp_config": null, "log_level": null,
        "bitcoind_addr": null, "dogecoind_addr": null, "icp_features": null,
        "incomplete_state": null, "initial_time": null, "mainnet_nns_subnet_id": null,
        "disable_ingress_validation": null
    });
    let created = post("/instances", instance).await;
    assert_eq!(
        created.status(),
        StatusCode::CREATED,
        "{}",
        created.text().await.unwrap()
    );

    let kept = post("/instances/0/accounts", json!({"capacity": 10})).await;
    assert_eq!(kept.status(), StatusCode::OK);
    let page = get("/instances/0/accounts?after=0&max=5").await;
    assert_eq!(page["accounts"], json!([]));
    assert_eq!(page["money"]["minted"], json!(0));

    let fault = json!({"halt_subnet": {"subnet": 0, "rounds": 2}});
    let plan = json!({"rules": [{"site": "round", "nth": 1, "fault": fault}]});
    let set = post("/instances/0/faults", plan).await;
    assert_eq!(
        set.status(),
        StatusCode::OK,
        "{}",
        set.text().await.unwrap()
    );
    post("/instances/0/update/tick", json!({"blockmakers": null})).await;
    let log = get("/instances/0/faults").await;
    assert_eq!(log[0]["fault"], fault);
    let wrong = json!({"rules": [{"site": "round", "nth": 1, "fault": "reject"}]});
    let refused = post("/instances/0/faults", wrong).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    running.stop().await;
}

//! Certified pages through the gateway.

use candid::{CandidType, Encode};
use ic_agent::Agent;
use ic_http_certification::{
    CERTIFICATE_EXPRESSION_HEADER_NAME, DefaultCelBuilder, DefaultResponseCertification,
    HttpCertification, HttpCertificationPath, HttpCertificationTree, HttpCertificationTreeEntry,
    HttpResponse, utils::add_v2_certificate_header,
};
use serde_bytes::ByteBuf;

use crate::support::Bench;

#[derive(CandidType, Clone)]
struct Page {
    status_code: u16,
    headers: Vec<(String, String)>,
    body: ByteBuf,
    upgrade: Option<bool>,
}

/// The page at `/hello`, certified by the bench's canister.
async fn certified(bench: &Bench, agent: &Agent) -> Page {
    let expression = DefaultCelBuilder::response_only_certification()
        .with_response_certification(DefaultResponseCertification::certified_response_headers(
            vec!["Content-Type"],
        ))
        .build();
    let mut response = HttpResponse::ok(
        b"hello".to_vec(),
        vec![
            ("Content-Type".into(), "text/plain".into()),
            (
                CERTIFICATE_EXPRESSION_HEADER_NAME.into(),
                expression.to_string(),
            ),
        ],
    )
    .build();
    let path = HttpCertificationPath::exact("/hello");
    let certification = HttpCertification::response_only(&expression, &response, None).unwrap();
    let entry = HttpCertificationTreeEntry::new(&path, certification);
    let mut tree = HttpCertificationTree::default();
    tree.insert(&entry);
    let kept = agent.update(&bench.canister, "keep");
    kept.with_arg(tree.root_hash())
        .call_and_wait()
        .await
        .unwrap();
    let certificate = agent.query(&bench.canister, "certificate");
    let certificate = certificate.call().await.unwrap();
    let witness = tree.witness(&entry, "/hello").unwrap();
    add_v2_certificate_header(&certificate, &mut response, &witness, &path.to_expr_path());
    Page {
        status_code: 200,
        headers: response.headers().to_vec(),
        body: ByteBuf::from(response.body()),
        upgrade: None,
    }
}

/// What a browser gets at `/hello`: status, `x-ic-verified` and body.
async fn get(bench: &Bench, host: &str) -> (u16, String, String) {
    let request = reqwest::Client::new().get(format!("{}hello", bench.url));
    let host = format!("{}.{host}", bench.canister);
    let response = request.header("host", host).send().await.unwrap();
    let status = response.status().as_u16();
    let verified = response.headers()["x-ic-verified"].to_str().unwrap();
    let verified = verified.to_owned();
    (status, verified, response.text().await.unwrap())
}

#[tokio::test]
async fn what_a_canister_certified_is_served_and_nothing_else() {
    for bench in [Bench::start().await, Bench::alone().await] {
        let agent = bench.anonymous().await;
        let page = certified(&bench, &agent).await;
        let show = async |page: &Page| {
            let shown = agent.update(&bench.canister, "page");
            let shown = shown.with_arg(Encode!(page).unwrap());
            shown.call_and_wait().await.unwrap();
        };
        show(&page).await;
        let (status, verified, body) = get(&bench, "localhost").await;
        assert_eq!((status, verified.as_str()), (200, "true"), "{body}");
        assert_eq!(body, "hello");

        let mut other_body = page.clone();
        other_body.body[0] ^= 1;
        let mut other_header = page.clone();
        other_header.headers[0].1 = "text/html".into();
        let mut no_certificate = page.clone();
        no_certificate.headers.truncate(1);
        for changed in [other_body, other_header, no_certificate] {
            show(&changed).await;
            let (status, verified, why) = get(&bench, "localhost").await;
            assert_eq!((status, verified.as_str()), (503, "false"), "{why}");
            assert!(why.contains("verification failed"), "{why}");
            let (status, verified, _) = get(&bench, "raw.localhost").await;
            assert_eq!((status, verified.as_str()), (200, "false"));
        }
    }
}

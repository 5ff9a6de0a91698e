//! A canister's HTTP answer under the verifier that gateways have built in.

use candid::Principal;
use ic_http_certification::{self as certified, Method, StatusCode};
use ic_response_verification::{types::VerificationInfo, verify_request_response_pair};
use openstorage_types::http::HttpResponse;

use crate::{Setup, bucket};

/// How old a certificate may be, as gateways have it.
const AGE_MAX_NS: u128 = 300_000_000_000;

/// A request and its answer. To verify it takes a network with an NNS: no other has a root key.
#[derive(Clone)]
pub struct Exchange {
    pub canister: Principal,
    pub method: &'static str,
    /// Path and query; no scheme, no host.
    pub url: String,
    pub answer: HttpResponse,
}

impl Exchange {
    /// Asks `canister`, as a gateway hands a request on.
    pub fn of(
        setup: &Setup,
        canister: Principal,
        method: &'static str,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        Self {
            canister,
            method,
            url: url.into(),
            answer: bucket::request(setup, canister, method, url, headers),
        }
    }

    /// What the verifier takes of it. Its `response` is none where the canister proves that nothing is certified
    /// there.
    ///
    /// # Errors
    /// In the verifier's words, where a gateway would show nothing of the answer.
    pub fn verify(&self, setup: &Setup) -> Result<VerificationInfo, String> {
        let method = Method::from_bytes(self.method.as_bytes()).unwrap();
        let request = certified::HttpRequest::builder()
            .with_method(method)
            .with_url(self.url.as_str())
            .build();
        let response = certified::HttpResponse::builder()
            .with_status_code(StatusCode::from_u16(self.answer.status_code).unwrap())
            .with_headers(self.answer.headers.clone())
            .with_body(self.answer.body.as_ref())
            .build();
        let pic = &setup.pic;
        let now = pic.get_time().as_nanos_since_unix_epoch();
        verify_request_response_pair(
            request,
            response,
            self.canister.as_slice(),
            now.into(),
            AGE_MAX_NS,
            &pic.root_key().expect("the network has a root key"),
            2,
        )
        .map_err(|error| error.to_string())
    }

    /// # Panics
    /// Unless all that was sent is certified, and nothing that was not.
    #[track_caller]
    pub fn assert_certified(&self, setup: &Setup) {
        let kind = self.kind();
        match self.verify(setup) {
            Ok(VerificationInfo {
                response: Some(response),
                ..
            }) => {
                assert_eq!(response.status_code, Some(self.answer.status_code));
                let (certified, sent) = (response.headers.len(), self.answer.headers.len());
                assert_eq!(certified, sent, "headers of {kind}");
            }
            Ok(_) => panic!("{kind} says that it is not certified"),
            Err(error) => panic!("{kind}: {error}"),
        }
    }

    /// # Panics
    /// When a gateway would take it, with `what` done to it.
    #[track_caller]
    pub fn assert_refused(&self, setup: &Setup, what: &str) {
        let taken = self.verify(setup);
        assert!(taken.is_err(), "{} verifies with {what}", self.kind());
    }

    /// # Panics
    /// When a gateway would take it with any one thing changed that a node could change.
    #[track_caller]
    pub fn assert_no_change_passes(&self, setup: &Setup) {
        for (what, changed) in self.changes() {
            changed.assert_refused(setup, &what);
        }
    }

    fn kind(&self) -> String {
        format!("{} {} {}", self.method, self.url, self.answer.status_code)
    }

    fn changes(&self) -> Vec<(String, Self)> {
        let mut changed = vec![];
        let mut with = |what: String, change: &dyn Fn(&mut HttpResponse)| {
            let mut exchange = self.clone();
            change(&mut exchange.answer);
            changed.push((what, exchange));
        };
        for status in [200, 206, 304, 404, 416] {
            if status != self.answer.status_code {
                with(format!("status {status}"), &|answer| {
                    answer.status_code = status
                });
            }
        }
        with("a byte more".into(), &|answer| answer.body.push(0));
        if let Some(last) = self.answer.body.len().checked_sub(1) {
            for at in [0, last] {
                with(format!("byte {at} changed"), &|answer| answer.body[at] ^= 1);
            }
            with("a byte less".into(), &|answer| {
                answer.body.pop();
            });
        }
        for (at, (name, _)) in self.answer.headers.iter().enumerate() {
            with(format!("{name} changed"), &|answer| {
                answer.headers[at].1.push('0')
            });
            with(format!("no {name}"), &|answer| {
                answer.headers.remove(at);
            });
        }
        with("another header".into(), &|answer| {
            let header = ("Set-Cookie".into(), "a=b".into());
            answer.headers.push(header);
        });
        changed
    }
}

//! The page that browsers get: the app that `web/` builds, embedded, and certified so that a gateway
//! believes it.
//!
//! The certification tree holds, by path, the hash of every answer there can be (HTTP Gateway Protocol,
//! version 2 of response certification); its root is the canister's certified data. It is made anew at
//! each installation and upgrade, and never changes in between.

use std::collections::BTreeMap;

use candid::Principal;
use ic_http_certification::{
    CERTIFICATE_EXPRESSION_HEADER_NAME, DefaultCelBuilder, DefaultResponseCertification,
    DefaultResponseOnlyCelExpression, HttpCertification, HttpCertificationPath,
    HttpCertificationTree, HttpCertificationTreeEntry, HttpResponse as Certified, StatusCode,
    utils::add_v2_certificate_header,
};
use openstorage_types::{
    http::{HttpRequest, HttpResponse},
    limits::ORIGIN_BYTES_MAX,
};
use serde_bytes::ByteBuf;

/// What operators read. It changes all the time and is not certified; the tree says so.
pub const STATUS: &str = "/status";
pub const METRICS: &str = "/metrics";
pub const LOGS: &str = "/logs";

/// Which canisters the page talks to, and where else it is served.
const ENV: &str = "/env.json";

/// The further origins, as Internet Identity asks for them: users who sign in there are those of the canister's own.
const ALTERNATIVE_ORIGINS: &str = "/.well-known/ii-alternative-origins";

/// Their names, as the boundary nodes ask for them before they serve the canister there.
const DOMAINS: &str = "/.well-known/ic-domains";

/// What only this page's own files may do. `wasm-unsafe-eval` and `blob:` workers are for hashing; pictures
/// and films come from buckets, which are hosts of their own below the gateway's.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; \
    worker-src blob:; style-src 'self'; \
    img-src 'self' blob: data: http://*.localhost:* https://*.icp0.io; \
    media-src blob: http://*.localhost:* https://*.icp0.io; \
    connect-src 'self' https://icp-api.io; manifest-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One file of the app.
struct File {
    /// Its path below the app's folder.
    name: &'static str,
    bytes: &'static [u8],
    /// The same, gzipped, where that is shorter.
    gzipped: Option<&'static [u8]>,
}

static FILES: &[File] = &include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// One answer with its place in the tree.
struct Answer {
    response: Certified<'static>,
    certification: HttpCertification,
}

/// What a path answers.
struct Resource {
    plain: Answer,
    gzipped: Option<Answer>,
}

pub struct Site {
    resources: BTreeMap<String, Resource>,
    /// For every other path.
    missing: Answer,
    tree: HttpCertificationTree,
}

impl Site {
    /// The page of the chat `own`, whose files lie with the buckets of `index`. It is served at `origins` too.
    pub fn new(own: Principal, index: Principal, origins: &[String]) -> Self {
        let mut resources: BTreeMap<String, Resource> = FILES
            .iter()
            .map(|file| (path_of(file), resource(file)))
            .collect();
        // Origins have no character that needs an escape.
        let quoted: Vec<_> = origins.iter().map(|origin| format!("{origin:?}")).collect();
        let list = quoted.join(",");
        let env = format!("{{\"index\":\"{index}\",\"chat\":\"{own}\",\"origins\":[{list}]}}\n");
        let alternatives = format!("{{\"alternativeOrigins\":[{list}]}}\n");
        let names = origins
            .iter()
            .map(|origin| origin.trim_start_matches(SCHEME));
        let domains: String = names.map(|name| format!("{name}\n")).collect();
        let open = ("Access-Control-Allow-Origin".to_string(), "*".to_string());
        for (path, name, body, more) in [
            (ENV, "env.json", env, None),
            (
                ALTERNATIVE_ORIGINS,
                "origins.json",
                alternatives,
                Some(open),
            ),
            (DOMAINS, "domains.txt", domains, None),
        ] {
            let headers = headers(name, "no-cache").into_iter().chain(more).collect();
            let plain = answer(200, headers, body.into_bytes());
            let gzipped = None;
            resources.insert(path.into(), Resource { plain, gzipped });
        }
        let text = "there is nothing here: the page is at /\n";
        let missing = answer(404, headers("missing.txt", "no-store"), text.into());

        let mut tree = HttpCertificationTree::default();
        for (path, Resource { plain, gzipped }) in &resources {
            for Answer { certification, .. } in [plain].into_iter().chain(gzipped) {
                let path = HttpCertificationPath::exact(path);
                tree.insert(&HttpCertificationTreeEntry::new(path, certification));
            }
        }
        tree.insert(&HttpCertificationTreeEntry::new(
            everywhere(),
            missing.certification,
        ));
        for path in [STATUS, METRICS, LOGS] {
            let path = HttpCertificationPath::exact(path);
            tree.insert(&HttpCertificationTreeEntry::new(
                path,
                HttpCertification::skip(),
            ));
        }
        Self {
            resources,
            missing,
            tree,
        }
    }

    pub fn root_hash(&self) -> [u8; 32] {
        self.tree.root_hash()
    }

    /// What is at `path`, as [`path_in`] reads it.
    pub fn respond(
        &self,
        path: &str,
        request: &HttpRequest,
        certificate: Option<&[u8]>,
    ) -> HttpResponse {
        let (Answer { response, .. }, at, certification) = match self.resources.get(path) {
            Some(resource) => {
                let answer = resource.best_for(request);
                let at = HttpCertificationPath::exact(path);
                (answer, at, &answer.certification)
            }
            None => (&self.missing, everywhere(), &self.missing.certification),
        };
        self.certified(response.clone(), path, at, certification, certificate)
    }

    /// An answer of the operators' pages, which gateways let pass as it is.
    pub fn pass(
        &self,
        path: &str,
        response: HttpResponse,
        certificate: Option<&[u8]>,
    ) -> HttpResponse {
        let mut headers = response.headers;
        let expression = DefaultCelBuilder::skip_certification().to_string();
        headers.push((CERTIFICATE_EXPRESSION_HEADER_NAME.into(), expression));
        let status = StatusCode::from_u16(response.status_code).unwrap_or_default();
        let response = Certified::builder()
            .with_status_code(status)
            .with_headers(headers)
            .with_body(response.body.into_vec())
            .build();
        let at = HttpCertificationPath::exact(path);
        let skip = HttpCertification::skip();
        self.certified(response, path, at, &skip, certificate)
    }

    /// With the certificate and the way to its place in the tree. An update call has no certificate, and
    /// needs none.
    fn certified(
        &self,
        mut response: Certified<'static>,
        path: &str,
        at: HttpCertificationPath<'_>,
        certification: &HttpCertification,
        certificate: Option<&[u8]>,
    ) -> HttpResponse {
        let entry = HttpCertificationTreeEntry::new(at.clone(), certification);
        if let Some(certificate) = certificate
            && let Ok(witness) = self.tree.witness(&entry, path)
        {
            add_v2_certificate_header(certificate, &mut response, &witness, &at.to_expr_path());
        }
        HttpResponse {
            status_code: response.status_code().as_u16(),
            headers: response.headers().to_vec(),
            body: ByteBuf::from(response.body().to_vec()),
        }
    }
}

impl Resource {
    fn best_for(&self, request: &HttpRequest) -> &Answer {
        let accepted = request.header("accept-encoding").unwrap_or_default();
        let takes_gzip = accepted
            .split(',')
            .any(|coding| coding.split(';').next().unwrap_or_default().trim() == "gzip");
        match &self.gzipped {
            Some(gzipped) if takes_gzip => gzipped,
            _ => &self.plain,
        }
    }
}

/// The path of `url` as gateways read it when they verify: decoded, and without empty parts, save for the one that a
/// `/` at its end makes. `//assets/%61` is `/assets/a`.
pub fn path_in(url: &str) -> String {
    let request = ic_http_certification::HttpRequest::get(url).build();
    // What is no URL is no path of the page either.
    let path = request.get_path().unwrap_or_else(|_| url.into());
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if path.ends_with('/') {
        parts.push("");
    }
    format!("/{}", parts.join("/"))
}

const SCHEME: &str = "https://";

/// `https://` and a name, as browsers write an origin: in lower case, without a path.
pub fn is_origin(text: &str) -> bool {
    let is_part = |part: &str| {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !part.is_empty() && part.bytes().all(allowed)
    };
    let name = text.strip_prefix(SCHEME).unwrap_or_default();
    text.len() <= ORIGIN_BYTES_MAX && name.contains('.') && name.split('.').all(is_part)
}

fn everywhere() -> HttpCertificationPath<'static> {
    HttpCertificationPath::wildcard("/")
}

/// `/` for the page itself.
fn path_of(file: &File) -> String {
    match file.name {
        "index.html" => "/".into(),
        name => format!("/{name}"),
    }
}

fn resource(file: &File) -> Resource {
    // A file in assets/ has a hash of its content in its name.
    let caching = if file.name.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let mut headers = headers(file.name, caching);
    if file.gzipped.is_some() {
        headers.push(("Vary".into(), "Accept-Encoding".into()));
    }
    let gzipped = file.gzipped.map(|bytes| {
        let mut headers = headers.clone();
        headers.push(("Content-Encoding".into(), "gzip".into()));
        answer(200, headers, bytes.to_vec())
    });
    let plain = answer(200, headers, file.bytes.to_vec());
    Resource { plain, gzipped }
}

/// Headers of a file of that name.
fn headers(name: &str, caching: &str) -> Vec<(String, String)> {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let content_type = match extension {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        _ => "text/plain; charset=utf-8",
    };
    [
        ("Content-Type", content_type),
        ("Cache-Control", caching),
        ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
        ("X-Content-Type-Options", "nosniff"),
        // A blob's URL carries a token, and the page's a room.
        ("Referrer-Policy", "no-referrer"),
        // Signing in opens a window that answers this one.
        ("Cross-Origin-Opener-Policy", "same-origin-allow-popups"),
        (
            "Permissions-Policy",
            "camera=(), microphone=(), geolocation=()",
        ),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into()
}

fn answer(status: u16, mut headers: Vec<(String, String)>, body: Vec<u8>) -> Answer {
    let expression = expression();
    headers.push((
        CERTIFICATE_EXPRESSION_HEADER_NAME.into(),
        expression.to_string(),
    ));
    let response = Certified::builder()
        .with_status_code(StatusCode::from_u16(status).unwrap_or_default())
        .with_headers(headers)
        .with_body(body)
        .build();
    let certification = HttpCertification::response_only(&expression, &response, None)
        .expect("the response carries the expression that it is certified under");
    Answer {
        response,
        certification,
    }
}

/// Status, all headers and the body are certified; whoever asked and how is not.
fn expression() -> DefaultResponseOnlyCelExpression<'static> {
    DefaultCelBuilder::response_only_certification()
        .with_response_certification(DefaultResponseCertification::response_header_exclusions(
            vec![],
        ))
        .build()
}

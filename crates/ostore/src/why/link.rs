//! A blob's URL, and what is wrong with its form.

use candid::Principal;
use openstorage_types::BlobId;
use reqwest::Url;

use super::Verdict;

/// Where the Internet Computer takes calls.
const MAINNET: &str = "https://icp-api.io";
/// Gateways' domains of the Internet Computer.
const MAINNET_DOMAINS: [&str; 3] = ["icp0.io", "ic0.app", "icp.net"];
/// Before the accessor where a client asks for ranges of its own.
const SEEKABLE: &str = "m/";

/// `http(s)://{bucket}.{gateway}/{accessor_id}/{blob_id}?token=…`, or `?canisterId={bucket}&token=…`.
#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    /// Where calls are taken.
    pub network: String,
    pub bucket: Principal,
    pub accessor_id: Principal,
    pub blob_id: BlobId,
    pub token: String,
}

impl Link {
    pub fn parse(text: &str) -> Result<Self, Verdict> {
        let url = Url::parse(text)
            .map_err(|error| Verdict::no_url(format!("this is no URL ({error})")))?;
        let host = url.host_str().unwrap_or_default();
        let named = url.query_pairs().find(|(name, _)| name == "canisterId");
        let first = host.split('.').next().unwrap_or_default();
        let bucket = match &named {
            Some((_, id)) => Principal::from_text(id.as_ref()),
            None => Principal::from_text(first),
        };
        let bucket = bucket.map_err(|_| {
            Verdict::no_url(format!(
                "neither the host `{host}` nor a `canisterId` names a bucket"
            ))
        })?;
        let (accessor_id, blob_id) = path(url.path())?;
        Ok(Self {
            network: network(&url),
            bucket,
            accessor_id,
            blob_id,
            token: token(url.query().unwrap_or_default())?,
        })
    }
}

fn network(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    if MAINNET_DOMAINS.iter().any(|domain| host.ends_with(domain)) {
        return MAINNET.into();
    }
    let name = if host.ends_with("localhost") {
        "localhost"
    } else {
        host
    };
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    format!("{}://{name}{port}", url.scheme())
}

fn path(path: &str) -> Result<(Principal, BlobId), Verdict> {
    let whole = path.strip_prefix('/').unwrap_or(path);
    let whole = whole.strip_prefix(SEEKABLE).unwrap_or(whole);
    let Some((accessor, blob)) = whole.split_once('/') else {
        return Err(Verdict::form(format!(
            "the path `{path}` is not /{{accessor_id}}/{{blob_id}}"
        )));
    };
    let accessor_id = Principal::from_text(accessor)
        .ok()
        .filter(|id| id.to_text() == accessor)
        .ok_or_else(|| Verdict::form(format!("`{accessor}` is no principal in its usual form")))?;
    let blob_id = blob.parse().map_err(|_| {
        Verdict::form(format!(
            "`{blob}` is no blob id: that is 64 lower-case hexadecimal digits"
        ))
    })?;
    Ok((accessor_id, blob_id))
}

fn token(query: &str) -> Result<String, Verdict> {
    let mut tokens = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("token="));
    let token = tokens
        .next()
        .ok_or_else(|| Verdict::token("the URL has no `token=`".into()))?;
    if tokens.next().is_some() {
        return Err(Verdict::token("the URL has more than one `token=`".into()));
    }
    Ok(token.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCESSOR: &str = "ryjl3-tyaaa-aaaaa-aaaba-cai";
    const BUCKET: &str = "rrkah-fqaaa-aaaaa-aaaaq-cai";

    fn blob() -> String {
        "ab".repeat(32)
    }

    #[test]
    fn every_form_of_a_url_names_the_same_blob() {
        let blob = blob();
        let local = "http://localhost:8080";
        for (url, network) in [
            (
                format!("http://{BUCKET}.localhost:8080/{ACCESSOR}/{blob}?token=t"),
                local,
            ),
            (
                format!("http://{BUCKET}.raw.localhost:8080/m/{ACCESSOR}/{blob}?token=t"),
                local,
            ),
            (
                format!("http://localhost:8080/{ACCESSOR}/{blob}?canisterId={BUCKET}&token=t"),
                local,
            ),
            (
                format!("https://{BUCKET}.icp0.io/{ACCESSOR}/{blob}?token=t"),
                MAINNET,
            ),
        ] {
            let link = Link::parse(&url).expect(&url);
            let expected = Link {
                network: network.into(),
                bucket: Principal::from_text(BUCKET).unwrap(),
                accessor_id: Principal::from_text(ACCESSOR).unwrap(),
                blob_id: blob.parse().unwrap(),
                token: "t".into(),
            };
            assert_eq!(link, expected, "{url}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_named() {
        let blob = blob();
        let upper = blob.to_uppercase();
        for (url, word) in [
            ("nonsense".into(), "no URL"),
            (
                format!("http://localhost:8080/{ACCESSOR}/{blob}?token=t"),
                "names a bucket",
            ),
            (
                format!("http://{BUCKET}.localhost/{ACCESSOR}?token=t"),
                "accessor_id",
            ),
            (
                format!("http://{BUCKET}.localhost/{ACCESSOR}/{upper}?token=t"),
                "lower-case",
            ),
            (
                format!("http://{BUCKET}.localhost/aaaaa/{blob}?token=t"),
                "no principal",
            ),
            (
                format!("http://{BUCKET}.localhost/{ACCESSOR}/{blob}"),
                "no `token=",
            ),
            (
                format!("http://{BUCKET}.localhost/{ACCESSOR}/{blob}?token=a&token=b"),
                "more than one",
            ),
        ] {
            let verdict = Link::parse(&url).expect_err(&url);
            assert!(verdict.because.contains(word), "{url}: {}", verdict.because);
        }
    }
}

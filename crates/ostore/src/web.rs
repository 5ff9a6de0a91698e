//! HTTP as a browser does it.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use reqwest::{Client, Url};

/// A client that reaches `url`. Browsers know that all of `.localhost` is this machine; resolvers may not.
pub fn client(url: &Url) -> Result<Client> {
    let host = url.host_str().context("the URL has no host")?;
    let mut client = Client::builder();
    if host.ends_with("localhost") {
        let port = url.port_or_known_default().unwrap_or(80);
        client = client
            .no_proxy()
            .resolve(host, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    Ok(client.build()?)
}

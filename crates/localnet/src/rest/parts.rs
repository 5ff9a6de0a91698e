//! A long body that a canister gives in parts, sent on as one.
//!
//! A canister's answer is limited to a few megabytes, so it may answer a plain GET with 206 and the
//! first part. Browsers did not ask for parts; the gateway asks for the others itself and sends one 200.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use candid::Principal;
use futures_util::stream::try_unfold;

use super::{
    gateway::Gate,
    listen::Busy,
    relay::{HttpRequest, HttpResponse, query},
};

/// `bytes FIRST-LAST/TOTAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    pub first: u64,
    pub last: u64,
    pub total: u64,
}

impl ContentRange {
    /// None unless all three numbers are there and fit each other.
    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let range = Self {
            first: first.trim().parse().ok()?,
            last: last.trim().parse().ok()?,
            total: total.trim().parse().ok()?,
        };
        (range.first <= range.last && range.last < range.total).then_some(range)
    }

    /// The range of a part that begins at `first`; a sentence, if it is none.
    pub fn of(response: &HttpResponse, first: u64) -> Result<Self, String> {
        let text = response
            .header("content-range")
            .ok_or("The canister sent a part without Content-Range.")?;
        let range = Self::parse(text)
            .ok_or_else(|| format!("The canister sent an unusable Content-Range: {text}"))?;
        if range.first != first {
            return Err(format!(
                "The canister sent a part from byte {} where byte {first} comes next.",
                range.first
            ));
        }
        if range.last - range.first + 1 != response.body.len() as u64 {
            return Err(format!(
                "The canister sent {} bytes as the part {text}.",
                response.body.len()
            ));
        }
        Ok(range)
    }
}

/// A body that is read part by part.
pub struct Parts {
    pub gate: Arc<Gate>,
    pub canister: Principal,
    /// The browser's request, which is asked again with a range.
    pub request: HttpRequest,
    pub etag: Option<String>,
    /// Where the part after the first begins.
    pub next: u64,
    pub total: u64,
    /// A browser that still reads keeps the server alive.
    pub _busy: Busy,
}

impl Parts {
    /// The whole body. A part is asked for when the one before has gone to the connection's buffer, so
    /// at most two are in memory; a part that does not fit breaks the connection off.
    pub fn body(self, first: Bytes) -> Body {
        let parts = try_unfold((Some(first), self), |(first, mut parts)| async move {
            if let Some(first) = first {
                return Ok(Some((first, (None, parts))));
            }
            match parts.following().await {
                Ok(Some(part)) => Ok(Some((part, (None, parts)))),
                Ok(None) => Ok(None),
                Err(message) => Err(std::io::Error::other(message)),
            }
        });
        Body::from_stream(parts)
    }

    async fn following(&mut self) -> Result<Option<Bytes>, String> {
        if self.next == self.total {
            return Ok(None);
        }
        let mut request = self.request.clone();
        request
            .headers
            .push(("range".into(), format!("bytes={}-", self.next)));
        let response = query(&self.gate, self.canister, &request)
            .await
            .map_err(|failure| failure.message)?;
        if response.status_code != 206 {
            return Err(format!(
                "The canister answered {} where a part was asked for.",
                response.status_code
            ));
        }
        let range = ContentRange::of(&response, self.next)?;
        if range.total != self.total || response.header("etag") != self.etag.as_deref() {
            return Err("What the canister serves changed between two parts.".into());
        }
        self.next = range.last + 1;
        Ok(Some(response.body.into_vec().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_ranges_are_understood() {
        let range = |first, last, total| Some(ContentRange { first, last, total });
        assert_eq!(ContentRange::parse("bytes 0-9/10"), range(0, 9, 10));
        assert_eq!(ContentRange::parse("bytes 4-5/10"), range(4, 5, 10));
        for wrong in ["bytes 0-9/*", "bytes 0-10/10", "bytes 5-4/10", "0-9/10", ""] {
            assert_eq!(ContentRange::parse(wrong), None, "{wrong}");
        }
    }
}

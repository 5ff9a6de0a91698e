//! The outcome, as JSON or as text.

use serde::Serialize;
use serde_json::json;

/// A file that was stored, and what came back. The fields are the keys of the JSON object.
#[derive(Debug, Serialize)]
pub struct Report {
    pub ok: bool,
    /// SHA-256 of the file, in hex.
    pub blob_id: String,
    /// Bytes.
    pub size: u64,
    pub bucket: String,
    pub index: String,
    pub chat: String,
    pub url: String,
    /// The chat's own page.
    pub page: String,
    /// SHA-256 of what HTTP served, in hex.
    pub sha256_served: String,
    /// From before the file was hashed until the bucket had stored it.
    pub upload_ms: u64,
}

impl Report {
    /// One line of JSON, or a few for people.
    pub fn text(&self, json: bool) -> String {
        if json {
            return serde_json::to_string(self).expect("text and numbers are JSON");
        }
        let Self {
            blob_id,
            size,
            bucket,
            index,
            chat,
            url,
            page,
            upload_ms,
            ..
        } = self;
        format!(
            "\n\
             blob    {blob_id}\n\
             stored  {size} bytes in {upload_ms} ms\n\
             bucket  {bucket}\n\
             index   {index}\n\
             chat    {chat}\n\
             served  the same bytes, by their SHA-256\n\
             \n\
             the blob    {url}\n\
             the chat    {page}\n"
        )
    }
}

/// A failure as one line of JSON.
pub fn failure(error: &anyhow::Error) -> String {
    json!({ "ok": false, "error": format!("{error:#}") }).to_string()
}

//! What the index shows of itself.

use std::fmt::Write;

use openstorage_types::{
    BlobId,
    http::{HttpRequest, HttpResponse},
    index::{BucketInfo, IndexStatus},
};
use serde_json::json;

use crate::{Index, blobs::Totals, buckets::Doubt};

/// What only the system knows.
#[derive(Debug, Clone, Copy)]
pub struct Gauges {
    pub cycles: u128,
    pub stable_bytes: u64,
}

impl Index {
    pub fn buckets(&self) -> Vec<BucketInfo> {
        self.buckets
            .iter()
            .map(|(bucket, row)| BucketInfo {
                bucket: *bucket,
                state: row.state(),
                bytes_used: row.report.bytes_used,
                bytes_free: row.report.bytes_free,
                events_behind: self.events_behind(&row.cursor),
            })
            .collect()
    }

    pub fn status(&self) -> IndexStatus {
        let Totals {
            blobs,
            bytes_stored,
        } = self.blobs.totals();
        IndexStatus {
            users: self.users.living(),
            blobs,
            bytes_stored,
            buckets: self.buckets(),
            bucket_wasm_hash: self.bucket_wasm.unwrap_or(BlobId([0; 32])),
            last_creation_error: self.creation_error(),
        }
    }

    /// `GET /status` in JSON, `GET /metrics` as Prometheus reads it.
    pub fn http(&self, request: &HttpRequest, gauges: &Gauges) -> HttpResponse {
        if !["GET", "HEAD"].contains(&request.method.as_str()) {
            return HttpResponse::text(405, "text/plain", "only GET and HEAD\n");
        }
        let path = request.url.split('?').next().unwrap_or_default();
        let mut response = match path {
            "/status" => HttpResponse::text(200, "application/json", self.status_json()),
            "/metrics" => {
                HttpResponse::text(200, "text/plain; version=0.0.4", self.metrics(gauges))
            }
            _ => HttpResponse::text(404, "text/plain", "there are /status and /metrics\n"),
        };
        if request.method == "HEAD" {
            response.body.clear();
        }
        response
    }

    fn status_json(&self) -> String {
        let status = self.status();
        let buckets: Vec<_> = status
            .buckets
            .iter()
            .map(|bucket| {
                json!({
                    "bucket": bucket.bucket.to_text(),
                    "state": format!("{:?}", bucket.state),
                    "bytes_used": bucket.bytes_used,
                    "bytes_free": bucket.bytes_free,
                    "events_behind": bucket.events_behind,
                })
            })
            .collect();
        json!({
            "users": status.users,
            "blobs": status.blobs,
            "bytes_stored": status.bytes_stored,
            "buckets": buckets,
            "bucket_wasm_hash": status.bucket_wasm_hash.to_string(),
            "last_creation_error": status.last_creation_error,
        })
        .to_string()
    }

    fn metrics(&self, gauges: &Gauges) -> String {
        let status = self.status();
        let behind = status
            .buckets
            .iter()
            .map(|bucket| bucket.events_behind)
            .max();
        let doubted = self.buckets.iter();
        let doubted = doubted.filter(|(_, row)| row.doubt != Doubt::None).count();
        let rows: [(&str, &str, u128); 12] = [
            ("users", "Registered users.", status.users.into()),
            ("blobs", "Distinct blobs.", status.blobs.into()),
            (
                "stored_bytes",
                "Bytes of all copies of all blobs.",
                status.bytes_stored.into(),
            ),
            ("buckets", "Buckets.", status.buckets.len() as u128),
            (
                "log_events",
                "Events that some bucket still needs.",
                self.log.len().into(),
            ),
            (
                "behind_events_max",
                "Events that the slowest bucket has yet to hear.",
                behind.unwrap_or(0).into(),
            ),
            (
                "skipped_events",
                "Events not understood, since the last upgrade.",
                self.events_skipped.into(),
            ),
            (
                "adopted_users",
                "Users of buckets that the index did not know, since the last upgrade. Alarm: a snapshot was restored.",
                self.users_adopted.into(),
            ),
            (
                "suspected_restorations",
                "Gaps in the canister's version, since the last upgrade.",
                self.restorations_suspected.into(),
            ),
            (
                "doubted_buckets",
                "Buckets that have yet to say what they remember; nothing is granted before.",
                doubted as u128,
            ),
            ("cycles", "Cycles of the index.", gauges.cycles),
            (
                "stable_memory_bytes",
                "Bytes of stable memory.",
                gauges.stable_bytes.into(),
            ),
        ];
        let mut text = String::new();
        for (name, help, value) in rows {
            let name = format!("openstorage_index_{name}");
            writeln!(
                text,
                "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}"
            )
            .expect("a string takes everything");
        }
        text
    }
}

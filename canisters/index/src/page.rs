//! What the index shows of itself.

use candid::Principal;
use openstorage_canister::metrics;
use openstorage_types::{
    BlobId,
    http::{HttpRequest, HttpResponse},
    index::{BucketInfo, BucketState, IndexStatus, RollStatus, VERSION},
};
use serde_json::json;

use crate::{
    Context, Index,
    blobs::Totals,
    buckets::{Bucket, Doubt},
    health::{WORDS, word},
};

/// What only the system knows.
#[derive(Debug, Clone, Copy)]
pub struct Gauges {
    pub cycles: u128,
    /// Those above the freezing threshold.
    pub liquid_cycles: u128,
    pub stable_bytes: u64,
    /// Calls under way.
    pub calls: u32,
    /// Jobs whose last message has trapped.
    pub trapped_jobs: u32,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

impl Index {
    pub fn buckets(&self) -> Vec<BucketInfo> {
        self.buckets
            .iter()
            .map(|(bucket, row)| self.bucket_info(*bucket, row))
            .collect()
    }

    pub(crate) fn bucket_info(&self, bucket: Principal, row: &Bucket) -> BucketInfo {
        let upkeep = &row.upkeep;
        BucketInfo {
            bucket,
            state: self.buckets.state(&bucket, row),
            bytes_used: row.report.bytes_used,
            bytes_free: row.report.bytes_free,
            events_behind: self.events_behind(&row.cursor),
            version: row.report.version,
            module_hash: upkeep.module,
            cycles: upkeep.seen.map(|(_, seen)| seen),
            cycles_deposited: upkeep.deposited,
            last_error: upkeep.error.clone().or(upkeep.cycles_error.clone()),
            trouble: self.buckets.trouble(&bucket).cloned(),
            set_aside: row.report.set_aside,
        }
    }

    /// What a caller may see: the buckets, and what went wrong with them, are for admins, as in `buckets`.
    pub fn status_for(&self, context: &Context) -> IndexStatus {
        let status = self.status();
        if self.is_admin(context) {
            return status;
        }
        IndexStatus {
            buckets: vec![],
            roll: RollStatus {
                stopped: None,
                ..status.roll
            },
            last_creation_error: None,
            topup_withheld: None,
            ..status
        }
    }

    pub fn status(&self) -> IndexStatus {
        let Totals {
            blobs,
            bytes_stored,
        } = self.blobs.totals();
        IndexStatus {
            version: VERSION,
            users: self.users.living(),
            blobs,
            bytes_stored,
            buckets: self.buckets(),
            bucket_wasm_hash: self.bucket_wasm.unwrap_or(BlobId([0; 32])),
            roll: self.roll_status(),
            last_creation_error: self.creation_error(),
            topup_withheld: self.topup_error(),
            key: self.public_key(),
        }
    }

    /// `GET /status` in JSON, `GET /metrics` as Prometheus reads it, `GET /logs` as lines.
    pub fn http(&self, request: &HttpRequest, gauges: &Gauges) -> HttpResponse {
        if !["GET", "HEAD"].contains(&request.method.as_str()) {
            return HttpResponse::text(405, "text/plain", "only GET and HEAD\n");
        }
        let path = request.url.split('?').next().unwrap_or_default();
        let mut response = match path {
            "/status" => HttpResponse::text(200, "application/json", self.status_json(gauges)),
            "/metrics" => HttpResponse::text(200, metrics::CONTENT_TYPE, self.metrics(gauges)),
            "/logs" => HttpResponse::text(200, "text/plain; charset=utf-8", self.lines.page()),
            _ => HttpResponse::text(404, "text/plain", "there are /status, /metrics and /logs\n"),
        };
        if request.method == "HEAD" {
            response.body.clear();
        }
        response
    }

    fn status_json(&self, gauges: &Gauges) -> String {
        let status = self.status();
        let buckets: Vec<_> = status.buckets.iter().map(bucket_json).collect();
        json!({
            "version": status.version,
            "users": status.users,
            "blobs": status.blobs,
            "bytes_stored": status.bytes_stored,
            "cycles": gauges.cycles.to_string(),
            "cycles_low": self.is_low(gauges.liquid_cycles),
            "buckets": buckets,
            "bucket_wasm_hash": status.bucket_wasm_hash.to_string(),
            "roll": roll_json(&status.roll),
            "last_creation_error": status.last_creation_error,
            "topup_withheld": status.topup_withheld,
        })
        .to_string()
    }

    fn metrics(&self, gauges: &Gauges) -> String {
        let Totals {
            blobs,
            bytes_stored,
        } = self.blobs.totals();
        let mut page = metrics::Page::new("openstorage_index");
        page.gauge("version", "Version of the index's code.", VERSION);
        page.gauge("users", "Registered users.", self.users.living());
        page.gauge("blobs", "Distinct blobs.", blobs);
        let help = "Bytes of all copies of all blobs.";
        page.gauge("stored_bytes", help, bytes_stored);
        let help = "Events that some bucket still needs.";
        page.gauge("log_events", help, self.log.len());
        let help = "Events not understood, since the last upgrade.";
        page.gauge("skipped_events", help, self.events_skipped);
        let help = "Alarm: users of buckets that the index did not know, since the last upgrade: a snapshot was restored.";
        page.gauge("adopted_users", help, self.users_adopted);
        let help = "Gaps in the canister's version, since the last upgrade.";
        page.gauge("suspected_restorations", help, self.restorations_suspected);
        let doubted = self.buckets.iter();
        let doubted = doubted.filter(|(_, row)| row.doubt != Doubt::None);
        let help = "Buckets that have yet to say what they remember; nothing is granted before.";
        page.gauge("doubted_buckets", help, doubted.count());
        let help = "Calls of the index that are not answered yet.";
        page.gauge("calls_outstanding", help, gauges.calls);
        let help = "Alarm: jobs whose last message has trapped; they are tried again, at most every ten minutes.";
        page.gauge("trapped_jobs", help, gauges.trapped_jobs);
        let help = "Alarm: rows of the index's own jobs that are set aside, since every message about them has trapped.";
        page.gauge("set_aside_rows", help, self.asides.len());
        let help = "Bytes of stable memory.";
        page.gauge("stable_memory_bytes", help, gauges.stable_bytes);
        let help = "Lost buckets that are being forgotten.";
        page.gauge("forgetting_buckets", help, self.forgetting.len());
        self.cycles_metrics(&mut page, gauges);
        self.bucket_metrics(&mut page);
        page.text()
    }

    fn cycles_metrics(&self, page: &mut metrics::Page, gauges: &Gauges) {
        page.gauge("cycles", "Cycles of the index.", gauges.cycles);
        let help = "Cycles that the index keeps for itself.";
        page.gauge("cycles_floor", help, self.cycles_floor());
        let help = "Alarm: the index cannot keep its buckets for a week above its floor.";
        page.gauge(
            "cycles_low",
            help,
            u8::from(self.is_low(gauges.liquid_cycles)),
        );
        let help = "Cycles that all buckets burn in a day.";
        page.gauge("burned_per_day_cycles", help, self.burned_per_day());
        let help = "Cycles deposited in buckets.";
        page.counter("deposited_cycles_total", help, self.spending().total);
        let help = "Cycles that buckets may still be topped up with today.";
        page.gauge("topup_budget_cycles", help, self.budget_left(gauges.now_ms));
        let help = "Alarm: buckets that lack cycles and get none.";
        let withheld = self
            .buckets
            .iter()
            .filter(|(_, row)| row.upkeep.cycles_error.is_some());
        page.gauge("topups_withheld", help, withheld.count());
        let help = "Alarm: a bucket should be made and cannot.";
        let failed = self.creation_error().is_some();
        page.gauge("creation_failed", help, u8::from(failed));
    }

    fn bucket_metrics(&self, page: &mut metrics::Page) {
        let states = [
            (BucketState::Creating, "creating"),
            (BucketState::Active, "active"),
            (BucketState::Full, "full"),
            (BucketState::Upgrading, "upgrading"),
            (BucketState::Retired, "retired"),
            (BucketState::Unhealthy, "unhealthy"),
        ]
        .map(|(state, word)| {
            let is_so = |bucket, row| self.buckets.state(bucket, row) == state;
            let count = self
                .buckets
                .iter()
                .filter(|(bucket, row)| is_so(bucket, row));
            (word, count.count())
        });
        page.gauge("buckets", "Buckets.", self.buckets.len());
        page.gauges("buckets_in_state", "Buckets by state.", "state", states);
        let roll = self.roll_status();
        let places = [
            ("done", roll.done),
            ("running", roll.running),
            ("waiting", roll.waiting),
            ("newer", roll.newer),
        ];
        let help = "Buckets by how far they are with the code that the index embeds.";
        page.gauges("roll_buckets", help, "place", places);
        let help = "Alarm: a bucket's upgrade has failed and the roll has stopped.";
        page.gauge("roll_stopped", help, u8::from(roll.stopped.is_some()));
        let troubles = WORDS.map(|cause| {
            let is_so = |bucket| {
                let trouble = self.buckets.trouble(bucket);
                trouble.is_some_and(|trouble| word(&trouble.cause) == cause)
            };
            let count = self.buckets.iter().filter(|(bucket, _)| is_so(bucket));
            (cause, count.count())
        });
        let help = "Alarm: buckets that are given no new blobs, by what is wrong with them.";
        page.gauges("unhealthy_buckets", help, "cause", troubles);
        let mut each = |name: &str, help: &str, value: &dyn Fn(&Bucket) -> Option<u128>| {
            let values = self
                .buckets
                .iter()
                .filter_map(|(bucket, row)| Some((bucket, value(row)?)));
            page.gauges(name, help, "bucket", values);
        };
        let help = "Cycles of each bucket, as last seen.";
        each("bucket_cycles", help, &|row| {
            row.upkeep.seen.map(|(_, seen)| seen.balance)
        });
        let help = "Alarm: rows of each bucket's own jobs that are set aside, since every message about them has trapped.";
        each("bucket_set_aside_rows", help, &|row| {
            row.report.set_aside.map(u128::from)
        });
        let help = "Cycles that each bucket burns in a day.";
        each("bucket_burned_per_day_cycles", help, &|row| {
            row.upkeep.seen.map(|(_, seen)| seen.burned_per_day)
        });
        let help = "Bytes that each bucket can still take.";
        each("bucket_free_bytes", help, &|row| {
            Some(row.report.bytes_free.into())
        });
        let help = "Events that each bucket has yet to hear.";
        each("bucket_behind_events", help, &|row| {
            Some(self.events_behind(&row.cursor).into())
        });
    }
}

fn bucket_json(bucket: &BucketInfo) -> serde_json::Value {
    json!({
        "bucket": bucket.bucket.to_text(),
        "state": format!("{:?}", bucket.state),
        "bytes_used": bucket.bytes_used,
        "bytes_free": bucket.bytes_free,
        "events_behind": bucket.events_behind,
        "version": bucket.version,
        "module_hash": bucket.module_hash.map(|hash| hash.to_string()),
        // Numbers above 2⁵³ are text: few readers of JSON keep them.
        "cycles": bucket.cycles.map(|cycles| cycles.balance.to_string()),
        "cycles_burned_per_day": bucket.cycles.map(|cycles| cycles.burned_per_day.to_string()),
        "cycles_deposited": bucket.cycles_deposited.to_string(),
        "last_error": bucket.last_error,
        "trouble": bucket.trouble.as_ref().map(|trouble| word(&trouble.cause)),
        "trouble_since_ms": bucket.trouble.as_ref().map(|trouble| trouble.since_ms),
        "set_aside": bucket.set_aside,
    })
}

fn roll_json(roll: &RollStatus) -> serde_json::Value {
    json!({
        "version": roll.version,
        "done": roll.done,
        "running": roll.running,
        "waiting": roll.waiting,
        "newer": roll.newer,
        "stopped": roll.stopped,
    })
}

//! What the chat shows over HTTP: its page, and to whoever operates it figures and failures, nothing of its
//! users.

use openstorage_canister::metrics;
use openstorage_types::http::{HttpRequest, HttpResponse};

use crate::{App, site};

impl App {
    /// `GET /status` in JSON, `GET /metrics` as Prometheus reads it, `GET /logs` as lines; all else is the
    /// page's. `certificate` is the one over [`App::certified_data`].
    pub fn http(
        &self,
        request: &HttpRequest,
        cycles: u128,
        certificate: Option<&[u8]>,
    ) -> HttpResponse {
        if !["GET", "HEAD"].contains(&request.method.as_str()) {
            return HttpResponse::text(405, "text/plain", "only GET and HEAD\n");
        }
        let path = site::path_in(&request.url);
        let mut response = match path.as_str() {
            site::STATUS => HttpResponse::text(200, "application/json", self.status_json(cycles)),
            site::METRICS => HttpResponse::text(200, metrics::CONTENT_TYPE, self.metrics(cycles)),
            site::LOGS => HttpResponse::text(200, "text/plain; charset=utf-8", self.lines.page()),
            // Whole also for HEAD: a gateway checks the body before it drops it.
            _ => return self.site.respond(&path, request, certificate),
        };
        if request.method == "HEAD" {
            response.body.clear();
        }
        self.site.pass(&path, response, certificate)
    }

    /// Writes a line for `/logs`. No secret and no user goes in here.
    pub fn note(&mut self, now_ms: u64, text: &str) {
        self.lines.write(now_ms, text);
    }

    /// The chat can issue tokens that buckets believe.
    fn is_ready(&self) -> bool {
        self.keys.is_trusted()
    }

    /// Its values need no escape.
    fn status_json(&self, cycles: u128) -> String {
        let ready = self.is_ready();
        let (index, users) = (self.index(), self.users.count());
        let (unconfirmed, chats) = (self.users.count_pending(), self.chats.count());
        let messages = self.messages.count();
        // Numbers above 2⁵³ are text: few readers of JSON keep them.
        format!(
            r#"{{"index":"{index}","ready":{ready},"users":{users},"users_unconfirmed":{unconfirmed},"chats":{chats},"messages":{messages},"cycles":"{cycles}"}}"#
        )
    }

    fn metrics(&self, cycles: u128) -> String {
        let mut page = metrics::Page::new("openstorage_chat");
        page.gauge("users", "Registered users.", self.users.count());
        let help = "Users that the index has not confirmed yet.";
        page.gauge("users_unconfirmed", help, self.users.count_pending());
        let help = "Chats, deleted ones included.";
        page.gauge("chats", help, self.chats.count());
        page.gauge("messages", "Messages.", self.messages.count());
        let help = "The chat issues tokens that buckets believe.";
        page.gauge("ready", help, u8::from(self.is_ready()));
        let help = "Alarm: deleted chats that are set aside, since every message about their removal has trapped.";
        page.gauge("set_aside_chats", help, self.chats.count_set_aside());
        page.gauge("cycles", "Cycles of the chat.", cycles);
        page.text()
    }
}

//! A Sentry server that keeps what it is sent.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::http::{HttpRequest, HttpResponse, HttpServer};

/// The only project there is.
const PROJECT: u32 = 1;

/// Takes the envelopes of Sentry's clients (`POST /api/1/envelope/`) and keeps them.
#[derive(Debug)]
pub struct SentryServer {
    http: HttpServer,
}

impl SentryServer {
    /// Starts a server that answers as Sentry does.
    pub async fn start() -> Result<Self> {
        Self::serve(|request| {
            let header = lines(&request.body).next().and_then(|line| serde_json::from_slice::<Value>(line).ok());
            HttpResponse::json(200, json!({"id": header.map_or(Value::Null, |header| header["event_id"].clone())}))
        })
        .await
    }

    /// Starts a server that takes requests and never answers: what it is sent is kept all the same.
    pub async fn silent() -> Result<Self> {
        Self::serve(|_| HttpResponse::never()).await
    }

    async fn serve(answer: impl Fn(&HttpRequest) -> HttpResponse + Send + Sync + 'static) -> Result<Self> {
        let http = HttpServer::start().await?;
        http.on("POST", &format!("/api/{PROJECT}/envelope/"), answer);
        Ok(Self { http })
    }

    /// The HTTP server behind it.
    pub fn http(&self) -> &HttpServer {
        &self.http
    }

    /// What a client is given: `http://<public key>@127.0.0.1:<port>/1`. The key is not checked.
    pub fn dsn(&self, public_key: &str) -> String {
        format!("http://{public_key}@127.0.0.1:{}/{PROJECT}", self.http.port())
    }

    /// The events (items of type `event`) that have arrived so far, in order.
    pub fn events(&self) -> Vec<Value> {
        self.http.requests().iter().flat_map(|request| events(&request.body)).collect()
    }

    /// Returns all events as soon as there are `count`. Fails after `limit`.
    pub async fn wait_for_events(&self, count: usize, limit: Duration) -> Result<Vec<Value>> {
        let deadline = Instant::now() + limit;
        loop {
            let requests = self.http.requests();
            let events: Vec<Value> = requests.iter().flat_map(|request| events(&request.body)).collect();
            if events.len() >= count {
                return Ok(events);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.http.wait_for_requests(requests.len() + 1, left).await.is_err() {
                bail!("waited {limit:?} in vain for {count} events; there were {}", events.len());
            }
        }
    }

    /// Everything that arrived, one piece for each request: its line, headers and body. For a search for what must not
    /// be in it.
    pub fn raw(&self) -> Vec<Bytes> {
        self.http.requests().iter().map(raw).collect()
    }
}

fn raw(request: &HttpRequest) -> Bytes {
    let mut all = format!("{} {}?{}\r\n", request.method, request.path, request.query.as_deref().unwrap_or_default());
    for (name, value) in &request.headers {
        let _ = write!(all, "{name}: {value}\r\n");
    }
    all += "\r\n";
    let mut all = all.into_bytes();
    all.extend_from_slice(&request.body);
    all.into()
}

/// The events of an envelope: a line with its header, then items, each a line with a header and a payload, which has
/// the length named there, or is one line.
fn events(envelope: &[u8]) -> Vec<Value> {
    let mut events = Vec::new();
    let mut rest = after_line(envelope);
    while !rest.is_empty() {
        let header = lines(rest).next().unwrap_or_default();
        rest = after_line(rest);
        if header.is_empty() {
            continue;
        }
        let Ok(header) = serde_json::from_slice::<Value>(header) else { break };
        let length = header["length"].as_u64().and_then(|length| usize::try_from(length).ok());
        let length = length.unwrap_or_else(|| lines(rest).next().map_or(0, <[u8]>::len));
        let Some((payload, behind)) = rest.split_at_checked(length) else { break };
        rest = behind.strip_prefix(b"\n").unwrap_or(behind);
        if header["type"] == "event" {
            events.extend(serde_json::from_slice::<Value>(payload).ok());
        }
    }
    events
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&byte| byte == b'\n')
}

/// What follows the first line.
fn after_line(bytes: &[u8]) -> &[u8] {
    let end = lines(bytes).next().map_or(0, <[u8]>::len);
    bytes.get(end + 1..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::events;

    #[test]
    fn the_events_of_an_envelope_are_found_among_other_items() {
        let payload = "{\"n\":2,\"text\":\"\n{}\n\"}".replace('\n', " \n ");
        assert!(payload.contains('\n'));
        let json = "{\"n\":3,\n\"x\":1}";
        let envelope = format!(
            "{{\"event_id\":\"1\"}}\n{{\"type\":\"session\"}}\n{{\"n\":0}}\n{{\"type\":\"event\"}}\n{{\"n\":1}}\n\
             {{\"type\":\"attachment\",\"length\":{}}}\n{payload}\n\
             {{\"type\":\"event\",\"length\":{}}}\n{json}\n\n{{\"type\":\"event\",\"length\":7}}\n{{\"n\":4}}",
            payload.len(),
            json.len()
        );
        let numbers: Vec<_> = events(envelope.as_bytes()).iter().map(|event| event["n"].clone()).collect();
        assert_eq!(numbers, [1, 3, 4]);
    }

    #[test]
    fn a_broken_envelope_has_the_events_before_its_breach() {
        assert_eq!(events(b"").len() + events(b"{}").len() + events(b"{}\nno item\n").len(), 0);
        assert_eq!(events(b"{}\n{\"type\":\"event\"}\n{}\n{\"type\":\"event\",\"length\":9}\n{}").len(), 1);
    }
}

//! What a test has the server answer.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

/// An answer, good or bad. Clones are cheap, so that a route may give the same one again and again.
///
/// A status or header that HTTP does not know becomes a 500 that says so. `Debug` shows no body and no header's value.
#[derive(Clone)]
#[must_use]
pub struct HttpResponse {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) content: Content,
    pub(crate) delay: Duration,
    pub(crate) pace: Option<Pace>,
    pub(crate) cut: Option<usize>,
}

/// What follows the headers.
#[derive(Clone)]
pub(crate) enum Content {
    /// A body of known length.
    Whole(Bytes),
    /// These bytes again and again.
    Endless(Bytes),
    /// No answer at all.
    Never,
}

/// How a body drips.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) bytes: usize,
    pub(crate) pause: Duration,
}

impl HttpResponse {
    /// An answer without a body.
    pub fn status(code: u16) -> Self {
        Self::new(code, Content::Whole(Bytes::new()))
    }

    /// An answer with a JSON body, `application/json`.
    #[expect(clippy::needless_pass_by_value, reason = "it is called with `json!(…)`")]
    pub fn json(code: u16, body: Value) -> Self {
        let body = Bytes::from(body.to_string());
        Self::new(code, Content::Whole(body)).header("content-type", "application/json")
    }

    /// A 200 with any body.
    pub fn bytes(content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::new(200, Content::Whole(body.into())).header("content-type", content_type)
    }

    /// A redirect: `code` is one of 301, 302, 303, 307, 308, and `to` stands in `Location` as it is.
    pub fn redirect(code: u16, to: &str) -> Self {
        Self::status(code).header("location", to)
    }

    /// Takes the request and never answers. The connection stays open until the client or the server ends.
    pub fn never() -> Self {
        Self::new(200, Content::Never)
    }

    /// A 200 without `Content-Length` whose body is the chunk again and again, as fast as the client reads. With an
    /// empty chunk the headers are all that ever comes.
    pub fn endless(content_type: &str, chunk: impl Into<Bytes>) -> Self {
        Self::new(200, Content::Endless(chunk.into())).header("content-type", content_type)
    }

    /// The same answer with another status, as for an error with a plain body.
    pub fn with_status(mut self, code: u16) -> Self {
        self.status = code;
        self
    }

    /// Adds a header. One of the same name stays beside it.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Waits before the status line.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sends the body in pieces of so many bytes (one at least), with a pause after each.
    pub fn slowly(mut self, chunk_bytes: usize, pause: Duration) -> Self {
        self.pace = Some(Pace { bytes: chunk_bytes.max(1), pause });
        self
    }

    /// Announces the whole `Content-Length`, sends that many bytes of the body, and closes the connection. A body
    /// that has no more than that is sent as usual.
    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    fn new(status: u16, content: Content) -> Self {
        Self { status, headers: Vec::new(), content, delay: Duration::ZERO, pace: None, cut: None }
    }
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        let mut fields = f.debug_struct("HttpResponse");
        fields.field("status", &self.status).field("headers", &headers);
        match &self.content {
            Content::Whole(body) => fields.field("body", &body.len()),
            Content::Endless(chunk) => fields.field("endless", &chunk.len()),
            Content::Never => fields.field("never", &true),
        };
        fields.field("delay", &self.delay).field("pace", &self.pace).field("cut", &self.cut).finish()
    }
}

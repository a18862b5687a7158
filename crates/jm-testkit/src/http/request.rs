//! A request as it arrived.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;

use super::form::{FormField, fields};

/// A request that reached an [`crate::HttpServer`], whole.
///
/// Its `Debug` output names the headers and counts the body, but shows neither: they bear keys and texts.
#[derive(Clone)]
pub struct HttpRequest {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// The path as it was sent, escapes included, without the query.
    pub path: String,
    /// What followed the question mark, as it was sent.
    pub query: Option<String>,
    /// Names in lower case, and values, in the order hyper gives them: those of one name stand together.
    pub headers: Vec<(String, String)>,
    /// The body, without transfer coding. Empty for one that was too large and answered 413.
    pub body: Bytes,
}

impl HttpRequest {
    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The fields of a `multipart/form-data` body, in order; none when it is no such body or a broken one.
    pub fn form(&self) -> Vec<FormField> {
        fields(self.header("content-type").unwrap_or_default(), &self.body).unwrap_or_default()
    }
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query.as_ref().map(String::len))
            .field("headers", &headers)
            .field("body", &self.body.len())
            .finish()
    }
}

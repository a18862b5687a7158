//! What a server's error means: whose fault it is, what to do about it, and what of it may be shown.

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderMap;
use secrecy::SecretString;
use serde_json::Value;

use super::{
    json,
    wait::{self, MAX_RETRY_AFTER},
};
use crate::error::{EngineError, ErrorClass};

mod identifiers;
mod words;

use identifiers::Identifiers;
use words::Cause;

/// An answer that is no success, read.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: u16,
    cause: Cause,
    wait: Option<Duration>,
    identifiers: Identifiers,
    /// Everything the server said, in lower case and without the request's texts: to be searched, never to be shown.
    said: String,
}

/// The most of a text that is looked for in a server's words: enough to tell it from a word of theirs.
const LEAST_ECHO: usize = 8;

impl Refusal {
    /// Reads status, headers and body. `texts` are the request's: servers repeat them, and what a user wrote must not
    /// decide what an error means.
    pub(crate) fn read(status: u16, headers: &HeaderMap, body: &[u8], texts: &[&str]) -> Self {
        let parsed = json::parse::<Value>(body).ok();
        let error = parsed.as_ref().map(error_of);
        let mut said = match error {
            Some(error) => strings(error),
            None => String::from_utf8_lossy(body).into_owned(),
        };
        for text in texts.iter().filter(|text| text.len() >= LEAST_ECHO) {
            said = said.replace(text, " ");
        }
        // Of the message, since the wait may be written with capitals' units; the search itself is in lower case.
        let delay = error.and_then(retry_delay);
        let wait = wait::named(headers, &said, delay.as_deref(), SystemTime::now());
        let said = said.to_lowercase();
        let cause = words::cause(status, &said, wait.is_some());
        Self { status, cause, wait, identifiers: Identifiers::of(error), said }
    }

    /// An error inside a successful answer: by its own code, where that is a status.
    pub(crate) fn inside(answer: &Value, texts: &[&str]) -> Option<Self> {
        let error = answer.get("error").filter(|error| !error.is_null())?;
        let code =
            ["code", "status", "status_code", "http_code"].iter().find_map(|field| json::count(error.get(field)));
        let status = code.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
        let body = serde_json::to_vec(answer).unwrap_or_default();
        Some(Self::read(status.unwrap_or(500), &HeaderMap::new(), &body, texts))
    }

    /// Which of these optional parts of the request the server does not take, if its words name one.
    pub(crate) fn refused_part(&self, optional: &[Part]) -> Option<Part> {
        if !matches!(self.status, 400 | 404 | 415 | 422 | 501) || !matches!(self.cause, Cause::Message | Cause::Unknown)
        {
            return None;
        }
        let named = optional.iter().filter_map(|part| Some((self.said.find_part(*part)?, *part)));
        named.min_by_key(|(place, _)| *place).map(|(_, part)| part)
    }

    /// The most items in one request that the server's words allow, if they name a number.
    pub(crate) fn batch_limit(&self) -> Option<usize> {
        let about_batches = ["batch", "array", "inputs", "input texts", "items", "at most", "input.contents"];
        if !about_batches.iter().any(|word| self.said.contains(word)) {
            return None;
        }
        let numbers = self.said.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
        numbers.filter(|number| (1..=2048).contains(number)).min()
    }

    /// The error, beginning with what was requested: ` 400 Bad Request (code); remedy`.
    pub(crate) fn error(&self, request: &str, key: Option<&SecretString>, texts: &[&str]) -> EngineError {
        let (status, shown) = (shown(self.status), self.identifiers.shown(key, texts));
        let remedy = self.cause.remedy();
        let text = format!("{request}: {status}{shown}{}{remedy}", if remedy.is_empty() { "" } else { "; " });
        match self.cause {
            Cause::TooLong => EngineError::too_long(text),
            Cause::Message if self.status == 400 => EngineError::perhaps_too_long(text),
            _ => EngineError::new(self.class(), text),
        }
    }

    /// Whose fault it is.
    pub(crate) fn class(&self) -> ErrorClass {
        match self.cause {
            Cause::TooLong | Cause::Content | Cause::Message => ErrorClass::Permanent,
            Cause::Address | Cause::Key | Cause::Model | Cause::Account => ErrorClass::Operator,
            Cause::Capacity => ErrorClass::RetryAfter(self.wait().unwrap_or(wait::UNNAMED)),
            Cause::Unknown => self.wait().map_or(ErrorClass::Retryable, ErrorClass::RetryAfter),
        }
    }

    fn wait(&self) -> Option<Duration> {
        // No wait at all is no wish: the backoff knows better.
        self.wait.filter(|wait| !wait.is_zero()).map(|wait| wait.min(MAX_RETRY_AFTER))
    }
}

/// A part of a request that it can do without, or that is written in another way for some servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// `max_tokens`; newer models of `OpenAI` want `max_completion_tokens`.
    MaxTokens,
    /// `max_completion_tokens`, for servers that refused the former.
    MaxCompletionTokens,
    /// `temperature`.
    Temperature,
    /// A message whose role is `system`.
    SystemRole,
    /// Thinking, which some of Qwen's servers allow only in streams: `enable_thinking: false` is then sent.
    Thinking,
    /// `response_format: verbose_json`; `json` is then asked for.
    VerboseJson,
    /// `timestamp_granularities[]`.
    Granularities,
    /// `language`, of one recording: other languages may be known.
    Language,
    /// `prompt`.
    Prompt,
    /// `chunking_strategy`.
    Chunking,
}

impl Part {
    /// Words by which servers name it, in lower case.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::MaxTokens => &["max_tokens", "maxtokens", "max tokens"],
            Self::MaxCompletionTokens => &["max_completion_tokens"],
            Self::Temperature => &["temperature"],
            Self::SystemRole => &[
                "system role",
                "role system",
                "role 'system'",
                "role: system",
                "'system'",
                "\"system\"",
                "`system`",
                "system message",
                "system prompt",
                "messages[0].role",
                "developer instruction",
                "only user and assistant roles",
                "roles must alternate",
            ],
            Self::Thinking => &["enable_thinking"],
            Self::VerboseJson => &["response_format", "verbose_json", "response format"],
            Self::Granularities => &["timestamp_granularities", "timestamp granularities"],
            Self::Language => &["language"],
            Self::Prompt => &["prompt"],
            Self::Chunking => &["chunking_strategy", "chunking strategy"],
        }
    }

    /// What a log line calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SystemRole => "role: system",
            Self::VerboseJson => "response_format: verbose_json",
            other => other.names()[0],
        }
    }
}

/// Looking for a part's names.
trait FindPart {
    fn find_part(&self, part: Part) -> Option<usize>;
}

impl FindPart for String {
    fn find_part(&self, part: Part) -> Option<usize> {
        part.names().iter().filter_map(|name| self.find(name)).min()
    }
}

/// The part of a body that is the error: `error`, of a list's first item too, or the body itself.
fn error_of(body: &Value) -> &Value {
    let body = body.as_array().and_then(|list| list.first()).unwrap_or(body);
    match body.get("error") {
        // Some servers add the words beside a mere code.
        Some(error @ (Value::Object(_) | Value::Array(_))) => error,
        _ => body,
    }
}

/// All strings in a value, however deep, with a blank between them.
fn strings(value: &Value) -> String {
    fn collect(value: &Value, into: &mut String) {
        match value {
            Value::String(text) => {
                into.push_str(text);
                into.push(' ');
            }
            Value::Number(number) => {
                into.push_str(&number.to_string());
                into.push(' ');
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
            Value::Object(fields) => fields.values().for_each(|value| collect(value, into)),
            Value::Null | Value::Bool(_) => {}
        }
    }
    let mut all = String::new();
    collect(value, &mut all);
    all
}

/// Google's `retryDelay`, in the details of its errors.
fn retry_delay(error: &Value) -> Option<String> {
    json::list(error.get("details")).iter().find_map(|detail| json::text(detail.get("retryDelay")))
}

/// `429 Too Many Requests`.
pub(crate) fn shown(status: u16) -> String {
    // The standard's own phrase; what the server sent in its place is not looked at.
    match reqwest::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()) {
        Some(reason) => format!("{status} {reason}"),
        None => status.to_string(),
    }
}

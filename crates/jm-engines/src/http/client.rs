//! The one HTTP client of an engine: key, deadline, limit for the answer, and errors without secrets.

use std::{
    error::Error as StdError,
    fmt,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use jm_mq_core::OptionsError;
use reqwest::{
    Proxy, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
    multipart::Form,
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{
    base_url,
    failure::Said,
    status::{classify, retry_after},
};
use crate::{
    call::Call,
    error::{EngineError, ErrorClass},
    options::{EngineOptions, refused},
};

/// How long dialling may take: a host that is there answers within it even from another continent.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How others see us in their logs.
pub(crate) const USER_AGENT: &str = concat!("jm-mq/", env!("CARGO_PKG_VERSION"));
/// As much of an error's body is read as any server's own words take.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// How long an error's body may take: its status has said already what it means.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// Room for an answer whose length is announced; what is longer grows as it arrives.
const MAX_RESERVED_BYTES: usize = 1024 * 1024;

/// Speaks to one server.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<SecretString>,
    timeout: Duration,
    max_response_bytes: usize,
}

/// What is sent.
pub(crate) enum Body {
    /// JSON, already written.
    Json(Vec<u8>),
    /// A form with a file.
    Form(Form),
}

/// A request that failed.
pub(crate) struct Failure {
    /// What it means.
    pub(crate) error: EngineError,
    /// The status, if there was an answer.
    pub(crate) status: Option<u16>,
}

impl From<Failure> for EngineError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl Client {
    pub(crate) fn new(options: &EngineOptions) -> Result<Self, OptionsError> {
        options.validate()?;
        let key = options.api_key.clone().filter(|key| !key.expose_secret().is_empty());
        let mut headers = HeaderMap::new();
        if let Some(key) = &key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
                .map_err(|_| refused("api_key", "not shown", "printable ASCII characters"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        install_tls_provider();
        let mut http = reqwest::Client::builder()
            // The environment's proxies are not asked: key and texts would go where nobody configured.
            .no_proxy();
        if let Some(proxy) = options.proxy() {
            let allowed = "an address that can be asked";
            http = http.proxy(Proxy::all(proxy).map_err(|_| refused("proxy", base_url::shown(proxy), allowed))?);
        }
        let http = http
            .default_headers(headers)
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirect would take texts and key to where nobody configured.
            .redirect(Policy::none())
            .build()
            .map_err(|error| refused("kind", "http", format!("a working TLS setup; here: {}", causes(&error))))?;
        Ok(Self {
            http,
            base: base_url::parse(&options.base_url)?,
            key,
            timeout: options.timeout,
            max_response_bytes: options.max_response_bytes,
        })
    }

    /// Posts JSON, and reads JSON. No error shows any of `texts`.
    pub(crate) async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        texts: &[&str],
        call: &Call,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure {
            error: EngineError::permanent(format!("the request cannot be written as JSON: {error}")),
            status: None,
        })?;
        self.post(path, Body::Json(body), texts, call).await
    }

    /// Posts a body, and reads JSON. No error shows any of `texts`.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Body,
        texts: &[&str],
        call: &Call,
    ) -> Result<T, Failure> {
        let url = self.base.join(path).map_err(|_| self.failed(path, EngineError::operator, "not an address"))?;
        let request = self.http.post(url);
        let request = match body {
            Body::Json(json) => request.header(CONTENT_TYPE, "application/json").body(json),
            Body::Form(form) => request.multipart(form),
        };
        let limit = call.time_left(self.timeout);
        let deadline = Instant::now() + limit;
        let late = |_| self.failed(path, EngineError::retryable, format_args!("no answer within {limit:?}"));
        let network = |error: reqwest::Error| self.failed(path, EngineError::retryable, causes(&error.without_url()));
        let answer = timeout_at(deadline, request.send()).await.map_err(late)?.map_err(network)?;
        if !answer.status().is_success() {
            return Err(self.refusal(path, answer, texts, deadline).await);
        }
        // An answer without end is the server's fault, not the message's.
        let body = timeout_at(deadline, read(answer, self.max_response_bytes)).await.map_err(late)?.map_err(network)?;
        let body = body.ok_or_else(|| {
            let limit = format_args!("an answer of more than {} bytes", self.max_response_bytes);
            self.failed(path, EngineError::retryable, limit)
        })?;
        // The parser's words may quote the answer, which may quote the request; its place in it is enough.
        serde_json::from_slice(&body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let what = format_args!("not the JSON that was expected, at line {line}, column {column}");
            self.failed(path, EngineError::retryable, what)
        })
    }

    /// The error for an answer that is no success: of its status's class, whatever comes of its body.
    async fn refusal(&self, path: &str, answer: Response, texts: &[&str], deadline: Instant) -> Failure {
        let status = answer.status();
        let class = classify(status.as_u16(), retry_after(answer.headers(), SystemTime::now()));
        let deadline = deadline.min(Instant::now() + ERROR_BODY_TIMEOUT);
        let body = timeout_at(deadline, read(answer, MAX_ERROR_BYTES)).await;
        let body = body.ok().and_then(Result::ok).flatten().unwrap_or_default();
        let said = Said::read(&body);
        let text = format!("{}: {}{}", self.request(path), shown(status), said.shown(self.key.as_ref(), texts));
        let error = match class {
            ErrorClass::Permanent if said.is_too_long() => EngineError::too_long(text),
            class => EngineError::new(class, text),
        };
        Failure { error, status: Some(status.as_u16()) }
    }

    /// An error about the content of a successful answer: retryable, since another answer may be better.
    pub(crate) fn unusable(&self, path: &str, what: impl fmt::Display) -> EngineError {
        self.failed(path, EngineError::retryable, what).error
    }

    fn failed(&self, path: &str, class: fn(String) -> EngineError, what: impl fmt::Display) -> Failure {
        Failure { error: class(format!("{}: {what}", self.request(path))), status: None }
    }

    fn request(&self, path: &str) -> String {
        format!("POST {}{path}", base_url::address(&self.base))
    }
}

/// Reads a body up to a limit; `None` if there is more of it.
async fn read(mut answer: Response, limit: usize) -> Result<Option<Bytes>, reqwest::Error> {
    let announced = answer.content_length().map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
    if announced > limit {
        return Ok(None);
    }
    let mut body = BytesMut::with_capacity(announced.min(MAX_RESERVED_BYTES));
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}

/// `429 Too Many Requests`.
pub(crate) fn shown(status: StatusCode) -> String {
    // The standard's own phrase; what the server sent in its place is not looked at.
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// An error with its causes, on one line. The caller has taken the address out of it.
pub(crate) fn causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some errors repeat their cause's words.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The TLS library wants to know whose cryptography to use; ours is ring, unless the program has decided already.
pub(crate) fn install_tls_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // It fails when somebody else was quicker, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

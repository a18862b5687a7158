//! The one HTTP client of an engine: key, deadline, limit for the answer, and errors without secrets.

use std::{borrow::Cow, collections::BTreeMap, error::Error as StdError, fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use jm_mq_core::OptionsError;
use reqwest::{
    Proxy, Response,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    multipart::{self, Form},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{
    base_url,
    dialect::{
        json,
        profile::{Known, Profile},
        refusal::{Part, Refusal},
    },
};
use crate::{
    call::Call,
    error::EngineError,
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

/// A request is sent at most this often for the sake of parts of it that the server refuses.
const MAX_REFUSED_PARTS: usize = 8;

/// Speaks to one server.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<SecretString>,
    timeout: Duration,
    max_response_bytes: usize,
    /// What the configuration puts into every request's body.
    body: Map<String, Value>,
    /// And into every request's address. May hold a key.
    query: BTreeMap<String, SecretString>,
    profile: Profile,
}

/// What is sent.
#[expect(clippy::large_enum_variant, reason = "there is one for each request")]
pub(crate) enum Body {
    /// JSON's fields.
    Json(Map<String, Value>),
    /// A file with a form's other fields.
    Form(multipart::Part, Vec<(Cow<'static, str>, String)>),
}

/// A request.
pub(crate) struct Request<'a> {
    /// Behind `base_url`.
    pub(crate) path: &'static str,
    /// What it can do without.
    pub(crate) optional: &'a [Part],
    /// What users wrote in it: no error shows any of it, or is decided by it.
    pub(crate) texts: &'a [&'a str],
    pub(crate) call: &'a Call,
}

/// A successful answer.
pub(crate) struct Answer {
    pub(crate) body: Bytes,
    /// Whether its type is `text/plain`.
    pub(crate) is_plain_text: bool,
}

/// A request that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What it means.
    pub(crate) error: EngineError,
    /// The server's own words, if there was an answer.
    pub(crate) refusal: Option<Box<Refusal>>,
    /// The answer's status, if there was one.
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
            let value = secret(&format!("Bearer {}", key.expose_secret()))
                .ok_or_else(|| refused("api_key", "not shown", "printable ASCII characters"))?;
            headers.insert(AUTHORIZATION, value);
        }
        for (name, value) in &options.request.headers {
            let allowed = "a header's name, and printable ASCII characters as its value";
            let name = name.replace('_', "-").parse::<HeaderName>();
            let header = name.ok().zip(secret(value.expose_secret()));
            let (name, value) = header.ok_or_else(|| refused("request.headers", "not shown", allowed))?;
            headers.insert(name, value);
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
            query: options.request.query.clone(),
            key,
            timeout: options.timeout,
            max_response_bytes: options.max_response_bytes,
            body: options.request.body.clone(),
            profile: Profile::default(),
        })
    }

    /// What is known of the server.
    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The server's address, for logs.
    pub(crate) fn server(&self) -> String {
        base_url::address(&self.base)
    }

    /// Posts what `build` makes of what is known of the server, and reads the answer. While the server refuses an optional
    /// part of the request, that is remembered and the request sent without it.
    pub(crate) async fn post<T>(
        &self,
        request: &Request<'_>,
        build: impl Fn(&Known) -> Result<Body, EngineError>,
        read: impl Fn(Answer) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut left = MAX_REFUSED_PARTS;
        loop {
            let known = self.profile.known();
            let body = build(&known).map_err(Failure::before)?;
            let failure = match self.send(request, body).await.and_then(&read) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let sent: Vec<Part> = request.optional.iter().copied().filter(|&part| known.takes(part)).collect();
            let Some(part) = failure.refusal.as_ref().and_then(|refusal| refusal.refused_part(&sent)) else {
                return Err(failure);
            };
            if left == 0 {
                return Err(failure);
            }
            left -= 1;
            self.profile.refuses(part, &self.server());
        }
    }

    async fn send(&self, request: &Request<'_>, body: Body) -> Result<Answer, Failure> {
        let path = request.path;
        let mut address =
            self.base.join(path).map_err(|_| self.failed(path, EngineError::operator, "not an address"))?;
        if !self.query.is_empty() {
            address
                .query_pairs_mut()
                .extend_pairs(self.query.iter().map(|(name, value)| (name, value.expose_secret())));
        }
        let post = self.http.post(address);
        let post = match self.configured(body) {
            Body::Json(fields) => {
                let body = serde_json::to_vec(&fields).map_err(|error| {
                    self.failed(path, EngineError::permanent, format_args!("it cannot be written as JSON: {error}"))
                })?;
                post.header(CONTENT_TYPE, "application/json").body(body)
            }
            Body::Form(file, fields) => {
                let form = Form::new().part("file", file);
                post.multipart(fields.into_iter().fold(form, |form, (name, value)| form.text(name, value)))
            }
        };
        let limit = request.call.time_left(self.timeout);
        let deadline = Instant::now() + limit;
        let late = |_| self.failed(path, EngineError::retryable, format_args!("no answer within {limit:?}"));
        let network = |error: reqwest::Error| self.failed(path, EngineError::retryable, causes(&error.without_url()));
        let answer = timeout_at(deadline, post.send()).await.map_err(late)?.map_err(network)?;
        if !answer.status().is_success() {
            return Err(self.refusal(request, answer, deadline).await);
        }
        let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_plain_text = content_type.is_some_and(|content_type| content_type.starts_with("text/plain"));
        // An answer without end is the server's fault, not the message's.
        let body = timeout_at(deadline, read(answer, self.max_response_bytes)).await.map_err(late)?.map_err(network)?;
        let body = body.ok_or_else(|| {
            let limit = format_args!("an answer of more than {} bytes", self.max_response_bytes);
            self.failed(path, EngineError::retryable, limit)
        })?;
        Ok(Answer { body, is_plain_text })
    }

    /// The body with what the configuration adds to it, replaces in it, or (`null`) takes out of it.
    fn configured(&self, body: Body) -> Body {
        match body {
            Body::Json(mut fields) => {
                for (name, value) in &self.body {
                    match value {
                        Value::Null => _ = fields.remove(name),
                        value => _ = fields.insert(name.clone(), value.clone()),
                    }
                }
                Body::Json(fields)
            }
            Body::Form(file, mut fields) => {
                fields.retain(|(name, _)| !self.body.contains_key(name.as_ref() as &str));
                for (name, value) in self.body.iter().filter(|(_, value)| !value.is_null()) {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    fields.push((name.clone().into(), value));
                }
                Body::Form(file, fields)
            }
        }
    }

    /// Reads an answer as JSON.
    pub(crate) fn parse<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, Failure> {
        // The parser's words may quote the answer, which may quote the request; its place in it is enough.
        json::parse(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let what = format_args!("not the JSON that was expected, at line {line}, column {column}");
            self.failed(path, EngineError::retryable, what)
        })
    }

    /// The error for an answer that is no success: of its status's class, whatever comes of its body.
    async fn refusal(&self, request: &Request<'_>, answer: Response, deadline: Instant) -> Failure {
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let deadline = deadline.min(Instant::now() + ERROR_BODY_TIMEOUT);
        let body = timeout_at(deadline, read(answer, MAX_ERROR_BYTES)).await;
        let body = body.ok().and_then(Result::ok).flatten().unwrap_or_default();
        self.refused(request, Refusal::read(status, &headers, &body, request.texts), status)
    }

    /// A successful answer with an error inside: of that error's class. `None` for other answers.
    pub(crate) fn error_inside(&self, request: &Request<'_>, answer: &Value) -> Option<Failure> {
        Some(self.refused(request, Refusal::inside(answer, request.texts)?, 200))
    }

    fn refused(&self, request: &Request<'_>, refusal: Refusal, status: u16) -> Failure {
        let error = refusal.error(&self.request(request.path), self.key.as_ref(), request.texts);
        Failure { error, refusal: Some(Box::new(refusal)), status: Some(status) }
    }

    /// An error about the content of a successful answer: retryable, since another answer may be better.
    pub(crate) fn unusable(&self, path: &str, what: impl fmt::Display) -> Failure {
        self.failed(path, EngineError::retryable, what)
    }

    fn failed(&self, path: &str, class: fn(String) -> EngineError, what: impl fmt::Display) -> Failure {
        Failure { error: class(format!("{}: {what}", self.request(path))), refusal: None, status: None }
    }

    fn request(&self, path: &str) -> String {
        format!("POST {}{path}", base_url::address(&self.base))
    }
}

impl Failure {
    /// Whether the server refuses this part of the request.
    pub(crate) fn refuses(&self, part: Part) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| refusal.refused_part(&[part]).is_some())
    }

    /// Nothing was sent.
    pub(crate) fn before(error: EngineError) -> Self {
        Self { error, refusal: None, status: None }
    }
}

/// A header's value that is not logged.
fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
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

//! An `engine` block of a configuration: which engine, where, and its limits.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, path::PathBuf, sync::Arc, time::Duration};

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use jm_mq_core::OptionsError;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

#[cfg(feature = "embedded")]
use crate::embedded;
use crate::{
    engine::{ChatEngine, DiarizationEngine, EmbeddingEngine, TranscriptionEngine},
    http::{HttpChat, HttpDiarization, HttpEmbedding, HttpTranscription, base_url},
};

/// Which engine does the work, and its limits. Each kind of engine reads what concerns it.
///
/// ```
/// let options: jm_engines::EngineOptions = serde_json::from_str(
///     r#"{ "base_url": "http://127.0.0.1:11434", "model": "qwen3:8b", "api_key": "sk-1", "timeout": "5m" }"#,
/// ).unwrap();
/// assert!(options.chat().is_ok());
/// assert!(!format!("{options:?}").contains("sk-1"));
/// ```
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineOptions {
    /// What kind of engine. Default [`EngineKind::Http`].
    pub kind: EngineKind,
    /// Where the OpenAI API is, as that API's own libraries take it: `https://api.openai.com/v1`. Without a path, `/v1`
    /// is added. Needed for `http`; there is no default, so that nothing is sent to a cloud by accident.
    pub base_url: String,
    /// Sent as a bearer token. Default: none, as local servers have it; empty means none.
    pub api_key: Option<SecretString>,
    /// The proxy that requests go through: `http://host:port` or `https://host:port`, without a user. It sees key and
    /// texts in clear if `base_url` is `http://`. Default: none, as empty; the environment's `HTTP_PROXY`,
    /// `HTTPS_PROXY` and `ALL_PROXY` are not asked.
    pub proxy: Option<String>,
    /// What every request to the server has besides. Default: nothing.
    pub request: RequestOptions,
    /// The model's name, as the server knows it: needed. For `embedded`, a name of `config/models.toml`; default: that
    /// file's own default for the engine.
    pub model: String,
    /// For `embedded`: the model's file (chat, embedding) or folder (transcription, diarization), instead of the cache
    /// folder's. Default: none. `model` is then what answers call it.
    pub model_path: Option<PathBuf>,
    /// For `embedded`: how many calls are worked on at once; others wait. Default 1: one call uses all the cores.
    pub parallelism: usize,
    /// The languages the chat model writes, as primary tags (`zh`, `en`): a text in another one is refused rather than
    /// answered with nonsense. Default: none given, which is any, or what `config/models.toml` says of the model.
    pub languages: Vec<String>,
    /// The limit for one request, from dialling to the answer's last byte. Default 2 min.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// The longest answer in bytes. Default 16 MiB: a thousand vectors of 1024 numbers.
    pub max_response_bytes: usize,
    /// The largest file sent, in bytes. Default 25 MB, `OpenAI`'s limit: 13 min of speech.
    pub max_upload_bytes: usize,
    /// How many tokens the chat model reads and writes in one call; at least 512. Default 8192.
    pub context_tokens: usize,
    /// The most tokens it may write in one call, what it thinks aloud included; at most half of `context_tokens`.
    /// Default 1024: a page and a half.
    pub max_output_tokens: usize,
    /// How many texts are embedded in one request. Default 32.
    pub batch_size: usize,
    /// Put before texts that are to be found, for models that want it (`passage: `). Default: nothing.
    pub passage_prefix: String,
    /// Put before texts to find with (`query: `). Default: nothing.
    pub query_prefix: String,
    /// The longest recording transcribed in one request. Default 10 min: a request then takes seconds, and a failed one
    /// costs little.
    #[serde(with = "duration")]
    pub max_piece: Duration,
}

/// What a server needs besides the API's own fields.
///
/// ```
/// let request: jm_engines::RequestOptions = serde_json::from_str(
///     r#"{ "body": { "enable_thinking": false, "temperature": null }, "query": { "api-version": "2024-10-21" } }"#,
/// ).unwrap();
/// assert_eq!(request.body.len(), 2);
/// ```
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestOptions {
    /// Fields of the body, which replace ours of the same name; `null` takes one out: `enable_thinking`,
    /// `reasoning_effort`, `dimensions`, `chat_template_kwargs`, `options: { num_ctx: 8192 }`.
    pub body: serde_json::Map<String, serde_json::Value>,
    /// Headers, for keys that are no bearer token (`api-key`). They come from the environment or from mounted files only,
    /// and are masked wherever options are shown: `JM_ENGINE__REQUEST__HEADERS__API_KEY_FILE`, where `_` in a name stands
    /// for `-`.
    pub headers: BTreeMap<String, SecretString>,
    /// What is added to each address: `api-version`. Masked as well, since some servers take keys there.
    pub query: BTreeMap<String, SecretString>,
}

/// Fields, headers and parts of the address: no server needs as many.
const MAX_REQUEST_FIELDS: usize = 64;

impl RequestOptions {
    fn validate(&self) -> Result<(), OptionsError> {
        check_range("request.body", self.body.len(), 0..=MAX_REQUEST_FIELDS)?;
        check_range("request.headers", self.headers.len(), 0..=MAX_REQUEST_FIELDS)?;
        check_range("request.query", self.query.len(), 0..=MAX_REQUEST_FIELDS)
    }
}

/// Without what may be a key.
impl fmt::Debug for RequestOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestOptions")
            .field("body", &self.body)
            .field("headers", &self.headers.keys())
            .field("query", &self.query.keys())
            .finish()
    }
}

/// Where an engine runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// Behind the `OpenAI` API, wherever that is.
    #[default]
    Http,
    /// In this process, where it was built with the feature `embedded`.
    Embedded,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            kind: EngineKind::Http,
            base_url: String::new(),
            api_key: None,
            proxy: None,
            request: RequestOptions::default(),
            model: String::new(),
            model_path: None,
            parallelism: 1,
            languages: Vec::new(),
            timeout: Duration::from_mins(2),
            max_response_bytes: 16 * 1024 * 1024,
            max_upload_bytes: 25_000_000,
            context_tokens: 8192,
            max_output_tokens: 1024,
            batch_size: 32,
            passage_prefix: String::new(),
            query_prefix: String::new(),
            max_piece: Duration::from_mins(10),
        }
    }
}

/// Longer names are a typing error.
const MAX_NAME_BYTES: usize = 255;
/// Longer prefixes would crowd out the text.
const MAX_PREFIX_BYTES: usize = 1000;
/// The longest duration any option may have: what is longer is a typing error.
const MAX_DURATION: Duration = Duration::from_hours(24);
/// `OpenAI`'s limit for one request's inputs.
const MAX_BATCH: usize = 2048;
/// Prompt, a paragraph and an answer to it; a summary of less is longer than what it sums up.
const MIN_CONTEXT_TOKENS: usize = 512;
/// More calls at once than cores only wait for each other.
#[cfg(feature = "embedded")]
const MAX_PARALLELISM: usize = 64;
/// No model known reads more.
const MAX_TOKENS: usize = 16_000_000;
/// Answers and uploads are held in memory.
const MAX_BYTES: usize = 1024 * 1024 * 1024;
/// Two seconds of speech: less cannot be transcribed in any useful way.
const MIN_UPLOAD_BYTES: usize = 64 * 1024;

impl EngineOptions {
    /// Checks every option against its range.
    ///
    /// # Errors
    ///
    /// The first option that is out of range, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), OptionsError> {
        match self.kind {
            EngineKind::Http => self.validate_http()?,
            EngineKind::Embedded => self.validate_embedded()?,
        }
        for (option, value, least) in [
            ("timeout", self.timeout, Duration::from_millis(1)),
            // Below that, speech is cut to pieces that mean nothing.
            ("max_piece", self.max_piece, Duration::from_secs(1)),
        ] {
            let allowed = format!("{least:?} to {MAX_DURATION:?}");
            check((least..=MAX_DURATION).contains(&value), option, format_args!("{value:?}"), allowed)?;
        }
        check_range("max_response_bytes", self.max_response_bytes, 1..=MAX_BYTES)?;
        check_range("max_upload_bytes", self.max_upload_bytes, MIN_UPLOAD_BYTES..=MAX_BYTES)?;
        check_range("context_tokens", self.context_tokens, MIN_CONTEXT_TOKENS..=MAX_TOKENS)?;
        // What is left for reading has to be more than what may be written, or summaries of summaries grow.
        let most = self.context_tokens / 2;
        let allowed = format!("1 to {most}, half of `context_tokens`");
        check((1..=most).contains(&self.max_output_tokens), "max_output_tokens", self.max_output_tokens, allowed)?;
        check_range("batch_size", self.batch_size, 1..=MAX_BATCH)?;
        check_range("passage_prefix", self.passage_prefix.len(), 0..=MAX_PREFIX_BYTES)?;
        check_range("query_prefix", self.query_prefix.len(), 0..=MAX_PREFIX_BYTES)
    }

    fn validate_http(&self) -> Result<(), OptionsError> {
        base_url::parse(&self.base_url)?;
        if let Some(proxy) = self.proxy() {
            let allowed = "http://host:port or https://host:port, without user, password, path, query and fragment";
            check(base_url::is_host(proxy), "proxy", base_url::shown(proxy), allowed)?;
        }
        if let Some(key) = &self.api_key {
            // It becomes a header, in which nothing else can be.
            let printable = key.expose_secret().bytes().all(|byte| matches!(byte, b' '..=b'~'));
            check(printable, "api_key", "not shown", "printable ASCII characters")?;
        }
        let name = format_args!("of {} bytes", self.model.len());
        check((1..=MAX_NAME_BYTES).contains(&self.model.len()), "model", name, "1 to 255 bytes")?;
        self.request.validate()
    }

    #[cfg(not(feature = "embedded"))]
    #[expect(clippy::unused_self, reason = "the build decides, not the options")]
    fn validate_embedded(&self) -> Result<(), OptionsError> {
        let allowed = "`http`: this build has no embedded engines (it was made without the feature `embedded`)";
        Err(refused("kind", "embedded", allowed))
    }

    #[cfg(feature = "embedded")]
    fn validate_embedded(&self) -> Result<(), OptionsError> {
        check_range("parallelism", self.parallelism, 1..=MAX_PARALLELISM)
    }

    /// Where the API is, as requests go there: `base_url` with its path complete.
    ///
    /// # Errors
    ///
    /// When it is no such address.
    pub fn address(&self) -> Result<Url, OptionsError> {
        base_url::parse(&self.base_url)
    }

    /// The proxy that requests go through, if there is one.
    pub fn proxy(&self) -> Option<&str> {
        self.proxy.as_deref().filter(|proxy| !proxy.is_empty())
    }

    /// The chat engine that is configured.
    ///
    /// # Errors
    ///
    /// An option that is out of range, or a model's file that is missing or unusable.
    pub fn chat(&self) -> Result<Arc<dyn ChatEngine>, OptionsError> {
        #[cfg(feature = "embedded")]
        if self.kind == EngineKind::Embedded {
            return Ok(Arc::new(embedded::EmbeddedChat::load(self)?));
        }
        Ok(Arc::new(HttpChat::new(self)?))
    }

    /// The transcription engine that is configured.
    ///
    /// # Errors
    ///
    /// An option that is out of range, or a model's file that is missing or unusable.
    pub fn transcription(&self) -> Result<Arc<dyn TranscriptionEngine>, OptionsError> {
        #[cfg(feature = "embedded")]
        if self.kind == EngineKind::Embedded {
            return Ok(Arc::new(embedded::EmbeddedTranscription::load(self)?));
        }
        Ok(Arc::new(HttpTranscription::new(self)?))
    }

    /// The diarization engine that is configured.
    ///
    /// # Errors
    ///
    /// An option that is out of range, or a model's file that is missing or unusable.
    pub fn diarization(&self) -> Result<Arc<dyn DiarizationEngine>, OptionsError> {
        #[cfg(feature = "embedded")]
        if self.kind == EngineKind::Embedded {
            return Ok(Arc::new(embedded::EmbeddedDiarization::load(self)?));
        }
        Ok(Arc::new(HttpDiarization::new(self)?))
    }

    /// The embedding engine that is configured.
    ///
    /// # Errors
    ///
    /// An option that is out of range, or a model's file that is missing or unusable.
    pub fn embedding(&self) -> Result<Arc<dyn EmbeddingEngine>, OptionsError> {
        #[cfg(feature = "embedded")]
        if self.kind == EngineKind::Embedded {
            return Ok(Arc::new(embedded::EmbeddedEmbedding::load(self)?));
        }
        Ok(Arc::new(HttpEmbedding::new(self)?))
    }
}

/// Without the key, and without what an address may hide in its user or query.
impl fmt::Debug for EngineOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineOptions")
            .field("kind", &self.kind)
            .field("base_url", &base_url::shown(&self.base_url))
            .field("api_key", &self.api_key.as_ref().map(|_| "(not shown)"))
            .field("proxy", &self.proxy().map(base_url::shown))
            .field("request", &self.request)
            .field("model", &self.model)
            .field("model_path", &self.model_path)
            .field("parallelism", &self.parallelism)
            .field("languages", &self.languages)
            .field("timeout", &self.timeout)
            .field("max_response_bytes", &self.max_response_bytes)
            .field("max_upload_bytes", &self.max_upload_bytes)
            .field("context_tokens", &self.context_tokens)
            .field("max_output_tokens", &self.max_output_tokens)
            .field("batch_size", &self.batch_size)
            .field("passage_prefix", &self.passage_prefix)
            .field("query_prefix", &self.query_prefix)
            .field("max_piece", &self.max_piece)
            .finish()
    }
}

pub(crate) fn refused(option: &'static str, value: impl fmt::Display, allowed: impl Into<String>) -> OptionsError {
    OptionsError { option: option.into(), value: value.to_string(), allowed: allowed.into().into() }
}

pub(crate) fn check(
    right: bool,
    option: &'static str,
    value: impl fmt::Display,
    allowed: impl Into<String>,
) -> Result<(), OptionsError> {
    if right { Ok(()) } else { Err(refused(option, value, allowed)) }
}

pub(crate) fn check_range(
    option: &'static str,
    value: usize,
    allowed: RangeInclusive<usize>,
) -> Result<(), OptionsError> {
    check(allowed.contains(&value), option, value, format!("{} to {}", allowed.start(), allowed.end()))
}

#[cfg(test)]
mod tests;

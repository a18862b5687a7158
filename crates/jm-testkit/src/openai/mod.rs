//! A server that speaks the `OpenAI` API without any model behind it.

mod chat;
mod embeddings;
mod transcription;

use anyhow::Result;
use serde_json::{Value, json};

use crate::http::{HttpRequest, HttpResponse, HttpServer};

/// When everything here was made, in seconds since 1970: what is asked twice is answered alike.
const CREATED: u64 = 1_700_000_000;

/// Answers chat completions, embeddings and transcriptions in the `OpenAI` API's shapes, from the request alone:
///
/// | Route | Answer |
/// |---|---|
/// | `POST /v1/chat/completions` | `summary of N characters: …`: length and beginning (40) of the last user message |
/// | `POST /v1/embeddings` | a unit vector of each text, see [`OpenAiServer::vector`], in **reversed** order |
/// | `POST /v1/audio/transcriptions` | `verbose_json`: a segment per 10 s; `diarized_json`: per 5 s, A and B in turn |
///
/// A request it does not understand is answered 400 with the API's error body, which quotes nothing of the request.
/// Tokens are words. Any route can be replaced by way of [`OpenAiServer::http`].
#[derive(Debug)]
pub struct OpenAiServer {
    http: HttpServer,
}

impl OpenAiServer {
    /// Starts a server that asks for no key.
    pub async fn start() -> Result<Self> {
        Self::serve(None).await
    }

    /// Starts a server that answers 401 to requests without `Authorization: Bearer <key>`.
    pub async fn start_with_key(key: &str) -> Result<Self> {
        Self::serve(Some(key)).await
    }

    /// The HTTP server behind it, to read what arrived or to replace a route.
    pub fn http(&self) -> &HttpServer {
        &self.http
    }

    /// The address that clients of the API are given, with `/v1`.
    pub fn base_url(&self) -> String {
        self.http.url("/v1")
    }

    /// The vector it answers for a text: of length 1 and with 8 dimensions, unless a request asks for others by
    /// `dimensions`. The same for all servers of a build.
    pub fn vector(text: &str) -> Vec<f32> {
        embeddings::vector(text, embeddings::DIMENSIONS)
    }

    async fn serve(key: Option<&str>) -> Result<Self> {
        let http = HttpServer::start().await?;
        for (path, answer) in [
            ("/v1/chat/completions", chat::answer as fn(&HttpRequest) -> Result<HttpResponse, Refusal>),
            ("/v1/embeddings", embeddings::answer),
            ("/v1/audio/transcriptions", transcription::answer),
        ] {
            let wanted = key.map(|key| format!("Bearer {key}"));
            http.on("POST", path, move |request| {
                if wanted.is_some() && request.header("authorization") != wanted.as_deref() {
                    let message = "Incorrect API key provided.";
                    return error(401, message, None, Some("invalid_api_key"));
                }
                answer(request).unwrap_or_else(|Refusal { message, param }| error(400, message, param, None))
            });
        }
        Ok(Self { http })
    }
}

/// Why a request is answered 400.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    message: &'static str,
    /// The parameter that is wrong.
    param: Option<&'static str>,
}

fn refuse<T>(param: &'static str, message: &'static str) -> Result<T, Refusal> {
    Err(Refusal { message, param: Some(param) })
}

/// The body of a request in JSON.
fn object(request: &HttpRequest) -> Result<Value, Refusal> {
    let message = "We could not parse the JSON body of your request.";
    Some(request.json()).filter(Value::is_object).ok_or(Refusal { message, param: None })
}

/// The model named in a request.
fn model(body: &Value) -> Result<&str, Refusal> {
    match body["model"].as_str() {
        Some(model) if !model.is_empty() => Ok(model),
        _ => refuse("model", "you must provide a model parameter"),
    }
}

fn error(status: u16, message: &str, param: Option<&str>, code: Option<&str>) -> HttpResponse {
    let body = json!({"message": message, "type": "invalid_request_error", "param": param, "code": code});
    HttpResponse::json(status, json!({ "error": body }))
}

/// Tokens, near enough.
fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// A number that depends on a text only.
fn hash(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    // With fixed keys, in contrast to a map's.
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

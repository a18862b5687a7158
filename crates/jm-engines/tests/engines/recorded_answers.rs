//! Answers in the forms of real servers: each file of `testdata/engines` is one, written by hand after what is documented or
//! reported (`source`), with what it has to come to. None was captured from a running server.

use std::{fs, path::Path, time::Duration};

use jm_engines::{ChatRequest, EngineError, EngineOptions, ErrorClass, TranscriptionHints, audio::Audio};
use jm_tasks::{ChatMessage, Purpose, Role};
use jm_testkit::{HttpRequest, HttpResponse, HttpServer};
use serde_json::{Value, json};

use crate::{call, options};

/// What a server answers that has taken the request.
const ANSWER: &str = "The meeting was moved to Thursday.";

#[tokio::test]
async fn every_recorded_answer_ends_as_its_file_says() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/engines");
    let mut failed = Vec::new();
    let mut tried = 0;
    for server in fs::read_dir(folder)? {
        for file in fs::read_dir(server?.path())? {
            let path = file?.path();
            let case: Value = serde_json::from_slice(&fs::read(&path)?)?;
            assert!(case["source"].as_str().is_some_and(|source| !source.is_empty()), "{}", path.display());
            if let Err(error) = ends_as_it_should(&case).await {
                failed.push(format!("{}: {error}", path.display()));
            }
            tried += 1;
        }
    }
    assert!(failed.is_empty(), "{} of {tried} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(tried >= 70, "{tried} files");
    Ok(())
}

async fn ends_as_it_should(case: &Value) -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let (answer, refuses) = (response(&case["answer"]), case["refuses"].as_str().map(str::to_owned));
    let kind = case["engine"].as_str().unwrap_or_default().to_owned();
    let path = match kind.as_str() {
        "chat" => "/v1/chat/completions",
        "embedding" => "/v1/embeddings",
        "transcription" => "/v1/audio/transcriptions",
        other => anyhow::bail!("no engine `{other}`"),
    };
    let of_kind = kind.clone();
    server.on("POST", path, move |request| match &refuses {
        Some(part) if !has(request, part) => taken(&of_kind, request),
        _ => answer.clone(),
    });
    let options = options(&server);
    let found = match kind.as_str() {
        "chat" => chat(&options, case).await,
        "embedding" => embedding(&options, case).await,
        _ => transcription(&options).await,
    };
    compare(&case["expect"], found, server.requests().len(), case["refuses"].is_string())
}

fn response(answer: &Value) -> HttpResponse {
    let status = u16::try_from(answer["status"].as_u64().unwrap()).unwrap();
    let response = match answer["text"].as_str() {
        Some(text) => HttpResponse::bytes("text/plain", text.as_bytes().to_vec()).with_status(status),
        None => HttpResponse::json(status, answer["json"].clone()),
    };
    let headers = answer["headers"].as_object().cloned().unwrap_or_default();
    headers.into_iter().fold(response, |response, (name, value)| response.header(name, value.as_str().unwrap()))
}

/// Whether a request has the part that the server refuses.
fn has(request: &HttpRequest, part: &str) -> bool {
    if let Some(most) = part.strip_prefix("batch:") {
        return request.json()["input"].as_array().unwrap().len() > most.parse().unwrap();
    }
    if let Some(most) = part.strip_prefix("length:") {
        return request.json()["input"][0].as_str().unwrap().len() > most.parse().unwrap();
    }
    let field = |name: &str| request.form().iter().any(|field| field.name == name);
    match part {
        "system" => request.json()["messages"].as_array().unwrap().iter().any(|one| one["role"] == "system"),
        "thinking" => request.json()["enable_thinking"] != false,
        "verbose_json" => request.form().iter().any(|field| field.body.as_ref() == b"verbose_json"),
        "granularities" => field("timestamp_granularities[]"),
        "language" => field("language"),
        other => request.json().get(other).is_some(),
    }
}

/// What a server answers that has taken the request.
fn taken(kind: &str, request: &HttpRequest) -> HttpResponse {
    let body = match kind {
        "chat" => json!({"choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}]}),
        "embedding" => {
            let texts = request.json()["input"].as_array().unwrap().len();
            let data: Vec<Value> = (0..texts).map(|index| json!({"index": index, "embedding": [0.6, 0.8]})).collect();
            json!({ "data": data })
        }
        _ => json!({ "text": ANSWER }),
    };
    HttpResponse::json(200, body)
}

/// What an engine made of an answer.
#[derive(Debug, Default)]
struct Found {
    text: String,
    truncated: bool,
    model: String,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

async fn chat(options: &EngineOptions, case: &Value) -> Result<Found, EngineError> {
    let text =
        if case["prompt"] == "long" { "the meeting was moved to Thursday ".repeat(2000) } else { "a note".into() };
    let message = |role, content: &str| ChatMessage { role, content: content.into() };
    let request = ChatRequest {
        messages: vec![message(Role::System, "be brief"), message(Role::User, &text)],
        temperature: Some(0.3),
        ..ChatRequest::default()
    };
    let answer = options.chat().unwrap().complete(&request, &call()).await?;
    Ok(Found {
        text: answer.text,
        truncated: answer.truncated,
        model: answer.model,
        prompt_tokens: answer.prompt_tokens,
        completion_tokens: answer.completion_tokens,
    })
}

async fn embedding(options: &EngineOptions, case: &Value) -> Result<Found, EngineError> {
    let count = usize::try_from(case["texts"].as_u64().unwrap_or(1)).unwrap();
    let texts: Vec<String> = match count {
        1 => vec!["word ".repeat(60)],
        count => (0..count).map(|number| format!("text {number}")).collect(),
    };
    let answer = options.embedding().unwrap().embed(&texts, Purpose::Passage, &call()).await?;
    assert_eq!(answer.vectors.len(), count);
    Ok(Found::default())
}

async fn transcription(options: &EngineOptions) -> Result<Found, EngineError> {
    let hints = TranscriptionHints { language: Some("nb".into()), prompt: Some("names".into()) };
    let audio = Audio::from_samples(vec![1; 32_000]);
    let answer = options.transcription().unwrap().transcribe(&audio, &hints, &call()).await?;
    Ok(Found { text: answer.text, ..Found::default() })
}

fn compare(expected: &Value, found: Result<Found, EngineError>, requests: usize, learns: bool) -> anyhow::Result<()> {
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            let class = match error.class() {
                ErrorClass::Permanent => json!("permanent"),
                ErrorClass::Operator => json!("operator"),
                ErrorClass::Retryable => json!("retryable"),
                ErrorClass::RetryAfter(_) => json!("wait"),
            };
            anyhow::ensure!(expected["class"] == class, "{class}: {error}");
            if let Some(wait) = expected["wait_ms"].as_u64() {
                let wait = ErrorClass::RetryAfter(Duration::from_millis(wait));
                anyhow::ensure!(error.class() == wait, "{:?}", error.class());
            }
            let too_long = expected["too_long"].as_bool().unwrap_or_default();
            anyhow::ensure!(error.is_too_long() == too_long, "too long: {}", error.is_too_long());
            let perhaps = expected["perhaps_too_long"].as_bool().unwrap_or(too_long);
            anyhow::ensure!(error.may_be_too_long() == perhaps, "perhaps too long: {}", error.may_be_too_long());
            let says = expected["says"].as_str().unwrap_or_default();
            anyhow::ensure!(error.to_string().contains(says), "{error}");
            return Ok(());
        }
    };
    anyhow::ensure!(expected["class"].is_null(), "{found:?}");
    if let Some(calls) = expected["calls"].as_u64() {
        anyhow::ensure!(requests as u64 == calls, "{requests} calls");
        return Ok(());
    }
    anyhow::ensure!(requests == if learns { 2 } else { 1 }, "{requests} calls");
    anyhow::ensure!(expected["text"] == found.text.as_str(), "{found:?}");
    anyhow::ensure!(expected["truncated"].as_bool().unwrap_or_default() == found.truncated, "{found:?}");
    for (field, value) in [
        ("prompt_tokens", json!(found.prompt_tokens)),
        ("completion_tokens", json!(found.completion_tokens)),
        ("model", json!(found.model)),
    ] {
        anyhow::ensure!(expected.get(field).is_none_or(|expected| *expected == value), "{found:?}");
    }
    Ok(())
}

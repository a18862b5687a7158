//! Chat completions.

use serde_json::{Value, json};

use super::{CREATED, Refusal, hash, model, object, refuse, words};
use crate::http::{HttpRequest, HttpResponse};

/// How much of the last user message is repeated.
const REPEATED: usize = 40;

pub(super) fn answer(request: &HttpRequest) -> Result<HttpResponse, Refusal> {
    let body = object(request)?;
    let model = model(&body)?;
    if body["stream"].as_bool() == Some(true) {
        return refuse("stream", "this server does not stream");
    }
    let messages = body["messages"].as_array().filter(|messages| !messages.is_empty());
    let Some(messages) = messages else { return refuse("messages", "an array of at least one message is required") };
    let mut prompt_tokens = 0;
    let mut last = None;
    for message in messages {
        let Some(role) = message["role"].as_str() else { return refuse("messages", "a message has no role") };
        let Some(text) = text(&message["content"]) else { return refuse("messages", "a message has no text") };
        prompt_tokens += words(&text);
        if role == "user" {
            last = Some(text);
        }
    }
    let Some(last) = last else { return refuse("messages", "a message of the user is required") };
    let beginning: String = last.chars().take(REPEATED).collect();
    let whole = format!("summary of {} characters: {beginning}", last.chars().count());
    let limit = ["max_completion_tokens", "max_tokens"].iter().find_map(|name| body[name].as_u64());
    let (content, finish_reason) = cut(&whole, limit);
    let completion_tokens = words(&content);
    Ok(HttpResponse::json(
        200,
        json!({
            "id": format!("chatcmpl-{:016x}", hash(&last)),
            "object": "chat.completion",
            "created": CREATED,
            "model": model,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": null, "annotations": []},
                "logprobs": null,
                "finish_reason": finish_reason,
            }],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {
                    "reasoning_tokens": 0,
                    "audio_tokens": 0,
                    "accepted_prediction_tokens": 0,
                    "rejected_prediction_tokens": 0,
                },
            },
            "service_tier": "default",
            "system_fingerprint": "fp_testkit",
        }),
    ))
}

/// A message's text, be it a string or parts of type `text`.
fn text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts.iter().map(|part| part["text"].as_str()).collect(),
        _ => None,
    }
}

/// The first words of an answer, if a limit is below their number, and the reason for its end.
fn cut(whole: &str, limit: Option<u64>) -> (String, &'static str) {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    if words(whole) <= limit {
        return (whole.to_owned(), "stop");
    }
    (whole.split_whitespace().take(limit).collect::<Vec<_>>().join(" "), "length")
}

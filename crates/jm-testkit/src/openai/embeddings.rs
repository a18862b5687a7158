//! Embeddings.

use serde_json::{Value, json};

use super::{Refusal, hash, model, object, refuse, words};
use crate::http::{HttpRequest, HttpResponse};

/// Of a vector, unless a request wants others.
pub(super) const DIMENSIONS: usize = 8;

/// Of a vector at most; the largest models have 4096.
const MAX_DIMENSIONS: u64 = 4096;

/// Texts in one request at most, as in the real API.
const MAX_INPUTS: usize = 2048;

pub(super) fn answer(request: &HttpRequest) -> Result<HttpResponse, Refusal> {
    let body = object(request)?;
    let model = model(&body)?;
    if !matches!(body["encoding_format"].as_str(), None | Some("float")) {
        return refuse("encoding_format", "this server knows the format float only");
    }
    let dimensions = match &body["dimensions"] {
        Value::Null => Some(DIMENSIONS),
        wanted => wanted.as_u64().filter(|wanted| (1..=MAX_DIMENSIONS).contains(wanted)).map(to_size),
    };
    let Some(dimensions) = dimensions else { return refuse("dimensions", "this is no number of dimensions") };
    let texts: Option<Vec<&str>> = match &body["input"] {
        Value::String(text) => Some(vec![text]),
        Value::Array(texts) => texts.iter().map(Value::as_str).collect(),
        _ => None,
    };
    let Some(texts) = texts else { return refuse("input", "'input' must be a string or an array of strings") };
    if texts.is_empty() || texts.len() > MAX_INPUTS {
        return refuse("input", "'input' must have 1 to 2048 elements");
    }
    if texts.iter().any(|text| text.is_empty()) {
        return refuse("input", "'input' cannot be an empty string");
    }
    let tokens: usize = texts.iter().map(|text| words(text)).sum();
    // The index counts, not the order: a client that relies on the order is to be found out.
    let data = texts.iter().enumerate().rev();
    let data =
        data.map(|(index, text)| json!({"object": "embedding", "index": index, "embedding": vector(text, dimensions)}));
    Ok(HttpResponse::json(
        200,
        json!({
            "object": "list",
            "data": data.collect::<Vec<_>>(),
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }),
    ))
}

/// A unit vector that depends on the text only.
pub(super) fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(hash(text));
    // None is zero, so that no vector is.
    let mut vector: Vec<f32> =
        (0..dimensions).map(|_| (0.1 + random.f32()) * if random.bool() { 1.0 } else { -1.0 }).collect();
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    for value in &mut vector {
        *value /= length;
    }
    vector
}

fn to_size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(DIMENSIONS)
}

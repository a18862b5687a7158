//! Transcriptions.

use std::io::Cursor;

use hound::WavReader;
use serde_json::{Value, json};

use super::{Refusal, hash, refuse};
use crate::http::{FormField, HttpRequest, HttpResponse};

/// Seconds of a segment.
const SEGMENT: u32 = 10;

/// Seconds until the speaker changes.
const TURN: u32 = 5;

/// Seconds of a recording at most: a header may announce any number of segments.
const MAX_SECONDS: f64 = 24.0 * 3600.0;

pub(super) fn answer(request: &HttpRequest) -> Result<HttpResponse, Refusal> {
    let form = request.form();
    let field = |name: &str| form.iter().find(|field| field.name == name);
    let text = |name: &str| field(name).map(|field| String::from_utf8_lossy(&field.body).into_owned());
    if text("model").is_none_or(|model| model.is_empty()) {
        return refuse("model", "you must provide a model parameter");
    }
    let Some(file) = field("file").filter(|file| file.file_name.is_some()) else {
        return refuse("file", "a file is required, with its name");
    };
    let Some(seconds) = seconds(file).filter(|seconds| *seconds <= MAX_SECONDS) else {
        return refuse("file", "Invalid file format.");
    };
    match text("response_format").as_deref() {
        None | Some("json") => Ok(HttpResponse::json(200, plain(seconds))),
        Some("text") => Ok(HttpResponse::bytes("text/plain; charset=utf-8", spoken(seconds, SEGMENT) + "\n")),
        Some("verbose_json") => Ok(HttpResponse::json(200, verbose(seconds))),
        Some("diarized_json") => Ok(HttpResponse::json(200, diarized(seconds))),
        Some(_) => refuse("response_format", "this server knows json, text, verbose_json and diarized_json"),
    }
}

/// How long a WAV file is, by its header and by what follows it.
fn seconds(file: &FormField) -> Option<f64> {
    let reader = WavReader::new(Cursor::new(&file.body)).ok()?;
    let spec = reader.spec();
    let announced = reader.duration();
    let frame = usize::from(spec.channels) * usize::from(spec.bits_per_sample).div_ceil(8);
    let begin = usize::try_from(reader.into_inner().position()).ok()?;
    // A header may announce more than follows it.
    let there = file.body.len().saturating_sub(begin).checked_div(frame)?;
    let frames = u32::try_from(there).ok()?.min(announced);
    (spec.sample_rate > 0).then(|| f64::from(frames) / f64::from(spec.sample_rate))
}

/// Begin and end of each started segment.
fn segments(seconds: f64, length: u32) -> impl Iterator<Item = (u32, f64)> {
    let begins = (0..).map(move |number| number * length).take_while(move |&begin| f64::from(begin) < seconds);
    begins.map(move |begin| (begin, f64::from(begin + length).min(seconds)))
}

fn said(begin: u32) -> String {
    format!("second {begin}")
}

fn spoken(seconds: f64, length: u32) -> String {
    segments(seconds, length).map(|(begin, _)| said(begin)).collect::<Vec<_>>().join(" ")
}

fn usage(seconds: f64) -> Value {
    json!({"type": "duration", "seconds": seconds.ceil()})
}

fn plain(seconds: f64) -> Value {
    json!({"text": spoken(seconds, SEGMENT), "usage": usage(seconds)})
}

fn verbose(seconds: f64) -> Value {
    let segments = segments(seconds, SEGMENT).enumerate().map(|(id, (begin, end))| {
        json!({
            "id": id,
            // In hundredths of a second.
            "seek": begin * 100,
            "start": f64::from(begin),
            "end": end,
            "text": said(begin),
            "tokens": [50364, hash(&said(begin)) % 50_000],
            "temperature": 0.0,
            "avg_logprob": -0.25,
            "compression_ratio": 1.0,
            "no_speech_prob": 0.01,
        })
    });
    json!({
        "task": "transcribe",
        "language": "english",
        "duration": seconds,
        "text": spoken(seconds, SEGMENT),
        "segments": segments.collect::<Vec<_>>(),
        "usage": usage(seconds),
    })
}

fn diarized(seconds: f64) -> Value {
    let segments = segments(seconds, TURN).enumerate().map(|(id, (begin, end))| {
        json!({
            "type": "transcript.text.segment",
            "id": format!("seg_{id:03}"),
            "start": f64::from(begin),
            "end": end,
            "text": said(begin),
            "speaker": if id % 2 == 0 { "A" } else { "B" },
        })
    });
    json!({
        "task": "transcribe",
        "duration": seconds,
        "text": spoken(seconds, TURN),
        "segments": segments.collect::<Vec<_>>(),
        "usage": usage(seconds),
    })
}

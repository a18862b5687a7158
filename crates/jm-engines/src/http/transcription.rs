//! What was said: `/audio/transcriptions` with `verbose_json`.

use std::time::Duration;

use jm_mq_core::OptionsError;
use jm_tasks::TranscriptSegment;
use serde_json::{Value, json};

use super::{
    client::{Answer, Body, Client, Failure, Request},
    dialect::{json, profile::Known, refusal::Part},
    speech::{self, PATH},
};
use crate::{
    audio::Audio,
    call::Call,
    engine::{EngineFuture, Transcription, TranscriptionEngine, TranscriptionHints},
    error::EngineError,
    options::EngineOptions,
};

/// The end of a prompt is what matters; Whisper reads about as much of it.
const MAX_PROMPT_CHARACTERS: usize = 200;

/// What a request can do without.
const OPTIONAL: [Part; 4] = [Part::Granularities, Part::VerboseJson, Part::Temperature, Part::Prompt];

/// A transcription model behind the `OpenAI` API.
///
/// Servers that do not know `verbose_json` are asked for `json`, and an answer in plain text is read; the text is then one
/// segment. A language that the server does not know is not given.
pub struct HttpTranscription {
    client: Client,
    model: String,
    max_upload_bytes: usize,
    max_piece: Duration,
}

impl HttpTranscription {
    /// Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// An option that is out of range.
    pub fn new(options: &EngineOptions) -> Result<Self, OptionsError> {
        Ok(Self {
            client: Client::new(options)?,
            model: options.model.clone(),
            max_upload_bytes: options.max_upload_bytes,
            max_piece: options.max_piece.min(speech::longest(options.max_upload_bytes)),
        })
    }

    async fn transcribe(
        &self,
        audio: &Audio,
        hints: &TranscriptionHints,
        call: &Call,
    ) -> Result<Transcription, EngineError> {
        let hint = hints.language.as_deref().map(language).filter(|language| !language.is_empty());
        match self.with_hint(audio, hint.as_deref(), hints, call).await {
            // Servers know different languages. The recording's own can be heard.
            Err(failure) if hint.is_some() && failure.refuses(Part::Language) => {
                tracing::debug!(language = hint, "the server does not know the language; it is not given");
                Ok(self.with_hint(audio, None, hints, call).await?)
            }
            result => Ok(result?),
        }
    }

    async fn with_hint(
        &self,
        audio: &Audio,
        language: Option<&str>,
        hints: &TranscriptionHints,
        call: &Call,
    ) -> Result<Transcription, Failure> {
        let prompt = hints.prompt.as_deref().map(str::trim).unwrap_or_default();
        let prompt = last_characters(prompt, MAX_PROMPT_CHARACTERS);
        let build = |known: &Known| {
            let verbose = known.takes(Part::VerboseJson);
            let format = if verbose { "verbose_json" } else { "json" };
            let mut fields = vec![("model".into(), self.model.clone()), ("response_format".into(), format.into())];
            if verbose && known.takes(Part::Granularities) {
                fields.push(("timestamp_granularities[]".into(), "segment".into()));
            }
            if known.takes(Part::Temperature) {
                fields.push(("temperature".into(), "0".into()));
            }
            if let Some(language) = language {
                fields.push(("language".into(), language.into()));
            }
            if !prompt.is_empty() && known.takes(Part::Prompt) {
                fields.push(("prompt".into(), prompt.into()));
            }
            Ok(Body::Form(speech::file(audio, self.max_upload_bytes)?, fields))
        };
        let sending = Request { path: PATH, optional: &OPTIONAL, texts: &[prompt], call };
        let read = |answer: Answer| self.read(&sending, &answer, audio.duration().as_secs_f64());
        self.client.post(&sending, build, read).await
    }

    fn read(&self, sent: &Request<'_>, answer: &Answer, duration: f64) -> Result<Transcription, Failure> {
        let answer = match self.client.parse::<Value>(PATH, &answer.body) {
            Ok(answer) => answer,
            Err(_) if answer.is_plain_text => json!({ "text": String::from_utf8_lossy(&answer.body).trim() }),
            Err(failure) => return Err(failure),
        };
        if let Some(failure) = self.client.error_inside(sent, &answer) {
            return Err(failure);
        }
        let found = found(&answer, duration);
        let (text, segments) = found.ok_or_else(|| self.client.unusable(PATH, "an answer without text"))?;
        Ok(Transcription { text, language: json::text(answer.get("language")), segments, model: self.model.clone() })
    }
}

impl TranscriptionEngine for HttpTranscription {
    fn transcribe<'a>(
        &'a self,
        audio: &'a Audio,
        hints: &'a TranscriptionHints,
        call: &'a Call,
    ) -> EngineFuture<'a, Transcription> {
        Box::pin(self.transcribe(audio, hints, call))
    }

    fn max_piece(&self) -> Duration {
        self.max_piece
    }
}

/// `zh` of `zh-Hans-CN`: the API wants the language alone, by two letters where there are two; none for `auto`.
fn language(tag: &str) -> String {
    let language = tag.split(['-', '_']).next().unwrap_or_default().trim().to_ascii_lowercase();
    match language.as_str() {
        "auto" | "und" | "mul" => String::new(),
        "cmn" => "zh".to_owned(),
        _ => language,
    }
}

fn last_characters(text: &str, count: usize) -> &str {
    let cut = text.char_indices().rev().nth(count.saturating_sub(1)).map_or(0, |(index, _)| index);
    &text[cut..]
}

/// Text and segments for a recording of that many seconds; `None` if there is neither in the answer.
fn found(answer: &Value, duration: f64) -> Option<(String, Vec<TranscriptSegment>)> {
    let given = json::list(answer.get("segments"));
    let said = |segment: &Value| segment.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
    let text = match answer.get("text").and_then(Value::as_str) {
        Some(text) => text.trim().to_owned(),
        // Segments' texts bring the spaces between them along.
        None if answer.get("segments").is_some_and(Value::is_array) => given.iter().map(said).collect::<String>(),
        None => return None,
    };
    let mut segments: Vec<TranscriptSegment> = given
        .iter()
        .map(|segment| {
            let (start, end) = (json::seconds(segment.get("start")), json::seconds(segment.get("end")));
            let (start, end) = speech::within(start, end, duration);
            TranscriptSegment { start, end, text: said(segment).trim().to_owned(), speaker: None }
        })
        .filter(|segment| !segment.text.is_empty())
        .collect();
    segments.sort_by(|a, b| a.start.total_cmp(&b.start));
    let text = text.trim().to_owned();
    if segments.is_empty() && !text.is_empty() {
        segments.push(TranscriptSegment { start: 0.0, end: duration, text: text.clone(), speaker: None });
    }
    Some((text, segments))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Segments = Vec<(f64, f64, String)>;

    fn read(json: &str) -> Option<(String, Segments)> {
        let (text, segments) = found(&serde_json::from_str(json).unwrap(), 10.0)?;
        Some((text, segments.into_iter().map(|one| (one.start, one.end, one.text)).collect()))
    }

    #[test]
    fn times_lie_within_the_recording_and_in_order_and_empty_segments_are_dropped() {
        let json = r#"{"text": " a b ", "segments": [
            {"start": 5, "end": 12.5, "text": " b "}, {"start": -1, "end": 4, "text": "a"},
            {"start": 4, "end": 5, "text": "  "}, {"start": 20, "end": 3, "text": "c"}]}"#;
        let segments = vec![(0.0, 4.0, "a".into()), (5.0, 10.0, "b".into()), (10.0, 10.0, "c".into())];
        assert_eq!(read(json), Some(("a b".into(), segments)));
    }

    #[test]
    fn answers_with_less_in_them_are_read_too() {
        let whole = Some(("a".into(), vec![(0.0, 10.0, "a".into())]));
        assert_eq!(read(r#"{"text": "a"}"#), whole);
        assert_eq!(read(r#"{"text": "a", "segments": null}"#), whole);
        assert_eq!(read(r#"{"segments": [{"text": " a"}]}"#), whole);
        assert_eq!(read(r#"{"text": "  ", "segments": []}"#), Some((String::new(), Vec::new())));
        assert_eq!(read("{}"), None);
        let times = r#"{"text": "a", "segments": [{"start": "0.5", "end": "1.5s", "text": "a"}, {"text": null}]}"#;
        assert_eq!(read(times), Some(("a".into(), vec![(0.5, 1.5, "a".into())])));
    }

    #[test]
    fn hints_are_cut_to_what_the_api_takes() {
        assert_eq!(["zh-Hans-CN", "EN_us", "de", "", "cmn", "auto"].map(language), ["zh", "en", "de", "", "zh", ""]);
        assert_eq!(last_characters("añb", 2), "ñb");
        assert_eq!(last_characters("añb", 3), "añb");
        assert_eq!(last_characters("añb", 9), "añb");
        assert_eq!(last_characters("", 9), "");
    }
}

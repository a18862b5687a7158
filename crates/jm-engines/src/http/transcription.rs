//! What was said: `/audio/transcriptions` with `verbose_json`.

use std::time::Duration;

use jm_mq_core::OptionsError;
use jm_tasks::TranscriptSegment;
use serde::Deserialize;

use super::{
    client::{Body, Client},
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

/// A transcription model behind the `OpenAI` API.
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
        let mut form = speech::form(audio, &self.model, self.max_upload_bytes)?
            .text("response_format", "verbose_json")
            .text("timestamp_granularities[]", "segment")
            .text("temperature", "0");
        if let Some(language) = hints.language.as_deref().map(language).filter(|language| !language.is_empty()) {
            form = form.text("language", language);
        }
        let prompt = hints.prompt.as_deref().map(str::trim).unwrap_or_default();
        let prompt = last_characters(prompt, MAX_PROMPT_CHARACTERS);
        if !prompt.is_empty() {
            form = form.text("prompt", prompt.to_owned());
        }
        let answer: Answer = self.client.post(PATH, Body::Form(form), &[prompt], call).await?;
        let read = answer.read(audio.duration().as_secs_f64());
        let (text, segments) = read.ok_or_else(|| self.client.unusable(PATH, "an answer without text"))?;
        Ok(Transcription {
            text,
            language: answer.language.filter(|language| !language.is_empty()),
            segments,
            model: self.model.clone(),
        })
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

/// `zh` of `zh-Hans-CN`: the API wants the language alone.
fn language(tag: &str) -> String {
    tag.split(['-', '_']).next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn last_characters(text: &str, count: usize) -> &str {
    let cut = text.char_indices().rev().nth(count.saturating_sub(1)).map_or(0, |(index, _)| index);
    &text[cut..]
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    segments: Option<Vec<Segment>>,
}

#[derive(Deserialize)]
struct Segment {
    #[serde(default)]
    start: Option<f64>,
    #[serde(default)]
    end: Option<f64>,
    #[serde(default)]
    text: String,
}

impl Answer {
    /// Text and segments for a recording of that many seconds; `None` if there is neither in the answer.
    fn read(&self, duration: f64) -> Option<(String, Vec<TranscriptSegment>)> {
        let given = self.segments.as_deref().unwrap_or_default();
        let text = match &self.text {
            Some(text) => text.trim().to_owned(),
            // Segments' texts bring the spaces between them along.
            None => self.segments.as_ref().map(|all| all.iter().map(|one| one.text.as_str()).collect::<String>())?,
        };
        let mut segments: Vec<TranscriptSegment> = given
            .iter()
            .filter(|segment| !segment.text.trim().is_empty())
            .map(|segment| {
                let (start, end) = speech::within(segment.start, segment.end, duration);
                TranscriptSegment { start, end, text: segment.text.trim().to_owned(), speaker: None }
            })
            .collect();
        segments.sort_by(|a, b| a.start.total_cmp(&b.start));
        if segments.is_empty() && !text.is_empty() {
            segments.push(TranscriptSegment { start: 0.0, end: duration, text: text.clone(), speaker: None });
        }
        Some((text.trim().to_owned(), segments))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Segments = Vec<(f64, f64, String)>;

    fn read(json: &str) -> Option<(String, Segments)> {
        let (text, segments) = serde_json::from_str::<Answer>(json).unwrap().read(10.0)?;
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
    }

    #[test]
    fn hints_are_cut_to_what_the_api_takes() {
        assert_eq!(["zh-Hans-CN", "EN_us", "de", ""].map(language), ["zh", "en", "de", ""]);
        assert_eq!(last_characters("añb", 2), "ñb");
        assert_eq!(last_characters("añb", 3), "añb");
        assert_eq!(last_characters("añb", 9), "añb");
        assert_eq!(last_characters("", 9), "");
    }
}

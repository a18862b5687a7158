//! The work of `jm.asr`: a recording becomes a transcript.

use std::{sync::Arc, time::Duration};

use jm_engines::{
    Call, EngineError, Transcription, TranscriptionEngine, TranscriptionHints,
    audio::{Audio, AudioFetcher},
};
use jm_mq_core::{Answers, Context, Handler, HandlerError};
use jm_tasks::{Transcribe, Transcribed, TranscriptSegment, answer};

use crate::speakers;

/// What the next piece is told of the text before it, so that a sentence goes on as it began.
const BEFORE_CHARS: usize = 120;
/// What it is told of the task's words. Both together are as much as engines look at.
const WORDS_CHARS: usize = 79;

/// Transcribes recordings.
pub(crate) struct Transcriber {
    pub(crate) audio: AudioFetcher,
    pub(crate) engine: Arc<dyn TranscriptionEngine>,
}

impl Handler<Transcribe> for Transcriber {
    async fn handle(&self, task: Transcribe, context: &Context) -> Result<Answers, HandlerError> {
        let call = Call::from(context);
        let audio = self.audio.fetch(&task.audio, &call).await?;
        let hints = TranscriptionHints { language: task.language, prompt: task.prompt };
        let mut transcription = self.transcribe(&audio, hints, &call).await?;
        speakers::assign(&mut transcription.segments, &task.turns);
        let event = Transcribed {
            record_id: task.record_id,
            revision: task.revision,
            text: transcription.text,
            language: transcription.language,
            duration: audio.duration().as_secs_f64(),
            segments: transcription.segments,
            model: transcription.model,
        };
        answer(context, event.record_id.as_ref(), &event)
    }
}

impl Transcriber {
    /// Piece by piece, each piece's times moved to its place in the whole.
    async fn transcribe(
        &self,
        audio: &Audio,
        hints: TranscriptionHints,
        call: &Call,
    ) -> Result<Transcription, EngineError> {
        let mut whole = Transcription::default();
        for (offset, piece) in audio.pieces(self.engine.max_piece()) {
            let hints = TranscriptionHints {
                language: hints.language.clone(),
                prompt: prompt(hints.prompt.as_deref(), &whole.text),
            };
            let transcription = self.engine.transcribe(&piece, &hints, call).await?;
            append(&mut whole, transcription, offset);
        }
        whole.language = whole.language.or(hints.language);
        Ok(whole)
    }
}

/// The task's words, and the end of what was said before.
fn prompt(asked_for: Option<&str>, before: &str) -> Option<String> {
    let words: String = asked_for.unwrap_or_default().chars().take(WORDS_CHARS).collect();
    let start = before.char_indices().rev().nth(BEFORE_CHARS - 1).map_or(0, |(start, _)| start);
    let prompt = [&words, &before[start..]].join(" ");
    Some(prompt.trim().to_owned()).filter(|prompt| !prompt.is_empty())
}

fn append(whole: &mut Transcription, piece: Transcription, offset: Duration) {
    let offset = offset.as_secs_f64();
    let moved = |segment: TranscriptSegment| TranscriptSegment {
        start: segment.start + offset,
        end: segment.end + offset,
        ..segment
    };
    whole.segments.extend(piece.segments.into_iter().map(moved));
    let text = piece.text.trim();
    if let (Some(last), Some(first)) = (whole.text.chars().last(), text.chars().next())
        && !(without_spaces(last) || without_spaces(first))
    {
        whole.text.push(' ');
    }
    whole.text.push_str(text);
    whole.language = whole.language.take().or(piece.language);
    whole.model = piece.model;
}

/// Chinese and Japanese are written without spaces between sentences.
fn without_spaces(c: char) -> bool {
    matches!(c, '\u{3000}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ffef}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str) -> Transcription {
        let segment = TranscriptSegment { start: 0.0, end: 1.5, text: text.into(), speaker: None };
        Transcription {
            text: format!(" {text} "),
            language: Some("x".into()),
            segments: vec![segment],
            model: "m".into(),
        }
    }

    #[test]
    fn pieces_are_moved_to_their_place_and_joined_as_their_language_is_written() {
        let mut whole = Transcription::default();
        append(&mut whole, piece("Hello."), Duration::ZERO);
        append(&mut whole, piece("Again."), Duration::from_mins(10));
        append(&mut whole, piece("你好。"), Duration::from_mins(20));
        assert_eq!(whole.text, "Hello. Again.你好。");
        let times: Vec<(f64, f64)> = whole.segments.iter().map(|segment| (segment.start, segment.end)).collect();
        assert_eq!(times, [(0.0, 1.5), (600.0, 601.5), (1200.0, 1201.5)]);
    }

    #[test]
    fn the_prompt_is_the_tasks_words_and_the_end_of_what_was_said() {
        assert_eq!(prompt(None, ""), None);
        assert_eq!(prompt(Some("Jotmo"), "").as_deref(), Some("Jotmo"));
        let before = "好".repeat(300);
        assert_eq!(prompt(Some("Jotmo"), &before), Some(format!("Jotmo {}", "好".repeat(BEFORE_CHARS))));
    }
}

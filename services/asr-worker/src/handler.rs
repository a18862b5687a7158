//! The work of `jm.asr`: a recording becomes a transcript.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jm_engines::{
    Call, EngineError, Transcription, TranscriptionEngine, TranscriptionHints,
    audio::{Audio, AudioFetcher},
};
use jm_mq_core::{Answers, Context, Handler, HandlerError};
use jm_tasks::{Transcribe, Transcribed, TranscriptSegment, answer};

use crate::speakers::Speakers;

/// What the next piece is told of the text before it, so that a sentence goes on as it began.
const BEFORE_CHARS: usize = 120;
/// What it is told of the task's words. Both together are as much as engines look at.
const WORDS_CHARS: usize = 79;
/// The bytes of a language's tag: the longest that BCP 47 asks anybody to keep.
const TAG_BYTES: RangeInclusive<usize> = 2..=35;

/// A shorter piece is not refused for its length.
const LEAST_PIECE: Duration = Duration::from_secs(5);

/// Transcribes recordings.
pub(crate) struct Transcriber {
    audio: AudioFetcher,
    engine: Arc<dyn TranscriptionEngine>,
    /// The longest piece that the server takes, in milliseconds, after it has refused a longer one.
    learnt_piece: AtomicU64,
}

impl Handler<Transcribe> for Transcriber {
    async fn handle(&self, task: Transcribe, context: &Context) -> Result<Answers, HandlerError> {
        // Before the recording is fetched: what is wrong with the task is known now.
        let speakers = Speakers::new(task.turns)?;
        task.language.as_deref().map_or(Ok(()), check_tag)?;
        let call = Call::from(context);
        let audio = self.audio.fetch(&task.audio, &call).await?;
        let hints = TranscriptionHints { language: task.language, prompt: task.prompt };
        let mut transcription = self.transcribe(&audio, hints, &call).await?;
        speakers.assign(&mut transcription.segments);
        let event = Transcribed {
            record_id: task.record_id,
            revision: task.revision,
            text: transcription.text,
            language: transcription.language,
            duration: audio.duration().as_secs_f64(),
            segments: transcription.segments,
            model: transcription.model,
        };
        let (segments, most) = (event.segments.len(), TranscriptSegment::MAX_SEGMENTS);
        if segments > most {
            let text = format!("audio: its transcript has {segments} segments; at most {most} are kept");
            return Err(HandlerError::permanent(text));
        }
        answer(context, event.record_id.as_ref(), &event)
    }
}

/// A tag is a few letters and digits; anything else is passed on to no engine.
fn check_tag(tag: &str) -> Result<(), HandlerError> {
    let of_a_tag = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if TAG_BYTES.contains(&tag.len()) && tag.bytes().all(of_a_tag) {
        return Ok(());
    }
    let (least, most) = (TAG_BYTES.start(), TAG_BYTES.end());
    let text = format!("language: no tag of a language: it has {least} to {most} letters, digits, `-` and `_`");
    Err(HandlerError::permanent(text))
}

impl Transcriber {
    pub(crate) fn new(audio: AudioFetcher, engine: Arc<dyn TranscriptionEngine>) -> Self {
        Self { audio, engine, learnt_piece: AtomicU64::new(u64::MAX) }
    }

    fn longest_piece(&self) -> Duration {
        self.engine.max_piece().min(Duration::from_millis(self.learnt_piece.load(Ordering::Relaxed)))
    }

    /// Piece by piece, each piece's times moved to its place in the whole.
    async fn transcribe(
        &self,
        audio: &Audio,
        hints: TranscriptionHints,
        call: &Call,
    ) -> Result<Transcription, EngineError> {
        let mut whole = Transcription::default();
        // Those that are still to come, the next one last.
        let mut pieces: Vec<(Duration, Audio)> = audio.pieces(self.longest_piece());
        pieces.reverse();
        while let Some((offset, piece)) = pieces.pop() {
            let hints = TranscriptionHints {
                language: hints.language.clone(),
                prompt: prompt(hints.prompt.as_deref(), &whole.text),
            };
            let half = piece.duration() / 2;
            match self.engine.transcribe(&piece, &hints, call).await {
                Ok(transcription) => append(&mut whole, transcription, offset),
                // The server takes less than `max_upload_bytes`: it is not asked for as much again.
                Err(error) if error.is_too_long() && half >= LEAST_PIECE => {
                    self.learnt_piece.fetch_min(u64::try_from(half.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
                    tracing::warn!(longest = ?half, "the server takes shorter pieces than engine.max_piece and \
                        engine.max_upload_bytes allow; lower them");
                    let halves = piece.pieces(half).into_iter().map(|(later, half)| (offset + later, half));
                    let mut halves: Vec<_> = halves.collect();
                    halves.reverse();
                    pieces.append(&mut halves);
                }
                Err(error) => return Err(error),
            }
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
    fn only_a_tag_passes_for_a_language() {
        for right in ["zh", "zh-Hant-TW", "pt_BR", &"a".repeat(35)] {
            check_tag(right).unwrap();
        }
        for wrong in ["", "z", "zh\n", "en. canary", "中文", &"a".repeat(36)] {
            let error = check_tag(wrong).unwrap_err();
            assert!(error.is_permanent() && error.to_string().starts_with("language: "), "{wrong}: {error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn the_prompt_is_the_tasks_words_and_the_end_of_what_was_said() {
        assert_eq!(prompt(None, ""), None);
        assert_eq!(prompt(Some("Jotmo"), "").as_deref(), Some("Jotmo"));
        let before = "好".repeat(300);
        assert_eq!(prompt(Some("Jotmo"), &before), Some(format!("Jotmo {}", "好".repeat(BEFORE_CHARS))));
    }
}

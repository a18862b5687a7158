//! The messages of the tasks that are to be started.

use std::collections::HashSet;

use jm_mq_core::{Message, Outgoing, Payload};
use jm_tasks::{
    Diarize, Embed, Purpose, RecordContent, RecordId, SpeakerTurn, Stage, Summarize, Title, Transcribe, follow_up_id,
    queue,
};
use serde::Serialize;
use text_splitter::{ChunkConfig, TextSplitter};

use crate::{
    event::Finding,
    pipeline::{PipelineOptions, texts},
    state::RecordState,
};

/// More passages of one record are not embedded: 400 of the default length are six hours of speech. What comes back
/// for them has to fit into a message of 16 MiB: a vector of 3072 numbers is some 36 KiB of JSON.
pub const MAX_PASSAGES: usize = 400;

/// The longest text of a task, in bytes of JSON: what `llm-worker` summarises. It is some 400,000 English words.
pub const MAX_TEXT_BYTES: usize = 2 * 1024 * 1024;

/// The longest name of a speaker in a transcription's task, in bytes, as for `asr-worker`. With the turns' limit they are
/// 10 MiB of JSON at most.
pub const MAX_SPEAKER_BYTES: usize = 200;

/// The most speakers of a transcription's task, as for `asr-worker`.
pub const MAX_SPEAKERS: usize = 100;

/// The longest message of a task: what the broker takes by default. A longer one it would refuse each time.
pub const MAX_TASK_BYTES: usize = 16 * 1024 * 1024;

/// Why a task's message could not be made. It never can be.
#[derive(Debug, thiserror::Error)]
pub enum FollowUpError {
    /// It cannot be written as JSON, which does not happen.
    #[error("the task of stage {stage} cannot be written as JSON")]
    Json {
        /// The task's stage.
        stage: Stage,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The record has an address or a language of megabytes.
    #[error("the task of stage {stage} has {bytes} bytes; at most {MAX_TASK_BYTES} can be sent")]
    TooLong {
        /// The task's stage.
        stage: Stage,
        /// Its message's length.
        bytes: usize,
    },
}

/// The message that starts the task of `stage`; `None` for a stage that lacks what it needs, which is then not due.
///
/// Takes a while for long texts: not for the threads of a runtime.
///
/// # Errors
///
/// When the task is too long for the broker, because the record's audio address or language is.
pub fn message(
    record: &RecordId,
    state: &RecordState,
    stage: Stage,
    options: &PipelineOptions,
) -> Result<Option<Outgoing>, FollowUpError> {
    let (Some(content), Ok(revision)) = (&state.content, u64::try_from(state.revision)) else { return Ok(None) };
    let task = Task { record, revision, stage };
    let (record_id, revision) = (Some(record.clone()), Some(revision));
    let language = content.language.clone();
    match stage {
        Stage::Diarization => {
            let Some(audio) = content.audio.clone() else { return Ok(None) };
            task.to(queue::SD, &Diarize { record_id, revision, audio, speakers: content.speakers })
        }
        Stage::Transcription => {
            let Some(audio) = content.audio.clone() else { return Ok(None) };
            let turns = match state.results.get(&Stage::Diarization).map(|result| (result.revision, &result.finding)) {
                Some((revision, Finding::Turns(turns))) if revision == state.revision => usable(record, turns).to_vec(),
                _ => Vec::new(),
            };
            task.to(queue::ASR, &Transcribe { record_id, revision, audio, language, prompt: None, turns })
        }
        Stage::Embedding => {
            let Some(text) = text(record, state, content) else { return Ok(None) };
            let texts = passages(record, &text, options.passage_chars);
            task.to(queue::EMBED, &Embed { record_id, revision, texts, purpose: Purpose::Passage })
        }
        Stage::Summary => {
            let Some(text) = text(record, state, content) else { return Ok(None) };
            task.to(queue::LLM, &Summarize { record_id, revision, text, language })
        }
        Stage::Title => {
            let Some(text) = text(record, state, content) else { return Ok(None) };
            task.to(queue::LLM, &Title { record_id, revision, text, language })
        }
    }
}

/// Whose task it is.
struct Task<'a> {
    record: &'a RecordId,
    revision: u64,
    stage: Stage,
}

impl Task<'_> {
    /// To a queue, whose exchange and routing key have its name.
    fn to<T: Payload + Serialize>(&self, queue: &str, payload: &T) -> Result<Option<Outgoing>, FollowUpError> {
        let message = Message::of(payload).map_err(|source| FollowUpError::Json { stage: self.stage, source })?;
        let bytes = message.body().len();
        if bytes > MAX_TASK_BYTES {
            return Err(FollowUpError::TooLong { stage: self.stage, bytes });
        }
        let message = message
            .message_id(&follow_up_id(self.record, self.stage, self.revision).to_string())
            .correlation_id(self.record.as_str());
        Ok(Some(Outgoing::new(queue, queue, message)))
    }
}

/// The turns, or none if `asr-worker` would refuse them: a transcript without speakers is better than none.
fn usable<'a>(record: &RecordId, turns: &'a [SpeakerTurn]) -> &'a [SpeakerTurn] {
    let reason = refusal(turns);
    if let Some(reason) = reason {
        tracing::warn!(%record, turns = turns.len(), reason, "the record's turns cannot be used; its task has none");
        return &[];
    }
    turns
}

/// What is wrong with the turns, without a word of theirs.
fn refusal(turns: &[SpeakerTurn]) -> Option<&'static str> {
    if turns.len() > SpeakerTurn::MAX_TURNS {
        return Some("too many turns");
    }
    let mut speakers = HashSet::new();
    for SpeakerTurn { start, end, speaker } in turns {
        if !(1..=MAX_SPEAKER_BYTES).contains(&speaker.len()) {
            return Some("a speaker's name is empty or too long");
        }
        // Each of them is six bytes in JSON.
        if speaker.chars().any(char::is_control) {
            return Some("a speaker's name has control characters");
        }
        if !(0.0 <= *start && start <= end && end.is_finite()) {
            return Some("a turn's times are none");
        }
        speakers.insert(speaker);
    }
    (speakers.len() > MAX_SPEAKERS).then_some("too many speakers")
}

/// What the record says: its own text, a blank line, its transcript.
fn text(record: &RecordId, state: &RecordState, content: &RecordContent) -> Option<String> {
    let parts = texts(state, content)?;
    let said: Vec<&str> = parts.into_iter().filter(|part| !part.trim().is_empty()).collect();
    let text = said.join("\n\n");
    let kept = fitting(&text, MAX_TEXT_BYTES);
    if kept.len() < text.len() {
        tracing::warn!(
            %record, bytes = text.len(), kept = kept.len(),
            "the record's text is too long for a message; its tasks get the beginning"
        );
    }
    (!kept.trim().is_empty()).then(|| kept.to_owned())
}

/// As much of the text's beginning as takes no more than `limit` bytes in JSON.
fn fitting(text: &str, limit: usize) -> &str {
    let mut bytes = 0;
    let end = text.char_indices().find(|&(_, letter)| {
        bytes += match letter {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            _ => letter.len_utf8(),
        };
        bytes > limit
    });
    end.map_or(text, |(index, _)| &text[..index])
}

/// The text in passages of at most `passage_chars` characters, cut between paragraphs or sentences where that is
/// possible, in order.
fn passages(record: &RecordId, text: &str, passage_chars: usize) -> Vec<String> {
    let splitter = TextSplitter::new(ChunkConfig::new(passage_chars));
    let mut passages = Vec::new();
    for block in blocks(text, passage_chars.saturating_mul(BLOCK_PASSAGES)) {
        let room = MAX_PASSAGES + 1 - passages.len();
        let chunks = splitter.chunks(block).filter(|passage| !passage.trim().is_empty());
        passages.extend(chunks.take(room).map(str::to_owned));
        if passages.len() > MAX_PASSAGES {
            tracing::warn!(%record, "the record's text has more than {MAX_PASSAGES} passages; the rest is not embedded");
            passages.truncate(MAX_PASSAGES);
            break;
        }
    }
    passages
}

/// The splitter looks through all the rest of a text for each passage, where it finds no boundary in it: megabytes
/// without one would take it hours. So it gets the text in blocks of about this many passages.
const BLOCK_PASSAGES: usize = 20;

/// The text in blocks of at most `chars` characters, each but the last ending with a line or a word if there is an end
/// in its second half.
fn blocks(mut text: &str, chars: usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let end = text.char_indices().nth(chars).map_or(text.len(), |(index, _)| index);
        let mut block = &text[..end];
        if end < text.len() {
            let late = |index: &usize| *index > end / 2;
            let boundary = block.rfind('\n').filter(late).or_else(|| block.rfind(ends_something).filter(late));
            if let Some(letter) = boundary.and_then(|index| block[index..].chars().next()) {
                block = &block[..boundary.unwrap_or_default() + letter.len_utf8()];
            }
        }
        text = &text[block.len()..];
        Some(block)
    })
}

fn ends_something(letter: char) -> bool {
    letter.is_whitespace() || "。！？；，".contains(letter)
}

#[cfg(test)]
mod tests;

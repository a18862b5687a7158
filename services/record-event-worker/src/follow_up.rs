//! The messages of the tasks that are to be started.

use jm_mq_core::{Message, Outgoing, Payload};
use jm_tasks::{
    Diarize, Embed, Purpose, RecordContent, RecordId, Stage, Summarize, Title, Transcribe, follow_up_id, queue,
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

/// Why a task's message could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the task of stage {stage} cannot be written as JSON")]
pub struct FollowUpError {
    /// The task's stage.
    pub stage: Stage,
    #[source]
    source: serde_json::Error,
}

/// The message that starts the task of `stage`; `None` for a stage that lacks what it needs, which is then not due.
///
/// Takes a while for long texts: not for the threads of a runtime.
///
/// # Errors
///
/// When the task cannot be written as JSON, which does not happen.
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
                Some((revision, Finding::Turns(turns))) if revision == state.revision => turns.clone(),
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
        let message = Message::of(payload)
            .map_err(|source| FollowUpError { stage: self.stage, source })?
            .message_id(&follow_up_id(self.record, self.stage, self.revision).to_string())
            .correlation_id(self.record.as_str());
        Ok(Some(Outgoing::new(queue, queue, message)))
    }
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
mod tests {
    use super::*;
    use crate::state::StageResult;
    use jm_tasks::{AudioSource, SpeakerTurn};

    fn record() -> RecordId {
        RecordId::new("r").unwrap()
    }

    fn body(state: &RecordState, stage: Stage) -> serde_json::Value {
        let outgoing = message(&record(), state, stage, &PipelineOptions::default()).unwrap().unwrap();
        assert_eq!(outgoing.exchange(), outgoing.routing_key());
        let properties = outgoing.message().properties();
        let id = follow_up_id(&record(), stage, u64::try_from(state.revision).unwrap()).to_string();
        assert_eq!(properties.message_id().as_ref().unwrap().as_str(), id);
        assert_eq!(properties.correlation_id().as_ref().unwrap().as_str(), "r");
        let mut body: serde_json::Value = serde_json::from_slice(outgoing.message().body()).unwrap();
        body["to"] = outgoing.exchange().into();
        body["type"] = properties.kind().as_ref().unwrap().as_str().into();
        body
    }

    #[test]
    fn each_task_carries_what_its_worker_needs() {
        let turn = SpeakerTurn { start: 0.0, end: 1.5, speaker: "A".into() };
        let content = RecordContent {
            text: Some("Notes.".into()),
            audio: Some(AudioSource { url: "https://h/a".into() }),
            language: Some("en".into()),
            speakers: Some(2),
            ..RecordContent::default()
        };
        let finding = |finding| StageResult { revision: 7, finding };
        let results = [
            (Stage::Diarization, finding(Finding::Turns(vec![turn]))),
            (Stage::Transcription, finding(Finding::Transcript("Said.".into()))),
        ];
        let mut state =
            RecordState { revision: 7, content: Some(content), results: results.into(), ..RecordState::default() };
        let audio = serde_json::json!({"url": "https://h/a"});
        assert_eq!(
            body(&state, Stage::Diarization),
            serde_json::json!({
                "to": "jm.sd", "type": "sd.diarize", "record_id": "r", "revision": 7, "audio": audio, "speakers": 2
            })
        );
        assert_eq!(
            body(&state, Stage::Transcription),
            serde_json::json!({
                "to": "jm.asr", "type": "asr.transcribe", "record_id": "r", "revision": 7, "audio": audio,
                "language": "en", "turns": [{"start": 0.0, "end": 1.5, "speaker": "A"}]
            })
        );
        assert_eq!(
            body(&state, Stage::Embedding),
            serde_json::json!({
                "to": "jm.embed", "type": "embed.text", "record_id": "r", "revision": 7,
                "texts": ["Notes.\n\nSaid."], "purpose": "passage"
            })
        );
        assert_eq!(
            body(&state, Stage::Summary),
            serde_json::json!({
                "to": "jm.llm", "type": "llm.summarize", "record_id": "r", "revision": 7,
                "text": "Notes.\n\nSaid.", "language": "en"
            })
        );
        assert_eq!(body(&state, Stage::Title)["type"], "llm.title");
        state.results.get_mut(&Stage::Diarization).unwrap().revision = 6;
        assert_eq!(body(&state, Stage::Transcription).get("turns"), None, "turns of another recording");
    }

    #[test]
    fn passages_end_with_sentences_keep_their_order_and_have_a_limit() {
        let text = "One sentence here. Another one there. 这是第一句话。这是第二句话。 And the last one.";
        assert_eq!(
            passages(&record(), text, 50),
            ["One sentence here. Another one there. 这是第一句话。", "这是第二句话。 And the last one."]
        );
        let many = (0..3000).map(|number| format!("{number:049}\n\n")).collect::<Vec<_>>().concat();
        let passages = passages(&record(), &many, 50);
        assert_eq!(passages.len(), MAX_PASSAGES);
        assert!(passages.iter().enumerate().all(|(index, passage)| passage.parse::<usize>().unwrap() == index));
    }

    #[test]
    fn blocks_are_the_text_and_end_where_something_ends() {
        assert_eq!(blocks("one two three four", 10).collect::<Vec<_>>(), ["one two ", "three four"]);
        assert_eq!(blocks("笔记笔。笔记笔记笔记", 5).collect::<Vec<_>>(), ["笔记笔。", "笔记笔记笔", "记"]);
        assert_eq!(blocks("one\ntwo three four", 8).collect::<Vec<_>>(), ["one\ntwo ", "three ", "four"]);
        assert_eq!(blocks("", 5).count(), 0);
        let text = "Some words. 一些词。\n".repeat(200);
        for chars in 1..100 {
            assert_eq!(blocks(&text, chars).collect::<String>(), text);
            assert!(blocks(&text, chars).all(|block| (1..=chars).contains(&block.chars().count())));
        }
    }

    #[test]
    fn a_text_is_cut_where_its_json_would_be_too_long() {
        assert_eq!(fitting("abc", 3), "abc");
        assert_eq!(fitting("abcd", 3), "abc");
        assert_eq!(fitting("aé€", 3), "aé");
        assert_eq!(fitting("aé€", 5), "aé");
        let escaped = "\"\\\n\r\t\u{8}\u{c}\u{0}\u{1f}é😀".repeat(50);
        for limit in 0..200 {
            let kept = fitting(&escaped, limit);
            let next: String = escaped[..kept.len()].chars().chain(escaped[kept.len()..].chars().next()).collect();
            let bytes = |text: &str| serde_json::to_string(text).unwrap().len() - 2;
            assert!(bytes(kept) <= limit && bytes(&next) > limit, "{limit}");
        }
    }

    #[test]
    fn a_text_of_many_megabytes_without_a_boundary_is_cut_and_split() {
        let long = "字".repeat(4 * 1024 * 1024);
        let content = RecordContent { text: Some(long), ..RecordContent::default() };
        let state = RecordState { revision: 1, content: Some(content), ..RecordState::default() };
        let summarize = body(&state, Stage::Summary);
        assert_eq!(summarize["text"].as_str().unwrap().len(), MAX_TEXT_BYTES / 3 * 3);
        let embed = body(&state, Stage::Embedding);
        assert_eq!(embed["texts"].as_array().unwrap().len(), MAX_PASSAGES);
    }
}

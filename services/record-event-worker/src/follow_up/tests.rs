use super::*;
use crate::state::StageResult;
use jm_tasks::AudioSource;

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

fn diarized(turns: Vec<SpeakerTurn>) -> RecordState {
    let audio = Some(AudioSource { url: "https://h/a".into() });
    let result = StageResult { revision: 1, finding: Finding::Turns(turns) };
    RecordState {
        revision: 1,
        content: Some(RecordContent { audio, ..RecordContent::default() }),
        results: [(Stage::Diarization, result)].into(),
        ..RecordState::default()
    }
}

fn turn(speaker: impl Into<String>) -> SpeakerTurn {
    SpeakerTurn { start: 0.1, end: 1.5, speaker: speaker.into() }
}

#[test]
fn turns_that_the_next_worker_would_refuse_are_left_out_of_its_task() {
    let turns = |turns: Vec<SpeakerTurn>| {
        let task = body(&diarized(turns), Stage::Transcription);
        task.get("turns").map_or(0, |turns| turns.as_array().unwrap().len())
    };
    let names = |count: usize| (0..count).map(|number| turn(number.to_string())).collect::<Vec<_>>();
    assert_eq!(turns(vec![turn("A"); SpeakerTurn::MAX_TURNS]), SpeakerTurn::MAX_TURNS);
    assert_eq!(turns(vec![turn("A"); SpeakerTurn::MAX_TURNS + 1]), 0);
    assert_eq!(turns(names(MAX_SPEAKERS)), MAX_SPEAKERS);
    assert_eq!(turns(names(MAX_SPEAKERS + 1)), 0);
    assert_eq!(turns(vec![turn("A"), turn("x".repeat(MAX_SPEAKER_BYTES))]), 2);
    for wrong in [
        turn("x".repeat(MAX_SPEAKER_BYTES + 1)),
        turn(""),
        turn("a\nb"),
        SpeakerTurn { start: 2.0, ..turn("A") },
        SpeakerTurn { start: -1.0, ..turn("A") },
        SpeakerTurn { end: f64::NAN, ..turn("A") },
        SpeakerTurn { end: f64::INFINITY, ..turn("A") },
    ] {
        assert_eq!(turns(vec![turn("A"), wrong]), 0);
    }
}

#[test]
fn the_largest_turns_fit_into_a_message_and_a_message_that_does_not_fit_is_an_error() {
    let name = "\"".repeat(MAX_SPEAKER_BYTES);
    let number = 12_345.678_901_234_567_f64.next_up();
    let largest = vec![SpeakerTurn { start: number, end: number, speaker: name }; SpeakerTurn::MAX_TURNS];
    let mut state = diarized(largest);
    let made = message(&record(), &state, Stage::Transcription, &PipelineOptions::default());
    let bytes = made.unwrap().unwrap().message().body().len();
    assert!((9_000_000..10 * 1024 * 1024).contains(&bytes), "{bytes}");

    state.content.as_mut().unwrap().audio = Some(AudioSource { url: "x".repeat(MAX_TASK_BYTES) });
    let error = message(&record(), &state, Stage::Transcription, &PipelineOptions::default()).unwrap_err();
    let expected = "the task of stage transcription has ";
    assert!(error.to_string().starts_with(expected) && error.to_string().len() < 200, "{error}");
}

//! Reports of notes that were never sent.

use console::measure_text_width;
use jm_report::TEXT_LINES;
use jm_tasks::{Completed, Diarized, Embedded, LlmTask, Transcribed, TranscriptSegment};

use super::*;
use crate::{
    journey::tests::view,
    notes::{Note, Summary},
    workers::Kind,
};

fn segment(start: f64, speaker: &str, text: &str) -> TranscriptSegment {
    TranscriptSegment { start, end: start + 1.0, text: text.into(), speaker: Some(speaker.into()) }
}

fn report() -> Report {
    Report { coloured: false, chat: Some(Chat::Smollm2), advice: "make demo CHAT=qwen" }
}

/// With a name and texts as strangers send them.
fn call() -> Journey {
    let note = Note::new("通话 \u{1b}[31m1", Content::Recording("/call.wav".into()), Summary::Either).unwrap();
    let mut view = view(&note.id);
    view.diarization = Some(Diarized {
        record_id: None,
        revision: None,
        turns: Vec::new(),
        reason: None,
        speakers: 2,
        duration: 75.25,
        model: "sd".into(),
    });
    view.transcription = Some(Transcribed {
        record_id: None,
        revision: None,
        text: "t".into(),
        language: Some("zh".into()),
        duration: 75.25,
        segments: vec![
            segment(0.4, "S1", "你好。"),
            segment(3.0, "S1", &"这是一个很长的句子，".repeat(12)),
            segment(65.0, "S2", "Hello\u{7}\nthere."),
            segment(66.0, "S2", "Again."),
        ],
        model: "asr".into(),
    });
    view.embedding = Some(Embedded {
        record_id: None,
        revision: None,
        vectors: vec![vec![0.5, -0.25, 0.125, 1.0, 2.0]; 2],
        dimensions: 5,
        model: "e5".into(),
        split: Vec::new(),
    });
    view.summary = Some(Completed {
        record_id: None,
        revision: None,
        task: LlmTask::Summarize,
        text: "It is about nothing. ".repeat(10),
        language: Some("en".into()),
        written_in: None,
        truncated: true,
        model: "llm".into(),
        prompt_tokens: None,
        completion_tokens: None,
    });
    let mut journey = Journey::new(note);
    journey.view = Some(view);
    journey
}

#[test]
fn a_call_is_shown_by_turns_with_all_that_was_found_within_80_columns() {
    let page = report().of(&call(), &[("另一个", 0.875_4)]);
    for line in page.lines() {
        assert!(measure_text_width(line) <= 80, "{line}");
    }
    for expected in [
        "── 通话 [31m1 ───",
        "speakers   2 in 75.2 s (sd)",
        "words      in zh (asr)",
        "  0:00 S1  你好。这是一个",
        "  1:05 S2  Hello there. Again.",
        "vector     5 numbers: 0.5000, -0.2500, 0.1250, 1.0000, …, 2 passages (e5)",
        "cut off)",
        "nearest    0.875  另一个",
    ] {
        assert!(page.contains(expected), "{expected:?} is not in:\n{page}");
    }
}

#[test]
fn a_recording_in_which_nobody_speaks_says_so() {
    let mut journey = call();
    let view = journey.view.as_mut().unwrap();
    view.transcription.as_mut().unwrap().text = " ".into();
    let page = report().of(&journey, &[]);
    assert!(page.contains("words      none: nobody speaks (asr)\n"), "{page}");
}

#[test]
fn nothing_of_a_note_reaches_the_terminal_as_a_command() {
    let mut journey = call();
    let (view, hostile) = (journey.view.as_mut().unwrap(), || "\u{1b}[2J\u{9b}2J\r\u{7}".repeat(20));
    view.diarization.as_mut().unwrap().model = hostile();
    view.transcription.as_mut().unwrap().language = Some(hostile());
    view.transcription.as_mut().unwrap().segments.push(segment(70.0, &hostile(), &hostile()));
    view.embedding.as_mut().unwrap().model = hostile();
    view.summary.as_mut().unwrap().text = format!("One.\n{}\n\nTwo.", hostile());
    let page = report().of(&journey, &[(&hostile(), 0.5)]);
    assert!(page.chars().all(|letter| letter == '\n' || !letter.is_control()), "{page:?}");
    let coloured = Report { coloured: true, ..report() }.of(&call(), &[]);
    assert!(coloured.contains("\u{1b}[2mwords\u{1b}[0m      in zh"), "{coloured:?}");
    assert!(!coloured.contains("\u{1b}[31m"), "{coloured:?}");
}

#[test]
fn a_summary_that_the_model_refuses_says_what_would_write_it_and_another_dead_letter_where_it_is() {
    let letter = |reason: &str| DeadLetter {
        record: None,
        stage: Some(Stage::Summary),
        worker: Kind::Llm,
        kind: "permanent".into(),
        reason: reason.into(),
    };
    let mut journey = Journey::new(Note::of_text("你好").unwrap());
    journey.lost(letter("text: in zh, which the model m does not write"));
    let page = report().of(&journey, &[]);
    let said = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = "no summary: text: in zh, which the model m does not write; `make demo CHAT=qwen` uses the larger \
                    bilingual model";
    assert!(said.contains(expected), "{page}");

    let mut journey = Journey::new(Note::of_text("你好").unwrap());
    journey.lost(letter("text: empty"));
    let page = report().of(&journey, &[]);
    assert!(page.contains("summary    no summary: text: empty (kept in jm.llm.dead)"), "{page}");
}

#[test]
fn a_long_text_is_shown_by_its_beginning() {
    let page = report().of(&Journey::new(Note::of_text(&"word ".repeat(500)).unwrap()), &[]);
    assert_eq!(page.lines().count(), 1 + TEXT_LINES + 1, "{page}");
    assert!(page.ends_with("           …\n"), "{page}");
}

//! Journeys without anybody who travels.

use std::collections::BTreeMap;

use jm_tasks::{Completed, Diarized, Embedded, LlmTask, RecordId, Transcribed};

use super::*;
use crate::workers::Kind;

/// A record of which nothing is known yet.
pub(crate) fn view(id: &RecordId) -> RecordView {
    RecordView {
        record_id: id.clone(),
        revision: Some(1),
        deleted: None,
        content: None,
        diarization: None,
        transcription: None,
        embedding: None,
        summary: None,
        title: None,
        tasks: BTreeMap::new(),
    }
}

fn spoken() -> Journey {
    let note = Note::new("call", Content::Recording("/call.wav".into()), Summary::Written).unwrap();
    let view = view(&note.id);
    Journey { view: Some(view), ..Journey::new(note) }
}

fn written(summary: Summary) -> Journey {
    let note = Note::new("note", Content::Text("Words.".into()), summary).unwrap();
    let view = view(&note.id);
    Journey { view: Some(view), ..Journey::new(note) }
}

/// With a result for a stage.
fn done(journey: &mut Journey, stage: Stage, text: &str) {
    let (record_id, revision, model) = (None, None, String::new());
    let view = journey.view.as_mut().unwrap();
    match stage {
        Stage::Diarization => {
            let (turns, reason, speakers, duration) = (Vec::new(), None, 1, 1.0);
            view.diarization = Some(Diarized { record_id, revision, turns, reason, speakers, duration, model });
        }
        Stage::Transcription => {
            let (text, language, segments, duration) = (text.to_owned(), None, Vec::new(), 1.0);
            view.transcription = Some(Transcribed { record_id, revision, text, language, duration, segments, model });
        }
        Stage::Embedding => {
            view.embedding =
                Some(Embedded { record_id, revision, vectors: Vec::new(), dimensions: 0, model, split: Vec::new() });
        }
        Stage::Summary | Stage::Title => {
            let (task, text, language, truncated) = (LlmTask::Summarize, text.to_owned(), None, false);
            let (prompt_tokens, completion_tokens) = (None, None);
            view.summary = Some(Completed {
                record_id,
                revision,
                task,
                text,
                language,
                written_in: None,
                truncated,
                model,
                prompt_tokens,
                completion_tokens,
            });
        }
    }
}

fn letter(stage: Option<Stage>, reason: &str) -> DeadLetter {
    DeadLetter { record: None, stage, worker: Kind::Llm, kind: "permanent".into(), reason: reason.into() }
}

const LANGUAGE: &str = "text: in zh, which the model does not write";

#[test]
fn a_call_is_over_when_its_four_stages_are() {
    let mut journey = spoken();
    assert!(!Journey::new(journey.note.clone()).is_over());
    for stage in STAGES {
        assert!(!journey.is_over() && journey.standing(stage) == Standing::Later, "{stage}");
        done(&mut journey, stage, "text");
    }
    assert!(journey.is_over());
    assert_eq!(journey.complaints(), Vec::<String>::new());
}

#[test]
fn what_needs_a_stage_that_failed_never_comes() {
    let mut journey = spoken();
    journey.lost(letter(Some(Stage::Diarization), "file:///tmp/copy.wav: cut off: 1s of 2s"));
    assert!(journey.is_over());
    assert_eq!(journey.standing(Stage::Summary), Standing::Never);
    assert_eq!(journey.complaints(), ["no speakers: llm-worker refused it: cut off: 1s of 2s"]);
}

#[test]
fn a_recording_in_which_nobody_speaks_is_over_and_said_so() {
    let mut journey = spoken();
    done(&mut journey, Stage::Diarization, "");
    done(&mut journey, Stage::Transcription, " ");
    assert!(journey.is_over());
    assert_eq!(journey.complaints(), ["nobody speaks in it, so there is neither a summary nor a vector"]);
}

#[test]
fn a_language_that_the_model_refuses_is_no_complaint_where_it_was_expected() {
    for (summary, complaints) in [(Summary::Refused, 0), (Summary::Either, 0), (Summary::Written, 1)] {
        let mut journey = written(summary);
        done(&mut journey, Stage::Embedding, "");
        journey.lost(letter(Some(Stage::Summary), LANGUAGE));
        assert!(journey.is_over());
        assert_eq!(journey.complaints().len(), complaints, "{summary:?}: {:?}", journey.complaints());
    }
    for (summary, complaints) in [(Summary::Refused, 1), (Summary::Either, 0), (Summary::Written, 0)] {
        let mut journey = written(summary);
        done(&mut journey, Stage::Embedding, "");
        done(&mut journey, Stage::Summary, "sum");
        assert_eq!(journey.complaints().len(), complaints, "{summary:?}: {:?}", journey.complaints());
    }
    let mut journey = written(Summary::Refused);
    done(&mut journey, Stage::Embedding, "");
    journey.lost(letter(Some(Stage::Summary), "text: empty"));
    assert_eq!(journey.complaints(), ["no summary: llm-worker refused it: text: empty"]);
}

#[test]
fn a_record_that_was_refused_is_over_at_once() {
    let mut journey = written(Summary::Written);
    journey.lost(letter(None, "content: too long"));
    assert!(journey.is_over());
    assert_eq!(journey.complaints(), ["llm-worker refused it: content: too long"]);
}

#[test]
fn what_is_missing_when_the_time_is_up_is_named() {
    let mut journey = written(Summary::Written);
    let seen = |mark, at| Seen { record: journey.note.id.clone(), stage: Stage::Embedding, mark, at };
    let now = Instant::now();
    let (task, result) = (seen(Mark::Task, now), seen(Mark::Result, now + Duration::from_secs(3)));
    journey.saw(&task);
    assert_eq!(journey.complaints()[0], "no vector yet, 0 s after its task");
    assert_eq!(journey.complaints()[1], "no summary yet; its task was not seen");
    journey.saw(&result);
    journey.saw(&Seen { at: now + Duration::from_secs(9), ..result });
    assert_eq!(journey.took(Stage::Embedding), Some(Duration::from_secs(3)));
}

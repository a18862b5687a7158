use Stage::{Diarization, Embedding, Summary, Title, Transcription};
use jm_tasks::AudioSource;
use proptest::prelude::*;

use super::*;
use crate::state::{StageResult, apply};

const NOW: i64 = 1_800_000_000_000;

fn text_content() -> RecordContent {
    RecordContent { text: Some("a text".into()), ..RecordContent::default() }
}

fn audio_content() -> RecordContent {
    RecordContent { audio: Some(AudioSource { url: "https://h/a".into() }), ..RecordContent::default() }
}

fn content(revision: u64, content: RecordContent) -> Change {
    Change::Content { revision: revision.try_into().unwrap(), content }
}

fn result(stage: Stage, revision: u64) -> Change {
    let finding = match stage {
        Diarization => Finding::Turns(Vec::new()),
        Transcription => Finding::Transcript("what was said".into()),
        Embedding | Summary | Title => Finding::End,
    };
    Change::Finding { stage, revision: revision.try_into().unwrap(), finding, body: String::new() }
}

/// A record with its tasks, as the handler keeps it.
#[derive(Default)]
struct Record {
    state: RecordState,
    started: BTreeMap<Stage, Started>,
    options: PipelineOptions,
    now: i64,
}

impl Record {
    fn new(options: PipelineOptions) -> Self {
        Self { options, now: NOW, ..Self::default() }
    }

    fn takes(&mut self, change: &Change, delivery: Delivery) -> Vec<Stage> {
        let (state, _) = apply(std::mem::take(&mut self.state), change);
        let plan = plan(&state, &self.started, change, delivery, self.now, &self.options);
        (self.state, self.started) = (state, plan.started);
        plan.start.into_iter().collect()
    }

    fn first(&mut self, change: &Change) -> Vec<Stage> {
        self.takes(change, Delivery::First)
    }

    fn again(&mut self, change: &Change) -> Vec<Stage> {
        self.takes(change, Delivery::Again)
    }

    fn under_way(&self) -> Vec<Stage> {
        self.started.keys().copied().collect()
    }
}

#[test]
fn a_recording_is_diarized_then_transcribed_then_embedded_and_summarised() {
    let mut record = Record::new(PipelineOptions::default());
    assert_eq!(record.first(&content(1, audio_content())), [Diarization]);
    assert_eq!(record.first(&result(Diarization, 1)), [Transcription]);
    assert_eq!(record.first(&result(Transcription, 1)), [Embedding, Summary]);
    assert_eq!(record.first(&result(Summary, 1)), []);
    assert_eq!(record.under_way(), [Embedding]);
    assert_eq!(record.first(&result(Embedding, 1)), []);
    assert_eq!(record.under_way(), []);
}

#[test]
fn a_text_is_embedded_and_summarised_at_once_and_an_empty_one_is_not() {
    assert_eq!(Record::new(PipelineOptions::default()).first(&content(1, text_content())), [Embedding, Summary]);
    for empty in [None, Some(""), Some(" \n\t\u{3000}")] {
        let empty = RecordContent { text: empty.map(Into::into), ..RecordContent::default() };
        assert_eq!(Record::new(PipelineOptions::default()).first(&content(1, empty)), []);
    }
    let mut silent = Record::new(PipelineOptions { diarize: false, ..PipelineOptions::default() });
    assert_eq!(silent.first(&content(1, audio_content())), [Transcription]);
    let nobody_speaks = Change::Finding {
        stage: Transcription,
        revision: 1.try_into().unwrap(),
        finding: Finding::Transcript(" ".into()),
        body: String::new(),
    };
    assert_eq!(silent.first(&nobody_speaks), []);
}

#[test]
fn text_and_recording_together_wait_for_the_transcript() {
    let both = RecordContent { audio: audio_content().audio, ..text_content() };
    let mut record = Record::new(PipelineOptions::default());
    assert_eq!(record.first(&content(1, both)), [Diarization]);
    assert_eq!(record.first(&result(Diarization, 1)), [Transcription]);
    assert_eq!(record.first(&result(Transcription, 1)), [Embedding, Summary]);
}

#[test]
fn options_leave_stages_out_and_titles_are_found_for_records_without_one() {
    let none = PipelineOptions { diarize: false, embed: false, summarize: false, ..PipelineOptions::default() };
    assert_eq!(Record::new(none.clone()).first(&content(1, text_content())), []);
    assert_eq!(Record::new(none.clone()).first(&content(1, audio_content())), [Transcription]);
    let title = PipelineOptions { title: true, ..none };
    assert_eq!(Record::new(title.clone()).first(&content(1, text_content())), [Title]);
    let blank = RecordContent { title: Some(" ".into()), ..text_content() };
    assert_eq!(Record::new(title.clone()).first(&content(1, blank)), [Title]);
    let titled = RecordContent { title: Some("mine".into()), ..text_content() };
    assert_eq!(Record::new(title).first(&content(1, titled)), []);
}

#[test]
fn an_older_result_starts_nothing_and_a_newer_revision_starts_all_again() {
    let mut record = Record::new(PipelineOptions::default());
    assert_eq!(record.first(&content(2, audio_content())), [Diarization]);
    assert_eq!(record.first(&result(Diarization, 1)), []);
    assert_eq!(record.first(&result(Transcription, 1)), []);
    assert_eq!(record.first(&result(Diarization, 2)), [Transcription]);
    assert_eq!(record.first(&content(3, audio_content())), [Diarization]);
    assert_eq!(record.started[&Diarization].revision, 3);
    assert_eq!(record.under_way(), [Diarization]);
}

#[test]
fn a_deletion_ends_what_is_under_way() {
    let mut record = Record::new(PipelineOptions::default());
    record.first(&content(1, text_content()));
    assert_eq!(record.first(&Change::Deletion { revision: None }), []);
    assert_eq!(record.under_way(), []);
    assert_eq!(record.again(&content(1, text_content())), []);
}

#[test]
fn a_copy_starts_nothing_and_the_same_delivery_again_starts_the_same() {
    let mut record = Record::new(PipelineOptions::default());
    let created = content(1, text_content());
    assert_eq!(record.first(&created), [Embedding, Summary]);
    assert_eq!(record.first(&created), []);
    assert_eq!(record.again(&created), [Embedding, Summary]);
    record.first(&result(Embedding, 1));
    assert_eq!(record.again(&created), [Summary], "what has its result is not started again");
    assert_eq!(record.first(&result(Embedding, 1)), []);
    assert_eq!(record.again(&result(Embedding, 1)), [Summary], "the options may have been others the first time");
    record.first(&content(2, text_content()));
    assert_eq!(record.again(&created), [], "an older event's tasks have been replaced");
}

#[test]
fn a_last_result_starts_what_the_options_were_changed_to_and_so_does_its_return() {
    let mut record = Record::new(PipelineOptions::default());
    let summarized = result(Summary, 1);
    record.first(&content(1, text_content()));
    record.first(&result(Embedding, 1));
    record.options.title = true;
    assert_eq!(record.first(&summarized), [Title]);
    assert_eq!(record.first(&summarized), [], "another copy");
    assert_eq!(record.again(&summarized), [Title], "committed, and perhaps never published");
}

#[test]
fn an_event_of_another_revision_starts_nothing_whatever_the_options_are() {
    let mut record = Record::new(PipelineOptions::default());
    record.first(&content(1, text_content()));
    record.first(&content(2, text_content()));
    record.options.title = true;
    let older = [content(1, text_content()), result(Summary, 1), Change::Deletion { revision: 1.try_into().ok() }];
    for change in &older {
        assert_eq!(record.first(change), []);
        assert_eq!(record.again(change), []);
    }
    assert_eq!(record.under_way(), [Embedding, Summary]);
    assert_eq!(record.first(&content(2, text_content())), [Title]);
}

#[test]
fn a_task_of_long_ago_is_started_again_once_by_an_event_that_may_have_lost_it() {
    let mut record = Record::new(PipelineOptions::default());
    let created = content(1, text_content());
    record.first(&created);
    record.now = NOW + 599_999;
    assert_eq!(record.first(&created), []);
    record.now = NOW + 600_000;
    assert_eq!(record.first(&result(Title, 1)), []);
    assert_eq!(record.started[&Summary].started_at, NOW);
    assert_eq!(record.first(&created), [Embedding, Summary]);
    assert_eq!(record.first(&created), []);
    assert_eq!(record.started[&Summary].started_at, NOW + 600_000);
    record.now = NOW - 600_000;
    assert_eq!(record.first(&created), [Embedding, Summary], "a clock set back must not delay it for ever");
}

#[test]
fn a_newer_result_than_the_record_starts_nothing_for_the_older_one() {
    let mut record = Record::new(PipelineOptions::default());
    assert_eq!(record.first(&content(1, audio_content())), [Diarization]);
    assert_eq!(record.first(&result(Transcription, 2)), []);
    assert_eq!(record.under_way(), []);
    assert_eq!(record.first(&content(2, audio_content())), [Embedding, Summary]);
}

#[test]
fn options_out_of_range_are_errors_that_name_them() {
    let rejected = |options: PipelineOptions| options.validate().unwrap_err().to_string();
    PipelineOptions::default().validate().unwrap();
    assert_eq!(
        rejected(PipelineOptions { passage_chars: 49, ..PipelineOptions::default() }),
        "option `passage_chars` is 49; allowed: 50 to 20000"
    );
    assert_eq!(
        rejected(PipelineOptions { restart_after: Duration::ZERO, ..PipelineOptions::default() }),
        "option `restart_after` is 0ns; allowed: 1s to 24h"
    );
    let read: PipelineOptions = serde_json::from_str(r#"{"restart_after": "1h", "title": true}"#).unwrap();
    assert_eq!((read.restart_after, read.title, read.embed), (Duration::from_hours(1), true, true));
    assert!(serde_json::from_str::<PipelineOptions>(r#"{"sumarize": false}"#).is_err());
}

fn any_change() -> impl Strategy<Value = Change> {
    let any_content = prop_oneof![
        Just(text_content()),
        Just(audio_content()),
        Just(RecordContent { audio: audio_content().audio, ..text_content() }),
        Just(RecordContent::default()),
    ];
    prop_oneof![
        4 => (1..6_u64).prop_flat_map(move |revision| (Just(revision), any_content.clone()))
            .prop_map(|(revision, taken)| content(revision, taken)),
        1 => prop::option::of(1..6_u64)
            .prop_map(|revision| Change::Deletion { revision: revision.map(|number| number.try_into().unwrap()) }),
        6 => (prop::sample::select(Stage::ALL.to_vec()), 1..6_u64).prop_map(|(stage, revision)| result(stage, revision)),
    ]
}

fn any_options() -> impl Strategy<Value = PipelineOptions> {
    any::<[bool; 4]>().prop_map(|[diarize, embed, summarize, title]| PipelineOptions {
        diarize,
        embed,
        summarize,
        title,
        ..PipelineOptions::default()
    })
}

/// Producers do not make two contents of one revision: the first one drawn is the one there is.
fn one_content_each(changes: Vec<Change>) -> Vec<Change> {
    let mut seen = BTreeSet::new();
    let revision = |change: &Change| match change {
        Change::Content { revision, .. } => Some(*revision),
        Change::Deletion { .. } | Change::Finding { .. } => None,
    };
    changes.into_iter().filter(|change| revision(change).is_none_or(|number| seen.insert(number.get()))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_any_order_each_task_is_started_once_and_the_same_remain_under_way(
        title in any::<bool>(),
        diarize in any::<bool>(),
        (changes, shuffled) in prop::collection::vec(any_change(), 0..12)
            .prop_map(one_content_each)
            .prop_flat_map(|changes| {
                let thrice: Vec<Change> = changes.iter().cycle().take(3 * changes.len()).cloned().collect();
                (Just(changes), Just(thrice).prop_shuffle())
            }),
    ) {
        let options = PipelineOptions { diarize, title, ..PipelineOptions::default() };
        let (mut ordered, mut random) = (Record::new(options.clone()), Record::new(options));
        for change in &changes {
            ordered.first(change);
        }
        let mut started = BTreeSet::new();
        for change in &shuffled {
            for stage in random.first(change) {
                prop_assert!(started.insert((stage, random.state.revision)), "{stage} was started twice");
            }
        }
        prop_assert_eq!(ordered.started, random.started);
    }

    #[test]
    fn whichever_delivery_dies_after_its_commit_its_return_starts_what_it_had_started(
        changes in prop::collection::vec(any_change(), 1..12).prop_map(one_content_each),
        options in prop::collection::vec(any_options(), 12),
    ) {
        let mut record = Record::new(PipelineOptions::default());
        // The worker may have been restarted with other options before any of the events.
        for (change, options) in changes.iter().zip(options) {
            record.options = options;
            let lost = record.first(change);
            let state = record.state.clone();
            prop_assert!(lost.iter().all(|stage| record.started.contains_key(stage)));
            let returned = record.again(change);
            prop_assert!(lost.iter().all(|stage| returned.contains(stage)), "{lost:?} {returned:?}");
            prop_assert_eq!(&state, &record.state);
        }
    }

    #[test]
    fn what_is_due_at_a_revision_has_no_result_there(changes in prop::collection::vec(any_change(), 1..12)) {
        let mut state = RecordState::default();
        for change in &changes {
            state = apply(state, change).0;
            for stage in due(&state, &PipelineOptions { title: true, ..PipelineOptions::default() }) {
                let reached = state.results.get(&stage).map_or(0, |StageResult { revision, .. }| *revision);
                prop_assert!(reached < state.revision);
            }
        }
    }
}

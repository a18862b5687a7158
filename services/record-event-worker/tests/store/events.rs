//! What single events do to the tables, and start.

use jm_mq_core::{BasicProperties, Context, FieldTable};
use jm_tasks::{LlmTask, Stage, follow_up_id};
use record_event_worker::{DeletedUpTo, PipelineOptions};

use crate::support::{
    Database, audio_content, completed, created, cx, deleted, diarized, embedded, id, stage_of, summarized, tasks,
    text_content, transcribed, updated,
};

on_both!(
    a_recording_goes_through_the_pipeline_and_is_shown_whole,
    a_repeated_event_writes_nothing_and_starts_nothing,
    an_event_that_changes_nothing_leaves_no_row_behind,
    a_delivery_that_comes_again_starts_the_same_tasks_with_the_same_ids,
    a_delivery_that_the_broker_gives_out_again_starts_what_a_crash_may_have_lost,
    a_result_whose_task_was_lost_in_a_crash_after_the_options_changed_starts_it_again,
    a_diarization_without_turns_leads_to_a_transcription_without_turns,
    a_task_of_long_ago_is_started_again,
    late_results_of_a_deleted_record_are_dropped,
    a_greater_revision_restores_a_deleted_record,
    a_result_that_comes_before_its_record_is_kept_for_it,
    an_older_result_is_shown_until_its_successor_arrives,
    results_of_nobodys_record_are_taken_and_not_kept,
    a_revision_out_of_range_is_a_permanent_error_that_names_the_field,
    what_somebody_else_wrote_is_a_permanent_error_without_its_text,
);

async fn a_recording_goes_through_the_pipeline_and_is_shown_whole(database: Database) {
    let worker = database.worker_with(PipelineOptions { title: true, ..PipelineOptions::default() }).await;
    assert_eq!(worker.takes(&created("r", 3, audio_content())).await, ["sd.diarize"]);
    let view = worker.store.record(&id("r")).await.unwrap().unwrap();
    let task = view.tasks[&Stage::Diarization];
    assert_eq!((task.revision, task.task_id), (3, follow_up_id(&id("r"), Stage::Diarization, 3)));
    assert!((jiff::Timestamp::now().as_second() - task.started_at.as_second()).abs() < 60);

    let answers = worker.tries(&diarized("r", 3), &cx()).await.unwrap();
    let transcribe: serde_json::Value = serde_json::from_slice(answers.messages()[0].message().body()).unwrap();
    assert_eq!(transcribe["turns"][0]["speaker"], "S3");
    assert_eq!(answers.messages()[0].exchange(), "jm.asr");
    let followed = worker.takes(&transcribed("r", 3, "what was said")).await;
    assert_eq!(followed, ["embed.text", "llm.summarize", "llm.title"]);
    assert!(worker.takes(&embedded("r", 3)).await.is_empty());
    assert!(worker.takes(&summarized("r", 3)).await.is_empty());
    assert!(worker.takes(&completed("r", 3, LlmTask::Title, "a title")).await.is_empty());

    let view = worker.store.record(&id("r")).await.unwrap().unwrap();
    assert_eq!((view.revision, view.deleted, view.tasks.len()), (Some(3), None, 0));
    assert_eq!(view.content, Some(audio_content()));
    assert_eq!(view.diarization, Some(diarized("r", 3)));
    assert_eq!(view.transcription, Some(transcribed("r", 3, "what was said")));
    assert_eq!(view.embedding, Some(embedded("r", 3)));
    assert_eq!(view.summary, Some(summarized("r", 3)));
    assert_eq!(view.title, Some(completed("r", 3, LlmTask::Title, "a title")));
    assert_eq!(worker.store.record(&id("another")).await.unwrap(), None);
}

async fn a_repeated_event_writes_nothing_and_starts_nothing(database: Database) {
    let worker = database.worker().await;
    let (created, removed) = (created("r", 1, audio_content()), deleted("gone", Some(5)));
    let (turns, old) = (diarized("r", 1), updated("gone", 4, text_content("old")));
    worker.takes(&created).await;
    worker.takes(&turns).await;
    worker.takes(&removed).await;
    let before = database.fingerprint().await;
    assert!(before.iter().any(|part| !part.is_empty()));
    for _ in 0..3 {
        assert!(worker.takes(&created).await.is_empty());
        assert!(worker.takes(&turns).await.is_empty());
        assert!(worker.takes(&removed).await.is_empty());
        assert!(worker.takes(&old).await.is_empty());
    }
    assert_eq!(database.fingerprint().await, before);
    // The fingerprint does see a write.
    worker.takes(&updated("r", 2, audio_content())).await;
    assert_ne!(database.fingerprint().await, before);
}

async fn an_event_that_changes_nothing_leaves_no_row_behind(database: Database) {
    let worker = database.worker().await;
    let out_of_range = created("a", u64::MAX, text_content("t"));
    assert!(worker.tries(&out_of_range, &cx()).await.is_err());
    assert!(worker.takes(&completed("b", 1, LlmTask::Chat, "t")).await.is_empty());
    assert_eq!(database.rows().await, Vec::<String>::new());
    worker.takes(&deleted("c", None)).await;
    assert_eq!(database.rows().await, ["record|c|9223372036854775807|9223372036854775807|NULL"]);
}

fn with_header(name: &'static str) -> Context {
    let mut headers = FieldTable::default();
    headers.insert(name.into(), 1.into());
    cx().with_properties(BasicProperties::default().with_headers(headers))
}

async fn a_delivery_that_comes_again_starts_the_same_tasks_with_the_same_ids(database: Database) {
    let worker = database.worker().await;
    let event = created("r", 7, text_content("t"));
    // As if the process had died here, after the commit and before the answers were published.
    let lost = tasks(&worker.tries(&event, &cx()).await.unwrap());
    assert_eq!(lost.len(), 2);
    let expected: Vec<String> =
        lost.iter().map(|task| follow_up_id(&id("r"), stage_of(&task.0), 7).to_string()).collect();
    assert_eq!(lost.iter().map(|task| task.3.clone()).collect::<Vec<_>>(), expected);

    let before = database.fingerprint().await;
    assert!(worker.takes(&event).await.is_empty());
    for again in [cx().with_attempt(2), with_header("jm-error-kind"), with_header("x-death")] {
        assert_eq!(tasks(&worker.tries(&event, &again).await.unwrap()), lost);
    }
    assert_eq!(database.fingerprint().await, before);
    worker.takes(&summarized("r", 7)).await;
    let left = tasks(&worker.tries(&event, &cx().with_attempt(2)).await.unwrap());
    assert_eq!(left, lost[..1]);
}

async fn a_delivery_that_the_broker_gives_out_again_starts_what_a_crash_may_have_lost(database: Database) {
    let worker = database.worker().await;
    let event = created("r", 1, audio_content());
    let ids = async |context: Context| -> Vec<String> {
        let answers = worker.tries(&event, &context).await.unwrap();
        let ids = answers.messages().iter().map(|outgoing| outgoing.message().properties().message_id().clone());
        ids.map(|id| id.unwrap().to_string()).collect()
    };
    let first = ids(cx()).await;
    assert_eq!(first, [follow_up_id(&id("r"), Stage::Diarization, 1).to_string()]);
    assert!(ids(cx()).await.is_empty(), "another copy of the event");
    assert_eq!(ids(cx().with_redelivered(true)).await, first, "committed, and perhaps never published");
}

async fn a_result_whose_task_was_lost_in_a_crash_after_the_options_changed_starts_it_again(database: Database) {
    let before = database.worker().await;
    before.takes(&created("r", 1, text_content("t"))).await;
    before.takes(&embedded("r", 1)).await;
    before.store.close().await;
    let after = database.worker_with(PipelineOptions { title: true, ..PipelineOptions::default() }).await;
    // As if the process had died here, after the commit and before the answers were published.
    let lost = tasks(&after.tries(&summarized("r", 1), &cx()).await.unwrap());
    assert_eq!(lost.iter().map(|task| task.0.as_str()).collect::<Vec<_>>(), ["llm.title"]);
    let again = after.tries(&summarized("r", 1), &cx().with_redelivered(true)).await.unwrap();
    assert_eq!(tasks(&again), lost);
}

async fn a_diarization_without_turns_leads_to_a_transcription_without_turns(database: Database) {
    let worker = database.worker().await;
    worker.takes(&created("r", 1, audio_content())).await;
    let too_long =
        jm_tasks::Diarized { turns: Vec::new(), reason: Some("too long".into()), speakers: 0, ..diarized("r", 1) };
    let answers = worker.tries(&too_long, &cx()).await.unwrap();
    let [transcribe] = &tasks(&answers)[..] else { panic!("one task") };
    assert_eq!(transcribe.0, "asr.transcribe");
    let body: serde_json::Value = serde_json::from_slice(answers.messages()[0].message().body()).unwrap();
    assert_eq!((body.get("turns"), &body["audio"]["url"]), (None, &"https://host/a.ogg".into()));
    let view = worker.store.record(&id("r")).await.unwrap().unwrap();
    assert_eq!(view.diarization, Some(too_long));
}

async fn a_task_of_long_ago_is_started_again(database: Database) {
    let worker = database.worker().await;
    let event = created("r", 1, text_content("t"));
    let first = tasks(&worker.tries(&event, &cx()).await.unwrap());
    database.execute("UPDATE tasks SET started_at = started_at - 599000").await;
    assert!(worker.takes(&event).await.is_empty());
    database.execute("UPDATE tasks SET started_at = started_at - 1000").await;
    assert_eq!(tasks(&worker.tries(&event, &cx()).await.unwrap()), first);
    assert!(worker.takes(&event).await.is_empty(), "it has just been started");
}

async fn late_results_of_a_deleted_record_are_dropped(database: Database) {
    let worker = database.worker().await;
    worker.takes(&created("r", 1, audio_content())).await;
    worker.takes(&diarized("r", 1)).await;
    worker.takes(&deleted("r", None)).await;
    let gone = ["record|r|9223372036854775807|9223372036854775807|NULL"];
    assert_eq!(database.rows().await, gone);
    assert!(worker.takes(&transcribed("r", 1, "secret")).await.is_empty());
    assert!(worker.takes(&embedded("r", 99)).await.is_empty());
    assert!(worker.takes(&updated("r", 100, audio_content())).await.is_empty());
    assert_eq!(database.rows().await, gone);
    let view = worker.store.record(&id("r")).await.unwrap().unwrap();
    assert_eq!((view.revision, view.deleted, view.content), (None, Some(DeletedUpTo::ForGood), None));
}

async fn a_greater_revision_restores_a_deleted_record(database: Database) {
    let worker = database.worker().await;
    worker.takes(&created("r", 1, text_content("one"))).await;
    worker.takes(&summarized("r", 1)).await;
    worker.takes(&deleted("r", Some(1))).await;
    assert!(worker.takes(&updated("r", 1, text_content("one"))).await.is_empty());
    assert_eq!(worker.takes(&updated("r", 2, text_content("two"))).await, ["embed.text", "llm.summarize"]);
    assert!(worker.takes(&summarized("r", 1)).await.is_empty());
    let view = worker.store.record(&id("r")).await.unwrap().unwrap();
    assert_eq!((view.revision, view.deleted), (Some(2), Some(DeletedUpTo::Revision(1))));
    assert_eq!((view.content, view.summary), (Some(text_content("two")), None));

    // A deletion of what is not there any more leaves what is newer.
    worker.takes(&updated("r", 5, text_content("five"))).await;
    worker.takes(&deleted("r", Some(4))).await;
    let view = worker.store.record(&id("r")).await.unwrap().unwrap();
    assert_eq!((view.revision, view.content), (Some(5), Some(text_content("five"))));
    assert_eq!((view.deleted, view.tasks.len()), (Some(DeletedUpTo::Revision(4)), 2));
}

async fn a_result_that_comes_before_its_record_is_kept_for_it(database: Database) {
    let worker = database.worker().await;
    assert!(worker.takes(&transcribed("r", 2, "said")).await.is_empty());
    let view = worker.store.record(&id("r")).await.unwrap().unwrap();
    assert_eq!((view.revision, view.content, view.tasks.len()), (None, None, 0));
    assert_eq!(worker.takes(&created("r", 1, audio_content())).await, Vec::<String>::new());
    assert_eq!(worker.takes(&updated("r", 2, audio_content())).await, ["embed.text", "llm.summarize"]);
}

async fn an_older_result_is_shown_until_its_successor_arrives(database: Database) {
    let worker = database.worker().await;
    worker.takes(&created("r", 1, audio_content())).await;
    worker.takes(&updated("r", 2, audio_content())).await;
    assert!(worker.takes(&transcribed("r", 1, "one")).await.is_empty(), "nothing follows from it");
    let shown = async || worker.store.record(&id("r")).await.unwrap().unwrap().transcription;
    assert_eq!(shown().await, Some(transcribed("r", 1, "one")));
    assert_eq!(worker.takes(&transcribed("r", 2, "two")).await, ["embed.text", "llm.summarize"]);
    assert!(worker.takes(&transcribed("r", 1, "one")).await.is_empty());
    assert_eq!(shown().await, Some(transcribed("r", 2, "two")));
}

async fn results_of_nobodys_record_are_taken_and_not_kept(database: Database) {
    let worker = database.worker().await;
    let nobody = jm_tasks::Completed { record_id: None, revision: None, ..summarized("r", 1) };
    assert!(worker.takes(&nobody).await.is_empty());
    let whichever = jm_tasks::Embedded { revision: None, ..embedded("r", 1) };
    assert!(worker.takes(&whichever).await.is_empty());
    assert!(worker.takes(&completed("r", 1, LlmTask::Chat, "talk")).await.is_empty());
    assert_eq!(database.rows().await, Vec::<String>::new());
}

async fn a_revision_out_of_range_is_a_permanent_error_that_names_the_field(database: Database) {
    let worker = database.worker().await;
    for revision in [0, 9_223_372_036_854_775_807, u64::MAX] {
        for error in [
            worker.tries(&created("r", revision, text_content("t")), &cx()).await.unwrap_err(),
            worker.tries(&deleted("r", Some(revision)), &cx()).await.unwrap_err(),
            worker.tries(&embedded("r", revision), &cx()).await.unwrap_err(),
        ] {
            assert!(error.is_permanent());
            let expected = format!("field `revision` is {revision}; allowed: 1 to 9223372036854775806");
            assert_eq!(error.to_string(), expected);
        }
    }
    worker.takes(&created("r", 9_223_372_036_854_775_806, text_content("t"))).await;
    let view = worker.store.record(&id("r")).await.unwrap().unwrap();
    assert_eq!(view.revision, Some(9_223_372_036_854_775_806));
}

async fn what_somebody_else_wrote_is_a_permanent_error_without_its_text(database: Database) {
    let worker = database.worker().await;
    worker.takes(&created("r", 1, text_content("t"))).await;
    database.execute("UPDATE records SET content = '{\"text\": 7, \"title\": \"canary\"}'").await;
    let error = worker.tries(&updated("r", 2, text_content("t")), &cx()).await.unwrap_err();
    assert!(error.is_permanent());
    assert_eq!(
        error.to_string(),
        "what is stored as content of record r cannot be read: Data error at line 1 column 10"
    );
}

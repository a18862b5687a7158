//! `jm record show`: from the database of the record-event-worker, in this process.

use jm_mq_core::{Context, Payload, Router};
use jm_tasks::{Completed, LlmTask, RecordContent, RecordCreated, RecordId, Stage, queue};
use record_event_worker::{DatabaseOptions, PipelineOptions, RecordEvents, Store};
use serde::Serialize;
use serde_json::Value;

use crate::{
    dead_letters::{self, DEAD, Dead, dead, leave, said},
    support::{jm, jm_at},
};

async fn takes<T: Payload + Serialize>(router: &Router, event: &T) {
    let body = serde_json::to_vec(event).unwrap();
    router.dispatch(Some(T::TYPE), body.into(), &Context::detached(queue::RECORD_EVENTS)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_shown_with_all_that_is_stored_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/records.db", folder.path().display());
    let options = DatabaseOptions { url: url.as_str().into(), ..DatabaseOptions::default() };
    let store = Store::open(&options).await.unwrap();
    let router = RecordEvents::new(store.clone(), PipelineOptions::default()).router();
    let record_id = RecordId::new("note-1").unwrap();
    let content = RecordContent {
        title: Some("杭州".into()),
        text: Some("Buy three umbrellas.".into()),
        ..RecordContent::default()
    };
    takes(&router, &RecordCreated { record_id: record_id.clone(), revision: 2, content }).await;
    let summary = Completed {
        record_id: Some(record_id),
        revision: Some(2),
        task: LlmTask::Summarize,
        text: "Umbrellas.".into(),
        language: Some("en".into()),
        written_in: None,
        truncated: false,
        model: "m".into(),
        prompt_tokens: None,
        completion_tokens: None,
    };
    takes(&router, &summary).await;
    store.close().await;

    let of = |arguments: &[&'static str]| {
        let mut command = jm();
        command.env("JM_DATABASE__URL", &url).env("JM_RABBITMQ__PORT", "1");
        let arguments = arguments.to_vec();
        async move { said(command, arguments).await }
    };
    let shown = of(&["record", "show", "note-1"]).await;
    assert_eq!((shown.code, shown.err.as_str()), (0, ""), "{shown:?}");
    assert!(shown.out.starts_with("── 杭州 ─"), "{}", shown.out);
    for line in ["record     note-1, revision 2", "text       Buy three umbrellas.", "summary    Umbrellas. (m, in en)"]
    {
        assert!(shown.out.lines().any(|shown| shown == line), "{line}: {}", shown.out);
    }
    // There is no broker here to ask.
    assert!(shown.out.contains("no result  embedding since "), "{}", shown.out);
    let words = shown.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("whether it is a dead letter is not known: cannot reach RabbitMQ"), "{words}");
    let json = of(&["record", "show", "note-1", "--json"]).await;
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["revision"], &json["summary"]["text"]), (&2.into(), &"Umbrellas.".into()));
    let none = of(&["record", "show", "note-2"]).await;
    assert_eq!((none.code, none.err.as_str()), (66, "jm: no record `note-2` in the database\n"));
}

#[tokio::test]
async fn a_database_that_is_not_there_is_one_line_and_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.db");
    let mut command = jm();
    command.env("JM_DATABASE__URL", format!("sqlite://{}", file.display()));
    let said = said(command, ["record", "show", "note-1"]).await;
    assert_eq!((said.code, said.err.lines().count()), (69, 1), "{said:?}");
    assert!(said.err.contains("database.url") && !file.exists(), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_whose_task_is_a_dead_letter_is_shown_as_dead_and_one_that_waits_as_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/records.db", folder.path().display());
    let options = DatabaseOptions { url: url.as_str().into(), ..DatabaseOptions::default() };
    let store = Store::open(&options).await.unwrap();
    let router = RecordEvents::new(store.clone(), PipelineOptions::default()).router();
    let record_id = RecordId::new("note-1").unwrap();
    let content = RecordContent { text: Some("Buy three umbrellas.".into()), ..RecordContent::default() };
    takes(&router, &RecordCreated { record_id: record_id.clone(), revision: 1, content }).await;
    let task = store.record(&record_id).await.unwrap().unwrap().tasks[&Stage::Summary].task_id.to_string();
    store.close().await;
    let vhost = dead_letters::vhost().await;
    vhost.declare_queue("jm.embed.dead").await.unwrap();
    leave(&vhost, [dead("another"), Dead { error: "in zh\u{9b}2J".into(), ..dead(&task) }]).await;
    let of = async |arguments: &[&str]| {
        let mut command = jm_at(&vhost);
        command.env("JM_DATABASE__URL", &url);
        said(command, arguments).await
    };
    let shown = of(&["record", "show", "note-1"]).await;
    assert_eq!((shown.code, shown.err.as_str()), (0, ""), "{shown:?}");
    assert!(shown.out.contains("under way  embedding since "), "{}", shown.out);
    assert!(shown.out.contains("dead       summary since ") && !shown.out.contains('\u{9b}'), "{}", shown.out);
    let shown = of(&["record", "show", "note-1", "--json"]).await;
    let fates = &shown.json().unwrap()["task_fates"];
    assert_eq!(
        (&fates["embedding"]["state"], &fates["summary"]["state"]),
        (&"not_dead".into(), &"dead".into()),
        "{fates}"
    );
    assert_eq!(fates["summary"]["error_kind"], "exhausted", "{fates}");
    let counts = vhost.queue_counts(DEAD).await.unwrap();
    assert_eq!((counts.ready, counts.unacked), (2, 0));
}

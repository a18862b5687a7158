//! The built binaries on a private broker: the worker alone, and all five of them together.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

mod memory;
mod secrets;

use std::{path::Path, time::Duration};

use jm_tasks::{RecordId, Stage, follow_up_id, queue};
use jm_testkit::{OpenAiServer, PostgresServer, RabbitNode, Vhost, WorkerProcess, WorkerProcessBuilder, record_tone};
use record_event_worker::{DatabaseOptions, RecordView, Store};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const DEAD: &str = "jm.coreRecordEvent.dead";

fn configured() -> WorkerProcessBuilder {
    WorkerProcess::builder(env!("CARGO_BIN_EXE_record-event-worker"))
}

fn worker(vhost: &Vhost, database: &str) -> WorkerProcessBuilder {
    configured().vhost(vhost).env("JM_DATABASE__URL", database).env("JM_CONSUMER__RETRY_BASE_DELAY", "10ms")
}

async fn vhost() -> Vhost {
    RabbitNode::shared().await.unwrap().vhost().await.unwrap()
}

async fn ready(builder: WorkerProcessBuilder) -> WorkerProcess {
    let worker = builder.start().await.unwrap();
    worker.wait_ready(LIMIT).await.unwrap();
    worker
}

async fn tell(vhost: &Vhost, kind: &str, event: Value) {
    let id = format!("{kind}/{}/{}", event["record_id"], event["revision"]);
    vhost.send(queue::RECORD_EVENTS, kind, &id, None, &event).await.unwrap();
}

fn database_in(folder: &Path) -> String {
    format!("sqlite://{}/records.db", folder.display())
}

async fn record(database: &str, id: &str) -> Option<RecordView> {
    let options = DatabaseOptions { url: database.into(), ..DatabaseOptions::default() };
    let store = Store::open_existing(&options).unwrap();
    let record = store.record(&RecordId::new(id).unwrap()).await.unwrap();
    store.close().await;
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_note_goes_through_its_stages_and_ends_in_the_database() {
    let (vhost, folder) = (vhost().await, tempfile::tempdir().unwrap());
    let database = database_in(folder.path());
    let worker = ready(worker(&vhost, &database)).await;
    let audio = json!({ "url": "s3://notes/r-1.m4a" });
    tell(
        &vhost,
        "record.created",
        json!({ "record_id": "r-1", "content": { "audio": audio, "speakers": 2, "language": "zh" } }),
    )
    .await;

    let [task] = &vhost.receive(queue::SD, 1, LIMIT).await.unwrap()[..] else { panic!("one task") };
    let id = |stage| Some(follow_up_id(&RecordId::new("r-1").unwrap(), stage, 1).to_string());
    assert_eq!(
        (task.kind.as_str(), &task.id, task.correlation_id.as_deref()),
        ("sd.diarize", &id(Stage::Diarization), Some("r-1"))
    );
    assert_eq!(task.body, json!({ "record_id": "r-1", "revision": 1, "audio": audio, "speakers": 2 }));

    let turns = json!([{ "start": 0.0, "end": 3.5, "speaker": "S1" }]);
    tell(&vhost, "sd.diarized", json!({ "record_id": "r-1", "revision": 1, "turns": turns })).await;
    let [task] = &vhost.receive(queue::ASR, 1, LIMIT).await.unwrap()[..] else { panic!("one task") };
    assert_eq!((task.kind.as_str(), &task.id), ("asr.transcribe", &id(Stage::Transcription)));
    assert_eq!((&task.body["turns"], &task.body["language"]), (&turns, &json!("zh")));

    tell(&vhost, "asr.transcribed", json!({ "record_id": "r-1", "revision": 1, "text": "你好。" })).await;
    let [embed] = &vhost.receive(queue::EMBED, 1, LIMIT).await.unwrap()[..] else { panic!("one task") };
    let [summarize] = &vhost.receive(queue::LLM, 1, LIMIT).await.unwrap()[..] else { panic!("one task") };
    assert_eq!((&embed.body["texts"], &embed.id), (&json!(["你好。"]), &id(Stage::Embedding)));
    assert_eq!((&summarize.body["text"], &summarize.id), (&json!("你好。"), &id(Stage::Summary)));

    tell(&vhost, "embed.embedded", json!({ "record_id": "r-1", "revision": 1, "vectors": [[0.5, -0.5]] })).await;
    tell(&vhost, "llm.completed", json!({ "record_id": "r-1", "revision": 1, "task": "summarize", "text": "问候" }))
        .await;
    worker.wait_for_metric("jm_record_events_total", &[("outcome", "applied")], 5.0, LIMIT).await.unwrap();
    assert_eq!(worker.metric("jm_record_followups_total", &[]).await.unwrap(), Some(4.0));
    assert_eq!(worker.metric("jm_record_followups_total", &[("stage", "title")]).await.unwrap(), Some(0.0));
    let late = [("type", "record.created"), ("outcome", "late")];
    assert_eq!(worker.metric("jm_record_events_total", &late).await.unwrap(), Some(0.0));
    worker.wait_for_metric("jm_record_database_connections", &[("state", "idle")], 1.0, LIMIT).await.unwrap();
    assert_eq!(worker.metric("jm_record_database_connections", &[("state", "in_use")]).await.unwrap(), Some(0.0));
    assert_eq!(worker.metric("jm_record_database_connections_max", &[]).await.unwrap(), Some(1.0));
    let stored = record(&database, "r-1").await.unwrap();
    assert_eq!(stored.content.unwrap().audio.unwrap().url, "s3://notes/r-1.m4a");
    assert_eq!(stored.diarization.unwrap().turns[0].speaker, "S1");
    assert_eq!(stored.transcription.unwrap().text, "你好。");
    assert_eq!(stored.embedding.unwrap().vectors, [[0.5, -0.5]]);
    assert_eq!(stored.summary.unwrap().text, "问候");

    tell(&vhost, "record.deleted", json!({ "record_id": "r-1" })).await;
    worker.wait_for_metric("jm_record_events_total", &[("outcome", "applied")], 6.0, LIMIT).await.unwrap();
    let stored = record(&database, "r-1").await.unwrap();
    assert!(stored.deleted.is_some() && stored.content.is_none() && stored.summary.is_none(), "{stored:?}");
    worker.terminate().unwrap();
    assert_eq!(worker.wait(LIMIT).await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_say_nothing_usable_are_kept_with_their_reason() {
    let (vhost, folder) = (vhost().await, tempfile::tempdir().unwrap());
    let worker = ready(worker(&vhost, &database_in(folder.path()))).await;
    for (kind, event, reason) in [
        ("record.updated", json!({ "record_id": "r-1" }), "missing field `revision`"),
        ("record.updated", json!({ "record_id": "r-1", "revision": 2, "text": "t" }), "missing field `content`"),
        ("record.created", json!({ "record_id": "" }), "record_id: a record's id has 1 to 200 bytes"),
        ("record.moved", json!({ "record_id": "r-1" }), "no handler for type"),
    ] {
        tell(&vhost, kind, event).await;
        let [dead] = &vhost.receive(DEAD, 1, LIMIT).await.unwrap()[..] else { panic!("one dead letter") };
        assert!(dead.header("x-exception-message").unwrap().contains(reason), "{dead:?}");
    }
    assert!(worker.ready().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgresql_is_away_the_worker_is_alive_and_not_ready_and_events_wait() {
    let (vhost, server) = (vhost().await, PostgresServer::start().await.unwrap());
    let database = server.database().await.unwrap();
    server.kill().await.unwrap();
    let worker = worker(&vhost, &database).start().await.unwrap();
    worker.wait_for_log("not there yet; trying again", LIMIT).await.unwrap();
    let reason = worker.wait_until("/health/ready", 503, LIMIT).await.unwrap();
    assert!(reason.contains("waiting for the database") || reason.contains("starting"), "{reason}");
    assert!(worker.live().await);
    server.restart().await.unwrap();
    worker.wait_ready(LIMIT).await.unwrap();

    tell(&vhost, "record.created", json!({ "record_id": "r-1", "content": { "text": "One." } })).await;
    vhost.receive(queue::EMBED, 1, LIMIT).await.unwrap();
    server.kill().await.unwrap();
    tell(&vhost, "record.created", json!({ "record_id": "r-2", "content": { "text": "Two." } })).await;
    worker.wait_for_metric("jm_mq_retries_total", &[("queue", queue::RECORD_EVENTS)], 1.0, LIMIT).await.unwrap();
    server.restart().await.unwrap();
    vhost.receive(queue::EMBED, 1, LIMIT).await.unwrap();
    assert_eq!(record(&database, "r-2").await.unwrap().content.unwrap().text.as_deref(), Some("Two."));
    let password = database.split(':').nth(2).and_then(|rest| rest.split('@').next()).unwrap();
    assert!(!worker.stdout().contains(password));
}

/// A sibling of this package's binary, built with it.
fn sibling(name: &str) -> WorkerProcessBuilder {
    let program = Path::new(env!("CARGO_BIN_EXE_record-event-worker")).with_file_name(name);
    assert!(program.exists(), "build all workers first: cargo build --workspace");
    WorkerProcess::builder(program)
}

/// More than a few words.
const NOTE: &str =
    "The release moves to Thursday, since the migration takes longer than its window. Ada tells the customers.";

#[tokio::test(flavor = "multi_thread")]
async fn the_five_workers_together_turn_notes_into_searchable_records() {
    let (vhost, folder, engine) = (vhost().await, tempfile::tempdir().unwrap(), OpenAiServer::start().await.unwrap());
    let database = database_in(folder.path());
    record_tone(folder.path().join("call.wav"), 12).unwrap();
    let mut workers = vec![ready(worker(&vhost, &database)).await];
    for name in ["llm-worker", "asr-worker", "sd-worker", "embed-worker"] {
        let mut worker =
            sibling(name).vhost(&vhost).env("JM_ENGINE__BASE_URL", engine.base_url()).env("JM_ENGINE__MODEL", "test");
        if ["asr-worker", "sd-worker"].contains(&name) {
            worker = worker.env("JM_AUDIO__FOLDER", folder.path());
        }
        workers.push(ready(worker).await);
    }
    let url = format!("file://{}/call.wav", folder.path().display());
    tell(&vhost, "record.created", json!({ "record_id": "voice", "content": { "audio": { "url": url } } })).await;
    tell(&vhost, "record.created", json!({ "record_id": "text", "content": { "text": NOTE } })).await;
    // Two of each record's stages have no follow-ups: five results and two notes for the one, two and one for the other.
    workers[0].wait_for_metric("jm_record_events_total", &[("outcome", "applied")], 8.0, LIMIT).await.unwrap();

    let voice = record(&database, "voice").await.unwrap();
    let segments = voice.transcription.unwrap().segments;
    let said: Vec<(&str, Option<&str>)> = segments.iter().map(|s| (s.text.as_str(), s.speaker.as_deref())).collect();
    assert_eq!(said, [("second 0", Some("S1")), ("second 10", Some("S1"))]);
    // So few words are their own summary.
    assert_eq!(voice.summary.unwrap().text, "second 0 second 10");
    let text = record(&database, "text").await.unwrap();
    assert_eq!(text.embedding.unwrap().vectors, [OpenAiServer::vector(NOTE)]);
    let summary = text.summary.unwrap().text;
    assert!(summary.starts_with("summary of ") && summary.contains("The release moves to Thursday"), "{summary}");
    for worker in workers {
        worker.terminate().unwrap();
        assert_eq!(worker.wait(LIMIT).await.unwrap().code(), Some(0));
    }
    for queue in [queue::LLM, queue::ASR, queue::SD, queue::EMBED, queue::RECORD_EVENTS] {
        let counts = vhost.queue_counts(queue).await.unwrap();
        assert_eq!((counts.ready, counts.unacked), (0, 0), "{queue}");
    }
}

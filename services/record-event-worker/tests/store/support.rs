//! A database of a test's own, and the router that writes into it.

use std::path::PathBuf;
use std::time::Duration;

use jm_mq_core::{Answers, Context, HandlerError, Payload, Router};
use jm_tasks::{
    AudioSource, Completed, Diarized, Embedded, LlmTask, RecordContent, RecordCreated, RecordDeleted, RecordId,
    RecordUpdated, SpeakerTurn, Stage, Transcribed, queue,
};
use jm_testkit::PostgresServer;
use record_event_worker::{DatabaseOptions, PipelineOptions, RecordEvents, Store};
use secrecy::ExposeSecret;
use serde::Serialize;
use sqlx::{AnyConnection, Connection, Row};
use tempfile::TempDir;

/// No test here takes a tenth of it on an idle machine.
const LIMIT: Duration = Duration::from_mins(4);

pub(crate) async fn limited(test: impl Future<Output = ()>) {
    tokio::time::timeout(LIMIT, test).await.expect("the test took too long");
}

/// A fresh database, gone with this value (or with the server).
pub(crate) struct Database {
    pub(crate) options: DatabaseOptions,
    folder: Option<TempDir>,
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite://{}/records.db", folder.path().display());
        Self { options: DatabaseOptions { url: url.into(), ..DatabaseOptions::default() }, folder: Some(folder) }
    }

    pub(crate) async fn postgres() -> Self {
        Self::postgres_on(PostgresServer::shared().await.unwrap()).await
    }

    pub(crate) async fn postgres_on(server: &PostgresServer) -> Self {
        let url = server.database().await.unwrap();
        Self { options: DatabaseOptions { url: url.into(), ..DatabaseOptions::default() }, folder: None }
    }

    /// The same database of a server by another port.
    pub(crate) fn moved(&self, from: u16, to: u16) -> Self {
        let url = self.options.url.expose_secret().replace(&format!(":{from}/"), &format!(":{to}/"));
        Self { options: DatabaseOptions { url: url.into(), ..self.options.clone() }, folder: None }
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        self.folder.is_some()
    }

    /// The SQLite file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.as_ref().expect("not on SQLite").path().join("records.db")
    }

    pub(crate) async fn store(&self) -> Store {
        Store::open(&self.options).await.unwrap()
    }

    pub(crate) async fn worker(&self) -> Worker {
        self.worker_with(PipelineOptions::default()).await
    }

    pub(crate) async fn worker_with(&self, options: PipelineOptions) -> Worker {
        let store = self.store().await;
        Worker { router: RecordEvents::new(store.clone(), options).router(), store }
    }

    /// A connection beside the store's.
    pub(crate) async fn connect(&self) -> AnyConnection {
        sqlx::any::install_default_drivers();
        AnyConnection::connect(self.options.url.expose_secret()).await.unwrap()
    }

    pub(crate) async fn execute(&self, statement: &'static str) {
        let mut connection = self.connect().await;
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Every row of every table but the times, as text, in order.
    pub(crate) async fn rows(&self) -> Vec<String> {
        let mut connection = self.connect().await;
        let mut rows = Vec::new();
        for query in [
            "SELECT 'record', id, CAST(revision AS TEXT), CAST(deleted_revision AS TEXT), content FROM records ORDER BY id",
            "SELECT 'result', record_id, stage, CAST(revision AS TEXT), body FROM results ORDER BY record_id, stage",
            "SELECT 'task', record_id, stage, CAST(revision AS TEXT), task_id FROM tasks ORDER BY record_id, stage",
        ] {
            for row in sqlx::query(query).fetch_all(&mut connection).await.unwrap() {
                let columns = (0..5).map(|column| row.get::<Option<String>, _>(column));
                rows.push(columns.map(|text| text.unwrap_or("NULL".into())).collect::<Vec<_>>().join("|"));
            }
        }
        connection.close().await.unwrap();
        rows
    }

    /// What changes with every write, and with nothing else.
    pub(crate) async fn fingerprint(&self) -> Vec<Vec<u8>> {
        if self.is_sqlite() {
            let file = self.file();
            return [file.clone(), file.with_extension("db-wal")]
                .map(|file| std::fs::read(file).unwrap_or_default())
                .into();
        }
        let mut connection = self.connect().await;
        let query = "SELECT 'records ' || id || ' ' || ctid::text || ' ' || xmin::text FROM records
            UNION ALL SELECT 'results ' || record_id || ' ' || ctid::text || ' ' || xmin::text FROM results
            UNION ALL SELECT 'tasks ' || record_id || ' ' || ctid::text || ' ' || xmin::text FROM tasks ORDER BY 1";
        let rows = sqlx::query(query).fetch_all(&mut connection).await.unwrap();
        rows.into_iter().map(|row| row.get::<String, _>(0).into_bytes()).collect()
    }
}

/// The worker without its broker.
pub(crate) struct Worker {
    pub(crate) router: Router,
    pub(crate) store: Store,
}

/// A task that was started: stage by its type, record, revision, message id.
pub(crate) type Task = (String, String, u64, String);

impl Worker {
    /// Handles an event as a first delivery; returns the types of the tasks that it starts.
    pub(crate) async fn takes<T: Payload + Serialize>(&self, event: &T) -> Vec<String> {
        tasks(&self.tries(event, &cx()).await.unwrap()).into_iter().map(|task| task.0).collect()
    }

    pub(crate) async fn tries<T: Payload + Serialize>(&self, event: &T, cx: &Context) -> Result<Answers, HandlerError> {
        self.router.dispatch(Some(T::TYPE), serde_json::to_vec(event).unwrap().into(), cx).await
    }
}

pub(crate) fn cx() -> Context {
    Context::detached(queue::RECORD_EVENTS)
}

pub(crate) fn tasks(answers: &Answers) -> Vec<Task> {
    let task = |outgoing: &jm_mq_core::Outgoing| {
        let properties = outgoing.message().properties();
        let text = |property: &Option<_>| property.as_ref().map(ToString::to_string).unwrap();
        let body: serde_json::Value = serde_json::from_slice(outgoing.message().body()).unwrap();
        let revision = body["revision"].as_u64().unwrap();
        assert_eq!(body["record_id"], text(properties.correlation_id()));
        (text(properties.kind()), text(properties.correlation_id()), revision, text(properties.message_id()))
    };
    answers.messages().iter().map(task).collect()
}

pub(crate) fn id(record: &str) -> RecordId {
    RecordId::new(record).unwrap()
}

pub(crate) fn text_content(text: &str) -> RecordContent {
    RecordContent { text: Some(text.into()), ..RecordContent::default() }
}

pub(crate) fn audio_content() -> RecordContent {
    RecordContent { audio: Some(AudioSource { url: "https://host/a.ogg".into() }), ..RecordContent::default() }
}

pub(crate) fn created(record: &str, revision: u64, content: RecordContent) -> RecordCreated {
    RecordCreated { record_id: id(record), revision, content }
}

pub(crate) fn updated(record: &str, revision: u64, content: RecordContent) -> RecordUpdated {
    RecordUpdated { record_id: id(record), revision, content }
}

pub(crate) fn deleted(record: &str, revision: Option<u64>) -> RecordDeleted {
    RecordDeleted { record_id: id(record), revision }
}

pub(crate) fn diarized(record: &str, revision: u64) -> Diarized {
    Diarized {
        record_id: Some(id(record)),
        revision: Some(revision),
        turns: vec![SpeakerTurn { start: 0.0, end: 2.25, speaker: format!("S{revision}") }],
        reason: None,
        speakers: 1,
        duration: 2.5,
        model: "d".into(),
    }
}

pub(crate) fn transcribed(record: &str, revision: u64, text: &str) -> Transcribed {
    Transcribed {
        record_id: Some(id(record)),
        revision: Some(revision),
        text: text.into(),
        language: Some("en".into()),
        duration: 2.5,
        segments: Vec::new(),
        model: "t".into(),
    }
}

pub(crate) fn embedded(record: &str, revision: u64) -> Embedded {
    Embedded {
        record_id: Some(id(record)),
        revision: Some(revision),
        vectors: vec![vec![0.25, -1.5, 0.1]],
        dimensions: 3,
        model: "e".into(),
        split: Vec::new(),
    }
}

pub(crate) fn completed(record: &str, revision: u64, task: LlmTask, text: &str) -> Completed {
    Completed {
        record_id: Some(id(record)),
        revision: Some(revision),
        task,
        text: text.into(),
        language: None,
        written_in: None,
        truncated: false,
        model: "l".into(),
        prompt_tokens: None,
        completion_tokens: None,
    }
}

pub(crate) fn summarized(record: &str, revision: u64) -> Completed {
    completed(record, revision, LlmTask::Summarize, &format!("summary {revision}"))
}

/// The stage that a task's type starts.
pub(crate) fn stage_of(task_type: &str) -> Stage {
    match task_type {
        "sd.diarize" => Stage::Diarization,
        "asr.transcribe" => Stage::Transcription,
        "embed.text" => Stage::Embedding,
        "llm.summarize" => Stage::Summary,
        "llm.title" => Stage::Title,
        other => panic!("no task is called {other}"),
    }
}

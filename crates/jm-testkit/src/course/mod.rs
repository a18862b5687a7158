//! A worker's way through its faults, with a search of all that comes out of it for its secrets.

mod broker;
mod engine;
mod mistakes;
mod store;
mod tls;

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::canary::Canary;
use crate::http::HttpServer;
use crate::leaks::LeakSearch;
use crate::node::RabbitNode;
use crate::openai::OpenAiServer;
use crate::proxy::TcpProxy;
use crate::sentry::SentryServer;
use crate::vhost::Vhost;
use crate::worker::{WorkerProcess, WorkerProcessBuilder};

/// What a step may take, on a machine with much else to do.
const LIMIT: Duration = Duration::from_mins(1);

/// Where a task's sender wants its answer too.
const REPLIES: &str = "the.senders.own";

/// A worker, as far as a course has to know it. Every secret that its configuration holds is made up by the course, and
/// those of `secrets` by its test.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The binary.
    pub program: PathBuf,
    /// The queue it consumes. Its dead letters are in the queue of that name with `.dead`.
    pub queue: &'static str,
    /// The type of a task.
    pub kind: &'static str,
    /// A task that it can do. Of one with a recording, the recording is `s3://notes/a.wav`.
    pub task: Value,
    /// The queue that has something for each task that was done.
    pub answers: &'static str,
    /// What it asks its engine for, such as `/v1/embeddings`. `None`: it has no engine.
    pub engine: Option<&'static str>,
    /// Whether it fetches recordings.
    pub fetches: bool,
    /// What else it is configured with.
    pub settings: Vec<(&'static str, String)>,
    /// The secrets in `settings`.
    pub secrets: Vec<Canary>,
}

impl Subject {
    fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn dead(&self) -> String {
        format!("{}.dead", self.queue)
    }

    /// The worker with what only its test knows.
    fn builder(&self) -> WorkerProcessBuilder {
        self.settings
            .iter()
            .fold(WorkerProcess::builder(&self.program), |builder, (name, value)| builder.env(name, value))
            .env("JM_LOG__LEVEL", "trace")
    }

    /// With nothing wrong.
    fn configured(&self) -> WorkerProcessBuilder {
        let builder = self.builder();
        if self.engine.is_none() {
            return builder;
        }
        builder.env("JM_ENGINE__MODEL", "test").env("JM_ENGINE__BASE_URL", "http://127.0.0.1:9/v1")
    }
}

/// Everything round a worker that can fail, and the search.
///
/// The worker logs all there is (`trace`). What is searched: its standard output and error, its metrics and health pages
/// during each fault and at the end, answers, replies, dead letters with their headers, and what it sends to Sentry.
#[derive(Debug)]
pub struct FaultCourse {
    subject: Subject,
    vhost: Vhost,
    /// The way to the broker.
    broker: TcpProxy,
    engine: OpenAiServer,
    /// The way to the engine.
    engine_link: TcpProxy,
    store: HttpServer,
    sentry: SentryServer,
    secrets: Secrets,
    search: LeakSearch,
    /// Messages that had to fail so far.
    dead: usize,
}

#[derive(Debug)]
struct Secrets {
    password: Canary,
    wrong: Canary,
    api_key: Canary,
    key_id: Canary,
    key: Canary,
    token: Canary,
    dsn_key: Canary,
}

impl FaultCourse {
    /// Prepares broker, engine, store and Sentry. The broker is the shared one, and stays alive.
    pub async fn of(subject: Subject) -> Result<Self> {
        let secrets = Secrets {
            password: Canary::new("the broker's password"),
            wrong: Canary::new("a wrong password"),
            api_key: Canary::new("the engine's key"),
            key_id: Canary::plain("the store's key id"),
            key: Canary::new("the store's key"),
            token: Canary::plain("the store's token"),
            dsn_key: Canary::plain("Sentry's key"),
        };
        let node = RabbitNode::shared().await?;
        let name = format!("faults of {}", subject.name());
        let vhost = node.vhost_named(&name, &format!("{name} user"), secrets.password.value()).await?;
        vhost.declare_queue(REPLIES).await?;
        let Secrets { password, wrong, api_key, key_id, key, token, dsn_key } = &secrets;
        let known = [password, wrong, api_key, key_id, key, token, dsn_key].map(Clone::clone);
        let search = LeakSearch::of(known.into_iter().chain(subject.secrets.iter().cloned()));
        let broker = TcpProxy::start(([127, 0, 0, 1], vhost.port).into()).await?;
        let engine = OpenAiServer::start().await?;
        let engine_link = TcpProxy::start(([127, 0, 0, 1], engine.http().port()).into()).await?;
        let (store, sentry) = (HttpServer::start().await?, SentryServer::start().await?);
        Ok(Self { subject, vhost, broker, engine, engine_link, store, sentry, secrets, search, dead: 0 })
    }

    /// The whole of it, for a worker with an engine.
    pub async fn run(mut self) -> Result<LeakSearch> {
        self.command_line().await?;
        let worker = self.start().await?;
        self.work(&worker).await?;
        self.engine_faults(&worker).await?;
        if self.subject.fetches {
            self.store_faults(&worker).await?;
        }
        self.wrong_messages(&worker).await?;
        self.broker_faults(&worker).await?;
        self.end(worker).await?;
        self.refused_starts().await?;
        self.finish()
    }

    /// The worker as it is configured for the course.
    pub fn worker(&self) -> WorkerProcessBuilder {
        let Secrets { api_key, key_id, key, token, dsn_key, .. } = &self.secrets;
        let mut builder = self
            .subject
            .builder()
            .vhost(&self.vhost)
            .env("JM_RABBITMQ__PORT", self.broker.port().to_string())
            .env("JM_SENTRY__DSN", self.sentry.dsn(dsn_key.value()))
            .env("JM_CONSUMER__REFUSED_DELAY", "200ms")
            .env("JM_CONSUMER__RETRY_BASE_DELAY", "10ms")
            .env("JM_CONSUMER__MAX_RETRY_ATTEMPTS", "1")
            .env("JM_CONSUMER__NACK_REQUEUE", "false");
        if self.subject.engine.is_some() {
            builder = builder
                .env("JM_ENGINE__BASE_URL", format!("http://127.0.0.1:{}/v1", self.engine_link.port()))
                .env("JM_ENGINE__MODEL", "test")
                .env("JM_ENGINE__API_KEY", api_key.value())
                .env("JM_ENGINE__TIMEOUT", "3s")
                .env("JM_ENGINE__MAX_RESPONSE_BYTES", "1000000");
        }
        if self.subject.fetches {
            builder = builder
                .env("JM_AUDIO__S3__ENDPOINT", self.store.url(""))
                .env("JM_AUDIO__S3__ACCESS_KEY_ID", key_id.value())
                .env("JM_AUDIO__S3__SECRET_ACCESS_KEY", key.value())
                .env("JM_AUDIO__S3__SESSION_TOKEN", token.value());
        }
        builder
    }

    /// All that ends at once.
    pub async fn command_line(&mut self) -> Result<()> {
        for (argument, code) in [
            ("--help", 0),
            ("--version", 0),
            ("--print-config", 0),
            ("--check-config", 0),
            ("--no-such", 2),
            ("--health", 1),
        ] {
            let output = ended(self.worker().arg(argument), code).await.with_context(|| argument.to_owned())?;
            self.search.output(argument, &output);
        }
        Ok(())
    }

    /// Starts the worker, and returns when it consumes.
    pub async fn start(&self) -> Result<WorkerProcess> {
        let worker = self.worker().start().await?;
        worker.wait_ready(LIMIT).await?;
        Ok(worker)
    }

    /// A task that succeeds. Engine and store are given their keys: a search that finds none in what they got would find
    /// none anywhere.
    pub async fn work(&mut self, worker: &WorkerProcess) -> Result<()> {
        if self.subject.fetches {
            self.serve_recording()?;
        }
        self.send("right").await?;
        self.take(self.subject.answers, "an answer").await?;
        if self.subject.engine.is_some() {
            self.take(REPLIES, "a reply").await?;
            given("the engine", self.engine.http(), &self.secrets.api_key)?;
        }
        if self.subject.fetches {
            given("the store", &self.store, &self.secrets.key_id)?;
        }
        self.search.pages("the worker", worker).await
    }

    /// Messages that cannot be read.
    pub async fn wrong_messages(&mut self, worker: &WorkerProcess) -> Result<()> {
        let typed = |kind: &str| lapin::BasicProperties::default().with_type(kind.into());
        for (kind, body) in [(self.subject.kind, &b"{\"half\":"[..]), (self.subject.kind, b"[1]"), ("no.such", b"{}")] {
            self.vhost.publish(self.subject.queue, typed(kind), body).await?;
            self.take_dead("a message that cannot be read").await?;
        }
        self.search.pages("the worker", worker).await
    }

    /// Ends the worker, and searches all that it printed.
    pub async fn end(&mut self, worker: WorkerProcess) -> Result<()> {
        self.search.end(&self.subject.name(), worker, LIMIT).await
    }

    /// Searches what Sentry has, and gives the search away. Each message that had to fail was told there.
    pub fn finish(mut self) -> Result<LeakSearch> {
        self.search.reports(&self.sentry, self.dead)?;
        Ok(self.search)
    }

    /// The virtual host.
    pub fn vhost(&self) -> &Vhost {
        &self.vhost
    }

    /// Takes the next dead letter, and searches it. `what` is for failures.
    pub async fn take_dead(&mut self, what: &str) -> Result<()> {
        self.dead += 1;
        self.take(&self.subject.dead(), what).await
    }

    async fn send(&self, id: &str) -> Result<()> {
        let Subject { queue, kind, task, .. } = &self.subject;
        self.vhost.send(queue, kind, id, Some(REPLIES), task).await
    }

    /// Takes what a queue has as soon as it has something, and searches properties, headers and bodies.
    async fn take(&mut self, queue: &str, what: &str) -> Result<()> {
        let arrived = self.vhost.wait_for_counts(queue, LIMIT, |counts| counts.ready > 0).await;
        arrived.with_context(|| format!("waiting for {what}"))?;
        for delivery in self.vhost.take_all(queue).await? {
            self.search.text(&format!("{what} in {queue}"), format!("{:?}", delivery.properties));
            self.search.text(&format!("the body of {what} in {queue}"), &delivery.data);
        }
        Ok(())
    }
}

/// Fails unless the server was given the secret.
fn given(server: &str, http: &HttpServer, secret: &Canary) -> Result<()> {
    let requests = http.requests();
    let shown = requests.last().and_then(|request| request.header("authorization"));
    let found = shown.and_then(|shown| secret.found_in(shown));
    ensure!(found.is_some(), "{server} was not given {}", secret.name());
    Ok(())
}

/// What a worker prints until it ends with this code.
async fn ended(builder: WorkerProcessBuilder, code: i32) -> Result<Output> {
    let output = builder.output(LIMIT).await?;
    ensure!(output.status.code() == Some(code), "ended with {}, not with {code}: {output:?}", output.status);
    Ok(output)
}

//! A worker's binary as a process of its own.

mod builder;
mod metric;

use std::fs;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;

pub use self::builder::WorkerProcessBuilder;
use crate::guarded::Guarded;
use crate::limit::until;
use crate::probe::get;

/// A worker that runs, as an operator's would: started from its binary, looked at over HTTP, ended by signals.
///
/// It is killed when this value is dropped, and when the test process is gone, however that ended. Its output is
/// collected all the time, the first 16 MiB of each stream. Nothing of it lives on a tokio runtime.
#[derive(Debug)]
pub struct WorkerProcess {
    process: Guarded,
    /// `None` if it was given something else than an address.
    http: Option<SocketAddr>,
}

impl WorkerProcess {
    /// Begins a worker's command line and environment. `program` is the binary's path, as in
    /// `env!("CARGO_BIN_EXE_llm-worker")`.
    pub fn builder(program: impl Into<std::path::PathBuf>) -> WorkerProcessBuilder {
        WorkerProcessBuilder::new(program.into())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The port of metrics and health; 0 if `JM_HTTP__LISTEN` was given something that is no address.
    pub fn http_port(&self) -> u16 {
        self.http.map_or(0, |address| address.port())
    }

    /// Asks the worker for a path, such as `/metrics`. Returns status and body. Fails when it does not answer within
    /// 10 s.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        let address = self.http.ok_or_else(|| anyhow!("{} has no address for HTTP", self.process.name()))?;
        get(address, path).await
    }

    /// Whether it says that it works (`/health/live`). False too when it does not answer.
    pub async fn live(&self) -> bool {
        matches!(self.get("/health/live").await, Ok((200, _)))
    }

    /// Whether it says that all its consumers are registered (`/health/ready`). False too when it does not answer.
    pub async fn ready(&self) -> bool {
        matches!(self.get("/health/ready").await, Ok((200, _)))
    }

    /// Returns once it is [`WorkerProcess::ready`]. Fails after `limit`, and at once when the process has ended.
    pub async fn wait_ready(&self, limit: Duration) -> Result<()> {
        self.wait_until("/health/ready", 200, limit).await.map(drop)
    }

    /// Returns the body once `path` is answered with `status`. Fails after `limit`, and at once when the process has
    /// ended.
    pub async fn wait_until(&self, path: &str, status: u16, limit: Duration) -> Result<String> {
        self.look(limit, format!("a {status} of {path}"), async || {
            let (seen, body) = self.get(path).await?;
            if seen == status { Ok(body) } else { Err(anyhow!("{seen} {}", body.trim_end())) }
        })
        .await
    }

    /// What it says of itself to Prometheus (`/metrics`). Fails when it does not answer 200.
    pub async fn metrics(&self) -> Result<String> {
        match self.get("/metrics").await? {
            (200, text) => Ok(text),
            (status, _) => bail!("{} answered {status} to /metrics", self.process.name()),
        }
    }

    /// The sum of the samples of that name whose labels include the given ones; `None` if there is none. A histogram's
    /// samples are named as Prometheus prints them, such as `…_count` and `…_bucket`. Fails as
    /// [`WorkerProcess::metrics`] does.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<Option<f64>> {
        Ok(metric::sum(&self.metrics().await?, name, labels))
    }

    /// Returns the value of [`WorkerProcess::metric`] once it is `at_least` that. Fails after `limit`, and at once
    /// when the process has ended.
    pub async fn wait_for_metric(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        at_least: f64,
        limit: Duration,
    ) -> Result<f64> {
        self.look(limit, format!("{name} {labels:?} of at least {at_least}"), async || {
            match self.metric(name, labels).await? {
                Some(value) if value >= at_least => Ok(value),
                other => Err(anyhow!("{other:?}")),
            }
        })
        .await
    }

    /// What it has printed to stdout.
    pub fn stdout(&self) -> String {
        self.process.stdout()
    }

    /// What it has printed to stderr.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Returns the first line, of stdout or stderr, with `text` in it, be it printed already or later. Fails after
    /// `limit`, and at once when the process has closed its output.
    pub async fn wait_for_log(&self, text: &str, limit: Duration) -> Result<String> {
        self.process.line_with(text, limit).await
    }

    /// Asks it to end (SIGTERM), as an orchestrator does. Fails if it has ended.
    pub fn terminate(&self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)
    }

    /// Asks it to end (SIGINT), as Ctrl-C does. Fails if it has ended.
    pub fn interrupt(&self) -> Result<()> {
        self.process.signal(Signal::SIGINT)
    }

    /// Kills it (SIGKILL). Fails if it has ended.
    pub fn kill(&self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.process.status()
    }

    /// Returns how it ended, once it has and its output is complete. Fails after `limit`; it goes on then.
    pub async fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        self.process.wait(limit).await
    }

    /// The memory it has in use (resident set), in KiB.
    pub fn resident_kib(&self) -> Result<u64> {
        self.kib_of("VmRSS:")
    }

    /// The most memory it ever had in use, in KiB.
    pub fn peak_kib(&self) -> Result<u64> {
        self.kib_of("VmHWM:")
    }

    fn kib_of(&self, field: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let size = line.and_then(|line| line.trim().strip_suffix(" kB"));
        size.and_then(|size| size.parse().ok()).ok_or_else(|| anyhow!("{path} tells no {field} the process has ended"))
    }

    /// Looks again and again: there is no signal to wait for across processes.
    async fn look<T>(&self, limit: Duration, what: String, attempt: impl AsyncFn() -> Result<T>) -> Result<T> {
        let what = format!("{what} from {}", self.process.name());
        let attempt = &attempt;
        let seen = until(limit, &what, || async move {
            let seen = attempt().await.map_err(|error| format!("{error:#}"));
            match (seen, self.process.status()) {
                (Err(seen), Some(status)) => bail!("{} has ended ({status}): {seen}", self.process.name()),
                (seen, _) => Ok(seen),
            }
        });
        seen.await.with_context(|| self.process.digest())
    }
}

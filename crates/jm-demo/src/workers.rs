//! The five workers as processes.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use jm_tasks::queue;
use jm_testkit::{Vhost, WorkerProcess};

use crate::engines::Engines;

/// Loading a model takes seconds, more on a machine that has other things to do.
const READY_LIMIT: Duration = Duration::from_mins(3);

/// What a worker may take to hand back its work, after SIGTERM.
const DRAIN: Duration = Duration::from_secs(5);

/// A worker that has not ended by then is killed.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Lines of a worker's log that an error shows.
const SHOWN_LINES: usize = 8;

/// What a worker says that should have an embedded engine and has none.
const NO_ENGINES: &str = "without the feature `embedded`";

/// Longer lines of a log are cut.
const SHOWN_CHARS: usize = 400;

/// Which worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `record-event-worker`.
    RecordEvent,
    /// `sd-worker`.
    Sd,
    /// `asr-worker`.
    Asr,
    /// `embed-worker`.
    Embed,
    /// `llm-worker`.
    Llm,
}

impl Kind {
    /// All of them, in the order in which a recording meets them.
    pub const ALL: [Self; 5] = [Self::RecordEvent, Self::Sd, Self::Asr, Self::Embed, Self::Llm];

    /// The binary's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::RecordEvent => "record-event-worker",
            Self::Sd => "sd-worker",
            Self::Asr => "asr-worker",
            Self::Embed => "embed-worker",
            Self::Llm => "llm-worker",
        }
    }

    /// The queue it consumes.
    pub fn queue(self) -> &'static str {
        match self {
            Self::RecordEvent => queue::RECORD_EVENTS,
            Self::Sd => queue::SD,
            Self::Asr => queue::ASR,
            Self::Embed => queue::EMBED,
            Self::Llm => queue::LLM,
        }
    }

    pub(crate) fn has_engine(self) -> bool {
        self != Self::RecordEvent
    }

    fn reads_recordings(self) -> bool {
        matches!(self, Self::Sd | Self::Asr)
    }
}

/// The folder with the five binaries.
#[derive(Clone, Debug)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// In this folder, or beside this program.
    ///
    /// # Errors
    ///
    /// The first binary that is missing, with the command that builds it.
    pub fn find(folder: Option<&Path>) -> Result<Self> {
        let program = env::current_exe().context("could not find out where this program is")?;
        let beside = || program.parent().map(Path::to_owned).ok_or_else(|| anyhow!("this program is in no folder"));
        let folder = folder.map_or_else(beside, |folder| Ok(folder.to_owned()))?;
        // The workers run in another folder.
        let folder = fs::canonicalize(&folder).with_context(|| format!("no folder {}", folder.display()))?;
        for kind in Kind::ALL {
            let path = folder.join(kind.name());
            if !path.is_file() {
                bail!(
                    "there is no {}; `make demo` builds the workers first, as does `cargo build --workspace --all-features`",
                    path.display()
                );
            }
        }
        Ok(Self { folder })
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, kind: Kind) -> PathBuf {
        self.folder.join(kind.name())
    }
}

/// What all workers are told.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) binaries: Binaries,
    pub(crate) engines: Engines,
    pub(crate) vhost: Vhost,
    pub(crate) database: PathBuf,
    pub(crate) audio: PathBuf,
    /// Where they run, and find no configuration.
    pub(crate) folder: PathBuf,
    /// Where their logs are kept, if they are.
    pub(crate) logs: Option<PathBuf>,
}

/// A worker that runs.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) kind: Kind,
    process: WorkerProcess,
}

impl Worker {
    /// Starts it, with its metrics at `port` or another one that is free.
    pub(crate) async fn start(kind: Kind, setting: &Setting, port: Option<u16>) -> Result<Self> {
        let mut builder = WorkerProcess::builder(setting.binaries.path(kind))
            .vhost(&setting.vhost)
            .folder(&setting.folder)
            .env("JM_LOG__FORMAT", "text")
            .env("JM_CONSUMER__DRAIN_TIMEOUT", format!("{}s", DRAIN.as_secs()));
        for (name, value) in setting.engines.environment(kind) {
            builder = builder.env(name, value);
        }
        if kind.reads_recordings() {
            builder = builder.env("JM_AUDIO__FOLDER", &setting.audio);
        }
        if kind == Kind::RecordEvent {
            builder = builder.env("JM_DATABASE__URL", database_url(&setting.database)?);
        }
        if let Some(logs) = &setting.logs {
            builder = builder.log_file(logs.join(format!("{}.log", kind.name())));
        }
        if let Some(port) = port.filter(|&port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            builder = builder.env("JM_HTTP__LISTEN", SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string());
        }
        Ok(Self { kind, process: builder.start().await? })
    }

    /// Returns once it consumes. A worker that ends instead is an error with the end of its log.
    pub(crate) async fn ready(&self) -> Result<()> {
        if let Err(error) = self.process.wait_ready(READY_LIMIT).await {
            self.check()?;
            return Err(error).with_context(|| format!("{} is not ready", self.kind.name()));
        }
        Ok(())
    }

    /// Fails if it has ended.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(status) = self.process.ended() else { return Ok(()) };
        let (name, lines) = (self.kind.name(), self.last_lines());
        if lines.contains(NO_ENGINES) {
            bail!("{name} was built without embedded engines; `make demo` builds it with them");
        }
        bail!("{name} has ended ({status}):\n{lines}")
    }

    /// The port of its metrics and health.
    pub(crate) fn port(&self) -> u16 {
        self.process.http_port()
    }

    /// Asks it to end; see [`Worker::ended`].
    pub(crate) fn terminate(&self) {
        // One that has ended already needs no signal.
        let _ = self.process.terminate();
    }

    /// Waits until it has drained.
    pub(crate) async fn ended(&self) -> Result<()> {
        let status = self.process.wait(STOP_LIMIT).await?;
        if !status.success() {
            bail!("{} did not drain, but ended with {status}:\n{}", self.kind.name(), self.last_lines());
        }
        Ok(())
    }

    fn last_lines(&self) -> String {
        let (stdout, stderr) = (self.process.stdout(), self.process.stderr());
        let lines: Vec<&str> = stdout.lines().chain(stderr.lines()).filter(|line| !line.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        let cut = |line: &&str| format!("  {}", line.chars().take(SHOWN_CHARS).collect::<String>());
        last.iter().map(cut).collect::<Vec<_>>().join("\n")
    }
}

/// As the workers take it, with everything escaped.
pub(crate) fn database_url(file: &Path) -> Result<String> {
    let url = url::Url::from_file_path(file).map_err(|()| anyhow!("no absolute path: {}", file.display()))?;
    Ok(format!("sqlite://{}", url.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_is_named_with_the_command_that_builds_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = Binaries::find(Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains("record-event-worker; `make demo` builds"), "{error}");
    }

    #[test]
    fn a_databases_address_is_escaped() {
        assert_eq!(database_url(Path::new("/a b/records.db")).unwrap(), "sqlite:///a%20b/records.db");
    }
}

//! How a worker is started.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result};

use super::WorkerProcess;
use crate::guarded::{self, Guarded};
use crate::ports::free_ports;
use crate::vhost::Vhost;

/// The variable that says where a worker serves metrics and health.
const LISTEN: &str = "JM_HTTP__LISTEN";

/// Command line and environment of a worker. Its environment has nothing but `PATH` and what is set here.
#[must_use]
pub struct WorkerProcessBuilder {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    folder: Option<PathBuf>,
    log: Option<PathBuf>,
}

impl WorkerProcessBuilder {
    pub(super) fn new(program: PathBuf) -> Self {
        Self { program, arguments: Vec::new(), environment: BTreeMap::new(), folder: None, log: None }
    }

    /// Has it work on this virtual host: sets `JM_RABBITMQ__` `HOST`, `PORT`, `NAME`, `PASSWORD` and `VHOST`. A later
    /// [`WorkerProcessBuilder::env`] replaces one of them, such as the port by a [`crate::TcpProxy`]'s.
    pub fn vhost(self, vhost: &Vhost) -> Self {
        self.env("JM_RABBITMQ__HOST", "127.0.0.1")
            .env("JM_RABBITMQ__PORT", vhost.port.to_string())
            .env("JM_RABBITMQ__NAME", &vhost.user)
            .env("JM_RABBITMQ__PASSWORD", &vhost.password)
            .env("JM_RABBITMQ__VHOST", &vhost.name)
    }

    /// Sets a variable of the environment. `JM_HTTP__LISTEN` is a free port of 127.0.0.1 unless it is set here.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// The working directory; that of the test unless set.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Appends what it prints to this file too.
    pub fn log_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.log = Some(file.into());
        self
    }

    /// Starts the worker and returns at once; see [`WorkerProcess::wait_ready`].
    #[expect(clippy::unused_async, reason = "as the test kit's other starts; it may have to wait one day")]
    pub async fn start(mut self) -> Result<WorkerProcess> {
        if !self.environment.contains_key(OsStr::new(LISTEN)) {
            let port = free_ports(1)?.into_iter().next().context("no free port")?;
            self = self.env(LISTEN, SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string());
        }
        let listen = self.environment.get(OsStr::new(LISTEN));
        let http = listen.and_then(|address| address.to_str()).and_then(|address| address.parse().ok());
        let mut command = guarded::command(&self.program)?;
        command.args(&self.arguments).envs(&self.environment);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let name = self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned();
        let open = |path: &PathBuf| OpenOptions::new().create(true).append(true).open(path);
        let log =
            self.log.as_ref().map(|path| open(path).with_context(|| format!("could not open {}", path.display())));
        let process = Guarded::start_with_log(command, name, log.transpose()?.as_ref())?;
        Ok(WorkerProcess { process, http })
    }

    /// Starts the worker and waits for its end, as for `--help`. After `limit` it is killed and this fails.
    pub async fn output(self, limit: Duration) -> Result<Output> {
        let worker = self.start().await?;
        let status = worker.wait(limit).await?;
        let (stdout, stderr) = worker.process.printed();
        Ok(Output { status, stdout, stderr })
    }
}

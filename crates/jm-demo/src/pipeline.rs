//! A private broker, the five workers, and the folders they work in.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures_util::future::{join_all, try_join_all};
use jm_testkit::RabbitNode;
use serde::{Deserialize, Serialize};

use crate::{
    engines::{CONSUMER_TIMEOUT, Engines},
    state::StateFolder,
    workers::{Binaries, Kind, Setting, Worker},
};

/// The virtual host, and its user.
const VHOST: &str = "demo";

/// What is needed to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The engines.
    pub engines: Engines,
    /// The workers' binaries.
    pub binaries: Binaries,
    /// Where everything is kept; `None`: in a folder that goes with the broker.
    pub kept: Option<StateFolder>,
    /// The addresses that there were before, to be the same again where that is possible.
    pub before: Option<Access>,
}

/// How one gets at a pipeline that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The broker's address, with user, password and virtual host.
    pub amqp: String,
    /// The broker's port.
    pub port: u16,
    /// The password of the broker's user.
    pub password: String,
    /// The file with the records.
    pub database: PathBuf,
    /// The folder with the recordings.
    pub audio: PathBuf,
    /// Each worker's name, and the port of its metrics and health.
    pub workers: Vec<(String, u16)>,
}

/// A step that has been taken, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is there now.
    pub what: String,
    /// How long it took.
    pub took: Duration,
}

/// A pipeline that runs. Dropped, it is gone: broker, workers, and what is not kept.
#[derive(Debug)]
pub struct Pipeline {
    // In this order they are dropped: no worker outlives its broker.
    workers: Vec<Worker>,
    node: RabbitNode,
    setting: Setting,
}

impl Pipeline {
    /// Starts broker and workers, and returns once all of them work. `told` hears of each step.
    ///
    /// # Errors
    ///
    /// What is missing, or did not start, with what to do about it.
    pub async fn start(plan: Plan, told: &mut (impl FnMut(Step) + Send)) -> Result<Self> {
        plan.engines.check()?;
        let begun = Instant::now();
        let consumer_timeout = CONSUMER_TIMEOUT.as_millis();
        let mut builder =
            RabbitNode::builder().advanced_config(format!("[{{rabbit, [{{consumer_timeout, {consumer_timeout}}}]}}]."));
        if let Some(port) = plan.before.as_ref().map(|before| before.port) {
            builder = builder.port(port);
        }
        if let Some(kept) = &plan.kept {
            builder = builder.data_folder(kept.broker()?);
        }
        let node = builder
            .start()
            .await
            .context("the broker does not start; `scripts/install-system-packages` installs it")?;
        let password = plan.before.as_ref().map_or_else(fresh_password, |before| Ok(before.password.clone()))?;
        let vhost = node.kept_vhost(VHOST, VHOST, &password).await?;
        told(Step { what: format!("RabbitMQ on 127.0.0.1:{}", node.port()), took: begun.elapsed() });

        let temporary = node.folder().join("demo");
        let folder = plan.kept.as_ref().map_or(temporary.as_path(), StateFolder::path);
        let setting = Setting {
            binaries: plan.binaries,
            engines: plan.engines,
            vhost,
            database: folder.join("records.db"),
            audio: made(&folder.join("audio"))?,
            folder: made(&folder.join("work"))?,
            logs: plan.kept.as_ref().map(StateFolder::logs).transpose()?,
        };
        let begun = Instant::now();
        let port = |kind: Kind| plan.before.as_ref().and_then(|before| before.port_of(kind));
        let workers = try_join_all(Kind::ALL.map(|kind| Worker::start(kind, &setting, port(kind)))).await?;
        let pipeline = Self { workers, node, setting };
        try_join_all(pipeline.workers.iter().map(Worker::ready)).await?;
        told(Step { what: "the five workers".to_owned(), took: begun.elapsed() });
        Ok(pipeline)
    }

    /// How one gets at it.
    pub fn access(&self) -> Access {
        let vhost = &self.setting.vhost;
        Access {
            amqp: vhost.uri(),
            port: vhost.port,
            password: vhost.password.clone(),
            database: self.setting.database.clone(),
            audio: self.setting.audio.clone(),
            workers: self.workers.iter().map(|worker| (worker.kind.name().to_owned(), worker.port())).collect(),
        }
    }

    /// The folder that goes with the broker.
    pub fn temporary_folder(&self) -> PathBuf {
        self.node.folder()
    }

    /// Fails if a worker, or the broker, has ended.
    ///
    /// # Errors
    ///
    /// Which one, and the end of its log.
    pub fn check(&self) -> Result<()> {
        self.node.pid().context("the broker has ended")?;
        self.workers.iter().try_for_each(Worker::check)
    }

    /// Starts again what has ended: an orchestrator's part. Says what that was.
    ///
    /// # Errors
    ///
    /// When it does not start either.
    pub async fn mend(&mut self) -> Result<Vec<String>> {
        let mut ended = Vec::new();
        if self.node.pid().is_none() {
            ended.push("the broker has ended; it is started again".to_owned());
            self.node.restart().await?;
        }
        for worker in &mut self.workers {
            let Err(error) = worker.check() else { continue };
            ended.push(format!("{error:#}"));
            *worker = Worker::start(worker.kind, &self.setting, Some(worker.port())).await?;
        }
        Ok(ended)
    }

    /// Has the workers drain, and the broker stop. What did not end as it should is an error; it is gone all the same.
    ///
    /// # Errors
    ///
    /// The first that had to be killed, or ended otherwise than after a drain.
    pub async fn stop(self) -> Result<()> {
        for worker in &self.workers {
            worker.terminate();
        }
        let drained: Result<Vec<()>> = join_all(self.workers.iter().map(Worker::ended)).await.into_iter().collect();
        let stopped = self.node.stop().await;
        drained.map(drop).and(stopped)
    }
}

impl Access {
    fn port_of(&self, kind: Kind) -> Option<u16> {
        self.workers.iter().find(|(name, _)| name == kind.name()).map(|&(_, port)| port)
    }
}

/// Only this user's processes are to reach the broker, and others may be on the machine.
fn fresh_password() -> Result<String> {
    let mut bytes = [0; 12];
    let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    read.context("could not draw a password from /dev/urandom")?;
    Ok(format!("{:024x}", bytes.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte))))
}

fn made(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    Ok(folder.to_owned())
}

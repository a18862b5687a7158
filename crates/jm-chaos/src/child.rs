//! The processes of a campaign: this program again, with a job in its environment.

mod deviant;
mod publisher;
mod worker;

use std::{
    env,
    io::BufRead,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use jm_mq_core::{Broker, BrokerOptions, HostOptions, Port, shutdown_signal};
use serde::{Deserialize, Serialize};
use tokio::{
    process::{Child, Command},
    sync::watch,
};

pub use self::deviant::Deviation;
use crate::{
    cast::Part,
    history::{Log, What},
    message::Queue,
};

const JOB: &str = "JM_CHAOS_JOB";

/// A heartbeat of 5 s where the core's default is 10 s: a campaign of some minutes is to see silent peers end.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The end of a child whose campaign is gone.
const ORPHANED: i32 = 70;

/// What a process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its number, another for each process.
    pub process: u32,
    /// Its place.
    pub slot: u8,
    /// What is done there.
    pub part: PartName,
    /// The campaign's seed.
    pub seed: u64,
    /// Ports on 127.0.0.1, one for each node.
    pub ports: Vec<u16>,
    /// The user.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// The virtual host.
    pub vhost: String,
    /// Where to record.
    pub history: PathBuf,
    /// Whether exchanges and queues exist and are not to be declared: quorum queues.
    pub declared: bool,
    /// Whether its worker has `nack_requeue`, whatever its queue.
    pub requeue: bool,
    /// While this file is there, what the handlers depend on is away.
    pub outage: PathBuf,
    /// Messages a second of all publishers together.
    pub rate: u32,
    /// What it is to do wrong, in the checker's own tests.
    pub deviation: Option<Deviation>,
}

/// A [`Part`] as it goes to a process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PartName {
    /// Whether it publishes.
    pub publishes: bool,
    /// For which queue.
    pub queue: Queue,
    /// See [`Part::size`].
    pub size: u32,
    /// See [`Part::prefetch`].
    pub prefetch: u16,
}

impl From<Part> for PartName {
    fn from(part: Part) -> Self {
        let publishes = part.role == crate::history::Role::Publisher;
        Self { publishes, queue: part.queue, size: part.size, prefetch: part.prefetch }
    }
}

/// What the campaign tells a publisher while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as its share of the rate.
    Full,
    /// A twentieth of it, since the workers are behind.
    Slow,
    /// Nothing at all.
    Held,
}

impl Pace {
    /// The line by which a publisher is told.
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "full\n",
            Self::Slow => "slow\n",
            Self::Held => "held\n",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Full, Self::Slow, Self::Held].into_iter().find(|pace| pace.word().trim() == word.trim())
    }
}

/// What a publisher says once it stands still: all that it has begun has an end.
pub(crate) const STANDING: &str = "standing";

/// Does the job of this process, if it has one.
pub fn run() -> Option<Result<ExitCode>> {
    let job = env::var(JOB).ok()?;
    Some(run_job(&job))
}

fn run_job(job: &str) -> Result<ExitCode> {
    let job: Job = serde_json::from_str(job).with_context(|| format!("{JOB} is no job"))?;
    tracing_subscriber::fmt()
        .with_env_filter("jm_mq_core=warn,jm_mq_core::consumer::worker=error")
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    // A panic is one of the campaign's faults and told by the core; its own report would be noise.
    std::panic::set_hook(Box::new(|_| {}));
    let log = Arc::new(Log::immediate(&job.history).with_context(|| format!("{}", job.history.display()))?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (told, pace) = watch::channel(Pace::Full);
    std::thread::Builder::new().name("commands".to_owned()).spawn(move || listen(&told))?;
    runtime.block_on(async {
        // Before anything else: whoever is told to stop before this has nothing in hand.
        let shutdown = shutdown_signal()?;
        log.add(What::Attentive { process: job.process });
        match job.deviation {
            Some(deviation) => deviant::run(&job, deviation, log, shutdown).await,
            None if job.part.publishes => publisher::run(&job, log, pace, shutdown).await,
            None => worker::run(&job, log, shutdown).await,
        }
    })?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

/// Reads the campaign's words. Their end is the campaign's, and this process's too.
fn listen(told: &watch::Sender<Pace>) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        if let Some(pace) = Pace::of(&line) {
            told.send_replace(pace);
        }
    }
    std::process::exit(ORPHANED);
}

/// Starts a process, which is this program or one that does the same. It is killed when the value is dropped.
pub(crate) fn spawn(program: &Path, job: &Job, errors: std::fs::File) -> Result<Child> {
    Command::new(program)
        .env(JOB, serde_json::to_string(job)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(errors)
        // Ctrl-C is for the campaign alone, which ends its processes itself.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("could not start process {} of the campaign", job.process))
}

fn broker(job: &Job) -> Result<Broker> {
    let mut ports = job.ports.iter().map(|&port| Port(port));
    let options = BrokerOptions {
        port: ports.next(),
        hosts: ports.map(|port| HostOptions { host: "127.0.0.1".into(), port: Some(port) }).collect(),
        name: job.user.clone(),
        password: job.password.clone().into(),
        vhost: job.vhost.clone(),
        heartbeat: HEARTBEAT,
        app_id: format!("chaos-{}", job.slot),
        ..BrokerOptions::default()
    };
    Ok(Broker::new(options)?)
}

//! A worker's process from its start to its end.

use std::{error::Error as StdError, fmt, io, process::ExitCode, time::Duration};

use jm_mq_core::{
    Broker, Consumer, ConsumerState, ErrorKinds, OptionsError, Publisher, Router, Topology, shutdown_signal,
};
use tokio::task::JoinSet;

use crate::{
    command_line::CommandLine,
    config::{Common, Configuration, Problem, Settings},
    exit,
    http::{self, Pages, health::Health},
    logging::{self, Logs},
    reporting::Reports,
    worker::Worker,
};

/// What a worker's own part gets when it starts.
pub struct Service<S> {
    settings: S,
    health: Health,
}

/// Why a worker cannot start. Any error becomes one through `?`.
pub struct StartError(Box<dyn StdError + Send + Sync>);

// Not an error itself, so that `?` can take every error that is.
impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for StartError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl StartError {
    fn is_of_options(&self) -> bool {
        self.0.is::<OptionsError>()
    }
}

impl fmt::Display for StartError {
    /// The error with its causes, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What was built, as the build's environment says: the Dockerfile's `--build-arg REVISION`.
const REVISION: &str = match option_env!("JM_REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => "unknown",
};
/// The longest wait between two attempts at something the start needs.
const MAX_START_WAIT: Duration = Duration::from_secs(10);

impl<S> Service<S> {
    /// The worker's own settings.
    pub fn settings(&self) -> &S {
        &self.settings
    }

    /// Repeats `attempt` until it succeeds: for what the worker needs before it can consume and what may be away for
    /// a while, such as a database. Meanwhile the process is alive, and not ready.
    pub async fn wait_for<T, E: Into<StartError>>(
        &self,
        what: &str,
        mut attempt: impl AsyncFnMut() -> Result<T, E>,
    ) -> T {
        let mut wait = Duration::from_millis(100);
        let mut reported = ErrorKinds::default();
        loop {
            let error = match attempt().await {
                Ok(value) => return value,
                Err(error) => error.into().to_string(),
            };
            self.health.waits_for(format!("waiting for {what}: {error}"));
            if reported.is_new(&error) {
                tracing::warn!(what, error, "not there yet; trying again");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MAX_START_WAIT);
        }
    }
}

/// A worker's `main`: everything but its handlers, which `build` registers.
///
/// Reads the command line and the configuration, sets up logs, error reports, metrics and the HTTP endpoints, calls
/// `build`, consumes until SIGTERM or SIGINT, and drains. The [`exit`] code tells how it ended. The process exits
/// within a second of the drain's end, whatever still runs.
pub fn run<S: Settings>(
    worker: &Worker,
    build: impl AsyncFnOnce(&Service<S>) -> Result<Router, StartError>,
) -> ExitCode {
    // Before anything else: as process 1 of its container it would miss a signal that comes earlier.
    let shutdown = shutdown_signal();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("{}: no runtime: {error}; allowed: a process that may start threads", worker.name));
            return exit::code(exit::FAILED);
        }
    };
    let code = runtime.block_on(run_until(worker, shutdown, build));
    // Dropping it waits for threads that cannot be interrupted: in a name lookup, or on a file system that hangs.
    runtime.shutdown_background();
    code
}

async fn run_until<S: Settings>(
    worker: &Worker,
    shutdown: io::Result<impl Future<Output = ()>>,
    build: impl AsyncFnOnce(&Service<S>) -> Result<Router, StartError>,
) -> ExitCode {
    let command_line = CommandLine::read(worker);
    let loaded = Configuration::<S>::load(worker, command_line.config.as_deref(), std::env::vars_os());
    if command_line.health {
        return match loaded {
            Ok(configuration) => health(&configuration).await,
            Err(problems) => misconfigured(worker, &problems),
        };
    }
    // The broker's options name files, which are read here: whether they can be is a matter of the configuration too.
    let loaded = loaded.and_then(|configuration| match Broker::new(configuration.common.rabbitmq.clone()) {
        Ok(broker) => Ok((configuration, broker)),
        Err(error) => Err(vec![Problem::of_option("rabbitmq", &error)]),
    });
    let (configuration, broker) = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => return misconfigured(worker, &problems),
    };
    if command_line.print_config {
        return say(configuration.printed());
    }
    if command_line.check_config {
        return say("the configuration is right\n");
    }
    // One TLS stack in the process; whoever has chosen a provider before us has chosen this one.
    _ = rustls::crypto::ring::default_provider().install_default();
    let reports = Reports::new(&configuration.common.sentry, worker);
    let logs = logging::install(&configuration.common.log, reports.clone());
    let code = match serve(worker, configuration, broker, &logs, shutdown, build).await {
        Ok(()) => exit::OK,
        Err(error) => {
            tracing::error!(error = error.to_string(), "{} ends with an error", worker.name);
            if error.is_of_options() { exit::CONFIGURATION } else { exit::FAILED }
        }
    };
    exit::within_limit(code);
    if let Some(reports) = reports {
        reports.flush().await;
    }
    exit::code(code)
}

async fn serve<S: Settings>(
    worker: &Worker,
    configuration: Configuration<S>,
    broker: Broker,
    logs: &Logs,
    shutdown: io::Result<impl Future<Output = ()>>,
    build: impl AsyncFnOnce(&Service<S>) -> Result<Router, StartError>,
) -> Result<(), StartError> {
    let Configuration { common, settings, .. } = configuration;
    let shutdown = shutdown?;
    tokio::pin!(shutdown);
    let health = Health::starting();
    let process = metrics_process::Collector::default();
    let metrics = http::metrics::install(&process)?;
    http::metrics::build_info(worker.name, worker.version, REVISION);
    let listener = http::bind(common.http.listen).await?;
    tracing::info!(
        worker = worker.name,
        version = worker.version,
        revision = REVISION,
        queue = common.topology.name(),
        http = listener.local_addr().map(|address| address.to_string()).unwrap_or_default(),
        "starting"
    );
    // In a set, so that they end with this future.
    let mut background = JoinSet::new();
    background.spawn(http::metrics::upkeep(metrics.clone()));
    let pages = Pages { metrics, process, health: health.clone(), dropped_logs: logs.dropped() };
    background.spawn(async move {
        http::serve(listener, pages).await;
    });

    let service = Service { settings, health: health.clone() };
    let router = tokio::select! {
        result = build(&service) => result?,
        () = &mut shutdown => return Ok(()),
    };
    let (consumer, publisher) = consumer(worker, common, &broker, router)?;
    let running = consumer.start();
    health.consuming(running.states());
    let mut states = running.states();
    tokio::select! {
        () = shutdown => {}
        // It never ends by itself, so this is a defect of ours: a new process is better than one that does nothing.
        _ = states.wait_for(|state| matches!(state, ConsumerState::Stopped)) => {
            return Err("the consumer has ended by itself".into());
        }
    }
    let drained = running.shutdown().await;
    publisher.close().await;
    tracing::info!(
        handed_back = drained.handed_back,
        cut_off = drained.cut_off,
        took = ?drained.took,
        "drained"
    );
    Ok(())
}

fn consumer(
    worker: &Worker,
    common: Common,
    broker: &Broker,
    router: Router,
) -> Result<(Consumer, Publisher), OptionsError> {
    let declare = common.topology.declare;
    let publisher = Publisher::new(broker, common.publisher)?;
    let mut consumer = Consumer::new(broker, &publisher, common.topology, common.consumer, router)?;
    for queue in worker.answers_to {
        consumer = consumer.answering_to(Topology { declare, ..Topology::work_queue(queue) })?;
    }
    Ok((consumer, publisher))
}

/// Another process of this worker is asked, so nothing is set up here.
async fn health<S>(configuration: &Configuration<S>) -> ExitCode {
    match http::probe::ready(configuration.common.http.listen).await {
        Ok(()) => say("ready\n"),
        Err(reason) => {
            complain(&reason);
            exit::code(exit::FAILED)
        }
    }
}

fn misconfigured(worker: &Worker, problems: &[Problem]) -> ExitCode {
    let lines: Vec<String> = problems.iter().map(|problem| format!("{}: {problem}", worker.name)).collect();
    complain(&lines.join("\n"));
    exit::code(exit::CONFIGURATION)
}

/// There are no logs before the configuration is read. A reader that has gone away is no failure of ours.
fn complain(lines: &str) {
    use std::io::Write as _;
    _ = writeln!(io::stderr(), "{lines}");
}

/// What was asked for on the command line. A reader that has gone away is no failure of ours.
fn say(text: &str) -> ExitCode {
    use std::io::Write as _;
    _ = io::stdout().write_all(text.as_bytes());
    exit::code(exit::OK)
}

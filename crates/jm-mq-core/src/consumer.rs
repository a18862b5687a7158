//! Consuming: what an application starts and stops.

mod backlog;
pub(crate) mod dead_letter;
mod flusher;
mod handoff;
mod kept;
pub(crate) mod queue;
pub(crate) mod returned;
mod returning;
mod room;
mod settle;
mod subscription;
mod supervisor;
mod unsettled;
mod worker;
mod writer;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::{flusher::Flusher, handoff::Handoff, kept::KeptResults, room::WorkRoom, supervisor::Supervisor};
use crate::{
    broker::{Broker, ConnectionPool, Role},
    error::{ConnectError, OptionsError},
    metrics::QueueMetrics,
    options::{ConsumerOptions, DeadLetter, check_name},
    publisher::Publisher,
    retry::RetryPolicy,
    router::Router,
    settlement::TimeBudget,
    topology::Topology,
};

/// A queue's workers, not yet started: the specification's `NewConsumer`.
pub struct Consumer {
    shared: Arc<Shared>,
    connections: ConnectionPool,
    /// Where the handlers' answers go.
    answering: Vec<Topology>,
    io: tokio::runtime::Handle,
}

/// What the parts of a consumer have in common.
struct Shared {
    /// The name for logs and metrics; also in each delivery's envelope.
    queue: Arc<str>,
    topology: Topology,
    options: ConsumerOptions,
    policy: RetryPolicy,
    budget: TimeBudget,
    router: Router,
    publisher: Publisher,
    dead_letter_queue: String,
    /// One for each worker.
    handoffs: Vec<Arc<Handoff>>,
    flusher: Arc<Flusher>,
    kept: KeptResults,
    room: WorkRoom,
    metrics: QueueMetrics,
    /// Application, host and process.
    instance: String,
    rpc_timeout: Duration,
}

impl Consumer {
    /// A consumer for one queue, on a connection of its own. Answers and dead letters go out by `publisher`.
    ///
    /// Nothing is dialled yet.
    ///
    /// # Errors
    ///
    /// The first option that cannot be used, with its value and what is allowed.
    pub fn new(
        broker: &Broker,
        publisher: &Publisher,
        topology: Topology,
        options: ConsumerOptions,
        router: Router,
    ) -> Result<Self, OptionsError> {
        options.validate()?;
        topology.validate()?;
        if topology.is_publish_only() {
            return Err(OptionsError::new(
                "queue",
                "empty",
                "a queue's name, since without one there is nothing to consume",
            ));
        }
        let router =
            options.type_aliases.iter().fold(router, |router, (name, registered)| router.alias(name, registered));
        router.validate()?;
        let dead_letter_queue =
            options.dead_letter_queue.clone().unwrap_or_else(|| format!("{}.dead", topology.name()));
        if options.dead_letter == DeadLetter::Queue {
            check_name("dead_letter_queue", &dead_letter_queue)?;
            if dead_letter_queue == topology.queue {
                return Err(OptionsError::new(
                    "dead_letter_queue",
                    format_args!("`{dead_letter_queue}`"),
                    "another queue than the consumed one",
                ));
            }
        }
        let metrics = QueueMetrics::new(topology.name(), router.types());
        let flusher = Arc::<Flusher>::default();
        let handoff = || Arc::new(Handoff::new(options.prefetch_per_worker, Arc::clone(&flusher)));
        let shared = Shared {
            queue: topology.name().into(),
            policy: RetryPolicy::new(&options),
            budget: TimeBudget::new(&options),
            handoffs: (0..options.concurrency).map(|_| handoff()).collect(),
            flusher: Arc::clone(&flusher),
            kept: KeptResults::new(metrics.kept_used.clone(), metrics.kept_evicted.clone()),
            room: WorkRoom::new(&options),
            instance: format!("{}@{}", broker.identity().app_id, broker.identity().instance),
            rpc_timeout: broker.options().rpc_timeout,
            publisher: publisher.clone(),
            topology,
            options,
            router,
            dead_letter_queue,
            metrics,
        };
        // Dead letters.
        publisher.expect("");
        let connections = ConnectionPool::new(broker, Role::Consumer, &shared.queue);
        Ok(Self { shared: Arc::new(shared), connections, answering: Vec::new(), io: broker.io_handle() })
    }

    /// Declares another topology with the consumer's own, each time it connects: where the handlers' answers go. An
    /// answer to an exchange that does not exist would be a failure of its task.
    ///
    /// # Errors
    ///
    /// The first field of `topology` that cannot be used.
    pub fn answering_to(mut self, topology: Topology) -> Result<Self, OptionsError> {
        topology.validate()?;
        self.shared.publisher.expect(&topology.exchange);
        self.answering.push(topology);
        Ok(self)
    }

    /// Starts consuming in the background: the specification's `Start`. It reconnects for as long as it runs.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(self) -> RunningConsumer {
        if let Some(warning) = TimeBudget::warning(&self.shared.options) {
            tracing::warn!(queue = &*self.shared.queue, "{warning}");
        }
        let stop = Stop::new(self.shared.options.drain_timeout);
        let (state, states) = watch::channel(ConsumerState::Connecting);
        let supervisor = Supervisor {
            shared: self.shared,
            connections: self.connections,
            answering: self.answering,
            stop: stop.clone(),
            state,
            io: self.io,
        };
        RunningConsumer { states, stop, task: tokio::spawn(supervisor.run()) }
    }

    /// Consumes until `shutdown` resolves, and then drains.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> DrainReport {
        let mut running = self.start();
        tokio::select! {
            () = shutdown => running.shutdown().await,
            // It never ends by itself, so this is a defect of ours, and passed on.
            ended = &mut running.task => report(ended),
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("topology", &self.shared.topology)
            .field("options", &self.shared.options)
            .field("router", &self.shared.router)
            .finish_non_exhaustive()
    }
}

/// Where a consumer stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConsumerState {
    /// Connecting, declaring, or registering its consumers, for the first time or after a connection that worked.
    Connecting,
    /// Every worker's consumer is registered with the broker. The only state in which it is ready.
    Ready,
    /// Waiting to try again after this error.
    Waiting {
        /// What went wrong; [`ConnectError::is_fatal`] tells whether somebody has to mend it.
        error: ConnectError,
    },
    /// Told to stop; finishing what runs.
    Draining,
    /// Nothing runs any more.
    Stopped,
}

/// What a drain came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// Deliveries given back to the queue because no worker had started them.
    pub handed_back: usize,
    /// Deliveries given back because their handler still ran at the drain's deadline.
    pub cut_off: usize,
    /// How long it took.
    pub took: Duration,
}

/// A consumer at work. Dropping it ends it at once, without a drain: the broker then gives its messages out again.
#[derive(Debug)]
pub struct RunningConsumer {
    states: watch::Receiver<ConsumerState>,
    stop: Stop,
    task: JoinHandle<DrainReport>,
}

impl RunningConsumer {
    /// Its states, from the present one on.
    pub fn states(&self) -> watch::Receiver<ConsumerState> {
        self.states.clone()
    }

    /// Whether every worker's consumer is registered at this moment: what a readiness probe asks.
    pub fn is_ready(&self) -> bool {
        matches!(*self.states.borrow(), ConsumerState::Ready)
    }

    /// Resolves once it is ready; at once if it is. Never, if it has been stopped before.
    pub async fn ready(&self) {
        let mut states = self.states.clone();
        if states.wait_for(|state| matches!(state, ConsumerState::Ready)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Drains: nothing new is started, deliveries not yet started go back, running handlers may finish within
    /// `drain_timeout`, and what still runs then goes back as well. Without a connection there is nothing to give back,
    /// since the broker has everything: it ends at once then.
    pub async fn shutdown(mut self) -> DrainReport {
        self.stop.request();
        report((&mut self.task).await)
    }
}

fn report(ended: Result<DrainReport, tokio::task::JoinError>) -> DrainReport {
    match ended.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(report) => report,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => unreachable!("only our own drop aborts the supervisor"),
    }
}

impl Drop for RunningConsumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The wish to stop, and until when that may take.
#[derive(Clone, Debug)]
struct Stop {
    token: CancellationToken,
    requested_at: Arc<OnceLock<Instant>>,
    drain_timeout: Duration,
}

impl Stop {
    fn new(drain_timeout: Duration) -> Self {
        Self { token: CancellationToken::new(), requested_at: Arc::default(), drain_timeout }
    }

    fn request(&self) {
        self.requested_at.get_or_init(Instant::now);
        self.token.cancel();
    }

    async fn requested(&self) {
        self.token.cancelled().await;
    }

    fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    fn requested_at(&self) -> Option<Instant> {
        self.requested_at.get().copied()
    }

    /// When running handlers are cut off.
    fn deadline(&self) -> Instant {
        self.requested_at().unwrap_or_else(Instant::now) + self.drain_timeout
    }
}

impl Shared {
    /// The broker's answer, or an error when it does not come.
    async fn within_rpc_timeout<T>(
        &self,
        doing: &'static str,
        answer: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        match tokio::time::timeout(self.rpc_timeout, answer).await {
            Ok(result) => result,
            Err(_) => {
                Err(ConnectError::Silent { hosts: "its present connection".into(), after: self.rpc_timeout, doing })
            }
        }
    }
}

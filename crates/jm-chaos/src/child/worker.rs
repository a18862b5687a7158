//! A process that consumes a queue through the core, as the services do, and records its handler's runs.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use jm_mq_core::{
    Answers, Consumer, ConsumerOptions, Context, Declare, Handler, HandlerError, Message, Outgoing, Publisher,
    PublisherOptions, Router, Topology,
};
use serde::Deserialize;

use super::Job;
use crate::{
    cast::{MAX_RETRY_ATTEMPTS, max_deliveries},
    history::{Log, Outcome, What},
    message::{Deed, Id, Queue, TASK},
};

/// The workers' limit of one run.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(1);
/// Longer than that.
const HANG: Duration = Duration::from_secs(30);
/// Of a slow handler, and of one that blocks its thread.
const SLOW: Duration = Duration::from_millis(20);
const BLOCK: Duration = Duration::from_millis(100);
/// Failed runs in a process until a message that can never be done is given up, where it would otherwise circle for ever.
const CIRCLING: u8 = 8;

#[derive(Deserialize)]
struct Task {
    id: u64,
}

struct Doer {
    process: u32,
    seed: u64,
    log: Arc<Log>,
    /// Runs of messages that fail for some time. Bounded by the messages that are meant to.
    runs: Mutex<HashMap<Id, u8>>,
    /// Whether what fails each time would circle for ever.
    requeue: bool,
    outage: PathBuf,
}

pub(super) async fn run(job: &Job, log: Arc<Log>, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let broker = super::broker(job)?;
    let publisher = Publisher::new(&broker, PublisherOptions::default())?;
    let queue = job.part.queue;
    let options = ConsumerOptions {
        concurrency: usize::try_from(job.part.size)?,
        prefetch_per_worker: job.part.prefetch,
        max_retry_attempts: MAX_RETRY_ATTEMPTS,
        retry_base_delay: Duration::from_millis(20),
        retry_max_delay: Duration::from_millis(100),
        nack_requeue: job.requeue || queue == Queue::Again,
        handler_timeout: HANDLER_TIMEOUT,
        // As the default, but for a campaign in which permissions are gone for some seconds and not for hours.
        refused_delay: Duration::from_secs(2),
        drain_timeout: Duration::from_secs(8),
        max_deliveries: max_deliveries(queue),
        ..ConsumerOptions::default()
    };
    let topology = |queue: Queue| {
        let declare = if job.declared { Declare::Check } else { Declare::Create };
        Topology { declare, ..Topology::work_queue(queue.name()) }
    };
    let own = if queue == Queue::Poison && !job.declared {
        // A quorum queue, which only operators declare.
        Topology { declare: Declare::Check, ..Topology::work_queue(queue.name()) }
    } else {
        topology(queue)
    };
    let (runs, outage) = (Mutex::default(), job.outage.clone());
    let doer = Doer { process: job.process, seed: job.seed, log, runs, requeue: job.requeue, outage };
    let router = Router::new().on_type(TASK, doer);
    let consumer = Consumer::new(&broker, &publisher, own, options, router)?.answering_to(topology(Queue::Done))?;
    consumer.run_until(shutdown).await;
    publisher.close().await;
    Ok(())
}

impl Handler<Task> for Doer {
    async fn handle(&self, task: Task, context: &Context) -> Result<Answers, HandlerError> {
        let id = context.message_id().map_or(Id::FOREIGN, Id::parse);
        let attempt = context.attempt();
        self.log.add(What::RunBegan { process: self.process, id, attempt });
        let mut run = Run { doer: self, id, outcome: Outcome::Dropped };
        let result = if task.id == id.get() { self.act(id, attempt, &mut run).await } else { Ok(()) };
        run.outcome = match &result {
            Ok(()) => Outcome::Done,
            Err(error) if error.is_permanent() => Outcome::Permanent,
            Err(_) => Outcome::Retryable,
        };
        drop(run);
        result.map(|()| self.answers(id))
    }
}

impl Doer {
    /// What the message wants done.
    async fn act(&self, id: Id, attempt: u32, run: &mut Run<'_>) -> Result<(), HandlerError> {
        let deed = Deed::of(self.seed, id);
        let always = matches!(deed, Deed::AlwaysFail | Deed::AlwaysPanic | Deed::AlwaysHang);
        if deed == Deed::Permanent || always && self.requeue && !self.fails(id, CIRCLING) {
            return Err(HandlerError::permanent("cannot succeed"));
        }
        if self.outage.exists() {
            return Err(HandlerError::retryable("what it depends on is away"));
        }
        match deed {
            Deed::Slow => tokio::time::sleep(SLOW).await,
            Deed::Block => std::thread::sleep(BLOCK),
            Deed::Fail(times) if self.fails(id, times) => return Err(HandlerError::retryable("fails for some time")),
            Deed::AlwaysFail => return Err(HandlerError::retryable("fails each time")),
            Deed::Panic if attempt == 1 => panic(run),
            Deed::AlwaysPanic => panic(run),
            Deed::Hang if attempt == 1 => tokio::time::sleep(HANG).await,
            Deed::AlwaysHang => tokio::time::sleep(HANG).await,
            Deed::Abort => {
                self.log.add(What::RunEnded { process: self.process, id, outcome: Outcome::Abort });
                std::process::abort();
            }
            Deed::Answer
            | Deed::Fail(_)
            | Deed::Permanent
            | Deed::Panic
            | Deed::Hang
            | Deed::Undecodable
            | Deed::UnknownType => {}
        }
        Ok(())
    }

    /// Counted in the process: the runs of one delivery may not be enough, and those of the next then are.
    fn fails(&self, id: Id, times: u8) -> bool {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let count = runs.entry(id).or_default();
        *count = count.saturating_add(1);
        *count <= times
    }

    fn answers(&self, id: Id) -> Answers {
        if id.is_answer() {
            return Answers::none();
        }
        let answer = id.answer();
        let message = Message::new(TASK, crate::message::body(self.seed, answer)).message_id(&answer.to_string());
        Outgoing::new(Queue::Done.name(), Queue::Done.name(), message).into()
    }
}

/// A run that is recorded as ended when it ends, in whichever way.
struct Run<'a> {
    doer: &'a Doer,
    id: Id,
    outcome: Outcome,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let Self { doer, id, outcome } = *self;
        doer.log.add(What::RunEnded { process: doer.process, id, outcome });
    }
}

fn panic(run: &mut Run<'_>) -> ! {
    run.outcome = Outcome::Panic;
    std::panic::panic_any("a panic of the campaign's");
}

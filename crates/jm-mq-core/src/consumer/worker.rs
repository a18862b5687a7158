//! A worker: one delivery at a time, from the handoff to its conclusion; `settle` makes that so.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt;

use super::{Shared, handoff::Handoff, kept::KeptResult, room::Reserved};
use crate::{
    context::{CancelWhenDropped, Cancellation, Context},
    envelope::{Past, Work},
    handler::{Answers, Retry},
    metrics::TypeMetrics,
    retry::{self, RunFailure, Runs},
    router::{Route, unknown_type},
    settlement::{Conclusion, Failure, FailureKind, Settlement, decide},
};

/// One of the consumer's `concurrency` workers. It outlives connections.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) handoff: Arc<Handoff>,
    /// The process and the worker's number in it, for dead letters.
    pub(super) name: String,
}

impl Worker {
    /// Works until the consumer drains.
    pub(super) async fn run(self) {
        while let Some(work) = self.handoff.next().await {
            let _counted = self.shared.metrics.begin_work();
            let begun = Instant::now();
            // Handlers' panics are caught where they run. One of our own must not take the group along, again and again.
            if let Err(panic) = AssertUnwindSafe(self.handle(work)).catch_unwind().await {
                let panic = retry::panic_text(panic.as_ref());
                tracing::error!(queue = &*self.shared.queue, panic, "the worker itself failed; the message goes back");
                self.handoff.abandon();
            }
            // The channel's task may be waiting for this very thread: behind a handler that blocks it, or many quick ones.
            if begun.elapsed() > SLOW {
                tokio::task::yield_now().await;
            } else {
                tokio::task::coop::consume_budget().await;
            }
        }
    }

    /// A delivery's whole life: what came of it, what that means, and making it so.
    async fn handle(&self, work: Work) {
        let kind = self.shared.router.route(work.envelope.message_type()).and_then(|(name, _)| name);
        let delivery = InHand { worker: self, metrics: self.shared.metrics.of(kind), work, runs: AtomicU32::new(0) };
        match delivery.earlier_run().await {
            EarlierRun::None => {
                // Large ones wait for each other.
                let room = tokio::select! {
                    biased;
                    () = self.handoff.interrupted() => None,
                    room = self.shared.room.reserve(&delivery.work) => Some(room),
                };
                let Some(mut room) = room else { return delivery.settle(Settlement::Requeue(None)).await };
                let conclusion = delivery.conclude(&mut room).await;
                delivery.settle(decide(conclusion, &self.shared.options)).await;
            }
            EarlierRun::LeftToItself => delivery.metrics.lost.increment(1),
            EarlierRun::Ended(KeptResult::Answers(answers)) => delivery.settle(Settlement::Answer(answers)).await,
            EarlierRun::Ended(KeptResult::Failed(failure)) => {
                delivery.settle(decide(Conclusion::Failed(failure), &self.shared.options)).await;
            }
            EarlierRun::Ended(KeptResult::Settled) => delivery.done(),
        }
    }
}

/// Why a message is not run again, with the last error of those returns that a copy tells of.
fn poison(past: &Past, max_deliveries: u64) -> String {
    let crashes = past.all_crashes();
    let lost = format!("{crashes} consumers were lost while they held it, more than max_deliveries ({max_deliveries})");
    match &past.last_error {
        Some(error) => format!("{lost}; the last error of its {} returns, which do not count: {error}", past.returns),
        None => lost,
    }
}

/// A handler that took longer may have blocked its thread, and the next one may block it again.
const SLOW: Duration = Duration::from_millis(1);

/// What is known of a run of the same message, whose connection was lost.
enum EarlierRun {
    /// There was none, or it ended without a result.
    None,
    Ended(KeptResult),
    /// It still goes on, and this delivery was taken back as well: its result is kept for the next one.
    LeftToItself,
}

/// The delivery that a worker has in hand.
pub(super) struct InHand<'a> {
    pub(super) worker: &'a Worker,
    pub(super) metrics: &'a TypeMetrics,
    pub(super) work: Work,
    /// How often the handler was run for it.
    pub(super) runs: AtomicU32,
}

impl InHand<'_> {
    /// Waits for an earlier run of this message, if there is one, and for as long as that makes sense.
    async fn earlier_run(&self) -> EarlierRun {
        let Worker { shared, handoff, .. } = self.worker;
        if !self.work.envelope.redelivered() {
            return EarlierRun::None;
        }
        for handoff in &shared.handoffs {
            handoff.take_running_of_dead_channel(&shared.kept);
        }
        let Some(mut claim) = shared.kept.claim(&self.work) else { return EarlierRun::None };
        let result = tokio::select! {
            biased;
            result = claim.result() => result,
            () = handoff.interrupted() => {
                if let Some(promise) = handoff.leave() {
                    tokio::spawn(promise.fulfil_from(claim));
                    return EarlierRun::LeftToItself;
                }
                // Draining.
                None
            }
        };
        let Some(result) = result else { return EarlierRun::None };
        shared.kept.count_used();
        tracing::debug!(
            queue = self.work.envelope.queue(),
            message_id = self.work.envelope.message_id(),
            "redelivered after a lost connection: answered with the kept result"
        );
        EarlierRun::Ended(result)
    }

    /// Runs the handler, unless something about the message forbids it.
    async fn conclude(&self, room: &mut Reserved<'_>) -> Conclusion {
        let Shared { options, router, policy, .. } = &*self.worker.shared;
        let envelope = &self.work.envelope;
        let unrun = |kind, text: String| Conclusion::Failed(Failure::unrun(kind, text));
        if envelope.past.is_poison(options.max_deliveries) {
            return unrun(FailureKind::Poison, poison(&envelope.past, options.max_deliveries));
        }
        if self.work.body.len() > options.max_body_bytes {
            let (size, limit) = (self.work.body.len(), options.max_body_bytes);
            return unrun(FailureKind::TooLarge, format!("{size} bytes, more than max_body_bytes ({limit})"));
        }
        let Some((_, route)) = router.route(envelope.message_type()) else {
            return unrun(FailureKind::UnknownType, unknown_type(envelope.message_type()));
        };
        match route.decoded(envelope.properties(), &self.work.body, options.max_body_bytes) {
            Ok(body) => {
                room.shrink(&self.work.body, &body);
                retry::run(policy, &RunsOf { delivery: self, route: &**route, body }).await
            }
            Err(error) => unrun(error.kind, format!("the body cannot be read: {}", error.text)),
        }
    }
}

/// The runs of the delivery in hand by the handler for its type.
struct RunsOf<'a> {
    delivery: &'a InHand<'a>,
    route: &'a dyn Route,
    /// As the route takes it.
    body: Bytes,
}

impl Runs for RunsOf<'_> {
    async fn once(&self, attempt: u32) -> Result<Answers, RunFailure> {
        let Self { delivery: InHand { worker, metrics, work, runs, .. }, route, body } = self;
        runs.store(attempt, Ordering::Relaxed);
        let limit = worker.shared.policy.run_limit;
        let cancellation = Arc::<Cancellation>::default();
        // However this run ends, what it left running elsewhere is told so.
        let _cancel_when_over = CancelWhenDropped(Arc::clone(&cancellation));
        let started = Instant::now();
        let context =
            Context::new(Arc::clone(&work.envelope), attempt, limit.map(|limit| started + limit), cancellation);
        let result = retry::guard(limit, started.into(), route.run(body.clone(), context.clone())).await;
        let seconds = match &result {
            Ok(_) => &metrics.ok_seconds,
            Err(RunFailure::Error { retry: Retry::Never, .. }) => &metrics.permanent_seconds,
            Err(RunFailure::Error { .. }) => &metrics.error_seconds,
            Err(RunFailure::Timeout(_)) => &metrics.timeout_seconds,
            Err(RunFailure::Panic(_)) => &metrics.panic_seconds,
            Err(RunFailure::Undecodable(_)) => &metrics.undecodable_seconds,
        };
        seconds.record(started.elapsed());
        result.map(|answers| answers.in_context(&context))
    }

    fn failed(&self, attempt: u32, failure: &RunFailure, next: Option<Duration>) {
        let Some(delay) = next else { return };
        let InHand { metrics, work, .. } = self.delivery;
        match failure {
            RunFailure::Error { .. } | RunFailure::Undecodable(_) => metrics.retried_error.increment(1),
            RunFailure::Timeout(_) => metrics.retried_timeout.increment(1),
            RunFailure::Panic(_) => metrics.retried_panic.increment(1),
        }
        let envelope = &work.envelope;
        tracing::warn!(
            queue = envelope.queue(),
            message_type = envelope.message_type(),
            message_id = envelope.message_id(),
            correlation_id = envelope.correlation_id(),
            attempt,
            retry_in = ?delay,
            error = failure.to_string(),
            "handler failed; trying again"
        );
    }

    async fn interrupted(&self) {
        self.delivery.worker.handoff.interrupted().await;
    }
}

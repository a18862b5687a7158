//! A worker: one delivery at a time, from the handoff to its settlement.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use metrics::Counter;
use tokio_util::sync::CancellationToken;

use super::{
    Shared, dead_letter,
    handoff::{Finished, Handoff, Verdict},
    kept::KeptResult,
};
use crate::{
    context::Context,
    envelope::Work,
    error::PublishError,
    handler::{Answers, Retry},
    message::Outgoing,
    metrics::TypeMetrics,
    options::DeadLetter,
    retry::{self, RunFailure, Runs},
    router::{Route, unknown_type},
    settlement::{Conclusion, Failure, FailureKind, Settlement, decide},
};

/// Between two attempts to publish for a message, whatever `retry_base_delay` says.
const LEAST_PUBLISH_WAIT: Duration = Duration::from_millis(50);

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
            // Handlers' panics are caught where they run. One of our own must not take the group along, again and again.
            if let Err(panic) = AssertUnwindSafe(self.handle(work)).catch_unwind().await {
                let panic = retry::panic_text(panic.as_ref());
                tracing::error!(queue = &*self.shared.queue, panic, "the worker itself failed; the message goes back");
                self.handoff.abandon();
            }
        }
    }

    /// A delivery's whole life: what came of it, what that means, and making it so.
    async fn handle(&self, work: Work) {
        let kind = self.shared.router.route(work.envelope.message_type()).and_then(|(name, _)| name);
        let delivery = InHand { worker: self, metrics: self.shared.metrics.of(kind), work, runs: AtomicU32::new(0) };
        match delivery.earlier_run().await {
            EarlierRun::None if self.handoff.is_interrupted() => delivery.settle(Settlement::Requeue(None)).await,
            EarlierRun::None => {
                let conclusion = delivery.conclude().await;
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

/// What is known of a run of the same message, whose connection was lost.
enum EarlierRun {
    /// There was none, or it ended without a result.
    None,
    Ended(KeptResult),
    /// It still goes on, and this delivery was taken back as well: its result is kept for the next one.
    LeftToItself,
}

/// The delivery that a worker has in hand.
struct InHand<'a> {
    worker: &'a Worker,
    metrics: &'a TypeMetrics,
    work: Work,
    /// How often the handler was run for it.
    runs: AtomicU32,
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
    async fn conclude(&self) -> Conclusion {
        let Shared { options, router, policy, .. } = &*self.worker.shared;
        let envelope = &self.work.envelope;
        let unrun = |kind, text: String| Conclusion::Failed(Failure::unrun(kind, text));
        if envelope.delivery_count() > options.max_deliveries {
            let (count, limit) = (envelope.delivery_count(), options.max_deliveries);
            return unrun(
                FailureKind::Poison,
                format!("given out {count} times before, more than max_deliveries ({limit})"),
            );
        }
        if self.work.body.len() > options.max_body_bytes {
            let (size, limit) = (self.work.body.len(), options.max_body_bytes);
            return unrun(FailureKind::TooLarge, format!("{size} bytes, more than max_body_bytes ({limit})"));
        }
        let Some((_, route)) = router.route(envelope.message_type()) else {
            return unrun(FailureKind::UnknownType, unknown_type(envelope.message_type()));
        };
        retry::run(policy, &RunsOf { delivery: self, route: &**route }).await
    }

    /// Makes the settlement so: what has to be published is confirmed before the broker hears of the original.
    async fn settle(&self, settlement: Settlement) {
        match settlement {
            Settlement::Answer(answers) => self.answer(answers).await,
            Settlement::Requeue(failure) => self.requeue(failure.as_ref()),
            Settlement::DeadLetter(failure) => self.dead_letter(failure).await,
        }
    }

    async fn answer(&self, answers: Answers) {
        let mut unpublished = answers.into_messages();
        while let Some(next) = unpublished.first() {
            match self.publish(next, self.worker.shared.policy.max_retry_attempts).await {
                Published::Yes => drop(unpublished.remove(0)),
                Published::Interrupted => return self.hand_back(KeptResult::Answers(unpublished.into())),
                Published::Failed(error) => return self.unanswered(unpublished.into(), &error).await,
            }
        }
        self.done();
    }

    /// Everything but the ack is done.
    fn done(&self) {
        self.finish(Verdict::Ack, &self.metrics.acked, Some(KeptResult::Settled));
    }

    /// An answer cannot be published, so the task is not done, although its handler is.
    async fn unanswered(&self, answers: Answers, error: &PublishError) {
        let text = format!("the handler succeeded, but its answer was not published: {error}");
        let attempts = self.runs.load(Ordering::Relaxed);
        let failure = Failure { attempts, ..Failure::unrun(FailureKind::Exhausted, text) };
        match decide(Conclusion::Failed(failure), &self.worker.shared.options) {
            Settlement::DeadLetter(failure) => self.dead_letter(failure).await,
            Settlement::Requeue(failure) => {
                if let Some(failure) = failure {
                    self.report("requeued: an answer could not be published", &failure);
                }
                // The handler need not run again when the message comes back, which is at once: not before a wait.
                self.waits_in_vain(self.worker.shared.policy.backoff.delay(1)).await;
                self.hand_back(KeptResult::Answers(answers));
            }
            Settlement::Answer(_) => unreachable!("a failure is not answered"),
        }
    }

    async fn dead_letter(&self, failure: Failure) {
        let Shared { options, publisher, dead_letter_queue, topology, .. } = &*self.worker.shared;
        let kind = failure.kind.label();
        if options.dead_letter == DeadLetter::Broker {
            let kept = KeptResult::Failed(failure.clone());
            if self.finish(Verdict::Reject, &self.metrics.dead_lettered, Some(kept)) == Finished::Settled {
                self.report("rejected: the queue's dead-letter policy decides", &failure);
                self.worker.shared.metrics.dead_letter(kind);
            }
            return;
        }
        let copy = dead_letter::copy(&self.work, &failure, &self.worker.name, dead_letter_queue);
        loop {
            match self.publish(&copy, 0).await {
                Published::Yes => break,
                Published::Interrupted => return self.hand_back(KeptResult::Failed(failure)),
                Published::Failed(error) => {
                    tracing::error!(
                        queue = self.work.envelope.queue(),
                        dead_letter_queue,
                        error = error.to_string(),
                        "cannot dead-letter a message; it stays unsettled and is tried again"
                    );
                    // Somebody may have deleted the queue since we declared it.
                    if let Err(error) = publisher.declare_dead_letter_queue(dead_letter_queue, topology.declare).await {
                        tracing::error!(
                            dead_letter_queue,
                            error = error.to_string(),
                            "cannot declare the dead-letter queue"
                        );
                    }
                    if self.waits_in_vain(self.worker.shared.policy.backoff.delay(1)).await {
                        return self.hand_back(KeptResult::Failed(failure));
                    }
                }
            }
        }
        self.report("dead-lettered", &failure);
        self.worker.shared.metrics.dead_letter(kind);
        self.finish(Verdict::Ack, &self.metrics.dead_lettered, Some(KeptResult::Settled));
    }

    /// Publishes until confirmed. What passes by itself is waited for; other failures are tried `retries` times again.
    async fn publish(&self, outgoing: &Outgoing, retries: u32) -> Published {
        let backoff = self.worker.shared.policy.backoff;
        let mut failures = 0;
        let mut attempt = 0;
        loop {
            // Somebody else may be at work on the message by now, and answer it.
            if self.worker.handoff.is_taken_back() {
                return Published::Interrupted;
            }
            attempt += 1;
            let error = match self.worker.shared.publisher.publish(outgoing).await {
                Ok(()) => return Published::Yes,
                Err(PublishError::Unroutable { .. }) if !outgoing.required => {
                    tracing::warn!(reply_to = outgoing.routing_key, "whoever asked is gone; the reply is dropped");
                    return Published::Yes;
                }
                Err(error) => error,
            };
            if !error.is_passing() {
                failures += 1;
                if failures > retries {
                    return Published::Failed(error);
                }
            }
            tracing::warn!(
                queue = self.work.envelope.queue(),
                exchange = outgoing.exchange(),
                attempt,
                error = error.to_string(),
                "publish failed; the task stays unsettled and the publish is tried again"
            );
            if self.waits_in_vain(backoff.delay(attempt)).await {
                return Published::Interrupted;
            }
        }
    }

    /// Waits, unless that has become pointless. Never shorter than it takes to be kind to a broker in trouble.
    async fn waits_in_vain(&self, delay: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.worker.handoff.interrupted() => true,
            () = tokio::time::sleep(delay.max(LEAST_PUBLISH_WAIT)) => false,
        }
    }

    fn requeue(&self, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            self.report("attempts exhausted; requeued, since nack_requeue is on", failure);
        }
        self.finish(Verdict::Requeue, &self.metrics.requeued, None);
    }

    /// Gives the message back with a result kept for its return to this process.
    fn hand_back(&self, result: KeptResult) {
        let finished = self.worker.handoff.hand_back(result, &self.worker.shared.kept);
        self.count(finished, &self.metrics.requeued);
    }

    fn finish(&self, verdict: Verdict, outcome: &Counter, result: Option<KeptResult>) -> Finished {
        let finished = self.worker.handoff.finish(verdict, result);
        self.count(finished, outcome);
        finished
    }

    fn count(&self, finished: Finished, outcome: &Counter) {
        match finished {
            Finished::Settled => outcome.increment(1),
            Finished::TakenBack => self.metrics.lost.increment(1),
        }
    }

    /// The final failure of a message: once, with what an operator looks for. Never the body.
    fn report(&self, what: &str, failure: &Failure) {
        let envelope = &self.work.envelope;
        tracing::error!(
            queue = envelope.queue(),
            message_type = envelope.message_type(),
            message_id = envelope.message_id(),
            correlation_id = envelope.correlation_id(),
            kind = failure.kind.label(),
            attempts = failure.attempts,
            error = failure.text,
            "{what}"
        );
    }
}

/// What came of publishing something for a message.
enum Published {
    Yes,
    /// The message was taken back, or we are draining.
    Interrupted,
    Failed(PublishError),
}

/// The runs of the delivery in hand by the handler for its type.
struct RunsOf<'a> {
    delivery: &'a InHand<'a>,
    route: &'a dyn Route,
}

impl Runs for RunsOf<'_> {
    async fn once(&self, attempt: u32) -> Result<Answers, RunFailure> {
        let Self { delivery: InHand { worker, metrics, work, runs }, route } = self;
        runs.store(attempt, Ordering::Relaxed);
        let limit = worker.shared.policy.run_limit;
        let cancellation = CancellationToken::new();
        // However this run ends, what it left running elsewhere is told so.
        let _cancel_when_over = cancellation.clone().drop_guard();
        let started = Instant::now();
        let context =
            Context::new(Arc::clone(&work.envelope), attempt, limit.map(|limit| started + limit), cancellation);
        let result = retry::guard(limit, route.run(work.body.clone(), context.clone())).await;
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

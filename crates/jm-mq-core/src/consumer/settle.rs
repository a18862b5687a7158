//! Making a settlement so: what has to be published is confirmed before the broker hears of the original.

use std::{sync::atomic::Ordering, time::Duration};

use metrics::Counter;

use super::{
    Shared, dead_letter,
    handoff::{Finished, Verdict},
    kept::KeptResult,
    worker::InHand,
};
use crate::{
    error::PublishError,
    handler::Answers,
    message::Outgoing,
    options::DeadLetter,
    settlement::{Conclusion, Failure, FailureKind, Settlement, decide},
};

/// Between two attempts to publish for a message, whatever `retry_base_delay` says.
const LEAST_PUBLISH_WAIT: Duration = Duration::from_millis(50);

/// The same after the broker refused it (nack). A quorum queue whose leader is gone refuses until the others have elected
/// a new one: a message that is done must not become a dead letter by some quick attempts within that second.
const LEAST_REFUSED_WAIT: Duration = Duration::from_secs(1);

/// What came of publishing something for a message.
pub(super) enum Published {
    Yes,
    /// The message was taken back, or we are draining.
    Interrupted,
    Failed(PublishError),
}

impl InHand<'_> {
    /// Ends the delivery in the one way that was decided.
    pub(super) async fn settle(&self, settlement: Settlement) {
        match settlement {
            Settlement::Answer(answers) => self.answer(answers).await,
            Settlement::Requeue(failure) => self.requeue(failure.as_ref()).await,
            Settlement::DeadLetter(failure) => self.dead_letter(failure).await,
        }
    }

    async fn answer(&self, answers: Answers) {
        let mut unpublished = answers.into_messages();
        while let Some(next) = unpublished.first() {
            match self.publish(next, self.worker.shared.policy.max_retry_attempts).await {
                Published::Yes => drop(unpublished.remove(0)),
                Published::Interrupted => {
                    return self.give_back(None, Some(KeptResult::Answers(unpublished.into()))).await;
                }
                Published::Failed(error) => return self.unanswered(unpublished.into(), &error).await,
            }
        }
        self.done();
    }

    /// Everything but the ack is done.
    pub(super) fn done(&self) {
        self.finish(Verdict::Ack, &self.metrics.acked, Some(KeptResult::Settled));
    }

    /// An answer cannot be published, so the task is not done, although its handler is.
    async fn unanswered(&self, answers: Answers, error: &PublishError) {
        let text = format!("the handler succeeded, but its answer was not published: {error}");
        let attempts = self.runs.load(Ordering::Relaxed);
        let failure = Failure { attempts, ..Failure::unrun(FailureKind::Exhausted, text.clone()) };
        match decide(Conclusion::Failed(failure), &self.worker.shared.options) {
            Settlement::DeadLetter(failure) => self.dead_letter(failure).await,
            Settlement::Requeue(failure) => {
                if let Some(failure) = failure {
                    self.report("requeued: an answer could not be published", &failure);
                }
                // The handler need not run again when the message comes back, which is at once: not before a wait.
                self.waits_in_vain(self.worker.shared.policy.backoff.delay(1)).await;
                self.give_back(Some(&text), Some(KeptResult::Answers(answers))).await;
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
                Published::Interrupted => return self.give_back(None, Some(KeptResult::Failed(failure))).await,
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
                        return self.give_back(None, Some(KeptResult::Failed(failure))).await;
                    }
                }
            }
        }
        self.report("dead-lettered", &failure);
        self.worker.shared.metrics.dead_letter(kind);
        self.finish(Verdict::Ack, &self.metrics.dead_lettered, Some(KeptResult::Settled));
    }

    /// Publishes until confirmed. What passes by itself is waited for; other failures are tried `retries` times again.
    pub(super) async fn publish(&self, outgoing: &Outgoing, retries: u32) -> Published {
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
            let refused = matches!(error, PublishError::Refused { .. });
            let least = if refused { LEAST_REFUSED_WAIT } else { Duration::ZERO };
            if self.waits_in_vain(backoff.delay(attempt).max(least)).await {
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

    async fn requeue(&self, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            self.report("attempts exhausted; requeued, since nack_requeue is on", failure);
        }
        self.give_back(failure.map(|failure| failure.text.as_str()), None).await;
    }

    pub(super) fn finish(&self, verdict: Verdict, outcome: &Counter, result: Option<KeptResult>) -> Finished {
        let finished = self.worker.handoff.finish(verdict, result);
        self.count(finished, outcome);
        finished
    }

    pub(super) fn count(&self, finished: Finished, outcome: &Counter) {
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

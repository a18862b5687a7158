//! Making a settlement so: what has to be published is confirmed before the broker hears of the original.

use std::{ops::ControlFlow, sync::atomic::Ordering, time::Duration};

use metrics::Counter;

use super::{
    Shared,
    dead_letter::{self, Keep},
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
            let published = if next.required {
                self.publish(next, self.worker.shared.policy.max_retry_attempts).await
            } else {
                self.reply(next).await
            };
            match published {
                Published::Yes => drop(unpublished.remove(0)),
                Published::Interrupted => {
                    return self.give_back(None, Some(KeptResult::Answers(unpublished.into()))).await;
                }
                Published::Failed(error) => return self.unanswered(unpublished.into(), &error).await,
            }
        }
        self.done();
    }

    /// Publishes what whoever asked need not get: once, within the publisher's timeout, and the task is done all the same.
    async fn reply(&self, reply: &Outgoing) -> Published {
        // Somebody else may be at work on the message by now, and answer it.
        if self.worker.handoff.is_taken_back() {
            return Published::Interrupted;
        }
        let Err(error) = self.worker.shared.publisher.publish(reply).await else { return Published::Yes };
        let unsupported = matches!(error, PublishError::Unroutable { .. });
        tracing::warn!(
            queue = self.work.envelope.queue(),
            message_id = self.work.envelope.message_id(),
            reply_to = reply.routing_key(),
            error = error.to_string(),
            "the reply is dropped and its task done without it{}",
            if unsupported { "; a reply goes to a queue, and `exchange/key` is not supported" } else { "" }
        );
        Published::Yes
    }

    /// Everything but the ack is done.
    pub(super) fn done(&self) {
        self.finish(Verdict::Ack, &self.metrics.acked, Some(KeptResult::Settled));
    }

    /// An answer cannot be published, so the task is not done, although its handler is.
    async fn unanswered(&self, answers: Answers, error: &PublishError) {
        let text = format!("the handler succeeded, but its answer was not published: {error}");
        let attempts = self.runs.load(Ordering::Relaxed);
        let never = matches!(error, PublishError::Invalid { .. });
        let kind = if never { FailureKind::Permanent } else { FailureKind::Exhausted };
        let failure = Failure { attempts, ..Failure::unrun(kind, text.clone()) };
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
        let mut keep = Keep::All;
        loop {
            let frame_max = publisher.frame_max();
            let copy = dead_letter::copy(&self.work, &failure, &self.worker.name, dead_letter_queue, frame_max, keep);
            match self.publish(&copy, 0).await {
                Published::Yes => break,
                Published::Interrupted => return self.give_back(None, Some(KeptResult::Failed(failure))).await,
                Published::Failed(error) => {
                    // Unless the first connection has told of a smaller frame only now.
                    if matches!(error, PublishError::Invalid { .. }) && frame_max == publisher.frame_max() {
                        keep = Keep::BodyAndNames;
                    }
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

    /// Publishes until confirmed, however long that takes. What the broker refuses is tried `retries` times again, unless it
    /// can never be published.
    pub(super) async fn publish(&self, outgoing: &Outgoing, retries: u32) -> Published {
        let Shared { publisher, policy, .. } = &*self.worker.shared;
        let handoff = &self.worker.handoff;
        let mut failures = 0;
        let mut attempt = 0;
        loop {
            // Somebody else may be at work on the message by now, and answer it.
            if handoff.is_taken_back() {
                return Published::Interrupted;
            }
            attempt += 1;
            let is_late = |error: &PublishError| {
                self.warn_unpublished(outgoing, attempt, error);
                if handoff.is_interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let error = match publisher.publish_patiently(outgoing, is_late).await {
                Ok(()) => return Published::Yes,
                Err(error) => error,
            };
            if !error.is_passing() {
                failures += 1;
                if failures > retries || matches!(error, PublishError::Invalid { .. }) {
                    return Published::Failed(error);
                }
            }
            self.warn_unpublished(outgoing, attempt, &error);
            let refused = matches!(error, PublishError::Refused { .. });
            let least = if refused { LEAST_REFUSED_WAIT } else { Duration::ZERO };
            if self.waits_in_vain(policy.backoff.delay(attempt).max(least)).await {
                return Published::Interrupted;
            }
        }
    }

    fn warn_unpublished(&self, outgoing: &Outgoing, attempt: u32, error: &PublishError) {
        tracing::warn!(
            queue = self.work.envelope.queue(),
            exchange = outgoing.exchange(),
            attempt,
            error = error.to_string(),
            "not published yet; the task stays unsettled until it is"
        );
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

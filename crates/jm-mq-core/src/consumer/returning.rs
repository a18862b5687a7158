//! Returning messages to their queue, so that no return looks like a lost consumer.

use std::time::{Duration, Instant};

use super::{
    Shared,
    handoff::{Settled, Verdict},
    kept::KeptResult,
    returned,
    settle::Published,
    subscription::{Subscription, SubscriptionEnd},
    worker::InHand,
};
use crate::envelope::{Delivery, Work};

/// For the copies of all that one channel returns at once. What is not confirmed by then is nacked, so that neither a
/// drain nor the broker's `consumer_timeout` waits for a publisher that the broker blocks.
const COPIES_LIMIT: Duration = Duration::from_secs(2);

impl InHand<'_> {
    /// Returns the message, because of `error`; `result` is kept for when it comes back to this process.
    pub(super) async fn give_back(&self, error: Option<&str>, result: Option<KeptResult>) {
        let (shared, handoff) = (&self.worker.shared, &self.worker.handoff);
        let mut result = result;
        if self.work.nacks_count && !handoff.is_taken_back() {
            // Before the broker has the copy: it may be back in no time.
            let promise = result.is_some().then(|| shared.kept.promise_return(&self.work));
            let copy = returned::copy(&self.work, &shared.queue, error);
            if let Published::Yes = self.publish(&copy, 0).await {
                if let (Some(promise), Some(result)) = (promise, result.take()) {
                    promise.fulfil(result);
                }
                shared.metrics.nacks_requeued.increment(1);
                self.finish(Verdict::Ack, &self.metrics.requeued, Some(KeptResult::Settled));
                // An ack that waits for others, and is lost with its process, would leave the message there twice.
                handoff.write_settled();
                return;
            }
        }
        let finished = match result {
            Some(result) => handoff.hand_back(result, &shared.kept),
            None => handoff.finish(Verdict::Requeue, None),
        };
        self.count(finished, &self.metrics.requeued);
    }
}

impl Subscription {
    /// Returns deliveries to the queue, after everything that was settled before.
    pub(super) async fn hand_back(&self, deliveries: Vec<Delivery>) -> Result<(), SubscriptionEnd> {
        let deadline = Instant::now() + COPIES_LIMIT;
        for delivery in deliveries {
            let verdict =
                if self.shared.replaced(&delivery.work, deadline).await { Verdict::Ack } else { Verdict::Requeue };
            self.handoff.settle(Settled { delivery, verdict });
        }
        self.write_settlements().await
    }
}

impl Shared {
    /// Whether a copy has taken the message's place in the queue, where it needs one.
    async fn replaced(&self, work: &Work, deadline: Instant) -> bool {
        if !work.nacks_count || deadline <= Instant::now() {
            return false;
        }
        let copy = returned::copy(work, &self.queue, None);
        let published = tokio::time::timeout_at(deadline.into(), self.publisher.publish(&copy)).await;
        let failure = match published {
            Ok(Ok(())) => {
                self.metrics.nacks_requeued.increment(1);
                return true;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no confirm within {COPIES_LIMIT:?}"),
        };
        tracing::warn!(
            queue = &*self.queue,
            message_id = work.envelope.message_id(),
            error = failure,
            "returned by nack instead of by a copy: the broker counts it as a lost consumer"
        );
        false
    }
}

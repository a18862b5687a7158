//! Writes a channel's settlements: in order, one at a time, and without anybody waiting for it.
//!
//! A settlement is with the connection as soon as it was begun. That it was written, or was not, is looked at when there
//! is something else to do: the next settlement, the next delivery, a tick. So a worker's message waits for no other
//! thread, and an ack that is lost is counted all the same.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions},
};
use metrics::Counter;

use super::{
    handoff::{Settled, Verdict},
    unsettled::Unsettled,
};
use crate::{broker::Doorbell, metrics::QueueMetrics};

/// The settlements of one channel that the broker does not have yet.
pub(super) struct Writer {
    channel: Arc<Channel>,
    bell: Arc<Doorbell>,
    /// What may be written as one.
    unsettled: Unsettled,
    /// In the order in which they were decided; those in flight come first.
    settlements: VecDeque<Settled>,
    in_flight: Option<InFlight>,
    /// Who waits for what is in flight; others that look at it must not take its place.
    waiter: Waker,
    /// Why nothing can be written any more.
    failure: Option<String>,
    /// What the connection may take for one settlement.
    limit: Duration,
    /// A delivery that is settled later than this after its arrival may have exceeded the broker's `consumer_timeout`.
    settle_within: Duration,
    /// When that happened last.
    overran: Option<Instant>,
    nacks_requeued: Counter,
    nacks_dropped: Counter,
}

/// What was handed to the connection, and is to be heard of again.
struct InFlight {
    count: usize,
    written: Pin<Box<dyn Future<Output = lapin::Result<()>> + Send>>,
    since: Instant,
}

impl Writer {
    pub(super) fn new(
        channel: Arc<Channel>,
        bell: Arc<Doorbell>,
        limit: Duration,
        settle_within: Duration,
        metrics: &QueueMetrics,
    ) -> Self {
        Self {
            settle_within,
            overran: None,
            channel,
            bell,
            unsettled: Unsettled::default(),
            settlements: VecDeque::new(),
            in_flight: None,
            waiter: Waker::noop().clone(),
            failure: None,
            limit,
            nacks_requeued: metrics.nacks_requeued.clone(),
            nacks_dropped: metrics.nacks_dropped.clone(),
        }
    }

    /// A delivery has come by the channel.
    pub(super) fn arrived(&mut self, tag: u64) {
        self.unsettled.arrived(tag);
    }

    /// Takes settlements over, after those that wait already.
    pub(super) fn add(&mut self, settled: impl IntoIterator<Item = Settled>) {
        self.settlements.extend(settled);
    }

    /// Whether something waits to be begun.
    pub(super) fn has_waiting(&self) -> bool {
        self.settlements.len() > self.in_flight.as_ref().map_or(0, |in_flight| in_flight.count)
    }

    /// Whether there is nothing to write, and nothing to hear of.
    pub(super) fn is_done(&self) -> bool {
        self.settlements.is_empty()
    }

    /// Begins what waits, as far as the one before it is written, for somebody who does not wait for it. Ready when nothing
    /// is left to be begun.
    pub(super) fn begin_what_can_be(&mut self) -> Poll<Result<(), String>> {
        let waiter = self.waiter.clone();
        self.begin_all(&mut Context::from_waker(&waiter))
    }

    /// The same, for the one who waits. Ready when nothing waits to be begun any more, though it may be in flight.
    pub(super) fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.waited_for(cx, Self::begin_all)
    }

    /// Ready when everything is written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.waited_for(cx, |writer, cx| {
            ready!(writer.begin_all(cx))?;
            writer.poll_in_flight(cx)
        })
    }

    fn waited_for(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Self, &mut Context<'_>) -> Poll<Result<(), String>>,
    ) -> Poll<Result<(), String>> {
        let polled = poll(self, cx);
        self.waiter = if polled.is_pending() { cx.waker().clone() } else { Waker::noop().clone() };
        polled
    }

    fn begin_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        while self.has_waiting() {
            ready!(self.poll_in_flight(cx))?;
            if let Err(failure) = self.begin() {
                return Poll::Ready(Err(self.fail(failure)));
            }
        }
        // Polled once, it is with the connection.
        match self.poll_in_flight(cx) {
            Poll::Ready(Err(failure)) => Poll::Ready(Err(failure)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    /// What the broker may never have got.
    pub(super) fn into_unwritten(self) -> impl Iterator<Item = Settled> {
        self.settlements.into_iter()
    }

    fn poll_in_flight(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        if let Some(failure) = &self.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        let Some(in_flight) = &mut self.in_flight else { return Poll::Ready(Ok(())) };
        match in_flight.written.as_mut().poll(cx) {
            Poll::Pending if in_flight.since.elapsed() > self.limit => {
                Poll::Ready(Err(self.fail("a settlement could not be written in time".into())))
            }
            Poll::Pending => Poll::Pending,
            // It stays among the settlements, and counts as lost.
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.fail(error.to_string()))),
            Poll::Ready(Ok(())) => {
                let count = in_flight.count;
                self.in_flight = None;
                for settled in self.settlements.drain(..count) {
                    match settled.verdict {
                        Verdict::Ack => {}
                        Verdict::Requeue => self.nacks_requeued.increment(1),
                        Verdict::Reject => self.nacks_dropped.increment(1),
                    }
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Hands what waits first to the connection. Nothing is in flight.
    fn begin(&mut self) -> Result<(), String> {
        let acks = self.settlements.iter().take_while(|settled| settled.verdict == Verdict::Ack);
        let together = self.unsettled.settled_in_a_row(acks.map(|settled| settled.delivery.tag));
        let count = together.max(1);
        let Some(last) = self.settlements.get(count - 1) else { return Ok(()) };
        let (tag, verdict) = (last.delivery.tag, last.verdict);
        let oldest = self.settlements.front().map(|settled| settled.delivery.arrived);
        // A tag of another channel would cost this one. Its deliveries' ackers are poisoned with it.
        if last.delivery.acker.poisoned() {
            return Err("a settlement found its channel closed".into());
        }
        if together > 0 {
            self.unsettled.remove_oldest(together);
        } else if !self.unsettled.remove(tag) {
            return Err("a settlement for a delivery that this channel does not have".into());
        }
        let (channel, bell) = (Arc::clone(&self.channel), Arc::clone(&self.bell));
        let written = Box::pin(async move {
            match verdict {
                Verdict::Ack => bell.ring_for(channel.basic_ack(tag, BasicAckOptions { multiple: together > 1 })).await,
                Verdict::Requeue => bell.ring_for(channel.basic_nack(tag, nack(true))).await,
                Verdict::Reject => bell.ring_for(channel.basic_nack(tag, nack(false))).await,
            }
        });
        let since = Instant::now();
        if oldest.is_some_and(|arrived| since.duration_since(arrived) >= self.settle_within) {
            self.overran = Some(since);
        }
        self.in_flight = Some(InFlight { count, written, since });
        Ok(())
    }

    /// When a delivery was settled last that may have exceeded the broker's `consumer_timeout`.
    pub(super) fn overran(&self) -> Option<Instant> {
        self.overran
    }

    /// Nothing is written any more, and what has ended is not polled again.
    fn fail(&mut self, failure: String) -> String {
        self.in_flight = None;
        self.failure.get_or_insert(failure).clone()
    }
}

fn nack(requeue: bool) -> BasicNackOptions {
    BasicNackOptions { multiple: false, requeue }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("unsettled", &self.unsettled)
            .field("settlements", &self.settlements)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

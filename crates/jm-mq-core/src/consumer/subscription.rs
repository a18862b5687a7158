//! One worker's channel: brings its deliveries, writes its settlements, and keeps the broker's time.

use std::{pin::pin, sync::Arc, time::Instant};

use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{
    Shared, Stop,
    handoff::{Handoff, Settled, Verdict},
    kept::KeptResult,
};
use crate::{broker::PooledConnection, envelope::Delivery, error::ConnectError, topology::refused};

/// A consumer on a channel of its own, feeding one worker.
pub(super) struct Subscription {
    shared: Arc<Shared>,
    handoff: Arc<Handoff>,
    channel: Channel,
    deliveries: lapin::Consumer,
}

/// Why a subscription ended.
#[derive(Debug)]
pub(super) enum SubscriptionEnd {
    /// We drained it: everything was settled or given back.
    Drained(Drained),
    /// The broker cancelled it: the queue was deleted, or its node went away.
    Cancelled,
    /// The channel or the connection failed.
    Lost(String),
    /// Another subscription of the group ended, and took this one with it.
    GroupOver,
}

/// What a drain gave back to the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Drained {
    /// Deliveries that no worker had started.
    pub(super) unstarted: usize,
    /// Deliveries that were still worked on at the deadline.
    pub(super) cut_off: usize,
}

impl Subscription {
    /// Opens a channel and registers a consumer on it. Deliveries wait in the channel until [`run`](Self::run).
    pub(super) async fn open(
        shared: Arc<Shared>,
        handoff: Arc<Handoff>,
        connection: &PooledConnection,
        queue: &ShortString,
        index: usize,
    ) -> Result<Self, ConnectError> {
        let tag = ShortString::try_new(format!("{}.{index}", shared.instance)).unwrap_or_default();
        let failed = |error: lapin::Error| refused(&error, format!("a consumer on queue `{queue}`"));
        let open = async {
            let channel = connection.create_channel().await.map_err(failed)?;
            channel
                .basic_qos(shared.options.prefetch_per_worker, BasicQosOptions { global: false })
                .await
                .map_err(failed)?;
            let deliveries = channel
                .basic_consume(queue.clone(), tag, BasicConsumeOptions::default(), FieldTable::default())
                .await
                .map_err(failed)?;
            Ok((channel, deliveries))
        };
        let (channel, deliveries) = shared.within_rpc_timeout("subscribing", open).await?;
        Ok(Self { shared, handoff, channel, deliveries })
    }

    /// Carries deliveries and settlements until the drain, or until something ends.
    pub(super) async fn run(mut self, stop: Stop, group_over: CancellationToken) -> SubscriptionEnd {
        let (mut stopping, mut over) = (pin!(stop.requested()), pin!(group_over.cancelled()));
        let mut ticks = tokio::time::interval(self.shared.budget.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            // The ends first: in a flood there is always another delivery.
            let outcome = tokio::select! {
                biased;
                () = &mut stopping => break self.drain(&stop).await,
                () = &mut over => {
                    // What is already decided may still reach the broker on this channel.
                    drop(self.write_settlements().await);
                    break SubscriptionEnd::GroupOver;
                }
                () = self.handoff.changed() => self.write_settlements().await,
                delivery = self.deliveries.next() => self.take(delivery),
                _ = ticks.tick() => self.hand_back_overdue().await,
            };
            if let Err(end) = outcome {
                break end;
            }
        };
        self.detach();
        end
    }

    /// Takes a delivery, and with it all that are there already: no more than `prefetch_per_worker`.
    fn take(&mut self, mut next: Option<lapin::Result<lapin::message::Delivery>>) -> Result<(), SubscriptionEnd> {
        loop {
            match next {
                Some(Ok(delivery)) => self.handoff.push(Delivery::new(&self.shared.queue, delivery)),
                Some(Err(error)) => return Err(SubscriptionEnd::Lost(error.to_string())),
                // Polled again, the stream would wait for ever.
                None => return Err(SubscriptionEnd::Cancelled),
            }
            match self.deliveries.next().now_or_never() {
                Some(another) => next = another,
                None => return Ok(()),
            }
        }
    }

    /// Tells the broker what the worker decided, in order. Acks in a row become one: the worker has one delivery at a
    /// time, so when it has finished the last of them it has finished all earlier ones of this channel.
    async fn write_settlements(&self) -> Result<(), SubscriptionEnd> {
        let mut settled = self.handoff.take_settled();
        while !settled.is_empty() {
            let acks = settled.iter().take_while(|settled| settled.verdict == Verdict::Ack).count();
            let rest = settled.split_off(acks.max(1));
            let written = match settled.last() {
                Some(Settled { delivery, verdict: Verdict::Ack }) => self.ack(delivery, acks > 1).await,
                Some(Settled { delivery, verdict: Verdict::Requeue }) => self.nack(delivery, true).await,
                Some(Settled { delivery, verdict: Verdict::Reject }) => self.nack(delivery, false).await,
                None => Ok(()),
            };
            if let Err(end) = written {
                self.lost(settled.into_iter().chain(rest));
                return Err(end);
            }
            settled = rest;
        }
        Ok(())
    }

    async fn ack(&self, delivery: &Delivery, multiple: bool) -> Result<(), SubscriptionEnd> {
        self.written(delivery.acker.ack(BasicAckOptions { multiple })).await
    }

    async fn nack(&self, delivery: &Delivery, requeue: bool) -> Result<(), SubscriptionEnd> {
        self.written(delivery.acker.nack(BasicNackOptions { multiple: false, requeue })).await?;
        let metrics = &self.shared.metrics;
        if requeue { &metrics.nacks_requeued } else { &metrics.nacks_dropped }.increment(1);
        Ok(())
    }

    /// A settlement that is not written in time ends the channel: it cannot be tried again.
    async fn written(&self, settling: impl Future<Output = lapin::Result<bool>>) -> Result<(), SubscriptionEnd> {
        match tokio::time::timeout(self.shared.rpc_timeout, settling).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(SubscriptionEnd::Lost("a settlement found its channel closed".into())),
            Ok(Err(error)) => Err(SubscriptionEnd::Lost(error.to_string())),
            Err(_) => Err(SubscriptionEnd::Lost("a settlement could not be written in time".into())),
        }
    }

    /// Settlements that the broker never got. It will give the messages out again; the finished ones need no new run.
    fn lost(&self, settled: impl Iterator<Item = Settled>) {
        for Settled { delivery, verdict } in settled {
            self.shared.metrics.lost_on_write.increment(1);
            if verdict == Verdict::Ack {
                self.shared.kept.keep(&delivery.work, KeptResult::Settled);
            }
        }
    }

    /// Hands back what the broker would take back by force, together with the channel and all it holds.
    async fn hand_back_overdue(&self) -> Result<(), SubscriptionEnd> {
        let now = Instant::now();
        let budget = self.shared.budget;
        let unstarted = now.checked_sub(budget.start_within).map(|moment| self.handoff.take_unstarted(Some(moment)));
        let running = now
            .checked_sub(budget.settle_within)
            .and_then(|moment| self.handoff.take_running(Some(moment), &self.shared.kept));
        for delivery in unstarted.iter().flatten().chain(&running) {
            tracing::warn!(queue = &*self.shared.queue, message_id = delivery.work.envelope.message_id(),
                waited = ?delivery.arrived.elapsed(), consumer_timeout = ?self.shared.options.consumer_timeout,
                "handed back: it cannot be settled before the broker's consumer_timeout");
            self.nack(delivery, true).await?;
        }
        Ok(())
    }

    /// Stops in the order that loses nothing: nothing is started any more, the broker sends nothing more, what was not
    /// started goes back at once, what runs may finish until the deadline.
    async fn drain(&mut self, stop: &Stop) -> SubscriptionEnd {
        self.handoff.stop();
        match self.drain_in_order(stop).await {
            Ok(drained) => SubscriptionEnd::Drained(drained),
            Err(end) => end,
        }
    }

    async fn drain_in_order(&mut self, stop: &Stop) -> Result<Drained, SubscriptionEnd> {
        let lost = |error: &dyn std::fmt::Display| SubscriptionEnd::Lost(error.to_string());
        let cancel = self.channel.basic_cancel(self.deliveries.tag(), BasicCancelOptions::default());
        match tokio::time::timeout(self.shared.rpc_timeout, cancel).await {
            Ok(result) => result.map_err(|error| lost(&error))?,
            Err(_) => return Err(lost(&"the broker did not confirm the cancellation")),
        }
        // Frames come in order: all that was sent before cancel-ok is here.
        while let Some(Some(Ok(delivery))) = self.deliveries.next().now_or_never() {
            self.handoff.push(Delivery::new(&self.shared.queue, delivery));
        }
        let mut drained = Drained::default();
        for delivery in self.handoff.take_unstarted(None) {
            self.nack(&delivery, true).await?;
            drained.unstarted += 1;
        }
        loop {
            self.write_settlements().await?;
            if self.handoff.is_idle() {
                break;
            }
            tokio::select! {
                () = self.handoff.changed() => {}
                () = tokio::time::sleep_until(stop.deadline().into()) => {
                    if let Some(delivery) = self.handoff.take_running(None, &self.shared.kept) {
                        self.nack(&delivery, true).await?;
                        drained.cut_off += 1;
                    }
                }
            }
        }
        let close = self.channel.close(200, "OK".into());
        match tokio::time::timeout(self.shared.rpc_timeout, close).await {
            Ok(result) => result.map_err(|error| lost(&error))?,
            Err(_) => return Err(lost(&"the broker did not confirm the channel's end")),
        }
        Ok(drained)
    }

    fn detach(&self) {
        for Settled { delivery, verdict } in self.handoff.detach(&self.shared.kept) {
            self.shared.metrics.lost_on_channel.increment(1);
            if verdict == Verdict::Ack {
                self.shared.kept.keep(&delivery.work, KeptResult::Settled);
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Also when the task was aborted: the worker must not settle on a channel that is gone.
        self.detach();
    }
}

//! One worker's channel: brings its deliveries, writes its settlements, and keeps the broker's time.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use futures_util::{FutureExt, StreamExt, future::poll_fn};
use lapin::{
    Channel,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::ShortString,
};
use metrics::Counter;
use tokio::time::MissedTickBehavior;

use super::{
    Shared, Stop,
    handoff::{Handoff, Order, Settled, Unwritten, Verdict},
    kept::KeptResult,
    queue::Queue,
    writer::Writer,
};
use crate::{broker::PooledConnection, envelope::Delivery, error::ConnectError, topology::refused};

/// A consumer on a channel of its own, feeding one worker.
pub(super) struct Subscription {
    pub(super) shared: Arc<Shared>,
    pub(super) handoff: Arc<Handoff>,
    queue: Arc<Queue>,
    channel: Arc<Channel>,
    deliveries: lapin::Consumer,
    /// Between channel and handoff; empty but for that moment.
    taken: Vec<Delivery>,
}

/// Why a subscription ended.
#[derive(Debug)]
pub(super) enum SubscriptionEnd {
    /// We drained it: everything was settled or given back.
    Drained(Drained),
    /// The broker cancelled it: the queue was deleted, or its node went away.
    Cancelled,
    /// The broker cancelled it or closed its channel, since it held a delivery for longer than the `consumer_timeout`.
    TimedOut,
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
        queue: Arc<Queue>,
        index: usize,
    ) -> Result<Self, ConnectError> {
        let tag = ShortString::try_new(format!("{}.{index}", shared.instance)).unwrap_or_default();
        let failed = |error: lapin::Error| refused(&error, format!("a consumer on queue `{}`", queue.name()));
        let open = async {
            let channel = connection.create_channel().await.map_err(failed)?;
            channel
                .basic_qos(shared.options.prefetch_per_worker, BasicQosOptions { global: false })
                .await
                .map_err(failed)?;
            let arguments = queue.consume_arguments(shared.options.consumer_timeout);
            let deliveries = channel
                .basic_consume(queue.short_name(), tag, BasicConsumeOptions::default(), arguments)
                .await
                .map_err(failed)?;
            Ok((channel, deliveries))
        };
        let (channel, deliveries) = shared.within_rpc_timeout("subscribing", open).await?;
        let channel = Arc::new(channel);
        let (limit, settle_within) = (shared.rpc_timeout, shared.budget.settle_within);
        handoff.attach(Writer::new(Arc::clone(&channel), connection.bell(), limit, settle_within, &shared.metrics));
        Ok(Self { shared, handoff, queue, channel, deliveries, taken: Vec::new() })
    }

    /// Carries deliveries and settlements until the drain, or until something ends.
    pub(super) async fn run(mut self, stop: Stop) -> SubscriptionEnd {
        let mut ticks = tokio::time::interval(self.shared.budget.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unwritten = false;
        let end = loop {
            // Orders first: in a flood there is always another delivery.
            let outcome = tokio::select! {
                biased;
                () = self.handoff.changed() => match self.handoff.order() {
                    Some(Order::Drain) => break self.drain(&stop).await,
                    Some(Order::End) => {
                        // What is already decided may still reach the broker on this channel.
                        drop(self.write_settlements().await);
                        break SubscriptionEnd::GroupOver;
                    }
                    None => {
                        unwritten = true;
                        Ok(())
                    }
                },
                begun = poll_fn(|cx| self.handoff.poll_begin(cx)), if unwritten => {
                    unwritten = false;
                    begun.map_err(SubscriptionEnd::Lost)
                }
                delivery = self.deliveries.next() => self.take(delivery),
                _ = ticks.tick() => self.hand_back_overdue().await,
            };
            if let Err(end) = outcome {
                break match end {
                    // A settlement may find the channel closed before the stream of deliveries says why.
                    SubscriptionEnd::Lost(error) => {
                        self.broker_error().map_or(SubscriptionEnd::Lost(error), |error| self.ended(Some(error)))
                    }
                    end => end,
                };
            }
        };
        self.detach();
        end
    }

    /// Takes a delivery, and with it all that are there already: no more than `prefetch_per_worker`.
    fn take(&mut self, first: Option<lapin::Result<lapin::message::Delivery>>) -> Result<(), SubscriptionEnd> {
        let arrived = Instant::now();
        let mut next = Some(first);
        let mut end: Result<(), Option<String>> = Ok(());
        let (deliveries, name, queue) = (&mut self.deliveries, &self.shared.queue, &self.queue);
        self.taken.extend(std::iter::from_fn(|| match next.take().or_else(|| deliveries.next().now_or_never())? {
            Some(Ok(delivery)) => Some(Delivery::new(name, queue, delivery, arrived)),
            Some(Err(error)) => {
                end = Err(Some(error.to_string()));
                None
            }
            // Polled again, the stream would wait for ever.
            None => {
                end = Err(None);
                None
            }
        }));
        self.handoff.push(&mut self.taken);
        end.map_err(|error| self.ended(error))
    }

    /// The error with which the channel ended, as far as the stream of deliveries has it. What it brings before that is the
    /// broker's again.
    fn broker_error(&mut self) -> Option<String> {
        std::iter::from_fn(|| self.deliveries.next().now_or_never().flatten())
            .find_map(|delivery| delivery.err().map(|error| error.to_string()))
    }

    /// Why the stream of deliveries has ended: with an error, or, after a `basic.cancel`, which gives no reason, without.
    fn ended(&self, error: Option<String>) -> SubscriptionEnd {
        let has_own_timeout = self.queue.announces_timeout();
        match error {
            Some(error) if error.contains("delivery acknowledgement on channel") => SubscriptionEnd::TimedOut,
            Some(error) => SubscriptionEnd::Lost(error),
            None if has_own_timeout && self.handoff.overran(self.shared.budget.settle_within) => {
                SubscriptionEnd::TimedOut
            }
            None => SubscriptionEnd::Cancelled,
        }
    }

    /// Tells the broker what the worker decided, and waits until that is written.
    pub(super) async fn write_settlements(&self) -> Result<(), SubscriptionEnd> {
        let flush = poll_fn(|cx| self.handoff.poll_flush(cx));
        match tokio::time::timeout(self.shared.rpc_timeout, flush).await {
            Ok(result) => result.map_err(SubscriptionEnd::Lost),
            Err(_) => Err(SubscriptionEnd::Lost("settlements could not be written in time".into())),
        }
    }

    /// Hands back what the broker would take back by force, together with the channel and all it holds. What was settled
    /// and not written yet, since a handler blocks its worker's thread, is written here at the latest.
    async fn hand_back_overdue(&mut self) -> Result<(), SubscriptionEnd> {
        if let Poll::Ready(begun) = self.handoff.poll_begin(&mut Context::from_waker(Waker::noop())) {
            begun.map_err(SubscriptionEnd::Lost)?;
        }
        let now = Instant::now();
        let budget = self.shared.budget;
        let unstarted = now.checked_sub(budget.start_within).map(|moment| self.handoff.take_unstarted(Some(moment)));
        let running = now
            .checked_sub(budget.settle_within)
            .and_then(|moment| self.handoff.take_running(Some(moment), &self.shared.kept));
        let overdue: Vec<Delivery> = unstarted.into_iter().flatten().chain(running).collect();
        if overdue.is_empty() {
            return Ok(());
        }
        for delivery in &overdue {
            tracing::warn!(queue = &*self.shared.queue, message_id = delivery.work.envelope.message_id(),
                waited = ?delivery.arrived.elapsed(), consumer_timeout = ?self.shared.options.consumer_timeout,
                "handed back: it cannot be settled before the broker's consumer_timeout");
        }
        self.hand_back(overdue).await
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
            let delivery = Delivery::new(&self.shared.queue, &self.queue, delivery, Instant::now());
            self.handoff.push(&mut vec![delivery]);
        }
        let mut drained = Drained::default();
        let unstarted = self.handoff.take_unstarted(None);
        drained.unstarted += unstarted.len();
        self.hand_back(unstarted).await?;
        loop {
            self.write_settlements().await?;
            if self.handoff.is_idle() {
                break;
            }
            tokio::select! {
                () = self.handoff.changed() => {}
                () = tokio::time::sleep_until(stop.deadline().into()) => {
                    if let Some(delivery) = self.handoff.take_running(None, &self.shared.kept) {
                        self.hand_back(vec![delivery]).await?;
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

    /// Settlements that the broker never got. It will give the messages out again; the finished ones need no new run.
    fn detach(&mut self) {
        let Shared { metrics, kept, .. } = &*self.shared;
        let lost = |settled: Settled, counter: &Counter| {
            counter.increment(1);
            if settled.verdict == Verdict::Ack {
                kept.keep(&settled.delivery.work, KeptResult::Settled);
            }
        };
        let Unwritten { on_write, on_channel } = self.handoff.detach(kept);
        for settled in on_write {
            lost(settled, &metrics.lost_on_write);
        }
        for settled in on_channel {
            lost(settled, &metrics.lost_on_channel);
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Also when the task was aborted: the worker must not settle on a channel that is gone.
        self.detach();
    }
}

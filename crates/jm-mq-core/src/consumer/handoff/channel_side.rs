//! What a channel does with its worker's handoff: brings deliveries, writes settlements, and takes back what is not ours.

use std::{
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::{Handoff, Hold, Order, Running, Settled, Unwritten};
use crate::{
    consumer::{
        flusher,
        kept::{KeptResults, Promise},
        writer::Writer,
    },
    envelope::{Delivery, Work},
};

/// The broker's word about a delivery that was held for too long is here by then.
const MOMENT: Duration = Duration::from_secs(10);

impl Handoff {
    /// A new channel, whose settlements go to this writer.
    pub(in crate::consumer) fn attach(&self, writer: Writer) {
        *self.writer() = Some(writer);
        self.state().order = None;
    }

    /// Tells the channel's task what is wanted of it. A drain is never taken back.
    pub(in crate::consumer) fn give_order(&self, order: Order) {
        let mut state = self.state();
        if state.order != Some(Order::Drain) {
            state.order = Some(order);
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(in crate::consumer) fn order(&self) -> Option<Order> {
        self.state().order
    }

    /// Deliveries have arrived.
    pub(in crate::consumer) fn push(&self, deliveries: &mut Vec<Delivery>) {
        if let Some(writer) = self.writer().as_mut() {
            for delivery in &*deliveries {
                writer.arrived(delivery.tag);
            }
        }
        let mut state = self.state();
        if let Some(newest) = deliveries.last().map(|delivery| delivery.arrived) {
            let before = state.last_arrival.replace(newest);
            state.in_a_stream = before.is_some_and(|before| newest.duration_since(before) < flusher::PERIOD);
        }
        state.buffer.extend(deliveries.drain(..));
        drop(state);
        self.work.notify_one();
    }

    /// Resolves when there may be settlements left to write, an order, or, in a drain, a worker that has become idle.
    pub(in crate::consumer) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Begins to write what is settled. Ready when nothing waits for that any more.
    pub(in crate::consumer) fn poll_begin(&self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.with_writer(|writer| writer.poll_begin(cx))
    }

    /// Ready when all that is settled is written.
    pub(in crate::consumer) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.with_writer(|writer| writer.poll_flush(cx))
    }

    fn with_writer<T>(&self, act: impl FnOnce(&mut Writer) -> Poll<Result<T, String>>) -> Poll<Result<T, String>> {
        match self.writer().as_mut() {
            Some(writer) => {
                self.collect(writer);
                act(writer)
            }
            None => Poll::Ready(Err("the channel is gone".into())),
        }
    }

    /// Settles a delivery that was taken from its worker, after everything that was settled before.
    pub(in crate::consumer) fn settle(&self, settled: Settled) {
        if let Some(writer) = self.writer().as_mut() {
            self.collect(writer);
            writer.add([settled]);
        }
    }

    /// The worker starts nothing any more, and stops waiting between runs.
    pub(in crate::consumer) fn stop(&self) {
        self.state().stopped = true;
        self.work.notify_one();
        self.interrupt.notify_one();
    }

    /// Takes what was not started, all of it or what arrived before a moment.
    pub(in crate::consumer) fn take_unstarted(&self, arrived_before: Option<Instant>) -> Vec<Delivery> {
        let mut state = self.state();
        let old = |delivery: &Delivery| arrived_before.is_none_or(|moment| delivery.arrived <= moment);
        // They arrived in order.
        let count = state.buffer.iter().take_while(|delivery| old(delivery)).count();
        state.buffer.drain(..count).collect()
    }

    /// Takes the delivery that is being worked on, if it is ours and arrived before a moment, to return it to the queue. The
    /// work goes on, and its result is kept.
    pub(in crate::consumer) fn take_running(
        &self,
        arrived_before: Option<Instant>,
        kept: &KeptResults,
    ) -> Option<Delivery> {
        self.take_running_for(arrived_before, |work| kept.promise_return(work))
    }

    fn take_running_for(
        &self,
        arrived_before: Option<Instant>,
        promise: impl FnOnce(&Work) -> Promise,
    ) -> Option<Delivery> {
        let mut state = self.state();
        let running = state.running.as_mut()?;
        if arrived_before.is_some_and(|moment| running.arrived > moment) || matches!(running.hold, Hold::TakenBack(_)) {
            return None;
        }
        let taken = std::mem::replace(&mut running.hold, Hold::TakenBack(promise(&running.work)));
        drop(state);
        self.interrupt.notify_one();
        match taken {
            Hold::Ours(delivery) => Some(delivery),
            Hold::TakenBack(_) => None,
        }
    }

    /// The channel is gone: what it had brought belongs to the broker again.
    pub(in crate::consumer) fn detach(&self, kept: &KeptResults) -> Unwritten {
        let writer = self.writer().take();
        drop(self.take_running_for(None, |work| kept.promise(work)));
        drop(self.take_unstarted(None));
        let on_write = writer.map(|mut writer| {
            // What was written and not looked at since then is not lost.
            drop(writer.poll_flush(&mut Context::from_waker(Waker::noop())));
            writer.into_unwritten().collect()
        });
        Unwritten { on_write: on_write.unwrap_or_default(), on_channel: std::mem::take(&mut self.state().settled) }
    }

    /// Takes back what is worked on if its channel is dead, although the channel's own task may not have noticed yet.
    pub(in crate::consumer) fn take_running_of_dead_channel(&self, kept: &KeptResults) {
        let dead = |running: &Running| matches!(&running.hold, Hold::Ours(delivery) if delivery.acker.poisoned());
        if self.state().running.as_ref().is_some_and(dead) {
            drop(self.take_running_for(None, |work| kept.promise(work)));
        }
    }

    /// Whether the worker works on nothing that is ours, and nothing waits to be written.
    pub(in crate::consumer) fn is_idle(&self) -> bool {
        let state = self.state();
        let ours = state.running.as_ref().is_some_and(|running| matches!(running.hold, Hold::Ours(_)));
        let idle = !ours && state.settled.is_empty();
        drop(state);
        // In this order: what is settled is always to be seen in one of the two.
        idle && self.writer().as_ref().is_none_or(Writer::is_done)
    }

    /// Whether a delivery is held for longer than this, or was a moment ago.
    pub(in crate::consumer) fn overran(&self, settle_within: Duration) -> bool {
        let settled = self.writer().as_ref().and_then(Writer::overran);
        settled.is_some_and(|at| at.elapsed() < MOMENT)
            || self.oldest().is_some_and(|arrived| arrived.elapsed() >= settle_within)
    }

    /// When the oldest delivery arrived that is not settled.
    pub(in crate::consumer) fn oldest(&self) -> Option<Instant> {
        let state = self.state();
        let running = state.running.as_ref().filter(|running| matches!(running.hold, Hold::Ours(_)));
        running.map(|running| running.arrived).or_else(|| state.buffer.front().map(|delivery| delivery.arrived))
    }
}

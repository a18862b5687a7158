//! Where a worker and its channel meet: deliveries go one way, settlements the other.
//!
//! A worker outlives channels, since what it runs goes on when a connection is lost. So a delivery that is being
//! worked on can be *taken back* behind the worker's back, by a lost channel, a drain's deadline or the time budget:
//! the worker's result is then kept for when the message returns, and not sent to the broker.
//!
//! Whoever has a settlement hands it to the connection himself, under the writer's lock: the worker that made it, or the
//! channel's task. Only where another one is still being written, the channel's task is told to go on with it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

use futures_util::future::poll_fn;
use tokio::sync::Notify;

use super::{
    kept::{KeptResult, KeptResults, Promise},
    writer::Writer,
};
use crate::envelope::{Delivery, Work};

/// What the broker is told of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ack,
    /// `nack(requeue=true)`.
    Requeue,
    /// `nack(requeue=false)`: to the dead-letter policy.
    Reject,
}

/// A delivery that is done with, on its way to the broker.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) delivery: Delivery,
    pub(super) verdict: Verdict,
}

/// See the module. Each of the three signals has one waiter at most, so a permit is enough.
#[derive(Debug, Default)]
pub(super) struct Handoff {
    state: Mutex<State>,
    /// The present channel's. Locked before the state, where both are.
    writer: Mutex<Option<Writer>>,
    /// For the worker: there may be something to start, or nothing ever again.
    work: Notify,
    /// For the worker between two runs: it may be pointless to go on.
    interrupt: Notify,
    /// For the channel: there is something left to write, an order, or a drain goes on.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Received and not started, oldest first.
    buffer: VecDeque<Delivery>,
    running: Option<Running>,
    /// Settled and not yet written, oldest first.
    settled: Vec<Settled>,
    /// Nothing is started any more: the consumer is draining.
    stopped: bool,
    /// The present work has waited for something, so that its settlement is written at once.
    waited: bool,
    order: Option<Order>,
}

/// What a group wants of its channels' tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Another channel has ended, and with it the group.
    End,
    /// The consumer stops.
    Drain,
}

#[derive(Debug)]
struct Running {
    work: Work,
    arrived: Instant,
    hold: Hold,
}

/// Whose the message is that a worker works on.
#[derive(Debug)]
enum Hold {
    /// Ours, to be settled on the channel it came by.
    Ours(Delivery),
    /// The broker has it back, or will have; the result is kept.
    TakenBack(Promise),
}

/// The settlements that the broker never got.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// They were with the connection, or about to be.
    pub(super) on_write: Vec<Settled>,
    /// Nobody had begun to write them.
    pub(super) on_channel: Vec<Settled>,
}

/// What has become of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    /// The channel will write it.
    Settled,
    /// The message was taken back; the result is kept if there is one.
    TakenBack,
}

impl Handoff {
    fn state(&self) -> MutexGuard<'_, State> {
        // No method leaves the state half-changed, and none of them calls foreign code.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- the worker's side ---

    /// The next delivery to work on; `None` once the consumer is draining. A worker without work has all its
    /// settlements written first.
    pub(super) async fn next(&self) -> Option<Work> {
        let mut looked_again = false;
        loop {
            let changed = self.work.notified();
            let unwritten = {
                let mut state = self.state();
                if state.stopped {
                    return None;
                }
                if let Some(delivery) = state.buffer.pop_front() {
                    let work = delivery.work.clone();
                    let arrived = delivery.arrived;
                    state.running = Some(Running { work: work.clone(), arrived, hold: Hold::Ours(delivery) });
                    state.waited = false;
                    return Some(work);
                }
                !state.settled.is_empty()
            };
            if unwritten && !looked_again {
                // The next delivery may be here already, with its channel's task waiting for this thread: one frame for
                // both.
                let_others_run().await;
                looked_again = true;
                continue;
            }
            if unwritten {
                self.write();
            }
            changed.await;
            looked_again = false;
        }
    }

    /// The present work waits for something: nothing that is settled waits for it any longer.
    pub(super) fn waits(&self) {
        self.state().waited = true;
        self.write_settled();
    }

    /// Writes what is settled.
    pub(super) fn write_settled(&self) {
        let unwritten = !self.state().settled.is_empty();
        if unwritten {
            self.write();
        }
    }

    /// Ends the present work. `result` is what to keep if the message is not ours any more; with none it is run again.
    pub(super) fn finish(&self, verdict: Verdict, result: Option<KeptResult>) -> Finished {
        self.end(verdict, result, None)
    }

    /// Gives the message back to the queue, with its result kept for when it returns to this process.
    pub(super) fn hand_back(&self, result: KeptResult, kept: &KeptResults) -> Finished {
        self.end(Verdict::Requeue, Some(result), Some(kept))
    }

    fn end(&self, verdict: Verdict, result: Option<KeptResult>, for_its_return: Option<&KeptResults>) -> Finished {
        let mut state = self.state();
        let Some(running) = state.running.take() else { unreachable!("a worker finishes what it was given, once") };
        match running.hold {
            Hold::Ours(delivery) => {
                // Before the broker hears of it: the message may be back in no time.
                if let (Some(kept), Some(result)) = (for_its_return, result) {
                    kept.keep(&delivery.work, result);
                }
                state.settled.push(Settled { delivery, verdict });
                // The worker looks for its next delivery at once, and writes this settlement if there is none. Acks of
                // what is done in no time become one frame.
                let waits = verdict == Verdict::Ack && !state.waited && !state.stopped;
                drop(state);
                if !waits {
                    self.write();
                }
                Finished::Settled
            }
            Hold::TakenBack(promise) => {
                drop(state);
                if let Some(result) = result {
                    promise.fulfil(result);
                }
                self.changed.notify_one();
                Finished::TakenBack
            }
        }
    }

    /// Hands what is settled to the connection. What has to wait, since another settlement is just being written, and
    /// what has failed, is left to the channel's task.
    fn write(&self) {
        let mut writer = self.writer();
        let left = match writer.as_mut() {
            Some(writer) => {
                self.collect(writer);
                let begun = writer.poll_begin(&mut Context::from_waker(Waker::noop()));
                !matches!(begun, Poll::Ready(Ok(())))
            }
            None => true,
        };
        drop(writer);
        // A drain waits for the worker to become idle.
        if left || self.state().stopped {
            self.changed.notify_one();
        }
    }

    /// Moves the settlements to their writer, in the order in which they were made.
    fn collect(&self, writer: &mut Writer) {
        writer.add(self.state().settled.drain(..));
    }

    /// Leaves a message that was taken back to somebody else, who takes over the duty to say how its run has ended.
    /// `None`, and nothing happens, if the message is ours.
    pub(super) fn leave(&self) -> Option<Promise> {
        let mut state = self.state();
        match state.running.take() {
            Some(Running { hold: Hold::TakenBack(promise), .. }) => {
                drop(state);
                self.changed.notify_one();
                Some(promise)
            }
            ours => {
                state.running = ours;
                None
            }
        }
    }

    /// The worker's own code failed in the middle of its work: the message goes back, whatever had come of it.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        if let Some(Running { hold: Hold::Ours(delivery), .. }) = state.running.take() {
            state.settled.push(Settled { delivery, verdict: Verdict::Requeue });
        }
        drop(state);
        self.write();
    }

    /// Whether the message that the worker works on is not ours any more.
    pub(super) fn is_taken_back(&self) -> bool {
        self.state().running.as_ref().is_some_and(|running| matches!(running.hold, Hold::TakenBack(_)))
    }

    /// Whether there is no use in another run: the message was taken back, or we are draining.
    pub(super) fn is_interrupted(&self) -> bool {
        self.state().stopped || self.is_taken_back()
    }

    /// Resolves when there is no use in waiting for another run.
    pub(super) async fn interrupted(&self) {
        loop {
            let changed = self.interrupt.notified();
            if self.is_interrupted() {
                return;
            }
            changed.await;
        }
    }

    // --- the channel's side ---

    /// A new channel, whose settlements go to this writer.
    pub(super) fn attach(&self, writer: Writer) {
        *self.writer() = Some(writer);
        self.state().order = None;
    }

    /// Tells the channel's task what is wanted of it. A drain is never taken back.
    pub(super) fn give_order(&self, order: Order) {
        let mut state = self.state();
        if state.order != Some(Order::Drain) {
            state.order = Some(order);
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn order(&self) -> Option<Order> {
        self.state().order
    }

    /// Deliveries have arrived.
    pub(super) fn push(&self, deliveries: &mut Vec<Delivery>) {
        if let Some(writer) = self.writer().as_mut() {
            for delivery in &*deliveries {
                writer.arrived(delivery.tag);
            }
        }
        self.state().buffer.extend(deliveries.drain(..));
        self.work.notify_one();
    }

    /// Resolves when there may be settlements left to write, an order, or, in a drain, a worker that has become idle.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Begins to write what is settled. Ready when nothing waits for that any more.
    pub(super) fn poll_begin(&self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.with_writer(|writer| writer.poll_begin(cx))
    }

    /// Ready when all that is settled is written.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
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

    /// Gives deliveries back to the queue, after everything that was settled before.
    pub(super) fn requeue(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        if let Some(writer) = self.writer().as_mut() {
            self.collect(writer);
            writer.add(deliveries.into_iter().map(|delivery| Settled { delivery, verdict: Verdict::Requeue }));
        }
    }

    /// The worker starts nothing any more, and stops waiting between runs.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.work.notify_one();
        self.interrupt.notify_one();
    }

    /// Takes what was not started, all of it or what arrived before a moment.
    pub(super) fn take_unstarted(&self, arrived_before: Option<Instant>) -> Vec<Delivery> {
        let mut state = self.state();
        let old = |delivery: &Delivery| arrived_before.is_none_or(|moment| delivery.arrived <= moment);
        // They arrived in order.
        let count = state.buffer.iter().take_while(|delivery| old(delivery)).count();
        state.buffer.drain(..count).collect()
    }

    /// Takes the delivery that is being worked on, if it is ours and arrived before a moment. The work goes on, and
    /// its result is kept.
    pub(super) fn take_running(&self, arrived_before: Option<Instant>, kept: &KeptResults) -> Option<Delivery> {
        let mut state = self.state();
        let running = state.running.as_mut()?;
        if arrived_before.is_some_and(|moment| running.arrived > moment) || matches!(running.hold, Hold::TakenBack(_)) {
            return None;
        }
        let taken = std::mem::replace(&mut running.hold, Hold::TakenBack(kept.promise(&running.work)));
        drop(state);
        self.interrupt.notify_one();
        match taken {
            Hold::Ours(delivery) => Some(delivery),
            Hold::TakenBack(_) => None,
        }
    }

    /// The channel is gone: what it had brought belongs to the broker again.
    pub(super) fn detach(&self, kept: &KeptResults) -> Unwritten {
        let writer = self.writer().take();
        drop(self.take_running(None, kept));
        drop(self.take_unstarted(None));
        let on_write = writer.map(|mut writer| {
            // What was written and not looked at since then is not lost.
            drop(writer.poll_flush(&mut Context::from_waker(Waker::noop())));
            writer.into_unwritten().collect()
        });
        Unwritten { on_write: on_write.unwrap_or_default(), on_channel: std::mem::take(&mut self.state().settled) }
    }

    /// Takes back what is worked on if its channel is dead, although the channel's own task may not have noticed yet.
    pub(super) fn take_running_of_dead_channel(&self, kept: &KeptResults) {
        let dead = |running: &Running| matches!(&running.hold, Hold::Ours(delivery) if delivery.acker.poisoned());
        if self.state().running.as_ref().is_some_and(dead) {
            drop(self.take_running(None, kept));
        }
    }

    /// Whether the worker works on nothing that is ours, and nothing waits to be written.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        let ours = state.running.as_ref().is_some_and(|running| matches!(running.hold, Hold::Ours(_)));
        let idle = !ours && state.settled.is_empty();
        drop(state);
        // In this order: what is settled is always to be seen in one of the two.
        idle && self.writer().as_ref().is_none_or(Writer::is_done)
    }

    /// When the oldest delivery arrived that is not settled.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let state = self.state();
        let running = state.running.as_ref().filter(|running| matches!(running.hold, Hold::Ours(_)));
        running.map(|running| running.arrived).or_else(|| state.buffer.front().map(|delivery| delivery.arrived))
    }
}

/// Goes to the end of this thread's queue, once.
async fn let_others_run() {
    let mut ran = false;
    poll_fn(|cx| {
        if ran {
            return Poll::Ready(());
        }
        ran = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;

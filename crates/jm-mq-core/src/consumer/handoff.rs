//! Where a worker and its channel meet: deliveries go one way, settlements the other.
//!
//! A worker outlives channels, since what it runs goes on when a connection is lost. So a delivery that is being
//! worked on can be *taken back* behind the worker's back, by a lost channel, a drain's deadline or the time budget:
//! the worker's result is then kept for when the message returns, and not sent to the broker.
//!
//! Whoever has a settlement hands it to the connection himself, under the writer's lock: the worker that made it, the
//! flusher, or the channel's task. Only where another one is still being written, the channel's task is told to go on.

mod channel_side;
mod worker_side;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Instant,
};

use tokio::sync::Notify;

use super::{
    flusher::{self, Flusher},
    kept::Promise,
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
    /// So many acks are written at once; fewer wait for each other, and the flusher sees to those.
    enough: usize,
    flusher: Arc<Flusher>,
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
    /// When the last delivery came, and whether another had come shortly before it.
    last_arrival: Option<Instant>,
    in_a_stream: bool,
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
    /// Of a worker with this prefetch.
    pub(super) fn new(prefetch: u16, flusher: Arc<Flusher>) -> Self {
        Self { enough: flusher::enough(prefetch), flusher, ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No method leaves the state half-changed, and none of them calls foreign code.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is settled, and what another settlement was in the way of.
    pub(super) fn write_settled(&self) {
        let waiting = self.writer().as_ref().is_some_and(Writer::has_waiting);
        if waiting || !self.state().settled.is_empty() {
            self.write();
        }
    }

    /// Hands what is settled to the connection. What has to wait, since another settlement is just being written, is left to
    /// the channel's task, and to the flusher, since handlers may block the task's thread. What has failed is left to the
    /// task alone.
    fn write(&self) {
        let mut writer = self.writer();
        let begun = writer.as_mut().map(|writer| {
            self.collect(writer);
            writer.begin_what_can_be()
        });
        drop(writer);
        if begun.as_ref().is_some_and(Poll::is_pending) {
            self.flusher.held();
        }
        // A drain waits for the worker to become idle.
        if !matches!(begun, Some(Poll::Ready(Ok(())))) || self.state().stopped {
            self.changed.notify_one();
        }
    }

    /// Moves the settlements to their writer, in the order in which they were made.
    fn collect(&self, writer: &mut Writer) {
        writer.add(self.state().settled.drain(..));
    }
}

#[cfg(test)]
mod tests;

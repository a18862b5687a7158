//! Where a worker and its channel meet: deliveries go one way, settlements the other.
//!
//! A worker outlives channels, since what it runs goes on when a connection is lost. So a delivery that is being
//! worked on can be *taken back* behind the worker's back, by a lost channel, a drain's deadline or the time budget:
//! the worker's result is then kept for when the message returns, and not sent to the broker.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::Notify;

use super::kept::{KeptResult, KeptResults, Promise};
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
    /// For the worker: there may be something to start, or nothing ever again.
    work: Notify,
    /// For the worker between two runs: it may be pointless to go on.
    interrupt: Notify,
    /// For the channel: there is something to write, or the worker is idle.
    settled: Notify,
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

    // --- the worker's side ---

    /// The next delivery to work on; `None` once the consumer is draining.
    pub(super) async fn next(&self) -> Option<Work> {
        loop {
            let changed = self.work.notified();
            {
                let mut state = self.state();
                if state.stopped {
                    return None;
                }
                if let Some(delivery) = state.buffer.pop_front() {
                    let work = delivery.work.clone();
                    let arrived = delivery.arrived;
                    state.running = Some(Running { work: work.clone(), arrived, hold: Hold::Ours(delivery) });
                    return Some(work);
                }
            }
            changed.await;
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
        let finished = match running.hold {
            Hold::Ours(delivery) => {
                // Before the broker hears of it: the message may be back in no time.
                if let (Some(kept), Some(result)) = (for_its_return, result) {
                    kept.keep(&delivery.work, result);
                }
                state.settled.push(Settled { delivery, verdict });
                Finished::Settled
            }
            Hold::TakenBack(promise) => {
                if let Some(result) = result {
                    promise.fulfil(result);
                }
                Finished::TakenBack
            }
        };
        drop(state);
        self.settled.notify_one();
        finished
    }

    /// Leaves a message that was taken back to somebody else, who takes over the duty to say how its run has ended.
    /// `None`, and nothing happens, if the message is ours.
    pub(super) fn leave(&self) -> Option<Promise> {
        let mut state = self.state();
        match state.running.take() {
            Some(Running { hold: Hold::TakenBack(promise), .. }) => {
                drop(state);
                self.settled.notify_one();
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
        self.settled.notify_one();
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

    /// A delivery has arrived.
    pub(super) fn push(&self, delivery: Delivery) {
        self.state().buffer.push_back(delivery);
        self.work.notify_one();
    }

    /// Resolves when there may be settlements to write, or the worker has become idle.
    pub(super) async fn changed(&self) {
        self.settled.notified().await;
    }

    /// The settlements to write, in the order in which they were made.
    pub(super) fn take_settled(&self) -> Vec<Settled> {
        std::mem::take(&mut self.state().settled)
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

    /// The channel is gone: what it had brought belongs to the broker again. Returns the settlements that the broker
    /// never got.
    pub(super) fn detach(&self, kept: &KeptResults) -> Vec<Settled> {
        drop(self.take_running(None, kept));
        drop(self.take_unstarted(None));
        self.take_settled()
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
        !ours && state.settled.is_empty()
    }

    /// When the oldest delivery arrived that is not settled.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let state = self.state();
        let running = state.running.as_ref().filter(|running| matches!(running.hold, Hold::Ours(_)));
        running.map(|running| running.arrived).or_else(|| state.buffer.front().map(|delivery| delivery.arrived))
    }
}

#[cfg(test)]
mod tests;

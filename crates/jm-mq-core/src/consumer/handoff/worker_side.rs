//! What a worker does with its handoff: takes deliveries, and says what became of them.

use std::{future::poll_fn, task::Poll};

use super::{Finished, Handoff, Hold, Running, Settled, Verdict};
use crate::{
    consumer::kept::{KeptResult, KeptResults, Promise},
    envelope::Work,
};

impl Handoff {
    /// The next delivery to work on; `None` once the consumer is draining. A worker without work has its settlements
    /// written first.
    pub(in crate::consumer) async fn next(&self) -> Option<Work> {
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

    /// Ends the present work. `result` is what to keep if the message is not ours any more; with none it is run again.
    pub(in crate::consumer) fn finish(&self, verdict: Verdict, result: Option<KeptResult>) -> Finished {
        self.end(verdict, result, None)
    }

    /// Gives the message back to the queue, with its result kept for when it returns to this process.
    pub(in crate::consumer) fn hand_back(&self, result: KeptResult, kept: &KeptResults) -> Finished {
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
                let more_to_come = state.in_a_stream || !state.buffer.is_empty();
                let few = state.settled.len() < self.enough;
                let waits = verdict == Verdict::Ack && more_to_come && few && !state.stopped;
                drop(state);
                if waits {
                    self.flusher.held();
                } else {
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

    /// Leaves a message that was taken back to somebody else, who takes over the duty to say how its run has ended.
    /// `None`, and nothing happens, if the message is ours.
    pub(in crate::consumer) fn leave(&self) -> Option<Promise> {
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
    pub(in crate::consumer) fn abandon(&self) {
        let mut state = self.state();
        if let Some(Running { hold: Hold::Ours(delivery), .. }) = state.running.take() {
            state.settled.push(Settled { delivery, verdict: Verdict::Requeue });
        }
        drop(state);
        self.write();
    }

    /// Whether the message that the worker works on is not ours any more.
    pub(in crate::consumer) fn is_taken_back(&self) -> bool {
        self.state().running.as_ref().is_some_and(|running| matches!(running.hold, Hold::TakenBack(_)))
    }

    /// Whether there is no use in another run: the message was taken back, or we are draining.
    pub(in crate::consumer) fn is_interrupted(&self) -> bool {
        self.state().stopped || self.is_taken_back()
    }

    /// Resolves when there is no use in waiting for another run.
    pub(in crate::consumer) async fn interrupted(&self) {
        loop {
            let changed = self.interrupt.notified();
            if self.is_interrupted() {
                return;
            }
            changed.await;
        }
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

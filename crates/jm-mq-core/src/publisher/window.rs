//! The messages of a batch that are under way: handed to the connection, and not confirmed yet.
//!
//! The connection can tell of each write and of each confirm, but a wake-up for each costs more than the message. So one
//! message is waited for, as a rule in the middle of the window, and the others are looked at when that one is done.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use lapin::{Confirmation, PublisherConfirm};

/// Messages written but not confirmed, at most: enough to hide the round trip, and little memory.
const FULL: usize = 128;
/// Where writing goes on once the window was full: many messages in one write cost client and broker less than one now
/// and one then.
const REFILL: usize = FULL / 2;

/// A message's number, and the broker's answer.
pub(super) type Answered = (usize, lapin::Result<Confirmation>);

/// See the module. `W` hands a message to the connection when it is polled for the first time, and is ready when the
/// message was written.
pub(super) struct Window<W> {
    writes: VecDeque<(usize, Pin<Box<W>>)>,
    confirms: VecDeque<(usize, PublisherConfirm)>,
    answered: Vec<Answered>,
}

impl<W: Future<Output = lapin::Result<PublisherConfirm>>> Window<W> {
    pub(super) fn new() -> Self {
        Self { writes: VecDeque::new(), confirms: VecDeque::new(), answered: Vec::new() }
    }

    /// How many more messages may be begun now.
    pub(super) fn room(&self) -> usize {
        let under_way = self.len();
        if under_way > REFILL { 0 } else { FULL - under_way }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.writes.len() + self.confirms.len() + self.answered.len()
    }

    /// Hands a message to the connection.
    pub(super) fn begin(&mut self, n: usize, write: W) {
        let mut write = Box::pin(write);
        match write.as_mut().poll(&mut unwoken()) {
            Poll::Ready(written) => self.written(n, written),
            Poll::Pending => self.writes.push_back((n, write)),
        }
    }

    /// Waits until something was answered, and returns all that was, unless the window is empty. Nothing is lost when this
    /// is dropped.
    pub(super) async fn answers(&mut self) -> Vec<Answered> {
        poll_fn(|cx| self.poll_answers(cx)).await;
        mem::take(&mut self.answered)
    }

    /// All that is answered by now. The rest is given up.
    pub(super) fn last_answers(mut self) -> Vec<Answered> {
        self.look_at_writes();
        self.look_at_confirms(self.confirms.len());
        self.answered
    }

    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.answered.is_empty() {
            if let Some(last) = self.confirms.len().checked_sub(1) {
                let half = last.min(REFILL - 1);
                let (n, confirm) = &mut self.confirms[half];
                let answered = (*n, ready!(Pin::new(confirm).poll(cx)));
                drop(self.confirms.remove(half));
                // As a rule confirms come in order. Those that do not are waited for in their turn.
                self.look_at_confirms(half);
                self.answered.push(answered);
                self.look_at_writes();
            } else if let Some((n, write)) = self.writes.back_mut() {
                let (n, written) = (*n, ready!(write.as_mut().poll(cx)));
                drop(self.writes.pop_back());
                self.look_at_writes();
                self.written(n, written);
            } else {
                break;
            }
        }
        Poll::Ready(())
    }

    /// They are written in their order.
    fn look_at_writes(&mut self) {
        while let Some((n, write)) = self.writes.front_mut() {
            let (n, Poll::Ready(written)) = (*n, write.as_mut().poll(&mut unwoken())) else { break };
            drop(self.writes.pop_front());
            self.written(n, written);
        }
    }

    fn written(&mut self, n: usize, written: lapin::Result<PublisherConfirm>) {
        match written {
            Ok(confirm) => self.confirms.push_back((n, confirm)),
            Err(error) => self.answered.push((n, Err(error))),
        }
    }

    /// Looks at the first `count` of the confirms.
    fn look_at_confirms(&mut self, count: usize) {
        for _ in 0..count {
            let Some((n, mut confirm)) = self.confirms.pop_front() else { break };
            match Pin::new(&mut confirm).poll(&mut unwoken()) {
                Poll::Ready(answer) => self.answered.push((n, answer)),
                Poll::Pending => self.confirms.push_back((n, confirm)),
            }
        }
    }
}

/// For what is looked at, and not waited for.
fn unwoken() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

//! Writes the acks that wait for company, soon and whatever their workers do.
//!
//! While a worker has more to do, its acks wait for each other: written as one they cost client and broker a fraction. It
//! writes them when half of its prefetch is done, and when it finds nothing else to do. What waits behind a handler that
//! takes its time is written from here: from a thread that no handler can block.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::handoff::Handoff;

/// The longest that an ack waits for others, as far as timers are exact. Deliveries that come closer together are a stream.
pub(super) const PERIOD: Duration = Duration::from_millis(1);

/// How many acks do not wait for more: the broker goes on with these while the other half of the prefetch is worked on.
pub(super) fn enough(prefetch: u16) -> usize {
    usize::from(prefetch).div_ceil(2)
}

/// Tells the flushing task that something waits.
#[derive(Debug, Default)]
pub(super) struct Flusher {
    told: AtomicBool,
    tell: Notify,
}

impl Flusher {
    /// An ack waits. Costs nothing if that is known.
    pub(super) fn held(&self) {
        if !self.told.swap(true, Ordering::SeqCst) {
            self.tell.notify_one();
        }
    }

    /// Looks after the acks of all these, for as long as it is polled.
    pub(super) async fn run(self: Arc<Self>, handoffs: Vec<Arc<Handoff>>) {
        loop {
            self.tell.notified().await;
            tokio::time::sleep(PERIOD).await;
            // Before looking: what is held from now on is told again.
            self.told.store(false, Ordering::SeqCst);
            for handoff in &handoffs {
                handoff.write_settled();
            }
        }
    }
}

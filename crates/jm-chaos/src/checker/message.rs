//! What is known of one message: how often it was written, delivered, run and settled, and by which process.

/// A message.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// A publisher said that it is about to publish it.
    pub(super) intended: bool,
    /// A publisher was told that it is confirmed.
    pub(super) accepted: bool,
    /// Confirms for it that came by its process's tap.
    pub(super) confirmed: u16,
    /// Times it was written to its queue.
    pub(super) published: u16,
    /// Of these, those that nobody needed: it had been confirmed to the same process.
    pub(super) needless: u16,
    pub(super) deliveries: u16,
    pub(super) requeued: u16,
    /// Of these, those of a message that had been done.
    pub(super) requeued_done: u16,
    /// Deliveries whose channel ended before they were settled.
    pub(super) lost: u16,
    pub(super) acked: u16,
    /// Acks that the broker may never have got.
    pub(super) at_risk: u16,
    pub(super) dead_published: u16,
    /// Copies among the dead letters.
    pub(super) dead: u16,
    pub(super) dead_as_poison: bool,
    /// Copies in the queue at the end.
    pub(super) waiting: u16,
    pub(super) by: Vec<ByProcess>,
}

/// What one process did with a message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ByProcess {
    process: u32,
    pub(super) deliveries: u16,
    pub(super) runs: u16,
    pub(super) successes: u16,
    pub(super) confirms: u16,
    /// By which connection the latest confirm came, and when.
    pub(super) confirmed_by: (u32, u64),
    pub(super) dead_confirmed: bool,
    /// Confirmed copies by which it put the message back into its own queue instead of returning the delivery.
    pub(super) copies_confirmed: u16,
    /// Of these, those whose delivery has been acked since.
    pub(super) copies_acked: u16,
    /// Where its latest delivery came by.
    pub(super) connection: u32,
    pub(super) channel: u16,
}

impl Message {
    pub(super) fn successes(&self) -> u16 {
        self.by.iter().map(|by| by.successes).sum()
    }

    pub(super) fn by(&self, process: u32) -> ByProcess {
        self.by.iter().find(|by| by.process == process).copied().unwrap_or_default()
    }

    pub(super) fn by_mut(&mut self, process: u32) -> &mut ByProcess {
        let found = self.by.iter().position(|by| by.process == process);
        let index = found.unwrap_or_else(|| {
            self.by.push(ByProcess { process, ..ByProcess::default() });
            self.by.len() - 1
        });
        &mut self.by[index]
    }
}

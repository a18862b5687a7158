//! Reads a history from its beginning to its end, and says which of the eleven invariants held.
//!
//! One pass in the order of time. In memory are the messages (some 200 bytes each, so 200 MB for a million), the
//! connections with what is unsettled on them, and the acks of the last half minute; never the history itself.
//!
//! Each invariant is a function in `rules`, named after it.

mod faults;
mod findings;
mod ledger;
mod message;
mod rules;
mod verdict;

pub use faults::Recovery;
pub use findings::{Finding, Invariant};
pub use verdict::{Invariants, Totals, Verdict};

use std::{io, path::Path};

use self::{faults::Faults, findings::Findings, ledger::Ledger};
use crate::{
    history::{Event, Merge, What},
    report::Timeline,
};

/// Reads events, and finds what must not be.
#[derive(Debug)]
pub struct Checker {
    seed: u64,
    ledger: Ledger,
    faults: Faults,
    findings: Findings,
    timeline: Timeline,
}

impl Checker {
    /// A checker of a campaign with this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            ledger: Ledger::default(),
            faults: Faults::default(),
            findings: Findings::default(),
            timeline: Timeline::default(),
        }
    }

    /// Checks the history in a folder.
    pub fn check(seed: u64, folder: &Path) -> io::Result<Verdict> {
        let mut history = Merge::of_folder(folder)?;
        let mut checker = Self::new(seed);
        while let Some(event) = history.next_event()? {
            checker.see(event);
        }
        Ok(checker.finish())
    }

    /// Takes the next event. They have to come in the order of time.
    pub fn see(&mut self, event: Event) {
        let Event { at, what } = event;
        self.timeline.see(event);
        self.faults.see(at, what, &self.ledger);
        match what {
            What::SettledBy { connection, channel, tag, multiple, verdict } => {
                let settled = self.ledger.settled(connection, channel, tag, multiple);
                let crossed = settled.is_empty() && self.ledger.crossed(connection, channel, tag);
                self.one_settlement(at, connection, channel, tag, settled.is_empty() && !crossed);
                for delivery in settled {
                    self.ack_order(at, connection, &delivery, verdict);
                    self.ledger.settle(at, connection, &delivery, verdict);
                    self.faults.settled(at, connection, &delivery, &self.ledger);
                }
            }
            What::Closed { connection, channel, code, by_broker } => {
                self.closed_for_a_reason(at, connection, channel, code, by_broker);
                let unsettled = self.ledger.unsettled(connection, Some(channel).filter(|&channel| channel != 0));
                self.drained(at, connection, !by_broker, &unsettled);
                self.ledger.close(at, connection, channel);
            }
            What::Ended { connection, by_client } => {
                let unsettled = self.ledger.unsettled(connection, None);
                self.drained(at, connection, by_client, &unsettled);
                self.ended_for_a_reason(at, connection, &unsettled);
                self.ledger.end(at, connection);
            }
            What::Delivered { connection, channel, tag, id, .. } => {
                self.first_deliveries_in_order(at, connection, id);
                self.ledger.deliver(at, connection, channel, tag, id);
            }
            What::RunBegan { process, id, attempt } => {
                self.ledger.run(process, id);
                self.run_limit(at, process, id, attempt);
                self.in_order(at, process, id, attempt);
                self.started_after_cancel(at, process, id);
            }
            What::Exited { process, code } => {
                self.ended_well(at, process, code);
                self.ledger.see(at, what);
            }
            What::Settled { queue, ready, unacked, consumers } => self.healed(at, queue, ready, unacked, consumers),
            What::Left { queue, ready, unacked } => self.nothing_left(at, queue, ready, unacked),
            What::Dead { queue, id, intact, .. } => {
                self.intact(at, queue, id, intact);
                self.ledger.see(at, what);
            }
            What::FaultBegan { kind, .. } => {
                self.ledger.broker_fault(at, kind);
            }
            _ => self.ledger.see(at, what),
        }
    }

    /// Says what it came to.
    pub fn finish(mut self) -> Verdict {
        self.ledger.end_all();
        self.judge_messages();
        self.judge_queues();
        Verdict::of(self.seed, &self.ledger, self.faults, self.findings, self.timeline)
    }
}

#[cfg(test)]
mod tests;

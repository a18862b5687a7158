//! What happened in each second.

use crate::history::{Event, FaultKind, Outcome, What};

/// Counts by second, from the first event on.
#[derive(Debug, Default)]
pub struct Timeline {
    start: Option<u64>,
    /// Confirms, acks, and the most messages that were seen waiting.
    pub seconds: Vec<Second>,
    /// When each fault began, in seconds.
    pub faults: Vec<(f64, FaultKind)>,
}

/// One second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Second {
    /// Messages that the broker confirmed. One confirm may stand for several: this counts publishers' words too.
    pub confirmed: u64,
    /// Runs of handlers that ended with success.
    pub done: u64,
    /// Messages that waited, by the last look.
    pub waiting: u64,
    looked_at: u64,
}

impl Timeline {
    pub(crate) fn see(&mut self, Event { at, what }: Event) {
        let start = *self.start.get_or_insert(at);
        let micros = at.saturating_sub(start);
        let second = usize::try_from(micros / 1_000_000).unwrap_or_default();
        match what {
            What::Accepted { .. } => self.second(second).confirmed += 1,
            What::RunEnded { outcome: Outcome::Done, .. } => self.second(second).done += 1,
            What::Backlog { ready, .. } => {
                let second = self.second(second);
                // One look tells of all queues at one moment.
                if second.looked_at != at {
                    (second.looked_at, second.waiting) = (at, 0);
                }
                second.waiting += ready;
            }
            What::FaultBegan { kind, .. } => {
                self.faults.push((std::time::Duration::from_micros(micros).as_secs_f64(), kind));
            }
            _ => {}
        }
    }

    fn second(&mut self, second: usize) -> &mut Second {
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, Second::default());
        }
        &mut self.seconds[second]
    }
}

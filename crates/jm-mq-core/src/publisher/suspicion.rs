//! What is known against a message: that the broker closed its connection while it was under way.

use std::time::Duration;

use crate::message::Outgoing;

/// So many connections are closed while the message is the only one under way on each, and it is at fault.
const MAX_CLOSED: u32 = 3;
/// Between two of them, for a message that has to arrive: for a moment a broker in trouble may close every connection.
const LEAST_CLOSED_WAIT: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Suspicion {
    suspected: bool,
    closed_alone: u32,
}

impl Suspicion {
    pub(super) fn is_any(&self) -> bool {
        self.suspected
    }

    /// The broker has closed the connection while the message was under way. The reason to give it up, if there is one now.
    pub(super) fn closed(&mut self, reason: &str) -> Option<String> {
        self.closed_alone += u32::from(self.suspected);
        self.suspected = true;
        (self.closed_alone >= MAX_CLOSED).then(|| {
            format!("the broker closes the connection whenever this message is published, {MAX_CLOSED} times in a row: {reason}")
        })
    }

    /// The shortest wait before the next attempt.
    pub(super) fn least_wait(&self, outgoing: &Outgoing) -> Duration {
        if self.closed_alone > 0 && outgoing.required { LEAST_CLOSED_WAIT } else { Duration::ZERO }
    }
}

//! What must not be, by invariant: all of it counted, some of it kept as examples.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::message::Id;

/// The eleven invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// 1: every confirmed message is processed, queued or dead-lettered.
    NothingLost,
    /// 2: nothing is processed that was not published.
    NothingUnexpected,
    /// 3: nothing is processed twice, unless a fault explains it.
    RepeatsExplained,
    /// 4: an ack comes after the handler's success and its answers' confirms.
    AckLast,
    /// 5: one settlement for each delivery, on the channel it came by.
    OneSettlement,
    /// 6: at most 1 + `max_retry_attempts` runs for each delivery; one, if the error is permanent.
    RunsLimited,
    /// 7: one copy of a dead letter, its body to the byte, and not done elsewhere.
    DeadLettersWhole,
    /// 8: one worker takes first deliveries in order.
    InOrder,
    /// 9: after a drain nothing is unsettled, and no handler starts after `cancel-ok`.
    Drained,
    /// 10: after healing, all queues become empty, and each has a consumer.
    Healed,
    /// 11: no message is taken for poison without as many crashes as the limit is.
    PoisonCrashed,
}

impl Invariant {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::NothingLost,
        Self::NothingUnexpected,
        Self::RepeatsExplained,
        Self::AckLast,
        Self::OneSettlement,
        Self::RunsLimited,
        Self::DeadLettersWhole,
        Self::InOrder,
        Self::Drained,
        Self::Healed,
        Self::PoisonCrashed,
    ];

    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            Self::NothingLost => "every confirmed message is processed, queued or dead-lettered",
            Self::NothingUnexpected => "nothing is processed that was not published",
            Self::RepeatsExplained => "nothing is processed twice without a fault that explains it",
            Self::AckLast => "an ack comes after the handler's success and its answers' confirms",
            Self::OneSettlement => "one settlement for each delivery, on the channel it came by",
            Self::RunsLimited => "at most 1 + max_retry_attempts runs for each delivery, one if the error is permanent",
            Self::DeadLettersWhole => "one copy of a dead letter, its body to the byte, not done elsewhere",
            Self::InOrder => "one worker takes first deliveries in order",
            Self::Drained => "after a drain nothing is unsettled; no handler starts after cancel-ok",
            Self::Healed => "after healing all queues become empty, and each has a consumer",
            Self::PoisonCrashed => "no poison without a crash for each delivery that is held against it",
        }
    }
}

/// Something that must not be.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// When, in microseconds of the history's clock; 0 for what is known only at the end.
    pub at: u64,
    /// Which message, as a number.
    pub message: Option<u64>,
    /// What.
    pub text: String,
}

/// Examples kept of each invariant.
const EXAMPLES: usize = 5;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings(BTreeMap<Invariant, (u64, Vec<Finding>)>);

impl Findings {
    /// Adds one. The text is made only where it is kept.
    pub(super) fn add(&mut self, invariant: Invariant, at: u64, id: Option<Id>, text: impl FnOnce() -> String) {
        let (count, examples) = self.0.entry(invariant).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(Finding { at, message: id.map(Id::get), text: text() });
        }
    }

    pub(super) fn of(&mut self, invariant: Invariant) -> (u64, Vec<Finding>) {
        self.0.remove(&invariant).unwrap_or_default()
    }
}

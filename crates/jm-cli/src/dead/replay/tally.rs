//! What has become of a run's messages, and what they are called.

use std::collections::BTreeMap;

use uuid::Uuid;

/// Different reasons that are remembered.
const MAX_REASONS: usize = 20;

/// What has become of the messages.
#[derive(Debug, Default)]
pub(in crate::dead) struct Tally {
    /// Published, confirmed, and gone from the dead letters.
    pub(in crate::dead) replayed: u64,
    /// In hand when a connection was lost.
    pub(in crate::dead) perhaps_twice: u64,
    /// They were put back by this run and have failed again.
    pub(in crate::dead) came_back: u64,
    /// They stay where they are, for these reasons.
    pub(in crate::dead) left: BTreeMap<String, u64>,
}

impl Tally {
    pub(in crate::dead) fn leave(&mut self, reason: String) {
        let is_told = self.left.len() < MAX_REASONS || self.left.contains_key(&reason);
        let reason = if is_told { reason } else { "other reasons".to_owned() };
        *self.left.entry(reason).or_default() += 1;
    }
}

/// The names of replays: one for the run, and a number for each message.
#[derive(Debug)]
pub(in crate::dead) struct Names {
    pub(in crate::dead) run: String,
    number: u64,
}

impl Names {
    pub(in crate::dead) fn new() -> Self {
        Self { run: Uuid::now_v7().to_string(), number: 0 }
    }

    pub(in crate::dead) fn next(&mut self) -> String {
        self.number += 1;
        format!("{}/{}", self.run, self.number)
    }
}

//! What a history came to.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Finding, Invariant, Recovery, faults::Faults, findings::Findings, ledger::Ledger};
use crate::{
    history::FaultKind,
    message::{Deed, Id},
    report::Timeline,
    secrecy::Secrecy,
};

/// What a history came to.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The campaign's seed.
    pub seed: u64,
    /// The invariants, each with what was found against it.
    pub invariants: Vec<Invariants>,
    /// Whether a secret of the run came out. `None`: not searched.
    pub secrecy: Option<Secrecy>,
    /// Counts.
    pub totals: Totals,
    /// By kind: how many, and how long until work went on.
    pub faults: BTreeMap<FaultKind, Recovery>,
    /// Messages that are faults in themselves, by what they do.
    pub handler_faults: BTreeMap<&'static str, u64>,
    /// For the picture.
    #[serde(skip)]
    pub timeline: Timeline,
}

/// One invariant's outcome.
#[derive(Debug, Serialize)]
pub struct Invariants {
    /// Its number.
    pub number: usize,
    /// Which.
    pub invariant: Invariant,
    /// In words.
    pub label: &'static str,
    /// What was found against it.
    pub violations: u64,
    /// Some of that.
    pub examples: Vec<Finding>,
}

/// Counts over the whole history.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Messages that publishers meant to publish.
    pub messages: u64,
    /// Of these, confirmed by the broker.
    pub confirmed_messages: u64,
    /// Answers of workers that the broker confirmed.
    pub confirmed_answers: u64,
    /// All confirms, those of dead letters and of repeated publishes among them.
    pub confirms: u64,
    /// Deliveries.
    pub deliveries: u64,
    /// Messages and answers that were done at least once.
    pub processed: u64,
    /// Messages with a copy among the dead letters.
    pub dead_lettered: u64,
    /// Of these, those given up since their queue gave them out too often.
    pub poison: u64,
    /// Confirmed and then neither processed nor queued nor dead-lettered.
    pub lost: u64,
    /// Processed and never published.
    pub unexpected: u64,
    /// Successful runs after the first of a message, explained by a fault.
    pub duplicates_explained: u64,
    /// Without an explanation.
    pub duplicates_unexplained: u64,
    /// Copies among the dead letters after the first of a message, explained by a fault.
    pub dead_duplicates: u64,
    /// Messages that came back after a fault and were processed or dead-lettered then.
    pub recovered: u64,
    /// In a queue, ready or unacked, after the healing.
    pub unsettled: u64,
    /// Faults that had something to act on.
    pub faults: u64,
    /// Recovery over all faults, in milliseconds.
    pub recovery_p50_ms: f64,
    /// The same of 99 in 100.
    pub recovery_p99_ms: f64,
    /// The longest.
    pub recovery_max_ms: f64,
}

impl Verdict {
    pub(super) fn of(seed: u64, ledger: &Ledger, faults: Faults, mut findings: Findings, timeline: Timeline) -> Self {
        let invariants: Vec<Invariants> = (1..)
            .zip(Invariant::ALL)
            .map(|(number, invariant)| {
                let (violations, examples) = findings.of(invariant);
                Invariants { number, invariant, label: invariant.label(), violations, examples }
            })
            .collect();
        let mut totals = Totals {
            confirms: ledger.confirms,
            deliveries: ledger.deliveries,
            unsettled: ledger.unsettled_at_the_end,
            lost: invariants[0].violations,
            unexpected: invariants[1].violations,
            duplicates_unexplained: invariants[2].violations,
            ..Totals::default()
        };
        let mut handler_faults = BTreeMap::new();
        for (&id, message) in &ledger.messages {
            let confirmed = u64::from(message.confirmed > 0);
            *(if id.is_answer() { &mut totals.confirmed_answers } else { &mut totals.confirmed_messages }) += confirmed;
            let successes = u64::from(message.successes());
            totals.messages += u64::from(message.intended);
            totals.processed += u64::from(successes > 0);
            totals.dead_lettered += u64::from(message.dead > 0);
            totals.poison += u64::from(message.dead_as_poison);
            totals.duplicates_explained += successes.saturating_sub(1);
            totals.dead_duplicates += u64::from(message.dead.saturating_sub(1));
            let came_back = message.lost + message.at_risk > 0 && message.deliveries > 1;
            totals.recovered += u64::from(came_back && (successes > 0 || message.dead > 0));
            count_deed(&mut handler_faults, seed, id, message.deliveries > 0);
        }
        totals.duplicates_explained = totals.duplicates_explained.saturating_sub(totals.duplicates_unexplained);
        (totals.recovery_p50_ms, totals.recovery_p99_ms, totals.recovery_max_ms) = faults.all();
        let faults = faults.summary();
        totals.faults = faults.values().map(|recovery| recovery.faults).sum();
        Self { seed, invariants, secrecy: None, totals, faults, handler_faults, timeline }
    }

    /// Whether every invariant held, and no secret came out.
    pub fn held(&self) -> bool {
        self.invariants.iter().all(|invariant| invariant.violations == 0)
            && self.secrecy.as_ref().is_none_or(|secrecy| secrecy.found == 0)
    }

    /// What was found against an invariant.
    pub fn violations(&self, invariant: Invariant) -> u64 {
        self.invariants.iter().find(|known| known.invariant == invariant).map_or(0, |known| known.violations)
    }
}

fn count_deed(counts: &mut BTreeMap<&'static str, u64>, seed: u64, id: Id, delivered: bool) {
    let deed = Deed::of(seed, id);
    if delivered && deed.is_fault() {
        *counts.entry(deed.label()).or_default() += 1;
    }
}

//! The faults: what they explain, and how long it took to recover from each.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::ledger::{Delivery, Ledger};
use crate::{
    history::{FaultKind, Role, What},
    plan,
};

/// How long after its healing a fault explains the end of a connection: a peer that fell silent is noticed after two
/// heartbeats of 5 s, a publish ends after 10 s, and a declaration too.
const AFTERMATH: u64 = 30_000_000;

/// All faults of a history.
#[derive(Debug, Default)]
pub(super) struct Faults {
    seen: HashMap<u32, Fault>,
    /// By slot: of which fault, and from when, recovery is waited for; `None` while another fault is not healed yet.
    waiting: HashMap<u8, Vec<(u32, Option<u64>)>>,
    recoveries: BTreeMap<FaultKind, Vec<u64>>,
    superseded: BTreeMap<FaultKind, u64>,
    /// Publishes that were written, by connection, channel and number: when. For the publishers' recovery.
    written: HashMap<(u32, u16, u64), u64>,
    quiet: bool,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    kind: FaultKind,
    slot: u8,
    began: u64,
    healed: Option<u64>,
    void: bool,
}

/// How long recovery took, for one kind of fault.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Recovery {
    /// Faults of the kind that had something to act on.
    pub faults: u64,
    /// Faults that were planned but had nothing to act on. They are not counted.
    pub void: u64,
    /// Processes of which the recovery was measured: all that a fault touched.
    pub measured: u64,
    /// Processes that were hit by another fault before they had recovered: counted with that one.
    pub superseded: u64,
    /// Milliseconds until a delivery that came after the healing was settled, or a message written after it confirmed.
    pub p50_ms: f64,
    /// The same of 99 in 100.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Faults {
    /// Takes in faults and confirms.
    pub(super) fn see(&mut self, at: u64, what: What, ledger: &Ledger) {
        match what {
            What::FaultBegan { fault, kind, slot } => {
                self.seen.insert(fault, Fault { kind, slot, began: at, healed: None, void: false });
                for slot in plan::touched(slot).filter(|_| kind.disturbs_connections()) {
                    for (earlier, _) in self.waiting.remove(&slot).unwrap_or_default() {
                        if let Some(earlier) = self.seen.get(&earlier) {
                            *self.superseded.entry(earlier.kind).or_default() += 1;
                        }
                    }
                }
            }
            What::FaultHealed { fault } => self.healed(at, fault),
            What::FaultVoid { fault } => {
                if let Some(fault) = self.seen.get_mut(&fault) {
                    fault.healed = Some(at);
                    fault.void = true;
                    let slot = fault.slot;
                    self.reachable_again(at, slot);
                }
            }
            What::Quiet {} => {
                self.quiet = true;
                self.waiting.clear();
            }
            What::Published { connection, channel, number, .. }
                if !self.quiet && ledger.process_of(connection).is_some_and(|(_, it)| it.role == Role::Publisher) =>
            {
                self.written.insert((connection, channel, number), at);
            }
            What::Confirmed { connection, channel, number, ok: true, .. } => {
                if let Some(written) = self.written.remove(&(connection, channel, number)) {
                    self.recovered(at, connection, written, ledger);
                }
            }
            What::Ended { connection, .. } => self.written.retain(|&(known, ..), _| known != connection),
            _ => {}
        }
    }

    fn healed(&mut self, at: u64, number: u32) {
        let Some(fault) = self.seen.get_mut(&number) else { return };
        fault.healed = Some(at);
        if self.quiet {
            return;
        }
        let slot = fault.slot;
        for slot in plan::touched(slot) {
            self.waiting.entry(slot).or_default().push((number, None));
        }
        self.reachable_again(at, slot);
    }

    /// A fault is over: where no other one is in the way, recovery counts from now.
    fn reachable_again(&mut self, at: u64, slot: u8) {
        for slot in plan::touched(slot) {
            if !self.unreachable(slot)
                && let Some(waiting) = self.waiting.get_mut(&slot)
            {
                for (_, since) in waiting {
                    since.get_or_insert(at);
                }
            }
        }
    }

    /// Whether a slot is kept from the broker by a fault that is not healed yet. A node that is down is in everybody's way:
    /// what it led has no leader until the others have noticed.
    fn unreachable(&self, slot: u8) -> bool {
        let between = |fault: &Fault| fault.kind.disturbs_connections() && plan::touches(fault.slot, slot);
        self.seen.values().any(|fault| fault.healed.is_none() && between(fault))
    }

    /// A delivery was settled.
    pub(super) fn settled(&mut self, at: u64, connection: u32, delivery: &Delivery, ledger: &Ledger) {
        self.recovered(at, connection, delivery.at, ledger);
    }

    /// Work that began at `since` came to its end: whoever was healed before has recovered.
    fn recovered(&mut self, at: u64, connection: u32, since: u64, ledger: &Ledger) {
        let Some((_, process)) = ledger.process_of(connection) else { return };
        let Some(waiting) = self.waiting.get_mut(&process.slot) else { return };
        waiting.retain(|&(fault, healed)| {
            let Some(healed) = healed.filter(|&healed| healed <= since) else { return true };
            if let Some(fault) = self.seen.get(&fault) {
                self.recoveries.entry(fault.kind).or_default().push(at - healed);
            }
            false
        });
    }

    /// Whether anything was done to a slot in this time, or so shortly before that it may still tell.
    pub(super) fn disturbed(&self, slot: u8, from: u64, to: u64) -> bool {
        self.seen.values().any(|fault| {
            !fault.void
                && fault.kind.disturbs_connections()
                && plan::touches(fault.slot, slot)
                && fault.began <= to
                && fault.healed.is_none_or(|healed| healed + AFTERMATH >= from)
        })
    }

    /// The same without the stop itself, which is a fault too and no excuse for how it goes.
    pub(super) fn disturbed_besides_stop(&self, slot: u8, from: u64, to: u64) -> bool {
        self.seen.values().any(|fault| {
            !fault.void
                && fault.kind != FaultKind::WorkerDrain
                && fault.kind.disturbs_connections()
                && plan::touches(fault.slot, slot)
                && fault.began <= to
                && fault.healed.is_none_or(|healed| healed >= from)
        })
    }

    /// Each kind's count and recovery.
    pub(super) fn summary(mut self) -> BTreeMap<FaultKind, Recovery> {
        let mut summary = BTreeMap::<FaultKind, Recovery>::new();
        for fault in self.seen.values() {
            let entry = summary.entry(fault.kind).or_default();
            *(if fault.void { &mut entry.void } else { &mut entry.faults }) += 1;
        }
        for (kind, entry) in &mut summary {
            let times = self.recoveries.entry(*kind).or_default();
            times.sort_unstable();
            entry.measured = times.len() as u64;
            entry.superseded = self.superseded.get(kind).copied().unwrap_or_default();
            entry.p50_ms = quantile(times, 50);
            entry.p99_ms = quantile(times, 99);
            entry.max_ms = quantile(times, 100);
        }
        summary
    }

    /// All recoveries together.
    pub(super) fn all(&self) -> (f64, f64, f64) {
        let mut times: Vec<u64> = self.recoveries.values().flatten().copied().collect();
        times.sort_unstable();
        (quantile(&times, 50), quantile(&times, 99), quantile(&times, 100))
    }
}

/// The smallest of the sorted values that so many of a hundred do not exceed, in milliseconds.
fn quantile(sorted: &[u64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    let micros = sorted.get(rank - 1).copied().unwrap_or_default();
    std::time::Duration::from_micros(micros).as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let sorted: Vec<u64> = (1..=200).map(|n| n * 1_000).collect();
        assert!((quantile(&sorted, 50) - 100.0).abs() < 1e-9);
        assert!((quantile(&sorted, 99) - 198.0).abs() < 1e-9);
        assert!((quantile(&sorted, 100) - 200.0).abs() < 1e-9);
        assert!(quantile(&[], 99).abs() < 1e-9);
    }
}

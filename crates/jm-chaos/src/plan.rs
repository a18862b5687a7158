//! What will be done to whom and when, drawn from the seed before anything starts.

use std::{collections::BTreeMap, fmt, time::Duration};

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::{
    cast::{self, CAST},
    history::{EVERYONE, FaultKind, Role},
};

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Counts from 0.
    pub number: u32,
    /// When it begins, in milliseconds from the first message.
    pub at_ms: u64,
    /// How long it lasts, in milliseconds; 0 for what is over at once.
    pub lasts_ms: u64,
    /// What it is.
    pub kind: FaultKind,
    /// The process it is done to; [`EVERYONE`] for the broker's.
    pub slot: u8,
    /// What the kind makes of it: milliseconds of latency, bytes, a node.
    pub size: u64,
}

/// What a campaign runs on and with, beside its seed and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Nodes of the broker: 1 or 3.
    pub brokers: u8,
    /// Whether all queues are quorum queues, declared by the campaign. Otherwise the core declares classic ones.
    #[serde(default)]
    pub quorum: bool,
    /// Whether all workers have `nack_requeue`, and what their handlers depend on is away now and then.
    #[serde(default)]
    pub requeue: bool,
}

impl Setting {
    /// So many nodes: one with classic queues, or a cluster with quorum queues.
    pub fn of(brokers: u8) -> Self {
        Self { brokers, quorum: brokers > 1, requeue: false }
    }

    /// Other campaigns of the same seed have other faults.
    fn salt(self) -> u64 {
        let one_with_quorum = self.quorum && self.brokers == 1;
        u64::from(self.brokers) << 56 | u64::from(one_with_quorum) << 60 | u64::from(self.requeue) << 61
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { brokers, quorum, requeue } = self;
        write!(f, "{brokers} broker(s)")?;
        f.write_str(if *quorum { ", quorum queues" } else { "" })?;
        f.write_str(if *requeue { ", nack_requeue" } else { "" })
    }
}

/// All faults of a campaign, in the order of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What it was drawn from.
    pub seed: u64,
    /// How long messages are published, in seconds.
    pub seconds: u64,
    /// On what, and with what options.
    #[serde(flatten)]
    pub setting: Setting,
    /// The faults.
    pub faults: Vec<Fault>,
}

/// No fault before that: everybody finds its place.
const CALM_BEFORE_MS: u64 = 3_000;
/// No fault begins so long before the end, so that each one's recovery is seen under load.
const CALM_AFTER_MS: u64 = 15_000;
/// After a fault, a process is left alone for so long that its recovery can be told.
const REST_MS: u64 = 1_500;
/// Between the faults of single processes, on average.
const LIGHT_EVERY_MS: u64 = 450;
/// Between those of the broker, from the end of one to the start of the next.
const HEAVY_EVERY_MS: std::ops::Range<u64> = 6_000..14_000;

type Choice = (u32, FaultKind, std::ops::Range<u64>, std::ops::Range<u64>);

/// Weight, kind, how long, how much.
fn light() -> Vec<Choice> {
    use FaultKind::{
        LinkCut, LinkReset, MidFrameReset, Partition, PublisherKill, Refused, SlicedLink, SlowLink, StalledLink,
        WorkerDrain, WorkerFreeze, WorkerKill,
    };
    vec![
        (14, LinkCut, 0..1, 0..1),
        (14, LinkReset, 0..1, 0..1),
        (14, MidFrameReset, 500..501, 1..6_000),
        (6, SlowLink, 500..2_500, 5..80),
        (5, SlicedLink, 200..900, 3..60),
        (5, StalledLink, 200..3_000, 0..1),
        (5, Partition, 500..6_000, 0..1),
        (5, Refused, 200..2_000, 0..1),
        (14, WorkerKill, 0..1, 0..1),
        (10, WorkerDrain, 0..1, 0..1),
        (4, WorkerFreeze, 200..2_000, 0..1),
        (5, PublisherKill, 0..1, 0..1),
    ]
}

fn heavy(setting: Setting) -> Vec<Choice> {
    use FaultKind::{
        BrokerFreeze, BrokerKill, CloseAll, DependencyLoss, DiskAlarm, LeaderKill, MemoryAlarm, PermissionLoss,
        QueueDeletion,
    };
    let nodes = 0..u64::from(setting.brokers);
    let mut choices = vec![
        (4, CloseAll, 0..1, 0..1),
        (3, BrokerKill, 0..2_000, nodes.clone()),
        (2, BrokerFreeze, 500..4_000, nodes.clone()),
        // Three heartbeats of the campaign's 5 s.
        (1, BrokerFreeze, 15_000..15_001, nodes),
        (2, MemoryAlarm, 500..4_000, 0..1),
        (1, DiskAlarm, 500..4_000, 0..1),
        (2, PermissionLoss, 500..3_000, 0..1),
    ];
    // Nobody would declare a deleted quorum queue again.
    choices.push(if setting.quorum { (4, LeaderKill, 0..2_000, 0..5) } else { (3, QueueDeletion, 0..1, 0..1) });
    if setting.requeue {
        choices.push((6, DependencyLoss, 2_000..10_000, 0..1));
    }
    choices
}

impl Plan {
    /// The plan of a seed: the same for the same seed, length and setting.
    pub fn draw(seed: u64, length: Duration, setting: Setting) -> Self {
        let seconds = length.as_secs();
        let end = calm_from_ms(seconds);
        let mut random = Rng::with_seed(seed ^ setting.salt());
        let mut faults = Vec::new();
        broker_faults(&mut random, end, setting, &mut faults);
        process_faults(&mut random, end, &mut faults);
        faults.sort_by_key(|fault| fault.at_ms);
        for (number, fault) in (0..).zip(&mut faults) {
            fault.number = number;
        }
        Self { seed, seconds, setting, faults }
    }

    /// No fault begins after that.
    pub(crate) fn calm_from_ms(&self) -> u64 {
        calm_from_ms(self.seconds)
    }

    /// The same without any fault.
    #[must_use]
    pub fn without_faults(mut self) -> Self {
        self.faults.clear();
        self
    }

    /// How many of each kind.
    pub fn by_kind(&self) -> BTreeMap<FaultKind, usize> {
        self.faults.iter().fold(BTreeMap::new(), |mut counts, fault| {
            *counts.entry(fault.kind).or_default() += 1;
            counts
        })
    }
}

fn calm_from_ms(seconds: u64) -> u64 {
    (seconds * 1_000).saturating_sub(CALM_AFTER_MS)
}

fn broker_faults(random: &mut Rng, end: u64, setting: Setting, faults: &mut Vec<Fault>) {
    let choices = heavy(setting);
    let mut at = CALM_BEFORE_MS + random.u64(0..4_000);
    while at < end {
        let (kind, lasts_ms, size) = draw(random, &choices);
        faults.push(Fault { number: 0, at_ms: at, lasts_ms, kind, slot: EVERYONE, size });
        at += lasts_ms + random.u64(HEAVY_EVERY_MS);
    }
}

fn process_faults(random: &mut Rng, end: u64, faults: &mut Vec<Fault>) {
    let choices = light();
    let mut free_at = [0; CAST.len()];
    let mut at = CALM_BEFORE_MS;
    while at < end {
        let (kind, lasts_ms, size) = draw(random, &choices);
        let role = match kind {
            FaultKind::WorkerKill | FaultKind::WorkerDrain | FaultKind::WorkerFreeze => Some(Role::Worker),
            FaultKind::PublisherKill => Some(Role::Publisher),
            _ => None,
        };
        let free: Vec<u8> = (0_u8..)
            .zip(CAST)
            .filter(|&(slot, part)| role.is_none_or(|role| part.role == role) && free_at[usize::from(slot)] <= at)
            .map(|(slot, _)| slot)
            .collect();
        if let Some(&slot) = random.choice(&free) {
            free_at[usize::from(slot)] = at + lasts_ms + REST_MS;
            faults.push(Fault { number: 0, at_ms: at, lasts_ms, kind, slot, size });
        }
        at += random.u64(1..2 * LIGHT_EVERY_MS);
    }
}

fn draw(random: &mut Rng, choices: &[Choice]) -> (FaultKind, u64, u64) {
    let mut left = random.u32(0..choices.iter().map(|choice| choice.0).sum());
    for (weight, kind, lasts, size) in choices {
        if left < *weight {
            return (*kind, random.u64(lasts.clone()), random.u64(size.clone()));
        }
        left -= weight;
    }
    unreachable!("less than the sum of all weights was drawn")
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, seconds, setting, faults } = self;
        writeln!(f, "plan of seed {seed}: {} faults in {seconds} s on {setting}", faults.len())?;
        for (kind, count) in self.by_kind() {
            writeln!(f, "  {count:>5} {}", kind.label())?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::from_millis(self.at_ms).as_secs_f64();
        write!(f, "#{} at {seconds:.1} s: {}", self.number, self.kind.label())?;
        if self.slot != EVERYONE {
            let part = CAST[usize::from(self.slot)];
            write!(f, " of {} {} ({})", part.role.label(), self.slot, part.queue.name())?;
        }
        if self.lasts_ms > 0 { write!(f, " for {} ms", self.lasts_ms) } else { Ok(()) }
    }
}

/// Whether the slot is one that this fault touches.
pub(crate) fn touches(fault_slot: u8, slot: u8) -> bool {
    fault_slot == EVERYONE || fault_slot == slot
}

/// Every slot that a fault touches.
pub(crate) fn touched(fault_slot: u8) -> impl Iterator<Item = u8> {
    cast::slots(Role::Worker).chain(cast::slots(Role::Publisher)).filter(move |&slot| touches(fault_slot, slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_plan_and_another_seed_another() {
        let plan = |seed, brokers| Plan::draw(seed, Duration::from_mins(10), Setting::of(brokers));
        assert_eq!(plan(1, 1), plan(1, 1));
        assert_ne!(plan(1, 1).faults, plan(2, 1).faults);
        assert_ne!(plan(1, 1).faults, plan(1, 3).faults);
        let requeue = Setting { requeue: true, ..Setting::of(1) };
        assert_ne!(plan(1, 1).faults, Plan::draw(1, Duration::from_mins(10), requeue).faults);
    }

    #[test]
    fn an_hour_has_every_kind_of_fault_and_many_of_them() {
        for (brokers, quorum, requeue) in [(1, false, false), (1, true, true), (3, true, false)] {
            let plan = Plan::draw(7, Duration::from_hours(1), Setting { brokers, quorum, requeue });
            let kinds = plan.by_kind();
            let missing: Vec<_> = FaultKind::ALL.iter().filter(|kind| !kinds.contains_key(kind)).collect();
            let other = if quorum { FaultKind::QueueDeletion } else { FaultKind::LeaderKill };
            assert_eq!(missing, if requeue { vec![&other] } else { vec![&other, &FaultKind::DependencyLoss] });
            assert!(plan.faults.len() > 5_000, "{}", plan.faults.len());
        }
    }

    #[test]
    fn no_process_gets_a_fault_of_its_own_while_it_has_one() {
        let plan = Plan::draw(3, Duration::from_mins(10), Setting::of(1));
        for slot in 0..u8::try_from(CAST.len()).unwrap() {
            let own: Vec<_> = plan.faults.iter().filter(|fault| fault.slot == slot).collect();
            assert!(own.windows(2).all(|pair| pair[0].at_ms + pair[0].lasts_ms + REST_MS <= pair[1].at_ms));
        }
    }

    #[test]
    fn the_end_is_calm_and_so_is_the_start() {
        let plan = Plan::draw(3, Duration::from_mins(2), Setting::of(3));
        assert!(plan.faults.iter().all(|fault| (3_000..105_000).contains(&fault.at_ms)));
    }
}

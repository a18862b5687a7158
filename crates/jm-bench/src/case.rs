//! What is measured, and what it has to come to.

use serde::Serialize;

use crate::{
    job::{Job, Outcome, Side, Work},
    options::{Choice, Options},
};

/// A work that both sides do.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) core: Job,
    pub(crate) plain: Job,
    /// Messages that wait in the queue before each run.
    pub(crate) waiting: u64,
    /// Messages that are published while the run goes on.
    pub(crate) fed: u64,
    pub(crate) targets: Vec<Target>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Quantity {
    Rate,
    Cpu,
    Memory,
    P50,
    P99,
}

/// A bound of the ratio core / plain.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Target {
    pub(crate) quantity: Quantity,
    pub(crate) bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub(crate) fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">= {bound}"),
            Self::AtMost(bound) => write!(f, "<= {bound}"),
        }
    }
}

impl Quantity {
    pub(crate) const ALL: [Self; 5] = [Self::Rate, Self::Cpu, Self::Memory, Self::P50, Self::P99];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Rate => "messages/s",
            Self::Cpu => "client CPU, us/message",
            Self::Memory => "peak memory, MiB",
            Self::P50 => "latency p50, us",
            Self::P99 => "latency p99, us",
        }
    }

    /// Its value in one run, where it has one.
    pub(crate) fn of(self, job: &Job, outcome: &Outcome) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "messages and KiB are far below 2^52")]
        let (messages, peak_kib) = (job.messages as f64, outcome.peak_kib as f64);
        match self {
            // At a fixed rate, the rate says nothing.
            Self::Rate => (job.work != Work::Latency && outcome.seconds > 0.0).then(|| messages / outcome.seconds),
            Self::Cpu => Some(outcome.cpu_seconds * 1e6 / messages),
            Self::Memory => Some(peak_kib / 1024.0),
            Self::P50 => (job.work == Work::Latency).then_some(outcome.p50_micros),
            Self::P99 => (job.work == Work::Latency).then_some(outcome.p99_micros),
        }
    }
}

/// The targets; ratios to the plain loop.
mod wanted {
    use super::{Bound, Quantity, Target};

    const fn at_least(quantity: Quantity, bound: f64) -> Target {
        Target { quantity, bound: Bound::AtLeast(bound) }
    }

    const fn at_most(quantity: Quantity, bound: f64) -> Target {
        Target { quantity, bound: Bound::AtMost(bound) }
    }

    const MEMORY: Target = at_most(Quantity::Memory, 1.2);

    pub(super) const CONSUME_5: [Target; 3] = [at_least(Quantity::Rate, 1.25), at_most(Quantity::Cpu, 0.65), MEMORY];
    pub(super) const CONSUME_50: [Target; 3] = [at_least(Quantity::Rate, 1.6), at_most(Quantity::Cpu, 0.5), MEMORY];
    pub(super) const PUBLISH: [Target; 3] = [at_least(Quantity::Rate, 1.25), at_most(Quantity::Cpu, 0.4), MEMORY];
    pub(super) const PUBLISH_ONE: [Target; 2] = [at_least(Quantity::Rate, 1.0), MEMORY];
    pub(super) const PUBLISH_CHANNEL: [Target; 1] = [at_least(Quantity::Rate, 1.0)];
    pub(super) const LATENCY: [Target; 3] = [at_most(Quantity::P50, 1.05), at_most(Quantity::P99, 1.1), MEMORY];
}

/// The longest that a latency's run lasts, in seconds.
const LATENCY_SECONDS: u64 = 10;
/// Publishing one at a time waits for the broker's disk each time.
const ONE_AT_A_TIME: u64 = 20;

impl Case {
    /// A consuming case: the queue has the messages before it begins.
    pub(crate) fn consume(name: String, job: &Job) -> Self {
        Self { waiting: job.messages, ..Self::of(name, job, &[]) }
    }

    fn of(name: String, job: &Job, targets: &[Target]) -> Self {
        let core = Job { side: Side::Core, ..job.clone() };
        let plain = Job { side: Side::Plain, ..job.clone() };
        Self { name, core, plain, waiting: 0, fed: 0, targets: targets.to_vec() }
    }

    /// All cases that the command line asks for, without the scaling ones.
    pub(crate) fn chosen(options: &Options, uri: &str) -> Vec<Self> {
        let job = Job::from_options(options, uri);
        let mut cases = Vec::new();
        if options.wants(Choice::Consume) {
            for &prefetch in &options.prefetch {
                let targets: &[Target] = match prefetch {
                    5 => &wanted::CONSUME_5,
                    50 => &wanted::CONSUME_50,
                    _ => &[],
                };
                let name = format!("consume, {} workers x prefetch {prefetch}", options.workers);
                let job = Job { prefetch, ..job.clone() };
                cases.push(Self { targets: targets.to_vec(), ..Self::consume(name, &job) });
            }
        }
        if options.wants(Choice::Publish) {
            let job = Job { work: Work::Publish, ..job.clone() };
            cases.push(Self::of("publish pipelined, each confirmed".into(), &job, &wanted::PUBLISH));
        }
        if options.wants(Choice::PublishOne) {
            let messages = (job.messages / ONE_AT_A_TIME).max(1);
            let job = Job { work: Work::PublishOne, messages, ..job.clone() };
            cases.push(Self::of("publish one at a time, confirmed".into(), &job, &wanted::PUBLISH_ONE));
            let mut case = Self::of(
                "publish one at a time, confirmed; the other: a channel for each message, unconfirmed".into(),
                &job,
                &wanted::PUBLISH_CHANNEL,
            );
            case.plain.work = Work::PublishChannelEach;
            cases.push(case);
        }
        if options.wants(Choice::Latency) {
            let messages = (u64::from(options.rate) * LATENCY_SECONDS).min(options.messages);
            let job = Job { work: Work::Latency, messages, ..job };
            let name = format!("end-to-end latency at {} messages/s", options.rate);
            cases.push(Self::of(name, &job, &wanted::LATENCY));
        }
        cases
    }
}

impl Job {
    /// What all jobs have in common.
    pub(crate) fn from_options(options: &Options, uri: &str) -> Self {
        Self {
            side: Side::Core,
            work: Work::Consume,
            uri: uri.to_owned(),
            queue: QUEUE.into(),
            messages: options.messages,
            body_size: options.body_size,
            workers: options.workers,
            prefetch: options.prefetch.first().copied().unwrap_or(5),
            types: 0,
            rate: options.rate,
            bare: options.bare,
        }
    }
}

/// The one queue of a run.
const QUEUE: &str = "bench";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn every_target_stands_with_the_work_that_it_is_for() {
        let options = Options::parse_from(["jm-bench", "--prefetch", "5,50,7"]);
        let cases = Case::chosen(&options, "amqp://");
        let bounds: Vec<(String, usize)> = cases.iter().map(|case| (case.name.clone(), case.targets.len())).collect();
        let targets: Vec<usize> = bounds.iter().map(|(_, targets)| *targets).collect();
        assert_eq!(targets, [3, 3, 0, 3, 2, 1, 3], "{bounds:?}");
        assert!(cases.iter().all(|case| case.core.side == Side::Core && case.plain.side == Side::Plain));
    }

    #[test]
    fn a_bound_is_met_on_its_own_side_only() {
        assert!(Bound::AtLeast(1.25).is_met(1.25) && !Bound::AtLeast(1.25).is_met(1.24));
        assert!(Bound::AtMost(0.4).is_met(0.4) && !Bound::AtMost(0.4).is_met(0.41));
    }
}

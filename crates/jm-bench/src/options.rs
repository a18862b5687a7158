//! The command line.

use clap::{Parser, ValueEnum};

/// Runs jm-mq's core and a plain lapin loop side by side on a private RabbitMQ, and prints the ratios.
///
/// Each work is done by both in turn (A B A B …), each time in a process of its own. The plain loop is what a careful
/// engineer writes with lapin: a channel for each worker, prefetch, an ack for each message; for publishing one confirm
/// channel with a window of awaited confirms. The core has all of its contract on: retries, the handlers' timeout,
/// metrics with a Prometheus recorder, panics caught, results kept.
///
/// It ends with code 0 when every target is met, with 2 when one is missed, with 1 when it could not measure.
#[derive(Debug, Parser)]
#[command(name = "jm-bench", version, after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Messages of each run. One-at-a-time publishing takes a twentieth of it, latency ten seconds' worth.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub(crate) messages: u64,

    /// Bytes of each body.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(32..=16_777_216))]
    pub(crate) body_size: u32,

    /// Workers: channels, each with one message at a time.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) workers: u16,

    /// Messages sent ahead to one worker; each value is a work of its own. The targets are for 5 and 50.
    #[arg(long, value_delimiter = ',', default_values_t = [5, 50])]
    pub(crate) prefetch: Vec<u16>,

    /// Pairs of runs for each work. The median of their ratios counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) rounds: u16,

    /// Messages a second, for latency.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    pub(crate) rate: u32,

    /// Lets the plain side publish messages without id, time and application name, which the core's always have. They
    /// cost the broker, so this compares different messages.
    #[arg(long)]
    pub(crate) bare: bool,

    /// Only these works, comma-separated. Without it all that have a target.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Choice>,

    /// One JSON document in place of the tables.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The works by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// Consume messages that wait, with a handler that does nothing.
    Consume,
    /// Publish many, each confirmed, without waiting for each.
    Publish,
    /// Publish one after the other, each confirmed.
    PublishOne,
    /// From publish to handler, at a steady rate.
    Latency,
    /// The first message after a broker that was killed answers again.
    Reconnect,
    /// How consuming grows: 1 to 200 workers.
    ScaleWorkers,
    /// How consuming grows: bodies of 100 bytes to 1 MiB.
    ScaleBody,
    /// How consuming grows: an empty queue to a million messages waiting.
    ScaleBacklog,
    /// How consuming grows: 1 to 50 message types, each with its handler.
    ScaleTypes,
}

impl Options {
    pub(crate) fn wants(&self, choice: Choice) -> bool {
        use Choice::{Consume, Latency, Publish, PublishOne, Reconnect};
        if self.only.is_empty() {
            return [Consume, Publish, PublishOne, Latency, Reconnect].contains(&choice);
        }
        self.only.contains(&choice)
    }
}

const EXAMPLES: &str = "\
Examples:
  jm-bench                                        everything that has a target, about ten minutes
  jm-bench --only consume --prefetch 5 --rounds 9 one work, more pairs
  jm-bench --only scale-workers,scale-body        how the cost grows
  jm-bench --json > figures.json                  for machines

A busy machine: other processes take from both sides, and the ratios stay roughly right while absolute numbers do not.
Look at the range behind each median before you believe it.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn without_a_choice_all_works_with_a_target_are_done_and_no_others() {
        let options = Options::parse_from(["jm-bench"]);
        assert!(options.wants(Choice::Consume) && options.wants(Choice::Reconnect));
        assert!(!options.wants(Choice::ScaleBody));
        let options = Options::parse_from(["jm-bench", "--only", "scale-body,latency"]);
        assert!(options.wants(Choice::ScaleBody) && options.wants(Choice::Latency));
        assert!(!options.wants(Choice::Consume));
    }
}

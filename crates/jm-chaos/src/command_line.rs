//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use jm_chaos::plan::{Plan, Setting};

/// Breaks a private RabbitMQ and the processes round it, by a plan drawn from a seed, and checks that nothing is lost.
///
/// Publishers and workers are processes that use the core as the services do. What happens is recorded outside the
/// core: the AMQP frames between each process and the broker, the handlers' runs, the faults. A checker then reads the
/// history and says which of eleven invariants held.
///
/// It ends with code 0 when all held, with 1 when one was broken or a password of the run stands in anything that came
/// out, with 2 when the campaign could not be run, with 130 when it was stopped by a signal. The same seed, length,
/// number of brokers, queues and options is the same plan of faults; what the operating system makes of it differs from run to run.
#[derive(Debug, Parser)]
#[command(name = "jm-chaos", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  jm-chaos run --seed 7 --minutes 2              two minutes on one broker
  jm-chaos run --minutes 10 --brokers 3          ten minutes on a cluster of three, by a fresh seed that it prints
  jm-chaos run --queues quorum --nack-requeue    what fails goes back into quorum queues, also while a dependency is away
  jm-chaos plan --seed 7 --minutes 2             what would be done
  jm-chaos run --seed 7 --faults none            the same load without faults: nothing may be done twice then
  jm-chaos check FOLDER --picture timeline.svg   a history that was kept, checked again";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a campaign, and check what came of it.
    Run(Run),
    /// Print the faults that a seed stands for, and do nothing.
    Plan(Seed),
    /// Check the history of a campaign that was kept.
    Check {
        /// Where the history is.
        folder: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) seed: Seed,
    /// Messages a second of all publishers together, unless the workers are behind. As many answers come to it.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(20..=50_000))]
    pub(crate) rate: u32,
    /// Keep the history in this folder, which must be empty. Without it, a temporary folder is kept only when an
    /// invariant was broken.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) keep: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
#[expect(clippy::struct_field_names, reason = "the option that names the group")]
pub(crate) struct Seed {
    /// What the plan is drawn from; a fresh one without it.
    #[arg(long, default_value_t = fastrand::u64(1..1_000_000))]
    pub(crate) seed: u64,
    /// How long messages are published; 1.5 is 90 s. Start, healing and drain come to it.
    #[arg(long, default_value_t = 2.0, value_parser = minutes)]
    pub(crate) minutes: f64,
    /// Nodes: one, or a cluster of three with quorum queues.
    #[arg(long, default_value = "1", value_parser = ["1", "3"])]
    pub(crate) brokers: String,
    /// Which queues. On one node they are classic ones that the workers declare, on three always quorum queues.
    #[arg(long, default_value = "default", value_parser = ["default", "quorum"])]
    pub(crate) queues: String,
    /// All workers have `nack_requeue`, and now and then what their handlers depend on is away for some seconds.
    #[arg(long)]
    pub(crate) nack_requeue: bool,
    /// Which faults.
    #[arg(long, default_value = "all", value_parser = ["all", "none"])]
    pub(crate) faults: String,
}

#[derive(Args, Debug)]
pub(crate) struct Output {
    /// Write the report as JSON too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw the timeline (SVG): throughput, backlog, faults.
    #[arg(long, value_name = "FILE")]
    pub(crate) picture: Option<PathBuf>,
}

impl Seed {
    /// The plan that it stands for.
    pub(crate) fn plan(&self) -> Plan {
        let setting = Setting::of(if self.brokers == "3" { 3 } else { 1 });
        let quorum = setting.quorum || self.queues == "quorum";
        let setting = Setting { quorum, requeue: self.nack_requeue, ..setting };
        let plan = Plan::draw(self.seed, Duration::from_secs_f64(self.minutes * 60.0), setting);
        if self.faults == "none" { plan.without_faults() } else { plan }
    }

    /// The command that does the same again.
    pub(crate) fn replay(&self) -> String {
        let Self { seed, minutes, brokers, queues, nack_requeue, .. } = self;
        let mut command = format!("make chaos SEED={seed} MINUTES={minutes} BROKERS={brokers}");
        if queues != "default" {
            command = format!("{command} QUEUES={queues}");
        }
        if *nack_requeue {
            command += " NACK_REQUEUE=true";
        }
        match std::env::var("JM_TEST_BROKER") {
            Ok(version) if !version.is_empty() => command + " BROKER=" + &version,
            Ok(_) | Err(_) => command,
        }
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    // Shorter, there is no time for any fault.
    if (0.5..=600.0).contains(&minutes) { Ok(minutes) } else { Err("0.5 to 600".to_owned()) }
}

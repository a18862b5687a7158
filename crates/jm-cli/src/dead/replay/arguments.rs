//! The command line of `jm dead replay`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use crate::dead::{QUORUM, filter::Filter, letter::Letter, origin::Target, pace::Rate};

const HELP: &str = "\
Each message is published as it was, to the exchange and with the key that it
first had, mandatory; confirmed by the broker; and only then taken from the dead
letters. What reaches no queue stays there. However jm ends, nothing is lost, and
at most the message in hand is there twice, with the same message id. A lost
connection is opened again. What fails once more during the replay is left alone.

A canary is put back alone, and the next message waits for what becomes of it. It
is good when its worker says that it is done; it has failed when it is a dead
letter again. Nothing is known of it while it is tried again, or when a program
works on it that is none of ours: then jm stops, too, unless told otherwise by
--silence-is-success.

Examples:
  jm dead replay jm.asr --dry-run
  jm dead replay jm.asr --canary 3 --rate 20
  jm dead replay jm.llm --kind timeout --since 2h --limit 100
  jm dead replay jm.llm --to jm.llm          straight to the queue: others that
                                             its exchange feeds get nothing
  jm dead replay --from saved.jsonl          what `jm dead drop --save` saved";

/// Put back what failed, to where it came from
#[derive(Debug, Args)]
#[command(after_help = HELP, after_long_help = format!("{HELP}\n\n{QUORUM}"))]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Arguments {
    /// A worker's queue, its worker's name, or the queue with the dead letters itself
    #[arg(required_unless_present = "from")]
    pub(in crate::dead) queue: Option<String>,
    /// QUEUE is the queue with the dead letters, whatever it is called
    #[arg(long, requires = "queue")]
    pub(in crate::dead) exact: bool,
    /// With --dry-run: look although each look may count as a delivery (--help: quorum queues)
    #[arg(long)]
    pub(super) count_deliveries: bool,
    #[command(flatten)]
    pub(in crate::dead) filter: Filter,
    /// So many at most, the oldest first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::dead) limit: Option<u64>,
    /// So many a second at most
    #[arg(long, value_name = "RATE")]
    pub(in crate::dead) rate: Option<Rate>,
    /// First so many one by one, each only when the one before is done
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, conflicts_with = "from")]
    pub(super) canary: u64,
    /// How long to wait for a canary
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = span)]
    pub(super) canary_wait: Duration,
    /// A canary of which nothing was heard in that time is good
    #[arg(long)]
    pub(super) silence_is_success: bool,
    /// Straight to this queue, wherever they came from
    #[arg(long, value_name = "QUEUE")]
    pub(in crate::dead) to: Option<String>,
    /// Only tell what would be put back
    #[arg(long, conflicts_with = "from")]
    pub(super) dry_run: bool,
    /// Put back what is in this file; FILE.done remembers what was
    #[arg(long, value_name = "FILE")]
    pub(super) from: Option<PathBuf>,
}

impl Arguments {
    /// Where a letter goes.
    pub(in crate::dead) fn target(&self, letter: &Letter) -> Option<Target> {
        match &self.to {
            Some(queue) => Some(Target::queue(queue)),
            None => Target::origin(letter),
        }
    }
}

pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let span: Option<Duration> = text.parse::<jiff::SignedDuration>().ok().and_then(|span| span.try_into().ok());
    let span = span.filter(|span| (Duration::from_secs(1)..=Duration::from_hours(24)).contains(span));
    span.ok_or_else(|| "a time such as 90s, 5m or 1h, from 1s to 24h".to_owned())
}

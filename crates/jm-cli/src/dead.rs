//! `jm dead`: what failed, and why; putting it back, or away.
//!
//! ```text
//! Glance: get without ack, everything handed back ──> Letter ──> Filter ──> list, show
//! Glance and Giver ──> replay: publish, confirm, ack; one at a time ──> Canary
//!                               drop: save, fsync, ack              SavedLetter <─┘
//! ```

mod canary;
mod drop;
mod escaped;
mod filter;
mod giver;
mod glance;
mod headers;
mod letter;
mod list;
mod origin;
mod pace;
mod patience;
mod progress;
mod question;
mod quorum;
mod replay;
mod restore;
mod saved;
mod show;

use clap::{Args, Subcommand};

use self::filter::Filter;
pub(crate) use self::{escaped::escaped_lines, glance::Trouble, letter::Letter, replay::span};
use crate::{configuration::Configuration, exit::Code, failure::Failure, operator::Operator};

/// What failed, and why; put it back safely
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::Arguments),
    Show(show::Arguments),
    Replay(replay::Arguments),
    Drop(drop::Arguments),
}

/// Whose dead letters, and which of them.
#[derive(Clone, Debug, Args)]
pub(crate) struct Choice {
    /// A worker's queue, its worker's name, or the queue with the dead letters itself
    queue: String,
    /// QUEUE is the queue with the dead letters, whatever it is called
    #[arg(long)]
    exact: bool,
    /// Look although each look counts as a delivery (see below: quorum queues)
    #[arg(long)]
    count_deliveries: bool,
    #[command(flatten)]
    filter: Filter,
}

/// What the help of all four says in the end.
const QUORUM: &str = "\
Quorum queues:
  A dead-letter queue is a classic one unless somebody made it otherwise. A
  quorum queue counts each look at a message as a delivery, and RabbitMQ 4 drops
  the message after 20. So jm looks into one only with --count-deliveries, and
  never at a message that was given out 10 times. A replay or drop of all, from
  the first on, looks at nothing it does not take.";

impl Choice {
    /// The queue with the dead letters: of a worker as its configuration has it, of any other queue by the usual name.
    fn queue(&self, configuration: &Configuration) -> String {
        dead_letter_queue(configuration, &self.queue, self.exact)
    }
}

#[expect(clippy::case_sensitive_file_extension_comparisons, reason = "a queue's name, and no file's")]
fn dead_letter_queue(configuration: &Configuration, name: &str, exact: bool) -> String {
    if exact || name.ends_with(".dead") {
        return name.to_owned();
    }
    match configuration.worker_of(name) {
        Ok(worker) => worker.dead_letter_queue(),
        Err(_) => format!("{name}.dead"),
    }
}

pub(crate) async fn run(arguments: Arguments, operator: &Operator<'_>) -> Result<Code, Failure> {
    match arguments.command {
        Command::List(arguments) => list::run(&arguments, operator).await,
        Command::Show(arguments) => show::run(&arguments, operator).await,
        Command::Replay(arguments) => replay::run(&arguments, operator).await,
        Command::Drop(arguments) => drop::run(&arguments, operator).await,
    }
}

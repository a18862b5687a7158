//! `jm dead`: what failed, and why; putting it back, or away.
//!
//! ```text
//! Glance: get without ack, everything handed back ──> Letter ──> Filter ──> list, show
//! Glance and Giver ──> replay: publish, confirm, ack; one at a time ──> Canary
//!                               drop: save, fsync, ack              SavedLetter <─┘
//! ```

mod canary;
mod drop;
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
mod replay;
mod restore;
mod saved;
mod show;

use clap::{Args, Subcommand};

use self::filter::Filter;
pub(crate) use self::{
    glance::{Glance, Purpose, Trouble},
    letter::Letter,
    replay::span,
};
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
    /// Look although each look may count as a delivery (see below: quorum queues)
    #[arg(long)]
    count_deliveries: bool,
    #[command(flatten)]
    filter: Filter,
}

/// What the help of all four says in the end.
const QUORUM: &str = "\
Quorum queues:
  Until RabbitMQ 4.2 a quorum queue counts each look at a message as a delivery,
  and drops the message beyond its delivery limit, 20 unless a policy sets
  another. A policy with delivery-limit -1 on the dead-letter queues ends that;
  `jm topology diff --management URL` prints the command. Without it, list, show
  and replay --dry-run look only with --count-deliveries. Replay and drop always
  work. What goes back to a queue that counts is published to its end as a copy
  before its count is half of the limit, confirmed, and only then acked, so that
  its count starts at 0. That needs the permission to write to amq.default.";

impl Choice {
    /// For what only looks.
    fn look(&self) -> Purpose {
        Purpose::Look { although_counted: self.count_deliveries }
    }

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

//! `jm status`: what waits in the queues, who takes from them, and what failed.

mod oldest;
mod queue;
mod screen;

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use self::{
    queue::{Looks, QueueStatus},
    screen::Screen,
};
use crate::{
    alarms,
    exit::Code,
    failure::Failure,
    management::Management,
    operator::Operator,
    output::{Align, BAD, FAINT, Table, Text, styled},
};

/// What waits in the queues, who takes from them, and what failed
#[derive(Debug, Args)]
#[command(after_help = "\
Columns:
  ready      messages that wait for a worker
  unacked    messages that workers have in hand
  in/s       messages published, a second
  out/s      messages acked, a second
  dead       messages in the queue's dead-letter queue
  oldest     how long ago the first of these failed

AMQP tells ready, consumers, dead and oldest; the others need the management
API (--management, or management.url). From RabbitMQ 4.2.6 on AMQP tells counts
only to users with a permission on the queue; others have them from the API,
some seconds late. The oldest dead letter is taken out
unsettled and put back to its place, which marks it as redelivered and changes
nothing else. Where a quorum queue counts such looks against a delivery limit
(`jm dead list --help`) it is left alone.

Alarms come first, and below the table what else needs an operator: a queue that
is missing, messages without a consumer. With any of them it ends with 1.

Examples:
  jm status
  jm status jm.asr jm.llm
  jm status --watch=5
  jm status --json | jq '.queues[] | select(.dead_letters > 0)'")]
pub(crate) struct Arguments {
    /// Only these queues, by their names or their workers'
    #[arg(value_name = "QUEUE")]
    queues: Vec<String>,
    /// Again every so many seconds, in place; 2 if none are given
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

/// The whole answer. The keys are for programs: they stay.
#[derive(Debug, Serialize)]
struct Status {
    vhost: String,
    /// Nodes that do not run, memory and disk alarms, partitions, blocked publishers.
    alarms: Vec<String>,
    /// Queues that are missing, and messages that no consumer takes.
    problems: Vec<String>,
    queues: Vec<QueueStatus>,
    /// What is not known, and why.
    notes: Vec<String>,
}

pub(crate) async fn run(arguments: &Arguments, operator: &Operator<'_>) -> Result<Code, Failure> {
    // Names are looked up before anything is dialled.
    operator.configuration.workers_of(&arguments.queues)?;
    let management = Management::new(&operator.configuration.management, &operator.configuration.rabbitmq)?;
    match arguments.watch {
        None => {
            let status = look(arguments, operator, management.as_ref(), &mut Looks::default()).await?;
            if operator.output.is_json() {
                operator.output.json(&status)?;
            } else {
                operator.output.line(shown(&status));
            }
            Ok(if status.alarms.is_empty() && status.problems.is_empty() { Code::Ok } else { Code::Found })
        }
        Some(seconds) => watch(arguments, operator, management.as_ref(), Duration::from_secs(seconds)).await,
    }
}

/// Until Ctrl-C, which is this command's usual end. A broker that goes away is told of, and waited for.
async fn watch(
    arguments: &Arguments,
    operator: &Operator<'_>,
    management: Option<&Management>,
    every: Duration,
) -> Result<Code, Failure> {
    let mut screen = Screen::new(operator.output);
    let mut looks = Looks::default();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let _attention = operator.interrupt.attend();
    loop {
        let looking = async {
            ticks.tick().await;
            look(arguments, operator, management, &mut looks).await
        };
        let status = tokio::select! {
            status = looking => status,
            _ = operator.interrupt.requested() => return Ok(Code::Ok),
        };
        if operator.output.is_json() {
            // One answer a line.
            operator.output.json_line(&match status {
                Ok(status) => serde_json::to_value(status).map_err(std::io::Error::from)?,
                Err(failure) => serde_json::json!({ "error": failure.to_string() }),
            })?;
        } else {
            let text = status.map_or_else(|failure| Text::wrapped(&failure.to_string(), ""), |status| shown(&status));
            let time = Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC");
            let head = styled(FAINT, format_args!("{time}, every {} s", every.as_secs()));
            screen.show(&Text::joined([head, Text::default(), text]));
        }
    }
}

async fn look(
    arguments: &Arguments,
    operator: &Operator<'_>,
    management: Option<&Management>,
    looks: &mut Looks,
) -> Result<Status, Failure> {
    let connection = operator.connect("status").await?;
    let mut notes = Vec::new();
    let alarms = alarms(operator, management, looks, &mut notes).await?;
    let mut queues = Vec::new();
    for worker in operator.configuration.workers_of(&arguments.queues)? {
        queues.push(QueueStatus::look(worker, &connection, management, looks, &mut notes).await?);
    }
    connection.close().await;
    if management.is_none() {
        notes.push(
            "unacked, in/s and out/s: AMQP does not tell; the management API does (--management http://host:15672)"
                .to_owned(),
        );
    }
    notes.dedup();
    let problems = queues.iter().flat_map(QueueStatus::problems).collect();
    Ok(Status { vhost: operator.configuration.rabbitmq.vhost.clone(), alarms, problems, queues, notes })
}

/// The nodes', where the management API reports them; else whether publishers are blocked, which costs the broker two
/// refused messages, and is asked once.
async fn alarms(
    operator: &Operator<'_>,
    management: Option<&Management>,
    looks: &mut Looks,
    notes: &mut Vec<String>,
) -> Result<Vec<String>, Failure> {
    if let Some(management) = management {
        match alarms::of_nodes(management).await {
            Ok(raised) => return Ok(raised),
            Err(untold) => notes.push(untold.to_string()),
        }
    }
    if looks.blocked.is_none() {
        looks.blocked = Some(alarms::blocked(operator).await?);
    }
    Ok(looks.blocked.iter().flatten().cloned().collect())
}

/// For people.
fn shown(status: &Status) -> Text {
    let columns = [
        ("queue", Align::Left),
        ("ready", Align::Right),
        ("unacked", Align::Right),
        ("consumers", Align::Right),
        ("in/s", Align::Right),
        ("out/s", Align::Right),
        ("dead", Align::Right),
        ("oldest", Align::Right),
    ];
    let mut table = Table::new(&columns);
    let now = Timestamp::now();
    for queue in &status.queues {
        table.row(queue.cells(now));
    }
    let notes = status.notes.iter().map(|note| Text::wrapped(note, ""));
    let bad = |text: String| Text::wrapped(&text, "").styled(BAD);
    let alarms = status.alarms.iter().map(|alarm| bad(format!("ALARM {alarm}")));
    let problems = status.problems.iter().map(|problem| bad(problem.clone()));
    Text::joined(alarms.chain([table.into()]).chain(problems).chain(notes))
}

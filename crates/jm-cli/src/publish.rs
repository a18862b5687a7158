//! `jm publish`: one message, checked before it is sent, confirmed, and its answer if it is wanted.

mod answer;
mod body;

use std::{path::PathBuf, time::Duration};

use clap::Args;
use jm_mq_core::{Message, Outgoing};
use jm_tasks::{MessageType, queue};

use self::{answer::Answer, body::Source};
use crate::{dead::span, exit::Code, failure::Failure, operator::Operator, schema};

const HELP: &str = "\
The body is checked against the type's schema (`jm schema TYPE`) before anything
is sent. What is printed is the message id, or with --wait the answer.

Examples:
  jm publish record.deleted --json '{\"record_id\":\"note-1\",\"revision\":2}'
  jm publish llm.chat --file chat.json --wait
  jm publish asr.transcribe --file task.json
  jq -c .task notes.json | jm publish embed.text -";

/// Send a message, checked against its schema
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The AMQP type, such as llm.chat
    #[arg(value_name = "TYPE")]
    message_type: String,
    /// The body from standard input
    #[arg(value_name = "-", value_parser = ["-"], hide_possible_values = true, group = "body")]
    stdin: Option<String>,
    /// The body from a file; `-` is standard input
    #[arg(long, value_name = "FILE", group = "body")]
    file: Option<PathBuf>,
    // By this id it stands in for the flag that every other command has.
    /// The body itself
    #[arg(id = "json", long = "json", value_name = "JSON", group = "body")]
    json: Option<String>,
    /// Straight to this queue instead of the type's
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// The message id; a repeat of the same work has the same
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Wait for the answer, and print it
    #[arg(long)]
    wait: bool,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = span)]
    timeout: Duration,
}

pub(crate) async fn run(arguments: Arguments, operator: &Operator<'_>) -> Result<Code, Failure> {
    let message_type = schema::known(&arguments.message_type)?;
    if arguments.wait && message_type.queue == queue::RECORD_EVENTS && arguments.queue.is_none() {
        return Err(Failure::usage(format_args!(
            "`{}` is an event, and nobody answers events; leave out --wait",
            message_type.name
        )));
    }
    let source = Source::of(arguments.stdin.is_some(), arguments.file.as_deref(), arguments.json.as_deref())?;
    let (body, record) = body::read(message_type, source).await?;
    let mut message = Message::new(message_type.name, body);
    if let Some(id) = &arguments.id {
        message = message.message_id(id);
    }
    if let Some(record) = record {
        message = message.correlation_id(&record);
    }
    let answer = if arguments.wait { Some(Answer::listen(operator).await?) } else { None };
    if let Some(answer) = &answer {
        message = message.reply_to(answer.queue());
    }
    let id = message.properties().message_id().as_ref().map(ToString::to_string).unwrap_or_default();
    let outgoing = destination(message_type, arguments.queue.as_deref(), message, operator);
    let publisher = operator.publisher()?;
    let published = publisher.publish(&outgoing).await;
    publisher.close().await;
    published?;
    match answer {
        None => operator.output.line(&id),
        Some(answer) => {
            operator.output.note(format_args!("sent as {id}"));
            answer.tell(&id, &outgoing, arguments.timeout, operator.output).await?;
        }
    }
    Ok(Code::Ok)
}

/// Where the worker of this type is configured to have its tasks from.
fn destination(message_type: &MessageType, queue: Option<&str>, message: Message, operator: &Operator<'_>) -> Outgoing {
    if let Some(queue) = queue {
        return Outgoing::to_queue(queue, message);
    }
    let worker = operator.configuration.workers.iter().find(|worker| worker.worker.queue == message_type.queue);
    match worker {
        Some(worker) => Outgoing::new(&worker.topology.exchange, &worker.topology.routing_key, message),
        None => Outgoing::new(message_type.queue, message_type.queue, message),
    }
}

//! The answer to a task: it comes to a queue of ours, which goes with the connection.

use std::time::Duration;

use futures_util::StreamExt as _;
use jm_mq_core::{ConnectError, Connection, FieldTable, Outgoing};
use lapin::{
    Channel, Consumer,
    options::{BasicConsumeOptions, QueueDeclareOptions},
};
use serde_json::Value;
use tokio::time::timeout;

use crate::{dead::escaped_lines, exit::Code, failure::Failure, operator::Operator, output::Output};

#[derive(Debug)]
pub(super) struct Answer {
    connection: Connection,
    /// Ends with its last handle.
    _channel: Channel,
    answers: Consumer,
    queue: String,
}

impl Answer {
    pub(super) async fn listen(operator: &Operator<'_>) -> Result<Self, Failure> {
        let lost = |error: lapin::Error| ConnectError::Lost(error.to_string());
        let connection = operator.connect("answer").await?;
        let channel = connection.channel().await?;
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let declare = channel.queue_declare("".into(), options, FieldTable::default());
        let queue = connection.within("declaring a queue for the answer", declare).await?.map_err(lost)?;
        let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
        let consume = channel.basic_consume(queue.name().clone(), "".into(), options, FieldTable::default());
        let answers = connection.within("listening for the answer", consume).await?.map_err(lost)?;
        Ok(Self { connection, _channel: channel, answers, queue: queue.name().to_string() })
    }

    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    /// Waits for the answer and prints it. Only the task's worker knows the queue.
    pub(super) async fn tell(
        mut self,
        id: &str,
        task: &Outgoing,
        limit: Duration,
        output: Output,
    ) -> Result<(), Failure> {
        let queue = task.routing_key();
        let Ok(next) = timeout(limit, self.answers.next()).await else {
            return Err(Failure::new(
                Code::Found,
                format_args!(
                    "no answer to {id} within {}s; if it has failed, `jm dead show {queue} --id {id}` says why; \
                     `jm status` whether anybody works on `{queue}`; --timeout waits longer",
                    limit.as_secs()
                ),
            ));
        };
        let delivery = match next {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => return Err(ConnectError::Lost(error.to_string()).into()),
            None => return Err(ConnectError::Lost("the broker deleted the queue for the answer".into()).into()),
        };
        match serde_json::from_slice::<Value>(&delivery.data) {
            Ok(answer) => output.line(escaped_lines(&serde_json::to_string_pretty(&answer).unwrap_or_default())),
            Err(_) => output.line(escaped_lines(&String::from_utf8_lossy(&delivery.data))),
        }
        self.connection.close().await;
        Ok(())
    }
}

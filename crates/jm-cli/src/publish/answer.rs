//! The answer to a task: it comes to a queue of ours, which goes with the connection.

use std::time::Duration;

use jm_mq_core::Outgoing;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    exit::Code,
    failure::Failure,
    inbox::Inbox,
    operator::Operator,
    output::{Output, Text},
};

#[derive(Debug)]
pub(super) struct Answer(Inbox);

impl Answer {
    pub(super) async fn listen(operator: &Operator<'_>) -> Result<Self, Failure> {
        Ok(Self(Inbox::open(operator, "answer").await?))
    }

    pub(super) fn queue(&self) -> &str {
        self.0.queue()
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
        let Ok(next) = timeout(limit, self.0.next()).await else {
            return Err(Failure::new(
                Code::Found,
                format_args!(
                    "no answer to {id} within {}s; if it has failed, `jm dead show {queue} --id {id}` says why; \
                     `jm status` whether anybody works on `{queue}`; --timeout waits longer",
                    limit.as_secs()
                ),
            ));
        };
        let delivery = next?;
        match serde_json::from_slice::<Value>(&delivery.data) {
            Ok(answer) => output.json(&answer)?,
            Err(_) => output.line(Text::lines(String::from_utf8_lossy(&delivery.data))),
        }
        self.0.close().await;
        Ok(())
    }
}

//! The message at the head of a dead-letter queue: looked at, and put back.

use jiff::Timestamp;
use jm_mq_core::{BasicProperties, Connection};
use lapin::options::{BasicGetOptions, BasicNackOptions};
use serde::Serialize;

use crate::{amqp, dead::Letter, failure::Failure};

/// When it failed, what it is, and why it failed. The keys are for programs: they stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Oldest {
    pub(super) at: Timestamp,
    #[serde(rename = "type")]
    message_type: Option<String>,
    error_kind: Option<String>,
}

/// The first message of a queue in which looks cost nothing; `None` if there is none, or it does not say when it failed.
///
/// It is taken with `basic.get`, unsettled, and given back by `nack(requeue=true)`: it keeps its place. A consumer would
/// be given as many as its prefetch, and show in the broker's lists. Should this process die in between, the broker
/// puts it back as well.
pub(super) async fn oldest(connection: &Connection, queue: &str) -> Result<Option<Oldest>, Failure> {
    let name = amqp::short(queue)?;
    let looked = amqp::ask(connection, "looking at the oldest dead letter", async |channel| {
        let Some(message) = channel.basic_get(name, BasicGetOptions::default()).await? else { return Ok(None) };
        message.nack(BasicNackOptions { requeue: true, multiple: false }).await?;
        Ok(read(message.delivery.properties))
    });
    // A queue that is gone meanwhile, or not ours to read from, tells nothing.
    Ok(looked.await?.unwrap_or_default())
}

fn read(properties: BasicProperties) -> Option<Oldest> {
    let letter = Letter::new(properties, Vec::new());
    Some(Oldest {
        at: letter.failed_at()?,
        message_type: letter.message_type().map(ToOwned::to_owned),
        error_kind: letter.error_kind(),
    })
}
